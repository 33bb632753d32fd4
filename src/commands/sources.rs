//! What the images of a plan are built from: their fingerprints, and the digests of what they stand on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Error;
use tracing::Instrument;

use super::session::{self, Docker};
use crate::context::{Contexts, HashCache};
use crate::docker::Busybox;
use crate::externals::{self, Stages};
use crate::fingerprint::{Surroundings, of_plan, read_ahead};
use crate::manifest::{Manifest, UtilitiesSource};
use crate::plan::{Plan, Work};
use crate::problem::Problem;
use crate::registry::Client;
use crate::release::Sources;
use crate::report;
use crate::resolve::{Base, Source, resolve, triggers};
use crate::timing;

pub async fn sources(
    plan: &Arc<Plan>,
    manifest: &Manifest,
    docker: &Docker,
    client: &Client,
    contexts: &Arc<Contexts>,
) -> Result<Sources, Error> {
    let ahead = (Arc::clone(plan), Arc::clone(contexts));
    let reading = tokio::task::spawn_blocking(move || read_ahead(&ahead.0, &ahead.1));
    let named = plan.externals().map(str::to_owned).collect();
    let resolving = bases(&named, manifest, docker, client).instrument(timing::part("resolve"));
    let mut found = tokio::try_join!(resolving, async { Ok(reading.await?) })?.0;
    let triggers = with_triggers(plan, &found, docker, client).await?;
    let further = further(plan, manifest, &triggers, &found)?;
    found.extend(bases(&further, manifest, docker, client).await?);
    let bases = found;
    let surroundings = Surroundings {
        bases: bases.iter().map(|(name, base)| (name.clone(), base.digest.clone())).collect(),
        utilities: utilities(plan, manifest, &bases)?,
        triggers,
        cache: session::cache(),
    };
    let (plan, contexts) = (Arc::clone(plan), Arc::clone(contexts));
    let prints = tokio::task::spawn_blocking(move || of_plan(&plan, &contexts, &surroundings)).await??;
    Ok(Sources {
        prints,
        bases,
        cache: session::cache(),
    })
}

/// What builds may read of more stages than they need by their own words, because a base has instructions for them.
fn further(
    plan: &Plan,
    manifest: &Manifest,
    triggers: &BTreeSet<String>,
    bases: &BTreeMap<String, Base>,
) -> Result<BTreeSet<String>, Problem> {
    let mut names = BTreeSet::new();
    for step in &plan.steps {
        if let Work::Build { build, .. } = &step.work
            && plan.is_instructed(step, triggers)?
        {
            names.extend(externals::of(build, Stages::UpToTarget, |name| manifest.sibling(name).is_some())?);
        }
    }
    names.retain(|name| !bases.contains_key(name));
    Ok(names)
}

async fn bases(names: &BTreeSet<String>, manifest: &Manifest, docker: &Docker, client: &Client) -> Result<BTreeMap<String, Base>, Error> {
    let cache = session::cache();
    let (mut bases, unknown) = resolve(names, client, cache.as_deref()).await;
    if !unknown.is_empty() {
        let daemon = session::daemon(docker).await.ok();
        for (name, problem) in unknown {
            let known = match &daemon {
                Some(daemon) => daemon.known(&name).await,
                None => None,
            };
            let base = known.ok_or_else(|| unresolved(&name, problem, manifest))?;
            bases.insert(name, base);
        }
    }
    for (name, base) in &bases {
        let why = match base.source {
            Source::Registry => continue,
            Source::Remembered => "its registry does not tell; what it told last is taken",
            Source::Daemon => "its registry does not tell; what the daemon has of it is taken",
            Source::DaemonAlone => "only the daemon has it, so other machines may mean another",
        };
        report::note(&format!("{name}: {why} ({})", base.digest.short()));
    }
    Ok(bases)
}

fn unresolved(name: &str, problem: Problem, manifest: &Manifest) -> Problem {
    let problem = problem.about(&format!("the image `{name}` cannot be resolved"));
    match &manifest.utilities.source {
        UtilitiesSource::Image(utilities) if utilities == name => {
            problem.hint("debug variants take their busybox from it; `debug: { utilities: ... }` can be the path of a static one instead")
        }
        _ => problem,
    }
}

/// The bases whose instructions for what is FROM them make a build read more than its Dockerfile tells. One of which nobody
/// can tell is among them: to look at too much is never wrong.
async fn with_triggers(plan: &Plan, bases: &BTreeMap<String, Base>, docker: &Docker, client: &Client) -> Result<BTreeSet<String>, Error> {
    let mut named = BTreeSet::new();
    for build in plan.builds() {
        named.extend(externals::bases(build)?);
    }
    named.retain(|(name, _)| bases.contains_key(name));
    let (mut found, unknown) = triggers(&named, bases, client, session::cache().as_deref()).await;
    let daemon = if unknown.is_empty() {
        None
    } else {
        session::daemon(docker).await.ok()
    };
    for name in unknown {
        let known = match &daemon {
            Some(daemon) => daemon.known(&name).await.filter(|known| known.digest == bases[&name].digest),
            None => None,
        };
        if known.and_then(|known| known.triggers) != Some(false) {
            found.insert(name);
        }
    }
    Ok(found)
}

/// What is added, by platform: a hash of the content of a path, or the digest of an image.
fn utilities(plan: &Plan, manifest: &Manifest, bases: &BTreeMap<String, Base>) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
    let hashes = HashCache::new(session::cache().as_deref());
    let content = |platform: &str| {
        Ok::<_, Problem>(match &manifest.utilities.source {
            UtilitiesSource::Path(path) => {
                let busybox = || Busybox::from_path(path, &manifest.utilities.place, platform);
                let hash = hashes.file(path, platform, || Ok::<_, Problem>(blake3::hash(busybox()?.binary())));
                hash?.as_bytes().to_vec()
            }
            UtilitiesSource::Image(image) => bases
                .get(image)
                .map(|base| base.digest.to_string().into_bytes())
                .unwrap_or_default(),
        })
    };
    let platforms = session::debug_platforms(plan).into_iter();
    platforms.map(|platform| Ok((platform.to_owned(), content(platform)?))).collect()
}
