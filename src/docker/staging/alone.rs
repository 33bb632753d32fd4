//! Images that no builder writes out: this program makes them again of the files that they copy, and has all of them.

use std::sync::Arc;

use anyhow::{Context as _, Error};
use tracing::debug;

use super::Staging;
use crate::docker::buildkit::{self, Dialect, Export, Replica};
use crate::docker::recipe::{Built, Made, Names};
use crate::dockerfile::Reads;
use crate::reference::Reference;

impl Staging {
    /// Has it built, and takes it for the registry: a builder compresses on one core. `None` where the builder is to write and
    /// push it.
    ///
    /// # Errors
    /// When the build fails.
    pub(in crate::docker) async fn take(
        self: &Arc<Self>,
        names: Names<'_>,
        step: &str,
        build: impl AsyncFn(Export<'_>) -> Result<(Made, Reads), Error>,
    ) -> Result<Option<Built>, Error> {
        let [name] = names.push_as else { return Ok(None) };
        let ahead = |replica: &Arc<Replica>| self.bring_ahead(replica, name.repository(), step);
        let (made, reads) = match build(Export::MadeAgain(&ahead)).await {
            Err(error) if buildkit::is_not_made_again(&error) => return Ok(None),
            result => result?,
        };
        let image = Built {
            pushed: None,
            ..Built::elsewhere(made, reads, names)
        };
        let image = self.adopted(image, name).await;
        Ok(image.inspect_err(|error| debug!("{step}: the builder pushes it: {error:#}")).ok())
    }

    async fn adopted(&self, mut built: Built, name: &Reference) -> Result<Built, Error> {
        let replica = built.replica.as_ref().context("it is not to be made again")?;
        let repository = self.registry.repository(name.repository());
        let layers = self.adopt(replica, Dialect::OF_BUILDKIT, &repository).await?;
        built.layers = layers.iter().map(ToString::to_string).collect();
        Ok(built)
    }
}
