//! The folders that a build is sent, as fsutil describes what is in them (tonistiigi/fsutil, `types/stat.proto`).

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Error;
use bollard::fsutil::types::Stat;

use crate::context::{Context, Entry, Inline, Kind, open, shown};
use crate::problem::Problem;

const NANOSECONDS: u32 = 1_000_000_000;

/// Bits of a mode as Go's `io/fs` has them, which is how fsutil sends it.
const GO_FOLDER: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;
/// setuid, setgid and sticky, as Unix and as Go have them.
const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// Files, in the order of their paths' components.
pub(super) enum Folder {
    Context {
        context: Arc<Context>,
        /// As [`hard_links`] has them.
        links: HashMap<usize, usize>,
    },
    Inline(Vec<Inline>),
}

impl Folder {
    /// # Errors
    /// A name that is not in UTF-8, which is what BuildKit takes.
    pub(super) fn of_context(context: Arc<Context>) -> Result<Self, Error> {
        for entry in &context.entries {
            if entry.path.to_str().is_none() {
                return Err(not_utf8(&format!("{} is not a name in UTF-8", shown(&entry.path))).into());
            }
            if let Kind::Link(target) = &entry.kind
                && target.to_str().is_none()
            {
                return Err(not_utf8(&format!("the link {} leads to a name that is not UTF-8", shown(&entry.path))).into());
            }
        }
        Ok(Self::Context {
            links: hard_links(&context),
            context,
        })
    }

    pub(super) fn of_inline(files: &[Inline]) -> Self {
        let mut files = files.to_vec();
        files.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        Self::Inline(files)
    }

    /// The part of it that has this name, if there is one in its top.
    pub(super) fn only(&self, name: &str) -> Self {
        match self {
            Self::Context { context, .. } => Self::Context {
                context: Arc::new(context.only(Path::new(name))),
                links: HashMap::new(),
            },
            Self::Inline(files) => Self::Inline(files.iter().filter(|file| file.path == name).cloned().collect()),
        }
    }

    /// Of the file at this place, in bytes.
    pub(super) fn size(&self, at: usize) -> u64 {
        match self {
            Self::Context { context, .. } => context.entries.get(at).map_or(0, |entry| match entry.kind {
                Kind::File { size, .. } => size,
                Kind::Folder | Kind::Link(_) => 0,
            }),
            Self::Inline(files) => files.get(at).map_or(0, |file| file.content.len() as u64),
        }
    }

    /// Of the content of the file at this place.
    pub(super) fn hash(&self, at: usize) -> Option<blake3::Hash> {
        match self {
            Self::Context { context, .. } => match context.entries.get(at)?.kind {
                Kind::File { hash, .. } => Some(hash),
                Kind::Folder | Kind::Link(_) => None,
            },
            Self::Inline(files) => Some(blake3::hash(&files.get(at)?.content)),
        }
    }

    fn stat(&self, at: usize) -> Option<Stat> {
        match self {
            Self::Context { context, links } => {
                let mut stat = stat(context.entries.get(at)?);
                if let Some(first) = links.get(&at) {
                    stat.linkname = context.entries[*first].path.to_string_lossy().into_owned();
                }
                Some(stat)
            }
            Self::Inline(files) => files.get(at).map(inline_stat),
        }
    }

    pub(super) fn stats(self: Arc<Self>) -> impl Iterator<Item = Stat> {
        (0..).map_while(move |at| self.stat(at))
    }

    /// Fills `buffer` from the content of the file at this place, beginning there. Blocks.
    ///
    /// # Errors
    /// When the file is not there any more, or has another size.
    pub(super) fn read_at(&self, at: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Context { context, .. } => {
                let entry = &context.entries[at];
                let file = open(&context.root.join(&entry.path), self.size(at)).map_err(io::Error::other)?;
                file.read_exact_at(buffer, offset)
            }
            Self::Inline(files) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let content = files[at].content.get(start..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// What a description is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    File,
    Folder,
    Link,
    /// Another name of a file that was described before.
    HardLink,
}

pub(super) fn form(stat: &Stat) -> Form {
    match stat {
        _ if stat.mode & GO_FOLDER != 0 => Form::Folder,
        _ if stat.mode & GO_LINK != 0 => Form::Link,
        _ if !stat.linkname.is_empty() => Form::HardLink,
        _ => Form::File,
    }
}

/// Seconds since 1970.
pub(super) fn seconds(stat: &Stat) -> i64 {
    stat.mod_time.div_euclid(i64::from(NANOSECONDS))
}

/// The rest of that time.
pub(super) fn nanoseconds(stat: &Stat) -> i64 {
    stat.mod_time.rem_euclid(i64::from(NANOSECONDS))
}

/// Permissions with setuid, setgid and sticky bits.
pub(super) fn unix_mode(go: u32) -> u32 {
    SPECIAL
        .into_iter()
        .filter(|(_, bit)| go & bit != 0)
        .fold(go & 0o777, |mode, (unix, _)| mode | unix)
}

fn stat(entry: &Entry) -> Stat {
    let mut stat = Stat {
        path: entry.path.to_string_lossy().into_owned(),
        mode: go_mode(entry.mode),
        mod_time: entry.mtime.saturating_mul(i64::from(NANOSECONDS)),
        ..Stat::default()
    };
    match &entry.kind {
        Kind::Folder => stat.mode |= GO_FOLDER,
        Kind::Link(target) => {
            stat.mode |= GO_LINK;
            stat.linkname = target.to_string_lossy().into_owned();
        }
        Kind::File { size, hash, .. } => {
            stat.size = i64::try_from(*size).unwrap_or(i64::MAX);
            stat.mod_time = stat.mod_time.saturating_add(hashed(hash));
        }
    }
    stat
}

fn inline_stat(file: &Inline) -> Stat {
    let mut stat = Stat {
        path: file.path.clone(),
        mode: go_mode(file.mode),
        mod_time: hashed(&blake3::hash(&file.content)),
        ..Stat::default()
    };
    match file.kind {
        tar::EntryType::Directory => stat.mode |= GO_FOLDER,
        tar::EntryType::Symlink => {
            stat.mode |= GO_LINK;
            stat.linkname = String::from_utf8_lossy(&file.content).into_owned();
        }
        _ => stat.size = i64::try_from(file.content.len()).unwrap_or(i64::MAX),
    }
    stat
}

/// Of a file with several names the first one is sent, and the others as links to it (fsutil, `Stat.linkname`):
/// by the place of each in the context, that of its first. Its size stays: without it BuildKit takes an unchanged link for a
/// changed one, and leaves a `.tmp.` file beside it.
fn hard_links(context: &Context) -> HashMap<usize, usize> {
    let (mut first, mut links) = (HashMap::new(), HashMap::new());
    for (at, entry) in context.entries.iter().enumerate() {
        if let Kind::File { shared: Some(id), .. } = &entry.kind {
            let first = *first.entry(**id).or_insert(at);
            if first != at {
                links.insert(at, first);
            }
        }
    }
    links
}

fn not_utf8(fact: &str) -> Problem {
    Problem::failed(format!("{fact}, which BuildKit needs")).hint("rename it, exclude it in .dockerignore, or build with DOCKER_BUILDKIT=0")
}

fn go_mode(unix: u32) -> u32 {
    SPECIAL
        .into_iter()
        .filter(|(bit, _)| unix & bit != 0)
        .fold(unix & 0o777, |mode, (_, go)| mode | go)
}

/// A hash as nanoseconds.
fn hashed(hash: &blake3::Hash) -> i64 {
    let [a, b, c, d, ..] = *hash.as_bytes();
    i64::from(u32::from_le_bytes([a, b, c, d]) % NANOSECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos_there_and_back() {
        assert_eq!(go_mode(0o4755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o3700), 1 << 22 | 1 << 20 | 0o700);
        for mode in [0, 0o644, 0o4755, 0o3700, 0o7777] {
            assert_eq!(unix_mode(go_mode(mode)), mode);
        }
    }
}
