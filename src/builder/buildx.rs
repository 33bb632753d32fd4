//! Builders that `docker buildx create` made, as its store keeps them: `buildx/instances/<name>` in Docker's folder, or
//! `instances/<name>` in `BUILDX_CONFIG` (docker/buildx, `store`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Choice, FIELDS, Node, Reach, Resolver};
use crate::docker_config::{parse, variable, without_values};
use crate::endpoint::{self, Endpoint, Source};
use crate::problem::Problem;

/// The daemon of the person, by buildx' name for it.
const DAEMON: &str = "default";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Instance {
    driver: String,
    nodes: Option<Vec<NodeJson>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NodeJson {
    name: String,
    endpoint: String,
    platforms: Option<Vec<PlatformJson>>,
    driver_opts: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PlatformJson {
    os: String,
    architecture: String,
    variant: String,
}

impl PlatformJson {
    fn name(self) -> String {
        let parts = [self.os, self.architecture, self.variant];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

impl Resolver<'_> {
    /// A builder of buildx, or the daemon of one of Docker's contexts, which are builders too.
    pub(super) fn by_name(&self, name: &str) -> Result<Choice, Problem> {
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !valid {
            return Err(self.malformed(name, "that is neither an address nor a name"));
        }
        if name == DAEMON {
            return Ok(Choice::Daemon((self.daemon)()?));
        }
        if let Some(choice) = self.instance(&name.to_ascii_lowercase())? {
            return Ok(choice);
        }
        let source = Source::Builder(self.source(name));
        endpoint::of_context(self.config, name, source)
            .map(Choice::Daemon)
            .map_err(|_| self.malformed(name, &format!("buildx has no such builder (builders: {})", self.known().join(", "))))
    }

    fn source(&self, name: &str) -> String {
        format!("builder `{name}`, {}", self.named.origin)
    }

    fn store(&self) -> Option<PathBuf> {
        let folder = variable(self.env, "BUILDX_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| Some(self.config.directory()?.join("buildx")));
        Some(folder?.join("instances"))
    }

    fn known(&self) -> Vec<String> {
        let entries = self.store().and_then(|store| fs::read_dir(store).ok());
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.push(DAEMON.to_owned());
        names.sort();
        names
    }

    fn instance(&self, name: &str) -> Result<Option<Choice>, Problem> {
        let Some(path) = self.store().map(|store| store.join(name)) else {
            return Ok(None);
        };
        let unusable = |why: &str| self.malformed(name, &format!("{} {why}", path.display()));
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&format!("cannot be read: {error}"))),
        };
        let instance: Instance = parse(&text).map_err(|error| unusable(&format!("is {}", without_values(&error))))?;
        let nodes = instance.nodes.unwrap_or_default();
        if nodes.is_empty() {
            return Err(unusable("holds no node"));
        }
        let nodes = nodes.into_iter().map(|node| self.node(name, &instance.driver, node));
        Ok(Some(Choice::BuildKits(nodes.collect::<Result<_, _>>()?)))
    }

    fn node(&self, builder: &str, driver: &str, node: NodeJson) -> Result<Node, Problem> {
        let reach = match driver {
            "remote" => {
                let options = node.driver_opts.into_iter().flatten();
                let fields = options
                    .filter(|(name, value)| FIELDS.contains(&name.as_str()) && !value.is_empty())
                    .collect();
                self.address(&node.endpoint, &fields, &self.source(builder))?
            }
            // buildx' own default
            "docker-container" | "" => Reach::Container {
                name: self.container(&node.name, &format!("buildx_buildkit_{}", node.name))?,
                daemon: self.daemon_of(builder, &node.endpoint)?,
            },
            other => {
                let why = format!("only buildx itself can use a builder of the driver `{other}`");
                return Err(self.malformed(builder, &why));
            }
        };
        Ok(Node {
            reach,
            platforms: node.platforms.into_iter().flatten().map(PlatformJson::name).collect(),
        })
    }

    /// buildx keeps a daemon by its address, or by the name of its context.
    fn daemon_of(&self, builder: &str, endpoint: &str) -> Result<Endpoint, Problem> {
        let source = Source::Builder(self.source(builder));
        if endpoint.contains("://") {
            let address = endpoint::parse_address(endpoint, 2375).map_err(|reason| self.malformed(builder, &reason))?;
            return Ok(Endpoint {
                address,
                source,
                tls: None,
            });
        }
        if endpoint.is_empty() || endpoint == DAEMON {
            return (self.daemon)();
        }
        endpoint::of_context(self.config, endpoint, source).map_err(|error| self.malformed(builder, &error.message))
    }
}
