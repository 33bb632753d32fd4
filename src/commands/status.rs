//! Which images of a channel differ from this checkout, and why.

use anyhow::Error;

use super::push::places;
use super::session::{self, Planned};
use super::sources::sources;
use crate::channel::Owner;
use crate::cli::{Common, Variants};
use crate::fingerprint::{Parts, Print};
use crate::plan::Purpose;
use crate::problem::{Exit, Problem};
use crate::release::Release;
use crate::report::{self, Stand};

pub async fn status(common: &Common, variants: Variants, json: bool) -> Result<Exit, Error> {
    stand(common, variants, json)
        .await
        .map_err(|error| Problem::could_not_tell(&error).into())
}

async fn stand(common: &Common, variants: Variants, json: bool) -> Result<Exit, Error> {
    let Planned {
        manifest,
        owner,
        registry,
        plan,
    } = session::planned(common, variants, &[], Purpose::Publish)?;
    let docker = session::Docker::configured()?;
    let client = session::client(&docker, manifest.insecure_registries.clone())?;
    let contexts = session::contexts();
    let taken = sources(&plan, &manifest, &docker, &client, &contexts);
    let stable = session::registry(common, || Ok(manifest.registry_of(&Owner::Stable).clone()))?;
    let release = Release::compare(&plan, places(&owner, &registry, &stable, &client)?, taken, session::looked_at).await?;
    let cache = session::cache();
    let stands: Vec<Stand<'_>> = release
        .stands()
        .map(|(index, entry, latest)| {
            let step = &plan.steps[index];
            let Print { fingerprint, parts, .. } = &release.sources().prints[index];
            let recorded = entry.and_then(|entry| entry.fingerprint);
            let why = match (entry, recorded) {
                (None, _) => Some(vec!["it was never published".to_owned()]),
                (Some(entry), _) if latest != Some(&entry.digest) => {
                    Some(vec!["`latest` is not what the channel's record says".to_owned()])
                }
                (_, Some(recorded)) if recorded == *fingerprint => None,
                (_, None) => Some(vec!["it is not known what it was built from".to_owned()]),
                (_, Some(recorded)) => {
                    let before = cache.as_deref().and_then(|cache| Parts::kept(cache, &recorded));
                    Some(before.map_or_else(
                        || vec!["what it was built from is known where it was built".to_owned()],
                        |before| parts.differences(&before).iter().map(ToString::to_string).collect(),
                    ))
                }
            };
            Stand {
                label: step.label(),
                reference: step.reference.to_string(),
                entry,
                why,
            }
        })
        .collect();
    report::stands(&stands, common.verbose, json);
    let differs = stands.iter().any(|stand| stand.why.is_some());
    Ok(if differs { Exit::Failed } else { Exit::Done })
}
