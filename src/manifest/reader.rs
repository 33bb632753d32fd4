//! Reading values out of the tree, each message with its line.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use super::interpolate::{Lookup, interpolate};
use super::yaml::{Entry, Node, Value};
use crate::problem::{Problem, nearest, printable};

const MAX_BYTES: u64 = 1 << 20;

/// The environment that `${NAME}` and args without a value are looked up in.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    pub lookup: Lookup<'a>,
    /// The current folder: files below it are shown relative to it.
    pub current: &'a Path,
}

pub(super) fn shown(path: &Path, current: &Path) -> String {
    match path.strip_prefix(current).unwrap_or(path).to_string_lossy() {
        here if here.is_empty() => ".".to_owned(),
        path => printable(&path),
    }
}

pub(super) fn read_text(path: &Path, file: &str) -> Result<String, Problem> {
    let unreadable = |error: io::Error| Problem::usage(format!("{file} cannot be read: {error}"));
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Problem::usage(format!("there is no file {file}"))),
        Ok(metadata) if metadata.is_dir() => return Err(Problem::usage(format!("{file} is a folder, not a file"))),
        // a FIFO would be waited for without end
        Ok(metadata) if !metadata.is_file() => return Err(Problem::usage(format!("{file} is not a file"))),
        _ => {}
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Problem::usage(format!("{file} is larger than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|byte| *byte == b'\n').count();
        Problem::usage(format!("{file}:{line}: this is not text in UTF-8"))
    })
}

pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) folder: &'a Path,
    pub(super) environment: Environment<'a>,
}

impl Reader<'_> {
    pub(super) fn fail(&self, line: usize, message: impl std::fmt::Display) -> Problem {
        Problem::usage(format!("{}:{line}: {message}", self.file))
    }

    pub(super) fn parse<T: FromStr<Err = Problem>>(&self, node: &Node, key: &str) -> Result<T, Problem> {
        self.text(node, key)?.parse().map_err(|problem| self.at(node.line, &problem))
    }

    pub(super) fn text(&self, node: &Node, key: &str) -> Result<String, Problem> {
        let Value::Scalar(text) = &node.value else {
            return Err(self.fail(node.line, format!("`{}` is {}, not a text", printable(key), node.value.kind())));
        };
        interpolate(text, self.environment.lookup)
            .map_err(|message| self.fail(node.line, format!("in `{}`: {}", printable(key), printable(&message))))
    }

    /// A text that cannot be empty.
    pub(super) fn given(&self, node: &Node, key: &str) -> Result<String, Problem> {
        match self.text(node, key)? {
            empty if empty.trim().is_empty() => Err(self.fail(node.line, format!("`{key}` is empty"))),
            text => Ok(text),
        }
    }

    pub(super) fn texts(&self, node: &Node, key: &str) -> Result<Vec<String>, Problem> {
        match &node.value {
            Value::List(items) => items.iter().map(|item| self.text(item, key)).collect(),
            other => Err(self.fail(node.line, format!("`{key}` is {}, not a list", other.kind()))),
        }
    }

    pub(super) fn boolean(&self, node: &Node, key: &str) -> Result<bool, Problem> {
        if !matches!(node.value, Value::Scalar(_)) {
            return Err(self.fail(node.line, format!("`{key}` is {}, neither true nor false", node.value.kind())));
        }
        match self.text(node, key)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            other => Err(self.fail(node.line, format!("`{key}` is `{}`, neither true nor false", printable(other)))),
        }
    }

    /// The entries of a map that may hold `known` keys and `x-...` keys.
    pub(super) fn map<'n>(&self, node: &'n Node, what: &str, known: &[&[&str]]) -> Result<&'n [Entry], Problem> {
        let Value::Map(entries) = &node.value else {
            return Err(self.fail(node.line, format!("{what} is {}, not a map", node.value.kind())));
        };
        let known = || known.iter().copied().flatten().copied();
        for entry in entries.iter().filter(|entry| !is_extension(&entry.key)) {
            if known().any(|key| key == entry.key) {
                continue;
            }
            let problem = self.fail(entry.line, format!("{what} has no key `{}`", printable(&entry.key)));
            return Err(match nearest(&entry.key, known()) {
                Some(key) => problem.hint(format!("did you mean `{key}`?")),
                None => problem.hint(format!(
                    "known keys: {}; keys of your own begin with `x-`",
                    known().collect::<Vec<_>>().join(", ")
                )),
            });
        }
        Ok(entries)
    }

    pub(super) fn at(&self, line: usize, problem: &Problem) -> Problem {
        problem.hints().iter().fold(self.fail(line, problem), Problem::hint)
    }

    pub(super) fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.file)
    }

    pub(super) fn shown(&self, path: &Path) -> String {
        shown(path, self.environment.current)
    }
}

pub(super) fn find<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

pub(super) fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}

/// The maps a key is looked up in, the most general first.
pub(super) struct Layers<'n>(pub(super) &'n [&'n [Entry]]);

impl<'n> Layers<'n> {
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &'n Node> {
        self.0.iter().filter_map(move |entries| find(entries, key))
    }

    pub(super) fn last(&self, key: &str) -> Option<&'n Node> {
        self.all(key).last()
    }

    /// The values of `keys` in the most particular map that has any of them.
    pub(super) fn last_with<const N: usize>(&self, keys: [&str; N]) -> [Option<&'n Node>; N] {
        let found = |entries: &&'n [Entry]| Some(keys.map(|key| find(entries, key))).filter(|found| found.iter().any(Option::is_some));
        self.0.iter().rev().find_map(found).unwrap_or([None; N])
    }
}
