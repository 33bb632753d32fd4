//! What came of each image of a run.

use std::time::Duration;

use crate::plan::Step;
use crate::reference::Digest;

#[derive(Debug)]
pub struct Row<'p> {
    pub step: &'p Step,
    pub fate: Fate,
    /// Building and pushing together.
    pub elapsed: Duration,
}

#[derive(Debug)]
pub enum Fate {
    /// In the daemon; `id` is the image's there. That is all that was asked of it, or another image's failure kept it from being pushed.
    Built {
        id: Digest,
    },
    Pushed {
        id: Digest,
        digest: Digest,
        bytes: u64,
    },
    BuildFailed {
        problem: anyhow::Error,
    },
    PushFailed {
        problem: anyhow::Error,
    },
    /// Not built, because the image with this label failed.
    Blocked {
        by: String,
    },
    Stopped,
}

impl Fate {
    #[must_use]
    pub fn problem(&self) -> Option<&anyhow::Error> {
        match self {
            Self::BuildFailed { problem } | Self::PushFailed { problem } => Some(problem),
            _ => None,
        }
    }
}
