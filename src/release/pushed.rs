//! What a person has pushed from this machine, by fingerprint, kept from run to run: another channel of theirs takes it from
//! there, without a build.
//!
//! Each fingerprint has a file: the images as JSON, the one pushed last at the front. The records of other channels are not
//! taken at their word like this; what is kept here, no other person has written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::fingerprint::Fingerprint;
use crate::reference::{Digest, Repository};

const MOST_FINGERPRINTS: usize = 2_000;
const MOST_IMAGES: usize = 4;
const LONGEST: u64 = 64 << 10;

/// An image in a channel's repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) channel: String,
    repository: String,
    pub(super) digest: Digest,
}

impl Image {
    pub(super) fn new(channel: String, repository: &Repository, digest: Digest) -> Self {
        Self {
            channel,
            repository: repository.to_string(),
            digest,
        }
    }

    /// None where the file was changed by hand.
    pub(super) fn repository(&self) -> Option<Repository> {
        self.repository.parse().ok()
    }
}

/// What was kept of the fingerprint; what cannot be read counts as nothing.
pub(super) fn kept(cache: &Path, fingerprint: &Fingerprint) -> Vec<Image> {
    let file = file(cache, fingerprint);
    let is_sane = fs::metadata(&file).is_ok_and(|metadata| metadata.len() <= LONGEST);
    let content = is_sane.then(|| fs::read(&file).ok()).flatten().unwrap_or_default();
    serde_json::from_slice(&content).unwrap_or_default()
}

/// Keeps the images of a run.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn keep<'f>(cache: &Path, images: impl IntoIterator<Item = (&'f Fingerprint, Image)>) -> io::Result<()> {
    fs::create_dir_all(folder(cache))?;
    for (fingerprint, image) in images {
        let mut all = kept(cache, fingerprint);
        all.retain(|other| other.repository != image.repository);
        all.insert(0, image);
        all.truncate(MOST_IMAGES);
        atomic::write(&file(cache, fingerprint), &serde_json::to_vec(&all)?)?;
    }
    atomic::keep_newest(&folder(cache), MOST_FINGERPRINTS)
}

/// An image that could not be taken is built the next time.
pub(super) fn forget(cache: &Path, fingerprint: &Fingerprint) {
    // that it stays costs one more failure
    let _ = fs::remove_file(file(cache, fingerprint));
}

fn file(cache: &Path, fingerprint: &Fingerprint) -> PathBuf {
    folder(cache).join(fingerprint.to_string())
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("pushed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        "0".repeat(64).parse().expect("a fingerprint")
    }

    fn image(number: u8) -> Image {
        let repository = format!("h.test/x/c{number}-svc").parse().expect("valid");
        Image::new(format!("c{number}"), &repository, Digest::of(&[number]))
    }

    #[test]
    fn the_last_ones_are_kept_each_repository_once() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(kept(dir.path(), &fingerprint()), []);
        for number in [0, 1, 2, 1, 3, 4] {
            keep(dir.path(), [(&fingerprint(), image(number))]).expect("kept");
        }
        assert_eq!(kept(dir.path(), &fingerprint()), [4, 3, 1, 2].map(image));
        forget(dir.path(), &fingerprint());
        assert_eq!(kept(dir.path(), &fingerprint()), []);
    }

    #[test]
    fn what_is_torn_counts_as_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        keep(dir.path(), [(&fingerprint(), image(1))]).expect("kept");
        let file = file(dir.path(), &fingerprint());
        let whole = fs::read(&file).expect("read");
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).expect("written");
            assert_eq!(kept(dir.path(), &fingerprint()), [], "{length} bytes");
        }
    }
}
