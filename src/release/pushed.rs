//! What a person has pushed from this machine, by fingerprint, kept from run to run: another channel of theirs takes it from
//! there, without a build.
//!
//! Each fingerprint has a file with its images, the one pushed last at the front. The records of other channels are not
//! taken at their word like this; what is kept here, no other person has written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::reference::Repository;
use crate::registry::Manifest;
use crate::{atomic, kept};

const FORMAT: &str = "lattice-pushed-2";
const MOST_FINGERPRINTS: usize = 2_000;
const MOST_IMAGES: usize = 2;
const LONGEST: u64 = 1 << 20;

/// An image in a channel's repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) channel: String,
    repository: String,
    media_type: String,
    manifest: String,
}

impl Image {
    /// None where the manifest is no text, and so no JSON.
    pub(super) fn new(channel: String, repository: &Repository, manifest: &Manifest) -> Option<Self> {
        Some(Self {
            channel,
            repository: repository.to_string(),
            media_type: manifest.media_type().to_owned(),
            manifest: String::from_utf8(manifest.bytes().to_vec()).ok()?,
        })
    }

    pub(super) fn manifest(&self) -> Manifest {
        Manifest::new(self.media_type.clone(), self.manifest.clone())
    }

    /// None where the file was changed by hand.
    pub(super) fn repository(&self) -> Option<Repository> {
        self.repository.parse().ok()
    }
}

pub(super) fn of(cache: &Path, fingerprint: &Fingerprint) -> Vec<Image> {
    let (file, subject) = (file(cache, fingerprint), fingerprint.to_string());
    kept::read(&file, FORMAT, &subject, LONGEST).unwrap_or_default()
}

/// Keeps the images of a run.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn keep<'f>(cache: &Path, images: impl IntoIterator<Item = (&'f Fingerprint, Image)>) -> io::Result<()> {
    for (fingerprint, image) in images {
        let mut all = of(cache, fingerprint);
        all.retain(|other| other.repository != image.repository);
        all.insert(0, image);
        all.truncate(MOST_IMAGES);
        kept::write(&file(cache, fingerprint), FORMAT, &fingerprint.to_string(), &all)?;
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
        let manifest = Manifest::new("a/b", format!("{{\"number\": {number}}}"));
        let image = Image::new(format!("c{number}"), &repository, &manifest).expect("text");
        assert_eq!(image.manifest(), manifest);
        image
    }

    #[test]
    fn the_last_ones_are_kept_each_repository_once() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(of(dir.path(), &fingerprint()), []);
        for number in [0, 1, 2, 1, 3, 4] {
            keep(dir.path(), [(&fingerprint(), image(number))]).expect("kept");
        }
        assert_eq!(of(dir.path(), &fingerprint()), [4, 3].map(image));
        forget(dir.path(), &fingerprint());
        assert_eq!(of(dir.path(), &fingerprint()), []);
    }
}
