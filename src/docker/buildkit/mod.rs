//! Builds through the daemon's BuildKit: only files that changed travel.

mod connection;
mod files;
mod request;
mod secrets;
mod session;
mod solve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Error;
use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{ListWorkersRequest, SolveRequest};
use sha2::{Digest as _, Sha256};
use tonic::transport::{Channel, Endpoint as Target, Uri};
use tracing::debug;

use super::build::{InlineBuild, Recipe};
use crate::context::{self, Context, Inline};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::event::Events;
use crate::machine;
use crate::manifest::{NamedContext, SecretSource};
use crate::reference::Digest;
use files::{Files, Folder};
use secrets::{Agents, Given};
use session::{Offer, Session};

const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
const DOCKERFILE_NAME: &str = "Dockerfile";
const TRIES: u32 = 3;

/// A BuildKit that has answered.
#[derive(Clone)]
pub(super) struct BuildKit {
    endpoint: Arc<Endpoint>,
    client: ControlClient<Channel>,
    credentials: Credentials,
    /// What tells this machine's folders from another's with the same paths.
    machine: String,
    /// For builds that ask for none; `None` leaves it to BuildKit, which wants the daemon's bridge.
    network: Option<&'static str>,
}

impl BuildKit {
    /// # Errors
    /// When the daemon has none.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        credentials: Credentials,
        machine: &str,
        network: Option<&'static str>,
    ) -> Result<Self, Error> {
        let endpoint = Arc::new(endpoint.clone());
        let dialled = Arc::clone(&endpoint);
        let dial = tower::service_fn(move |_: Uri| {
            let endpoint = Arc::clone(&dialled);
            async move { connection::upgraded(&endpoint, "/grpc", &[]).await }
        });
        let channel = Target::from_static("http://buildkit").connect_with_connector(dial).await?;
        let mut client = ControlClient::new(channel).max_decoding_message_size(64 << 20);
        client
            .list_workers(ListWorkersRequest::default())
            .await
            .map_err(|status| solve::said(&status))?;
        Ok(Self {
            endpoint,
            client,
            credentials,
            machine: machine.to_owned(),
            network,
        })
    }

    pub(super) async fn build(&self, recipe: Recipe<'_>, context: Context, step: &str, events: &Events) -> Result<Digest, Error> {
        let build = recipe.build;
        let root = context.root.display().to_string();
        let contexts = build.additional_contexts.clone();
        let folders = tokio::task::spawn_blocking(move || folders(&context, &contexts)).await??;
        let solve = Solve {
            request: request::of_recipe(recipe, self.network),
            folders,
            dockerfile: recipe.dockerfile,
            shared: &root,
            secrets: build.secrets.clone(),
            agents: build.ssh.clone(),
        };
        self.solve(solve, step, events).await
    }

    pub(super) async fn build_inline(&self, build: InlineBuild<'_>, step: &str, events: &Events) -> Result<Digest, Error> {
        let solve = Solve {
            request: request::of_platform(build.platform, build.reference),
            folders: vec![(CONTEXT.to_owned(), Folder::of_inline(build.files))],
            dockerfile: build.dockerfile,
            shared: "inline",
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
        };
        self.solve(solve, step, events).await
    }

    async fn solve(&self, mut solve: Solve<'_>, step: &str, events: &Events) -> Result<Digest, Error> {
        let dockerfile = Inline::file(DOCKERFILE_NAME, solve.dockerfile.as_bytes(), 0o644);
        solve.folders.push((DOCKERFILE.to_owned(), Folder::of_inline(&[dockerfile])));
        let files = Files::new(std::mem::take(&mut solve.folders));
        let mut tries_left = TRIES;
        loop {
            let solved = self.solve_once(&solve, files.clone(), step, events).await;
            debug!("{step}: {} bytes of context sent", files.sent());
            tries_left -= 1;
            match (files.failure(), solved) {
                // a context that broke off is the cause, whatever the builder made of it
                (Some(failure), _) => return Err(failure),
                (None, Err(error)) if tries_left > 0 && is_race(&error) => debug!("{step}: trying again: {error:#}"),
                (None, solved) => return solved,
            }
        }
    }

    async fn solve_once(&self, solve: &Solve<'_>, files: Files, step: &str, events: &Events) -> Result<Digest, Error> {
        let shared_key = format!("{:x}", Sha256::digest(format!("{}\n{}", self.machine, solve.shared)));
        let offer = Offer {
            files,
            credentials: self.credentials.clone(),
            secrets: Given(solve.secrets.clone()),
            agents: Agents(solve.agents.clone()),
        };
        let session = Session::open(&self.endpoint, machine::random(), shared_key, offer).await?;
        let request = SolveRequest {
            r#ref: machine::random(),
            session: session.id.clone(),
            ..solve.request.clone()
        };
        solve::solve(self.client.clone(), request, step, events).await
    }
}

/// Parallel builds that share layers get in each other's way in the containerd image store of engine 28; the same build succeeds when it is tried again.
fn is_race(error: &Error) -> bool {
    let message = format!("{error:#}");
    message.contains("failed to prepare extraction snapshot") || (message.contains("parent snapshot") && message.contains("does not exist"))
}

struct Solve<'a> {
    request: SolveRequest,
    folders: Vec<(String, Folder)>,
    dockerfile: &'a str,
    /// Names the folders among those that this machine syncs.
    shared: &'a str,
    secrets: BTreeMap<String, SecretSource>,
    agents: BTreeMap<String, PathBuf>,
}

/// The context and the additional ones that are folders. Blocks.
fn folders(context: &Context, additional: &BTreeMap<String, NamedContext>) -> Result<Vec<(String, Folder)>, Error> {
    let mut folders = vec![(CONTEXT.to_owned(), Folder::of_context(context)?)];
    for (name, additional) in additional {
        if let NamedContext::Folder(root) = additional {
            let context = context::walk(root, &context::own_rules(root)?)?;
            folders.push((name.clone(), Folder::of_context(&context)?));
        }
    }
    Ok(folders)
}
