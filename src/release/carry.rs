//! Carries a release out: obtains what is missing, stages it while others still build, then moves the channels.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Error;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tracing::{Instrument, debug};

use super::{Release, pushed};
use crate::context;
use crate::docker::{Built, Pushed};
use crate::dockerfile::Reads;
use crate::event::{Event, Events, Settled};
use crate::execute::{self, Limits, OnFailure, Outcome, Task};
use crate::fingerprint::remember_whole;
use crate::git::Revision;
use crate::layers::Layers;
use crate::plan::Work;
use crate::problem::Problem;
use crate::publish::{
    Change, IN_PROGRESS, Offer, Standing, Stored, commit, configuration, copy_image, keep, keep_found, manifest, staged_tag, tag,
};
use crate::record::{Act, Entry, Writer};
use crate::reference::{Digest, Reference, Tag};
use crate::registry::{Manifest, Session};
use crate::run::{Builds, Have, Workshop};
use crate::summary::{Fate, Row};
use crate::timing;

/// What a build takes whatever it reads, in bytes that it could read in that time.
const BUILD: u64 = 5 << 20;
/// A copy is a matter of answers, not of cores.
const COPIES_AT_ONCE: usize = 32;

/// Who publishes what.
#[derive(Clone, Debug)]
pub struct Author {
    pub writer: Writer,
    /// What is checked out, where the images come from a repository.
    pub revision: Option<Revision>,
    /// Whether a record is written though no image moves.
    pub record_anyway: bool,
}

/// What came of a release.
pub struct Carried<'p> {
    pub rows: Vec<Row<'p>>,
    /// Why the channels were not moved, where every image was ready.
    pub problem: Option<Problem>,
    /// The records that the channels have now.
    pub records: Vec<Stored>,
}

/// Without a `workshop` nothing is built; [`Release::to_build`] tells whether there has to be one.
pub async fn carry_out<'p>(
    release: &Release<'p>,
    workshop: Option<&Workshop>,
    author: &Author,
    limits: &Limits,
    events: &Events,
) -> Carried<'p> {
    // what is stopped here is not what a person interrupts
    let own = Limits {
        cancel: limits.cancel.child_token(),
        ..limits.clone()
    };
    let carrying = Carrying {
        release,
        limits: &own,
        events,
        layers: Layers::default(),
        permits: Semaphore::new(limits.jobs),
        copies: Semaphore::new(COPIES_AT_ONCE),
        manifests: RefCell::default(),
        builds: Builds::new(release.plan, workshop, release.sources.digests(), events),
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    let (obtained, staged, sessions) = tokio::join!(carrying.obtain(sender), carrying.stage_all(receiver), carrying.expect_records());
    if let Some(workshop) = workshop {
        workshop.tidy(limits).await;
    }
    carrying.remember(&staged);
    let digests = carrying.digests(&obtained, &staged);
    let committed = if let Some(digests) = digests {
        Some(carrying.commit(&digests, sessions, author).await)
    } else {
        carrying.leave(sessions).await;
        None
    };
    let published = matches!(committed, Some(Ok(_)));
    let (records, problem) = match committed {
        Some(Ok(records)) => (records, None),
        Some(Err(problem)) => (Vec::new(), Some(problem)),
        None => (Vec::new(), None),
    };
    Carried {
        rows: carrying.rows(obtained, staged, published),
        problem,
        records,
    }
}

struct Carrying<'p, 'r> {
    release: &'r Release<'p>,
    limits: &'r Limits,
    events: &'r Events,
    layers: Layers,
    permits: Semaphore,
    copies: Semaphore,
    /// By step: what this run has put into the registry.
    manifests: RefCell<BTreeMap<usize, Manifest>>,
    builds: Builds<'p, 'r>,
}

impl<'p> Carrying<'p, '_> {
    /// Builds and copies what is missing. What is built goes to `built` for staging, at once.
    async fn obtain(&self, built: mpsc::UnboundedSender<(usize, Built)>) -> Vec<Outcome<Have>> {
        let missing = |index: usize| self.release.is_built(index);
        let steps = self.release.plan.steps.iter().zip(&self.release.sources.prints).enumerate();
        let tasks = steps.map(|(index, (step, print))| {
            let needs = if missing(index) { step.needs() } else { Vec::new() };
            let effort = if missing(index) { BUILD + print.bytes } else { 0 };
            Task { needs, effort }
        });
        execute::run(&tasks.collect::<Vec<_>>(), self.limits, async |index, given| {
            let have = self.obtain_one(index, &given).await?;
            if let Have::Built(image) = &have {
                // nobody listens any more when the run was stopped
                let _ = built.send((index, image.clone()));
            }
            Ok(have)
        })
        .await
    }

    async fn obtain_one(&self, index: usize, given: &[Have]) -> Result<Have, Error> {
        let (step, release) = (&self.release.plan.steps[index], self.release);
        let is_stood_on = release.to_build().any(|other| other.needs().contains(&index));
        let published = |digest: &Digest, manifest: Option<&Manifest>| Have::Published {
            image: format!("{}@{digest}", step.reference.repository()),
            id: manifest.and_then(configuration),
            is_of_here: is_stood_on && release.is_of_here(index, digest),
        };
        let settled = |how| {
            self.events.send(Event::Settled { step: step.label(), how });
        };
        match &release.standing[index] {
            _ if !release.needed[index] => {
                settled(Settled::NotNeeded);
                Ok(Have::Nothing)
            }
            Standing::UpToDate(digest) => {
                settled(Settled::UpToDate);
                // what is known by its configuration need not come back
                let is_known = || release.is_of_here(index, digest) || self.builds.workshop().engine.knows_by_configuration();
                let manifest = if is_stood_on && is_known() {
                    release.places.of(step.variant).repository(&step.image)?.get(digest).await?
                } else {
                    None
                };
                Ok(published(digest, manifest.as_ref()))
            }
            Standing::Staged(manifest) => {
                keep_found(&release.places.of(step.variant).repository(&step.image)?, manifest).await?;
                settled(Settled::BuiltBefore);
                self.manifests.borrow_mut().insert(index, manifest.clone());
                Ok(published(manifest.digest(), Some(manifest)))
            }
            Standing::Elsewhere { offer, manifest, mounted } => {
                let copying = self
                    .copy(index, offer, manifest, mounted)
                    .instrument(timing::part_of(&step.label(), "copy"));
                self.builds.timed(index, copying).await?;
                settled(Settled::Copied {
                    from: offer.channel.clone(),
                });
                Ok(published(manifest.digest(), Some(manifest)))
            }
            Standing::Missing => {
                let have = self.builds.build(index, given, &[self.tagged(index, &tag(IN_PROGRESS))?]).await?;
                if let Have::Built(built) = &have {
                    self.refuse_what_read_more(index, built)?;
                }
                Ok(have)
            }
        }
    }

    /// An image must not stand under a fingerprint that left out what it was built from.
    fn refuse_what_read_more(&self, index: usize, built: &Built) -> Result<(), Error> {
        let (step, sources) = (&self.release.plan.steps[index], &self.release.sources);
        let Work::Build { build, .. } = &step.work else { return Ok(()) };
        let print = &sources.prints[index];
        if print.whole || built.reads != Reads::Whole || context::reads(build)? == Reads::Whole {
            return Ok(());
        }
        if let Some(cache) = &sources.cache {
            remember_whole(cache, &print.fingerprint)?;
        }
        let problem = Problem::failed("an image that it is FROM reads more of the context (ONBUILD) than its Dockerfile tells");
        Err(problem.hint("this is known from now on: run again").into())
    }

    async fn copy(&self, index: usize, offer: &Offer, manifest: &Manifest, mounted: &BTreeSet<Digest>) -> Result<(), Problem> {
        let (step, release) = (&self.release.plan.steps[index], self.release);
        let target = release.places.of(step.variant).repository(&step.image)?;
        let _copying = self.copies.acquire().await;
        self.events.send(Event::Copying {
            step: step.label(),
            from: offer.repository.repository().to_string(),
        });
        let fingerprint = &release.sources.prints[index].fingerprint;
        // where it comes from, it is found again
        let copied = copy_image(&offer.repository, &target, manifest, mounted.clone()).await;
        if let (Err(_), Some(cache)) = (&copied, &release.sources.cache) {
            pushed::forget(cache, fingerprint);
        }
        copied.map_err(|error| error.hint("run again: it is looked for elsewhere then, or built"))?;
        self.manifests.borrow_mut().insert(index, manifest.clone());
        Ok(())
    }

    /// Brings what is built to the registry, while others still build.
    async fn stage_all(&self, mut built: UnboundedReceiver<(usize, Built)>) -> BTreeMap<usize, Outcome<Pushed>> {
        let mut outcomes = BTreeMap::new();
        let mut staging = FuturesUnordered::new();
        let mut all_built = false;
        loop {
            tokio::select! {
                Some((index, outcome)) = staging.next(), if !staging.is_empty() => {
                    if matches!(outcome, Outcome::Failed(_)) && self.limits.on_failure == OnFailure::Stop {
                        self.limits.cancel.cancel();
                    }
                    outcomes.insert(index, outcome);
                }
                received = built.recv(), if !all_built => if let Some((index, image)) = received {
                    staging.push(async move { (index, self.stage(index, &image).await) });
                } else {
                    all_built = true;
                    self.builds.tell_all_built();
                },
                else => return outcomes,
            }
        }
    }

    async fn stage(&self, index: usize, image: &Built) -> Outcome<Pushed> {
        let step = &self.release.plan.steps[index];
        let (label, host) = (step.label(), step.reference.host());
        let staging = async {
            let stage_one = self.builds.timed(index, self.stage_one(index, image));
            // the more images it has at once, the fewer exports
            if self.builds.workshop().engine.stages(image, host, &label).await {
                return stage_one.await;
            }
            let stage_one = async {
                let _permit = self.permits.acquire().await;
                stage_one.await
            };
            self.layers.send(&image.layers, stage_one).await
        };
        let result = tokio::select! {
            biased;
            () = self.limits.cancel.cancelled() => return Outcome::Stopped,
            result = staging => result,
        };
        self.events.send(match &result {
            Ok(pushed) => Event::Pushed {
                step: label,
                digest: pushed.digest.clone(),
                elapsed: self.builds.elapsed(index),
            },
            Err(error) => Event::PushFailed {
                step: label,
                message: format!("{error:#}"),
            },
        });
        result.map_or_else(Outcome::Failed, Outcome::Done)
    }

    fn tagged(&self, index: usize, tag: &Tag) -> Result<Reference, Problem> {
        let (step, release) = (&self.release.plan.steps[index], self.release);
        let repository = release.places.of(step.variant).repository(&step.image)?;
        Ok(repository.repository().tagged(tag.clone()))
    }

    async fn stage_one(&self, index: usize, image: &Built) -> Result<Pushed, Error> {
        let (step, release) = (&self.release.plan.steps[index], self.release);
        let repository = release.places.of(step.variant).repository(&step.image)?;
        let staged = tag(&staged_tag(&release.sources.prints[index].fingerprint));
        let reference = self.tagged(index, &staged)?;
        self.events.send(Event::Pushing {
            step: step.label(),
            reference: reference.to_string(),
        });
        let engine = &self.builds.workshop().engine;
        let label = step.label();
        let pushing = engine.push_as(image, &reference, &label, self.events);
        let pushed = pushing.instrument(timing::part_of(&label, "push")).await?;
        let by_daemon = image.pushed.is_none() && pushed.manifest.is_none();
        // the daemon has given it the tag
        let tags = if by_daemon { &[][..] } else { &[staged] };
        let tagging = async {
            let found = match &pushed.manifest {
                Some(manifest) => manifest.clone(),
                None => manifest(&repository, &pushed.digest).await?,
            };
            if pushed.manifest.is_none() {
                engine.has_pushed(image, repository.repository(), &found);
            }
            keep(&repository, &found, tags).await?;
            Ok::<_, Problem>(found)
        };
        let manifest = tagging.instrument(timing::part_of(&label, "tag")).await?;
        self.manifests.borrow_mut().insert(index, manifest);
        Ok(pushed)
    }

    /// Keeps where this run has put what it built.
    fn remember(&self, staged: &BTreeMap<usize, Outcome<Pushed>>) {
        let (Some(cache), Release { plan, places, sources, .. }) = (&self.release.sources.cache, self.release) else {
            return;
        };
        let manifests = self.manifests.borrow();
        let images = staged.iter().filter_map(|(index, outcome)| {
            outcome.done()?;
            let step = &plan.steps[*index];
            let channel = places.of(step.variant);
            let repository = channel.repository(&step.image).ok()?;
            let image = pushed::Image::new(channel.name.to_string(), repository.repository(), manifests.get(index)?)?;
            Some((&sources.prints[*index].fingerprint, image))
        });
        let images: Vec<_> = images.collect();
        if !images.is_empty()
            && let Err(error) = pushed::keep(cache, images)
        {
            debug!("{}: {error}", cache.display());
        }
    }

    /// The digest of every image that is to be in the channels; none where one could not be had.
    fn digests(&self, obtained: &[Outcome<Have>], staged: &BTreeMap<usize, Outcome<Pushed>>) -> Option<BTreeMap<usize, Digest>> {
        let digest = |index: usize| match &self.release.standing[index] {
            Standing::UpToDate(digest) => Some(digest.clone()),
            Standing::Staged(manifest) => Some(manifest.digest().clone()),
            Standing::Elsewhere { manifest, .. } => obtained[index].done().map(|_| manifest.digest().clone()),
            Standing::Missing => staged.get(&index)?.done().map(|pushed| pushed.digest.clone()),
        };
        if obtained.iter().any(|outcome| outcome.done().is_none()) {
            return None;
        }
        let published = (0..obtained.len()).filter(|index| self.release.plan.steps[*index].publish);
        published.map(|index| Some((index, digest(index)?))).collect()
    }

    /// By the plan's channels: the uploads of the records that are to come, begun while the images are brought.
    async fn expect_records(&self) -> Vec<Option<Session>> {
        let Release { plan, places, answers, .. } = self.release;
        let channels = places.published(plan);
        let other = plan
            .steps
            .iter()
            .zip(&self.release.standing)
            .find_map(|(step, standing)| match standing {
                Standing::Elsewhere { offer, .. } => offer.home(&step.image),
                _ => None,
            });
        let expected = channels.iter().zip(&answers.states).map(async |(channel, seen)| {
            let mut coming = self.release.to_publish();
            if !coming.any(|step| step.variant == channel.name.variant()) {
                return None;
            }
            // where it cannot be done now, that is said when the record is there
            let expected = self.limits.cancel.run_until_cancelled(channel.expect(seen, other.as_ref())).await?;
            expected.inspect_err(|error| debug!("{error}")).ok()
        });
        join_all(expected).await
    }

    /// Takes back what [`Self::expect_records`] began, unless nobody may be kept waiting.
    async fn leave(&self, sessions: Vec<Option<Session>>) {
        if self.limits.cancel.is_cancelled() {
            return;
        }
        let channels = self.release.places.published(self.release.plan);
        let left = channels.iter().zip(sessions).map(async |(channel, session)| {
            if let Some(session) = session {
                channel.home().close(session).await;
            }
        });
        join_all(left).await;
    }

    async fn commit(
        &self,
        digests: &BTreeMap<usize, Digest>,
        sessions: Vec<Option<Session>>,
        author: &Author,
    ) -> Result<Vec<Stored>, Problem> {
        let release = self.release;
        let changes: Vec<Change> = release
            .places
            .published(release.plan)
            .into_iter()
            .zip(&release.answers.states)
            .zip(sessions)
            .map(|((channel, seen), session)| {
                let moved = digests.iter().filter(|(index, _)| {
                    release.plan.steps[**index].variant == channel.name.variant()
                        && !matches!(release.standing[**index], Standing::UpToDate(_))
                });
                let moved: Vec<_> = moved.collect();
                let manifests = self.manifests.borrow();
                let image = |index: usize| release.plan.steps[index].image.clone();
                let at_hand = moved
                    .iter()
                    .filter_map(|(index, _)| Some((image(**index), manifests.get(index)?.clone())));
                let images = moved
                    .iter()
                    .map(|(index, digest)| (image(**index), self.entry(**index, digest, author)));
                let latest = moved
                    .iter()
                    .filter_map(|(index, _)| Some((image(**index), release.answers.latest(**index)?.clone())));
                Change {
                    seen: seen.clone(),
                    latest: latest.collect(),
                    session,
                    act: Act::Push,
                    revision: author.revision.clone(),
                    rolled_back: None,
                    images: images.collect(),
                    at_hand: at_hand.collect(),
                    removed: BTreeSet::new(),
                    channel,
                }
            })
            .collect();
        if changes.iter().all(|change| change.images.is_empty()) && !author.record_anyway {
            return Ok(changes.into_iter().filter_map(|change| change.seen.record).collect());
        }
        commit(&changes, &author.writer, &self.limits.cancel, self.events).await
    }

    fn entry(&self, index: usize, digest: &Digest, author: &Author) -> Entry {
        Entry {
            digest: digest.clone(),
            fingerprint: Some(self.release.sources.prints[index].fingerprint),
            revision: author.revision.clone(),
            platforms: self.release.plan.platforms(&self.release.plan.steps[index]),
            unresolved: self.release.unresolved(index),
            writer: author.writer.clone(),
        }
    }

    fn rows(&self, obtained: Vec<Outcome<Have>>, mut staged: BTreeMap<usize, Outcome<Pushed>>, published: bool) -> Vec<Row<'p>> {
        let plan = self.release.plan;
        let rows = obtained.into_iter().enumerate().filter(|(index, _)| self.release.needed[*index]);
        rows.map(|(index, obtained)| Row {
            step: &plan.steps[index],
            fate: self.fate(index, obtained, staged.remove(&index)),
            elapsed: self.builds.elapsed(index),
            published: plan.steps[index].publish && (published || matches!(self.release.standing[index], Standing::UpToDate(_))),
        })
        .collect()
    }

    fn fate(&self, index: usize, obtained: Outcome<Have>, staged: Option<Outcome<Pushed>>) -> Fate {
        match (obtained, &self.release.standing[index]) {
            (Outcome::Failed(problem), Standing::Elsewhere { .. }) => Fate::PushFailed { problem },
            (Outcome::Failed(problem), _) => Fate::of_failure(problem),
            (Outcome::Blocked(by), _) => Fate::Blocked {
                by: self.release.plan.steps[by].label(),
            },
            (Outcome::Stopped, _) => Fate::Stopped,
            (Outcome::Done(_), Standing::UpToDate(digest)) => Fate::UpToDate { digest: digest.clone() },
            (Outcome::Done(_), Standing::Staged(manifest)) => Fate::Found {
                digest: manifest.digest().clone(),
            },
            (Outcome::Done(_), Standing::Elsewhere { offer, manifest, .. }) => Fate::Copied {
                digest: manifest.digest().clone(),
                from: offer.channel.clone(),
            },
            (Outcome::Done(have), Standing::Missing) => match (have, staged) {
                (Have::Built(built), Some(Outcome::Done(pushed))) => Fate::Pushed {
                    id: built.id,
                    digest: pushed.digest,
                    bytes: pushed.bytes,
                },
                (_, Some(Outcome::Failed(problem))) => Fate::PushFailed { problem },
                (Have::Built(built), _) => Fate::Built { id: built.id },
                _ => Fate::Stopped,
            },
        }
    }
}
