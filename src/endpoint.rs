//! Where the Docker daemon is, and who says so.
//!
//! The order is docker/cli's `resolveContextName` (`cli/command/cli.go`): `DOCKER_HOST`, then
//! `DOCKER_CONTEXT`, then `currentContext` of `config.json`, then the default socket. The sockets
//! of rootless daemons, Docker Desktop and Colima, which are looked for where the default one does
//! not exist, are ours: Docker finds those through a context.
//!
//! Contexts lie as docker/cli's `cli/context/store` keeps them:
//! `contexts/meta/<sha256 of the name>/meta.json` and `contexts/tls/<sha256>/docker/*.pem`.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::docker_config::{DockerConfig, Environment, parse, variable, without_values};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const DEFAULT_HOST: &str = "localhost";
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

/// An address in `DOCKER_HOST`'s notation, which `Display` gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix://PATH`
    Unix(PathBuf),
    /// `tcp://HOST:PORT`
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// 2375 where none is written, 2376 with TLS: the ports that IANA gave Docker.
        port: u16,
    },
    /// `ssh://[USER@]HOST[:PORT][/SOCKET]`; what is not written is left to ssh and to `docker` over there.
    Ssh {
        /// It begins with no `-`.
        user: Option<String>,
        /// A name, one of ssh's configuration too, or an IP address, without brackets. It begins with no `-`.
        host: String,
        port: Option<u16>,
        /// The daemon's socket over there.
        socket: Option<String>,
    },
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

/// The PEM files for a TLS connection. Whether they can be read was checked when the endpoint was
/// resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMaterial {
    /// `ca.pem`: what signed the daemon's certificate, and the only CA that counts. Where it is missing, those of the
    /// system do.
    pub ca: PathBuf,
    /// `cert.pem`: what the daemon knows the client by. It may be missing, together with the key,
    /// for a daemon that does not ask.
    pub cert: PathBuf,
    /// `key.pem`: what belongs to the certificate.
    pub key: PathBuf,
    /// Whether the daemon's certificate is checked.
    pub verify: bool,
    /// Whom the certificate is to be for, where that is not the address' host.
    pub server_name: Option<String>,
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}:{port}", bracketed(host)),
            Self::Ssh { user, host, port, socket } => {
                f.write_str("ssh://")?;
                user.iter().try_for_each(|user| write!(f, "{user}@"))?;
                f.write_str(&bracketed(host))?;
                port.iter().try_for_each(|port| write!(f, ":{port}"))?;
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') {
        format!("[{host}]").into()
    } else {
        host.into()
    }
}

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
    let verification = tls_of_environment(env);
    let address =
        parse_address(host, default_port(verification.is_some())).map_err(|reason| malformed(&Source::DockerHost, host, &reason))?;
    let tls = match (&address, verification) {
        (Address::Tcp { .. }, Some(verify)) => Some(certificates(env, config, verify)?),
        _ => None,
    };
    Ok(Endpoint {
        address,
        source: Source::DockerHost,
        tls,
    })
}

fn default_endpoint(env: &Environment<'_>, config: &DockerConfig, default_socket: &Path) -> Result<Endpoint, EndpointError> {
    if let Some(verify) = tls_of_environment(env) {
        return Ok(Endpoint {
            address: Address::Tcp {
                host: DEFAULT_HOST.to_owned(),
                port: default_port(true),
            },
            source: Source::DockerTls,
            tls: Some(certificates(env, config, verify)?),
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

fn default_port(with_tls: bool) -> u16 {
    if with_tls { 2376 } else { 2375 }
}

/// Whether the environment asks for TLS, and if so whether to verify the daemon
/// (docker/cli's `cli/flags/options.go`: any value switches on, `0` too).
fn tls_of_environment(env: &Environment<'_>) -> Option<bool> {
    let verify = variable(env, "DOCKER_TLS_VERIFY").is_some();
    (verify || variable(env, "DOCKER_TLS").is_some()).then_some(verify)
}

fn certificates(env: &Environment<'_>, config: &DockerConfig, verify: bool) -> Result<TlsMaterial, EndpointError> {
    let folder = variable(env, "DOCKER_CERT_PATH")
        .map(PathBuf::from)
        .or_else(|| config.directory().map(Path::to_owned))
        .ok_or_else(|| EndpointError {
            message: "there is no folder with the certificates for TLS to the daemon".to_owned(),
            hint: "set DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem".to_owned(),
        })?;
    let hint = "DOCKER_CERT_PATH names the folder of ca.pem, cert.pem and key.pem; unset DOCKER_TLS_VERIFY and DOCKER_TLS if the daemon is reached without TLS";
    let tls = tls_material(&folder, verify, hint)?;
    if verify && !tls.ca.exists() {
        return Err(missing_certificate(&tls.ca, "there is none", hint));
    }
    Ok(tls)
}

fn tls_material(folder: &Path, verify: bool, hint: &str) -> Result<TlsMaterial, EndpointError> {
    let tls = TlsMaterial {
        ca: folder.join("ca.pem"),
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        verify,
        server_name: None,
    };
    is_there(&tls.ca, hint)?;
    match (is_there(&tls.cert, hint)?, is_there(&tls.key, hint)?) {
        (true, false) => Err(missing_certificate(&tls.key, "there is only cert.pem", hint)),
        (false, true) => Err(missing_certificate(&tls.cert, "there is only key.pem", hint)),
        (true, true) | (false, false) => Ok(tls),
    }
}

fn is_there(certificate: &Path, hint: &str) -> Result<bool, EndpointError> {
    match File::open(certificate) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(missing_certificate(certificate, &error.to_string(), hint)),
    }
}

fn missing_certificate(path: &Path, reason: &str, hint: &str) -> EndpointError {
    EndpointError {
        message: format!("TLS to the daemon needs {}, which cannot be read: {reason}", path.display()),
        hint: hint.to_owned(),
    }
}

/// `meta.json`; of its endpoints only the one called `docker` matters here.
#[derive(Default, Deserialize)]
struct ContextJson {
    #[serde(rename = "Name", alias = "name")]
    name: Option<String>,
    #[serde(rename = "Endpoints", alias = "endpoints")]
    endpoints: Option<EndpointsJson>,
}

#[derive(Default, Deserialize)]
struct EndpointsJson {
    docker: Option<EndpointJson>,
}

#[derive(Default, Deserialize)]
struct EndpointJson {
    #[serde(rename = "Host")]
    host: Option<String>,
    #[serde(rename = "SkipTLSVerify")]
    skip_tls_verify: Option<bool>,
}

/// The daemon of Docker's context of this name.
pub(crate) fn of_context(config: &DockerConfig, name: &str, source: Source) -> Result<Endpoint, EndpointError> {
    let id = format!("{:x}", Sha256::digest(name));
    let contexts = config.directory().map(|d| d.join("contexts"));
    let contexts = contexts.ok_or_else(|| unknown_context(&source, &[]))?;
    let meta = contexts.join("meta").join(&id).join("meta.json");
    let text = match fs::read(&meta) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(unknown_context(&source, &known_contexts(&contexts)));
        }
        Err(error) => return Err(broken_context(&source, &meta.display(), &error.to_string())),
    };
    let context: ContextJson = parse(&text).map_err(|error| {
        let place = format!("{}:{}", meta.display(), error.line());
        broken_context(&source, &place, &without_values(&error))
    })?;
    let Some(docker) = context.endpoints.and_then(|endpoints| endpoints.docker) else {
        return Err(broken_context(&source, &meta.display(), "no endpoint `docker`"));
    };
    let certificates = contexts.join("tls").join(&id).join("docker");
    endpoint_from_meta(&docker, source, &certificates)
}

fn endpoint_from_meta(docker: &EndpointJson, source: Source, certificates: &Path) -> Result<Endpoint, EndpointError> {
    let verify = !docker.skip_tls_verify.unwrap_or_default();
    let with_tls = certificates.is_dir() || !verify;
    let host = match docker.host.as_deref() {
        None | Some("") => "unix://",
        Some(host) => host,
    };
    let address = parse_address(host, default_port(with_tls)).map_err(|reason| malformed(&source, host, &reason))?;
    let tls = if with_tls && matches!(address, Address::Tcp { .. }) {
        let hint = "make the context anew: `docker context rm`, then `docker context create`";
        Some(tls_material(certificates, verify, hint)?)
    } else {
        None
    };
    Ok(Endpoint { address, source, tls })
}

/// The names of all contexts that can be read, `default` among them, sorted.
fn known_contexts(contexts: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(contexts.join("meta"))
        .into_iter()
        .flatten()
        .filter_map(|folder| {
            let text = fs::read(folder.ok()?.path().join("meta.json")).ok()?;
            parse::<ContextJson>(&text).ok()?.name
        })
        .collect();
    names.push(DEFAULT_CONTEXT.to_owned());
    names.sort();
    names
}

fn unknown_context(source: &Source, known: &[String]) -> EndpointError {
    let mut message = format!("{source} does not exist");
    if !known.is_empty() {
        message = format!("{message} (contexts: {})", known.join(", "));
    }
    EndpointError {
        message,
        hint: other_context(source),
    }
}

fn broken_context(source: &Source, place: &dyn fmt::Display, reason: &str) -> EndpointError {
    EndpointError {
        message: format!("{source} cannot be used, {place}: {reason}"),
        hint: other_context(source),
    }
}

fn other_context(source: &Source) -> String {
    match source {
        Source::CurrentContext(_) => "`docker context ls` lists the contexts, `docker context use NAME` chooses one",
        _ => "`docker context ls` lists the contexts; unset DOCKER_CONTEXT to use the current one",
    }
    .to_owned()
}

fn malformed(source: &Source, host: &str, reason: &str) -> EndpointError {
    let host = without_userinfo(host).replace(char::is_control, " ");
    EndpointError {
        message: format!("`{host}` from {source} is no address of a daemon: {reason}"),
        hint: ADDRESSES.to_owned(),
    }
}

/// An address that is refused may have been refused for the password in it.
fn without_userinfo(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://...@{host}")
        }
        None => address.to_owned(),
    }
}

/// Reads an address as docker/cli's `opts/hosts.go` does, except that a path behind `tcp://` and a
/// port above 65535 are refused.
pub(crate) fn parse_address(text: &str, default_port: u16) -> Result<Address, String> {
    if text.contains(|c: char| c.is_control()) {
        return Err("it has a control character".to_owned());
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    if rest.contains("://") {
        return Err("it has two schemes".to_owned());
    }
    match scheme {
        "unix" if rest.is_empty() => Ok(Address::Unix(DEFAULT_SOCKET.into())),
        "unix" => Ok(Address::Unix(rest.into())),
        "tcp" if text.starts_with('/') => Err(format!("a socket is written unix://{text}")),
        "tcp" => parse_tcp(rest, default_port),
        "ssh" => parse_ssh(rest),
        "fd" => Err("only a daemon can listen there".to_owned()),
        "npipe" => Err("named pipes are of Windows".to_owned()),
        scheme => Err(format!("`{scheme}` is none of unix, tcp and ssh")),
    }
}

fn parse_tcp(rest: &str, default_port: u16) -> Result<Address, String> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("behind tcp:// come a host and a port, nothing else".to_owned());
    }
    let (host, port) = split_host_port(authority)?;
    Ok(Address::Tcp {
        host: if host.is_empty() { DEFAULT_HOST } else { host }.to_owned(),
        port: port.unwrap_or(default_port),
    })
}

fn parse_ssh(rest: &str) -> Result<Address, String> {
    if rest.contains(['?', '#']) {
        return Err("ssh:// takes no query and no fragment".to_owned());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err("ssh:// takes no password".to_owned());
    }
    let (host, port) = split_host_port(host_port)?;
    if host.is_empty() {
        return Err("there is no host".to_owned());
    }
    // ssh would take it for an option
    if user.starts_with('-') || host.starts_with('-') {
        return Err("neither user nor host can begin with `-`".to_owned());
    }
    let written = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Address::Ssh {
        user: written(user),
        host: host.to_owned(),
        port,
        socket: written(path.trim_end_matches('/')),
    })
}

fn split_host_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed
            .split_once(']')
            .filter(|(host, _)| host.contains(':'))
            .ok_or("an IPv6 address is written [::1]")?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let in_host = |c: char| c.is_alphanumeric() || ".-_:%".contains(c);
    if let Some(stranger) = host.chars().find(|c| !in_host(*c)) {
        return Err(format!("a host has no `{stranger}`"));
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        Some(port) if port.contains(':') => Err("an IPv6 address is written [::1]".to_owned()),
        Some(number) => match number.parse() {
            Ok(number) => Ok((host, Some(number))),
            Err(_) => Err(format!("`{number}` is no port")),
        },
        None => Err(format!("`{port}` is no port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::net::UnixListener;
    use tempfile::TempDir;

    /// A home folder with Docker's configuration, and the environment.
    struct Machine {
        home: TempDir,
        variables: Vec<(String, String)>,
    }

    impl Machine {
        fn new(variables: &[(&str, &str)]) -> Self {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            Self {
                home: TempDir::new().expect("a folder"),
                variables: variables.iter().map(owned).collect(),
            }
        }

        fn path(&self, below: &str) -> PathBuf {
            self.home.path().join(below)
        }

        fn with_file(self, below: &str, text: &str) -> Self {
            let path = self.path(below);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
            self
        }

        fn with_socket(self, below: &str) -> Self {
            let path = self.path(below);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            UnixListener::bind(path).expect("a socket");
            self
        }

        fn with_context(self, name: &str, docker: &str) -> Self {
            let id = format!("{:x}", Sha256::digest(name));
            let meta = format!(r#"{{"Name":"{name}","Metadata":{{"Description":""}},"Endpoints":{{"docker":{docker}}}}}"#);
            self.with_file(&format!(".docker/contexts/meta/{id}/meta.json"), &meta)
        }

        fn with_tls_file(self, context: &str, file: &str) -> Self {
            let id = format!("{:x}", Sha256::digest(context));
            self.with_file(&format!(".docker/contexts/tls/{id}/docker/{file}"), "PEM")
        }

        fn resolve(&self) -> Result<Endpoint, EndpointError> {
            let env = |name: &str| match name {
                "HOME" => self.home.path().to_str().map(str::to_owned),
                name => {
                    let found = self.variables.iter().find(|(key, _)| key == name);
                    found.map(|(_, value)| value.replace('~', &self.path("").to_string_lossy()))
                }
            };
            let config = DockerConfig::load(&env).expect("a valid config.json");
            resolve_with(&env, &config, &self.path("default.sock"))
        }

        fn found(&self) -> String {
            let endpoint = self.resolve().expect("an endpoint");
            let address = endpoint.address.to_string();
            let home = self.path("");
            format!("{} from {}", address.replace(&*home.to_string_lossy(), "~/"), endpoint.source)
        }

        fn error(&self) -> EndpointError {
            self.resolve().expect_err("no endpoint")
        }
    }

    const COLIMA: &str = r#"{"Host":"unix:///colima.sock","SkipTLSVerify":false}"#;
    const USES_COLIMA: &str = r#"{"currentContext":"colima"}"#;

    #[test]
    fn the_order_is_dockers() {
        let machine = |variables: &[(&str, &str)]| {
            Machine::new(variables)
                .with_file(".docker/config.json", USES_COLIMA)
                .with_context("colima", COLIMA)
                .with_context("other", r#"{"Host":"ssh://me@build"}"#)
                .found()
        };
        assert_eq!(
            machine(&[("DOCKER_HOST", "tcp://h:1"), ("DOCKER_CONTEXT", "other")]),
            "tcp://h:1 from DOCKER_HOST"
        );
        assert_eq!(
            machine(&[("DOCKER_HOST", ""), ("DOCKER_CONTEXT", "other")]),
            "ssh://me@build from context `other` (DOCKER_CONTEXT)"
        );
        assert_eq!(
            machine(&[("DOCKER_CONTEXT", "")]),
            "unix:///colima.sock from context `colima` (docker context use)"
        );
        assert_eq!(machine(&[("DOCKER_CONTEXT", "default")]), "unix://~/default.sock from the default");
        assert_eq!(machine(&[("DOCKER_HOST", " ")]), "unix://~/default.sock from the default");
        assert_eq!(Machine::new(&[]).found(), "unix://~/default.sock from the default");
    }

    #[test]
    fn the_default_is_the_socket_that_docker_has_compiled_in() {
        let endpoint = resolve(&|_| None, &DockerConfig::default()).expect("an endpoint");
        assert_eq!(endpoint.address, Address::Unix("/var/run/docker.sock".into()));
    }

    #[test]
    fn other_sockets_count_where_the_default_one_does_not_exist() {
        let mut machine = Machine::new(&[("XDG_RUNTIME_DIR", "~run")]);
        for (socket, source) in [
            (".colima/default/docker.sock", "Colima's socket"),
            (".docker/desktop/docker.sock", "Docker Desktop's socket"),
            (".docker/run/docker.sock", "Docker Desktop's socket"),
            ("run/docker.sock", "the rootless daemon's socket"),
            ("default.sock", "the default"),
        ] {
            machine = machine.with_socket(socket);
            assert_eq!(machine.found(), format!("unix://~/{socket} from {source}"));
        }
        let machine = Machine::new(&[]).with_file(".colima/default/docker.sock", "no socket");
        assert_eq!(machine.found(), "unix://~/default.sock from the default");
    }

    #[test]
    fn an_unknown_context_is_told_with_the_known_ones() {
        let machine = Machine::new(&[("DOCKER_CONTEXT", "nope")])
            .with_context("colima", COLIMA)
            .with_context("build", COLIMA)
            .with_file(".docker/contexts/meta/junk/meta.json", "{");
        let error = machine.error();
        assert_eq!(
            error.message,
            "context `nope` (DOCKER_CONTEXT) does not exist (contexts: build, colima, default)"
        );
        assert!(error.hint.contains("unset DOCKER_CONTEXT"));
        let machine = Machine::new(&[]).with_file(".docker/config.json", USES_COLIMA);
        let error = machine.error();
        assert_eq!(
            error.to_string(),
            "context `colima` (docker context use) does not exist (contexts: default)"
        );
        assert!(error.hint.contains("`docker context use NAME`"));
    }

    #[test]
    fn a_context_lies_where_docker_puts_it() {
        // `docker context create mine` of docker 28.5 made this folder
        let id = "3fd30542fe3f61b14bd4a4b2dc0b6fb30fa6f63ebce52dd1778aaa8c4dc02cff";
        let meta = r#"{"Name":"mine","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1","SkipTLSVerify":false}}}"#;
        let machine = Machine::new(&[("DOCKER_CONTEXT", "mine")]).with_file(&format!(".docker/contexts/meta/{id}/meta.json"), meta);
        assert_eq!(machine.found(), "tcp://127.0.0.1:1 from context `mine` (DOCKER_CONTEXT)");
    }

    #[test]
    fn a_broken_context_is_named_with_its_line() {
        let id = format!("{:x}", Sha256::digest("c"));
        let broken = |text: &str| {
            Machine::new(&[("DOCKER_CONTEXT", "c")])
                .with_file(&format!(".docker/contexts/meta/{id}/meta.json"), text)
                .error()
                .message
        };
        let message = broken("{\n\"Name\" \"c\"}");
        assert!(message.starts_with("context `c` (DOCKER_CONTEXT) cannot be used, /"), "{message}");
        assert!(message.contains("meta.json:2: not JSON"), "{message}");
        for text in ["", "{}", r#"{"Name":"c","Endpoints":{"kubernetes":{"Host":1}}}"#] {
            assert!(broken(text).ends_with("meta.json: no endpoint `docker`"), "{text}");
        }
    }

    #[test]
    fn a_context_without_a_host_means_the_default_socket() {
        let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", "{}");
        let endpoint = machine.resolve().expect("an endpoint");
        assert_eq!(endpoint.address, Address::Unix(DEFAULT_SOCKET.into()));
    }

    #[test]
    fn a_context_brings_its_certificates() {
        let docker = r#"{"Host":"tcp://h","SkipTLSVerify":false}"#;
        let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", docker);
        let endpoint = machine.resolve().expect("plain");
        assert_eq!((endpoint.address.to_string(), endpoint.tls), ("tcp://h:2375".into(), None));

        let machine = ["ca.pem", "cert.pem", "key.pem"]
            .into_iter()
            .fold(machine, |machine, file| machine.with_tls_file("c", file));
        let endpoint = machine.resolve().expect("TLS");
        assert_eq!(endpoint.address.to_string(), "tcp://h:2376");
        let id = format!("{:x}", Sha256::digest("c"));
        let file = |name| machine.path(&format!(".docker/contexts/tls/{id}/docker/{name}"));
        let material = TlsMaterial {
            ca: file("ca.pem"),
            cert: file("cert.pem"),
            key: file("key.pem"),
            verify: true,
            server_name: None,
        };
        assert_eq!(endpoint.tls, Some(material));
    }

    #[test]
    fn a_context_may_have_no_ca_of_its_own() {
        let skips = r#"{"Host":"tcp://h","SkipTLSVerify":true}"#;
        let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", skips);
        let tls = machine.resolve().expect("TLS").tls;
        assert!(tls.is_some_and(|tls| !tls.verify && !tls.ca.exists()));
        let verifies = r#"{"Host":"tcp://h"}"#;
        let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", verifies);
        let machine = machine.with_tls_file("c", "key.pem");
        let error = machine.error();
        assert!(
            error.message.contains("docker/cert.pem, which cannot be read: there is only key"),
            "{error}"
        );
        assert!(error.hint.contains("docker context create"));
        let tls = machine.with_tls_file("c", "cert.pem").resolve().expect("TLS").tls;
        assert!(tls.is_some_and(|tls| tls.verify && !tls.ca.exists()));
    }

    #[test]
    fn the_variables_for_tls_count_for_tcp_only() {
        let with = |variables: &[(&str, &str)]| {
            Machine::new(variables)
                .with_file(".docker/ca.pem", "PEM")
                .with_file("certs/ca.pem", "PEM")
                .with_file("certs/cert.pem", "PEM")
                .with_file("certs/key.pem", "PEM")
        };
        let host = ("DOCKER_HOST", "tcp://h");
        let machine = with(&[host, ("DOCKER_TLS_VERIFY", "1")]);
        let endpoint = machine.resolve().expect("TLS");
        assert_eq!(endpoint.address.to_string(), "tcp://h:2376");
        let tls = endpoint.tls.expect("TLS");
        assert_eq!(tls.ca, machine.path(".docker/ca.pem"));
        assert!(tls.verify && !tls.cert.exists());

        let machine = with(&[host, ("DOCKER_TLS", "1"), ("DOCKER_CERT_PATH", "~certs")]);
        let tls = machine.resolve().expect("TLS").tls.expect("TLS");
        assert_eq!(tls.key, machine.path("certs/key.pem"));
        assert!(!tls.verify);

        let verify = ("DOCKER_TLS_VERIFY", "1");
        for host in ["unix:///s", "ssh://h"] {
            let endpoint = with(&[("DOCKER_HOST", host), verify]).resolve();
            assert_eq!(endpoint.expect("an endpoint").tls, None);
        }
        let plain = with(&[host, ("DOCKER_TLS_VERIFY", "")]).resolve().expect("plain");
        assert_eq!((plain.address.to_string(), plain.tls), ("tcp://h:2375".into(), None));
        assert_eq!(
            with(&[verify]).found(),
            "tcp://localhost:2376 from the default with DOCKER_TLS_VERIFY"
        );
    }

    #[test]
    fn missing_certificates_are_named() {
        let error = |machine: Machine| machine.error().message;
        let variables = [("DOCKER_HOST", "tcp://h"), ("DOCKER_TLS_VERIFY", "1")];
        let message = error(Machine::new(&variables));
        assert!(message.contains(".docker/ca.pem, which cannot be read: there is none"), "{message}");
        let machine = Machine::new(&variables).with_file(".docker/ca.pem", "PEM");
        let message = error(machine.with_file(".docker/cert.pem", "PEM"));
        assert!(
            message.contains(".docker/key.pem, which cannot be read: there is only cert.pem"),
            "{message}"
        );
        let env = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let error = resolve(&env, &DockerConfig::default()).expect_err("no folder");
        assert!(error.hint.contains("DOCKER_CERT_PATH"));
    }

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        for (text, address) in [
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://:7777", "tcp://localhost:7777"),
            ("tcp://host:", "tcp://host:2375"),
            ("tcp://0.0.0.0:8080", "tcp://0.0.0.0:8080"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:", "tcp://[::1]:2375"),
            ("tcp://[fe80::1%eth0]:1", "tcp://[fe80::1%eth0]:1"),
            ("tcp://host:1/", "tcp://host:1"),
            ("localhost:5555", "tcp://localhost:5555"),
            (":6666", "tcp://localhost:6666"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("unix:///run/a b.sock", "unix:///run/a b.sock"),
            ("unix://path/to/socket", "unix://path/to/socket"),
            ("ssh://host", "ssh://host"),
            ("ssh://host/", "ssh://host"),
            ("ssh://@[::1]:", "ssh://[::1]"),
            ("ssh://me@host:22/run/docker.sock", "ssh://me@host:22/run/docker.sock"),
        ] {
            let parsed = parse_address(text, 2375).map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), Ok(address), "{text}");
        }
    }

    #[test]
    fn a_malformed_host_is_told_with_what_is_wrong() {
        for (host, reason) in [
            ("something with spaces", "a host has no ` `"),
            ("unknown://", "`unknown` is none of unix, tcp and ssh"),
            ("https://h", "`https` is none of unix, tcp and ssh"),
            ("://", "`` is none of unix, tcp and ssh"),
            ("tcp://:port", "`port` is no port"),
            ("tcp://h:1234567890", "`1234567890` is no port"),
            ("tcp://h/path", "a host and a port, nothing else"),
            ("tcp://::1", "an IPv6 address is written [::1]"),
            ("tcp://[::1", "an IPv6 address is written [::1]"),
            ("tcp://[::1]x", "`x` is no port"),
            ("tcp://unix:///s", "it has two schemes"),
            ("/var/run/docker.sock", "a socket is written unix:///var/run/docker.sock"),
            ("fd://x", "only a daemon can listen there"),
            ("npipe:////./pipe/docker", "named pipes are of Windows"),
            ("ssh://", "there is no host"),
            ("ssh://h?q", "ssh:// takes no query and no fragment"),
            ("ssh://-oProxyCommand=x", "a host has no `=`"),
            ("ssh://-h", "can begin with `-`"),
            ("tcp://h\n:1", "it has a control character"),
        ] {
            let error = Machine::new(&[("DOCKER_HOST", host)]).error();
            let host = host.replace('\n', " ");
            let start = format!("`{host}` from DOCKER_HOST is no address of a daemon: ");
            assert!(error.message.starts_with(&start), "{error}");
            assert!(error.message.ends_with(reason), "{error}");
            assert!(error.hint.contains("unix:///var/run/docker.sock"));
        }
        let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", r#"{"Host":"x://y"}"#);
        assert!(machine.error().message.starts_with("`x://y` from context `c` (DOCKER_CONTEXT) is"));
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        for host in [
            "ssh://-hunter2@h",
            "ssh://me:hunter2@h",
            "tcp://me:hunter2@h:1",
            "me:hunter2@h",
            "x://hunter2@h@i",
        ] {
            let error = Machine::new(&[("DOCKER_HOST", host)]).error();
            assert!(!format!("{error:?}").contains("hunter2"), "{error}");
            assert!(error.message.contains("://...@"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_an_address_displays_reads_as_the_same_address(text in "(unix://|tcp://|ssh://)?[a-z0-9.:/@\\[\\]-]{0,20}") {
            if let Ok(address) = parse_address(&text, 2375) {
                prop_assert_eq!(parse_address(&address.to_string(), 2376), Ok(address));
            }
        }
    }
}
