//! A context as a build reads it: what is there, and what is in it.

use std::cmp::Ordering;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context as _, Error, ensure};
use blake3::Hash;

use super::dockerignore::Dockerignore;
use super::hashes::{HashCache, Known, Stamp, is_young};
use super::selection::Selection;
use super::walk::{list, visit};
use super::{CHANGED, open, shown};
use crate::dockerfile::Reads;
use crate::machine::cores;

/// The entries of a context in the order of their paths' components, a folder before what is in it.
#[derive(Debug)]
pub struct Context {
    pub root: PathBuf,
    pub entries: Vec<Entry>,
    /// Entries that are sent otherwise than somebody may expect, or not at all.
    pub notes: Vec<String>,
    ignore: Dockerignore,
    reads: Reads,
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative to the context's root.
    pub path: Box<Path>,
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bits, without the group's write bit: it differs between clones
    /// under umask 002 and 022.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File {
        size: u64,
        /// Device and inode, where the file has more names than one.
        shared: Option<Box<(u64, u64)>>,
        stamp: Stamp,
        /// Of the content.
        hash: Hash,
    },
    Link(PathBuf),
}

/// In place of a hash that is not known yet.
pub(super) const UNHASHED: Hash = Hash::from_bytes([0; blake3::OUT_LEN]);

impl Context {
    /// Reads what `reads` selects and `ignore` leaves of the folder `root`. Only files that `cache` does not know are opened.
    ///
    /// # Errors
    /// A file that cannot be read, or changes while it is; a device or FIFO, which no image can get from a context.
    pub fn read(root: &Path, ignore: &Dockerignore, reads: &Reads, cache: &HashCache) -> Result<Self, Error> {
        let known = cache.of(root);
        let mut listing = list(root, ignore, &Selection::new(reads, root))?;
        hash_all(root, &mut listing.entries, &known)?;
        known.save();
        Ok(Self {
            root: root.to_owned(),
            entries: listing.entries,
            notes: listing.notes,
            ignore: ignore.clone(),
            reads: reads.clone(),
        })
    }

    /// A path that is not as it was read: another look at the folder, in which only what has another stamp is opened. Blocks.
    ///
    /// # Errors
    /// What cannot be read any more.
    pub fn changed(&self) -> Result<Option<PathBuf>, Error> {
        let selection = Selection::new(&self.reads, &self.root);
        if self.entries.is_empty() && self.root.as_os_str().is_empty() || self.is_as_listed(&selection)? {
            return Ok(None);
        }
        let now = list(&self.root, &self.ignore, &selection)?.entries;
        for at in 0..self.entries.len().max(now.len()) {
            match (self.entries.get(at), now.get(at)) {
                (Some(before), Some(after)) if before.is_still(&self.root, after)? => {}
                (Some(before), Some(after)) => return Ok(Some(before.path.clone().min(after.path.clone()).into())),
                (Some(one), None) | (None, Some(one)) => return Ok(Some(one.path.clone().into())),
                (None, None) => {}
            }
        }
        Ok(None)
    }

    /// Whether everything is there with the stamp that it had, and nothing else. It takes next to no memory.
    fn is_as_listed(&self, selection: &Selection) -> Result<bool, Error> {
        let seen = AtomicUsize::new(0);
        let differs = AtomicBool::new(false);
        visit(&self.root, &self.ignore, selection, &|entry, kept| {
            let found = self.entries.binary_search_by(|before| in_order(&before.path, &entry.path));
            match found.map(|at| &self.entries[at]) {
                Ok(before) if before.kind.is_alike(&entry.kind) && before.mode == entry.mode => drop(seen.fetch_add(1, Relaxed)),
                Err(_) if !kept => {}
                _ => differs.store(true, Relaxed),
            }
        })?;
        Ok(!differs.into_inner() && seen.into_inner() == self.entries.len())
    }

    /// The part of it that is at this path alone, if there is something.
    #[must_use]
    pub fn only(&self, path: &Path) -> Self {
        Self {
            root: self.root.clone(),
            entries: self.entries.iter().filter(|entry| *entry.path == *path).cloned().collect(),
            ..Self::empty()
        }
    }

    /// A context with nothing in it.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            root: PathBuf::new(),
            entries: Vec::new(),
            notes: Vec::new(),
            ignore: Dockerignore::empty(),
            reads: Reads::Whole,
        }
    }
}

fn hash_all(root: &Path, entries: &mut [Entry], known: &Known) -> Result<(), Error> {
    let mut unknown = Vec::new();
    for entry in entries {
        if let Kind::File { stamp, hash, .. } = &mut entry.kind {
            match known.get(stamp) {
                Some(found) => *hash = found,
                None => unknown.push(entry),
            }
        }
    }
    let unknown = Mutex::new(unknown.into_iter());
    let next = || unknown.lock().expect("nobody panics with the lock").next();
    let work = || {
        while let Some(entry) = next() {
            entry.hash(root, known)?;
        }
        Ok(())
    };
    let left = || unknown.lock().expect("nobody panics with the lock").len();
    thread::scope(|scope| {
        let workers: Vec<_> = (1..cores().min(left())).map(|_| scope.spawn(work)).collect();
        let mine = work();
        let all = workers.into_iter().map(|worker| worker.join().expect("hashing does not panic"));
        all.fold(mine, Result::and)
    })
}

/// As the entries are: by components.
fn in_order(a: &Path, b: &Path) -> Ordering {
    let a = a.as_os_str().as_bytes().iter();
    let b = b.as_os_str().as_bytes().iter();
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.map(rank).cmp(b.map(rank))
}

impl Kind {
    /// Whether nothing tells that it has become another.
    fn is_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { stamp, .. }, Self::File { stamp: other, .. }) => stamp == other,
            (one, other) => one == other,
        }
    }
}

impl Entry {
    /// Whether `now` is this entry, whatever its times are.
    fn is_still(&self, root: &Path, now: &Self) -> Result<bool, Error> {
        if self.path != now.path || self.mode != now.mode {
            return Ok(false);
        }
        match (&self.kind, &now.kind) {
            (one, other) if one.is_alike(other) => Ok(true),
            (Kind::File { size, hash, .. }, Kind::File { size: other, stamp, .. }) if size == other => {
                let full = root.join(&self.path);
                let (content, _) = now.read(&full, *size, stamp).with_context(|| format!("reading {}", shown(&full)))?;
                Ok(content == *hash)
            }
            _ => Ok(false),
        }
    }

    fn hash(&mut self, root: &Path, known: &Known) -> Result<(), Error> {
        let Kind::File { size, stamp, .. } = self.kind else {
            return Ok(());
        };
        let full = root.join(&self.path);
        let read = self.read(&full, size, &stamp);
        let (found, young) = read.with_context(|| format!("reading {}", shown(&full)))?;
        if !young {
            known.learn(stamp, found);
        }
        if let Kind::File { hash, .. } = &mut self.kind {
            *hash = found;
        }
        Ok(())
    }

    /// The hash of the content, and whether the file is too young for its stamp to tell.
    fn read(&self, full: &Path, size: u64, stamp: &Stamp) -> Result<(Hash, bool), Error> {
        let look = SystemTime::now();
        let file = open(full, size)?;
        let hash = hash(&file, size)?;
        let metadata = file.metadata()?;
        ensure!(Stamp::new(&self.path, &metadata) == *stamp, CHANGED);
        Ok((hash, is_young(full, &metadata, look)))
    }
}

fn hash(file: &File, size: u64) -> Result<Hash, Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(size))?;
    Ok(hasher.finalize())
}

/// All of a folder, nothing of it known before.
#[cfg(test)]
pub(crate) fn walk(root: &Path, ignore: &Dockerignore) -> Result<Context, Error> {
    Context::read(root, ignore, &Reads::Whole, &HashCache::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    type Change = fn(&Path);

    fn write(root: &Path, path: &str, content: &str) {
        fs::create_dir_all(root.join(path).parent().expect("a parent")).expect("created");
        fs::write(root.join(path), content).expect("written");
    }

    #[test]
    fn what_changed_since_is_named() {
        let cases: [(Option<&str>, Change); 11] = [
            (None, |_| {}),
            (None, |root| write(root, "a/f", "1")),
            (None, |root| write(root, "excluded", "other")),
            (None, |root| fs::create_dir(root.join("empty")).expect("created")),
            (Some("a/f"), |root| write(root, "a/f", "2")),
            (Some("a/f"), |root| write(root, "a/f", "longer")),
            (Some("a/f"), |root| {
                fs::set_permissions(root.join("a/f"), Permissions::from_mode(0o700)).expect("changed");
            }),
            (Some("a/new"), |root| write(root, "a/new", "")),
            (Some("a/g"), |root| fs::remove_file(root.join("a/g")).expect("removed")),
            (Some("a/g"), |root| {
                fs::remove_file(root.join("a/g")).expect("removed");
                symlink("f", root.join("a/g")).expect("linked");
            }),
            (Some("empty/kept"), |root| write(root, "empty/kept", "")),
        ];
        for (named, change) in cases {
            let dir = tempfile::tempdir().expect("a folder");
            let root = dir.path();
            for path in ["a/f", "a/g", "b", "excluded"] {
                write(root, path, "1");
            }
            let ignore = Dockerignore::parse(b"excluded\nempty\n!empty/kept\n").expect("rules");
            let context = Context::read(root, &ignore, &Reads::Whole, &HashCache::default()).expect("read");
            change(root);
            let expected = match named {
                // the folder comes with what is kept in it
                Some("empty/kept") => Some(PathBuf::from("empty")),
                named => named.map(PathBuf::from),
            };
            assert_eq!(context.changed().expect("read"), expected, "{named:?}");
        }
    }

    #[test]
    fn a_second_look_opens_nothing_and_finds_the_same() {
        let (dir, cache) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        write(dir.path(), "f", "1");
        let file = File::open(dir.path().join("f")).expect("opened");
        let cache = HashCache::new(Some(cache.path()));
        let read = || Context::read(dir.path(), &Dockerignore::empty(), &Reads::Whole, &cache);
        let hash = |context: &Context| match context.entries[0].kind {
            Kind::File { hash, .. } => hash,
            _ => UNHASHED,
        };
        assert_eq!(hash(&read().expect("read")), blake3::hash(b"1"));
        // too young to be believed: the content counts, whatever its times are
        fs::write(dir.path().join("f"), "2").expect("written");
        assert_eq!(hash(&read().expect("read")), blake3::hash(b"2"));
        // once it is old enough, it is not opened any more
        let known = cache.of(dir.path());
        let stamp = Stamp::new(Path::new("f"), &file.metadata().expect("metadata"));
        known.learn(stamp, blake3::hash(b"known"));
        known.save();
        assert_eq!(hash(&read().expect("read")), blake3::hash(b"known"));
    }
}
