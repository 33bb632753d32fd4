//! What several verbs begin with, and how those that build go on.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Error};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::channel::{Owner, Variant};
use crate::cli::{Common, Run, Selection, Variants};
use crate::credentials::{Credentials, HELPER_TIMEOUT};
use crate::docker::{BuilderChoice, Busybox, Daemon};
use crate::docker_config::{DockerConfig, process_environment};
use crate::endpoint;
use crate::execute::{Limits, OnFailure};
use crate::machine;
use crate::manifest::{self, Environment, Manifest};
use crate::plan::{Plan, Purpose, Work};
use crate::problem::Problem;
use crate::reference::Registry;
use crate::report::{self, Logs, Reporter};
use crate::run::{self, Settings};
use crate::user::{self, Surroundings};

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
    found_manifest(common)?.ok_or_else(|| {
        Problem::usage(format!("there is no {} in this folder or above it", manifest::FILE_NAME))
            .hint("-f FILE (or LATTICE_IMAGES_FILE) names one")
    })
}

/// Like [`manifest`], for verbs that can do without.
pub fn found_manifest(common: &Common) -> Result<Option<Manifest>, Problem> {
    let current = env::current_dir().map_err(|error| Problem::failed(format!("the current folder cannot be read: {error}")))?;
    let environment = Environment {
        lookup: &|name| env::var(name).ok(),
        current: &current,
    };
    let named = common.file.clone().filter(|file| !file.as_os_str().is_empty());
    named
        .or_else(|| manifest::find(&current))
        .map(|path| Manifest::load(&path, environment))
        .transpose()
}

pub fn owner(common: &Common, selection: Selection, manifest: Option<&Manifest>) -> Result<Owner, Problem> {
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
    if let Some(manifest) = manifest {
        identity.name.refuse_images(manifest.names())?;
    }
    identity.notes.iter().for_each(|note| report::note(note));
    Ok(Owner::User(identity.name))
}

pub fn registry(common: &Common, manifest: Option<&Manifest>, owner: &Owner) -> Result<Registry, Problem> {
    match (common.registry.as_deref().filter(|text| !text.is_empty()), manifest) {
        (Some(text), _) => text.parse(),
        (None, Some(manifest)) => Ok(manifest.registry_of(owner).clone()),
        (None, None) => manifest::DEFAULT_REGISTRY.parse(),
    }
}

/// Carries out a plan with the daemon and shows what came of it.
pub async fn carry_out(manifest: &Manifest, plan: &Plan, purpose: Purpose, options: &Run) -> Result<(), Error> {
    let mut utilities = BTreeMap::new();
    for platform in debug_platforms(plan) {
        utilities.insert(platform.to_owned(), Busybox::from_manifest(&manifest.utilities, platform)?);
    }
    let daemon = connect().await?;
    daemon.refuse_what_it_cannot_do(plan.builds())?;
    let mut ready = BTreeMap::new();
    for (platform, busybox) in utilities {
        let busybox = match busybox {
            Some(busybox) => busybox,
            None => daemon.busybox(&manifest.utilities, &platform).await?,
        };
        ready.insert(platform, busybox);
    }
    let settings = Settings {
        limits: limits(options)?,
        pull: options.pull,
        no_cache: options.no_cache,
        utilities: ready,
    };
    let width = plan.steps.iter().map(|step| step.label().len()).max().unwrap_or(0);
    let (events, reporter) = Reporter::start(options.progress(), width, Logs::new(cache().as_deref()));
    let rows = run::run(plan, &daemon, &settings, &events).await;
    let logs = reporter.finish(events).await;
    if let Some(path) = &options.metadata_file {
        report::metadata(&rows, path)?;
    }
    Ok(report::finish(plan, &rows, purpose, options.progress(), &logs)?)
}

fn debug_platforms(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.steps.iter().filter_map(|step| match &step.work {
        Work::AddUtilities { platform, .. } => Some(platform.as_str()),
        Work::Build { .. } => None,
    })
}

async fn connect() -> Result<Daemon, Error> {
    let config = DockerConfig::load(&process_environment).map_err(|error| Problem::failed(error.to_string()).hint(error.hint()))?;
    config.notes.iter().for_each(|note| report::note(note));
    let endpoint = endpoint::resolve(&process_environment, &config).map_err(|error| Problem::failed(error.to_string()).hint(error.hint))?;
    let choice = if env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0") {
        BuilderChoice::Classic
    } else {
        BuilderChoice::Best
    };
    let credentials = Credentials::new(&config, env::var_os("PATH"), HELPER_TIMEOUT);
    let daemon = Daemon::connect(&endpoint, credentials, choice, &machine::id(cache().as_deref())).await?;
    if choice == BuilderChoice::Best && daemon.builds_classically() {
        report::note("the daemon has no BuildKit: builds go through its classic builder, which takes the whole context each time");
    }
    Ok(daemon)
}

fn limits(options: &Run) -> Result<Limits, Error> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cancel = CancellationToken::new();
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .context("listening for Ctrl-C")?;
    let asked_to_stop = cancel.clone();
    tokio::spawn(async move {
        let [interrupt, terminate] = signals.as_mut_slice() else {
            unreachable!("two signals are listened for")
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        asked_to_stop.cancel();
    });
    Ok(Limits {
        jobs: options.jobs.map_or(cores, usize::from),
        on_failure: if options.fail_fast { OnFailure::Stop } else { OnFailure::KeepGoing },
        cancel,
    })
}

/// `$XDG_CACHE_HOME/lattice-images`, else below `~/.cache` (XDG Base Directory Specification).
fn cache() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join(Path::new("lattice-images")))
}
