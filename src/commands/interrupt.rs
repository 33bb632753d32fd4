//! Ctrl-C, what `kill` sends, and a terminal that is closed: asked once, a run stops cleanly; asked again, it is left where it stands.

use std::fs;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::event::Events;
use crate::problem::Problem;

pub struct Interrupt {
    pub once: CancellationToken,
    again: CancellationToken,
}

impl Interrupt {
    /// # Errors
    /// When the system does not let us listen.
    pub fn listen() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hangup = if ignores_hangups() {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        let (once, again) = (CancellationToken::new(), CancellationToken::new());
        let tokens = [once.clone(), again.clone()];
        tokio::spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    Some(()) = async { hangup.as_mut()?.recv().await } => {}
                }
                token.cancel();
            }
        });
        Ok(Self { once, again })
    }

    /// How a run ends that was asked again.
    #[must_use]
    pub fn left() -> Problem {
        Problem::interrupted(" twice; what was begun may be left undone, and the next run finishes it")
    }

    /// Waits until it is asked again.
    pub async fn twice(&self, events: &Events) {
        self.once.cancelled().await;
        events.note("stopping; Ctrl-C again ends it at once");
        self.again.cancelled().await;
    }
}

/// Whether whoever started this, `nohup` for one, wants it to go on without a terminal (proc(5), `SigIgn`).
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 != 0))
}
