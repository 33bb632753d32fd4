//! Carries a plan out: builds in the order of what stands on what, then, when all are built, pushes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Error;

use crate::docker::{Addition, Built, Busybox, Daemon, Pushed, Recipe};
use crate::event::{Event, Events};
use crate::execute::{self, Limits, Outcome};
use crate::plan::{Plan, Step, Work};
use crate::publish;
use crate::summary::{Fate, Row};

/// What a run asks of every build.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    pub pull: bool,
    pub no_cache: bool,
    /// By platform, as far as debug variants are planned for it.
    pub utilities: BTreeMap<String, Busybox>,
}

pub async fn run<'p>(plan: &'p Plan, daemon: &Daemon, settings: &Settings, events: &Events) -> Vec<Row<'p>> {
    let run = Run {
        plan,
        daemon,
        settings,
        events,
        elapsed: RefCell::new(vec![Duration::ZERO; plan.steps.len()]),
    };
    let built = run.build().await;
    let pushed = if built.iter().all(|outcome| outcome.done().is_some()) {
        run.push(&built).await
    } else {
        BTreeMap::new()
    };
    daemon.forget_siblings().await;
    run.rows(built, pushed)
}

struct Run<'p, 'r> {
    plan: &'p Plan,
    daemon: &'r Daemon,
    settings: &'r Settings,
    events: &'r Events,
    /// What each step has taken so far.
    elapsed: RefCell<Vec<Duration>>,
}

impl<'p> Run<'p, '_> {
    async fn build(&self) -> Vec<Outcome<Built>> {
        let needs: Vec<_> = self.plan.steps.iter().map(Step::needs).collect();
        execute::run(&needs, &self.settings.limits, async |index, given| {
            let step = &self.plan.steps[index];
            let label = step.label();
            self.events.send(Event::Building { step: label.clone() });
            let result = self.timed(index, Box::pin(self.build_step(step, &label, &given))).await;
            self.events.send(match &result {
                Ok(built) => Event::Built {
                    step: label,
                    id: built.id.clone(),
                    elapsed: self.elapsed.borrow()[index],
                },
                Err(error) => Event::BuildFailed {
                    step: label,
                    message: format!("{error:#}"),
                },
            });
            result
        })
        .await
    }

    async fn build_step(&self, step: &Step, label: &str, given: &[Built]) -> Result<Built, Error> {
        match &step.work {
            Work::Build { build, siblings, external } => {
                let mut names = BTreeMap::new();
                for (need, built) in step.needs().into_iter().zip(given) {
                    let image = &self.plan.steps[need].image;
                    names.insert(need, self.daemon.sibling_name(image, &built.id).await?);
                }
                let replacements: Vec<_> = siblings
                    .iter()
                    .map(|sibling| (sibling.span.clone(), names[&sibling.step].clone()))
                    .collect();
                let recipe = Recipe {
                    build,
                    reference: &step.reference,
                    dockerfile: &build.dockerfile.parsed.replace(&replacements),
                    external,
                    pull: self.settings.pull,
                    no_cache: self.settings.no_cache,
                };
                self.daemon.build(recipe, label, self.events).await
            }
            Work::AddUtilities { platform, .. } => {
                let addition = Addition {
                    image: &step.image,
                    normal: &given[0].id,
                    busybox: &self.settings.utilities[platform],
                    platform,
                    reference: &step.reference,
                };
                self.daemon.add_utilities(addition, label, self.events).await
            }
        }
    }

    async fn push(&self, built: &[Outcome<Built>]) -> BTreeMap<usize, Outcome<Pushed>> {
        let published: Vec<usize> = (0..self.plan.steps.len()).filter(|index| self.plan.steps[*index].publish).collect();
        let layers = |index: &usize| built[*index].done().map_or(&[][..], |built| built.layers.as_slice());
        let layers: Vec<&[String]> = published.iter().map(layers).collect();
        let outcomes = publish::push_all(&layers, &self.settings.limits, async |position| {
            let index = published[position];
            let step = &self.plan.steps[index];
            let label = step.label();
            self.events.send(Event::Pushing {
                step: label.clone(),
                reference: step.reference.to_string(),
            });
            let result = self.timed(index, self.daemon.push(&step.reference)).await;
            self.events.send(match &result {
                Ok(pushed) => Event::Pushed {
                    step: label,
                    digest: pushed.digest.clone(),
                    elapsed: self.elapsed.borrow()[index],
                },
                Err(error) => Event::PushFailed {
                    step: label,
                    message: format!("{error:#}"),
                },
            });
            result
        })
        .await;
        published.into_iter().zip(outcomes).collect()
    }

    async fn timed<T>(&self, index: usize, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = work.await;
        self.elapsed.borrow_mut()[index] += start.elapsed();
        result
    }

    fn rows(&self, built: Vec<Outcome<Built>>, mut pushed: BTreeMap<usize, Outcome<Pushed>>) -> Vec<Row<'p>> {
        let elapsed = self.elapsed.borrow();
        let fates = built
            .into_iter()
            .enumerate()
            .map(|(index, built)| self.fate(built, pushed.remove(&index)));
        self.plan
            .steps
            .iter()
            .zip(fates)
            .zip(elapsed.iter())
            .map(|((step, fate), elapsed)| Row {
                step,
                fate,
                elapsed: *elapsed,
            })
            .collect()
    }

    fn fate(&self, built: Outcome<Built>, pushed: Option<Outcome<Pushed>>) -> Fate {
        match (built, pushed) {
            (Outcome::Failed(problem), _) => Fate::BuildFailed { problem },
            (Outcome::Blocked(by), _) => Fate::Blocked {
                by: self.plan.steps[by].label(),
            },
            (Outcome::Stopped, _) => Fate::Stopped,
            (Outcome::Done(built), Some(Outcome::Done(pushed))) => Fate::Pushed {
                id: built.id,
                digest: pushed.digest,
                bytes: pushed.bytes,
            },
            (Outcome::Done(_), Some(Outcome::Failed(problem))) => Fate::PushFailed { problem },
            (Outcome::Done(built), _) => Fate::Built { id: built.id },
        }
    }
}
