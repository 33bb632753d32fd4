//! Images that are nothing but copied files, made again from these files, so that nothing has to be taken out of the builder.
//!
//! What the builder has made is listed, folder by folder: it must be what is expected, and the times of folders are the builder's
//! own. Where a daemon tells the digests of layers, only what comes out with them is believed. What nobody wants of the builder,
//! and is known to the last entry, it is not asked to make.

mod config;
mod inventory;
mod lay;
mod plan;
mod tar;
mod tree;
mod written;

use std::fmt;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Error, ensure};
use prost::bytes::Bytes;
use tracing::debug;

use self::config::Config;
use self::inventory::Inventory;
pub(super) use self::plan::{Compared, Plan};
pub(in crate::docker) use self::tar::Dialect;
use self::tar::{Layout, Tar};
use self::tree::Tree;
use crate::docker::staging::{self, Progress};
use crate::reference::Digest;

/// What a build has made.
pub(in crate::docker) struct Replica {
    /// What it stands on, where that was made by the same builder in this run.
    below: Option<Arc<Replica>>,
    /// Of the definition, the one that makes the last layer.
    vertex: Option<String>,
    /// The lowest first.
    layers: Vec<OwnLayer>,
    /// What a builder has left unmade: what it calls the vertexes of these layers.
    left: Vec<String>,
    /// The time of the newest file in it, in seconds since 1970.
    newest: i64,
    inventory: Inventory,
    config: Config,
    is_claimed: AtomicBool,
    /// What is uploaded of it.
    pub(in crate::docker) progress: Arc<Progress>,
}

struct OwnLayer {
    /// None where a name takes too much room.
    layout: Option<Layout>,
    /// Where digests are kept.
    cache: Option<PathBuf>,
    /// What it was written as last.
    written: Mutex<Option<Arc<Tar>>>,
}

/// An image as this program makes it.
pub(in crate::docker) struct Image {
    /// The digest of its configuration.
    pub(in crate::docker) id: Digest,
    pub(in crate::docker) config: Bytes,
    /// Of an image of elsewhere that it stands on, the lowest first.
    pub(in crate::docker) below: Vec<Digest>,
    /// The others.
    pub(in crate::docker) own: Vec<(Digest, Arc<dyn staging::Layer>)>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}

impl OwnLayer {
    fn of(tree: Tree, cache: Option<&Path>) -> Self {
        Self {
            layout: Layout::of(tree),
            cache: cache.map(Path::to_path_buf),
            written: Mutex::default(),
        }
    }

    /// Blocks.
    fn written(&self, dialect: Dialect) -> io::Result<Arc<Tar>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tar) = written.as_ref().filter(|tar| tar.dialect == dialect) {
            return Ok(Arc::clone(tar));
        }
        let layout = self.layout.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let place = self.cache.as_deref().and_then(|cache| Some((cache, layout.sketch(dialect)?)));
        let tar = if let Some(digest) = place.and_then(|(cache, sketch)| written::digest(cache, &sketch)) {
            layout.known(dialect, digest)
        } else {
            let tar = layout.written(dialect)?;
            if let Some((cache, sketch)) = place
                && let Err(error) = written::keep(cache, &sketch, &tar.digest)
            {
                debug!("{}: {error}", cache.display());
            }
            tar
        };
        let tar = Arc::new(tar);
        *written = Some(Arc::clone(&tar));
        Ok(tar)
    }
}

impl Replica {
    /// Whether this is the first who wants it.
    pub(in crate::docker) fn claim(&self) -> bool {
        !self.is_claimed.swap(true, Relaxed)
    }

    /// Whether there is something of this name in the root; none where it stands on what is not known.
    pub(super) fn has(&self, name: &str) -> Option<bool> {
        let is_there = || self.inventory.kind(&format!("{name}\0")).is_some();
        self.inventory.is_whole().then(is_there)
    }

    /// Of an image's layers, those that may be made again.
    pub(in crate::docker) fn own<'l>(&self, layers: &'l [Digest]) -> &'l [Digest] {
        &layers[layers.len().saturating_sub(self.layers.len())..]
    }

    /// How many layers it has of its own.
    pub(in crate::docker) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// One of its own layers. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read any more, or a name takes too much room.
    pub(in crate::docker) fn layer(&self, at: usize, dialect: Dialect) -> io::Result<(Digest, Arc<dyn staging::Layer>)> {
        let tar = self.layers[at].written(dialect)?;
        Ok((tar.digest.clone(), tar as Arc<dyn staging::Layer>))
    }

    /// The vertexes that a builder has left unmade, and whether their layers are known from an earlier run. Blocks.
    ///
    /// # Errors
    /// As [`Self::layer`].
    pub(super) fn left(&self, dialect: Dialect) -> io::Result<Vec<(String, bool)>> {
        let each = self.left.iter().zip(&self.layers);
        each.map(|(name, made)| Ok((name.clone(), made.written(dialect)?.was_known)))
            .collect()
    }

    /// It, and what of this run it stands on.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        iter::successors(Some(self), |replica| replica.below.as_deref())
    }

    /// The layers of the image of elsewhere that it stands on, where its configuration tells all of them.
    pub(in crate::docker) fn below_of_elsewhere(&self) -> Option<Vec<Digest>> {
        let (below, depth) = self.config.below()?;
        let own: usize = self.chain().map(|replica| replica.layers.len()).sum();
        (below.len() + own == depth).then_some(below)
    }

    /// The whole image. Blocks.
    ///
    /// # Errors
    /// As [`Self::layer`].
    pub(in crate::docker) fn image(&self, dialect: Dialect) -> Result<Image, Error> {
        let chain: Vec<_> = self.chain().collect();
        let (below, depth) = self.config.below().context("its configuration names no layers")?;
        let own = chain
            .iter()
            .rev()
            .flat_map(|replica| (0..replica.layers.len()).map(|at| replica.layer(at, dialect)));
        let own: Vec<_> = own.collect::<Result<_, _>>()?;
        let layers: Vec<Digest> = below.iter().chain(own.iter().map(|(digest, _)| digest)).cloned().collect();
        ensure!(layers.len() == depth, "it has {} layers and not {depth}", layers.len());
        let config = self.config.with(&layers).context("its configuration cannot be written")?;
        Ok(Image {
            id: Digest::of(&config),
            config,
            below,
            own,
        })
    }

    /// Of the image with this configuration and these layers, what comes out the same; nothing where that is not enough for the
    /// image. What `is_there` is not made. The dialect that `spoken` is, it was found to be. Blocks.
    pub(in crate::docker) fn parts(
        &self,
        id: &Digest,
        layers: &[Digest],
        is_there: impl Fn(&Digest) -> bool,
        spoken: &Mutex<Option<Dialect>>,
    ) -> staging::Parts {
        let mut parts = staging::Parts::default();
        let own = self.own(layers);
        let config = self.config.with(layers).filter(|config| Digest::of(config) == *id);
        let below = &layers[..layers.len() - own.len()];
        if config.is_none() || own.len() != self.layers.len() || !below.iter().all(&is_there) {
            return parts;
        }
        parts.config = config;
        let spoken = || spoken.lock().unwrap_or_else(PoisonError::into_inner);
        // the smallest tells which dialect the engine writes
        let mut made: Vec<_> = own.iter().zip(&self.layers).filter(|(digest, _)| !is_there(digest)).collect();
        made.sort_by_key(|(_, made)| made.layout.as_ref().map_or(0, |layout| layout.size));
        let of_nothing = OwnLayer {
            layout: Layout::of(Tree::new()),
            cache: None,
            written: Mutex::default(),
        };
        for (digest, made) in made {
            let written = |made: &OwnLayer, dialect| made.written(dialect).ok().filter(|tar| tar.digest == *digest);
            // a folder that is made may be there already
            if let Some(tar) = written(&of_nothing, Dialect::ALL[0]) {
                parts.layers.insert(digest.clone(), tar);
                continue;
            }
            let first = *spoken();
            let others = Dialect::ALL.into_iter().filter(|dialect| Some(*dialect) != first);
            let found = first.into_iter().chain(others).find_map(|dialect| written(made, dialect));
            let Some(tar) = found else { break };
            *spoken() = Some(tar.dialect);
            parts.layers.insert(digest.clone(), tar);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::tree::{Entry, What};
    use super::*;
    use crate::context::Inline;
    use crate::docker::buildkit::folder::Folder;

    const FRONTEND: &[u8] = br#"{"history":[{"created_by":"COPY one /"},{"created_by":"COPY two /"}],"rootfs":{}}"#;

    /// Two layers of a file each, and their digests as an engine writes them.
    fn replica(dialect: Dialect) -> (Replica, Vec<Digest>) {
        let layers: Vec<OwnLayer> = [1, 2]
            .map(|size| {
                let folder = Arc::new(Folder::of_inline(&[Inline::file("f", &vec![7; size], 0o644)]));
                let content = tree::Content {
                    folder,
                    at: 0,
                    offset: 0,
                    size: size as u64,
                    nanoseconds: 0,
                };
                let entry = Entry {
                    what: What::File(content),
                    mode: 0o644,
                    mtime: 1,
                };
                OwnLayer {
                    layout: Layout::of(Tree::from([("f\0".to_owned(), entry)])),
                    cache: None,
                    written: Mutex::default(),
                }
            })
            .into();
        let digests = layers.iter().map(|layer| layer.written(dialect).expect("read").digest.clone());
        let digests = digests.collect();
        let replica = Replica {
            below: None,
            vertex: None,
            layers,
            left: Vec::new(),
            newest: 0,
            inventory: Inventory::default(),
            config: Config::of(FRONTEND, 1).expect("a configuration"),
            is_claimed: AtomicBool::new(false),
            progress: Arc::default(),
        };
        (replica, digests)
    }

    #[test]
    fn what_was_written_before_need_not_be_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let (replica, digests) = replica(Dialect::OF_BUILDKIT);
        let written = |at: usize, dialect| {
            let made = OwnLayer {
                layout: replica.layers[at].layout.clone(),
                cache: Some(dir.path().to_owned()),
                written: Mutex::default(),
            };
            made.written(dialect).expect("read").digest.clone()
        };
        assert_eq!(written(0, Dialect::OF_BUILDKIT), digests[0]);
        let sketch = |at: usize| replica.layers[at].layout.as_ref()?.sketch(Dialect::OF_BUILDKIT);
        let (sketch, other) = (sketch(0).expect("hashed"), sketch(1).expect("hashed"));
        assert_eq!(written::digest(dir.path(), &sketch), Some(digests[0].clone()));
        let kept = Digest::of(b"as if it were this one");
        written::keep(dir.path(), &sketch, &kept).expect("kept");
        assert_eq!(written(0, Dialect::OF_BUILDKIT), kept);
        assert_ne!(sketch, other);
        assert_eq!(written(1, Dialect::OF_BUILDKIT), digests[1]);
        assert_ne!(written(0, Dialect::OF_DOCKER_20), kept);
    }

    fn id(replica: &Replica, layers: &[Digest]) -> Digest {
        Digest::of(&replica.config.with(layers).expect("written"))
    }

    #[test]
    fn what_any_engine_writes_is_made_again_but_what_is_there() {
        for dialect in Dialect::ALL {
            let (replica, layers) = replica(dialect);
            let id = id(&replica, &layers);
            let parts = replica.parts(&id, &layers, |_| false, &Mutex::default());
            assert_eq!((parts.config.is_some(), parts.layers.len()), (true, 2), "{dialect:?}");
            let parts = replica.parts(&id, &layers, |digest| *digest == layers[0], &Mutex::default());
            assert_eq!(parts.layers.keys().collect::<Vec<_>>(), [&layers[1]]);
        }
    }

    #[test]
    fn without_what_is_needed_besides_nothing_is_made() {
        let (replica, layers) = replica(Dialect::ALL[0]);
        let none = |id: &Digest, layers: &[Digest]| {
            let parts = replica.parts(id, layers, |_| false, &Mutex::default());
            parts.config.is_none() && parts.layers.is_empty()
        };
        assert!(none(&layers[0], &layers), "another configuration");
        let above = [&layers[..1], &layers].concat();
        assert!(none(&id(&replica, &above), &above), "a base that is not there");
        assert!(none(&id(&replica, &layers[..1]), &layers[..1]), "fewer layers");
        let other = [layers[1].clone(), layers[0].clone()];
        let parts = replica.parts(&id(&replica, &other), &other, |_| false, &Mutex::default());
        assert_eq!((parts.config.is_some(), parts.layers.len()), (true, 0), "other layers");
    }

    #[test]
    fn it_is_claimed_once() {
        let (replica, _) = replica(Dialect::ALL[0]);
        assert!(replica.claim() && !replica.claim());
    }
}
