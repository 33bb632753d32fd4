//! Ctrl-C: how soon it ends, and that no build of ours goes on in the daemon.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Lines, Read as _};
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::builders::push_is_part_of_the_build;
use crate::proxy::silent_registry;
use crate::support::{Project, Ran, provided};

const SOON: Duration = Duration::from_secs(2);

struct Run {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Run {
    fn start(project: &Project) -> Self {
        let program = project.command(".", &["push-all", "--no-cache", "--progress", "json"]);
        // under nohup, these tests and all that they start ignore a hangup
        let mut command = Command::new("/usr/bin/env");
        command
            .arg("--default-signal=HUP")
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(program.get_current_dir().expect("a folder"))
            .stdin(Stdio::null())
            .env_clear()
            .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, stderr }
    }

    /// Runs until it tells of an `event`, with a `text` that begins so.
    fn until(project: &Project, event: &str, text: &str) -> Self {
        let mut run = Self::start(project);
        let told = run.stderr.by_ref().map_while(Result::ok).any(|line| is(&line, event, text));
        assert!(told, "it ended before it told of {event}");
        run
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    /// Gives what it told of until it ended, which must be soon.
    #[track_caller]
    fn interrupted(mut self) -> String {
        let begun = Instant::now();
        let rest: Vec<_> = self.stderr.map_while(Result::ok).collect();
        let code = self.child.wait().expect("ended").code();
        let (took, rest) = (begun.elapsed(), rest.join("\n"));
        assert_eq!(code, Some(130), "{rest}");
        assert!(took < SOON, "{took:?}: {rest}");
        rest
    }
}

fn is(line: &str, event: &str, text: &str) -> bool {
    let line: Value = serde_json::from_str(line).expect("JSON");
    line["event"] == event && line["text"].as_str().unwrap_or_default().starts_with(text)
}

/// Whether the command of [`Project::endless`] runs, with either builder: what was stopped stays in use in the cache of some.
fn is_built(project: &Project) -> bool {
    let mark = project.mark();
    let processes = fs::read_dir("/proc").expect("of Linux").flatten();
    let mut commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    commands.any(|command| String::from_utf8_lossy(&command).contains(&mark))
}

/// Nothing but the build cache is asked for: to measure images fails where containerd keeps them while builds end.
pub fn build_cache() -> Vec<Value> {
    let answer: Value = serde_json::from_str(&asked_of_the_daemon(&["http://docker/system/df?type=build-cache"])).expect("JSON");
    answer["BuildCache"].as_array().cloned().unwrap_or_default()
}

/// What the daemon's API answers, with arguments of curl.
pub fn asked_of_the_daemon(arguments: &[&str]) -> String {
    let host = provided("DOCKER_HOST");
    let socket = host.strip_prefix("unix://").expect("a socket");
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "--unix-socket", socket]).args(arguments);
    Ran::of(command.output().expect("curl runs")).ok().stdout
}

#[track_caller]
fn soon(is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < 5 * SOON, "not within {:?}", begun.elapsed());
    }
}

fn large(project: &Project, path: &str) {
    let file = File::create(project.path(path)).expect("created");
    file.set_len(200_000_000).expect("grown");
}

#[test]
fn no_build_is_left_whenever_it_is_interrupted() {
    let moments = [("building", ""), ("sending", ""), ("instruction", "RUN"), ("output", "line-0")];
    let projects = moments.map(|(event, text)| {
        let project = Project::endless(1, 0);
        large(&project, "slow-0/large");
        let run = Run::until(&project, event, text);
        if event == "output" {
            soon(|| is_built(&project));
        }
        run.signal("-INT");
        let rest = run.interrupted();
        assert!(rest.contains("interrupted; nothing was published"), "{event}: {rest}");
        project
    });
    // those that were interrupted early have had the time to come this far
    for project in &projects {
        soon(|| !is_built(project));
    }
}

#[test]
fn a_push_stops_too() {
    for signal in ["-TERM", "-HUP"] {
        let project = Project::of_images(&["api"]);
        project.write("api/Dockerfile", "FROM scratch\nCOPY . /\n");
        // what cannot be compressed takes its time on the way
        let mut random = File::open("/dev/urandom").expect("of Linux").take(150_000_000);
        io::copy(&mut random, &mut File::create(project.path("api/large")).expect("created")).expect("written");
        // a build that pushes by itself does not tell when it does
        let event = if push_is_part_of_the_build() { "sending" } else { "uploading" };
        let run = Run::until(&project, event, "");
        run.signal(signal);
        assert!(run.interrupted().contains("interrupted; nothing was published"), "{signal}");
        assert!(project.registry.digest("kevin-api").is_none(), "{signal}");
    }
}

/// What is flipped must be put back, which cannot be where nothing answers.
#[test]
fn interrupted_twice_it_ends_at_once() {
    let project = Project::of_images(&["api"]);
    let flip = format!("PUT /v2/{}/kevin-api/manifests/latest ", project.registry.path());
    let (host, asked) = silent_registry(&provided("LATTICE_TEST_REGISTRY"), flip);
    let registry = format!("{host}/{}", project.registry.path());
    let project = project.with("LATTICE_IMAGES_REGISTRY", registry);
    let mut run = Run::start(&project);
    asked.recv_timeout(10 * SOON).expect("it flips");
    run.signal("-INT");
    thread::sleep(SOON);
    assert_eq!(run.child.try_wait().expect("asked"), None, "it leaves a channel without a word");
    run.signal("-TERM");
    assert!(run.interrupted().contains("interrupted twice; what was begun may be left undone"));
}

#[test]
fn a_daemon_that_does_not_answer_is_not_waited_for() {
    let project = Project::of_images(&["api"]);
    let socket = project.path("silent.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let project = project.with("DOCKER_HOST", format!("unix://{}", socket.display()));
    let run = Run::start(&project);
    let _connection = listener.accept().expect("called");
    run.signal("-INT");
    assert!(run.interrupted().contains("interrupted; nothing was begun"));
}
