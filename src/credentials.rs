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
//! helper is installed (`LoadDefaultConfigFile`). Helpers speak the protocol of
//! docker/docker-credential-helpers (`client/command.go`).

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

pub use crate::docker_config::Secret;
use crate::docker_config::{AuthEntry, DockerConfig, parse};

/// How long a helper may take, where nobody says otherwise.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

const HELPER_PREFIX: &str = "docker-credential-";
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
const IDENTITY_TOKEN_USER: &str = "<token>";
const NOT_FOUND: &str = "credentials not found in native keychain";
const LONGEST_QUOTE: usize = 400;
const SHORTEST_TOKEN: usize = 32;

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

    fn helper_for(&self, key: &str) -> Option<Helper> {
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

    fn find_program(&self, name: &str) -> Option<PathBuf> {
        let folders = self.helper_path.as_deref()?;
        env::split_paths(folders)
            // as Go does: never a program out of the current folder
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|program| is_executable(program))
    }

    async fn ask(&self, name: &str, chosen_by: ChosenBy, key: &str) -> Result<Credential, CredentialError> {
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

struct Helper {
    name: String,
    chosen_by: ChosenBy,
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

/// Docker Hub is kept under the address of its old index, every other registry under its host.
fn auth_key(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" => DOCKER_HUB,
        host => host,
    }
}

fn find_entry<'a>(config: &'a DockerConfig, key: &str) -> Option<&'a AuthEntry> {
    config.auths.get(key).or_else(|| {
        let mut entries = config.auths.iter();
        entries.find(|(written, _)| hostname(written) == key).map(|(_, entry)| entry)
    })
}

/// The host of a key of `auths`, port included: `https://host:5000/v1/` is `host:5000`.
///
/// Source: `ConvertToHostname` in docker/cli's `cli/config/credentials/file_store.go`.
fn hostname(key: &str) -> &str {
    let (rest, is_url) = match key.split_once("://") {
        Some((_, rest)) if !rest.is_empty() && !rest.starts_with('/') => (rest, true),
        _ => (key, false),
    };
    let host = rest.split('/').next().unwrap_or_default();
    if !is_url {
        return host;
    }
    let host = host.split(['?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    host.strip_suffix(':').unwrap_or(host)
}

fn password_unless_empty(username: String, password: Secret) -> Credential {
    if username.is_empty() && password.is_empty() {
        return Credential::Anonymous;
    }
    Credential::Password { username, password }
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

/// What a helper said, fit to be shown: one line, bounded, without control characters, and without
/// JSON and words that look like tokens, since a helper that fails may still print what it holds.
fn quotable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let before_json = text.split('{').next().unwrap_or_default();
    let words = without_controls(before_json);
    let words: Vec<_> = words.split_whitespace().map(without_tokens).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

fn without_controls(text: &str) -> String {
    let reorders = |c| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let unprintable = |c: char| c.is_control() || reorders(c);
    text.replace(unprintable, " ")
}

fn without_tokens(word: &str) -> String {
    let in_token = |c: char| c.is_ascii_alphanumeric() || "+/=_.~-".contains(c);
    let mut shown = String::with_capacity(word.len());
    for run in word.split_inclusive(|c| !in_token(c)) {
        let token = run.trim_end_matches(|c| !in_token(c));
        let is_path = token.starts_with('/');
        let has_digit = token.contains(|c: char| c.is_ascii_digit());
        if token.len() >= SHORTEST_TOKEN && has_digit && !is_path {
            shown.push_str("[...]");
            shown.push_str(&run[token.len()..]);
        } else {
            shown.push_str(run);
        }
    }
    shown
}

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
    /// The fact, as `Display` has it.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

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

fn registry_name(key: &str) -> &str {
    if key == DOCKER_HUB { "docker.io" } else { key }
}

fn docker_login(host: &str) -> String {
    match registry_name(auth_key(host)) {
        "docker.io" => "docker login".to_owned(),
        host => format!("docker login {host}"),
    }
}

fn is_google(host: &str) -> bool {
    host == "gcr.io" || host.ends_with(".gcr.io") || is_artifact_registry(host)
}

fn is_artifact_registry(host: &str) -> bool {
    host.ends_with(".pkg.dev")
}

/// How to log in to the registry: for when it refuses somebody without credentials.
#[must_use]
pub fn missing_credential_hint(host: &str) -> String {
    if !is_google(host) {
        return format!("log in with `{}`", docker_login(host));
    }
    // without a name both commands write down the gcr.io hosts only
    let (registries, registry) = if is_artifact_registry(host) {
        (format!(" --registries={host}"), format!(" {host}"))
    } else {
        (String::new(), String::new())
    };
    format!(
        "log in with `gcloud auth login`, then let Docker use that: `gcloud auth configure-docker{registry}`\n\
         or, with Google's own helper: `gcloud components install docker-credential-gcr`, `docker-credential-gcr configure-docker{registries}`"
    )
}

/// What to do when the registry does not know the person by this credential, or lack of one.
#[must_use]
pub fn unauthorized_hint(host: &str, credential: &Credential) -> String {
    match credential {
        Credential::Anonymous => missing_credential_hint(host),
        _ => format!(
            "the registry does not accept the credentials that Docker has for {host}: {}",
            docker_login(host)
        ),
    }
}

/// What somebody lacks the right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    Pull,
    Push,
}

/// Whom to ask when the registry knows the person and says 403. `repository` is with or without
/// the host: `gcr.io/lattice-dev/stable-envoy-prepare`.
#[must_use]
pub fn forbidden_hint(host: &str, repository: &str, right: Right) -> String {
    let path = repository.strip_prefix(host);
    let repository = path.and_then(|path| path.strip_prefix('/')).unwrap_or(repository);
    if !is_google(host) {
        return format!(
            "ask whoever administers {host} for the right to {}{repository}, or log in as somebody who has it: `{}`",
            if right == Right::Push { "push to " } else { "pull from " },
            docker_login(host)
        );
    }
    let project = google_project(repository);
    let role = match right {
        Right::Pull => "roles/artifactregistry.reader",
        Right::Push => "roles/artifactregistry.writer (the first push to gcr.io needs roles/artifactregistry.createOnPushWriter)",
    };
    format!(
        "ask whoever administers the Google Cloud project {project} for the role {role}; `gcloud auth list` shows as whom you are logged in"
    )
}

/// The project of a repository at Google's registries; that of a domain is two parts long:
/// `example.com/project`.
fn google_project(repository: &str) -> &str {
    let mut ends = repository.match_indices('/').map(|(end, _)| end);
    let first = ends.next().unwrap_or(repository.len());
    if !repository[..first].contains('.') {
        return &repository[..first];
    }
    &repository[..ends.next().unwrap_or(repository.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::future::Future;
    use std::io::Write as _;
    use std::time::Instant;
    use tempfile::TempDir;

    const SHORT: Duration = Duration::from_millis(300);

    /// Docker's configuration and its helpers, each a shell script.
    struct Machine {
        folder: TempDir,
        config_json: String,
        auth_variable: Option<String>,
    }

    impl Machine {
        fn new(config_json: &str) -> Self {
            Self {
                folder: TempDir::new().expect("a folder"),
                config_json: config_json.to_owned(),
                auth_variable: None,
            }
        }

        fn path(&self) -> &Path {
            self.folder.path()
        }

        // written by another process: a fork of a test beside this one would inherit the open
        // file, and running it would fail as busy
        fn with_program(self, name: &str, script: &str) -> Self {
            let mut install = std::process::Command::new("install")
                .args(["-m", "755", "/dev/stdin"])
                .arg(self.path().join(name))
                .stdin(Stdio::piped())
                .spawn()
                .expect("install");
            let mut stdin = install.stdin.take().expect("stdin");
            let script = format!("#!/bin/sh\ncd '{}'\n{script}\n", self.path().display());
            stdin.write_all(script.as_bytes()).expect("written");
            drop(stdin);
            assert!(install.wait().expect("ended").success());
            self
        }

        fn credentials(&self, timeout: Duration) -> Credentials {
            fs::write(self.path().join("config.json"), &self.config_json).expect("a file");
            let config = DockerConfig::load(&|name| match name {
                "DOCKER_CONFIG" => self.path().to_str().map(str::to_owned),
                "DOCKER_AUTH_CONFIG" => self.auth_variable.clone(),
                _ => None,
            });
            let config = config.expect("a valid config.json");
            assert!(config.notes.is_empty(), "{:?}", config.notes);
            Credentials::new(&config, Some(self.path().into()), timeout)
        }

        fn get(&self, host: &str) -> Result<Credential, CredentialError> {
            block_on(self.credentials(HELPER_TIMEOUT).for_host(host))
        }

        fn error(&self, host: &str) -> CredentialError {
            self.get(host).expect_err("a failure")
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password {
            username: username.to_owned(),
            password: Secret::new(password),
        }
    }

    const ECHO: &str = r#"printf '{"ServerURL":"x","Username":"%s","Secret":"helper"}' "$(cat)""#;

    #[test]
    fn keys_of_auths_match_as_docker_matches_them() {
        for (key, host) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "[::1]"),
            ("example.com", "example.com"),
            ("http://example.com", "example.com"),
            ("https://example.com/", "example.com"),
            ("https://example.com/v2/", "example.com"),
            ("https://u:p@example.com:1/v2?q#f", "example.com:1"),
            ("https://example.com:", "example.com"),
            ("unix:///var/run/docker.sock", "unix:"),
            ("ftp://example.com", "example.com"),
            ("127.0.0.1:6556", "127.0.0.1:6556"),
            ("[::1]:6556", "[::1]:6556"),
            ("example.com:6555/v1/", "example.com:6555"),
            ("http://[::1]:6556/v1", "[::1]:6556"),
        ] {
            assert_eq!(hostname(key), host, "{key}");
        }
    }

    #[test]
    fn auths_are_found_however_their_key_is_written() {
        for key in ["h.example", "https://h.example", "http://h.example/v1/", "h.example/v2"] {
            let machine = Machine::new(&format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#));
            assert_eq!(machine.get("h.example"), Ok(password("u", "p")), "{key}");
            assert_eq!(machine.get("h.example:5000"), Ok(Credential::Anonymous));
            assert_eq!(machine.get("x.h.example"), Ok(Credential::Anonymous));
        }
        let machine = Machine::new(r#"{"auths":{"https://h:5000":{"auth":"dTpw"},"h:5000":{"username":"a","password":"b"}}}"#);
        assert_eq!(machine.get("h:5000"), Ok(password("a", "b")), "exact first");
    }

    #[test]
    fn docker_hub_is_kept_under_its_old_index_only() {
        let machine = Machine::new(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#);
        assert_eq!(machine.get("docker.io"), Ok(password("u", "p")));
        assert_eq!(machine.get("index.docker.io"), Ok(password("u", "p")));
        let machine = Machine::new(r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#);
        assert_eq!(machine.get("docker.io"), Ok(Credential::Anonymous));
    }

    #[test]
    fn tokens_come_before_passwords() {
        let machine = Machine::new(
            r#"{"auths":{"a":{"auth":"dTo=","identitytoken":"i"},"b":{"auth":"dTpw","registrytoken":"r","identitytoken":"i"},"c":{}}}"#,
        );
        let identity = Credential::IdentityToken(Secret::new("i"));
        let registry = Credential::RegistryToken(Secret::new("r"));
        assert_eq!(machine.get("a"), Ok(identity));
        assert_eq!(machine.get("b"), Ok(registry));
        assert_eq!(machine.get("c"), Ok(Credential::Anonymous));
    }

    #[test]
    fn auth_that_cannot_be_decoded_is_an_error_for_its_host_only() {
        let machine = Machine::new(r#"{"auths":{"a":{"auth":"hunter2"},"b":{"auth":"dTpw"}}}"#);
        let error = machine.error("a");
        let message = error.message();
        assert!(message.starts_with("`auth` of a in /"), "{message}");
        assert!(message.contains("config.json is not base64 of"), "{message}");
        assert_eq!(error.hint(), "log in with `docker login a`");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert_eq!(machine.get("b"), Ok(password("u", "p")));
    }

    #[test]
    fn a_helper_of_the_host_goes_before_the_store_and_the_store_before_the_file() {
        let machine = Machine::new(
            r#"{"auths":{"a":{"auth":"dTpw"},"b":{"auth":"dTpw"},"c":{"auth":"dTpw"}},
                "credsStore":"store","credHelpers":{"a":"own","c":""}}"#,
        )
        .with_program("docker-credential-own", r#"echo '{"Username":"own","Secret":"s"}'"#)
        .with_program("docker-credential-store", r#"echo '{"Username":"store","Secret":"s"}'"#);
        assert_eq!(machine.get("a"), Ok(password("own", "s")));
        assert_eq!(machine.get("b"), Ok(password("store", "s")));
        assert_eq!(machine.get("c"), Ok(password("u", "p")), "no helper named");
    }

    #[test]
    fn a_store_that_has_nothing_means_anonymous_whatever_the_file_has() {
        let machine = Machine::new(r#"{"auths":{"a":{"auth":"dTpw"}},"credsStore":"store"}"#)
            .with_program("docker-credential-store", "echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(machine.get("a"), Ok(Credential::Anonymous));
    }

    #[test]
    fn the_files_registry_token_outlives_the_helpers_answer() {
        let machine =
            Machine::new(r#"{"auths":{"a":{"registrytoken":"r"}},"credsStore":"store"}"#).with_program("docker-credential-store", ECHO);
        let registry = Credential::RegistryToken(Secret::new("r"));
        assert_eq!(machine.get("a"), Ok(registry));
        assert_eq!(machine.get("b"), Ok(password("b", "helper")));
    }

    #[test]
    fn the_auth_variable_goes_before_all_and_by_its_exact_key() {
        let mut machine = Machine::new(r#"{"credHelpers":{"a":"own","b":"own"}}"#).with_program("docker-credential-own", ECHO);
        machine.auth_variable = Some(r#"{"auths":{"a":{"auth":"dTpw"},"https://b":{"auth":"dTpw"}}}"#.to_owned());
        assert_eq!(machine.get("a"), Ok(password("u", "p")));
        assert_eq!(machine.get("b"), Ok(password("b", "helper")));
    }

    #[test]
    fn a_helper_is_given_the_key_and_the_word_get() {
        let machine = Machine::new(r#"{"credsStore":"x.y_z-1"}"#).with_program(
            "docker-credential-x.y_z-1",
            r#"printf '{"Username":"%s %s","Secret":"s"}' "$*" "$(cat; echo .)""#,
        );
        assert_eq!(machine.get("h:5000"), Ok(password("get h:5000.", "s")));
        let hub = password("get https://index.docker.io/v1/.", "s");
        assert_eq!(machine.get("docker.io"), Ok(hub));
    }

    #[test]
    fn the_answers_of_a_helper() {
        let answer = |json: &str| {
            Machine::new(r#"{"credsStore":"s"}"#)
                .with_program("docker-credential-s", &format!("echo '{json}'"))
                .get("h")
        };
        let identity = Credential::IdentityToken(Secret::new("t"));
        assert_eq!(answer(r#"{"Username":"<token>","Secret":"t"}"#), Ok(identity));
        assert_eq!(answer(r#"{"username":"u","secret":"p"} trailing"#), Ok(password("u", "p")));
        assert_eq!(answer(r#"{"ServerURL":"","Username":"","Secret":""}"#), Ok(Credential::Anonymous));
        assert_eq!(answer(r#"{"Username":"<token>","Secret":""}"#), Ok(Credential::Anonymous));
        for broken in [r#"{"Username":"u","Secret":"hunter2""#, r#"["hunter2"]"#, "hunter2", ""] {
            let error = answer(broken).expect_err("not the protocol");
            assert!(matches!(error.problem, CredentialProblem::HelperAnswer { .. }));
            assert!(error.message().contains("`docker-credential-s` answered for h with"));
            assert!(!format!("{error} {error:?} {}", error.hint()).contains("hunter2"));
        }
    }

    #[test]
    fn a_helper_that_reads_nothing_and_fails_says_so_itself() {
        let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program(
            "docker-credential-s",
            r"exec 0<&-; printf 'cannot\topen\033[31m\n keychain\n'; echo 'and more' >&2; exit 3",
        );
        let error = machine.error("h.example");
        assert_eq!(
            error.message(),
            "credential helper `docker-credential-s` failed for h.example (exit status: 3): cannot open [31m keychain and more"
        );
        assert_eq!(error.hint(), "log in with `docker login h.example`");
        let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", "kill -9 $$");
        let message = machine.error("h").message();
        assert!(
            message.ends_with("failed for h (signal: 9 (SIGKILL)) and said nothing"),
            "{message}"
        );
    }

    #[test]
    fn google_s_helper_without_a_login_is_explained() {
        // the words of docker-credential-gcr 2.2.1
        let said = "docker-credential-gcr/helper: could not retrieve GCR's access token: docker-credential-gcr/helper: failed to detect default credentials: credentials: could not find default credentials. See https://cloud.google.com/docs/authentication/external/set-up-adc for more information";
        let machine =
            Machine::new(r#"{"credHelpers":{"gcr.io":"gcr"}}"#).with_program("docker-credential-gcr", &format!("echo \"{said}\"; exit 1"));
        let error = machine.error("gcr.io");
        assert_eq!(
            error.message(),
            format!("credential helper `docker-credential-gcr` failed for gcr.io (exit status: 1): {said}")
        );
        for command in [
            "`gcloud auth login`",
            "`gcloud components install docker-credential-gcr`",
            "`docker-credential-gcr configure-docker`",
            "`gcloud auth configure-docker`",
            "`docker-credential-gcr config --token-source=gcloud`",
        ] {
            assert!(error.hint().contains(command), "{}", error.hint());
        }
    }

    #[test]
    fn a_helper_that_is_not_there_is_named() {
        let machine = Machine::new(r#"{"credHelpers":{"gcr.io":"gcr"},"credsStore":"pass"}"#);
        let error = machine.error("gcr.io");
        assert_eq!(
            error.message(),
            "credential helper `docker-credential-gcr` for gcr.io, from `credHelpers` of Docker's config.json, is not on PATH"
        );
        assert_eq!(error.hint(), missing_credential_hint("gcr.io"));
        let error = machine.error("docker.io");
        assert!(error.message().contains("for docker.io, from `credsStore`"), "{error}");
        assert!(error.hint().contains("install docker-credential-pass"));
        assert!(error.hint().ends_with("run `docker login`"));
    }

    #[test]
    fn a_file_that_is_no_program_is_not_the_helper() {
        let machine = Machine::new(r#"{"credsStore":"s"}"#);
        fs::write(machine.path().join("docker-credential-s"), "x").expect("a file");
        let problem = machine.error("h").problem;
        assert!(matches!(problem, CredentialProblem::HelperMissing { .. }));
        let machine = machine.with_program("docker-credential-s", "");
        fs::remove_file(machine.path().join("docker-credential-s")).expect("removed");
        fs::create_dir(machine.path().join("docker-credential-s")).expect("a folder");
        let problem = machine.error("h").problem;
        assert!(matches!(problem, CredentialProblem::HelperMissing { .. }));
    }

    #[test]
    fn helpers_are_looked_for_in_absolute_folders_only() {
        let machine = Machine::new("{}").with_program("docker-credential-s", "");
        let inner = |path: OsString| {
            let config = DockerConfig::default();
            Credentials::new(&config, Some(path), SHORT).inner
        };
        let here = machine.path().as_os_str();
        let find = |inner: &Inner| inner.find_program("docker-credential-s");
        assert!(find(&inner(here.to_owned())).is_some());
        let mut relative = OsString::from("..");
        for _ in 0..20 {
            relative.push("/..");
        }
        relative.push(here);
        assert!(Path::new(&relative).join("docker-credential-s").exists());
        assert!(find(&inner(relative)).is_none());
        assert!(find(&inner(OsString::new())).is_none());
    }

    #[test]
    fn a_program_that_cannot_be_run_says_why() {
        let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", "");
        let program = machine.path().join("docker-credential-s");
        fs::write(&program, "no program at all").expect("written");
        let error = machine.error("h");
        assert!(error.message().contains("`docker-credential-s` for h cannot be run: "), "{error}");
        assert!(error.hint().contains("reinstall docker-credential-s"));
    }

    #[test]
    fn a_name_that_leaves_the_path_is_refused() {
        for name in ["../evil", "a/b", "a b", "a;b", "é"] {
            let machine = Machine::new(&format!(r#"{{"credsStore":"{name}"}}"#));
            let error = machine.error("h");
            assert!(matches!(error.problem, CredentialProblem::HelperName { .. }), "{name}");
            assert!(error.message().contains(&format!("`{name}`")), "{error}");
            assert!(error.hint().contains("`credsStore`"));
        }
    }

    #[test]
    fn a_helper_that_hangs_is_stopped() {
        let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", "echo $$ > pid; exec sleep 60");
        let credentials = machine.credentials(SHORT);
        block_on(async {
            let started = Instant::now();
            let error = credentials.for_host("h").await.expect_err("too late");
            assert_eq!(
                error.message(),
                "credential helper `docker-credential-s` did not answer for h within 300ms and was stopped"
            );
            assert!(error.hint().contains("`echo h | docker-credential-s get > /dev/null`"));
            assert!(started.elapsed() < Duration::from_secs(30));
            let again = Instant::now();
            assert_eq!(credentials.for_host("h").await, Err(error));
            assert!(again.elapsed() < SHORT, "the failure is remembered");
        });
        let pid = fs::read_to_string(machine.path().join("pid")).expect("it ran");
        let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // dead, if perhaps not collected yet: its parent is this very test
        let dead = |stat: io::Result<String>| stat.map_or(true, |stat| stat.contains(") Z "));
        let killed = Instant::now();
        while !dead(state()) {
            assert!(killed.elapsed() < Duration::from_secs(20), "it lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_call_a_host_however_many_ask() {
        let machine =
            Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", &format!("echo x >> calls; sleep 0.2; {ECHO}"));
        let credentials = machine.credentials(HELPER_TIMEOUT);
        block_on(async {
            let asking: Vec<_> = (0..20)
                .map(|n| {
                    let credentials = credentials.clone();
                    tokio::spawn(async move { credentials.for_host(["a", "b"][n % 2]).await })
                })
                .collect();
            for (n, answer) in asking.into_iter().enumerate() {
                let answer = answer.await.expect("not cancelled");
                assert_eq!(answer, Ok(password(["a", "b"][n % 2], "helper")));
            }
        });
        let calls = fs::read_to_string(machine.path().join("calls")).expect("it ran");
        assert_eq!(calls.lines().count(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_platforms_helper_is_asked_only_where_nothing_is_configured() {
        let with_helpers = |config_json| {
            Machine::new(config_json)
                .with_program("docker-credential-secretservice", ECHO)
                .with_program("docker-credential-pass", "echo no gpg; exit 1")
        };
        assert_eq!(with_helpers("{}").get("h"), Ok(password("h", "helper")));
        let machine = with_helpers(r#"{"auths":{"x":{}}}"#);
        assert_eq!(machine.get("h"), Ok(Credential::Anonymous));
        let machine = with_helpers("{}").with_program("pass", "");
        assert_eq!(machine.get("h"), Ok(Credential::Anonymous), "its failure is no error");
        assert_eq!(Machine::new("{}").get("h"), Ok(Credential::Anonymous));
    }

    #[test]
    fn what_a_helper_says_is_shown_without_what_it_holds() {
        let shown = |text: &str| quotable(text.as_bytes());
        assert_eq!(shown("denied: {\"Secret\":\"hunter2\"}"), "denied:");
        assert_eq!(
            shown("bad token=eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.abc, sorry"),
            "bad [...], sorry"
        );
        assert_eq!(shown("\"ya29.a0AfH6SMBx1234567890abcdefghijkl\""), "\"[...]\"");
        let path = "no file /home/kevin1/.config/gcloud/application_default_credentials.json";
        assert_eq!(shown(path), path);
        assert_eq!(shown("a\u{202e}b\u{7}c\r\n\td"), "a b c d");
        assert_eq!(shown(&"ab ".repeat(1000)).chars().count(), LONGEST_QUOTE + 4);
        assert_eq!(quotable(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn hints_say_the_very_commands() {
        for host in ["gcr.io", "eu.gcr.io"] {
            assert_eq!(
                missing_credential_hint(host),
                "log in with `gcloud auth login`, then let Docker use that: `gcloud auth configure-docker`\n\
                 or, with Google's own helper: `gcloud components install docker-credential-gcr`, `docker-credential-gcr configure-docker`"
            );
        }
        let hint = missing_credential_hint("us-docker.pkg.dev");
        assert!(hint.contains("`docker-credential-gcr configure-docker --registries=us-docker.pkg.dev`"));
        assert!(hint.contains("`gcloud auth configure-docker us-docker.pkg.dev`"));
        assert_eq!(missing_credential_hint("notgcr.io"), "log in with `docker login notgcr.io`");
        assert_eq!(missing_credential_hint("docker.io"), "log in with `docker login`");
    }

    #[test]
    fn a_refusal_says_whom_to_ask() {
        let hint = forbidden_hint("gcr.io", "gcr.io/lattice-dev/stable-envoy-prepare", Right::Push);
        let without_host = forbidden_hint("gcr.io", "lattice-dev/stable-envoy-prepare", Right::Push);
        assert_eq!(hint, without_host);
        assert!(hint.contains("whoever administers the Google Cloud project lattice-dev for the role roles/artifactregistry.writer"));
        let hint = forbidden_hint("eu.gcr.io", "example.com/project/image", Right::Pull);
        assert!(hint.contains("project example.com/project for"), "{hint}");
        let hint = forbidden_hint("localhost:5000", "a/b", Right::Push);
        assert!(hint.starts_with("ask whoever administers localhost:5000 for the right to push to a/b"));
        assert!(hint.contains("`docker login localhost:5000`"));
        assert_eq!(google_project("p"), "p");
        assert_eq!(google_project("a.b"), "a.b");
    }

    #[test]
    fn nothing_secret_shows_in_debug() {
        let machine = Machine::new(r#"{"auths":{"h":{"auth":"dTpodW50ZXIy"}}}"#);
        let credentials = machine.credentials(SHORT);
        let credential = block_on(credentials.for_host("h"));
        assert_eq!(credential, Ok(password("u", "hunter2")));
        let debug = format!("{credential:?} {credentials:?}");
        assert!(debug.contains("Secret(..)"));
        assert!(!debug.contains("hunter2") && !debug.contains("dTpodW50ZXIy"), "{debug}");
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_short_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let line = quotable(&bytes);
            prop_assert!(line.chars().count() <= LONGEST_QUOTE + 4);
            prop_assert!(!line.chars().any(char::is_control));
            let shows_json = line.contains('{');
            prop_assert!(!shows_json);
        }

        #[test]
        fn a_long_token_is_never_shown(before in "[a-z ]{0,20}[ :\"']", token in "[A-Za-z0-9_.-]{40}0", after in "([ ,\"'][a-z]{0,9})?") {
            let line = quotable(format!("{before}{token}{after}").as_bytes());
            prop_assert!(!line.contains(&token));
        }

        #[test]
        fn a_host_is_found_behind_any_scheme_and_path(host in "[a-z]{1,9}(\\.[a-z]{1,3})?(:[0-9]{1,5})?", path in "(/[a-z0-9]{0,4}){0,3}") {
            for scheme in ["", "http://", "https://"] {
                let key = format!("{scheme}{host}{path}");
                prop_assert_eq!(hostname(&key), host.as_str());
            }
        }
    }
}
