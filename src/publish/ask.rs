//! What of a plan the registry has already.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;

use super::channel::{Channel, State, configuration, staged_tag, tag};
use super::flip::Latest;
use crate::fingerprint::Fingerprint;
use crate::plan::{Plan, Step};
use crate::problem::Problem;
use crate::record::Entry;
use crate::reference::{Digest, ImageName, Repository, Tag};
use crate::registry::{Manifest, Remote};

/// What the registry says before anything is done.
#[derive(Debug)]
pub struct Answers {
    /// Of the plan's channels.
    pub states: Vec<State>,
    /// Of the plan's steps that are published.
    latest: Vec<Option<Latest>>,
}

/// One request for each image that is published, and what `state_of` a channel takes, all at once.
///
/// # Errors
/// When the registry does not answer, or a channel has a record that this tool may not replace.
pub async fn ask(
    plan: &Plan,
    channels: &[Channel],
    state_of: impl AsyncFn(&Channel) -> Result<State, Problem>,
) -> Result<Answers, Problem> {
    let states = try_join_all(channels.iter().map(|channel| state_of(channel)));
    let latest = try_join_all(plan.steps.iter().map(|step| latest(step, channels)));
    let (states, latest) = tokio::try_join!(states, latest)?;
    let mut answers = Answers { states, latest };
    // it may have been answered before an interrupted act was finished, or within another run's flips
    let differing: Vec<usize> = answers.moved_by_others(plan).map(|(index, _)| index).collect();
    let again = differing.iter().map(|index| self::latest(&plan.steps[*index], channels));
    for (index, latest) in differing.iter().zip(try_join_all(again).await?) {
        answers.latest[*index] = latest;
    }
    Ok(answers)
}

async fn latest(step: &Step, channels: &[Channel]) -> Result<Option<Latest>, Problem> {
    match channel_of(step, channels) {
        Some(channel) if step.publish => Latest::of(&channel.repository(&step.image)?).await.map(Some),
        _ => Ok(None),
    }
}

/// How the registry stands to an image that is planned.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is in the channel, and recorded.
    UpToDate(Digest),
    /// The channel has it, from an earlier run, but not as `latest`, or not in its record.
    Staged(Manifest),
    /// Another channel has it.
    Elsewhere {
        offer: Offer,
        manifest: Manifest,
        /// Its blobs that the channel has from there already.
        mounted: BTreeSet<Digest>,
    },
    Missing,
}

/// A place where an image may be that is built already.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The channel whose it is, for a person.
    pub channel: String,
    pub repository: Remote,
    pub known: Known,
}

/// What is known of an image that is offered. It may be gone, and so may the right to see it.
#[derive(Clone, Debug)]
pub enum Known {
    /// That it would be staged there for its fingerprint.
    Fingerprint,
    Digest(Digest),
    Manifest(Manifest),
}

impl Offer {
    /// Where its channel has its records.
    #[must_use]
    pub fn home(&self, image: &ImageName) -> Option<Repository> {
        let repository = self.repository.repository().to_string();
        repository.strip_suffix(&format!("-{image}"))?.parse().ok()
    }

    async fn found(&self, staged: &Tag) -> Result<Option<Manifest>, Problem> {
        let digest = match &self.known {
            Known::Fingerprint => return Ok(self.repository.get(staged).await?),
            Known::Digest(digest) => digest,
            Known::Manifest(manifest) => manifest.digest(),
        };
        Ok(self.repository.get(digest).await.unwrap_or_default())
    }

    /// A blob that goes over tells as well that the image is there, and has to go over anyway.
    async fn mounted(&self, to: &Remote) -> Option<(Manifest, Digest)> {
        let Known::Manifest(manifest) = self.known.clone() else {
            return None;
        };
        let configuration = configuration(&manifest)?;
        let is_mounted = to.mount(&configuration, self.repository.repository()).await;
        is_mounted.unwrap_or_default().then_some((manifest, configuration))
    }
}

impl Answers {
    /// The digest with which the channel has this very image, as far as the first answers tell.
    #[must_use]
    pub fn up_to_date(&self, plan: &Plan, index: usize, fingerprint: &Fingerprint) -> Option<&Digest> {
        let step = &plan.steps[index];
        let latest = self.latest(index)?.digest.as_ref()?;
        let entry = self.entry(plan, step)?;
        (entry.fingerprint.as_ref() == Some(fingerprint) && entry.digest == *latest).then_some(latest)
    }

    /// Of a step that is published.
    #[must_use]
    pub fn latest(&self, index: usize) -> Option<&Latest> {
        self.latest[index].as_ref()
    }

    fn state(&self, plan: &Plan, step: &Step) -> Option<&State> {
        let position = plan.channels.iter().position(|channel| channel.variant() == step.variant)?;
        self.states.get(position)
    }

    /// Whether nothing was ever published to the step's channel.
    #[must_use]
    pub fn is_new(&self, plan: &Plan, step: &Step) -> bool {
        self.state(plan, step).is_none_or(|state| state.record.is_none())
    }

    /// What the channel's record says of a step's image.
    #[must_use]
    pub fn entry(&self, plan: &Plan, step: &Step) -> Option<&Entry> {
        self.state(plan, step)?.record.as_ref()?.record.images.get(&step.image)
    }

    /// The images whose `latest` is not what the channel's record says.
    pub fn moved_by_others<'p>(&'p self, plan: &'p Plan) -> impl Iterator<Item = (usize, &'p Step)> {
        plan.steps.iter().enumerate().filter_map(|(index, step)| {
            let recorded = &self.entry(plan, step)?.digest;
            (self.latest(index)?.digest.as_ref() != Some(recorded)).then_some((index, step))
        })
    }
}

/// Looks for an image that is built already: in the channel's own repository, and where else it is offered, one place after
/// another. Where the channel `is_new`, it is asked last: what it has is of a run that failed.
///
/// # Errors
/// When the registry does not answer.
pub async fn look_up(own: &Remote, offers: &[Offer], is_new: bool, fingerprint: &Fingerprint) -> Result<Standing, Problem> {
    let staged = tag(&staged_tag(fingerprint));
    let others = async || {
        for offer in offers {
            let (found, mounted) = match offer.mounted(own).await {
                Some((manifest, blob)) => (Some(manifest), BTreeSet::from([blob])),
                None => (offer.found(&staged).await?, BTreeSet::new()),
            };
            if let Some(manifest) = found {
                let offer = offer.clone();
                return Ok(Some(Standing::Elsewhere { offer, manifest, mounted }));
            }
        }
        Ok::<_, Problem>(None)
    };
    let own = async || Ok::<_, Problem>(own.get(&staged).await?.map(Standing::Staged));
    let found = if is_new {
        match others().await? {
            None => own().await?,
            found => found,
        }
    } else {
        let (own, others) = tokio::try_join!(own(), others())?;
        own.or(others)
    };
    Ok(found.unwrap_or(Standing::Missing))
}

fn channel_of<'c>(step: &Step, channels: &'c [Channel]) -> Option<&'c Channel> {
    channels.iter().find(|channel| channel.name.variant() == step.variant)
}
