//! What happens in a run, as events. Logic sends them, `report/` renders them.

use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::reference::Digest;

/// `step` is the label of a step of the plan.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something that a person may want to know; nothing failed.
    Note {
        step: Option<String>,
        text: String,
    },
    Building {
        step: String,
    },
    /// A line that the builder printed.
    Output {
        step: String,
        line: String,
    },
    Built {
        step: String,
        id: Digest,
        elapsed: Duration,
    },
    BuildFailed {
        step: String,
        message: String,
    },
    Pushing {
        step: String,
        reference: String,
    },
    Pushed {
        step: String,
        digest: Digest,
        elapsed: Duration,
    },
    PushFailed {
        step: String,
        message: String,
    },
}

/// Where events are sent. Nobody waits for their being rendered.
#[derive(Clone, Debug)]
pub struct Events(UnboundedSender<Event>);

impl Events {
    #[must_use]
    pub fn channel() -> (Self, UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub fn send(&self, event: Event) {
        // a run goes on when nobody listens any more
        let _ = self.0.send(event);
    }

    pub fn note(&self, text: impl Into<String>) {
        self.send(Event::Note {
            step: None,
            text: text.into(),
        });
    }

    pub fn note_on(&self, step: &str, text: impl Into<String>) {
        self.send(Event::Note {
            step: Some(step.to_owned()),
            text: text.into(),
        });
    }
}
