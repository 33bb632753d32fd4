//! A layer's tar, as a daemon writes it: Go's `archive/tar` with headers in the format `ustar` (moby, `pkg/archive`).

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::tree::{Entry, Tree, What, shown};
use crate::docker::staging::{BLOCK, Layer};
use crate::reference::Digest;

const RECORD: u64 = 512;
/// Two records of zeros.
const END: u64 = 2 * RECORD;
const PREFIX: usize = 155;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// What engines write differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::docker) struct Dialect {
    /// Modes tell what an entry is, as in its inode.
    forms: bool,
    /// The owner is there by name, too.
    names: bool,
}

impl Dialect {
    /// As Docker 28 does, as 20.10, and what may have been between.
    pub(in crate::docker) const ALL: [Self; 3] = [Self::new(false, false), Self::new(true, true), Self::new(true, false)];

    /// As newer versions of `BuildKit` do, too (containerd, `pkg/archive`).
    pub(in crate::docker) const OF_BUILDKIT: Self = Self::ALL[0];
    pub(in crate::docker) const OF_DOCKER_20: Self = Self::ALL[1];

    const fn new(forms: bool, names: bool) -> Self {
        Self { forms, names }
    }
}

/// The entries, and where each begins.
#[derive(Clone)]
pub(super) struct Layout {
    items: Arc<Vec<Item>>,
    pub(super) size: u64,
}

struct Item {
    start: u64,
    path: String,
    entry: Entry,
}

impl Layout {
    /// `None` where a name takes more than `ustar` has room for.
    pub(super) fn of(tree: Tree) -> Option<Self> {
        let (mut items, mut start) = (Vec::with_capacity(tree.len()), 0);
        for (path, entry) in tree {
            let length = size(&entry).next_multiple_of(RECORD);
            header(&path, &entry, Dialect::ALL[0])?;
            items.push(Item { start, path, entry });
            start += RECORD + length;
        }
        Some(Self {
            items: Arc::new(items),
            size: start + END,
        })
    }

    /// Tells the tar from every other, by the hashes of files as they were found. `None` where one of them is not known.
    pub(super) fn sketch(&self, dialect: Dialect) -> Option<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        for item in self.items.iter() {
            hasher.update(header(&item.path, &item.entry, dialect)?.as_bytes());
            if let What::File(content) = &item.entry.what {
                hasher.update(content.hash()?.as_bytes());
                hasher.update(&content.offset.to_le_bytes());
            }
        }
        Some(hasher.finalize())
    }

    /// Blocks.
    ///
    /// # Errors
    /// What cannot be read any more.
    pub(super) fn written(&self, dialect: Dialect) -> io::Result<Tar> {
        let (digest, blocks) = self.hashed(dialect)?;
        Ok(Tar {
            blocks: OnceLock::from(Some(blocks)),
            was_known: false,
            ..self.known(dialect, digest)
        })
    }

    /// The tar that is known to have this digest.
    pub(super) fn known(&self, dialect: Dialect, digest: Digest) -> Tar {
        Tar {
            layout: self.clone(),
            dialect,
            digest,
            blocks: OnceLock::new(),
            was_known: true,
            is_lost: AtomicBool::new(false),
        }
    }

    /// The digest, and the hashes of the blocks. An error where a file is not what it was found to be.
    fn hashed(&self, dialect: Dialect) -> io::Result<(Digest, Vec<blake3::Hash>)> {
        let (mut hasher, mut blocks) = (Sha256::new(), Vec::new());
        let (mut part, mut start) = (vec![0; BLOCK], 0);
        let mut files = Files::of(&self.items);
        while start < self.size {
            let length = usize::try_from(self.size - start).map_or(BLOCK, |rest| rest.min(BLOCK));
            self.read(dialect, start, &mut part[..length])?;
            files.compare(start, &part[..length])?;
            hasher.update(&part[..length]);
            blocks.push(blake3::hash(&part[..length]));
            start += length as u64;
        }
        Ok((Digest::finish(hasher), blocks))
    }

    fn read(&self, dialect: Dialect, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        let items = &self.items;
        let end = start + buffer.len() as u64;
        let first = items.partition_point(|item| item.start <= start).saturating_sub(1);
        for item in items[first..].iter().take_while(|item| item.start < end) {
            overlap(start, buffer.len(), item.start, RECORD, |from, range| {
                let part = &mut buffer[range];
                let header = header(&item.path, &item.entry, dialect).ok_or(io::ErrorKind::InvalidData)?;
                let from = usize::try_from(from).map_err(io::Error::other)?;
                part.copy_from_slice(&header.as_bytes()[from..from + part.len()]);
                Ok(())
            })?;
            if let What::File(content) = &item.entry.what {
                overlap(start, buffer.len(), item.start + RECORD, content.size, |from, range| {
                    content.read_at(from, &mut buffer[range])
                })?;
            }
        }
        Ok(())
    }
}

/// Compares the files in a tar with what they were found to be, while it is read.
struct Files<'i> {
    /// Those that are not read to their ends.
    items: &'i [Item],
    hasher: blake3::Hasher,
}

impl<'i> Files<'i> {
    fn of(items: &'i [Item]) -> Self {
        Self {
            items,
            hasher: blake3::Hasher::new(),
        }
    }

    /// With the next block, which begins at `start`.
    fn compare(&mut self, start: u64, block: &[u8]) -> io::Result<()> {
        while let Some((item, rest)) = self.items.split_first() {
            let (at, size) = (item.start + RECORD, size(&item.entry));
            overlap(start, block.len(), at, size, |_, range| {
                self.hasher.update(&block[range]);
                Ok(())
            })?;
            if at + size > start + block.len() as u64 {
                return Ok(());
            }
            if let What::File(content) = &item.entry.what
                && content.whole().is_some_and(|hash| hash != self.hasher.finalize())
            {
                return Err(io::Error::other("a file changed since it was looked at"));
            }
            self.hasher.reset();
            self.items = rest;
        }
        Ok(())
    }
}

/// A layer's tar, read out of the files that it is made of.
pub(super) struct Tar {
    layout: Layout,
    pub(super) dialect: Dialect,
    pub(super) digest: Digest,
    /// Its digest is from an earlier run.
    pub(super) was_known: bool,
    /// The hashes of what the digest was taken of. Where that was known, they are taken when they are wanted, and are nothing
    /// where the files have changed since.
    blocks: OnceLock<Option<Vec<blake3::Hash>>>,
    is_lost: AtomicBool,
}

impl Tar {
    fn blocks(&self) -> Option<&Vec<blake3::Hash>> {
        let blocks = self.blocks.get_or_init(|| {
            let hashed = self.layout.hashed(self.dialect).ok();
            hashed.filter(|(digest, _)| *digest == self.digest).map(|(_, blocks)| blocks)
        });
        blocks.as_ref()
    }
}

impl Layer for Tar {
    fn size(&self) -> u64 {
        self.layout.size
    }

    fn read_block(&self, start: u64, block: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(start / BLOCK as u64).map_err(io::Error::other)?;
        let read = |block: &mut [u8]| self.layout.read(self.dialect, start, block).is_ok();
        let is_same = self.blocks().is_some_and(|blocks| read(block) && blake3::hash(block) == blocks[at]);
        self.is_lost.fetch_or(!is_same, Relaxed);
        is_same
            .then_some(())
            .ok_or_else(|| io::Error::other("a file changed after the build"))
    }

    fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }
}

/// Of a buffer of this length, which begins at `start`: what `size` bytes from `at` on are in it, and from which of them on.
fn overlap(start: u64, length: usize, at: u64, size: u64, with: impl FnOnce(u64, Range<usize>) -> io::Result<()>) -> io::Result<()> {
    let from = at.max(start);
    let to = (at + size).min(start + length as u64);
    if from >= to {
        return Ok(());
    }
    let place = |offset: u64| usize::try_from(offset - start).map_err(io::Error::other);
    with(from - at, place(from)?..place(to)?)
}

fn size(entry: &Entry) -> u64 {
    match &entry.what {
        What::File(content) => content.size,
        What::Folder | What::Link(_) => 0,
    }
}

fn header(path: &str, entry: &Entry, dialect: Dialect) -> Option<Header> {
    let mut path = shown(path);
    let (kind, form) = match &entry.what {
        What::Folder => (EntryType::Directory, FOLDER),
        What::Link(_) => (EntryType::Symlink, LINK),
        What::File(_) => (EntryType::Regular, FILE),
    };
    if let What::Folder = entry.what {
        path.push('/');
    }
    let mut header = Header::new_ustar();
    let fields = header.as_ustar_mut()?;
    let (prefix, name) = split(&path, fields.name.len())?;
    put(&mut fields.prefix, prefix)?;
    put(&mut fields.name, name)?;
    if let What::Link(target) = &entry.what {
        put(&mut fields.linkname, target)?;
    }
    header.set_entry_type(kind);
    header.set_mode(entry.mode | if dialect.forms { form } else { 0 });
    header.set_uid(0);
    header.set_gid(0);
    // larger ones have a header of another format
    if size(entry) >> 33 > 0 {
        return None;
    }
    header.set_size(size(entry));
    header.set_device_major(0).ok()?;
    header.set_device_minor(0).ok()?;
    header.set_mtime(u64::try_from(entry.mtime).ok()?);
    if let Some(fields) = header.as_ustar_mut().filter(|_| dialect.names) {
        put(&mut fields.uname, "root")?;
        put(&mut fields.gname, "root")?;
    }
    header.set_cksum();
    // six digits, NUL and a space
    let digits = header.as_old().cksum;
    let sum = &mut header.as_old_mut().cksum;
    sum[..6].copy_from_slice(&digits[1..7]);
    sum[6..].copy_from_slice(b"\0 ");
    Some(header)
}

fn put(field: &mut [u8], text: &str) -> Option<()> {
    let is_plain = text.is_ascii() && text.len() <= field.len();
    is_plain.then(|| field[..text.len()].copy_from_slice(text.as_bytes()))
}

/// A long path is parted at the last slash before which the prefix has room for it.
fn split(path: &str, room: usize) -> Option<(&str, &str)> {
    if path.len() <= room {
        return Some(("", path));
    }
    let last = path.len().min(PREFIX + 1);
    let last = if last == path.len() { last - 1 } else { last };
    let (prefix, _) = path.get(..last)?.rsplit_once('/')?;
    let name = &path[prefix.len() + 1..];
    (!prefix.is_empty() && !name.is_empty() && name.len() <= room).then_some((prefix, name))
}

#[cfg(test)]
mod tests {
    use super::super::tree::Content;
    use super::*;
    use crate::context::dockerignore::Dockerignore;
    use crate::context::{Inline, walk};
    use crate::docker::buildkit::folder::Folder;
    use std::fs;

    fn tree(size: usize) -> Tree {
        let content: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
        let folder = Arc::new(Folder::of_inline(&[Inline::file("f", &content, 0o644)]));
        let file = What::File(Content {
            folder,
            at: 0,
            offset: 0,
            size: size as u64,
            nanoseconds: 0,
        });
        let entry = |what, mode, mtime| Entry { what, mode, mtime };
        Tree::from([
            ("app\0".to_owned(), entry(What::Folder, 0o755, 0o15_301_200_206)),
            ("app\0file\0".to_owned(), entry(file, 0o644, 7)),
            ("app.d\0".to_owned(), entry(What::Link("app".to_owned()), 0o777, 8)),
        ])
    }

    #[test]
    fn a_header_is_as_a_daemon_writes_it() {
        let layout = Layout::of(tree(3)).expect("short names");
        let mut bytes = vec![0; usize::try_from(layout.size).expect("small")];
        layout.read(Dialect::ALL[1], 0, &mut bytes).expect("read");
        // of a folder that Docker 20.10 has made
        let text = String::from_utf8(bytes[..512].to_vec()).expect("text").replace('\0', ".");
        let shown: Vec<&str> = text.split("...").filter(|part| !part.is_empty()).collect();
        let numbers = "0040755.0000000.0000000.00000000000.15301200206.011625. 5";
        let ends: Vec<&str> = shown.iter().map(|part| part.trim_start_matches('.')).collect();
        assert_eq!(ends, ["app/", numbers, "ustar.00root", "root", "0000000.0000000"]);
    }

    #[test]
    fn it_reads_the_same_in_any_parts_and_any_tar_reader_takes_it() {
        for size in [0, 1, 511, 512, 513, BLOCK, 2 * BLOCK + 9] {
            let layout = Layout::of(tree(size)).expect("short names");
            let tar = layout.written(Dialect::ALL[1]).expect("read");
            let mut whole = vec![0; usize::try_from(layout.size).expect("small")];
            layout.read(Dialect::ALL[1], 0, &mut whole).expect("read");
            assert_eq!(Digest::of(&whole), tar.digest);
            for length in [100, 700, BLOCK] {
                let parts = whole.chunks(length).enumerate();
                for (at, expected) in parts {
                    let mut part = vec![9; expected.len()];
                    layout.read(Dialect::ALL[1], (at * length) as u64, &mut part).expect("read");
                    assert!(part == expected, "{size} bytes, part {at} of {length}");
                }
            }
            let mut archive = ::tar::Archive::new(&whole[..]);
            let entries = archive.entries().expect("a tar").map(|entry| {
                let entry = entry.expect("an entry");
                (entry.path().expect("a path").display().to_string(), entry.size())
            });
            let expected = [("app/", 0), ("app/file", size as u64), ("app.d", 0)];
            assert!(entries.eq(expected.map(|(path, size)| (path.to_owned(), size))), "{size}");
        }
    }

    #[test]
    fn another_content_than_was_hashed_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("f"), vec![1; 2 * BLOCK]).expect("written");
        let walked = walk(dir.path(), &Dockerignore::empty()).expect("walked");
        let folder = Arc::new(Folder::of_context(Arc::new(walked)).expect("names"));
        let mut tree = tree(0);
        let content = Content {
            folder,
            at: 0,
            offset: 0,
            size: 2 * BLOCK as u64,
            nanoseconds: 0,
        };
        tree.get_mut("app\0file\0").expect("the file").what = What::File(content);
        let layout = Layout::of(tree).expect("short");
        let tar = layout.written(Dialect::ALL[1]).expect("read");
        let known = layout.known(Dialect::ALL[1], tar.digest.clone());
        let (mut one, mut other) = (vec![0; BLOCK], vec![0; BLOCK]);
        known.read_block(BLOCK as u64, &mut one).expect("as it was");
        tar.read_block(BLOCK as u64, &mut other).expect("as it was");
        assert!(one == other && !known.is_lost());
        let wrong = layout.known(Dialect::ALL[1], Digest::of(b"another"));
        wrong.read_block(0, &mut one).expect_err("another tar");
        assert!(wrong.is_lost());
        let mut block = vec![0; BLOCK];
        tar.read_block(0, &mut block).expect("as it was");
        assert!(!tar.is_lost());
        fs::write(dir.path().join("f"), vec![2; 2 * BLOCK]).expect("written");
        tar.read_block(BLOCK as u64, &mut block).expect_err("changed");
        assert!(tar.is_lost());
        fs::remove_file(dir.path().join("f")).expect("removed");
        tar.read_block(0, &mut block).expect_err("gone");
    }

    #[test]
    fn long_paths_are_parted_as_ustar_has_it() {
        let (folder, name) = ("a".repeat(60), "b".repeat(90));
        let path = format!("{folder}/{name}");
        assert_eq!(split(&path, 100), Some((folder.as_str(), name.as_str())));
        assert_eq!(split("short", 100), Some(("", "short")));
        let folders = format!("{folder}/{folder}/");
        assert_eq!(split(&folders, 100), Some((folder.as_str(), &folders[61..])));
        assert!(split(&"c".repeat(101), 100).is_none());
        assert!(split(&format!("{}/d", "c".repeat(156)), 100).is_none());
        assert!(put(&mut [0; 9], "é").is_none());
    }
}
