//! What travels to the daemon, and what must.

use std::env;
use std::fs;
use std::path::Path;

use crate::builders::needs_no_daemon;
use crate::support::{Project, Ran};

/// The bytes of context that a verbose run tells of.
fn sent(ran: &Ran) -> u64 {
    let line = ran
        .stderr
        .lines()
        .find(|line| line.contains(" bytes of context sent"))
        .expect("told");
    line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number")
}

fn replace_unseen(path: &Path, content: &[u8]) {
    let before = fs::metadata(path).and_then(|metadata| metadata.modified()).expect("a time");
    fs::write(path, content).expect("written");
    fs::File::open(path).and_then(|file| file.set_modified(before)).expect("set");
}

#[test]
fn equal_size_and_time_with_other_content_still_travels() {
    let project = Project::of_images(&["api"]);
    project.write("api/data", "one");
    project.run(&["push-all"]).ok();
    replace_unseen(&project.path("api/data"), b"two");
    for arguments in [&["push-all"][..], &["push-all", "--no-cache"]] {
        project.run(arguments).ok();
        assert_eq!(project.registry.files("kevin-api")["data"].content, b"two");
    }
}

#[test]
fn names_of_one_file_stay_that_and_leave_nothing_behind() {
    let project = Project::of_images(&["api"]).file("api/Dockerfile", "FROM scratch\nCOPY . /\n");
    project.write("api/data", vec![7; 1_000_000]);
    fs::create_dir(project.path("api/sub")).expect("created");
    fs::hard_link(project.path("api/data"), project.path("api/sub/same")).expect("linked");
    for _ in 0..3 {
        project.run(&["push-all", "--no-cache"]).ok();
        let files = project.registry.files("kevin-api");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["Dockerfile", "data", "sub", "sub/same"]);
        assert_eq!(files["data"], files["sub/same"]);
        if needs_no_daemon() {
            continue;
        }
        let name = format!("{}/kevin-api", project.registry);
        project.docker(&["pull", "-q", &name]);
        let size = project.docker(&["image", "inspect", "--format", "{{.Size}}", &name]);
        assert!(size.trim().parse::<u32>().expect("a number") < 1_100_000, "{size}");
    }
}

#[test]
fn only_what_changed_travels() {
    let project = Project::of_images(&["api"]).file("api/Dockerfile", "FROM scratch\nCOPY . /\n");
    for number in 0..20 {
        project.write(&format!("api/f{number}"), vec![number; 100_000]);
    }
    let all = sent(&project.run(&["build", "-v"]).ok());
    assert!(all > 2_000_000);
    if env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0") {
        assert_eq!(
            sent(&project.run(&["build", "-v"]).ok()),
            all,
            "the classic builder takes everything each time"
        );
        return;
    }
    // newer engines take the Dockerfile anew each time
    assert!(sent(&project.run(&["build", "-v"]).ok()) < 1_000);
    project.write("api/f7", vec![99; 100_000]);
    assert!((100_000..101_000).contains(&sent(&project.run(&["build", "-v"]).ok())));
}

#[test]
fn setuid_is_kept_or_its_loss_is_told() {
    let project = Project::of_images(&["api"]);
    fs::set_permissions(project.path("api/data"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).expect("changed");
    let ran = project.run(&["push-all"]).ok();
    let kept = project.registry.files("kevin-api")["data"].mode & 0o7777 == 0o4755;
    assert!(kept != ran.stderr.contains("data loses its setuid"), "{}", ran.stderr);
}

#[test]
fn no_name_of_ours_is_left_in_the_daemon() {
    if needs_no_daemon() {
        return;
    }
    let project = Project::new("images:\n  base: { context: base, push: false }\n  api: { context: api }\n")
        .file("base/Dockerfile", "FROM scratch\nCOPY Dockerfile /base\n")
        .file("api/Dockerfile", "FROM base\nCOPY Dockerfile /api\n");
    project.run(&["build"]).ok();
    let id = project.docker(&[
        "image",
        "inspect",
        "--format",
        "{{.RepoTags}}",
        &format!("{}/kevin-base", project.registry),
    ]);
    assert!(id.contains("kevin-base") && !id.contains("localhost/lattice-images"), "{id}");
}
