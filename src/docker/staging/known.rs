//! Which blob of a registry a layer is, kept from run to run, so that a layer that the registry has is compressed once.
//!
//! Each registry has a file with its layers, the one used last at the end.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::reference::{Digest, Repository};
use crate::{atomic, kept};

const FORMAT: &str = "lattice-layers-1";
const MOST_LAYERS: usize = 2_000;
const MOST_REPOSITORIES: usize = 4;
const MOST_REGISTRIES: usize = 20;
const LONGEST: u64 = 4 << 20;

/// A compressed layer in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    layer: Digest,
    #[serde(flatten)]
    blob: Blob,
    /// Paths of repositories that had it, the last one first.
    repositories: Vec<String>,
}

/// What is known of one registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    host: String,
    file: Option<PathBuf>,
    layers: BTreeMap<Digest, Entry>,
    /// In the order in which they were learned.
    learned: Vec<Entry>,
}

impl Known {
    /// Below the program's cache folder; without one, nothing is kept.
    pub(super) fn of(cache: Option<&Path>, host: &str) -> Self {
        let name = blake3::hash(host.as_bytes()).to_hex();
        let file = cache.map(|cache| cache.join("layers").join(&name.as_str()[..32]));
        let entries = file.as_deref().and_then(|file| read(file, host)).unwrap_or_default();
        Self {
            layers: entries.into_iter().map(|entry| (entry.layer.clone(), entry)).collect(),
            host: host.to_owned(),
            file,
            learned: Vec::new(),
        }
    }

    /// The blob, and the repositories that may have it.
    pub(super) fn get(&self, layer: &Digest) -> Option<(Blob, Vec<Repository>)> {
        let entry = self.layers.get(layer)?;
        let repositories = entry
            .repositories
            .iter()
            .filter_map(|path| format!("{}/{path}", self.host).parse().ok());
        Some((entry.blob.clone(), repositories.collect()))
    }

    /// The repository has been seen to have the layer as this blob.
    pub(super) fn learn(&mut self, layer: &Digest, blob: &Blob, repository: &Repository) {
        let mut repositories = vec![repository.path().to_owned()];
        if let Some(entry) = self.layers.get(layer).filter(|entry| entry.blob == *blob) {
            repositories.extend(entry.repositories.iter().filter(|path| *path != repository.path()).cloned());
        }
        repositories.truncate(MOST_REPOSITORIES);
        let entry = Entry {
            layer: layer.clone(),
            blob: blob.clone(),
            repositories,
        };
        self.layers.insert(layer.clone(), entry.clone());
        self.learned.push(entry);
    }

    /// Keeps what was learned, beside what other runs did meanwhile. That it cannot be kept costs time only.
    pub(super) fn save(&mut self) {
        let learned = std::mem::take(&mut self.learned);
        let Some(file) = self.file.as_deref().filter(|_| !learned.is_empty()) else {
            return;
        };
        let before = read(file, &self.host).unwrap_or_default();
        let all: Vec<Entry> = before.into_iter().chain(learned).collect();
        // of each layer what was learned last
        let last: BTreeMap<&Digest, usize> = all.iter().enumerate().map(|(at, entry)| (&entry.layer, at)).collect();
        let kept: Vec<&Entry> = all
            .iter()
            .enumerate()
            .filter(|(at, entry)| last[&entry.layer] == *at)
            .map(|(_, entry)| entry)
            .collect();
        let kept = &kept[kept.len().saturating_sub(MOST_LAYERS)..];
        if let Err(error) = put(file, &self.host, kept) {
            tracing::debug!("{}: {error}", file.display());
        }
    }
}

fn read(file: &Path, host: &str) -> Option<Vec<Entry>> {
    kept::read(file, FORMAT, host, LONGEST)
}

fn put(file: &Path, host: &str, layers: &[&Entry]) -> io::Result<()> {
    kept::write(file, FORMAT, host, &layers)?;
    atomic::keep_newest(file.parent().ok_or(io::ErrorKind::InvalidInput)?, MOST_REGISTRIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "127.0.0.1:5000";

    fn blob(number: u64) -> Blob {
        Blob {
            digest: Digest::of(&number.to_le_bytes()),
            size: number,
        }
    }

    fn repository(name: &str) -> Repository {
        format!("{HOST}/{name}").parse().expect("valid")
    }

    fn learned(cache: &Path, layers: impl IntoIterator<Item = (u64, &'static str)>) {
        let mut known = Known::of(Some(cache), HOST);
        for (number, name) in layers {
            known.learn(
                &Digest::of(&[
                    u8::try_from(number % 251).expect("a byte"),
                    u8::try_from(number / 251).expect("a byte"),
                ]),
                &blob(number),
                &repository(name),
            );
        }
        known.save();
    }

    fn names(known: &Known, number: u8) -> Option<Vec<String>> {
        let (_, repositories) = known.get(&Digest::of(&[number, 0]))?;
        Some(repositories.iter().map(|repository| repository.path().to_owned()).collect())
    }

    #[test]
    fn what_was_learned_is_known_the_next_time_and_of_its_registry_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        learned(dir.path(), [(1, "a"), (2, "a")]);
        learned(dir.path(), [(1, "b"), (3, "a")]);
        let known = Known::of(Some(dir.path()), HOST);
        assert_eq!(names(&known, 1).expect("known"), ["b", "a"]);
        assert_eq!(
            (names(&known, 2).expect("known"), names(&known, 3).expect("known")),
            (vec!["a".to_owned()], vec!["a".to_owned()])
        );
        assert_eq!(known.get(&Digest::of(&[1, 0])).expect("known").0, blob(1));
        assert_eq!(names(&Known::of(Some(dir.path()), "h.test"), 1), None);
        assert_eq!(names(&Known::of(None, HOST), 1), None);
    }

    #[test]
    fn another_blob_is_not_where_the_one_before_was() {
        let dir = tempfile::tempdir().expect("a folder");
        learned(dir.path(), [(1, "a")]);
        let mut known = Known::of(Some(dir.path()), HOST);
        known.learn(&Digest::of(&[1, 0]), &blob(9), &repository("b"));
        assert_eq!(names(&known, 1).expect("known"), ["b"]);
    }

    #[test]
    fn the_layers_that_were_used_last_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        learned(dir.path(), (0..MOST_LAYERS as u64).map(|number| (number, "a")));
        learned(dir.path(), [(0, "a"), (MOST_LAYERS as u64, "a")]);
        let known = Known::of(Some(dir.path()), HOST);
        assert_eq!(known.layers.len(), MOST_LAYERS);
        assert!(names(&known, 0).is_some() && names(&known, 1).is_none());
    }
}
