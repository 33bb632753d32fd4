//! An intent whose writer is gone is finished, or undone, before anything else is done with its channel.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures_util::future::try_join_all;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::channel::{Channel, NEXT, RECORD, State, Stored, manifest, record_tag};
use crate::event::Events;
use crate::machine;
use crate::problem::Problem;
use crate::record::{Record, Writer};
use crate::reference::{Digest, ImageName, Tag};

/// The window of the flips is shorter than a few of these.
const A_MOMENT: Duration = Duration::from_millis(500);
const MOMENTS: u32 = 20;
/// An intent is given up after this time, wherever it is from.
const PATIENCE: TimeDelta = TimeDelta::minutes(10);

/// The channel's state, when nobody is within changing it.
///
/// # Errors
/// When the registry does not answer, or somebody publishes to the channel for longer than is reasonable.
pub async fn settled(channel: &Channel, events: &Events) -> Result<State, Problem> {
    let mut writer = None;
    for _ in 0..MOMENTS {
        let state = channel.state().await?;
        let Some(intent) = intent(channel, &state).await? else {
            return Ok(state);
        };
        if is_gone(&intent.record.writer) {
            // it may have ended its work before it was gone, and after the record was read
            if channel.state().await?.is(&state) {
                Interrupted::of(channel, intent, state).await?.mend(events).await?;
            }
        } else {
            writer = Some(intent.record.writer);
            tokio::time::sleep(A_MOMENT).await;
        }
    }
    let writer = writer.map_or_else(
        || "somebody".to_owned(),
        |writer| format!("{} on {} (since {})", writer.user, writer.host, writer.at),
    );
    Err(
        Problem::failed(format!("{writer} is publishing to {}; it is as it was", channel.address())).hint(format!(
            "run again when that is done; a run that died is taken over after {} minutes",
            PATIENCE.num_minutes()
        )),
    )
}

/// What was announced and is not recorded.
///
/// # Errors
/// When the registry does not answer, or what is there is none that this tool may touch.
pub async fn intent(channel: &Channel, state: &State) -> Result<Option<Stored>, Problem> {
    if state.next.is_none() || state.next.as_ref() == state.digest() {
        return Ok(None);
    }
    // a record of nothing is what a first act left that was taken back; one that is history was put there by who came too late
    let since = state.record().map_or(1, |record| record.sequence);
    Ok(channel.stored(NEXT).await?.filter(|next| next.record.sequence >= since))
}

#[must_use]
pub fn is_gone(writer: &Writer) -> bool {
    let is_of_here = match (&writer.pids_of, machine::pids()) {
        (Some(theirs), Some(ours)) => *theirs == ours,
        _ => writer.host == machine::host(),
    };
    let has_ended = || match i32::try_from(writer.pid).ok().and_then(Pid::from_raw) {
        // another run of this process cannot be within its window
        Some(pid) => writer.pid == std::process::id() || test_kill_process(pid) == Err(Errno::SRCH),
        None => true,
    };
    Utc::now() - writer.at > PATIENCE || (is_of_here && has_ended())
}

/// The intent that stands, or else the record.
pub(super) async fn standing(channel: &Channel) -> Result<Option<Record>, Problem> {
    let state = channel.state().await?;
    let intent = intent(channel, &state).await?;
    Ok(intent.or(state.record).map(|stored| stored.record))
}

/// An act that was begun and not ended, on one channel or on the two that it names.
struct Interrupted<'c> {
    channel: &'c Channel,
    halves: Vec<Half>,
    can_be_finished: bool,
}

struct Half {
    channel: Channel,
    intent: Stored,
    base: Option<Stored>,
}

impl<'c> Interrupted<'c> {
    async fn of(channel: &'c Channel, intent: Stored, state: State) -> Result<Self, Problem> {
        let mut can_be_finished = true;
        let mut halves = Vec::new();
        if let Some(address) = &intent.record.together_with {
            let other = channel.other_variant()?;
            let theirs = other.state().await?;
            let is_same_act = |stored: &Stored| stored.record.writer == intent.record.writer && *address == other.address();
            if !theirs.record.as_ref().is_some_and(is_same_act) {
                match self::intent(&other, &theirs).await?.filter(is_same_act) {
                    Some(intent) => halves.push(Half {
                        channel: other,
                        intent,
                        base: theirs.record,
                    }),
                    // it died before its second intent, so nothing has moved
                    None => can_be_finished = false,
                }
            }
        }
        halves.push(Half {
            channel: channel.clone(),
            intent,
            base: state.record,
        });
        for half in &halves {
            can_be_finished &= half.is_on_its_base() && half.has_everything().await?;
        }
        Ok(Self {
            channel,
            halves,
            can_be_finished,
        })
    }

    async fn mend(self, events: &Events) -> Result<(), Problem> {
        let Writer { user, host, at, .. } = &self.halves[0].intent.record.writer;
        let what = if self.can_be_finished { "finished" } else { "undone" };
        let text = format!(
            "{}: what {user} on {host} began at {at} was interrupted; it is {what} now",
            self.channel.address()
        );
        for half in &self.halves {
            if self.can_be_finished {
                half.finish().await?;
            } else {
                half.undo().await?;
            }
        }
        events.note(text);
        Ok(())
    }
}

impl Half {
    fn is_on_its_base(&self) -> bool {
        self.intent.record.previous.as_ref() == self.base.as_ref().map(|base| base.manifest.digest())
    }

    /// The images that the act moves, with what they are to be.
    fn moved(&self) -> impl Iterator<Item = (&ImageName, &Digest)> {
        let record = &self.intent.record;
        record
            .before
            .keys()
            .filter_map(|image| Some((image, &record.images.get(image)?.digest)))
    }

    async fn has_everything(&self) -> Result<bool, Problem> {
        let there = try_join_all(
            self.moved()
                .map(async |(image, digest)| self.channel.repository(image)?.head(digest).await.map_err(Problem::from)),
        );
        Ok(there.await?.iter().all(Option::is_some))
    }

    async fn finish(&self) -> Result<(), Problem> {
        try_join_all(self.moved().map(|(image, digest)| point_latest(&self.channel, image, digest))).await?;
        let Stored { record, manifest } = &self.intent;
        self.channel.tag(&record_tag(record.sequence, manifest.digest()), manifest).await?;
        self.channel.tag(RECORD, manifest).await
    }

    async fn undo(&self) -> Result<(), Problem> {
        // where others have published since, theirs is to stand
        let since = self.base.as_ref().filter(|_| !self.is_on_its_base());
        for (image, digest) in self.moved() {
            let repository = self.channel.repository(image)?;
            if repository.head(&Tag::latest()).await?.is_none_or(|is| is.digest != *digest) {
                continue;
            }
            let theirs = since.and_then(|stored| Some(&stored.record.images.get(image)?.digest));
            let before = self.intent.record.before.get(image).and_then(Option::as_ref);
            match theirs.or(before) {
                Some(before) => point_latest(&self.channel, image, before).await?,
                None => drop(repository.delete(&Tag::latest()).await?),
            }
        }
        self.channel.withdraw().await
    }
}

pub(super) async fn point_latest(channel: &Channel, image: &ImageName, digest: &Digest) -> Result<(), Problem> {
    let repository = channel.repository(image)?;
    if repository.head(&Tag::latest()).await?.is_some_and(|is| is.digest == *digest) {
        return Ok(());
    }
    let manifest = manifest(&repository, digest).await?;
    Ok(repository.put(&Tag::latest(), &manifest).await?)
}
