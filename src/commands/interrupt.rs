//! Ctrl-C, and what `kill` sends: asked once, a run stops cleanly; asked again, it is left where it stands.

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
        let (once, again) = (CancellationToken::new(), CancellationToken::new());
        let tokens = [once.clone(), again.clone()];
        tokio::spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
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
