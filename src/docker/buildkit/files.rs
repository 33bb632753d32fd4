//! Sends the files of a build to BuildKit (tonistiigi/fsutil, `send.go`): first what there is, then what is asked for.
//!
//! BuildKit asks for a file where size or time differ from what it has; it never looks at content. So the time that is
//! sent carries the content: its nanoseconds are a hash. Layers hold whole seconds, and are the same for it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context as _, Error};
use bollard::fsutil::types::packet::PacketType;
use bollard::fsutil::types::{Packet, Stat};
use bollard::moby::filesync::v1::file_sync_server::FileSync;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::context::{CHANGED, Context, Entry, Inline, Kind, open};

const CHUNK: usize = 128 << 10;
const PACKETS_AHEAD: usize = 32;
const NANOSECONDS: u32 = 1_000_000_000;

/// Bits of a mode as Go's `io/fs` has them, which is how fsutil sends it.
const GO_FOLDER: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_STICKY: u32 = 1 << 20;

/// The folders of one build, by the names that its frontend asks for them.
#[derive(Clone)]
pub(super) struct Files {
    folders: Arc<HashMap<String, Arc<Folder>>>,
    outcome: Arc<Outcome>,
}

/// What came of sending.
#[derive(Default)]
struct Outcome {
    /// Bytes of files' content.
    sent: AtomicU64,
    failure: Mutex<Option<Error>>,
}

/// Entries in the order of their paths' components.
#[derive(Default)]
pub(super) struct Folder(Vec<Sent>);

struct Sent {
    stat: Stat,
    content: Content,
}

enum Content {
    None,
    Bytes(Vec<u8>),
    File { path: PathBuf, size: u64, hash: blake3::Hash },
}

impl Folder {
    /// Hashes the files of a context, on all cores. Blocks.
    pub(super) fn of_context(context: &Context) -> Result<Self, Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let share = context.entries.len().div_ceil(cores).max(1);
        let parts: Vec<Result<Vec<Sent>, Error>> = thread::scope(|scope| {
            let parts = context.entries.chunks(share);
            let workers: Vec<_> = parts
                .map(|part| scope.spawn(|| part.iter().map(|entry| Sent::of_entry(&context.root, entry)).collect()))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("hashing does not panic"))
                .collect()
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Self(parts.into_iter().flatten().collect()))
    }

    pub(super) fn of_inline(files: &[Inline]) -> Self {
        let mut entries: Vec<_> = files.iter().map(Sent::inline).collect();
        entries.sort_by(|a, b| by_components(&a.stat.path, &b.stat.path));
        Self(entries)
    }
}

fn by_components(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

impl Sent {
    fn of_entry(root: &Path, entry: &Entry) -> Result<Self, Error> {
        let mut stat = Stat {
            path: entry
                .path
                .to_str()
                .with_context(|| format!("{} is not a name in UTF-8, which BuildKit needs", entry.path.display()))?
                .to_owned(),
            mode: go_mode(entry.mode),
            mod_time: entry.mtime.saturating_mul(i64::from(NANOSECONDS)),
            ..Stat::default()
        };
        let content = match &entry.kind {
            Kind::Folder => {
                stat.mode |= GO_FOLDER;
                Content::None
            }
            Kind::Link(target) => {
                stat.mode |= GO_LINK;
                stat.linkname = String::from_utf8_lossy(target.as_os_str().as_bytes()).into_owned();
                Content::None
            }
            Kind::File { size, .. } => {
                let path = root.join(&entry.path);
                let hash = hash(&path, *size).with_context(|| format!("reading {}", path.display()))?;
                stat.size = i64::try_from(*size)?;
                stat.mod_time = stat.mod_time.saturating_add(nanoseconds(&hash));
                Content::File { path, size: *size, hash }
            }
        };
        Ok(Self { stat, content })
    }

    fn inline(file: &Inline) -> Self {
        let mut stat = Stat {
            path: file.path.clone(),
            mode: go_mode(file.mode),
            mod_time: nanoseconds(&blake3::hash(&file.content)),
            ..Stat::default()
        };
        let content = match file.kind {
            tar::EntryType::Directory => {
                stat.mode |= GO_FOLDER;
                Content::None
            }
            tar::EntryType::Symlink => {
                stat.mode |= GO_LINK;
                stat.linkname = String::from_utf8_lossy(&file.content).into_owned();
                Content::None
            }
            _ => {
                stat.size = i64::try_from(file.content.len()).unwrap_or(i64::MAX);
                Content::Bytes(file.content.clone())
            }
        };
        Self { stat, content }
    }
}

fn go_mode(mode: u32) -> u32 {
    let bit = |unix: u32, go: u32| if mode & unix == 0 { 0 } else { go };
    (mode & 0o777) | bit(0o4000, GO_SETUID) | bit(0o2000, GO_SETGID) | bit(0o1000, GO_STICKY)
}

fn nanoseconds(hash: &blake3::Hash) -> i64 {
    let [a, b, c, d, ..] = *hash.as_bytes();
    i64::from(u32::from_le_bytes([a, b, c, d]) % NANOSECONDS)
}

fn hash(path: &Path, size: u64) -> Result<blake3::Hash, Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(open(path, size)?.take(size))?;
    Ok(hasher.finalize())
}

impl Files {
    pub(super) fn new(folders: impl IntoIterator<Item = (String, Folder)>) -> Self {
        let folders = folders.into_iter().map(|(name, folder)| (name, Arc::new(folder))).collect();
        Self {
            folders: Arc::new(folders),
            outcome: Arc::default(),
        }
    }

    /// How many bytes of files travelled.
    pub(super) fn sent(&self) -> u64 {
        self.outcome.sent.load(Relaxed)
    }

    /// Why sending broke off, if it did.
    pub(super) fn failure(&self) -> Option<Error> {
        self.outcome.failure.lock().expect("nobody panics with the lock").take()
    }
}

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = BoxStream<'static, Result<Packet, Status>>;
    type TarStreamStream = BoxStream<'static, Result<Packet, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let metadata = request.metadata();
        let name = metadata.get("dir-name").and_then(|name| name.to_str().ok()).unwrap_or_default();
        // `.dockerignore` is applied before anything is sent, so the frontend gets none to apply
        let rules_only = metadata.get_all("followpaths").iter().any(|path| path == ".dockerignore");
        let folder = match self.folders.get(name) {
            Some(_) if rules_only => Arc::default(),
            Some(folder) => Arc::clone(folder),
            None => return Err(Status::not_found(format!("the build has no folder `{name}`"))),
        };
        let (packets, receiver) = mpsc::channel(PACKETS_AHEAD);
        tokio::spawn(answer(folder, request.into_inner(), packets, Arc::clone(&self.outcome)));
        let packets = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|packet| (packet, receiver))
        });
        Ok(Response::new(Box::pin(packets)))
    }

    async fn tar_stream(&self, _request: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("files are sent by DiffCopy"))
    }
}

type Packets = mpsc::Sender<Result<Packet, Status>>;

async fn answer(folder: Arc<Folder>, mut asked: Streaming<Packet>, packets: Packets, outcome: Arc<Outcome>) {
    let (ids, wanted) = std::sync::mpsc::channel();
    let sender = packets.clone();
    let sending = tokio::task::spawn_blocking(move || {
        let result = send(&folder, &wanted, &sender, &outcome.sent);
        if let Err(error) = result {
            let _ = sender.blocking_send(Err(Status::aborted(format!("{error:#}"))));
            outcome.failure.lock().expect("nobody panics with the lock").get_or_insert(error);
        }
    });
    while let Ok(Some(packet)) = asked.message().await {
        match packet.r#type() {
            PacketType::PacketReq => {
                let _ = ids.send(packet.id);
            }
            PacketType::PacketFin => {
                let _ = packets.send(Ok(of_type(PacketType::PacketFin))).await;
                break;
            }
            _ => break,
        }
    }
    drop(ids);
    let _ = sending.await;
}

fn of_type(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}

/// Tells what there is, ends that with an entry without a name, then sends what is `wanted` until nobody asks any more.
fn send(folder: &Folder, wanted: &std::sync::mpsc::Receiver<u32>, packets: &Packets, sent: &AtomicU64) -> Result<(), Error> {
    for entry in &folder.0 {
        packets.blocking_send(Ok(Packet {
            stat: Some(entry.stat.clone()),
            ..of_type(PacketType::PacketStat)
        }))?;
    }
    packets.blocking_send(Ok(of_type(PacketType::PacketStat)))?;
    while let Ok(id) = wanted.recv() {
        let entry = folder
            .0
            .get(usize::try_from(id)?)
            .context("BuildKit asks for a file that it was not told of")?;
        let chunk = |data: &[u8]| -> Result<(), Error> {
            sent.fetch_add(data.len() as u64, Relaxed);
            let packet = Packet {
                id,
                data: data.to_vec(),
                ..of_type(PacketType::PacketData)
            };
            Ok(packets.blocking_send(Ok(packet))?)
        };
        match &entry.content {
            Content::None => {}
            Content::Bytes(bytes) => bytes.chunks(CHUNK).try_for_each(chunk)?,
            Content::File { path, size, hash } => {
                send_file(open(path, *size), *size, hash, chunk).with_context(|| format!("sending {}", path.display()))?;
            }
        }
        chunk(&[])?;
    }
    Ok(())
}

fn send_file(
    file: Result<File, Error>,
    size: u64,
    expected: &blake3::Hash,
    chunk: impl Fn(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut file = file?.take(size);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        chunk(&buffer[..read])?;
    }
    anyhow::ensure!(hasher.finalize() == *expected, CHANGED);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::dockerignore::Dockerignore;
    use crate::context::walk;
    use std::fs;

    fn context(files: &[&str]) -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, file).expect("written");
        }
        let context = walk(dir.path(), &Dockerignore::empty()).expect("walked");
        (dir, context)
    }

    /// What is sent when everything is asked for.
    fn sent(folder: &Folder) -> (Result<(), Error>, Vec<Packet>) {
        let (packets, mut receiver) = mpsc::channel(1000);
        let (ids, wanted) = std::sync::mpsc::channel();
        for id in 0..folder.0.len() {
            ids.send(u32::try_from(id).expect("few")).expect("sent");
        }
        drop(ids);
        let result = send(folder, &wanted, &packets, &AtomicU64::new(0));
        drop(packets);
        let mut all = Vec::new();
        while let Some(packet) = receiver.blocking_recv() {
            all.push(packet.expect("a packet"));
        }
        (result, all)
    }

    #[test]
    fn entries_go_in_the_order_that_fsutil_expects() {
        let (_dir, context) = context(&["a/b", "a-c", "a.d/x", "b"]);
        let folder = Folder::of_context(&context).expect("hashed");
        let paths: Vec<_> = folder.0.iter().map(|entry| entry.stat.path.as_str()).collect();
        assert_eq!(paths, ["a", "a/b", "a-c", "a.d", "a.d/x", "b"]);
        assert!(paths.is_sorted_by(|a, b| by_components(a, b).is_lt()));
    }

    #[test]
    fn the_time_carries_the_content_and_keeps_its_second() {
        let (dir, before) = context(&["f"]);
        let first = Folder::of_context(&before).expect("hashed").0.remove(0).stat;
        let time = fs::metadata(dir.path().join("f"))
            .and_then(|metadata| metadata.modified())
            .expect("a time");
        fs::write(dir.path().join("f"), "g").expect("written");
        fs::File::open(dir.path().join("f"))
            .and_then(|file| file.set_modified(time))
            .expect("set");
        let second = Folder::of_context(&walk(dir.path(), &Dockerignore::empty()).expect("walked"))
            .expect("hashed")
            .0
            .remove(0)
            .stat;
        assert_eq!(
            (first.size, first.mod_time / 1_000_000_000),
            (second.size, second.mod_time / 1_000_000_000)
        );
        assert_ne!(first.mod_time, second.mod_time);
    }

    #[test]
    fn everything_that_is_asked_for_is_sent() {
        let (_dir, context) = context(&["a/b", "c"]);
        let (result, packets) = sent(&Folder::of_context(&context).expect("hashed"));
        result.expect("sent");
        let data: Vec<_> = packets
            .iter()
            .filter(|packet| packet.r#type() == PacketType::PacketData)
            .map(|packet| (packet.id, packet.data.as_slice()))
            .collect();
        assert_eq!(data, [(0, &b""[..]), (1, b"a/b"), (1, b""), (2, b"c"), (2, b"")]);
    }

    #[test]
    fn a_file_that_is_not_what_was_hashed_is_not_sent_as_it() {
        let (dir, context) = context(&["f"]);
        let folder = Folder::of_context(&context).expect("hashed");
        fs::write(dir.path().join("f"), "g").expect("written");
        let (result, _) = sent(&folder);
        assert!(format!("{:#}", result.expect_err("refused")).contains("changed while it was sent"));
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o4755), GO_SETUID | 0o755);
        assert_eq!(go_mode(0o3700), GO_SETGID | GO_STICKY | 0o700);
    }
}
