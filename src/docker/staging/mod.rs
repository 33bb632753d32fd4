//! Brings images out of a daemon to a registry, instead of the daemon's own push, which compresses each layer on one core.
//!
//! Images are exported as `docker save` does it, several at once. What the registry gets is what a push would have brought:
//! the same configuration and layers, in a manifest of the same kind; only the layers' compression differs.

mod archive;
mod batch;
mod compress;
mod known;
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Error, ensure};
use bollard::Docker;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use self::batch::Queue;
use self::known::Blob;
use self::layers::{Layers, Progress};
use super::meter::metered;
use super::push::Pushed;
use super::recipe::Built;
use crate::event::{Event, Events};
use crate::problem::Problem;
use crate::reference::{Digest, Reference};
use crate::registry::{self, Manifest, Remote};

/// Docker image manifest version 2, schema 2, and what it names.
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Of one run.
pub(super) struct Staging {
    docker: Docker,
    registry: registry::Client,
    queue: Queue,
    layers: Layers,
}

impl Staging {
    pub(super) fn new(docker: Docker, registry: registry::Client, cache: Option<PathBuf>) -> Self {
        Self {
            docker,
            registry,
            queue: Queue::default(),
            layers: Layers::new(cache),
        }
    }

    /// Brings what the image consists of to the repository of `reference`.
    pub(super) async fn stage(&self, built: &Built, reference: &Reference, step: &str, events: &Events) -> Result<Pushed, Error> {
        let progress = Arc::new(Progress::default());
        let read = || (progress.sent.load(Relaxed), progress.total.load(Relaxed));
        let tell = |sent, total| {
            events.send(Event::Uploading {
                step: step.to_owned(),
                sent,
                total,
            });
        };
        let manifest = metered(self.carry(built, reference, &progress), read, tell).await?;
        Ok(Pushed {
            digest: manifest.digest().clone(),
            manifest: Some(manifest),
            bytes: Some(progress.total.load(Relaxed)),
        })
    }

    async fn carry(&self, built: &Built, reference: &Reference, progress: &Arc<Progress>) -> Result<Manifest, Error> {
        let repository = self.registry.repository(reference.repository());
        let layers: Vec<Digest> = built.layers.iter().map(|layer| layer.parse()).collect::<Result<_, Problem>>()?;
        let distinct: BTreeSet<Digest> = layers.iter().cloned().collect();
        let exported = self.queue.export(&self.docker, &self.layers, &built.id, &layers, &repository);
        let batch = exported.await?;
        let config = async {
            let config = batch.config(&built.id).await?;
            must_have(&config, &layers)?;
            upload(&repository, &built.id, config.clone()).await?;
            Ok::<_, Error>(config.len())
        };
        let brought = try_join_all(distinct.iter().map(async |layer| {
            let blob = self.layers.bring(layer, &repository, || batch.layer(layer), progress).await?;
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

    /// Keeps what later runs can use.
    pub(super) fn finish(&self) {
        self.layers.save();
    }
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

async fn upload(repository: &Remote, digest: &Digest, content: bytes::Bytes) -> Result<(), Problem> {
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
