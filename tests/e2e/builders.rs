//! Builds with a BuildKit apart from the daemon, which here is one that listens nowhere.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::doors::{Certificates, Door, Silent, free_port};
use crate::front::Act;
use crate::interrupt;
use crate::proxy;
use crate::releases::Faults;
use crate::support::{NOWHERE, Project, Ran, provided};

const LOOPBACK: &str = "IP:127.0.0.1,DNS:localhost";
const UTILITIES: &str = "debug: { utilities: ./busybox }\n";

/// The builder that all tests build with, where this run is for one: behind TLS, with a client's certificate.
pub fn of_this_run() -> Option<&'static str> {
    static BUILDER: OnceLock<Option<(Door, Certificates, String)>> = OnceLock::new();
    let builder = BUILDER.get_or_init(|| {
        env::var_os("LATTICE_TEST_BUILDER")?;
        let certificates = Certificates::for_server(LOOPBACK);
        let door = Door::buildkit(Some(&certificates));
        let text = with_tls(&door, &certificates);
        Some((door, certificates, text))
    });
    builder.as_ref().map(|(_, _, text)| text.as_str())
}

/// Whether this run is for a builder apart from a daemon, so that what is the daemon's alone is not there to be tested.
pub fn needs_no_daemon() -> bool {
    of_this_run().is_some()
}

/// Whether builds push by themselves, and tell nothing of it while they do.
pub fn push_is_part_of_the_build() -> bool {
    needs_no_daemon() || (can_be_apart() && !is_classic())
}

/// Whether this run is for the builder without `BuildKit`.
pub fn is_classic() -> bool {
    env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0")
}

/// Whether a builder need not make what is copied alone.
pub fn leaves_copies() -> bool {
    push_is_part_of_the_build() && !env::var("LATTICE_IMAGES_PUSH_BY").is_ok_and(|value| value == "daemon")
}

/// Whether this run is for images that the client pushes.
pub fn the_client_pushes() -> bool {
    env::var("LATTICE_IMAGES_PUSH_BY").is_ok_and(|value| value == "client")
}

fn with_tls(door: &Door, certificates: &Certificates) -> String {
    let client = certificates.text("client");
    format!(
        "{},cacert={client}/ca.pem,cert={client}/cert.pem,key={client}/key.pem",
        door.address()
    )
}

/// Whether the daemon's BuildKit can stand for one that is apart from a daemon: it can push.
pub fn can_be_apart() -> bool {
    let mut command = Command::new("docker");
    let ran = Ran::of(
        command
            .args(["info", "--format", "{{.DriverStatus}}"])
            .output()
            .expect("docker runs"),
    )
    .ok();
    ran.stdout.contains("io.containerd.snapshotter")
}

/// Two images on a base that is not pushed.
fn family() -> Project {
    let manifest =
        "images:\n  base: { context: base, push: false }\n  api: { context: api }\n  web: { context: api, args: { NAME: web } }\n";
    let project = Project::new(&format!("{UTILITIES}{manifest}"));
    let data = project.registry.to_string();
    project
        .busybox("busybox")
        .file("base/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("base/data", data)
        .file("api/Dockerfile", "ARG BASE=base\nFROM ${BASE} AS x\nFROM scratch\nARG NAME=api\nENV NAME=$NAME\nCOPY --from=x /data /copied\nCOPY --from=base /data /again\n")
        .with("DOCKER_HOST", NOWHERE)
        .with("LATTICE_IMAGES_BUILDER", "")
}

#[track_caller]
fn builds_and_pushes(project: &Project, arguments: &[&str]) {
    project.run(&[&["push-all", "--with-debug"], arguments].concat()).ok();
    for image in ["api", "web"] {
        let normal = project.registry.layers(&format!("kevin-{image}"));
        assert_eq!(project.registry.layers(&format!("kevin-debug-{image}"))[..normal.len()], normal);
        let files = project.registry.files(&format!("kevin-debug-{image}"));
        assert_eq!(files["copied"].content, project.registry.to_string().into_bytes());
        assert_eq!(files["copied"], files["again"]);
        assert!(files.contains_key("busybox/sh"));
    }
    assert!(project.registry.digest("kevin-base").is_none(), "a base is in no channel");
}

/// Writes what `docker buildx create --driver remote` writes.
fn buildx_knows(project: &Project, name: &str, nodes: &[String]) {
    let nodes: Vec<_> = nodes.iter().map(|node| format!("{{\"Name\":\"n\",{node}}}")).collect();
    let folder = project.home().join(".docker/buildx/instances");
    fs::create_dir_all(&folder).expect("created");
    let json = format!(
        "{{\"Name\":\"{name}\",\"Driver\":\"remote\",\"Nodes\":[{}],\"Dynamic\":false}}",
        nodes.join(",")
    );
    fs::write(folder.join(name), json).expect("written");
}

#[test]
fn over_tcp_tls_and_a_socket_without_any_daemon() {
    if !can_be_apart() {
        return;
    }
    let plain = Door::buildkit(None);
    builds_and_pushes(&family(), &["--builder", &plain.address()]);

    let certificates = Certificates::for_server(LOOPBACK);
    let behind_tls = Door::buildkit(Some(&certificates));
    builds_and_pushes(&family().with("LATTICE_IMAGES_BUILDER", with_tls(&behind_tls, &certificates)), &[]);

    let project = family();
    let socket = project.home().join("b.sock");
    let _door = Door::buildkit_at(&socket);
    builds_and_pushes(&project.with("BUILDX_BUILDER", format!("unix://{}", socket.display())), &[]);
}

#[test]
fn by_the_name_that_buildx_knows_and_by_the_manifest() {
    if !can_be_apart() {
        return;
    }
    let certificates = Certificates::for_server("DNS:builder.example");
    let door = Door::buildkit(Some(&certificates));
    let client = certificates.text("client");
    let options = format!("\"cacert\":\"{client}/ca.pem\",\"cert\":\"{client}/cert.pem\",\"key\":\"{client}/key.pem\"");
    let node = |further: &str| vec![format!("\"Endpoint\":\"{}\",\"DriverOpts\":{{{options}{further}}}", door.address())];

    let project = family();
    buildx_knows(&project, "team", &node(",\"servername\":\"builder.example\""));
    builds_and_pushes(&project.with("BUILDX_BUILDER", "team"), &[]);

    let project = family();
    buildx_knows(&project, "team", &node(""));
    project.run(&["push-all", "--builder", "team"]).ended(1).says(&[
        &format!("error: no BuildKit answers at {} (builder `team`, --builder)", door.address()),
        "its certificate is for builder.example, not for 127.0.0.1",
    ]);

    let project = family();
    fs::create_dir(project.path("certificates")).expect("created");
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(
            certificates.path(&format!("client/{file}")),
            project.path(&format!("certificates/{file}")),
        )
        .expect("copied");
    }
    let manifest = fs::read_to_string(project.path("images.yaml")).expect("read");
    let fields = "cacert=certificates/ca.pem,cert=certificates/cert.pem,key=certificates/key.pem,servername=builder.example";
    project.write("images.yaml", format!("builder: [\"{},{fields}\"]\n{manifest}", door.address()));
    builds_and_pushes(&project, &[]);
}

#[test]
fn in_a_container() {
    if !can_be_apart() {
        return;
    }
    let door = Door::buildkit(None);
    let project = family();
    let name = format!("lattice-test-{}", door.port);
    // what `buildctl dial-stdio` does in the image of BuildKit
    let script = format!("#!/bin/sh\n[ \"$1\" = dial-stdio ] && exec nc 127.0.0.1 {}\n", door.port);
    let project = project
        .busybox("builder/busybox")
        .file("builder/buildctl", script)
        .file("builder/Dockerfile", "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nCOPY busybox /bin/nc\nCOPY busybox /bin/sleep\nCOPY buildctl /bin/buildctl\n");
    fs::set_permissions(project.path("builder/buildctl"), fs::Permissions::from_mode(0o755)).expect("executable");
    project.docker(&["build", "-q", "-t", &name, "builder"]);
    project.docker(&["run", "-d", "--rm", "--network", "host", "--name", &name, &name, "sleep", "600"]);
    let daemon = env::var("DOCKER_HOST").expect("a daemon");
    let project = project.with("DOCKER_HOST", daemon);
    builds_and_pushes(&project, &["--builder", &format!("docker-container://{name}")]);
    project.docker(&["rm", "-f", &name]);
    project
        .run(&["build", "--builder", &format!("docker-container://{name}")])
        .ended(1)
        .says(&[
            &format!("error: no BuildKit answers in the container `{name}` of the daemon at unix://"),
            "No such container",
            "docker buildx inspect --bootstrap",
        ]);
    project.docker(&["image", "rm", "--no-prune", &name]);
}

#[test]
fn through_a_proxy() {
    if !can_be_apart() {
        return;
    }
    let certificates = Certificates::for_server("DNS:builder.test");
    let door = Door::buildkit(Some(&certificates));
    let (proxy, asked) = proxy::tunnel(door.address().trim_start_matches("tcp://"));
    let builder = with_tls(&door, &certificates).replace(&door.address(), "tcp://builder.test:1234");
    let project = family().with("HTTPS_PROXY", format!("http://kevin:hunter2@{proxy}"));
    builds_and_pushes(&project, &["--builder", &builder]);
    for head in asked.try_iter() {
        assert!(head.starts_with("CONNECT builder.test:1234 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic a2V2aW46aHVudGVyMg=="), "{head}");
    }
    project
        .with("HTTPS_PROXY", "http://kevin:hunter2@127.0.0.1:1")
        .run(&["build", "--builder", &builder])
        .ended(1)
        .says(&["the proxy cannot be reached"]);
}

/// Which builder a verbose run built each image with.
fn assigned(ran: &Ran) -> BTreeMap<String, String> {
    let lines = ran.stderr.lines().filter_map(|line| line.split_once(": built by "));
    lines
        .map(|(image, builder)| (image.rsplit(' ').next().unwrap_or_default().to_owned(), builder.to_owned()))
        .collect()
}

#[test]
fn several_share_the_work_and_an_image_stays_with_its_builder() {
    if !can_be_apart() {
        return;
    }
    let (one, two) = (Door::buildkit(None), Door::buildkit(None));
    let images: Vec<String> = (0..12).map(|number| format!("i{number}")).collect();
    let names: Vec<&str> = images.iter().map(String::as_str).collect();
    let project = Project::of_images(&names).with("DOCKER_HOST", NOWHERE);
    let both = format!("{},{}", one.address(), two.address());
    let first = assigned(&project.run(&["build", "-v", "--builder", &both]).ok());
    assert_eq!(first.len(), images.len());
    for door in [&one, &two] {
        assert!(first.values().any(|builder| *builder == door.address()), "{first:?}");
    }
    let again = project
        .run(&["build", "-v", "--builder", &two.address(), "--builder", &one.address()])
        .ok();
    assert_eq!(assigned(&again), first, "in whatever order they are named");

    let gone = two.address();
    drop(two);
    let left = project.run(&["build", "-v", "--builder", &both]).ok().says(&[&format!(
        "note: no BuildKit answers at {gone} (--builder): nothing listens there; the other builders take what it would build"
    )]);
    assert!(assigned(&left).values().all(|builder| *builder == one.address()));
    drop(one);
    project
        .run(&["build", "--builder", &both])
        .ended(1)
        .says(&["nothing listens there"]);
}

#[test]
fn siblings_work_across_builders() {
    if !can_be_apart() {
        return;
    }
    let doors = [Door::buildkit(None), Door::buildkit(None), Door::buildkit(None)];
    let all = doors.each_ref().map(Door::address).join(",");
    builds_and_pushes(&family(), &["--builder", &all]);
}

#[test]
fn what_stands_on_an_image_is_built_from_how_that_was_made() {
    if !push_is_part_of_the_build() {
        return;
    }
    let faults = Faults::start(|_| Act::Pass);
    let manifest = "images: { base: { context: base, push: false }, api: { context: api } }";
    let project = Project::new(&format!("{UTILITIES}{manifest}"));
    let data = project.registry.to_string();
    let project = faults.before(project).busybox("busybox");
    let project = project
        .file("base/Dockerfile", "FROM scratch\nENV OF=base\nCOPY data /data\n")
        .file("base/data", data)
        .file("api/Dockerfile", "FROM base\nCOPY --from=base /data /copied\n");
    let fetched = || {
        let seen = faults.front().seen();
        let blobs = seen.into_iter().filter(|seen| seen.is("GET", "/blobs/"));
        blobs.map(|seen| seen.target).collect::<Vec<_>>()
    };
    project.run(&["push-all", "--with-debug"]).ok();
    assert!(fetched().is_empty(), "{:?}", fetched());
    let [normal, debug] = ["kevin-api", "kevin-debug-api"].map(|image| project.registry.layers(image));
    assert_eq!(debug[..normal.len()], normal);
    let config = project.registry.config("kevin-debug-api");
    let variables = config["config"]["Env"].as_array().expect("variables");
    assert!(variables.iter().any(|variable| variable == "OF=base"), "{config}");

    // what is made anew each time must not be made twice
    project.run(&["push-all", "--with-debug", "--no-cache"]).ok();
    let [normal, debug] = ["kevin-api", "kevin-debug-api"].map(|image| project.registry.layers(image));
    assert_eq!(debug[..normal.len()], normal);
}

#[test]
fn what_is_only_built_stays_in_the_builder() {
    if !can_be_apart() {
        return;
    }
    let door = Door::buildkit(None);
    let project = family();
    project
        .run(&["build", "--builder", &door.address()])
        .ok()
        .says(&["stays in the builder's cache"]);
    let ran = project.run(&["build", "-q", "--builder", &door.address()]).ok();
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.lines().all(|line| line.starts_with("sha256:")), "{}", ran.stdout);
    assert!(project.registry.digest("kevin-api").is_none());
}

#[test]
fn a_builder_that_cannot_be_reached() {
    let project = family();
    let nowhere = format!("tcp://127.0.0.1:{}", free_port());
    let hint = "or name another builder: --builder";
    project.run(&["push-all", "--builder", &nowhere]).ended(1).says(&[
        &format!("error: no BuildKit answers at {nowhere} (--builder): nothing listens there"),
        hint,
    ]);
    let project = project.with("LATTICE_IMAGES_BUILDER", "unix:///nowhere/b.sock");
    project.run(&["push-all"]).ended(1).says(&[
        "no BuildKit answers at unix:///nowhere/b.sock (LATTICE_IMAGES_BUILDER): there is no such socket",
        hint,
    ]);
    let project = project.with("LATTICE_IMAGES_BUILDER", "");
    let manifest = fs::read_to_string(project.path("images.yaml")).expect("read");
    project.write("images.yaml", format!("{manifest}builder: {nowhere}\n"));
    project.run(&["push-all"]).ended(1).says(&[&format!("{nowhere} (images.yaml:6)")]);
    project.write("images.yaml", format!("{manifest}builder: [somebody]\n"));
    project
        .run(&["push-all"])
        .ended(2)
        .says(&["the builder `somebody` (images.yaml:6) cannot be used: buildx has no such builder (builders: default)"]);
    // the daemon itself, whatever the manifest says
    project
        .run(&["push-all", "--builder", "default"])
        .ended(1)
        .says(&["no Docker daemon answers at unix:///nowhere"]);
    project.run(&["push-all", "-n", "--builder", &nowhere]).ok();
}

#[test]
fn what_answers_must_be_a_buildkit_that_knows_the_person() {
    let project = family();
    let certificates = Certificates::for_server(LOOPBACK);
    let (plain, behind_tls) = (Door::plain(), Door::buildkit(Some(&certificates)));
    let run = |builder: &str| project.run(&["push-all", "--builder", builder]).ended(1);
    // not the daemon: a current one answers as a BuildKit, too
    let registry = format!("tcp://{}", provided("LATTICE_TEST_REGISTRY"));
    run(&registry).says(&[&registry, "no BuildKit answers"]);
    run(&behind_tls.address()).says(&[&behind_tls.address(), "for TLS: tcp://127.0.0.1"]);
    run(&with_tls(&plain, &certificates)).says(&["does not speak TLS"]);
    let ca = certificates.text("client/ca.pem");
    run(&format!("{},cacert={ca}", behind_tls.address())).says(&["cert=FILE,key=FILE"]);
    let stranger = Certificates::for_server(LOOPBACK);
    run(&with_tls(&behind_tls, &stranger)).says(&["its certificate is not signed by the CA in"]);
    let silent = Silent::new();
    run(&silent.address()).says(&["it did not answer within 10 s"]);
    silent.was_asked();
}

const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// A busybox for each architecture as `NAME-ARCHITECTURE` of a context. Only its header is changed: it does not run.
fn busyboxes(project: Project, name: &str) -> Project {
    let project = project.busybox(&format!("{name}-amd64"));
    let mut binary = fs::read(project.path(&format!("{name}-amd64"))).expect("read");
    // e_machine of the ELF header: EM_AARCH64
    binary[18..20].copy_from_slice(&183_u16.to_le_bytes());
    project.file(&format!("{name}-arm64"), binary)
}

#[test]
fn builders_of_one_platform_each_make_one_index() {
    if !can_be_apart() {
        return;
    }
    let (one, two) = (Door::buildkit(None), Door::buildkit(None));
    let images = "images:\n  base: { context: base, push: false }\n  api: { context: api }\n";
    let project = Project::new(&format!("defaults: {{ platforms: [linux/s390x, linux/arm64] }}\n{images}"))
        .file("base/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY ${TARGETARCH} /base\n")
        .file("base/s390x", "s390x")
        .file("base/arm64", "arm64")
        .file("api/Dockerfile", "FROM base\nCOPY Dockerfile /api\n")
        .with("DOCKER_HOST", NOWHERE);
    let node = |door: &Door, architecture: &str| {
        let platform = format!("{{\"os\":\"linux\",\"architecture\":\"{architecture}\"}}");
        format!("\"Endpoint\":\"{}\",\"Platforms\":[{platform}]", door.address())
    };
    buildx_knows(&project, "mixed", &[node(&one, "arm64"), node(&two, "s390x")]);
    let mut ran = project.run(&["push-all", "-v", "--builder", "mixed"]).ok();
    for (image, door) in [("base", &one), ("base", &two), ("api", &one), ("api", &two)] {
        ran = ran.says(&[&format!("{image}: built by {}", door.address())]);
    }
    for architecture in ["s390x", "arm64"] {
        let registry = project.registry.of_architecture(architecture);
        assert_eq!(registry.config("kevin-api")["architecture"], architecture);
        assert_eq!(registry.files("kevin-api")["base"].content, architecture.as_bytes());
    }
    let again = project.run(&["push-all", "--builder", "mixed"]).ok();
    assert!(again.stdout.contains("up to date"), "{}", again.stdout);
}

#[test]
fn several_platforms_become_an_index_with_utilities_for_each() {
    const PLATFORMS: &str = "defaults: { platforms: [linux/amd64, linux/arm64] }\n";
    let tools = Project::new(&format!("{PLATFORMS}images:\n  tools: {{ context: tools }}\n")).file(
        "tools/Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY busybox-${TARGETARCH} /bin/busybox\n",
    );
    let tools = busyboxes(tools, "tools/busybox");
    if !can_be_apart() {
        let refused = tools.run(&["push-all"]).ended(2);
        refused.says(&[
            "images.yaml:1: `platforms` has 2 entries, and an image of several platforms needs BuildKit and the containerd image store",
            "--builder",
        ]);
        return;
    }
    tools.run(&["push-all"]).ok();

    let images = "images:\n  base: { context: base, push: false }\n  api: { context: api }\n";
    let project = Project::new(&format!(
        "{PLATFORMS}debug: {{ utilities: '{}/kevin-tools:latest' }}\n{images}",
        tools.registry
    ))
    .file("base/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY ${TARGETARCH} /base\n")
    .file("base/amd64", "amd64")
    .file("base/arm64", "arm64")
    .file("api/Dockerfile", "FROM base\nCOPY Dockerfile /api\n");
    project.run(&["push-all", "--with-debug"]).ok();
    for architecture in ARCHITECTURES {
        let registry = project.registry.of_architecture(architecture);
        assert_eq!(registry.config("kevin-api")["architecture"], architecture);
        assert_eq!(registry.files("kevin-api")["base"].content, architecture.as_bytes());
        let normal = registry.layers("kevin-api");
        assert_eq!(registry.layers("kevin-debug-api")[..normal.len()], normal);
        let busybox = fs::read(tools.path(&format!("tools/busybox-{architecture}"))).expect("read");
        assert!(
            registry.files("kevin-debug-api")["busybox/busybox"].content == busybox,
            "{architecture}"
        );
    }
}

/// A builder that has lost what it made of a folder asks for that again, and takes any other of this name where nobody has it.
#[test]
fn what_a_builder_loses_in_the_middle_of_a_run_is_the_same_again() {
    let mut data = b"of the base".to_vec();
    data.resize(7_654_321, b'-');
    let project = Project::new("images: { base: { context: base }, slow: { context: slow }, child: { context: child } }")
        .file("base/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("base/data", data)
        .busybox("slow/busybox")
        .file("child/Dockerfile", "FROM base\nCOPY --from=slow /busybox /\nCOPY . /own/\n")
        .file("child/data", "of the child");
    let waits = format!("{} echo it waits; exec /busybox sleep 8", project.mark());
    let slow = format!("FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sh\", \"-c\", \"{waits}\"]\n");
    let project = project.file("slow/Dockerfile", slow);
    let mut run = project.start(&["push-all", "--progress", "json"]);
    let mut lines = BufReader::new(run.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let mut awaited = vec![["\"base\"", "\"event\":\"built\""], ["\"slow\"", "\"text\":\"it waits\""]];
    while !awaited.is_empty() {
        let line = lines.next().expect("it ended too early");
        awaited.retain(|parts| !parts.iter().all(|part| line.contains(part)));
    }
    // nothing else in the daemon is of this size
    let is_of_base = |record: &Value| (7_654_321..7_700_000).contains(&record["Size"].as_u64().unwrap_or_default());
    let lost = interrupt::build_cache().into_iter().filter(is_of_base);
    let lost: Vec<String> = lost.filter_map(|record| Some(record["ID"].as_str()?.to_owned())).collect();
    // a record goes after those that stand on it
    for _ in &lost {
        for id in &lost {
            let prune = format!("http://docker/build/prune?all=1&filters={{\"id\":{{\"{id}\":true}}}}");
            interrupt::asked_of_the_daemon(&["-g", "-X", "POST", &prune]);
        }
    }
    assert!(is_classic() || !lost.is_empty(), "the builder had nothing of the base");
    let rest: Vec<String> = lines.collect();
    assert!(run.wait().expect("ended").success(), "{rest:#?}");
    let files = project.registry.files("kevin-child");
    let text = |path: &str| String::from_utf8(files[path].content[..8].to_vec()).expect("text");
    assert_eq!((text("data"), text("own/data")), ("of the b".to_owned(), "of the c".to_owned()));
}

#[test]
fn what_is_published_from_here_is_built_upon_as_the_builder_has_it() {
    let above = ["", "RUN [\"/bin/busybox\", \"true\"]\n"];
    for above in &above[..if is_classic() { 1 } else { 2 }] {
        let project = Project::of_images(&["base", "web"])
            .busybox("base/busybox")
            .file("base/Dockerfile", "FROM scratch\nCOPY busybox /bin/busybox\nCOPY data /app/data\n")
            .file("web/Dockerfile", format!("FROM base\n{above}COPY data /data2\n"));
        project.run(&["push-all"]).ok();
        project.write("web/data", "changed");
        let ran = project.run(&["push-all", "-v"]).ok();
        let is_told = ran.stderr.contains(" need not be fetched");
        assert_eq!(is_told, push_is_part_of_the_build(), "{above}: {}", ran.stderr);
        // the daemon may have compressed one of them, and this program the other
        let layers = |image: &str| project.registry.config(&format!("kevin-{image}"))["rootfs"]["diff_ids"].clone();
        let [web, base] = ["web", "base"].map(|image| layers(image).as_array().expect("a list").clone());
        assert_eq!(web[..2], base, "{above}");
    }
}
