//! What goes wrong with a registry, in the cases that callers tell apart.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::problem::{Problem, printable};

const LONGEST_QUOTE: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    /// The registry does not know the person, or there is no credential for it.
    Unauthorized,
    /// The registry knows the person and refuses.
    Denied,
    /// The registry does not do this at all.
    Unsupported,
    /// No answer, or one that says to come back later; it was tried several times.
    Unavailable,
    /// An answer that no registry should give.
    Malformed,
    /// What was to be uploaded could not be read.
    Content,
}

/// Names the host and the repository; never holds a secret. What the registry said is in it, bounded and printable.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    io: Option<io::ErrorKind>,
    again: Again,
}

/// Whether the same request may fare better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// One try more, since somebody waits to be told.
    Once,
    Soon,
    After(Duration),
}

impl Error {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            io: None,
            again: Again::Never,
        }
    }

    /// An answer to `subject` that no registry should give.
    pub(super) fn malformed(subject: &str, what: impl fmt::Display) -> Self {
        Self::new(Kind::Malformed, format!("{subject}: {what}"))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn caused_by(mut self, io: Option<io::ErrorKind>) -> Self {
        self.io = io;
        self
    }

    pub(super) fn again(mut self, again: Again) -> Self {
        self.again = again;
        self
    }

    pub(super) fn worth(&self) -> Again {
        self.again
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The system's word for why there was no answer, where it was the system's.
    #[must_use]
    pub fn io(&self) -> Option<io::ErrorKind> {
        self.io
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Self::failed(error.message);
        match error.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// Text from a registry, fit to be shown: one line, bounded.
pub(super) fn quoted(text: &str) -> String {
    let line = printable(text.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
    match line.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_one_bounded_printable_line() {
        assert_eq!(quoted("a\n b\u{1b}[31m"), "a b?[31m");
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), LONGEST_QUOTE + 4);
    }
}
