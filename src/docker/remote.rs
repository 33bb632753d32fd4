//! Builders apart from a daemon, each a BuildKit: each build goes to one of them, the same image to the same, and is pushed from there.

use anyhow::{Context as _, Error};
use futures_util::future::join_all;
use tracing::debug;

use super::build::{Built, InlineBuild, Names, PLATFORMS, Recipe, buildkit_build, unchanged};
use super::buildkit::{BuildKit, Export};
use super::dial::Dialler;
use super::push::Pusher;
use super::utilities::{Addition, canonical, dockerfile, unless_it_has_folder};
use super::{Access, client};
use crate::builder::{Node, Reach};
use crate::dockerfile::Reads;
use crate::event::Events;
use crate::manifest::Build;
use crate::problem::Problem;

pub struct Remote {
    /// One at least.
    members: Vec<Member>,
    access: Access,
}

struct Member {
    /// As messages show it, and what images are assigned by.
    name: String,
    /// In canonical form.
    platforms: Vec<String>,
    buildkit: BuildKit,
}

impl Remote {
    /// Builders that do not answer are left out with a note.
    ///
    /// # Errors
    /// When none answers: why the first does not.
    pub(super) async fn connect(nodes: &[Node], access: &Access) -> Result<(Self, Vec<String>), Error> {
        let members = join_all(nodes.iter().map(|node| Member::connect(node, access))).await;
        let (answering, silent): (Vec<_>, Vec<_>) = members.into_iter().partition(Result::is_ok);
        let members: Vec<Member> = answering.into_iter().flatten().collect();
        let mut why = silent.into_iter().filter_map(Result::err);
        if members.is_empty() {
            return Err(why.next().context("no builder is named")?);
        }
        let told = why.map(|why| format!("{why:#}; the other builders take what it would build"));
        let told = told.collect();
        let access = access.clone();
        Ok((Self { members, access }, told))
    }

    pub(super) fn refuse_what_it_cannot_do(&self, build: &Build) -> Result<(), Problem> {
        let has = |platform: &String| self.members.iter().any(|member| member.has(platform));
        if self
            .members
            .iter()
            .any(|member| build.platforms.iter().all(|platform| member.has(platform)))
            || !build.platforms.iter().all(has)
        {
            return Ok(());
        }
        let place = build.places.get(PLATFORMS).map_or("", String::as_str);
        Err(Problem::usage(format!(
            "{place}: `{PLATFORMS}`: each of {} has a builder, but none has all, and one image is built by one builder",
            build.platforms.join(", ")
        ))
        .hint("let one builder emulate the others (docker run --privileged tonistiigi/binfmt --install all), or name one platform"))
    }

    /// The one that builds this image: of those that have its platforms, always the same while it is among them
    /// (rendezvous hashing), so that what it keeps of earlier builds is there.
    fn member(&self, image: &str, platforms: &[String]) -> &Member {
        let has_all = |member: &&Member| platforms.iter().all(|platform| member.has(platform));
        let weight = |member: &&Member| *blake3::hash(format!("{image}\n{}", member.name).as_bytes()).as_bytes();
        let able = self.members.iter().filter(has_all).max_by_key(weight);
        // copying needs no platform, so let a builder try
        able.or_else(|| self.members.iter().max_by_key(weight)).expect("one at least")
    }

    pub(super) async fn build(&self, recipe: Recipe<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let member = self.member(recipe.image.as_str(), &recipe.build.platforms);
        debug!("{step}: built by {}", member.name);
        let made = buildkit_build(&member.buildkit, recipe, self.export(recipe.names), step, events).await;
        let (made, reads, reading) = self.access.explained(made, recipe.names, Pusher::Builder).await?;
        unchanged(reading).await?;
        Ok(Built::elsewhere(made, reads, recipe.names))
    }

    pub(super) async fn add_utilities(&self, addition: Addition<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let buildkit = &self.member(addition.image.as_str(), addition.platforms).buildkit;
        let build = InlineBuild {
            dockerfile: &dockerfile(addition.normal, addition.platforms),
            files: &addition.archives()?,
            platforms: addition.platforms,
        };
        let build = async {
            let made = buildkit.build_inline(build, self.export(addition.names), step, events).await;
            self.access.explained(made, addition.names, Pusher::Builder).await
        };
        let made = unless_it_has_folder(buildkit.has_folder(addition.normal, addition.platforms), build).await?;
        Ok(Built::elsewhere(made, Reads::of([]), addition.names))
    }

    pub(super) async fn binary_of(&self, image: &str, platform: &str) -> Result<Option<Vec<u8>>, Error> {
        let buildkit = &self.member(image, &[platform.to_owned()]).buildkit;
        buildkit.binary_of(image, platform).await
    }

    fn export<'a>(&self, names: Names<'a>) -> Export<'a> {
        if names.push_as.is_empty() {
            Export::Nowhere
        } else {
            Export::Push(self.access.push(names))
        }
    }
}

impl Member {
    async fn connect(node: &Node, access: &Access) -> Result<Self, Error> {
        let buildkit = match &node.reach {
            Reach::Listening(endpoint) => BuildKit::listening(&Dialler::new(endpoint)?, access.clone()).await?,
            Reach::Container { name, daemon } => {
                let (dialler, docker) = client(daemon)?;
                let docker = dialler.answered(docker.negotiate_version()).await?;
                BuildKit::in_container(docker, name, access.clone()).await.map_err(|error| {
                    Problem::failed(format!(
                        "no BuildKit answers in the container `{name}` of the daemon at {}: {error:#}",
                        daemon.address
                    ))
                    .hint("start it: docker start CONTAINER, or docker buildx inspect --bootstrap BUILDER")
                })?
            }
        };
        let platforms = node.platforms.iter().chain(&buildkit.platforms).map(|platform| canonical(platform));
        Ok(Self {
            name: node.to_string(),
            platforms: platforms.collect(),
            buildkit,
        })
    }

    fn has(&self, platform: &str) -> bool {
        self.platforms.contains(&canonical(platform))
    }
}
