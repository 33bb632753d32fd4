//! The keys of a build that BuildKit carries out.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::reads::engine;
use crate::support::{Project, Ran};

fn is_classic() -> bool {
    env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0")
}

/// Whether the run was refused, as it must be where builds go through the classic builder.
fn refused_by_classic(project: &Project, key: &str) -> bool {
    if is_classic() {
        project
            .run(&["build"])
            .ended(2)
            .says(&["images.yaml:4: ", &format!("`{key}` needs BuildKit")]);
    }
    is_classic()
}

const VALUE: &str = "s3cr3t-value-that-nobody-sees";

/// Every text that a run has written: to its streams, its logs and caches.
pub fn everything(ran: &Ran, home: &Path) -> String {
    fn files(folder: &Path, all: &mut Vec<u8>) {
        for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                files(&path, all);
            } else {
                all.extend(fs::read(path).expect("read"));
            }
        }
    }
    let mut all = Vec::new();
    files(home, &mut all);
    format!("{}{}{}", ran.stdout, ran.stderr, String::from_utf8_lossy(&all))
}

#[test]
fn secrets_reach_the_build_and_nothing_else() {
    let project = Project::new("images:\n  api:\n    context: api\n    secrets: ['id=file,src=secret.txt', 'id=variable,env=SECRET']\n    network: none\n")
        .busybox("api/busybox")
        .file(
            "api/Dockerfile",
            "FROM scratch\nCOPY busybox /busybox\nRUN --mount=type=secret,id=file --mount=type=secret,id=variable [\"/busybox\", \"sh\", \"-c\", \"/busybox cat /run/secrets/file /run/secrets/variable | /busybox wc -c | /busybox grep -x 58\"]\n",
        )
        .file("secret.txt", VALUE)
        .with("SECRET", VALUE);
    if refused_by_classic(&project, "secrets") {
        return;
    }
    let ran = project.run(&["push-all", "-v", "--no-cache"]).ok();
    assert!(
        !everything(&ran, &project.home()).contains(VALUE),
        "the secret is written somewhere"
    );
    assert!(!project.registry.config("kevin-api").to_string().contains(VALUE));
    let files = project.registry.files("kevin-api");
    assert!(files.values().all(|file| !String::from_utf8_lossy(&file.content).contains(VALUE)));
}

/// Copies a program with the libraries that it loads to the places where it looks for them.
fn copy_program(project: &Project, program: &str, context: &str) {
    let ran = Ran::of(Command::new("ldd").arg(program).output().expect("ldd runs")).ok();
    let libraries = ran.stdout.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([program]) {
        let copy = project.path(&format!("{context}{path}"));
        fs::create_dir_all(copy.parent().expect("a parent")).expect("created");
        fs::copy(path, copy).expect("copied");
    }
}

#[test]
fn the_ssh_agent_is_reached_from_a_build() {
    let project = Project::new("images:\n  api:\n    context: api\n    ssh: [default]\n    network: none\n").file(
        "api/Dockerfile",
        "FROM scratch\nCOPY root/ /\nRUN --mount=type=ssh [\"/usr/bin/ssh-add\", \"-l\"]\n",
    );
    let (socket, key) = (
        project.home().join("agent.sock").display().to_string(),
        project.home().join("key").display().to_string(),
    );
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .spawn()
        .expect("ssh-agent runs");
    while !Path::new(&socket).exists() {
        assert!(agent.try_wait().expect("asked").is_none(), "ssh-agent ended");
        thread::yield_now();
    }
    Ran::of(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "key-of-kevin", "-f", &key])
            .output()
            .expect("ssh-keygen runs"),
    )
    .ok();
    Ran::of(
        Command::new("ssh-add")
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .expect("ssh-add runs"),
    )
    .ok();
    copy_program(&project, "/usr/bin/ssh-add", "api/root");
    let project = project.with("SSH_AUTH_SOCK", socket);
    if !refused_by_classic(&project, "ssh") {
        project.run(&["build", "--no-cache"]).ok().says(&["key-of-kevin (ED25519)"]);
    }
    agent.kill().and_then(|()| agent.wait()).expect("stopped");
}

fn takes_named_contexts(project: &Project) -> bool {
    !is_classic() && engine(project) >= 23
}

#[test]
fn what_the_daemon_cannot_do_is_told_before_building() {
    let project = Project::new("images:\n  api:\n    context: api\n    additional_contexts: { more: more }\n")
        .file("api/Dockerfile", "FROM scratch\nCOPY --from=more x /x\n")
        .file("more/x", "from the other folder");
    if refused_by_classic(&project, "additional_contexts") {
        return;
    }
    if engine(&project) < 23 {
        project
            .run(&["push-all"])
            .ended(2)
            .says(&["images.yaml:4: `additional_contexts` needs Docker 23 or later, and the daemon is 20"]);
    } else {
        project.run(&["push-all"]).ok();
        assert_eq!(project.registry.files("kevin-api")["x"].content, b"from the other folder");
    }
}

#[test]
fn an_additional_context_may_be_called_as_the_main_ones_are() {
    let project = Project::new("images:\n  api:\n    context: api\n    additional_contexts: { context: more, dockerfile: other }\n").file(
        "api/Dockerfile",
        "FROM scratch\nCOPY data /main\nCOPY --from=context data /more\nCOPY --from=dockerfile data /other\n",
    );
    if !takes_named_contexts(&project) {
        return;
    }
    for folder in ["api", "more", "other"] {
        project.write(&format!("{folder}/data"), folder);
    }
    project.run(&["push-all"]).ok();
    let files = project.registry.files("kevin-api");
    let found = ["main", "more", "other"].map(|path| String::from_utf8_lossy(&files[path].content));
    assert_eq!(found, ["api", "more", "other"]);
}

#[test]
fn the_rules_of_an_additional_context_can_be_copied() {
    let manifest = "images:\n  api:\n    context: api\n    additional_contexts: { more: more }\n";
    let project = Project::new(manifest)
        .file("api/Dockerfile", "FROM scratch\nCOPY --from=more .dockerignore /\n")
        .file("more/.dockerignore", "x\n")
        .file("more/x", "");
    if takes_named_contexts(&project) {
        project.run(&["push-all"]).ok();
        assert_eq!(project.registry.files("kevin-api")[".dockerignore"].content, b"x\n");
    }
}

#[test]
fn a_context_is_found_however_its_name_is_written() {
    let contexts = "{ 'more:latest': more, docker.io/library/base:12: base, other: more }";
    let project = Project::new(&format!("images:\n  api:\n    context: api\n    additional_contexts: {contexts}\n"))
        .file(
            "api/Dockerfile",
            "FROM base:12\nCOPY --from=more x /one\nCOPY --from=docker.io/library/other x /two\nCOPY --from=other:latest x /three\n",
        )
        .file("base/of-base", "")
        .file("more/x", "from the other folder");
    if !takes_named_contexts(&project) {
        return;
    }
    project.run(&["push-all"]).ok();
    let files = project.registry.files("kevin-api");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["of-base", "one", "three", "two"]);
}

#[test]
fn the_time_of_the_environment_reaches_every_build() {
    let manifest = "debug: { utilities: ./run/busybox }\nimages:\n  api: { context: api }\n  run: { context: run, network: none }\n";
    let project = Project::new(manifest)
        .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .busybox("run/busybox");
    let data = format!("of {}", project.registry);
    let copies = "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY busybox /bin/busybox\n";
    let writes = format!("{} echo $SOURCE_DATE_EPOCH >/epoch", project.mark());
    let run = format!("{copies}RUN [\"/bin/busybox\", \"sh\", \"-c\", \"{writes}\"]\n");
    let project = project.file("api/data", data).file("run/Dockerfile", run);
    project.run(&["push-all", "--with-debug"]).ok();
    let pushed = |seconds: &str, result: &str| {
        let mut command = project.command(".", &["push-all", "--with-debug"]);
        let ran = Ran::of(command.env("SOURCE_DATE_EPOCH", seconds).output().expect("it runs")).ok();
        let rows = ran.stdout.lines().filter(|line| line.contains("sha256:") && line.contains(result));
        assert_eq!(rows.count(), 4, "{seconds}: {}", ran.stdout);
    };
    pushed("", "  up to date  ");
    pushed("1700000000", "  pushed  ");
    pushed("1700000000", "  up to date  ");
    assert_eq!(project.registry.files("kevin-run")["epoch"].content, b"1700000000\n");
    let is_known = takes_named_contexts(&project);
    for image in ["api", "run", "debug-api", "debug-run"] {
        let created = &project.registry.config(&format!("kevin-{image}"))["created"];
        assert_eq!(created == "2023-11-14T22:13:20Z", is_known, "{image}: {created}");
    }
}
