//! What a channel is to become, and how it stands to what others do with the channel meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::{join_all, try_join_all};

use super::channel::{Channel, NEXT, RECORD, State, Stored, manifest_of, record_tag, tag};
use super::flip::{Flip, Latest};
use super::repair;
use crate::channel::Owner;
use crate::git::Revision;
use crate::problem::Problem;
use crate::record::{Act, Entry, FORMAT, Record, Writer};
use crate::reference::{Digest, ImageName};
use crate::registry::{Manifest, Session};

/// What a channel is to become.
#[derive(Clone)]
pub struct Change {
    pub channel: Channel,
    /// What it was when this was planned.
    pub seen: State,
    /// What `latest` of its images was then, where that was asked.
    pub latest: BTreeMap<ImageName, Latest>,
    /// The upload of the record, where it is begun.
    pub session: Option<Session>,
    pub act: Act,
    pub revision: Option<Revision>,
    pub rolled_back: Option<Revision>,
    /// What is put in, or in another's place. The digests are in the images' repositories.
    pub images: BTreeMap<ImageName, Entry>,
    pub removed: BTreeSet<ImageName>,
    /// The manifests of those images that this run has just put into their repositories.
    pub at_hand: BTreeMap<ImageName, Manifest>,
}

/// A channel as it was found.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) state: State,
    pub(super) latest: BTreeMap<ImageName, Latest>,
    pub(super) session: Option<Session>,
}

/// A change with all that carrying it out needs.
pub(super) struct Move<'c> {
    change: &'c Change,
    base: Option<Stored>,
    /// What was announced before, which is not under way.
    next: Option<Digest>,
    record: Record,
    session: Option<Session>,
    pub(super) intent: Manifest,
    pub(super) flips: Vec<Flip>,
}

impl<'c> Move<'c> {
    pub(super) async fn prepare(change: &'c Change, changes: &[Change], seen: Seen, writer: &Writer) -> Result<Self, Problem> {
        let Seen { state, latest, session } = seen;
        let State { record: base, next } = state;
        refuse_conflict(change, base.as_ref())?;
        let images = change.images.iter();
        let flips = try_join_all(images.map(|(image, entry)| Flip::prepare(change, image, &entry.digest, latest.get(image)))).await?;
        let record = coming(change, changes, base.as_ref(), &flips, writer);
        Ok(Self {
            change,
            base,
            next,
            intent: manifest_of(&record),
            record,
            session,
            flips,
        })
    }

    /// Brings what is to be announced. False where the channel is not free any more.
    pub(super) async fn make_ready(&self) -> Result<bool, Problem> {
        let is_free = async {
            try_join_all(self.flips.iter().map(Flip::fetch_before)).await?;
            self.is_free().await
        };
        let ((), is_free) = tokio::try_join!(self.channel().upload(&self.record, self.session.clone()), is_free)?;
        Ok(is_free)
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.change.channel
    }

    async fn next(&self) -> Result<Option<Digest>, Problem> {
        let next = self.channel().home().head(&tag(NEXT)).await?;
        Ok(next.map(|next| next.digest))
    }

    pub(super) async fn is_announced(&self) -> Result<bool, Problem> {
        Ok(self.next().await?.as_ref() == Some(self.intent.digest()))
    }

    async fn is_on_its_base(&self) -> Result<bool, Problem> {
        let record = self.channel().home().head(&tag(RECORD)).await?;
        Ok(record.map(|record| record.digest) == self.base.as_ref().map(|base| base.manifest.digest().clone()))
    }

    /// Whether nobody has announced, recorded or moved anything since it was looked at.
    async fn is_free(&self) -> Result<bool, Problem> {
        let stay = try_join_all(self.flips.iter().map(Flip::stays));
        let (next, on_its_base, stay) = tokio::try_join!(self.next(), self.is_on_its_base(), stay)?;
        Ok(next == self.next && on_its_base && !stay.contains(&false))
    }

    /// Whether the intent still stands, and nobody has put another record below it.
    pub(super) async fn stands(&self) -> Result<bool, Problem> {
        let (announced, on_its_base) = tokio::try_join!(self.is_announced(), self.is_on_its_base())?;
        Ok(announced && on_its_base)
    }

    /// Leaves the channel to those who came in between: to what they have announced, else to the record that is there now.
    pub(super) async fn give_way(&self) -> Result<(), Problem> {
        let announced = self.is_announced().await?;
        let theirs = if announced {
            self.channel().stored(RECORD).await?.map(|stored| stored.record)
        } else {
            repair::standing(self.channel()).await?
        };
        for flip in &self.flips {
            match theirs.as_ref().and_then(|theirs| theirs.images.get(&flip.image)) {
                Some(entry) => repair::point_latest(self.channel(), &flip.image, &entry.digest).await?,
                None => drop(flip.undo().await?),
            }
        }
        if announced { self.channel().withdraw().await } else { Ok(()) }
    }

    /// Puts back what was moved; gives the names of those that stay, since the registry cannot take them away.
    pub(super) async fn undo(&self) -> Result<Vec<String>, Problem> {
        let undone = join_all(self.flips.iter().map(Flip::undo)).await;
        let undone = undone.into_iter().collect::<Result<Vec<bool>, _>>()?;
        let left = self.flips.iter().zip(undone).filter(|(_, undone)| !undone);
        Ok(left.map(|(flip, _)| flip.reference.to_string()).collect())
    }

    /// Puts the record under its names. From then on the act is history.
    pub(super) async fn keep(&self) -> Result<(), Problem> {
        let name = record_tag(self.record.sequence, self.intent.digest());
        self.channel().tag(&name, &self.intent).await?;
        self.channel().tag(RECORD, &self.intent).await
    }

    pub(super) fn stored(self) -> Stored {
        Stored {
            record: self.record,
            manifest: self.intent,
        }
    }
}

/// Somebody else may have published other images meanwhile; of the same ones, one of the two has to look again.
fn refuse_conflict(change: &Change, base: Option<&Stored>) -> Result<(), Problem> {
    let Some(base) = base else { return Ok(()) };
    if change.seen.digest() == Some(base.manifest.digest()) {
        return Ok(());
    }
    let Writer { user, host, at, .. } = &base.record.writer;
    let meanwhile = |what: &str| {
        Problem::failed(format!(
            "{user} on {host} published {what} to {} meanwhile (record {}, {at})",
            change.channel.address(),
            base.record.sequence
        ))
    };
    let revision = |record: &Record| record.revision.as_ref().map(|revision| revision.commit.clone());
    // the guard has judged by what was published then
    if *change.channel.name.owner() == Owner::Stable && revision(&base.record) != change.seen.record().and_then(revision) {
        return Err(meanwhile("from other sources").hint("run again, so that this is judged by what is published now"));
    }
    if !matches!(change.act, Act::Push) {
        return Err(meanwhile("other images").hint("run again, to begin from what is there now"));
    }
    let was = |image: &ImageName| change.seen.record.as_ref().and_then(|seen| seen.record.images.get(image));
    let conflict = change.images.iter().find(|(image, entry)| {
        let is = base.record.images.get(*image).map(|is| &is.digest);
        is != was(image).map(|was| &was.digest) && is != Some(&entry.digest)
    });
    match conflict {
        None => Ok(()),
        Some((image, _)) => Err(meanwhile(&format!("`{image}`")).hint("run again to publish over it")),
    }
}

/// The record that the change makes, on top of `base`.
fn coming(change: &Change, changes: &[Change], base: Option<&Stored>, flips: &[Flip], writer: &Writer) -> Record {
    let channel = change.channel.address();
    let mut images = base.map(|base| base.record.images.clone()).unwrap_or_default();
    images.retain(|image, _| !change.removed.contains(image));
    images.extend(change.images.clone());
    let moved = flips.iter().filter(|flip| flip.moves());
    let before = moved.map(|flip| (flip.image.clone(), flip.before.digest.clone()));
    Record {
        format: FORMAT,
        sequence: base.map_or(0, |base| base.record.sequence) + 1,
        act: change.act.clone(),
        writer: writer.clone(),
        previous: base.map(|base| base.manifest.digest().clone()),
        revision: change.revision.clone(),
        rolled_back: change.rolled_back.clone(),
        together_with: changes
            .iter()
            .map(|change| change.channel.address())
            .find(|other| *other != channel),
        before: before.collect(),
        images,
        channel,
    }
}
