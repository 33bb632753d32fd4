//! A context as a tar stream: nothing of it is ever held whole.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Error, bail};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Context, Entry, Kind, shown};

const CHUNK: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 4;
const O_NOFOLLOW: i32 = libc::O_NOFOLLOW;

/// A file that is sent besides the context's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inline {
    /// Relative to the context's root.
    pub path: String,
    pub content: Bytes,
    pub mode: u32,
    pub kind: EntryType,
}

impl Inline {
    #[must_use]
    pub fn file(path: &str, content: &[u8], mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            content: Bytes::copy_from_slice(content),
            mode,
            kind: EntryType::Regular,
        }
    }
}

/// The tar as chunks, and the task that writes it: its error is the cause where the stream breaks off.
pub fn stream(
    context: Arc<Context>,
    inline: Vec<Inline>,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    JoinHandle<Result<u64, Error>>,
) {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let writer = tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks {
            sender,
            buffer: BytesMut::with_capacity(CHUNK),
            sent: 0,
        };
        let result = write(&context, &inline, &mut chunks);
        if result.is_err() {
            // the daemon must not take what was sent so far for the whole
            let _ = chunks.sender.blocking_send(Err(io::Error::other("the context broke off")));
        }
        result.map(|()| chunks.sent)
    });
    let chunks = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    (chunks, writer)
}

struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
    sent: u64,
}

impl Write for Chunks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK)).freeze();
        self.sent += chunk.len() as u64;
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A tar of these files alone.
///
/// # Errors
/// When a name cannot stand in a tar.
pub fn archive(files: &[Inline]) -> Result<Vec<u8>, Error> {
    let mut tar = Builder::new(Vec::new());
    for file in files {
        append_inline(&mut tar, file)?;
    }
    Ok(tar.into_inner()?)
}

fn write(context: &Context, inline: &[Inline], chunks: &mut Chunks) -> Result<(), Error> {
    let mut tar = Builder::new(chunks);
    let mut seen = HashMap::new();
    for entry in &context.entries {
        append(&mut tar, context, entry, &mut seen)?;
    }
    for file in inline {
        append_inline(&mut tar, file)?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn append<'c>(
    tar: &mut Builder<impl Write>,
    context: &'c Context,
    entry: &'c Entry,
    seen: &mut HashMap<(u64, u64), &'c Path>,
) -> Result<(), Error> {
    let mut header = header(entry.mode, entry.mtime);
    match &entry.kind {
        Kind::Folder => {
            header.set_entry_type(EntryType::Directory);
            named(tar, &mut header, &entry.path, None, io::empty())
        }
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            named(tar, &mut header, &entry.path, Some(target), io::empty())
        }
        Kind::File { shared: Some(id), .. } if seen.contains_key(id) => {
            header.set_entry_type(EntryType::Link);
            named(tar, &mut header, &entry.path, Some(seen[id]), io::empty())
        }
        Kind::File { size, shared, hash, .. } => {
            if let Some(id) = shared {
                seen.insert(**id, &entry.path);
            }
            let full = context.root.join(&entry.path);
            let file = open(&full, *size).with_context(|| format!("reading {}", shown(&full)))?;
            header.set_entry_type(EntryType::Regular);
            header.set_size(*size);
            named(tar, &mut header, &entry.path, None, Exactly::new(file, *size, *hash))
        }
    }
    .with_context(|| format!("sending {}", shown(&entry.path)))
}

fn append_inline(tar: &mut Builder<impl Write>, file: &Inline) -> Result<(), Error> {
    let mut header = header(file.mode, 0);
    header.set_entry_type(file.kind);
    let path = Path::new(&file.path);
    if file.kind == EntryType::Symlink {
        return Ok(named(
            tar,
            &mut header,
            path,
            Some(Path::new(std::ffi::OsStr::from_bytes(&file.content))),
            io::empty(),
        )?);
    }
    header.set_size(file.content.len() as u64);
    Ok(named(tar, &mut header, path, None, &file.content[..])?)
}

fn header(mode: u32, mtime: i64) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(mode);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

/// Appends an entry with names of any length and any bytes: what the header cannot hold goes into a PAX record (POSIX pax, "path" and "linkpath").
fn named(tar: &mut Builder<impl Write>, header: &mut Header, path: &Path, link: Option<&Path>, data: impl Read) -> io::Result<()> {
    let path = path.as_os_str().as_bytes();
    let link = link.map(|link| link.as_os_str().as_bytes()).unwrap_or_default();
    let old = header.as_old_mut();
    let long_path = put(&mut old.name, path);
    let long_link = put(&mut old.linkname, link);
    let records = [("path", path, long_path), ("linkpath", link, long_link)];
    if long_path || long_link {
        tar.append_pax_extensions(records.into_iter().filter(|(.., long)| *long).map(|(key, value, _)| (key, value)))?;
    }
    header.set_cksum();
    tar.append(header, data)
}

fn put(field: &mut [u8], name: &[u8]) -> bool {
    let fits = name.len().min(field.len());
    field[..fits].copy_from_slice(&name[..fits]);
    name.len() > field.len()
}

/// Opens a file of the context without following a link that may have taken its place since the walk.
///
/// # Errors
/// When it cannot be opened, or its size is not `size` any more.
pub fn open(path: &Path, size: u64) -> Result<File, Error> {
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(path)?;
    if file.metadata()?.len() != size {
        bail!(CHANGED);
    }
    Ok(file)
}

/// What is said of a file that is not the one that was looked at before.
pub const CHANGED: &str = "it changed while it was sent; run again when the context is at rest";

/// Reads as many bytes as the header promised, and those that were hashed, or fails.
struct Exactly {
    file: File,
    left: u64,
    expected: blake3::Hash,
    read: blake3::Hasher,
}

impl Exactly {
    fn new(file: File, size: u64, expected: blake3::Hash) -> Self {
        Self {
            file,
            left: size,
            expected,
            read: blake3::Hasher::new(),
        }
    }
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..room])?;
        self.left -= read as u64;
        self.read.update(&buffer[..read]);
        let is_end = self.left == 0 && room > 0;
        if (read == 0 && room > 0) || (is_end && self.read.finalize() != self.expected) {
            return Err(io::Error::other(CHANGED));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dockerignore::Dockerignore;
    use super::super::tree::walk;
    use super::*;
    use futures_util::StreamExt;
    use std::fs;
    use std::os::unix::fs::symlink;

    async fn collect(root: &Path, inline: Vec<Inline>) -> Result<Vec<u8>, Error> {
        let context = walk(root, &Dockerignore::empty())?;
        let (chunks, writer) = stream(Arc::new(context), inline);
        let mut chunks = std::pin::pin!(chunks);
        let mut tar = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => tar.extend_from_slice(&chunk),
                Err(_) => break,
            }
        }
        assert_eq!(writer.await??, tar.len() as u64);
        Ok(tar)
    }

    #[tokio::test]
    async fn long_names_links_and_hard_links_arrive() {
        let dir = tempfile::tempdir().expect("a folder");
        let deep = dir.path().join("é".repeat(60)).join("n".repeat(200));
        fs::create_dir_all(deep.parent().expect("a parent")).expect("created");
        fs::write(&deep, vec![7; 600_000]).expect("written");
        fs::hard_link(&deep, dir.path().join("zz")).expect("linked");
        symlink("x/".repeat(90), dir.path().join("link")).expect("linked");
        let tar = collect(dir.path(), vec![Inline::file("D", b"FROM scratch", 0o600)])
            .await
            .expect("sent");

        let out = tempfile::tempdir().expect("a folder");
        let mut archive = ::tar::Archive::new(tar.as_slice());
        archive.unpack(out.path()).expect("unpacked");
        let copy = out.path().join(deep.strip_prefix(dir.path()).expect("below"));
        assert_eq!(fs::read(copy).expect("read"), vec![7; 600_000]);
        assert_eq!(fs::read(out.path().join("zz")).expect("read").len(), 600_000);
        assert_eq!(fs::read_link(out.path().join("link")).expect("read"), Path::new(&"x/".repeat(90)));
        assert_eq!(fs::read(out.path().join("D")).expect("read"), b"FROM scratch");
    }

    #[tokio::test]
    async fn a_file_that_changed_since_the_walk_breaks_the_stream() {
        for other in ["short", "length"] {
            breaks_with(other).await;
        }
    }

    async fn breaks_with(other: &str) {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("f"), "longer").expect("written");
        let context = walk(dir.path(), &Dockerignore::empty()).expect("walked");
        fs::write(dir.path().join("f"), other).expect("written");
        let (chunks, writer) = stream(Arc::new(context), Vec::new());
        let chunks: Vec<_> = chunks.collect().await;
        assert!(chunks.last().expect("a chunk").is_err());
        let error = writer.await.expect("no panic").expect_err("refused");
        assert!(format!("{error:#}").contains("changed while it was sent"), "{error:#}");
    }
}
