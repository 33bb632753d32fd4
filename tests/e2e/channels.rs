//! Names, and what consumers are given.

use std::process::Command;

use crate::registry::OwnRegistry;
use crate::support::{PROGRAM, Project, Ran};

fn without_a_manifest() -> Project {
    let project = Project::of_images(&["envoy-prepare"]).with("LATTICE_IMAGES_REGISTRY", "");
    std::fs::remove_file(project.path("images.yaml")).expect("removed");
    project
}

#[test]
fn channels_shows_the_four_of_a_person() {
    let ran = Project::of_images(&["envoy-prepare"])
        .with("LATTICE_IMAGES_REGISTRY", "")
        .run(&["channels"])
        .ok();
    let rows: Vec<Vec<&str>> = ran.stdout.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            ["kevin", "kevin-", "gcr.io/lattice-dev/kevin-envoy-prepare"],
            ["kevin-debug", "kevin-debug-", "gcr.io/lattice-dev/kevin-debug-envoy-prepare"],
            ["stable", "stable-", "gcr.io/lattice-dev/stable-envoy-prepare"],
            ["stable-debug", "stable-debug-", "gcr.io/lattice-dev/stable-debug-envoy-prepare"],
        ]
    );
}

#[test]
fn env_is_one_line_that_shells_can_use_anywhere() {
    let project = without_a_manifest();
    let ran = project.run(&["channels", "env", "--debug"]).ok();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("LATTICE_CONTAINER_REPO_PREFIX=kevin-debug-\n", "")
    );
    for script in [
        "eval \"$($P channels env)\"; echo $LATTICE_CONTAINER_REPO_PREFIX",
        "export $($P channels env); sh -c 'echo $LATTICE_CONTAINER_REPO_PREFIX'",
        "env $($P channels env) sh -c 'echo $LATTICE_CONTAINER_REPO_PREFIX'",
    ] {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script])
            .current_dir(project.path("."))
            .env("P", PROGRAM)
            .env("LATTICE_IMAGES_USER", "kevin");
        assert_eq!(Ran::of(shell.output().expect("sh runs")).ok().stdout, "kevin-\n", "{script}");
    }
}

#[test]
fn backend_vars_are_four_words() {
    let ran = without_a_manifest().run(&["channels", "backend-vars", "--stable"]).ok();
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "--backend-var",
            "lattice-container-registry=gcr.io/lattice-dev",
            "--backend-var",
            "lattice-container-repo-prefix=stable-"
        ]
    );
}

#[test]
fn a_consumer_needs_only_the_names_of_a_manifest() {
    let manifest = |registry: &str| {
        format!(
            "registry: {registry}\nstable: {{ registry: gcr.io/apart }}\nimages:\n  base: {{ context: none, push: false }}\n  \
             api: {{ context: '${{UNSET}}', secrets: ['id=a,src=none'], ssh: [default], args: {{ A: '${{UNSET:?}}' }} }}\n"
        )
    };
    let project = Project::new(&manifest("gcr.io/own")).with("LATTICE_IMAGES_REGISTRY", "");
    project.run(&["push-all", "--dry-run"]).ended(2);
    let prefix = "LATTICE_CONTAINER_REPO_PREFIX=kevin-\n";
    assert_eq!(project.run(&["channels", "env"]).ok().stdout, prefix);
    let vars = |arguments: &[&str]| project.run(&[&["channels", "backend-vars"], arguments].concat());
    assert!(vars(&[]).ok().stdout.contains("registry=gcr.io/own "));
    assert!(vars(&["--stable"]).ok().stdout.contains("registry=gcr.io/apart "));
    assert!(project.run(&["channels"]).ok().stdout.contains("gcr.io/own/kevin-api\n"));
    project.run(&["channels", "env", "--user", "x-api"]).ended(2);

    project.write("images.yaml", manifest("'${UNSET}'"));
    assert_eq!(project.run(&["channels", "env"]).ok().stdout, prefix);
    vars(&[]).ended(2).says(&["images.yaml:1: in `registry`", "`UNSET` is not set"]);
    vars(&["--registry", "gcr.io/given"]).ok();
    project.write("images.yaml", "regstry: gcr.io/own\n");
    vars(&[]).ended(2).says(&["images.yaml:1: ", "did you mean `registry`?"]);
}

#[test]
fn the_name_is_the_os_users_and_not_a_variables() {
    let project = without_a_manifest()
        .with("LATTICE_IMAGES_USER", "")
        .with("USER", "somebody")
        .with("LOGNAME", "somebody");
    let whoami = Ran::of(Command::new("whoami").output().expect("whoami runs")).stdout;
    let ran = project.run(&["channels", "env"]).ok();
    assert_eq!(
        ran.stdout,
        format!("LATTICE_CONTAINER_REPO_PREFIX={}-\n", whoami.trim().to_lowercase())
    );
    if whoami.trim() == "root" {
        assert!(ran.stderr.contains("shared by everyone who builds as root"), "{}", ran.stderr);
        let under_sudo = project.with("SUDO_USER", "kevin");
        under_sudo
            .run(&["channels", "env"])
            .ended(2)
            .says(&["nobody's own", "usermod -aG docker kevin", "--user kevin"]);
        under_sudo.run(&["channels", "env", "--user", "kevin"]).ok();
    }
}

#[test]
fn names_that_would_write_into_another_channel_are_refused() {
    let project = Project::of_images(&["envoy-prepare"]).with("DOCKER_HOST", "unix:///nowhere/docker.sock");
    for name in [
        "stable",
        "STABLE",
        "stable-x",
        "x-debug",
        "kevin-envoy-prepare",
        "../x",
        "a/b",
        "é",
        "a b",
        "$(id)",
        "-",
        "\u{1b}[31mx",
    ] {
        let ran = project
            .run(&["push-all", &format!("--user={name}")])
            .ended(2)
            .says(&["cannot be a channel", "--user NAME"]);
        assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
    }
    project
        .run(&["push-all", "--stable", "--user", "kevin"])
        .ended(2)
        .says(&["exclude each other"]);
    project
        .run(&["push-all", "--registry", "https://gcr.io/x"])
        .ended(2)
        .says(&["without a scheme", "HOST/PATH"]);
}

#[test]
fn a_channel_that_is_anothers_image_is_refused() {
    let registry = OwnRegistry::that_deletes();
    let project = Project::of_api_in(&registry.host);
    project.run(&["push-all"]).ok();
    let aged = project.registry.put_aged("kevin-api", "latest");
    let writes = [
        &["channels", "delete", "kevin-api", "--yes"][..],
        &["channels", "clean", "kevin-api", "--yes"],
        &["channels", "copy", "kevin", "kevin-api"],
        &["channels", "rollback", "kevin-api"],
    ];
    for write in writes {
        project.run(write).ended(2).says(&[
            "`kevin-api` is no channel",
            "is where the image `api` of the channel `kevin` lives",
            "channels list",
        ]);
    }
    // without a manifest nothing tells its name, and what is there is no record
    std::fs::remove_file(project.path("images.yaml")).expect("removed");
    project.run(writes[0]).ended(1).says(&["there is no channel"]);
    project.run(writes[1]).ok();
    assert_eq!(project.registry.digest("kevin-api"), Some(aged));
    project
        .run(&["channels", "show", "Kevin"])
        .ended(2)
        .says(&["`Kevin` is no channel: it may hold lower-case letters", "channels list"]);
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let project = without_a_manifest();
    for arguments in [&["channels", "env"][..], &["schema"], &["completions", "bash"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("opened");
        let ran = project.command(".", arguments).stdout(full).output().expect("runs");
        Ran::of(ran).ended(1).says(&["the result could not be written", "No space left"]);
    }
}

#[test]
fn help_is_documentation() {
    let project = without_a_manifest();
    for command in [
        "push-all",
        "push-image",
        "build",
        "channels",
        "channels env",
        "channels backend-vars",
    ] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let ran = project.run(&words).ok();
        assert!(
            ran.stdout.contains("Examples:") && ran.stdout.contains("--registry"),
            "{}",
            ran.stdout
        );
    }
    project.run(&[]).ended(2);
    project.run(&["push-everything"]).ended(2);
}
