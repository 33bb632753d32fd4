//! Manifests and indexes: byte for byte, by tag or by digest.

use std::str::FromStr as _;

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::answer::Answer;
use super::ask::Ask;
use super::error::{Error, Kind};
use super::retry::retried;
use super::tokens::Scope;
use super::{Content, Remote};
use crate::reference::{Digest, Tag};

/// All that we read. A registry that is not told would make another one of some (distribution 2.8).
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// The bound that distribution sets itself.
const LONGEST: usize = 4 * 1024 * 1024;
const DIGEST_HEADER: &str = "docker-content-digest";

/// A tag or a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestName<'a> {
    Tag(&'a Tag),
    Digest(&'a Digest),
}

impl<'a> From<&'a Tag> for ManifestName<'a> {
    fn from(tag: &'a Tag) -> Self {
        Self::Tag(tag)
    }
}

impl<'a> From<&'a Digest> for ManifestName<'a> {
    fn from(digest: &'a Digest) -> Self {
        Self::Digest(digest)
    }
}

impl ManifestName<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Tag(_) => None,
            Self::Digest(digest) => Some(digest),
        }
    }
}

/// What a registry says of a manifest without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Empty where the registry did not say.
    pub media_type: String,
    pub digest: Digest,
    /// In bytes; none where the registry did not say.
    pub size: Option<u64>,
}

/// A manifest or an index, as its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    media_type: String,
    digest: Digest,
    bytes: Bytes,
}

impl Manifest {
    pub fn new(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            media_type: media_type.into(),
            digest: Digest::of(&bytes),
            bytes,
        }
    }

    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// What came of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    Gone,
    WasNotThere,
    /// The registry does not delete, or not this, or not for us: its words.
    Refused(String),
}

impl Remote {
    /// What the tag or digest names; `None` where nothing has it.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn head<'n>(&self, name: impl Into<ManifestName<'n>>) -> Result<Option<Descriptor>, Error> {
        let name = name.into();
        let ask = self.ask(Method::HEAD, name, Scope::pull(self.repository.path()));
        let answer = retried(|| self.host.attempt(&ask)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.expect(&[StatusCode::OK]).await?;
        let Some(digest) = said_digest(&answer, &ask.subject)? else {
            let manifest = self.get(name).await?;
            return Ok(manifest.map(|manifest| Descriptor {
                size: Some(manifest.bytes.len() as u64),
                media_type: manifest.media_type,
                digest: manifest.digest,
            }));
        };
        must_be(&digest, name.digest(), &ask.subject)?;
        Ok(Some(Descriptor {
            media_type: media_type(&answer).unwrap_or_default(),
            size: answer.header(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok()),
            digest,
        }))
    }

    /// The manifest itself; `None` where nothing has the tag or digest. Its bytes have its digest.
    ///
    /// # Errors
    /// When the registry does not give it, or gives something else.
    pub async fn get<'n>(&self, name: impl Into<ManifestName<'n>>) -> Result<Option<Manifest>, Error> {
        let name = name.into();
        let ask = self.ask(Method::GET, name, Scope::pull(self.repository.path()));
        retried(|| self.get_once(&ask, name)).await
    }

    async fn get_once(&self, ask: &Ask, name: ManifestName<'_>) -> Result<Option<Manifest>, Error> {
        let answer = self.host.attempt(ask).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.expect(&[StatusCode::OK]).await?;
        let said = said_digest(&answer, &ask.subject)?;
        let media_type = media_type(&answer);
        let bytes = answer.bytes(LONGEST).await?;
        let Some(media_type) = media_type
            .filter(|found| found != "application/json")
            .or_else(|| own_media_type(&bytes))
        else {
            return Err(Error::malformed(
                &ask.subject,
                "the registry does not say what kind of manifest it is",
            ));
        };
        let manifest = Manifest::new(media_type, bytes);
        for expected in said.iter().chain(name.digest()) {
            must_be(&manifest.digest, Some(expected), &ask.subject)?;
        }
        Ok(Some(manifest))
    }

    /// Puts the manifest under a tag, or under its own digest. What it names must be there.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn put<'n>(&self, name: impl Into<ManifestName<'n>>, manifest: &Manifest) -> Result<(), Error> {
        let name = name.into();
        let ask = self.ask(Method::PUT, name, Scope::push(self.repository.path()));
        must_be(&manifest.digest, name.digest(), &ask.subject)?;
        let media_type =
            HeaderValue::from_str(&manifest.media_type).map_err(|_| Error::malformed(&ask.subject, "a media type that is none"))?;
        let ask = ask.header(CONTENT_TYPE, media_type).content(Content::from(manifest.bytes.clone()));
        let answer = retried(|| self.host.attempt(&ask)).await?;
        let answer = answer.expect(&[StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED]).await?;
        match said_digest(&answer, &ask.subject)? {
            Some(said) => must_be(&said, Some(&manifest.digest), &ask.subject),
            None => Ok(()),
        }
    }

    /// Deletes the manifest with all its tags, or the one tag, where the registry does that.
    ///
    /// # Errors
    /// When the registry does not answer, or does not know us.
    pub async fn delete<'n>(&self, name: impl Into<ManifestName<'n>>) -> Result<Deleted, Error> {
        let ask = self.ask(Method::DELETE, name.into(), Scope::delete(self.repository.path()));
        let answer = retried(|| self.host.attempt(&ask)).await?;
        match answer.status.as_u16() {
            200 | 202 | 204 => Ok(Deleted::Gone),
            404 => Ok(Deleted::WasNotThere),
            400 | 403 | 405 | 409 | 412 | 501 => Ok(Deleted::Refused(answer.said().await)),
            _ => match answer.refused().await {
                error if error.kind() == Kind::Denied => Ok(Deleted::Refused(error.to_string())),
                error => Err(error),
            },
        }
    }

    fn ask(&self, method: Method, name: ManifestName<'_>, scope: Scope) -> Ask {
        let subject = self.subject(format_args!("manifest {}", name.as_str()));
        let path = self.path(&format!("manifests/{}", name.as_str()));
        Ask::new(method, path, scope, subject).header(ACCEPT, HeaderValue::from_static(ACCEPTED))
    }
}

fn must_be(digest: &Digest, expected: Option<&Digest>, subject: &str) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != digest => Err(Error::malformed(subject, format!("{digest} is not {expected}, which it should be"))),
        _ => Ok(()),
    }
}

fn said_digest(answer: &Answer, subject: &str) -> Result<Option<Digest>, Error> {
    let Some(said) = answer.headers.get(DIGEST_HEADER) else {
        return Ok(None);
    };
    let digest = said.to_str().ok().and_then(|said| Digest::from_str(said).ok());
    let digest = digest.ok_or_else(|| Error::malformed(subject, "the registry names a digest that is none"))?;
    Ok(Some(digest))
}

fn media_type(answer: &Answer) -> Option<String> {
    let value = answer.header(CONTENT_TYPE.as_str())?;
    let value = value.split(';').next().unwrap_or_default().trim();
    is_media_type(value).then(|| value.to_owned())
}

fn own_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: String,
    }
    let typed: Typed = serde_json::from_slice(bytes).ok()?;
    Some(typed.media_type).filter(|found| is_media_type(found))
}

fn is_media_type(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$&^_.+-/".contains(c);
    (3..256).contains(&text.len()) && text.contains('/') && text.chars().all(allowed)
}
