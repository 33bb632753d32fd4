//! Credential helpers, which speak the protocol of docker/docker-credential-helpers (`client/command.go`).

use std::env;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::quote::{quotable, without_controls};
use super::{Credential, CredentialError, CredentialProblem, Inner, Secret, password_unless_empty};
use crate::docker_config::parse;

/// How long a helper may take, where nobody says otherwise.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const HELPER_PREFIX: &str = "docker-credential-";
const IDENTITY_TOKEN_USER: &str = "<token>";
const NOT_FOUND: &str = "credentials not found in native keychain";

pub(super) struct Helper {
    pub(super) name: String,
    pub(super) chosen_by: ChosenBy,
}

/// What made a helper the one to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// `credHelpers` of `config.json`.
    CredHelpers,
    /// `credsStore` of `config.json`.
    CredsStore,
    /// Nothing is configured, and it is the platform's.
    Platform,
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CredHelpers => "`credHelpers` of Docker's config.json",
            Self::CredsStore => "`credsStore` of Docker's config.json",
            Self::Platform => "the platform",
        })
    }
}

impl Inner {
    pub(super) fn helper_for(&self, key: &str) -> Option<Helper> {
        let config = &self.config;
        if let Some(name) = config.cred_helpers.get(key) {
            // an empty name sends Docker to the file, past credsStore
            return (!name.is_empty()).then(|| Helper {
                name: name.clone(),
                chosen_by: ChosenBy::CredHelpers,
            });
        }
        if let Some(name) = &config.creds_store {
            return Some(Helper {
                name: name.clone(),
                chosen_by: ChosenBy::CredsStore,
            });
        }
        if config.auths.is_empty() && config.cred_helpers.is_empty() {
            return self.helper_of_platform();
        }
        None
    }

    // docker/cli's cli/config/credentials/default_store_{linux,darwin}.go
    fn helper_of_platform(&self) -> Option<Helper> {
        let name = if cfg!(target_os = "macos") {
            "osxkeychain"
        } else if self.find_program("pass").is_some() {
            "pass"
        } else {
            "secretservice"
        };
        self.find_program(&format!("{HELPER_PREFIX}{name}"))?;
        Some(Helper {
            name: name.to_owned(),
            chosen_by: ChosenBy::Platform,
        })
    }

    pub(super) fn find_program(&self, name: &str) -> Option<PathBuf> {
        let folders = self.helper_path.as_deref()?;
        env::split_paths(folders)
            // as Go does: never a program out of the current folder
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|program| is_executable(program))
    }

    pub(super) async fn ask(&self, name: &str, chosen_by: ChosenBy, key: &str) -> Result<Credential, CredentialError> {
        let error = |problem| CredentialError {
            host: key.to_owned(),
            problem,
        };
        if !is_helper_name(name) {
            let name = without_controls(name);
            return Err(error(CredentialProblem::HelperName { name, chosen_by }));
        }
        let helper = format!("{HELPER_PREFIX}{name}");
        let Some(program) = self.find_program(&helper) else {
            return Err(error(CredentialProblem::HelperMissing { helper, chosen_by }));
        };
        match timeout(self.timeout, get(&program, key)).await {
            Err(_) => Err(error(CredentialProblem::HelperSilent {
                helper,
                waited: self.timeout,
            })),
            Ok(Err(io)) => Err(error(CredentialProblem::HelperNotRun {
                helper,
                reason: io.to_string(),
            })),
            Ok(Ok(output)) => judge(helper, &output).map_err(error),
        }
    }
}

fn is_helper_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(allowed)
}

fn is_executable(program: &Path) -> bool {
    program
        .metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Runs `docker-credential-<name> get` with the key on its stdin; dropping the future kills it.
async fn get(program: &Path, key: &str) -> io::Result<Output> {
    let mut helper = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = helper.stdin.take() {
        match stdin.write_all(key.as_bytes()).await {
            // a helper that fails at once need not read what it is asked
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
    }
    helper.wait_with_output().await
}

/// What `get` prints: docker-credential-helpers' `credentials.Credentials`.
#[derive(Default, Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username", alias = "username")]
    username: Option<String>,
    #[serde(rename = "Secret", alias = "secret")]
    secret: Option<String>,
}

fn judge(helper: String, output: &Output) -> Result<Credential, CredentialProblem> {
    if !output.status.success() {
        // the protocol's own errors come on stdout
        if output.stdout.trim_ascii() == NOT_FOUND.as_bytes() {
            return Ok(Credential::Anonymous);
        }
        let said = [quotable(&output.stdout), quotable(&output.stderr)];
        return Err(CredentialProblem::HelperFailed {
            helper,
            status: output.status.to_string(),
            said: said.join(" ").trim().to_owned(),
        });
    }
    if output.stdout.trim_ascii().is_empty() {
        return Err(CredentialProblem::HelperAnswer { helper });
    }
    let Ok(answer) = parse::<HelperAnswer>(&output.stdout) else {
        // quoting any of it could quote the secret
        return Err(CredentialProblem::HelperAnswer { helper });
    };
    let username = answer.username.unwrap_or_default();
    let secret = Secret::new(answer.secret.unwrap_or_default());
    if username == IDENTITY_TOKEN_USER {
        return Ok(if secret.is_empty() {
            Credential::Anonymous
        } else {
            Credential::IdentityToken(secret)
        });
    }
    Ok(password_unless_empty(username, secret))
}
