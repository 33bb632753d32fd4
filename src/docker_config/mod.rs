//! Docker's own configuration: where it lives, and what this tool reads of it.
//!
//! The format is docker/cli's `cli/config/configfile`, the place `cli/config/config.go`,
//! `DOCKER_AUTH_CONFIG` the same package's `DockerEnvConfigKey` (docker/cli 28.3).

mod auth;
mod json;
mod proxies;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use auth::AuthEntry;
use json::ConfigJson;
pub(crate) use json::{parse, without_values};
pub use proxies::{Proxies, logins};
pub use secret::Secret;

const FILE_NAME: &str = "config.json";
const AUTH_VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// Looks an environment variable up by its name; [`process_environment`] outside of tests.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The [`Environment`] of this process. A value that is not UTF-8 counts as unset.
#[must_use]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The variable's value, where it has one: Docker takes an empty variable for an unset one.
pub(crate) fn variable(env: &Environment<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

/// What this tool needs of Docker's `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    directory: Option<PathBuf>,
    /// `auths` by the key as it is written: `host`, `host:port`, `https://host/v1/`, ...
    pub auths: BTreeMap<String, AuthEntry>,
    /// The `auths` of `DOCKER_AUTH_CONFIG`, which Docker asks before anything else.
    pub auths_of_environment: BTreeMap<String, AuthEntry>,
    /// `credsStore`: the suffix of the helper that is asked for every host.
    pub creds_store: Option<String>,
    /// `credHelpers`: host to the suffix of the helper that is asked for it.
    pub cred_helpers: BTreeMap<String, String>,
    /// `currentContext`, as `docker context use` leaves it.
    pub current_context: Option<String>,
    /// `proxies`: the daemon's address, or `default`, to the proxies that builds are given.
    pub proxies: BTreeMap<String, Proxies>,
    /// What was passed over in reading, each a sentence for the person.
    pub notes: Vec<String>,
}

impl DockerConfig {
    /// Reads `config.json` in [`config_directory`]. A missing file is an empty configuration.
    ///
    /// A `DOCKER_AUTH_CONFIG` that Docker would not take is passed over with a note, as Docker does.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is not what Docker writes.
    pub fn load(env: &Environment<'_>) -> Result<Self, DockerConfigError> {
        let mut config = match config_directory(env) {
            Some(directory) => Self::read(directory)?,
            None => Self::default(),
        };
        if let Some(text) = variable(env, AUTH_VARIABLE) {
            match auth::parse_variable(&text) {
                Ok(auths) => config.auths_of_environment = auths,
                Err(reason) => config.notes.push(format!("{AUTH_VARIABLE} is not used: {reason}")),
            }
        }
        Ok(config)
    }

    fn read(directory: PathBuf) -> Result<Self, DockerConfigError> {
        let path = directory.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(DockerConfigError {
                    path,
                    line: None,
                    reason: format!("cannot be read: {error}"),
                });
            }
        };
        match parse::<ConfigJson>(&text) {
            Ok(file) => Ok(file.into_config(directory)),
            Err(error) => Err(DockerConfigError {
                path,
                line: Some(error.line()),
                reason: without_values(&error),
            }),
        }
    }

    /// The folder that holds `config.json`, `contexts` and `ca.pem`; none where neither
    /// `DOCKER_CONFIG` nor `HOME` is set.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// What is another after each `docker login` and `docker logout`, which write the file anew; none where the environment
    /// has credentials, of which nothing may be kept.
    #[must_use]
    pub fn login(&self) -> Option<String> {
        if !self.auths_of_environment.is_empty() {
            return None;
        }
        let file = self.file().unwrap_or_default();
        let state = fs::metadata(&file).map_or_else(
            |_| String::new(),
            |file| {
                format!(
                    "{}.{}.{}.{}.{}",
                    file.dev(),
                    file.ino(),
                    file.size(),
                    file.ctime(),
                    file.ctime_nsec()
                )
            },
        );
        Some(format!("{} {state}", file.display()))
    }

    /// The path of `config.json`, whether it exists or not.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.directory.as_deref().map(|d| d.join(FILE_NAME))
    }
}

/// `DOCKER_CONFIG`, else `$HOME/.docker`, else nothing.
#[must_use]
pub fn config_directory(env: &Environment<'_>) -> Option<PathBuf> {
    variable(env, "DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variable(env, "HOME").map(|home| Path::new(&home).join(".docker")))
}

/// `config.json` is there but is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfigError {
    path: PathBuf,
    line: Option<usize>,
    reason: String,
}

impl DockerConfigError {
    /// What the person can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self.line {
            Some(_) => format!("mend {}, or move it away and log in again with `docker login`", self.path.display()),
            None => "DOCKER_CONFIG names another folder for Docker's configuration".to_owned(),
        }
    }
}

impl fmt::Display for DockerConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.line {
            Some(line) => write!(f, ":{line}: {}", self.reason),
            None => write!(f, " {}", self.reason),
        }
    }
}

impl std::error::Error for DockerConfigError {}
