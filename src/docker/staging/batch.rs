//! Exports images from the daemon, as many at once as wait for it: what they share comes only once then. The daemon makes an
//! export on one core, so they are parted among the cores, those that share the most together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Error};
use bollard::Docker;
use bollard::errors::Error as BollardError;
use bytes::{Buf as _, Bytes};
use futures_util::future::{self, join_all};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::{Mutex as Turn, Notify, OwnedMutexGuard, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::Layer;
use super::archive::{self, Found, Wanted};
use super::layers::Layers;
use crate::docker::said;
use crate::machine;
use crate::reference::Digest;
use crate::registry::Remote;

/// Parts of an archive that wait to be read.
const PARTS: usize = 8;

/// An image waits so long for others that are being built, for what it shares with them would be exported again with them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Images that wait for an export.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Image>>,
    turn: Arc<Turn<()>>,
    /// When nothing more is built.
    complete: CancellationToken,
}

/// An image that waits for an export.
struct Image {
    id: Digest,
    /// The lowest first.
    layers: Vec<Digest>,
    repository: Remote,
    tell: oneshot::Sender<Arc<Batch>>,
}

impl Queue {
    /// The export that has the image's configuration, and those of its layers that the repository lacks.
    pub(super) async fn export(
        &self,
        docker: &Docker,
        of_run: &Layers,
        id: &Digest,
        layers: &[Digest],
        repository: &Remote,
    ) -> Result<Arc<Batch>, Error> {
        loop {
            let (tell, mut told) = oneshot::channel();
            self.lock().push(Image {
                id: id.clone(),
                layers: layers.to_vec(),
                repository: repository.clone(),
                tell,
            });
            tokio::select! {
                biased;
                batch = &mut told => if let Ok(batch) = batch {
                    return Ok(batch);
                },
                turn = self.turn() => {
                    let images = std::mem::take(&mut *self.lock());
                    let turn = Arc::new(turn);
                    let lots = parted(images, |image| &image.layers, machine::cores());
                    join_all(lots.into_iter().map(|lot| begin(docker.clone(), of_run, lot, Arc::clone(&turn)))).await;
                    return Ok(told.await?);
                }
            }
            // whoever was to begin it has failed meanwhile
        }
    }

    /// Nothing more is built: whatever waits goes.
    pub(super) fn complete(&self) {
        self.complete.cancel();
    }

    async fn turn(&self) -> OwnedMutexGuard<()> {
        // that it took too long is as good
        let _ = timeout(PATIENCE, self.complete.cancelled()).await;
        Arc::clone(&self.turn).lock_owned().await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Image>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An export of several images, as far as it has come. It stops when nobody waits for it any more.
pub(super) struct Batch {
    arrived: Arc<Arrived>,
    _reading: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Arrived {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    layers: BTreeMap<Digest, Arc<dyn Layer>>,
    configs: BTreeMap<Digest, Bytes>,
    /// How it ended.
    end: Option<Result<(), String>>,
}

/// At most so many lots. Images are in one lot with those that have all of their layers and more, but for what all stand on.
fn parted<I>(mut images: Vec<I>, layers: impl Fn(&I) -> &[Digest], most: usize) -> Vec<Vec<I>> {
    images.sort_by(|a, b| layers(a).cmp(layers(b)));
    let mut groups: Vec<Vec<I>> = Vec::new();
    for image in images {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|below| layers(&image).starts_with(layers(below))) => group.push(image),
            _ => groups.push(vec![image]),
        }
    }
    let mut lots: Vec<Vec<I>> = Vec::new();
    for (at, group) in groups.into_iter().enumerate() {
        match lots.get_mut(at % most) {
            Some(lot) => lot.extend(group),
            None => lots.push(group),
        }
    }
    lots
}

async fn begin(docker: Docker, of_run: &Layers, images: Vec<Image>, turn: Arc<OwnedMutexGuard<()>>) {
    let arrived = Arc::new(Arrived::default());
    let (mut configs, mut repositories, mut waiting) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for image in images {
        for layer in image.layers {
            repositories.entry(layer).or_default().push(image.repository.clone());
        }
        configs.insert(image.id);
        waiting.push(image.tell);
    }
    let images: Vec<String> = configs.iter().map(ToString::to_string).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let mut archive = Box::pin(docker.export_images(&images));
    // the daemon has much to do before its first part
    let (layers, first) = future::join(of_run.missing(repositories), archive.next()).await;
    let archive = stream::iter(first).chain(archive);
    let into = Arc::clone(&arrived);
    let reading = tokio::spawn(async move {
        let _turn = turn;
        debug!(
            "images that the daemon exports: {}, new layers in them: {}",
            configs.len(),
            layers.len()
        );
        let end = export(archive, Wanted { layers, configs }, Arc::clone(&into)).await;
        into.change(|state| state.end = Some(end.map_err(|error| format!("{error:#}"))));
    });
    let batch = Arc::new(Batch {
        arrived,
        _reading: AbortOnDropHandle::new(reading),
    });
    for tell in waiting {
        // who was stopped does not wait any more
        let _ = tell.send(Arc::clone(&batch));
    }
}

async fn export(
    mut archive: impl Stream<Item = Result<Bytes, BollardError>> + Unpin,
    wanted: Wanted,
    into: Arc<Arrived>,
) -> Result<(), Error> {
    let (sender, parts) = mpsc::channel(PARTS);
    let reading = spawn_blocking(move || {
        let tell = |digest, found| {
            into.change(|state| match found {
                Found::Layer(layer) => drop(state.layers.insert(digest, Arc::new(layer))),
                Found::Config(content) => drop(state.configs.insert(digest, content)),
            });
        };
        archive::read(Parts { parts, part: Bytes::new() }, &wanted, unnamed_file, tell)
    });
    while let Some(part) = archive.next().await {
        if sender.send(part.map_err(said)?).await.is_err() {
            break;
        }
    }
    drop(sender);
    reading.await?.context("reading the daemon's archive")
}

/// Systems may keep `/tmp` in memory, and `/var/tmp` is for what is large (file-hierarchy(7)).
fn unnamed_file() -> io::Result<File> {
    match std::env::var_os("TMPDIR") {
        Some(folder) if !folder.is_empty() => tempfile::tempfile_in(folder),
        _ if Path::new("/var/tmp").is_dir() => tempfile::tempfile_in("/var/tmp"),
        _ => tempfile::tempfile(),
    }
}

impl Arrived {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }
}

impl Batch {
    pub(super) async fn layer(&self, layer: &Digest) -> Result<Arc<dyn Layer>, Error> {
        self.arrived(layer, |state| state.layers.get(layer).cloned()).await
    }

    pub(super) async fn config(&self, image: &Digest) -> Result<Bytes, Error> {
        self.arrived(image, |state| state.configs.get(image).cloned()).await
    }

    async fn arrived<T>(&self, digest: &Digest, get: impl Fn(&State) -> Option<T>) -> Result<T, Error> {
        loop {
            let changed = self.arrived.changed.notified();
            {
                let state = self.arrived.state.lock().unwrap_or_else(PoisonError::into_inner);
                match (get(&state), &state.end) {
                    (Some(found), _) => return Ok(found),
                    (None, Some(Err(error))) => return Err(Error::msg(error.clone()).context("exporting it from the daemon")),
                    (None, Some(Ok(()))) => anyhow::bail!("the daemon's archive of the image lacks {digest}"),
                    (None, None) => {}
                }
            }
            changed.await;
        }
    }
}

/// What comes in parts, to be read at another pace.
struct Parts {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let Some(part) = self.parts.blocking_recv() else { return Ok(0) };
            self.part = part;
        }
        let length = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_another_image_is_exported_with_it() {
        let image = |layers: &str| layers.bytes().map(|layer| Digest::of(&[layer])).collect::<Vec<_>>();
        let images = ["b", "ba", "bax", "bc", "bcx", "bd", "bdx"];
        let lots = parted(images.map(image).into(), Vec::as_slice, 2);
        let lot_of = |name: &str| lots.iter().position(|lot| lot.contains(&image(name))).expect("in a lot");
        for pair in [["ba", "bax"], ["bc", "bcx"], ["bd", "bdx"]] {
            assert_eq!(lot_of(pair[0]), lot_of(pair[1]), "{pair:?}");
        }
        assert_eq!(lots.iter().map(Vec::len).sum::<usize>(), images.len());
        assert_eq!(lots.len(), 2);
        assert_eq!(parted(vec![image("b")], Vec::as_slice, 2).len(), 1);
        assert!(parted(Vec::new(), |image: &Vec<Digest>| image, 2).is_empty());
    }
}
