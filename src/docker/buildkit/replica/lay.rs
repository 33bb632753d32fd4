//! What the steps of a layer leave (moby/buildkit, `solver/llbsolver/file`; tonistiigi/fsutil, `copy`).

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use tar::EntryType;

use super::inventory::{Inventory, Kind};
use super::tree::{Content, Entry, MOST_ENTRIES, NOW, Sent, Tree, What, folder_of, parts};
use crate::docker::buildkit::folder::{Folder, Form, form, seconds, unix_mode};
use crate::docker::buildkit::llb::{Copy, Step};

const LINK_MODE: u32 = 0o777;
const PERMISSIONS: u32 = 0o777;
const SETGID: u32 = 0o2000;
/// Of a folder that is made because something goes into it.
const FOLDER_MODE: u32 = 0o755;
/// POSIX `ustar` writes it into the header of each entry.
const MAGIC: (u64, &[u8]) = (257, b"ustar");

/// What steps leave.
pub(super) struct Laid {
    pub(super) tree: Tree,
    /// Whether builders are known to leave all of it just so, where `below` was all that there is.
    pub(super) is_sure: bool,
}

/// The layer of `steps` upon what is `below`. `None` where that is not known beforehand.
pub(super) fn lay(steps: &[Step], sent: &BTreeMap<&str, Sent>, below: &Inventory) -> Option<Laid> {
    let mut layer = Layer {
        tree: Tree::new(),
        is_sure: true,
        below,
    };
    for step in steps {
        match step {
            Step::Copy(copy) => layer.copy(copy, sent.get(copy.folder.as_str())?)?,
            Step::Folder(path) if layer.is_folder(&parts(path)) => {}
            Step::Folder(path) => layer.reach(&parts(path))?,
        }
        if layer.tree.len() > MOST_ENTRIES {
            return None;
        }
    }
    Some(Laid {
        tree: layer.tree,
        is_sure: layer.is_sure,
    })
}

struct Layer<'b> {
    tree: Tree,
    is_sure: bool,
    below: &'b Inventory,
}

impl Layer<'_> {
    fn copy(&mut self, copy: &Copy, sent: &Sent) -> Option<()> {
        let (from, to) = (parts(&copy.from), parts(&copy.to));
        let source = sent.find(&from);
        // whether folders that are made get the mode, too, and what becomes of other bits, has changed from version to version
        self.is_sure &= copy.mode.is_none() || source.is_some_and(|at| form(&sent.stats[at].1) == Form::File);
        match source.map(|at| (at, form(&sent.stats[at].1))) {
            Some((at, Form::File)) if copy.unpacks => self.unpack(&sent.content(at), &to),
            Some((at, Form::File)) => {
                let is_into = copy.to.ends_with('/') || copy.to.ends_with("/.") || self.is_folder(&to);
                let name = from.trim_end_matches('\0').rsplit('\0').next()?;
                let target = if is_into { format!("{to}{name}\0") } else { to };
                if let Some(mode) = copy.mode {
                    let modes = mode | unix_mode(sent.stats[at].1.mode);
                    self.is_sure &= modes <= PERMISSIONS && self.has_folder_of(&target);
                }
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
            Form::Folder => (What::Folder, unix_mode(stat.mode)),
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
        // one on a disk may have changed since it was looked at
        self.is_sure &= matches!(*archive.folder, Folder::Inline(_));
        let mut opened = tar::Archive::new(Reader { content: archive, at: 0 });
        for entry in opened.entries_with_seek().ok()? {
            let mut entry = entry.ok()?;
            self.is_sure &= entry.pax_extensions().ok()?.is_none();
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
            let name = parts(str::from_utf8(&entry.path_bytes()).ok()?);
            // of what an archive tells of other entries, and of folders that it leaves out, builders think differently
            let target = format!("{to}{name}");
            self.is_sure &= !name.is_empty() && self.has_folder_of(&target);
            let (mode, mtime) = (header.mode().ok()? & 0o7777, i64::try_from(header.mtime().ok()?).ok()?);
            self.add(target, Entry { what, mode, mtime })?;
        }
        Some(())
    }

    fn is_folder(&self, path: &str) -> bool {
        path.is_empty() || matches!(self.kind(path), Some(Kind::Folder { .. }))
    }

    /// Whether the folder is there in which this is.
    fn has_folder_of(&self, path: &str) -> bool {
        self.is_folder(folder_of(path))
    }

    /// What is there by now.
    fn kind(&self, path: &str) -> Option<Kind> {
        let here = self.tree.get(path).map(Kind::of);
        here.or_else(|| self.below.kind(path))
    }

    /// `None` where a folder takes the place of something else, or gives way to it: what was in it goes with it. A link may lead
    /// elsewhere.
    fn add(&mut self, path: String, entry: Entry) -> Option<()> {
        if leads_up(&path) {
            return None;
        }
        self.reach(folder_of(&path))?;
        let is_folder = matches!(entry.what, What::Folder);
        match self.kind(&path) {
            None => {}
            Some(Kind::Folder { .. }) if is_folder => {}
            Some(Kind::File) if !is_folder => {}
            Some(_) => return None,
        }
        // the root is in no layer
        if !path.is_empty() {
            self.tree.insert(path, entry);
        }
        Some(())
    }

    /// A folder that is made, or gets something into it, and those above it. `None` where the way there is through a link.
    fn reach(&mut self, path: &str) -> Option<()> {
        let mut above = 0;
        for (at, _) in path.match_indices('\0') {
            let path = &path[..=at];
            if leads_up(path) {
                return None;
            }
            let mode = match self.kind(path) {
                None => {
                    // a system hands the bit down, which some versions take away again
                    self.is_sure &= above & SETGID == 0;
                    FOLDER_MODE
                }
                Some(Kind::Folder { mode }) => mode,
                Some(Kind::File | Kind::Link) => return None,
            };
            above = mode;
            let folder = Entry {
                what: What::Folder,
                mode,
                mtime: NOW,
            };
            self.tree.entry(path.to_owned()).or_insert(folder);
        }
        Some(())
    }
}

fn leads_up(path: &str) -> bool {
    path.rsplit('\0').nth(1) == Some("..")
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
    use std::sync::Arc;

    use super::super::tree::shown;
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

    fn entry(what: What, mode: u32) -> Entry {
        Entry { what, mode, mtime: 0 }
    }

    /// Folders that only their owner may see.
    fn below(folders: &[&str]) -> Inventory {
        let mut below = Inventory::new(true);
        below.add(&folders.iter().map(|path| (parts(path), entry(What::Folder, 0o700))).collect());
        below
    }

    /// Paths, and modes of what is no folder.
    fn shape(copies: Vec<Copy>, folders: &[&str]) -> Option<Vec<String>> {
        laid(&copies.into_iter().map(Step::Copy).collect::<Vec<_>>(), folders)
    }

    fn laid(steps: &[Step], folders: &[&str]) -> Option<Vec<String>> {
        let laid = lay(steps, &sent(), &below(folders))?;
        let said = laid.tree.iter().map(|(path, entry)| match entry.what {
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
        assert_eq!(shape(vec![copy("/file", "/a/.")], &[]).expect("known"), inside);
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
        assert_eq!(laid(&made, &[]).expect("known"), ["a", "a/b"]);
        assert_eq!(laid(&made, &["a/b"]).expect("known"), [""; 0]);
    }

    #[test]
    fn a_folder_has_the_mode_that_it_had_or_that_of_its_source() {
        let steps = [copy("/file", "/a/b/"), copy("/", "/all")].map(Step::Copy);
        let laid = lay(&steps, &sent(), &below(&["a"])).expect("known");
        let folders = laid.tree.iter().filter(|(_, entry)| matches!(entry.what, What::Folder));
        let folders: Vec<_> = folders.map(|(path, entry)| (shown(path), entry.mode, entry.mtime == NOW)).collect();
        let expected = [
            ("a", 0o700, true),
            ("a/b", 0o755, true),
            ("all", 0o755, true),
            ("all/folder", 0o640, false),
        ];
        assert_eq!(folders, expected.map(|(path, mode, is_new)| (path.to_owned(), mode, is_new)));
    }

    #[test]
    fn what_builders_may_do_differently_is_not_sure() {
        let is_sure = |copy| lay(&[Step::Copy(copy)], &sent(), &below(&[])).expect("known").is_sure;
        let with = |mode, to| Copy {
            mode: Some(mode),
            ..copy("/file", to)
        };
        assert!(is_sure(copy("/", "/")) && is_sure(with(0o755, "/")));
        let mut shared = Inventory::new(true);
        shared.add(&Tree::from([(parts("to"), entry(What::Folder, 0o2755))]));
        let in_shared = |to| lay(&[Step::Copy(copy("/file", to))], &sent(), &shared).expect("known").is_sure;
        assert!(
            in_shared("/to/") && !in_shared("/to/new/"),
            "of a folder that is made in one of a group"
        );
        assert!(!is_sure(with(0o4755, "/")), "more than permissions");
        assert!(!is_sure(with(0o755, "/to/")), "of a folder that is made");
        let all = Copy {
            mode: Some(0o755),
            ..copy("/", "/")
        };
        assert!(!is_sure(all), "of folders");
        // the folder `in` is not in it
        let unpacked = Copy {
            unpacks: true,
            ..copy("/packed.tar", "/to")
        };
        assert!(!is_sure(unpacked));
    }

    #[test]
    fn what_is_below_is_not_gone_through_where_it_is_no_folder() {
        let link = || What::Link("elsewhere".to_owned());
        let mut below = Inventory::new(true);
        below.add(&Tree::from([
            (parts("a"), entry(link(), LINK_MODE)),
            (parts("b"), entry(What::Folder, 0o755)),
        ]));
        let is_known = |to| lay(&[Step::Copy(copy("/file", to))], &sent(), &below).is_some();
        assert!(is_known("/b") && is_known("/c"));
        assert!(!is_known("/a") && !is_known("/a/b"));
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
        let unpacked = |entries: &[(&str, Option<&str>)], folders: &[&str]| {
            let folder = Folder::of_inline(&[Inline::file("a.tar", &packed(entries), 0o644)]);
            let sent = BTreeMap::from([("context", Sent::new(&Arc::new(folder)).expect("few"))]);
            let step = Step::Copy(Copy {
                unpacks: true,
                ..copy("/a.tar", "/")
            });
            lay(&[step], &sent, &below(folders)).map(|laid| laid.tree.len())
        };
        assert_eq!(unpacked(&[("d/x", None), ("l", Some("d"))], &[]), Some(3));
        assert_eq!(unpacked(&[("l", Some("d")), ("l/x", None)], &[]), None, "through it");
        assert_eq!(unpacked(&[("d/x", None), ("d", Some("e"))], &[]), None, "in the place of a folder");
        assert_eq!(unpacked(&[("d", Some("e"))], &["d"]), None, "of one below");
    }

    #[test]
    fn what_is_not_there_or_a_link_is_left_to_the_builder() {
        assert!(shape(vec![copy("/none", "/a")], &[]).is_none());
        assert!(shape(vec![copy("/folder/link", "/a")], &[]).is_none());
    }
}
