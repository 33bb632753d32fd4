//! The images of elsewhere that builds stand on, by digest: asked of their registries, once a run.

mod triggers;

pub use triggers::triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic;
use crate::problem::{Problem, printable};
use crate::reference::{Digest, Repository, Tag};
use crate::registry::Client;

const FILE: &str = "bases.json";
/// More is not remembered.
const MOST: usize = 10_000;

/// What a name stands for, and from whom that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub digest: Digest,
    pub source: Source,
    /// Whether it has instructions for what is FROM it (`ONBUILD`), as far as who told the digest told that too.
    pub triggers: Option<bool>,
}

impl Base {
    fn of(digest: Digest, source: Source) -> Self {
        Self {
            digest,
            source,
            triggers: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Registry,
    /// The last run that reached the registry.
    Remembered,
    /// The daemon had it from the registry some time.
    Daemon,
    /// Only the daemon has it; the digest is the image's id, by which no Dockerfile can name it.
    DaemonAlone,
}

/// Resolves each name at its registry, or by what an earlier run learned there.
/// Of the rest, each comes with why it cannot be had.
pub async fn resolve(names: &BTreeSet<String>, client: &Client, cache: Option<&Path>) -> (BTreeMap<String, Base>, Vec<(String, Problem)>) {
    let asked = join_all(names.iter().map(async |name| (name, ask(name, client).await))).await;
    let memory = Memory::<Digest>::of(cache.filter(|_| !names.is_empty()), FILE);
    let (mut bases, mut unknown, mut learned) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for (name, answer) in asked {
        match (answer, memory.known.get(name)) {
            (Ok(Some(digest)), _) => {
                learned.insert(name.clone(), digest.clone());
                bases.insert(name.clone(), Base::of(digest, Source::Registry));
            }
            // what is not there any more is not what an earlier run found
            (Ok(None), _) => unknown.push((name.clone(), Problem::failed(format!("{} is not in its registry", printable(name))))),
            (Err(_), Some(digest)) => {
                bases.insert(name.clone(), Base::of(digest.clone(), Source::Remembered));
            }
            (Err(problem), None) => unknown.push((name.clone(), problem)),
        }
    }
    memory.learn(learned);
    (bases, unknown)
}

/// `None` where its registry does not have it.
async fn ask(name: &str, client: &Client) -> Result<Option<Digest>, Problem> {
    let (repository, tag) = named(name)?;
    if let Some((_, digest)) = name.split_once('@') {
        return digest.parse().map(Some);
    }
    let found = client.repository(&repository).head(&tag).await?;
    Ok(found.map(|descriptor| descriptor.digest))
}

/// The repository and the tag that a name means, as Docker completes it (distribution/reference, `ParseDockerRef`).
///
/// # Errors
/// When it is not an image's name.
pub fn named(name: &str) -> Result<(Repository, Tag), Problem> {
    let without_digest = name.split('@').next().unwrap_or_default();
    let (path, tag) = match without_digest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag.parse()?),
        _ => (without_digest, Tag::latest()),
    };
    let has_host = path
        .split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
    let repository = match (has_host, path.contains('/')) {
        (true, _) => path.to_owned(),
        (false, true) => format!("docker.io/{path}"),
        (false, false) => format!("docker.io/library/{path}"),
    };
    let repository = repository
        .parse()
        .map_err(|_| Problem::failed(format!("`{}` is not an image's name", printable(name))))?;
    Ok((repository, tag))
}

/// What earlier runs learned. It is lost when the file is torn.
struct Memory<T> {
    file: Option<PathBuf>,
    known: BTreeMap<String, T>,
}

impl<T: PartialEq + Serialize + DeserializeOwned> Memory<T> {
    fn of(cache: Option<&Path>, name: &str) -> Self {
        let file = cache.map(|cache| cache.join(name));
        let text = file.as_ref().and_then(|file| fs::read(file).ok()).unwrap_or_default();
        let known = serde_json::from_slice(&text).unwrap_or_default();
        Self { file, known }
    }

    fn learn(mut self, learned: BTreeMap<String, T>) {
        let is_news = learned.iter().any(|(name, value)| self.known.get(name) != Some(value));
        let Some(file) = self.file.filter(|_| is_news) else { return };
        if self.known.len() > MOST {
            self.known.clear();
        }
        self.known.extend(learned);
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        let written = fs::create_dir_all(file.parent().unwrap_or(&file)).and_then(|()| atomic::write(&file, &text));
        if let Err(error) = written {
            tracing::debug!("{} cannot be written: {error}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        for (name, repository, tag) in [
            ("debian", "docker.io/library/debian", "latest"),
            ("debian:12", "docker.io/library/debian", "12"),
            ("docker/dockerfile:1", "docker.io/docker/dockerfile", "1"),
            ("gcr.io/p/i", "gcr.io/p/i", "latest"),
            ("localhost:5000/i:t", "localhost:5000/i", "t"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "latest"),
        ] {
            let (found, found_tag) = named(name).expect(name);
            assert_eq!((found.as_str(), found_tag.as_str()), (repository, tag), "{name}");
        }
        assert!(named("Debian").is_err());
        assert!(named("a b").is_err());
    }

    #[test]
    fn what_was_learned_is_remembered() {
        let cache = tempfile::tempdir().expect("a folder");
        let digest = Digest::of(b"x");
        let memory = || Memory::of(Some(cache.path()), FILE);
        memory().learn(BTreeMap::from([("debian:12".to_owned(), digest.clone())]));
        assert_eq!(memory().known.get("debian:12"), Some(&digest));
        fs::write(cache.path().join(FILE), "{").expect("written");
        assert!(memory().known.is_empty());
    }
}
