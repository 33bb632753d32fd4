//! The main job: build a channel's images and push them.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::builders::needs_no_daemon;
use crate::support::{NOWHERE, Project};

/// A pipe and what a link leads to are written to; what cannot be written is told before anything is done.
#[test]
fn what_is_written_at_the_end_goes_where_a_person_says() {
    let project = Project::of_images(&["api"]);
    for option in ["--metadata-file", "--timings"] {
        project
            .run(&["push-all", option, "nowhere/out"])
            .ended(2)
            .says(&["nowhere/out cannot be written"]);
    }
    assert!(project.registry.digest("kevin-api").is_none());
    project.write("real.json", "old");
    symlink("real.json", project.path("link.json")).expect("linked");
    project.run(&["push-all", "--metadata-file", "link.json"]).ok();
    let written = || fs::read_to_string(project.path("real.json")).expect("read");
    assert!(written().contains("kevin-api:latest") && project.path("link.json").is_symlink());
    let through = project.run(&["push-all", "-q", "--metadata-file", "/dev/stdout"]).ok().stdout;
    assert!(through.starts_with("[\n") && through.contains("kevin-api:latest"), "{through}");
}

#[test]
fn push_all_pushes_every_image_to_the_users_channel() {
    let project = Project::of_images(&["api", "web"]);
    let ran = project.run(&["push-all", "--metadata-file", "out.json"]).ok();
    let metadata: Value = serde_json::from_slice(&fs::read(project.path("out.json")).expect("read")).expect("JSON");
    for (index, image) in ["api", "web"].iter().enumerate() {
        let digest = project.registry.digest(&format!("kevin-{image}")).expect(image);
        assert!(
            ran.stdout.contains(&digest),
            "the table has the digest that the registry answers: {}",
            ran.stdout
        );
        let entry = &metadata[index];
        assert_eq!(entry["image"], **image);
        assert_eq!(entry["variant"], "normal");
        assert_eq!(entry["reference"], format!("{}/kevin-{image}:latest", project.registry));
        assert_eq!(entry["digest"], digest);
        assert_eq!(project.registry.config(&format!("kevin-{image}"))["architecture"], "amd64");
        assert_eq!(
            project.registry.files(&format!("kevin-{image}"))["data"].content,
            format!("{image} of {}", project.registry).as_bytes()
        );
    }
    assert!(ran.stdout.contains("prefix kevin-"), "{}", ran.stdout);
    assert!(
        !ran.stderr.contains('\u{1b}') && !ran.stdout.contains('\u{1b}'),
        "no colours in a pipe"
    );
    assert!(
        ran.stderr.contains("api | ") && ran.stderr.contains("COPY data /data"),
        "lines have their image before them: {}",
        ran.stderr
    );
    assert!(project.registry.digest("stable-api").is_none());
}

#[test]
fn quiet_prints_reference_and_digest_and_nothing_else() {
    let project = Project::of_images(&["api"]);
    let ran = project.run(&["push-all", "-q"]).ok();
    let digest = project.registry.digest("kevin-api").expect("pushed");
    assert_eq!(ran.stdout, format!("{}/kevin-api@{digest}\n", project.registry));
    assert_eq!(ran.stderr, "");
    project.write(
        "images.yaml",
        "images:\n  api: { context: api }\n  base: { context: api, push: false }\n",
    );
    assert_eq!(
        project.run(&["push-all", "-q"]).ok().stdout.lines().count(),
        1,
        "what is not pushed has no reference"
    );
}

#[test]
fn with_debug_pushes_both_channels() {
    let project = Project::of_images(&["api"]).busybox("busybox").file(
        "images.yaml",
        "debug: { utilities: ./busybox }\nimages: { api: { context: api } }\n",
    );
    let ran = project.run(&["push-all", "--with-debug"]).ok();
    assert!(project.registry.digest("kevin-api").is_some() && project.registry.digest("kevin-debug-api").is_some());
    assert!(ran.stdout.contains("prefix kevin-debug-"), "{}", ran.stdout);
}

#[test]
fn push_image_pushes_the_named_images_and_builds_what_they_are_from() {
    let project = Project::new("images:\n  api: { context: api }\n  base: { context: base, push: false }\n  other: { context: other }\n")
        .file("api/Dockerfile", "FROM base\nCOPY --from=other /o /from-other\n")
        .file("base/Dockerfile", "FROM scratch\nCOPY b /b\n")
        .file("base/b", "b")
        .file("other/Dockerfile", "FROM scratch\nCOPY o /o\n")
        .file("other/o", "o");
    project.run(&["push-image", "api"]).ok();
    let files = project.registry.files("kevin-api");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["b", "from-other"]);
    assert!(project.registry.digest("kevin-base").is_none() && project.registry.digest("kevin-other").is_none());
    project
        .run(&["push-image", "base"])
        .ended(2)
        .says(&["is not pushed", "lattice-images build base"]);
    project.run(&["push-image", "apii"]).ended(2).says(&[
        "image `apii` is not in images.yaml (images: api, base, other)",
        "did you mean `api`?",
    ]);
}

#[test]
fn build_leaves_images_in_the_daemon_and_pushes_nothing() {
    if needs_no_daemon() {
        return;
    }
    let project = Project::of_images(&["api", "web"]);
    let ran = project.run(&["build", "api", "-q"]).ok();
    let reference = format!("{}/kevin-api:latest", project.registry);
    assert_eq!(ran.stdout, project.docker(&["image", "inspect", "--format", "{{.Id}}", &reference]));
    assert!(project.registry.digest("kevin-api").is_none());
}

#[test]
fn a_sibling_means_this_very_build_and_no_older_one() {
    let project = Project::new("images:\n  base-one: { context: base, push: false }\n  api: { context: api }\n")
        .file("base/Dockerfile", "FROM scratch\nCOPY b /b\n")
        .file("base/b", "old")
        .file(
            "api/Dockerfile",
            "ARG BASE=base-one\n# base-one in a comment\nFROM ${BASE} AS base\nFROM base\nCOPY Dockerfile /Dockerfile\n",
        );
    project.run(&["push-all"]).ok();
    // the name as Docker itself would read it, and the registry's, hold the old build
    let old = format!("{}/kevin-base-one:latest", project.registry);
    if !needs_no_daemon() {
        project.run(&["build"]).ok();
        project.docker(&["tag", &old, "base-one:latest"]);
        project.docker(&["push", "-q", &old]);
        project.docker(&["image", "rm", "--no-prune", &old]);
    }
    project.write("base/b", "new");
    for arguments in [&["push-all"][..], &["push-all", "--pull"], &["push-all", "--no-cache"]] {
        project.run(arguments).ok();
        let files = project.registry.files("kevin-api");
        assert_eq!(files["b"].content, b"new");
        assert!(
            String::from_utf8_lossy(&files["Dockerfile"].content).contains("FROM ${BASE} AS base\n"),
            "the context's own copy is untouched"
        );
    }
    if !needs_no_daemon() {
        project.docker(&["image", "rm", "--no-prune", "base-one:latest"]);
    }
}

#[test]
fn build_keys_reach_the_builder() {
    let project = Project::new(
        "images:\n  api:\n    context: .\n    dockerfile: api/Containerfile\n    target: wanted\n    args: { NAME: \"${GIVEN:-x y}\", EMPTY: }\n    labels: { team.name: lattice }\n    network: none\n    no_cache: true\n    pull: false\n    cache_from: [nothing:here]\n",
    )
    .file("api/Containerfile", "FROM scratch AS wanted\nARG NAME\nENV NAME=$NAME\nCOPY api/Containerfile /c\nFROM scratch\nCOPY missing /missing\n")
    .with("GIVEN", "given in the environment");
    project.run(&["push-all"]).ok();
    let config = project.registry.config("kevin-api");
    assert_eq!(config["config"]["Labels"]["team.name"], "lattice");
    let environment = config["config"]["Env"].to_string();
    assert!(environment.contains("NAME=given in the environment"), "{environment}");
}

#[test]
fn the_platform_is_the_manifests_and_not_the_machines() {
    let project = Project::of_images(&["api"]);
    project.write("images.yaml", "images: { api: { context: api, platforms: [linux/arm64] } }");
    project.run(&["push-all"]).ok();
    assert_eq!(project.registry.config("kevin-api")["architecture"], "arm64");
}

#[test]
fn the_manifest_is_found_from_a_folder_below_it() {
    let project = Project::of_images(&["api"]).file("deep/er/file", "");
    project.run_in("deep/er", &["push-image", "api"]).ok();
    assert!(project.registry.digest("kevin-api").is_some());
}

#[test]
fn a_dry_run_prints_the_plan_and_asks_nobody() {
    let project = Project::new("images:\n  api: { context: api }\n  base: { context: base, push: false }\n")
        .file("api/Dockerfile", "FROM base\nCOPY --from=docker.io/library/tool:1 /x /x\n")
        .file("base/Dockerfile", "FROM scratch\n")
        .with("DOCKER_HOST", NOWHERE)
        .with("LATTICE_IMAGES_REGISTRY", "registry.invalid/x");
    let ran = project.run(&["push-all", "--with-debug", "--stable", "--dry-run"]).ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let row = |image: &str, variant: &str| {
        let is_row = |line: &&&str| line.split_whitespace().nth(1) == Some(image) && line.split_whitespace().nth(2) == Some(variant);
        lines
            .iter()
            .position(|line| is_row(&line))
            .unwrap_or_else(|| panic!("{image} {variant}: {}", ran.stdout))
    };
    assert!(row("base", "normal") < row("api", "normal") && row("api", "normal") < row("api", "debug"));
    let api = lines[row("api", "normal")];
    assert!(
        api.contains("registry.invalid/x/stable-api:latest") && api.contains("base, docker.io/library/tool:1"),
        "{api}"
    );
    assert!(lines[row("api", "debug")].contains("stable-debug-api:latest"), "{}", ran.stdout);
}

#[test]
fn a_push_to_stable_is_confirmed() {
    let project = Project::of_images(&["api"]);
    project.commit_all("master");
    project
        .run(&["push-all", "--stable"])
        .ended(2)
        .says(&["`stable` is to be confirmed", "--yes"]);
    assert!(project.registry.digest("stable-api").is_none());
    project.run(&["push-all", "--stable", "--yes"]).ok();
    let pushed = project.registry.digest("stable-api").expect("pushed");
    let in_ci = project.with("CI", "true");
    in_ci.run(&["push-image", "api", "--stable"]).ok();
    assert_eq!(in_ci.registry.digest("stable-api"), Some(pushed));
}

#[test]
fn equal_content_is_equal_in_every_channel() {
    let project = Project::of_images(&["api"]);
    project.run(&["push-all"]).ok();
    project
        .run(&["push-all", "--user", "Alice"])
        .ok()
        .says(&["the channel of `Alice` is called `alice`"]);
    assert_eq!(project.registry.digest("alice-api"), project.registry.digest("kevin-api"));
}

/// A connection to a daemon holds only so much, and what a build asks for on the way needs some of it, too.
#[test]
fn more_builds_at_once_than_a_connection_holds_come_through() {
    let names: Vec<String> = (0..140).map(|number| format!("image-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ran = Project::of_images(&names).run(&["build", "--jobs", "140"]).ok();
    let built = ran.stdout.lines().filter(|line| line.contains(" built ")).count();
    assert_eq!(built, 140, "{}", ran.stdout);
}
