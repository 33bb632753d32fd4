//! Where the Docker daemon is, and who says so.
//!
//! The order is docker/cli's `resolveContextName` (`cli/command/cli.go`): `DOCKER_HOST`, then
//! `DOCKER_CONTEXT`, then `currentContext` of `config.json`, then the default socket. The sockets
//! of rootless daemons, Docker Desktop and Colima, which are looked for where the default one does
//! not exist, are ours: Docker finds those through a context.

mod address;
mod context;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

pub use address::Address;
pub(crate) use address::parse_address;
use address::{DEFAULT_HOST, DEFAULT_SOCKET, default_port, without_userinfo};
pub(crate) use context::of_context;
pub use tls::TlsMaterial;

use crate::docker_config::{DockerConfig, Environment, variable};

const DEFAULT_CONTEXT: &str = "default";
const ADDRESSES: &str = "addresses are unix:///var/run/docker.sock, tcp://host:2375 or ssh://user@host";

/// A daemon's address, with what it takes to trust it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect to.
    pub address: Address,
    /// What made it this address.
    pub source: Source,
    /// For [`Address::Tcp`] only; without it the connection is plain.
    pub tls: Option<TlsMaterial>,
}

/// What decided on the address. `Display` fits after "from".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The variable.
    DockerHost,
    /// The context of this name, by the variable.
    DockerContext(String),
    /// The context of this name, by `currentContext` of `config.json`.
    CurrentContext(String),
    /// `DOCKER_TLS_VERIFY` or `DOCKER_TLS`, with which Docker's default is TLS on this machine.
    DockerTls,
    /// Nothing is configured.
    Default,
    /// `$XDG_RUNTIME_DIR/docker.sock`, in the default's absence.
    Rootless,
    /// One of Docker Desktop's in `~/.docker`, in the default's absence.
    DockerDesktop,
    /// Colima's of its default profile, in the default's absence.
    Colima,
    /// It is a builder: who named it, e.g. `--builder` or a line of the manifest.
    Builder(String),
}

/// What is configured leads to no daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointError {
    /// The fact and, where there are some, the choices.
    pub message: String,
    /// What the person can do about it.
    pub hint: String,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EndpointError {}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DockerHost => f.write_str("DOCKER_HOST"),
            Self::DockerContext(name) => write!(f, "context `{name}` (DOCKER_CONTEXT)"),
            Self::CurrentContext(name) => write!(f, "context `{name}` (docker context use)"),
            Self::DockerTls => f.write_str("the default with DOCKER_TLS_VERIFY"),
            Self::Default => f.write_str("the default"),
            Self::Rootless => f.write_str("the rootless daemon's socket"),
            Self::DockerDesktop => f.write_str("Docker Desktop's socket"),
            Self::Colima => f.write_str("Colima's socket"),
            Self::Builder(named) => f.write_str(named),
        }
    }
}

/// Finds the daemon that `docker` would talk to. Nothing is connected to.
///
/// # Errors
/// When `DOCKER_HOST` is no address, the context is unknown or broken, or a certificate is missing.
pub fn resolve(env: &Environment<'_>, config: &DockerConfig) -> Result<Endpoint, EndpointError> {
    resolve_with(env, config, Path::new(DEFAULT_SOCKET))
}

fn resolve_with(env: &Environment<'_>, config: &DockerConfig, default_socket: &Path) -> Result<Endpoint, EndpointError> {
    if let Some(host) = variable(env, "DOCKER_HOST") {
        return match host.trim() {
            "" => default_endpoint(env, config, default_socket),
            host => endpoint_of_variable(env, config, host),
        };
    }
    let chosen = variable(env, "DOCKER_CONTEXT")
        .map(|name| (name.clone(), Source::DockerContext(name)))
        .or_else(|| {
            let name = config.current_context.clone()?;
            Some((name.clone(), Source::CurrentContext(name)))
        });
    match chosen {
        Some((name, source)) if name != DEFAULT_CONTEXT => of_context(config, &name, source),
        _ => default_endpoint(env, config, default_socket),
    }
}

fn endpoint_of_variable(env: &Environment<'_>, config: &DockerConfig, host: &str) -> Result<Endpoint, EndpointError> {
    let verification = tls::of_environment(env);
    let address =
        parse_address(host, default_port(verification.is_some())).map_err(|reason| malformed(&Source::DockerHost, host, &reason))?;
    let tls = match (&address, verification) {
        (Address::Tcp { .. }, Some(verify)) => Some(tls::of_folder(env, config, verify)?),
        _ => None,
    };
    Ok(Endpoint {
        address,
        source: Source::DockerHost,
        tls,
    })
}

fn default_endpoint(env: &Environment<'_>, config: &DockerConfig, default_socket: &Path) -> Result<Endpoint, EndpointError> {
    if let Some(verify) = tls::of_environment(env) {
        return Ok(Endpoint {
            address: Address::Tcp {
                host: DEFAULT_HOST.to_owned(),
                port: default_port(true),
            },
            source: Source::DockerTls,
            tls: Some(tls::of_folder(env, config, verify)?),
        });
    }
    let (socket, source) =
        if is_absent(default_socket) { other_socket(env) } else { None }.unwrap_or_else(|| (default_socket.to_owned(), Source::Default));
    Ok(Endpoint {
        address: Address::Unix(socket),
        source,
        tls: None,
    })
}

/// The first socket that exists of those that other ways to install Docker make.
fn other_socket(env: &Environment<'_>) -> Option<(PathBuf, Source)> {
    let below = |name, path| variable(env, name).map(|folder| Path::new(&folder).join(path));
    [
        (below("XDG_RUNTIME_DIR", "docker.sock"), Source::Rootless),
        (below("HOME", ".docker/run/docker.sock"), Source::DockerDesktop),
        (below("HOME", ".docker/desktop/docker.sock"), Source::DockerDesktop),
        (below("HOME", ".colima/default/docker.sock"), Source::Colima),
    ]
    .into_iter()
    .filter_map(|(socket, source)| Some((socket?, source)))
    .find(|(socket, _)| is_socket(socket))
}

fn is_absent(path: &Path) -> bool {
    // a socket in a folder that may not be entered exists for all we know
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn malformed(source: &Source, host: &str, reason: &str) -> EndpointError {
    let host = without_userinfo(host).replace(char::is_control, " ");
    EndpointError {
        message: format!("`{host}` from {source} is no address of a daemon: {reason}"),
        hint: ADDRESSES.to_owned(),
    }
}
