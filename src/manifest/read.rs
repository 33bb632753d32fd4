//! From YAML to a [`Manifest`]: every message has its line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;

use super::interpolate::{Lookup, interpolate};
use super::yaml::{self, Entry, Node, Value};
use super::{Build, DEFAULT_REGISTRY, DockerfileSource, Image, Manifest, Stable, Utilities, UtilitiesSource};
use crate::dockerfile;
use crate::problem::{Problem, nearest, printable};
use crate::reference::{ImageName, Registry};

const MAX_BYTES: u64 = 1 << 20;
const DEFAULT_PLATFORM: &str = "linux/amd64";
const DEFAULT_UTILITIES: &str = "busybox:stable-musl";

const TOP_KEYS: [&str; 6] = ["registry", "stable", "debug", "defaults", "images", "insecure_registries"];
const STABLE_KEYS: [&str; 2] = ["branch", "registry"];
const DEBUG_KEYS: [&str; 1] = ["utilities"];
const BUILD_KEYS: [&str; 11] = [
    "context",
    "dockerfile",
    "dockerfile_inline",
    "target",
    "args",
    "labels",
    "platforms",
    "network",
    "pull",
    "no_cache",
    "cache_from",
];
const IMAGE_KEYS: [&str; 2] = ["push", "debug"];
/// Keys of the manifest's format that only BuildKit can carry out.
const BUILDKIT_KEYS: [&str; 5] = ["secrets", "ssh", "cache_to", "additional_contexts", "builder"];

static PLATFORM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\A[a-z0-9]+/[a-z0-9_]+(/[a-z0-9._]+)?\z").expect("the pattern is a constant"));

/// The environment that `${NAME}` and args without a value are looked up in.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    pub lookup: Lookup<'a>,
    /// The current folder: files below it are shown relative to it.
    pub current: &'a Path,
}

pub(super) fn load(path: &Path, environment: Environment<'_>) -> Result<Manifest, Problem> {
    let path = environment.current.join(path);
    let file = shown(&path, environment.current);
    let text = read_text(&path, &file)?;
    let reader = Reader {
        file: &file,
        folder: path.parent().unwrap_or(Path::new("/")),
        environment,
    };
    let root = yaml::parse(&text).map_err(|error| reader.fail(error.line, printable(&error.message)))?;
    reader.manifest(&root)
}

fn shown(path: &Path, current: &Path) -> String {
    match path.strip_prefix(current).unwrap_or(path).to_string_lossy() {
        here if here.is_empty() => ".".to_owned(),
        path => printable(&path),
    }
}

fn read_text(path: &Path, file: &str) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| Problem::usage(format!("{file} cannot be read: {error}"));
    if !path.is_file() {
        return Err(Problem::usage(format!("there is no file {file}")));
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

struct Reader<'a> {
    file: &'a str,
    folder: &'a Path,
    environment: Environment<'a>,
}

impl Reader<'_> {
    fn fail(&self, line: usize, message: impl std::fmt::Display) -> Problem {
        Problem::usage(format!("{}:{line}: {message}", self.file))
    }

    fn manifest(&self, root: &Node) -> Result<Manifest, Problem> {
        if matches!(root.value, Value::Null) {
            return Err(Problem::usage(format!("{} is empty", self.file)).hint("it needs `images:` with one image at least"));
        }
        let top = self.map(root, "the manifest", &[&TOP_KEYS])?;
        let defaults = find(top, "defaults").map_or(Ok(&[][..]), |node| self.map(node, "`defaults`", &[&BUILD_KEYS]))?;
        Ok(Manifest {
            file: self.file.to_owned(),
            registry: find(top, "registry").map_or_else(|| DEFAULT_REGISTRY.parse(), |node| self.parse(node, "registry"))?,
            stable: self.stable(find(top, "stable"))?,
            utilities: self.utilities(find(top, "debug"))?,
            insecure_registries: find(top, "insecure_registries").map_or(Ok(Vec::new()), |node| self.hosts(node))?,
            images: self.images(find(top, "images"), root.line, defaults)?,
        })
    }

    fn stable(&self, node: Option<&Node>) -> Result<Stable, Problem> {
        let entries = node.map_or(Ok(&[][..]), |node| self.map(node, "`stable`", &[&STABLE_KEYS]))?;
        Ok(Stable {
            branch: find(entries, "branch").map_or(Ok("master".to_owned()), |node| self.text(node, "branch"))?,
            registry: find(entries, "registry").map(|node| self.parse(node, "registry")).transpose()?,
        })
    }

    fn utilities(&self, node: Option<&Node>) -> Result<Utilities, Problem> {
        let entries = node.map_or(Ok(&[][..]), |node| self.map(node, "`debug`", &[&DEBUG_KEYS]))?;
        let Some(node) = find(entries, "utilities") else {
            return Ok(Utilities {
                source: UtilitiesSource::Image(DEFAULT_UTILITIES.to_owned()),
                place: self.file.to_owned(),
            });
        };
        let text = self.text(node, "utilities")?;
        let path = self.folder.join(&text);
        let source = if text.starts_with(['.', '/']) || path.is_file() {
            UtilitiesSource::Path(path)
        } else {
            UtilitiesSource::Image(text)
        };
        Ok(Utilities {
            source,
            place: self.place(node.line),
        })
    }

    fn hosts(&self, node: &Node) -> Result<Vec<String>, Problem> {
        let hosts = self.texts(node, "insecure_registries")?;
        for host in &hosts {
            if host.contains('/') || Registry::from_str(host).is_err() {
                return Err(self.fail(
                    node.line,
                    format!("`{}` in `insecure_registries` is not HOST or HOST:PORT", printable(host)),
                ));
            }
        }
        Ok(hosts)
    }

    fn images(&self, node: Option<&Node>, line: usize, defaults: &[Entry]) -> Result<Vec<Image>, Problem> {
        let node = node.ok_or_else(|| self.fail(line, "there is no `images:`"))?;
        let Value::Map(entries) = &node.value else {
            return Err(self.fail(node.line, format!("`images` is {}, not a map of images", node.value.kind())));
        };
        let mut images: Vec<Image> = Vec::new();
        for entry in entries.iter().filter(|entry| !is_extension(&entry.key)) {
            let image = self.image(entry, defaults)?;
            for other in &images {
                self.refuse_collision(entry.line, &image.name, &other.name)?;
                self.refuse_collision(entry.line, &other.name, &image.name)?;
            }
            images.push(image);
        }
        if images.is_empty() {
            return Err(self.fail(node.line, "`images` holds no image"));
        }
        Ok(images)
    }

    fn refuse_collision(&self, line: usize, long: &ImageName, short: &ImageName) -> Result<(), Problem> {
        match long.as_str().strip_suffix(short.as_str()).and_then(|rest| rest.strip_suffix('-')) {
            None => Ok(()),
            Some(user) => Err(self
                .fail(
                    line,
                    format!(
                        "the images `{long}` and `{short}` collide: `{long}` of a channel `x` would be `{short}` of a channel `x-{user}`"
                    ),
                )
                .hint("rename one, so that no name ends in `-` and another's name")),
        }
    }

    fn image(&self, entry: &Entry, defaults: &[Entry]) -> Result<Image, Problem> {
        let name: ImageName = entry.key.parse().map_err(|problem: Problem| self.at(entry.line, &problem))?;
        let keys = self.map(&entry.node, &format!("the image `{name}`"), &[&BUILD_KEYS, &IMAGE_KEYS])?;
        let debug = find(keys, "debug")
            .map(|node| {
                let debug = self.map(node, &format!("`debug` of the image `{name}`"), &[&BUILD_KEYS])?;
                self.build(&Layers(&[defaults, keys, debug]), entry)
            })
            .transpose()?;
        Ok(Image {
            push: find(keys, "push").map_or(Ok(true), |node| self.boolean(node, "push"))?,
            place: self.place(entry.line),
            normal: self.build(&Layers(&[defaults, keys]), entry)?,
            debug,
            name,
        })
    }

    fn build(&self, keys: &Layers<'_>, image: &Entry) -> Result<Build, Problem> {
        let context_key = keys.last("context").ok_or_else(|| {
            self.fail(image.line, format!("the image `{}` has no `context`", image.key))
                .hint("the folder its Dockerfile copies from, relative to the manifest")
        })?;
        let context = self.context(context_key)?;
        Ok(Build {
            dockerfile: self.dockerfile(keys, context_key, &context)?,
            context,
            target: keys.last("target").map(|node| self.text(node, "target")).transpose()?,
            args: self.mapping(keys, "args")?,
            labels: self.mapping(keys, "labels")?,
            platform: keys
                .last("platforms")
                .map_or(Ok(DEFAULT_PLATFORM.to_owned()), |node| self.platform(node))?,
            network: keys.last("network").map(|node| self.text(node, "network")).transpose()?,
            cache_from: keys
                .last("cache_from")
                .map_or(Ok(Vec::new()), |node| self.texts(node, "cache_from"))?,
            pull: keys.last("pull").map_or(Ok(false), |node| self.boolean(node, "pull"))?,
            no_cache: keys.last("no_cache").map_or(Ok(false), |node| self.boolean(node, "no_cache"))?,
        })
    }

    fn context(&self, node: &Node) -> Result<PathBuf, Problem> {
        let text = self.text(node, "context")?;
        if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
            return Err(self
                .fail(node.line, format!("the context `{}` is not a folder", printable(&text)))
                .hint("Git and URL contexts wait for the BuildKit engine; a folder, relative to the manifest, works now"));
        }
        let path = self.folder.join(&text);
        if !path.is_dir() {
            let what = if path.exists() { "is not a folder" } else { "does not exist" };
            return Err(self.fail(node.line, format!("the context {} {what}", self.shown(&path))));
        }
        Ok(path)
    }

    fn dockerfile(&self, keys: &Layers<'_>, context_key: &Node, context: &Path) -> Result<DockerfileSource, Problem> {
        let (path, file, text) = match keys.last_with(["dockerfile", "dockerfile_inline"]) {
            [Some(node), Some(_)] => {
                return Err(self.fail(node.line, "`dockerfile` and `dockerfile_inline` exclude each other"));
            }
            [None, Some(node)] => (
                None,
                format!("{} (dockerfile_inline)", self.place(node.line)),
                self.text(node, "dockerfile_inline")?,
            ),
            [key, None] => {
                let path = context.join(key.map_or(Ok("Dockerfile".to_owned()), |node| self.text(node, "dockerfile"))?);
                let file = self.shown(&path);
                let text = read_text(&path, &file).map_err(|problem| self.at(key.unwrap_or(context_key).line, &problem))?;
                (Some(path), file, text)
            }
        };
        let parsed =
            dockerfile::parse(&text).map_err(|error| Problem::usage(format!("{file}:{}: {}", error.line, printable(&error.message))))?;
        Ok(DockerfileSource { path, file, text, parsed })
    }

    fn platform(&self, node: &Node) -> Result<String, Problem> {
        match self.texts(node, "platforms")?.as_slice() {
            [one] if PLATFORM.is_match(one) => Ok(one.clone()),
            [one] => Err(self
                .fail(node.line, format!("`{}` is not a platform", printable(one)))
                .hint("os/architecture, for example linux/amd64")),
            [] => Err(self.fail(node.line, "`platforms` is empty")),
            several => Err(self.waits_for_buildkit(node.line, &format!("`platforms` with {} entries", several.len()))),
        }
    }

    /// `args` and `labels`: a map, or a list of `NAME=value`. A name without a value takes it from the environment, or is left out.
    fn mapping(&self, keys: &Layers<'_>, key: &str) -> Result<BTreeMap<String, String>, Problem> {
        let mut all = BTreeMap::new();
        for node in keys.all(key) {
            match &node.value {
                Value::Map(entries) => {
                    for entry in entries {
                        let value = match entry.node.value {
                            Value::Null => None,
                            _ => Some(self.text(&entry.node, &entry.key)?),
                        };
                        self.insert(&mut all, key, &entry.key, value);
                    }
                }
                Value::List(items) => {
                    for item in items {
                        let text = self.text(item, key)?;
                        match text.split_once('=') {
                            Some((name, value)) => self.insert(&mut all, key, name, Some(value.to_owned())),
                            None => self.insert(&mut all, key, &text, None),
                        }
                    }
                }
                other => return Err(self.fail(node.line, format!("`{key}` is {}, not a map", other.kind()))),
            }
        }
        Ok(all)
    }

    fn insert(&self, all: &mut BTreeMap<String, String>, key: &str, name: &str, value: Option<String>) {
        let value = match (value, key) {
            (None, "args") => (self.environment.lookup)(name),
            (value, _) => Some(value.unwrap_or_default()),
        };
        match value {
            Some(value) => all.insert(name.to_owned(), value),
            None => all.remove(name),
        };
    }

    fn parse<T: FromStr<Err = Problem>>(&self, node: &Node, key: &str) -> Result<T, Problem> {
        self.text(node, key)?.parse().map_err(|problem| self.at(node.line, &problem))
    }

    fn text(&self, node: &Node, key: &str) -> Result<String, Problem> {
        let Value::Scalar(text) = &node.value else {
            return Err(self.fail(node.line, format!("`{}` is {}, not a text", printable(key), node.value.kind())));
        };
        interpolate(text, self.environment.lookup)
            .map_err(|message| self.fail(node.line, format!("in `{}`: {}", printable(key), printable(&message))))
    }

    fn texts(&self, node: &Node, key: &str) -> Result<Vec<String>, Problem> {
        match &node.value {
            Value::List(items) => items.iter().map(|item| self.text(item, key)).collect(),
            other => Err(self.fail(node.line, format!("`{key}` is {}, not a list", other.kind()))),
        }
    }

    fn boolean(&self, node: &Node, key: &str) -> Result<bool, Problem> {
        match self.text(node, key)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            other => Err(self.fail(node.line, format!("`{key}` is `{}`, neither true nor false", printable(other)))),
        }
    }

    /// The entries of a map that may hold `known` keys and `x-...` keys.
    fn map<'n>(&self, node: &'n Node, what: &str, known: &[&[&str]]) -> Result<&'n [Entry], Problem> {
        let Value::Map(entries) = &node.value else {
            return Err(self.fail(node.line, format!("{what} is {}, not a map", node.value.kind())));
        };
        let known = || known.iter().copied().flatten().copied();
        for entry in entries.iter().filter(|entry| !is_extension(&entry.key)) {
            if known().any(|key| key == entry.key) {
                continue;
            }
            if BUILDKIT_KEYS.contains(&entry.key.as_str()) {
                return Err(self.waits_for_buildkit(entry.line, &format!("`{}`", entry.key)));
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

    fn waits_for_buildkit(&self, line: usize, what: &str) -> Problem {
        self.fail(
            line,
            format!("{what} needs the BuildKit engine, which this version does not drive yet"),
        )
    }

    fn at(&self, line: usize, problem: &Problem) -> Problem {
        problem.hints().iter().fold(self.fail(line, problem), Problem::hint)
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.file)
    }

    fn shown(&self, path: &Path) -> String {
        shown(path, self.environment.current)
    }
}

fn find<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}

/// The maps a key is looked up in, the most general first.
struct Layers<'n>(&'n [&'n [Entry]]);

impl<'n> Layers<'n> {
    fn all(&self, key: &str) -> impl Iterator<Item = &'n Node> {
        self.0.iter().filter_map(move |entries| find(entries, key))
    }

    fn last(&self, key: &str) -> Option<&'n Node> {
        self.all(key).last()
    }

    /// The values of `keys` in the most particular map that has any of them.
    fn last_with<const N: usize>(&self, keys: [&str; N]) -> [Option<&'n Node>; N] {
        let found = |entries: &&'n [Entry]| Some(keys.map(|key| find(entries, key))).filter(|found| found.iter().any(Option::is_some));
        self.0.iter().rev().find_map(found).unwrap_or([None; N])
    }
}
