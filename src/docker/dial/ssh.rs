//! A stream through `ssh` to `docker system dial-stdio` at the other end, as Docker's own client does it
//! (docker/cli, `cli/connhelper`): the person's configuration, keys and agent count.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

/// Of what ssh and the other end said, enough to find the cause in.
const KEPT_LINES: usize = 20;

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum SshFailure {
    NotInstalled,
    Ended {
        /// ssh's own failures have 255, others are those of the command over there. `None`: a signal.
        code: Option<i32>,
        said: String,
    },
}

impl fmt::Display for SshFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("there is no `ssh` on this machine"),
            Self::Ended { code: Some(code), said } => write!(f, "ssh ended with {code}: {said}"),
            Self::Ended { code: None, said } => write!(f, "ssh was killed: {said}"),
        }
    }
}

impl std::error::Error for SshFailure {}

/// What is read and written goes through ssh, which ends when this is dropped.
pub(super) struct Tunnel {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    ended: Option<AbortOnDropHandle<io::Result<()>>>,
}

impl Tunnel {
    pub(super) fn open(
        user: Option<&str>,
        host: &str,
        port: Option<u16>,
        socket: Option<&str>,
        connect_timeout: Duration,
    ) -> io::Result<Self> {
        let mut command = Command::new("ssh");
        command.arg(format!("-oConnectTimeout={}", connect_timeout.as_secs()));
        // there may be several at once, beside a progress display: none may ask for anything
        command.args(["-oBatchMode=yes", "-T"]);
        command.args(user.map(|user| format!("-l{user}")));
        command.args(port.map(|port| format!("-p{port}")));
        command.args(["--", host, "docker"]);
        command.args(socket.map(|socket| format!("--host={}", quoted(&format!("unix://{socket}")))));
        command.args(["system", "dial-stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for us, who then end what runs over there
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other(SshFailure::NotInstalled),
            _ => error,
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("ssh has no pipes"));
        };
        Ok(Self {
            stdin: Some(stdin),
            stdout,
            ended: Some(AbortOnDropHandle::new(tokio::spawn(ended(child, stderr)))),
        })
    }

    /// How ssh ended is told once, to whoever notices first that nothing more goes through.
    fn poll_ended(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let Some(ended) = &mut self.ended else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(Pin::new(ended).poll(task));
        self.ended = None;
        Poll::Ready(result.unwrap_or_else(|panicked| Err(io::Error::other(panicked))))
    }
}

/// The shell over there takes it as one word.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

async fn ended(mut child: Child, stderr: ChildStderr) -> io::Result<()> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let mut reading = AbortOnDropHandle::new(tokio::spawn(keep_last_lines(stderr, Arc::clone(&said))));
    let status = child.wait().await?;
    // a connection that ssh keeps for later (ControlPersist) has the pipe open beyond ssh's own end
    let _ = timeout(Duration::from_millis(200), &mut reading).await;
    if status.success() {
        return Ok(());
    }
    let said = said.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    Err(io::Error::other(SshFailure::Ended { code: status.code(), said }))
}

async fn keep_last_lines(stderr: ChildStderr, kept: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        debug!("ssh: {line}");
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.remove(0);
        }
        kept.push(line);
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Task<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(task, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_ended(task)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(stdin) = &mut self.stdin else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match ready!(Pin::new(stdin).poll_write(task, data)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                ready!(self.poll_ended(task))?;
                Poll::Ready(Err(error))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.stdin
            .as_mut()
            .map_or(Poll::Ready(Ok(())), |stdin| Pin::new(stdin).poll_flush(task))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _task: &mut Task<'_>) -> Poll<io::Result<()>> {
        // a pipe is closed by nothing but dropping it
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
