//! The verbs that change channels: copy, rollback, clean, delete.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Error};

use super::access::{Access, confirm, settled, writer};
use crate::channel::Owner;
use crate::cli::Common;
use crate::commands::interrupt::Interrupt;
use crate::commands::{session, stable};
use crate::event::Events;
use crate::problem::{Exit, Problem};
use crate::publish::{self, Change, Channel, Garbage};
use crate::record::Act;
use crate::reference::ImageName;
use crate::report;

pub async fn copy(common: &Common, from: &str, to: Option<&str>, yes: bool, override_guard: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let from = access.channel(Some(from))?;
    let to = match to {
        Some(name) => access.channel(Some(name))?,
        None => access.open(access.mine()?.channel(from.name.variant()))?,
    };
    if from.address() == to.address() {
        return Err(Problem::usage(format!("{} cannot be copied to itself", from.address())).into());
    }
    if from.name.variant() != to.name.variant() {
        return Err(Problem::usage(format!("{} and {} are of different variants", from.name, to.name))
            .hint("a debug channel is copied to a debug channel")
            .into());
    }
    let (_turn, seen) = access.write(&to).await?;
    let source = from.state().await?;
    let held = publish::held(&from, &source, access.images.iter().cloned()).await?;
    // what is read within another's flips is no set
    let after = from.state().await?;
    if !after.is(&source) || publish::intent(&from, &after).await?.is_some() {
        return Err(Problem::failed(format!(
            "{} is being changed at this moment, or was interrupted; {} is as it was",
            from.address(),
            to.address()
        ))
        .hint("run again when that is done; the next push to it finishes what was interrupted")
        .into());
    }
    let held: BTreeMap<_, _> = held.into_iter().filter(|(_, held)| held.latest.is_some()).collect();
    if held.is_empty() {
        return Err(Problem::failed(format!("there is nothing in {}", from.address())).into());
    }
    if *to.name.owner() == Owner::Stable {
        stable::judge_copy(common, (source.record(), &held), seen.record(), override_guard).await?;
        let images: Vec<_> = held.keys().map(ToString::to_string).collect();
        let question = format!(
            "These are in {}:\n  {}\nPublish them as {}?",
            from.address(),
            images.join("\n  "),
            to.address()
        );
        confirm(&question, yes || stable::in_ci()).await?;
    }
    let copying = async |events: &Events| publish::copy((&from, &source), &held, (&to, seen), &writer(), events).await;
    let change = session::noting(copying).await?;
    commit(change).await
}

pub async fn rollback(common: &Common, name: &str, sequence: Option<u64>, yes: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let channel = access.channel(Some(name))?;
    let (_turn, seen) = access.write(&channel).await?;
    let Some(now) = seen.record.clone().map(|stored| stored.record) else {
        return Err(Problem::failed(format!("{} has no record to go back to", channel.address())).into());
    };
    let sequence = sequence.map_or_else(
        || {
            now.sequence
                .checked_sub(1)
                .filter(|before| *before > 0)
                .ok_or_else(|| Problem::failed(format!("{} has only one record", channel.address())))
        },
        Ok,
    )?;
    let target = publish::record_of(&channel, seen.clone(), sequence).await?.record;
    let gone = publish::missing(&channel, &target.images).await?;
    if !gone.is_empty() {
        let gone: Vec<_> = gone.iter().map(|(image, digest)| format!("{image}@{digest}")).collect();
        return Err(Problem::failed(format!(
            "{} cannot go back to record {sequence}: the registry no longer has {}",
            channel.address(),
            gone.join(", ")
        ))
        .into());
    }
    let (mut images, removed) = publish::back_to(&target, &now);
    images.extend(publish::strayed(&channel, &target.images).await?);
    if images.is_empty() && removed.is_empty() {
        report::note(&format!("{} is what record {sequence} says", channel.address()));
        return Ok(Exit::Done);
    }
    if *channel.name.owner() == Owner::Stable {
        confirm(
            &format!("Take {} back to record {sequence} of {}?", channel.address(), target.writer.at),
            yes,
        )
        .await?;
    }
    let left = now
        .rolled_back
        .or(now.revision)
        .filter(|left| target.revision.as_ref().map(|revision| &revision.commit) != Some(&left.commit));
    let change = Change {
        at_hand: BTreeMap::new(),
        latest: BTreeMap::new(),
        session: None,
        act: Act::Rollback { to: sequence },
        revision: target.revision,
        rolled_back: left,
        images,
        removed,
        seen,
        channel,
    };
    commit(change).await
}

async fn commit(change: Change) -> Result<Exit, Error> {
    if change.images.is_empty() && change.removed.is_empty() {
        report::note(&format!("{} has all of it already", change.channel.address()));
        return Ok(Exit::Done);
    }
    let interrupt = Interrupt::listen().context("listening for Ctrl-C")?;
    let (changes, writer) = ([change], writer());
    let stored = session::noting(async |events| {
        tokio::select! {
            done = publish::commit(&changes, &writer, &interrupt.once, events) => done,
            () = interrupt.twice(events) => Err(Interrupt::left()),
        }
    });
    report::committed(&stored.await?);
    Ok(Exit::Done)
}

pub async fn clean(common: &Common, name: Option<&str>, keep: usize, dry_run: bool, yes: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let channel = access.channel(name)?;
    let (_turn, seen) = if dry_run {
        (None, session::looked_at(&channel).await?)
    } else {
        access.write(&channel).await?
    };
    let published = access.published()?;
    let former = former_images(&published, &seen);
    let images = access.images_of(&channel, &seen).await?;
    let garbage = async |state| publish::garbage(&channel, state, keep, &images, &published).await;
    let mut shown = garbage(seen.clone()).await?;
    report::to_remove(&former, &shown);
    if dry_run || (former.is_empty() && shown.is_empty()) {
        return Ok(Exit::Done);
    }
    confirm(&format!("Take these out of {}?", channel.address()), yes).await?;
    if !former.is_empty() {
        let now = seen.record.as_ref().map(|stored| &stored.record);
        let change = Change {
            at_hand: BTreeMap::new(),
            latest: BTreeMap::new(),
            session: None,
            act: Act::Clean,
            revision: now.and_then(|record| record.revision.clone()),
            rolled_back: now.and_then(|record| record.rolled_back.clone()),
            images: BTreeMap::new(),
            removed: former,
            channel: channel.clone(),
            seen,
        };
        commit(change).await?;
    }
    let sweeping = async {
        // while this was asked, others may have published what nobody wanted before
        let still = garbage(settled(&channel).await?).await?;
        shown.retain(|shown| still.iter().any(|garbage| garbage.is(shown)));
        sweep(&shown).await
    };
    until_interrupted(sweeping).await
}

/// Images of the channel that the manifest no longer publishes; without a manifest, that cannot be told.
fn former_images(published: &[ImageName], seen: &publish::State) -> BTreeSet<ImageName> {
    let recorded = seen.record.iter().flat_map(|stored| stored.record.images.keys());
    let is_former = |image: &&ImageName| !published.is_empty() && !published.contains(*image);
    recorded.filter(is_former).cloned().collect()
}

pub async fn delete(common: &Common, name: &str, yes: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let channel = access.channel(Some(name))?;
    if *channel.name.owner() == Owner::Stable {
        return Err(Problem::usage("the channel `stable` is not deleted with this tool").into());
    }
    let (_turn, seen) = access.write(&channel).await?;
    let images = access.images_of(&channel, &seen).await?;
    let all = publish::everything(&channel, &images).await?;
    if all.is_empty() {
        return Err(nothing(&channel).into());
    }
    report::to_remove(&BTreeSet::new(), &all);
    confirm(&format!("Delete the channel {} with all of this?", channel.address()), yes).await?;
    until_interrupted(sweep(&all)).await
}

async fn until_interrupted(sweeping: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    let interrupt = Interrupt::listen().context("listening for Ctrl-C")?;
    tokio::select! {
        done = sweeping => done,
        () = interrupt.once.cancelled() => Err(Problem::interrupted("; what is left goes with the next run").into()),
    }
}

fn nothing(channel: &Channel) -> Problem {
    Problem::failed(format!("there is no channel {}", channel.address()))
}

async fn sweep(garbage: &[Garbage]) -> Result<Exit, Error> {
    let swept = publish::sweep(garbage).await?;
    if let Some(words) = swept.refused {
        return Err(Problem::failed(format!(
            "the registry does not delete: {words}; {} of {} manifests are gone",
            swept.gone,
            garbage.len()
        ))
        .hint("deletion is a setting of the registry, and a right: ask who runs it")
        .into());
    }
    report::removed(swept.gone);
    Ok(Exit::Done)
}
