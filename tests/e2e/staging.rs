//! Images that the client brings to the registry instead of the daemon: what is there then, and how often it travelled.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::builders::{needs_no_daemon, push_is_part_of_the_build};
use crate::front::{Act, Front, Seen, Tunnel};
use crate::releases::Faults;
use crate::support::{Project, Ran, provided};

const PUSH: [&str; 3] = ["push-all", "--push-by", "client"];
const IMAGES: [&str; 3] = ["base", "api", "web"];

/// Two images on one base, each with a layer of its own of several megabytes, by patterns, so that none can be made again
/// without the daemon. None where no daemon would push.
fn project() -> Option<Project> {
    if needs_no_daemon() {
        return None;
    }
    let project = Project::new("images: { base: { context: base }, api: { context: api }, web: { context: web } }");
    let of = project.registry.to_string();
    let project = IMAGES.iter().fold(project, |project, name| {
        let from = if *name == "base" { "scratch" } else { "base" };
        project
            .file(&format!("{name}/Dockerfile"), format!("FROM {from}\nCOPY [d]ata /{name}\n"))
            .file(&format!("{name}/data"), content(name, &of))
    });
    (!project.has_containerd_store()).then_some(project)
}

fn content(name: &str, of: &str) -> Vec<u8> {
    let line = format!("{name} of {of}: some text that can be compressed\n");
    line.into_bytes().into_iter().cycle().take(3_000_000).collect()
}

fn uploads(front: &Front) -> usize {
    front.count("PATCH", "/blobs/uploads/")
}

fn is_mount(seen: &Seen) -> bool {
    seen.is("POST", "mount=")
}

/// Whether an independent client finds all digests, sizes and uncompressed layers right.
#[track_caller]
pub fn is_valid(project: &Project, image: &str) {
    let mut crane = Command::new(provided("LATTICE_TEST_CRANE"));
    crane.args(["validate", "--remote", &format!("{}/kevin-{image}", project.registry)]);
    Ran::of(crane.output().expect("crane runs")).ok();
}

#[test]
fn the_registry_has_what_a_push_by_the_daemon_would_have_brought() {
    let Some(project) = project() else { return };
    let ran = project.run(&["push-all", "--push-by", "client", "-v"]).ok();
    assert!(ran.stderr.contains("pushed by the client"), "{}", ran.stderr);
    for image in IMAGES {
        let name = format!("kevin-{image}");
        is_valid(&project, image);
        let manifest = project.registry.manifest(&name);
        assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
        let inspect = |format: &str| {
            let reference = format!("{}/{name}:latest", project.registry);
            project.docker(&["image", "inspect", "--format", format, &reference])
        };
        let id = manifest["config"]["digest"].as_str().expect("a digest");
        assert_eq!(inspect("{{.Id}}").trim(), id, "the configuration is the daemon's, byte for byte");
        // a push by the daemon of the very same image
        let theirs = format!("{}/theirs-{image}", project.registry);
        project.docker(&["tag", id, &theirs]);
        project.docker(&["push", "-q", &theirs]);
        let theirs = project.registry.manifest(&format!("theirs-{image}"));
        assert_eq!(manifest["config"], theirs["config"]);
        let kinds = |manifest: &serde_json::Value| -> Vec<serde_json::Value> {
            let layers = manifest["layers"].as_array().expect("layers");
            layers.iter().map(|layer| layer["mediaType"].clone()).collect()
        };
        assert_eq!(kinds(&manifest), kinds(&theirs));
        assert_eq!(project.registry.files(&name), project.registry.files(&format!("theirs-{image}")));
    }
}

#[test]
fn an_image_without_layers_is_pushed_too() {
    let Some(project) = project() else { return };
    project.write("base/Dockerfile", format!("FROM scratch\nLABEL of=\"{}\"\n", project.registry));
    project.run(&PUSH).ok();
    assert_eq!(
        (
            project.registry.layers("kevin-base").len(),
            project.registry.layers("kevin-api").len()
        ),
        (0, 1)
    );
}

#[test]
fn each_layer_is_uploaded_once_and_what_the_registry_has_never_again() {
    let Some(project) = project() else { return };
    let faults = Faults::start(|_| Act::Pass);
    let project = faults.before(project);
    let sent = |expected: usize, what: &str| {
        static BEFORE: AtomicUsize = AtomicUsize::new(0);
        project.run(&PUSH).ok();
        let all = uploads(faults.front());
        assert_eq!(all - BEFORE.swap(all, SeqCst), expected, "{what}");
        is_valid(&project, "web");
    };
    sent(3, "three layers, of which one is in all images");
    project.write("web/data", content("web", &format!("another time {}", project.registry)));
    sent(1, "the layer that changed");
    let folder = project.home().join(".cache/lattice-images/layers");
    for file in fs::read_dir(&folder).expect("layers are remembered").flatten() {
        let whole = fs::read(file.path()).expect("read");
        fs::write(file.path(), &whole[..whole.len() / 2]).expect("damaged");
    }
    project.write("web/data", content("web", &format!("a third time {}", project.registry)));
    sent(2, "all layers of the image, for nothing is known of them");
}

#[test]
fn what_the_registry_has_lost_or_does_not_mount_is_uploaded_again() {
    let Some(project) = project() else { return };
    let loses = Arc::new(AtomicUsize::new(0));
    let is_lost = Arc::clone(&loses);
    let faults = Faults::start(move |seen| match seen {
        _ if is_lost.load(SeqCst) == 0 => Act::Pass,
        seen if seen.is("HEAD", "/blobs/") => Act::status(404),
        seen if is_mount(seen) => Act::PassTo(seen.target.split('?').next().expect("a path").to_owned()),
        _ => Act::Pass,
    });
    let project = faults.before(project);
    project.run(&PUSH).ok();
    assert_eq!(uploads(faults.front()), 3);
    loses.store(1, SeqCst);
    for image in ["api", "web"] {
        project.write(&format!("{image}/data"), content(image, &format!("lost {}", project.registry)));
    }
    project.run(&PUSH).ok();
    assert_eq!(uploads(faults.front()), 3 + 4, "the base for either image");
    for image in IMAGES {
        is_valid(&project, image);
    }
}

#[test]
fn an_upload_that_breaks_is_made_anew_and_one_that_goes_on_failing_publishes_nothing() {
    let Some(project) = project() else { return };
    let left = Arc::new(AtomicUsize::new(2));
    let fails = Arc::clone(&left);
    let faults = Faults::start(move |seen| {
        let hit = seen.method == "PATCH" && fails.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        Act::when(hit, || Act::status(500))
    });
    let project = faults.before(project);
    project.run(&PUSH).ok();
    assert_eq!(uploads(faults.front()), 3 + 2);
    for image in IMAGES {
        is_valid(&project, image);
    }
    let published = project.registry.digest("kevin-web");
    left.store(usize::MAX, SeqCst);
    project.write("web/data", content("web", &format!("another time {}", project.registry)));
    project
        .run(&PUSH)
        .ended(1)
        .says(&["pushing web", "/kevin-web: ", "500", "nothing was published"]);
    assert_eq!(project.registry.digest("kevin-web"), published);
}

#[test]
fn interrupted_it_leaves_no_file_behind() {
    let Some(project) = project() else { return };
    let faults = Faults::start(|seen| Act::when(seen.method == "PATCH", || Act::Hang));
    let folder = project.path("tmp");
    fs::create_dir(&folder).expect("created");
    let project = faults.before(project).with("TMPDIR", folder.display().to_string());
    let mut child = project
        .command(".", &["push-all", "--push-by", "client", "--progress", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("\"uploading\"")), "it uploads");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    let rest: Vec<_> = lines.collect();
    assert_eq!(child.wait().expect("ended").code(), Some(130), "{rest:?}");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
    assert!(project.registry.digest("kevin-api").is_none());
}

#[test]
fn where_the_daemon_does_not_reach_the_registry_the_client_pushes() {
    let Some(project) = project() else { return };
    // only the client goes through this proxy
    let runtime = Runtime::new().expect("a runtime");
    let proxy = runtime.block_on(Tunnel::start(&provided("LATTICE_TEST_REGISTRY")));
    let path = project.registry.path().to_owned();
    let manifest = fs::read_to_string(project.path("images.yaml")).expect("read");
    project.write("images.yaml", format!("insecure_registries: [registry.invalid]\n{manifest}"));
    let address = format!("http://{}", proxy.host);
    let project = project
        .with("HTTP_PROXY", &address)
        .with("HTTPS_PROXY", &address)
        .with("LATTICE_IMAGES_REGISTRY", format!("registry.invalid/{path}"));
    project
        .run(&["push-image", "api", "--push-by", "daemon"])
        .ok()
        .says(&["the daemon cannot reach the registry registry.invalid, and this program can: it pushes instead"]);
    is_valid(&project, "api");
    // and it has itself what the next build stands on
    project.write("api/data", format!("anew {}", project.registry));
    project.run(&["push-image", "api"]).ok();
    is_valid(&project, "api");
    let _guard = runtime.enter();
    drop(proxy);
}

#[test]
fn to_a_registry_that_is_far_away_the_client_pushes() {
    let Some(project) = project() else { return };
    let project = project.with("LATTICE_IMAGES_PUSH_BY", "");
    project.run(&["push-image", "base", "-v"]).ok().says(&["pushed by the daemon"]);
    let far = Faults::start(|_| {
        thread::sleep(Duration::from_millis(20));
        Act::Pass
    });
    let project = far.before(project);
    project.run(&["push-all", "-v"]).ok().says(&["pushed by the client"]);
    for image in IMAGES {
        is_valid(&project, image);
    }
}

#[test]
fn containerds_store_gets_what_is_pushed_where_it_had_an_older_one() {
    if needs_no_daemon() || !push_is_part_of_the_build() {
        return;
    }
    // the builder has to compress what it stands on, and both share that
    let project = Project::of_images(&["base", "api", "web"])
        .file("api/Dockerfile", "FROM base\nCOPY [d]ata /api\n")
        .file("web/Dockerfile", "FROM base\nCOPY data /web\n");
    let there = |image: &str| {
        let name = format!("{}/kevin-{image}", project.registry);
        let id = project.docker(&["image", "ls", "--no-trunc", "--format", "{{.ID}}", &name]);
        (!id.is_empty()).then(|| id.trim().to_owned())
    };
    let layers = |image: &str| project.registry.layers(&format!("kevin-{image}"));
    project.run(&["push-all"]).ok();
    for image in ["base", "api", "web"] {
        assert_eq!(there(image), None, "{image}");
        assert_eq!(layers(image)[..1], layers("base"));
    }
    let changed = |arguments: &[&str]| {
        project.write("api/data", format!("{arguments:?} in {}", project.registry));
        project.run(arguments).ok();
        there("api")
    };
    let first = changed(&["push-all", "--push-by", "daemon"]);
    assert!(first.is_some() && first == project.registry.digest("kevin-api"));
    let second = changed(&["push-all"]);
    assert!(second != first && second == project.registry.digest("kevin-api"));
    assert_eq!((there("base"), there("web")), (None, None));
}

#[test]
fn who_pushes_is_daemon_or_client() {
    let Some(project) = project() else { return };
    let project = project.with("LATTICE_IMAGES_PUSH_BY", "client");
    project.run(&["push-image", "base", "-v"]).ok().says(&["pushed by the client"]);
    project.write("base/data", format!("anew {}", project.registry));
    let ran = project.run(&["push-image", "base", "-v", "--push-by", "daemon"]).ok();
    assert!(
        ran.stderr.contains("pushed by the daemon"),
        "the option goes before the environment"
    );
    project
        .with("LATTICE_IMAGES_PUSH_BY", "me")
        .run(&["push-all"])
        .ended(2)
        .says(&["LATTICE_IMAGES_PUSH_BY is `me`, and can be daemon or client"]);
}
