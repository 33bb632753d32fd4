//! What is in an image, compared file by file with what Docker's own client builds from the same folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::reads::engine;
use crate::support::Project;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

/// A context with everything that a context may hold.
fn varied(manifest: &str) -> Project {
    let deep = format!("api/{}/{}/ü/日本", "d".repeat(120), "e".repeat(200));
    let project = Project::new(manifest)
        .file("api/Dockerfile", "FROM scratch\nCOPY . /copied/\nADD sub/x /added/\n")
        .file("api/sub/x", "x")
        .file("api/ sp ace ", "blank")
        .file("api/big", vec![2; 3 << 20])
        .file("api/sub/y", "y")
        .file("api/none", "")
        .file(&deep, "deep")
        .file("api/.dockerignore", "# rules\nleft-out\n*.log\n")
        .file("api/left-out/x", "")
        .file("api/y.log", "");
    fs::create_dir_all(project.path("api/empty/folder")).expect("created");
    symlink("sub/x", project.path("api/link")).expect("linked");
    symlink("../../outside", project.path("api/outward")).expect("linked");
    symlink("nothing", project.path("api/broken")).expect("linked");
    symlink("t".repeat(180), project.path("api/long-target")).expect("linked");
    symlink("empty", project.path("api/to-folder")).expect("linked");
    fs::hard_link(project.path("api/big"), project.path("api/same-as-big")).expect("linked");
    mode(&project.path("api/sub/x"), 0o640);
    mode(&project.path("api/none"), 0o000);
    mode(&project.path("api/empty"), 0o1757);
    mode(&project.path("api/empty/folder"), 0o2750);
    // a builder's cache does not look at times, so they are the same in every run
    let touched = Command::new("find")
        .args(["api", "-exec", "touch", "-h", "-d", "@981173106.5", "{}", "+"])
        .current_dir(project.path("."))
        .status();
    assert!(touched.expect("find runs").success());
    project
}

/// A link in a folder that is copied as well: BuildKit follows it where it is named.
#[test]
fn a_link_that_is_named_leads_on_within_a_folder_that_is_copied_too() {
    let project = Project::new("images: { api: { context: api } }")
        .file("api/Dockerfile", "FROM scratch\nCOPY d/a /x/\nCOPY d /y/\nCOPY e/g /z/\n")
        .file("api/d/other", "")
        .file("api/e/f", "one")
        .file("api/e/g", "");
    symlink("../e", project.path("api/d/a")).expect("linked");
    for content in ["one", "two"] {
        project.write("api/e/f", content);
        project.run(&["push-all"]).ok();
        assert_eq!(project.registry.files("kevin-api")["x/f"].content, content.as_bytes());
    }
}

#[test]
fn an_image_has_what_dockers_own_client_puts_into_it() {
    let project = varied("images: { api: { context: api } }");
    project
        .run(&["push-all"])
        .ok()
        .says(&["note: outward is a link that leaves the context"]);
    let reference = project.docker_build("api", &[]);
    let (ours, theirs) = (project.registry.files("kevin-api"), project.registry.files(&reference));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (path, entry) in &theirs {
        assert_eq!(ours[path], *entry, "{path}");
    }
    assert_eq!(ours["copied/sub/x"].mtime, 981_173_106);
}

#[test]
fn what_is_sent_besides_the_context_is_in_no_image() {
    let manifest = "images:\n  base: { context: base, push: false }\n  api: { context: api, dockerfile: ../outside/Api }\n  inline:\n    context: api\n    dockerfile_inline: |\n      FROM base\n      COPY . /copied/\n      ADD sub/x /added/\n";
    let project = varied(manifest)
        .file("base/Dockerfile", "FROM scratch\nLABEL base=yes\n")
        .file("outside/Api", "FROM base\nCOPY . /copied/\nADD sub/x /added/\n");
    project.run(&["push-all"]).ok();
    let theirs = project.registry.files(&project.docker_build("api", &[]));
    for image in ["kevin-api", "kevin-inline"] {
        assert_eq!(project.registry.files(image), theirs, "{image}");
    }
}

#[test]
fn any_name_can_be_copied() {
    let project = Project::new("images: { api: { context: api }, one: { context: api, dockerfile: One } }")
        .file("api/One", "FROM scratch\nCOPY ü /x/\n")
        .file(
            "api/Dockerfile",
            "FROM scratch\nCOPY ü/日本 /x/\nADD [\"a+b%41 c\", \"ü\", \"/y/\"]\n",
        );
    // what comes from the cache has the time of then
    project.write("api/ü/日本", project.registry.to_string());
    project.write("api/a+b%41 c", format!("other {}", project.registry));
    project.run(&["push-all"]).ok();
    let (ours, theirs) = (project.registry.files("kevin-api"), project.docker_build("api", &[]));
    assert_eq!(ours, project.registry.files(&theirs));
    assert_eq!(ours["x/日本"], project.registry.files("kevin-one")["x/日本"]);
}

#[test]
fn a_dockerfile_can_name_many_files() {
    let names: Vec<_> = (0..60).map(|number| format!("{}-{number}", "n".repeat(250))).collect();
    let dockerfile = format!("FROM scratch\nCOPY {} /all/\n", names.join(" "));
    let project = Project::new("images: { api: { context: api } }").file("api/Dockerfile", dockerfile);
    for name in &names {
        project.write(&format!("api/{name}"), name);
    }
    // the BuildKit of 20.10 gives up on so many at once, where there is more to do
    if engine(&project) < 23 {
        return;
    }
    project.run(&["push-all"]).ok();
    let files = project.registry.files("kevin-api");
    assert!(names.iter().all(|name| files[&format!("all/{name}")].content == name.as_bytes()));
}

#[test]
fn the_groups_write_bit_is_dropped() {
    let project = Project::of_images(&["api"]);
    mode(&project.path("api/data"), 0o664);
    project.run(&["push-all"]).ok();
    let digest = project.registry.digest("kevin-api");
    assert_eq!(project.registry.files("kevin-api")["data"].mode & 0o7777, 0o644);
    mode(&project.path("api/data"), 0o644);
    project.run(&["push-all"]).ok();
    assert_eq!(project.registry.digest("kevin-api"), digest, "clones under umask 002 and 022 agree");
}

#[test]
fn a_socket_is_left_out_with_a_note() {
    let project = Project::of_images(&["api"]).file("api/Dockerfile", "FROM scratch\nCOPY . /\n");
    let _socket = UnixListener::bind(project.path("api/socket")).expect("bound");
    project.run(&["push-all"]).ok().says(&["note: socket is a socket and is left out"]);
    assert_eq!(
        project.registry.files("kevin-api").into_keys().collect::<Vec<_>>(),
        ["Dockerfile", "data"]
    );
}

#[test]
fn a_large_context_takes_no_memory() {
    let project = Project::of_images(&["api"]);
    fs::File::create(project.path("api/large"))
        .and_then(|file| file.set_len(1 << 30))
        .expect("made");
    let mut child = project.start(&["build", "-q"]);
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().expect("asked").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = line
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
            .max(most);
        std::thread::yield_now();
    }
    assert!(child.wait().expect("ended").success());
    assert!(most > 0 && most < 100_000, "{most} kB");
}
