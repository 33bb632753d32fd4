//! The daemon and the registry of a run, both its own, and what is needed to empty them.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::files::Base;
use crate::proxy::Proxy;

pub struct Place {
    /// Where the registry is, without the proxy.
    pub registry: String,
    pub proxy: Proxy,
    pub engine: String,
    pub base: Base,
    /// The address of the daemon's `BuildKit` as one that stands apart, where it can push.
    pub remote: Option<String>,
    pub folder: PathBuf,
    storage: PathBuf,
}

fn provided(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `make bench`"))
}

impl Place {
    pub fn find() -> Result<Self> {
        let registry = provided("LATTICE_TEST_REGISTRY")?;
        let proxy = Proxy::start(&registry)?;
        let version = docker(&["version", "--format", "{{.Server.Version}}"])?;
        let has_containerd_store = docker(&["info", "--format", "{{.DriverStatus}}"])?.contains("io.containerd.snapshotter");
        let major: u32 = version
            .split('.')
            .next()
            .unwrap_or_default()
            .parse()
            .context("the engine's version")?;
        let remote = has_containerd_store.then(|| remote(&proxy)).transpose()?;
        let store = if has_containerd_store { "containerd" } else { "graph driver" };
        Ok(Self {
            registry,
            proxy,
            engine: format!("{version}, {store} store"),
            base: if major < 23 { Base::Tag } else { Base::Context },
            remote,
            folder: PathBuf::from(provided("BENCH_FOLDER")?),
            storage: Path::new(&provided("BENCH_STATE")?).join("registry"),
        })
    }

    /// What the tools see of the environment.
    pub fn environment(&self, channel: &str) -> Vec<(String, String)> {
        let passed = ["PATH", "DOCKER_HOST", "DOCKER_CONFIG"].into_iter();
        let passed = passed.filter_map(|name| Some((name.to_owned(), env::var(name).ok()?)));
        let further = [
            ("HOME", self.home().display().to_string()),
            ("CHANNEL", channel.to_owned()),
            // what the others do not make, and what is another manifest in each run
            ("BUILDX_NO_DEFAULT_ATTESTATIONS", "1".to_owned()),
        ];
        passed.chain(further.map(|(name, value)| (name.to_owned(), value))).collect()
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Images, build cache, repositories and what the tools remember: gone.
    pub fn empty(&self) -> Result<()> {
        docker(&["system", "prune", "--all", "--force"])?;
        let left = docker(&["image", "ls", "--all", "--quiet"])?;
        ensure!(left.is_empty(), "the daemon still has images: {left}");
        for folder in [self.storage.join("docker"), self.home()] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", folder.display()));
                }
                _ => {}
            }
        }
        fs::create_dir_all(self.home())?;
        Ok(())
    }
}

fn remote(proxy: &Proxy) -> Result<String> {
    let host = provided("DOCKER_HOST")?;
    let socket = host.strip_prefix("unix://").context("the daemon's socket")?;
    let address = format!("tcp://{}", proxy.buildkit(socket.into())?);
    // of an earlier run, at another port
    let _ = docker(&["buildx", "rm", "bench"]);
    docker(&["buildx", "create", "--name", "bench", "--driver", "remote", &address])?;
    Ok(address)
}

fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(arguments).output().context("running docker")?;
    if !output.status.success() {
        bail!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
