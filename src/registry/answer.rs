//! Answers: what they say, and what is wrong with them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{LOCATION, RETRY_AFTER};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::ask::Ask;
use super::challenge::{Bearer, Challenge};
use super::content::ByteStream;
use super::error::{Again, Error, Kind, quoted};
use super::host::Host;
use super::transport::{Cause, Failure};
use crate::credentials::{Credential, Right, forbidden_hint, unauthorized_hint};

const LONGEST_ERROR: usize = 64 * 1024;
/// What a registry says that it is (distribution's HTTP API V2, "API version check").
const API_VERSION: &str = "docker-distribution-api-version";

pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it came from.
    pub url: Url,
    /// Not where the registry sent us for a blob.
    pub from_registry: bool,
    body: Incoming,
    host: Arc<Host>,
    subject: String,
    asked_for: Right,
}

impl Answer {
    pub(super) fn new(response: Response<Incoming>, url: Url, host: &Arc<Host>, ask: &Ask) -> Self {
        let (head, body) = response.into_parts();
        let reads = ask.method == Method::GET || ask.method == Method::HEAD;
        Self {
            status: head.status,
            headers: head.headers,
            url,
            from_registry: true,
            body,
            host: Arc::clone(host),
            subject: ask.subject.clone(),
            asked_for: if reads { Right::Pull } else { Right::Push },
        }
    }

    /// Whether no other server would say this.
    pub(super) fn is_of_a_registry(&self) -> bool {
        self.status.is_success() || self.headers.contains_key(API_VERSION)
    }

    /// The answer, if its status is one of these; else an error with what the registry said.
    pub(super) async fn expect(self, right: &[StatusCode]) -> Result<Self, Error> {
        if right.contains(&self.status) {
            return Ok(self);
        }
        Err(self.refused().await)
    }

    pub(super) async fn refused(self) -> Error {
        let (host, subject, status) = (Arc::clone(&self.host), self.subject.clone(), self.status.as_u16());
        if !self.from_registry {
            let what = format!("{}, where the registry sends us, answered {status}", authority(&self.url));
            return Error::malformed(&subject, what);
        }
        let (known, asked_for) = (self.knows_us(), self.asked_for);
        let said = self.said().await;
        let error = |kind, what: &str| Error::new(kind, format!("{subject}: {what} ({said})"));
        match status {
            401 | 403 => {
                let credential = host.credential().await.unwrap_or(Credential::Anonymous);
                let hint = if known && credential != Credential::Anonymous {
                    let repository = subject.split(": ").next().unwrap_or_default();
                    forbidden_hint(&host.name, repository, asked_for)
                } else {
                    unauthorized_hint(&host.name, &credential)
                };
                if status == 403 || known && credential != Credential::Anonymous {
                    error(Kind::Denied, "the registry does not allow it").hint(hint)
                } else {
                    error(Kind::Unauthorized, "the registry does not know you").hint(hint)
                }
            }
            404 => error(Kind::NotFound, "it is not there"),
            405 | 501 => error(Kind::Unsupported, "the registry does not do this"),
            _ => Error::malformed(&subject, format!("the registry answered {said}")),
        }
    }

    /// A token server gives a token for less than what was asked for, and the registry then says so with 401.
    fn knows_us(&self) -> bool {
        let challenge = Challenge::of(&self.headers);
        let insufficient = matches!(challenge, Some(Challenge::Bearer(Bearer { error: Some(error), .. })) if error == "insufficient_scope");
        self.status == StatusCode::FORBIDDEN || insufficient
    }

    pub(super) async fn come_back_later(self) -> Error {
        let after = self.header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.trim().parse().ok());
        let again = after.map_or(Again::Soon, |seconds| Again::After(Duration::from_secs(seconds)));
        let asks = after.map_or(String::new(), |seconds| format!(" and asks to be left alone for {seconds} s"));
        let (about, server) = server_named(&self.subject, &self.url);
        let said = self.said().await;
        Error::new(Kind::Unavailable, format!("{about}{server} answered {said}{asks}")).again(again)
    }

    /// The status, and what the body says in the words of the distribution API.
    pub(super) async fn said(self) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<Said>,
        }
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = self.status.as_u16();
        let body = self.bytes(LONGEST_ERROR).await.unwrap_or_default();
        let errors = serde_json::from_slice(&body).map_or(Vec::new(), |Errors { errors }| errors);
        let words = errors.iter().map(|said| format!("{} {}", said.code, said.message));
        quoted(&format!("{status} {}", words.collect::<Vec<_>>().join("; ")))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the answer sends us, never from HTTPS to plain HTTP.
    pub(super) fn location(&self) -> Result<Url, Error> {
        let malformed = |what: &str| Error::malformed(&self.subject, what);
        let location = self.header(LOCATION.as_str());
        let location = location.ok_or_else(|| malformed("the registry does not say where to go on"))?;
        let url = self.url.join(location);
        let url = url.map_err(|_| malformed("where the registry sends us is no URL"))?;
        if self.url.scheme() == "https" && url.scheme() != "https" {
            return Err(malformed("the registry sends us from HTTPS to plain HTTP")
                .hint("behind a proxy that ends TLS, a registry must be told so (`http.host`, or `X-Forwarded-Proto`)"));
        }
        Ok(url)
    }

    /// The whole body.
    pub(super) async fn bytes(self, most: usize) -> Result<Bytes, Error> {
        let too_long = Error::malformed(&self.subject, format!("the answer is longer than {most} bytes"));
        let mut stream = self.stream();
        let mut bytes = BytesMut::new();
        while let Some(part) = stream.next().await {
            let part = part?;
            if bytes.len() + part.len() > most {
                return Err(too_long);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin {
        let Self {
            body, host, subject, url, ..
        } = self;
        Box::pin(futures_util::stream::try_unfold((body, host), move |(mut body, host)| {
            let (subject, url) = (subject.clone(), url.clone());
            async move {
                loop {
                    let failed = |failure| unavailable(&subject, &url, failure);
                    let frame = host.transport.patiently(body.frame()).await.map_err(failed)?;
                    match frame.transpose().map_err(|error| failed(Failure::of(&error, Cause::Broken)))? {
                        None => return Ok(None),
                        Some(frame) => {
                            if let Ok(data) = frame.into_data() {
                                return Ok(Some((data, (body, host))));
                            }
                        }
                    }
                }
            }
        }))
    }

    pub(super) fn into_stream(self) -> ByteStream {
        Box::pin(self.stream().map(|part| part.map_err(Into::into)))
    }
}

pub(super) fn unavailable(subject: &str, url: &Url, failure: Failure) -> Error {
    let (about, server) = server_named(subject, url);
    let reason = quoted(&failure.reason);
    let told = |what: &str| Error::new(Kind::Unavailable, format!("{about}{what}: {reason}")).caused_by(failure.io);
    let place = authority(url);
    let error = match failure.cause {
        Cause::Content(Some(error)) => return *error,
        Cause::Content(None) => {
            return Error::new(Kind::Content, format!("{subject}: what is to be uploaded cannot be read: {reason}"));
        }
        Cause::Untrusted => {
            return told(&format!("the certificate of {server} is not trusted")).hint(format!(
                "put the CA that signed it into /etc/docker/certs.d/{place}/ca.crt, or name a file of CAs in SSL_CERT_FILE"
            ));
        }
        Cause::NoTls => told(&format!("{server} does not speak TLS"))
            .hint(format!("where plain HTTP is right, list {place} under `insecure_registries`")),
        Cause::NotConnected => {
            told(&format!("{server} cannot be reached")).hint("is it up, is its name right, does it need a proxy (HTTPS_PROXY)?")
        }
        Cause::Broken => told(&format!("the connection to {server} broke")),
    };
    error.again(Again::Soon)
}

/// What goes before an error about `subject`, and what its server, at `url`, is called behind that: no host is said twice.
pub(super) fn server_named(subject: &str, url: &Url) -> (String, String) {
    let place = authority(url);
    let (before, last) = subject.rsplit_once(": ").map_or(("", subject), |(before, last)| (before, last));
    if last == place || last.ends_with(&format!(" {place}")) {
        let before = if before.is_empty() { String::new() } else { format!("{before}: ") };
        return (before, last.to_owned());
    }
    let behind = subject.strip_prefix(&place).unwrap_or_default();
    let is_there = behind.starts_with('/') || behind.starts_with(": ");
    (format!("{subject}: "), if is_there { "the registry".to_owned() } else { place })
}

/// `host` or `host:port`.
pub(super) fn authority(url: &Url) -> String {
    let host = quoted(url.host_str().unwrap_or_default());
    url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_is_said_twice() {
        let told = |subject: &str, url: &str| {
            let (about, server) = server_named(subject, &Url::parse(url).expect("a URL"));
            format!("{about}{server} cannot be reached")
        };
        assert_eq!(told("gcr.io", "https://gcr.io/v2/"), "gcr.io cannot be reached");
        assert_eq!(told("127.0.0.1:1", "http://127.0.0.1:1/v2/"), "127.0.0.1:1 cannot be reached");
        assert_eq!(
            told("h.test:5000/a: manifest latest", "https://h.test:5000/v2/a/manifests/latest"),
            "h.test:5000/a: manifest latest: the registry cannot be reached"
        );
        assert_eq!(
            told("h.test: its catalog", "https://h.test/v2/_catalog"),
            "h.test: its catalog: the registry cannot be reached"
        );
        assert_eq!(
            told("h.test: the token server auth.test:1", "https://auth.test:1/token"),
            "h.test: the token server auth.test:1 cannot be reached"
        );
        assert_eq!(
            told("docker.io", "https://registry-1.docker.io/v2/"),
            "docker.io: registry-1.docker.io cannot be reached"
        );
        assert_eq!(
            told("h.test/a: blob x", "https://storage.test/x"),
            "h.test/a: blob x: storage.test cannot be reached"
        );
        assert_eq!(
            told("h.test:5000/a: blob x", "https://h.test/x"),
            "h.test:5000/a: blob x: h.test cannot be reached"
        );
    }
}
