//! Builds through a BuildKit, a daemon's or another: only files that changed travel.

mod files;
mod folder;
mod gateway;
mod line;
mod llb;
mod received;
mod replica;
mod request;
mod secrets;
mod session;
mod solve;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error};
use bollard::Docker;
use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{ListWorkersRequest, SolveRequest};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::transport::Channel;
use tracing::debug;

use super::Access;
use super::dial::Dialler;
use super::meter::metered;
use super::recipe::{InlineBuild, Made, Recipe, Sibling};
use super::utilities::FOLDER;
use crate::context::{Inline, Reading};
use crate::dockerfile::Reads;
use crate::event::{Event, Events};
use crate::machine;
use crate::manifest::{SOURCE_DATE_EPOCH, SecretSource};
use crate::problem::Problem;
use files::{AsksForMore, Files};
use folder::Folder;
pub(super) use gateway::Look;
use gateway::{Bridge, Definitions, Question};
use line::Line;
pub(super) use llb::Upon;
use received::Received;
pub(super) use replica::{Dialect, Replica};
use request::Asked;
pub(super) use request::{Ahead, Export, Push};
use secrets::{Agents, Given};
use session::{Offer, Session};
use solve::{Making, Settling, Solved};

const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
const DOCKERFILE_NAME: &str = "Dockerfile";
/// Rules beside the Dockerfile go before those of the context. These have that frontends do not apply what was applied before
/// anything is sent, and newer ones do not ask for it: in the context, `.dockerignore` is a file as any other.
const RULES: (&str, &str) = ("Dockerfile.dockerignore", "# nothing\n");
const TRIES: u32 = 5;
/// A daemon has 250 streams on a connection (Go's `net/http2`), of which a build takes up to three until it ends: what it asks
/// for meanwhile is to have some, too.
const MOST_BUILDS: usize = 60;
const LARGEST_ANSWER: usize = 64 << 20;
/// What an exporter answers: the digest of the image's manifest or index, or, of a graph driver store, of its configuration.
const DIGEST: &str = "containerimage.digest";

/// A BuildKit that has answered.
#[derive(Clone)]
pub(super) struct BuildKit {
    /// No other has it.
    id: String,
    line: Line,
    channel: Channel,
    /// At once.
    builds: Arc<Semaphore>,
    access: Access,
    /// For builds that ask for none; `None` leaves it to BuildKit, which in a daemon wants the daemon's bridge.
    pub(super) network: Option<&'static str>,
    /// What it can run, `os/architecture[/variant]`; not asked of a daemon's.
    pub(super) platforms: Vec<String>,
    /// Whether its frontend knows `COPY --link` (Dockerfile 1.4).
    pub(super) links: bool,
    /// In which it answered; not asked of a daemon's.
    pub(super) answers_in: Option<Duration>,
}

/// How an image was made, for the BuildKit that has made it.
#[derive(Debug)]
pub(super) struct Origin {
    builder: String,
    definitions: Definitions,
    replica: Option<Arc<Replica>>,
    /// Of whose folders the definitions tell. A builder that has lost what it made of them asks for them again, and takes those
    /// of any other session where there is none (moby/buildkit, `source/local`).
    _session: Session,
}

impl BuildKit {
    /// `None` when the daemon has none.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn of_daemon(dialler: Dialler, access: Access) -> Result<Option<Self>, Error> {
        Ok(Line::of_daemon(dialler)
            .await?
            .map(|(line, channel)| Self::new(line, channel, access)))
    }

    /// # Errors
    /// When nothing that is a BuildKit answers: where, who named it, and what to do.
    pub(super) async fn listening(dialler: &Dialler, access: Access) -> Result<Self, Problem> {
        let connected = dialler.in_time(async {
            let (line, channel) = Line::direct(dialler).await?;
            Self::asked(line, channel, access).await
        });
        connected.await?.map_err(|error| match error.downcast() {
            Ok(problem) => problem,
            Err(error) => dialler.unreachable(error.as_ref()),
        })
    }

    /// # Errors
    /// When the container does not run, or holds no BuildKit.
    pub(super) async fn in_container(docker: Docker, container: &str, access: Access) -> Result<Self, Error> {
        let (line, channel) = Line::into_container(docker, container).await?;
        Self::asked(line, channel, access).await
    }

    fn new(line: Line, channel: Channel, access: Access) -> Self {
        Self {
            id: machine::random(),
            line,
            channel,
            builds: Arc::new(Semaphore::new(MOST_BUILDS)),
            access,
            network: None,
            platforms: Vec::new(),
            links: false,
            answers_in: None,
        }
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    async fn asked(line: Line, channel: Channel, access: Access) -> Result<Self, Error> {
        let buildkit = Self::new(line, channel, access);
        let answer = buildkit.control().list_workers(ListWorkersRequest::default()).await?;
        // the first answer had to wait for the line
        let asked = Instant::now();
        buildkit.control().list_workers(ListWorkersRequest::default()).await?;
        let answers_in = Some(asked.elapsed());
        let workers = answer.into_inner().record;
        // those that tell their version know it
        let links = workers.iter().all(|worker| worker.buildkit_version.is_some());
        let platforms = workers.into_iter().flat_map(|worker| worker.platforms);
        let platforms = platforms.map(|platform| platform_name(&[platform.os, platform.architecture, platform.variant]));
        Ok(Self {
            platforms: platforms.collect(),
            links,
            answers_in,
            ..buildkit
        })
    }

    pub(super) async fn build(
        &self,
        recipe: Recipe<'_>,
        export: Export<'_>,
        reading: &Reading,
        step: &str,
        events: &Events,
    ) -> Result<Made, Error> {
        let build = recipe.build;
        let mut asked = request::of_recipe(recipe, export, self.network);
        // a daemon's siblings are in no registry: what it is to pull, it has pulled
        if matches!(self.line, Line::Direct) && (recipe.pull || build.pull) {
            asked.question.set("image-resolve-mode".to_owned(), "pull");
        }
        let siblings = self.give(&mut asked.question, recipe.siblings);
        let solve = Solve {
            asked,
            siblings,
            look: recipe.gets_utilities.then_some(Look::After { folder: FOLDER }),
            folders: folders(reading)?,
            reads: reading.reads.clone(),
            dockerfile: recipe.dockerfile,
            shared: &shared(reading),
            secrets: build.secrets.clone(),
            agents: build.ssh.clone(),
            received: Received::default(),
        };
        let made = self.made(solve, step, events).await?;
        // what stood on it would be made anew with it
        let again = recipe.no_cache || build.no_cache;
        Ok(Made {
            origin: made.origin.filter(|_| !again),
            ..made
        })
    }

    pub(super) async fn build_inline(
        &self,
        build: InlineBuild<'_>,
        export: Export<'_>,
        step: &str,
        events: &Events,
    ) -> Result<Made, Error> {
        let mut solve = Solve::inline(build, export);
        solve.siblings = self.give(&mut solve.asked.question, build.siblings);
        if let Some(upon) = build.upon {
            solve.asked.question.answer(upon.clone());
        }
        self.made(solve, step, events).await
    }

    /// Siblings that were made here need not come back as images; of these, those that can be made again.
    fn give(&self, question: &mut Question, siblings: &[Sibling]) -> Vec<Arc<Replica>> {
        let mut replicas = Vec::new();
        for sibling in siblings {
            if let Some(origin) = sibling.origin.as_ref().filter(|origin| origin.builder == self.id) {
                question.give(&sibling.name, &origin.definitions);
                replicas.extend(origin.replica.clone());
            }
        }
        replicas
    }

    /// The files that a build makes, as a tar of `limit` bytes at most.
    pub(super) async fn files_of(&self, build: InlineBuild<'_>, limit: usize, step: &str, events: &Events) -> Result<Vec<u8>, Error> {
        let received = Received::up_to(limit);
        let solve = Solve {
            received: received.clone(),
            ..Solve::inline(build, Export::Files)
        };
        self.solve(solve, step, events).await?;
        Ok(received.take())
    }

    async fn made(&self, solve: Solve<'_>, step: &str, events: &Events) -> Result<Made, Error> {
        let is_exported = !solve.asked.request.exporter_deprecated.is_empty();
        let (solved, session) = self.solve(solve, step, events).await?;
        let mut cached = solved.cached;
        let id = if is_exported {
            let id = solved.answer.get(DIGEST);
            id.context("the builder named no image at the end of the build")?.parse()?
        } else {
            let not_again = |why: String| NotAgain { why, cached };
            let replica = solved.replica.clone();
            let replica = replica.ok_or_else(|| not_again("it is made of other than copied files".to_owned()))?;
            let making = move || Ok::<_, Error>((replica.image(Dialect::OF_BUILDKIT)?, replica.left(Dialect::OF_BUILDKIT)?));
            let (image, left) = spawn_blocking(making).await?.map_err(|error| not_again(format!("{error:#}")))?;
            if !left.is_empty() {
                cached = solve::tell_left(left, step, events);
            }
            image.id
        };
        Ok(Made {
            id,
            cached,
            has_folder: solved.made.has_folder,
            below: solved.made.below(),
            origin: Some(Arc::new(Origin {
                builder: self.id.clone(),
                definitions: solved.made.definitions,
                replica: solved.replica.clone(),
                _session: session,
            })),
            replica: solved.replica,
        })
    }

    async fn solve(&self, mut solve: Solve<'_>, step: &str, events: &Events) -> Result<(Solved, Session), Error> {
        let dockerfile = [(DOCKERFILE_NAME, solve.dockerfile), RULES].map(|(name, text)| Inline::file(name, text.as_bytes(), 0o644));
        solve.folders.push((DOCKERFILE.to_owned(), Folder::of_inline(&dockerfile)));
        let parts = HashMap::from([(CONTEXT.to_owned(), solve.reads.clone())]);
        let files = Files::new(std::mem::take(&mut solve.folders), parts);
        let mut tries_left = TRIES;
        loop {
            let files = files.again();
            let solving = self.solve_once(&solve, files.clone(), step, events);
            let tell = |sent, total| events.send(Event::sending(step, sent, total));
            let solved = metered(solving, || (files.sent(), files.asked()), tell).await;
            debug!("{step}: {} bytes of context sent", files.sent());
            tries_left -= 1;
            match (files.failure(), solved) {
                // a context that broke off is the cause, whatever the builder made of it
                (Some(failure), _) => return Err(failure),
                (None, Err(error)) if tries_left > 0 && is_race(&error) => debug!("{step}: trying again: {error:#}"),
                (None, Err(error)) if tries_left > 0 && has_forgotten(&error) => {
                    debug!("{step}: what it stands on is fetched: {error:#}");
                    solve.asked.question.fetch_all();
                }
                (None, solved) => return solved,
            }
        }
    }

    async fn solve_once(&self, solve: &Solve<'_>, files: Files, step: &str, events: &Events) -> Result<(Solved, Session), Error> {
        let _build = self.builds.acquire().await?;
        let shared_key = format!("{:x}", Sha256::digest(format!("{}\n{}", self.access.machine, solve.shared)));
        let settling = Settling {
            folders: files.folders(),
            siblings: solve.siblings.clone(),
            again: solve.asked.again,
            cache: self.access.cache.clone(),
        };
        let offer = Offer {
            files,
            credentials: self.access.credentials.clone(),
            secrets: Given(solve.secrets.clone()),
            agents: Agents(solve.agents.clone()),
            received: solve.received.clone(),
        };
        let session = Session::open(&self.line, &self.control(), machine::random(), shared_key, offer).await?;
        let build = machine::random();
        let request = SolveRequest {
            r#ref: build.clone(),
            session: session.id.clone(),
            // to be kept in the history of builds takes as long as a small one
            internal: true,
            ..solve.asked.request.clone()
        };
        let bridge = Bridge::to(self.channel.clone(), &build)?;
        let making = Making {
            bridge,
            question: solve.asked.question.clone(),
            look: solve.look,
            settling,
        };
        Ok((solve::solve(self.control(), request, making, step, events).await?, session))
    }
}

fn platform_name(parts: &[String]) -> String {
    let parts = parts.iter().filter(|part| !part.is_empty()).map(String::as_str);
    parts.collect::<Vec<_>>().join("/")
}

/// A build has nothing wrong, and only cannot be made again by this program.
#[derive(Debug)]
pub(super) struct NotAgain {
    pub(super) why: String,
    /// As [`Made::cached`].
    pub(super) cached: bool,
}

impl fmt::Display for NotAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for NotAgain {}

/// Whether a build failed because it reads more of its context than it was offered.
pub(super) fn asks_for_more(error: &Error) -> bool {
    error.is::<AsksForMore>()
}

/// Parallel builds that share layers, or a name, get in each other's way in the containerd image store of engine 28; the same
/// build succeeds when it is tried again. So it does where a builder has so much to do that it takes longer to begin a build than
/// it waits for that itself (moby/buildkit, `control/gateway`).
fn is_race(error: &Error) -> bool {
    let message = format!("{error:#}");
    message.contains("failed to prepare extraction snapshot")
        || message.contains("no such job")
        || (message.contains("parent snapshot") && message.contains("does not exist"))
        || (message.starts_with("image ") && message.ends_with("already exists"))
}

/// Whether what a sibling was made from is wanted again, and gone: its build has ended.
fn has_forgotten(error: &Error) -> bool {
    format!("{error:#}").contains("no active session")
}

struct Solve<'a> {
    asked: Asked<'a>,
    siblings: Vec<Arc<Replica>>,
    look: Option<Look>,
    folders: Vec<(String, Folder)>,
    /// What the context is offered of its folder.
    reads: Reads,
    dockerfile: &'a str,
    /// Names the folders among those that this machine syncs.
    shared: &'a str,
    secrets: BTreeMap<String, SecretSource>,
    agents: BTreeMap<String, PathBuf>,
    received: Received,
}

impl<'a> Solve<'a> {
    fn inline(build: InlineBuild<'a>, export: Export<'a>) -> Self {
        let mut asked = request::of_platforms(build.platforms, export);
        if let Some(seconds) = build.epoch {
            asked.question.set(format!("build-arg:{SOURCE_DATE_EPOCH}"), seconds);
        }
        Self {
            siblings: Vec::new(),
            asked,
            look: build.look,
            folders: vec![(CONTEXT.to_owned(), Folder::of_inline(build.files))],
            reads: Reads::Whole,
            dockerfile: build.dockerfile,
            shared: "inline",
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            received: Received::default(),
        }
    }
}

/// The context and the additional ones that are folders.
fn folders(reading: &Reading) -> Result<Vec<(String, Folder)>, Error> {
    let context = (CONTEXT.to_owned(), Folder::of_context(Arc::clone(&reading.context))?);
    let named = reading
        .named
        .iter()
        .map(|(name, context)| Ok((folder_name(name), Folder::of_context(Arc::clone(context))?)));
    [Ok(context)].into_iter().chain(named).collect()
}

/// What the folder of an additional context is called: where its own name is that of a main one, with a sign before it that no
/// context has there (docker/buildx, `build`).
fn folder_name(additional: &str) -> String {
    match additional {
        CONTEXT | DOCKERFILE => format!("_{additional}"),
        _ => additional.to_owned(),
    }
}

/// Builds that read other parts of a folder would take each other's files away.
fn shared(reading: &Reading) -> String {
    let root = reading.context.root.display();
    match &reading.reads {
        Reads::Whole => root.to_string(),
        Reads::Paths(paths) => format!("{root}\n{}", paths.iter().map(String::as_str).collect::<Vec<_>>().join("\n")),
    }
}
