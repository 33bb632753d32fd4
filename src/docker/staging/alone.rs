//! Images that no builder writes out: this program makes them again of the files that they copy, and has all of them.

use std::sync::Arc;

use anyhow::{Context as _, Error};
use tracing::debug;

use super::Staging;
use crate::docker::buildkit::{Dialect, Export, NotAgain, Push, Replica};
use crate::docker::recipe::{Built, Made, Names};
use crate::dockerfile::Reads;
use crate::reference::{Digest, Repository};

impl Staging {
    /// Has an image built. One that `is_copied` of files alone is taken for the registry, for a builder compresses on one core;
    /// others the builder pushes.
    ///
    /// # Errors
    /// When the build fails, or the push that is part of it.
    pub(in crate::docker) async fn take(
        self: &Arc<Self>,
        names: Names<'_>,
        is_copied: bool,
        push: Push<'_>,
        step: &str,
        build: impl AsyncFn(Export<'_>) -> Result<(Made, Reads), Error>,
    ) -> Result<Built, Error> {
        let mut was_cached = true;
        if is_copied {
            let (image, cached) = self.take_copied(names, step, &build).await?;
            if let Some(image) = image {
                return Ok(image);
            }
            was_cached = cached;
        }
        let (mut made, reads) = build(Export::Push(push)).await?;
        made.cached &= was_cached;
        Ok(Built::elsewhere(made, reads, names))
    }

    /// What could be taken, and whether the builder had it in its cache.
    async fn take_copied(
        self: &Arc<Self>,
        names: Names<'_>,
        step: &str,
        build: impl AsyncFn(Export<'_>) -> Result<(Made, Reads), Error>,
    ) -> Result<(Option<Built>, bool), Error> {
        let repository = names.reference.repository();
        let ahead = |replica: &Arc<Replica>| {
            if self.has_below(replica, repository) {
                self.bring_ahead(replica, repository, step);
            }
        };
        let (made, reads) = match build(Export::MadeAgain(&ahead)).await {
            Ok(made) => made,
            Err(error) => {
                let NotAgain { why, cached } = error.downcast()?;
                debug!("{step}: the builder pushes it: {why}");
                return Ok((None, cached));
            }
        };
        let cached = made.cached;
        let image = Built {
            pushed: None,
            ..Built::elsewhere(made, reads, names)
        };
        let image = self.adopted(image, repository).await;
        let image = image.inspect_err(|error| debug!("{step}: the builder pushes it: {error:#}"));
        Ok((image.ok(), cached))
    }

    /// Whether the registry is known to have what of elsewhere the image stands on.
    fn has_below(&self, replica: &Replica, repository: &Repository) -> bool {
        let is_known = |layer: &Digest| self.layers.is_known(layer, repository.host());
        replica.below_of_elsewhere().is_some_and(|below| below.iter().all(is_known))
    }

    async fn adopted(&self, mut built: Built, repository: &Repository) -> Result<Built, Error> {
        let replica = built.replica.as_ref().context("it is not to be made again")?;
        let layers = self
            .adopt(replica, Dialect::OF_BUILDKIT, &self.registry.repository(repository))
            .await?;
        built.layers = layers.iter().map(ToString::to_string).collect();
        Ok(built)
    }
}
