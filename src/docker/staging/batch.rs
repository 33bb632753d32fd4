//! Exports images from the daemon, as many at once as wait for it: what they share comes only once then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Error};
use bollard::Docker;
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use tokio::sync::{Mutex as Turn, Notify, OwnedMutexGuard, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::archive::{self, Found, Layer, Wanted};
use crate::docker::said;
use crate::reference::Digest;

/// Parts of an archive that wait to be read.
const PARTS: usize = 8;

/// Images that wait for an export.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    turn: Arc<Turn<()>>,
}

struct Waiting {
    image: Digest,
    layers: Vec<Digest>,
    tell: oneshot::Sender<Arc<Batch>>,
}

impl Queue {
    /// The export that has the image's configuration and these of its layers.
    pub(super) async fn export(&self, docker: &Docker, image: &Digest, layers: Vec<Digest>) -> Result<Arc<Batch>, Error> {
        let (tell, mut told) = oneshot::channel();
        let image = image.clone();
        self.lock().push(Waiting { image, layers, tell });
        tokio::select! {
            biased;
            batch = &mut told => return Ok(batch?),
            turn = Arc::clone(&self.turn).lock_owned() => {
                let waiting = std::mem::take(&mut *self.lock());
                if !waiting.is_empty() {
                    begin(docker.clone(), waiting, turn);
                }
            }
        }
        Ok(told.await?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
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
    layers: BTreeMap<Digest, Arc<Layer>>,
    configs: BTreeMap<Digest, Bytes>,
    /// How it ended.
    end: Option<Result<(), String>>,
}

fn begin(docker: Docker, waiting: Vec<Waiting>, turn: OwnedMutexGuard<()>) {
    let arrived = Arc::new(Arrived::default());
    let wanted = Wanted {
        layers: waiting.iter().flat_map(|waiting| waiting.layers.clone()).collect(),
        configs: waiting.iter().map(|waiting| waiting.image.clone()).collect(),
    };
    let into = Arc::clone(&arrived);
    let reading = tokio::spawn(async move {
        let _turn = turn;
        debug!(
            "the daemon exports {} images for {} new layers",
            wanted.configs.len(),
            wanted.layers.len()
        );
        let end = export(docker, wanted, Arc::clone(&into)).await;
        into.change(|state| state.end = Some(end.map_err(|error| format!("{error:#}"))));
    });
    let batch = Arc::new(Batch {
        arrived,
        _reading: AbortOnDropHandle::new(reading),
    });
    for waiting in waiting {
        // who was stopped does not wait any more
        let _ = waiting.tell.send(Arc::clone(&batch));
    }
}

async fn export(docker: Docker, wanted: Wanted, into: Arc<Arrived>) -> Result<(), Error> {
    let (sender, parts) = mpsc::channel(PARTS);
    let images: Vec<String> = wanted.configs.iter().map(ToString::to_string).collect();
    let reading = spawn_blocking(move || {
        let tell = |digest, found| {
            into.change(|state| match found {
                Found::Layer(layer) => drop(state.layers.insert(digest, Arc::new(layer))),
                Found::Config(content) => drop(state.configs.insert(digest, content)),
            });
        };
        archive::read(Parts { parts, part: Bytes::new() }, &wanted, unnamed_file, tell)
    });
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let mut archive = Box::pin(docker.export_images(&images));
    while let Some(part) = archive.next().await {
        if sender.send(part.map_err(said)?).await.is_err() {
            break;
        }
    }
    drop(sender);
    reading.await?.context("the daemon's archive of the images cannot be read")
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
    pub(super) async fn layer(&self, layer: &Digest) -> Result<Arc<Layer>, Error> {
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
