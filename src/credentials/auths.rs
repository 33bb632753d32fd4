//! Under which key Docker keeps what it has for a host.

use crate::docker_config::{AuthEntry, DockerConfig};

pub(super) const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Docker Hub is kept under the address of its old index, every other registry under its host.
pub(super) fn auth_key(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" => DOCKER_HUB,
        host => host,
    }
}

pub(super) fn find_entry<'a>(config: &'a DockerConfig, key: &str) -> Option<&'a AuthEntry> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_host_is_found_behind_any_scheme_and_path(host in "[a-z]{1,9}(\\.[a-z]{1,3})?(:[0-9]{1,5})?", path in "(/[a-z0-9]{0,4}){0,3}") {
            for scheme in ["", "http://", "https://"] {
                let key = format!("{scheme}{host}{path}");
                prop_assert_eq!(hostname(&key), host.as_str());
            }
        }
    }
}
