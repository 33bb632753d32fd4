//! `proxies`, which builds are given.

use super::{DockerConfig, Secret};

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

#[cfg(test)]
mod tests {
    use super::*;

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
