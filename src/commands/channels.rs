use super::session;
use crate::channel::{Owner, Variant};
use crate::cli::{Channels, Common, Selection};
use crate::manifest::Manifest;
use crate::problem::Problem;
use crate::report;

/// Consumers ask for these from folders of their own, so a manifest is read where there is one, and not asked for.
pub fn channels(common: &Common, command: Option<&Channels>) -> Result<(), Problem> {
    let manifest = session::found_manifest(common)?;
    let manifest = manifest.as_ref();
    match command {
        None => mine(common, manifest),
        Some(Channels::Env(selection)) => {
            report::env(&session::owner(common, *selection, manifest)?.channel(selection.variant()));
            Ok(())
        }
        Some(Channels::BackendVars(selection)) => {
            let owner = session::owner(common, *selection, manifest)?;
            let registry = session::registry(common, manifest, &owner)?;
            report::backend_vars(&owner.channel(selection.variant()), &registry);
            Ok(())
        }
    }
}

fn mine(common: &Common, manifest: Option<&Manifest>) -> Result<(), Problem> {
    let me = session::owner(
        common,
        Selection {
            stable: false,
            debug: false,
        },
        manifest,
    )?;
    let pushed = manifest.and_then(|manifest| manifest.images.iter().find(|image| image.push));
    let image = pushed.map_or("IMAGE", |image| image.name.as_str());
    let mut rows = Vec::new();
    for owner in [me, Owner::Stable] {
        let registry = session::registry(common, manifest, &owner)?;
        for variant in [Variant::Normal, Variant::Debug] {
            rows.push((owner.channel(variant), registry.clone()));
        }
    }
    report::channels(&rows, image);
    Ok(())
}
