//! A channel as its registry holds it: the tags of its images, and its record.

use std::collections::BTreeSet;
use std::iter;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::channel::ChannelName;
use crate::fingerprint::Fingerprint;
use crate::problem::Problem;
use crate::record::{EMPTY, MANIFEST_MEDIA_TYPE, Record};
use crate::reference::{Digest, ImageName, Registry, Repository, Tag};
use crate::registry::{Client, Error, Manifest, Remote, Session};

/// What the channel is now.
pub const RECORD: &str = "record";
/// What the channel is to become, while it is changed: the intent. Else the same as [`RECORD`].
pub const NEXT: &str = "next";

/// What docker-registry says of a blob that another client uploads at this moment (OCI distribution, error codes).
const BLOB_UNKNOWN: &str = "MANIFEST_BLOB_UNKNOWN";
/// For a registry to come to know what it was given.
pub(super) const A_BLINK: Duration = Duration::from_millis(200);
const BLINKS: usize = 5;

#[derive(Clone)]
pub struct Channel {
    pub name: ChannelName,
    pub registry: Registry,
    client: Client,
    home: Remote,
}

/// A record with the manifest that holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub record: Record,
    pub manifest: Manifest,
}

/// What a registry says of a channel.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub record: Option<Stored>,
    /// The digest of what the channel is to become, while it is changed; else that of the record.
    pub next: Option<Digest>,
}

impl State {
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref().map(|stored| &stored.record)
    }

    /// Whether nothing has moved between the two.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.next == other.next && self.digest() == other.digest()
    }

    /// Of the record.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.record.as_ref().map(|stored| stored.manifest.digest())
    }
}

impl Channel {
    /// # Errors
    /// When the channel's address is longer than a registry allows.
    pub fn new(name: ChannelName, registry: Registry, client: Client) -> Result<Self, Problem> {
        let home = client.repository(registry.reference(&name.to_string())?.repository());
        Ok(Self {
            name,
            registry,
            client,
            home,
        })
    }

    /// The channel of the same owner with the other variant.
    ///
    /// # Errors
    /// When its address is longer than a registry allows.
    pub fn other_variant(&self) -> Result<Self, Problem> {
        Self::new(self.name.other_variant(), self.registry.clone(), self.client.clone())
    }

    /// Where its record lives, e.g. `gcr.io/lattice-dev/stable`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}/{}", self.registry, self.name)
    }

    /// The repository of its records.
    #[must_use]
    pub fn home(&self) -> &Remote {
        &self.home
    }

    /// # Errors
    /// When the repository's name is longer than a registry allows.
    pub fn repository(&self, image: &ImageName) -> Result<Remote, Problem> {
        let reference = self.name.reference(&self.registry, image)?;
        Ok(self.client.repository(reference.repository()))
    }

    /// A repository of the same registry, whosever it is.
    #[must_use]
    pub fn neighbour(&self, repository: &Repository) -> Remote {
        self.client.repository(repository)
    }

    /// # Errors
    /// When the registry does not answer, or what is tagged `record` is none that this tool may replace.
    pub async fn state(&self) -> Result<State, Problem> {
        let next = tag(NEXT);
        let (record, next) = tokio::join!(self.stored(RECORD), self.home.head(&next));
        Ok(State {
            record: record?,
            next: next?.map(|descriptor| descriptor.digest),
        })
    }

    /// # Errors
    /// When the registry does not answer, or what is there is no record, or one of a newer format.
    pub async fn stored(&self, name: &str) -> Result<Option<Stored>, Problem> {
        self.home
            .get(&tag(name))
            .await?
            .map(|manifest| self.read(manifest, name))
            .transpose()
    }

    /// # Errors
    /// When the registry does not answer, or what is there is no record, or one of a newer format.
    pub async fn stored_at(&self, digest: &Digest) -> Result<Option<Stored>, Problem> {
        self.home
            .get(digest)
            .await?
            .map(|manifest| self.read(manifest, digest.as_str()))
            .transpose()
    }

    fn read(&self, manifest: Manifest, name: &str) -> Result<Stored, Problem> {
        let record = Record::decode(manifest.bytes()).map_err(|problem| problem.about(&format!("{} {name}", self.address())))?;
        Ok(Stored { record, manifest })
    }

    /// Brings what every record names, and begins the upload of one that is not known yet. `seen`: what the channel is.
    /// `other`: where another channel has its records.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn expect(&self, seen: &State, other: Option<&Repository>) -> Result<Session, Problem> {
        let configuration = async {
            match seen.record() {
                Some(_) => Ok(()),
                None => self.upload_configuration(other).await,
            }
        };
        let (session, ()) = tokio::try_join!(self.home.open(), configuration)?;
        Ok(session)
    }

    /// Uploads what the manifest of a record names, in the session that [`Self::expect`] gave.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn upload(&self, record: &Record, session: Option<Session>) -> Result<(), Problem> {
        let is_first = session.is_none() && record.previous.is_none();
        let (digest, bytes) = record.encode().layer;
        let layer = self.home.upload_in(session, &digest, Bytes::from(bytes));
        let configuration = async { if is_first { self.upload_configuration(None).await } else { Ok(()) } };
        tokio::try_join!(configuration, layer)?;
        Ok(())
    }

    /// All records have the same, those of all channels.
    async fn upload_configuration(&self, other: Option<&Repository>) -> Result<(), Error> {
        let digest = Digest::of(EMPTY);
        if let Some(other) = other
            && self.home.mount(&digest, other).await?
        {
            return Ok(());
        }
        self.home.upload(&digest, EMPTY).await
    }

    /// Makes the intent what the record is. Where there is no record, it becomes one of nothing, with the number 0.
    ///
    /// # Errors
    /// When the registry does not answer, or does not take it.
    pub async fn withdraw(&self) -> Result<(), Problem> {
        if let Some(stored) = self.stored(RECORD).await? {
            return self.tag(NEXT, &stored.manifest).await;
        }
        let nothing = Record::of_nothing(self.address());
        self.upload(&nothing, None).await?;
        self.tag(NEXT, &manifest_of(&nothing)).await
    }

    /// Gives a record a name, once [`Self::upload`] has brought what it is made of.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn tag(&self, name: &str, manifest: &Manifest) -> Result<(), Problem> {
        for _ in 0..BLINKS {
            match self.home.put(&tag(name), manifest).await {
                Err(error) if error.to_string().contains(BLOB_UNKNOWN) => tokio::time::sleep(A_BLINK).await,
                done => return Ok(done?),
            }
        }
        Ok(self.home.put(&tag(name), manifest).await?)
    }
}

/// The manifest that holds a record.
#[must_use]
pub(super) fn manifest_of(record: &Record) -> Manifest {
    Manifest::new(MANIFEST_MEDIA_TYPE, record.encode().manifest)
}

/// The name under which a record stays: its number, and its digest, so that two of one number stand side by side.
#[must_use]
pub fn record_tag(sequence: u64, digest: &Digest) -> String {
    format!("r-{sequence}-{}", digest.short())
}

/// Whether a tag of a channel's home is one that records have there.
pub(super) fn is_of_records(tag: &Tag) -> bool {
    matches!(tag.as_str(), RECORD | NEXT) || tag.as_str().starts_with("r-")
}

#[must_use]
pub fn tag(name: &str) -> Tag {
    name.parse().expect("a tag of ours is valid")
}

/// Gives a manifest, and those below it where it is an index, a tag each, so that no clean-up of what is untagged takes what
/// a record names; then the manifest gets `tags` too.
///
/// # Errors
/// When the registry does not have it, or does not take the tags.
pub async fn keep(repository: &Remote, found: &Manifest, tags: &[Tag]) -> Result<(), Problem> {
    let children = children(found);
    let children = try_join_all(children.iter().map(|child| manifest(repository, child))).await?;
    keep_children(repository, &children).await?;
    let kept = kept_tag(found.digest());
    try_join_all(iter::once(&kept).chain(tags).map(|tag| repository.put(tag, found))).await?;
    Ok(())
}

/// The same for what an earlier run has brought, and may not have come to keep.
///
/// # Errors
/// As [`keep`].
pub async fn keep_found(repository: &Remote, found: &Manifest) -> Result<(), Problem> {
    match repository.head(&kept_tag(found.digest())).await? {
        // it comes last
        Some(_) => Ok(()),
        None => keep(repository, found, &[]).await,
    }
}

async fn keep_children(repository: &Remote, children: &[Manifest]) -> Result<(), Problem> {
    let tagged = children
        .iter()
        .map(|child| async move { repository.put(&kept_tag(child.digest()), child).await });
    try_join_all(tagged).await?;
    Ok(())
}

/// Copies an image of one repository to another, where it is kept. Blobs that are `mounted` are there already.
///
/// # Errors
/// When one of the registries does not play along.
pub async fn copy_image(from: &Remote, to: &Remote, image: &Manifest, mounted: BTreeSet<Digest>) -> Result<(), Problem> {
    let children = to.copy_rest(from, image, mounted, &[kept_tag(image.digest())]).await?;
    keep_children(to, &children).await
}

/// # Errors
/// When the registry does not have it.
pub async fn manifest(repository: &Remote, digest: &Digest) -> Result<Manifest, Problem> {
    let found = repository.get(digest).await?;
    found.ok_or_else(|| Problem::failed(format!("{}@{digest} is not in the registry", repository.repository())))
}

/// The manifests that an index names (OCI image index, `manifests`); none for a manifest.
#[must_use]
pub fn children(manifest: &Manifest) -> Vec<Digest> {
    let index: Value = serde_json::from_slice(manifest.bytes()).unwrap_or_default();
    let listed = index["manifests"].as_array().into_iter().flatten();
    listed.filter_map(|child| child["digest"].as_str()?.parse().ok()).collect()
}

/// The digest of an image's configuration (OCI image manifest, `config`); none for an index.
#[must_use]
pub fn configuration(manifest: &Manifest) -> Option<Digest> {
    let manifest: Value = serde_json::from_slice(manifest.bytes()).ok()?;
    manifest["config"]["digest"].as_str()?.parse().ok()
}

/// What an image is called in its repository by what it was built from.
#[must_use]
pub fn staged_tag(fingerprint: &Fingerprint) -> String {
    format!("in-{fingerprint}")
}

/// Where a builder that pushes by itself puts what is not known yet to be what was asked for.
pub const IN_PROGRESS: &str = "in-progress";

/// What keeps a digest that a record names from being taken as untagged.
#[must_use]
pub fn kept_tag(digest: &Digest) -> Tag {
    tag(&format!("at-{}", digest.hex()))
}
