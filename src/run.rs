//! Builds the images of a plan, in the order of what stands on what.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Error;
use futures_util::future::try_join_all;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;
use tracing::Instrument;

use crate::context::Contexts;
use crate::docker::{Addition, Built, Busybox, Engine, Names, PushOf, Recipe, Sibling, only_copies};
use crate::docker_config::{self, Secret};
use crate::event::{Event, Events};
use crate::execute::{self, Limits, Outcome, Task};
use crate::externals;
use crate::manifest::Build;
use crate::plan::{Plan, Step, Work};
use crate::problem::Problem;
use crate::publish::{IN_PROGRESS, tag};
use crate::reference::{Digest, ImageName, Reference};
use crate::summary::{Fate, Row};
use crate::timing;

/// What an interrupted run takes at most to take its names away.
const TIDYING: Duration = Duration::from_secs(1);

/// What builds images, and what a run asks of every build.
pub struct Workshop {
    pub engine: Engine,
    /// What is read of folders in this run.
    pub contexts: Arc<Contexts>,
    pub pull: bool,
    pub no_cache: bool,
    /// Build args with the addresses of proxies.
    pub proxies: Vec<(String, Secret)>,
    /// By platform, as far as debug variants are planned for it.
    pub utilities: BTreeMap<String, Busybox>,
}

impl Workshop {
    /// Takes away what only the run needed.
    pub async fn tidy(&self, limits: &Limits) {
        if limits.cancel.is_cancelled() {
            // whoever interrupts does not wait for a daemon that is slow
            let _ = timeout(TIDYING, self.engine.tidy_up()).await;
        } else {
            self.engine.tidy_up().await;
        }
    }
}

/// An image that others may stand on.
#[derive(Clone, Debug)]
pub enum Have {
    Built(Built),
    /// In a registry, as `REPOSITORY@DIGEST`.
    Published {
        image: String,
        /// The digest of its configuration, where that is known.
        id: Option<Digest>,
        /// It was pushed from this machine.
        is_of_here: bool,
    },
    /// Nobody needs it.
    Nothing,
}

/// The builds of a run, as they go.
pub struct Builds<'p, 'r> {
    plan: &'p Plan,
    /// There has to be one where anything is built.
    workshop: Option<&'r Workshop>,
    /// What stands in the place of the names of images of elsewhere.
    digests: BTreeMap<String, Digest>,
    /// They hide what builds must not tell.
    events: Events,
    /// What each step has taken so far.
    elapsed: RefCell<Vec<Duration>>,
    /// By image: its variants take turns, so that what they share is built once and is the same in both.
    turns: RefCell<BTreeMap<&'p ImageName, Arc<Mutex<()>>>>,
    /// The steps that others stand on.
    needed: BTreeSet<usize>,
    /// By step, as [`Recipe::is_below_copies`].
    below_copies: Vec<bool>,
    /// The steps that were said not to be built.
    blocked: RefCell<BTreeSet<usize>>,
    /// By step: what was published, as far as what builds has it.
    recalled: RefCell<BTreeMap<usize, Arc<OnceCell<Option<Sibling>>>>>,
}

impl<'p, 'r> Builds<'p, 'r> {
    #[must_use]
    pub fn new(plan: &'p Plan, workshop: Option<&'r Workshop>, digests: BTreeMap<String, Digest>, events: &Events) -> Self {
        let hidden = workshop.map(|workshop| docker_config::logins(&workshop.proxies));
        Self {
            plan,
            workshop,
            digests,
            events: events.clone().hiding(hidden.unwrap_or_default()),
            elapsed: RefCell::new(vec![Duration::ZERO; plan.steps.len()]),
            turns: RefCell::default(),
            needed: plan.steps.iter().flat_map(Step::needs).collect(),
            below_copies: below_copies(plan),
            blocked: RefCell::default(),
            recalled: RefCell::default(),
        }
    }

    #[must_use]
    pub fn workshop(&self) -> &'r Workshop {
        self.workshop.expect("where something is built, there is a workshop")
    }

    fn cleared(&self, error: Error) -> Error {
        let Some(text) = self.events.cleared(&format!("{error:#}")) else {
            return error;
        };
        match error.downcast_ref::<PushOf>() {
            Some(of) => {
                let said = text.strip_prefix(&format!("{of}: ")).unwrap_or(&text);
                Error::from(Problem::reworded(&error, said.to_owned())).context(of.clone())
            }
            None => Problem::reworded(&error, text).into(),
        }
    }

    /// Builds a step; `given` is what its needs are. A builder that pushes by itself pushes it as `push_as`.
    ///
    /// # Errors
    /// When the build fails, or what it stands on cannot be had.
    pub async fn build(&self, index: usize, given: &[Have], push_as: &[Reference]) -> Result<Have, Error> {
        let step = &self.plan.steps[index];
        let label = step.label();
        self.events.send(Event::Building { step: label.clone() });
        let building = Box::pin(self.carry_out(index, &label, given, push_as)).instrument(timing::part_of(&label, "build"));
        let result = self.timed(index, building).await;
        // the last word on a failure is not an event
        let result = result.map_err(|error| self.cleared(error));
        self.events.send(match &result {
            Ok(built) => Event::Built {
                step: label,
                id: built.id.clone(),
                cached: built.cached,
                elapsed: self.elapsed(index),
            },
            Err(error) if error.is::<PushOf>() => Event::PushFailed {
                step: label,
                message: format!("{error:#}"),
            },
            Err(error) => Event::BuildFailed {
                step: label,
                message: format!("{error:#}"),
            },
        });
        if result.is_err() {
            self.tell_blocked(index);
        }
        let is_needed = self.needed.contains(&index);
        result.map(|built| Have::Built(if is_needed { built } else { built.on_its_own() }))
    }

    /// What stands on a failed step is told at once, not when its turn comes.
    fn tell_blocked(&self, failed: usize) {
        let mut blocked = self.blocked.borrow_mut();
        let mut lost = BTreeSet::from([failed]);
        for (index, step) in self.plan.steps.iter().enumerate() {
            if step.needs().iter().any(|need| lost.contains(need)) && lost.insert(index) && blocked.insert(index) {
                self.events.send(Event::Blocked {
                    step: step.label(),
                    by: self.plan.steps[failed].label(),
                });
            }
        }
    }

    async fn carry_out(&self, index: usize, label: &str, given: &[Have], push_as: &[Reference]) -> Result<Built, Error> {
        let (step, workshop) = (&self.plan.steps[index], self.workshop());
        let names = Names {
            reference: &step.reference,
            push_as,
        };
        let needs = step.needs();
        let siblings: Vec<Sibling> = try_join_all(needs.iter().zip(given).map(|(need, have)| self.sibling(*need, have))).await?;
        let sibling = |step: usize| &siblings[needs.iter().position(|need| *need == step).expect("a step needs its siblings")];
        match &step.work {
            Work::Build {
                build,
                siblings: places,
                external,
            } => {
                let turn = Arc::clone(self.turns.borrow_mut().entry(&step.image).or_default());
                let _turn = turn.lock().await;
                let places = places.iter().map(|place| (place.span.clone(), sibling(place.step).name.clone()));
                let replacements: Vec<_> = places.chain(externals::replacements(build, &self.digests)?).collect();
                let (build, dockerfile) = (self.build_of(build), build.dockerfile.parsed.replace(&replacements));
                let recipe = self.recipe(index, &build, &dockerfile, names, &siblings, external);
                workshop.engine.build(recipe, label, &self.events).await
            }
            Work::AddUtilities { normal, platforms, .. } => {
                let addition = Addition {
                    image: &step.image,
                    normal: sibling(*normal),
                    utilities: &workshop.utilities,
                    platforms,
                    epoch: self.plan.steps[*normal].epoch(),
                    names,
                    is_below_copies: self.below_copies[index],
                };
                workshop.engine.add_utilities(addition, label, &self.events).await
            }
        }
    }

    async fn sibling(&self, index: usize, have: &Have) -> Result<Sibling, Error> {
        let step = &self.plan.steps[index];
        match have {
            Have::Built(built) => self.workshop().engine.sibling(&step.image, &step.reference, built).await,
            Have::Published { image, id, is_of_here } => {
                if let Some(id) = id.as_ref().filter(|_| *is_of_here)
                    && let Some(sibling) = self.recalled(index, image, id).await
                {
                    return Ok(sibling);
                }
                Ok(self.workshop().engine.published(&step.image, image, id.as_ref()).await)
            }
            Have::Nothing => unreachable!("what a step needs is there before it"),
        }
    }

    /// What is published as `image`, where what builds has it as it made it: then it need not come back. Looked for once.
    async fn recalled(&self, index: usize, image: &str, id: &Digest) -> Option<Sibling> {
        let once = Arc::clone(self.recalled.borrow_mut().entry(index).or_default());
        let recalled = once.get_or_init(async || {
            let step = &self.plan.steps[index];
            let Work::Build { build, external, .. } = &step.work else {
                return None;
            };
            if !step.needs().is_empty() {
                return None;
            }
            let replacements = externals::replacements(build, &self.digests).ok()?;
            let names = Names {
                reference: &step.reference,
                push_as: &[],
            };
            let (build, dockerfile) = (self.build_of(build), build.dockerfile.parsed.replace(&replacements));
            let recipe = self.recipe(index, &build, &dockerfile, names, &[], external);
            self.workshop().engine.recall(recipe, image, id, &step.label()).await
        });
        recalled.await.clone()
    }

    /// With digests in the place of the names of images.
    fn build_of(&self, build: &Build) -> Build {
        externals::with_digests(build, &self.digests)
    }

    fn recipe<'a>(
        &'a self,
        index: usize,
        build: &'a Build,
        dockerfile: &'a str,
        names: Names<'a>,
        siblings: &'a [Sibling],
        external: &'a [String],
    ) -> Recipe<'a> {
        let (step, workshop) = (&self.plan.steps[index], self.workshop());
        Recipe {
            image: &step.image,
            build,
            names,
            dockerfile,
            siblings,
            external,
            contexts: &workshop.contexts,
            proxies: &workshop.proxies,
            gets_utilities: self.plan.gives_utilities_to(step),
            is_below_copies: self.below_copies[index],
            pull: workshop.pull,
            no_cache: workshop.no_cache,
        }
    }

    /// Tells what builds that nothing more is asked of it.
    pub fn tell_all_built(&self) {
        if let Some(workshop) = self.workshop {
            workshop.engine.has_built_all();
        }
    }

    /// Counts the time of `work` as the step's.
    pub async fn timed<T>(&self, step: usize, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = work.await;
        self.elapsed.borrow_mut()[step] += start.elapsed();
        result
    }

    #[must_use]
    pub fn elapsed(&self, step: usize) -> Duration {
        self.elapsed.borrow()[step]
    }
}

/// By step: whether what stands on it is made of copied files alone, and needs no name of it in a registry.
fn below_copies(plan: &Plan) -> Vec<bool> {
    let mut below_copies = vec![true; plan.steps.len()];
    // what a step needs comes before it
    for (index, step) in plan.steps.iter().enumerate().rev() {
        let copies = match &step.work {
            Work::Build { build, .. } => only_copies(build) && build.dockerfile.parsed.knows_contexts(),
            Work::AddUtilities { .. } => true,
        };
        for need in step.needs() {
            below_copies[need] &= copies && below_copies[index];
        }
    }
    below_copies
}

/// Builds every step of the plan, and publishes nothing. What others stand on goes to the registry where builders can have
/// it only from there.
pub async fn build<'p>(plan: &'p Plan, workshop: &Workshop, limits: &Limits, events: &Events) -> Vec<Row<'p>> {
    let builds = Builds::new(plan, Some(workshop), BTreeMap::new(), events);
    let tasks = plan.steps.iter().map(|step| Task {
        needs: step.needs(),
        effort: 1,
    });
    let tasks: Vec<_> = tasks.collect();
    let is_needed = |index: usize| tasks.iter().any(|task| task.needs.contains(&index));
    let outcomes = execute::run(&tasks, limits, async |index, given: Vec<Have>| {
        let staged = if workshop.engine.keeps_images() || !is_needed(index) {
            Vec::new()
        } else {
            vec![plan.steps[index].reference.repository().tagged(tag(IN_PROGRESS))]
        };
        builds.build(index, &given, &staged).await
    })
    .await;
    workshop.tidy(limits).await;
    let rows = outcomes.into_iter().enumerate().map(|(index, outcome)| Row {
        step: &plan.steps[index],
        fate: match outcome {
            Outcome::Done(Have::Built(built)) => Fate::Built { id: built.id },
            Outcome::Done(_) | Outcome::Stopped => Fate::Stopped,
            Outcome::Failed(problem) => Fate::of_failure(problem),
            Outcome::Blocked(by) => Fate::Blocked {
                by: plan.steps[by].label(),
            },
        },
        elapsed: builds.elapsed(index),
        published: false,
    });
    rows.collect()
}
