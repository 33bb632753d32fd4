//! Builds through the classic builder: the context goes as one tar stream.

use std::collections::HashMap;

use anyhow::{Context as _, Error};
use bollard::auth::DockerCredentials;
use bollard::body_try_stream;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder, CreateImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tracing::debug;

use super::{Daemon, said};
use crate::context::{self, Context, Inline, classic};
use crate::event::{Event, Events};
use crate::manifest::Build;
use crate::problem::{Problem, printable};
use crate::reference::{Digest, Reference};

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
    /// The Dockerfile to build with: siblings stand in it by the ids of their builds.
    pub dockerfile: &'a str,
    /// The images of elsewhere that it resolves.
    pub external: &'a [String],
    pub pull: bool,
    pub no_cache: bool,
}

impl Daemon {
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
        let shipment = classic::shipment(&context, &build.dockerfile, recipe.dockerfile)?;
        for note in context.notes.iter().chain(&shipment.note) {
            events.note_on(step, note);
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
            common(options, &build.platform),
            credentials,
            context,
            shipment.inline,
            step,
            events,
        )
        .await
    }

    /// Builds from `inline` files alone.
    pub(super) async fn build_inline(
        &self,
        dockerfile: &str,
        platform: &str,
        inline: Vec<Inline>,
        step: &str,
        events: &Events,
    ) -> Result<Built, Error> {
        let context = Context {
            root: std::path::PathBuf::new(),
            entries: Vec::new(),
            notes: Vec::new(),
        };
        let options = BuildImageOptionsBuilder::default().dockerfile(dockerfile);
        self.send(common(options, platform), HashMap::new(), context, inline, step, events)
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
    ) -> Result<Built, Error> {
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
        self.inspect(id.context("the daemon named no image at the end of the build")?).await
    }

    async fn inspect(&self, id: Digest) -> Result<Built, Error> {
        let image = self.docker.inspect_image(id.as_str()).await.map_err(said)?;
        let layers = image.root_fs.and_then(|root_fs| root_fs.layers).unwrap_or_default();
        Ok(Built { id, layers })
    }

    /// # Errors
    /// When the daemon does not give the image this name.
    pub async fn tag(&self, id: &Digest, reference: &Reference) -> Result<(), Error> {
        let options = TagImageOptionsBuilder::default()
            .repo(reference.repository())
            .tag(Reference::TAG)
            .build();
        self.docker.tag_image(id.as_str(), Some(options)).await.map_err(said)
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

const DOCKER_HUB: &str = "docker.io";

/// The registry of an image's name as Docker reads it: the first part, if it looks like a host.
fn registry_host(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

fn common(options: BuildImageOptionsBuilder, platform: &str) -> BuildImageOptions {
    options.platform(platform).rm(true).forcerm(true).build()
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
    info.aux.and_then(|aux| aux.id).and_then(|id| id.parse().ok())
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
