//! What builds read, each folder once a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Error;
use tracing::debug;

use super::dockerignore::Dockerignore;
use super::{Context, HashCache, Kind, ignore_rules, own_rules, shown};
use crate::dockerfile::Reads;
use crate::externals::SYNTAX_ARG;
use crate::manifest::{Build, NamedContext};
use crate::problem::Problem;

/// All that a build reads of this machine's folders.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What of the context it was taken to read.
    pub reads: Reads,
    pub context: Arc<Context>,
    /// The additional contexts that are folders, by the names that the Dockerfile knows them under.
    pub named: BTreeMap<String, Arc<Context>>,
}

impl Reading {
    /// The size of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let contexts = [&self.context].into_iter().chain(self.named.values());
        let entries = contexts.flat_map(|context| &context.entries);
        let sizes = entries.map(|entry| match entry.kind {
            Kind::File { size, .. } => size,
            Kind::Folder | Kind::Link(_) => 0,
        });
        sizes.sum()
    }

    /// A path in one of the folders that is not as it was read. Blocks.
    ///
    /// # Errors
    /// What cannot be read any more.
    pub fn changed(&self) -> Result<Option<PathBuf>, Error> {
        for context in [&self.context].into_iter().chain(self.named.values()) {
            if let Some(path) = context.changed()? {
                return Ok(Some(context.root.join(path)));
            }
        }
        Ok(None)
    }
}

/// A folder, the rules of its `.dockerignore`, and what is read.
type Key = (PathBuf, Vec<String>, Reads);

/// The folders that were read in this run. Builds that read the same of a folder share what was found.
#[derive(Debug, Default)]
pub struct Contexts {
    cache: HashCache,
    read: Mutex<BTreeMap<Key, Arc<Context>>>,
}

impl Contexts {
    #[must_use]
    pub fn new(cache: HashCache) -> Self {
        Self {
            cache,
            read: Mutex::default(),
        }
    }

    /// What the Dockerfile says that `build` reads. Blocks.
    ///
    /// # Errors
    /// What cannot be read; what is wrong with `.dockerignore` or the Dockerfile.
    pub fn read(&self, build: &Build) -> Result<Reading, Error> {
        self.read_of(build, reads(build)?)
    }

    /// The whole context, for what an image that `build` stands on may read by `ONBUILD`. Blocks.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_whole(&self, build: &Build) -> Result<Reading, Error> {
        self.read_of(build, Reads::Whole)
    }

    fn read_of(&self, build: &Build, reads: Reads) -> Result<Reading, Error> {
        let context = self.folder(&build.context, &ignore_rules(build)?, &reads)?;
        let mut named = BTreeMap::new();
        for (name, additional) in &build.additional_contexts {
            if let NamedContext::Folder(root) = additional {
                named.insert(name.clone(), self.folder(root, &own_rules(root)?, &Reads::Whole)?);
            }
        }
        Ok(Reading { reads, context, named })
    }

    /// One at a time: each uses all cores.
    fn folder(&self, root: &Path, ignore: &Dockerignore, reads: &Reads) -> Result<Arc<Context>, Error> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (root.to_owned(), ignore.rules(), reads.clone());
        if let Some(context) = read.get(&key) {
            return Ok(Arc::clone(context));
        }
        let start = Instant::now();
        let context = Arc::new(Context::read(root, ignore, reads, &self.cache)?);
        debug!("{} entries of {} read in {:?}", context.entries.len(), shown(root), start.elapsed());
        read.insert(key, Arc::clone(&context));
        Ok(context)
    }
}

/// What of its context a build reads, by its Dockerfile.
///
/// # Errors
/// What is wrong with the Dockerfile.
pub fn reads(build: &Build) -> Result<Reads, Problem> {
    if build.args.contains_key(SYNTAX_ARG) {
        return Ok(Reads::Whole);
    }
    let found = build.of_each_platform(|dockerfile, args| Ok(vec![dockerfile.reads(args, build.target.as_deref())?]))?;
    Ok(found.into_iter().reduce(Reads::and).unwrap_or(Reads::Whole))
}
