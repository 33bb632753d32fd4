use anyhow::Error;

use super::session;
use crate::cli::{Common, Run, Variants};
use crate::plan::{self, Purpose, Request};
use crate::report;

pub async fn build(common: &Common, variants: Variants, run: &Run, images: &[String]) -> Result<(), Error> {
    let manifest = session::manifest(common)?;
    let owner = session::owner(common, variants.selection, Some(&manifest))?;
    let registry = session::registry(common, Some(&manifest), &owner)?;
    let request = Request {
        owner: &owner,
        variants: variants.list(),
        images,
        purpose: Purpose::Build,
    };
    let plan = plan::plan(&manifest, &registry, &request)?;
    if run.dry_run {
        report::plan(&plan);
        return Ok(());
    }
    session::carry_out(&manifest, &plan, Purpose::Build, run).await
}
