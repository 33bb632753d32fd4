//! Builds through the daemon's BuildKit: only files that changed travel.

mod connection;
mod files;
mod session;
mod solve;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Error;
use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, ListWorkersRequest, SolveRequest};
use sha2::{Digest as _, Sha256};
use tonic::transport::{Channel, Endpoint as Target, Uri};
use tracing::debug;

use super::build::Recipe;
use crate::context::{Context, Inline};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::event::Events;
use crate::machine;
use crate::reference::Digest;
use files::{Files, Folder};
use session::Session;

const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
const DOCKERFILE_NAME: &str = "Dockerfile";
const FRONTEND: &str = "dockerfile.v0";
/// Into the daemon's own image store.
const EXPORTER: &str = "moby";

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
        let mut attributes = HashMap::from([("platform".to_owned(), build.platform.clone())]);
        attributes.extend(build.target.iter().map(|target| ("target".to_owned(), target.clone())));
        attributes.extend(build.args.iter().map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
        attributes.extend(build.labels.iter().map(|(name, value)| (format!("label:{name}"), value.clone())));
        let network = build.network.as_deref().filter(|network| *network != "default").or(self.network);
        attributes.extend(network.map(|network| ("force-network-mode".to_owned(), network.to_owned())));
        if recipe.no_cache || build.no_cache {
            attributes.insert("no-cache".to_owned(), String::new());
        }
        let mut request = SolveRequest {
            frontend_attrs: attributes,
            ..SolveRequest::default()
        };
        request
            .entitlements
            .extend(network.filter(|network| *network == "host").map(|_| "network.host".to_owned()));
        request.cache = Some(CacheOptions {
            imports: build.cache_from.iter().map(|from| cache_entry(from)).collect(),
            ..CacheOptions::default()
        });
        let root = context.root.display().to_string();
        let files = tokio::task::spawn_blocking(move || Folder::of_context(&context)).await??;
        self.solve(request, recipe.dockerfile, files, &root, step, events).await
    }

    /// Builds from `inline` files alone.
    pub(super) async fn build_inline(
        &self,
        dockerfile: &str,
        platform: &str,
        inline: &[Inline],
        step: &str,
        events: &Events,
    ) -> Result<Digest, Error> {
        let attributes = HashMap::from([("platform".to_owned(), platform.to_owned())]);
        let request = SolveRequest {
            frontend_attrs: attributes,
            ..SolveRequest::default()
        };
        self.solve(request, dockerfile, Folder::of_inline(inline), "inline", step, events)
            .await
    }

    #[expect(clippy::assigning_clones, reason = "nothing is there yet that could be reused")]
    async fn solve(
        &self,
        mut request: SolveRequest,
        dockerfile: &str,
        context: Folder,
        shared: &str,
        step: &str,
        events: &Events,
    ) -> Result<Digest, Error> {
        let dockerfile = Folder::of_inline(&[Inline::file(DOCKERFILE_NAME, dockerfile.as_bytes(), 0o644)]);
        let files = Files::new([(CONTEXT, context), (DOCKERFILE, dockerfile)]);
        let shared_key = format!("{:x}", Sha256::digest(format!("{}\n{shared}", self.machine)));
        let session = Session::open(
            &self.endpoint,
            machine::random(),
            shared_key,
            files.clone(),
            self.credentials.clone(),
        )
        .await?;
        request.r#ref = machine::random();
        request.session.clone_from(&session.id);
        request.frontend = FRONTEND.to_owned();
        request.frontend_attrs.insert("filename".to_owned(), DOCKERFILE_NAME.to_owned());
        request.exporter_deprecated = EXPORTER.to_owned();
        let solved = solve::solve(self.client.clone(), request, step, events).await;
        drop(session);
        debug!("{step}: {} bytes of context sent", files.sent());
        // a context that broke off is the cause, whatever the builder made of it
        files.failure().map_or(solved, Err)
    }
}

/// `type=registry,ref=...`, or the image alone (Docker's `--cache-from`).
fn cache_entry(text: &str) -> CacheOptionsEntry {
    let mut attrs: HashMap<String, String> = if text.contains('=') {
        let fields = text.split(',').filter_map(|field| field.split_once('='));
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    } else {
        HashMap::from([("ref".to_owned(), text.to_owned())])
    };
    CacheOptionsEntry {
        r#type: attrs.remove("type").unwrap_or_else(|| "registry".to_owned()),
        attrs,
    }
}
