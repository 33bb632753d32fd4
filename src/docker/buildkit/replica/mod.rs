//! Images that are nothing but copied files, made again from these files, so that nothing has to be taken out of the daemon.
//!
//! Only what comes out with the digests that the daemon tells is believed. The times of folders are the builder's own, so it is
//! asked for them, layer by layer.

mod config;
mod tar;
mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Error, ensure};
use futures_util::future::try_join_all;
use prost::bytes::Bytes;

use self::config::Config;
use self::tar::{Dialect, Layout};
use self::tree::{Entry, MOST_ENTRIES, Sent, Tree, What};
use super::folder::{Folder, seconds, unix_mode};
use super::gateway::{Bridge, One};
use super::llb::{self, Layer, Step};
use crate::docker::staging;
use crate::reference::Digest;

/// The builder is asked for one after the other by some versions.
const MOST_FOLDERS: usize = 100;

/// What a build is about to make.
pub(super) struct Plan {
    /// By the vertexes that make them, the lowest first.
    layers: Vec<(String, Tree)>,
    config: Config,
}

impl Plan {
    /// `None` where anything but copied files makes the image. Blocks.
    pub(super) fn of(made: &One, folders: &HashMap<String, Arc<Folder>>) -> Option<Self> {
        let layers = llb::copied_layers(&made.definition)?;
        let mut sent = BTreeMap::new();
        for step in layers.iter().flat_map(|layer| &layer.steps) {
            if let Step::Copy(copy) = step
                && !sent.contains_key(copy.folder.as_str())
            {
                sent.insert(copy.folder.as_str(), Sent::new(folders.get(&copy.folder)?)?);
            }
        }
        let (mut laid, mut below, mut newest, mut entries) = (Vec::new(), BTreeSet::new(), 0, 0);
        for Layer { vertex, steps } in &layers {
            let tree = tree::lay(steps, &sent, &below)?;
            entries += tree.len();
            if entries > MOST_ENTRIES {
                return None;
            }
            for (path, entry) in &tree {
                if let What::Folder = entry.what {
                    below.insert(path.clone());
                } else {
                    newest = newest.max(entry.mtime);
                }
            }
            laid.push((vertex.clone(), tree));
        }
        Some(Self {
            config: Config::of(&made.config, newest)?,
            layers: laid,
        })
    }

    /// The configuration that the exporter is to be given.
    pub(super) fn config(&self) -> Option<Bytes> {
        self.config.bytes()
    }

    /// Asks the builder for what it knows alone.
    ///
    /// # Errors
    /// When it does not tell, or there is too much to be asked for.
    pub(super) async fn looked_up(mut self, bridge: &Bridge, made: &One) -> Result<Replica, Error> {
        let top = self.layers.len().saturating_sub(1);
        let is_folder = |entry: &Entry| matches!(entry.what, What::Folder);
        let entries = self.layers.iter().flat_map(|(_, tree)| tree.values());
        let folders = entries.filter(|entry| is_folder(entry)).count();
        ensure!(folders <= MOST_FOLDERS, "it has {folders} folders");
        try_join_all(self.layers.iter_mut().enumerate().map(async |(at, (vertex, tree))| {
            let mut folders = tree.iter_mut().filter(|(_, entry)| is_folder(entry)).peekable();
            if folders.peek().is_none() {
                return Ok::<_, Error>(());
            }
            let result = if at == top {
                made.result.clone()
            } else {
                bridge.clone().step(llb::up_to(vertex, &made.definition)?).await?
            };
            let asked = folders.map(async |(path, entry)| {
                let stat = bridge.clone().stat(&result, tree::shown(path)).await?;
                ensure!(stat.uid == 0 && stat.gid == 0, "{} has another owner", tree::shown(path));
                (entry.mode, entry.mtime) = (unix_mode(stat.mode), seconds(&stat));
                Ok(())
            });
            try_join_all(asked).await?;
            Ok(())
        }))
        .await?;
        Ok(Replica {
            layers: self.layers.into_iter().map(|(_, tree)| Layout::of(tree)).collect(),
            config: self.config,
            is_claimed: AtomicBool::new(false),
        })
    }
}

/// What a build has made.
pub(in crate::docker) struct Replica {
    /// The lowest first; none where a name takes too much room.
    layers: Vec<Option<Layout>>,
    config: Config,
    is_claimed: AtomicBool,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}

impl Replica {
    /// Whether this is the first who wants it.
    pub(in crate::docker) fn claim(&self) -> bool {
        !self.is_claimed.swap(true, Relaxed)
    }

    /// Of an image's layers, those that may be made again.
    pub(in crate::docker) fn own<'l>(&self, layers: &'l [Digest]) -> &'l [Digest] {
        &layers[layers.len().saturating_sub(self.layers.len())..]
    }

    /// Of the image with this configuration and these layers, what comes out the same; nothing where that is not enough for the
    /// image. What `is_there` is not made. Blocks.
    pub(in crate::docker) fn parts(&self, id: &Digest, layers: &[Digest], is_there: impl Fn(&Digest) -> bool) -> staging::Parts {
        let mut parts = staging::Parts::default();
        let own = self.own(layers);
        let config = self.config.with(layers).filter(|config| Digest::of(config) == *id);
        let below = &layers[..layers.len() - own.len()];
        if config.is_none() || own.len() != self.layers.len() || !below.iter().all(&is_there) {
            return parts;
        }
        parts.config = config;
        // the smallest tells which dialect the engine writes
        let layouts = own.iter().zip(&self.layers).filter(|(digest, _)| !is_there(digest));
        let mut layouts: Vec<_> = layouts.filter_map(|(digest, layout)| Some((digest, layout.as_ref()?))).collect();
        layouts.sort_by_key(|(_, layout)| layout.size);
        let mut dialects = Dialect::ALL.to_vec();
        let of_nothing = Layout::of(Tree::new());
        for (digest, layout) in layouts {
            let written = |layout: &Layout, dialect| layout.written(dialect).ok().filter(|(found, _)| found == digest);
            // a folder that is made may be there already
            if let Some((_, tar)) = of_nothing.as_ref().and_then(|nothing| written(nothing, dialects[0])) {
                parts.layers.insert(digest.clone(), Arc::new(tar));
                continue;
            }
            let found = dialects.iter().find_map(|dialect| Some((*dialect, written(layout, *dialect)?.1)));
            let Some((dialect, tar)) = found else { break };
            dialects = vec![dialect];
            parts.layers.insert(digest.clone(), Arc::new(tar));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Inline;

    const FRONTEND: &[u8] = br#"{"history":[{"created_by":"COPY one /"},{"created_by":"COPY two /"}],"rootfs":{}}"#;

    /// Two layers of a file each, and their digests as an engine writes them.
    fn replica(dialect: Dialect) -> (Replica, Vec<Digest>) {
        let layers: Vec<Option<Layout>> = [1, 2]
            .map(|size| {
                let folder = Arc::new(Folder::of_inline(&[Inline::file("f", &vec![7; size], 0o644)]));
                let content = tree::Content {
                    folder,
                    at: 0,
                    offset: 0,
                    size: size as u64,
                };
                let entry = Entry {
                    what: What::File(content),
                    mode: 0o644,
                    mtime: 1,
                };
                Layout::of(Tree::from([("f\0".to_owned(), entry)]))
            })
            .into();
        let digests = layers.iter().flatten().map(|layout| layout.written(dialect).expect("read").0);
        let digests = digests.collect();
        let replica = Replica {
            layers,
            config: Config::of(FRONTEND, 1).expect("a configuration"),
            is_claimed: AtomicBool::new(false),
        };
        (replica, digests)
    }

    fn id(replica: &Replica, layers: &[Digest]) -> Digest {
        Digest::of(&replica.config.with(layers).expect("written"))
    }

    #[test]
    fn what_any_engine_writes_is_made_again_but_what_is_there() {
        for dialect in Dialect::ALL {
            let (replica, layers) = replica(dialect);
            let id = id(&replica, &layers);
            let parts = replica.parts(&id, &layers, |_| false);
            assert_eq!((parts.config.is_some(), parts.layers.len()), (true, 2), "{dialect:?}");
            let parts = replica.parts(&id, &layers, |digest| *digest == layers[0]);
            assert_eq!(parts.layers.keys().collect::<Vec<_>>(), [&layers[1]]);
        }
    }

    #[test]
    fn without_what_is_needed_besides_nothing_is_made() {
        let (replica, layers) = replica(Dialect::ALL[0]);
        let none = |id: &Digest, layers: &[Digest]| {
            let parts = replica.parts(id, layers, |_| false);
            parts.config.is_none() && parts.layers.is_empty()
        };
        assert!(none(&layers[0], &layers), "another configuration");
        let above = [&layers[..1], &layers].concat();
        assert!(none(&id(&replica, &above), &above), "a base that is not there");
        assert!(none(&id(&replica, &layers[..1]), &layers[..1]), "fewer layers");
        let other = [layers[1].clone(), layers[0].clone()];
        let parts = replica.parts(&id(&replica, &other), &other, |_| false);
        assert_eq!((parts.config.is_some(), parts.layers.len()), (true, 0), "other layers");
    }

    #[test]
    fn it_is_claimed_once() {
        let (replica, _) = replica(Dialect::ALL[0]);
        assert!(replica.claim() && !replica.claim());
    }
}
