//! `auths`, in the file and in `DOCKER_AUTH_CONFIG`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::error::Category;

use super::Secret;
use super::json::{secret, without_values};

// Go's decoder passes over the last bits too
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

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

pub(super) fn parse_variable(text: &str) -> Result<BTreeMap<String, AuthEntry>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
