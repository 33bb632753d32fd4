//! What is in an image, as far as its layers tell.

use std::collections::BTreeMap;

use super::tree::{Entry, Tree, What};

#[derive(Clone, Default)]
pub(super) struct Inventory {
    /// By paths as a [`Tree`] has them.
    kinds: BTreeMap<String, Kind>,
    is_whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder { mode: u32 },
    File,
    Link,
}

impl Kind {
    pub(super) fn of(entry: &Entry) -> Self {
        match entry.what {
            What::Folder => Self::Folder { mode: entry.mode },
            What::Link(_) => Self::Link,
            What::File(_) => Self::File,
        }
    }
}

impl Inventory {
    /// Of an image of elsewhere, or of nothing, where it `is_whole`.
    pub(super) fn new(is_whole: bool) -> Self {
        Self {
            kinds: BTreeMap::new(),
            is_whole,
        }
    }

    /// Whether there is nothing else in the image.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(super) fn kind(&self, path: &str) -> Option<Kind> {
        self.kinds.get(path).copied()
    }

    /// A layer comes upon it.
    pub(super) fn add(&mut self, layer: &Tree) {
        self.kinds.extend(layer.iter().map(|(path, entry)| (path.clone(), Kind::of(entry))));
    }
}
