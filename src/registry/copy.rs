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

/// What of an image is there by now: no blob travels twice, however many manifests name it.
struct Copied {
    /// All manifests below an index.
    children: Vec<Manifest>,
    blobs: BTreeSet<Digest>,
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
    /// be mounted goes through us, never through a file. The manifests below an index are given back.
    ///
    /// # Errors
    /// When one of the registries does not play along. What was copied until then stays, without a tag.
    pub async fn copy(&self, source: &Remote, manifest: &Manifest, tags: &[Tag]) -> Result<Vec<Manifest>, Error> {
        self.copy_rest(source, manifest, BTreeSet::new(), tags).await
    }

    /// As [`Remote::copy`], where some of the blobs are here already.
    ///
    /// # Errors
    /// As [`Remote::copy`].
    pub async fn copy_rest(
        &self,
        source: &Remote,
        manifest: &Manifest,
        blobs: BTreeSet<Digest>,
        tags: &[Tag],
    ) -> Result<Vec<Manifest>, Error> {
        let mut copied = Copied {
            blobs,
            children: Vec::new(),
        };
        self.fill(source, manifest, &mut copied, 0).await?;
        if tags.is_empty() {
            self.put(manifest.digest(), manifest).await?;
        }
        for tag in tags {
            self.put(tag, manifest).await?;
        }
        Ok(copied.children)
    }

    /// What the manifest names is here afterwards.
    async fn fill(&self, source: &Remote, manifest: &Manifest, copied: &mut Copied, depth: usize) -> Result<(), Error> {
        let subject = source.subject(format_args!("manifest {}", manifest.digest()));
        let parts = Parts::read(manifest, &subject)?;
        if copied.children.len() + parts.manifests.len() > MOST_CHILDREN || depth > DEEPEST {
            return Err(Error::malformed(&subject, "an index of so many manifests is not copied"));
        }
        for part in &parts.manifests {
            let digest = part.digest(&subject)?;
            let child = source.manifest(&digest).await?;
            Box::pin(self.fill(source, &child, copied, depth + 1)).await?;
            self.put(&digest, &child).await?;
            copied.children.push(child);
        }
        let mut blobs = parts.blobs(&subject)?;
        blobs.retain(|blob| copied.blobs.insert(blob.digest.clone()));
        futures_util::stream::iter(blobs)
            .map(|blob| self.bring(source, blob))
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn bring(&self, source: &Remote, blob: Blob) -> Result<(), Error> {
        if self.repository == source.repository {
            return Ok(());
        }
        let content = source.content(&blob);
        retried(|| async {
            if self.repository.host() != source.repository.host() && self.has_blob(&blob.digest).await? {
                return Ok(());
            }
            let url = match self.begin(Some((&blob.digest, &source.repository))).await? {
                Begun::Mounted => return Ok(()),
                Begun::At(url) => url,
            };
            if self.repository.host() == source.repository.host() && self.has_blob(&blob.digest).await? {
                self.cancel(url).await;
                return Ok(());
            }
            self.finish(url, &blob.digest, &content).await
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
