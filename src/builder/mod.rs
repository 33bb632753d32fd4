//! What a person builds with, if not with the daemon: what `--builder`, the environment or the manifest names, resolved to addresses.
//!
//! The builder that `docker buildx use` chose is not looked at: it is chosen for `docker build` of one person, and a
//! team's images are built where the team says.

mod buildx;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::docker_config::{DockerConfig, Environment, variable};
use crate::endpoint::{self, Address, Endpoint, Source, TlsMaterial};
use crate::problem::{Problem, printable};

/// In this order, behind `--builder`.
const VARIABLES: [&str; 2] = ["LATTICE_IMAGES_BUILDER", "BUILDX_BUILDER"];
/// Where buildkitd listens by its own documentation.
const PORT: u16 = 1234;
const HINT: &str = "tcp://HOST:PORT, unix://SOCKET, docker-container://NAME, or the name of a builder that `docker buildx ls` shows; for TLS: tcp://HOST:PORT,cacert=FILE,cert=FILE,key=FILE";

/// What somebody named, not looked at yet.
#[derive(Clone, Debug)]
pub struct Named {
    pub texts: Vec<String>,
    pub origin: Origin,
    /// Which certificates' paths are relative to.
    pub folder: PathBuf,
}

#[derive(Clone, Debug)]
pub enum Origin {
    Option,
    Variable(&'static str),
    /// `file:line`
    Manifest(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option => f.write_str("--builder"),
            Self::Variable(name) => f.write_str(name),
            Self::Manifest(place) => f.write_str(place),
        }
    }
}

/// Where builds go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Daemon(Endpoint),
    /// One at least.
    BuildKits(Vec<Node>),
}

impl Choice {
    /// What Docker's configuration knows it by: the address, if there is one alone.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Daemon(endpoint) => endpoint.address.to_string(),
            Self::BuildKits(nodes) => match nodes.as_slice() {
                [node] => node.to_string(),
                _ => String::new(),
            },
        }
    }
}

/// A BuildKit apart from a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub reach: Reach,
    /// What somebody told buildx that it builds, beside what it says itself; `os/architecture[/variant]`.
    pub platforms: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It listens there.
    Listening(Endpoint),
    /// It is reached by a command in a container of this daemon.
    Container { name: String, daemon: Endpoint },
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reach {
            Reach::Listening(endpoint) => endpoint.address.fmt(f),
            Reach::Container { name, .. } => write!(f, "docker-container://{name}"),
        }
    }
}

/// The most particular of what names builders: options, then the environment, then the manifest.
#[must_use]
pub fn named(options: &[String], env: &Environment<'_>, current: &Path, manifest: Option<&Named>) -> Option<Named> {
    let given = |text: &&String| !text.trim().is_empty();
    let of = |texts: Vec<String>, origin| Named {
        texts,
        origin,
        folder: current.to_owned(),
    };
    let options: Vec<_> = options.iter().filter(given).cloned().collect();
    if !options.is_empty() {
        return Some(of(options, Origin::Option));
    }
    let set = |name| variable(env, name).filter(|value| given(&value)).map(|value| (name, value));
    let variable = VARIABLES.into_iter().find_map(set);
    variable
        .map(|(name, value)| of(vec![value], Origin::Variable(name)))
        .or_else(|| manifest.cloned())
}

/// Finds what is named. Nothing is connected to.
///
/// # Errors
/// When a name is not known, or an address, a certificate or buildx' own file cannot be right.
pub fn resolve(named: Option<&Named>, env: &Environment<'_>, config: &DockerConfig) -> Result<Choice, Problem> {
    let daemon = || daemon(env, config);
    let Some(named) = named else {
        return Ok(Choice::Daemon(daemon()?));
    };
    let resolver = Resolver {
        named,
        env,
        config,
        daemon: &daemon,
    };
    let mut choices = Vec::new();
    for text in &named.texts {
        for written in split(text)? {
            choices.push(resolver.one(&written)?);
        }
    }
    merged(named, choices)
}

/// The daemon that `docker` would talk to.
///
/// # Errors
/// When what is configured leads to none.
pub fn daemon(env: &Environment<'_>, config: &DockerConfig) -> Result<Endpoint, Problem> {
    endpoint::resolve(env, config).map_err(|error| Problem::failed(error.to_string()).hint(error.hint))
}

/// A daemon alone, or the nodes of all.
fn merged(named: &Named, mut choices: Vec<Choice>) -> Result<Choice, Problem> {
    if let [Choice::Daemon(_)] = choices.as_slice() {
        return Ok(choices.remove(0));
    }
    let mut nodes: Vec<Node> = Vec::new();
    for choice in choices {
        match choice {
            Choice::Daemon(endpoint) => {
                return Err(Problem::usage(format!(
                    "the daemon at {} ({}) cannot be one of several builders",
                    endpoint.address, named.origin
                ))
                .hint("name it alone, or name only BuildKits"));
            }
            Choice::BuildKits(more) => nodes.extend(more),
        }
    }
    let mut distinct: Vec<Node> = Vec::new();
    for node in nodes {
        if distinct.iter().all(|other| other.to_string() != node.to_string()) {
            distinct.push(node);
        }
    }
    Ok(Choice::BuildKits(distinct))
}

/// What may be told of an address, under the names of buildx' options for its remote driver.
const FIELDS: [&str; 4] = ["cacert", "cert", "key", "servername"];

/// A builder as it is written: its name or address, and the [`FIELDS`] behind it.
#[derive(Debug, Default)]
struct Written {
    name: String,
    fields: BTreeMap<String, String>,
}

/// `NAME[,FIELD=VALUE...][,NAME...]`
fn split(text: &str) -> Result<Vec<Written>, Problem> {
    let mut all: Vec<Written> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let field = part.split_once('=').filter(|(name, _)| FIELDS.contains(name));
        match (field, all.last_mut()) {
            (None, _) if !part.is_empty() => all.push(Written {
                name: part.to_owned(),
                ..Written::default()
            }),
            (Some((name, value)), Some(written)) if !value.is_empty() => {
                written.fields.insert(name.to_owned(), value.to_owned());
            }
            _ => {
                return Err(
                    Problem::usage(format!("`{}` names no builder where `{}` stands", printable(text), printable(part))).hint(HINT),
                );
            }
        }
    }
    Ok(all)
}

struct Resolver<'a> {
    named: &'a Named,
    env: &'a Environment<'a>,
    config: &'a DockerConfig,
    /// The daemon of the person.
    daemon: &'a dyn Fn() -> Result<Endpoint, Problem>,
}

impl Resolver<'_> {
    fn one(&self, written: &Written) -> Result<Choice, Problem> {
        let origin = self.named.origin.to_string();
        if written.name.contains("://") {
            let node = Node {
                reach: self.address(&written.name, &written.fields, &origin)?,
                platforms: Vec::new(),
            };
            return Ok(Choice::BuildKits(vec![node]));
        }
        if !written.fields.is_empty() {
            return Err(self.malformed(
                &written.name,
                "only an address is given certificates; buildx knows those of its builders",
            ));
        }
        self.by_name(&written.name)
    }

    fn address(&self, text: &str, fields: &BTreeMap<String, String>, source: &str) -> Result<Reach, Problem> {
        if let Some(name) = text.strip_prefix("docker-container://") {
            return Ok(Reach::Container {
                name: self.container(text, name)?,
                daemon: (self.daemon)()?,
            });
        }
        let address = endpoint::parse_address(text, PORT).map_err(|reason| self.malformed(text, &reason))?;
        let tls = match &address {
            Address::Ssh { .. } => return Err(self.malformed(text, "a BuildKit is not reached by ssh")),
            Address::Unix(path) if !path.is_absolute() => return Err(self.malformed(text, "a socket's path is absolute")),
            Address::Unix(_) if !fields.is_empty() => return Err(self.malformed(text, "a socket has no TLS")),
            Address::Unix(_) => None,
            Address::Tcp { .. } if fields.is_empty() => None,
            Address::Tcp { .. } => Some(self.tls(text, fields)?),
        };
        let source = Source::Builder(source.to_owned());
        Ok(Reach::Listening(Endpoint { address, source, tls }))
    }

    fn container(&self, text: &str, name: &str) -> Result<String, Problem> {
        let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        valid
            .then(|| name.to_owned())
            .ok_or_else(|| self.malformed(text, "that is no container's name"))
    }

    fn tls(&self, text: &str, fields: &BTreeMap<String, String>) -> Result<TlsMaterial, Problem> {
        let path = |field: &str| fields.get(field).map(|file| self.named.folder.join(file));
        let (ca, cert, key) = (path("cacert"), path("cert"), path("key"));
        if cert.is_some() != key.is_some() {
            return Err(self.malformed(text, "`cert=FILE` and `key=FILE` belong together"));
        }
        for file in [&ca, &cert, &key].into_iter().flatten() {
            File::open(file).map_err(|error| self.malformed(text, &format!("{} cannot be read: {error}", file.display())))?;
        }
        Ok(TlsMaterial {
            // without one, the system's
            ca: ca.unwrap_or_default(),
            cert: cert.unwrap_or_default(),
            key: key.unwrap_or_default(),
            verify: true,
            server_name: fields.get("servername").cloned(),
        })
    }

    fn malformed(&self, name: &str, reason: &str) -> Problem {
        Problem::usage(format!(
            "the builder `{}` ({}) cannot be used: {}",
            printable(name),
            self.named.origin,
            printable(reason)
        ))
        .hint(HINT)
    }
}
