//! Connections to the daemon, wherever it is: one way to dial, for bollard's requests and for our own streams.

mod explain;
mod prompt;
mod ssh;
mod tls;

pub(super) use explain::chain;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Error;
use bollard::errors::Error as BollardError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::http::uri::Scheme;
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::endpoint::{Address, Endpoint};
use crate::problem::Problem;
use crate::proxy::{Proxies, tunnel};
use explain::{is_vague, unanswered, unreachable};
use prompt::Prompt;

/// A build answers with its first header only when it has read the whole context, so there is no bound to give.
const REQUEST_TIMEOUT_SECONDS: u64 = 24 * 60 * 60;

/// After so long, a client that was not refused is accepted.
const REFUSAL: Duration = Duration::from_secs(2);

/// The port of a proxy that names none.
const HTTP: u16 = 80;

/// HTTP wants a host, and which one is of no account to a daemon.
const ANY_HOST: &str = "docker";

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) type Stream = Box<dyn Duplex>;

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// What is there has answered, and does not go on in HTTP/2.
#[derive(Debug)]
pub(super) struct NotUpgraded {
    path: String,
    status: StatusCode,
}

impl fmt::Display for NotUpgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the daemon answered {} to POST {}", self.status, self.path)
    }
}

impl std::error::Error for NotUpgraded {}

/// Knows how to get to one daemon.
#[derive(Clone)]
pub(super) struct Dialler {
    endpoint: Arc<Endpoint>,
    tls: Option<TlsConnector>,
    proxies: Proxies,
}

impl Dialler {
    /// Reads the certificates; nothing is connected to.
    pub(super) fn new(endpoint: &Endpoint, proxies: &Proxies) -> Result<Self, Problem> {
        let tls = endpoint.tls.as_ref().map(tls::client_config).transpose();
        let tls = tls.map_err(|error| explain::unusable_certificates(endpoint, &error))?;
        Ok(Self {
            endpoint: Arc::new(endpoint.clone()),
            tls: tls.map(|config| TlsConnector::from(Arc::new(config))),
            proxies: proxies.clone(),
        })
    }

    /// bollard's client, on connections of ours, which it uses again while they stand.
    pub(super) fn client(&self) -> Result<Docker, BollardError> {
        let dialler = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dialler = dialler.clone();
            async move { dialler.dial().await.map(TokioIo::new) }.boxed()
        });
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let transport = move |request: BollardRequest| {
            let response = client.request(request);
            async move { response.await.map_err(BollardError::from) }
        };
        let address = Some(format!("http://{ANY_HOST}"));
        Docker::connect_with_custom_transport(transport, address, REQUEST_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
    }

    /// What the daemon said to a question that costs it no work, or why it said nothing.
    pub(super) async fn answered<T, E>(&self, asked: impl Future<Output = Result<T, E>>) -> Result<T, Problem>
    where
        E: std::error::Error + 'static,
    {
        self.explained(self.in_time(asked).await?).await
    }

    /// What the daemon said, or why it said nothing.
    pub(super) async fn explained<T, E>(&self, answer: Result<T, E>) -> Result<T, Problem>
    where
        E: std::error::Error + 'static,
    {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) if is_vague(&self.endpoint, &error) => Err(match self.refusal().await {
                Some(refusal) => unreachable(&self.endpoint, &refusal),
                None => unreachable(&self.endpoint, &error),
            }),
            Err(error) => Err(unreachable(&self.endpoint, &error)),
        }
    }

    /// Why a connection ends on which nothing was asked. In TLS 1.3 a client is refused after the handshake, and a request
    /// that is under way by then fails in one way or another.
    async fn refusal(&self) -> Option<io::Error> {
        match self.dial().await {
            Ok(mut stream) => timeout(REFUSAL, stream.read_u8()).await.ok()?.err(),
            Err(error) => Some(error),
        }
    }

    /// Asks the daemon to go on in HTTP/2 without TLS of its own: `POST path` with `Upgrade: h2c`.
    ///
    /// # Errors
    /// [`NotUpgraded`] when it does not; a [`Problem`] when nothing answers.
    pub(super) async fn upgraded(&self, path: &str, headers: &[(&str, String)]) -> Result<Upgraded, Error> {
        let stream = self.dial().await.map_err(|error| unreachable(&self.endpoint, &error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::post(path)
            .header(HOST, ANY_HOST)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "h2c");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = self.answered(sender.send_request(request.body(Empty::<Bytes>::new())?)).await?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => Ok(hyper::upgrade::on(response).await?),
            status => Err(NotUpgraded {
                path: path.to_owned(),
                status,
            }
            .into()),
        }
    }

    /// Why whoever is dialled does not answer.
    pub(super) fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> Problem {
        unreachable(&self.endpoint, error)
    }

    /// A bound for its first answer.
    pub(super) async fn in_time<T>(&self, asked: impl Future<Output = T>) -> Result<T, Problem> {
        timeout(patience(&self.endpoint), asked)
            .await
            .map_err(|_| unanswered(&self.endpoint))
    }

    pub(super) async fn dial(&self) -> io::Result<Stream> {
        match &self.endpoint.address {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => timeout(patience(&self.endpoint), self.dial_tcp(host, *port)).await?,
            Address::Ssh { user, host, port, socket } => Ok(Box::new(ssh::Tunnel::open(
                user.as_deref(),
                host,
                *port,
                socket.as_deref(),
                patience(&self.endpoint),
            )?)),
        }
    }

    async fn dial_tcp(&self, host: &str, port: u16) -> io::Result<Stream> {
        let stream = self.dial_plain(host, port).await?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = self
            .endpoint
            .tls
            .as_ref()
            .and_then(|tls| tls.server_name.as_deref())
            .unwrap_or(host);
        let name = name.to_owned().try_into().map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    /// Directly, or through the proxy that the environment has for such an address.
    async fn dial_plain(&self, host: &str, port: u16) -> io::Result<Prompt> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let uri: Uri = format!("{scheme}://{target}").parse().map_err(io::Error::other)?;
        let Some(proxy) = self.proxies.to(&uri) else {
            return Prompt::new(TcpStream::connect((host, port)).await?);
        };
        if proxy.uri().scheme() == Some(&Scheme::HTTPS) {
            return Err(io::Error::other("a proxy that wants TLS is gone through to registries only"));
        }
        let (host, port) = (proxy.uri().host().unwrap_or_default(), proxy.uri().port_u16().unwrap_or(HTTP));
        let connected = TcpStream::connect((host, port)).await;
        let mut stream = connected.map_err(|error| io::Error::other(format!("the proxy cannot be reached: {error}")))?;
        tunnel(&mut stream, &proxy, &target).await?;
        Prompt::new(stream)
    }
}

/// A bound for what needs no work over there.
fn patience(endpoint: &Endpoint) -> Duration {
    match &endpoint.address {
        // other machines may be on the way, and a key may have to be touched
        Address::Ssh { .. } => Duration::from_secs(30),
        Address::Unix(_) | Address::Tcp { .. } => Duration::from_secs(10),
    }
}
