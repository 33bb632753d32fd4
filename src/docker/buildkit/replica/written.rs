//! The digests of layers that were written before, kept from run to run, so that their files need not be read to tell them.

use std::io;
use std::path::{Path, PathBuf};

use blake3::Hash;

use crate::reference::Digest;
use crate::{atomic, kept};

const FORMAT: &str = "lattice-written-1";
const MOST_LAYERS: usize = 2_000;
const LONGEST: u64 = 1 << 10;

/// Of the layer with this [`super::tar::Layout::sketch`].
pub(super) fn digest(cache: &Path, sketch: &Hash) -> Option<Digest> {
    kept::read(&file(cache, sketch), FORMAT, &sketch.to_hex(), LONGEST)
}

/// # Errors
/// When it cannot be kept.
pub(super) fn keep(cache: &Path, sketch: &Hash, digest: &Digest) -> io::Result<()> {
    kept::write(&file(cache, sketch), FORMAT, &sketch.to_hex(), digest)?;
    atomic::keep_newest(&folder(cache), MOST_LAYERS)
}

fn file(cache: &Path, sketch: &Hash) -> PathBuf {
    folder(cache).join(sketch.to_hex().as_str())
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("written")
}
