mod access;
mod look;
mod write;

use anyhow::Error;

use super::session;
use crate::channel::{Owner, Variant};
use crate::cli::{Channels, Common, Selection};
use crate::manifest::{DEFAULT_REGISTRY, Outline};
use crate::problem::{Exit, Problem};
use crate::reference::Registry;
use crate::report;

pub async fn channels(common: &Common, command: Option<&Channels>) -> Result<Exit, Error> {
    match command {
        None => Ok(names(common, None)?),
        Some(Channels::Env(selection)) => Ok(names(common, Some((*selection, Given::Env)))?),
        Some(Channels::BackendVars(selection)) => Ok(names(common, Some((*selection, Given::BackendVars)))?),
        Some(Channels::List { json }) => look::list(common, *json).await,
        Some(Channels::Show { channel, json }) => look::show(common, channel.as_deref(), *json).await,
        Some(Channels::History { channel, limit, json }) => look::history(common, channel.as_deref(), *limit, *json).await,
        Some(Channels::Diff { left, right, json }) => look::diff(common, left.as_deref(), right.as_deref(), *json).await,
        Some(Channels::Copy {
            from,
            to,
            yes,
            override_stable_guard,
        }) => write::copy(common, from, to.as_deref(), *yes, *override_stable_guard).await,
        Some(Channels::Rollback { channel, to, yes }) => write::rollback(common, channel, *to, *yes).await,
        Some(Channels::Clean {
            channel,
            keep,
            dry_run,
            yes,
        }) => write::clean(common, channel.as_deref(), *keep, *dry_run, *yes).await,
        Some(Channels::Delete { channel, yes }) => write::delete(common, channel, *yes).await,
    }
}

/// What a consumer is given.
enum Given {
    Env,
    BackendVars,
}

/// Consumers ask for these from folders of their own: a manifest is read where there is one, and only its names.
fn names(common: &Common, given: Option<(Selection, Given)>) -> Result<Exit, Problem> {
    let outline = session::outline(common)?;
    let outline = outline.as_ref();
    match given {
        None => mine(common, outline)?,
        Some((selection, given)) => {
            let owner = owner(common, selection, outline)?;
            let channel = owner.channel(selection.variant());
            match given {
                Given::Env => report::env(&channel),
                Given::BackendVars => report::backend_vars(&channel, &registry(common, outline, &owner)?),
            }
        }
    }
    Ok(Exit::Done)
}

fn mine(common: &Common, outline: Option<&Outline<'_>>) -> Result<(), Problem> {
    let selection = Selection {
        stable: false,
        debug: false,
    };
    let me = owner(common, selection, outline)?;
    let published = outline.map_or(Ok(Vec::new()), Outline::published)?;
    let image = published.first().map_or("IMAGE", |image| image.as_str());
    let mut rows = Vec::new();
    for owner in [me, Owner::Stable] {
        let registry = registry(common, outline, &owner)?;
        for variant in [Variant::Normal, Variant::Debug] {
            rows.push((owner.channel(variant), registry.clone()));
        }
    }
    report::channels(&rows, image);
    Ok(())
}

fn owner(common: &Common, selection: Selection, outline: Option<&Outline<'_>>) -> Result<Owner, Problem> {
    let names = outline.map_or(Ok(Vec::new()), Outline::names)?;
    session::owner(common, selection, &names)
}

fn registry(common: &Common, outline: Option<&Outline<'_>>, owner: &Owner) -> Result<Registry, Problem> {
    session::registry(common, || {
        outline.map_or_else(|| DEFAULT_REGISTRY.parse(), |outline| outline.registry_of(owner))
    })
}
