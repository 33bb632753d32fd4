//! `images.yaml`: the images of the set and how each is built.
//!
//! The names of the keys are those of the Compose file's `build` section wherever one exists. Everything here is
//! validated: a [`Manifest`] that exists can be planned, its contexts and Dockerfiles are there.

mod build;
mod interpolate;
mod named;
mod outline;
mod platform;
mod read;
mod reader;
mod schema;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::builder::Named;
use crate::channel::{Owner, Variant};
use crate::dockerfile::{Dockerfile, DockerfileError};
use crate::problem::{Problem, printable};
use crate::reference::{ImageName, Registry};

pub use build::SOURCE_DATE_EPOCH;
pub use interpolate::Lookup;
pub use outline::Outline;
pub use platform::canonical;
pub use reader::Environment;
pub use schema::SCHEMA;

pub const FILE_NAME: &str = "images.yaml";
pub const DEFAULT_REGISTRY: &str = "gcr.io/lattice-dev";

#[derive(Debug)]
pub struct Manifest {
    /// As it is shown in messages.
    pub file: String,
    /// Where the file is.
    pub folder: PathBuf,
    pub registry: Registry,
    pub stable: Stable,
    pub utilities: Utilities,
    /// Registries (`host:port`) that may be spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// The builders to use where nobody names others.
    pub builder: Option<Named>,
    /// In the order of the file.
    pub images: Vec<Image>,
}

#[derive(Debug)]
pub struct Stable {
    /// The branch that the channel `stable` is built from.
    pub branch: String,
    /// Where `stable` lives, if apart from the other channels.
    pub registry: Option<Registry>,
}

/// What the debug variant adds to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utilities {
    pub source: UtilitiesSource,
    /// `file:line` of the key, for messages.
    pub place: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UtilitiesSource {
    /// An image that holds a busybox.
    Image(String),
    /// A static busybox.
    Path(PathBuf),
}

#[derive(Debug)]
pub struct Image {
    pub name: ImageName,
    /// `file:line` of the image, for messages.
    pub place: String,
    pub push: bool,
    pub normal: Build,
    /// Where the image has `debug:` keys of its own; else the debug variant is the normal one with utilities.
    pub debug: Option<Build>,
}

impl Image {
    /// How the variant is built from a Dockerfile; `None` where it is the normal one with utilities.
    #[must_use]
    pub fn build(&self, variant: Variant) -> Option<&Build> {
        match variant {
            Variant::Normal => Some(&self.normal),
            Variant::Debug => self.debug.as_ref(),
        }
    }
}

/// One build from a Dockerfile, with every key resolved.
#[derive(Clone, Debug)]
pub struct Build {
    pub context: PathBuf,
    pub dockerfile: DockerfileSource,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// `os/architecture[/variant]`, in the form of [`canonical`]; one at least. Several make an index.
    pub platforms: Vec<String>,
    pub network: Option<String>,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    /// By the ids that the Dockerfile knows them under.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Sockets of ssh agents, by their ids.
    pub ssh: BTreeMap<String, PathBuf>,
    /// By the names that the Dockerfile knows them under, in the form in which they are compared: [`Build::named_context`] finds one.
    pub additional_contexts: BTreeMap<String, NamedContext>,
    /// `file:line` of keys that not every builder can carry out.
    pub places: BTreeMap<&'static str, String>,
    pub pull: bool,
    pub no_cache: bool,
}

impl Build {
    /// Whoever builds nothing of it needs none of its secrets.
    ///
    /// # Errors
    /// When a secret is not there: which, and where it is asked for.
    pub fn refuse_missing_secrets(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(), Problem> {
        for (id, source) in &self.secrets {
            let why = match source {
                SecretSource::File(path) if !path.is_file() => format!("there is no file {}", printable(&path.display().to_string())),
                SecretSource::Environment(name) if lookup(name).is_none() => {
                    format!("the environment variable `{}` is not set", printable(name))
                }
                _ => continue,
            };
            let place = self.places.get("secrets").map_or("secrets", String::as_str);
            return Err(Problem::usage(format!("{place}: the secret `{}`: {why}", printable(id))));
        }
        Ok(())
    }

    /// What a `FROM` can use for a platform: the args, and those of the platform (Dockerfile reference, "Automatic platform
    /// ARGs in the global scope"). Those of the builder's own platform, `BUILDARCH` and the like, only the builder knows.
    #[must_use]
    pub fn dockerfile_args(&self, platform: &str) -> BTreeMap<String, String> {
        let mut parts = platform.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        let (os, architecture, variant) = (next(), next(), next());
        let mut args = BTreeMap::new();
        for (name, value) in [("PLATFORM", platform), ("OS", os), ("ARCH", architecture), ("VARIANT", variant)] {
            args.insert(format!("TARGET{name}"), value.to_owned());
        }
        args.extend(self.args.clone());
        args
    }

    /// What `found` finds in the Dockerfile for each platform, each once.
    ///
    /// # Errors
    /// What is wrong with the Dockerfile.
    pub fn of_each_platform<T: PartialEq>(
        &self,
        found: impl Fn(&Dockerfile, &BTreeMap<String, String>) -> Result<Vec<T>, DockerfileError>,
    ) -> Result<Vec<T>, Problem> {
        let mut all = Vec::new();
        for platform in &self.platforms {
            for one in self.of_platform(platform, &found)? {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        Ok(all)
    }

    /// What `found` finds in the Dockerfile for a platform.
    ///
    /// # Errors
    /// What is wrong with the Dockerfile.
    pub fn of_platform<T>(
        &self,
        platform: &str,
        found: impl Fn(&Dockerfile, &BTreeMap<String, String>) -> Result<T, DockerfileError>,
    ) -> Result<T, Problem> {
        found(&self.dockerfile.parsed, &self.dockerfile_args(platform))
            .map_err(|error| Problem::usage(format!("{}:{}: {}", self.dockerfile.file, error.line, printable(&error.message))))
    }
}

/// Where a secret comes from. Its value is read when a build asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// A variable's name.
    Environment(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    Folder(PathBuf),
    /// `docker-image://...`
    Image(String),
}

#[derive(Clone, Debug)]
pub struct DockerfileSource {
    /// `None` for `dockerfile_inline`.
    pub path: Option<PathBuf>,
    /// As it is shown in messages.
    pub file: String,
    pub text: String,
    pub parsed: Dockerfile,
}

impl Manifest {
    /// Reads and validates the manifest at `path`, with its Dockerfiles.
    ///
    /// # Errors
    /// The first thing that is wrong, with file and line.
    pub fn load(path: &Path, environment: Environment<'_>) -> Result<Self, Problem> {
        read::load(path, environment)
    }

    /// The registry of the channels of `owner`.
    #[must_use]
    pub fn registry_of(&self, owner: &Owner) -> &Registry {
        match owner {
            Owner::Stable => self.stable.registry.as_ref().unwrap_or(&self.registry),
            Owner::User(_) => &self.registry,
        }
    }

    #[must_use]
    pub fn image(&self, name: &ImageName) -> Option<&Image> {
        self.images.iter().find(|image| image.name == *name)
    }

    /// The image that a Dockerfile means by `name`.
    #[must_use]
    pub fn sibling(&self, name: &str) -> Option<&Image> {
        let name = name.strip_suffix(":latest").unwrap_or(name);
        self.images.iter().find(|image| image.name.as_str() == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &ImageName> {
        self.images.iter().map(|image| &image.name)
    }
}

/// Looks for `images.yaml` in `from` and the folders above it, as cargo and git look for theirs.
#[must_use]
pub fn find(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file())
}

#[cfg(test)]
pub(crate) mod tests;
