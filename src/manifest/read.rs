//! From YAML to a [`Manifest`].

use std::path::Path;
use std::str::FromStr;

use super::build;
use super::reader::{Environment, Layers, Reader, find, is_extension, read_text, shown};
use super::yaml::{self, Entry, Node, Value};
use super::{DEFAULT_REGISTRY, Image, Manifest, Stable, Utilities, UtilitiesSource};
use crate::builder::{Named, Origin};
use crate::problem::{Problem, printable};
use crate::reference::{ImageName, Registry, without_user};

const DEFAULT_UTILITIES: &str = "busybox:stable-musl";

pub(super) const TOP_KEYS: [&str; 7] = [
    "registry",
    "stable",
    "debug",
    "defaults",
    "images",
    "insecure_registries",
    "builder",
];
pub(super) const STABLE_KEYS: [&str; 2] = ["branch", "registry"];
pub(super) const DEBUG_KEYS: [&str; 1] = ["utilities"];
pub(super) const IMAGE_KEYS: [&str; 2] = ["push", "debug"];

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

impl Reader<'_> {
    fn manifest(&self, root: &Node) -> Result<Manifest, Problem> {
        if matches!(root.value, Value::Null) {
            return Err(Problem::usage(format!("{} is empty", self.file)).hint("it needs `images:` with one image at least"));
        }
        let top = self.map(root, "the manifest", &[&TOP_KEYS])?;
        let defaults = find(top, "defaults").map_or(Ok(&[][..]), |node| self.map(node, "`defaults`", &[&build::KEYS]))?;
        Ok(Manifest {
            file: self.file.to_owned(),
            folder: self.folder.to_owned(),
            registry: find(top, "registry").map_or_else(|| DEFAULT_REGISTRY.parse(), |node| self.parse(node, "registry"))?,
            stable: self.stable(find(top, "stable"))?,
            utilities: self.utilities(find(top, "debug"))?,
            insecure_registries: find(top, "insecure_registries").map_or(Ok(Vec::new()), |node| self.hosts(node))?,
            builder: find(top, "builder").map(|node| self.builder(node)).transpose()?,
            images: self.images(find(top, "images"), root.line, defaults)?,
        })
    }

    fn stable(&self, node: Option<&Node>) -> Result<Stable, Problem> {
        let entries = node.map_or(Ok(&[][..]), |node| self.map(node, "`stable`", &[&STABLE_KEYS]))?;
        Ok(Stable {
            branch: find(entries, "branch").map_or(Ok("master".to_owned()), |node| self.given(node, "branch"))?,
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
        let text = self.given(node, "utilities")?;
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

    fn builder(&self, node: &Node) -> Result<Named, Problem> {
        let texts = match &node.value {
            Value::List(_) => self.texts(node, "builder")?,
            _ => vec![self.text(node, "builder")?],
        };
        if texts.iter().all(String::is_empty) {
            return Err(self.fail(node.line, "`builder` is empty"));
        }
        Ok(Named {
            texts,
            origin: Origin::Manifest(self.place(node.line)),
            folder: self.folder.to_owned(),
        })
    }

    pub(super) fn hosts(&self, node: &Node) -> Result<Vec<String>, Problem> {
        let hosts = self.texts(node, "insecure_registries")?;
        for host in &hosts {
            if host.contains('/') || Registry::from_str(host).is_err() {
                return Err(self.fail(
                    node.line,
                    format!("`{}` in `insecure_registries` is not HOST or HOST:PORT", without_user(host)),
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
        let keys = self.map(&entry.node, &format!("the image `{name}`"), &[&build::KEYS, &IMAGE_KEYS])?;
        let debug = find(keys, "debug")
            .map(|node| {
                let debug = self.map(node, &format!("`debug` of the image `{name}`"), &[&build::KEYS])?;
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
}
