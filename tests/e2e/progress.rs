//! What is shown while it runs: as JSON, in GitHub Actions, and at terminals of several sizes.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::builders::leaves_copies;
use crate::front::Act;
use crate::releases::Faults;
use crate::support::Project;
use crate::terminal::Terminal;

const WIDE: (u16, u16) = (80, 24);
const NARROW: (u16, u16) = (40, 12);

/// Bytes that no compression makes fewer, and no registry has.
fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut source = std::fs::File::open("/dev/urandom").expect("opened");
    source.read_exact(&mut bytes).expect("read");
    bytes
}

fn json_lines(stderr: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    stderr.lines().map(parse).collect()
}

fn of<'a>(lines: &'a [Value], event: &str, image: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter(|line| line["event"] == event && line["image"] == image)
        .collect()
}

#[test]
fn json_tells_of_a_whole_run() {
    let project = Project::of_images(&["api", "web"]);
    project.write("api/big", random(8_000_000));
    project.write("api/Dockerfile", "FROM scratch\nCOPY big /big\nCOPY data /data\n");
    let ran = project.run(&["push-all", "--progress", "json"]).ok();
    let lines = json_lines(&ran.stderr);
    let begin = lines.iter().find(|line| line["event"] == "begin").expect("a begin");
    assert_eq!(begin["format"], 1);
    for image in ["api", "web"] {
        let digest = project.registry.digest(&format!("kevin-{image}")).expect("pushed");
        assert!(ran.stdout.contains(&digest), "results stay on stdout: {}", ran.stdout);
        for event in [
            "planned",
            "building",
            "output",
            "instruction",
            "built",
            "pushing",
            "pushed",
            "result",
        ] {
            let found = of(&lines, event, image);
            assert!(!found.is_empty(), "no {event} of {image}:\n{}", ran.stderr);
            assert_eq!(found[0]["variant"], "normal");
        }
        assert_eq!(of(&lines, "pushed", image)[0]["digest"], *digest);
        assert_eq!(of(&lines, "result", image)[0]["digest"], *digest);
        assert_eq!(of(&lines, "result", image)[0]["result"], "pushed");
        assert_eq!(of(&lines, "built", image)[0]["cached"], false);
    }
    let sent = of(&lines, "sending", "api");
    let last = sent.last().expect("sent");
    assert_eq!(last["sent_bytes"], last["total_bytes"]);
    // else the Dockerfile alone
    if !leaves_copies() {
        assert!(last["sent_bytes"].as_u64().expect("a number") > 3_000_000);
    }
    let uploaded = of(&lines, "uploading", "api");
    let bytes = |field: &str| uploaded.last().expect("uploaded")[field].as_u64().expect("a number");
    assert!(
        bytes("total_bytes") > 2_000_000 && bytes("sent_bytes") <= bytes("total_bytes"),
        "{uploaded:?}"
    );
    let numbers: BTreeSet<_> = of(&lines, "instruction", "api")
        .iter()
        .map(|line| (line["number"].as_u64(), line["total"].as_u64(), line["text"].as_str()))
        .collect();
    let total = numbers.first().expect("one").1;
    assert!(numbers.contains(&(total, total, Some("COPY data /data"))), "{numbers:?}");

    let again = json_lines(&project.run(&["push-all", "--progress", "json", "--force"]).ok().stderr);
    for image in ["api", "web"] {
        assert_eq!(of(&again, "built", image)[0]["cached"], true, "{again:?}");
    }
    project.write("web/data", format!("changed in {}", project.registry));
    let changed = json_lines(&project.run(&["push-all", "--progress", "json"]).ok().stderr);
    assert_eq!(of(&changed, "settled", "api")[0]["how"], "up to date");
    assert_eq!(of(&changed, "result", "api")[0]["result"], "up-to-date");
    assert_eq!(of(&changed, "built", "web")[0]["cached"], false);
}

#[test]
fn details_are_notes_in_json_and_nothing_of_a_quiet_run() {
    let project = Project::of_images(&["api"]);
    let ran = project.run(&["push-all", "-v", "--progress", "json"]).ok();
    let lines = json_lines(&ran.stderr);
    let tells = |part: &str| {
        let mut notes = lines.iter().filter(|line| line["event"] == "note");
        notes.any(|note| note["text"].as_str().expect("text").contains(part))
    };
    assert!(tells(" s ask the registry") && tells("DEBUG "), "{}", ran.stderr);
    for other in [&["-v"][..], &["--progress", "json"]] {
        project
            .run(&[&["push-all", "-q"], other].concat())
            .ended(2)
            .says(&["cannot be used with"]);
    }
}

#[test]
fn json_tells_of_failures() {
    let project = Project::new("images:\n  base: { context: base }\n  api: { context: api }\n  web: { context: api }\n")
        .file("base/Dockerfile", "FROM scratch\nCOPY nothing-here /x\n")
        .file("api/Dockerfile", "FROM base\n");
    let ran = project.run(&["push-all", "--progress", "json"]).ended(1);
    let lines = json_lines(&ran.stderr);
    assert!(
        of(&lines, "build-failed", "base")[0]["message"]
            .as_str()
            .expect("text")
            .contains("nothing-here")
    );
    for image in ["api", "web"] {
        let blocked = of(&lines, "not-built", image);
        assert_eq!((blocked.len(), &blocked[0]["because_of"]), (1, &Value::from("base")));
        assert_eq!(of(&lines, "result", image)[0]["result"], "not-built");
    }
    let failed = of(&lines, "result", "base")[0];
    assert!(
        std::fs::read_to_string(failed["log"].as_str().expect("a path"))
            .expect("read")
            .contains("nothing-here")
    );
    let last = lines.last().expect("a line");
    assert_eq!(last["event"], "error");
    assert!(last["message"].as_str().expect("text").contains("3 of 3 images failed"));
    project.write("images.yaml", "images: { api: { contxt: api } }\n");
    let lines = json_lines(&project.run(&["push-all", "--progress", "json"]).ended(2).stderr);
    assert_eq!(lines[0]["hints"][0], "did you mean `context`?");
}

#[test]
fn plain_says_little_of_what_did_not_change_and_the_log_has_all() {
    let project = Project::of_images(&["api"]);
    let first = project.run(&["push-all"]).ok();
    assert!(first.stderr.contains("COPY data /data"), "{}", first.stderr);
    let again = project.run(&["push-all", "--progress", "plain"]).ok();
    assert_eq!(again.stderr, "");
    let again = project.run(&["push-all", "--progress", "plain", "--force"]).ok();
    let lines: Vec<_> = again.stderr.lines().collect();
    let [built, pushing, pushed] = lines[..] else { panic!("{lines:?}") };
    assert!(built.starts_with("api | built ") && built.ends_with(", from the cache"), "{built}");
    let (reference, fingerprint) = pushing.rsplit_once('-').expect("a tag");
    assert_eq!(reference, format!("api | pushing {}/kevin-api:in", project.registry));
    assert_eq!(fingerprint.len(), 12, "{pushing}");
    assert!(pushed.starts_with("api | pushed sha256:"), "{pushed}");
    let logs = std::fs::read_dir(project.home().join(".cache/lattice-images/logs")).expect("listed");
    let logs: Vec<_> = logs.map(|run| run.expect("an entry").path().join("api.log")).collect();
    let logs: Vec<_> = logs.into_iter().filter(|log| log.exists()).collect();
    assert_eq!(logs.len(), 2);
    for log in logs {
        assert!(std::fs::read_to_string(log).expect("read").contains("COPY data /data"));
    }
}

#[test]
fn github_actions_gets_groups_and_annotations() {
    let project = Project::of_images(&["api", "bad"])
        .with("GITHUB_ACTIONS", "true")
        .with("CI", "true");
    project.write(
        "bad/Dockerfile",
        "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sh\", \"-c\", \"echo ::warning::mine; echo 100%; exit 3\"]\n",
    );
    let project = project.busybox("bad/busybox");
    let ran = project.run(&["push-all"]).ended(1);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    for image in ["api", "bad"] {
        let begin = lines
            .iter()
            .position(|line| *line == format!("::group::log of {image}"))
            .expect(image);
        let end = begin + lines[begin..].iter().position(|line| *line == "::endgroup::").expect("an end");
        let inside = &lines[begin + 1..end];
        assert!(
            inside.len() > 1 && inside.iter().all(|line| line.starts_with(&format!("{image} | "))),
            "{inside:?}"
        );
        assert!(inside.iter().any(|line| line.contains("COPY")), "{inside:?}");
    }
    assert!(
        lines.iter().any(|line| line.starts_with("::error::building bad: ")),
        "{}",
        ran.stderr
    );
    assert!(lines.last().expect("a line").starts_with("::error::2 of") || lines.last().expect("a line").starts_with("::error::1 of"));
    assert!(
        !lines.iter().any(|line| line.trim_start().starts_with("::warning")),
        "{}",
        ran.stderr
    );
    let elsewhere = project.with("GITHUB_ACTIONS", "false").run(&["push-all"]).ended(1);
    assert!(!elsewhere.stderr.contains("::error::") && !elsewhere.stderr.contains("::group::"));
}

#[test]
fn tty_needs_a_terminal() {
    let project = Project::of_images(&["api"]);
    project
        .run(&["push-all", "--progress", "tty"])
        .ended(2)
        .says(&["stderr is none", "hint: --progress plain"]);
}

#[test]
fn a_terminal_shows_a_line_an_image_and_at_the_end_the_table() {
    for size in [WIDE, NARROW] {
        let project = Project::of_images(&["api", "web"]);
        let terminal = Terminal::run(&project, size, &[], &["push-all"]);
        assert_eq!(terminal.ended().0, 0, "{:?}", terminal.everything());
        let all = terminal.everything();
        let table = all.iter().position(|line| line.starts_with("image ")).expect("a table");
        assert_eq!(table, 0, "nothing is left of what was shown before it: {all:?}");
        assert!(
            all.iter().any(|line| line.starts_with("api ") && line.contains("pushed")),
            "{all:?}"
        );
        assert!(all.iter().any(|line| line.contains("prefix kevin-")), "{all:?}");
    }
}

#[test]
fn a_terminal_shows_what_runs_at_80_and_at_40_columns_and_while_it_is_resized() {
    let project = Project::endless(2, 3);
    let terminal = Terminal::run(&project, WIDE, &[], &["push-all", "-j", "2", "--no-cache"]);
    let runs = |rows: &[String]| rows.len() == 5 && rows[..2].iter().all(|row| row.contains("step ") && row.contains("RUN"));
    let rows = terminal.until(runs);
    assert!(rows[0].starts_with("slow-0     ") && rows[0].contains(" s  step "), "{rows:?}");
    assert!(rows[0].contains("RUN [\"/busybox\"") && rows[0].ends_with('…'), "{rows:?}");
    assert!(rows.iter().all(|row| row.chars().count() < 80), "{rows:?}");
    assert!(
        rows[2..].iter().all(|row| row.starts_with("waiting-") && row.ends_with(" waiting")),
        "{rows:?}"
    );

    for (columns, height) in [(40, 24), (100, 24), (30, 24), (80, 24), (80, 12), (80, 40), (80, 24)] {
        terminal.resize(columns, height);
        let rows = terminal.until(|rows| {
            let fits = rows.iter().all(|row| row.chars().count() < usize::from(columns));
            let filled = rows.first().is_some_and(|row| row.chars().count() + 2 > usize::from(columns));
            runs(rows) && fits && filled
        });
        assert!(rows[4].starts_with("waiting-2"), "{rows:?}");
        let all = terminal.everything();
        assert_eq!(all.len(), 5, "nothing is left behind by resizing: {all:?}");
    }

    terminal.press("C-c");
    let (code, took) = terminal.ended();
    assert_eq!(code, 130);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let all = terminal.everything();
    assert!(
        all.iter().any(|line| line.contains("interrupted; nothing was published")),
        "{all:?}"
    );
    assert!(
        all.iter().any(|line| line.starts_with("slow-0") && line.contains("stopped")),
        "{all:?}"
    );
    assert!(
        !all.iter().any(|line| line.contains("RUN [")),
        "the lines of the run are gone: {all:?}"
    );
}

#[test]
fn a_terminal_with_fewer_rows_than_images_shows_the_running_ones_and_counts_the_rest() {
    let project = Project::endless(3, 20);
    let terminal = Terminal::run(&project, NARROW, &[], &["push-all", "-j", "3", "--no-cache"]);
    let rows = terminal.until(|rows| rows.len() == 11 && rows[..3].iter().all(|row| row.contains("RUN")));
    assert!(rows[..3].iter().all(|row| row.starts_with("slow-")), "{rows:?}");
    assert_eq!(rows[10], "… and 13 more (13 waiting)");

    terminal.resize(40, 5);
    let rows = terminal.until(|rows| rows.last().is_some_and(|row| row == "… and 20 more (20 waiting)"));
    assert_eq!(rows.len(), 4);
    terminal.resize(40, 30);
    let rows = terminal.until(|rows| rows.len() == 23 && rows[22].starts_with("waiting-19"));
    assert!(rows[0].starts_with("slow-0"), "{rows:?}");
    let all = terminal.everything();
    assert_eq!(all.len(), 23, "nothing is left behind by resizing: {all:?}");

    terminal.press("C-c");
    assert_eq!(terminal.ended().0, 130);
}

#[test]
fn the_end_of_a_failed_builds_log_stays_above() {
    let project = Project::endless(1, 0).file(
        "bad/Dockerfile",
        "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sh\", \"-c\", \"printf 'one\\\\033[31m\\\\ntwo\\\\033]0;title\\\\007\\\\n'; exit 3\"]\n",
    );
    project.write(
        "images.yaml",
        "images:\n  bad: { context: bad }\n  above: { context: above }\n  slow-0: { context: slow-0 }\n",
    );
    let project = project.busybox("bad/busybox").file("above/Dockerfile", "FROM bad\n");
    let terminal = Terminal::run(&project, WIDE, &[], &["push-all", "-j", "2", "--no-cache"]);
    let record = project.path("recorded");
    terminal.record(&record);
    let rows = terminal.until(|rows| rows.iter().any(|row| row.contains("not built because bad failed")));
    assert_eq!(rows[0], "failed bad, the end of its log:");
    assert!(rows.iter().any(|row| row.starts_with("  | ") && row.contains("two")), "{rows:?}");
    let region = &rows[rows.len() - 3..];
    assert!(region[0].starts_with("bad  ") && region[0].contains("failed: "), "{rows:?}");
    assert!(region[1].contains("not built because bad failed"), "{rows:?}");
    assert!(region[2].starts_with("slow-0"), "{rows:?}");
    terminal.press("C-c");
    assert_eq!(terminal.ended().0, 1, "a failure counts for more than the interruption");
    let log = terminal.everything().iter().filter(|line| line.starts_with("  | ")).count();
    assert!(log > 0 && log <= 15, "the log is shown once: {:?}", terminal.everything());
    let bytes = std::fs::read_to_string(record).expect("recorded");
    assert!(
        !bytes.contains("\u{1b}]0;") && !bytes.contains("\u{1b}[?25l"),
        "nothing of a build's, and no hidden cursor"
    );
}

#[test]
fn colours_are_for_those_who_want_them() {
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let project = Project::endless(1, 1);
        let terminal = Terminal::run(&project, WIDE, variables, &["push-all", "--no-cache"]);
        let record = project.path("recorded");
        terminal.until(|rows| rows.first().is_some_and(|row| row.contains("RUN")));
        terminal.record(&record);
        // the time that is shown changes, so a frame is drawn
        let seen = || std::fs::read_to_string(&record).expect("recorded");
        let begun = Instant::now();
        while !seen().contains("\u{1b}[?2026l") {
            assert!(begun.elapsed() < Duration::from_secs(30), "no frame");
        }
        assert_eq!(seen().contains("\u{1b}[2m"), coloured, "{:?}", seen());
    }
}

#[test]
fn a_terminal_is_not_drawn_on_in_ci_nor_with_a_dumb_one() {
    for variables in [[("CI", "true")], [("TERM", "dumb")]] {
        let project = Project::of_images(&["api"]);
        let terminal = Terminal::run(&project, WIDE, &variables, &["push-all"]);
        assert_eq!(terminal.ended().0, 0);
        let all = terminal.everything();
        assert!(all.iter().any(|line| line.starts_with("api | ")), "{all:?}");
    }
}

#[test]
fn a_timeline_shows_the_parts_of_a_run_even_of_one_that_failed() {
    let project = Project::new("images: { api: { context: api } }")
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("api/data", "x");
    project.run(&["push-all", "--timings", "all.html"]).ok();
    let html = std::fs::read_to_string(project.path("all.html")).expect("written");
    for part in ["hash api", "ask the registry", "build api", "push api", "flip", "record"] {
        assert!(html.contains(&format!("<title>{part}")), "{part}: {html}");
    }
    let waited = html.split_once("What the run waited for</h2>").expect("a table").1;
    assert!(waited.contains("<td>build<td>api"), "{waited}");

    project.write("api/Dockerfile", "FROM scratch\nCOPY nothing /data\n");
    project.run(&["push-all", "--timings", "failed.html"]).ended(1);
    assert!(
        !std::fs::read_to_string(project.path("failed.html"))
            .expect("written")
            .contains("<title>flip")
    );
    project.write("api/Dockerfile", "FROM scratch\nCOPY data /data\n");
    project.run(&["push-all", "-v"]).ok().says(&[" s ask the registry"]);
}

#[test]
fn what_is_waited_for_is_told_above_the_lines_of_the_images() {
    let delayed = AtomicBool::new(false);
    let faults = Faults::start(move |seen| {
        if seen.is("PUT", "/kevin-api/manifests/latest") && !delayed.swap(true, Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(2500));
        }
        Act::Pass
    });
    let project = faults.before(Project::of_images(&["api", "web"]));
    let terminal = Terminal::run(&project, WIDE, &[], &["push-all"]);
    assert_eq!(terminal.ended().0, 0);
    let screen = terminal.screen();
    let rows = |begin: &str| screen.iter().filter(|row| row.starts_with(begin)).count();
    assert_eq!(rows("note: waiting for "), 1, "{screen:#?}");
    assert_eq!((rows("api "), rows("web ")), (1, 1), "the table alone: {screen:#?}");
}
