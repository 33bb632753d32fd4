//! `config.json` as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{AuthEntry, DockerConfig, Proxies, Secret};

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

// Go takes `null` for a field that is not there, so every field may be null.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConfigJson {
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
    pub(super) fn into_config(self, directory: PathBuf) -> DockerConfig {
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

pub(super) fn secret(value: Option<String>) -> Secret {
    Secret::new(value.unwrap_or_default())
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
