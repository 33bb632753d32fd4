//! YAML as a tree in which every value knows its line and keeps the text it was written as.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{DuplicateKeyPolicy, Options, Spanned};

/// A value and the line (1-based) it stands on.
#[derive(Clone, Debug)]
pub struct Node {
    pub line: usize,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    /// Text, or a number or boolean as it was written: `1.20` stays `1.20`.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub line: usize,
    pub node: Node,
}

impl Value {
    /// What a message calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// What is wrong, and the line where.
#[derive(Debug)]
pub struct YamlError {
    pub line: usize,
    pub message: String,
}

/// Reads one document. Aliases and merge keys (`<<`) are resolved within the parser's budgets.
///
/// # Errors
/// When `text` is not one YAML document, or a map has a key twice.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let options = serde_yaml::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let root: Spanned<Raw> = read(text, options)?;
    resolve(root, text)
}

fn read(text: &str, options: Options) -> Result<Spanned<Raw>, YamlError> {
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |at| line(&at));
        let message = told(&error);
        YamlError { line, message }
    })
}

/// Where the parser names its own types and limits, its words are for programmers.
fn told(error: &serde_yaml::Error) -> String {
    use serde_yaml::Error;
    let told = match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => return told(error),
        Error::MultipleDocuments { .. } => "a second document begins here; a manifest is one",
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => "it is too much for a manifest once its aliases are resolved",
        // values may be nothing
        Error::NullIntoString { .. } => "a key is nothing; it must be a text",
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an alias stands within what it stands for",
        other => return without_position(&other.to_string()).to_owned(),
    };
    told.to_owned()
}

/// The parser's message without ` at line 1, column 2`: the position goes before it, in our own form.
fn without_position(message: &str) -> &str {
    let first = message.lines().next().unwrap_or_default();
    first.rsplit_once(" at line ").map_or(first, |(message, _)| message)
}

fn line(location: &serde_yaml::Location) -> usize {
    usize::try_from(location.line()).unwrap_or(usize::MAX)
}

enum Raw {
    Null,
    /// A boolean or number: only its place matters, the text there is what was meant.
    Literal(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn resolve(raw: Spanned<Raw>, text: &str) -> Result<Node, YamlError> {
    let at = raw.referenced;
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar(text),
        Raw::Literal(parsed) => Value::Scalar(as_written(&raw.defined, text).unwrap_or(parsed)),
        Raw::List(items) => Value::List(items.into_iter().map(|item| resolve(item, text)).collect::<Result<_, _>>()?),
        Raw::Map(pairs) => Value::Map(entries(pairs, text)?),
    };
    Ok(Node { line: line(&at), value })
}

fn entries(pairs: Vec<(Spanned<String>, Spanned<Raw>)>, text: &str) -> Result<Vec<Entry>, YamlError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let at = line(&key.referenced);
        if let Some(first) = entries.iter().find(|entry| entry.key == key.value) {
            return Err(YamlError {
                line: at,
                message: format!("`{}` stands here a second time; the first is in line {}", key.value, first.line),
            });
        }
        entries.push(Entry {
            key: key.value,
            line: at,
            node: resolve(value, text)?,
        });
    }
    Ok(entries)
}

fn as_written(at: &serde_yaml::Location, text: &str) -> Option<String> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let len = usize::try_from(at.span().byte_len()?).ok()?;
    let written = text.get(start..start.checked_add(len)?)?.trim();
    (!written.is_empty()).then(|| written.to_owned())
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Literal(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Literal(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Literal(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Literal(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            map.push(pair);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str, path: &[&str]) -> (String, usize) {
        let mut node = parse(text).expect(text);
        for key in path {
            let Value::Map(entries) = node.value else {
                panic!("{key} is not in a map")
            };
            node = entries.into_iter().find(|entry| entry.key == *key).expect(key).node;
        }
        match node.value {
            Value::Scalar(text) => (text, node.line),
            other => panic!("{}", other.kind()),
        }
    }

    #[test]
    fn values_keep_their_line_and_their_text() {
        let text = "# c\na:\n  n: 1.20\n  t: yes\n  q: \"1\"\n  z: 010 # c\n  l: |\n    x\n    y\n";
        assert_eq!(scalar(text, &["a", "n"]), ("1.20".into(), 3));
        assert_eq!(scalar(text, &["a", "t"]), ("yes".into(), 4));
        assert_eq!(scalar(text, &["a", "q"]), ("1".into(), 5));
        assert_eq!(scalar(text, &["a", "z"]), ("010".into(), 6));
        assert_eq!(scalar(text, &["a", "l"]).0, "x\ny\n");
    }

    #[test]
    fn merge_keys_and_aliases_are_resolved() {
        let text = "c: &c { x: 1, y: é2 }\na: { <<: *c, x: 3 }\n";
        assert_eq!(scalar(text, &["a", "x"]).0, "3");
        assert_eq!(scalar(text, &["a", "y"]).0, "é2");
        assert_eq!(scalar("é: &n 1.50\nb: *n\n", &["b"]).0, "1.50");
    }

    /// Ten times as much in each line.
    fn bomb() -> String {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
            let aliases = format!("*{of},").repeat(10);
            bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        bomb
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let nested = "[".repeat(5000);
        for (text, line) in [
            ("a: 1\nb:\n  c: 2\n  c: 3\n", 4),
            ("a:\n\tb: 2\n", 2),
            ("a: b\n---\nc: d\n", 3),
            ("a: [1\n", 1),
            ("a: b: c\n", 1),
            (nested.as_str(), 1),
        ] {
            assert_eq!(parse(text).expect_err(text).line, line, "{text:.40}");
        }
    }

    #[test]
    fn what_the_parser_means_for_programmers_is_said_for_people() {
        let too_much = "it is too much for a manifest once its aliases are resolved";
        for (text, line, message) in [
            (bomb().as_str(), 6, too_much),
            ("a: 1\n~: 2\n", 2, "a key is nothing; it must be a text"),
            ("a:\n  b: &b\n    c: *b\n", 3, "an alias stands within what it stands for"),
            ("a: &a [*a]\n", 1, "an alias stands within what it stands for"),
            ("a: b\n---\nc: d\n", 3, "a second document begins here; a manifest is one"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.line, error.message.as_str()), (line, message), "{text:.40}");
        }
    }
}
