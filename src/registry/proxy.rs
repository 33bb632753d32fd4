//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as Docker and Go read them.

use hyper::Uri;
use hyper::http::uri::Authority;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::{Options, is_loopback};
use crate::problem::Problem;

pub(super) struct Proxies {
    https: String,
    http: String,
    exceptions: String,
}

impl Proxies {
    pub(super) fn new(options: &Options) -> Result<Self, Problem> {
        let proxies = Self {
            https: options.https_proxy.clone().unwrap_or_default(),
            http: options.http_proxy.clone().unwrap_or_default(),
            exceptions: options.no_proxy.clone().unwrap_or_default(),
        };
        for (variable, value, probe) in [
            ("HTTPS_PROXY", &proxies.https, "https://registry.invalid"),
            ("HTTP_PROXY", &proxies.http, "http://registry.invalid"),
        ] {
            let found = proxies.matcher("").intercept(&Uri::from_static(probe));
            let usable = found.is_some_and(|found| is_of_http_proxy(found.uri()));
            if !value.is_empty() && !usable {
                // the value may hold a password
                return Err(Problem::usage(format!("{variable} is not the address of an HTTP proxy")).hint("http://HOST:PORT"));
            }
        }
        Ok(proxies)
    }

    /// The proxy to go through to `uri`; loopback is always gone to directly.
    pub(super) fn to(&self, uri: &Uri) -> Option<Intercept> {
        if uri.authority().is_none_or(|authority| is_loopback(authority.as_str())) {
            return None;
        }
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        self.matcher(&exceptions_at(&self.exceptions, port)).intercept(uri)
    }

    fn matcher(&self, exceptions: &str) -> Matcher {
        let builder = Matcher::builder().https(self.https.as_str()).http(self.http.as_str());
        builder.no(exceptions).build()
    }
}

fn is_of_http_proxy(uri: &Uri) -> bool {
    let has_host = |authority: &Authority| authority.port_u16().is_some() || authority.as_str() == authority.host();
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some_and(has_host)
}

/// Those of the comma-separated exceptions that count at `port`; `host:port` counts at its port only.
fn exceptions_at(exceptions: &str, port: u16) -> String {
    let at_port = exceptions.split(',').filter_map(|exception| {
        let exception = exception.trim();
        let Some((host, digits)) = exception.rsplit_once(':') else {
            return Some(exception);
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.contains(':') && bare == host {
            return Some(exception); // an IPv6 address
        }
        (digits.parse() == Ok(port)).then_some(bare)
    });
    at_port.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_through(no_proxy: &str, uri: &str) -> Option<String> {
        let options = Options {
            https_proxy: Some("http://secure:1".to_owned()),
            http_proxy: Some("plain:2".to_owned()),
            no_proxy: Some(no_proxy.to_owned()),
            ..Options::default()
        };
        let proxies = Proxies::new(&options).expect("valid");
        let found = proxies.to(&uri.parse().expect("a URI"))?;
        found.uri().authority().map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_proxy_and_loopback_none() {
        assert_eq!(goes_through("", "https://gcr.io/v2/").as_deref(), Some("secure:1"));
        assert_eq!(goes_through("", "http://gcr.io/v2/").as_deref(), Some("plain:2"));
        for loopback in ["https://localhost:5000/", "https://127.0.0.1/", "http://[::1]:1/"] {
            assert_eq!(goes_through("", loopback), None, "{loopback}");
        }
    }

    #[test]
    fn exceptions_are_names_addresses_and_networks_with_or_without_a_port() {
        for (no_proxy, uri) in [
            ("*", "https://gcr.io/"),
            ("gcr.io", "https://eu.gcr.io/"),
            ("x, .gcr.io", "https://eu.gcr.io/"),
            ("10.0.0.0/8", "https://10.1.2.3:5000/"),
            ("10.1.2.3:5000", "https://10.1.2.3:5000/"),
            ("gcr.io:443", "https://gcr.io/"),
            ("fd00::/8", "https://[fd00::1]/"),
            ("fd00::1", "https://[fd00::1]/"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/"),
        ] {
            assert_eq!(goes_through(no_proxy, uri), None, "{no_proxy} {uri}");
        }
        for (no_proxy, uri) in [
            ("io", "https://notio/"),
            ("gcr.io", "https://notgcr.io/"),
            ("gcr.io:80", "https://gcr.io/"),
            ("10.0.0.0/8", "https://11.1.2.3/"),
            ("[fd00::1]:5000", "https://[fd00::1]:5001/"),
        ] {
            assert!(goes_through(no_proxy, uri).is_some(), "{no_proxy} {uri}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_told_and_not_shown() {
        for value in ["socks5://me:hunter2@p:1", "http://me:hunter2@p:x", "ftp://me:hunter2@p"] {
            let options = Options {
                https_proxy: Some(value.to_owned()),
                ..Options::default()
            };
            let problem = Proxies::new(&options).err().expect(value);
            assert_eq!(problem.to_string(), "HTTPS_PROXY is not the address of an HTTP proxy");
        }
    }
}
