//! What another client does to a channel between the steps of a run, at the very moments that matter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::front::Act;
use crate::registry::OwnRegistry;
use crate::releases::Faults;
use crate::support::{NOWHERE, Project, Ran, provided};
use crate::terminal::Terminal;

/// A request, by its method and a part of its target, and what happens before it goes on.
type Moment = (&'static str, &'static str, Box<dyn FnOnce() + Send>);

/// The project seen through a proxy, in which the next such moment can be chosen.
struct Meanwhile {
    project: Project,
    moment: Arc<Mutex<Option<Moment>>>,
    _faults: Faults,
}

impl Meanwhile {
    fn of(project: Project) -> Self {
        let moment = Arc::new(Mutex::new(None::<Moment>));
        let chosen = Arc::clone(&moment);
        let faults = Faults::start(move |seen| {
            let mut chosen = chosen.lock().expect("nobody panics");
            if chosen.as_ref().is_some_and(|(method, part, _)| seen.is(method, part))
                && let Some((.., act)) = chosen.take()
            {
                act();
            }
            Act::Pass
        });
        Self {
            project: faults.before(project),
            moment,
            _faults: faults,
        }
    }

    fn at(&self, method: &'static str, part: &'static str, act: impl FnOnce() + Send + 'static) {
        *self.moment.lock().expect("nobody panics") = Some((method, part, Box::new(act)));
    }

    /// Runs it; what was to happen in the middle has happened.
    fn run(&self, arguments: &[&str]) -> Ran {
        let ran = self.project.run(arguments);
        let left = self.moment.lock().expect("nobody panics").take();
        assert!(left.is_none(), "it never came to that: {}{}", ran.stdout, ran.stderr);
        ran
    }
}

fn shown(project: &Project, channel: &str) -> Value {
    let ran = project.run(&["channels", "show", channel, "--json"]).ok();
    serde_json::from_str(&ran.stdout).expect("JSON")
}

/// The record that would come next, by somebody elsewhere, with another digest for `api`.
fn theirs(project: &Project, channel: &str, digest: &str) -> Value {
    let mut record = shown(project, channel)["record"].clone();
    record["sequence"] = (record["sequence"].as_u64().expect("a number") + 1).into();
    record["previous"] = project.registry.digest_of(channel, "record").expect("there").into();
    record["images"]["api"]["digest"] = digest.into();
    record["before"] = json!({ "api": project.registry.digest(&format!("{channel}-api")) });
    record["writer"] = json!({ "user": "ann", "host": "elsewhere", "pid": 1, "at": now(), "tool": "0.1.0" });
    record
}

fn now() -> String {
    chrono::Utc::now().format("%FT%TZ").to_string()
}

/// Publishes two states of `api`; gives the digest of the first.
fn two_records(project: &Project, push: &[&str]) -> String {
    project.run(push).ok();
    let first = project.registry.digest("kevin-api").expect("pushed");
    project.write("api/data", "two");
    project.run(push).ok();
    first
}

#[test]
fn a_record_that_comes_between_is_built_upon() {
    let there = Meanwhile::of(Project::of_images(&["api", "web"]));
    let project = &there.project;
    let first = two_records(project, &["push-all"]);
    let (registry, theirs) = (project.registry.clone(), theirs(project, "kevin", &first));
    there.at("PUT", "/kevin-web/manifests/latest", move || {
        registry.point("kevin-api", "latest", theirs["images"]["api"]["digest"].as_str().expect("text"));
        registry.put_record("kevin", "record", &theirs);
    });
    project.write("web/data", "two");
    there.run(&["push-image", "web"]).ok();
    let shown = shown(project, "kevin");
    let record = &shown["record"];
    assert_eq!(
        (&record["sequence"], &record["images"]["api"]["digest"]),
        (&4.into(), &first.clone().into())
    );
    assert_eq!(
        record["images"]["web"]["digest"],
        project.registry.digest("kevin-web").expect("there")
    );
    assert_eq!(project.registry.digest("kevin-api"), Some(first));
    assert_eq!(shown["intent"], Value::Null);
}

#[test]
fn who_is_overtaken_in_one_channel_leaves_nothing_in_the_other() {
    let project = Project::new("debug: { utilities: ./busybox }\nimages: { api: { context: api } }")
        .busybox("busybox")
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("api/data", "one");
    let there = Meanwhile::of(project);
    let project = &there.project;
    let push = ["push-all", "--with-debug"];
    let first = two_records(project, &push);
    let second = project.registry.digest("kevin-debug-api");
    let (registry, theirs) = (project.registry.clone(), theirs(project, "kevin", &first));
    there.at("PUT", "/kevin-api/manifests/latest", move || {
        registry.put_record("kevin", "next", &theirs);
        registry.put_record("kevin", "record", &theirs);
    });
    project.write("api/data", "three");
    there
        .run(&push)
        .ended(1)
        .says(&["ann on elsewhere published `api`", "/kevin and ", "/kevin-debug are as they were"]);
    assert_eq!(project.registry.digest("kevin-debug-api"), second);
    assert_eq!(project.registry.digest("kevin-api"), Some(first));
    for channel in ["kevin", "kevin-debug"] {
        assert_eq!(shown(project, channel)["intent"], Value::Null, "{channel}");
    }
}

#[test]
fn stable_is_not_published_over_what_the_guard_did_not_see() {
    let there = Meanwhile::of(Project::of_images(&["api"]));
    let project = &there.project;
    project.commit_all("master");
    let push = ["push-all", "--stable", "--yes"];
    project.run(&push).ok();
    project.write("README", "newer");
    project.git(&["add", "README"]);
    project.git(&["commit", "-qm", "newer"]);
    let digest = project.registry.digest("stable-api").expect("pushed");
    let mut theirs = theirs(project, "stable", &digest);
    theirs["revision"]["commit"] = "1234567890".repeat(4).into();
    let registry = project.registry.clone();
    there.at("POST", "/stable/blobs/uploads/", move || {
        registry.put_record("stable", "next", &theirs);
        registry.put_record("stable", "record", &theirs);
    });
    there
        .run(&push)
        .ended(1)
        .says(&["ann on elsewhere published from other sources", "run again", "is as it was"]);
    assert_eq!(shown(project, "stable")["record"]["writer"]["user"], "ann");
}

/// A process of that number says nothing of a writer that is elsewhere, and time passes for every intent.
#[test]
fn an_intent_is_judged_by_its_age_and_by_processes_of_this_system_alone() {
    let project = Project::of_images(&["api"]);
    let first = two_records(&project, &["push-all"]);
    let second = project.registry.digest("kevin-api");
    let mut intent = theirs(&project, "kevin", &first);
    let host = shown(&project, "kevin")["record"]["writer"]["host"].clone();
    intent["writer"]["host"] = host;
    // another namespace's
    intent["writer"]["pid"] = 4_194_303.into();
    intent["writer"]["pids_of"] = "000000000000".into();
    project.registry.put_record("kevin", "next", &intent);
    project.run(&["push-all"]).ended(1).says(&["is publishing to", "after 10 minutes"]);
    assert_eq!(project.registry.digest("kevin-api"), second);
    // one that lives, and is no longer the writer
    intent["writer"]["pid"] = 1.into();
    intent["writer"].as_object_mut().expect("a map").remove("pids_of");
    intent["writer"]["at"] = "2020-01-01T00:00:00Z".into();
    project.registry.put_record("kevin", "next", &intent);
    project.run(&["push-all"]).ok().says(&["it is finished now"]);
}

/// The record was read before, and the intent after somebody had ended his work.
#[test]
fn what_was_recorded_while_it_was_looked_at_is_not_mended() {
    let there = Meanwhile::of(Project::of_images(&["api"]));
    let project = &there.project;
    let first = two_records(project, &["push-all"]);
    let (registry, mut theirs) = (project.registry.clone(), theirs(project, "kevin", &first));
    theirs["writer"]["at"] = "2020-01-01T00:00:00Z".into();
    there.at("HEAD", "/kevin/manifests/next", move || {
        std::thread::sleep(Duration::from_millis(300));
        registry.point("kevin-api", "latest", theirs["images"]["api"]["digest"].as_str().expect("text"));
        registry.put_record("kevin", "next", &theirs);
        registry.put_record("kevin", "record", &theirs);
    });
    let ran = there.run(&["push-all"]).ok();
    assert!(!ran.stderr.contains("interrupted"), "{}", ran.stderr);
    assert_eq!(shown(project, "kevin")["record"]["writer"]["user"], "ann");
}

#[test]
fn who_only_looks_leaves_what_was_interrupted() {
    let project = Project::of_images(&["api"]);
    let first = two_records(&project, &["push-all"]);
    let mut intent = theirs(&project, "kevin", &first);
    intent["writer"]["at"] = "2020-01-01T00:00:00Z".into();
    let intent = project.registry.put_record("kevin", "next", &intent);
    let before = (project.registry.digest("kevin-api"), project.registry.digest_of("kevin", "record"));
    for look in [
        &["status"][..],
        &["channels", "show"],
        &["channels", "clean", "-n"],
        &["channels", "diff", "kevin", "kevin"],
    ] {
        let ran = project.run(look).ok();
        let is_told = ran.stderr.contains("is being changed at this moment, or was interrupted");
        assert!(is_told || look[1..] == ["show"], "{look:?}: {}", ran.stderr);
        assert_eq!(project.registry.digest_of("kevin", "next").as_ref(), Some(&intent), "{look:?}");
        let now = (project.registry.digest("kevin-api"), project.registry.digest_of("kevin", "record"));
        assert_eq!(now, before, "{look:?}");
    }
    let copied = project.run(&["channels", "copy", "kevin", "ann"]).ended(1);
    copied.says(&["was interrupted", "/ann is as it was"]);
    assert_eq!(project.registry.digest("ann-api"), None);
    project.run(&["push-all"]).ok().says(&["it is finished now"]);
    project.run(&["channels", "copy", "kevin", "ann"]).ok();
}

/// In the midst of it, or begun in the midst of it and ended after it.
#[test]
fn a_copy_within_the_flips_of_another_is_none() {
    for [before, meanwhile] in [[None, Some("next")], [Some("next"), Some("record")]] {
        let there = Meanwhile::of(Project::of_images(&["api"]));
        let project = &there.project;
        let first = two_records(project, &["push-all"]);
        let (registry, theirs) = (project.registry.clone(), theirs(project, "kevin", &first));
        let put = move |name: Option<&str>| name.map(|name| registry.put_record("kevin", name, &theirs));
        put(before);
        there.at("HEAD", "/kevin-api/manifests/latest", move || drop(put(meanwhile)));
        there
            .run(&["channels", "copy", "kevin", "ann"])
            .ended(1)
            .says(&["/kevin is being changed", "/ann is as it was"]);
    }
}

#[test]
fn a_copy_and_a_rollback_put_a_latest_right_that_another_tool_moved() {
    let project = Project::of_images(&["api"]);
    let first = two_records(&project, &["push-all"]);
    let second = project.registry.digest("kevin-api").expect("pushed");
    project.run(&["channels", "copy", "kevin", "ann"]).ok();
    project
        .run(&["channels", "copy", "kevin", "ann"])
        .ok()
        .says(&["has all of it already"]);
    let foreign = project.registry.put_aged("ann-api", "latest");
    project.run(&["channels", "copy", "kevin", "ann"]).ok();
    assert_ne!(project.registry.digest("ann-api"), Some(foreign));
    assert_eq!(project.registry.digest("ann-api"), Some(second.clone()));
    project.registry.point("kevin-api", "latest", &first);
    project.run(&["channels", "rollback", "kevin", "--to", "2"]).ok();
    assert_eq!(project.registry.digest("kevin-api"), Some(second));
}

/// What is asked about may be published before the answer comes.
#[test]
fn a_clean_leaves_what_came_alive_while_it_asked() {
    let registry = OwnRegistry::that_deletes();
    let project = Project::of_api_in(&registry.host);
    project.run(&["push-all"]).ok();
    let old = project.registry.put_aged("kevin-api", "in-0000");
    let gone = project.registry.put_of("kevin-api", "in-0001", "2020-01-02T00:00:00Z");
    let terminal = Terminal::run(&project, (200, 50), &[], &["channels", "clean"]);
    let asked = terminal.until(|rows| rows.iter().any(|row| row.contains("[y/N]"))).join("\n");
    assert!(asked.contains(&old[7..19]) && asked.contains(&gone[7..19]), "{asked}");
    project.registry.point("kevin-api", "latest", &old);
    terminal.press("y");
    terminal.press("Enter");
    terminal.until(|rows| rows.iter().any(|row| row.contains("1 manifests removed")));
    assert_eq!(terminal.ended().0, 0);
    assert_eq!(project.registry.digest("kevin-api"), Some(old));
    assert_eq!(project.registry.digest_of("kevin-api", "in-0001"), None);
}

#[test]
fn what_an_earlier_run_brought_and_did_not_keep_is_kept() {
    let refused = || {
        // both names may be put at once, and the other is to be there
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_secs(2)));
        Act::status(400)
    };
    let faults = Faults::start(move |seen| Act::when(seen.is("PUT", "/manifests/at-"), refused));
    let project = Project::of_images(&["api"]);
    let host = provided("LATTICE_TEST_REGISTRY");
    let path = project.registry.path().to_owned();
    let project = faults.before(project);
    project.run(&["push-all"]).ended(1);
    let project = project
        .with("LATTICE_IMAGES_REGISTRY", format!("{host}/{path}"))
        .with("DOCKER_HOST", NOWHERE)
        .with("LATTICE_IMAGES_BUILDER", "default");
    let ran = project.run(&["push-all"]).ok();
    assert!(ran.stdout.contains("built before"), "{}", ran.stdout);
    let digest = project.registry.digest("kevin-api").expect("published");
    let kept = format!("at-{}", digest.strip_prefix("sha256:").expect("a digest"));
    assert_eq!(project.registry.digest_of("kevin-api", &kept), Some(digest));
}

#[test]
fn an_interrupt_is_heard_while_nobody_answers() {
    let project = Project::of_images(&["api"]);
    project.commit_all("master");
    let terminal = Terminal::run(&project, (200, 50), &[], &["push-all", "--stable"]);
    terminal.until(|rows| rows.iter().any(|row| row.contains("[y/N]")));
    terminal.press("C-c");
    assert_eq!(terminal.ended().0, 130);
    assert_eq!(project.registry.digest("stable-api"), None);
}

/// It says for a while what `latest` was.
#[test]
fn a_registry_that_answers_late_keeps_the_old_set() {
    let old = Arc::new(Mutex::new(None::<String>));
    let (moved, told) = (Arc::new(AtomicBool::new(false)), Arc::clone(&old));
    let faults = Faults::start(move |seen| {
        let told = told.lock().expect("nobody panics");
        if seen.is("PUT", "/kevin-api/manifests/latest") {
            moved.store(told.is_some(), Ordering::SeqCst);
        }
        match &*told {
            Some(old) if moved.load(Ordering::SeqCst) && seen.is("HEAD", "/kevin-api/manifests/latest") => {
                let media_type = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
                Act::Answer(
                    200,
                    vec![("docker-content-digest", old.clone()), ("content-type", media_type)],
                    Vec::new(),
                )
            }
            _ => Act::Pass,
        }
    });
    let project = faults.before(Project::of_images(&["api", "web"]));
    project.run(&["push-all"]).ok();
    let digests = || ["kevin-api", "kevin-web"].map(|name| project.registry.digest(name));
    let first = digests();
    old.lock().expect("nobody panics").clone_from(&first[0]);
    for image in ["api", "web"] {
        project.write(&format!("{image}/data"), "two");
    }
    project
        .run(&["push-all"])
        .ended(1)
        .says(&["does not stay what it is made", "/kevin is as it was"]);
    assert_eq!(digests(), first);
}

/// A build takes its time. What is put back is what was there when the flips began, and not when the run did.
#[test]
fn a_latest_that_was_moved_during_the_build_is_what_is_put_back() {
    let project = Project::of_images(&["api", "web"]);
    let registry = project.registry.clone();
    let moved = Arc::new(Mutex::new(None::<String>));
    let to = Arc::clone(&moved);
    let faults = Faults::start(move |seen| {
        if seen.is("POST", "/kevin-api/blobs/uploads/")
            && let Some(digest) = to.lock().expect("nobody panics").take()
        {
            registry.point("kevin-api", "latest", &digest);
            thread::sleep(Duration::from_millis(1200));
        }
        if seen.is("PUT", "/kevin-web/manifests/latest") && registry.digest("kevin-web").is_some() {
            return Act::Answer(403, Vec::new(), Vec::new());
        }
        Act::Pass
    });
    let project = faults.before(project);
    let first = two_records(&project, &["push-all"]);
    project.write("web/data", "two");
    project.write("api/data", "three");
    *moved.lock().expect("nobody panics") = Some(first.clone());
    project.run(&["push-all"]).ended(1).says(&["/kevin is as it was"]);
    assert_eq!(project.registry.digest("kevin-api"), Some(first));
}

#[test]
fn a_clean_and_a_rollback_begin_from_what_is_there() {
    let there = Meanwhile::of(Project::of_images(&["api", "web"]));
    let project = &there.project;
    let first = two_records(project, &["push-all"]);
    let second = project.registry.digest("kevin-api").expect("pushed");
    project.write("images.yaml", "images: { api: { context: api } }");
    for act in [&["channels", "rollback", "kevin", "--to", "1"][..], &["channels", "clean", "--yes"]] {
        let (registry, theirs) = (project.registry.clone(), theirs(project, "kevin", &second));
        there.at("POST", "/kevin/blobs/uploads/", move || {
            registry.put_record("kevin", "next", &theirs);
            registry.put_record("kevin", "record", &theirs);
        });
        there.run(act).ended(1).says(&["ann on elsewhere published", "run again"]);
        assert_eq!(shown(project, "kevin")["record"]["writer"]["user"], "ann", "{act:?}");
    }
    assert_ne!(project.registry.digest("kevin-api"), Some(first));
}

/// Put there by who came too late.
#[test]
fn an_intent_that_is_history_is_none() {
    let project = Project::of_images(&["api"]);
    project.run(&["push-all"]).ok();
    let record = shown(&project, "kevin")["record"].clone();
    project.write("api/data", "two");
    project.run(&["push-all"]).ok();
    project.registry.put_record("kevin", "next", &record);
    assert_eq!(shown(&project, "kevin")["intent"], Value::Null);
    project.write("api/data", "three");
    let ran = project.run(&["push-all"]).ok();
    assert!(!ran.stderr.contains("interrupted"), "{}", ran.stderr);
}

#[test]
fn a_clean_leaves_the_latest_of_what_the_manifest_publishes() {
    let registry = OwnRegistry::that_deletes();
    let project = Project::in_registry("images: { api: { context: api }, web: { context: api } }", &registry.host)
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("api/data", "one");
    project.run(&["push-image", "api"]).ok();
    // as another tool pushed it long ago, and no record tells
    let mut record = shown(&project, "kevin")["record"].clone();
    record["images"].as_object_mut().expect("a map").remove("api");
    for name in ["next", "record"] {
        project.registry.put_record("kevin", name, &record);
    }
    let old = project.registry.put_aged("kevin-api", "latest");
    let clean = project.run(&["channels", "clean", "--yes"]).ok();
    assert_eq!(project.registry.digest("kevin-api"), Some(old), "{}", clean.stdout);
}
