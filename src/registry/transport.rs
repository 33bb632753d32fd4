//! Connections to one registry and to where it sends us: TCP, TLS and proxies below HTTP/1.1 or HTTP/2.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::PROXY_AUTHORIZATION;
use hyper::http::uri::{Authority, Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tower::Service;

use super::Surroundings;
use super::content::Body;
use super::error::Error;
use super::tls::Proof;
use crate::problem::causes;
use crate::proxy::tunnel;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Proxy and TLS included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A registry has so many times its usual patience to put away what it was sent.
const AFTER_UPLOAD: u32 = 5;
const SAID_AFTER: Duration = Duration::from_secs(1);
const POOL_IDLE: Duration = Duration::from_mins(1);
const HTTP2_PING: Duration = Duration::from_secs(15);

pub(super) struct Transport {
    client: legacy::Client<Connector, Body>,
    registry: String,
    surroundings: Arc<Surroundings>,
    /// Whether somebody was told that this registry is waited for.
    told: AtomicBool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub cause: Cause,
    pub reason: String,
    pub io: Option<io::ErrorKind>,
}

#[derive(Debug)]
pub(super) enum Cause {
    NotConnected,
    /// What answers does not speak TLS.
    NoTls,
    /// The server's certificate is none that we trust.
    Untrusted,
    Broken,
    /// The body that was to be sent could not be read; where it came from a registry, that one's error.
    Content(Option<Box<Error>>),
}

impl Transport {
    pub(super) fn new(registry: &str, surroundings: Arc<Surroundings>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let connector = Connector {
            tcp,
            registry: registry.to_owned(),
            surroundings: Arc::clone(&surroundings),
            configs: Arc::default(),
        };
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            // else requests go on being sent down a connection that is dead
            .http2_keep_alive_interval(HTTP2_PING)
            .http2_keep_alive_timeout(HTTP2_PING)
            .build(connector);
        Self {
            client,
            registry: registry.to_owned(),
            surroundings,
            told: AtomicBool::new(false),
        }
    }

    /// The head of the answer. `progress` tells of parts of the body that were taken.
    pub(super) async fn send(&self, mut request: Request<Body>, progress: &Notify) -> Result<Response<Incoming>, Failure> {
        let uri = request.uri();
        let through = self.surroundings.proxies.to(uri);
        if uri.scheme() == Some(&Scheme::HTTP)
            && let Some(credential) = through.as_ref().and_then(|proxy| proxy.basic_auth())
        {
            let credential = credential.clone();
            request.headers_mut().insert(PROXY_AUTHORIZATION, credential);
        }
        let uploads = request.body().size_hint().upper() != Some(0);
        let patience = self.surroundings.patience * if uploads { AFTER_UPLOAD } else { 1 };
        let answered = self.patiently_for(patience, self.client.request(request), progress).await?;
        self.told.store(false, Ordering::Relaxed);
        answered.map_err(|error| {
            let cause = if error.is_connect() { Cause::NotConnected } else { Cause::Broken };
            Failure::of(&error, cause)
        })
    }

    /// Waits as long as there is progress, and says whom it waits for.
    pub(super) async fn patiently<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.patiently_for(self.surroundings.patience, work, &Notify::new()).await
    }

    async fn patiently_for<T>(&self, patience: Duration, work: impl Future<Output = T>, progress: &Notify) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = progress.notified() => {}
                () = self.silence(patience) => return Err(Failure::silence(patience)),
            }
        }
    }

    async fn silence(&self, patience: Duration) {
        sleep(patience.min(SAID_AFTER)).await;
        if let Some(on_waiting) = &self.surroundings.on_waiting
            && !self.told.swap(true, Ordering::Relaxed)
        {
            on_waiting(&self.registry);
        }
        sleep(patience.saturating_sub(SAID_AFTER)).await;
    }
}

impl Failure {
    pub(super) fn silence(of: Duration) -> Self {
        Self {
            cause: Cause::Broken,
            reason: format!("nothing came for {} s", of.as_secs()),
            io: Some(io::ErrorKind::TimedOut),
        }
    }

    /// `cause` is what it is unless the error itself says more.
    pub(super) fn of(error: &(dyn StdError + 'static), mut cause: Cause) -> Self {
        let mut io = None;
        let mut reason = String::new();
        for error in causes(error) {
            reason = error.to_string();
            if let Some(found) = error.downcast_ref::<io::Error>() {
                io = io.or(Some(found.kind()));
            } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
                match error {
                    rustls::Error::InvalidCertificate(_) => cause = Cause::Untrusted,
                    rustls::Error::InvalidMessage(_) => cause = Cause::NoTls,
                    _ => {}
                }
            } else if let Some(found) = error.downcast_ref::<Error>() {
                cause = Cause::Content(Some(Box::new(found.clone())));
            } else if error.downcast_ref().is_some_and(hyper::Error::is_user) {
                cause = Cause::Content(None);
            }
        }
        Self { cause, reason, io }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

type Stream = Box<dyn Duplex>;

#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    registry: String,
    surroundings: Arc<Surroundings>,
    /// By authority.
    configs: Arc<Mutex<HashMap<String, Arc<ClientConfig>>>>,
}

impl Connector {
    async fn connect(mut self, uri: Uri) -> io::Result<Link> {
        let dialled = timeout(HANDSHAKE_TIMEOUT, self.dial(&uri)).await;
        dialled.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was not made in time")))
    }

    async fn dial(&mut self, uri: &Uri) -> io::Result<Link> {
        let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
        let proxy = self.surroundings.proxies.to(uri);
        let mut stream = match &proxy {
            None => self.tcp(uri.clone()).await?,
            Some(proxy) => self.dial_proxy(proxy.uri()).await?,
        };
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Ok(Link::new(stream, Negotiated::Http1, proxy.is_some()));
        }
        if let Some(proxy) = &proxy {
            let target = match authority.port() {
                Some(_) => authority.to_string(),
                None => format!("{authority}:443"),
            };
            tunnel(&mut stream, proxy, &target).await?;
        }
        self.encrypt(stream, authority).await
    }

    async fn tcp(&mut self, uri: Uri) -> io::Result<Stream> {
        let stream = self.tcp.call(uri).await.map_err(io_error)?;
        Ok(Box::new(stream.into_inner()))
    }

    async fn dial_proxy(&mut self, uri: &Uri) -> io::Result<Stream> {
        let proxy = self.tcp(uri.clone()).await.map_err(|error| {
            let reason = causes(&error).last().map(ToString::to_string).unwrap_or_default();
            io::Error::new(error.kind(), format!("the proxy cannot be reached: {reason}"))
        })?;
        match uri.authority() {
            Some(authority) if uri.scheme() == Some(&Scheme::HTTPS) => {
                let mut config = self.surroundings.trust.config(authority.as_str(), "", Proof::Needed).await?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let stream = TlsConnector::from(Arc::new(config)).connect(server_name(authority)?, proxy).await?;
                Ok(Box::new(stream))
            }
            _ => Ok(proxy),
        }
    }

    async fn encrypt(&self, stream: Stream, authority: &Authority) -> io::Result<Link> {
        let config = self.config(authority.as_str()).await?;
        let stream = TlsConnector::from(config).connect(server_name(authority)?, stream).await?;
        let negotiated = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Negotiated::Http2,
            _ => Negotiated::Http1,
        };
        Ok(Link::new(Box::new(stream), negotiated, false))
    }

    async fn config(&self, authority: &str) -> io::Result<Arc<ClientConfig>> {
        let known = || self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known().get(authority) {
            return Ok(Arc::clone(config));
        }
        let proof = if self.surroundings.is_insecure(authority) || self.surroundings.is_insecure(&format!("{authority}:443")) {
            Proof::Waived
        } else {
            Proof::Needed
        };
        let config = Arc::new(self.surroundings.trust.config(authority, &self.registry, proof).await?);
        known().insert(authority.to_owned(), Arc::clone(&config));
        Ok(config)
    }
}

fn io_error(error: impl StdError + Send + Sync + 'static) -> io::Error {
    let kind = causes(&error)
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    io::Error::new(kind.unwrap_or(io::ErrorKind::Other), error)
}

fn server_name(authority: &Authority) -> io::Result<ServerName<'static>> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(context).map_err(io_error)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[derive(Clone, Copy)]
enum Negotiated {
    Http1,
    Http2,
}

/// A connection as the HTTP client wants it.
struct Link {
    stream: TokioIo<Stream>,
    negotiated: Negotiated,
    /// A proxy at the other end is given whole URIs.
    to_proxy: bool,
}

impl Link {
    fn new(stream: Stream, negotiated: Negotiated, to_proxy: bool) -> Self {
        Self {
            stream: TokioIo::new(stream),
            negotiated,
            to_proxy,
        }
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.to_proxy);
        match self.negotiated {
            Negotiated::Http1 => connected,
            Negotiated::Http2 => connected.negotiated_h2(),
        }
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
