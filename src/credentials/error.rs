//! Why there is no credential, and what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::ChosenBy;
use super::helper::HELPER_PREFIX;
use super::hints::{docker_login, is_google, missing_credential_hint, registry_name};

/// Why there is no credential for a host, not even none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialError {
    /// The host that was asked for, as Docker keeps it: Docker Hub is `https://index.docker.io/v1/`.
    pub host: String,
    /// What went wrong.
    pub problem: CredentialProblem,
}

/// What went wrong in looking for a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialProblem {
    /// The configured name cannot be a helper's.
    HelperName {
        /// The name, without control characters.
        name: String,
        /// Where it is written.
        chosen_by: ChosenBy,
    },
    /// The helper is nowhere on `PATH`.
    HelperMissing {
        /// `docker-credential-<name>`, here and below.
        helper: String,
        /// Where it is configured.
        chosen_by: ChosenBy,
    },
    /// The helper is there and cannot be run.
    HelperNotRun {
        /// The program's name.
        helper: String,
        /// The system's words.
        reason: String,
    },
    /// The helper ended with an error.
    HelperFailed {
        /// The program's name.
        helper: String,
        /// `exit status: 1`, `signal: 9 (SIGKILL)`
        status: String,
        /// What it printed, fit to be shown; may be empty.
        said: String,
    },
    /// The helper took too long and was killed.
    HelperSilent {
        /// The program's name.
        helper: String,
        /// How long it had.
        waited: Duration,
    },
    /// The helper's answer is not the protocol's.
    HelperAnswer {
        /// The program's name.
        helper: String,
    },
    /// `auth` is not the base64 of `user:password`.
    UndecodableAuth {
        /// The `config.json`.
        file: Option<PathBuf>,
    },
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = registry_name(&self.host);
        match &self.problem {
            CredentialProblem::HelperName { name, chosen_by } => write!(
                f,
                "credential helper `{name}` for {host}, from {chosen_by}, is no name of a helper (letters, digits, `-`, `_`, `.`)"
            ),
            CredentialProblem::HelperMissing { helper, chosen_by } => {
                write!(f, "credential helper `{helper}` for {host}, from {chosen_by}, is not on PATH")
            }
            CredentialProblem::HelperNotRun { helper, reason } => {
                write!(f, "credential helper `{helper}` for {host} cannot be run: {reason}")
            }
            CredentialProblem::HelperFailed { helper, status, said } if said.is_empty() => {
                write!(f, "credential helper `{helper}` failed for {host} ({status}) and said nothing")
            }
            CredentialProblem::HelperFailed { helper, status, said } => {
                write!(f, "credential helper `{helper}` failed for {host} ({status}): {said}")
            }
            CredentialProblem::HelperSilent { helper, waited } => write!(
                f,
                "credential helper `{helper}` did not answer for {host} within {waited:?} and was stopped"
            ),
            CredentialProblem::HelperAnswer { helper } => write!(
                f,
                "credential helper `{helper}` answered for {host} with something else than JSON of ServerURL, Username and Secret"
            ),
            CredentialProblem::UndecodableAuth { file } => {
                write!(f, "`auth` of {host} in ")?;
                match file {
                    Some(file) => write!(f, "{}", file.display())?,
                    None => f.write_str("Docker's config.json")?,
                }
                f.write_str(" is not base64 of `user:password`")
            }
        }
    }
}

impl std::error::Error for CredentialError {}

impl CredentialError {
    /// What the person can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let host = registry_name(&self.host);
        match &self.problem {
            CredentialProblem::HelperName { chosen_by, .. } => {
                format!("write the part after `{HELPER_PREFIX}` in {chosen_by}, for example `gcr`")
            }
            CredentialProblem::HelperMissing { helper, chosen_by } => {
                if is_google(host) {
                    return missing_credential_hint(host);
                }
                format!("install {helper}, or take it out of {chosen_by} and run `{}`", docker_login(host))
            }
            CredentialProblem::HelperFailed { helper, .. } if helper == "docker-credential-gcr" => {
                // it reads its own store and application default credentials, not gcloud's login
                format!(
                    "{}\n\
                     docker-credential-gcr takes gcloud's login only after `docker-credential-gcr config --token-source=gcloud`\n\
                     or log in to it alone: `docker-credential-gcr gcr-login`",
                    missing_credential_hint(host)
                )
            }
            CredentialProblem::HelperSilent { helper, .. } => {
                format!("it may wait for a keychain to be unlocked or for an answer: try `echo {host} | {helper} get > /dev/null`")
            }
            CredentialProblem::HelperNotRun { helper, .. } | CredentialProblem::HelperAnswer { helper } => {
                format!("reinstall {helper}, or try `echo {host} | {helper} get > /dev/null`")
            }
            CredentialProblem::HelperFailed { .. } | CredentialProblem::UndecodableAuth { .. } => missing_credential_hint(host),
        }
    }
}
