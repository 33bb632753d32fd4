//! The entries of a layer, and the files that they are made of.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bollard::fsutil::types::Stat;

use crate::docker::buildkit::folder::{Folder, Form, form, nanoseconds, seconds, unix_mode};

/// Of `SELinux`, on whatever a machine that has it keeps.
const LABEL: &str = "security.selinux";
/// More would take too much memory.
pub(super) const MOST_ENTRIES: usize = 20_000;

/// By paths whose parts end with NUL, so that a folder is directly before all that is in it, as a walk finds it.
pub(super) type Tree = BTreeMap<String, Entry>;

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) what: What,
    pub(super) mode: u32,
    /// Seconds since 1970, or [`NOW`].
    pub(super) mtime: i64,
}

/// The time of a folder that is made, or gets something into it.
pub(super) const NOW: i64 = i64::MIN;

#[derive(Clone)]
pub(super) enum What {
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

    /// As [`Self::hash`], where it is the whole file.
    pub(super) fn whole(&self) -> Option<blake3::Hash> {
        let is_whole = self.offset == 0 && self.size == self.folder.size(self.at);
        self.hash().filter(|_| is_whole)
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.folder.read_at(self.at, self.offset + offset, buffer)
    }
}

/// A folder that was sent, and what was told of it, by paths as a [`Tree`] has them.
pub(super) struct Sent {
    folder: Arc<Folder>,
    pub(super) stats: Vec<(String, Stat)>,
}

impl Sent {
    /// `None` where there is too much in it.
    pub(super) fn new(folder: &Arc<Folder>) -> Option<Self> {
        let stats = Arc::clone(folder).stats().take(MOST_ENTRIES + 1);
        let stats: Vec<_> = stats.map(|stat| (parts(&stat.path), stat)).collect();
        let folder = Arc::clone(folder);
        (stats.len() <= MOST_ENTRIES).then_some(Self { folder, stats })
    }

    pub(super) fn find(&self, path: &str) -> Option<usize> {
        self.stats.iter().position(|(other, _)| other == path)
    }

    pub(super) fn content(&self, at: usize) -> Content {
        Content {
            folder: Arc::clone(&self.folder),
            at,
            offset: 0,
            size: self.folder.size(at),
            nanoseconds: nanoseconds(&self.stats[at].1),
        }
    }
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

/// The root has none, and is in itself.
pub(super) fn folder_of(path: &str) -> &str {
    let name = path.strip_suffix('\0').unwrap_or_default();
    &path[..name.rfind('\0').map_or(0, |end| end + 1)]
}

/// A key of a [`Tree`], as others write it.
pub(super) fn shown(path: &str) -> String {
    path.trim_end_matches('\0').replace('\0', "/")
}

/// As the keys of a [`Tree`] are.
pub(super) fn parts(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.flat_map(|part| [part, "\0"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Inline;

    #[test]
    fn what_has_extended_attributes_is_left_to_the_builder() {
        let folder = Folder::of_inline(&[Inline::file("file", b"y", 0o640)]);
        let sent = Sent::new(&Arc::new(folder)).expect("few");
        let (path, stat) = &sent.stats[0];
        let entry = Entry {
            what: What::File(sent.content(0)),
            mode: unix_mode(stat.mode),
            mtime: NOW,
        };
        let mut tree = Tree::from([(path.clone(), entry)]);
        let listed = |names: &[&str]| Stat {
            xattrs: names.iter().map(|name| ((*name).to_owned(), b"x".to_vec())).collect(),
            ..stat.clone()
        };
        let mut is_taken = |names: &[&str]| take(tree.iter_mut(), &[listed(names)]).is_some();
        assert!(is_taken(&[]) && is_taken(&[LABEL]));
        assert!(!is_taken(&["security.capability"]) && !is_taken(&[LABEL, "user.mine"]));
    }
}
