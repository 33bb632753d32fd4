//! What goes wrong in a way that a person can mend: the fact, then what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::LazyLock;

use anyhow::Error;
use regex::{Captures, Regex};

/// How the process ends; the number is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong usage, or a manifest, name or file that cannot be right.
    Usage = 2,
    Interrupted = 130,
}

/// An error with its exit code and hints. It keeps both when `anyhow` context is put around it.
#[derive(Debug)]
pub struct Problem {
    exit: Exit,
    message: String,
    hints: Vec<String>,
}

impl Problem {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// `state` says what was done until then.
    #[must_use]
    pub fn interrupted(state: &str) -> Self {
        Self::new(Exit::Interrupted, format!("interrupted{state}"))
    }

    /// What it is about comes first.
    #[must_use]
    pub fn about(self, subject: &str) -> Self {
        Self {
            message: format!("{subject}: {}", self.message),
            ..self
        }
    }

    /// The state that it leaves comes last.
    #[must_use]
    pub fn leaving(&self, state: &str) -> Self {
        Self {
            exit: self.exit,
            message: format!("{}; {state}", self.message),
            hints: self.hints.clone(),
        }
    }

    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// For commands whose failure is an answer: whatever it is that kept them from giving one.
    #[must_use]
    pub fn could_not_tell(error: &Error) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::reworded(error, format!("{error:#}"))
        }
    }

    /// The error in other words: they are all that changes.
    #[must_use]
    pub fn reworded(error: &Error, message: String) -> Self {
        let problems = || error.chain().filter_map(|cause| cause.downcast_ref::<Self>());
        Self {
            exit: problems().next().map_or(Exit::Failed, Self::exit),
            message,
            hints: problems().flat_map(|problem| problem.hints.clone()).collect(),
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// An error and its causes, those within `io::Error`s included.
pub fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error: &&'e (dyn StdError + 'static)| {
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        within.map(|within| within as &(dyn StdError + 'static)).or_else(|| error.source())
    })
}

/// The nearest of `known` to what was written, where it is near enough to be meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `text` from outside, made fit for a terminal: control characters (escape sequences among them) become `?`.
#[must_use]
pub fn printable(text: &str) -> String {
    let text = without_credentials(text);
    text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

/// In the place of what is not to be seen.
pub const HIDDEN: &str = "***";

static USER_INFO: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"([A-Za-z0-9+.-]*)://([^/\s"'`?#]*)@"#).expect("valid"));

/// Of URLs, what stands before the host (RFC 3986, section 3.2.1) may be a password.
fn without_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    USER_INFO.replace_all(text, |found: &Captures<'_>| match (&found[1], &found[2]) {
        // the name of an account over there
        ("ssh", user) if !user.contains(':') => found[0].to_owned(),
        (scheme, _) => format!("{scheme}://{HIDDEN}@"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_found_and_a_far_one_is_not() {
        let known = ["context", "dockerfile", "target"];
        assert_eq!(nearest("contxt", known), Some("context"));
        assert_eq!(nearest("docker_file", known), Some("dockerfile"));
        assert_eq!(nearest("volumes", known), None);
    }

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}c"), "a?[31mb?c");
    }

    #[test]
    fn passwords_in_addresses_do_not_reach_one_either() {
        assert_eq!(
            printable("ADD https://joe:pa:ss@w@h:1/x@2 /x, https://token@h and ssh://me:pass@h"),
            "ADD https://***@h:1/x@2 /x, https://***@h and ssh://***@h"
        );
        for plain in [
            "h:5000/i@sha256:0",
            "https://h/x@1",
            "https://h and a@b",
            "ssh://me@h",
            "http://***@h",
        ] {
            assert_eq!(printable(plain), plain);
        }
    }
}
