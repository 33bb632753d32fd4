//! A BuildKit session: the services that a build may call back (moby/buildkit, `session/`).

use anyhow::Error;
use bollard::health::health_check_response::ServingStatus;
use bollard::health::health_server::{Health, HealthServer};
use bollard::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard::moby::filesync::v1::file_send_server::FileSendServer;
use bollard::moby::filesync::v1::file_sync_server::FileSyncServer;
use bollard::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest, GetTokenAuthorityResponse,
    VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use bollard::moby::sshforward::v1::ssh_server::SshServer;
use futures_util::stream::BoxStream;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::files::Files;
use super::line::Line;
use super::received::Received;
use super::secrets::{Agents, Given};
use crate::credentials::{Credential, Credentials};
use crate::docker::dial::Stream;

/// The methods that a build may call, as gRPC names them.
const METHODS: [&str; 6] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
];

/// BuildKit names each path that it asks for in a header of its own.
const LARGEST_HEADERS: u32 = 16 << 20;

/// What a build is offered.
pub(super) struct Offer {
    pub(super) files: Files,
    pub(super) credentials: Credentials,
    pub(super) secrets: Given,
    pub(super) agents: Agents,
    pub(super) received: Received,
}

impl Offer {
    fn services(self) -> Routes {
        Routes::new(HealthServer::new(Serving))
            .add_service(FileSyncServer::new(self.files))
            .add_service(FileSendServer::new(self.received))
            .add_service(AuthServer::new(Person(self.credentials)))
            .add_service(SecretsServer::new(self.secrets))
            .add_service(SshServer::new(self.agents))
    }
}

/// Docker Hub, as BuildKit asks for it and as Docker's configuration has it.
const HUB: (&str, &str) = ("registry-1.docker.io", "docker.io");

/// It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    _serving: AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl Session {
    /// `shared_key` names what is synced: builds with the same one send only what changed since the last.
    pub(super) async fn open(
        line: &Line,
        client: &ControlClient<Channel>,
        id: String,
        shared_key: String,
        offer: Offer,
    ) -> Result<Self, Error> {
        let mut headers = vec![
            ("X-Docker-Expose-Session-Uuid", id.clone()),
            ("X-Docker-Expose-Session-Name", "lattice-images".to_owned()),
            ("X-Docker-Expose-Session-Sharedkey", shared_key),
        ];
        headers.extend(METHODS.map(|method| ("X-Docker-Expose-Session-Grpc-Method", method.to_owned())));
        let stream = line.session(client, &headers).await?;
        Ok(Self {
            id,
            _serving: serve(stream, offer.services()),
        })
    }
}

/// Not by tonic's server: what that has accepted outlives it.
fn serve(stream: Stream, services: Routes) -> AbortOnDropHandle<Result<(), hyper::Error>> {
    let services = TowerToHyperService::new(services.prepare());
    let mut server = http2::Builder::new(TokioExecutor::new());
    let serving = server
        .max_header_list_size(LARGEST_HEADERS)
        .serve_connection(TokioIo::new(stream), services);
    AbortOnDropHandle::new(tokio::spawn(serving))
}

struct Serving;

#[tonic::async_trait]
impl Health for Serving {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, _request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }

    async fn list(&self, _request: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("there is one service"))
    }

    async fn watch(&self, _request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("health is asked for, not watched"))
    }
}

/// Gives the person's credentials for the host that a build pulls from.
struct Person(Credentials);

#[tonic::async_trait]
impl Auth for Person {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let asked = request.into_inner().host;
        let host = if asked == HUB.0 { HUB.1 } else { &asked };
        let credential = self
            .0
            .for_host(host)
            .await
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let mut response = CredentialsResponse::default();
        match credential {
            Credential::Anonymous | Credential::RegistryToken(_) => {}
            Credential::Password { username, password } => {
                response.username = username;
                password.expose().clone_into(&mut response.secret);
            }
            // BuildKit takes a secret without a name for an identity token
            Credential::IdentityToken(token) => token.expose().clone_into(&mut response.secret),
        }
        Ok(Response::new(response))
    }

    async fn fetch_token(&self, _request: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("BuildKit fetches tokens itself"))
    }

    async fn get_token_authority(
        &self,
        _request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("BuildKit fetches tokens itself"))
    }

    async fn verify_token_authority(
        &self,
        _request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("BuildKit fetches tokens itself"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;

    /// A builder has only so many of them: what stays open until the program ends, others wait for.
    #[tokio::test]
    async fn a_session_ends_with_its_build() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let serving = serve(Box::new(ours), Routes::new(HealthServer::new(Serving)));
        theirs.read_u8().await.expect("it is served");
        drop(serving);
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(10), theirs.read_to_end(&mut rest)).await;
        ended.expect("the connection ends").expect("read");
    }
}
