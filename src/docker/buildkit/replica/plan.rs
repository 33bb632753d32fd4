//! What a build is about to make, before anything of it is made.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Error, ensure};
use futures_util::future::try_join_all;
use prost::bytes::Bytes;

use super::config::Config;
use super::inventory::Inventory;
use super::lay::{Laid, lay};
use super::tree::{self, Entry, MOST_ENTRIES, NOW, Sent, Tree, What};
use super::{OwnLayer, Replica};
use crate::docker::buildkit::folder::Folder;
use crate::docker::buildkit::gateway::{Bridge, One};
use crate::docker::buildkit::llb::{self, Below, Step};

/// The builder is asked for one after the other by some versions.
const MOST_FOLDERS: usize = 100;

/// What a build is about to make.
pub(in crate::docker::buildkit) struct Plan {
    below: Option<Arc<Replica>>,
    /// By the vertexes that make them, the lowest first.
    layers: Vec<(String, Tree)>,
    /// What the builder calls these vertexes.
    names: Vec<String>,
    /// Of what is below.
    inventory: Inventory,
    /// Whether it tells all that a builder would make of it, but for the times of folders.
    pub(in crate::docker::buildkit) is_sure: bool,
    config: Config,
}

impl Plan {
    /// It may stand on one of `siblings`. `None` where anything but copied files makes the image. Blocks.
    pub(in crate::docker::buildkit) fn of(made: &One, folders: &HashMap<String, Arc<Folder>>, siblings: &[Arc<Replica>]) -> Option<Self> {
        let sibling = |vertex: &str| siblings.iter().find(|sibling| sibling.vertex.as_deref() == Some(vertex));
        let (base, layers) = llb::copied_layers(&made.definition, |vertex| sibling(vertex).is_some())?;
        let below = match &base {
            Below::Known(vertex) => sibling(vertex).cloned(),
            Below::Image | Below::Nothing => None,
        };
        let mut sent = BTreeMap::new();
        for step in layers.iter().flat_map(|layer| &layer.steps) {
            if let Step::Copy(copy) = step
                && !sent.contains_key(copy.folder.as_str())
            {
                sent.insert(copy.folder.as_str(), Sent::new(folders.get(&copy.folder)?)?);
            }
        }
        let of_elsewhere = || Inventory::new(base == Below::Nothing);
        let inventory = below.as_ref().map_or_else(of_elsewhere, |below| below.inventory.clone());
        let mut known = inventory.clone();
        let (mut laid, mut newest, mut entries) = (Vec::new(), 0, 0);
        let mut is_sure = inventory.is_whole();
        for layer in &layers {
            let Laid { tree, is_sure: is_known } = lay(&layer.steps, &sent, &known)?;
            is_sure &= is_known;
            entries += tree.len();
            if entries > MOST_ENTRIES {
                return None;
            }
            newest = newest_in(&tree, newest);
            known.add(&tree);
            laid.push((layer.vertex.clone(), tree));
        }
        Some(Self {
            below,
            inventory,
            is_sure,
            layers: laid,
            names: layers.into_iter().map(|layer| layer.name).collect(),
            config: Config::of(&made.config, newest)?,
        })
    }

    /// What a builder leaves unmade. Folders that it would make at this moment are as old as the newest file up to their layer:
    /// what comes above it does not change a layer.
    pub(in crate::docker::buildkit) fn made(mut self, cache: Option<&Path>) -> Replica {
        let mut newest = self.newest_below();
        for (_, tree) in &mut self.layers {
            newest = newest_in(tree, newest);
            for entry in tree.values_mut().filter(|entry| entry.mtime == NOW) {
                entry.mtime = newest;
            }
        }
        let left = std::mem::take(&mut self.names);
        Replica {
            left,
            ..self.replica(cache)
        }
    }

    /// The configuration that the exporter is to be given.
    pub(in crate::docker::buildkit) fn config(&self) -> Option<Bytes> {
        self.config.bytes()
    }

    /// Asks the builder for what it knows alone, and compares `what` with what it has.
    ///
    /// # Errors
    /// When something is there that is not expected, or there is too much to be asked for.
    pub(in crate::docker::buildkit) async fn looked_up(
        mut self,
        what: Compared,
        bridge: &Bridge,
        made: &One,
        cache: Option<PathBuf>,
    ) -> Result<Replica, Error> {
        let top = self.layers.len().saturating_sub(1);
        let mut layers: Vec<_> = self
            .layers
            .iter_mut()
            .map(|(vertex, tree)| (vertex, by_folder(tree, what)))
            .collect();
        let folders: usize = layers.iter().map(|(_, folders)| folders.len()).sum();
        ensure!(folders <= MOST_FOLDERS, "it has {folders} folders");
        try_join_all(layers.iter_mut().enumerate().map(async |(at, (vertex, folders))| {
            if folders.is_empty() {
                return Ok::<_, Error>(());
            }
            let result = if at == top {
                made.result.clone()
            } else {
                bridge.clone().step(llb::up_to(vertex, &made.definition)?).await?
            };
            try_join_all(folders.iter_mut().map(async |(folder, entries)| {
                let path = format!("/{}", tree::shown(folder));
                let listed = bridge.clone().list(&result, path.clone(), "").await?;
                tree::take(entries.iter_mut().map(|(path, entry)| (*path, &mut **entry)), &listed)
                    .with_context(|| format!("{path} holds something else"))
            }))
            .await?;
            Ok(())
        }))
        .await?;
        Ok(self.replica(cache.as_deref()))
    }

    fn newest_below(&self) -> i64 {
        self.below.as_ref().map_or(0, |below| below.newest)
    }

    fn replica(self, cache: Option<&Path>) -> Replica {
        let newest = self
            .layers
            .iter()
            .fold(self.newest_below(), |newest, (_, tree)| newest_in(tree, newest));
        let vertex = match self.layers.last() {
            Some((vertex, _)) => Some(vertex.clone()),
            None => self.below.as_ref().and_then(|below| below.vertex.clone()),
        };
        let mut inventory = self.inventory;
        let layers = self.layers.into_iter().map(|(_, tree)| {
            inventory.add(&tree);
            OwnLayer::of(tree, cache)
        });
        Replica {
            below: self.below,
            vertex,
            layers: layers.collect(),
            left: Vec::new(),
            newest,
            inventory,
            config: self.config,
            is_claimed: AtomicBool::new(false),
            progress: Arc::default(),
        }
    }
}

/// The time of the newest file, or that one.
fn newest_in(tree: &Tree, or: i64) -> i64 {
    let files = tree.values().filter(|entry| !matches!(entry.what, What::Folder));
    files.map(|entry| entry.mtime).fold(or, i64::max)
}

/// What is compared with what a builder has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::docker::buildkit) enum Compared {
    /// Digests are going to tell of the rest.
    Folders,
    All,
    /// All, and nothing of what a builder may leave unmade ([`Plan::is_sure`]).
    Unsure,
}

type Entries<'t> = Vec<(&'t String, &'t mut Entry)>;

/// The entries by the folders that they are in, as far as these have to be listed.
fn by_folder(tree: &mut Tree, what: Compared) -> BTreeMap<String, Entries<'_>> {
    let mut folders: BTreeMap<String, Entries<'_>> = BTreeMap::new();
    for (path, entry) in tree {
        folders.entry(tree::folder_of(path).to_owned()).or_default().push((path, entry));
    }
    let has_folders = |entries: &Entries<'_>| entries.iter().any(|(_, entry)| matches!(entry.what, What::Folder));
    folders.retain(|_, entries| what != Compared::Folders || has_folders(entries));
    folders
}
