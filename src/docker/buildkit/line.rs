//! How a BuildKit is spoken to: its control API, and the sessions that it calls back on.

use std::io;

use anyhow::{Error, bail};
use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::moby::buildkit::v1::BytesMessage;
use bollard::moby::buildkit::v1::control_client::ControlClient;
use futures_util::TryStreamExt;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint as Target, Uri};
use tonic::{Request, Streaming};
use tracing::debug;

use super::super::dial::{Dialler, NotUpgraded, Stream};
use super::super::said;

/// Where a daemon offers BuildKit's `Control` service.
const CONTROL: &str = "/grpc";
const CHUNK: usize = 64 << 10;
const MESSAGES_AHEAD: usize = 8;

#[derive(Clone)]
pub(super) enum Line {
    /// Requests of the daemon's API become streams; each session is one of its own.
    Daemon(Dialler),
    /// A session is a stream of the control API.
    Direct,
}

impl Line {
    /// `None` when the daemon has no BuildKit.
    pub(super) async fn of_daemon(dialler: Dialler) -> Result<Option<(Self, Channel)>, Error> {
        let mut first = match dialler.upgraded(CONTROL, &[]).await {
            Err(error) if error.is::<NotUpgraded>() => {
                debug!("no BuildKit: {error}");
                return Ok(None);
            }
            upgraded => Some(upgraded?),
        };
        let again = dialler.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let (first, again) = (first.take(), again.clone());
            async move {
                match first {
                    Some(stream) => Ok(stream),
                    None => again.upgraded(CONTROL, &[]).await,
                }
            }
        });
        Ok(Some((Self::Daemon(dialler), target().connect_with_connector(dial).await?)))
    }

    pub(super) async fn direct(dialler: &Dialler) -> Result<(Self, Channel), Error> {
        let each_time = dialler.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let dialler = each_time.clone();
            async move { dialler.dial().await.map(TokioIo::new) }
        });
        Ok((Self::Direct, target().connect_with_connector(dial).await?))
    }

    /// As buildx does it: by `buildctl dial-stdio` in the container.
    pub(super) async fn into_container(docker: Docker, container: &str) -> Result<(Self, Channel), Error> {
        let container = container.to_owned();
        let dial = tower::service_fn(move |_: Uri| {
            let (docker, container) = (docker.clone(), container.clone());
            async move { exec(&docker, &container).await.map(TokioIo::new) }
        });
        Ok((Self::Direct, target().connect_with_connector(dial).await?))
    }

    /// A stream on which a BuildKit calls back.
    pub(super) async fn session(&self, client: &ControlClient<Channel>, headers: &[(&'static str, String)]) -> Result<Stream, Error> {
        match self {
            Self::Daemon(dialler) => Ok(Box::new(TokioIo::new(dialler.upgraded("/session", headers).await?))),
            Self::Direct => Ok(Box::new(within(client.clone(), headers).await?)),
        }
    }
}

fn target() -> Target {
    Target::from_static("http://buildkit")
}

/// Bytes in messages, as `Control.Session` carries them (moby/buildkit, `session/grpchijack`).
async fn within(mut client: ControlClient<Channel>, headers: &[(&'static str, String)]) -> Result<DuplexStream, Error> {
    let (ours, theirs) = tokio::io::duplex(CHUNK);
    let (mut outgoing, incoming) = tokio::io::split(theirs);
    let (messages, receiver) = mpsc::channel(MESSAGES_AHEAD);
    let messages_out = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|message| (message, receiver))
    });
    let mut request = Request::new(messages_out);
    for (name, value) in headers {
        let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes())?;
        request.metadata_mut().append(key, MetadataValue::try_from(value)?);
    }
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = outgoing.read(&mut buffer).await {
            let data = buffer[..length].to_vec();
            if messages.send(BytesMessage { data }).await.is_err() {
                break;
            }
        }
    });
    let answers = client.session(request).await?.into_inner();
    tokio::spawn(pass_on(answers, incoming));
    Ok(ours)
}

async fn pass_on(mut answers: Streaming<BytesMessage>, mut to: WriteHalf<DuplexStream>) {
    while let Ok(Some(message)) = answers.message().await {
        if to.write_all(&message.data).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn exec(docker: &Docker, container: &str) -> Result<Stream, Error> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        cmd: Some(vec!["buildctl", "dial-stdio"]),
        ..CreateExecOptions::default()
    };
    let exec = docker.create_exec(container, options).await.map_err(said)?;
    match docker.start_exec(&exec.id, None::<StartExecOptions>).await.map_err(said)? {
        StartExecResults::Attached { output, input } => {
            let output = output.map_ok(bollard::container::LogOutput::into_bytes).map_err(io::Error::other);
            Ok(Box::new(tokio::io::join(StreamReader::new(output), input)))
        }
        StartExecResults::Detached => bail!("the daemon did not attach to the command"),
    }
}
