use std::collections::BTreeMap;

use anyhow::{Context as _, Error};

use super::interrupt::Interrupt;
use super::session::{self, Planned};
use crate::cli::{Common, Run, Variants};
use crate::event::Events;
use crate::execute::Limits;
use crate::plan::Purpose;
use crate::report;
use crate::run;

pub async fn build(common: &Common, variants: Variants, options: &Run, images: &[String]) -> Result<(), Error> {
    let form = report::choose(options.progress(), common.verbose)?;
    let Planned { manifest, plan, .. } = session::planned(common, variants, images, Purpose::Build)?;
    if options.dry_run {
        report::plan(&plan);
        return Ok(());
    }
    session::warn_of_downloads(&plan)?;
    session::refuse_missing_secrets(&plan.steps)?;
    let interrupt = Interrupt::listen().context("listening for Ctrl-C")?;
    let (docker, contexts) = (session::Docker::configured()?, session::contexts());
    let client = session::client(&docker, manifest.insecure_registries.clone())?;
    let digests = BTreeMap::new();
    let preparing = session::workshop(&docker, &client, &manifest, &plan, &contexts, &digests, options);
    let workshop = session::unless_interrupted(&interrupt, preparing).await?;
    if !workshop.engine.keeps_images() {
        report::note(
            "no daemon takes part: what is built stays in the builder's cache, and what other images stand on goes to the registry for them",
        );
    }
    let build = async |limits: &Limits, events: &Events| run::build(&plan, &workshop, limits, events).await;
    let (rows, logs) = session::shown(form, &plan, options, &interrupt, build).await?;
    let metadata = options.metadata_file.as_ref().map_or(Ok(()), |path| report::metadata(&rows, path));
    report::finish(&plan, &rows, &[], Purpose::Build, form, &logs)?;
    metadata
}
