//! What a build reads: the files of its context, as the builder is to see them.

pub mod classic;
pub mod dockerignore;
mod tar;
mod walk;

pub use tar::{CHANGED, Inline, open, stream};
pub use walk::{Context, Entry, Kind, walk};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dockerignore::Dockerignore;

use crate::manifest::Build;
use crate::problem::{Problem, printable};

const DOCKERIGNORE: &str = ".dockerignore";

/// The rules for a build's context: `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
///
/// # Errors
/// A rule that cannot be read, with its file and line.
pub fn ignore_rules(build: &Build) -> Result<Dockerignore, Problem> {
    let beside = build.dockerfile.path.as_ref().map(|path| {
        let mut name = path.clone().into_os_string();
        name.push(DOCKERIGNORE);
        PathBuf::from(name)
    });
    for path in beside.into_iter().chain([build.context.join(DOCKERIGNORE)]) {
        match fs::read(&path) {
            Ok(text) => return parse_rules(&path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    Ok(Dockerignore::empty())
}

fn parse_rules(path: &Path, text: &[u8]) -> Result<Dockerignore, Problem> {
    Dockerignore::parse(text).map_err(|error| Problem::usage(format!("{}:{}: {}", shown(path), error.line, printable(&error.message))))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::failed(format!("{} cannot be read: {error}", shown(path)))
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
