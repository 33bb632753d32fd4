//! A thin client for registries: the OCI distribution API, as far as channels need it.
//!
//! A [`Client`] keeps connections, tokens and credentials per host. [`Client::repository`] gives a [`Remote`], which
//! reads and writes one repository. Manifests travel byte for byte; what a registry says is bounded and checked.

mod answer;
mod ask;
mod auth;
mod blobs;
mod challenge;
mod content;
mod copy;
mod error;
mod host;
mod list;
mod manifests;
mod memory;
mod retry;
mod tls;
mod tokens;
mod transport;
mod uploads;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::credentials::Credentials;
use crate::docker_config::Environment;
use crate::problem::Problem;
use crate::proxy::{Proxies, is_loopback};
use crate::reference::Repository;

pub use content::{ByteStream, Content};
pub use error::{Error, Kind};
pub use list::Listing;
pub use manifests::{Deleted, Descriptor, Manifest, ManifestName};
pub use memory::Memory;
pub use uploads::{Session, Uploaded};

use host::Host;
use tls::Trust;

const PATIENCE: Duration = Duration::from_mins(1);

/// Called with the name of a host that has been silent for a second, once until it answers.
pub type OnWaiting = Arc<dyn Fn(&str) + Send + Sync>;

/// How registries are reached.
#[derive(Clone, Default)]
pub struct Options {
    /// `HOST` or `HOST:PORT` of registries whose certificate is not checked, and that may speak plain HTTP.
    pub insecure: Vec<String>,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`; without both, the system's own store.
    pub certificate_file: Option<PathBuf>,
    pub certificate_folder: Option<PathBuf>,
    /// Docker's `certs.d` folders: each may have a folder `HOST[:PORT]` with CAs (`*.crt`) and client pairs (`*.cert`, `*.key`).
    pub certs_d: Vec<PathBuf>,
    pub proxies: Proxies,
    pub on_waiting: Option<OnWaiting>,
    /// How long a registry may be silent; a minute, where nothing is said.
    pub patience: Option<Duration>,
    /// Where it is kept what registries are like; without it, each run asks them.
    pub memory: Option<Memory>,
}

impl Options {
    /// What the environment says, in the names that Docker and Go know.
    #[must_use]
    pub fn from_environment(env: &Environment<'_>, insecure: Vec<String>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let config_home = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| format!("{home}/.config")));
        let rootless = config_home.map(|home| PathBuf::from(home).join("docker/certs.d"));
        Self {
            insecure,
            certificate_file: set("SSL_CERT_FILE").map(PathBuf::from),
            certificate_folder: set("SSL_CERT_DIR").map(PathBuf::from),
            certs_d: rootless.into_iter().chain([PathBuf::from("/etc/docker/certs.d")]).collect(),
            proxies: Proxies::from_environment(env),
            on_waiting: None,
            patience: None,
            memory: None,
        }
    }
}

/// All registries; clones share connections, tokens and credentials.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    credentials: Credentials,
    surroundings: Arc<Surroundings>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What all hosts share.
struct Surroundings {
    insecure: Vec<String>,
    trust: Trust,
    proxies: Proxies,
    on_waiting: Option<OnWaiting>,
    patience: Duration,
    memory: Option<Memory>,
}

impl Surroundings {
    /// Whether the certificate of `authority` (`host[:port]`) goes unchecked, and plain HTTP is right with it.
    fn is_insecure(&self, authority: &str) -> bool {
        is_loopback(authority) || self.insecure.iter().any(|insecure| insecure.eq_ignore_ascii_case(authority))
    }
}

impl Client {
    /// # Errors
    /// When a proxy's address is none.
    pub fn new(credentials: Credentials, options: Options) -> Result<Self, Problem> {
        options.proxies.check()?;
        let surroundings = Surroundings {
            trust: Trust::new(options.certificate_file, options.certificate_folder, options.certs_d),
            insecure: options.insecure,
            proxies: options.proxies,
            on_waiting: options.on_waiting,
            patience: options.patience.unwrap_or(PATIENCE),
            memory: options.memory,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                credentials,
                surroundings: Arc::new(surroundings),
                hosts: Mutex::default(),
            }),
        })
    }

    #[must_use]
    pub fn repository(&self, repository: &Repository) -> Remote {
        Remote {
            host: self.host(repository.host()),
            repository: repository.clone(),
        }
    }

    /// Whether a registry answers at `host`, and accepts the credentials that Docker has for it.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer, `Unauthorized` when it does not accept them.
    pub async fn ping(&self, host: &str) -> Result<(), Error> {
        self.host(host).ping().await
    }

    /// Whether to read at `host` takes no credential, by what is remembered of it.
    #[must_use]
    pub fn needs_no_credential(&self, host: &str) -> bool {
        self.host(host).needs_no_credential()
    }

    /// What the fastest answer of the registry at `host` took; none where there was no answer yet.
    #[must_use]
    pub fn answers_in(&self, host: &str) -> Option<Duration> {
        self.host(host).answers_in()
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.inner.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(name.to_owned()).or_insert_with(|| {
            let (surroundings, credentials) = (Arc::clone(&self.inner.surroundings), self.inner.credentials.clone());
            Arc::new(Host::new(name, surroundings, credentials))
        });
        Arc::clone(host)
    }
}

/// The next run is to know what this one has learned, however it ends.
impl Drop for Inner {
    fn drop(&mut self) {
        let hosts = self.hosts.get_mut().unwrap_or_else(PoisonError::into_inner);
        for host in hosts.values() {
            host.remember();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// One repository of a registry; clones are cheap.
#[derive(Clone)]
pub struct Remote {
    host: Arc<Host>,
    repository: Repository,
}

impl Remote {
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    fn path(&self, rest: &str) -> String {
        format!("v2/{}/{rest}", self.repository.path())
    }

    /// What an error is about: the repository, and a thing in it.
    fn subject(&self, thing: impl fmt::Display) -> String {
        format!("{}: {thing}", self.repository)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::HELPER_TIMEOUT;
    use crate::docker_config::DockerConfig;
    use crate::reference::{Digest, Tag};

    #[test]
    fn work_can_be_given_to_other_threads() {
        fn is_send<T: Send>(_: T) {}
        let client = Client::new(Credentials::new(&DockerConfig::default(), None, HELPER_TIMEOUT), Options::default()).expect("valid");
        let remote = client.repository(&"h.test/a".parse().expect("valid"));
        let (digest, tag) = (Digest::of(b""), Tag::latest());
        is_send(client.ping("h.test"));
        is_send(client.catalog("h.test"));
        is_send(remote.tags());
        is_send(remote.copy(&remote, &Manifest::new("", ""), &[]));
        is_send(remote.put(&tag, &Manifest::new("", "")));
        is_send(remote.delete(&tag));
        is_send(remote.upload(&digest, ""));
        is_send(remote.upload_unnamed(""));
    }

    #[test]
    fn the_environment_is_read_in_either_case() {
        let env = |name: &str| match name {
            "https_proxy" => Some("http://p:1".to_owned()),
            "NO_PROXY" => Some("a".to_owned()),
            "no_proxy" => Some("b".to_owned()),
            "HOME" => Some("/h".to_owned()),
            "SSL_CERT_FILE" => Some(String::new()),
            _ => None,
        };
        let options = Options::from_environment(&env, Vec::new());
        assert_eq!(options.proxies.https, "http://p:1");
        assert_eq!(options.proxies.exceptions, "a");
        assert_eq!(options.certificate_file, None);
        assert_eq!(options.certs_d[0], PathBuf::from("/h/.config/docker/certs.d"));
    }
}
