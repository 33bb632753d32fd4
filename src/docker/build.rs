//! Building an image with whichever builder the daemon has.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Error};
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::StreamExt;
use tracing::debug;

use super::buildkit::{self, BuildKit, Export, Look, Origin};
use super::push::Pusher;
use super::{Daemon, said};
use crate::context::{self, Contexts, Inline, Reading};
use crate::docker_config::Secret;
use crate::dockerfile::{self, Reads, ReferenceKind};
use crate::event::Events;
use crate::manifest::Build;
use crate::problem::{Problem, printable};
use crate::reference::{Digest, ImageName, Reference};
use crate::resolve::{Base, Source, named};

/// The key that says which platforms an image is built for.
pub(super) const PLATFORMS: &str = "platforms";

/// Where images stand for the time of a run by names of ours. Docker takes it for a registry on this machine.
const SIBLINGS: &str = "localhost/lattice-images";

/// What turns a context and a Dockerfile into an image.
#[derive(Clone)]
pub(super) enum Builder {
    BuildKit(Box<BuildKit>),
    Classic,
}

/// What came out of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// In a graph driver store the digest of the image's configuration, elsewhere that of its manifest or index.
    pub id: Digest,
    /// The digests of its uncompressed layers, the lowest first (OCI image configuration, `rootfs.diff_ids`), as far as
    /// they are still to be pushed.
    pub layers: Vec<String>,
    /// Every instruction came from the builder's cache.
    pub cached: bool,
    /// What of its context it was found to read; all of it, where an image that it is FROM reads some by `ONBUILD`.
    pub reads: Reads,
    /// What the registry answers for it, where the builder has pushed it by itself.
    pub pushed: Option<Digest>,
    /// Whether it has the folder of the utilities, as far as that is known.
    pub(super) has_folder: Option<bool>,
    /// Where what stands on it can be built without fetching it.
    pub(super) origin: Option<Arc<Origin>>,
}

/// An image of this run that others stand on.
#[derive(Clone, Debug)]
pub struct Sibling {
    /// By which a Dockerfile means this very image, whatever happens to its tags meanwhile. Elsewhere than in a daemon it
    /// must have been pushed.
    pub name: String,
    pub(super) has_folder: Option<bool>,
    pub(super) origin: Option<Arc<Origin>>,
}

impl Sibling {
    pub(super) fn of(built: &Built, name: String) -> Self {
        Self {
            name,
            has_folder: built.has_folder,
            origin: built.origin.clone(),
        }
    }

    /// What is in a registry under this name.
    #[must_use]
    pub fn published(name: String) -> Self {
        Self {
            name,
            has_folder: None,
            origin: None,
        }
    }
}

impl Built {
    /// By a builder that pushes it, if it was to be pushed.
    pub(super) fn elsewhere(made: Made, reads: Reads, names: Names<'_>) -> Self {
        Self {
            layers: Vec::new(),
            cached: made.cached,
            reads,
            pushed: Some(&made.id).filter(|_| !names.push_as.is_empty()).cloned(),
            id: made.id,
            has_folder: made.has_folder,
            origin: made.origin,
        }
    }
}

/// What a builder answers.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: Digest,
    pub(super) cached: bool,
    /// Of what was looked for ([`Look::After`]).
    pub(super) has_folder: Option<bool>,
    /// By BuildKit alone.
    pub(super) origin: Option<Arc<Origin>>,
}

/// What an image is called.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// In the daemon.
    pub reference: &'a Reference,
    /// In the registry, where the builder pushes by itself. None: it is not pushed.
    pub push_as: &'a [Reference],
}

/// A build and what this run asks of it.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    pub image: &'a ImageName,
    pub build: &'a Build,
    pub names: Names<'a>,
    /// The Dockerfile to build with: siblings stand in it by their names.
    pub dockerfile: &'a str,
    pub siblings: &'a [Sibling],
    /// The images of elsewhere that it resolves.
    pub external: &'a [String],
    /// Build args of the person's own, which are no part of what the image is made from.
    pub proxies: &'a [(String, Secret)],
    /// What was read of folders in this run.
    pub contexts: &'a Arc<Contexts>,
    /// Whether it gets utilities afterwards.
    pub gets_utilities: bool,
    pub pull: bool,
    pub no_cache: bool,
}

impl Recipe<'_> {
    /// The proxies too, as far as the build sets none itself. Which of two spellings counts, BuildKit leaves to chance.
    pub(super) fn args(&self) -> HashMap<String, String> {
        let own = &self.build.args;
        let proxies = self
            .proxies
            .iter()
            .filter(|(name, _)| !own.keys().any(|own| own.eq_ignore_ascii_case(name)));
        let proxies = proxies.map(|(name, value)| (name.clone(), value.expose().to_owned()));
        proxies.chain(own.clone()).collect()
    }
}

/// A build without a context of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct InlineBuild<'a> {
    pub(super) dockerfile: &'a str,
    /// What it copies from; the Dockerfile is not among them.
    pub(super) files: &'a [Inline],
    pub(super) siblings: &'a [Sibling],
    pub(super) platforms: &'a [String],
    /// For BuildKit.
    pub(super) look: Option<Look>,
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
        let build = recipe.build;
        let (made, reads, reading) = match &self.builder {
            Builder::BuildKit(buildkit) => {
                let made = buildkit_build(buildkit, recipe, self.export(recipe.names), step, events).await;
                self.access.explained(made, recipe.names, Pusher::Daemon).await?
            }
            Builder::Classic => {
                // it builds every stage, and does not say what it misses
                let reading = read(recipe, Contexts::read_whole, step, events).await?;
                let made = self.build_classic(recipe, &reading.context, step, events).await?;
                let reads = if self.has_triggers(recipe).await {
                    Reads::Whole
                } else {
                    context::reads(build)?
                };
                (made, reads, reading)
            }
        };
        let (image, at_rest) = tokio::join!(self.stored(made, reads, recipe.names), unchanged(reading));
        at_rest.and(image)
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

    /// Builds from the files alone that it is given.
    pub(super) async fn build_inline(&self, build: InlineBuild<'_>, names: Names<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        again_if_lost(step, events, || self.build_inline_once(build, names, step, events)).await
    }

    async fn build_inline_once(&self, build: InlineBuild<'_>, names: Names<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let made = match &self.builder {
            Builder::BuildKit(buildkit) => {
                let made = buildkit.build_inline(build, self.export(names), step, events).await;
                self.access.explained(made, names, Pusher::Daemon).await?
            }
            Builder::Classic => self.build_inline_classic(build, names, step, events).await?,
        };
        self.stored(made, Reads::of([]), names).await
    }

    fn export<'a>(&self, names: Names<'a>) -> Export<'a> {
        if self.pushes() && !names.push_as.is_empty() {
            Export::StoreAndPush(self.access.push(names))
        } else {
            Export::Store(names.reference)
        }
    }

    /// Gives what was pushed its own name in the daemon; of the rest, tells what there is to push.
    async fn stored(&self, made: Made, reads: Reads, names: Names<'_>) -> Result<Built, Error> {
        if let Export::StoreAndPush(_) = self.export(names) {
            let own = names.reference;
            self.tag(&made.id, own.repository().as_str(), own.tag().as_str()).await?;
            for name in names.push_as.iter().filter(|name| *name != own) {
                self.untag(&name.to_string()).await;
            }
            return Ok(Built::elsewhere(made, reads, names));
        }
        let Made {
            id, cached, has_folder, ..
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
            has_folder,
            // its BuildKit has what it made at hand as an image, too
            origin: None,
        })
    }

    pub(super) async fn sibling(&self, image: &ImageName, built: &Built) -> Result<Sibling, Error> {
        let name = match self.builder {
            Builder::Classic => built.id.to_string(),
            // BuildKit takes no image's id after FROM
            Builder::BuildKit(_) => self.hold(image.as_str(), &built.id).await?,
        };
        Ok(Sibling::of(built, name))
    }

    /// Gives the image a name that is this run's alone.
    async fn hold(&self, image: &str, id: &Digest) -> Result<String, Error> {
        let (repository, tag) = (format!("{SIBLINGS}/{image}"), format!("{}-{}", id.short(), self.siblings.run));
        self.tag(id, &repository, &tag).await?;
        let name = format!("{repository}:{tag}");
        self.siblings
            .given
            .lock()
            .expect("nobody panics with the lock")
            .insert(name.clone());
        Ok(name)
    }

    /// Takes the names away that [`Self::hold`] gave. The images stay under their own.
    pub(super) async fn forget_siblings(&self) {
        let given = std::mem::take(&mut *self.siblings.given.lock().expect("nobody panics with the lock"));
        for name in given {
            self.untag(&name).await;
        }
    }

    pub(super) async fn tag(&self, id: &Digest, repository: &str, tag: &str) -> Result<(), Error> {
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        self.docker.tag_image(id.as_str(), Some(options)).await.map_err(said)
    }

    pub(super) async fn untag(&self, name: &str) {
        let options = RemoveImageOptionsBuilder::default().noprune(true).build();
        if let Err(error) = self.docker.remove_image(name, Some(options), None).await {
            tracing::debug!("{name} stays in the daemon: {}", said(error));
        }
    }

    /// What the daemon has under a name of elsewhere.
    pub async fn known(&self, name: &str) -> Option<Base> {
        let image = self.docker.inspect_image(name).await.ok()?;
        let digests = image.repo_digests.unwrap_or_default();
        // the same image may have come from other repositories, too
        let repository = named(name).ok()?.0;
        let from_registry = digests.iter().find_map(|known| {
            let is_of_it = named(known).is_ok_and(|(other, _)| other == repository);
            known.split_once('@').filter(|_| is_of_it)?.1.parse().ok()
        });
        let (digest, source) = match from_registry {
            Some(digest) => (digest, Source::Daemon),
            None => (image.id?.parse().ok()?, Source::DaemonAlone),
        };
        Some(Base {
            digest,
            source,
            triggers: Some(
                image
                    .config
                    .and_then(|config| config.on_build)
                    .is_some_and(|triggers| !triggers.is_empty()),
            ),
        })
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

/// Builds again where another client of the daemon removes the very image that the build had from its cache or had just made:
/// until it has a name of ours, nothing keeps it.
async fn again_if_lost<F: Future<Output = Result<Built, Error>>>(
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

/// A build, with what it was found to read of its context.
pub(super) async fn buildkit_build(
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
pub(super) async fn unchanged(reading: Reading) -> Result<(), Error> {
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
    use super::{is_lost, registry_host};

    #[test]
    fn an_image_that_went_away_is_told_from_one_that_never_was() {
        assert!(is_lost(r#"unable to find image "sha256:566bf6e2""#));
        assert!(is_lost("building api: No such image: sha256:566bf6e2"));
        assert!(!is_lost("No such image: debian:12"));
    }

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
