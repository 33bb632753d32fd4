//! What a push leaves in the registry, what it finds gone or moved there, and what it does not write over.

use std::fs;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::front::{Act, Front};
use crate::registry::OwnRegistry;
use crate::support::{NOWHERE, Project, Ran, provided};
use crate::terminal::Terminal;

fn result(ran: &Ran, image: &str) -> String {
    let row = ran.stdout.lines().find(|row| row.starts_with(&format!("{image} ")));
    let row = row.unwrap_or_else(|| panic!("{image}: {}", ran.stdout));
    row[image.len()..].trim().split("  ").next().expect("a result").to_owned()
}

fn shown(project: &Project, channel: &str) -> Value {
    let ran = project.run(&["channels", "show", channel, "--json"]).ok();
    serde_json::from_str(&ran.stdout).expect("JSON")
}

#[test]
fn everything_has_a_tag_that_keeps_it() {
    let project = Project::new("images: { base: { context: base, push: false }, api: { context: api } }")
        .file("base/Dockerfile", "FROM scratch\nCOPY Dockerfile /base\n")
        .file("api/Dockerfile", "FROM base\nCOPY Dockerfile /api\n");
    project.run(&["push-all"]).ok();
    let shown = shown(&project, "kevin");
    let entry = &shown["images"]["api"]["entry"];
    let (digest, fingerprint) = (
        entry["digest"].as_str().expect("text"),
        entry["fingerprint"].as_str().expect("text"),
    );
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    let mut tags = project.registry.tags("kevin-api");
    tags.sort();
    assert_eq!(tags, [format!("at-{hex}"), format!("in-{fingerprint}"), "latest".to_owned()]);
    let mut tags = project.registry.tags("kevin-base");
    tags.sort();
    assert!(
        matches!(&tags[..], [at, staged] if at.starts_with("at-") && staged.starts_with("in-")),
        "{tags:?}"
    );
    let mut tags = project.registry.tags("kevin");
    tags.sort();
    assert!(
        matches!(&tags[..], [next, first, record] if next == "next" && first.starts_with("r-1-") && record == "record"),
        "{tags:?}"
    );
}

#[test]
fn what_was_deleted_is_noticed_and_put_right() {
    let registry = OwnRegistry::that_deletes();
    let project = Project::in_registry(
        "images: { api: { context: api }, web: { context: api, labels: { of: web } } }",
        &registry.host,
    )
    .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
    .file("api/data", "one");
    project.run(&["push-all"]).ok();
    let first = project.registry.digest("kevin-api").expect("pushed");
    project.write("api/data", "two");
    project.run(&["push-all"]).ok();
    let second = project.registry.digest("kevin-api").expect("pushed");
    project.registry.delete("kevin-api", &second);
    let ran = project.run(&["push-all"]).ok();
    assert_eq!(
        (&*result(&ran, "api"), &*result(&ran, "web")),
        ("pushed", "up to date"),
        "{}",
        ran.stdout
    );
    assert!(project.registry.digest("kevin-api").is_some());

    // what is gone cannot be gone back to, and that is said before anything moves
    project.registry.delete("kevin-api", &first);
    let before = [project.registry.digest("kevin-api"), project.registry.digest("kevin-web")];
    let ran = project.run(&["channels", "rollback", "kevin", "--to", "1"]).ended(1);
    assert!(ran.stderr.contains(&format!("no longer has api@{first}")), "{}", ran.stderr);
    assert_eq!([project.registry.digest("kevin-api"), project.registry.digest("kevin-web")], before);
}

#[test]
fn a_base_that_moves_is_told_and_built_upon_by_its_digest() {
    let elsewhere = OwnRegistry::start(None);
    let project = Project::new("images: { api: { context: api } }");
    let base = format!("{}/{}/base:1", elsewhere.host, project.registry.path());
    let project = project.file("api/Dockerfile", format!("FROM {base}\nLABEL a=b\n"));
    let publish = |content: &str| {
        project.write("base/Dockerfile", format!("FROM scratch\nLABEL of={base}\nCOPY data /data\n"));
        project.write("base/data", content);
        project.docker(&["build", "-q", "-t", &base, "base"]);
        project.docker(&["push", "-q", &base]);
    };
    publish("one");
    project.run(&["push-all"]).ok();
    assert_eq!(project.run(&["status"]).code, 0);
    publish("two");
    // the daemon means the old one by that name
    let old = project.docker(&["build", "-q", "base", "--label", "x=y"]);
    project.docker(&["tag", old.trim(), &base]);
    let status = project.run(&["status", "-v"]).ended(1);
    assert!(status.stdout.contains(&format!("base moved: {base}")), "{}", status.stdout);
    let ran = project.run(&["push-all"]).ok();
    assert_eq!(result(&ran, "api"), "pushed");
    assert_eq!(project.registry.files("kevin-api")["data"].content, b"two");
    assert!(
        project.registry.config("kevin-api")["config"]["Labels"]["x"].is_null(),
        "the registry's, not the daemon's"
    );
}

#[test]
fn what_stands_on_an_image_that_is_up_to_date_is_built_from_what_was_published() {
    let project = Project::new("images: { base: { context: base }, api: { context: api } }")
        .file("base/Dockerfile", "FROM scratch\nCOPY Dockerfile /base\n")
        .file("api/Dockerfile", "FROM base\nCOPY data /data\n")
        .file("api/data", "one");
    project.run(&["push-all"]).ok();
    let layers = project.registry.layers("kevin-base");
    project.write("api/data", "two");
    let ran = project.run(&["push-all"]).ok();
    assert_eq!(
        (&*result(&ran, "base"), &*result(&ran, "api")),
        ("up to date", "pushed"),
        "{}",
        ran.stdout
    );
    assert_eq!(project.registry.layers("kevin-api")[..1], layers);
    for anew in ["--force", "--pull", "--no-cache"] {
        let ran = project.run(&["push-all", anew]).ok();
        assert_eq!(
            (&*result(&ran, "base"), &*result(&ran, "api")),
            ("pushed", "pushed"),
            "{anew}: {}",
            ran.stdout
        );
    }
}

#[test]
fn what_is_missing_for_a_build_is_said_at_once() {
    let runtime = Runtime::new().expect("a runtime");
    let front = runtime.block_on(Front::start(&provided("LATTICE_TEST_REGISTRY"), |seen| {
        Act::when(seen.method == "POST", || Act::status(403))
    }));
    let project = Project::in_registry("images: { api: { context: . } }", &front.host).file("Dockerfile", "FROM scratch\nLABEL a=b\n");
    let project = project.with("DOCKER_HOST", NOWHERE).with("LATTICE_IMAGES_BUILDER", "default");
    let ran = project.run(&["push-all"]).ended(1);
    assert!(
        ran.stderr.contains("/nowhere/docker.sock") && ran.stderr.contains("kevin-api"),
        "{}",
        ran.stderr
    );
    let _guard = runtime.enter();
    drop(front);
}

#[test]
fn a_record_of_a_newer_format_is_not_written_over() {
    let project = Project::of_images(&["api"]);
    project.run(&["push-all"]).ok();
    let mut record = shown(&project, "kevin")["record"].clone();
    record["format"] = 99.into();
    let newer = project.registry.put_record("kevin", "record", &record);
    project.write("api/data", "two");
    for arguments in [
        &["push-all"][..],
        &["channels", "copy", "kevin", "ann"],
        &["channels", "rollback", "kevin"],
    ] {
        project.run(arguments).ended(1).says(&["has format 99", "update this one"]);
    }
    assert_eq!(project.registry.digest_of("kevin", "record"), Some(newer));
}

/// An act of another machine that was begun and not ended: what is there may move any moment.
#[test]
fn an_intent_of_another_machine_is_waited_for_and_taken_over_after_ten_minutes() {
    let project = Project::of_images(&["api"]);
    let data = fs::read(project.path("api/data")).expect("read");
    project.run(&["push-all"]).ok();
    let (first, entry) = (
        project.registry.digest("kevin-api"),
        shown(&project, "kevin")["images"]["api"]["entry"].clone(),
    );
    project.write("api/data", "two");
    project.run(&["push-all"]).ok();
    let second = project.registry.digest("kevin-api");
    let mut intent = shown(&project, "kevin")["record"].clone();
    intent["sequence"] = 3.into();
    intent["previous"] = project.registry.digest_of("kevin", "record").expect("there").into();
    intent["images"]["api"] = entry;
    intent["before"]["api"] = second.clone().expect("there").into();
    intent["writer"]["host"] = "elsewhere".into();
    intent["writer"]["pids_of"] = "000000000000".into();
    intent["writer"]["at"] = chrono::Utc::now().format("%FT%TZ").to_string().into();
    project.registry.put_record("kevin", "next", &intent);
    let ran = project.run(&["push-all"]).ended(1);
    ran.says(&["on elsewhere (since ", "is publishing to", "after 10 minutes"]);
    assert_eq!(project.registry.digest("kevin-api"), second);

    intent["writer"]["at"] = "2020-01-01T00:00:00Z".into();
    project.registry.put_record("kevin", "next", &intent);
    project.write("api/data", data);
    let ran = project.run(&["push-all"]).ok().says(&["on elsewhere began", "it is finished now"]);
    assert_eq!(result(&ran, "api"), "up to date");
    assert!(!ran.stderr.contains("is not what the channel's record says"), "{}", ran.stderr);
    assert_eq!(project.registry.digest("kevin-api"), first);

    // one that stands on a record that is no longer there cannot be finished
    intent["sequence"] = 4.into();
    project.registry.put_record("kevin", "next", &intent);
    let ran = project.run(&["push-all"]).ok().says(&["it is undone now"]);
    assert_eq!(result(&ran, "api"), "up to date");
    assert_eq!(shown(&project, "kevin")["intent"], Value::Null);
}

#[test]
fn further_rules_of_stable() {
    let project = Project::of_images(&["api"]);
    project.commit_all("master");
    let push = ["push-all", "--stable", "--yes"];
    project.run(&push).ok();
    let (digest, first) = (project.registry.digest("stable-api"), project.git(&["rev-parse", "HEAD"]));

    // nothing changed, and the record tells of the newer commit
    project.write("README", "newer");
    project.git(&["add", "README"]);
    project.git(&["commit", "-qm", "newer"]);
    project.run(&push).ok();
    let record = shown(&project, "stable")["record"].clone();
    assert_eq!(record["sequence"], Value::from(2));
    assert_ne!(record["revision"]["commit"], Value::from(first));
    assert_eq!(project.registry.digest("stable-api"), digest);

    // a detached HEAD that the branch does not contain
    project.git(&["checkout", "-q", "--detach"]);
    project.git(&["commit", "-q", "--allow-empty", "-m", "aside"]);
    project.run(&push).ended(1).says(&["is not on `master`"]);
    project.git(&["checkout", "-q", "master"]);

    // what git does not track is told where it is in a context
    project.write("api/untracked", "x");
    project.write("untracked", "x");
    project.write("api/data", "two");
    project.git(&["commit", "-qam", "two"]);
    let ran = project.run(&push).ok();
    assert!(ran.stderr.contains("api/untracked is in a context"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("note: untracked"), "{}", ran.stderr);

    for arguments in [&["channels", "rollback", "stable"][..], &["channels", "copy", "kevin", "stable"]] {
        if arguments[1] == "copy" {
            project.run(&["push-all"]).ok();
            project.write("api/data", "three");
            project.git(&["commit", "-qam", "three"]);
            project.run(&["push-all"]).ok();
        }
        let before = project.registry.digest("stable-api");
        project.run(arguments).ended(2).says(&["--yes"]);
        assert_eq!(project.registry.digest("stable-api"), before);
    }
}

#[test]
fn a_commit_that_git_does_not_tell_is_told_of() {
    let project = Project::of_images(&["api"]);
    project.commit_all("master");
    let project = project.with("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1");
    let ran = project.run(&["push-all"]).ok();
    ran.says(&["does not tell the commit: detected dubious ownership", "safe.directory"]);
    assert_eq!(shown(&project, "kevin")["record"]["revision"], Value::Null);
    let elsewhere = Project::of_images(&["api"]).run(&["push-all"]).ok();
    assert!(!elsewhere.stderr.contains("the commit"), "{}", elsewhere.stderr);
}

#[test]
fn a_diff_tells_the_commits_between() {
    let project = Project::of_images(&["api"]);
    project.commit_all("master");
    project.run(&["push-all", "--stable", "--yes"]).ok();
    for text in ["two", "three"] {
        project.write("api/data", text);
        project.git(&["commit", "-qam", &format!("make it {text}")]);
    }
    project.run(&["push-all"]).ok();
    let diff = project.run(&["channels", "diff"]).ended(1);
    assert!(
        diff.stdout.contains("make it two") && diff.stdout.contains("make it three"),
        "{}",
        diff.stdout
    );
    assert!(!diff.stdout.contains("all of it"), "{}", diff.stdout);
}

#[test]
fn a_clone_under_another_umask_moves_nothing() {
    let project = Project::of_images(&["api"])
        .file("api/run", "x")
        .file("api/Dockerfile", "FROM scratch\nCOPY . /\n");
    project.commit_all("master");
    project.run(&["push-all"]).ok();
    for umask in ["002", "022"] {
        let clone = project.path(&format!("../clone-{umask}"));
        let script = format!(
            "umask {umask} && git clone -q '{}' '{}'",
            project.path(".").display(),
            clone.display()
        );
        let cloned = std::process::Command::new("sh")
            .args(["-c", &script])
            .env("HOME", project.home())
            .status();
        assert!(cloned.expect("sh runs").success());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(clone.join("api/data")).expect("there").permissions());
        assert_eq!(mode & 0o020 != 0, umask == "002");
        let mut command = project.command(".", &["push-all"]);
        let ran = Ran::of(command.current_dir(&clone).output().expect("runs")).ok();
        assert_eq!(result(&ran, "api"), "up to date", "{umask}: {}", ran.stdout);
    }
}

#[test]
fn at_a_terminal_a_push_to_stable_is_asked_about_with_what_changes() {
    for (answer, code, says) in [("n", 1, "not confirmed; nothing was done"), ("y", 0, "record 2")] {
        let project = Project::of_images(&["api", "web"]);
        project.commit_all("master");
        project.run(&["push-all", "--stable", "--yes"]).ok();
        project.write("api/data", "two");
        project.git(&["commit", "-qam", "two"]);
        project.write("api/untracked", "x");
        let before = project.registry.digest("stable-api");
        let terminal = Terminal::run(&project, (200, 50), &[], &["push-all", "--stable"]);
        let asked = terminal.until(|rows| rows.iter().any(|row| row.contains("[y/N]"))).join("\n");
        assert!(
            asked.contains("stable-api:latest") && !asked.contains("stable-web:latest"),
            "{asked}"
        );
        assert!(asked.contains("api/untracked is in a context"), "{asked}");
        assert_eq!(project.registry.digest("stable-api"), before);
        terminal.press(answer);
        terminal.press("Enter");
        assert_eq!(terminal.ended().0, code);
        terminal.until(|rows| rows.iter().any(|row| row.contains(says)));
        assert_eq!(project.registry.digest("stable-api") == before, code != 0);
    }
}
