//! What the program finds of its surroundings, and what it tells of itself.

use std::fs;
use std::process::Command;

use crate::registry::{HTPASSWD, OwnRegistry};
use crate::support::{NOWHERE, Project, Ran};

/// What was checked, and whether it is well.
fn checked(ran: &Ran) -> Vec<(&str, bool)> {
    ran.stdout
        .lines()
        .filter_map(|line| {
            let (is_well, rest) = match line.strip_prefix("ok") {
                Some(rest) => (true, rest),
                None => (false, line.strip_prefix("not ok")?),
            };
            Some((rest.split_whitespace().next()?, is_well))
        })
        .collect()
}

#[test]
fn where_all_is_well_nothing_is_to_be_mended() {
    let project = Project::of_images(&["api"]);
    project.commit_all("master");
    let ran = project.run(&["doctor"]).ok();
    let all = ["manifest", "user", "git", "builder", "credentials", "registry", "push"];
    assert_eq!(checked(&ran), all.map(|what| (what, true)), "{}", ran.stdout);
    assert!(!ran.stdout.contains("hint"), "{}", ran.stdout);
    assert!(ran.stderr.contains("a courtesy"), "{}", ran.stderr);
}

#[test]
fn each_thing_that_is_not_well_is_told_with_how_to_mend_it() {
    let project = Project::new("registry: 127.0.0.1:1/x\nimages: { api: { contxt: api } }").with("DOCKER_HOST", NOWHERE);
    let project = project
        .with("LATTICE_IMAGES_USER", "stable")
        .with("LATTICE_IMAGES_BUILDER", "default");
    let project = project.with("LATTICE_IMAGES_REGISTRY", "");
    let ran = project.run(&["doctor"]).ended(1);
    let wrong = [
        ("manifest", false),
        ("user", false),
        ("git", false),
        ("builder", false),
        ("credentials", true),
        ("registry", false),
    ];
    assert_eq!(checked(&ran), wrong, "{}", ran.stdout);
    for part in [
        "images.yaml:2: ",
        "did you mean `context`?",
        "--user NAME",
        "/nowhere/docker.sock",
        "127.0.0.1:1 cannot be reached",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
}

#[test]
fn a_right_that_is_missing_and_a_branch_that_is_missing_are_told() {
    let registry = OwnRegistry::start(Some(HTPASSWD));
    let project = Project::in_registry("images: { api: { context: . } }", &registry.host).file("Dockerfile", "FROM scratch\n");
    project.commit_all("main");
    let ran = project.run(&["doctor"]).ended(1);
    assert_eq!(checked(&ran)[4..], [("credentials", true), ("registry", false)], "{}", ran.stdout);
    for part in ["there is no branch `master`", "docker login"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
}

#[test]
fn completions_pages_and_the_schema_are_printed() {
    let project = Project::new("");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = project.run(&["completions", shell]).ok();
        assert!(ran.stdout.contains("push-image") && ran.stdout.contains("with-debug"), "{shell}");
        if shell == "bash" {
            fs::write(project.path("completions"), ran.stdout).expect("written");
            let script = r#". ./completions; COMP_WORDS=(lattice-images "$@"); COMP_CWORD=$#
                _lattice__images lattice-images "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; echo "${COMPREPLY[@]}""#;
            for (words, completed) in [
                (&["push-i"][..], "push-image"),
                (&["push-all", "--with-d"], "--with-debug"),
                (&["channels", "hi"], "history"),
            ] {
                let bash = Command::new("bash")
                    .current_dir(project.path("."))
                    .args(["-c", script, "bash"])
                    .args(words)
                    .output();
                assert_eq!(Ran::of(bash.expect("bash runs")).ok().stdout.trim(), completed, "{words:?}");
            }
        }
    }
    let page = project.run(&["man"]).ok().stdout;
    assert!(
        page.contains(".TH lattice-images 1") && page.contains("lattice\\-images\\-doctor(1)"),
        "{page}"
    );
    project.run(&["man", "--dir", "pages"]).ok();
    assert!(project.path("pages/lattice-images-channels-copy.1").is_file());
    assert_eq!(project.run(&["schema"]).ok().stdout, include_str!("../../src/manifest/schema.json"));
}
