//! Requests, before they are sent.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use url::Url;

use super::content::Content;
use super::tokens::Scope;

/// What a registry is asked.
pub(super) struct Ask {
    pub method: Method,
    pub at: At,
    pub scope: Scope,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub content: Content,
    /// What an error is about.
    pub subject: String,
}

#[derive(Clone)]
pub(super) enum At {
    /// From the registry's root, e.g. `v2/`.
    Path(String),
    /// Where an answer of the registry sent us.
    Url(Url),
}

impl Ask {
    pub(super) fn new(method: Method, path: impl Into<String>, scope: Scope, subject: String) -> Self {
        Self {
            method,
            at: At::Path(path.into()),
            scope,
            headers: Vec::new(),
            content: Content::from(Bytes::new()),
            subject,
        }
    }

    pub(super) fn at(mut self, url: Url) -> Self {
        self.at = At::Url(url);
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }
}
