//! Where images are built: with a Docker daemon, through bollard, or with a BuildKit elsewhere. Nothing outside this
//! folder names bollard.

mod build;
mod builders;
mod buildkit;
mod classic;
mod containers;
mod dial;
mod engine;
mod images;
mod index;
mod instructions;
mod meter;
mod push;
mod recipe;
mod staging;
mod utilities;

pub use engine::Engine;
pub use push::{PushOf, Pushed};
pub use recipe::{Built, Names, Recipe, Sibling, only_copies};
pub use utilities::{Addition, Busybox};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Error;
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as BollardError;
use bollard::query_parameters::InspectNetworkOptions;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::credentials::{Credential, Credentials};
use crate::endpoint::{Address, Endpoint};
use crate::machine;
use crate::problem::{Problem, printable};
use crate::proxy::{Proxies, is_loopback};
use crate::registry;
use build::{Builder, DOCKERFILE_1_4_SINCE};
use buildkit::{BuildKit, Dialect, Push};
use dial::Dialler;
use images::PassingNames;
use staging::Staging;

/// What builders are given of the person and the team.
#[derive(Clone)]
pub struct Access {
    pub credentials: Credentials,
    /// What tells this machine's folders from another's with the same paths.
    pub machine: String,
    /// Registries (`host:port`) that may be spoken to over plain HTTP, beside those on loopback.
    pub insecure_registries: Vec<String>,
    /// On the way to daemons and builders that are reached over TCP.
    pub proxies: Proxies,
    /// For what no builder does: an index over what several have pushed, and images that a daemon does not push itself.
    pub registry: registry::Client,
    /// Where things are kept from run to run.
    pub cache: Option<PathBuf>,
}

/// Who brings to the registry what a daemon has built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushBy {
    /// This program.
    Client,
    Daemon,
}

impl Access {
    fn push<'a>(&self, names: Names<'a>) -> Push<'a> {
        Push {
            names: names.push_as,
            insecure: self.is_insecure(names.reference.host()),
        }
    }

    fn is_insecure(&self, host: &str) -> bool {
        is_loopback(host) || self.is_listed(host)
    }

    /// To push there over plain HTTP, a builder is told; to pull, it is not.
    fn is_listed(&self, host: &str) -> bool {
        self.insecure_registries.iter().any(|listed| listed == host)
    }
}

/// From where on waiting for a registry's answers takes longer than taking images out of a daemon (measured with 20.10 and 28.5).
const FAR: Duration = Duration::from_millis(10);

/// A daemon that has answered.
pub struct Daemon {
    docker: Docker,
    access: Access,
    builder: Builder,
    version: Version,
    store: Store,
    /// It is on this machine.
    is_local: bool,
    push_by: PushBy,
    /// Whether images that this program can make again are its to push; only `BuildKit` tells how it made them.
    replicates: bool,
    /// It was found not to reach the registry.
    cut_off: AtomicBool,
    staging: Arc<Staging>,
    passing: PassingNames,
    /// What goes on even if the run is stopped, so that nothing stays in the daemon.
    tidy: TaskTracker,
}

/// How a daemon keeps its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    GraphDriver,
    /// Its BuildKit pushes by itself, and makes images of several platforms.
    Containerd,
}

/// Which of a daemon's builders a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuilderChoice {
    /// BuildKit where the daemon has it.
    Best,
    /// The classic one, as `DOCKER_BUILDKIT=0` asks for it.
    Classic,
}

/// A client for the daemon there; nothing is asked yet.
fn client(endpoint: &Endpoint, access: &Access) -> Result<(Dialler, Docker), Error> {
    debug!("the daemon is {} (from {})", endpoint.address, endpoint.source);
    let dialler = Dialler::new(endpoint, &access.proxies)?;
    let docker = dialler.client()?.with_request_modifier(url_safe_credentials);
    Ok((dialler, docker))
}

/// The first answers of a daemon.
struct Facts {
    docker: Docker,
    version: Version,
    store: Store,
    network: Option<&'static str>,
}

impl Facts {
    async fn of(docker: Docker) -> Result<Self, BollardError> {
        // these do not differ between versions of the API
        let (negotiated, version, store, network) = tokio::join!(
            docker.clone().negotiate_version(),
            Version::of(&docker),
            Store::of(&docker),
            default_network(&docker)
        );
        Ok(Self {
            docker: negotiated?,
            version,
            store,
            network,
        })
    }
}

impl Daemon {
    /// # Errors
    /// When no daemon answers at `endpoint`, or it may not be used, with what to do about it.
    pub async fn connect(endpoint: &Endpoint, choice: BuilderChoice, access: Access) -> Result<Self, Error> {
        let (dialler, docker) = client(endpoint, &access)?;
        let connecting = async {
            match choice {
                BuilderChoice::Classic => Ok(None),
                BuilderChoice::Best => BuildKit::of_daemon(dialler.clone(), access.clone()).await,
            }
        };
        // a busy one is waited for: to tell of itself, it starts processes (moby, `daemon/info_unix.go`)
        let answering = async {
            let telling = async { dialler.explained(Facts::of(docker.clone()).await).await };
            tokio::try_join!(telling, dialler.answered(docker.ping()))
        };
        let (answers, buildkit) = tokio::join!(answering, connecting);
        let (facts, _) = answers?;
        debug!(
            "it speaks API {}, is {} and has a {:?} store",
            facts.docker.client_version(),
            facts.version.text,
            facts.store
        );
        let mut builder = buildkit?.map_or(Builder::Classic, |buildkit| Builder::BuildKit(Box::new(buildkit)));
        if let Builder::BuildKit(buildkit) = &mut builder {
            buildkit.network = facts.network;
            buildkit.links = facts.version.major() >= DOCKERFILE_1_4_SINCE;
        }
        let passing = PassingNames::new(machine::random()[..8].to_owned());
        let (docker, spoken) = match facts.store {
            Store::GraphDriver => (Some(facts.docker.clone()), facts.version.dialect()),
            Store::Containerd => (None, Some(Dialect::OF_BUILDKIT)),
        };
        let staging = Staging::new(docker, spoken, access.registry.clone(), access.cache.clone());
        Ok(Self {
            docker: facts.docker,
            is_local: matches!(endpoint.address, Address::Unix(_)),
            push_by: PushBy::Daemon,
            replicates: false,
            cut_off: AtomicBool::new(false),
            access,
            builder,
            version: facts.version,
            store: facts.store,
            staging: Arc::new(staging),
            passing,
            tidy: TaskTracker::new(),
        })
    }

    /// Whether builds go through the classic builder, which sends the whole context each time.
    fn builds_classically(&self) -> bool {
        matches!(self.builder, Builder::Classic)
    }

    /// Waits for what must not be left half done, and takes away what only this run needed.
    pub async fn tidy_up(&self) {
        // the daemon may take longer than anybody waits
        self.staging.finish();
        self.tidy.close();
        self.tidy.wait().await;
        self.forget_names().await;
    }

    fn description(&self) -> String {
        let builder = if self.builds_classically() {
            "the classic builder"
        } else {
            "BuildKit"
        };
        let pushes = if self.pushes() { ", which pushes by itself" } else { "" };
        format!("Docker {} with {builder}{pushes}", self.version.text)
    }

    /// Whether builds push by themselves.
    fn pushes(&self) -> bool {
        self.store == Store::Containerd && !self.builds_classically()
    }

    /// Whether the image can come out of the daemon. From containerd's store it comes in another form, and no daemon exports an
    /// image without layers (moby, `image/tarexport/save.go`).
    fn can_export(&self, built: &Built) -> bool {
        self.store == Store::GraphDriver && !built.layers.is_empty()
    }

    /// Whether the image goes through this program to the registry.
    async fn stages(&self, built: &Built, host: &str, step: &str) -> bool {
        if !self.can_export(built) {
            return self.pushes() && built.pushed.is_none();
        }
        if self.replicates {
            self.staging.replicate(built, host, step).await;
        }
        self.push_by == PushBy::Client || self.cut_off.load(Relaxed) || self.staging.suits(built, host)
    }

    /// For one image a daemon waits for twice as many answers, and of several it pushes only some at once; but images have to be
    /// taken out of it whole. What a daemon elsewhere pushes does not come here first.
    fn best_pusher(&self, answers_in: Duration) -> PushBy {
        if self.is_local && answers_in >= FAR {
            PushBy::Client
        } else {
            PushBy::Daemon
        }
    }

    async fn credentials(&self, host: &str) -> Result<(Credential, DockerCredentials), Problem> {
        let found = self.access.credentials.for_host(host).await;
        let credential = found.map_err(|error| Problem::failed(error.to_string()).hint(error.hint()))?;
        let mut sent = DockerCredentials {
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        };
        match &credential {
            Credential::Anonymous => sent.serveraddress = None,
            Credential::Password { username, password } => {
                sent.username = Some(username.clone());
                sent.password = Some(password.expose().to_owned());
            }
            Credential::IdentityToken(token) => sent.identitytoken = Some(token.expose().to_owned()),
            Credential::RegistryToken(token) => sent.registrytoken = Some(token.expose().to_owned()),
        }
        Ok((credential, sent))
    }
}

impl Store {
    /// The containerd store has its snapshotter's type where others have their driver's details (moby, `daemon/containerd`).
    async fn of(docker: &Docker) -> Self {
        let details = docker.info().await.ok().and_then(|info| info.driver_status).unwrap_or_default();
        let is_snapshotter = |value: &String| value.starts_with("io.containerd.snapshotter.");
        if details.iter().flatten().any(is_snapshotter) {
            Self::Containerd
        } else {
            Self::GraphDriver
        }
    }
}

/// The engine's version as it tells it, e.g. `20.10.24+dfsg1`.
struct Version {
    text: String,
}

impl Version {
    async fn of(docker: &Docker) -> Self {
        let version = docker.version().await.ok().and_then(|version| version.version);
        Self {
            text: version.map_or_else(|| "of an unknown version".to_owned(), |version| printable(&version)),
        }
    }

    /// In which it was seen to write layers. Others tell by the first one.
    fn dialect(&self) -> Option<Dialect> {
        match self.major() {
            20 => Some(Dialect::OF_DOCKER_20),
            28.. => Some(Dialect::OF_BUILDKIT),
            _ => None,
        }
    }

    fn major(&self) -> u32 {
        self.text.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

/// A daemon without a bridge gives its containers no network; its BuildKit has to be told.
async fn default_network(docker: &Docker) -> Option<&'static str> {
    match docker.inspect_network("bridge", None::<InspectNetworkOptions>).await {
        Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Some("none"),
        _ => None,
    }
}

/// bollard encodes credentials with the standard alphabet, the daemon reads the URL-safe one (moby, `api/types/registry`).
fn url_safe_credentials(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    for name in ["x-registry-auth", "x-registry-config"] {
        let Some(value) = request.headers_mut().get_mut(name) else {
            continue;
        };
        let safe: Vec<u8> = value
            .as_bytes()
            .iter()
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        if let Ok(safe) = safe.as_slice().try_into() {
            *value = safe;
            value.set_sensitive(true);
        }
    }
    request
}

/// What the daemon said, without the wrapping of the client.
fn said(error: BollardError) -> Error {
    match error {
        BollardError::DockerStreamError { error } => Error::msg(printable(&error)),
        BollardError::DockerResponseServerError { message, .. } => Error::msg(printable(&message)),
        other => Error::msg(printable(&dial::chain(&other))),
    }
}
