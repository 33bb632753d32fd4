//! The Docker daemon, through bollard. Nothing outside this folder names bollard.

mod build;
mod buildkit;
mod classic;
mod push;
mod utilities;

pub use build::{Built, Recipe};
pub use push::Pushed;
pub use utilities::{Addition, Busybox};

use std::io;
use std::time::Duration;

use anyhow::Error;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as BollardError;
use bollard::query_parameters::InspectNetworkOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use tracing::debug;

use crate::credentials::{Credential, Credentials};
use crate::endpoint::{Address, Endpoint};
use crate::machine;
use crate::problem::{Problem, printable};
use build::{Builder, SiblingNames};
use buildkit::BuildKit;

/// A build answers with its first header only when it has read the whole context, so there is no bound to give.
const REQUEST_TIMEOUT_SECONDS: u64 = 24 * 60 * 60;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A daemon that has answered.
pub struct Daemon {
    docker: Docker,
    credentials: Credentials,
    builder: Builder,
    engine: Engine,
    siblings: SiblingNames,
}

/// Which builder a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuilderChoice {
    /// BuildKit where the daemon has it.
    Best,
    /// The classic one, as `DOCKER_BUILDKIT=0` asks for it.
    Classic,
}

impl Daemon {
    /// # Errors
    /// When no daemon answers at `endpoint`, or it may not be used, with what to do about it.
    pub async fn connect(endpoint: &Endpoint, credentials: Credentials, choice: BuilderChoice, machine: &str) -> Result<Self, Error> {
        debug!("the daemon is {} (from {})", endpoint.address, endpoint.source);
        let docker = client(endpoint)
            .map_err(|error| unreachable(endpoint, &error))?
            .with_request_modifier(url_safe_credentials);
        let negotiated = tokio::time::timeout(CONNECT_TIMEOUT, docker.negotiate_version()).await;
        let docker = negotiated
            .map_err(|_| no_daemon(endpoint, &format!("it did not answer within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|error| unreachable(endpoint, &error))?;
        debug!("the daemon speaks API {}", docker.client_version());
        let (engine, network) = tokio::join!(Engine::of(&docker), default_network(&docker));
        let builder = match choice {
            BuilderChoice::Classic => Builder::Classic,
            BuilderChoice::Best => match BuildKit::connect(endpoint, credentials.clone(), machine, network).await {
                Ok(buildkit) => Builder::BuildKit(Box::new(buildkit)),
                Err(error) => {
                    debug!("the daemon has no BuildKit: {error:#}");
                    Builder::Classic
                }
            },
        };
        let siblings = SiblingNames::new(machine::random()[..8].to_owned());
        Ok(Self {
            docker,
            credentials,
            builder,
            engine,
            siblings,
        })
    }

    /// Whether builds go through the classic builder, which sends the whole context each time.
    #[must_use]
    pub fn builds_classically(&self) -> bool {
        matches!(self.builder, Builder::Classic)
    }

    async fn credentials(&self, host: &str) -> Result<(Credential, DockerCredentials), Problem> {
        let found = self.credentials.for_host(host).await;
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

/// The engine's version as it tells it, e.g. `20.10.24+dfsg1`.
struct Engine {
    version: String,
}

impl Engine {
    async fn of(docker: &Docker) -> Self {
        let version = docker.version().await.ok().and_then(|version| version.version);
        Self {
            version: version.map_or_else(|| "of an unknown version".to_owned(), |version| printable(&version)),
        }
    }

    fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

/// A daemon without a bridge gives its containers no network; its BuildKit has to be told.
async fn default_network(docker: &Docker) -> Option<&'static str> {
    match docker.inspect_network("bridge", None::<InspectNetworkOptions>).await {
        Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Some("none"),
        _ => None,
    }
}

fn client(endpoint: &Endpoint) -> Result<Docker, BollardError> {
    let (timeout, version) = (REQUEST_TIMEOUT_SECONDS, API_DEFAULT_VERSION);
    match (&endpoint.address, &endpoint.tls) {
        (Address::Unix(path), _) => Docker::connect_with_unix(&path.to_string_lossy(), timeout, version),
        (Address::Tcp { host, port }, None) => Docker::connect_with_http(&format!("tcp://{host}:{port}"), timeout, version),
        (Address::Tcp { host, port }, Some(tls)) => {
            Docker::connect_with_ssl(&format!("tcp://{host}:{port}"), &tls.key, &tls.cert, &tls.ca, timeout, version)
        }
        (Address::Ssh { url }, _) => Docker::connect_with_ssh(url, timeout, version, None),
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

fn unreachable(endpoint: &Endpoint, error: &BollardError) -> Problem {
    if let BollardError::SocketNotFoundError(_) = error {
        return no_daemon(endpoint, "there is no such socket");
    }
    match io_error(error).map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => Problem::failed(format!(
            "no permission to use the Docker daemon at {} ({})",
            endpoint.address, endpoint.source
        ))
        .hint("join the docker group: sudo usermod -aG docker \"$USER\", then log in again"),
        Some(io::ErrorKind::ConnectionRefused) => no_daemon(endpoint, "nothing listens there"),
        Some(io::ErrorKind::NotFound) => no_daemon(endpoint, "there is no such socket"),
        _ => no_daemon(endpoint, &chain(error)),
    }
}

fn no_daemon(endpoint: &Endpoint, why: &str) -> Problem {
    Problem::failed(format!(
        "no Docker daemon answers at {} ({}): {}",
        endpoint.address,
        endpoint.source,
        printable(why)
    ))
    .hint("start it (sudo systemctl start docker), or say where it is: DOCKER_HOST, or docker context use NAME")
}

fn io_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes: Vec<_> = std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect();
    causes.join(": ")
}

/// What the daemon said, without the wrapping of the client.
fn said(error: BollardError) -> Error {
    match error {
        BollardError::DockerStreamError { error } => Error::msg(printable(&error)),
        BollardError::DockerResponseServerError { message, .. } => Error::msg(printable(&message)),
        other => Error::msg(printable(&chain(&other))),
    }
}
