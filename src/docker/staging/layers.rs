//! Brings layers to the registry: each is compressed and uploaded once, other repositories mount it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Error;
use futures_util::future::join_all;
use tokio::sync::{Mutex as Turn, Semaphore};
use tracing::debug;

use super::Layer;
use super::compress::Gzip;
use super::known::{Blob, Known};
use crate::problem::Problem;
use crate::reference::{Digest, Repository};
use crate::registry::{Content, Remote};

/// As many as Docker uploads at once.
const UPLOADS: usize = 5;

/// Bytes of an image's layers: uploaded, and to be uploaded as far as that has begun.
#[derive(Default)]
pub(in crate::docker) struct Progress {
    pub(super) sent: AtomicU64,
    pub(super) total: AtomicU64,
}

/// Where a layer has been seen in this run.
#[derive(Default)]
struct Place {
    blob: Option<Blob>,
    repositories: BTreeSet<Repository>,
}

/// The layers of a run.
pub(super) struct Layers {
    places: Mutex<BTreeMap<Digest, Arc<Turn<Place>>>>,
    cache: Option<PathBuf>,
    /// By registry.
    known: Mutex<BTreeMap<String, Known>>,
    uploads: Semaphore,
    gzip: Gzip,
}

impl Layers {
    pub(super) fn new(cache: Option<PathBuf>) -> Self {
        Self {
            places: Mutex::default(),
            cache,
            known: Mutex::default(),
            uploads: Semaphore::new(UPLOADS),
            gzip: Gzip::new(),
        }
    }

    /// The layers that not all of their repositories have, even after mounts. What is on its way with another image counts
    /// as missing.
    pub(super) async fn missing(&self, layers: BTreeMap<Digest, Vec<Remote>>) -> BTreeSet<Digest> {
        let looked = layers.into_iter().map(async |(layer, repositories)| {
            for repository in repositories {
                let place = self.place(&layer);
                let is_there = match place.try_lock() {
                    Ok(mut place) => self.find(&mut place, &layer, &repository).await.is_some(),
                    Err(_) => false,
                };
                if !is_there {
                    return Some(layer);
                }
            }
            None
        });
        join_all(looked).await.into_iter().flatten().collect()
    }

    /// Brings the layer to the repository; `content` is asked for if it has to be uploaded.
    pub(super) async fn bring<F>(
        &self,
        layer: &Digest,
        repository: &Remote,
        content: impl FnOnce() -> F,
        progress: &Arc<Progress>,
    ) -> Result<Blob, Error>
    where
        F: Future<Output = Result<Arc<dyn Layer>, Error>>,
    {
        let place = self.place(layer);
        let mut place = place.lock().await;
        if let Some(blob) = self.find(&mut place, layer, repository).await {
            return Ok(blob);
        }
        let content = content().await?;
        let blob = self.upload(content, repository, progress).await?;
        self.found(&mut place, layer, &blob, repository.repository());
        Ok(blob)
    }

    async fn find(&self, place: &mut Place, layer: &Digest, repository: &Remote) -> Option<Blob> {
        let own = repository.repository();
        if let Some(blob) = place.blob.clone() {
            let is_there = match place.repositories.iter().next_back() {
                _ if place.repositories.contains(own) => true,
                Some(from) => mounted(&blob, repository, from).await,
                None => false,
            };
            if is_there {
                self.found(place, layer, &blob, own);
                return Some(blob);
            }
        }
        let (blob, repositories) = self.with_known(own.host(), |known| known.get(layer))?;
        let is_there = match repositories.first() {
            _ if repositories.contains(own) => has(&blob, repository).await,
            Some(from) => mounted(&blob, repository, from).await,
            None => false,
        };
        if !is_there {
            return None;
        }
        self.found(place, layer, &blob, own);
        Some(blob)
    }

    fn found(&self, place: &mut Place, layer: &Digest, blob: &Blob, repository: &Repository) {
        if place.blob.as_ref() != Some(blob) {
            place.repositories.clear();
            place.blob = Some(blob.clone());
        }
        if place.repositories.insert(repository.clone()) {
            self.with_known(repository.host(), |known| known.learn(layer, blob, repository));
        }
    }

    async fn upload(&self, layer: Arc<dyn Layer>, repository: &Remote, progress: &Arc<Progress>) -> Result<Blob, Error> {
        let _permit = self.uploads.acquire().await?;
        let (gzip, most, size) = (self.gzip.clone(), Arc::new(AtomicU64::new(0)), layer.size());
        progress.total.fetch_add(size, Relaxed);
        let told = (Arc::clone(&most), Arc::clone(progress));
        let content = Content::stream(None, move || {
            let (most, progress) = told.clone();
            gzip.stream(Arc::clone(&layer), move |reached| {
                let reached = reached.min(size);
                // what is sent again is not counted again
                let before = most.fetch_max(reached, Relaxed);
                progress.sent.fetch_add(reached.saturating_sub(before), Relaxed);
            })
        });
        let uploaded = repository.upload_unnamed(content).await.inspect_err(|_| {
            // whoever brings it after all counts it anew
            progress.total.fetch_sub(size, Relaxed);
            progress.sent.fetch_sub(most.load(Relaxed), Relaxed);
        });
        let uploaded = uploaded.map_err(Problem::from)?;
        Ok(Blob {
            digest: uploaded.digest,
            size: uploaded.size,
        })
    }

    /// Whether the layer is brought in this run.
    pub(super) fn is_placed(&self, layer: &Digest) -> bool {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).contains_key(layer)
    }

    /// Whether some repository of the registry is known to have had the layer.
    pub(super) fn is_known(&self, layer: &Digest, host: &str) -> bool {
        self.with_known(host, |known| known.get(layer)).is_some()
    }

    /// The repository has the layer as this blob.
    pub(super) fn learn(&self, layer: &Digest, blob: &Blob, repository: &Repository) {
        self.with_known(repository.host(), |known| known.learn(layer, blob, repository));
    }

    /// Keeps what was learned for later runs.
    pub(super) fn save(&self) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values_mut()
            .for_each(Known::save);
    }

    fn place(&self, layer: &Digest) -> Arc<Turn<Place>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(layer.clone()).or_default())
    }

    fn with_known<T>(&self, host: &str, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        act(known
            .entry(host.to_owned())
            .or_insert_with(|| Known::of(self.cache.as_deref(), host)))
    }
}

/// What the registry does not say counts as no: the layer is uploaded then, and errors are told of that.
async fn mounted(blob: &Blob, repository: &Remote, from: &Repository) -> bool {
    repository.mount(&blob.digest, from).await.unwrap_or_else(|error| {
        debug!("no mount: {error}");
        false
    })
}

async fn has(blob: &Blob, repository: &Remote) -> bool {
    repository.has_blob(&blob.digest).await.unwrap_or_else(|error| {
        debug!("{error}");
        false
    })
}
