//! What a manifest says of names: enough for a consumer, who has neither its contexts nor the variables of its builds.

use std::path::Path;

use super::DEFAULT_REGISTRY;
use super::interpolate::Lookup;
use super::read::{STABLE_KEYS, TOP_KEYS};
use super::reader::{Environment, Reader, find, is_extension, read_text, shown};
use super::yaml::{self, Entry, Node, Value};
use crate::channel::Owner;
use crate::problem::{Problem, printable};
use crate::reference::{ImageName, Registry};

/// A manifest of which only what is asked for is read.
pub struct Outline<'e> {
    file: String,
    root: Node,
    lookup: Lookup<'e>,
}

impl<'e> Outline<'e> {
    /// # Errors
    /// When the file is not one YAML document.
    pub fn load(path: &Path, current: &Path, lookup: Lookup<'e>) -> Result<Self, Problem> {
        let path = current.join(path);
        let file = shown(&path, current);
        let text = read_text(&path, &file)?;
        let root = yaml::parse(&text).map_err(|error| Problem::usage(format!("{file}:{}: {}", error.line, printable(&error.message))))?;
        Ok(Self { file, root, lookup })
    }

    /// # Errors
    /// A name that no image can have.
    pub fn names(&self) -> Result<Vec<ImageName>, Problem> {
        self.images()?.map(|entry| self.name(entry)).collect()
    }

    /// # Errors
    /// When it is no list of hosts.
    pub fn insecure_registries(&self) -> Result<Vec<String>, Problem> {
        let reader = self.reader();
        find(self.top()?, "insecure_registries").map_or(Ok(Vec::new()), |node| reader.hosts(node))
    }

    /// The images that are not known to stay in the daemon.
    ///
    /// # Errors
    /// As [`Self::names`].
    pub fn published(&self) -> Result<Vec<ImageName>, Problem> {
        let reader = self.reader();
        let stays = |entry: &Entry| match &entry.node.value {
            Value::Map(keys) => find(keys, "push").is_some_and(|node| matches!(reader.boolean(node, "push"), Ok(false))),
            _ => false,
        };
        self.images()?.filter(|entry| !stays(entry)).map(|entry| self.name(entry)).collect()
    }

    /// Where the channels of `owner` live.
    ///
    /// # Errors
    /// When it is no registry.
    pub fn registry_of(&self, owner: &Owner) -> Result<Registry, Problem> {
        let reader = self.reader();
        let top = self.top()?;
        let apart = match (owner, find(top, "stable")) {
            (Owner::Stable, Some(stable)) => find(reader.map(stable, "`stable`", &[&STABLE_KEYS])?, "registry"),
            _ => None,
        };
        let registry = apart.or_else(|| find(top, "registry"));
        registry.map_or_else(|| DEFAULT_REGISTRY.parse(), |node| reader.parse(node, "registry"))
    }

    fn images(&self) -> Result<impl Iterator<Item = &Entry>, Problem> {
        let entries = find(self.top()?, "images").map_or(Ok(&[][..]), |node| match &node.value {
            Value::Map(entries) => Ok(entries),
            other => Err(self
                .reader()
                .fail(node.line, format!("`images` is {}, not a map of images", other.kind()))),
        })?;
        Ok(entries.iter().filter(|entry| !is_extension(&entry.key)))
    }

    fn name(&self, entry: &Entry) -> Result<ImageName, Problem> {
        entry.key.parse().map_err(|problem| self.reader().at(entry.line, &problem))
    }

    fn top(&self) -> Result<&[Entry], Problem> {
        self.reader().map(&self.root, "the manifest", &[&TOP_KEYS])
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            file: &self.file,
            folder: Path::new(""),
            environment: Environment {
                lookup: self.lookup,
                current: Path::new(""),
            },
        }
    }
}
