//! The fingerprints of a plan's steps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Error;

use super::{Fingerprint, Inputs, Parts, fingerprint, reads_whole, with_utilities};
use crate::context::{Contexts, Reading};
use crate::externals::{self, Stages};
use crate::plan::{Plan, Step, Work};
use crate::reference::Digest;
use crate::timing;

/// What a plan's fingerprints are taken from, besides the plan and the contexts.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Of the images of elsewhere.
    pub bases: BTreeMap<String, Digest>,
    /// What tells the utilities of debug variants from others, by platform.
    pub utilities: BTreeMap<String, Vec<u8>>,
    /// The images of elsewhere that have, or may have, instructions for what is FROM them (`ONBUILD`).
    pub triggers: BTreeSet<String>,
    /// Where it is kept which builds read more than their Dockerfiles tell.
    pub cache: Option<PathBuf>,
}

/// What one step is built from.
#[derive(Clone, Debug)]
pub struct Print {
    pub fingerprint: Fingerprint,
    pub parts: Parts,
    /// Whether all of its context was taken, whatever the Dockerfile tells.
    pub whole: bool,
    /// Of all files in it.
    pub bytes: u64,
    /// The images of elsewhere that may go into it.
    pub bases: Vec<String>,
}

/// Reads what the plan's builds read, so that [`of_plan`] finds it at hand. What cannot be read, that one tells of. Blocks.
pub fn read_ahead(plan: &Plan, contexts: &Contexts) {
    for step in &plan.steps {
        if let Work::Build { build, .. } = &step.work {
            let _hashing = timing::part_of(&step.label(), "hash").entered();
            let _ = contexts.read(build);
        }
    }
}

/// One for each step, in the plan's order. Blocks.
///
/// # Errors
/// When a context cannot be read.
pub fn of_plan(plan: &Plan, contexts: &Contexts, surroundings: &Surroundings) -> Result<Vec<Print>, Error> {
    let mut found: Vec<Print> = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let next = of_step(plan, step, &found, contexts, surroundings)?;
        found.push(next);
    }
    Ok(found)
}

fn of_step(plan: &Plan, step: &Step, before: &[Print], contexts: &Contexts, surroundings: &Surroundings) -> Result<Print, Error> {
    match &step.work {
        Work::Build { build, siblings, external } => {
            let is_instructed = plan.is_instructed(step, &surroundings.triggers)?;
            let names = if is_instructed {
                externals::of(build, Stages::UpToTarget, |_| false)?
            } else {
                external.iter().cloned().collect()
            };
            let bases: BTreeMap<_, _> = names
                .into_iter()
                .filter_map(|name| Some((name.clone(), surroundings.bases.get(&name)?.clone())))
                .collect();
            let siblings: Vec<_> = siblings
                .iter()
                .map(|sibling| (&plan.steps[sibling.step].image, before[sibling.step].fingerprint))
                .collect();
            let of = |reading: &Reading| {
                fingerprint(&Inputs {
                    build,
                    reading,
                    externals: &bases,
                    siblings: &siblings,
                })
            };
            let mut reading = contexts.read(build)?;
            let (mut fingerprint, mut parts) = of(&reading);
            let is_known = |cache| reads_whole(cache, &fingerprint);
            let whole = is_instructed || surroundings.cache.as_deref().is_some_and(is_known);
            if whole {
                reading = contexts.read_whole(build)?;
                (fingerprint, parts) = of(&reading);
            }
            Ok(Print {
                fingerprint,
                parts,
                whole,
                bytes: reading.bytes(),
                bases: bases.into_keys().collect(),
            })
        }
        Work::AddUtilities {
            normal,
            platforms,
            external,
        } => {
            let utilities = platforms.iter().filter_map(|platform| surroundings.utilities.get(platform));
            let utilities = utilities.map(Vec::as_slice).collect::<Vec<_>>().concat();
            let (fingerprint, parts) = with_utilities(&before[*normal].fingerprint, &utilities);
            Ok(Print {
                fingerprint,
                parts,
                whole: before[*normal].whole,
                bytes: 0,
                bases: external.clone(),
            })
        }
    }
}
