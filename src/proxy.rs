//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as Docker and Go read them, and the way through a proxy.

use std::io;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Authority;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::problem::{Problem, printable};

const LONGEST_ANSWER: usize = 16 * 1024;

/// Empty where there is none. They may carry a password.
#[derive(Clone, Default)]
pub struct Proxies {
    pub https: String,
    pub http: String,
    /// Where no proxy is gone through to, parted by commas.
    pub exceptions: String,
}

impl Proxies {
    /// The names in capitals go before those in small letters.
    #[must_use]
    pub fn from_environment(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let either = |name: &str| set(name).or_else(|| set(&name.to_lowercase())).unwrap_or_default();
        Self {
            https: either("HTTPS_PROXY"),
            http: either("HTTP_PROXY"),
            exceptions: either("NO_PROXY"),
        }
    }

    /// # Errors
    /// When one of them is not the address of a proxy.
    pub fn check(&self) -> Result<(), Problem> {
        for (variable, value, probe) in [
            ("HTTPS_PROXY", &self.https, "https://registry.invalid"),
            ("HTTP_PROXY", &self.http, "http://registry.invalid"),
        ] {
            let found = self.matcher("").intercept(&Uri::from_static(probe));
            let usable = found.is_some_and(|found| is_of_http_proxy(found.uri()));
            if !value.is_empty() && !usable {
                // the value may hold a password
                return Err(Problem::usage(format!("{variable} is not the address of an HTTP proxy")).hint("http://HOST:PORT"));
            }
        }
        Ok(())
    }

    /// The proxy to go through to `uri`; loopback is always gone to directly.
    #[must_use]
    pub fn to(&self, uri: &Uri) -> Option<Intercept> {
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

/// `localhost`, `127.0.0.0/8` and `::1`, with or without a port.
#[must_use]
pub fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Asks the proxy at the other end of `stream` for a connection to `target`, `HOST:PORT` (RFC 9110, section 9.3.6).
///
/// # Errors
/// When it does not connect.
pub async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, proxy: &Intercept, target: &str) -> io::Result<()> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(credential) = proxy.basic_auth().map(HeaderValue::as_bytes) {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credential);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == LONGEST_ANSWER {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    match status {
        Some(status) if status.starts_with('2') => Ok(()),
        Some("407") => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the proxy wants other credentials")),
        status => {
            let status = printable(status.unwrap_or_default());
            Err(io::Error::other(format!(
                "the proxy does not connect to {target} (it said {status})"
            )))
        }
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
        let proxies = Proxies {
            https: "http://secure:1".to_owned(),
            http: "plain:2".to_owned(),
            exceptions: no_proxy.to_owned(),
        };
        proxies.check().expect("valid");
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
            let proxies = Proxies {
                https: value.to_owned(),
                ..Proxies::default()
            };
            let problem = proxies.check().expect_err(value);
            assert_eq!(problem.to_string(), "HTTPS_PROXY is not the address of an HTTP proxy");
        }
    }

    #[test]
    fn loopback_is_by_name_or_address() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["localhost.example", "128.0.0.1", "[::2]:1", "gcr.io", "127.0.0.1.nip.io", ""] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
