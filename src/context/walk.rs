//! The files of a context that a build reads and `.dockerignore` leaves, each checked to be one that an image can hold.
//!
//! Folders are looked at by as many threads as there are cores, and put in order afterwards.

use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

use super::dockerignore::{Dockerignore, Judgement};
use super::hashes::Stamp;
use super::selection::{Selection, Within};
use super::tree::{Entry, Kind, UNHASHED};
use super::{shown, unreadable};
use crate::machine;
use crate::problem::Problem;

const GROUP_WRITE: u32 = 0o020;
const PERMISSIONS: u32 = 0o7777;

/// What is in a context, its files not hashed yet.
pub(super) struct Listing {
    /// In the order of their paths' components, a folder before what is in it.
    pub(super) entries: Vec<Entry>,
    /// Entries that are sent otherwise than somebody may expect, or not at all.
    pub(super) notes: Vec<String>,
}

/// # Errors
/// A file that cannot be read; a device or FIFO, which no image can get from a context.
pub(super) fn list(root: &Path, ignore: &Dockerignore, selection: &Selection) -> Result<Listing, Problem> {
    let folders = Mutex::new(Vec::new());
    walk(root, ignore, selection, &|place, found| {
        let mut folders = folders.lock().expect("looking does not panic");
        let length = folders.len().max(place + 1);
        folders.resize_with(length, Vec::new);
        folders[place] = found;
    })?;
    let folders = folders.into_inner().expect("looking does not panic");
    let mut order = Order {
        entries: Vec::with_capacity(folders.iter().map(Vec::len).sum()),
        folders,
        sockets: Vec::new(),
        outward: Vec::new(),
    };
    order.folder(0);
    let mut notes = Vec::new();
    notes.extend(note(&order.sockets, "is a socket and is left out", "are sockets and are left out"));
    notes.extend(note(
        &order.outward,
        "is a link that leaves the context: the image gets the link, not what it points to",
        "are links that leave the context: the image gets the links, not what they point to",
    ));
    Ok(Listing {
        entries: order.entries,
        notes,
    })
}

/// Hands out each entry in no order, and whether it is kept for itself: a folder may be there for what is kept in it.
///
/// # Errors
/// As [`list`].
pub(super) fn visit(
    root: &Path,
    ignore: &Dockerignore,
    selection: &Selection,
    each: &(dyn Fn(&Entry, bool) + Sync),
) -> Result<(), Problem> {
    walk(root, ignore, selection, &|_, found| {
        for found in found {
            if let What::Entry(entry) = &found.what {
                each(entry, found.kept);
            }
        }
    })
}

/// What was found in a folder, with the folder's place among all.
type Take<'t> = &'t (dyn Fn(usize, Vec<Found>) + Sync);

fn walk(root: &Path, ignore: &Dockerignore, selection: &Selection, take: Take<'_>) -> Result<(), Problem> {
    let top = Task {
        folder: PathBuf::new(),
        judged: None,
        within: selection.top(),
    };
    let queue = Queue {
        state: Mutex::new(State {
            waiting: vec![(0, top)],
            busy: 0,
            folders: 1,
            failure: None,
        }),
        changed: Condvar::new(),
    };
    let looker = Looker { root, ignore };
    thread::scope(|scope| {
        for _ in 1..machine::cores() {
            scope.spawn(|| queue.work(&looker, take));
        }
        queue.work(&looker, take);
    });
    let state = queue.state.into_inner().expect("looking does not panic");
    state.failure.map_or(Ok(()), Err)
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

/// A folder to look at, relative to the root.
struct Task<'s> {
    folder: PathBuf,
    judged: Option<Judgement>,
    within: Within<'s>,
}

/// Something in a folder.
struct Found {
    what: What,
    /// For itself; else it goes along with what is kept in it.
    kept: bool,
    /// The place of what is in it.
    inner: Option<usize>,
}

enum What {
    Entry(Entry),
    Socket(PathBuf),
}

struct Queue<'s> {
    state: Mutex<State<'s>>,
    changed: Condvar,
}

struct State<'s> {
    /// Each with its place.
    waiting: Vec<(usize, Task<'s>)>,
    busy: usize,
    /// How many have a place.
    folders: usize,
    failure: Option<Problem>,
}

impl<'s> Queue<'s> {
    fn work(&self, looker: &Looker<'_>, take: Take<'_>) {
        while let Some((place, task)) = self.next() {
            let mut inner = Vec::new();
            let found = looker.look_into(&task, &mut inner);
            let mut state = self.lock();
            match found {
                Ok(mut found) => {
                    state.put(inner, &mut found);
                    self.changed.notify_all();
                    drop(state);
                    take(place, found);
                    state = self.lock();
                }
                Err(problem) => state.failure = Some(problem),
            }
            state.busy -= 1;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<(usize, Task<'s>)> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(task) = state.waiting.pop() {
                state.busy += 1;
                return Some(task);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).expect("looking does not panic");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'s>> {
        self.state.lock().expect("looking does not panic")
    }
}

impl<'s> State<'s> {
    /// Gives each folder in a folder a place; `inner` has their places in it.
    fn put(&mut self, inner: Vec<(usize, Task<'s>)>, found: &mut [Found]) {
        for (at, task) in inner {
            found[at].inner = Some(self.folders);
            self.waiting.push((self.folders, task));
            self.folders += 1;
        }
    }
}

struct Looker<'a> {
    root: &'a Path,
    ignore: &'a Dockerignore,
}

impl Looker<'_> {
    /// What is in a folder; the folders among it that are to be looked into, by their places in it, go to `inner`.
    fn look_into<'s>(&self, task: &Task<'s>, inner: &mut Vec<(usize, Task<'s>)>) -> Result<Vec<Found>, Problem> {
        let full = self.root.join(&task.folder);
        let mut names: Vec<(OsString, DirEntry)> = fs::read_dir(&full)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| (entry.file_name(), entry))).collect())
            .map_err(|error| unreadable(&full, &error))?;
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut all = Vec::with_capacity(names.len());
        for (name, entry) in &names {
            if let Some((found, task)) = self.at(name, entry, task)? {
                inner.extend(task.map(|task| (all.len(), task)));
                all.push(found);
            }
        }
        Ok(all)
    }

    fn at<'s>(&self, name: &OsString, entry: &DirEntry, task: &Task<'s>) -> Result<Option<(Found, Option<Task<'s>>)>, Problem> {
        let within = task.within.step(&name.to_string_lossy());
        if within.is_empty() {
            return Ok(None);
        }
        let path = task.folder.join(name);
        let judgement = self.ignore.judge(&path.to_string_lossy(), task.judged.as_ref());
        let kept = within.is_selected() && !judgement.excluded;
        let failed = |error: io::Error| unreadable(&self.root.join(&path), &error);
        let looks_into = !judgement.pruned && entry.file_type().map_err(failed)?.is_dir();
        if !kept && !looks_into {
            return Ok(None);
        }
        let metadata = entry.metadata().map_err(failed)?;
        let inner = looks_into.then(|| Task {
            folder: path.clone(),
            judged: Some(judgement),
            within,
        });
        let what = self.what(path, &metadata)?;
        Ok(Some((Found { what, kept, inner: None }, inner)))
    }

    fn what(&self, path: PathBuf, metadata: &Metadata) -> Result<What, Problem> {
        let full = || self.root.join(&path);
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(What::Socket(path));
        }
        if kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            let what = if kind.is_fifo() { "a FIFO" } else { "a device" };
            return Err(
                Problem::failed(format!("{} is {what}: an image cannot get it from a context", shown(&full())))
                    .hint("exclude it in .dockerignore, or remove it"),
            );
        }
        let kind = if kind.is_dir() {
            Kind::Folder
        } else if kind.is_symlink() {
            Kind::Link(fs::read_link(full()).map_err(|error| unreadable(&full(), &error))?)
        } else {
            Kind::File {
                size: metadata.len(),
                shared: (metadata.nlink() > 1).then(|| Box::new((metadata.dev(), metadata.ino()))),
                stamp: Stamp::new(&path, metadata),
                hash: UNHASHED,
            }
        };
        Ok(What::Entry(Entry {
            kind,
            mode: metadata.mode() & PERMISSIONS & !GROUP_WRITE,
            mtime: metadata.mtime(),
            path: path.into(),
        }))
    }
}

/// Puts what was found in order.
struct Order {
    folders: Vec<Vec<Found>>,
    entries: Vec<Entry>,
    sockets: Vec<String>,
    outward: Vec<String>,
}

impl Order {
    fn folder(&mut self, place: usize) {
        for found in std::mem::take(&mut self.folders[place]) {
            let before = self.entries.len();
            match found.what {
                What::Socket(path) => self.sockets.push(shown(&path)),
                What::Entry(entry) => {
                    if matches!(&entry.kind, Kind::Link(target) if leaves(&entry.path, target)) {
                        self.outward.push(shown(&entry.path));
                    }
                    self.entries.push(entry);
                }
            }
            if let Some(inner) = found.inner {
                self.folder(inner);
                if !found.kept && self.entries.len() == before + 1 {
                    self.entries.pop();
                }
            }
        }
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
    use super::super::tree::{Context, walk};
    use super::*;
    use crate::context::HashCache;
    use crate::dockerfile::Reads;
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
    fn what_is_not_read_is_not_looked_at() {
        let dir = tempfile::tempdir().expect("a folder");
        for file in ["a/b/c", "a/d/c", "e/f", "g"] {
            fs::create_dir_all(dir.path().join(file).parent().expect("a parent")).expect("created");
            fs::write(dir.path().join(file), file).expect("written");
        }
        for (reads, found) in [
            (vec!["a/b"], vec!["a", "a/b", "a/b/c"]),
            (vec!["*/f", "g"], vec!["e", "e/f", "g"]),
            (vec!["a/*/c"], vec!["a", "a/b", "a/b/c", "a/d", "a/d/c"]),
            (vec!["none", "a/none"], vec![]),
            (vec![], vec![]),
        ] {
            let reads = Reads::of(reads.into_iter().map(str::to_owned));
            let cache = HashCache::default();
            let context = Context::read(dir.path(), &rules("e/g\n"), &reads, &cache).expect("read");
            assert_eq!(paths(&context), found, "{reads:?}");
        }
        let _pipe = UnixListener::bind(dir.path().join("e/s")).expect("bound");
        fs::set_permissions(dir.path().join("a/d"), fs::Permissions::from_mode(0o0)).expect("changed");
        let reads = Reads::of(["g".to_owned()]);
        let context = Context::read(dir.path(), &Dockerignore::empty(), &reads, &HashCache::default()).expect("read");
        assert!(context.notes.is_empty() && paths(&context) == ["g"]);
    }

    #[test]
    fn many_folders_come_in_order() {
        let dir = tempfile::tempdir().expect("a folder");
        for number in 0..300 {
            let folder = dir.path().join(format!("{}/{}", number % 7, number % 31));
            fs::create_dir_all(&folder).expect("created");
            fs::write(folder.join(number.to_string()), "").expect("written");
        }
        let context = walk(dir.path(), &Dockerignore::empty()).expect("walked");
        assert!(context.entries.is_sorted_by(|a, b| a.path < b.path));
        assert_eq!(context.entries.len(), 300 + 7 + 7 * 31);
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
