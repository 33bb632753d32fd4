//! Brings images out of a daemon to a registry, instead of the daemon's own push, which compresses each layer on one core.
//!
//! What this program can make again itself is not asked for, and begun while the builder still writes it. Other images are
//! exported as `docker save` does it, several at once. What the registry gets is what a push would have brought: the same
//! configuration and layers, in a manifest of the same kind; only the layers' compression differs.

mod alone;
mod archive;
mod batch;
mod compress;
mod known;
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Error, bail, ensure};
use bollard::Docker;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OnceCell};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug};

use self::batch::Queue;
pub(super) use self::compress::BLOCK;
use self::known::Blob;
use self::layers::Layers;
pub(super) use self::layers::Progress;
use super::buildkit::{Dialect, Replica};
use super::meter::metered;
use super::push::Pushed;
use super::recipe::Built;
use crate::event::{Event, Events};
use crate::problem::Problem;
use crate::reference::{Digest, Reference, Repository};
use crate::registry::{self, Manifest, Remote};
use crate::timing;

/// Docker image manifest version 2, schema 2, and what it names.
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// An uncompressed layer.
pub(super) trait Layer: Send + Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Fills `block`, which is [`BLOCK`] bytes long, or less at the end of the layer. Blocks.
    fn read_block(&self, start: u64, block: &mut [u8]) -> io::Result<()>;

    /// Whether what it is read from was found to be there no more.
    fn is_lost(&self) -> bool {
        false
    }
}

/// What of an image need not come out of the daemon.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) config: Option<Bytes>,
    /// By the digests of their tars.
    pub(super) layers: BTreeMap<Digest, Arc<dyn Layer>>,
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = if self.config.is_some() { "its" } else { "no" };
        write!(f, "made again: {config} configuration, {} layers", self.layers.len())
    }
}

/// Of one run.
pub(super) struct Staging {
    /// Where images that cannot be made again come out of a daemon.
    docker: Option<Docker>,
    registry: registry::Client,
    queue: Queue,
    layers: Layers,
    own: Mutex<Own>,
    /// Layers are not pending any more.
    settled: Notify,
    /// The dialect that the engine writes layers in, as far as it is known.
    spoken: Arc<Mutex<Option<Dialect>>>,
    /// What is brought before it is asked for.
    ahead: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// The parts that this program has.
#[derive(Default)]
struct Own {
    /// Layers of which it is not known yet.
    pending: BTreeSet<Digest>,
    /// By the image's id, what was found once.
    suits: BTreeMap<Digest, bool>,
    configs: BTreeMap<Digest, Bytes>,
    layers: BTreeMap<Digest, Arc<dyn Layer>>,
}

impl Own {
    /// Marks `mine` as pending, as soon as none of `layers` is.
    fn begin(&mut self, layers: &[Digest], mine: &[Digest]) -> bool {
        let is_free = layers.iter().all(|layer| !self.pending.contains(layer));
        if is_free {
            self.pending.extend(mine.iter().cloned());
        }
        is_free
    }

    /// Whether the layer is one that cannot be read any more, and has to come out of the daemon now.
    fn lose(&mut self, layer: &Digest) -> bool {
        self.layers.get(layer).is_some_and(|layer| layer.is_lost()) && self.layers.remove(layer).is_some()
    }
}

/// Layers that are being made again, until it goes.
struct Pending<'s> {
    staging: &'s Staging,
    layers: &'s [Digest],
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut own = self.staging.own();
        own.pending.retain(|layer| !self.layers.contains(layer));
        self.staging.settled.notify_waiters();
    }
}

impl Staging {
    pub(super) fn new(docker: Option<Docker>, spoken: Option<Dialect>, registry: registry::Client, cache: Option<PathBuf>) -> Self {
        Self {
            spoken: Arc::new(Mutex::new(spoken)),
            ahead: Mutex::default(),
            docker,
            registry,
            queue: Queue::default(),
            layers: Layers::new(cache),
            own: Mutex::default(),
            settled: Notify::new(),
        }
    }

    /// Begins to bring layers to the repository. Whoever wants them later waits for that, and does it where it failed.
    pub(super) fn bring_ahead(self: &Arc<Self>, replica: &Arc<Replica>, repository: &Repository, step: &str) {
        let Some(dialect) = *self.spoken.lock().unwrap_or_else(PoisonError::into_inner) else {
            return;
        };
        let begun = (0..replica.depth()).map(|at| {
            let (staging, replica) = (Arc::clone(self), Arc::clone(replica));
            let (repository, step) = (self.registry.repository(repository), step.to_owned());
            let part = timing::part_of(&step, "bring ahead");
            let bringing = async move {
                if let Err(error) = staging.bring_layer(&replica, at, dialect, &repository).await {
                    debug!("{step}: not brought ahead: {error:#}");
                }
            };
            AbortOnDropHandle::new(tokio::spawn(bringing.instrument(part)))
        });
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).extend(begun);
    }

    async fn bring_layer(&self, replica: &Arc<Replica>, at: usize, dialect: Dialect, to: &Remote) -> Result<(), Error> {
        let made = Arc::clone(replica);
        let (digest, layer) = spawn_blocking(move || made.layer(at, dialect)).await??;
        if !self.is_there(&digest, to.repository().host()) {
            self.layers.bring(&digest, to, async || Ok(layer), &replica.progress).await?;
        }
        Ok(())
    }

    /// Takes an image that this program makes alone, for the repository, and tells its layers.
    ///
    /// # Errors
    /// When a file cannot be read any more, or the registry lacks what the image stands on.
    pub(super) async fn adopt(&self, replica: &Arc<Replica>, dialect: Dialect, to: &Remote) -> Result<Vec<Digest>, Error> {
        let replica = Arc::clone(replica);
        let image = spawn_blocking(move || replica.image(dialect)).await??;
        try_join_all(image.below.iter().map(async |layer| {
            let unknown = async || bail!("it stands on {layer}, which is not known to be in the registry");
            self.layers.bring(layer, to, unknown, &Arc::default()).await
        }))
        .await?;
        let layers = image.below.into_iter().chain(image.own.iter().map(|(digest, _)| digest.clone()));
        let layers = layers.collect();
        let mut own = self.own();
        own.configs.insert(image.id, image.config);
        own.layers.extend(image.own);
        Ok(layers)
    }

    /// Makes the image again, as far as that can be done, once. It may stand on what is being made again for another.
    pub(super) async fn replicate(&self, built: &Built, host: &str, step: &str) {
        let (Some(replica), Ok(layers)) = (&built.replica, digests(&built.layers)) else {
            return;
        };
        let is_mine = replica.claim();
        let pending = Pending {
            staging: self,
            layers: if is_mine { replica.own(&layers) } else { &[] },
        };
        loop {
            let settled = self.settled.notified();
            if self.own().begin(&layers, pending.layers) {
                break;
            }
            settled.await;
        }
        if !is_mine {
            return;
        }
        let there: BTreeSet<Digest> = layers.iter().filter(|layer| self.is_there(layer, host)).cloned().collect();
        let (replica, id, all) = (Arc::clone(replica), built.id.clone(), layers.clone());
        let spoken = Arc::clone(&self.spoken);
        let parts = spawn_blocking(move || replica.parts(&id, &all, |layer| there.contains(layer), &spoken));
        if let Ok(parts) = parts.instrument(timing::part_of(step, "make again")).await {
            debug!("{step}: {parts}");
            let mut own = self.own();
            own.configs.extend(parts.config.map(|config| (built.id.clone(), config)));
            own.layers.extend(parts.layers);
        }
        drop(pending);
    }

    /// Whether the layer is at hand, or known to have been in the registry.
    fn is_there(&self, layer: &Digest, host: &str) -> bool {
        self.own().layers.contains_key(layer) || self.layers.is_known(layer, host)
    }

    /// Whether nothing of the image has to come out of the daemon, as far as is known of the registry.
    fn has(&self, id: &Digest, layers: &[Digest], host: &str) -> bool {
        self.own().configs.contains_key(id) && layers.iter().all(|layer| self.is_there(layer, host))
    }

    /// Whether the image is best brought from here: all of it is at hand, or the daemon would compress and send anew what has
    /// been brought from here in this run. Equal images are brought alike.
    pub(super) fn suits(&self, built: &Built, host: &str) -> bool {
        let Ok(layers) = digests(&built.layers) else { return false };
        let is_sent = |layer: &Digest| self.own().layers.contains_key(layer) && self.layers.is_placed(layer);
        let suits = self.has(&built.id, &layers, host) || layers.iter().any(is_sent);
        *self.own().suits.entry(built.id.clone()).or_insert(suits)
    }

    /// Somebody else has brought the image to the repository as this manifest.
    pub(super) fn learn(&self, built: &Built, repository: &Repository, manifest: &Manifest) {
        #[derive(Deserialize)]
        struct Content {
            layers: Vec<Part>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Part {
            media_type: String,
            #[serde(flatten)]
            blob: Blob,
        }
        let content: Option<Content> = serde_json::from_slice(manifest.bytes()).ok();
        let (Some(content), Ok(layers)) = (content, digests(&built.layers)) else {
            return;
        };
        if content.layers.len() >= layers.len() {
            for (layer, part) in layers.iter().zip(&content.layers).filter(|(_, part)| part.media_type == LAYER) {
                self.layers.learn(layer, &part.blob, repository);
            }
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what the image consists of to the repository of `reference`.
    pub(super) async fn stage(&self, built: &Built, reference: &Reference, step: &str, events: &Events) -> Result<Pushed, Error> {
        let progress = built
            .replica
            .as_ref()
            .map(|replica| Arc::clone(&replica.progress))
            .unwrap_or_default();
        let read = || (progress.sent.load(Relaxed), progress.total.load(Relaxed));
        let tell = |sent, total| {
            events.send(Event::Uploading {
                step: step.to_owned(),
                sent,
                total,
            });
        };
        let manifest = metered(self.carry(built, reference, step, &progress), read, tell).await?;
        Ok(Pushed {
            digest: manifest.digest().clone(),
            manifest: Some(manifest),
            bytes: Some(progress.total.load(Relaxed)),
        })
    }

    async fn carry(&self, built: &Built, reference: &Reference, step: &str, progress: &Arc<Progress>) -> Result<Manifest, Error> {
        let repository = self.registry.repository(reference.repository());
        let layers = digests(&built.layers)?;
        let distinct: BTreeSet<Digest> = layers.iter().cloned().collect();
        let batch = OnceCell::new();
        let export = async || match &self.docker {
            Some(docker) => self.queue.export(docker, &self.layers, &built.id, &layers, &repository).await,
            None => Err(Problem::failed("files changed before they were uploaded")
                .hint("run again when the context is at rest")
                .into()),
        };
        let exported = || batch.get_or_try_init(export);
        if !self.has(&built.id, &layers, repository.repository().host()) {
            exported().await?;
        }
        let config = async {
            let own = self.own().configs.get(&built.id).cloned();
            let config = match own {
                Some(config) => config,
                None => exported().await?.config(&built.id).await?,
            };
            must_have(&config, &layers)?;
            upload(&repository, &built.id, config.clone()).await?;
            Ok::<_, Error>(config.len())
        };
        let brought = try_join_all(distinct.iter().map(async |layer| {
            let content = async || {
                let own = self.own().layers.get(layer).cloned();
                match own {
                    Some(own) => Ok(own),
                    None => exported().await?.layer(layer).await,
                }
            };
            let brought = self.layers.bring(layer, &repository, content, progress).await;
            let blob = match brought {
                // files that somebody writes to meanwhile; the daemon has what they were
                Err(error) if self.own().lose(layer) => {
                    debug!("{step}: {error:#}");
                    self.layers.bring(layer, &repository, content, progress).await?
                }
                brought => brought?,
            };
            Ok::<_, Error>((layer, blob))
        }));
        let (config_size, brought) = tokio::try_join!(config, brought)?;
        let brought: BTreeMap<&Digest, Blob> = brought.into_iter().collect();
        manifest(&built.id, config_size, layers.iter().map(|layer| &brought[layer]))
    }

    /// No further image is coming.
    pub(super) fn complete(&self) {
        self.queue.complete();
    }

    /// Keeps what later runs can use, and leaves what nobody wanted.
    pub(super) fn finish(&self) {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.layers.save();
    }
}

pub(super) fn digests(layers: &[String]) -> Result<Vec<Digest>, Problem> {
    layers.iter().map(|layer| layer.parse()).collect()
}

/// The image is what was exported only if its configuration names the very layers.
fn must_have(config: &[u8], layers: &[Digest]) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<Digest>,
    }
    let config: Config = serde_json::from_slice(config).context("the configuration of the image cannot be read")?;
    ensure!(
        config.rootfs.diff_ids == layers,
        "the configuration of the image names other layers than the daemon"
    );
    Ok(())
}

async fn upload(repository: &Remote, digest: &Digest, content: Bytes) -> Result<(), Problem> {
    repository.upload(digest, content).await.map_err(Problem::from)
}

fn manifest<'b>(config: &Digest, config_size: usize, layers: impl Iterator<Item = &'b Blob>) -> Result<Manifest, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Content<'b> {
        schema_version: u8,
        media_type: &'static str,
        config: Part<'b>,
        layers: Vec<Part<'b>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Part<'b> {
        media_type: &'static str,
        size: u64,
        digest: &'b Digest,
    }
    let content = Content {
        schema_version: 2,
        media_type: MANIFEST,
        config: Part {
            media_type: CONFIG,
            size: config_size as u64,
            digest: config,
        },
        layers: layers
            .map(|blob| Part {
                media_type: LAYER,
                size: blob.size,
                digest: &blob.digest,
            })
            .collect(),
    };
    Ok(Manifest::new(MANIFEST, serde_json::to_vec(&content)?))
}
