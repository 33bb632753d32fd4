//! Builders apart from a daemon, each a BuildKit: each build goes to one of them, the same image to the same, and is pushed from there.

use std::sync::Arc;
use std::{ptr, slice};

use anyhow::{Context as _, Error};
use futures_util::future::{join_all, try_join_all};
use tracing::debug;

use super::build::{built_at_rest, recalled};
use super::buildkit::{BuildKit, Dialect, Export};
use super::dial::Dialler;
use super::index::{self, Part};
use super::push::Pusher;
use super::recipe::{Built, Made, Names, Recipe, Sibling};
use super::staging::Staging;
use super::utilities::Addition;
use super::{Access, FAR, PushBy, client};
use crate::builder::{Node, Reach};
use crate::dockerfile::Reads;
use crate::endpoint::Address;
use crate::event::Events;
use crate::manifest::{Build, canonical};
use crate::problem::Problem;
use crate::proxy::is_loopback;
use crate::reference::{Digest, Reference};

pub struct Builders {
    /// One at least.
    members: Vec<Member>,
    access: Access,
    /// For what this program pushes.
    pub(super) staging: Arc<Staging>,
    /// `None` leaves it to us.
    pub(super) push_by: Option<PushBy>,
}

struct Member {
    /// As messages show it, and what images are assigned by.
    name: String,
    /// In canonical form.
    platforms: Vec<String>,
    buildkit: BuildKit,
    /// It is on this machine, as far as can be told.
    is_near: bool,
}

impl Builders {
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
        let staging = Staging::new(None, Some(Dialect::OF_BUILDKIT), access.registry.clone(), access.cache.clone());
        let builders = Self {
            members,
            access,
            staging: Arc::new(staging),
            push_by: None,
        };
        Ok((builders, told))
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

    pub(super) fn description(&self) -> String {
        let members = self.members.iter().map(|member| format!("BuildKit at {}", member.name));
        members.collect::<Vec<_>>().join(", ")
    }

    /// Who builds what of it: one builder all, or, where none has all platforms and all have a builder, several some each.
    fn assigned(&self, image: &str, platforms: &[String]) -> Vec<(&Member, Vec<String>)> {
        let has_all = |member: &Member| platforms.iter().all(|platform| member.has(platform));
        let has_one = |platform: &String| self.members.iter().any(|member| member.has(platform));
        if self.members.iter().any(has_all) || !platforms.iter().all(has_one) {
            return vec![(self.member(image, platforms), platforms.to_vec())];
        }
        let mut assigned: Vec<(&Member, Vec<String>)> = Vec::new();
        for platform in platforms {
            let member = self.member(image, slice::from_ref(platform));
            match assigned.iter_mut().find(|(other, _)| ptr::eq(*other, member)) {
                Some((_, its)) => its.push(platform.clone()),
                None => assigned.push((member, vec![platform.clone()])),
            }
        }
        assigned
    }

    pub(super) async fn build(&self, recipe: Recipe<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let assigned = self.assigned(recipe.image.as_str(), &recipe.build.platforms);
        if let [(member, _)] = assigned[..] {
            return self.build_by(member, recipe, step, events).await;
        }
        let built = assigned.into_iter().map(async |(member, platforms)| {
            let build = &Build {
                platforms: platforms.clone(),
                ..recipe.build.clone()
            };
            let part = self.build_by(member, Recipe { build, ..recipe }, step, events).await?;
            Ok::<_, Error>((part, platforms))
        });
        let (built, platforms): (Vec<_>, Vec<_>) = try_join_all(built).await?.into_iter().unzip();
        self.combined(&built, platforms, recipe).await
    }

    async fn build_by(&self, member: &Member, recipe: Recipe<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        debug!("{step}: built by {}", member.name);
        let build = async |export: Export<'_>| {
            let made = built_at_rest(&member.buildkit, recipe, export, step, events).await;
            self.access.explained(made, recipe.names, Pusher::Builder).await
        };
        self.taken(member, recipe.names, recipe.is_to_be_taken(), step, events, build).await
    }

    pub(super) async fn recall(&self, recipe: Recipe<'_>, name: &str, id: &Digest, step: &str) -> Option<Sibling> {
        let [member] = &self.members[..] else { return None };
        if !self.pushes_for(member) {
            return None;
        }
        recalled(&member.buildkit, recipe, name, id, step).await
    }

    /// Whether images that this program can make again are its to push.
    fn pushes_for(&self, member: &Member) -> bool {
        match self.push_by {
            Some(chosen) => chosen == PushBy::Client,
            None => member.is_near,
        }
    }

    /// Has it built, and, if it is to be pushed, taken or pushed by the builder.
    async fn taken(
        &self,
        member: &Member,
        names: Names<'_>,
        is_copied: bool,
        step: &str,
        events: &Events,
        build: impl AsyncFn(Export<'_>) -> Result<(Made, Reads), Error>,
    ) -> Result<Built, Error> {
        let [name, ..] = names.push_as else {
            let (made, reads) = build(Export::Nowhere).await?;
            return Ok(Built::elsewhere(made, reads, names));
        };
        let is_ours = is_copied && self.pushes_for(member);
        let push = self.access.push(names);
        let image = self.staging.take(names, is_ours, push, step, &build).await?;
        // a frontend that knows no named contexts finds it in the registry, too
        if image.pushed.is_some() || self.members.len() == 1 && member.buildkit.links {
            return Ok(image);
        }
        match self.brought(image, name, step, events).await {
            Ok(image) => Ok(image),
            Err(error) => {
                debug!("{step}: the builder pushes it: {error:#}");
                let (made, reads) = build(Export::Push(push)).await?;
                Ok(Built::elsewhere(made, reads, names))
            }
        }
    }

    /// One of several builders finds it in the registry.
    async fn brought(&self, mut built: Built, name: &Reference, step: &str, events: &Events) -> Result<Built, Error> {
        let pushed = self.staging.stage(&built, name, step, events).await?;
        let manifest = pushed.manifest.as_ref().context("it has no manifest")?;
        self.access.registry.repository(name.repository()).put(name.tag(), manifest).await?;
        built.id = pushed.digest.clone();
        built.pushed = Some(pushed);
        Ok(built)
    }

    /// What is only built stays apart, each in its builder's cache.
    async fn combined(&self, built: &[Built], platforms: Vec<Vec<String>>, recipe: Recipe<'_>) -> Result<Built, Error> {
        let reads = built.iter().map(|built| &built.reads).find(|reads| **reads == Reads::Whole);
        let mut made = Made {
            replica: None,
            below: Vec::new(),
            id: built[0].id.clone(),
            cached: built.iter().all(|built| built.cached),
            has_folder: built
                .iter()
                .map(|built| built.has_folder)
                .reduce(|one, other| Some(one? || other?))
                .flatten(),
            // nobody alone made all of it
            origin: None,
        };
        if !recipe.names.push_as.is_empty() {
            let parts = built.iter().zip(platforms).map(|(built, platforms)| Part {
                digest: built.id.clone(),
                platforms,
            });
            let repository = self.access.registry.repository(recipe.names.reference.repository());
            made.id = index::combined(&repository, &parts.collect::<Vec<_>>(), &recipe.build.platforms).await?;
        }
        Ok(Built::elsewhere(made, reads.unwrap_or(&built[0].reads).clone(), recipe.names))
    }

    pub(super) async fn add_utilities(&self, addition: Addition<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let member = self.member(addition.image.as_str(), addition.platforms);
        let files = addition.archives()?;
        let build = async |export: Export<'_>| {
            let made = member.buildkit.add_utilities(addition, &files, export, step, events).await;
            self.access.explained(made, addition.names, Pusher::Builder).await
        };
        self.taken(member, addition.names, addition.is_to_be_taken(), step, events, build)
            .await
    }

    pub(super) async fn binary_of(&self, image: &str, platform: &str) -> Result<Option<Vec<u8>>, Error> {
        let buildkit = &self.member(image, &[platform.to_owned()]).buildkit;
        buildkit.binary_of(image, platform).await
    }
}

impl Member {
    async fn connect(node: &Node, access: &Access) -> Result<Self, Error> {
        let buildkit = match &node.reach {
            Reach::Listening(endpoint) => BuildKit::listening(&Dialler::new(endpoint, &access.proxies)?, access.clone()).await?,
            Reach::Container { name, daemon } => {
                let (dialler, docker) = client(daemon, access)?;
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
        let address = match &node.reach {
            Reach::Listening(endpoint) => &endpoint.address,
            Reach::Container { daemon, .. } => &daemon.address,
        };
        // what a tunnel ends in is farther than its address tells
        let is_near = match address {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => is_loopback(host),
            Address::Ssh { .. } => false,
        } && buildkit.answers_in.is_some_and(|answers_in| answers_in < FAR);
        Ok(Self {
            is_near,
            name: node.to_string(),
            platforms: platforms.collect(),
            buildkit,
        })
    }

    fn has(&self, platform: &str) -> bool {
        self.platforms.iter().any(|own| own == platform)
    }
}
