//! What a build may ask for and no image may hold: secrets, and the person's ssh agent.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use bollard::moby::buildkit::secrets::v1::secrets_server::Secrets;
use bollard::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard::moby::sshforward::v1::ssh_server::Ssh;
use bollard::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

use crate::manifest::SecretSource;

/// What BuildKit takes at most (moby/buildkit, `session/secrets`).
const MAX_SECRET_BYTES: usize = 500 << 10;
const CHUNK: usize = 32 << 10;

/// Secrets by their ids. They are read when they are asked for, and go nowhere else.
pub(super) struct Given(pub(super) BTreeMap<String, SecretSource>);

#[tonic::async_trait]
impl Secrets for Given {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        // BuildKit goes on without a secret that is not required, if it is told "not found"
        let source = self
            .0
            .get(&id)
            .ok_or_else(|| Status::not_found(format!("the manifest gives this build no secret `{id}`")))?;
        let data = match source {
            SecretSource::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| Status::failed_precondition(format!("the secret `{id}`: {} cannot be read: {error}", path.display())))?,
            SecretSource::Environment(name) => {
                let value = env::var_os(name).ok_or_else(|| {
                    Status::failed_precondition(format!("the secret `{id}`: the environment variable `{name}` is not set"))
                })?;
                value.into_encoded_bytes()
            }
        };
        if data.len() > MAX_SECRET_BYTES {
            return Err(Status::failed_precondition(format!(
                "the secret `{id}` has more than {MAX_SECRET_BYTES} bytes"
            )));
        }
        Ok(Response::new(GetSecretResponse { data }))
    }
}

/// Sockets of ssh agents by their ids.
pub(super) struct Agents(pub(super) BTreeMap<String, PathBuf>);

/// What BuildKit asks for where a `RUN --mount=type=ssh` names none.
const DEFAULT_AGENT: &str = "default";

impl Agents {
    fn socket(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { DEFAULT_AGENT } else { id };
        self.0
            .get(id)
            .ok_or_else(|| Status::not_found(format!("the manifest gives this build no ssh agent `{id}`")))
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn check_agent(&self, request: Request<CheckAgentRequest>) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Self::ForwardAgentStream>, Status> {
        // BuildKit puts the agent's id into the metadata under this key (moby/buildkit, `session/sshforward`)
        let id = request
            .metadata()
            .get("buildkit.ssh.id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        let socket = self.socket(id)?;
        let agent = UnixStream::connect(socket)
            .await
            .map_err(|error| Status::unavailable(format!("the ssh agent {}: {error}", socket.display())))?;
        let (reader, mut writer) = agent.into_split();
        let mut asked = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = asked.message().await {
                if writer.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        });
        let answers = stream::unfold(reader, |mut reader| async move {
            let mut data = vec![0; CHUNK];
            let read = reader.read(&mut data).await.ok().filter(|read| *read > 0)?;
            data.truncate(read);
            Some((Ok(BytesMessage { data }), reader))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
