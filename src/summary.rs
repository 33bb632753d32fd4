//! What came of each image of a run.

use std::time::Duration;

use crate::docker::PushOf;
use crate::plan::Step;
use crate::reference::Digest;

#[derive(Debug)]
pub struct Row<'p> {
    pub step: &'p Step,
    pub fate: Fate,
    /// Building and pushing together.
    pub elapsed: Duration,
    /// Whether the channel has it now.
    pub published: bool,
}

#[derive(Debug)]
pub enum Fate {
    /// In the daemon, and no further; `id` is the image's there.
    Built {
        id: Digest,
    },
    /// Built, and brought to the registry.
    Pushed {
        id: Digest,
        digest: Digest,
        /// What was uploaded, where whoever did it tells.
        bytes: Option<u64>,
    },
    /// The channel has it already, and recorded.
    UpToDate {
        digest: Digest,
    },
    /// An earlier run had brought it to the registry.
    Found {
        digest: Digest,
    },
    /// Another channel had it.
    Copied {
        digest: Digest,
        from: String,
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
    /// A build that failed, perhaps in the push that was part of it.
    #[must_use]
    pub fn of_failure(problem: anyhow::Error) -> Self {
        if problem.is::<PushOf>() {
            Self::PushFailed { problem }
        } else {
            Self::BuildFailed { problem }
        }
    }

    /// Of the manifest in the registry.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Pushed { digest, .. } | Self::UpToDate { digest } | Self::Found { digest } | Self::Copied { digest, .. } => Some(digest),
            _ => None,
        }
    }

    /// Of the image in the daemon, where it was built.
    #[must_use]
    pub fn id(&self) -> Option<&Digest> {
        match self {
            Self::Built { id } | Self::Pushed { id, .. } => Some(id),
            _ => None,
        }
    }

    #[must_use]
    pub fn problem(&self) -> Option<&anyhow::Error> {
        match self {
            Self::BuildFailed { problem } | Self::PushFailed { problem } => Some(problem),
            _ => None,
        }
    }
}
