//! Moves channels from one set of images to the next: the intent, the flips, the record.
//!
//! A registry offers no transaction across repositories and no compare-and-swap. What is promised instead: nothing moves
//! before everything is there and verified; the window of the flips is short; a failure puts back what was moved; a run
//! that is killed in the window leaves its intent, which the next one finishes; two at once are noticed.

use futures_util::future::{join_all, try_join_all};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::channel::{A_BLINK, NEXT, Stored};
use super::flip::Flip;
use super::moves::{Change, Move, Seen};
use super::repair;
use crate::event::Events;
use crate::problem::Problem;
use crate::record::Writer;
use crate::timing;

const ATTEMPTS: usize = 5;

/// Carries out the changes as one act.
///
/// # Errors
/// When it could not be done: why, and what the channels are now.
pub async fn commit(changes: &[Change], writer: &Writer, cancel: &CancellationToken, events: &Events) -> Result<Vec<Stored>, Problem> {
    let as_seen = |change: &Change| Seen {
        state: change.seen.clone(),
        latest: change.latest.clone(),
        session: change.session.clone(),
    };
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
        let as_is = |state| Seen { state, ..Seen::default() };
        seen = states.into_iter().map(as_is).collect();
    }
    let busy = Problem::failed("others publish to the channel at this very moment");
    Err(as_it_was(&busy, changes))
}

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

async fn attempt(changes: &[Change], seen: Vec<Seen>, writer: &Writer, cancel: &CancellationToken) -> Result<Vec<Stored>, Stop> {
    let preparing = prepare(changes, seen, writer).instrument(timing::part("prepare the flips"));
    let prepared = preparing.await.map_err(|error| Stop::Failed(as_it_was(&error, changes)))?;
    let moves = prepared.ok_or(Stop::Overtaken)?;
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

/// None where others came in between. The shorter the time between this and what comes next, the less does.
async fn prepare<'c>(changes: &'c [Change], seen: Vec<Seen>, writer: &Writer) -> Result<Option<Vec<Move<'c>>>, Problem> {
    let each = changes.iter().zip(seen);
    let moves = try_join_all(each.map(|(change, seen)| Move::prepare(change, changes, seen, writer))).await?;
    let are_ready = try_join_all(moves.iter().map(Move::make_ready)).await?;
    Ok((!are_ready.contains(&false)).then_some(moves))
}

/// Says what is coming, for all channels before anything moves, and looks that nobody else has said so at the same time.
async fn announce(moves: &[Move<'_>]) -> Result<(), Stop> {
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
            act.channel().withdraw().await?;
        }
    }
    Ok(())
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
