//! Publishes a plan: what its channels have is left, what the registry has is taken, the rest is built and staged; then all
//! of it moves at once.

mod carry;
mod pushed;

pub use carry::{Author, Carried, carry_out};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Error;
use futures_util::future::{join_all, try_join_all};
use tracing::Instrument;

use crate::channel::Variant;
use crate::event::Events;
use crate::fingerprint::{Fingerprint, Print};
use crate::plan::{Plan, Step};
use crate::problem::Problem;
use crate::publish::{self, Answers, Channel, Known, Offer, Standing, State, Stored, look_up};
use crate::record::Entry;
use crate::reference::Digest;
use crate::resolve::{Base, Source};
use crate::timing;

/// Where a plan is published, and where its images may be taken from.
pub struct Places {
    pub normal: Channel,
    pub debug: Channel,
    /// Whether images may be copied from other channels: downhill, and between those that this person pushes to.
    pub takes_copies: bool,
    /// Channels from which copies run downhill.
    pub uphill: Vec<Channel>,
}

impl Places {
    fn of(&self, variant: Variant) -> &Channel {
        match variant {
            Variant::Normal => &self.normal,
            Variant::Debug => &self.debug,
        }
    }

    fn published(&self, plan: &Plan) -> Vec<Channel> {
        plan.channels.iter().map(|name| self.of(name.variant()).clone()).collect()
    }

    /// Where else the image of a step may be; what is known to be there goes first.
    fn offers(&self, step: &Step, fingerprint: &Fingerprint, cache: Option<&Path>) -> Result<Vec<Offer>, Problem> {
        let own = self.of(step.variant).repository(&step.image)?;
        let mut offers = Vec::new();
        for image in cache
            .filter(|_| self.takes_copies)
            .map_or(Vec::new(), |cache| pushed::of(cache, fingerprint))
        {
            let repository = image.repository().filter(|repository| repository.host() == own.repository().host());
            let Some(repository) = repository.filter(|repository| repository != own.repository()) else {
                continue;
            };
            offers.push(Offer {
                repository: self.of(step.variant).neighbour(&repository),
                // of what is not published, no trace is left in the channel before it is needed
                known: match image.manifest() {
                    manifest if step.publish => Known::Manifest(manifest),
                    manifest => Known::Digest(manifest.digest().clone()),
                },
                channel: image.channel,
            });
        }
        for channel in self.uphill.iter().filter(|channel| channel.name.variant() == step.variant) {
            offers.push(Offer {
                channel: channel.name.to_string(),
                repository: channel.repository(&step.image)?,
                known: Known::Fingerprint,
            });
        }
        Ok(offers)
    }
}

/// What the steps of a plan are built from.
pub struct Sources {
    pub prints: Vec<Print>,
    /// The images of elsewhere, by the names that builds have for them.
    pub bases: BTreeMap<String, Base>,
    /// Where it is kept which builds read more than their Dockerfiles tell, and what was pushed.
    pub cache: Option<PathBuf>,
}

impl Sources {
    /// What builds are given in the place of names. An image that only the daemon has stays a name.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<String, Digest> {
        let known = self.bases.iter().filter(|(_, base)| base.source != Source::DaemonAlone);
        known.map(|(name, base)| (name.clone(), base.digest.clone())).collect()
    }
}

/// A plan beside what the registry has of it.
pub struct Release<'p> {
    plan: &'p Plan,
    places: Places,
    answers: Answers,
    sources: Sources,
    standing: Vec<Standing>,
    /// Whether the plan's publishing needs the step at all: a base that no build stands on is not.
    needed: Vec<bool>,
}

impl<'p> Release<'p> {
    /// Asks the registry what it has, while the fingerprints are taken. With `anew`, nothing that it has is used.
    ///
    /// # Errors
    /// When the registry does not answer, or a fingerprint cannot be taken.
    pub async fn look(
        plan: &'p Plan,
        places: Places,
        sources: impl Future<Output = Result<Sources, Error>>,
        anew: bool,
        events: &Events,
    ) -> Result<Self, Error> {
        let settled = async |channel: &Channel| publish::settled(channel, events).await;
        let mut release = Self::compare(plan, places, sources, settled).await?;
        if anew {
            release.standing.fill(Standing::Missing);
        } else {
            release
                .look_up_missing()
                .instrument(timing::part("look for what is missing"))
                .await?;
        }
        release.needed = release.needs_of_what_is_missing();
        Ok(release)
    }

    /// Asks the registry only what the channels hold; each has the state that `state_of` finds.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn compare(
        plan: &'p Plan,
        places: Places,
        sources: impl Future<Output = Result<Sources, Error>>,
        state_of: impl AsyncFn(&Channel) -> Result<State, Problem>,
    ) -> Result<Self, Error> {
        let channels = places.published(plan);
        let asking = async { publish::ask(plan, &channels, state_of).await.map_err(Error::from) };
        let (answers, sources) = tokio::try_join!(asking.instrument(timing::part("ask the registry")), sources)?;
        let standing = plan.steps.iter().enumerate().map(|(index, step)| {
            let up_to_date = answers.up_to_date(plan, index, &sources.prints[index].fingerprint);
            match up_to_date.filter(|_| step.publish) {
                Some(digest) => Standing::UpToDate(digest.clone()),
                None => Standing::Missing,
            }
        });
        Ok(Self {
            plan,
            places,
            standing: standing.collect(),
            answers,
            sources,
            needed: Vec::new(),
        })
    }

    /// The published steps: what the channel's record says of each, and the digest of its `latest`.
    pub fn stands(&self) -> impl Iterator<Item = (usize, Option<&Entry>, Option<&Digest>)> {
        let published = (0..self.plan.steps.len()).filter(|index| self.plan.steps[*index].publish);
        published.map(|index| {
            (
                index,
                self.answers.entry(self.plan, &self.plan.steps[index]),
                self.answers.latest(index).and_then(|latest| latest.digest.as_ref()),
            )
        })
    }

    async fn look_up_missing(&mut self) -> Result<(), Error> {
        let needed = self.needs_of_what_is_missing();
        let missing = (0..needed.len()).filter(|index| needed[*index] && self.is_missing(*index));
        let looked_up = missing.map(async |index| {
            let step = &self.plan.steps[index];
            let fingerprint = &self.sources.prints[index].fingerprint;
            let own = self.places.of(step.variant).repository(&step.image)?;
            let offers = self.places.offers(step, fingerprint, self.sources.cache.as_deref())?;
            let is_new = self.answers.is_new(self.plan, step);
            Ok::<_, Problem>((index, look_up(&own, &offers, is_new, fingerprint).await?))
        });
        for (index, standing) in try_join_all(looked_up).await? {
            self.standing[index] = standing;
        }
        Ok(())
    }

    /// What is published, and what of the rest is needed to build what is missing.
    fn needs_of_what_is_missing(&self) -> Vec<bool> {
        let steps = &self.plan.steps;
        let mut needed: Vec<bool> = steps.iter().map(|step| step.publish).collect();
        for index in (0..steps.len()).rev() {
            if needed[index] && self.is_missing(index) {
                for need in steps[index].needs() {
                    needed[need] = true;
                }
            }
        }
        needed
    }

    #[must_use]
    pub fn plan(&self) -> &'p Plan {
        self.plan
    }

    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Whether a step's image with this digest was pushed from this machine.
    fn is_of_here(&self, index: usize, digest: &Digest) -> bool {
        let Some(cache) = &self.sources.cache else { return false };
        let pushed = pushed::of(cache, &self.sources.prints[index].fingerprint);
        pushed.iter().any(|image| image.manifest().digest() == digest)
    }

    fn is_missing(&self, index: usize) -> bool {
        matches!(self.standing[index], Standing::Missing)
    }

    fn is_built(&self, index: usize) -> bool {
        self.needed[index] && self.is_missing(index)
    }

    /// The steps that will be built.
    pub fn to_build(&self) -> impl Iterator<Item = &'p Step> {
        let built = |index: &usize| self.is_built(*index);
        (0..self.plan.steps.len()).filter(built).map(|index| &self.plan.steps[index])
    }

    /// The steps whose image in the channel will be another one.
    pub fn to_publish(&self) -> impl Iterator<Item = &'p Step> {
        let moved = |index: &usize| self.plan.steps[*index].publish && !matches!(self.standing[*index], Standing::UpToDate(_));
        (0..self.plan.steps.len()).filter(moved).map(|index| &self.plan.steps[index])
    }

    /// The images of elsewhere that a step stands on and whose digests are not from their registries, each once.
    #[must_use]
    pub fn unresolved(&self, step: usize) -> Vec<String> {
        let is_unresolved = |name: &&String| self.sources.bases.get(*name).is_some_and(|base| base.source != Source::Registry);
        let (mut found, mut below) = (BTreeSet::new(), BTreeSet::from([step]));
        // what a step needs comes before it
        while let Some(index) = below.pop_last() {
            found.extend(self.sources.prints[index].bases.iter().filter(is_unresolved).cloned());
            below.extend(self.plan.steps[index].needs());
        }
        found.into_iter().collect()
    }

    /// The record that a channel of the plan has now.
    pub fn records(&self) -> impl Iterator<Item = Option<&Stored>> {
        self.answers.states.iter().map(|state| state.record.as_ref())
    }

    pub fn moved_by_others(&self) -> impl Iterator<Item = &Step> {
        self.answers.moved_by_others(self.plan).map(|(_, step)| step)
    }

    /// Whether all that is to be uploaded may be, asked of all repositories at once.
    pub async fn refused_uploads(&self) -> Vec<Problem> {
        let asked = self.to_build().map(async |step| {
            let repository = self.places.of(step.variant).repository(&step.image)?;
            repository.may_push().await.map_err(Problem::from)
        });
        join_all(asked).await.into_iter().filter_map(Result::err).collect()
    }
}
