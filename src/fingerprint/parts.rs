//! What a fingerprint was made of, in short, to tell later why another one differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::Fingerprint;
use crate::atomic;
use crate::problem::printable;
use crate::reference::Digest;

/// A context with more entries is told by its folders.
const MOST_PATHS: usize = 5_000;
const MOST_KEPT: usize = 2_000;
const MAX_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    scheme: u32,
    /// Hashes of the values by the names of the keys.
    keys: BTreeMap<String, u64>,
    /// Digests by names.
    bases: BTreeMap<String, String>,
    /// Fingerprints by names.
    siblings: BTreeMap<String, String>,
    /// The files of the context, under the empty name, and of additional ones under theirs.
    contexts: BTreeMap<String, Files>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Files {
    /// Where there are too many: of how many components the paths are, each with the hash of all that begins with it.
    depth: Option<usize>,
    hashes: BTreeMap<String, u64>,
}

/// A reason why two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Our own way of building.
    Scheme,
    /// A build key by its name; args and labels with theirs, as in `args.VERSION`.
    Key(String),
    /// An image of elsewhere has another digest.
    Base(String),
    /// Another image of the manifest.
    Sibling(String),
    File {
        /// As in the context, or `NAME:path` in an additional one. A folder where single files are too many to be told.
        path: String,
        change: FileChange,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    Added,
    Removed,
    Changed,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("this version of lattice-images builds otherwise"),
            Self::Key(name) if name == "dockerfile" => f.write_str("the Dockerfile changed"),
            Self::Key(name) => write!(f, "key changed: {}", printable(name)),
            Self::Base(name) => write!(f, "base moved: {}", printable(name)),
            Self::Sibling(name) => write!(f, "image changed: {}", printable(name)),
            Self::File { path, change } => {
                let change = match change {
                    FileChange::Added => "added",
                    FileChange::Removed => "removed",
                    FileChange::Changed => "changed",
                };
                write!(f, "file {change}: {}", printable(path))
            }
        }
    }
}

impl Parts {
    pub(super) fn new(scheme: u32) -> Self {
        Self {
            scheme,
            keys: BTreeMap::new(),
            bases: BTreeMap::new(),
            siblings: BTreeMap::new(),
            contexts: BTreeMap::new(),
        }
    }

    pub(super) fn key(&mut self, name: &str, hash: u64) {
        self.keys.insert(name.to_owned(), hash);
    }

    pub(super) fn base(&mut self, name: &str, digest: &Digest) {
        self.bases.insert(name.to_owned(), digest.to_string());
    }

    pub(super) fn sibling(&mut self, name: &str, fingerprint: &Fingerprint) {
        self.siblings.insert(name.to_owned(), fingerprint.to_string());
    }

    pub(super) fn files(&mut self, context: Option<&str>, entries: &[(&Path, u64)]) {
        self.contexts.insert(context.unwrap_or_default().to_owned(), Files::of(entries));
    }

    /// What differs from `before`, in the order of what a person looks at first.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        if self.scheme != before.scheme {
            differences.push(Difference::Scheme);
        }
        let names = |changes: Vec<(String, FileChange)>| changes.into_iter().map(|(name, _)| name);
        differences.extend(names(changes(&self.bases, &before.bases)).map(Difference::Base));
        differences.extend(names(changes(&self.siblings, &before.siblings)).map(Difference::Sibling));
        differences.extend(names(changes(&self.keys, &before.keys)).map(Difference::Key));
        let nothing = Files::default();
        let contexts: BTreeSet<&String> = self.contexts.keys().chain(before.contexts.keys()).collect();
        for name in contexts {
            let now = self.contexts.get(name).unwrap_or(&nothing);
            let changes = now.changes(before.contexts.get(name).unwrap_or(&nothing));
            differences.extend(changes.into_iter().map(|(path, change)| Difference::File {
                path: if name.is_empty() { path } else { format!("{name}:{path}") },
                change,
            }));
        }
        differences
    }

    /// What was kept under `fingerprint`, if anything that can be read was.
    #[must_use]
    pub fn kept(cache: &Path, fingerprint: &Fingerprint) -> Option<Self> {
        Self::read(cache, fingerprint)
    }

    fn read<T: DeserializeOwned>(cache: &Path, fingerprint: &Fingerprint) -> Option<T> {
        let file = folder(cache).join(fingerprint.to_string());
        let is_sane = fs::metadata(&file).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
        let content = is_sane.then(|| fs::read(&file).ok()).flatten()?;
        serde_json::from_slice(&content).ok()
    }

    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, cache: &Path, fingerprint: &Fingerprint) -> io::Result<()> {
        let folder = folder(cache);
        let file = folder.join(fingerprint.to_string());
        if Self::read::<IgnoredAny>(cache, fingerprint).is_some() {
            return Ok(());
        }
        fs::create_dir_all(&folder)?;
        atomic::write(&file, &serde_json::to_vec(self)?)?;
        atomic::keep_newest(&folder, MOST_KEPT)
    }
}

/// Whether [`remember_whole`] was told of it.
#[must_use]
pub fn reads_whole(cache: &Path, fingerprint: &Fingerprint) -> bool {
    whole(cache, fingerprint).exists()
}

/// Remembers that a build with this fingerprint was found to read its whole context, by what its base defers: its
/// fingerprint must be made anew, from all of it.
///
/// # Errors
/// When it cannot be written.
pub fn remember_whole(cache: &Path, fingerprint: &Fingerprint) -> io::Result<()> {
    let file = whole(cache, fingerprint);
    fs::create_dir_all(folder(cache))?;
    atomic::write(&file, b"")?;
    atomic::keep_newest(&folder(cache), MOST_KEPT)
}

fn whole(cache: &Path, fingerprint: &Fingerprint) -> PathBuf {
    folder(cache).join(format!("{fingerprint}.whole"))
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("fingerprints")
}

impl Files {
    fn of(entries: &[(&Path, u64)]) -> Self {
        let deepest = entries.iter().map(|(path, _)| path.components().count()).max().unwrap_or(0);
        if entries.len() <= MOST_PATHS {
            return Self {
                depth: None,
                hashes: entries.iter().map(|(path, hash)| (path.display().to_string(), *hash)).collect(),
            };
        }
        let grouped = |depth: usize| Self::grouped(entries, depth);
        (1..deepest)
            .rev()
            .map(grouped)
            .find(|files| files.hashes.len() <= MOST_PATHS)
            .unwrap_or_else(|| grouped(0))
    }

    fn grouped(entries: &[(&Path, u64)], depth: usize) -> Self {
        let mut groups: BTreeMap<String, blake3::Hasher> = BTreeMap::new();
        for (path, hash) in entries {
            let start: PathBuf = path.components().take(depth).collect();
            let group = groups.entry(start.display().to_string()).or_default();
            super::put(group, path.as_os_str().as_encoded_bytes());
            group.update(&hash.to_le_bytes());
        }
        let hashes = groups.into_iter().map(|(path, group)| (path, super::short(&group.finalize())));
        Self {
            depth: Some(depth),
            hashes: hashes.collect(),
        }
    }

    fn changes(&self, before: &Self) -> Vec<(String, FileChange)> {
        if self.depth == before.depth {
            return changes(&self.hashes, &before.hashes);
        }
        vec![(".".to_owned(), FileChange::Changed)]
    }
}

fn changes<T: PartialEq>(now: &BTreeMap<String, T>, before: &BTreeMap<String, T>) -> Vec<(String, FileChange)> {
    let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    let change = |name: &String| match (now.get(name), before.get(name)) {
        (Some(now), Some(before)) if now == before => None,
        (Some(_), Some(_)) => Some(FileChange::Changed),
        (Some(_), None) => Some(FileChange::Added),
        (None, _) => Some(FileChange::Removed),
    };
    names.into_iter().filter_map(|name| Some((name.clone(), change(name)?))).collect()
}
