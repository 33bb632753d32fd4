//! What goes into a build, as one number: equal fingerprints mean the same image, on every machine.
//!
//! Into it go facts, each a kind, a name and a value, in a fixed order and each with its length, so that two different
//! lists of facts never read the same. What is not among them does not count: times, owners, the context folder's own
//! mode, caches, and the values of secrets, ssh agents and proxies.

mod parts;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use blake3::{Hash, Hasher};
use serde::{Deserialize, Serialize};

use crate::context::{Context, Entry, Kind, Reading};
use crate::manifest::{Build, NamedContext};
use crate::problem::{Problem, printable};
use crate::reference::{Digest, ImageName};

pub use parts::{Difference, FileChange, Parts, reads_whole, remember_whole};
pub use plan::{Print, Surroundings, of_plan, read_ahead};

/// Raised whenever our way of building changes, so that what was built before counts as different.
const SCHEME: u32 = 1;

/// Args that BuildKit gives to every `RUN` and leaves out of its own cache (moby/buildkit, `ProxyEnv`).
const PROXY_ARGS: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// What a build without `network` has.
const DEFAULT_NETWORK: &str = "default";

/// 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(Hash);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.to_hex().as_str())
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl FromStr for Fingerprint {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let hash = Hash::from_hex(text).ok().filter(|_| is_lower);
        hash.map(Self)
            .ok_or_else(|| Problem::failed(format!("`{}` is not a fingerprint", printable(text))))
    }
}

/// What an image is built from, with everything resolved.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub build: &'a Build,
    pub reading: &'a Reading,
    /// The images of elsewhere that the build resolves ([`crate::externals::of`]), by the names that it has for them.
    pub externals: &'a BTreeMap<String, Digest>,
    /// The places of the Dockerfile that name other images of the manifest, in their order.
    pub siblings: &'a [(&'a ImageName, Fingerprint)],
}

#[must_use]
pub fn fingerprint(inputs: &Inputs<'_>) -> (Fingerprint, Parts) {
    let build = inputs.build;
    let mut facts = Facts::default();
    facts.key("dockerfile", &build.dockerfile.text);
    facts.key("platform", &build.platforms.join(","));
    if let Some(target) = &build.target {
        facts.key("target", target);
    }
    if let Some(network) = build.network.as_deref().filter(|network| *network != DEFAULT_NETWORK) {
        facts.key("network", network);
    }
    let is_proxy = |name: &str| PROXY_ARGS.iter().any(|proxy| proxy.eq_ignore_ascii_case(name));
    let counts = |name: &str| !is_proxy(name) || build.dockerfile.parsed.declares(name);
    for (name, value) in build.args.iter().filter(|(name, _)| counts(name)) {
        facts.key(&format!("args.{name}"), value);
    }
    for (name, value) in &build.labels {
        facts.key(&format!("labels.{name}"), value);
    }
    for id in build.secrets.keys() {
        facts.key(&format!("secrets.{id}"), "");
    }
    for id in build.ssh.keys() {
        facts.key(&format!("ssh.{id}"), "");
    }
    for (name, context) in &build.additional_contexts {
        if let NamedContext::Image(image) = context {
            facts.key(&format!("additional_contexts.{name}"), image);
        }
    }
    for (name, digest) in inputs.externals {
        facts.base(name, digest);
    }
    for (name, fingerprint) in inputs.siblings {
        facts.sibling(name.as_str(), fingerprint);
    }
    facts.context(None, &inputs.reading.context);
    for (name, context) in &inputs.reading.named {
        facts.context(Some(name), context);
    }
    facts.end()
}

/// That of a debug variant that is the normal build plus utilities; `utilities` tells them from others.
#[must_use]
pub fn with_utilities(normal: &Fingerprint, utilities: &[u8]) -> (Fingerprint, Parts) {
    let mut facts = Facts::default();
    facts.sibling("normal", normal);
    facts.fact(Sort::Utilities, "", utilities);
    facts.parts.key("debug.utilities", short(&blake3::hash(utilities)));
    facts.end()
}

#[derive(Clone, Copy)]
enum Sort {
    Scheme,
    Key,
    Base,
    Sibling,
    Context,
    NamedContext,
    Utilities,
}

struct Facts {
    hasher: Hasher,
    parts: Parts,
}

impl Default for Facts {
    fn default() -> Self {
        let mut facts = Self {
            hasher: Hasher::new(),
            parts: Parts::new(SCHEME),
        };
        facts.fact(Sort::Scheme, "", &SCHEME.to_le_bytes());
        facts
    }
}

impl Facts {
    fn fact(&mut self, sort: Sort, name: &str, value: &[u8]) {
        self.hasher.update(&[sort as u8]);
        put(&mut self.hasher, name.as_bytes());
        put(&mut self.hasher, value);
    }

    fn key(&mut self, name: &str, value: &str) {
        self.fact(Sort::Key, name, value.as_bytes());
        self.parts.key(name, short(&blake3::hash(value.as_bytes())));
    }

    fn base(&mut self, name: &str, digest: &Digest) {
        self.fact(Sort::Base, name, digest.as_str().as_bytes());
        self.parts.base(name, digest);
    }

    fn sibling(&mut self, name: &str, fingerprint: &Fingerprint) {
        self.fact(Sort::Sibling, name, fingerprint.0.as_bytes());
        self.parts.sibling(name, fingerprint);
    }

    fn context(&mut self, name: Option<&str>, context: &Context) {
        let mut all = Hasher::new();
        let mut entries = Vec::with_capacity(context.entries.len());
        for entry in &context.entries {
            let hash = of_entry(entry);
            put(&mut all, entry.path.as_os_str().as_bytes());
            all.update(hash.as_bytes());
            entries.push((&*entry.path, short(&hash)));
        }
        let sort = if name.is_some() { Sort::NamedContext } else { Sort::Context };
        self.fact(sort, name.unwrap_or_default(), all.finalize().as_bytes());
        self.parts.files(name, &entries);
    }

    fn end(self) -> (Fingerprint, Parts) {
        (Fingerprint(self.hasher.finalize()), self.parts)
    }
}

fn put(hasher: &mut Hasher, value: &[u8]) {
    hasher.update(&(value.len() as u64).to_le_bytes());
    hasher.update(value);
}

fn of_entry(entry: &Entry) -> Hash {
    let (kind, content) = match &entry.kind {
        Kind::Folder => (0, &[][..]),
        Kind::File { hash, .. } => (1, hash.as_bytes().as_slice()),
        Kind::Link(target) => (2, target.as_os_str().as_bytes()),
    };
    let mut hasher = Hasher::new();
    hasher.update(&[kind]);
    // the modes of links mean nothing and differ between systems
    let mode = if kind == 2 { 0 } else { entry.mode };
    hasher.update(&mode.to_le_bytes());
    put(&mut hasher, content);
    hasher.finalize()
}

fn short(hash: &Hash) -> u64 {
    let start = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*start)
}
