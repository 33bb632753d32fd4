//! A project in a folder of its own, and the program run in it.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::builders;
use crate::registry::Registry;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_lattice-images");

/// Where no daemon is.
pub const NOWHERE: &str = "unix:///nowhere/docker.sock";

const LONGEST_RUN: Duration = Duration::from_mins(10);

/// What `make test` provides; without it a test fails, and says how to get it.
pub fn provided(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}

/// A folder with a manifest and contexts, a registry path of its own, and a person called `kevin` with an empty home.
///
/// What it puts into the daemon and the registry stays until `make test` ends: the daemon shares equal images among
/// tests, so removing them would take them from under another test's build.
pub struct Project {
    dir: TempDir,
    pub registry: Registry,
    variables: BTreeMap<&'static str, String>,
}

impl Project {
    pub fn new(manifest: &str) -> Self {
        Self::in_registry(manifest, &provided("LATTICE_TEST_REGISTRY"))
    }

    pub fn in_registry(manifest: &str, host: &str) -> Self {
        static PROJECTS: AtomicU32 = AtomicU32::new(0);
        let path = format!("t{}-{}", std::process::id(), PROJECTS.fetch_add(1, Ordering::Relaxed));
        note(&path);
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["work", "home"] {
            fs::create_dir(dir.path().join(folder)).expect("created");
        }
        let registry = Registry::new(host, &path);
        let variables = BTreeMap::from([
            ("LATTICE_IMAGES_REGISTRY", registry.to_string()),
            ("LATTICE_IMAGES_USER", "kevin".to_owned()),
        ]);
        Self { dir, registry, variables }.file("images.yaml", manifest)
    }

    /// The image `api`, of one file, in another registry.
    pub fn of_api_in(host: &str) -> Self {
        Self::in_registry("images: { api: { context: api } }", host)
            .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
            .file("api/data", "one")
    }

    /// One image for each name, `FROM scratch` with a file of its own.
    pub fn of_images(names: &[&str]) -> Self {
        let entries: String = names.iter().map(|name| format!("  {name}: {{ context: {name} }}\n")).collect();
        names.iter().fold(Self::new(&format!("images:\n{entries}")), |project, name| {
            let data = format!("{name} of {}", project.registry);
            project
                .file(&format!("{name}/Dockerfile"), "FROM scratch\nCOPY data /data\n")
                .file(&format!("{name}/data"), data)
        })
    }

    /// Images that are built until they are interrupted, and others that wait for the first of them.
    pub fn endless(running: usize, waiting: usize) -> Self {
        let entry = |name: &str, number: usize| format!("  {name}-{number}: {{ context: {name}-{number} }}\n");
        let slow = (0..running).map(|number| entry("slow", number));
        let entries: String = slow.chain((0..waiting).map(|number| entry("waiting", number))).collect();
        let mut project = Self::new(&format!("images:\n{entries}"));
        for number in 0..waiting {
            project.write(&format!("waiting-{number}/Dockerfile"), "FROM slow-0\nLABEL a=b\n");
        }
        for number in 0..running {
            let mark = project.mark();
            // the shell stays, and the mark with it
            let command = format!("{mark} echo line-{number} of a rather long command of a build; /busybox sleep 300; {mark}");
            let dockerfile = format!("FROM scratch\nCOPY . /\nRUN [\"/busybox\", \"sh\", \"-c\", \"{command}\"]\n");
            project = project
                .file(&format!("slow-{number}/Dockerfile"), dockerfile)
                .busybox(&format!("slow-{number}/busybox"));
        }
        project
    }

    /// A command that does nothing, and is in no other project's builds.
    pub fn mark(&self) -> String {
        format!(": {};", self.registry)
    }

    /// Runs git in the project, as somebody of its own.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.path("."))
            .args([
                "-c",
                "user.name=kevin",
                "-c",
                "user.email=kevin@example.com",
                "-c",
                "init.defaultBranch=master",
            ])
            .args(arguments)
            .env("HOME", self.home())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes the project a repository with all of it committed on `branch`.
    pub fn commit_all(&self, branch: &str) {
        self.git(&["init", "-q"]);
        self.git(&["checkout", "-q", "-B", branch]);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "all of it"]);
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content);
        self
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let full = self.path(path);
        fs::create_dir_all(full.parent().expect("a parent")).expect("created");
        fs::write(full, content).expect("written");
    }

    pub fn with(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.variables.insert(variable, value.into());
        self
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("work").join(path)
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The static busybox that `make test` provides, as `name` of a context.
    pub fn busybox(self, path: &str) -> Self {
        let full = self.path(path);
        fs::create_dir_all(full.parent().expect("a parent")).expect("created");
        fs::copy(provided("LATTICE_TEST_BUSYBOX"), full).expect("copied");
        self
    }

    pub fn command(&self, folder: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.path(folder))
            .env_clear()
            .stdin(Stdio::null());
        for name in ["PATH", "DOCKER_HOST", "DOCKER_BUILDKIT", "LATTICE_IMAGES_PUSH_BY"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(builder) = builders::of_this_run() {
            command.env("LATTICE_IMAGES_BUILDER", builder).env("DOCKER_HOST", NOWHERE);
        }
        command.env("HOME", self.home()).envs(&self.variables);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(".", arguments)
    }

    pub fn run_in(&self, folder: &str, arguments: &[&str]) -> Ran {
        let mut command = self.command(folder, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        ended_in_time(command.spawn().expect("the program runs"))
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(".", arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs")
    }

    /// `docker`, with the daemon that the program uses.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .current_dir(self.path("."))
            .env("DOCKER_CONFIG", self.home());
        docker_output(command)
    }

    /// Whether the daemon keeps images in containerd's store; its pushes do not try again, and tell of no small layer.
    pub fn has_containerd_store(&self) -> bool {
        self.docker(&["info", "--format", "{{.DriverStatus}}"])
            .contains("io.containerd.snapshotter")
    }

    /// Builds with Docker's own client and its classic builder, pushes, and gives the repository's name.
    pub fn docker_build(&self, context: &str, further: &[&str]) -> String {
        let name = format!("reference-{}", context.replace(['/', '.'], "-"));
        let reference = format!("{}/{name}", self.registry);
        let mut command = Command::new("docker");
        command
            .arg("build")
            .args(["-q", "-t", &reference])
            .args(further)
            .arg(context)
            .current_dir(self.path("."));
        command.env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", self.home());
        docker_output(command);
        self.docker(&["push", "-q", &reference]);
        name
    }
}

/// By what is noted, `tests/provision/down` tells the images of tests from others in the daemon.
fn note(path: &str) {
    let notes = OpenOptions::new().create(true).append(true).open(provided("LATTICE_TEST_PROJECTS"));
    notes
        .and_then(|mut notes| notes.write_all(format!("{path}\n").as_bytes()))
        .expect("noted");
}

/// A run that hangs is ended, so that its test fails with what it has said.
fn ended_in_time(child: Child) -> Ran {
    let pid = child.id().to_string();
    let (ended, is_ended) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if is_ended.recv_timeout(LONGEST_RUN) == Err(RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-ABRT", &pid]).status();
        }
    });
    let ran = Ran::of(child.wait_with_output().expect("the program runs"));
    drop(ended);
    watch.join().expect("nobody panics");
    ran
}

/// What a command of Docker's client prints. The classic builder of 20.10 looks through all images, and fails where
/// another test removes one meanwhile (`image/cache/cache.go` of moby); such a build is made again.
fn docker_output(mut command: Command) -> String {
    let mut ran = Ran::of(command.output().expect("docker runs"));
    for _ in 0..4 {
        if ran.stderr.contains("unable to find image \"sha256:") {
            ran = Ran::of(command.output().expect("docker runs"));
        }
    }
    assert!(ran.code == 0, "{command:?}: {}", ran.stderr);
    ran.stdout
}

pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.ended(0)
    }

    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The part of stderr from `error:` on.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "not said: {part}\nstderr:\n{}", self.stderr);
        }
        self
    }
}

/// The text of a file below `folder`, found by its name.
pub fn find_file(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            find_file(&path, name)
        } else {
            path.ends_with(name).then_some(path)
        }
    })
}
