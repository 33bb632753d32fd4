//! A proxy of ours in front of a real registry, that does what it is told; and one that connects (`CONNECT`) where it is told.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub enum Act {
    Pass,
    /// The same request, with another path and query.
    PassTo(String),
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The registry's answer with this changed in its body, and these headers instead of its own.
    Change(fn(Vec<u8>) -> Vec<u8>, Vec<(&'static str, Option<String>)>),
    /// The registry's answer, broken off after so many bytes of its body.
    Cut(usize),
    /// The connection ends without an answer.
    Break,
    Hang,
}

impl Act {
    /// Passes where it is not so.
    pub fn when(condition: bool, act: impl FnOnce() -> Self) -> Self {
        if condition { act() } else { Self::Pass }
    }

    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }

    pub fn to(status: u16, location: String) -> Self {
        Self::Answer(status, vec![("location", location)], Vec::new())
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub accept: Option<String>,
    pub body: Bytes,
    /// How many like it, by method and target, came before.
    pub before: usize,
}

impl Seen {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    /// `user:password` of basic authentication.
    pub fn password(&self) -> Option<String> {
        let encoded = self.authorization.as_deref()?.strip_prefix("Basic ")?;
        let decoded = base64::prelude::BASE64_STANDARD.decode(encoded).expect("base64");
        Some(String::from_utf8(decoded).expect("UTF-8"))
    }
}

pub struct Front {
    pub host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Decide = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

impl Front {
    /// In front of the registry at `behind`.
    pub async fn start(behind: &str, decide: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::serve(behind, None, Arc::new(decide)).await
    }

    pub async fn with_tls(behind: &str, tls: ServerConfig, decide: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::serve(behind, Some(TlsAcceptor::from(Arc::new(tls))), Arc::new(decide)).await
    }

    async fn serve(behind: &str, tls: Option<TlsAcceptor>, decide: Decide) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (behind, all) = (behind.to_owned(), Arc::clone(&seen));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (behind, all, decide, tls) = (behind.clone(), Arc::clone(&all), Arc::clone(&decide), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => connection(stream, behind, all, decide).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, behind, all, decide).await;
                            }
                        }
                    }
                });
            }
        });
        Self { host, seen, serving }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method, part)).count()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, behind: String, all: Arc<Mutex<Vec<Seen>>>, decide: Decide) {
    let service = service_fn(|request| answer(request, behind.clone(), Arc::clone(&all), Arc::clone(&decide)));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    behind: String,
    all: Arc<Mutex<Vec<Seen>>>,
    decide: Decide,
) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let seen = {
        let mut all = all.lock().expect("no panic");
        let (method, target) = (head.method.to_string(), head.uri.path_and_query().expect("a path").to_string());
        let before = all.iter().filter(|seen| seen.method == method && seen.target == target).count();
        let seen = Seen {
            authorization: text("authorization"),
            accept: text("accept"),
            body: body.clone(),
            method,
            target,
            before,
        };
        all.push(seen.clone());
        seen
    };
    let pass = async |target: &str| {
        let mut request = Request::from_parts(head.clone(), Full::new(body.clone()));
        *request.uri_mut() = target.parse::<Uri>().expect("a target");
        forward(&behind, request).await
    };
    match decide(&seen) {
        Act::Pass => pass(&seen.target).await,
        Act::PassTo(target) => pass(&target).await,
        Act::Answer(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(whole(body)).expect("a response"))
        }
        Act::Change(change, headers) => {
            let (mut head, body) = pass(&seen.target).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            head.headers.remove("content-length");
            for (name, value) in headers {
                head.headers.remove(name);
                if let Some(value) = value {
                    head.headers.insert(name, value.parse().expect("a header"));
                }
            }
            Ok(Response::from_parts(head, whole(change(bytes.to_vec()))))
        }
        Act::Cut(size) => {
            let (head, body) = pass(&seen.target).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let part = futures_util::stream::iter([Ok(Frame::data(bytes.slice(..size.min(bytes.len()))))]);
            // the first part leaves before the end comes
            let broken = futures_util::stream::once(async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut"))
            });
            Ok(Response::from_parts(head, StreamBody::new(part.chain(broken)).boxed_unsync()))
        }
        Act::Break => Err(std::io::Error::other("broken")),
        Act::Hang => std::future::pending().await,
    }
}

async fn forward(behind: &str, request: Request<Full<Bytes>>) -> Result<Response<Body>, std::io::Error> {
    let stream = TcpStream::connect(behind).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
    Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

fn whole(body: Vec<u8>) -> Body {
    let never = |never: Infallible| match never {};
    Full::new(Bytes::from(body)).map_err(never).boxed_unsync()
}

/// A proxy for which every host is at `target`. It speaks `CONNECT`, and passes on requests for whole URIs.
pub struct Tunnel {
    pub host: String,
    heads: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Tunnel {
    pub async fn start(target: &str) -> Self {
        Self::asking(target, None).await
    }

    /// One that wants `user:password`.
    pub async fn asking(target: &str, password: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let wanted = password.map(|password| format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(password)));
        let (target, all) = (target.to_owned(), Arc::clone(&heads));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (target, all, wanted) = (target.clone(), Arc::clone(&all), wanted.clone());
                tokio::spawn(async move { connect(stream, &target, &all, wanted.as_deref()).await });
            }
        });
        Self { host, heads, serving }
    }

    /// The heads of the first requests of all connections.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connect(mut stream: TcpStream, target: &str, heads: &Mutex<Vec<String>>, wanted: Option<&str>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head.clone()).expect("UTF-8");
    heads.lock().expect("no panic").push(text.clone());
    if wanted.is_some_and(|wanted| !text.contains(wanted)) {
        stream
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            .await
            .ok()?;
        return None;
    }
    let mut behind = TcpStream::connect(target).await.ok()?;
    if text.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    } else {
        behind.write_all(&head).await.ok()?;
    }
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
    Some(())
}
