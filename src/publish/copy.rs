//! The images of one channel into another, by digest: blobs are mounted, manifests stay what they are byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{StreamExt, TryStreamExt};

use super::channel::{Channel, State, copy_image, manifest, staged_tag, tag};
use super::history::Held;
use super::moves::Change;
use crate::event::{Event, Events};
use crate::problem::Problem;
use crate::record::{Act, Entry, Writer};
use crate::reference::{ImageName, Tag};

/// How many images are copied at once.
const AT_ONCE: usize = 8;

/// Brings the images of `from` into the repositories of `to`, where they wait for [`super::commit`].
///
/// # Errors
/// When a registry does not answer, or does not take them.
pub async fn copy(
    from: (&Channel, &State),
    held: &BTreeMap<ImageName, Held>,
    to: (&Channel, State),
    writer: &Writer,
    events: &Events,
) -> Result<Change, Problem> {
    let ((from, source), (to, seen)) = (from, to);
    let entries = held
        .iter()
        .filter_map(|(image, held)| Some((image.clone(), entry_of(held, writer)?)));
    let mut images: BTreeMap<ImageName, Entry> = entries.collect();
    let there = super::held(to, &seen, images.keys().cloned()).await?;
    images.retain(|image, entry| {
        let there = there.get(image);
        !there.is_some_and(|there| there.is_as_recorded() && there.latest.as_ref() == Some(&entry.digest))
    });
    let at_hand = futures_util::stream::iter(&images)
        .map(|(image, entry)| async move {
            events.send(Event::Copying {
                step: image.to_string(),
                from: from.address(),
            });
            let tags: Vec<Tag> = entry.fingerprint.iter().map(|fingerprint| tag(&staged_tag(fingerprint))).collect();
            let (source, target) = (from.repository(image)?, to.repository(image)?);
            let found = manifest(&source, &entry.digest).await?;
            copy_image(&source, &target, &found, BTreeSet::new()).await?;
            for tag in &tags {
                target.put(tag, &found).await?;
            }
            Ok::<_, Problem>((image.clone(), found))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let record = source.record.as_ref().map(|stored| &stored.record);
    Ok(Change {
        channel: to.clone(),
        act: Act::Copy {
            from: from.address(),
            sequence: record.map(|record| record.sequence),
        },
        revision: record.and_then(|record| record.revision.clone()),
        rolled_back: None,
        removed: BTreeSet::new(),
        images,
        at_hand,
        seen,
        latest: BTreeMap::new(),
        session: None,
    })
}

/// What `latest` is, with what the record says of where that came from.
fn entry_of(held: &Held, writer: &Writer) -> Option<Entry> {
    let digest = held.latest.clone()?;
    let recorded = held.entry.clone().filter(|entry| entry.digest == digest);
    Some(Entry {
        writer: writer.clone(),
        ..recorded.unwrap_or_else(|| Entry {
            digest,
            fingerprint: None,
            revision: None,
            platforms: Vec::new(),
            unresolved: Vec::new(),
            writer: writer.clone(),
        })
    })
}
