//! What copies leave in a layer (moby/buildkit, `solver/llbsolver/file`; tonistiigi/fsutil, `copy`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bollard::fsutil::types::Stat;
use tar::EntryType;

use crate::docker::buildkit::folder::{Folder, Form, form, nanoseconds, seconds, unix_mode};
use crate::docker::buildkit::llb::{Copy, Step};

const LINK_MODE: u32 = 0o777;
/// Of `SELinux`, on whatever a machine that has it keeps.
const LABEL: &str = "security.selinux";
/// More would take too much memory.
pub(super) const MOST_ENTRIES: usize = 20_000;
/// POSIX `ustar` writes it into the header of each entry.
const MAGIC: (u64, &[u8]) = (257, b"ustar");

/// By paths whose parts end with NUL, so that a folder is directly before all that is in it, as a walk finds it.
pub(super) type Tree = BTreeMap<String, Entry>;

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) what: What,
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
}

#[derive(Clone)]
pub(super) enum What {
    /// The builder alone knows its mode and its time.
    Folder,
    Link(String),
    File(Content),
}

/// Bytes of a file that was sent.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) folder: Arc<Folder>,
    pub(super) at: usize,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Of the time that the builder was told; they are a hash of the content.
    pub(super) nanoseconds: i64,
}

impl Content {
    /// Of the whole file, as it was found.
    pub(super) fn hash(&self) -> Option<blake3::Hash> {
        self.folder.hash(self.at)
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.folder.read_at(self.at, self.offset + offset, buffer)
    }
}

/// A folder that was sent, and what was told of it, by paths as a [`Tree`] has them.
pub(super) struct Sent {
    folder: Arc<Folder>,
    stats: Vec<(String, Stat)>,
}

impl Sent {
    /// `None` where there is too much in it.
    pub(super) fn new(folder: &Arc<Folder>) -> Option<Self> {
        let stats = Arc::clone(folder).stats().take(MOST_ENTRIES + 1);
        let stats: Vec<_> = stats.map(|stat| (parts(&stat.path), stat)).collect();
        let folder = Arc::clone(folder);
        (stats.len() <= MOST_ENTRIES).then_some(Self { folder, stats })
    }

    fn content(&self, at: usize) -> Content {
        Content {
            folder: Arc::clone(&self.folder),
            at,
            offset: 0,
            size: self.folder.size(at),
            nanoseconds: nanoseconds(&self.stats[at].1),
        }
    }
}

/// The layer of `steps`, with these folders below it. `None` where that is not known beforehand.
pub(super) fn lay(steps: &[Step], sent: &BTreeMap<&str, Sent>, below: &BTreeSet<String>) -> Option<Tree> {
    let mut layer = Layer { tree: Tree::new(), below };
    for step in steps {
        match step {
            Step::Copy(copy) => layer.copy(copy, sent.get(copy.folder.as_str())?)?,
            Step::Folder(path) if below.contains(&parts(path)) => {}
            Step::Folder(path) => layer.reach(&parts(path))?,
        }
        if layer.tree.len() > MOST_ENTRIES {
            return None;
        }
    }
    Some(layer.tree)
}

/// Takes from what is in a folder of the image, as the builder lists it, what it alone knows of the `entries` that are to be
/// there. `None` where one of them is not as it is expected.
pub(super) fn take<'e>(entries: impl Iterator<Item = (&'e String, &'e mut Entry)>, listed: &[Stat]) -> Option<()> {
    let listed: HashMap<&str, &Stat> = listed.iter().map(|stat| (stat.path.as_str(), stat)).collect();
    for (path, entry) in entries {
        let stat = listed.get(path.trim_end_matches('\0').rsplit('\0').next()?)?;
        let is_same = match (&entry.what, form(stat)) {
            (What::Folder, Form::Folder) => true,
            (What::Link(target), Form::Link) => stat.linkname == *target,
            (What::File(content), Form::File) => {
                u64::try_from(stat.size) == Ok(content.size)
                    && unix_mode(stat.mode) == entry.mode
                    && nanoseconds(stat) == content.nanoseconds
            }
            _ => false,
        };
        if !is_same || stat.uid != 0 || stat.gid != 0 || has_attributes(stat) {
            return None;
        }
        // equal content may come from its cache, with the time of then
        entry.mtime = seconds(stat);
        if let What::Folder = entry.what {
            entry.mode = unix_mode(stat.mode);
        }
    }
    Some(())
}

/// Whether it has extended attributes, such as an archive may give it: the builder may write them into the layer. A label is the
/// machine's.
fn has_attributes(stat: &Stat) -> bool {
    stat.xattrs.keys().any(|name| name != LABEL)
}

struct Layer<'b> {
    tree: Tree,
    below: &'b BTreeSet<String>,
}

impl Layer<'_> {
    fn copy(&mut self, copy: &Copy, sent: &Sent) -> Option<()> {
        let (from, to) = (parts(&copy.from), parts(&copy.to));
        let source = sent.stats.iter().position(|(path, _)| *path == from);
        match source.map(|at| (at, form(&sent.stats[at].1))) {
            Some((at, Form::File)) if copy.unpacks => self.unpack(&sent.content(at), &to),
            Some((at, Form::File)) => {
                let is_into = copy.to.ends_with('/') || self.is_folder(&to);
                let name = from.trim_end_matches('\0').rsplit('\0').next()?;
                let target = if is_into { format!("{to}{name}\0") } else { to };
                self.put(target, at, sent, copy.mode)
            }
            Some((_, Form::Folder)) => self.copy_all(&from, &to, sent, copy.mode),
            None if from.is_empty() => self.copy_all(&from, &to, sent, copy.mode),
            _ => None,
        }
    }

    fn copy_all(&mut self, from: &str, to: &str, sent: &Sent, mode: Option<u32>) -> Option<()> {
        self.reach(to)?;
        for (at, (path, _)) in sent.stats.iter().enumerate() {
            if let Some(rest) = path.strip_prefix(from).filter(|rest| !rest.is_empty()) {
                self.put(format!("{to}{rest}"), at, sent, mode)?;
            }
        }
        Some(())
    }

    fn put(&mut self, target: String, at: usize, sent: &Sent, mode: Option<u32>) -> Option<()> {
        let stat = &sent.stats[at].1;
        let (what, mode) = match form(stat) {
            Form::Folder => (What::Folder, 0),
            Form::Link => (What::Link(stat.linkname.clone()), LINK_MODE),
            Form::File => (What::File(sent.content(at)), mode.unwrap_or_else(|| unix_mode(stat.mode))),
            Form::HardLink => return None,
        };
        let mtime = seconds(stat);
        self.add(target, Entry { what, mode, mtime })
    }

    /// What is in an archive that is not compressed; whatever else might be one is left to the builder.
    fn unpack(&mut self, archive: &Content, to: &str) -> Option<()> {
        let mut magic = [0; MAGIC.1.len()];
        archive.read_at(MAGIC.0, &mut magic).ok()?;
        if magic != MAGIC.1 {
            return None;
        }
        self.reach(to)?;
        let mut opened = tar::Archive::new(Reader { content: archive, at: 0 });
        for entry in opened.entries_with_seek().ok()? {
            let entry = entry.ok()?;
            let header = entry.header();
            let what = match header.entry_type() {
                EntryType::Directory => What::Folder,
                EntryType::Symlink => What::Link(String::from_utf8(entry.link_name_bytes()?.into_owned()).ok()?),
                EntryType::Regular => What::File(Content {
                    offset: entry.raw_file_position(),
                    size: entry.size(),
                    nanoseconds: 0,
                    ..archive.clone()
                }),
                _ => return None,
            };
            if header.uid().ok()? != 0 || header.gid().ok()? != 0 || self.tree.len() > MOST_ENTRIES {
                return None;
            }
            let target = format!("{to}{}", parts(str::from_utf8(&entry.path_bytes()).ok()?));
            let (mode, mtime) = (header.mode().ok()? & 0o7777, i64::try_from(header.mtime().ok()?).ok()?);
            self.add(target, Entry { what, mode, mtime })?;
        }
        Some(())
    }

    fn is_folder(&self, path: &str) -> bool {
        let here = self.tree.get(path).map(|entry| matches!(entry.what, What::Folder));
        here.unwrap_or_else(|| path.is_empty() || self.below.contains(path))
    }

    /// `None` where a folder takes the place of something else, or gives way to it: what was in it goes with it.
    fn add(&mut self, path: String, entry: Entry) -> Option<()> {
        if let Some((above, _)) = path.trim_end_matches('\0').rsplit_once('\0') {
            self.reach(&format!("{above}\0"))?;
        }
        let there = self.tree.get(&path).map(|there| matches!(there.what, What::Folder));
        let was_folder = there.or_else(|| self.below.contains(&path).then_some(true));
        if was_folder.is_some_and(|was| was != matches!(entry.what, What::Folder)) {
            return None;
        }
        // the root is in no layer
        if !path.is_empty() {
            self.tree.insert(path, entry);
        }
        Some(())
    }

    /// A folder that is made, or gets something into it, and those above it. `None` where the way there is through a link.
    fn reach(&mut self, path: &str) -> Option<()> {
        for (at, _) in path.match_indices('\0') {
            let folder = Entry {
                what: What::Folder,
                mode: 0,
                mtime: 0,
            };
            let there = self.tree.entry(path[..=at].to_owned()).or_insert(folder);
            if !matches!(there.what, What::Folder) {
                return None;
            }
        }
        Some(())
    }
}

/// A key of a [`Tree`], as others write it.
pub(super) fn shown(path: &str) -> String {
    path.trim_end_matches('\0').replace('\0', "/")
}

/// As the keys of a [`Tree`] are.
fn parts(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.flat_map(|part| [part, "\0"]).collect()
}

struct Reader<'c> {
    content: &'c Content,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.content.size - self.at).unwrap_or(usize::MAX);
        let length = rest.min(buffer.len());
        self.content.read_at(self.at, &mut buffer[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.content.size.checked_add_signed(by),
        };
        self.at = at.filter(|at| *at <= self.content.size).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Inline;

    fn sent() -> BTreeMap<&'static str, Sent> {
        let entry = |path: &str, content: &'static [u8], kind| Inline {
            path: path.to_owned(),
            content: content.into(),
            mode: 0o640,
            kind,
        };
        let packed = packed(&[("in/it", None)]);
        let folder = Folder::of_inline(&[
            entry("folder", b"", EntryType::Directory),
            entry("folder/file", b"x", EntryType::Regular),
            entry("folder/link", b"file", EntryType::Symlink),
            entry("file", b"y", EntryType::Regular),
            Inline::file("packed.tar", &packed, 0o644),
        ]);
        BTreeMap::from([("context", Sent::new(&Arc::new(folder)).expect("few"))])
    }

    /// An archive of files, and of links that lead somewhere.
    fn packed(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
        let mut packed = tar::Builder::new(Vec::new());
        for (path, target) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o700);
            header.set_mtime(5);
            header.set_uid(0);
            header.set_gid(0);
            if let Some(target) = target {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                packed.append_link(&mut header, path, target).expect("appended");
            } else {
                header.set_size(3);
                packed.append_data(&mut header, path, &b"abc"[..]).expect("appended");
            }
        }
        packed.into_inner().expect("finished")
    }

    fn copy(from: &str, to: &str) -> Copy {
        Copy {
            folder: "context".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            mode: None,
            unpacks: false,
        }
    }

    /// Paths, and modes of what is no folder.
    fn shape(copies: Vec<Copy>, below: &[&str]) -> Option<Vec<String>> {
        let below = below.iter().map(|path| parts(path)).collect();
        laid(&copies.into_iter().map(Step::Copy).collect::<Vec<_>>(), &below)
    }

    fn laid(steps: &[Step], below: &BTreeSet<String>) -> Option<Vec<String>> {
        let tree = lay(steps, &sent(), below)?;
        let said = tree.iter().map(|(path, entry)| match entry.what {
            What::Folder => shown(path),
            _ => format!("{} {:o}", shown(path), entry.mode),
        });
        Some(said.collect())
    }

    #[test]
    fn a_file_goes_to_its_name_or_into_a_folder() {
        let named = ["a", "a/b 640"];
        assert_eq!(shape(vec![copy("/file", "/a/b")], &[]).expect("known"), named);
        let inside = ["a", "a/file 640"];
        assert_eq!(shape(vec![copy("/file", "/a/")], &["a"]).expect("known"), inside);
        assert_eq!(shape(vec![copy("/file", "/a")], &["a"]).expect("known"), inside);
        assert_eq!(shape(vec![copy("/file", "/")], &[]).expect("known"), ["file 640"]);
    }

    #[test]
    fn of_a_folder_goes_what_is_in_it() {
        let inside = ["a", "a/file 640", "a/link 777"];
        assert_eq!(shape(vec![copy("/folder", "/a")], &[]).expect("known"), inside);
        let all = ["file 640", "folder", "folder/file 640", "folder/link 777", "packed.tar 644"];
        assert_eq!(shape(vec![copy("/", "/")], &[]).expect("known"), all);
        let mode = Copy {
            mode: Some(0o500),
            ..copy("/folder", "/a")
        };
        let other = ["a", "a/file 500", "a/link 777"];
        assert_eq!(shape(vec![mode], &[]).expect("known"), other);
    }

    #[test]
    fn a_folder_is_made_where_there_is_none() {
        let made = [Step::Folder("/a/b".to_owned())];
        assert_eq!(laid(&made, &BTreeSet::new()).expect("known"), ["a", "a/b"]);
        assert_eq!(laid(&made, &BTreeSet::from([parts("a/b")])).expect("known"), [""; 0]);
    }

    #[test]
    fn an_archive_is_unpacked_where_it_is_plain() {
        let unpacked = |from| Copy {
            unpacks: true,
            ..copy(from, "/to")
        };
        let tree = ["to", "to/in", "to/in/it 700"];
        assert_eq!(shape(vec![unpacked("/packed.tar")], &[]).expect("known"), tree);
        assert!(shape(vec![unpacked("/file")], &[]).is_none());
    }

    #[test]
    fn an_archive_that_writes_through_its_own_links_is_left_to_the_builder() {
        let unpacked = |entries: &[(&str, Option<&str>)], below: &[&str]| {
            let folder = Folder::of_inline(&[Inline::file("a.tar", &packed(entries), 0o644)]);
            let sent = BTreeMap::from([("context", Sent::new(&Arc::new(folder)).expect("few"))]);
            let step = Step::Copy(Copy {
                unpacks: true,
                ..copy("/a.tar", "/")
            });
            lay(&[step], &sent, &below.iter().map(|path| parts(path)).collect()).map(|tree| tree.len())
        };
        assert_eq!(unpacked(&[("d/x", None), ("l", Some("d"))], &[]), Some(3));
        assert_eq!(unpacked(&[("l", Some("d")), ("l/x", None)], &[]), None, "through it");
        assert_eq!(unpacked(&[("d/x", None), ("d", Some("e"))], &[]), None, "in the place of a folder");
        assert_eq!(unpacked(&[("d", Some("e"))], &["d"]), None, "of one below");
    }

    #[test]
    fn what_has_extended_attributes_is_left_to_the_builder() {
        let mut tree = lay(&[Step::Copy(copy("/file", "/"))], &sent(), &BTreeSet::new()).expect("known");
        let sent = &sent()["context"];
        let listed = |names: &[&str]| {
            let stat = sent.stats.iter().find(|(path, _)| path == "file\0").map(|(_, stat)| stat.clone());
            let xattrs = names.iter().map(|name| ((*name).to_owned(), b"x".to_vec())).collect();
            Stat {
                xattrs,
                ..stat.expect("it was sent")
            }
        };
        let mut is_taken = |names: &[&str]| take(tree.iter_mut(), &[listed(names)]).is_some();
        assert!(is_taken(&[]) && is_taken(&[LABEL]));
        assert!(!is_taken(&["security.capability"]) && !is_taken(&[LABEL, "user.mine"]));
    }

    #[test]
    fn what_is_not_there_or_a_link_is_left_to_the_builder() {
        assert!(shape(vec![copy("/none", "/a")], &[]).is_none());
        assert!(shape(vec![copy("/folder/link", "/a")], &[]).is_none());
    }
}
