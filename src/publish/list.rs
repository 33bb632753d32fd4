//! The channels of a registry.

use std::collections::BTreeSet;

use futures_util::stream::{StreamExt, TryStreamExt};

use super::channel::{Channel, State};
use crate::channel::ChannelName;
use crate::problem::Problem;
use crate::reference::{ImageName, Registry};
use crate::registry::{Client, Kind};

const AT_ONCE: usize = 16;

/// Every channel that has a record, or images of these names that another tool pushed.
///
/// # Errors
/// When the registry does not answer, or does not tell what it has.
pub async fn list(client: &Client, registry: &Registry, images: &[ImageName]) -> Result<Vec<(Channel, State)>, Problem> {
    let names = components(client, registry).await?;
    let channel_of = |name: &str| name.parse::<ChannelName>().ok();
    let by_image = |name: &String| {
        let image = images.iter().filter(|image| name.ends_with(&format!("-{image}")));
        let longest = image.max_by_key(|image| image.as_str().len())?;
        channel_of(name.strip_suffix(longest.as_str())?.strip_suffix('-')?)
    };
    let unrecorded: BTreeSet<ChannelName> = names.iter().filter_map(by_image).collect();
    let addresses: BTreeSet<ChannelName> = names.iter().filter_map(|name| channel_of(name)).collect();
    let states: Vec<_> = futures_util::stream::iter(addresses.union(&unrecorded).cloned().collect::<Vec<_>>())
        .map(|name| async move {
            let channel = Channel::new(name, registry.clone(), client.clone())?;
            let state = channel.state().await?;
            Ok::<_, Problem>((channel, state))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let is_channel = |(channel, state): &(Channel, State)| state.record.is_some() || unrecorded.contains(&channel.name);
    Ok(states.into_iter().filter(is_channel).collect())
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
