//! What a run without changes takes through doors that real registries have: latency, a slow credential helper, TLS, tokens.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::Settings;
use crate::files;
use crate::measure;
use crate::place::Place;
use crate::server::{Registry, Setup, openssl};
use crate::table::{median, plain, rounded};
use crate::tokens::TokenServer;
use crate::tools::ours;
use crate::workload::{Shape, Variants, Workload};

/// That of gcloud takes so long.
const SLOW_HELPER: &str = "0.75";
const FAR: Duration = Duration::from_millis(100);
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy)]
struct Door {
    name: &'static str,
    latency: Duration,
    has_helper: bool,
    /// TLS, and a token server that wants a password.
    is_locked: bool,
}

const OPEN: Door = Door {
    name: "nothing",
    latency: Duration::ZERO,
    has_helper: false,
    is_locked: false,
};

const DOORS: [Door; 5] = [
    OPEN,
    Door {
        name: "100 ms of latency",
        latency: FAR,
        ..OPEN
    },
    Door {
        name: "a credential helper of 0.75 s",
        has_helper: true,
        ..OPEN
    },
    Door {
        name: "TLS and tokens",
        is_locked: true,
        ..OPEN
    },
    Door {
        name: "all of it",
        latency: FAR,
        has_helper: true,
        is_locked: true,
    },
];

#[derive(Serialize)]
pub struct Passage {
    pub name: &'static str,
    pub seconds: Option<f64>,
    pub cpu_seconds: Option<f64>,
}

/// With the job's set of images, `settings.rounds` times each.
pub fn run(place: &Place, settings: &Settings) -> Result<Vec<Passage>> {
    let runtime = Runtime::new()?;
    DOORS.iter().map(|door| through(door, &runtime, place, settings)).collect()
}

pub fn text(passages: &[Passage]) -> String {
    let rows = passages.iter().map(|passage| {
        let cell = |value: Option<f64>| value.map(rounded).unwrap_or_default();
        vec![passage.name.to_owned(), cell(passage.seconds), cell(passage.cpu_seconds)]
    });
    plain(&["before the registry stands", "nothing changed", "client CPU seconds"], rows)
}

fn through(door: &Door, runtime: &Runtime, place: &Place, settings: &Settings) -> Result<Passage> {
    eprintln!("before the registry stands: {}", door.name);
    place.empty()?;
    let folder = tempfile::tempdir()?;
    let tokens = door.is_locked.then(|| runtime.block_on(TokenServer::start(0)));
    let realm = tokens
        .as_ref()
        .map(|tokens| runtime.block_on(lag(&tokens.front.host, door.latency)))
        .transpose()?;
    let registry = match (&tokens, realm) {
        (Some(tokens), Some(realm)) => locked(tokens, realm, &folder)?,
        _ => Registry::start(),
    };
    let host = runtime.block_on(lag(&registry.host, door.latency))?;
    let workload = Workload::create(
        &place.folder.join("workload"),
        Shape::six_services(settings.scale),
        settings.seed,
        Variants::Both,
        &settings.busybox,
    )?;
    files::write(&workload, &format!("{host}/bench"), place.base)?;
    let environment = environment(door, place, host, folder.path())?;
    let log = place
        .folder
        .join("logs")
        .join(format!("door {}.log", door.name).replace([',', ' '], "-"));
    let script = ours(crate::tools::OURS, "--with-debug").script;
    let mut figures = Vec::new();
    // the first builds; the second reads files again that were too new for that
    for round in 0..settings.rounds + 2 {
        let usage = measure::script(&script, &workload.folder, &environment, &log)?;
        if round > 1 {
            figures.push(usage);
        }
    }
    let _guard = runtime.enter();
    drop(tokens);
    Ok(Passage {
        name: door.name,
        seconds: median(figures.iter().map(|usage| usage.seconds).collect()),
        cpu_seconds: median(figures.iter().map(|usage| usage.cpu_seconds).collect()),
    })
}

fn locked(tokens: &TokenServer, realm: SocketAddr, folder: &TempDir) -> Result<Registry> {
    let names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
    let files = ["-days", "2", "-keyout", "tls.key", "-out", "tls.crt"];
    let arguments = [&["req", "-x509", "-newkey", "rsa:2048", "-nodes"][..], &names, &files].concat();
    openssl(folder.path(), &arguments);
    let of = |name: &str| fs::read(folder.path().join(name));
    let auth =
        format!("auth: {{ token: {{ realm: \"http://{realm}/token\", service: registry, issuer: tests, rootcertbundle: DIR/cert.pem }} }}");
    Ok(Registry::with(Setup {
        config: &auth,
        http: "  tls: { certificate: DIR/tls.crt, key: DIR/tls.key }",
        files: &[
            ("cert.pem", &tokens.signer().certificate()),
            ("tls.crt", &of("tls.crt")?),
            ("tls.key", &of("tls.key")?),
        ],
        ..Setup::default()
    }))
}

/// The place's, with a Docker configuration of its own.
fn environment(door: &Door, place: &Place, host: SocketAddr, folder: &Path) -> Result<Vec<(String, String)>> {
    let mut environment = place.environment("bench");
    let mut set = |name: &str, value: String| {
        environment.retain(|(known, _)| known != name);
        environment.push((name.to_owned(), value));
    };
    // kevin:secret
    let auths = serde_json::json!({ "auths": { host.to_string(): { "auth": "a2V2aW46c2VjcmV0" } } });
    let helpers = serde_json::json!({ "credHelpers": { host.to_string(): "slow" } });
    let config = if door.has_helper { helpers } else { auths };
    fs::write(folder.join("config.json"), config.to_string())?;
    set("DOCKER_CONFIG", folder.display().to_string());
    let helper = folder.join("docker-credential-slow");
    let credential = r#"{"ServerURL":"","Username":"kevin","Secret":"secret"}"#;
    fs::write(&helper, format!("#!/bin/sh\nsleep {SLOW_HELPER}\necho '{credential}'\n"))?;
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755))?;
    set("PATH", format!("{}:{}", folder.display(), std::env::var("PATH")?));
    if door.is_locked {
        set("SSL_CERT_FILE", folder.join("tls.crt").display().to_string());
    }
    Ok(environment)
}

/// A port that leads to `behind`, there and back in `latency`.
async fn lag(behind: &str, latency: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let behind = behind.to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, behind.clone(), latency));
        }
    });
    Ok(address)
}

async fn connection(here: TcpStream, behind: String, latency: Duration) -> io::Result<()> {
    // a connection is there when it has been there and back
    sleep_until(Instant::now() + latency).await;
    let there = TcpStream::connect(behind).await?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    let ((asked, answers), (answered, questions)) = (here.into_split(), there.into_split());
    let half = latency / 2;
    tokio::try_join!(late(asked, questions, half), late(answered, answers, half))?;
    Ok(())
}

/// Everything arrives that much later, however much of it is under way.
async fn late(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, by: Duration) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + by, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
        Ok(())
    };
    let writing = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}
