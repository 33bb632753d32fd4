//! Hashes of files, kept from run to run, so that the second look at a file is a stat.
//!
//! Each context folder has a file of records, sorted and of one length: a [`Stamp`] and the hash of what was found under
//! it. A hash is asked for by a stamp alone, so what is kept of a file that has changed since is never found. What is not
//! whole, or not of this folder and format, counts as nothing.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use blake3::Hash;

use crate::atomic;

/// It names the format; another one gets another.
const MAGIC: &[u8; 16] = b"lattice-hashes-1";
const STAMP: usize = 16;
const HEADER: usize = MAGIC.len() + blake3::OUT_LEN;
const RECORD: usize = STAMP + blake3::OUT_LEN;
/// For a folder; 96 MB of records.
const MOST_RECORDS: usize = 2_000_000;
const MOST_FOLDERS: usize = 2_000;
/// Records of files that were not looked at are kept if they are not many more than the others.
const SPARE_RECORDS: usize = 1_000;
/// A file as young as this can change again without any sign: clocks of file systems tick slowly, some in two seconds.
const YOUNG: Duration = Duration::from_secs(2);
/// The same where the kernel's clock gives the times: it ticks a hundred times a second at least (Linux, `CONFIG_HZ`), and a write
/// gives the time at which it began.
const YOUNG_BY_KERNEL: Duration = Duration::from_millis(20);

/// What tells one state of a file from every other: a digest of path, device, inode, size, and the times of the last
/// change of content (mtime) and of anything (ctime).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp([u8; STAMP]);

impl Stamp {
    /// `path` is relative to the context.
    #[must_use]
    pub fn new(path: &Path, metadata: &Metadata) -> Self {
        let mut hasher = blake3::Hasher::new();
        let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        for number in [metadata.dev(), metadata.ino(), metadata.size()] {
            hasher.update(&number.to_le_bytes());
        }
        for number in times {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(path.as_os_str().as_bytes());
        let mut stamp = [0; STAMP];
        hasher.finalize_xof().fill(&mut stamp);
        Self(stamp)
    }
}

/// Whether the file may change after `look` and keep its stamp.
pub(super) fn is_young(path: &Path, metadata: &Metadata, look: SystemTime) -> bool {
    let is_within = |age| is_within(age, metadata, look);
    is_within(YOUNG) && (is_within(YOUNG_BY_KERNEL) || !is_timed_by_kernel(path, metadata))
}

fn is_within(age: Duration, metadata: &Metadata, look: SystemTime) -> bool {
    let changed = (metadata.mtime(), metadata.mtime_nsec()).max((metadata.ctime(), metadata.ctime_nsec()));
    let look = look.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let settled = look.saturating_sub(age);
    let settled = (
        i64::try_from(settled.as_secs()).unwrap_or(i64::MAX),
        i64::from(settled.subsec_nanos()),
    );
    changed > settled
}

/// Whether the file system is on this machine and known to take the time of a change from the kernel as it is. One with small
/// inodes (ext4) keeps seconds alone.
#[cfg(target_os = "linux")]
fn is_timed_by_kernel(path: &Path, metadata: &Metadata) -> bool {
    let known = [
        libc::BTRFS_SUPER_MAGIC,
        libc::EXT4_SUPER_MAGIC,
        libc::TMPFS_MAGIC,
        libc::XFS_SUPER_MAGIC,
    ];
    metadata.ctime_nsec() % 1_000_000 != 0 && rustix::fs::statfs(path).is_ok_and(|found| known.contains(&found.f_type))
}

#[cfg(not(target_os = "linux"))]
fn is_timed_by_kernel(_: &Path, _: &Metadata) -> bool {
    false
}

/// Where hashes are kept.
#[derive(Clone, Debug, Default)]
pub struct HashCache {
    folder: Option<PathBuf>,
}

impl HashCache {
    /// Below the program's cache folder; without one, nothing is kept.
    #[must_use]
    pub fn new(cache: Option<&Path>) -> Self {
        Self {
            folder: cache.map(|cache| cache.join("hashes")),
        }
    }

    /// The hash of a file that is no part of a context. `content` takes it, and judges the file as what it is to be; what it has
    /// found right is not read again while it stands as it did.
    ///
    /// # Errors
    /// What `content` says.
    pub fn file<E>(&self, path: &Path, as_what: &str, content: impl FnOnce() -> Result<Hash, E>) -> Result<Hash, E> {
        let look = SystemTime::now();
        let stand = || fs::metadata(path).map(|metadata| (Stamp::new(Path::new(as_what), &metadata), is_young(path, &metadata, look)));
        let (known, before) = (self.of(path), stand().ok());
        if let Some(hash) = before.as_ref().and_then(|(stamp, _)| known.get(stamp)) {
            return Ok(hash);
        }
        let hash = content()?;
        if let (Some((before, _)), Ok((after, false))) = (before, stand())
            && before == after
        {
            known.learn(after, hash);
            known.save();
        }
        Ok(hash)
    }

    pub(super) fn of(&self, root: &Path) -> Known {
        let name = blake3::hash(root.as_os_str().as_bytes()).to_hex();
        let file = self.folder.as_ref().map(|folder| folder.join(&name.as_str()[..32]));
        let content = file.as_deref().and_then(|file| read(file, root)).unwrap_or_default();
        let used = (0..records(&content).len()).map(|_| AtomicBool::new(false)).collect();
        Known {
            file,
            root: root.to_owned(),
            content,
            used,
            learned: Mutex::default(),
        }
    }
}

fn read(file: &Path, root: &Path) -> Option<Vec<u8>> {
    let size = usize::try_from(fs::metadata(file).ok()?.len()).ok()?;
    if size > HEADER + MOST_RECORDS * RECORD {
        return None;
    }
    let content = fs::read(file).ok()?;
    let records = content.get(HEADER..)?;
    let whole =
        content.starts_with(MAGIC) && records.len() % RECORD == 0 && content[MAGIC.len()..HEADER] == *checksum(root, records).as_bytes();
    whole.then_some(content)
}

fn records(content: &[u8]) -> &[[u8; RECORD]] {
    content.get(HEADER..).unwrap_or_default().as_chunks().0
}

fn checksum(root: &Path, records: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(blake3::hash(root.as_os_str().as_bytes()).as_bytes());
    hasher.update(records);
    hasher.finalize()
}

/// What is known of one context folder.
#[derive(Debug)]
pub(super) struct Known {
    file: Option<PathBuf>,
    root: PathBuf,
    /// The file's; nothing where there is none.
    content: Vec<u8>,
    /// For each of the records, whether it was asked for.
    used: Vec<AtomicBool>,
    learned: Mutex<Vec<(Stamp, Hash)>>,
}

impl Known {
    pub(super) fn get(&self, stamp: &Stamp) -> Option<Hash> {
        let records = records(&self.content);
        let found = records.binary_search_by(|record| record[..STAMP].cmp(&stamp.0)).ok()?;
        self.used[found].store(true, Relaxed);
        Hash::from_slice(&records[found][STAMP..]).ok()
    }

    pub(super) fn learn(&self, stamp: Stamp, hash: Hash) {
        self.learned.lock().expect("nobody panics with the lock").push((stamp, hash));
    }

    /// Keeps what was learned. That it cannot be kept costs time only.
    pub(super) fn save(self) {
        let learned = self.learned.into_inner().expect("nobody panics with the lock");
        let Some(file) = self.file.filter(|_| !learned.is_empty()) else {
            return;
        };
        let mut kept: Vec<[u8; RECORD]> = learned.into_iter().map(|(stamp, hash)| record(&stamp, &hash)).collect();
        let used = self.used.iter().filter(|used| used.load(Relaxed)).count();
        let unused_stay = self.used.len() - used <= used + kept.len() + SPARE_RECORDS;
        let old = records(&self.content).iter().zip(&self.used);
        kept.extend(old.filter(|(_, used)| unused_stay || used.load(Relaxed)).map(|(record, _)| *record));
        kept.sort_unstable();
        kept.dedup_by(|a, b| a[..STAMP] == b[..STAMP]);
        kept.truncate(MOST_RECORDS);
        let kept = kept.as_flattened();
        let content = [MAGIC.as_slice(), checksum(&self.root, kept).as_bytes(), kept].concat();
        if let Err(error) = put(&file, &content) {
            tracing::debug!("{}: {error}", file.display());
        }
    }
}

fn record(stamp: &Stamp, hash: &Hash) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..STAMP].copy_from_slice(&stamp.0);
    record[STAMP..].copy_from_slice(hash.as_bytes());
    record
}

fn put(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    let is_new = !file.exists();
    fs::create_dir_all(folder)?;
    atomic::write(file, content)?;
    if is_new {
        atomic::keep_newest(folder, MOST_FOLDERS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const HASH: Hash = Hash::from_bytes([7; 32]);
    const OTHER: Hash = Hash::from_bytes([8; 32]);

    fn stamp(number: u32) -> Stamp {
        let mut stamp = [0; STAMP];
        stamp[..4].copy_from_slice(&number.to_le_bytes());
        Stamp(stamp)
    }

    fn learned(cache: &HashCache, root: &Path, numbers: std::ops::Range<u32>, asked: &[u32]) {
        let known = cache.of(root);
        for number in asked {
            known.get(&stamp(*number)).expect("known");
        }
        for number in numbers {
            known.learn(stamp(number), HASH);
        }
        known.save();
    }

    fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(dir.join("hashes")).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path())
    }

    fn only_file(dir: &Path) -> PathBuf {
        let mut files = files(dir);
        let file = files.next().expect("a file");
        assert!(files.next().is_none());
        file
    }

    #[test]
    fn what_was_learned_is_known_the_next_time_and_to_its_folder_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = HashCache::new(Some(dir.path()));
        let root = Path::new("/a");
        learned(&cache, root, 0..100, &[]);
        learned(&cache, root, 100..101, &[5]);
        let known = cache.of(root);
        assert!((0..101).all(|number| known.get(&stamp(number)) == Some(HASH)));
        assert_eq!(known.get(&stamp(101)), None);
        assert_eq!(cache.of(Path::new("/b")).get(&stamp(5)), None);
        assert_eq!(HashCache::new(None).of(root).get(&stamp(5)), None);
    }

    #[test]
    fn a_single_file_is_read_again_where_it_may_be_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = HashCache::new(Some(dir.path()));
        let reads = Cell::new(0);
        let hash = |path: &Path, as_what: &str| {
            let content = || {
                reads.set(reads.get() + 1);
                Ok::<_, ()>(HASH)
            };
            assert_eq!(cache.file(path, as_what, content), Ok(HASH));
            reads.get()
        };
        let old = Path::new("/bin/sh");
        assert_eq!([hash(old, "a"), hash(old, "a"), hash(old, "b"), hash(old, "a")], [1, 1, 2, 2]);
        assert_eq!(cache.file(old, "c", || Err(())), Err(()));
        assert_eq!(hash(old, "c"), 3, "what is wrong is not kept");
        let young = dir.path().join("young");
        let file = fs::File::create(&young).expect("written");
        file.set_modified(SystemTime::now() + Duration::from_hours(1)).expect("set");
        assert_eq!([hash(&young, "a"), hash(&young, "a")], [4, 5]);
    }

    #[test]
    fn what_is_torn_changed_or_foreign_counts_as_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = HashCache::new(Some(dir.path()));
        let root = Path::new("/a");
        learned(&cache, root, 0..3, &[]);
        let file = only_file(dir.path());
        let whole = fs::read(&file).expect("read");
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).expect("written");
            assert_eq!(cache.of(root).get(&stamp(1)), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&file, &changed).expect("written");
            assert_eq!(cache.of(root).get(&stamp(1)), None, "byte {at}");
        }
        learned(&cache, Path::new("/b"), 0..3, &[]);
        fs::write(&file, &whole).expect("written");
        assert_eq!(cache.of(root).get(&stamp(1)), Some(HASH));
        let of_b = files(dir.path()).find(|path| *path != file).expect("a file");
        fs::copy(of_b, &file).expect("copied");
        assert_eq!(cache.of(root).get(&stamp(1)), None, "another folder's");
        learned(&cache, root, 0..1, &[]);
        assert_eq!(cache.of(root).get(&stamp(0)), Some(HASH), "it is made anew");
    }

    #[test]
    fn what_nobody_asks_for_goes_when_it_is_most_of_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = HashCache::new(Some(dir.path()));
        let root = Path::new("/a");
        learned(&cache, root, 0..2_000, &[]);
        learned(&cache, root, 2_000..2_001, &(0..1_000).collect::<Vec<_>>());
        assert_eq!(cache.of(root).get(&stamp(1_500)), Some(HASH));
        learned(&cache, root, 3_000..3_001, &[1]);
        let known = cache.of(root);
        assert_eq!((known.get(&stamp(1)), known.get(&stamp(1_500))), (Some(HASH), None));
    }

    #[test]
    fn writers_and_readers_at_once_find_all_or_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = HashCache::new(Some(dir.path()));
        let root = Path::new("/a");
        learned(&cache, root, 0..500, &[]);
        std::thread::scope(|scope| {
            for hash in [HASH, OTHER] {
                let cache = &cache;
                scope.spawn(move || {
                    for _ in 0..50 {
                        let known = cache.of(root);
                        assert!((0..500).all(|number| known.get(&stamp(number)).is_some()));
                        known.learn(stamp(1_000), hash);
                        known.save();
                    }
                });
            }
        });
    }

    #[test]
    fn a_file_is_young_for_as_long_as_its_clock_may_stand_still() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let metadata = file.as_file().metadata().expect("metadata");
        let changed = metadata.modified().expect("a time");
        let is_young = |age| is_young(file.path(), &metadata, changed + age);
        assert!(is_young(Duration::ZERO) && is_young(YOUNG_BY_KERNEL / 2));
        assert_eq!(is_young(YOUNG / 2), !is_timed_by_kernel(file.path(), &metadata));
        assert!(!is_young(YOUNG + Duration::from_secs(1)));
        assert!(super::is_young(file.path(), &metadata, SystemTime::UNIX_EPOCH), "of a time to come");
        let of_another = Path::new("/proc/self/status");
        assert!(!is_timed_by_kernel(of_another, &fs::metadata(of_another).expect("metadata")));
    }
}
