//! What goes wrong: one clear message, the right exit code, and the truth about what was pushed.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use crate::builders::{needs_no_daemon, push_is_part_of_the_build};
use crate::front::Act;
use crate::proxy::{StoppingDaemon, failing_registry};
use crate::releases::Faults;
use crate::support::{Project, Ran, find_file, provided};

#[test]
fn what_stands_on_a_failure_is_not_built_and_nothing_is_pushed() {
    let project = Project::new("images:\n  base: { context: base }\n  api: { context: api }\n  web: { context: web }\n")
        .file("base/Dockerfile", "FROM scratch\nLABEL step=one\nCOPY nothing-here /x\n")
        .file("api/Dockerfile", "FROM base\n")
        .file("web/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let ran = project.run(&["push-all"]).ended(1).says(&[
        "error: building base: ",
        "nothing-here",
        "\n  | ",
        "whole log: ",
        "2 of 3 images failed; nothing was published",
    ]);
    let rows: Vec<&str> = ran.stdout.lines().collect();
    assert!(
        rows.iter()
            .any(|row| row.starts_with("api ") && row.contains("not built because base failed")),
        "{}",
        ran.stdout
    );
    assert!(
        rows.iter()
            .any(|row| row.starts_with("web ") && row.contains("built, not published")),
        "{}",
        ran.stdout
    );
    assert!(project.registry.digest("kevin-web").is_none());
    let log = find_file(&project.home(), "base.log").expect("the whole log is kept");
    assert!(ran.stderr.contains(&log.display().to_string()), "{}", ran.stderr);
    assert!(std::fs::read_to_string(log).expect("read").contains("COPY nothing-here"));
}

#[test]
fn what_fails_while_files_are_sent_says_why() {
    // whether the builder stops what is sent before it says why is a matter of luck
    let images = ["a", "b", "c", "d"];
    let entries: String = images.iter().map(|image| format!("{image}: {{ context: {image} }}, ")).collect();
    let project = Project::new(&format!("images: {{ {entries} }}"));
    for image in images {
        // what the cache has fails before anything is sent
        let mark = project.registry.to_string().replace(':', "/");
        let other = format!("FROM scratch AS other\nWORKDIR /{image}/{mark}\nWORKDIR more\nWORKDIR more\n");
        let dockerfile = format!("{other}FROM scratch\nCOPY --from=other /missing-one /x\nCOPY large /large\n");
        project.write(&format!("{image}/Dockerfile"), dockerfile);
        let large = std::fs::File::create(project.path(&format!("{image}/large"))).expect("created");
        large.set_len(300_000_000).expect("grown");
    }
    let ran = project.run(&["build"]).ended(1);
    for image in images {
        let said = format!("error: building {image}: ");
        let line = ran.stderr.lines().find(|line| line.starts_with(&said));
        assert!(line.is_some_and(|line| line.contains("missing-one")), "{image}: {}", ran.stderr);
    }
}

#[test]
fn fail_fast_begins_nothing_more() {
    let project = Project::new("images:\n  a: { context: a }\n  b: { context: b }\n")
        .file("a/Dockerfile", "FROM scratch\nCOPY no /x\n")
        .file("b/Dockerfile", "FROM scratch\nLABEL x=y\n");
    let ran = project.run(&["push-all", "--fail-fast", "-j1"]).ended(1);
    assert!(
        ran.stdout.lines().any(|row| row.starts_with("b ") && row.contains("stopped")),
        "{}",
        ran.stdout
    );
}

#[test]
fn fail_fast_is_no_interrupt() {
    let faults = Faults::start(|seen| Act::when(seen.is("PUT", "/kevin-api/manifests/in-"), || Act::status(403)));
    let project = faults.before(Project::of_images(&["api", "web"]));
    let ran = project.run(&["push-all", "--fail-fast"]).ended(1);
    assert!(!ran.stderr.contains("Ctrl-C"), "{}", ran.stderr);
}

#[test]
fn a_bad_manifest_is_an_error_before_any_daemon_is_called() {
    let project = Project::of_images(&["api"]).with("DOCKER_HOST", "unix:///nowhere/docker.sock");
    project.write("images.yaml", "images:\n  api:\n    contxt: api\n");
    project.run(&["push-all"]).ended(2).says(&[
        "error: images.yaml:3: the image `api` has no key `contxt`",
        "hint: did you mean `context`?",
    ]);
    project.write("images.yaml", b"\x00\xff\xfe\x00".as_slice());
    project.run(&["build"]).ended(2).says(&["images.yaml:1: "]);
    std::fs::remove_file(project.path("images.yaml")).expect("removed");
    project
        .run(&["push-all"])
        .ended(2)
        .says(&["there is no images.yaml in this folder or above it", "-f FILE"]);
    project
        .run(&["push-all", "-f", "other.yaml"])
        .ended(2)
        .says(&["there is no file other.yaml"]);
}

#[test]
fn utilities_that_cannot_be_had_are_told_before_any_daemon_is_called() {
    let project = Project::of_images(&["api"]).with("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let with = |path: &str| {
        project.write(
            "images.yaml",
            format!("debug: {{ utilities: {path} }}\nimages: {{ api: {{ context: api }} }}\n"),
        );
    };
    with("./none");
    project
        .run(&["push-all", "--debug"])
        .ended(2)
        .says(&["images.yaml:1: the utilities", "cannot be read", "busybox-static"]);
    with("./api/Dockerfile");
    project.run(&["push-all", "--debug"]).ended(2).says(&["are not a Linux program"]);
    with("/bin/true");
    project.run(&["push-all", "--debug"]).ended(2).says(&["are not linked statically"]);
}

#[test]
fn no_daemon() {
    if needs_no_daemon() {
        return;
    }
    let project = Project::of_images(&["api"]).with("DOCKER_HOST", "unix:///nowhere/docker.sock");
    project.run(&["push-all"]).ended(1).says(&[
        "error: no Docker daemon answers at unix:///nowhere/docker.sock (DOCKER_HOST): there is no such socket",
        "hint: start it",
    ]);
    let project = project.with("DOCKER_HOST", "tcp://127.0.0.1:1");
    project
        .run(&["push-all"])
        .ended(1)
        .says(&["tcp://127.0.0.1:1", "nothing listens there"]);
    let project = project.with("DOCKER_HOST", "nonsense");
    project.run(&["push-all"]).ended(1).says(&["DOCKER_HOST"]);
}

#[test]
fn a_daemon_without_permission() {
    if needs_no_daemon() {
        return;
    }
    let project = Project::of_images(&["api"]);
    let socket = project.path("locked.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("locked");
    let address = format!("unix://{}", socket.display());
    // as root nothing is locked: somebody else has to try
    let whoami = Ran::of(Command::new("whoami").output().expect("whoami runs")).stdout;
    let ran = if whoami.trim() == "root" {
        let everybody = project.path("..");
        Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(&everybody)
            .status()
            .expect("chmod runs");
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("locked");
        let program = everybody.join("program");
        std::fs::copy(crate::support::PROGRAM, &program).expect("copied");
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .arg("push-all")
            .current_dir(project.path("."));
        // that of `make test` may lie in a folder that only root can enter
        command
            .env_remove("DOCKER_CONFIG")
            .env("DOCKER_HOST", &address)
            .env("LATTICE_IMAGES_USER", "kevin")
            .env("LATTICE_IMAGES_REGISTRY", project.registry.to_string())
            .env("HOME", "/nonexistent");
        Ran::of(command.output().expect("setpriv runs"))
    } else {
        project.with("DOCKER_HOST", address).run(&["push-all"])
    };
    ran.ended(1)
        .says(&["no permission to use the Docker daemon at unix://", "usermod -aG docker"]);
}

#[test]
fn no_registry() {
    let project = Project::of_images(&["api"]).with("LATTICE_IMAGES_REGISTRY", "127.0.0.1:1/x");
    let ran = project
        .run(&["push-all"])
        .ended(1)
        .says(&["error: 127.0.0.1:1 cannot be reached: Connection refused", "hint: is it up"]);
    assert!(!ran.stderr.contains("built"), "before any build: {}", ran.stderr);
}

fn in_failing_registry(host: &str) -> (Project, String) {
    let project = Project::of_images(&["api"]);
    let registry = format!("{host}/{}", project.registry.path());
    (project.with("LATTICE_IMAGES_REGISTRY", &registry), registry)
}

#[test]
fn a_registry_that_takes_nothing_is_told_of_before_any_build() {
    let host = failing_registry(&provided("LATTICE_TEST_REGISTRY"), b"POST ");
    let (project, registry) = in_failing_registry(&host);
    let ran = project.run(&["push-all"]).ended(1).says(&[&format!("{registry}/kevin-api"), "500"]);
    assert!(!ran.stderr.contains("built"), "before any build: {}", ran.stderr);
}

#[test]
fn a_registry_that_fails_is_told_of_while_the_daemon_tries_again() {
    if push_is_part_of_the_build() {
        return;
    }
    let host = failing_registry(&provided("LATTICE_TEST_REGISTRY"), b"PATCH ");
    let (project, registry) = in_failing_registry(&host);
    if project.has_containerd_store() {
        project.run(&["push-all"]).ended(1).says(&["pushing api", "nothing was pushed"]);
        return;
    }
    let mut child = project.start(&["push-all", "--push-by", "daemon"]);
    let mut seen = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    while !seen.contains("tries again") && stderr.read_line(&mut seen).expect("read") > 0 {}
    interrupt(child.id());
    stderr.read_to_string(&mut seen).expect("read");
    Ran::of(child.wait_with_output().expect("ended")).ended(130);
    let note = format!("note: the registry {host} does not take it: the daemon tries again in 5 s");
    assert!(seen.contains(&note) && seen.contains("nothing was published"), "{seen}");
    assert_eq!(tags(&project, &registry), "latest");
    project.docker(&["image", "rm", "--no-prune", &format!("{registry}/kevin-api")]);
}

/// Of the image in the daemon.
fn tags(project: &Project, registry: &str) -> String {
    let tags = project.docker(&["image", "ls", "--format", "{{.Tag}}", &format!("{registry}/kevin-api")]);
    tags.trim().to_owned()
}

#[test]
fn an_image_keeps_no_name_in_the_daemon_when_its_build_is_stopped_while_it_pushes() {
    if needs_no_daemon() || !push_is_part_of_the_build() {
        return;
    }
    let host = failing_registry(&provided("LATTICE_TEST_REGISTRY"), b"PUT /v2/x/kevin-api/blobs/");
    let project = Project::of_images(&["api"]).with("LATTICE_IMAGES_REGISTRY", format!("{host}/x"));
    let mut child = project.start(&["push-all", "--push-by", "daemon"]);
    let mut seen = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    while !seen.contains("retrying in") && stderr.read_line(&mut seen).expect("read") > 0 {}
    interrupt(child.id());
    stderr.read_to_string(&mut seen).expect("read");
    Ran::of(child.wait_with_output().expect("ended")).ended(130);
    assert_eq!(tags(&project, &format!("{host}/x")), "", "{seen}");
}

#[test]
fn no_name_is_left_behind_when_a_run_is_stopped_while_it_gives_one() {
    if needs_no_daemon() {
        return;
    }
    // of an earlier run there may be one
    let image = format!("stopped-{}", std::process::id());
    let project = Project::of_images(&[&image]);
    let daemon = provided("DOCKER_HOST");
    let daemon = PathBuf::from(daemon.strip_prefix("unix://").expect("a socket"));
    let proxy = StoppingDaemon::start(daemon, &project.path("proxy.sock"), "/tag?");
    let project = project.with("DOCKER_HOST", &proxy.address);
    let mut child = project.start(&["build"]);
    proxy.stopped.recv().expect("it names the image");
    interrupt(child.id());
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut seen = String::new();
    while !seen.contains("note: stopping") && stderr.read_line(&mut seen).expect("read") > 0 {}
    proxy.go_on.send(()).expect("it goes on");
    stderr.read_to_string(&mut seen).expect("read");
    Ran::of(child.wait_with_output().expect("ended")).ended(130);
    let name = format!("localhost/lattice-images/kevin-{image}");
    assert_eq!(project.docker(&["image", "ls", "--quiet", &name]), "", "{seen}");
}

#[test]
fn no_container_is_left_behind_when_a_run_is_stopped_while_it_looks_into_an_image() {
    if needs_no_daemon() {
        return;
    }
    let manifest = "debug: { utilities: ./busybox }\nimages: { api: { context: api } }";
    let project = Project::new(manifest)
        .busybox("busybox")
        .file("api/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let daemon = provided("DOCKER_HOST");
    let daemon = PathBuf::from(daemon.strip_prefix("unix://").expect("a socket"));
    let proxy = StoppingDaemon::start(daemon, &project.path("proxy.sock"), "/archive?");
    // BuildKit looks without a container
    let project = project.with("DOCKER_HOST", &proxy.address).with("DOCKER_BUILDKIT", "0");
    let child = project.start(&["build", "--debug"]);
    proxy.stopped.recv().expect("it looks into the image");
    interrupt(child.id());
    proxy.go_on.send(()).expect("it goes on");
    Ran::of(child.wait_with_output().expect("ended")).ended(130);
    let image = format!("ancestor={}/kevin-api", project.registry);
    assert_eq!(project.docker(&["ps", "--all", "--quiet", "--filter", &image]), "");
}

fn interrupt(pid: u32) {
    // the shell's own: a bare machine has no other
    let kill = format!("kill -INT {pid}");
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh runs").success());
}

#[test]
fn a_context_that_no_image_can_have() {
    let project = Project::of_images(&["api"]).file("api/Dockerfile", "FROM scratch\nCOPY . /\n");
    assert!(
        Command::new("mkfifo")
            .arg(project.path("api/pipe"))
            .status()
            .expect("mkfifo runs")
            .success()
    );
    project
        .run(&["push-all"])
        .ended(1)
        .says(&["api/pipe is a FIFO", "hint: exclude it in .dockerignore"]);
    std::fs::remove_file(project.path("api/pipe")).expect("removed");
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(b"\xff"), project.path("api/link")).expect("linked");
    if std::env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0") {
        project.run(&["push-all"]).ok();
    } else {
        project
            .run(&["push-all"])
            .ended(1)
            .says(&["the link link leads to a name that is not UTF-8", "hint: rename it"]);
    }
    project.write("api/.dockerignore", "[a\n");
    project.run(&["push-all"]).ended(2).says(&["api/.dockerignore:1: "]);
}

#[test]
fn ctrl_c_stops_the_builds_and_says_what_was_pushed() {
    let project = Project::new("images:\n  slow: { context: slow, network: none }\n  web: { context: web }\n")
        .file(
            "slow/Dockerfile",
            "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sleep\", \"300\"]\n",
        )
        .busybox("slow/busybox")
        .file("web/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let mut child = project.start(&["push-all", "--no-cache"]);
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut seen = String::new();
    while !seen.contains("sleep") && stderr.read_line(&mut seen).expect("read") > 0 {}
    interrupt(child.id());
    stderr.read_to_string(&mut seen).expect("read");
    let ran = Ran::of(child.wait_with_output().expect("ended")).ended(130);
    assert!(seen.contains("interrupted; nothing was published"), "{seen}");
    assert!(
        ran.stdout.lines().any(|row| row.starts_with("slow ") && row.contains("stopped")),
        "{}",
        ran.stdout
    );
    assert!(project.registry.digest("kevin-web").is_none());
}
