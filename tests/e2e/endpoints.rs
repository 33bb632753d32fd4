//! The daemon, reached in every way that Docker reaches it.

use std::env;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::doors::{Certificates, Door, Silent, Sshd, daemon_socket, free_port};
use crate::support::{Project, Ran};

const LOOPBACK: &str = "IP:127.0.0.1,DNS:localhost";

fn path() -> String {
    env::var("PATH").expect("a path")
}

/// A project whose daemon is `address`, with the client's certificates.
fn with_tls(project: Project, address: impl Into<String>, certificates: &Certificates) -> Project {
    project
        .with("DOCKER_HOST", address)
        .with("DOCKER_TLS_VERIFY", "1")
        .with("DOCKER_CERT_PATH", certificates.text("client"))
}

fn builds_and_pushes(project: &Project) {
    project.run(&["build"]).ok();
    project.run(&["push-all"]).ok();
    for name in ["kevin-api", "kevin-web"] {
        assert!(project.registry.digest(name).is_some(), "{name} is not there");
    }
}

#[test]
fn over_tcp() {
    let door = Door::plain();
    builds_and_pushes(&Project::of_images(&["api", "web"]).with("DOCKER_HOST", door.address()));
    door.was_built_through();
}

#[test]
fn over_tls_with_client_certificates() {
    let certificates = Certificates::for_server(LOOPBACK);
    let door = Door::tls(&certificates);
    builds_and_pushes(&with_tls(Project::of_images(&["api", "web"]), door.address(), &certificates));
    door.was_built_through();
    let by_name = format!("tcp://localhost:{}", door.port);
    with_tls(Project::of_images(&["api"]), by_name, &certificates).run(&["build"]).ok();
}

#[test]
fn a_daemon_whose_certificate_is_the_ca_itself() {
    let certificates = Certificates::for_server(LOOPBACK);
    certificates.serve_the_ca();
    let door = Door::tls(&certificates);
    let project = with_tls(Project::of_images(&["api"]), door.address(), &certificates);
    project.run(&["build"]).ok();
    door.was_built_through();
    certificates.expire_the_ca();
    certificates.serve_the_ca();
    let expired = Door::tls(&certificates);
    let project = project.with("DOCKER_HOST", expired.address());
    project.run(&["build"]).ended(1).says(&["its certificate is not valid now"]);
}

#[test]
fn tls_without_verification_takes_any_server() {
    let certificates = Certificates::for_server("DNS:docker.example");
    let door = Door::tls(&certificates);
    fs::remove_file(certificates.path("client/ca.pem")).expect("removed");
    let project = Project::of_images(&["api", "web"])
        .with("DOCKER_HOST", door.address())
        .with("DOCKER_TLS", "1")
        .with("DOCKER_CERT_PATH", certificates.text("client"));
    builds_and_pushes(&project);
    door.was_built_through();
}

#[test]
fn a_daemon_without_buildkit_builds_classically() {
    let door = Door::without_buildkit();
    let project = Project::of_images(&["api", "web"])
        .with("DOCKER_HOST", door.address())
        .with("DOCKER_BUILDKIT", "1");
    let ran = project.run(&["push-all"]).ok().says(&["step 2/2 COPY data /data"]);
    let notes = ran
        .stderr
        .matches("note: the daemon has no BuildKit: builds go through its classic builder");
    assert_eq!(notes.count(), 1, "{}", ran.stderr);
    assert!(door.was_asked_for("POST /grpc "));
    assert!(project.registry.digest("kevin-web").is_some());
}

#[test]
fn over_ssh() {
    let door = Door::plain();
    let sshd = Sshd::start(&path(), &door.address());
    let project = Project::of_images(&["api", "web"])
        .with("DOCKER_HOST", sshd.address())
        .with("PATH", sshd.client("person", Some("host")));
    builds_and_pushes(&project);
    door.was_built_through();
    sshd.has_no_client_left();
}

#[test]
fn over_ssh_to_a_socket_that_the_address_names() {
    let sshd = Sshd::start(&path(), "unix:///nowhere/docker.sock");
    let project = Project::of_images(&["api", "web"])
        .with("DOCKER_HOST", format!("{}{}", sshd.address(), daemon_socket()))
        .with("PATH", sshd.client("person", Some("host")));
    builds_and_pushes(&project);
    sshd.has_no_client_left();
}

fn docker_context(project: &Project, arguments: &[&str]) {
    let mut command = Command::new("docker");
    command
        .arg("context")
        .args(arguments)
        .env_remove("DOCKER_HOST")
        .env("DOCKER_CONFIG", project.home().join(".docker"));
    Ran::of(command.output().expect("docker runs")).ok();
}

#[test]
fn contexts_that_docker_made() {
    let certificates = Certificates::for_server(LOOPBACK);
    let (behind_tls, plain) = (Door::tls(&certificates), Door::plain());
    let project = Project::of_images(&["api", "web"]);
    let docker = |arguments: &[&str]| docker_context(&project, arguments);
    let client = certificates.text("client");
    let host = format!(
        "host={},ca={client}/ca.pem,cert={client}/cert.pem,key={client}/key.pem",
        behind_tls.address()
    );
    docker(&["create", "secure", "--docker", &host]);
    docker(&["create", "open", "--docker", &format!("host={}", plain.address())]);
    // copied into the context, they are needed no more
    fs::remove_dir_all(certificates.path("client")).expect("removed");

    docker(&["use", "secure"]);
    let project = project.with("DOCKER_HOST", "");
    builds_and_pushes(&project);
    behind_tls.was_built_through();

    let project = project.with("DOCKER_CONTEXT", "open");
    builds_and_pushes(&project);
    plain.was_built_through();

    // the variable goes before both
    let nowhere = format!("tcp://127.0.0.1:{}", free_port());
    let project = project.with("DOCKER_HOST", &nowhere);
    project
        .run(&["build"])
        .ended(1)
        .says(&[&nowhere, "(DOCKER_HOST): nothing listens there"]);

    let project = project.with("DOCKER_HOST", "");
    drop(plain);
    project.run(&["build"]).ended(1).says(&[
        "(context `open` (DOCKER_CONTEXT)): nothing listens there",
        "hint: start it there, check the host and the port, or name another context in DOCKER_CONTEXT",
    ]);
    let project = project.with("DOCKER_CONTEXT", "");
    drop(behind_tls);
    project.run(&["build"]).ended(1).says(&[
        "(context `secure` (docker context use)): nothing listens there",
        "or choose another context: docker context use NAME",
    ]);
}

#[test]
fn a_context_without_a_ca_believes_in_those_of_the_system() {
    let certificates = Certificates::for_server(LOOPBACK);
    let door = Door::tls(&certificates);
    let project = Project::of_images(&["api", "web"]).with("DOCKER_HOST", "");
    let client = certificates.text("client");
    let host = format!("host={},cert={client}/cert.pem,key={client}/key.pem", door.address());
    docker_context(&project, &["create", "public", "--docker", &host]);
    docker_context(&project, &["use", "public"]);
    project.run(&["build"]).ended(1).says(&[
        "(context `public` (docker context use)): its certificate is signed by no CA that this machine trusts",
        "hint: make the context anew with the CA that signed it",
    ]);
    builds_and_pushes(&project.with("SSL_CERT_FILE", format!("{client}/ca.pem")));
    door.was_built_through();
}

#[test]
fn a_context_that_verifies_no_server_and_one_behind_ssh() {
    let certificates = Certificates::for_server("DNS:docker.example");
    let (unverified, plain) = (Door::tls(&certificates), Door::plain());
    let sshd = Sshd::start(&path(), &plain.address());
    let project = Project::of_images(&["api", "web"])
        .with("DOCKER_HOST", "")
        .with("PATH", sshd.client("person", Some("host")));
    let client = certificates.text("client");
    let host = format!(
        "host={},skip-tls-verify=true,cert={client}/cert.pem,key={client}/key.pem",
        unverified.address()
    );
    docker_context(&project, &["create", "loose", "--docker", &host]);
    docker_context(&project, &["create", "far", "--docker", &format!("host={}", sshd.address())]);

    let project = project.with("DOCKER_CONTEXT", "loose");
    builds_and_pushes(&project);
    unverified.was_built_through();

    let project = project.with("DOCKER_CONTEXT", "far");
    builds_and_pushes(&project);
    plain.was_built_through();
}

/// The default one goes before them, where this machine has it.
#[test]
fn sockets_of_other_installations() {
    let default = Path::new("/var/run/docker.sock").exists();
    for (place, source) in [
        ("run/docker.sock", "the rootless daemon's socket"),
        (".docker/run/docker.sock", "Docker Desktop's socket"),
        (".docker/desktop/docker.sock", "Docker Desktop's socket"),
        (".colima/default/docker.sock", "Colima's socket"),
    ] {
        let project = Project::of_images(&["api"]);
        let socket = project.home().join(place);
        fs::create_dir_all(socket.parent().expect("a folder")).expect("created");
        symlink(daemon_socket(), &socket).expect("linked");
        let runtime = project.home().join("run").display().to_string();
        let project = project.with("DOCKER_HOST", "").with("XDG_RUNTIME_DIR", runtime);
        let told = if default {
            "unix:///var/run/docker.sock (from the default)".to_owned()
        } else {
            format!("unix://{} (from {source})", socket.display())
        };
        project.run(&["build", "-v"]).ok().says(&[&format!("the daemon is {told}")]);
    }
}

#[test]
fn tls_that_does_not_come_about_is_explained() {
    let certificates = Certificates::for_server(LOOPBACK);
    let other = Certificates::for_server("DNS:docker.example,DNS:build.example");
    let (door, misnamed, plain) = (Door::tls(&certificates), Door::tls(&other), Door::plain());
    let from = |address: &str| format!("error: no Docker daemon answers at {address} (DOCKER_HOST): ");
    let told = |address: String, material: &Certificates, cause: &str, hint: &str| {
        with_tls(Project::of_images(&["api"]), &address, material)
            .run(&["build"])
            .ended(1)
            .says(&[&from(&address), cause, "\nhint: ", hint]);
    };

    let ca = other.text("client/ca.pem");
    told(
        door.address(),
        &other,
        &format!("its certificate is not signed by the CA in {ca}"),
        &format!("put the CA that signed the daemon's certificate into {ca}"),
    );
    told(
        misnamed.address(),
        &other,
        "its certificate is for docker.example, build.example, not for 127.0.0.1",
        "make the certificate anew with 127.0.0.1 as subjectAltName",
    );
    told(plain.address(), &certificates, "what is there does not speak TLS", "check the port");

    let stranger = Certificates::for_server(LOOPBACK);
    fs::copy(certificates.path("client/ca.pem"), stranger.path("client/ca.pem")).expect("copied");
    told(
        door.address(),
        &stranger,
        &format!("it refused the client certificate {}", stranger.text("client/cert.pem")),
        "must be signed by the CA that the daemon knows as --tlscacert",
    );
    let late = Certificates::for_server(LOOPBACK);
    let behind_late = Door::tls(&late);
    late.expire("client");
    told(
        behind_late.address(),
        &late,
        &format!("it refused the client certificate {}", late.text("client/cert.pem")),
        "and not have expired",
    );
    late.expire("server");
    let expired = Door::tls(&late);
    told(
        expired.address(),
        &late,
        "its certificate is not valid now: ",
        "renew the daemon's certificate",
    );
    for file in ["client/cert.pem", "client/key.pem"] {
        fs::remove_file(stranger.path(file)).expect("removed");
    }
    told(
        door.address(),
        &stranger,
        &format!(
            "it wants a client certificate, and there is no {}",
            stranger.text("client/cert.pem")
        ),
        "put one there, signed by the CA that the daemon knows as --tlscacert",
    );

    let without = Project::of_images(&["api"]).with("DOCKER_HOST", door.address());
    without
        .run(&["build"])
        .ended(1)
        .says(&[&from(&door.address()), "hint: for TLS: DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH"]);
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let certificates = Certificates::for_server(LOOPBACK);
    let told = |file: &str, content: &[u8], reason: &str| {
        let path = certificates.path(file);
        let before = fs::read(&path).expect("read");
        fs::write(&path, content).expect("written");
        with_tls(Project::of_images(&["api"]), "tcp://127.0.0.1:1", &certificates)
            .run(&["build"])
            .ended(1)
            .says(&[
                &format!(
                    "error: TLS to the Docker daemon at tcp://127.0.0.1:1 (DOCKER_HOST) cannot use {}: {reason}",
                    path.display()
                ),
                "hint: DOCKER_CERT_PATH names the folder that holds ca.pem, cert.pem and key.pem",
            ]);
        fs::write(&path, before).expect("written");
    };
    let other_key = fs::read(certificates.path("server/key.pem")).expect("read");
    told("client/ca.pem", b"nonsense", "it holds no certificate");
    told("client/cert.pem", b"", "it holds no certificate");
    told(
        "client/key.pem",
        b"nonsense",
        "it holds no private key that is free of a passphrase",
    );
    told("client/key.pem", &other_key, "it is not the key of cert.pem");
}

/// Root may use any socket, so that it has to be somebody else who tries.
const DOCKER_OF_SOMEBODY: &str = r#"#!/bin/sh
PATH=${PATH#*:}
somebody=
[ "$(id -u)" != 0 ] || somebody='setpriv --reuid=65534 --regid=65534 --clear-groups'
exec $somebody docker "$@"
"#;

#[test]
fn ssh_that_does_not_come_about_is_explained() {
    let sshd = Sshd::start(&path(), "unix:///nowhere/docker.sock");
    let address = sshd.address();
    let by_hand = address.replacen("ssh://", "", 1);
    let by_hand = format!("ssh -p {} {}", sshd.port, by_hand.split(':').next().expect("a name"));
    let told = |address: &str, client: String, cause: &str, hint: &str| {
        Project::of_images(&["api"])
            .with("DOCKER_HOST", address)
            .with("PATH", client)
            .run(&["build"])
            .ended(1)
            .says(&[
                &format!("error: no Docker daemon answers at {address} (DOCKER_HOST): {cause}"),
                &format!("hint: {hint}"),
            ]);
    };
    told(
        &address,
        sshd.client("person", None),
        "its ssh host key is not known",
        &format!("connect once by hand ({by_hand}) and compare the key"),
    );
    told(
        &address,
        sshd.client("person", Some("stranger")),
        "its ssh host key is another than it was",
        "somebody may be in between",
    );
    told(
        &address,
        sshd.client("stranger", Some("host")),
        "ssh was refused: ",
        &format!(
            "put your public key into authorized_keys there, or the key into ssh-agent; this must work without asking for anything: {by_hand} docker version"
        ),
    );
    let known = || sshd.client("person", Some("host"));
    told(
        &address,
        known(),
        "`docker` on the other side failed: ",
        "start the daemon there, or name its socket: ssh://HOST/run/user/1000/docker.sock",
    );
    let closed = format!("ssh://127.0.0.1:{}", free_port());
    told(&closed, known(), "no ssh server listens there", "this must work without asking");
    told("ssh://nowhere.invalid", known(), "ssh failed: ", "this must work without asking");
    told(
        &address,
        "/nonexistent".to_owned(),
        "there is no `ssh` on this machine",
        "install OpenSSH's client",
    );
    sshd.has_no_client_left();

    let elsewhere = Project::of_images(&["api"]).file("bin/docker", DOCKER_OF_SOMEBODY);
    let (folder, locked) = (elsewhere.path("bin"), elsewhere.path("locked.sock"));
    fs::set_permissions(folder.join("docker"), Permissions::from_mode(0o755)).expect("executable");
    let _listener = UnixListener::bind(&locked).expect("bound");
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).expect("locked");
    let with_locked = Sshd::start(&format!("{}:{}", folder.display(), path()), &format!("unix://{}", locked.display()));
    told(
        &with_locked.address(),
        with_locked.client("person", Some("host")),
        "no permission over there: ",
        "join the docker group there",
    );

    let without_docker = Sshd::start("/nonexistent", "unix:///nowhere/docker.sock");
    told(
        &without_docker.address(),
        without_docker.client("person", Some("host")),
        "there is no `docker` on the other side: ",
        "install Docker's client there",
    );
}

#[test]
fn a_silent_address_is_given_up_and_a_busy_daemon_waited_for() {
    let certificates = Certificates::for_server(LOOPBACK);
    let busy = Door::busy(Duration::from_secs(11));
    let patient = Project::of_images(&["api"]).with("DOCKER_HOST", busy.address());
    let (plain, secure) = (Silent::new(), Silent::new());
    let projects = [
        Project::of_images(&["api"]).with("DOCKER_HOST", plain.address()),
        with_tls(Project::of_images(&["api"]), secure.address(), &certificates),
    ];
    thread::scope(|scope| {
        scope.spawn(|| patient.run(&["build"]).ok().says(&["note: waiting for tcp://"]));
        for project in projects {
            scope.spawn(move || {
                project.run(&["build"]).ended(1).says(&[
                    "note: waiting for tcp://",
                    "(DOCKER_HOST): it did not answer within 10 s",
                    "hint: check the host, the port and the firewalls",
                ]);
            });
        }
    });
    plain.was_asked();
    secure.was_asked();
}

/// Ctrl-C reaches the whole group of the terminal; the daemon stops what it was doing.
fn is_interrupted(project: &Project, seconds: &str) {
    let mut command = project.command(".", &["push-all", "--no-cache"]);
    let mut child = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut seen = String::new();
    while !seen.contains("sleep") && stderr.read_line(&mut seen).expect("read") > 0 {}
    until(|| sleeps(seconds), "the step does not run");
    let pressed = Instant::now();
    let group = format!("-{}", child.id());
    let status = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(status.expect("kill runs").success());
    stderr.read_to_string(&mut seen).expect("read");
    Ran::of(child.wait_with_output().expect("ended")).ended(130);
    assert!(pressed.elapsed() < Duration::from_secs(5), "it took {:?}", pressed.elapsed());
    assert!(seen.contains("interrupted; nothing was published"), "{seen}");
    until(|| !sleeps(seconds), "the daemon goes on");
}

#[track_caller]
fn until(holds: impl Fn() -> bool, otherwise: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise}");
        thread::yield_now();
    }
}

/// Whether a step `sleep seconds` runs.
fn sleeps(seconds: &str) -> bool {
    let wanted = format!("/busybox\0sleep\0{seconds}\0");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|command| command == wanted.as_bytes())
}

fn that_sleeps(seconds: &str) -> Project {
    let dockerfile = format!("FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sleep\", \"{seconds}\"]\n");
    Project::new("images:\n  slow: { context: slow }\n")
        .file("slow/Dockerfile", dockerfile)
        .busybox("slow/busybox")
}

#[test]
fn ctrl_c_stops_what_runs_behind_tls() {
    let certificates = Certificates::for_server(LOOPBACK);
    let door = Door::tls(&certificates);
    is_interrupted(&with_tls(that_sleeps("30001"), door.address(), &certificates), "30001");
}

#[test]
fn ctrl_c_stops_what_runs_behind_ssh() {
    let door = Door::plain();
    let sshd = Sshd::start(&path(), &door.address());
    let project = that_sleeps("30002")
        .with("DOCKER_HOST", sshd.address())
        .with("PATH", sshd.client("person", Some("host")));
    is_interrupted(&project, "30002");
    sshd.has_no_client_left();
}
