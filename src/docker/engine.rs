//! The one front of what builds: a daemon, or one BuildKit or several elsewhere.

use std::time::Duration;

use anyhow::Error;
use tracing::debug;

use super::builders::Builders;
use super::push::Pushed;
use super::recipe::{Built, Recipe, Sibling};
use super::utilities::{Addition, Busybox};
use super::{Access, BuilderChoice, Daemon, PushBy, Store};
use crate::builder::Choice;
use crate::event::Events;
use crate::manifest::{Build, Utilities};
use crate::problem::Problem;
use crate::reference::{Digest, ImageName, Reference, Repository};
use crate::registry::Manifest;

/// What images are built with, once it has answered.
pub enum Engine {
    Daemon(Box<Daemon>),
    Builders(Builders),
}

impl Engine {
    /// Connects, and tells what a person may want to know of it.
    ///
    /// # Errors
    /// When nothing answers that could build, or it may not be used, with what to do about it.
    pub async fn connect(choice: &Choice, classic: BuilderChoice, access: &Access) -> Result<(Self, Vec<String>), Error> {
        match choice {
            Choice::Daemon(endpoint) => {
                let daemon = Daemon::connect(endpoint, classic, access.clone()).await?;
                let unasked = classic == BuilderChoice::Best && daemon.builds_classically();
                let note = "the daemon has no BuildKit: builds go through its classic builder, which takes the whole context each time";
                Ok((
                    Self::Daemon(Box::new(daemon)),
                    unasked.then(|| note.to_owned()).into_iter().collect(),
                ))
            }
            Choice::BuildKits(nodes) => {
                let (builders, told) = Builders::connect(nodes, access).await?;
                Ok((Self::Builders(builders), told))
            }
        }
    }

    /// What it is, for a person.
    #[must_use]
    pub fn description(&self) -> String {
        match self {
            Self::Daemon(daemon) => daemon.description(),
            Self::Builders(builders) => builders.description(),
        }
    }

    /// Whether what is built stays in a daemon of the person.
    #[must_use]
    pub fn keeps_images(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }

    /// Whether builds push by themselves, to [`super::Names::push_as`]. Else what is built is for [`Self::push_as`].
    #[must_use]
    pub fn pushes(&self) -> bool {
        match self {
            Self::Daemon(daemon) => daemon.pushes(),
            Self::Builders(_) => true,
        }
    }

    /// Lets `chosen` bring images to the registry, or who does it best where that answers in this time; tells where `chosen`
    /// cannot.
    pub fn push_by(&mut self, chosen: Option<PushBy>, answers_in: Duration) -> Option<String> {
        if let Self::Builders(builders) = self {
            builders.push_by = chosen;
        }
        if let Self::Daemon(daemon) = self {
            daemon.replicates = !daemon.builds_classically() && chosen.map_or(daemon.is_local, |chosen| chosen == PushBy::Client);
            daemon.push_by = chosen.unwrap_or_else(|| daemon.best_pusher(answers_in));
        }
        let by = match self {
            Self::Builders(_) if chosen == Some(PushBy::Client) => "builder, and by the client where they are made of copied files alone",
            Self::Builders(_) if chosen.is_none() => {
                "builder, and by the client where that is near and they are made of copied files alone"
            }
            Self::Daemon(daemon) if daemon.pushes() && daemon.replicates => {
                "builder, and by the client where they are made of copied files alone, and not in the daemon"
            }
            _ if self.pushes() => "builder",
            Self::Daemon(daemon) if daemon.store == Store::GraphDriver && daemon.push_by == PushBy::Client => "client",
            Self::Daemon(daemon) if daemon.replicates => "daemon, and by the client where they are made of copied files alone",
            _ => "daemon",
        };
        debug!("images are pushed by the {by}; the registry answers in {answers_in:.0?}");
        if chosen != Some(PushBy::Client) || by == "client" {
            return None;
        }
        Some(match by {
            "builder" | "daemon" => format!("no image goes through the client here: the {by} pushes them"),
            _ => format!("not all images go through the client here: they are pushed by the {by}"),
        })
    }

    /// Whether [`Self::push_as`] brings the image to this registry through this program: what it shares with others is sent once
    /// then, though they are given at the same time.
    pub async fn stages(&self, built: &Built, host: &str, step: &str) -> bool {
        match self {
            Self::Daemon(daemon) => daemon.stages(built, host, step).await,
            Self::Builders(_) => built.pushed.is_none(),
        }
    }

    /// The registry has it as this manifest.
    pub fn has_pushed(&self, built: &Built, repository: &Repository, manifest: &Manifest) {
        let staging = match self {
            Self::Daemon(daemon) => &daemon.staging,
            Self::Builders(builders) => &builders.staging,
        };
        staging.learn(built, repository, manifest);
    }

    /// Nothing more is built that [`Self::push_as`] would be given.
    pub fn has_built_all(&self) {
        if let Self::Daemon(daemon) = self {
            daemon.staging.complete();
        }
    }

    /// # Errors
    /// When a build has a key that cannot be carried out here: which, where, and what would be needed.
    pub fn refuse_what_it_cannot_do<'b>(&self, builds: impl IntoIterator<Item = &'b Build>) -> Result<(), Problem> {
        builds.into_iter().try_for_each(|build| match self {
            Self::Daemon(daemon) => daemon.refuse_what_it_cannot_do(build),
            Self::Builders(_) => Ok(()),
        })
    }

    /// # Errors
    /// When the context cannot be read, a base cannot be had, or the build fails. A push that fails in it is a [`super::PushOf`].
    pub async fn build(&self, recipe: Recipe<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        match self {
            Self::Daemon(daemon) => daemon.build(recipe, step, events).await,
            Self::Builders(builders) => builders.build(recipe, step, events).await,
        }
    }

    /// What was built, for others to stand on.
    ///
    /// # Errors
    /// When the daemon does not give the image a name.
    pub async fn sibling(&self, image: &ImageName, reference: &Reference, built: &Built) -> Result<Sibling, Error> {
        match self {
            Self::Daemon(daemon) => daemon.sibling(image, reference, built).await,
            Self::Builders(_) => Ok(Sibling::of(built, built.published(reference))),
        }
    }

    /// Whether images have the digests of their configurations for names here.
    #[must_use]
    pub fn knows_by_configuration(&self) -> bool {
        matches!(self, Self::Daemon(daemon) if daemon.store == Store::GraphDriver)
    }

    /// What is in a registry as `name`, with the configuration `id`, where what builds comes to the very same.
    pub async fn recall(&self, recipe: Recipe<'_>, name: &str, id: &Digest, step: &str) -> Option<Sibling> {
        match self {
            Self::Daemon(daemon) => daemon.recall(recipe, name, id, step).await,
            Self::Builders(builders) => builders.recall(recipe, name, id, step).await,
        }
    }

    /// What is in a registry as `name`. A daemon may have it, too, as `id`, and need not ask the registry then.
    pub async fn published(&self, image: &ImageName, name: &str, id: Option<&Digest>) -> Sibling {
        let local = match (self, id) {
            (Self::Daemon(daemon), Some(id)) if self.knows_by_configuration() => daemon.hold(image.as_str(), id).await.ok(),
            _ => None,
        };
        Sibling::published(local.unwrap_or_else(|| name.to_owned()))
    }

    /// The busybox of the manifest, fetched out of an image where that is its source.
    ///
    /// # Errors
    /// When it cannot be had, or is not a static busybox for `platform`.
    pub async fn busybox(&self, utilities: &Utilities, platform: &str) -> Result<Busybox, Error> {
        match self {
            Self::Daemon(daemon) => Busybox::of(utilities, platform, async |image| daemon.binary_of(image, platform).await).await,
            Self::Builders(builders) => Busybox::of(utilities, platform, async |image| builders.binary_of(image, platform).await).await,
        }
    }

    /// # Errors
    /// When the image has a `/busybox` of its own, or the build fails.
    pub async fn add_utilities(&self, addition: Addition<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        addition.refuse_own_folder()?;
        match self {
            Self::Daemon(daemon) => daemon.add_utilities(addition, step, events).await,
            Self::Builders(builders) => builders.add_utilities(addition, step, events).await,
        }
    }

    /// Pushes what a build has left in the daemon, under a name that it does not keep there. What builds have pushed by
    /// themselves is there already: they were given that name.
    ///
    /// # Errors
    /// What the registry or the daemon said, with what to do where that is known.
    pub async fn push_as(&self, built: &Built, reference: &Reference, step: &str, events: &Events) -> Result<Pushed, Error> {
        match (self, &built.pushed) {
            (_, Some(pushed)) => Ok(pushed.clone()),
            (Self::Daemon(daemon), None) => daemon.push_as(built, reference, step, events).await,
            (Self::Builders(builders), None) => builders.staging.stage(built, reference, step, events).await,
        }
    }

    /// Waits for what must not be left half done, and takes away what only this run needed. The images stay under their
    /// own names.
    pub async fn tidy_up(&self) {
        match self {
            Self::Daemon(daemon) => daemon.tidy_up().await,
            Self::Builders(builders) => builders.staging.finish(),
        }
    }
}
