//! Moves channels from one set of images to the next: the intent, the flips, the record.
//!
//! A registry offers no transaction across repositories and no compare-and-swap. What is promised instead: nothing moves
//! before everything is there and verified; the window of the flips is short; a failure puts back what was moved; a run
//! that is killed in the window leaves its intent, which the next one finishes; two at once are noticed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::channel::{Channel, NEXT, RECORD, State, Stored, manifest, record_tag, tag};
use super::repair;
use crate::channel::Owner;
use crate::event::Events;
use crate::git::Revision;
use crate::problem::Problem;
use crate::record::{Act, Entry, FORMAT, Record, Writer};
use crate::reference::{Digest, ImageName, Reference};
use crate::registry::{Deleted, Manifest, Remote};
use crate::timing;

const ATTEMPTS: usize = 5;
/// For a registry to come to tell what it has taken.
const A_BLINK: Duration = Duration::from_millis(200);

/// What a channel is to become.
#[derive(Clone)]
pub struct Change {
    pub channel: Channel,
    /// What it was when this was planned.
    pub seen: State,
    /// What `latest` of its images was then, where that was asked.
    pub latest: Latest,
    pub act: Act,
    pub revision: Option<Revision>,
    pub rolled_back: Option<Revision>,
    /// What is put in, or in another's place. The digests are in the images' repositories.
    pub images: BTreeMap<ImageName, Entry>,
    pub removed: BTreeSet<ImageName>,
    /// The manifests of those images that this run has just put into their repositories.
    pub at_hand: BTreeMap<ImageName, Manifest>,
}

/// Carries out the changes as one act.
///
/// # Errors
/// When it could not be done: why, and what the channels are now.
pub async fn commit(changes: &[Change], writer: &Writer, cancel: &CancellationToken, events: &Events) -> Result<Vec<Stored>, Problem> {
    let as_seen = |change: &Change| (change.seen.clone(), change.latest.clone());
    let mut seen: Vec<_> = changes.iter().map(as_seen).collect();
    for _ in 0..ATTEMPTS {
        // an intent is judged by its age, however long there was built before
        match attempt(changes, seen, &writer.now(), cancel).await {
            Err(Stop::Overtaken) => {}
            Err(Stop::Failed(error)) => return Err(error),
            Ok(stored) => return Ok(stored),
        }
        let settled = try_join_all(changes.iter().map(|change| repair::settled(&change.channel, events)));
        let states = settled.await.map_err(|error| as_it_was(&error, changes))?;
        seen = states.into_iter().map(|state| (state, Latest::new())).collect();
    }
    let busy = Problem::failed("others publish to the channel at this very moment");
    Err(as_it_was(&busy, changes))
}

/// The digest of `latest`, of the images of which it is known.
pub type Latest = BTreeMap<ImageName, Option<Digest>>;

enum Stop {
    /// Somebody else's intent or record came in between; nothing of this attempt is left.
    Overtaken,
    Failed(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

async fn attempt(changes: &[Change], seen: Vec<(State, Latest)>, writer: &Writer, cancel: &CancellationToken) -> Result<Vec<Stored>, Stop> {
    let each = changes.iter().zip(seen);
    let preparing = try_join_all(each.map(|(change, seen)| Move::prepare(change, changes, seen, writer)));
    let prepared = preparing.instrument(timing::part("prepare the flips")).await;
    let moves = prepared.map_err(|error| Stop::Failed(as_it_was(&error, changes)))?;
    if cancel.is_cancelled() {
        return Err(as_it_was(&Problem::interrupted(""), changes).into());
    }
    if let Err(stop) = announce(&moves).instrument(timing::part("announce")).await {
        return Err(match (stop, close(&moves).await) {
            (Stop::Failed(error), Ok(())) => Stop::Failed(as_it_was(&error, changes)),
            (Stop::Failed(error), Err(_)) => Stop::Failed(as_it_was(&error, changes).hint(MENDED)),
            (Stop::Overtaken, _) => Stop::Overtaken,
        });
    }
    match flip(&moves, cancel).instrument(timing::part("flip")).await {
        Ok(()) => {}
        Err(Stop::Overtaken) => return Err(Stop::Overtaken),
        Err(Stop::Failed(error)) => return Err(Stop::Failed(put_back(&moves, changes, &error).await)),
    }
    try_join_all(moves.iter().map(Move::keep))
        .instrument(timing::part("record"))
        .await
        .map_err(|error| Stop::Failed(unrecorded(&error, changes)))?;
    Ok(moves.into_iter().map(Move::stored).collect())
}

const MENDED: &str = "the next run finishes what was begun";

fn addresses(changes: &[Change]) -> String {
    let addresses: Vec<_> = changes.iter().map(|change| change.channel.address()).collect();
    addresses.join(" and ")
}

fn unchanged(changes: &[Change]) -> String {
    let verb = if changes.len() == 1 { "is as it was" } else { "are as they were" };
    format!("{} {verb}", addresses(changes))
}

fn as_it_was(error: &Problem, changes: &[Change]) -> Problem {
    error.leaving(&unchanged(changes))
}

fn unrecorded(error: &Problem, changes: &[Change]) -> Problem {
    error
        .leaving(&format!("{} has the new images, and no record of them yet", addresses(changes)))
        .hint(MENDED)
}

/// A change with all that carrying it out needs.
struct Move<'c> {
    change: &'c Change,
    base: Option<Stored>,
    /// What was announced before, which is not under way.
    next: Option<Digest>,
    record: Record,
    intent: Manifest,
    flips: Vec<Flip>,
}

struct Flip {
    /// Whether the registry has taken it. Its answers may come later.
    is_put: Cell<bool>,
    image: ImageName,
    reference: Reference,
    repository: Remote,
    to: Manifest,
    before: Option<Digest>,
    /// What `before` is the digest of, once it was fetched.
    to_put_back: Option<Manifest>,
}

impl<'c> Move<'c> {
    async fn prepare(change: &'c Change, changes: &[Change], seen: (State, Latest), writer: &Writer) -> Result<Self, Problem> {
        let (State { record: base, next }, latest) = seen;
        refuse_conflict(change, base.as_ref())?;
        let images = change.images.iter();
        let flips = try_join_all(images.map(|(image, entry)| Flip::prepare(change, image, &entry.digest, &latest)));
        let mut flips = flips.await?;
        let record = coming(change, changes, base.as_ref(), &flips, writer);
        let (intent, _) = tokio::try_join!(
            change.channel.upload(&record),
            try_join_all(flips.iter_mut().map(Flip::fetch_before))
        )?;
        Ok(Self {
            change,
            base,
            next,
            record,
            intent,
            flips,
        })
    }

    fn channel(&self) -> &Channel {
        &self.change.channel
    }

    async fn next(&self) -> Result<Option<Digest>, Problem> {
        let next = self.channel().home().head(&tag(NEXT)).await?;
        Ok(next.map(|next| next.digest))
    }

    async fn is_announced(&self) -> Result<bool, Problem> {
        Ok(self.next().await?.as_ref() == Some(self.intent.digest()))
    }

    async fn is_on_its_base(&self) -> Result<bool, Problem> {
        let record = self.channel().home().head(&tag(RECORD)).await?;
        Ok(record.map(|record| record.digest) == self.base.as_ref().map(|base| base.manifest.digest().clone()))
    }

    /// Whether nobody has announced, recorded or moved anything since it was looked at.
    async fn is_free(&self) -> Result<bool, Problem> {
        let latest = try_join_all(self.flips.iter().map(Flip::latest));
        let (next, on_its_base, latest) = tokio::try_join!(self.next(), self.is_on_its_base(), latest)?;
        let stays = self.flips.iter().zip(latest).all(|(flip, latest)| flip.before == latest);
        Ok(next == self.next && on_its_base && stays)
    }

    /// Whether the intent still stands, and nobody has put another record below it.
    async fn stands(&self) -> Result<bool, Problem> {
        let (announced, on_its_base) = tokio::try_join!(self.is_announced(), self.is_on_its_base())?;
        Ok(announced && on_its_base)
    }

    /// Leaves the channel to those who came in between: to what they have announced, else to the record that is there now.
    async fn give_way(&self) -> Result<(), Problem> {
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
        if announced { withdraw(self.channel()).await } else { Ok(()) }
    }

    /// Puts back what was moved; gives the names of those that stay, since the registry cannot take them away.
    async fn undo(&self) -> Result<Vec<String>, Problem> {
        let undone = join_all(self.flips.iter().map(Flip::undo)).await;
        let undone = undone.into_iter().collect::<Result<Vec<bool>, _>>()?;
        let left = self.flips.iter().zip(undone).filter(|(_, undone)| !undone);
        Ok(left.map(|(flip, _)| flip.reference.to_string()).collect())
    }

    /// Puts the record under its names. From then on the act is history.
    async fn keep(&self) -> Result<(), Problem> {
        let name = record_tag(self.record.sequence, self.intent.digest());
        self.channel().tag(&name, &self.intent).await?;
        self.channel().tag(RECORD, &self.intent).await
    }

    fn stored(self) -> Stored {
        Stored {
            record: self.record,
            manifest: self.intent,
        }
    }
}

impl Flip {
    async fn prepare(change: &Change, image: &ImageName, digest: &Digest, latest: &Latest) -> Result<Self, Problem> {
        let channel = &change.channel;
        let reference = channel.name.reference(&channel.registry, image)?;
        let repository = channel.repository(image)?;
        let at_hand = change.at_hand.get(image).filter(|manifest| manifest.digest() == digest);
        let to = async {
            match at_hand {
                Some(manifest) => Ok(manifest.clone()),
                None => manifest(&repository, digest).await,
            }
        };
        let before = async {
            match latest.get(image) {
                Some(known) => Ok(known.clone()),
                None => repository.head(reference.tag()).await.map(|head| head.map(|head| head.digest)),
            }
        };
        let (to, before) = tokio::join!(to, before);
        Ok(Self {
            is_put: Cell::new(false),
            image: image.clone(),
            reference,
            repository,
            to: to?,
            before: before?,
            to_put_back: None,
        })
    }

    async fn fetch_before(&mut self) -> Result<(), Problem> {
        if let Some(before) = self.before.as_ref().filter(|_| self.moves()) {
            self.to_put_back = self.repository.get(before).await?;
        }
        Ok(())
    }

    /// False where `latest` has been what it is to be.
    fn moves(&self) -> bool {
        self.before.as_ref() != Some(self.to.digest())
    }

    async fn latest(&self) -> Result<Option<Digest>, Problem> {
        let latest = self.repository.head(self.reference.tag()).await?;
        Ok(latest.map(|descriptor| descriptor.digest))
    }

    async fn put(&self, manifest: &Manifest) -> Result<(), Problem> {
        Ok(self.repository.put(self.reference.tag(), manifest).await?)
    }

    async fn carry_out(&self) -> Result<(), Problem> {
        if self.moves() {
            self.put(&self.to).await?;
            self.is_put.set(true);
        }
        Ok(())
    }

    /// Makes `latest` what it was, if it is ours. False where it did not exist and the registry cannot take a tag away.
    async fn undo(&self) -> Result<bool, Problem> {
        if !self.moves() {
            return Ok(true);
        }
        let latest = self.latest().await?;
        let is_told_late = self.is_put.get() && latest == self.before;
        if latest.as_ref() != Some(self.to.digest()) && !is_told_late {
            return Ok(true);
        }
        match &self.to_put_back {
            Some(before) => self.put(before).await.map(|()| true),
            None => Ok(matches!(
                self.repository.delete(self.reference.tag()).await?,
                Deleted::Gone | Deleted::WasNotThere
            )),
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
    let before = moved.map(|flip| (flip.image.clone(), flip.before.clone()));
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

/// Says what is coming, for all channels before anything moves, and looks that nobody else has said so at the same time.
async fn announce(moves: &[Move<'_>]) -> Result<(), Stop> {
    // the shorter the time between this and what comes next, the less comes in between
    if try_join_all(moves.iter().map(Move::is_free)).await?.contains(&false) {
        return Err(Stop::Overtaken);
    }
    try_join_all(moves.iter().map(|act| act.channel().tag(NEXT, &act.intent))).await?;
    if try_join_all(moves.iter().map(Move::stands)).await?.contains(&false) {
        let _ = close(moves).await;
        return Err(Stop::Overtaken);
    }
    Ok(())
}

/// Takes the intents back that are still ours.
async fn close(moves: &[Move<'_>]) -> Result<(), Problem> {
    for act in moves {
        if act.is_announced().await? {
            withdraw(act.channel()).await?;
        }
    }
    Ok(())
}

/// Makes the intent what the record is. Where there is no record, it becomes one of nothing, with the number 0.
pub(super) async fn withdraw(channel: &Channel) -> Result<(), Problem> {
    if let Some(record) = channel.stored(RECORD).await? {
        return channel.tag(NEXT, &record.manifest).await;
    }
    let nothing = Record {
        format: FORMAT,
        channel: channel.address(),
        sequence: 0,
        act: Act::Push,
        writer: Writer::new(String::new(), String::new()),
        previous: None,
        revision: None,
        rolled_back: None,
        together_with: None,
        images: BTreeMap::new(),
        before: BTreeMap::new(),
    };
    let nothing = channel.upload(&nothing).await?;
    channel.tag(NEXT, &nothing).await
}

async fn flip(moves: &[Move<'_>], cancel: &CancellationToken) -> Result<(), Stop> {
    let flips = || moves.iter().flat_map(|act| &act.flips);
    // each one is waited for, so that what is put back is known
    let flipped = join_all(flips().map(async |flip| {
        if cancel.is_cancelled() {
            return Err(Problem::interrupted(""));
        }
        flip.carry_out().await
    }))
    .await;
    flipped.into_iter().collect::<Result<(), Problem>>()?;
    settle(moves).await
}

/// Another machine may have begun in the same instant. The intent that stands decides whose images stay.
async fn settle(moves: &[Move<'_>]) -> Result<(), Stop> {
    let mut stray = None;
    for _ in 0..ATTEMPTS {
        let flips: Vec<&Flip> = moves.iter().flat_map(|act| &act.flips).collect();
        let stand = try_join_all(moves.iter().map(Move::stands));
        let latest = try_join_all(flips.iter().map(|flip| flip.latest()));
        let (stand, latest) = tokio::try_join!(stand, latest)?;
        if stand.contains(&false) {
            try_join_all(moves.iter().map(Move::give_way)).await?;
            return Err(Stop::Overtaken);
        }
        let strays: Vec<_> = flips
            .into_iter()
            .zip(latest)
            .filter(|(flip, latest)| latest.as_ref() != Some(flip.to.digest()))
            .collect();
        let Some((first, _)) = strays.first() else { return Ok(()) };
        stray = Some(first.reference.to_string());
        tokio::time::sleep(A_BLINK).await;
        try_join_all(strays.into_iter().map(|(flip, _)| flip.put(&flip.to))).await?;
    }
    let stray = stray.unwrap_or_default();
    Err(Problem::failed(format!(
        "{stray} does not stay what it is made: something else pushes it, or the registry answers late"
    ))
    .into())
}

async fn put_back(moves: &[Move<'_>], changes: &[Change], error: &Problem) -> Problem {
    let undone = join_all(moves.iter().map(async |act| match act.stands().await {
        // others have come in between
        Ok(false) => act.give_way().await.map(|()| Vec::new()),
        _ => act.undo().await,
    }));
    let Ok(left) = undone.await.into_iter().collect::<Result<Vec<_>, _>>() else {
        let state = format!(
            "what was moved could not be put back, so {} may hold old and new images side by side",
            addresses(changes)
        );
        return error.leaving(&state).hint(MENDED);
    };
    let left = left.concat();
    let closed = close(moves).await;
    let mut problem = as_it_was(error, changes);
    if !left.is_empty() {
        problem = problem.hint(format!(
            "this registry cannot take a tag away; these did not exist before, and stay: {}",
            left.join(", ")
        ));
    }
    if closed.is_err() { problem.hint(MENDED) } else { problem }
}
