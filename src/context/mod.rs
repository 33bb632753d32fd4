//! What a build reads: the files of its context, as the builder is to see them.

pub mod classic;
pub mod dockerignore;
mod hashes;
mod reading;
mod selection;
mod tar;
mod tree;
mod walk;

pub use hashes::{HashCache, Stamp};
pub use reading::{Contexts, Reading, reads};
pub use tar::{CHANGED, Inline, archive, open, stream};
#[cfg(test)]
pub(crate) use tree::walk;
pub use tree::{Context, Entry, Kind};

use std::fs;
use std::io;
use std::path::Path;

use dockerignore::Dockerignore;

use crate::manifest::Build;
use crate::problem::{Problem, printable};

const DOCKERIGNORE: &str = ".dockerignore";

/// The rules for a build's context: `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
///
/// # Errors
/// A rule that cannot be read, with its file and line.
pub fn ignore_rules(build: &Build) -> Result<Dockerignore, Problem> {
    if let Some(dockerfile) = &build.dockerfile.path {
        let mut beside = dockerfile.clone().into_os_string();
        beside.push(DOCKERIGNORE);
        if let Some(rules) = read_rules(Path::new(&beside))? {
            return Ok(rules);
        }
    }
    own_rules(&build.context)
}

/// The rules of the `.dockerignore` in `folder`; none without one.
///
/// # Errors
/// As [`ignore_rules`].
pub fn own_rules(folder: &Path) -> Result<Dockerignore, Problem> {
    Ok(read_rules(&folder.join(DOCKERIGNORE))?.unwrap_or_else(Dockerignore::empty))
}

fn read_rules(path: &Path) -> Result<Option<Dockerignore>, Problem> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Problem::usage(format!("{} is not a file", shown(path))));
    }
    match fs::read(path) {
        Ok(text) => parse_rules(path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn parse_rules(path: &Path, text: &[u8]) -> Result<Dockerignore, Problem> {
    Dockerignore::parse(text).map_err(|error| Problem::usage(format!("{}:{}: {}", shown(path), error.line, printable(&error.message))))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::failed(format!("{} cannot be read: {error}", shown(path)))
}

#[must_use]
pub fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
