//! What a channel holds and held.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;

use super::channel::{Channel, State, Stored};
use crate::problem::Problem;
use crate::record::{Entry, Record};
use crate::reference::{Digest, ImageName, Tag};

/// An image as a channel has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The digest of `latest`; none where the registry has it no more.
    pub latest: Option<Digest>,
    /// What the channel's record says of it; none where another tool pushed it.
    pub entry: Option<Entry>,
}

impl Held {
    /// Whether `latest` is what the record says.
    #[must_use]
    pub fn is_as_recorded(&self) -> bool {
        self.entry.as_ref().map(|entry| &entry.digest) == self.latest.as_ref()
    }
}

/// The images of the record, and of `others` those that the registry has.
///
/// # Errors
/// When the registry does not answer.
pub async fn held(
    channel: &Channel,
    state: &State,
    others: impl IntoIterator<Item = ImageName>,
) -> Result<BTreeMap<ImageName, Held>, Problem> {
    let entries = state.record.as_ref().map(|stored| &stored.record.images);
    let recorded = entries.into_iter().flat_map(|entries| entries.keys().cloned());
    let images: BTreeSet<ImageName> = recorded.chain(others).collect();
    let held = images.into_iter().map(async |image| {
        let latest = channel.repository(&image)?.head(&Tag::latest()).await?.map(|latest| latest.digest);
        let entry = entries.and_then(|entries| entries.get(&image)).cloned();
        Ok::<_, Problem>((image, Held { latest, entry }))
    });
    let held = try_join_all(held).await?.into_iter();
    Ok(held.filter(|(_, held)| held.latest.is_some() || held.entry.is_some()).collect())
}

/// The records of a channel, the newest first, at most `limit`.
///
/// # Errors
/// When the registry does not answer, or one of them cannot be read.
pub async fn history(channel: &Channel, state: State, limit: usize) -> Result<Vec<Stored>, Problem> {
    let mut records = Vec::new();
    let mut next = state.record;
    while let Some(stored) = next.take().filter(|_| records.len() < limit) {
        if let Some(previous) = &stored.record.previous {
            // one that a clean took away ends what is known
            next = channel.stored_at(previous).await?;
        }
        records.push(stored);
    }
    Ok(records)
}

/// The record `sequence` of a channel.
///
/// # Errors
/// When the channel has none, with those that it has.
pub async fn record_of(channel: &Channel, state: State, sequence: u64) -> Result<Stored, Problem> {
    let records = history(channel, state, usize::MAX).await?;
    let oldest = records.last().map(|stored| stored.record.sequence);
    let newest = records.first().map(|stored| stored.record.sequence);
    records
        .into_iter()
        .find(|stored| stored.record.sequence == sequence)
        .ok_or_else(|| {
            let problem = Problem::usage(format!("{} has no record {sequence}", channel.address()));
            match (oldest, newest) {
                (Some(oldest), Some(newest)) => problem.hint(format!("it has {oldest} to {newest}")),
                _ => problem.hint("nothing was ever published to it by this tool"),
            }
        })
}

/// How an image differs between two channels, or two records of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Same,
    OnlyLeft,
    OnlyRight,
    Changed,
}

/// Image by image: those of both sides.
#[must_use]
pub fn differences<'a>(
    left: &'a BTreeMap<ImageName, Held>,
    right: &'a BTreeMap<ImageName, Held>,
) -> Vec<(&'a ImageName, Difference, Option<&'a Held>, Option<&'a Held>)> {
    let images: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    images
        .into_iter()
        .map(|image| {
            let (left, right) = (left.get(image), right.get(image));
            let difference = match (left, right) {
                (Some(left), Some(right)) if left.latest == right.latest => Difference::Same,
                (Some(_), Some(_)) => Difference::Changed,
                (Some(_), None) => Difference::OnlyLeft,
                _ => Difference::OnlyRight,
            };
            (image, difference, left, right)
        })
        .collect()
}

/// The images that an earlier record had, as a change from what is now.
#[must_use]
pub fn back_to(target: &Record, now: &Record) -> (BTreeMap<ImageName, Entry>, BTreeSet<ImageName>) {
    let changed = target.images.iter().filter(|(image, entry)| now.images.get(*image) != Some(*entry));
    let removed = now.images.keys().filter(|image| !target.images.contains_key(*image));
    (
        changed.map(|(image, entry)| (image.clone(), entry.clone())).collect(),
        removed.cloned().collect(),
    )
}

/// Which of these images are not the channel's `latest`, whoever moved it.
///
/// # Errors
/// When the registry does not answer.
pub async fn strayed(channel: &Channel, images: &BTreeMap<ImageName, Entry>) -> Result<BTreeMap<ImageName, Entry>, Problem> {
    let asked = images.iter().map(async |(image, entry)| {
        let latest = channel.repository(image)?.head(&Tag::latest()).await?;
        let strayed = latest.is_none_or(|latest| latest.digest != entry.digest);
        Ok::<_, Problem>(strayed.then(|| (image.clone(), entry.clone())))
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}

/// Which of these digests the registry has no more.
///
/// # Errors
/// When the registry does not answer.
pub async fn missing(channel: &Channel, images: &BTreeMap<ImageName, Entry>) -> Result<Vec<(ImageName, Digest)>, Problem> {
    let asked = images.iter().map(async |(image, entry)| {
        let there = channel.repository(image)?.head(&entry.digest).await?.is_some();
        Ok::<_, Problem>((!there).then(|| (image.clone(), entry.digest.clone())))
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}
