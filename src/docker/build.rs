//! Building an image with whichever builder the daemon has.

use std::sync::Arc;

use anyhow::Error;
use bollard::errors::Error as BollardError;
use tracing::debug;

use super::buildkit::{self, Ahead, BuildKit, Export, Replica};
use super::push::Pusher;
use super::recipe::{Built, Made, Names, Recipe, Sibling};
use super::{Daemon, said};
use crate::context::{self, Contexts, Reading};
use crate::dockerfile::{self, Reads, ReferenceKind};
use crate::event::Events;
use crate::manifest::Build;
use crate::problem::{Problem, printable};
use crate::reference::{Digest, ImageName, Reference};

/// The key that says which platforms an image is built for.
pub(super) const PLATFORMS: &str = "platforms";

/// What turns a context and a Dockerfile into an image.
#[derive(Clone)]
pub(super) enum Builder {
    BuildKit(Box<BuildKit>),
    Classic,
}

/// How often a build is tried whose image goes away.
const ATTEMPTS: usize = 3;

/// The first engine whose BuildKit takes named contexts, and knows `COPY --link`.
pub(super) const DOCKERFILE_1_4_SINCE: u32 = 23;

impl Daemon {
    /// # Errors
    /// When a build has a key that this daemon cannot carry out: which, where, and what would be needed.
    pub(super) fn refuse_what_it_cannot_do(&self, build: &Build) -> Result<(), Problem> {
        let needs_buildkit = || build.places.iter().find(|(key, _)| **key != PLATFORMS);
        if let (Builder::Classic, Some((key, place))) = (&self.builder, needs_buildkit()) {
            return Err(Problem::usage(format!(
                "{place}: `{key}` needs BuildKit, and builds go through the classic builder here"
            ))
            .hint("unset DOCKER_BUILDKIT, or use a daemon with BuildKit (Docker 18.09 or later)"));
        }
        let key = "additional_contexts";
        if let Some(place) = build.places.get(key).filter(|_| self.version.major() < DOCKERFILE_1_4_SINCE) {
            return Err(Problem::usage(format!(
                "{place}: `{key}` needs Docker {DOCKERFILE_1_4_SINCE} or later, and the daemon is {}",
                self.version.text
            )));
        }
        if build.platforms.len() > 1 && !self.pushes() {
            let place = build.places.get(PLATFORMS).map_or("", String::as_str);
            return Err(Problem::usage(format!(
                "{place}: `{PLATFORMS}` has {} entries, and an image of several platforms needs BuildKit and the containerd image store, which the daemon does not use",
                build.platforms.len()
            ))
            .hint("name one platform, or switch the daemon's containerd image store on (Docker 24 or later), or build elsewhere with --builder"));
        }
        Ok(())
    }

    pub(super) async fn build(&self, recipe: Recipe<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let build = recipe.build;
        if recipe.pull || build.pull {
            for image in recipe.external {
                for platform in &build.platforms {
                    self.pull(image, platform).await?;
                }
            }
        }
        again_if_lost(step, events, || self.build_once(recipe, step, events)).await
    }

    async fn build_once(&self, recipe: Recipe<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let Builder::BuildKit(buildkit) = &self.builder else {
            // it builds every stage, and does not say what it misses
            let reading = read(recipe, Contexts::read_whole, step, events).await?;
            let made = self.build_classic(recipe, &reading.context, step, events).await?;
            let reads = if self.has_triggers(recipe).await {
                Reads::Whole
            } else {
                context::reads(recipe.build)?
            };
            let (image, at_rest) = tokio::join!(self.stored(made, reads, recipe.names), unchanged(reading));
            return at_rest.and(image);
        };
        let build = async |export: Export<'_>| {
            let made = built_at_rest(buildkit, recipe, export, step, events).await;
            self.access.explained(made, recipe.names, Pusher::Daemon).await
        };
        self.built_by_buildkit(recipe.names, recipe.is_to_be_taken(), step, build).await
    }

    pub(super) async fn built_by_buildkit(
        &self,
        names: Names<'_>,
        is_copied: bool,
        step: &str,
        build: impl AsyncFn(Export<'_>) -> Result<(Made, Reads), Error>,
    ) -> Result<Built, Error> {
        if self.leaves(names).await {
            return self.staging.take(names, is_copied, self.access.push(names), step, build).await;
        }
        let ahead = |replica: &Arc<Replica>| {
            for name in names.push_as {
                self.staging.bring_ahead(replica, name.repository(), step);
            }
        };
        let (made, reads) = build(self.export(names, &ahead)).await?;
        self.stored(made, reads, names).await
    }

    /// Whether what is pushed stays out of the containerd store: not where an older one has its name there, nor where BuildKit
    /// could not take it from its registry.
    async fn leaves(&self, names: Names<'_>) -> bool {
        if !self.replicates || !self.pushes_itself(names) || self.access.is_listed(names.reference.host()) {
            return false;
        }
        let older = self.docker.inspect_image(&names.reference.to_string()).await;
        let is_absent = matches!(older, Err(BollardError::DockerResponseServerError { status_code: 404, .. }));
        if !is_absent {
            debug!("{}: the daemon has one of that name, and gets the new one", names.reference);
        }
        is_absent
    }

    /// Whether an image that a stage is FROM has `ONBUILD` instructions.
    async fn has_triggers(&self, recipe: Recipe<'_>) -> bool {
        let sent = dockerfile::parse(recipe.dockerfile).ok();
        let named = sent.and_then(|sent| {
            sent.image_references(
                &recipe.build.dockerfile_args(&recipe.build.platforms[0]),
                recipe.build.target.as_deref(),
            )
            .ok()
        });
        for base in named.into_iter().flatten().filter(|named| named.kind == ReferenceKind::From) {
            let image = self.docker.inspect_image(&base.name).await;
            let triggers = image.ok().and_then(|image| image.config?.on_build);
            if triggers.is_some_and(|triggers| !triggers.is_empty()) {
                return true;
            }
        }
        false
    }

    fn pushes_itself(&self, names: Names<'_>) -> bool {
        self.pushes() && !names.push_as.is_empty()
    }

    fn export<'a>(&self, names: Names<'a>, ahead: Ahead<'a>) -> Export<'a> {
        if self.pushes_itself(names) {
            // it names the image so, and then pushes it
            for name in names.passing() {
                self.passing.remember(name.to_string());
            }
            Export::StoreAndPush(self.access.push(names))
        } else if self.replicates && !names.push_as.is_empty() {
            Export::Replicated(names.reference, ahead)
        } else {
            Export::Store(names.reference)
        }
    }

    /// Gives what was pushed its own name in the daemon; of the rest, tells what there is to push.
    pub(super) async fn stored(&self, made: Made, reads: Reads, names: Names<'_>) -> Result<Built, Error> {
        if self.pushes_itself(names) {
            let own = names.reference;
            self.tag(&made.id, own.repository().as_str(), own.tag().as_str()).await?;
            for name in names.passing() {
                self.untag_meanwhile(name.to_string());
            }
            return Ok(Built {
                is_stored: true,
                ..Built::elsewhere(made, reads, names)
            });
        }
        let Made {
            id,
            cached,
            has_folder,
            replica,
            ..
        } = made;
        // another run may give the name of the build to an image of its own, and an image without names may go
        let own = names.reference.repository().path();
        self.hold(own.rsplit('/').next().unwrap_or(own), &id).await?;
        let image = self.docker.inspect_image(id.as_str()).await.map_err(said)?;
        let layers = image.root_fs.and_then(|root_fs| root_fs.layers).unwrap_or_default();
        Ok(Built {
            id,
            layers,
            cached,
            reads,
            pushed: None,
            is_stored: true,
            has_folder,
            replica,
            // its BuildKit has what it made at hand as an image, too
            origin: None,
        })
    }

    /// Only where it would come out of the registry else.
    pub(super) async fn recall(&self, recipe: Recipe<'_>, name: &str, id: &Digest, step: &str) -> Option<Sibling> {
        match &self.builder {
            Builder::BuildKit(buildkit) if self.is_local && self.pushes() => recalled(buildkit, recipe, name, id, step).await,
            _ => None,
        }
    }

    pub(super) async fn sibling(&self, image: &ImageName, reference: &Reference, built: &Built) -> Result<Sibling, Error> {
        // there the name counts only where the builder has forgotten how it was made
        let is_pushed = || built.pushed.is_some() && built.origin.is_some() && !self.access.is_listed(reference.host());
        let name = match self.builder {
            Builder::Classic => built.id.to_string(),
            Builder::BuildKit(_) if !built.is_stored || is_pushed() => built.published(reference),
            // BuildKit takes no image's id after FROM
            Builder::BuildKit(_) => self.hold(image.as_str(), &built.id).await?,
        };
        Ok(Sibling::of(built, name))
    }
}

/// Builds again where another client of the daemon removes the very image that the build had from its cache or had just made:
/// until it has a name of ours, nothing keeps it.
pub(super) async fn again_if_lost<F: Future<Output = Result<Built, Error>>>(
    step: &str,
    events: &Events,
    build: impl Fn() -> F,
) -> Result<Built, Error> {
    for _ in 1..ATTEMPTS {
        match build().await {
            Err(error) if is_lost(&format!("{error:#}")) => {
                events.note_on(step, "another client removed the image meanwhile: building again");
            }
            done => return done,
        }
    }
    build().await
}

/// As moby says it (`image/cache/cache.go` and `daemon/images/image.go`).
fn is_lost(error: &str) -> bool {
    ["unable to find image \"sha256:", "No such image: sha256:"]
        .iter()
        .any(|said| error.contains(said))
}

/// What is published as `name`, with the configuration `id`, where the builder has it as it made it, or need not have it. Nothing
/// of it is written or shown.
pub(super) async fn recalled(buildkit: &BuildKit, recipe: Recipe<'_>, name: &str, id: &Digest, step: &str) -> Option<Sibling> {
    if !recipe.is_copied() {
        return None;
    }
    let (unseen, _) = Events::channel();
    let again: Ahead<'_> = &|_| {};
    // what a builder makes upon it is to stand on the very layers that are published
    let unmade = recipe.is_below_copies.then_some(Export::MadeAgain(again));
    for export in unmade.into_iter().chain([Export::LookedUp(again)]) {
        let made = buildkit_build(buildkit, recipe, export, step, &unseen);
        let (made, ..) = made.await.inspect_err(|error| debug!("{step}: {error:#}")).ok()?;
        if made.id == *id {
            debug!("{step}: {name} need not be fetched");
            return Some(Sibling::made(made, name.to_owned(), recipe.is_below_copies));
        }
    }
    debug!("{step}: {name} is not what is made here, and has to be fetched");
    None
}

/// A build, with what it was found to read of its context.
async fn buildkit_build(
    buildkit: &BuildKit,
    recipe: Recipe<'_>,
    export: Export<'_>,
    step: &str,
    events: &Events,
) -> Result<(Made, Reads, Reading), Error> {
    let reading = read(recipe, Contexts::read, step, events).await?;
    match buildkit.build(recipe, export, &reading, step, events).await {
        Err(error) if buildkit::asks_for_more(&error) => {
            let reading = read(recipe, Contexts::read_whole, step, events).await?;
            let made = buildkit.build(recipe, export, &reading, step, events).await?;
            Ok((made, Reads::Whole, reading))
        }
        made => Ok((made?, reading.reads.clone(), reading)),
    }
}

/// A build of folders that are still as they were read.
pub(super) async fn built_at_rest(
    buildkit: &BuildKit,
    recipe: Recipe<'_>,
    export: Export<'_>,
    step: &str,
    events: &Events,
) -> Result<(Made, Reads), Error> {
    let (made, reads, reading) = buildkit_build(buildkit, recipe, export, step, events).await?;
    unchanged(reading).await?;
    Ok((made, reads))
}

async fn read(
    recipe: Recipe<'_>,
    read: fn(&Contexts, &Build) -> Result<Reading, Error>,
    step: &str,
    events: &Events,
) -> Result<Reading, Error> {
    let (build, contexts) = (recipe.build.clone(), Arc::clone(recipe.contexts));
    let reading = tokio::task::spawn_blocking(move || read(&contexts, &build)).await??;
    debug!("{step}: reads {} of its context", reading.reads);
    for note in &reading.context.notes {
        events.note_on(step, note);
    }
    Ok(reading)
}

/// That the folders are still as they were read: else nobody knows what the image was built from.
async fn unchanged(reading: Reading) -> Result<(), Error> {
    let changed = tokio::task::spawn_blocking(move || reading.changed()).await??;
    match changed {
        None => Ok(()),
        Some(path) => Err(Problem::failed(format!(
            "the context changed while it was built: {}",
            printable(&path.display().to_string())
        ))
        .hint("run again when the context is at rest")
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::is_lost;

    #[test]
    fn an_image_that_went_away_is_told_from_one_that_never_was() {
        assert!(is_lost(r#"unable to find image "sha256:566bf6e2""#));
        assert!(is_lost("building api: No such image: sha256:566bf6e2"));
        assert!(!is_lost("No such image: debian:12"));
    }
}
