//! Which images have instructions for what is FROM them (`ONBUILD`). A digest never changes, so each is asked for once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::future::join_all;
use serde::Deserialize;

use super::{Base, Memory, named};
use crate::problem::Problem;
use crate::reference::Digest;
use crate::registry::{Client, Remote};

const FILE: &str = "triggers.json";
const LONGEST_CONFIG: usize = 4 << 20;

/// Of `named`, each with a platform: the names that have triggers for any, and those of which it cannot be told.
pub async fn triggers(
    named: &BTreeSet<(String, String)>,
    bases: &BTreeMap<String, Base>,
    client: &Client,
    cache: Option<&Path>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let memory = Memory::<bool>::of(cache.filter(|_| !named.is_empty()), FILE);
    let answers = join_all(named.iter().map(async |(name, platform)| {
        let base = &bases[name];
        if let Some(known) = base.triggers {
            return (name, Ok(known), None);
        }
        let key = format!("{} {platform}", base.digest);
        match memory.known.get(&key) {
            Some(known) => (name, Ok(*known), None),
            None => (name, ask(name, &base.digest, platform, client).await, Some(key)),
        }
    }))
    .await;
    let (mut found, mut unknown, mut learned) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for (name, answer, key) in answers {
        match answer {
            Ok(has_triggers) => {
                found.extend(has_triggers.then(|| name.clone()));
                learned.extend(key.map(|key| (key, has_triggers)));
            }
            Err(problem) => {
                tracing::debug!("whether {name} has ONBUILD instructions: {problem}");
                unknown.insert(name.clone());
            }
        }
    }
    memory.learn(learned);
    (found, unknown)
}

async fn ask(name: &str, digest: &Digest, platform: &str, client: &Client) -> Result<bool, Problem> {
    let remote = client.repository(&named(name)?.0);
    let manifest: Manifest = read(&remote, digest).await?;
    let images = match manifest.manifests {
        None => vec![manifest],
        Some(children) => {
            let mut images = Vec::new();
            for child in children.iter().filter(|child| child.is_for(platform)) {
                images.push(read(&remote, &child.digest).await?);
            }
            images
        }
    };
    if images.is_empty() {
        return Err(Problem::failed(format!("it has no image for {platform}")));
    }
    for image in images {
        let config = image.config.ok_or_else(|| Problem::failed("it has no configuration"))?;
        let config: Config = parsed(&remote.blob(&config.digest, LONGEST_CONFIG).await?)?;
        if config
            .config
            .and_then(|config| config.on_build)
            .is_some_and(|triggers| !triggers.is_empty())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn read(remote: &Remote, digest: &Digest) -> Result<Manifest, Problem> {
    let manifest = remote.get(digest).await?;
    let manifest = manifest.ok_or_else(|| Problem::failed(format!("{digest} is not in its registry")))?;
    parsed(manifest.bytes())
}

fn parsed<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(json).map_err(|error| Problem::failed(format!("it cannot be read: {error}")))
}

/// A manifest or an index (OCI image specification), as far as it matters here.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Descriptor {
    /// All variants of an architecture count: which one is taken is the builder's to choose.
    fn is_for(&self, platform: &str) -> bool {
        let mut parts = platform.split('/');
        let wanted = (parts.next(), parts.next());
        self.platform
            .as_ref()
            .is_none_or(|of| (Some(of.os.as_str()), Some(of.architecture.as_str())) == wanted)
    }
}

/// The configuration of an image; `OnBuild` is Docker's (moby, `image/spec`).
#[derive(Deserialize)]
struct Config {
    config: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(rename = "OnBuild")]
    on_build: Option<Vec<String>>,
}
