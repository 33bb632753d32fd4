//! The verbs that only look: list, show, history, diff.

use anyhow::Error;

use super::access::Access;
use crate::channel::Owner;
use crate::cli::Common;
use crate::commands::session;
use crate::git::Repository;
use crate::problem::{Exit, Problem};
use crate::publish::{self, Channel, Difference};
use crate::report::{self, Comparison};

pub async fn list(common: &Common, json: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let registry = access.registry(&access.mine()?)?;
    let mut channels = publish::list(&access.client, &registry, &access.images).await?;
    let stable = access.registry(&Owner::Stable)?;
    if stable != registry {
        channels.extend(publish::list(&access.client, &stable, &access.images).await?);
    }
    report::channel_list(&channels, json);
    Ok(Exit::Done)
}

pub async fn show(common: &Common, name: Option<&str>, json: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let channel = access.channel(name)?;
    let state = channel.state().await?;
    let (held, intent) = tokio::try_join!(
        publish::held(&channel, &state, access.images.iter().cloned()),
        publish::intent(&channel, &state)
    )?;
    if held.is_empty() && state.record.is_none() {
        return Err(nothing_in(&channel).into());
    }
    report::channel_show(&channel, &state, intent.as_ref(), &held, json);
    Ok(Exit::Done)
}

pub async fn history(common: &Common, name: Option<&str>, limit: usize, json: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let channel = access.channel(name)?;
    let records = publish::history(&channel, channel.state().await?, limit).await?;
    if records.is_empty() {
        return Err(nothing_in(&channel).into());
    }
    report::channel_history(&records, json);
    Ok(Exit::Done)
}

fn nothing_in(channel: &Channel) -> Problem {
    Problem::failed(format!("nothing was published to {}", channel.address()))
        .hint("`lattice-images channels list` shows the channels of a registry")
}

/// What differs, image by image, and which commits lie between the two.
pub async fn diff(common: &Common, left: Option<&str>, right: Option<&str>, json: bool) -> Result<Exit, Error> {
    compare(common, left, right, json)
        .await
        .map_err(|error| Problem::could_not_tell(&error).into())
}

async fn compare(common: &Common, left: Option<&str>, right: Option<&str>, json: bool) -> Result<Exit, Error> {
    let access = Access::new(common)?;
    let left = access.channel(left)?;
    let right = match right {
        Some(name) => access.channel(Some(name))?,
        None => access.open(Owner::Stable.channel(left.name.variant()))?,
    };
    let look = async |channel: &Channel| {
        let state = session::looked_at(channel).await?;
        let held = publish::held(channel, &state, access.images.iter().cloned()).await?;
        if held.is_empty() && state.record.is_none() {
            return Err(nothing_in(channel));
        }
        Ok::<_, Problem>((state, held))
    };
    let (left_is, right_is) = tokio::try_join!(look(&left), look(&right))?;
    let differences = publish::differences(&left_is.1, &right_is.1);
    let revision = |state: &publish::State| state.record.as_ref().and_then(|stored| stored.record.revision.clone());
    let between = match (revision(&left_is.0), revision(&right_is.0)) {
        (Some(left), Some(right)) if left.commit != right.commit => Some(between(&left.commit, &right.commit).await),
        _ => None,
    };
    let differs = differences.iter().any(|(_, difference, ..)| *difference != Difference::Same);
    report::channel_diff(
        &Comparison {
            left: &left,
            right: &right,
            differences,
            between,
        },
        json,
    );
    Ok(if differs { Exit::Failed } else { Exit::Done })
}

const MOST_COMMITS: usize = 20;

/// The commits that each side has and the other has not, as far as this repository knows them.
async fn between(left: &crate::git::Commit, right: &crate::git::Commit) -> report::Between {
    let here = std::env::current_dir().unwrap_or_default();
    let repository = Repository::at(&here);
    let (only_left, only_right) = tokio::join!(
        repository.subjects(right, left, MOST_COMMITS),
        repository.subjects(left, right, MOST_COMMITS)
    );
    report::Between {
        left: left.clone(),
        right: right.clone(),
        only_left,
        only_right,
    }
}
