//! Builds through the classic builder: the context goes as one tar stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Error};
use bollard::auth::DockerCredentials;
use bollard::body_try_stream;
use bollard::errors::Error as BollardError;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};
use tokio::task::JoinHandle;
use tracing::debug;

use super::instructions::{ClassicLog, Line};
use super::meter::metered;
use super::recipe::{InlineBuild, Made, Names, Recipe};
use super::{Daemon, said};
use crate::context::{self, Context, Inline, Kind, classic};
use crate::event::{Event, Events, Speaker};
use crate::problem::Problem;
use crate::reference::{Digest, Reference};
use crate::resolve::named;

const DOCKERFILE: &str = "Dockerfile";
const SET_ID: u32 = 0o6000;

impl Daemon {
    pub(super) async fn build_classic(
        &self,
        recipe: Recipe<'_>,
        context: &Arc<Context>,
        step: &str,
        events: &Events,
    ) -> Result<Made, Error> {
        let build = recipe.build;
        let shipment = classic::shipment(context, &build.dockerfile, recipe.dockerfile)?;
        if let Some(note) = &shipment.note {
            events.note_on(step, note);
        }
        for entry in context
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::File { .. }) && entry.mode & SET_ID != 0)
        {
            events.note_on(
                step,
                format!(
                    "{} loses its setuid or setgid bit: the classic builder drops it",
                    entry.path.display()
                ),
            );
        }
        let options = BuildImageOptionsBuilder::default()
            .dockerfile(&shipment.dockerfile)
            .nocache(recipe.no_cache || build.no_cache)
            .buildargs(&recipe.args())
            .labels(&build.labels.clone().into_iter().collect::<HashMap<_, _>>())
            .cachefrom(&build.cache_from)
            .networkmode(build.network.as_deref().unwrap_or("default"))
            .target(build.target.as_deref().unwrap_or_default());
        let credentials = self.credentials_of(recipe.external).await?;
        self.send(
            common(options, &build.platforms, recipe.names.reference),
            credentials,
            Arc::clone(context),
            shipment.inline,
            step,
            events,
        )
        .await
    }

    pub(super) async fn build_inline_classic(
        &self,
        build: InlineBuild<'_>,
        names: Names<'_>,
        step: &str,
        events: &Events,
    ) -> Result<Made, Error> {
        let mut inline = build.files.to_vec();
        inline.push(Inline::file(DOCKERFILE, build.dockerfile.as_bytes(), 0o600));
        let context = Arc::new(Context::empty());
        let options = BuildImageOptionsBuilder::default().dockerfile(DOCKERFILE);
        self.send(
            common(options, build.platforms, names.reference),
            HashMap::new(),
            context,
            inline,
            step,
            events,
        )
        .await
    }

    async fn send(
        &self,
        options: BuildImageOptions,
        credentials: HashMap<String, DockerCredentials>,
        context: Arc<Context>,
        inline: Vec<Inline>,
        step: &str,
        events: &Events,
    ) -> Result<Made, Error> {
        let total = tar_size(&context, &inline);
        let (chunks, writer) = context::stream(context, inline);
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let chunks = chunks.inspect_ok(move |chunk| {
            counter.fetch_add(chunk.len() as u64, Relaxed);
        });
        let mut answers = self.docker.build_image(options, Some(credentials), Some(body_try_stream(chunks)));
        let (mut id, mut log) = (None, ClassicLog::default());
        let reading = async {
            while let Some(answer) = answers.next().await {
                id = output(answer?, step, &mut log, events).or(id.take());
            }
            Ok(())
        };
        let tell = |sent, total| events.send(Event::sending(step, sent, total));
        let read: Result<(), BollardError> = metered(reading, || (sent.load(Relaxed).min(total), total), tell).await;
        if let Err(error) = read {
            return Err(cause(error, writer).await);
        }
        let sent = writer.await??;
        debug!("{step}: {sent} bytes of context sent");
        let id = id.context("the daemon named no image at the end of the build")?;
        let cached = log.all_hit();
        Ok(Made {
            below: Vec::new(),
            replica: None,
            id,
            cached,
            has_folder: None,
            origin: None,
        })
    }

    async fn credentials_of(&self, images: &[String]) -> Result<HashMap<String, DockerCredentials>, Problem> {
        let mut all = HashMap::new();
        for image in images {
            let (repository, _) = named(image)?;
            let host = repository.host();
            // the daemon asks for Docker Hub's under its old address
            let key = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
            if !all.contains_key(key) {
                all.insert(key.to_owned(), self.credentials(host).await?.1);
            }
        }
        Ok(all)
    }
}

/// The first platform is the only one: others are refused before.
fn common(options: BuildImageOptionsBuilder, platforms: &[String], reference: &Reference) -> BuildImageOptions {
    options
        .t(&reference.to_string())
        .platform(&platforms[0])
        .rm(true)
        .forcerm(true)
        .build()
}

/// Of the tar that the context becomes. Records of long names are not counted, so it may be a little more.
fn tar_size(context: &Context, inline: &[Inline]) -> u64 {
    const BLOCK: u64 = 512;
    let mut seen = HashSet::new();
    let contents = context.entries.iter().map(|entry| match &entry.kind {
        Kind::File { size, shared, .. } if shared.as_deref().is_none_or(|id| seen.insert(*id)) => *size,
        _ => 0,
    });
    let inline = inline.iter().map(|file| file.content.len() as u64);
    let entries = contents.chain(inline).map(|size| BLOCK + size.next_multiple_of(BLOCK));
    entries.sum::<u64>() + 2 * BLOCK
}

/// Passes on what the builder printed; gives the image's id when it is told.
fn output(info: BuildInfo, step: &str, log: &mut ClassicLog, events: &Events) -> Option<Digest> {
    let pulled = info
        .status
        .filter(|_| info.progress_detail.is_none_or(|detail| detail.total.is_none()));
    let printed = info.stream.iter().flat_map(|text| text.lines());
    for line in printed.map(str::trim_end).filter(|line| !line.is_empty()) {
        let own = || step.to_owned();
        let by = match log.read(line) {
            Line::Command => Speaker::Command,
            Line::Builder => Speaker::Builder,
            Line::Begins(instruction) => {
                events.send(Event::Instruction { step: own(), instruction });
                Speaker::Builder
            }
            Line::Cached(instruction) => {
                events.send(Event::Cached { step: own(), instruction });
                Speaker::Builder
            }
        };
        events.send(Event::output(step, line, by));
    }
    if let Some(line) = pulled {
        events.send(Event::output(step, &line, Speaker::Builder));
    }
    match info.aux? {
        BuildInfoAux::Default(aux) => aux.id?.parse().ok(),
        BuildInfoAux::BuildKit(_) => None,
    }
}

/// Where the context broke off, that is why the build failed, whatever the daemon made of it.
async fn cause(error: BollardError, writer: JoinHandle<Result<u64, Error>>) -> Error {
    let broke_off = |error: &Error| {
        error
            .downcast_ref::<std::io::Error>()
            .is_none_or(|error| error.kind() != std::io::ErrorKind::BrokenPipe)
    };
    match writer.await {
        Ok(Err(reason)) if broke_off(&reason) => reason,
        _ => said(error),
    }
}
