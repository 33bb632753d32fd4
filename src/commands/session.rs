//! What several verbs begin with, and how those that build go on.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Error;
use clap::ValueEnum as _;
use tokio::time::timeout;
use tracing::debug;

use super::interrupt::Interrupt;
use crate::builder::{self, Choice};
use crate::channel::{Owner, Variant};
use crate::cli::{Common, PushBy, Run, Selection, Variants};
use crate::context::{Contexts, HashCache};
use crate::credentials::{Credentials, HELPER_TIMEOUT};
use crate::docker::{self, Access, BuilderChoice, Busybox, Daemon, Engine};
use crate::docker_config::{DockerConfig, Secret, process_environment};
use crate::event::{Event, Events};
use crate::execute::{Limits, OnFailure};
use crate::externals;
use crate::lock::{self, Lock};
use crate::machine;
use crate::manifest::{self, Environment, Lookup, Manifest, Outline, Utilities, UtilitiesSource};
use crate::plan::{self, Plan, Purpose, Request, Step, Work};
use crate::problem::{Problem, printable};
use crate::proxy::Proxies;
use crate::publish::{self, Channel, State};
use crate::record::Writer;
use crate::reference::{Digest, ImageName, Registry};
use crate::registry::{Client, Memory, Options};
use crate::report::{self, Form, Logs, Reporter};
use crate::run::Workshop;
use crate::user::{self, Surroundings};

const PUSH_BY: &str = "LATTICE_IMAGES_PUSH_BY";
const SAID_AFTER: Duration = Duration::from_secs(1);
const LOOKUP: Lookup<'static> = &|name| env::var(name).ok();

impl Selection {
    #[must_use]
    pub fn variant(self) -> Variant {
        if self.debug { Variant::Debug } else { Variant::Normal }
    }
}

impl Variants {
    #[must_use]
    pub fn list(self) -> &'static [Variant] {
        match (self.with_debug, self.selection.debug) {
            (true, _) => &[Variant::Normal, Variant::Debug],
            (false, true) => &[Variant::Debug],
            (false, false) => &[Variant::Normal],
        }
    }
}

/// The manifest that is named, or the nearest one.
pub fn manifest(common: &Common) -> Result<Manifest, Problem> {
    let current = current()?;
    let path = manifest_path(common, &current).ok_or_else(|| {
        Problem::usage(format!("there is no {} in this folder or above it", manifest::FILE_NAME))
            .hint("-f FILE (or LATTICE_IMAGES_FILE) names one")
    })?;
    let environment = Environment {
        lookup: LOOKUP,
        current: &current,
    };
    Manifest::load(&path, environment)
}

/// The names in it, where there is one: for verbs that can do without, and build nothing.
pub fn outline(common: &Common) -> Result<Option<Outline<'static>>, Problem> {
    let current = current()?;
    manifest_path(common, &current)
        .map(|path| Outline::load(&path, &current, LOOKUP))
        .transpose()
}

fn current() -> Result<PathBuf, Problem> {
    env::current_dir().map_err(|error| Problem::failed(format!("the current folder cannot be read: {error}")))
}

fn manifest_path(common: &Common, current: &Path) -> Option<PathBuf> {
    let named = common.file.clone().filter(|file| !file.as_os_str().is_empty());
    named.or_else(|| manifest::find(current))
}

/// `images` are those of the manifest, as far as there is one.
pub fn owner<'m>(common: &Common, selection: Selection, images: impl IntoIterator<Item = &'m ImageName>) -> Result<Owner, Problem> {
    if selection.stable {
        return match &common.user {
            Some(_) => Err(Problem::usage(
                "--stable and --user exclude each other: the channel `stable` is nobody's own",
            )),
            None => Ok(Owner::Stable),
        };
    }
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let surroundings = Surroundings {
        chosen: common.user.clone().or_else(|| set("LATTICE_IMAGES_USER")),
        sudo_user: set("SUDO_USER"),
    };
    let identity = user::identify(&surroundings)?;
    identity.name.refuse_images(images)?;
    identity.notes.iter().for_each(|note| report::note(note));
    Ok(Owner::User(identity.name))
}

/// The registry that is named, else `manifests`.
pub fn registry(common: &Common, manifests: impl FnOnce() -> Result<Registry, Problem>) -> Result<Registry, Problem> {
    match common.registry.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => text.parse(),
        None => manifests(),
    }
}

/// What Docker's own client would be configured with.
pub struct Docker {
    pub config: DockerConfig,
    /// Each host is asked for once.
    pub credentials: Credentials,
}

impl Docker {
    pub fn configured() -> Result<Self, Problem> {
        let config = DockerConfig::load(&process_environment).map_err(|error| Problem::failed(error.to_string()).hint(error.hint()))?;
        config.notes.iter().for_each(|note| report::note(note));
        let credentials = Credentials::new(&config, env::var_os("PATH"), HELPER_TIMEOUT);
        Ok(Self { config, credentials })
    }
}

pub fn client(docker: &Docker, insecure: Vec<String>) -> Result<Client, Problem> {
    let memory = cache().zip(docker.config.login()).map(|(cache, login)| Memory { cache, login });
    client_with(memory, docker, insecure)
}

/// Without a memory, everything is asked.
pub fn client_with(memory: Option<Memory>, docker: &Docker, insecure: Vec<String>) -> Result<Client, Problem> {
    let mut options = Options::from_environment(&process_environment, insecure);
    options.on_waiting = Some(Arc::new(|host| report::note(&format!("waiting for {host}"))));
    options.memory = memory;
    Client::new(docker.credentials.clone(), options)
}

/// What is planned of the manifest, and where it belongs.
pub struct Planned {
    pub manifest: Manifest,
    pub owner: Owner,
    pub registry: Registry,
    pub plan: Arc<Plan>,
}

/// `images` is a filter on the whole manifest; none named: all.
pub fn planned(common: &Common, variants: Variants, images: &[String], purpose: Purpose) -> Result<Planned, Problem> {
    let manifest = manifest(common)?;
    let owner = owner(common, variants.selection, manifest.names())?;
    let registry = registry(common, || Ok(manifest.registry_of(&owner).clone()))?;
    let request = Request {
        owner: &owner,
        variants: variants.list(),
        images,
        purpose,
    };
    let plan = Arc::new(plan::plan(&manifest, &registry, &request)?);
    Ok(Planned {
        manifest,
        owner,
        registry,
        plan,
    })
}

/// What is read of folders in this run, and remembered of runs before.
pub fn contexts() -> Arc<Contexts> {
    Arc::new(Contexts::new(HashCache::new(cache().as_deref())))
}

/// Reaches what builds, and makes ready what builds of the plan need. `digests` take the places of images' names.
pub async fn workshop(
    docker: &Docker,
    client: &Client,
    manifest: &Manifest,
    plan: &Plan,
    contexts: &Arc<Contexts>,
    digests: &BTreeMap<String, Digest>,
    options: &Run,
) -> Result<Workshop, Error> {
    let mut utilities = BTreeMap::new();
    for platform in debug_platforms(plan) {
        utilities.insert(platform.to_owned(), Busybox::from_manifest(&manifest.utilities, platform)?);
    }
    let (engine, proxies) = connect(docker, client, Some(manifest), &options.builder).await?;
    engine.refuse_what_it_cannot_do(plan.builds())?;
    let source = by_digest(&manifest.utilities, digests);
    let mut ready = BTreeMap::new();
    for (platform, busybox) in utilities {
        let busybox = match busybox {
            Some(busybox) => busybox,
            None => match engine.busybox(&source, &platform).await {
                Ok(busybox) => busybox,
                Err(error) => {
                    engine.tidy_up().await;
                    return Err(error);
                }
            },
        };
        ready.insert(platform, busybox);
    }
    Ok(Workshop {
        engine,
        contexts: Arc::clone(contexts),
        pull: options.pull,
        no_cache: options.no_cache,
        proxies,
        utilities: ready,
    })
}

fn by_digest(utilities: &Utilities, digests: &BTreeMap<String, Digest>) -> Utilities {
    let mut utilities = utilities.clone();
    if let UtilitiesSource::Image(image) = &mut utilities.source
        && let Some(digest) = digests.get(image)
    {
        *image = externals::pinned(image, digest);
    }
    utilities
}

/// Two runs on one machine that write to one channel take turns.
/// Without a cache that can be written, nobody waits.
pub async fn turn(channels: &[String], writer: &Writer) -> Option<Lock> {
    let cache = cache()?;
    let holder = format!("process {} of {}", writer.pid, writer.user);
    let waiting = |channel: &str, holder: &str| report::note(&format!("{holder} is publishing to {channel}: waiting for its end"));
    let lock = lock::take(&cache, channels, &holder, waiting).await;
    lock.inspect_err(|error| debug!("{}: {error}", cache.display())).ok()
}

/// Does `work` where there is no reporter, and shows its notes.
pub async fn noting<T>(work: impl AsyncFnOnce(&Events) -> T) -> T {
    let (events, mut told) = Events::channel();
    let work = Box::pin(async move {
        let done = work(&events).await;
        drop(events);
        done
    });
    let show = async {
        while let Some(event) = told.recv().await {
            if let Event::Note { text, .. } = event {
                report::note(&text);
            }
        }
    };
    tokio::join!(work, show).0
}

/// The channel as it is, for who only looks: what was begun there and not ended is told, and left.
pub async fn looked_at(channel: &Channel) -> Result<State, Problem> {
    let state = channel.state().await?;
    if publish::intent(channel, &state).await?.is_some() {
        report::note(&format!(
            "{} is being changed at this moment, or was interrupted",
            channel.address()
        ));
    }
    Ok(state)
}

/// What comes before anything is begun ends with the first Ctrl-C.
pub async fn unless_interrupted<T>(interrupt: &Interrupt, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        () = interrupt.once.cancelled() => Err(Problem::interrupted("; nothing was begun").into()),
    }
}

/// Does `work` and shows its events.
pub async fn shown<T>(
    form: Form,
    plan: &Plan,
    options: &Run,
    interrupt: &Interrupt,
    work: impl AsyncFnOnce(&Limits, &Events) -> T,
) -> Result<(T, Logs), Error> {
    let (events, reporter) = Reporter::start(form, plan, Logs::new(cache().as_deref()));
    let limits = limits(options, interrupt);
    let done = tokio::select! {
        done = work(&limits, &events) => Some(done),
        () = interrupt.twice(&events) => None,
    };
    let logs = reporter.finish(events).await;
    match done {
        Some(done) => Ok((done, logs)),
        None => Err(Interrupt::left().into()),
    }
}

/// # Errors
/// When what is to be built asks for a secret that is not there.
pub fn refuse_missing_secrets<'p>(steps: impl IntoIterator<Item = &'p Step>) -> Result<(), Problem> {
    steps.into_iter().try_for_each(|step| match &step.work {
        Work::Build { build, .. } => build.refuse_missing_secrets(&process_environment),
        Work::AddUtilities { .. } => Ok(()),
    })
}

/// What a build fetches unchecked is outside its fingerprint.
pub fn warn_of_downloads(plan: &Plan) -> Result<(), Problem> {
    let mut told = BTreeSet::new();
    for step in &plan.steps {
        let Work::Build { build, .. } = &step.work else { continue };
        for line in build.of_each_platform(|dockerfile, args| dockerfile.unchecked_downloads(args, build.target.as_deref()))? {
            let note = format!(
                "{}:{line}: `{}` fetches an address without `--checksum`: when other content comes from there, the image is not built again",
                build.dockerfile.file, step.image
            );
            if told.insert(note.clone()) {
                report::note(&note);
            }
        }
    }
    Ok(())
}

pub fn debug_platforms(plan: &Plan) -> BTreeSet<&str> {
    let platforms = plan.steps.iter().filter_map(|step| match &step.work {
        Work::AddUtilities { platforms, .. } => Some(platforms),
        Work::Build { .. } => None,
    });
    platforms.flatten().map(String::as_str).collect()
}

/// The daemon of the person, where there is one.
pub async fn daemon(docker: &Docker) -> Result<Daemon, Error> {
    let endpoint = builder::daemon(&process_environment, &docker.config)?;
    let access = access(docker, &client(docker, Vec::new())?, Vec::new());
    Daemon::connect(&endpoint, which(), access).await
}

/// Reaches what builds: what `options` name, or else the environment or the manifest.
pub async fn connect(
    docker: &Docker,
    client: &Client,
    manifest: Option<&Manifest>,
    options: &[String],
) -> Result<(Engine, Vec<(String, Secret)>), Error> {
    let current = current()?;
    let of_manifest = manifest.and_then(|manifest| manifest.builder.as_ref());
    let named = builder::named(options, &process_environment, &current, of_manifest);
    let choice: Choice = builder::resolve(named.as_ref(), &process_environment, &docker.config)?;
    let insecure = manifest.map_or(Vec::new(), |manifest| manifest.insecure_registries.clone());
    let address = choice.address();
    let access = access(docker, client, insecure);
    let builder = if address.is_empty() { "the builders" } else { &address };
    let waiting = format!("waiting for {}", printable(builder));
    let (engine, notes) = told_of(&waiting, Engine::connect(&choice, which(), &access)).await?;
    for note in notes {
        report::note(&note);
    }
    Ok((engine, docker.config.proxy_build_args(&address)))
}

/// What takes its time is told of.
async fn told_of<T>(note: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(SAID_AFTER, &mut work).await {
        return done;
    }
    report::note(note);
    work.await
}

/// Who is to push: the option, else the environment. `None` leaves it to the tool.
pub fn push_by(option: Option<PushBy>) -> Result<Option<docker::PushBy>, Problem> {
    let variable = env::var(PUSH_BY).ok().filter(|value| !value.is_empty());
    let chosen = match (option, variable) {
        (None, Some(value)) => {
            let chosen = PushBy::from_str(&value, false);
            Some(chosen.map_err(|_| Problem::usage(format!("{PUSH_BY} is `{}`, and can be daemon or client", printable(&value))))?)
        }
        (option, _) => option,
    };
    Ok(chosen.map(|chosen| match chosen {
        PushBy::Daemon => docker::PushBy::Daemon,
        PushBy::Client => docker::PushBy::Client,
    }))
}

fn which() -> BuilderChoice {
    if env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0") {
        BuilderChoice::Classic
    } else {
        BuilderChoice::Best
    }
}

fn access(docker: &Docker, client: &Client, insecure_registries: Vec<String>) -> Access {
    Access {
        registry: client.clone(),
        proxies: Proxies::from_environment(&process_environment),
        credentials: docker.credentials.clone(),
        machine: machine::id(cache().as_deref()),
        insecure_registries,
        cache: cache(),
    }
}

fn limits(options: &Run, interrupt: &Interrupt) -> Limits {
    Limits {
        jobs: options.jobs.map_or(2 * machine::cores(), usize::from),
        on_failure: if options.fail_fast { OnFailure::Stop } else { OnFailure::KeepGoing },
        cancel: interrupt.once.clone(),
    }
}

/// `$XDG_CACHE_HOME/lattice-images`, else below `~/.cache` (XDG Base Directory Specification).
pub fn cache() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join(Path::new("lattice-images")))
}
