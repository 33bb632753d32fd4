//! What happens in a run, as events. Logic sends them, `report/` renders them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::docker_config::Secret;
use crate::problem::HIDDEN;
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
    /// Bytes of context that travelled, and how many are known to have to. Both grow.
    Sending {
        step: String,
        sent: u64,
        total: u64,
    },
    /// An instruction of the Dockerfile begins.
    Instruction {
        step: String,
        instruction: Instruction,
    },
    /// It was not carried out: the builder had its result. A `FROM` ends so too.
    Cached {
        step: String,
        instruction: Instruction,
    },
    /// A line of a build's log.
    Output {
        step: String,
        line: String,
        by: Speaker,
    },
    Built {
        step: String,
        id: Digest,
        /// Every instruction came from the builder's cache.
        cached: bool,
        elapsed: Duration,
    },
    BuildFailed {
        step: String,
        message: String,
    },
    /// It will not be built, because the step labelled `by` failed.
    Blocked {
        step: String,
        by: String,
    },
    /// Another channel of the registry has it; it is copied from this repository.
    Copying {
        step: String,
        from: String,
    },
    /// There is nothing to build.
    Settled {
        step: String,
        how: Settled,
    },
    Pushing {
        step: String,
        reference: String,
    },
    /// Bytes of layers that were uploaded, and those of the layers whose upload has begun. Both grow.
    Uploading {
        step: String,
        sent: u64,
        total: u64,
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

impl Event {
    #[must_use]
    pub fn sending(step: &str, sent: u64, total: u64) -> Self {
        Self::Sending {
            step: step.to_owned(),
            sent,
            total,
        }
    }

    #[must_use]
    pub fn output(step: &str, line: &str, by: Speaker) -> Self {
        Self::Output {
            step: step.to_owned(),
            line: line.to_owned(),
            by,
        }
    }

    /// The step that it is about.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Note { step, .. } => step.as_deref(),
            Self::Building { step }
            | Self::Sending { step, .. }
            | Self::Instruction { step, .. }
            | Self::Cached { step, .. }
            | Self::Output { step, .. }
            | Self::Built { step, .. }
            | Self::BuildFailed { step, .. }
            | Self::Blocked { step, .. }
            | Self::Copying { step, .. }
            | Self::Settled { step, .. }
            | Self::Pushing { step, .. }
            | Self::Uploading { step, .. }
            | Self::Pushed { step, .. }
            | Self::PushFailed { step, .. } => Some(step),
        }
    }
}

/// Why a step needs no build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The channel has it.
    UpToDate,
    /// An earlier run brought it to the registry.
    BuiltBefore,
    /// Another channel had it.
    Copied { from: String },
    /// Nothing that is built stands on it.
    NotNeeded,
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpToDate => f.write_str("up to date"),
            Self::BuiltBefore => f.write_str("built before"),
            Self::Copied { from } => write!(f, "copied from {from}"),
            Self::NotNeeded => f.write_str("not needed"),
        }
    }
}

/// Who says a line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The builder, about its own doings. What of that matters has events of its own.
    Builder,
    /// A command that the build runs.
    Command,
}

/// Instruction `number` (from 1) of `total`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The stage that the numbers count in; `None` where they count the only one, or the whole Dockerfile.
    pub stage: Option<String>,
    pub number: u32,
    pub total: u32,
    /// As written: `COPY data /data`.
    pub text: String,
}

/// `2/5 COPY data /data`, `build 2/5 RUN make`.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = &self.stage {
            write!(f, "{stage} ")?;
        }
        write!(f, "{}/{} {}", self.number, self.total, self.text)
    }
}

/// Where events are sent. Nobody waits for their being rendered.
#[derive(Clone, Debug)]
pub struct Events {
    sender: UnboundedSender<Event>,
    hidden: Arc<[Secret]>,
}

impl Events {
    #[must_use]
    pub fn channel() -> (Self, UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let hidden = Arc::default();
        (Self { sender, hidden }, receiver)
    }

    /// What a builder prints is sent without these.
    #[must_use]
    pub fn hiding(self, hidden: Vec<Secret>) -> Self {
        let hidden = hidden.into();
        Self { hidden, ..self }
    }

    pub fn send(&self, mut event: Event) {
        let text = match &mut event {
            Event::Output { line: text, .. } | Event::BuildFailed { message: text, .. } => Some(text),
            Event::Instruction { instruction, .. } | Event::Cached { instruction, .. } => Some(&mut instruction.text),
            _ => None,
        };
        if let Some(text) = text
            && let Some(cleared) = self.cleared(text)
        {
            *text = cleared;
        }
        // a run goes on when nobody listens any more
        let _ = self.sender.send(event);
    }

    /// A text without what is hidden; none where nothing of it is in there.
    #[must_use]
    pub fn cleared(&self, text: &str) -> Option<String> {
        let found: Vec<&Secret> = self.hidden.iter().filter(|secret| text.contains(secret.expose())).collect();
        let clear = |text: String, secret: &&Secret| text.replace(secret.expose(), HIDDEN);
        (!found.is_empty()).then(|| found.iter().fold(text.to_owned(), clear))
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
