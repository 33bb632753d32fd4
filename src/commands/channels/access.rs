//! What the verbs that look at channels begin with.

use std::collections::BTreeSet;

use anyhow::Error;

use crate::channel::{ChannelName, Owner, Variant};
use crate::cli::{Common, Selection};
use crate::commands::session;
use crate::lock::Lock;
use crate::machine;
use crate::manifest::Outline;
use crate::problem::Problem;
use crate::publish::{self, Channel, State};
use crate::record::Writer;
use crate::reference::{ImageName, Registry};
use crate::registry::Client;
use crate::report;
use crate::user;

pub struct Access<'c> {
    common: &'c Common,
    outline: Option<Outline<'static>>,
    pub images: Vec<ImageName>,
    pub client: Client,
}

impl<'c> Access<'c> {
    pub fn new(common: &'c Common) -> Result<Self, Problem> {
        let outline = session::outline(common)?;
        let images = outline.as_ref().map_or(Ok(Vec::new()), Outline::names)?;
        let insecure = outline.as_ref().map_or(Ok(Vec::new()), Outline::insecure_registries)?;
        let client = session::client(&session::Docker::configured()?, insecure)?;
        Ok(Self {
            common,
            outline,
            images,
            client,
        })
    }

    /// What the manifest publishes; nothing where there is none.
    pub fn published(&self) -> Result<Vec<ImageName>, Problem> {
        self.outline.as_ref().map_or(Ok(Vec::new()), Outline::published)
    }

    pub fn registry(&self, owner: &Owner) -> Result<Registry, Problem> {
        super::registry(self.common, self.outline.as_ref(), owner)
    }

    /// The channel of that name; none named: one's own.
    pub fn channel(&self, name: Option<&str>) -> Result<Channel, Problem> {
        let name: ChannelName = match name {
            Some(name) => name.parse()?,
            None => self.mine()?.channel(Variant::Normal),
        };
        self.open(name)
    }

    pub fn mine(&self) -> Result<Owner, Problem> {
        let selection = Selection {
            stable: false,
            debug: false,
        };
        session::owner(self.common, selection, &self.images)
    }

    pub fn open(&self, name: ChannelName) -> Result<Channel, Problem> {
        name.refuse_images(&self.images)?;
        let registry = self.registry(name.owner())?;
        Channel::new(name, registry, self.client.clone())
    }

    /// For verbs that write: their turn, and the channel's state when nobody is within changing it.
    pub async fn write(&self, channel: &Channel) -> Result<(Option<Lock>, State), Error> {
        let turn = session::turn(&[channel.address()], &writer()).await;
        Ok((turn, settled(channel).await?))
    }

    /// The names that a channel's images may have: those of the manifest, and of its records.
    pub async fn images_of(&self, channel: &Channel, state: &State) -> Result<BTreeSet<ImageName>, Problem> {
        let records = publish::history(channel, state.clone(), usize::MAX).await?;
        let recorded = records.into_iter().flat_map(|stored| stored.record.images.into_keys());
        Ok(recorded.chain(self.images.iter().cloned()).collect())
    }
}

/// The channel's state when nobody is within changing it.
pub async fn settled(channel: &Channel) -> Result<State, Problem> {
    session::noting(async |events| publish::settled(channel, events).await).await
}

/// Whoever runs the program.
pub fn writer() -> Writer {
    Writer::new(user::os_name(), machine::host())
}

/// Asks before something is written; `--yes` has answered.
pub async fn confirm(question: &str, yes: bool) -> Result<(), Problem> {
    if yes {
        return Ok(());
    }
    if !report::somebody_is_there() {
        return Err(Problem::usage("this is to be confirmed, and there is no terminal to ask at").hint("--yes confirms it"));
    }
    if report::confirm(question).await {
        Ok(())
    } else {
        Err(Problem::failed("not confirmed; nothing was done"))
    }
}
