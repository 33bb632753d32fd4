//! Building an image with whichever builder the daemon has.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context as _, Error};
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::StreamExt;

use super::buildkit::BuildKit;
use super::{Daemon, said};
use crate::context::{self, Inline};
use crate::event::Events;
use crate::manifest::Build;
use crate::problem::{Problem, printable};
use crate::reference::{Digest, ImageName, Reference};

/// Where images stand for the time of a run by names of ours. Docker takes it for a registry on this machine.
const SIBLINGS: &str = "localhost/lattice-images";

/// What turns a context and a Dockerfile into an image.
#[derive(Clone)]
pub(super) enum Builder {
    BuildKit(Box<BuildKit>),
    Classic,
}

/// An image in the daemon.
#[derive(Clone, Debug)]
pub struct Built {
    pub id: Digest,
    /// The digests of its uncompressed layers, the lowest first (OCI image configuration, `rootfs.diff_ids`).
    pub layers: Vec<String>,
}

/// A build and what this run asks of it.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    pub build: &'a Build,
    /// What the image is called in the daemon.
    pub reference: &'a Reference,
    /// The Dockerfile to build with: siblings stand in it by the names that [`Daemon::sibling_name`] gives.
    pub dockerfile: &'a str,
    /// The images of elsewhere that it resolves.
    pub external: &'a [String],
    pub pull: bool,
    pub no_cache: bool,
}

/// A build without a context of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct InlineBuild<'a> {
    pub(super) dockerfile: &'a str,
    /// What it copies from; the Dockerfile is not among them.
    pub(super) files: &'a [Inline],
    pub(super) platform: &'a str,
    pub(super) reference: &'a Reference,
}

/// The names that this run gave to siblings, to be taken away again at its end.
#[derive(Debug)]
pub(super) struct SiblingNames {
    /// No other run has it, so that none takes away what this one still needs.
    run: String,
    given: Mutex<BTreeSet<String>>,
}

impl SiblingNames {
    pub(super) fn new(run: String) -> Self {
        Self {
            run,
            given: Mutex::default(),
        }
    }
}

/// The first engine whose BuildKit takes named contexts.
const NAMED_CONTEXTS_SINCE: u32 = 23;

impl Daemon {
    /// # Errors
    /// When a build has a key that this daemon cannot carry out: which, where, and what would be needed.
    pub fn refuse_what_it_cannot_do<'b>(&self, builds: impl IntoIterator<Item = &'b Build>) -> Result<(), Problem> {
        for build in builds {
            if let (Builder::Classic, Some((key, place))) = (&self.builder, build.places.first_key_value()) {
                return Err(Problem::usage(format!(
                    "{place}: `{key}` needs BuildKit, and builds go through the classic builder here"
                ))
                .hint("unset DOCKER_BUILDKIT, or use a daemon with BuildKit (Docker 18.09 or later)"));
            }
            let key = "additional_contexts";
            if let Some(place) = build.places.get(key).filter(|_| self.engine.major() < NAMED_CONTEXTS_SINCE) {
                return Err(Problem::usage(format!(
                    "{place}: `{key}` needs Docker {NAMED_CONTEXTS_SINCE} or later, and the daemon is {}",
                    self.engine.version
                )));
            }
        }
        Ok(())
    }

    /// # Errors
    /// When the context cannot be read, a base cannot be had, or the build fails.
    pub async fn build(&self, recipe: Recipe<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let build = recipe.build;
        if recipe.pull || build.pull {
            for image in recipe.external {
                self.pull(image, &build.platform).await?;
            }
        }
        let rules = context::ignore_rules(build)?;
        let root = build.context.clone();
        let context = tokio::task::spawn_blocking(move || context::walk(&root, &rules)).await??;
        for note in &context.notes {
            events.note_on(step, note);
        }
        let id = match &self.builder {
            Builder::BuildKit(buildkit) => buildkit.build(recipe, context, step, events).await?,
            Builder::Classic => self.build_classic(recipe, context, step, events).await?,
        };
        self.inspect(id).await
    }

    /// Builds from the files alone that it is given.
    pub(super) async fn build_inline(&self, build: InlineBuild<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let id = match &self.builder {
            Builder::BuildKit(buildkit) => buildkit.build_inline(build, step, events).await?,
            Builder::Classic => self.build_inline_classic(build, step, events).await?,
        };
        self.inspect(id).await
    }

    async fn inspect(&self, id: Digest) -> Result<Built, Error> {
        let image = self.docker.inspect_image(id.as_str()).await.map_err(said)?;
        let layers = image.root_fs.and_then(|root_fs| root_fs.layers).unwrap_or_default();
        Ok(Built { id, layers })
    }

    /// A name by which a Dockerfile means this very image, whatever happens to its tags meanwhile.
    ///
    /// # Errors
    /// When the daemon does not give the image a name.
    pub async fn sibling_name(&self, image: &ImageName, id: &Digest) -> Result<String, Error> {
        match self.builder {
            Builder::Classic => Ok(id.to_string()),
            // BuildKit takes no image's id after FROM
            Builder::BuildKit(_) => {
                let (repository, tag) = (format!("{SIBLINGS}/{image}"), format!("{}-{}", id.short(), self.siblings.run));
                let options = TagImageOptionsBuilder::default().repo(&repository).tag(&tag).build();
                self.docker.tag_image(id.as_str(), Some(options)).await.map_err(said)?;
                let name = format!("{repository}:{tag}");
                self.siblings
                    .given
                    .lock()
                    .expect("nobody panics with the lock")
                    .insert(name.clone());
                Ok(name)
            }
        }
    }

    /// Takes the names away that [`Self::sibling_name`] gave. The images stay under their own.
    pub async fn forget_siblings(&self) {
        let given = std::mem::take(&mut *self.siblings.given.lock().expect("nobody panics with the lock"));
        for name in given {
            let options = RemoveImageOptionsBuilder::default().noprune(true).build();
            if let Err(error) = self.docker.remove_image(&name, Some(options), None).await {
                tracing::debug!("{name} stays in the daemon: {}", said(error));
            }
        }
    }

    pub(super) async fn pull(&self, image: &str, platform: &str) -> Result<(), Error> {
        let (_, credentials) = self.credentials(registry_host(image)).await?;
        let named = if image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            image.to_owned()
        } else {
            format!("{image}:latest")
        };
        let options = CreateImageOptionsBuilder::default().from_image(&named).platform(platform).build();
        let mut answers = self.docker.create_image(Some(options), None, Some(credentials));
        while let Some(answer) = answers.next().await {
            answer.map_err(said).with_context(|| format!("pulling {}", printable(image)))?;
        }
        Ok(())
    }
}

pub(super) const DOCKER_HUB: &str = "docker.io";

/// The registry of an image's name as Docker reads it: the first part, if it looks like a host.
pub(super) fn registry_host(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::registry_host;

    #[test]
    fn where_an_image_comes_from() {
        for (image, host) in [
            ("busybox", "docker.io"),
            ("library/busybox:1", "docker.io"),
            ("gcr.io/p/i", "gcr.io"),
            ("localhost/i", "localhost"),
            ("localhost:5000/i@sha256:0", "localhost:5000"),
        ] {
            assert_eq!(registry_host(image), host, "{image}");
        }
    }
}
