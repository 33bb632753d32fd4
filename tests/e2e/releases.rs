//! Channels as releases: what is skipped, copied, published all or nothing, looked at, and gone back to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::builders;
use crate::front::{Act, Front, Seen};
use crate::registry::{HTPASSWD, OwnRegistry, PASSWORD};
use crate::support::{Project, Ran, provided};

const NO_DAEMON: &str = "unix:///nonexistent/docker.sock";
const IMAGES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A proxy in front of the tests' registry, with a runtime of its own.
pub struct Faults {
    front: Option<Front>,
    runtime: Runtime,
}

impl Faults {
    pub fn start(decide: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let front = runtime.block_on(Front::start(&provided("LATTICE_TEST_REGISTRY"), decide));
        Self {
            front: Some(front),
            runtime,
        }
    }

    pub fn front(&self) -> &Front {
        self.front.as_ref().expect("until it is dropped")
    }

    /// The same project, seen through the proxy.
    pub fn before(&self, project: Project) -> Project {
        let registry = format!("{}/{}", self.front().host, project.registry.path());
        project.with("LATTICE_IMAGES_REGISTRY", registry)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _guard = self.runtime.enter();
        drop(self.front.take());
    }
}

fn digests(project: &Project, images: &[&str]) -> BTreeMap<String, Option<String>> {
    let digest = |image: &&str| (format!("kevin-{image}"), project.registry.digest(&format!("kevin-{image}")));
    images.iter().map(digest).collect()
}

fn rows(ran: &Ran) -> BTreeMap<String, String> {
    let rows = ran.stdout.lines().skip(1).take_while(|line| !line.is_empty());
    rows.map(|row| {
        let (image, rest) = row.split_once(' ').expect("two columns");
        (image.to_owned(), rest.trim().split("  ").next().expect("a result").to_owned())
    })
    .collect()
}

fn json(project: &Project, arguments: &[&str]) -> Value {
    let ran = project.run(arguments);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", ran.stdout, ran.stderr))
}

#[test]
fn nothing_changed_needs_no_daemon_and_no_write() {
    let registry = OwnRegistry::start(None);
    let entries: String = IMAGES.iter().map(|name| format!("  {name}: {{ context: {name} }}\n")).collect();
    let mut project = Project::in_registry(&format!("images:\n{entries}"), &registry.host);
    for name in IMAGES {
        project = project
            .file(&format!("{name}/Dockerfile"), "FROM scratch\nCOPY data /data\n")
            .file(&format!("{name}/data"), format!("{name} of {}", registry.host));
    }
    project.run(&["push-all"]).ok();
    let before = registry.log().len();
    let project = project.with("DOCKER_HOST", NO_DAEMON);
    let ran = project.run(&["push-all"]).ok();
    assert!(rows(&ran).values().all(|result| result == "up to date"), "{}", ran.stdout);
    let log = registry.log();
    let requests: Vec<&str> = log[before..].lines().filter(|line| line.starts_with("127.0.0.1 - - ")).collect();
    assert!(requests.len() <= 20, "{requests:#?}");
    assert!(
        requests.iter().all(|line| line.contains("\"GET /") || line.contains("\"HEAD /")),
        "{requests:#?}"
    );
}

#[test]
fn times_and_the_groups_write_bit_move_nothing_and_another_mode_does() {
    let project = Project::of_images(&["api"]);
    project.run(&["push-all"]).ok();
    let first = project.registry.digest("kevin-api");
    let data = project.path("api/data");
    let mode = |mode: u32| fs::set_permissions(&data, fs::Permissions::from_mode(mode)).expect("changed");
    let file = fs::File::options().append(true).open(&data).expect("opened");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touched");
    mode(0o664);
    project.write("README", "not in the context");
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "up to date");
    mode(0o755);
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "pushed");
    assert_ne!(project.registry.digest("kevin-api"), first);
}

#[test]
fn what_a_dockerfile_does_not_read_moves_nothing() {
    let project = Project::new("images: { api: { context: . } }")
        .file("Dockerfile", "FROM scratch\nCOPY src /src\n")
        .file("src/main", "one")
        .file("README.md", "one");
    project.run(&["push-all"]).ok();
    project.write("README.md", "two");
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "up to date");
    assert_eq!(project.run(&["status"]).code, 0);
    project.write("src/main", "two");
    let status = project.run(&["status", "-v"]).ended(1);
    assert!(status.stdout.contains("file changed: src/main"), "{}", status.stdout);
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "pushed");
    assert_eq!(project.with("LATTICE_IMAGES_REGISTRY", "127.0.0.1:1/x").run(&["status"]).code, 2);
}

#[test]
fn one_repository_that_fails_moves_no_tag_and_the_next_run_finishes() {
    for fails in ["POST /v2/", "PUT latest"] {
        let broken = Arc::new(AtomicBool::new(false));
        let is_broken = Arc::clone(&broken);
        let faults = Faults::start(move |seen| {
            let hit = match fails {
                "POST /v2/" => seen.is("POST", "/kevin-c/blobs/uploads/"),
                _ => seen.is("PUT", "/kevin-c/manifests/latest"),
            };
            Act::when(hit && is_broken.load(Ordering::SeqCst), || Act::status(500))
        });
        let project = faults.before(Project::of_images(&IMAGES));
        project.run(&["push-all"]).ok();
        let first = digests(&project, &IMAGES);
        for image in IMAGES {
            project.write(&format!("{image}/data"), format!("{image} anew of {}", project.registry));
        }
        broken.store(true, Ordering::SeqCst);
        let ran = project.run(&["push-all"]).ended(1).says(&["kevin-c"]);
        assert_eq!(digests(&project, &IMAGES), first, "{fails}: {}", ran.stderr);
        if fails == "PUT latest" {
            assert!(ran.stderr.contains("/kevin is as it was"), "{}", ran.stderr);
        } else {
            assert!(!ran.stderr.contains("built"), "before any build: {}", ran.stderr);
        }
        broken.store(false, Ordering::SeqCst);
        project.run(&["push-all"]).ok();
        let second = digests(&project, &IMAGES);
        assert!(
            IMAGES
                .iter()
                .all(|image| second[&format!("kevin-{image}")] != first[&format!("kevin-{image}")])
        );
        let show = json(&project, &["channels", "show", "--json"]);
        assert_eq!((&show["record"]["sequence"], &show["intent"]), (&Value::from(2), &Value::Null));
    }
}

/// Kills a push at the n-th of its writes, for every n: the channel is old or new, or named as interrupted; the next run
/// finishes or undoes it.
#[test]
fn killed_at_any_write_the_channel_is_old_or_new_or_mended_by_the_next_run() {
    let images = ["a", "b", "c"];
    let (writes, limit) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (counted, bound) = (Arc::clone(&writes), Arc::clone(&limit));
    let faults = Faults::start(move |seen| {
        let counts = seen.method == "PUT" && seen.target.contains("/manifests/");
        Act::when(
            counts && counted.fetch_add(1, Ordering::SeqCst) >= bound.load(Ordering::SeqCst),
            || Act::Hang,
        )
    });
    let project = faults.before(Project::of_images(&images));
    project.run(&["push-all"]).ok();
    let mut interrupted = 0;
    for stop_at in 0.. {
        let old = digests(&project, &images);
        for image in images {
            project.write(&format!("{image}/data"), format!("{image} {stop_at} of {}", project.registry));
        }
        writes.store(0, Ordering::SeqCst);
        limit.store(stop_at, Ordering::SeqCst);
        let mut child = project.start(&["push-all", "-j1"]);
        let done = until(&mut child, || writes.load(Ordering::SeqCst) > stop_at);
        child.kill().expect("killed");
        child.wait().expect("ended");
        limit.store(usize::MAX, Ordering::SeqCst);
        let torn = digests(&project, &images);
        let shown = json(&project, &["channels", "show", "--json"]);
        let is_mixed = torn != old && torn.iter().any(|(image, digest)| old[image] == *digest);
        if !shown["intent"].is_null() {
            interrupted += 1;
        }
        assert!(
            !is_mixed || !shown["intent"].is_null(),
            "a mix that nothing tells of, at {stop_at}: {shown}"
        );
        project.run(&["push-all"]).ok();
        let shown = json(&project, &["channels", "show", "--json"]);
        assert_eq!(shown["intent"], Value::Null, "at {stop_at}");
        for (image, digest) in digests(&project, &images) {
            assert_ne!(digest, old[&image], "the new set is in, at {stop_at}");
            let image = image.trim_start_matches("kevin-");
            assert_eq!(
                shown["images"][image]["entry"]["digest"],
                Value::from(digest.expect("there")),
                "at {stop_at}"
            );
        }
        if done {
            break;
        }
    }
    assert!(interrupted >= 3, "the flips were met: {interrupted}");
}

/// Whether it ended before the condition held.
fn until(child: &mut Child, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if child.try_wait().expect("asked").is_some() {
            return true;
        }
        if holds() {
            return false;
        }
        assert!(Instant::now() < deadline, "nothing happens");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn both_variants_are_one_act() {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let faults = Faults::start(move |seen| {
        let hit = seen.is("PUT", "/kevin-debug-api/manifests/latest");
        Act::when(hit && is_broken.load(Ordering::SeqCst), || Act::status(500))
    });
    let project = Project::new("debug: { utilities: ./busybox }\nimages: { api: { context: api }, web: { context: api } }")
        .busybox("busybox")
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("api/data", "one");
    let project = faults.before(project);
    project.run(&["push-all", "--with-debug"]).ok();
    let tags = |project: &Project| {
        let names = ["kevin-api", "kevin-web", "kevin-debug-api", "kevin-debug-web"];
        names.map(|name| project.registry.digest(name))
    };
    let first = tags(&project);
    project.write("api/data", "two");
    broken.store(true, Ordering::SeqCst);
    project
        .run(&["push-all", "--with-debug"])
        .ended(1)
        .says(&["/kevin and ", "/kevin-debug are as they were"]);
    assert_eq!(tags(&project), first);
    broken.store(false, Ordering::SeqCst);
    let ran = project.with("DOCKER_HOST", NO_DAEMON).run(&["push-all", "--with-debug"]).ok();
    assert!(rows(&ran).values().all(|result| result == "built before"), "{}", ran.stdout);
}

/// Two images of one content, that `stable` has.
fn with_stable(registry: &OwnRegistry) -> Project {
    let project = Project::in_registry("images: { api: { context: api }, web: { context: api } }", &registry.host)
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("api/data", "one");
    project.commit_all("master");
    project.run(&["push-all", "--stable", "--yes"]).ok();
    project
}

#[test]
fn from_stable_without_a_daemon_and_never_the_other_way() {
    let registry = OwnRegistry::start(None);
    let project = with_stable(&registry);
    let before = registry.log().len();
    let project = project.with("DOCKER_HOST", NO_DAEMON);
    let ran = project.run(&["push-all"]).ok();
    assert!(rows(&ran).values().all(|result| result == "copied from stable"), "{}", ran.stdout);
    let log = registry.log();
    assert!(!log[before..].contains("\"PATCH /"), "bytes passed the client");
    assert_eq!(project.registry.digest("kevin-api"), project.registry.digest("stable-api"));

    project.write("api/data", "two");
    let daemon = provided("DOCKER_HOST");
    let project = project.with("DOCKER_HOST", daemon);
    project.run(&["push-all"]).ok();
    project.commit_all("master");
    let ran = project.run(&["push-all", "--stable", "--yes"]).ok();
    assert!(rows(&ran).values().all(|result| result == "pushed"), "{}", ran.stdout);
}

#[test]
fn ones_other_channel_takes_what_this_machine_has_pushed_and_nobody_elses_does() {
    let registry = OwnRegistry::start(None);
    let images = "images: { base: { context: base, push: false }, api: { context: api }, web: { context: api, labels: { of: web } } }";
    let project = Project::in_registry(images, &registry.host)
        .file("base/Dockerfile", "FROM scratch\nCOPY Dockerfile /base\n")
        .file("api/Dockerfile", "FROM base\nCOPY data /data\n")
        .file("api/data", format!("one of {}", registry.host));
    project.run(&["push-all"]).ok();
    let before = registry.log().len();
    let project = project.with("DOCKER_HOST", NO_DAEMON);
    let ran = project.run(&["push-all", "--user", "trial"]).ok();
    assert!(rows(&ran).values().all(|result| result == "copied from kevin"), "{}", ran.stdout);
    let log = registry.log();
    assert!(!log[before..].contains("\"PATCH /"), "bytes passed the client");
    assert!(!log[before..].contains("kevin-api/manifests/"), "its manifest is known here");
    assert!(!log.contains("trial-base"), "nobody needs the base");
    assert_eq!(project.registry.digest("trial-web"), project.registry.digest("kevin-web"));

    // another person's machine takes nothing from there, and `stable` never does
    let daemon = provided("DOCKER_HOST");
    let project = project.with("DOCKER_HOST", daemon);
    let elsewhere = project.path("elsewhere").display().to_string();
    let project = project.with("XDG_CACHE_HOME", elsewhere);
    let is_built = |arguments: &[&str]| {
        let ran = project.run(arguments).ok();
        assert!(["api", "web"].iter().all(|image| rows(&ran)[*image] == "pushed"), "{}", ran.stdout);
    };
    is_built(&["push-all", "--user", "ann"]);
    project.commit_all("master");
    is_built(&["push-all", "--stable", "--yes"]);
}

#[test]
fn what_was_pushed_and_is_gone_is_built() {
    let registry = OwnRegistry::that_deletes();
    let project = Project::in_registry("images: { api: { context: api }, web: { context: web } }", &registry.host)
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("api/data", format!("one of {}", registry.host))
        .file("web/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("web/data", format!("another of {}", registry.host));
    project.run(&["push-all"]).ok();
    // the manifest is known here, so its blobs are enough
    let digest = project.registry.digest("kevin-web").expect("pushed");
    project.registry.delete("kevin-web", &digest);
    registry.lose(&format!("{}/kevin-api", project.registry.path()));
    let ran = project.run(&["push-all", "--user", "trial"]).ok();
    let rows = rows(&ran);
    assert_eq!((rows["api"].as_str(), rows["web"].as_str()), ("pushed", "copied from kevin"));
    assert_eq!(project.registry.digest("trial-web"), Some(digest));
}

#[test]
fn an_older_checkout_is_found_and_published_without_a_build() {
    let project = Project::of_images(&["api"]);
    let data = fs::read_to_string(project.path("api/data")).expect("read");
    project.run(&["push-all"]).ok();
    let first = project.registry.digest("kevin-api");
    project.write("api/data", "newer");
    project.run(&["push-all"]).ok();
    project.write("api/data", data);
    let project = project.with("DOCKER_HOST", NO_DAEMON);
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "built before");
    assert_eq!(project.registry.digest("kevin-api"), first);
}

#[test]
fn a_latest_that_another_tool_moved_is_put_right() {
    let project = Project::of_images(&["api", "web"]);
    project.run(&["push-all"]).ok();
    let first = project.registry.digest("kevin-api");
    let reference = |image: &str| format!("{}/kevin-{image}:latest", project.registry);
    project.docker(&["pull", "-q", &reference("web")]);
    project.docker(&["tag", &reference("web"), &reference("api")]);
    project.docker(&["push", "-q", &reference("api")]);
    assert_ne!(project.registry.digest("kevin-api"), first);
    let shown = project.run(&["channels", "show"]).ok();
    assert!(shown.stdout.contains("moved by another tool"), "{}", shown.stdout);
    project
        .run(&["push-all"])
        .ok()
        .says(&["kevin-api:latest is not what the channel's record says"]);
    assert_eq!(project.registry.digest("kevin-api"), first);
}

#[test]
fn a_rollback_gives_the_very_digests_back_and_can_be_rolled_back() {
    let project = Project::of_images(&["api", "web"]);
    project.run(&["push-all"]).ok();
    let first = digests(&project, &["api", "web"]);
    project.write("api/data", "two");
    project.run(&["push-all"]).ok();
    let second = digests(&project, &["api", "web"]);
    let project = project.with("DOCKER_HOST", NO_DAEMON);
    project.run(&["channels", "rollback", "kevin"]).ok();
    assert_eq!(digests(&project, &["api", "web"]), first);
    project.run(&["channels", "rollback", "kevin", "--to", "2"]).ok();
    assert_eq!(digests(&project, &["api", "web"]), second);
    let history = json(&project, &["channels", "history", "--json"]);
    let acts: Vec<_> = history
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["record"]["act"]["kind"].clone())
        .collect();
    assert_eq!(acts, ["rollback", "rollback", "push", "push"]);
    project
        .run(&["channels", "rollback", "kevin", "--to", "9"])
        .ended(2)
        .says(&["has no record 9", "it has 1 to 4"]);
}

#[test]
fn the_stable_guard() {
    let project = Project::of_images(&["api"]);
    let refused = |arguments: &[&str], says: &str| {
        let ran = project.run(arguments).ended(1).says(&["`stable` is not to be published", says]);
        assert!(ran.stderr.contains("--override-stable-guard"), "{}", ran.stderr);
    };
    let push = ["push-all", "--stable", "--yes"];
    refused(&push, "not a git repository");
    project.commit_all("master");
    project.write("api/data", "dirty");
    refused(&push, "commit them first");
    project.git(&["checkout", "-q", "."]);
    project.git(&["checkout", "-q", "-b", "feature"]);
    refused(&push, "`feature` is checked out");
    project.git(&["checkout", "-q", "--detach", "master"]);
    project.run(&push).ok();
    let published = project.git(&["rev-parse", "HEAD"]);
    let shown = json(&project, &["channels", "show", "stable", "--json"]);
    assert_eq!(shown["record"]["revision"]["commit"], Value::from(published.clone()));

    project.git(&["checkout", "-q", "master"]);
    project.write("api/data", "newer");
    project.git(&["commit", "-qam", "newer"]);
    let newer = project.git(&["rev-parse", "HEAD"]);
    project.run(&push).ok();
    project.git(&["checkout", "-q", "--detach", &published]);
    refused(&push, "is older than");
    let ran = project.command(".", &push).env("CI", "true").output().expect("runs");
    let ran = Ran::of(ran).ok();
    assert_eq!(ran.stdout.trim(), format!("superseded by {newer}"));

    // after a rollback the bad commit is not published again, and what comes after it is
    project.run(&["channels", "rollback", "stable", "--yes"]).ok();
    project.git(&["checkout", "-q", "master"]);
    refused(&push, "was rolled back");
    project.write("api/data", "mended");
    project.git(&["commit", "-qam", "mended"]);
    project.run(&push).ok();

    // a remote that does not have the commit
    let remote = project.path("../remote.git").display().to_string();
    project.git(&["init", "-q", "--bare", &remote]);
    project.git(&["remote", "add", "origin", &remote]);
    project.git(&["push", "-q", "-u", "origin", "master"]);
    project.write("api/data", "not pushed");
    project.git(&["commit", "-qam", "not pushed"]);
    refused(&push, "is not in `origin/master`");
    project.git(&["push", "-q"]);
    project.run(&push).ok();
    project.run(&["push-all", "--override-stable-guard"]).ended(2);
}

const PUSH_STABLE: [&str; 3] = ["push-all", "--stable", "--yes"];
const COPY_TO_STABLE: [&str; 5] = ["channels", "copy", "kevin", "stable", "--yes"];

fn refused_by_the_guard(project: &Project, arguments: &[&str], says: &str) {
    let ran = project.run(arguments).ended(1);
    ran.says(&["`stable` is not to be published", says, "--override-stable-guard"]);
}

#[test]
fn what_was_rolled_back_in_one_of_two_channels_counts_for_both() {
    let project = Project::of_images(&["api"]).busybox("busybox");
    project.write("images.yaml", "debug: { utilities: ./busybox }\nimages: { api: { context: api } }");
    project.commit_all("master");
    let push = ["push-all", "--stable", "--with-debug", "--yes"];
    project.run(&push).ok();
    project.write("api/data", "bad");
    project.git(&["commit", "-qam", "bad"]);
    project.run(&push).ok();
    project.run(&["channels", "rollback", "stable-debug", "--yes"]).ok();
    refused_by_the_guard(&project, &push, "was rolled back");
}

#[test]
fn stable_stands_only_on_bases_that_their_registries_tell() {
    let elsewhere = OwnRegistry::start(None);
    let project = Project::new("images: { base: { context: base, push: false }, api: { context: api } }");
    let base = format!("{}/{}/base:1", elsewhere.host, project.registry.path());
    let project = project
        .file(
            "elsewhere/Dockerfile",
            format!("FROM scratch\nLABEL of={base}\nCOPY Dockerfile /base\n"),
        )
        .file("base/Dockerfile", format!("FROM {base}\nLABEL a=b\n"))
        .file("api/Dockerfile", "FROM base\nCOPY Dockerfile /api\n");
    project.docker(&["build", "-q", "-t", &base, "elsewhere"]);
    project.docker(&["push", "-q", &base]);
    project.commit_all("master");
    project.run(&PUSH_STABLE).ok();
    let shown = json(&project, &["channels", "show", "stable", "--json"]);
    assert_eq!(shown["record"]["images"]["api"]["unresolved"], Value::Null);
    drop(elsewhere);

    let says = format!("`{base}` was not resolved at its registry");
    refused_by_the_guard(&project, &PUSH_STABLE, &says);
    // who copies an image that was published so is told, too
    project.run(&["push-all"]).ok().says(&["what it told last is taken"]);
    let shown = json(&project, &["channels", "show", "--json"]);
    assert_eq!(shown["record"]["images"]["api"]["unresolved"][0], Value::from(base.as_str()));
    refused_by_the_guard(&project, &COPY_TO_STABLE, &says);
    let overridden = [&PUSH_STABLE[..], &["--override-stable-guard"]].concat();
    project.run(&overridden).ok().says(&["overridden", &says]);

    if builders::needs_no_daemon() {
        return;
    }
    fs::remove_dir_all(project.home().join(".cache")).expect("removed");
    project.run(&["push-all"]).ok().says(&["what the daemon has of it is taken"]);
    refused_by_the_guard(&project, &PUSH_STABLE, &says);
    let alone = format!("{}/alone:1", project.registry.path());
    project.docker(&["tag", &base, &alone]);
    project.write("base/Dockerfile", format!("FROM {alone}\n"));
    project.git(&["commit", "-qam", "alone"]);
    refused_by_the_guard(&project, &PUSH_STABLE, &format!("`{alone}` was not resolved at its registry"));
}

#[test]
fn stable_stays_for_the_platforms_that_it_is_published_for() {
    let manifest = |platform: &str| format!("defaults: {{ platforms: [{platform}] }}\nimages: {{ api: {{ context: api }} }}\n");
    let project = Project::new(&manifest("linux/amd64")).file("api/Dockerfile", "FROM scratch\nCOPY Dockerfile /api\n");
    project.commit_all("master");
    project.run(&PUSH_STABLE).ok();
    project.write("images.yaml", manifest("linux/arm64"));
    project.git(&["commit", "-qam", "arm64"]);
    let says = "`api` is for linux/arm64, and what is published is for linux/amd64";
    refused_by_the_guard(&project, &PUSH_STABLE, says);
    project.run(&["push-all"]).ok();
    refused_by_the_guard(&project, &COPY_TO_STABLE, says);
    project.run(&[&PUSH_STABLE[..], &["--override-stable-guard"]].concat()).ok();
    project.run(&PUSH_STABLE).ok();
}

#[test]
fn each_image_that_is_copied_into_stable_is_judged() {
    let project = Project::of_images(&["api", "web"]);
    project.commit_all("master");
    project.run(&PUSH_STABLE).ok();
    project.write("api/data", "changed");
    project.run(&["push-image", "api"]).ok();
    project.git(&["checkout", "-q", "."]);
    // the channel as a whole is from the branch now, and `api` is not
    project.run(&["push-image", "web"]).ok();
    refused_by_the_guard(&project, &COPY_TO_STABLE, "`api` was built with changes that are not in");
    project.run(&["push-all"]).ok();
    // what another tool put there is from nobody knows where
    let other = project.registry.put_aged("kevin-api", "latest");
    refused_by_the_guard(&project, &COPY_TO_STABLE, "it is not known which commit `api` is from");
    assert_ne!(project.registry.digest("stable-api"), Some(other));
    project.run(&["push-all"]).ok();
    project.run(&COPY_TO_STABLE).ok();
}

#[test]
fn a_shallow_clone_cannot_show_ancestry() {
    let project = Project::of_images(&["api"]);
    project.commit_all("master");
    project.run(&["push-all", "--stable", "--yes"]).ok();
    for text in ["two", "three"] {
        project.write("api/data", text);
        project.git(&["commit", "-qam", text]);
    }
    let clone = project.path("../clone");
    let source = format!("file://{}", project.path(".").canonicalize().expect("a folder").display());
    project.git(&["clone", "-q", "--depth", "1", &source, &clone.display().to_string()]);
    let mut command = project.command(".", &["push-all", "--stable", "--yes"]);
    let ran = Ran::of(command.current_dir(&clone).output().expect("runs"));
    ran.ended(1).says(&["shallow clone", "fetch-depth: 0"]);
}

#[test]
fn two_clients_end_in_one_of_their_sets() {
    let images = ["a", "b", "c", "d"];
    for round in 0..5 {
        let project = Project::of_images(&images);
        let start = |who: &str| {
            let folder = project.path(&format!("../{who}"));
            let copied = Command::new("cp").arg("-r").arg(project.path(".")).arg(&folder).status();
            assert!(copied.expect("cp runs").success());
            for image in images {
                fs::write(folder.join(image).join("data"), format!("{who} {image} {round}")).expect("written");
            }
            let mut command = project.command(".", &["push-all"]);
            command.current_dir(&folder).env("XDG_CACHE_HOME", folder.join("cache"));
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().expect("runs")
        };
        let ended = [start("one"), start("two")].map(|child| Ran::of(child.wait_with_output().expect("ended")));
        assert!(ended.iter().any(|ran| ran.code == 0), "{} {}", ended[0].stderr, ended[1].stderr);
        let shown = json(&project, &["channels", "show", "--json"]);
        assert_eq!(shown["intent"], Value::Null);
        let mut authors = BTreeSet::new();
        for image in images {
            let latest = project.registry.digest(&format!("kevin-{image}")).expect("there");
            assert_eq!(
                shown["images"][image]["entry"]["digest"],
                Value::from(latest),
                "what is there is recorded"
            );
            let files = project.registry.files(&format!("kevin-{image}"));
            let content = String::from_utf8(files["data"].content.clone()).expect("text");
            authors.insert(content.split(' ').next().expect("a word").to_owned());
        }
        assert_eq!(authors.len(), 1, "a mix of two sets: {} {}", ended[0].stderr, ended[1].stderr);
        let told = |ran: &Ran| ran.code == 0 || ran.stderr.contains("meanwhile") || ran.stderr.contains("at this very moment");
        assert!(ended.iter().all(told), "{} {}", ended[0].stderr, ended[1].stderr);
    }
}

#[test]
fn two_runs_on_one_machine_take_turns() {
    let project = Project::endless(0, 0).file("images.yaml", "images: { api: { context: api } }");
    let project = project
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("api/data", "x");
    let children = [(); 3].map(|()| project.start(&["push-all"]));
    for child in children {
        Ran::of(child.wait_with_output().expect("ended")).ok();
    }
    let history = json(&project, &["channels", "history", "--json"]);
    assert_eq!(history.as_array().expect("a list").len(), 1, "the others found it up to date");
}

#[test]
fn channels_are_listed_compared_copied_cleaned_and_deleted() {
    let registry = OwnRegistry::start(None);
    let project = with_stable(&registry);
    project.run(&["push-all", "--user", "ann"]).ok();
    let list = project.run(&["channels", "list"]).ok();
    for channel in ["/stable ", "/ann "] {
        assert!(list.stdout.contains(channel), "{}", list.stdout);
    }
    assert_eq!(project.run(&["channels", "diff", "ann", "stable"]).code, 0);
    project.write("api/data", "two");
    project.run(&["push-all", "--user", "ann"]).ok();
    let diff = project.run(&["channels", "diff", "ann", "stable"]).ended(1);
    assert_eq!(diff.stdout.matches("changed").count(), 2, "{}", diff.stdout);
    project.run(&["channels", "copy", "stable", "ann"]).ok();
    assert_eq!(project.registry.digest("ann-api"), project.registry.digest("stable-api"));
    assert_eq!(project.run(&["channels", "diff", "ann", "stable"]).code, 0);
    // what was not published from the branch does not come into stable
    project.run(&["channels", "copy", "ann", "stable", "--yes"]).ok();
    project
        .run(&["channels", "delete", "stable", "--yes"])
        .ended(2)
        .says(&["`stable` is not deleted"]);

    project.write("images.yaml", "images: { api: { context: api } }");
    let clean = project.run(&["channels", "clean", "ann", "-n"]).ok();
    assert!(
        clean.stdout.contains("web: the manifest no longer publishes it"),
        "{}",
        clean.stdout
    );
    project.run(&["channels", "clean", "ann"]).ended(2).says(&["--yes confirms it"]);
    project.run(&["channels", "clean", "ann", "--yes"]).ok();
    let shown = json(&project, &["channels", "show", "ann", "--json"]);
    assert_eq!(shown["record"]["images"].as_object().expect("a map").len(), 1);
    project
        .run(&["channels", "delete", "ann", "--yes"])
        .ended(1)
        .says(&["the registry does not delete"]);
}

/// The arguments of the command that a note names for what it does.
fn advised(ran: &Ran, what_it_does: &str) -> Vec<String> {
    let end = format!("` {what_it_does}");
    let command = |line: &str| Some(line.split_once("`lattice-images ")?.1.strip_suffix(&end)?.to_owned());
    let command = ran.stderr.lines().find_map(command);
    let command = command.unwrap_or_else(|| panic!("nothing {what_it_does}: {}", ran.stderr));
    command.split(' ').map(str::to_owned).collect()
}

#[test]
fn what_is_advised_after_a_push_is_right_for_its_channel() {
    let project = Project::of_images(&["api", "web"]).busybox("busybox");
    let manifest = "debug: { utilities: ./busybox }\nimages: { api: { context: api }, web: { context: web } }";
    project.write("images.yaml", manifest);
    project.commit_all("master");
    let elsewhere = format!("{}/elsewhere", project.registry);
    let cases: [(&[&str], &str, &str); 4] = [
        (&[], "push-all", "channels clean"),
        (
            &["--user", "Ann", "--debug"],
            "push-all --user ann --debug",
            "channels clean ann-debug",
        ),
        (&["--stable"], "push-all --stable", "channels clean stable"),
        (
            &["--debug", "--registry", &elsewhere],
            &format!("push-all --debug --registry {elsewhere}"),
            &format!("channels clean kevin-debug --registry {elsewhere}"),
        ),
    ];
    for (flags, filling, cleaning) in cases {
        let run = |arguments: &[String]| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--yes"]).collect();
            project.run(&arguments).ok()
        };
        let push_api: Vec<String> = ["push-image", "api"].iter().chain(flags).map(|word| (*word).to_owned()).collect();
        let fill = advised(&run(&push_api), "fills it");
        assert_eq!(fill.join(" "), filling);
        run(&fill);
        let again = run(&push_api);
        assert!(!again.stderr.contains("lacks"), "{flags:?}: {}", again.stderr);

        project.write("images.yaml", manifest.replace(", web: { context: web }", ""));
        project.commit_all("master");
        let clean = advised(&run(&push_api), "removes it");
        assert_eq!(clean.join(" "), cleaning);
        run(&clean);
        let again = run(&push_api);
        assert!(!again.stderr.contains("no longer publishes"), "{flags:?}: {}", again.stderr);
        project.write("images.yaml", manifest);
        project.commit_all("master");
    }
}

#[test]
fn what_is_advised_names_the_manifest_and_takes_out_what_is_no_longer_pushed() {
    let project = Project::of_images(&["api", "web"]);
    std::fs::rename(project.path("images.yaml"), project.path("team.yaml")).expect("renamed");
    let run = |arguments: &[String]| project.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    let push_api = ["push-image", "api", "-f", "team.yaml"].map(str::to_owned);
    let fill = advised(&run(&push_api), "fills it");
    assert_eq!(fill.join(" "), "push-all -f team.yaml");
    run(&fill);
    project.write("team.yaml", "images: { api: { context: api }, web: { context: web, push: false } }");
    let clean = advised(&run(&push_api), "removes it");
    assert_eq!(clean.join(" "), "channels clean -f team.yaml");
    run(&[clean, vec!["--yes".to_owned()]].concat());
    let again = run(&push_api);
    assert!(!again.stderr.contains("removes it"), "{}", again.stderr);
}

#[test]
fn a_channel_of_another_tool_is_shown_and_taken_over() {
    let project = Project::of_images(&["api"]);
    let pushed = project.docker_build("api", &[]);
    let reference = format!("{}/kevin-api", project.registry);
    project.docker(&["tag", &format!("{}/{pushed}", project.registry), &reference]);
    project.docker(&["push", "-q", &reference]);
    let shown = project.run(&["channels", "show"]).ok();
    assert!(
        shown.stdout.contains("without a record") && shown.stdout.contains("api "),
        "{}",
        shown.stdout
    );
    project.run(&["push-all"]).ok();
    let shown = json(&project, &["channels", "show", "--json"]);
    assert_eq!(shown["record"]["sequence"], Value::from(1));
}

#[test]
fn what_a_build_fetches_unchecked_is_told_once_an_image() {
    let project = Project::new("images: { api: { context: api, debug: { labels: [d=1] } } }");
    let url = format!("http://{}/v2/", provided("LATTICE_TEST_REGISTRY"));
    project.write("api/Dockerfile", format!("FROM scratch\n\nADD {url} /fetched\n"));
    for result in ["pushed", "up to date"] {
        let ran = project.run(&["push-all", "--with-debug"]).ok();
        let told: Vec<_> = ran.stderr.lines().filter(|line| line.contains("--checksum")).collect();
        assert!(
            matches!(told[..], [one] if one.starts_with("note: api/Dockerfile:3: `api` fetches")),
            "{}",
            ran.stderr
        );
        assert_eq!(rows(&ran)["api"], result);
    }
    project.run(&["build", "api"]).ok().says(&["api/Dockerfile:3: `api` fetches"]);
}

/// Of a base of this host, and an image that is FROM it, with two files of which its Dockerfile reads none; and the base's name.
fn from_a_base_with_triggers(host: &str) -> (Project, String) {
    let project = Project::new("images: { api: { context: api } }");
    let base = format!("{host}{}/triggers:1", project.registry.path());
    let dockerfile = format!("FROM scratch\nLABEL of={base}\nONBUILD COPY data /data\n");
    let project = project.file("base/Dockerfile", dockerfile);
    project.docker(&["build", "-q", "-t", &base, "base"]);
    let project = project
        .file("api/Dockerfile", format!("FROM {base}\nLABEL a=b\n"))
        .file("api/data", "one")
        .file("api/other", "one");
    (project, base)
}

fn reads_what_its_base_defers(project: &Project) {
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "pushed");
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "up to date");
    project.write("api/data", "two");
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "pushed");
    assert_eq!(project.registry.files("kevin-api")["data"].content, b"two");
    // a claim for each build, and none by what the Dockerfile alone tells
    let claims: Vec<_> = project
        .registry
        .tags("kevin-api")
        .into_iter()
        .filter(|tag| tag.starts_with("in-"))
        .collect();
    assert_eq!(claims.len(), 2, "{claims:?}");
}

#[test]
fn what_a_base_reads_by_onbuild_counts_from_the_first_run_on() {
    let elsewhere = OwnRegistry::start(None);
    let (project, base) = from_a_base_with_triggers(&format!("{}/", elsewhere.host));
    project.docker(&["push", "-q", &base]);
    reads_what_its_base_defers(&project);
    let before = elsewhere.log().len();
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "up to date");
    let log = elsewhere.log();
    let asked: Vec<&str> = log[before..].lines().filter(|line| line.starts_with("127.0.0.1 - - ")).collect();
    let head = format!("\"HEAD /v2/{}/triggers/manifests/1", project.registry.path());
    let is_first = |line: &&str| line.contains("\"GET /v2/ ") || line.contains(&head);
    assert!(asked.iter().all(is_first), "{asked:#?}");
    // the registry does not tell any more, and the daemon does
    drop(elsewhere);
    fs::remove_file(project.home().join(".cache/lattice-images/triggers.json")).expect("removed");
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "up to date");
}

#[test]
fn what_a_base_that_only_the_daemon_has_reads_by_onbuild_counts() {
    if builders::needs_no_daemon() {
        return;
    }
    let (project, base) = from_a_base_with_triggers("");
    // a digest that another repository gave it means nothing under this name
    let other = format!("{}/other", project.registry);
    project.docker(&["tag", &base, &other]);
    project.docker(&["push", "-q", &other]);
    reads_what_its_base_defers(&project);
}

#[test]
fn what_a_base_copies_from_a_stage_by_onbuild_counts() {
    let bases = Project::new("images: { stage: { context: stage }, onbuild: { context: onbuild } }")
        .file("stage/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("stage/data", "one")
        .file(
            "onbuild/Dockerfile",
            "FROM scratch\nLABEL a=b\nONBUILD COPY --from=stage /data /data\n",
        );
    bases.run(&["push-all"]).ok();
    let (stage, base) = (
        format!("{}/kevin-stage", bases.registry),
        format!("{}/kevin-onbuild", bases.registry),
    );
    let project = Project::new("images: { api: { context: api } }");
    let dockerfile = format!("FROM {stage} AS stage\nFROM {base}\nLABEL of={}\n", project.registry);
    let project = project.file("api/Dockerfile", dockerfile);
    for result in ["pushed", "up to date"] {
        assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], result);
    }
    bases.write("stage/data", "two");
    bases.run(&["push-all"]).ok();
    let told = project.run(&["status", "-v"]).ended(1).stdout;
    assert!(told.contains(&format!("base moved: {stage}")), "{told}");
    assert_eq!(rows(&project.run(&["push-all"]).ok())["api"], "pushed");
    assert_eq!(project.registry.files("kevin-api")["data"].content, b"two");
}

#[test]
fn the_same_with_a_password() {
    let registry = OwnRegistry::start(Some(HTPASSWD));
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("kevin:{PASSWORD}"));
    let project = Project::of_api_in(&registry.host);
    fs::create_dir_all(project.home().join(".docker")).expect("created");
    let config = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", registry.host);
    fs::write(project.home().join(".docker/config.json"), config).expect("written");
    let digest = || project.registry.with_credentials(&auth).digest("kevin-api");
    project.run(&["push-all"]).ok();
    let first = digest();
    project.write("api/data", "two");
    project.run(&["push-all"]).ok();
    project.run(&["channels", "rollback", "kevin"]).ok();
    assert_eq!(digest(), first);
    project.run(&["channels", "copy", "kevin", "ann"]).ok();
    let ran = project.run(&["-v", "channels", "diff", "ann", "kevin"]).ok();
    assert!(!ran.stderr.contains(PASSWORD) && !ran.stderr.contains(&auth), "a secret is shown");
    let list = project.run(&["channels", "list"]).ok();
    assert!(list.stdout.contains("/ann "), "{}", list.stdout);
}

#[test]
fn one_channel_that_cannot_be_read_hides_no_other() {
    let project = Project::of_images(&["api"]);
    project.run(&["push-all"]).ok();
    let shown: Value = serde_json::from_str(&project.run(&["channels", "show", "--json"]).ok().stdout).expect("JSON");
    let mut record = shown["record"].clone();
    record["format"] = 1000.into();
    project.run(&["channels", "copy", "kevin", "ann"]).ok();
    project.registry.put_record("ann", "record", &record);
    let list = project.run(&["channels", "list"]).ok().says(&["has format 1000"]);
    let rows = list.stdout;
    let row = |channel: &str| {
        rows.lines()
            .find(|row| row.contains(&format!("/{channel} ")))
            .expect("listed")
            .to_owned()
    };
    assert!(
        row("ann").contains("cannot be read") && !row("kevin").contains("cannot be read"),
        "{rows}"
    );
    // what is only staged is no channel
    let faults = Faults::start(|seen| Act::when(seen.is("PUT", "/joe-api/manifests/latest"), || Act::status(403)));
    let project = faults.before(project);
    project.run(&["push-all", "--user", "joe", "--force"]).ended(1);
    project
        .run(&["channels", "diff", "nobody", "kevin"])
        .ended(2)
        .says(&["nothing was published to"]);
    let rows = project.run(&["channels", "list"]).ok().stdout;
    assert!(!rows.contains("/joe "), "{rows}");
}

#[test]
fn without_mounts_and_without_a_catalog() {
    let faults = Faults::start(|seen| {
        if let (true, Some((path, _))) = (seen.method == "POST", seen.target.split_once("?mount=")) {
            return Act::PassTo(path.to_owned());
        }
        Act::when(seen.target.starts_with("/v2/_catalog"), || Act::status(401))
    });
    let project = faults.before(Project::of_images(&["api", "web"]));
    project.run(&["push-all"]).ok();
    let project = project.with("DOCKER_HOST", NO_DAEMON);
    project.run(&["channels", "copy", "kevin", "ann"]).ok();
    assert_eq!(project.registry.digest("ann-web"), project.registry.digest("kevin-web"));
    let ran = project.run(&["channels", "list"]).ended(1);
    assert!(ran.stderr.contains("does not tell which repositories it has"), "{}", ran.stderr);
}

#[test]
fn what_no_record_names_is_cleaned_and_a_channel_is_deleted() {
    let registry = OwnRegistry::that_deletes();
    let project = Project::of_api_in(&registry.host);
    project.run(&["push-all"]).ok();
    // as an earlier run may have staged it, and nobody published it
    let old = project.registry.put_aged("kevin-api", "in-0000");
    let young = (chrono::Utc::now() - chrono::TimeDelta::hours(23)).format("%FT%TZ").to_string();
    let young = project.registry.put_of("kevin-api", "in-0001", &young);
    let clean = project.run(&["channels", "clean", "--yes"]).ok();
    assert!(!clean.stdout.contains(&young), "{}", clean.stdout);
    assert!(
        clean.stdout.contains(&old) && clean.stdout.contains("1 manifests removed"),
        "{}",
        clean.stdout
    );
    project.run(&["push-all"]).ok();
    assert!(project.registry.digest("kevin-api").is_some());
    project.run(&["channels", "delete", "kevin"]).ended(2).says(&["--yes confirms it"]);
    project.run(&["channels", "delete", "kevin", "--yes"]).ok();
    assert!(project.registry.digest("kevin-api").is_none());
    project.run(&["channels", "show"]).ended(1).says(&["nothing was published"]);
}

/// Some registries let nothing go that an index still names.
#[test]
fn an_index_is_cleaned_before_what_it_names() {
    let registry = OwnRegistry::that_deletes();
    let project = Project::of_api_in(&registry.host);
    project.run(&["push-all"]).ok();
    let child = |day: u32| {
        let created = format!("2020-01-{day:02}T00:00:00Z");
        project.registry.put_of("kevin-api", &format!("at-{day}"), &created)
    };
    let children: Vec<String> = (1..=9).map(child).collect();
    let index = project.registry.put_index("kevin-api", "in-0000", &children);
    project.run(&["channels", "clean", "--yes"]).ok();
    let log = registry.log();
    let path = project.registry.path();
    let gone = |digest: &String| log.find(&format!("\"DELETE /v2/{path}/kevin-api/manifests/{digest}"));
    assert!(gone(&index).is_some(), "{log}");
    assert!(children.iter().all(|child| gone(&index) < gone(child)), "{log}");
    assert!(project.registry.digest("kevin-api").is_some());
}

#[test]
fn other_tools_read_the_record() {
    let project = Project::of_images(&["api"]);
    project.run(&["push-all"]).ok();
    let record = format!("{}/kevin:record", project.registry);
    let folder = project.path("pulled");
    fs::create_dir(&folder).expect("created");
    let oras = Command::new(provided("LATTICE_TEST_ORAS"))
        .args(["pull", "--plain-http", &record])
        .current_dir(&folder)
        .env("HOME", project.home())
        .output();
    let oras = Ran::of(oras.expect("oras runs"));
    assert_eq!(oras.code, 0, "{}", oras.stderr);
    let read: Value = serde_json::from_slice(&fs::read(folder.join("record.json")).expect("pulled")).expect("JSON");
    let shown = json(&project, &["channels", "show", "--json"]);
    assert_eq!(read, shown["record"]);
    let crane = Command::new(provided("LATTICE_TEST_CRANE"))
        .args(["manifest", "--insecure", &record])
        .env("HOME", project.home())
        .output();
    let manifest: Value = serde_json::from_slice(&crane.expect("crane runs").stdout).expect("JSON");
    assert_eq!(manifest["artifactType"], "application/vnd.lattice-images.record.v1+json");
}
