//! Builds through the classic builder: the context goes as one tar stream.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context as _, Error};
use bollard::auth::DockerCredentials;
use bollard::body_try_stream;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tracing::debug;

use super::build::{DOCKER_HUB, InlineBuild, Recipe, registry_host};
use super::{Daemon, said};
use crate::context::{self, Context, Inline, Kind, classic};
use crate::event::{Event, Events};
use crate::problem::Problem;
use crate::reference::{Digest, Reference};

const DOCKERFILE: &str = "Dockerfile";
const SET_ID: u32 = 0o6000;

impl Daemon {
    pub(super) async fn build_classic(&self, recipe: Recipe<'_>, context: Context, step: &str, events: &Events) -> Result<Digest, Error> {
        let build = recipe.build;
        let shipment = classic::shipment(&context, &build.dockerfile, recipe.dockerfile)?;
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
            .buildargs(&build.args.clone().into_iter().collect::<HashMap<_, _>>())
            .labels(&build.labels.clone().into_iter().collect::<HashMap<_, _>>())
            .cachefrom(&build.cache_from)
            .networkmode(build.network.as_deref().unwrap_or("default"))
            .target(build.target.as_deref().unwrap_or_default());
        let credentials = self.credentials_of(recipe.external).await?;
        self.send(
            common(options, &build.platform, recipe.reference),
            credentials,
            context,
            shipment.inline,
            step,
            events,
        )
        .await
    }

    pub(super) async fn build_inline_classic(&self, build: InlineBuild<'_>, step: &str, events: &Events) -> Result<Digest, Error> {
        let mut inline = build.files.to_vec();
        inline.push(Inline::file(DOCKERFILE, build.dockerfile.as_bytes(), 0o600));
        let context = Context {
            root: PathBuf::new(),
            entries: Vec::new(),
            notes: Vec::new(),
        };
        let options = BuildImageOptionsBuilder::default().dockerfile(DOCKERFILE);
        self.send(
            common(options, build.platform, build.reference),
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
        context: Context,
        inline: Vec<Inline>,
        step: &str,
        events: &Events,
    ) -> Result<Digest, Error> {
        let (chunks, writer) = context::stream(context, inline);
        let mut answers = self.docker.build_image(options, Some(credentials), Some(body_try_stream(chunks)));
        let mut id = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(info) => id = output(info, step, events).or(id),
                Err(error) => return Err(cause(error, writer).await),
            }
        }
        let sent = writer.await??;
        debug!("{step}: {sent} bytes of context sent");
        id.context("the daemon named no image at the end of the build")
    }

    async fn credentials_of(&self, images: &[String]) -> Result<HashMap<String, DockerCredentials>, Problem> {
        let mut all = HashMap::new();
        for image in images {
            let host = registry_host(image);
            // the daemon asks for Docker Hub's under its old address
            let key = if host == DOCKER_HUB { "https://index.docker.io/v1/" } else { host };
            if !all.contains_key(key) {
                all.insert(key.to_owned(), self.credentials(host).await?.1);
            }
        }
        Ok(all)
    }
}

fn common(options: BuildImageOptionsBuilder, platform: &str, reference: &Reference) -> BuildImageOptions {
    options.t(&reference.to_string()).platform(platform).rm(true).forcerm(true).build()
}

/// Passes on what the builder printed; gives the image's id when it is told.
fn output(info: BuildInfo, step: &str, events: &Events) -> Option<Digest> {
    let pulled = info
        .status
        .filter(|_| info.progress_detail.is_none_or(|detail| detail.total.is_none()));
    for text in info.stream.into_iter().chain(pulled) {
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            events.send(Event::Output {
                step: step.to_owned(),
                line: line.to_owned(),
            });
        }
    }
    match info.aux? {
        BuildInfoAux::Default(aux) => aux.id?.parse().ok(),
        BuildInfoAux::BuildKit(_) => None,
    }
}

/// Where the context broke off, that is why the build failed, whatever the daemon made of it.
async fn cause(error: bollard::errors::Error, writer: JoinHandle<Result<u64, Error>>) -> Error {
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
