//! The keys of a build, most of them those of the Compose file's `build` section.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::named::context_name;
use super::platform::canonical;
use super::reader::{Layers, Reader, read_text};
use super::yaml::{Entry, Node, Value};
use super::{Build, DockerfileSource, NamedContext, SecretSource};
use crate::dockerfile;
use crate::problem::{Problem, printable};

/// Seconds since 1970, the time that a build is to take for its own (reproducible-builds.org, `docs/source-date-epoch`).
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

const ADDITIONAL_CONTEXTS: &str = "additional_contexts";
const DEFAULT_PLATFORM: &str = "linux/amd64";

pub(super) const KEYS: [&str; 15] = [
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
    "cache_to",
    "secrets",
    "ssh",
    ADDITIONAL_CONTEXTS,
];

/// Keys that say which builder must carry them out; where they stand is remembered for the message.
const PARTICULAR_KEYS: [&str; 5] = ["cache_to", "secrets", "ssh", ADDITIONAL_CONTEXTS, "platforms"];

static PLATFORM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\A[a-z0-9]+/[a-z0-9_]+(/[a-z0-9._]+)?\z").expect("the pattern is a constant"));

impl Reader<'_> {
    pub(super) fn build(&self, keys: &Layers<'_>, image: &Entry) -> Result<Build, Problem> {
        let context_key = keys.last("context").ok_or_else(|| {
            self.fail(image.line, format!("the image `{}` has no `context`", image.key))
                .hint("the folder its Dockerfile copies from, relative to the manifest")
        })?;
        let context = self.context(context_key)?;
        let dockerfile = self.dockerfile(keys, context_key, &context)?;
        Ok(Build {
            target: keys.last("target").map(|node| self.target(node, &dockerfile)).transpose()?,
            dockerfile,
            context,
            args: self.args(keys)?,
            labels: self.mapping(keys, "labels")?,
            platforms: keys
                .last("platforms")
                .map_or(Ok(vec![DEFAULT_PLATFORM.to_owned()]), |node| self.platforms(node))?,
            network: keys.last("network").map(|node| self.text(node, "network")).transpose()?,
            cache_from: keys
                .last("cache_from")
                .map_or(Ok(Vec::new()), |node| self.texts(node, "cache_from"))?,
            cache_to: keys.last("cache_to").map_or(Ok(Vec::new()), |node| self.texts(node, "cache_to"))?,
            secrets: keys.last("secrets").map_or(Ok(BTreeMap::new()), |node| self.secrets(node))?,
            ssh: keys.last("ssh").map_or(Ok(BTreeMap::new()), |node| self.agents(node))?,
            additional_contexts: self.additional_contexts(keys)?,
            places: PARTICULAR_KEYS
                .into_iter()
                .filter_map(|key| Some((key, self.place(keys.last(key)?.line))))
                .collect(),
            pull: keys.last("pull").map_or(Ok(false), |node| self.boolean(node, "pull"))?,
            no_cache: keys.last("no_cache").map_or(Ok(false), |node| self.boolean(node, "no_cache"))?,
        })
    }

    fn context(&self, node: &Node) -> Result<PathBuf, Problem> {
        let text = self.text(node, "context")?;
        if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
            return Err(self
                .fail(node.line, format!("the context `{}` is not a folder", printable(&text)))
                .hint("a folder, relative to the manifest; Git and URL contexts cannot be built yet"));
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

    fn target(&self, node: &Node, dockerfile: &DockerfileSource) -> Result<String, Problem> {
        let target = self.text(node, "target")?;
        if dockerfile.parsed.has_target(&target) {
            return Ok(target);
        }
        let message = format!(
            "`target`: there is no stage `{}` in {} ({})",
            printable(&target),
            dockerfile.file,
            printable(&dockerfile.parsed.named_stages())
        );
        Err(self.fail(node.line, message).hint("`FROM ... AS NAME` names a stage"))
    }

    fn platforms(&self, node: &Node) -> Result<Vec<String>, Problem> {
        let mut platforms = self.texts(node, "platforms")?;
        if platforms.is_empty() {
            return Err(self.fail(node.line, "`platforms` is empty"));
        }
        if let Some(other) = platforms.iter().find(|platform| !PLATFORM.is_match(platform)) {
            return Err(self
                .fail(node.line, format!("`{}` is not a platform", printable(other)))
                .hint("os/architecture, for example linux/amd64"));
        }
        for platform in &mut platforms {
            *platform = canonical(platform);
        }
        let mut seen = BTreeSet::new();
        platforms.retain(|platform| seen.insert(platform.clone()));
        Ok(platforms)
    }

    /// Those of the manifest, and `SOURCE_DATE_EPOCH` of the environment, as `docker buildx build` gives it.
    fn args(&self, keys: &Layers<'_>) -> Result<BTreeMap<String, String>, Problem> {
        let mut args = self.mapping(keys, "args")?;
        let epoch = (self.environment.lookup)(SOURCE_DATE_EPOCH).filter(|seconds| !seconds.is_empty());
        if let Some(epoch) = epoch {
            args.entry(SOURCE_DATE_EPOCH.to_owned()).or_insert(epoch);
        }
        Ok(args)
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
                        self.insert(&mut all, key, &entry.key, value, entry.line)?;
                    }
                }
                Value::List(items) => {
                    for item in items {
                        let text = self.text(item, key)?;
                        match text.split_once('=') {
                            Some((name, value)) => self.insert(&mut all, key, name, Some(value.to_owned()), item.line)?,
                            None => self.insert(&mut all, key, &text, None, item.line)?,
                        }
                    }
                }
                other => return Err(self.fail(node.line, format!("`{key}` is {}, not a map", other.kind()))),
            }
        }
        Ok(all)
    }

    fn insert(&self, all: &mut BTreeMap<String, String>, key: &str, name: &str, value: Option<String>, line: usize) -> Result<(), Problem> {
        let name = if key == ADDITIONAL_CONTEXTS { context_name(name) } else { name };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(self.fail(line, format!("`{}` in `{key}` is not a name", printable(name))));
        }
        let value = match (value, key) {
            (None, "args") => (self.environment.lookup)(name),
            (value, _) => Some(value.unwrap_or_default()),
        };
        match value {
            Some(value) => all.insert(name.to_owned(), value),
            None => all.remove(name),
        };
        Ok(())
    }

    /// `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`, as `docker build --secret` takes it.
    fn secrets(&self, node: &Node) -> Result<BTreeMap<String, SecretSource>, Problem> {
        let mut secrets = BTreeMap::new();
        for text in self.texts(node, "secrets")? {
            let malformed = || {
                self.fail(node.line, format!("`{}` in `secrets` is not a secret", printable(&text)))
                    .hint("id=NAME,src=FILE or id=NAME,env=VARIABLE")
            };
            let fields: BTreeMap<_, _> = text
                .split(',')
                .map(|field| field.split_once('=').ok_or_else(malformed))
                .map(|field| field.map(|(name, value)| (if name == "source" { "src" } else { name }, value)))
                .collect::<Result<_, _>>()?;
            let known = |(name, value): (&&str, &&str)| match *name {
                "id" | "src" | "env" => !value.is_empty(),
                "type" => ["file", "env"].contains(value),
                _ => false,
            };
            if fields.len() < text.split(',').count() || !fields.iter().all(known) {
                return Err(malformed());
            }
            let id = fields.get("id").ok_or_else(malformed)?;
            let source = match (fields.get("src"), fields.get("env")) {
                (Some(file), None) => SecretSource::File(self.folder.join(file)),
                (None, variable) => SecretSource::Environment((*variable.unwrap_or(id)).to_owned()),
                (Some(_), Some(_)) => return Err(malformed()),
            };
            if secrets.insert((*id).to_owned(), source).is_some() {
                return Err(self.fail(node.line, format!("the secret `{}` stands there twice", printable(id))));
            }
        }
        Ok(secrets)
    }

    /// `default` for the agent of `SSH_AUTH_SOCK`, or `NAME=SOCKET`.
    fn agents(&self, node: &Node) -> Result<BTreeMap<String, PathBuf>, Problem> {
        let mut agents = BTreeMap::new();
        for text in self.texts(node, "ssh")? {
            let (id, socket) = match text.split_once('=') {
                Some((id, socket)) => (id, self.socket(node.line, socket)?),
                None => (text.as_str(), self.agent_of_the_person(node.line)?),
            };
            agents.insert(id.to_owned(), socket);
        }
        Ok(agents)
    }

    fn socket(&self, line: usize, name: &str) -> Result<PathBuf, Problem> {
        let path = self.folder.join(name);
        if path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
            return Ok(path);
        }
        Err(self
            .fail(line, format!("`ssh`: {} is not an agent's socket", self.shown(&path)))
            .hint("`ssh: [default]`, or NAME=SOCKET"))
    }

    fn agent_of_the_person(&self, line: usize) -> Result<PathBuf, Problem> {
        let socket = (self.environment.lookup)("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        socket.map(PathBuf::from).ok_or_else(|| {
            self.fail(line, "`ssh` asks for your ssh agent, and SSH_AUTH_SOCK names none")
                .hint("eval \"$(ssh-agent)\" && ssh-add, or name an agent's socket: `ssh: [default=SOCKET]`")
        })
    }

    fn additional_contexts(&self, keys: &Layers<'_>) -> Result<BTreeMap<String, NamedContext>, Problem> {
        let line = keys.last(ADDITIONAL_CONTEXTS).map_or(0, |node| node.line);
        let mut contexts = BTreeMap::new();
        for (name, text) in self.mapping(keys, ADDITIONAL_CONTEXTS)? {
            let context = if text.strip_prefix("docker-image://").is_some_and(|image| !image.is_empty()) {
                NamedContext::Image(text)
            } else if text.is_empty() || text.contains("://") {
                return Err(self.fail(
                    line,
                    format!(
                        "the additional context `{}` is neither a folder nor docker-image://IMAGE",
                        printable(&name)
                    ),
                ));
            } else {
                let path = self.folder.join(&text);
                if !path.is_dir() {
                    return Err(self.fail(
                        line,
                        format!(
                            "the additional context `{}`: there is no folder {}",
                            printable(&name),
                            self.shown(&path)
                        ),
                    ));
                }
                NamedContext::Folder(path)
            };
            contexts.insert(name, context);
        }
        Ok(contexts)
    }
}
