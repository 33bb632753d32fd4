//! Which part of its context a build reads: what we take a Dockerfile to read, and what BuildKit asks for.

use std::env;
use std::fs;

use crate::support::{Project, Ran};

fn is_classic() -> bool {
    env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0")
}

/// A context with some of everything.
fn project(dockerfile: &str) -> Project {
    let project = Project::new("images: { api: { context: api } }\n").busybox("api/busybox");
    for file in ["a", "b/c", "b/d/x1", "b/d/x2", "e.txt", "f.txt", "README.md"] {
        project.write(&format!("api/{file}"), file);
    }
    std::os::unix::fs::symlink("b", project.path("api/link")).expect("linked");
    project.file("api/Dockerfile", dockerfile)
}

/// What we took it to read, and what BuildKit asked for, each as it was told.
fn told(ran: &Ran) -> (String, Option<String>) {
    let between = |line: &str, before: &str, after: &str| {
        let (_, rest) = line.split_once(before)?;
        Some(rest.strip_suffix(after)?.to_owned())
    };
    let reads = ran.stderr.lines().find_map(|line| between(line, "reads ", " of its context"));
    let mut asked = ran
        .stderr
        .lines()
        .filter_map(|line| between(line, "BuildKit asks for ", " of `context`"));
    (reads.expect("told"), asked.rfind(|asked| asked != ".dockerignore"))
}

/// In order, without what is below another of them: 20.10 names both.
fn sorted(paths: &str) -> Vec<&str> {
    let all: Vec<_> = paths.split(' ').collect();
    let is_below = |path: &&str| all.iter().any(|above| path.starts_with(&format!("{above}/")));
    let mut paths: Vec<_> = all.iter().copied().filter(|path| !is_below(path)).collect();
    paths.sort_unstable();
    paths
}

/// What is written behind `FROM scratch` and `COPY busybox /`, what else it is taken to read, and the first engine that knows it.
const SAME: [(&str, &str, u32); 19] = [
    ("COPY a /a", "a", 20),
    ("COPY a b/c /x/", "a b/c", 20),
    ("COPY ./b/../a /x/", "a", 20),
    ("COPY ../a /x/", "a", 20),
    ("COPY b/c b /x/", "b", 20),
    ("COPY *.txt b/*/x? /x/", "*.txt b/*/x?", 20),
    ("COPY [\"a\", \"b/c\", \"/x/\"]", "a b/c", 20),
    ("COPY --chown=1:1 link/c /x/", "link/c", 20),
    ("ADD a /x/", "a", 20),
    ("RUN --mount=type=bind,source=b,target=/m [\"/busybox\", \"true\"]", "b", 20),
    ("RUN --mount=type=cache,target=/m [\"/busybox\", \"true\"]", "", 20),
    ("COPY <<E a /x/\nCOPY b /b\nE", "a", 23),
    ("COPY --link a /x/", "a", 23),
    ("COPY --exclude=x1 b /x/", "b", 28),
    ("ADD --exclude=x1 b /x/", "b", 28),
    (
        "RUN --mount=type=bind,source=b/d,target=/m --mount=from=other,target=/o [\"/busybox\", \"true\"]",
        "b/d",
        20,
    ),
    ("ONBUILD COPY b /b\nFROM scratch\nCOPY a busybox /", "a", 20),
    ("FROM scratch AS unneeded\nCOPY b /b\nFROM scratch\nCOPY a busybox /", "a", 20),
    ("COPY --from=other /a /\nCOPY busybox e.txt /", "e.txt", 20),
];

/// What is taken to read everything, though BuildKit may know better.
const WHOLE: [(&str, u32); 6] = [
    ("COPY . /x/", 20),
    ("COPY a / /x/", 20),
    ("ARG X=a\nCOPY $X /x/", 20),
    ("COPY \"a\" /x/", 20),
    ("RUN --mount=target=/m [\"/busybox\", \"true\"]", 20),
    ("RUN --mount=type=tmpfs,target=/m [\"/busybox\", \"true\"]", 20),
];

/// The major version of Docker.
pub fn engine(project: &Project) -> u32 {
    let version = project.docker(&["version", "--format", "{{.Server.Version}}"]);
    version.split('.').next().and_then(|major| major.parse().ok()).expect("a version")
}

#[test]
fn we_read_what_buildkit_asks_for() {
    if is_classic() {
        return;
    }
    let engine = engine(&project("FROM scratch\n"));
    for (text, paths, _since) in SAME.into_iter().filter(|(.., since)| *since <= engine) {
        let other = if text.contains("from=other") {
            "FROM scratch AS other\nCOPY a /a\n"
        } else {
            ""
        };
        let ran = project(&format!("{other}FROM scratch\nCOPY busybox /\n{text}\n"))
            .run(&["build", "-v"])
            .ok();
        let (reads, asked) = told(&ran);
        let other = if other.is_empty() { "" } else { "a" };
        let expected = ["busybox", paths, other]
            .into_iter()
            .filter(|paths| !paths.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(sorted(&reads), sorted(&expected), "{text}: read");
        assert_eq!(sorted(&asked.expect(text)), sorted(&expected), "{text}: asked for");
    }
    for (text, _) in WHOLE.into_iter().filter(|(_, since)| *since <= engine) {
        let ran = project(&format!("FROM scratch\nCOPY busybox /\n{text}\n"))
            .run(&["build", "-v"])
            .ok();
        assert_eq!(told(&ran).0, "all", "{text}");
    }
}

#[test]
fn what_a_base_reads_by_onbuild_is_read() {
    let manifest = "images:\n  base: { context: base, push: false }\n  api: { context: api }\n";
    let project = Project::new(manifest)
        .file("base/Dockerfile", "FROM scratch\nONBUILD COPY . /all/\n")
        .file("api/Dockerfile", "FROM base\nCOPY a /\n")
        .file("api/a", "a")
        .file("api/b", "b");
    project.run(&["push-all"]).ok();
    assert_eq!(project.registry.files("kevin-api")["all/b"].content, b"b");
}

#[test]
fn what_is_not_read_is_not_sent_and_may_be_unreadable() {
    let project = project("FROM scratch\nCOPY a /\n");
    let made = std::process::Command::new("mkfifo")
        .arg(project.path("api/pipe"))
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    let ran = project.run(&["build", "-v"]);
    if is_classic() {
        ran.ended(1).says(&["pipe is a FIFO"]);
    } else {
        assert_eq!(told(&ran.ok()).0, "a");
    }
}

#[test]
fn a_context_that_changes_while_it_is_built_is_an_error() {
    let slow = "FROM scratch\nCOPY busybox a /\nRUN [\"/busybox\", \"sleep\", \"4\"]\n";
    let project = project(slow);
    let mut child = project.start(&["push-all", "--no-cache"]);
    let stderr = child.stderr.take().expect("a pipe");
    // the build runs once it sleeps
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
    let sleeps = |line: std::io::Result<String>| line.expect("text").contains("sleep");
    assert!(lines.any(sleeps));
    fs::write(project.path("api/a"), "changed").expect("written");
    let rest: Vec<_> = lines.map(|line| line.expect("text")).collect();
    assert_eq!(child.wait().expect("ends").code(), Some(1));
    let said = rest.join("\n");
    assert!(
        said.contains("the context changed while it was built") && said.contains("api/a"),
        "{said}"
    );
    assert_eq!(project.registry.digest("kevin-api"), None, "nothing is published");
}
