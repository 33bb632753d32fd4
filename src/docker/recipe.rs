//! What is asked of a build, and what comes out of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::buildkit::{Look, Origin, Replica, Upon};
use super::push::Pushed;
use crate::context::{Contexts, Inline};
use crate::docker_config::Secret;
use crate::dockerfile::Reads;
use crate::externals::SYNTAX_ARG;
use crate::manifest::{Build, SOURCE_DATE_EPOCH};
use crate::reference::{Digest, ImageName, Reference};

/// What came out of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// Where it is in a graph driver store, or for this program to push, the digest of its configuration; elsewhere that of its
    /// manifest or index.
    pub id: Digest,
    /// The digests of its uncompressed layers, the lowest first (OCI image configuration, `rootfs.diff_ids`); of what is
    /// pushed already maybe only the lower ones.
    pub layers: Vec<String>,
    /// Every instruction came from the builder's cache.
    pub cached: bool,
    /// What of its context it was found to read; all of it, where an image that it is FROM reads some by `ONBUILD`.
    pub reads: Reads,
    /// Where it is in the registry already, or by the digest that it has there.
    pub pushed: Option<Pushed>,
    /// It is in the daemon's store.
    pub(super) is_stored: bool,
    /// Whether it has the folder of the utilities, as far as that is known.
    pub(super) has_folder: Option<bool>,
    /// Where what stands on it can be built without fetching it.
    pub(super) origin: Option<Arc<Origin>>,
    /// What of it can be made again.
    pub(super) replica: Option<Arc<Replica>>,
}

/// An image of this run that others stand on.
#[derive(Clone, Debug)]
pub struct Sibling {
    /// By which a Dockerfile means this very image, whatever happens to its tags meanwhile. Elsewhere than in a daemon it
    /// must have been pushed.
    pub name: String,
    pub(super) has_folder: Option<bool>,
    pub(super) origin: Option<Arc<Origin>>,
    /// Whether what stands on it may be made again, as far as this is concerned.
    pub(super) is_copied: bool,
}

impl Sibling {
    pub(super) fn of(built: &Built, name: String) -> Self {
        Self {
            name,
            has_folder: built.has_folder,
            origin: built.origin.clone(),
            is_copied: built.replica.is_some(),
        }
    }

    pub(super) fn made(made: Made, name: String, is_copied: bool) -> Self {
        Self {
            name,
            has_folder: made.has_folder,
            origin: made.origin,
            is_copied,
        }
    }

    /// What is in a registry under this name.
    #[must_use]
    pub fn published(name: String) -> Self {
        Self {
            name,
            has_folder: None,
            origin: None,
            is_copied: true,
        }
    }
}

impl Built {
    /// What it is called in the repository of `reference`, to which a builder has pushed it.
    pub(super) fn published(&self, reference: &Reference) -> String {
        format!("{}@{}", reference.repository(), self.id)
    }

    /// Nothing stands on it: what that would need is let go.
    #[must_use]
    pub fn on_its_own(self) -> Self {
        Self { origin: None, ..self }
    }

    /// By a builder that pushes it, if it was to be pushed, and does not keep it.
    pub(super) fn elsewhere(made: Made, reads: Reads, names: Names<'_>) -> Self {
        let pushed = Pushed {
            digest: made.id.clone(),
            manifest: None,
            bytes: None,
        };
        Self {
            layers: made.below.iter().map(ToString::to_string).collect(),
            cached: made.cached,
            reads,
            pushed: (!names.push_as.is_empty()).then_some(pushed),
            is_stored: false,
            id: made.id,
            has_folder: made.has_folder,
            origin: made.origin,
            replica: made.replica,
        }
    }
}

/// Whether a build makes an image of copied files alone, as far as its words tell. What has to be made anew is to be made once;
/// an exporter may put a cache into the image, and has a time that is given as an argument.
#[must_use]
pub fn only_copies(build: &Build) -> bool {
    !build.no_cache
        && build.cache_to.is_empty()
        && build.platforms.len() == 1
        && ![SOURCE_DATE_EPOCH, SYNTAX_ARG].iter().any(|arg| build.args.contains_key(*arg))
        && build.dockerfile.parsed.only_copies()
}

/// What a builder answers.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: Digest,
    pub(super) cached: bool,
    /// Of what was looked for ([`Look::After`]).
    pub(super) has_folder: Option<bool>,
    /// By BuildKit alone.
    pub(super) origin: Option<Arc<Origin>>,
    /// What of it can be made again.
    pub(super) replica: Option<Arc<Replica>>,
    /// The layers of an image of elsewhere that it stands on, as far as that is told.
    pub(super) below: Vec<Digest>,
}

/// What an image is called.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// In the daemon.
    pub reference: &'a Reference,
    /// In the registry: a builder that pushes by itself pushes it so, else its layers may be brought there ahead. None: it is
    /// not pushed.
    pub push_as: &'a [Reference],
}

impl<'a> Names<'a> {
    /// Those for the registry that a daemon is not to keep.
    pub(super) fn passing(self) -> impl Iterator<Item = &'a Reference> {
        self.push_as.iter().filter(move |name| *name != self.reference)
    }
}

/// A build and what this run asks of it.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub struct Recipe<'a> {
    pub image: &'a ImageName,
    pub build: &'a Build,
    pub names: Names<'a>,
    /// The Dockerfile to build with: siblings stand in it by their names.
    pub dockerfile: &'a str,
    pub siblings: &'a [Sibling],
    /// The images of elsewhere that it resolves.
    pub external: &'a [String],
    /// Build args of the person's own, which are no part of what the image is made from.
    pub proxies: &'a [(String, Secret)],
    /// What was read of folders in this run.
    pub contexts: &'a Arc<Contexts>,
    /// Whether it gets utilities afterwards.
    pub gets_utilities: bool,
    /// Whether what stands on it is made of copied files alone, too, and needs no name of it in a registry.
    pub is_below_copies: bool,
    pub pull: bool,
    pub no_cache: bool,
}

impl Recipe<'_> {
    /// Whether this program may be able to make it again.
    pub(super) fn is_copied(&self) -> bool {
        !self.no_cache && only_copies(self.build) && self.siblings.iter().all(|sibling| sibling.is_copied)
    }

    /// Whether it is to be made again by this program alone, if that can be done.
    pub(super) fn is_to_be_taken(&self) -> bool {
        self.is_below_copies && self.is_copied()
    }

    /// The proxies too, as far as the build sets none itself. Which of two spellings counts, BuildKit leaves to chance.
    pub(super) fn args(&self) -> HashMap<String, String> {
        let own = &self.build.args;
        let proxies = self
            .proxies
            .iter()
            .filter(|(name, _)| !own.keys().any(|own| own.eq_ignore_ascii_case(name)));
        let proxies = proxies.map(|(name, value)| (name.clone(), value.expose().to_owned()));
        proxies.chain(own.clone()).collect()
    }
}

/// A build without a context of its own.
#[derive(Clone, Copy)]
pub(super) struct InlineBuild<'a> {
    pub(super) dockerfile: &'a str,
    /// What it copies from; the Dockerfile is not among them.
    pub(super) files: &'a [Inline],
    pub(super) siblings: &'a [Sibling],
    pub(super) platforms: &'a [String],
    /// Its `SOURCE_DATE_EPOCH`, for BuildKit.
    pub(super) epoch: Option<&'a str>,
    /// For BuildKit.
    pub(super) look: Option<Look>,
    /// What it comes to, where BuildKit is to be told so.
    pub(super) upon: Option<&'a Upon>,
}
