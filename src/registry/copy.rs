//! Copies of images and indexes between repositories: blobs mounted where that goes, manifests byte for byte.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::content::AnyError;
use super::error::{Error, Kind};
use super::retry::retried;
use super::uploads::Begun;
use super::{Content, Manifest, Remote};
use crate::reference::{Digest, Tag};

const BLOBS_AT_ONCE: usize = 2;
const MOST_CHILDREN: usize = 1000;
const MOST_BLOBS: usize = 1000;
const DEEPEST: usize = 3;

/// What a copy came to.
#[derive(Clone, Debug)]
pub struct Copied {
    /// All manifests below an index.
    pub children: Vec<Manifest>,
    pub mounted: usize,
    /// Of blobs that went through us.
    pub bytes: u64,
}

/// Where the blobs of a manifest go: none travels twice, however many manifests name it.
#[derive(Default)]
struct Transferred {
    mounted: usize,
    bytes: u64,
    blobs: BTreeSet<Digest>,
}

enum Way {
    Mounted,
    WasThere,
    Streamed(u64),
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    manifests: Vec<Part>,
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
}

#[derive(Clone, Deserialize)]
struct Part {
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

struct Blob {
    digest: Digest,
    size: u64,
}

impl Remote {
    /// Copies the manifest of `source`, and what it names, to here, under `tags`, or under its digest alone. What cannot
    /// be mounted goes through us, never through a file.
    ///
    /// # Errors
    /// When one of the registries does not play along. What was copied until then stays, without a tag.
    pub async fn copy(&self, source: &Remote, manifest: &Manifest, tags: &[Tag]) -> Result<Copied, Error> {
        let mut transferred = Transferred::default();
        let mut children = Vec::new();
        self.fill(source, manifest, &mut transferred, &mut children, 0).await?;
        if tags.is_empty() {
            self.put(manifest.digest(), manifest).await?;
        }
        for tag in tags {
            self.put(tag, manifest).await?;
        }
        Ok(Copied {
            children,
            mounted: transferred.mounted,
            bytes: transferred.bytes,
        })
    }

    /// What the manifest names is here afterwards.
    async fn fill(
        &self,
        source: &Remote,
        manifest: &Manifest,
        transferred: &mut Transferred,
        children: &mut Vec<Manifest>,
        depth: usize,
    ) -> Result<(), Error> {
        let subject = source.subject(format_args!("manifest {}", manifest.digest()));
        let parts = Parts::read(manifest, &subject)?;
        if children.len() + parts.manifests.len() > MOST_CHILDREN || depth > DEEPEST {
            return Err(Error::malformed(&subject, "an index of so many manifests is not copied"));
        }
        for part in &parts.manifests {
            let digest = part.digest(&subject)?;
            let child = source.manifest(&digest).await?;
            Box::pin(self.fill(source, &child, transferred, children, depth + 1)).await?;
            self.put(&digest, &child).await?;
            children.push(child);
        }
        let mut blobs = parts.blobs(&subject)?;
        blobs.retain(|blob| transferred.blobs.insert(blob.digest.clone()));
        let ways = futures_util::stream::iter(blobs.into_iter().map(|blob| self.bring(source, blob)));
        let mut ways = ways.buffer_unordered(BLOBS_AT_ONCE);
        while let Some(way) = ways.try_next().await? {
            match way {
                Way::Mounted => transferred.mounted += 1,
                Way::Streamed(bytes) => transferred.bytes += bytes,
                Way::WasThere => {}
            }
        }
        Ok(())
    }

    async fn bring(&self, source: &Remote, blob: Blob) -> Result<Way, Error> {
        if self.repository == source.repository {
            return Ok(Way::WasThere);
        }
        let content = source.content(&blob);
        retried(|| async {
            if self.repository.host() != source.repository.host() && self.has_blob(&blob.digest).await? {
                return Ok(Way::WasThere);
            }
            let url = match self.begin(Some((&blob.digest, &source.repository))).await? {
                Begun::Mounted => return Ok(Way::Mounted),
                Begun::At(url) => url,
            };
            if self.repository.host() == source.repository.host() && self.has_blob(&blob.digest).await? {
                self.cancel(url).await;
                return Ok(Way::WasThere);
            }
            self.finish(url, &blob.digest, &content).await?;
            Ok(Way::Streamed(blob.size))
        })
        .await
    }

    /// A blob of this repository, to be uploaded elsewhere.
    fn content(&self, blob: &Blob) -> Content {
        let (source, digest) = (self.clone(), blob.digest.clone());
        Content::stream(blob.size, move || {
            let (source, digest) = (source.clone(), digest.clone());
            let opened = async move { source.blob_stream(&digest).await.map_err(AnyError::from) };
            Box::pin(futures_util::stream::once(opened).try_flatten())
        })
    }

    async fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        let manifest = self.get(digest).await?;
        manifest.ok_or_else(|| Error::new(Kind::NotFound, self.subject(format_args!("manifest {digest}: it is not there"))))
    }
}

impl Parts {
    fn read(manifest: &Manifest, subject: &str) -> Result<Self, Error> {
        serde_json::from_slice(manifest.bytes()).map_err(|_| Error::malformed(subject, "it is no manifest that can be copied"))
    }

    /// Config and layers; what registries keep elsewhere (`urls`) stays there.
    fn blobs(&self, subject: &str) -> Result<Vec<Blob>, Error> {
        let parts = self.config.iter().chain(&self.layers).filter(|part| part.urls.is_empty());
        let blobs: Vec<_> = parts
            .map(|part| {
                Ok(Blob {
                    digest: part.digest(subject)?,
                    size: part.size,
                })
            })
            .collect::<Result<_, Error>>()?;
        if blobs.len() > MOST_BLOBS {
            return Err(Error::malformed(subject, "an image of so many layers is not copied"));
        }
        Ok(blobs)
    }
}

impl Part {
    fn digest(&self, subject: &str) -> Result<Digest, Error> {
        let digest = self.digest.parse();
        digest.map_err(|_| Error::malformed(subject, "it names a digest that is none"))
    }
}
