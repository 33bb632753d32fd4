//! What of a channel nobody can want any more, and taking it away.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::{StreamExt, TryStreamExt};

use super::channel::{Channel, NEXT, RECORD, State, Stored, children, configuration, is_of_records, manifest, tag};
use super::history::history;
use super::repair::intent;
use serde_json::Value;

use crate::problem::Problem;
use crate::reference::{Digest, ImageName, Tag};
use crate::registry::{Deleted, Manifest, Remote};

/// What is younger may belong to a push that has not come to its record yet.
const YOUNG: TimeDelta = TimeDelta::days(1);
const AT_ONCE: usize = 16;
const LARGEST_CONFIGURATION: usize = 4 << 20;

/// A manifest that goes, with the tags that it has.
#[derive(Clone, Debug)]
pub struct Garbage {
    pub repository: Remote,
    pub tags: BTreeSet<Tag>,
    manifest: Manifest,
    /// Should one of these tags come to name it, it stays.
    living: &'static [&'static str],
}

impl Garbage {
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// Whether both are the same manifest of one repository.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.repository.repository() == other.repository.repository() && self.digest() == other.digest()
    }

    async fn lives(&self) -> Result<bool, Problem> {
        for name in self.living {
            let named = self.repository.head(&tag(name)).await?;
            if named.is_some_and(|named| named.digest == *self.digest()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tags first, where the registry takes single tags, then the manifest with what tags it still has.
    async fn take_away(&self) -> Result<Deleted, Problem> {
        for tag in &self.tags {
            if !matches!(self.repository.delete(tag).await?, Deleted::Gone) {
                break;
            }
        }
        Ok(self.repository.delete(self.digest()).await?)
    }
}

/// What came of taking it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub gone: usize,
    /// The registry's words, where it deletes nothing, or not for us.
    pub refused: Option<String>,
}

/// What no record of the last `keep`, no open intent and no `latest` names, and is older than a day. The `latest` of an image
/// that is neither `published` nor in the channel does not count.
///
/// # Errors
/// When the registry does not answer.
pub async fn garbage(
    channel: &Channel,
    state: State,
    keep: usize,
    images: &BTreeSet<ImageName>,
    published: &[ImageName],
) -> Result<Vec<Garbage>, Problem> {
    let open = intent(channel, &state).await?;
    let records: Vec<Stored> = history(channel, state, keep).await?.into_iter().chain(open).collect();
    let mut garbage = Vec::new();
    for image in images {
        let named = records.iter().flat_map(|stored| {
            let entry = stored.record.images.get(image).map(|entry| entry.digest.clone());
            entry.into_iter().chain(stored.record.before.get(image).cloned().flatten())
        });
        let is_in_channel = records.first().is_none_or(|stored| stored.record.images.contains_key(image));
        let living: &[_] = if is_in_channel || published.contains(image) {
            &["latest"]
        } else {
            &[]
        };
        garbage.extend(unnamed(tagged(&channel.repository(image)?).await?, named.collect(), living).await?);
    }
    let kept = records.iter().map(|stored| stored.manifest.digest().clone()).collect();
    garbage.extend(unnamed(self::records(channel).await?, kept, &[RECORD, NEXT]).await?);
    Ok(garbage)
}

/// Everything of a channel.
///
/// # Errors
/// When the registry does not answer.
pub async fn everything(channel: &Channel, images: &BTreeSet<ImageName>) -> Result<Vec<Garbage>, Problem> {
    let mut all = Vec::new();
    for image in images {
        all.extend(tagged(&channel.repository(image)?).await?);
    }
    // what tells of the channel goes last
    all.extend(records(channel).await?);
    Ok(all)
}

/// What lies in the channel's home under the names of records: else that is no home, but another channel's image.
async fn records(channel: &Channel) -> Result<Vec<Garbage>, Problem> {
    let all = tagged(channel.home()).await?;
    let is_record = |garbage: &Garbage| garbage.tags.iter().all(is_of_records);
    Ok(all.into_iter().filter(is_record).collect())
}

async fn unnamed(all: Vec<Garbage>, mut kept: BTreeSet<Digest>, living: &'static [&str]) -> Result<Vec<Garbage>, Problem> {
    let lives = |garbage: &&Garbage| garbage.tags.iter().any(|tag| living.contains(&tag.as_str()));
    kept.extend(all.iter().filter(lives).map(|garbage| garbage.digest().clone()));
    let standing = all.iter().filter(|garbage| kept.contains(garbage.digest()));
    let below: Vec<Digest> = standing.flat_map(|garbage| children(&garbage.manifest)).collect();
    kept.extend(below);
    let candidates = all.into_iter().filter(|garbage| !kept.contains(garbage.digest()));
    let old = futures_util::stream::iter(candidates)
        .map(|garbage| async move {
            let made = made(&garbage).await?;
            let is_old = made.is_some_and(|made| Utc::now() - made > YOUNG);
            Ok::<_, Problem>(is_old.then_some(Garbage { living, ..garbage }))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(old.into_iter().flatten().collect())
}

/// The manifests that have a tag.
async fn tagged(repository: &Remote) -> Result<Vec<Garbage>, Problem> {
    let Some(listing) = repository.tags().await? else {
        return Ok(Vec::new());
    };
    let found: Vec<_> = futures_util::stream::iter(listing.tags)
        .map(|tag| async move {
            let digest = repository.head(&tag).await?.map(|descriptor| descriptor.digest);
            Ok::<_, Problem>(digest.map(|digest| (digest, tag)))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut tags: BTreeMap<Digest, BTreeSet<Tag>> = BTreeMap::new();
    for (digest, tag) in found.into_iter().flatten() {
        tags.entry(digest).or_default().insert(tag);
    }
    futures_util::stream::iter(tags)
        .map(|(digest, tags)| async move {
            Ok(Garbage {
                manifest: manifest(repository, &digest).await?,
                repository: repository.clone(),
                tags,
                living: &[],
            })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// When it was made, as far as it says so: a registry does not tell when it was pushed. What does not say is kept.
async fn made(garbage: &Garbage) -> Result<Option<DateTime<Utc>>, Problem> {
    let repository = &garbage.repository;
    let mut found = garbage.manifest.clone();
    if let Some(first) = children(&found).first() {
        found = manifest(repository, first).await?;
    }
    let content: Value = serde_json::from_slice(found.bytes()).unwrap_or_default();
    if let Some(created) = content["annotations"]["org.opencontainers.image.created"].as_str() {
        return Ok(created.parse().ok());
    }
    let Some(digest) = configuration(&found) else {
        return Ok(None);
    };
    let configuration = repository.blob(&digest, LARGEST_CONFIGURATION).await?;
    let configuration: Value = serde_json::from_slice(&configuration).unwrap_or_default();
    Ok(configuration["created"].as_str().and_then(|time| time.parse().ok()))
}

/// Takes it away: indexes before what they name, since some registries let nothing go that an index still names.
///
/// # Errors
/// When the registry does not answer.
pub async fn sweep(garbage: &[Garbage]) -> Result<Swept, Problem> {
    let mut swept = Swept::default();
    let (indexes, images): (Vec<_>, Vec<_>) = garbage.iter().partition(|garbage| !children(&garbage.manifest).is_empty());
    for garbage in indexes.into_iter().chain(images) {
        if garbage.lives().await? {
            continue;
        }
        match garbage.take_away().await? {
            Deleted::Gone | Deleted::WasNotThere => swept.gone += 1,
            Deleted::Refused(words) => {
                swept.refused = Some(words);
                break;
            }
        }
    }
    Ok(swept)
}
