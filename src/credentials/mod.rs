//! The person's credentials for a registry, found where the docker CLI finds them.
//!
//! The order is docker/cli's `GetAuthConfig` (`cli/config/configfile/file.go`), which asks one
//! place and never a second one:
//!
//! 1. `DOCKER_AUTH_CONFIG`, where it names the host;
//! 2. the helper of `credHelpers` for the host, else the one of `credsStore`;
//! 3. without a helper, `auths` of `config.json`.
//!
//! Without `auths`, `credHelpers` and `credsStore`, Docker asks the platform's keychain where its
//! helper is installed (`LoadDefaultConfigFile`).

mod auths;
mod error;
mod helper;
mod hints;
mod quote;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use auths::{auth_key, find_entry};
pub use error::{CredentialError, CredentialProblem};
use helper::Helper;
pub use helper::{ChosenBy, HELPER_TIMEOUT};
pub use hints::{Right, forbidden_hint, missing_credential_hint, unauthorized_hint};

pub use crate::docker_config::Secret;
use crate::docker_config::{AuthEntry, DockerConfig};

/// What a registry is given to know the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: Docker has no credential for the host.
    Anonymous,
    /// For basic authentication, or to get a token with.
    Password {
        /// May be empty.
        username: String,
        /// May be empty.
        password: Secret,
    },
    /// An OAuth refresh token for the registry's token server.
    IdentityToken(Secret),
    /// A bearer token for the registry itself.
    RegistryToken(Secret),
}

/// Finds credentials by host and remembers them; clones share what they remember.
#[derive(Clone, Debug)]
pub struct Credentials {
    inner: Arc<Inner>,
}

type Answer = Arc<OnceCell<Result<Credential, CredentialError>>>;

#[derive(Debug)]
struct Inner {
    config: DockerConfig,
    helper_path: Option<OsString>,
    timeout: Duration,
    answers: Mutex<HashMap<String, Answer>>,
}

impl Credentials {
    /// `helper_path` is a `PATH` in which helpers are looked for; none means this process's own.
    /// A helper's environment is this process's in either case.
    ///
    /// A helper that takes longer than `timeout` ([`HELPER_TIMEOUT`]) is killed.
    #[must_use]
    pub fn new(config: &DockerConfig, helper_path: Option<OsString>, timeout: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: config.clone(),
                helper_path: helper_path.or_else(|| env::var_os("PATH")),
                timeout,
                answers: Mutex::default(),
            }),
        }
    }

    /// The credential for `host`: `gcr.io`, `localhost:5000`, `docker.io`.
    ///
    /// Each host is looked up once, however many ask at the same time, and its failure is kept too:
    /// a helper that hangs costs one timeout, not one an image.
    ///
    /// # Errors
    /// When the helper that is configured for the host does not answer as helpers do, or what
    /// `auths` has for the host cannot be decoded.
    pub async fn for_host(&self, host: &str) -> Result<Credential, CredentialError> {
        let key = auth_key(host);
        let answer = {
            let answers = self.inner.answers.lock();
            let mut answers = answers.unwrap_or_else(PoisonError::into_inner);
            Arc::clone(answers.entry(key.to_owned()).or_default())
        };
        answer.get_or_init(|| self.inner.look_up(key)).await.clone()
    }
}

impl Inner {
    async fn look_up(&self, key: &str) -> Result<Credential, CredentialError> {
        if let Some(entry) = self.config.auths_of_environment.get(key) {
            return self.stored(key, entry);
        }
        let entry = find_entry(&self.config, key);
        match self.helper_for(key) {
            None => entry.map_or(Ok(Credential::Anonymous), |entry| self.stored(key, entry)),
            Some(Helper {
                name,
                chosen_by: ChosenBy::Platform,
            }) => {
                // nobody asked for this one, so that it fails is not the person's to mend
                let answer = self.ask(&name, ChosenBy::Platform, key).await;
                Ok(answer.unwrap_or(Credential::Anonymous))
            }
            Some(Helper { name, chosen_by }) => {
                let answer = self.ask(&name, chosen_by, key).await?;
                // Docker lays the helper's answer over the file's entry, of which this much remains
                let token = entry.map(|entry| &entry.registry_token);
                Ok(match token.filter(|token| !token.is_empty()) {
                    Some(token) => Credential::RegistryToken(token.clone()),
                    None => answer,
                })
            }
        }
    }

    fn stored(&self, key: &str, entry: &AuthEntry) -> Result<Credential, CredentialError> {
        if !entry.registry_token.is_empty() {
            return Ok(Credential::RegistryToken(entry.registry_token.clone()));
        }
        let Some((username, password)) = entry.username_and_password() else {
            return Err(CredentialError {
                host: key.to_owned(),
                problem: CredentialProblem::UndecodableAuth { file: self.config.file() },
            });
        };
        if !entry.identity_token.is_empty() {
            return Ok(Credential::IdentityToken(entry.identity_token.clone()));
        }
        Ok(password_unless_empty(username, password))
    }
}

fn password_unless_empty(username: String, password: Secret) -> Credential {
    if username.is_empty() && password.is_empty() {
        return Credential::Anonymous;
    }
    Credential::Password { username, password }
}
