//! The names of the registry's world, as types that cannot hold an invalid value.
//!
//! The grammar is that of `distribution/reference`: a path component is
//! `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, host + `/` + path are at most 255 bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::problem::{HIDDEN, Problem, printable};

const MAX_REPOSITORY_BYTES: usize = 255;

static COMPONENT: LazyLock<Regex> = LazyLock::new(|| anchored(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"));
static HOST: LazyLock<Regex> = LazyLock::new(|| {
    anchored(
        r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?",
    )
});

fn anchored(pattern: &str) -> Regex {
    Regex::new(&format!(r"\A(?:{pattern})\z")).expect("the pattern is a constant")
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let [first, rest @ ..] = text.as_bytes() else { return false };
    is_word(first) && rest.len() < 128 && rest.iter().all(|byte| is_word(byte) || b".-".contains(byte))
}

/// `sha256:[0-9a-f]{64}`
fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is one component of a repository's path.
#[must_use]
pub fn is_component(text: &str) -> bool {
    COMPONENT.is_match(text)
}

/// The name of an image of the manifest: a path component that no debug channel's name can swallow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if !is_component(text) {
            return Err(Problem::usage(format!("`{}` cannot be an image's name", printable(text)))
                .hint("lower-case letters and digits, with `-`, `_`, `__` or `.` between them"));
        }
        if text == "debug" || text.starts_with("debug-") {
            return Err(Problem::usage(format!(
                "an image cannot be called `{text}`: in the channel `<user>` it would be an image of the channel `<user>-debug`"
            ))
            .hint("give it a name that does not begin with `debug`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where channels live: a registry's host and, usually, a path there, e.g. `gcr.io/lattice-dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    host: String,
    path: String,
}

impl Registry {
    /// The host with its port, as it stands in a reference and as credentials are kept under.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The registry's path as a repository, where it has one.
    #[must_use]
    pub fn root(&self) -> Option<Repository> {
        self.to_string().parse().ok()
    }

    /// The repository `name` in this registry.
    ///
    /// # Errors
    /// When its name is longer than 255 bytes.
    pub fn repository(&self, name: &str) -> Result<Repository, Problem> {
        Repository::new(&self.host, format!("{self}/{name}"))
    }

    /// The repository `name` in this registry, with the tag `latest`.
    ///
    /// # Errors
    /// When its name is longer than 255 bytes.
    pub fn reference(&self, name: &str) -> Result<Reference, Problem> {
        Ok(self.repository(name)?.tagged(Tag::latest()))
    }
}

/// What was given as a registry, for a person: what stands before the host may be a password.
#[must_use]
pub fn without_user(text: &str) -> String {
    text.rsplit_once('@')
        .map_or_else(|| printable(text), |(_, host)| format!("{HIDDEN}@{}", printable(host)))
}

impl FromStr for Registry {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let malformed = |why: &str| {
            Problem::usage(format!("`{}` cannot be a registry: {why}", without_user(text)))
                .hint("HOST/PATH, for example `gcr.io/lattice-dev` or `127.0.0.1:5000/lattice-dev`")
        };
        if text.contains('@') {
            return Err(malformed("there is no user in it: credentials are those of `docker login`"));
        }
        if text.contains("://") {
            return Err(malformed("it is written without a scheme"));
        }
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        if !HOST.is_match(host) || !(host == "localhost" || host.contains(['.', ':'])) {
            return Err(malformed("it does not begin with a host"));
        }
        if text.ends_with('/') {
            return Err(malformed("it ends with a slash"));
        }
        if !(path.is_empty() || path.split('/').all(is_component)) {
            return Err(malformed(
                "its path is not lower-case letters and digits, with `-`, `_` or `.` between them",
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.path.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.path)
    }
}

/// A repository of a registry: its host, and its path there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    name: String,
    host_bytes: usize,
}

impl Repository {
    fn new(host: &str, name: String) -> Result<Self, Problem> {
        if name.len() > MAX_REPOSITORY_BYTES {
            return Err(Problem::usage(format!(
                "`{name}` has {} bytes; a registry allows {MAX_REPOSITORY_BYTES}",
                name.len()
            )));
        }
        Ok(Self {
            name,
            host_bytes: host.len(),
        })
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.name[..self.host_bytes]
    }

    /// The part after the host, e.g. `lattice-dev/stable-envoy-prepare`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.name[self.host_bytes + 1..]
    }

    /// Host and path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn tagged(&self, tag: Tag) -> Reference {
        Reference {
            repository: self.clone(),
            tag,
        }
    }
}

impl FromStr for Repository {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let registry: Registry = text.parse()?;
        if registry.path.is_empty() {
            return Err(Problem::usage(format!("`{registry}` is a registry, not a repository of one")));
        }
        Self::new(&registry.host, registry.to_string())
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// A name for a manifest in a repository: `latest`, `record`, `in-<fingerprint>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    #[must_use]
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if is_tag(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Problem::usage(format!("`{}` cannot be a tag", printable(text)))
            .hint("letters, digits, `_`, `.` and `-`, at most 128, the first none of `.` and `-`"))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A repository and a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Tag,
}

impl Reference {
    #[must_use]
    pub fn host(&self) -> &str {
        self.repository.host()
    }

    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    #[must_use]
    pub fn tag(&self) -> &Tag {
        &self.tag
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// The sha256 digest of a manifest, or the id of an image in the daemon, which is the digest of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// Of all that `hasher` was given.
    #[must_use]
    pub fn finish(hasher: Sha256) -> Self {
        Self(format!("sha256:{:x}", hasher.finalize()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// Twelve hex digits: enough for a person.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if is_digest(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Problem::failed(format!("`{}` is not a sha256 digest", printable(text))))
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Files and answers from outside hold these as text.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = Problem;

            fn try_from(text: String) -> Result<Self, Problem> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}
as_text!(ImageName, Digest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        for good in [
            "gcr.io/lattice-dev",
            "127.0.0.1:5000/a/b",
            "localhost",
            "localhost:5000/x",
            "[::1]:5000/x",
            "us-docker.pkg.dev/p/r",
        ] {
            assert_eq!(Registry::from_str(good).expect(good).to_string(), good);
        }
        for bad in [
            "",
            "lattice-dev",
            "https://gcr.io/x",
            "gcr.io/",
            "gcr.io//x",
            "gcr.io/X",
            "gcr.io/x:tag",
            "gcr.io/x@sha256:0",
            "a b.c/x",
            "-a.b/x",
            "gcr.io/x\n",
            "gcr.io/../x",
            "é.fr/x",
        ] {
            assert!(Registry::from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn image_names() {
        for good in ["api", "envoy-prepare", "a__b", "a.b", "a--b", "debugger"] {
            assert_eq!(ImageName::from_str(good).expect(good).as_str(), good);
        }
        for bad in ["", "A", "a_", "-a", "a___b", "a..b", "a/b", "a:b", "debug", "debug-x", "a\n", "é"] {
            assert!(ImageName::from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repository_is_at_most_255_bytes() {
        let registry = Registry::from_str("gcr.io/lattice-dev").expect("valid");
        let room = 255 - "gcr.io/lattice-dev/".len();
        assert!(registry.reference(&"a".repeat(room)).is_ok());
        assert!(registry.reference(&"a".repeat(room + 1)).is_err());
    }

    #[test]
    fn repositories() {
        let repository = Repository::from_str("127.0.0.1:5000/a/b").expect("valid");
        assert_eq!((repository.host(), repository.path()), ("127.0.0.1:5000", "a/b"));
        assert_eq!(repository.tagged(Tag::latest()).to_string(), "127.0.0.1:5000/a/b:latest");
        for bad in ["gcr.io", "debian", "gcr.io/A", "gcr.io/a:b", "gcr.io/a/../b"] {
            assert!(Repository::from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags() {
        for good in ["latest", "in-0a", "_x", "A.b-C", &"a".repeat(128)] {
            assert_eq!(Tag::from_str(good).expect(good).as_str(), good);
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "é", "a\n", &"a".repeat(129)] {
            assert!(Tag::from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let digest = Digest::from_str(&text).expect("valid");
        assert_eq!(digest.short(), "0123456789ab");
        assert!(Digest::from_str(&text.to_uppercase()).is_err());
        assert!(Digest::from_str(&text[..70]).is_err());
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }
}
