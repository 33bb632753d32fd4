//! Docker's own configuration: where it lives, and what this tool reads of it.
//!
//! The format is docker/cli's `cli/config/configfile`, the place `cli/config/config.go`,
//! `DOCKER_AUTH_CONFIG` the same package's `DockerEnvConfigKey` (docker/cli 28.3).

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

const FILE_NAME: &str = "config.json";
const AUTH_VARIABLE: &str = "DOCKER_AUTH_CONFIG";

// Go's decoder passes over the last bits too
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

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

/// A password or token. `Debug` hides it and there is no `Display`: only [`Secret::expose`] shows it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value out of sight.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
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

/// One entry of `auths`; what is not written there is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthEntry {
    /// Base64 of `user:password`.
    pub auth: Secret,
    /// Counts only without [`AuthEntry::auth`].
    pub username: String,
    /// Counts only without [`AuthEntry::auth`].
    pub password: Secret,
    /// `identitytoken`: an OAuth refresh token for the registry's token server.
    pub identity_token: Secret,
    /// `registrytoken`: a bearer token for the registry itself.
    pub registry_token: Secret,
}

impl AuthEntry {
    /// User name and password, out of `auth` where there is one; either may be empty.
    ///
    /// None where `auth` is not the base64 of `user:password`.
    ///
    /// Source: `decodeAuth` in docker/cli's `cli/config/configfile/file.go`.
    #[must_use]
    pub fn username_and_password(&self) -> Option<(String, Secret)> {
        if self.auth.is_empty() {
            return Some((self.username.clone(), self.password.clone()));
        }
        let encoded = self.auth.expose().replace(['\r', '\n'], "");
        let decoded = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        if username.is_empty() {
            return None;
        }
        let password = Secret::new(password.trim_matches('\0'));
        Some((username.to_owned(), password))
    }
}

/// One entry of `proxies`. The addresses can carry a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `httpProxy`
    pub http: Secret,
    /// `httpsProxy`
    pub https: Secret,
    /// `noProxy`
    pub no: Secret,
    /// `ftpProxy`
    pub ftp: Secret,
    /// `allProxy`
    pub all: Secret,
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
            match parse_auth_variable(&text) {
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

    /// The path of `config.json`, whether it exists or not.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.directory.as_deref().map(|d| d.join(FILE_NAME))
    }

    /// The build args that `docker build` adds for the daemon at this address (`unix:///...`,
    /// `tcp://host:port`): each proxy in upper and in lower case, unless it is empty.
    ///
    /// Source: `ParseProxyConfig` in docker/cli's `cli/config/configfile/file.go`.
    #[must_use]
    pub fn proxy_build_args(&self, daemon: &str) -> Vec<(String, Secret)> {
        let Some(proxies) = self.proxies.get(daemon).or_else(|| self.proxies.get("default")) else {
            return Vec::new();
        };
        [
            ("HTTP_PROXY", &proxies.http),
            ("HTTPS_PROXY", &proxies.https),
            ("NO_PROXY", &proxies.no),
            ("FTP_PROXY", &proxies.ftp),
            ("ALL_PROXY", &proxies.all),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .flat_map(|(name, value)| [name.to_owned(), name.to_ascii_lowercase()].map(|name| (name, value.clone())))
        .collect()
    }
}

/// The `user:password` in addresses such as those of [`DockerConfig::proxy_build_args`].
#[must_use]
pub fn logins(addresses: &[(String, Secret)]) -> Vec<Secret> {
    let login = |address: &str| {
        let (login, _) = address.rsplit_once('@')?;
        let login = login.split_once("://").map_or(login, |(_, login)| login);
        let (_, password) = login.split_once(':')?;
        (!password.is_empty()).then(|| Secret::new(login))
    };
    let mut logins: Vec<_> = addresses.iter().filter_map(|(_, address)| login(address.expose())).collect();
    logins.dedup();
    logins
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

/// Reads the first JSON value, as Go's decoder does; nothing at all is the default.
pub(crate) fn parse<T: DeserializeOwned + Default>(text: &[u8]) -> Result<T, serde_json::Error> {
    if text.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Option::<T>::deserialize(&mut deserializer).map(Option::unwrap_or_default)
}

/// The error's text, but nothing of the file: serde quotes a value of a wrong type, which may be a secret.
pub(crate) fn without_values(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => format!(
            "not what Docker writes there (column {}): a value of another type, or a key twice",
            error.column()
        ),
        Category::Io | Category::Syntax | Category::Eof => {
            let text = error.to_string();
            let reason = text.split(" at line ").next().unwrap_or_default();
            format!("not JSON (column {}): {reason}", error.column())
        }
    }
}

fn parse_auth_variable(text: &str) -> Result<BTreeMap<String, AuthEntry>, String> {
    let file: AuthVariable = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => "Docker takes only `auths` with an `auth` each there".to_owned(),
        Category::Io | Category::Syntax | Category::Eof => without_values(&error),
    })?;
    let mut auths = BTreeMap::new();
    for (key, entry) in file.auths.unwrap_or_default() {
        let entry = AuthEntry {
            auth: secret(entry.auth),
            ..AuthEntry::default()
        };
        if entry.auth.is_empty() {
            return Err(format!("`auths` has no `auth` for {key}"));
        }
        if entry.username_and_password().is_none() {
            return Err(format!("`auth` of {key} is not base64 of `user:password`"));
        }
        auths.insert(key, entry);
    }
    Ok(auths)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthVariable {
    auths: Option<BTreeMap<String, AuthVariableEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthVariableEntry {
    auth: Option<String>,
}

// Go takes `null` for a field that is not there, so every field may be null.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigJson {
    auths: Option<BTreeMap<String, Option<AuthEntryJson>>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, Option<String>>>,
    current_context: Option<String>,
    proxies: Option<BTreeMap<String, Option<ProxiesJson>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntryJson {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProxiesJson {
    #[serde(rename = "httpProxy")]
    http: Option<String>,
    #[serde(rename = "httpsProxy")]
    https: Option<String>,
    #[serde(rename = "noProxy")]
    no: Option<String>,
    #[serde(rename = "ftpProxy")]
    ftp: Option<String>,
    #[serde(rename = "allProxy")]
    all: Option<String>,
}

impl ConfigJson {
    fn into_config(self, directory: PathBuf) -> DockerConfig {
        DockerConfig {
            directory: Some(directory),
            auths: entries(self.auths),
            creds_store: self.creds_store.filter(|name| !name.is_empty()),
            cred_helpers: entries(self.cred_helpers),
            current_context: self.current_context.filter(|name| !name.is_empty()),
            proxies: entries(self.proxies),
            ..DockerConfig::default()
        }
    }
}

fn entries<Json, Entry>(entries: Option<BTreeMap<String, Option<Json>>>) -> BTreeMap<String, Entry>
where
    Json: Default + Into<Entry>,
{
    entries
        .unwrap_or_default()
        .into_iter()
        .map(|(key, entry)| (key, entry.unwrap_or_default().into()))
        .collect()
}

fn secret(value: Option<String>) -> Secret {
    Secret(value.unwrap_or_default())
}

impl From<AuthEntryJson> for AuthEntry {
    fn from(entry: AuthEntryJson) -> Self {
        Self {
            auth: secret(entry.auth),
            username: entry.username.unwrap_or_default(),
            password: secret(entry.password),
            identity_token: secret(entry.identitytoken),
            registry_token: secret(entry.registrytoken),
        }
    }
}

impl From<ProxiesJson> for Proxies {
    fn from(proxies: ProxiesJson) -> Self {
        Self {
            http: secret(proxies.http),
            https: secret(proxies.https),
            no: secret(proxies.no),
            ftp: secret(proxies.ftp),
            all: secret(proxies.all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn environment<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn load(config_json: &str) -> Result<DockerConfig, DockerConfigError> {
        load_with(config_json, &[])
    }

    fn load_with(config_json: &str, variables: &[(&str, &str)]) -> Result<DockerConfig, DockerConfigError> {
        let home = TempDir::new().expect("a folder");
        let directory = home.path().join(".docker");
        fs::create_dir(&directory).expect("a folder");
        fs::write(directory.join("config.json"), config_json).expect("a file");
        let home = home.path().to_str().expect("UTF-8");
        let variables: Vec<_> = variables.iter().copied().chain([("HOME", home)]).collect();
        DockerConfig::load(&environment(&variables))
    }

    #[test]
    fn the_directory_is_docker_config_else_the_home_folder_else_nothing() {
        let directory = |variables: &[(&str, &str)]| config_directory(&environment(variables));
        assert_eq!(directory(&[("DOCKER_CONFIG", "/c"), ("HOME", "/h")]), Some("/c".into()));
        assert_eq!(directory(&[("DOCKER_CONFIG", ""), ("HOME", "/h")]), Some("/h/.docker".into()));
        assert_eq!(directory(&[]), None);
    }

    #[test]
    fn a_missing_or_empty_file_is_an_empty_configuration() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().to_str().expect("UTF-8");
        let config = DockerConfig::load(&environment(&[("DOCKER_CONFIG", path)]));
        let config = config.expect("empty");
        assert_eq!(config.directory(), Some(folder.path()));
        assert_eq!(config.file(), Some(folder.path().join("config.json")));
        assert!(config.auths.is_empty() && config.creds_store.is_none());
        for text in ["", " \n", "null", "{}", "{\"auths\":null,\"credsStore\":\"\"}"] {
            let config = load(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert!(config.auths.is_empty() && config.creds_store.is_none());
        }
        assert_eq!(DockerConfig::load(&|_| None), Ok(DockerConfig::default()));
    }

    #[test]
    fn reads_what_docker_writes_and_leaves_the_rest() {
        let config = load(
            r#"{ "auths": { "a.example": { "auth": "dTpw", "identitytoken": "t" }, "b.example": {}, "c.example": null },
                 "HttpHeaders": { "X": "y" }, "credsStore": "pass", "credHelpers": { "gcr.io": "gcr" },
                 "currentContext": "colima", "cliPluginsExtraDirs": ["/x"] } trailing"#,
        )
        .expect("valid");
        assert_eq!(config.auths["a.example"].auth.expose(), "dTpw");
        assert_eq!(config.auths["a.example"].identity_token.expose(), "t");
        assert_eq!(config.auths["b.example"], AuthEntry::default());
        assert_eq!(config.auths["c.example"], AuthEntry::default());
        assert_eq!(config.creds_store.as_deref(), Some("pass"));
        assert_eq!(config.cred_helpers["gcr.io"], "gcr");
        assert_eq!(config.current_context.as_deref(), Some("colima"));
    }

    #[test]
    fn auth_is_decoded_as_docker_decodes_it() {
        let decoded = |auth: &str| {
            let entry = AuthEntry {
                auth: Secret::new(auth),
                username: "other".to_owned(),
                ..AuthEntry::default()
            };
            let found = entry.username_and_password();
            found.map(|(username, password)| format!("{username} {}", password.expose()))
        };
        assert_eq!(decoded("dTpw").as_deref(), Some("u p"));
        assert_eq!(decoded("dT\npw\r\n").as_deref(), Some("u p"));
        assert_eq!(decoded("dTpwOnE=").as_deref(), Some("u p:q"));
        assert_eq!(decoded("dTo=").as_deref(), Some("u "));
        assert_eq!(decoded("dTp=").as_deref(), Some("u "), "a last bit that counts for nothing");
        assert_eq!(decoded("dTpwAA==").as_deref(), Some("u p"));
        assert_eq!(decoded("").as_deref(), Some("other "));
        for auth in ["dTo", "dXA=", "OnA=", "%%%", "dTr/"] {
            assert_eq!(decoded(auth), None, "{auth}");
        }
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let error = load("{\n  \"auths\": {}\n  \"credsStore\": \"pass\"\n}").expect_err("broken");
        let message = error.to_string();
        assert!(message.contains("/.docker/config.json:3: not JSON"), "{message}");
        assert!(message.ends_with("expected `,` or `}`"), "{message}");
        assert!(error.hint().contains("docker login"));
        let error = load("{\n\"auths\": {").expect_err("broken");
        assert!(error.to_string().contains("config.json:2: not JSON"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_quoted() {
        for text in ["{\n\"auths\": \"hunter2\"}", "{\n\"auths\": {\"h\": \"hunter2\"}}"] {
            let error = load(text).expect_err("broken");
            assert!(error.to_string().contains("config.json:2: not what Docker"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let home = TempDir::new().expect("a folder");
        fs::create_dir_all(home.path().join("config.json")).expect("a folder");
        let path = home.path().to_str().expect("UTF-8");
        let error = DockerConfig::load(&environment(&[("DOCKER_CONFIG", path)])).expect_err("error");
        assert!(error.to_string().contains("config.json cannot be read: "), "{error}");
        assert!(error.hint().contains("DOCKER_CONFIG"));
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let config = load(
            r#"{"auths":{"h":{"auth":"hunter2","password":"hunter2","identitytoken":"hunter2","registrytoken":"hunter2"}},
                "proxies":{"default":{"httpProxy":"http://u:hunter2@p"}}}"#,
        )
        .expect("valid");
        let debug = format!("{config:?}");
        assert!(debug.contains("Secret(..)"));
        assert!(!debug.contains("hunter2"), "{debug}");
    }

    #[test]
    fn the_auth_variable_is_read_as_docker_reads_it() {
        let with = |value| load_with("{}", &[("DOCKER_AUTH_CONFIG", value)]).expect("valid");
        let config = with(r#"{"auths":{"h.example":{"auth":"dTpw"}}}"#);
        assert_eq!(config.auths_of_environment["h.example"].auth.expose(), "dTpw");
        assert!(config.notes.is_empty());
        for value in [
            r#"{"auths":{"h.example":{"auth":"hunter2"}},"credHelpers":{}}"#,
            r#"{"auths":{"h.example":{"auth":"hunter2","email":"hunter2"}}}"#,
            r#"{"auths":{"h.example":{}}}"#,
            r#"{"auths":{"h.example":{"auth":"hunter2"}}}"#,
            r#"{"auths":{}} {}"#,
            "hunter2",
        ] {
            let config = with(value);
            assert!(config.auths_of_environment.is_empty(), "{value}");
            assert_eq!(config.notes.len(), 1, "{value}");
            assert!(config.notes[0].starts_with("DOCKER_AUTH_CONFIG is not used: "));
            assert!(!config.notes[0].contains("hunter2"), "{:?}", config.notes);
        }
    }

    #[test]
    fn proxies_become_build_args_in_both_cases() {
        let config =
            load(r#"{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"localhost"},"tcp://d:2375":{"allProxy":"socks5://s"}}}"#)
                .expect("valid");
        let args = |daemon| {
            let args = config.proxy_build_args(daemon).into_iter();
            args.map(|(name, value)| format!("{name}={}", value.expose())).collect::<Vec<_>>()
        };
        assert_eq!(
            args("unix:///var/run/docker.sock"),
            [
                "HTTP_PROXY=http://p:1",
                "http_proxy=http://p:1",
                "NO_PROXY=localhost",
                "no_proxy=localhost"
            ]
        );
        assert_eq!(args("tcp://d:2375"), ["ALL_PROXY=socks5://s", "all_proxy=socks5://s"]);
        assert!(DockerConfig::default().proxy_build_args("x").is_empty());
    }

    #[test]
    fn logins_are_found_in_addresses() {
        for (address, login) in [
            ("http://kevin:p/w@d@proxy:3128/", Some("kevin:p/w@d")),
            ("kevin:pw@proxy", Some("kevin:pw")),
            ("kevin@proxy", None),
            ("kevin:@proxy", None),
            ("http://proxy:3128", None),
            ("localhost,.corp", None),
        ] {
            let found = logins(&[("HTTP_PROXY".to_owned(), Secret::new(address))]);
            assert_eq!(found.first().map(Secret::expose), login, "{address}");
        }
    }
}
