//! What stands before the registry and counts what comes to it; and a port that leads to a daemon's `BuildKit`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

/// What came.
#[derive(Clone, Copy, Serialize)]
pub struct Count {
    /// Of the requests' bodies.
    pub bytes: u64,
    pub requests: u64,
}

#[derive(Default)]
struct Tally {
    bytes: AtomicU64,
    requests: AtomicU64,
    delay: AtomicU64,
}

pub struct Proxy {
    pub host: String,
    tally: Arc<Tally>,
    runtime: Runtime,
}

impl Proxy {
    /// In front of the registry at `behind`.
    pub fn start(behind: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let host = listener.local_addr()?.to_string();
        let tally = Arc::<Tally>::default();
        let (behind, counted) = (behind.to_owned(), Arc::clone(&tally));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(registry_connection(stream, behind.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self { host, tally, runtime })
    }

    pub fn count(&self) -> Count {
        Count {
            bytes: self.tally.bytes.load(Ordering::SeqCst),
            requests: self.tally.requests.load(Ordering::SeqCst),
        }
    }

    /// From now on each request is that late, and each new connection as much again.
    pub fn delay(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).expect("short");
        self.tally.delay.store(milliseconds, Ordering::SeqCst);
    }

    /// A port that leads to the `BuildKit` of the daemon at this socket, as if that stood alone.
    pub fn buildkit(&self, socket: PathBuf) -> io::Result<SocketAddr> {
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(buildkit_connection(stream, socket.clone()));
            }
        });
        Ok(address)
    }
}

async fn buildkit_connection(mut stream: TcpStream, socket: PathBuf) -> io::Result<()> {
    // or the answers of the one side wait for the acknowledgements of the other
    stream.set_nodelay(true)?;
    let mut daemon = UnixStream::connect(socket).await?;
    let request = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n";
    daemon.write_all(request).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(daemon.read_u8().await?);
    }
    copy_bidirectional(&mut stream, &mut daemon).await?;
    Ok(())
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// One connection to the registry for each that comes.
struct Behind {
    address: String,
    sender: Mutex<Option<SendRequest<Body>>>,
}

async fn registry_connection(stream: TcpStream, address: String, tally: Arc<Tally>) {
    let behind = Arc::new(Behind {
        address,
        sender: Mutex::default(),
    });
    let _ = stream.set_nodelay(true);
    late(&tally).await;
    let service = service_fn(|request| forward(request, Arc::clone(&behind), Arc::clone(&tally)));
    // a client that goes away is nothing to tell of
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn late(tally: &Tally) {
    match tally.delay.load(Ordering::SeqCst) {
        0 => {}
        delay => tokio::time::sleep(Duration::from_millis(delay)).await,
    }
}

async fn forward(mut request: Request<Incoming>, behind: Arc<Behind>, tally: Arc<Tally>) -> io::Result<Response<Incoming>> {
    tally.requests.fetch_add(1, Ordering::SeqCst);
    late(&tally).await;
    // it is answered here, and the registry would answer it again
    request.headers_mut().remove("expect");
    let request = request.map(|body| {
        let counted = body.map_frame(move |frame| {
            let length = frame.data_ref().map_or(0, Bytes::len);
            tally.bytes.fetch_add(length as u64, Ordering::SeqCst);
            frame
        });
        counted.boxed_unsync()
    });
    let mut sender = behind.sender.lock().await;
    if sender.as_ref().is_none_or(SendRequest::is_closed) {
        *sender = Some(connect(&behind.address).await?);
    }
    let sender = sender.as_mut().expect("connected");
    sender.ready().await.map_err(io::Error::other)?;
    sender.send_request(request).await.map_err(io::Error::other)
}

async fn connect(address: &str) -> io::Result<SendRequest<Body>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}
