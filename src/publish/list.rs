//! The channels of a registry.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{StreamExt, TryStreamExt};

use super::channel::{Channel, State};
use crate::channel::ChannelName;
use crate::problem::Problem;
use crate::reference::{ImageName, Registry};
use crate::registry::{Client, Kind};

const AT_ONCE: usize = 16;

pub type Listed = (Channel, Result<State, Problem>);

/// Every channel that has a record, or images of these names that another tool pushed. One that cannot be read comes with why.
///
/// # Errors
/// When the registry does not answer, or does not tell what it has.
pub async fn list(client: &Client, registry: &Registry, images: &[ImageName]) -> Result<Vec<Listed>, Problem> {
    let names = components(client, registry).await?;
    let channel_of = |name: &str| name.parse::<ChannelName>().ok();
    let by_image = |name: &String| {
        let image = images.iter().filter(|image| name.ends_with(&format!("-{image}")));
        let longest = image.max_by_key(|image| image.as_str().len())?;
        channel_of(name.strip_suffix(longest.as_str())?.strip_suffix('-')?)
    };
    // by channel: the repositories that may be those of its images
    let mut found: BTreeMap<ChannelName, Vec<&String>> = BTreeMap::new();
    for name in &names {
        if let Some(channel) = channel_of(name) {
            found.entry(channel).or_default();
        }
        if let Some(channel) = by_image(name) {
            found.entry(channel).or_default().push(name);
        }
    }
    let listed: Vec<Option<Listed>> = futures_util::stream::iter(found)
        .map(|(name, images)| async move {
            let channel = Channel::new(name, registry.clone(), client.clone())?;
            let state = channel.state().await;
            let has_none = state.as_ref().is_ok_and(|state| state.record.is_none());
            let is_channel = !has_none || has_latest(client, registry, &images).await?;
            Ok::<_, Problem>(is_channel.then_some((channel, state)))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(listed.into_iter().flatten().collect())
}

/// What has none holds at most what a push has staged, or a deletion has left.
async fn has_latest(client: &Client, registry: &Registry, repositories: &[&String]) -> Result<bool, Problem> {
    for name in repositories {
        let reference = registry.reference(name)?;
        if client.repository(reference.repository()).head(reference.tag()).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What lies directly below the registry's path: by Google's listing where there is one, else by the catalog.
async fn components(client: &Client, registry: &Registry) -> Result<BTreeSet<String>, Problem> {
    if let Some(root) = registry.root()
        && let Ok(Some(listing)) = client.repository(&root).tags().await
        && !listing.children.is_empty()
    {
        return Ok(listing.children);
    }
    let told = match client.catalog(registry.host()).await {
        Ok(told) => told,
        Err(error) if matches!(error.kind(), Kind::Denied | Kind::Unauthorized | Kind::Unsupported) => None,
        Err(error) => return Err(error.into()),
    };
    let told = told.ok_or_else(|| {
        Problem::failed(format!("{} does not tell which repositories it has", registry.host()))
            .hint("`channels show CHANNEL` looks into one whose name is known")
    })?;
    let prefix = format!("{registry}/");
    let below = told.iter().filter_map(|repository| repository.as_str().strip_prefix(&prefix));
    Ok(below.filter(|name| !name.contains('/')).map(str::to_owned).collect())
}
