use std::env;

use anyhow::Error;

use super::session;
use crate::channel::Owner;
use crate::cli::{Common, Push};
use crate::plan::{self, Plan, Purpose, Request};
use crate::problem::Problem;
use crate::report;

/// `images` is a filter on the whole manifest; none named: all.
pub async fn push(common: &Common, push: &Push, images: &[String]) -> Result<(), Error> {
    let manifest = session::manifest(common)?;
    let owner = session::owner(common, push.variants.selection, Some(&manifest))?;
    let registry = session::registry(common, Some(&manifest), &owner)?;
    let request = Request {
        owner: &owner,
        variants: push.variants.list(),
        images,
        purpose: Purpose::Publish,
    };
    let plan = plan::plan(&manifest, &registry, &request)?;
    if push.run.dry_run {
        report::plan(&plan);
        return Ok(());
    }
    if owner == Owner::Stable && !push.yes {
        confirm_stable(&plan)?;
    }
    session::carry_out(&manifest, &plan, Purpose::Publish, &push.run).await
}

fn confirm_stable(plan: &Plan) -> Result<(), Problem> {
    if env::var("CI").is_ok_and(|value| value == "true") {
        return Ok(());
    }
    if !report::somebody_is_there() {
        return Err(
            Problem::usage("a push to the channel `stable` is to be confirmed, and there is no terminal to ask at")
                .hint("--yes, or CI=true, confirms it"),
        );
    }
    let images = plan.steps.iter().filter(|step| step.publish).count();
    if report::confirm(&format!("Push {images} images to `stable` in {}?", plan.registry)) {
        Ok(())
    } else {
        Err(Problem::failed("not confirmed; nothing was done"))
    }
}
