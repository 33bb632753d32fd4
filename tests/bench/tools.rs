//! The tools and what each is called with. All are run as shell scripts, in the folder of the workload.

use std::process::Command;

use crate::files::Base;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Job {
    /// Images, build cache and repositories of the workload are gone.
    Cold,
    Nothing,
    OneChanged,
    /// The same set to another channel.
    SecondChannel,
}

impl Job {
    pub const ALL: [Self; 4] = [Self::Cold, Self::Nothing, Self::OneChanged, Self::SecondChannel];

    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Nothing => "nothing changed",
            Self::OneChanged => "one binary changed",
            Self::SecondChannel => "second channel",
        }
    }
}

pub struct Tool {
    pub name: &'static str,
    /// What it says of itself, or why it cannot be run.
    pub version: Result<String, String>,
    pub script: String,
    /// Runs before the second channel and is not measured.
    pub before_second: Option<String>,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Builds,
    /// Copies only what another tool has pushed.
    Copies,
}

pub const YARDSTICK: &str = "loop, classic";
pub const OURS: &str = "lattice-images";

/// `remote`: the address of a `BuildKit` that stands apart, where there is one.
pub fn all(base: Base, remote: Option<&str>) -> Vec<Tool> {
    let mut tools = vec![
        builds(
            YARDSTICK,
            &["docker", "--version"],
            "export DOCKER_BUILDKIT=0\n. ./loop.sh".to_owned(),
        ),
        builds(
            "loop, BuildKit",
            &["docker", "buildx", "version"],
            "export DOCKER_BUILDKIT=1\n. ./loop.sh".to_owned(),
        ),
        builds("bake", &["docker", "buildx", "version"], bake(base)),
        builds("compose", &["docker", "compose", "version"], compose(base)),
        builds("skaffold", &["skaffold", "version"], skaffold()),
        ours(OURS, "--with-debug"),
    ];
    if let Some(address) = remote {
        let script = "exec docker buildx bake --file remote-bake.hcl --builder bench --push".to_owned();
        tools.push(builds("bake, remote BuildKit", &["docker", "buildx", "version"], script));
        tools.push(ours(
            "lattice-images, remote BuildKit",
            &format!("--with-debug --builder {address}"),
        ));
    }
    tools.push(copies("crane copy", &["crane", "version"], "COPY='crane copy' PREFIX="));
    let skopeo = "COPY='skopeo copy -q --src-tls-verify=false --dest-tls-verify=false' PREFIX=docker://";
    tools.push(copies("skopeo copy", &["skopeo", "--version"], skopeo));
    tools
}

pub fn for_growth() -> Vec<Tool> {
    vec![classic_loop(), ours(OURS, "")]
}

fn classic_loop() -> Tool {
    builds(
        YARDSTICK,
        &["docker", "--version"],
        "export DOCKER_BUILDKIT=0\n. ./loop.sh".to_owned(),
    )
}

fn builds(name: &'static str, version: &[&str], script: String) -> Tool {
    Tool {
        name,
        version: version_of(version),
        script,
        before_second: None,
        kind: Kind::Builds,
    }
}

fn copies(name: &'static str, version: &[&str], settings: &str) -> Tool {
    Tool {
        kind: Kind::Copies,
        ..builds(name, version, format!("FROM=bench\n{settings}\n. ./copy.sh"))
    }
}

fn bake(base: Base) -> String {
    match base {
        Base::Tag => format!("docker buildx bake {}\nexec docker buildx bake --push", crate::workload::BASE),
        Base::Context => "exec docker buildx bake --push".to_owned(),
    }
}

fn compose(base: Base) -> String {
    let before = match base {
        Base::Tag => format!("docker compose build {}\n", crate::workload::BASE),
        Base::Context => String::new(),
    };
    format!("{before}docker compose build\nexec docker compose push")
}

fn skaffold() -> String {
    let base = crate::workload::BASE;
    format!(
        "docker build -q -t {base} base\nsed \"s|/CHANNEL-|/$CHANNEL-|\" skaffold.yaml >skaffold-$CHANNEL.yaml\n\
         exec skaffold build --filename skaffold-$CHANNEL.yaml --interactive=false"
    )
}

/// The second channel is filled from `stable`, which gets there the way a team's does: as what the first has.
pub fn ours(name: &'static str, further: &str) -> Tool {
    let program = env!("CARGO_BIN_EXE_lattice-images");
    let copy = |from: &str, to: &str| format!("'{program}' channels copy {from} {to} --yes --override-stable-guard\n");
    Tool {
        before_second: Some(copy("bench", "stable") + &copy("bench-debug", "stable-debug")),
        ..builds(
            name,
            &[program, "--version"],
            format!("exec '{program}' push-all --user \"$CHANNEL\" {further}"),
        )
    }
}

fn version_of(command: &[&str]) -> Result<String, String> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .map_err(|_| "not here".to_owned())?;
    if !output.status.success() {
        return Err("not here".to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    // `github.com/docker/buildx 0.29.1 0.29.1`, `Docker version 28.2.2, build e6534b4`
    let version = line
        .split([' ', ','])
        .find(|word| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()));
    Ok(version
        .map_or("of no version that it knows", |version| version.trim_start_matches('v'))
        .to_owned())
}
