//! The files of a context that `.dockerignore` leaves, each checked to be one that an image can hold.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::dockerignore::{Dockerignore, Judgement};
use super::{shown, unreadable};
use crate::problem::Problem;

const GROUP_WRITE: u32 = 0o020;
const PERMISSIONS: u32 = 0o7777;

/// The entries of a context in the order of their paths, a folder before what is in it.
#[derive(Debug)]
pub struct Context {
    pub root: PathBuf,
    pub entries: Vec<Entry>,
    /// Entries that are sent otherwise than somebody may expect, or not at all.
    pub notes: Vec<String>,
}

#[derive(Debug)]
pub struct Entry {
    /// Relative to the context's root.
    pub path: PathBuf,
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bits, without the group's write bit: it differs between clones
    /// under umask 002 and 022.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File {
        size: u64,
        /// Device and inode, where the file has more names than one.
        shared: Option<(u64, u64)>,
    },
    Link(PathBuf),
}

/// # Errors
/// A file that cannot be read; a device or FIFO, which no image can get from a context.
pub fn walk(root: &Path, ignore: &Dockerignore) -> Result<Context, Problem> {
    let mut walker = Walker {
        root,
        ignore,
        entries: Vec::new(),
        sent_folders: BTreeSet::new(),
        sockets: Vec::new(),
        outward: Vec::new(),
    };
    walker.folder(Path::new(""), None)?;
    let mut notes = Vec::new();
    notes.extend(note(&walker.sockets, "is a socket and is left out", "are sockets and are left out"));
    notes.extend(note(
        &walker.outward,
        "is a link that leaves the context: the image gets the link, not what it points to",
        "are links that leave the context: the image gets the links, not what they point to",
    ));
    Ok(Context {
        root: root.to_owned(),
        entries: walker.entries,
        notes,
    })
}

fn note(paths: &[String], one: &str, several: &str) -> Option<String> {
    const NAMED: usize = 3;
    match paths {
        [] => None,
        [path] => Some(format!("{path} {one}")),
        _ => {
            let more = if paths.len() > NAMED {
                format!(" and {} more", paths.len() - NAMED)
            } else {
                String::new()
            };
            Some(format!("{}{more} {several}", paths[..paths.len().min(NAMED)].join(", ")))
        }
    }
}

struct Walker<'a> {
    root: &'a Path,
    ignore: &'a Dockerignore,
    entries: Vec<Entry>,
    /// Folders that are among the entries already; excluded ones get there with the first entry that is kept in them.
    sent_folders: BTreeSet<PathBuf>,
    sockets: Vec<String>,
    outward: Vec<String>,
}

impl Walker<'_> {
    fn folder(&mut self, folder: &Path, judged: Option<&Judgement>) -> Result<(), Problem> {
        let full = self.root.join(folder);
        let failed = |error| unreadable(&full, &error);
        let mut names = fs::read_dir(&full)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(failed)?;
        names.sort_by_key(fs::DirEntry::file_name);
        for name in names {
            let path = folder.join(name.file_name());
            let judgement = self.ignore.judge(&path.to_string_lossy(), judged);
            if !judgement.excluded {
                self.keep(&path)?;
            }
            if !judgement.pruned && name.file_type().map_err(failed)?.is_dir() {
                self.folder(&path, Some(&judgement))?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, path: &Path) -> Result<(), Problem> {
        let full = self.root.join(path);
        let metadata = fs::symlink_metadata(&full).map_err(|error| unreadable(&full, &error))?;
        let kind = metadata.file_type();
        if kind.is_socket() {
            self.sockets.push(shown(path));
            return Ok(());
        }
        if kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            let what = if kind.is_fifo() { "a FIFO" } else { "a device" };
            return Err(
                Problem::failed(format!("{} is {what}: an image cannot get it from a context", shown(&full)))
                    .hint("exclude it in .dockerignore, or remove it"),
            );
        }
        if let Some(parent) = path.parent() {
            self.send_folders(parent)?;
        }
        if kind.is_dir() {
            self.sent_folders.insert(path.to_owned());
        }
        self.push(path, &metadata)
    }

    fn send_folders(&mut self, folder: &Path) -> Result<(), Problem> {
        if folder.as_os_str().is_empty() || self.sent_folders.contains(folder) {
            return Ok(());
        }
        self.keep(folder)
    }

    fn push(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Problem> {
        let kind = if metadata.is_dir() {
            Kind::Folder
        } else if metadata.is_symlink() {
            let full = self.root.join(path);
            let target = fs::read_link(&full).map_err(|error| unreadable(&full, &error))?;
            if leaves(path, &target) {
                self.outward.push(shown(path));
            }
            Kind::Link(target)
        } else {
            Kind::File {
                size: metadata.len(),
                shared: (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino())),
            }
        };
        self.entries.push(Entry {
            path: path.to_owned(),
            kind,
            mode: metadata.mode() & PERMISSIONS & !GROUP_WRITE,
            mtime: metadata.mtime(),
        });
        Ok(())
    }
}

/// Whether a link at `path`, relative to the context, points out of it.
fn leaves(path: &Path, target: &Path) -> bool {
    let mut depth = path.parent().map_or(0, |parent| parent.components().count());
    for component in target.components() {
        match component {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::RootDir | Component::Prefix(_) => return true,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn paths(context: &Context) -> Vec<&str> {
        context.entries.iter().map(|entry| entry.path.to_str().expect("UTF-8")).collect()
    }

    fn rules(text: &str) -> Dockerignore {
        Dockerignore::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn an_excluded_folder_is_sent_with_what_is_kept_in_it() {
        let dir = tempfile::tempdir().expect("a folder");
        for file in ["a/b/keep", "a/b/drop", "a/c/drop", "top"] {
            fs::create_dir_all(dir.path().join(file).parent().expect("a parent")).expect("created");
            fs::write(dir.path().join(file), file).expect("written");
        }
        let context = walk(dir.path(), &rules("a\n!a/b/keep\n")).expect("walked");
        assert_eq!(paths(&context), ["a", "a/b", "a/b/keep", "top"]);
    }

    #[test]
    fn modes_lose_the_groups_write_bit_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("f");
        fs::write(&file, "").expect("written");
        for (mode, sent) in [(0o664, 0o644), (0o4775, 0o4755), (0o600, 0o600), (0o666, 0o646)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
            assert_eq!(
                walk(dir.path(), &Dockerignore::empty()).expect("walked").entries[0].mode,
                sent,
                "{mode:o}"
            );
        }
    }

    #[test]
    fn sockets_are_left_out_links_are_named_and_a_fifo_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let _socket = UnixListener::bind(dir.path().join("s")).expect("bound");
        symlink("../out", dir.path().join("l")).expect("linked");
        symlink("s", dir.path().join("m")).expect("linked");
        let context = walk(dir.path(), &Dockerignore::empty()).expect("walked");
        assert_eq!(paths(&context), ["l", "m"]);
        assert_eq!(context.notes.len(), 2);
        assert!(
            context.notes[0].contains("s is a socket") && context.notes[1].contains("l is a link"),
            "{:?}",
            context.notes
        );

        let made = std::process::Command::new("mkfifo")
            .arg(dir.path().join("pipe"))
            .status()
            .expect("mkfifo runs");
        assert!(made.success());
        let refused = walk(dir.path(), &Dockerignore::empty()).expect_err("refused").to_string();
        assert!(refused.contains("pipe is a FIFO"), "{refused}");
        assert!(walk(dir.path(), &rules("pipe\n")).is_ok());
    }

    #[test]
    fn where_links_lead() {
        for (path, target, out) in [
            ("l", "/etc/passwd", true),
            ("l", "..", true),
            ("a/l", "../b", false),
            ("a/l", "../../b", true),
            ("a/l", "b/../../c", false),
            ("a/b/l", "../../../c", true),
        ] {
            assert_eq!(leaves(Path::new(path), Path::new(target)), out, "{path} -> {target}");
        }
    }
}
