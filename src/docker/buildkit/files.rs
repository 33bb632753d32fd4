//! Sends the files of a build to BuildKit (tonistiigi/fsutil, `send.go`): first what there is, then what is asked for.
//!
//! BuildKit asks for a file where size or time differ from what it has; it never looks at content. So the time that is
//! sent carries the content: its nanoseconds are a hash. Layers hold whole seconds, and are the same for it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Error};
use bollard::fsutil::types::Packet;
use bollard::fsutil::types::packet::PacketType;
use bollard::moby::filesync::v1::file_sync_server::FileSync;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;
use url::form_urlencoded;

use super::folder::Folder;
use crate::context::{CHANGED, Kind, open};
use crate::dockerfile::Reads;
use crate::problem::printable;

const CHUNK: usize = 128 << 10;
const PACKETS_AHEAD: usize = 8;
const RULES: &str = ".dockerignore";

/// The folders of one build, by the names that its frontend asks for them.
#[derive(Clone)]
pub(super) struct Files {
    folders: Arc<HashMap<String, Arc<Folder>>>,
    /// What is offered of each folder that is not offered whole.
    parts: Arc<HashMap<String, Reads>>,
    outcome: Arc<Outcome>,
}

/// BuildKit asks for more of a folder than the Dockerfile tells of: what the image that it is FROM defers by `ONBUILD`.
#[derive(Debug)]
pub(super) struct AsksForMore;

impl fmt::Display for AsksForMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the build reads more of its context than its Dockerfile tells of")
    }
}

impl std::error::Error for AsksForMore {}

/// What came of sending.
#[derive(Default)]
struct Outcome {
    /// Bytes of files' content.
    sent: AtomicU64,
    /// Bytes of the files that were asked for.
    asked: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Outcome {
    fn fail(&self, error: Error) {
        self.failure.lock().expect("nobody panics with the lock").get_or_insert(error);
    }
}

impl Files {
    pub(super) fn new(folders: impl IntoIterator<Item = (String, Folder)>, parts: HashMap<String, Reads>) -> Self {
        let folders = folders.into_iter().map(|(name, folder)| (name, Arc::new(folder))).collect();
        Self {
            folders: Arc::new(folders),
            parts: Arc::new(parts),
            outcome: Arc::default(),
        }
    }

    /// For another build of the same.
    pub(super) fn again(&self) -> Self {
        Self {
            outcome: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn folders(&self) -> Arc<HashMap<String, Arc<Folder>>> {
        Arc::clone(&self.folders)
    }

    fn offers(&self, name: &str, asked: Vec<String>) -> bool {
        let asked = if asked.is_empty() { Reads::Whole } else { Reads::of(asked) };
        self.parts.get(name).is_none_or(|part| part.contains(&asked))
    }

    /// How many bytes of files travelled.
    pub(super) fn sent(&self) -> u64 {
        self.outcome.sent.load(Relaxed)
    }

    /// How many bytes the files have that BuildKit asked for until now.
    pub(super) fn asked(&self) -> u64 {
        self.outcome.asked.load(Relaxed)
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
        let name = &told(metadata, "dir-name").pop().unwrap_or_default();
        let asked = told(metadata, "followpaths");
        debug!(
            "BuildKit asks for {} of `{}`",
            if asked.is_empty() { "all".to_owned() } else { asked.join(" ") },
            printable(name)
        );
        let folder = match self.folders.get(name) {
            // to apply them, or to copy them: it may ask once for both
            Some(folder) if asked == [RULES] => Arc::new(folder.only(RULES)),
            Some(_) if !self.offers(name, asked) => {
                self.outcome.fail(AsksForMore.into());
                return Err(Status::aborted(AsksForMore.to_string()));
            }
            Some(folder) => Arc::clone(folder),
            None => return Err(Status::not_found(format!("the build has no folder `{name}`"))),
        };
        let (packets, receiver) = mpsc::channel(PACKETS_AHEAD);
        tokio::spawn(answer(
            Arc::clone(&folder),
            request.into_inner(),
            packets,
            Arc::clone(&self.outcome),
        ));
        let contents = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|packet| (packet, receiver))
        });
        Ok(Response::new(Box::pin(stream::iter(listing(folder).map(Ok)).chain(contents))))
    }

    async fn tar_stream(&self, _request: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("files are sent by DiffCopy"))
    }
}

/// What BuildKit says under this key: as it is, or, where it is not all ASCII, encoded by those that say so (moby/buildkit,
/// `session/filesync`).
fn told(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let is_encoded = metadata.get(format!("{key}-encoded")).is_some_and(|encoded| encoded == "1");
    let values = metadata.get_all(key).iter().map(MetadataValue::as_bytes);
    let plain = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    // what would end a name is encoded in it
    let decoded = |value| form_urlencoded::parse(value).map(|(name, _)| name).collect();
    values.map(|value| if is_encoded { decoded(value) } else { plain(value) }).collect()
}

type Packets = mpsc::Sender<Result<Packet, Status>>;

async fn answer(folder: Arc<Folder>, mut asked: Streaming<Packet>, packets: Packets, outcome: Arc<Outcome>) {
    let (ids, wanted) = std::sync::mpsc::channel();
    let sender = packets.clone();
    let (told, counts) = (Arc::clone(&folder), Arc::clone(&outcome));
    let sending = tokio::task::spawn_blocking(move || {
        let result = send(&folder, &wanted, &sender, &outcome.sent);
        if let Err(error) = result {
            let _ = sender.blocking_send(Err(Status::aborted(format!("{error:#}"))));
            outcome.fail(error);
        }
    });
    while let Ok(Some(packet)) = asked.message().await {
        match packet.r#type() {
            PacketType::PacketReq => {
                counts
                    .asked
                    .fetch_add(told.size(usize::try_from(packet.id).unwrap_or(usize::MAX)), Relaxed);
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

/// Tells what there is, and ends that with an entry without a name.
fn listing(folder: Arc<Folder>) -> impl Iterator<Item = Packet> {
    let stats = folder.stats().map(Some).chain([None]);
    stats.map(|stat| Packet {
        stat,
        ..of_type(PacketType::PacketStat)
    })
}

/// Sends what is `wanted` until nobody asks any more. That nobody takes it is no failure: the builder ends what it asked for where
/// the build fails elsewhere, and says why.
fn send(folder: &Folder, wanted: &std::sync::mpsc::Receiver<u32>, packets: &Packets, sent: &AtomicU64) -> Result<(), Error> {
    while let Ok(id) = wanted.recv() {
        let chunk = |data: &[u8]| -> Result<(), Error> {
            sent.fetch_add(data.len() as u64, Relaxed);
            let packet = Packet {
                id,
                data: data.to_vec(),
                ..of_type(PacketType::PacketData)
            };
            Ok(packets.blocking_send(Ok(packet))?)
        };
        match send_content(folder, usize::try_from(id)?, chunk).and_then(|()| chunk(&[])) {
            Err(error) if error.is::<SendError<Result<Packet, Status>>>() => break,
            sent => sent?,
        }
    }
    Ok(())
}

fn send_content(folder: &Folder, at: usize, mut chunk: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let unknown = "BuildKit asks for a file that it was not told of";
    match folder {
        Folder::Inline(files) => {
            let file = files.get(at).context(unknown)?;
            match file.kind {
                tar::EntryType::Regular => file.content.chunks(CHUNK).try_for_each(chunk),
                _ => Ok(()),
            }
        }
        Folder::Context { context, .. } => {
            let entry = context.entries.get(at).context(unknown)?;
            let Kind::File { size, hash, .. } = &entry.kind else {
                return Ok(());
            };
            let path = context.root.join(&entry.path);
            send_file(open(&path, *size), *size, hash, &mut chunk)
                .with_context(|| format!("sending {}", printable(&path.display().to_string())))
        }
    }
}

fn send_file(
    file: Result<File, Error>,
    size: u64,
    expected: &blake3::Hash,
    mut chunk: impl FnMut(&[u8]) -> Result<(), Error>,
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
    use std::path::Path;

    fn context(files: &[&str]) -> (tempfile::TempDir, Arc<Folder>) {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, file).expect("written");
        }
        let folder = of_folder(dir.path());
        (dir, folder)
    }

    fn of_folder(root: &Path) -> Arc<Folder> {
        let context = walk(root, &Dockerignore::empty()).expect("walked");
        Arc::new(Folder::of_context(Arc::new(context)).expect("names"))
    }

    /// What is sent when everything is asked for.
    fn sent(folder: &Arc<Folder>) -> (Result<(), Error>, Vec<Packet>) {
        let (packets, mut receiver) = mpsc::channel(1000);
        let (ids, wanted) = std::sync::mpsc::channel();
        for id in 0..Arc::clone(folder).stats().count() {
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
        let (_dir, folder) = context(&["a/b", "a-c", "a.d/x", "b"]);
        let paths: Vec<_> = folder.stats().map(|stat| stat.path).collect();
        assert_eq!(paths, ["a", "a/b", "a-c", "a.d", "a.d/x", "b"]);
    }

    #[test]
    fn the_time_carries_the_content_and_keeps_its_second() {
        let (dir, before) = context(&["f"]);
        let first = before.stats().next().expect("a file");
        let time = fs::metadata(dir.path().join("f"))
            .and_then(|metadata| metadata.modified())
            .expect("a time");
        fs::write(dir.path().join("f"), "g").expect("written");
        fs::File::open(dir.path().join("f"))
            .and_then(|file| file.set_modified(time))
            .expect("set");
        let second = of_folder(dir.path()).stats().next().expect("a file");
        assert_eq!(
            (first.size, first.mod_time / 1_000_000_000),
            (second.size, second.mod_time / 1_000_000_000)
        );
        assert_ne!(first.mod_time, second.mod_time);
    }

    #[test]
    fn everything_that_is_asked_for_is_sent() {
        let (_dir, folder) = context(&["a/b", "c"]);
        let (result, packets) = sent(&folder);
        result.expect("sent");
        let data: Vec<_> = packets
            .iter()
            .filter(|packet| packet.r#type() == PacketType::PacketData)
            .map(|packet| (packet.id, packet.data.as_slice()))
            .collect();
        assert_eq!(data, [(0, &b""[..]), (1, b"a/b"), (1, b""), (2, b"c"), (2, b"")]);
    }

    #[test]
    fn that_nobody_takes_a_file_is_no_failure() {
        let (_dir, folder) = context(&["f"]);
        let (packets, receiver) = mpsc::channel(1000);
        drop(receiver);
        let (ids, wanted) = std::sync::mpsc::channel();
        ids.send(0).expect("sent");
        drop(ids);
        send(&folder, &wanted, &packets, &AtomicU64::new(0)).expect("none of ours");
    }

    #[test]
    fn what_buildkit_says_is_decoded_where_it_is_encoded() {
        let mut metadata = MetadataMap::new();
        let mut say = |key: &'static str, value: &[u8]| metadata.append(key, value.try_into().expect("valid"));
        say("followpaths", b"%C3%BC%2Fa%26b%3Dc");
        say("followpaths", b"a+b%2Bc%2541");
        say("followpaths-encoded", b"1");
        say("dir-name", "ü+%41".as_bytes());
        assert_eq!(told(&metadata, "followpaths"), ["ü/a&b=c", "a b+c%41"]);
        assert_eq!(told(&metadata, "dir-name"), ["ü+%41"]);
        assert_eq!(told(&metadata, "include-patterns"), [""; 0]);
    }

    #[test]
    fn one_name_of_a_folder_is_sent_alone() {
        let (_dir, folder) = context(&[RULES, "a/.dockerignore", "b"]);
        let (result, packets) = sent(&Arc::new(folder.only(RULES)));
        result.expect("sent");
        assert_eq!(packets[0].data, RULES.as_bytes());
        assert_eq!(packets.len(), 2);
        assert_eq!(Arc::new(folder.only("none")).stats().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_what_was_hashed_is_not_sent_as_it() {
        let (dir, folder) = context(&["f"]);
        fs::write(dir.path().join("f"), "g").expect("written");
        let (result, _) = sent(&folder);
        assert!(format!("{:#}", result.expect_err("refused")).contains("changed while it was sent"));
    }
}
