//! Uploads of blobs, mounts among them (OCI distribution specification, "Pushing blobs").

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tracing::debug;
use url::Url;

use super::answer::Answer;
use super::ask::Ask;
use super::error::{Again, Error, Kind};
use super::retry::retried;
use super::tokens::Scope;
use super::{ByteStream, Content, Remote};
use crate::reference::{Digest, Repository};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// A blob that has become known by being uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    pub digest: Digest,
    pub size: u64,
}

/// An upload that is begun, and waits for its bytes.
#[derive(Clone, Debug)]
pub struct Session(Url);

/// How a registry takes the beginning of an upload.
pub(super) enum Begun {
    Mounted,
    /// Bytes are to be sent here.
    At(Url),
}

impl Remote {
    /// Whether we may push here: an upload is begun and cancelled.
    ///
    /// # Errors
    /// `Denied` or `Unauthorized` where we may not.
    pub async fn may_push(&self) -> Result<(), Error> {
        match self.begin_at("blobs/uploads/", self.cancelling()).await? {
            Begun::At(url) => self.cancel(url).await,
            Begun::Mounted => {}
        }
        Ok(())
    }

    /// Makes a blob of another repository of this registry one of this; `false` where the registry does not.
    ///
    /// # Errors
    /// When the registry does not answer, or does not let us upload here.
    pub async fn mount(&self, digest: &Digest, from: &Repository) -> Result<bool, Error> {
        if from.host() != self.repository.host() {
            return Ok(false);
        }
        match self.begin(Some((digest, from))).await? {
            Begun::Mounted => Ok(true),
            Begun::At(url) => {
                self.cancel(url).await;
                Ok(false)
            }
        }
    }

    /// Begins the upload of a blob that is not known yet; see [`Remote::upload_in`].
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn open(&self) -> Result<Session, Error> {
        match self.begin(None).await? {
            Begun::At(url) => Ok(Session(url)),
            Begun::Mounted => Err(self.mounted_unasked()),
        }
    }

    /// Uploads a blob whose digest is known: one POST, one PUT.
    ///
    /// # Errors
    /// When the registry does not take it; `Content` where it cannot be read.
    pub async fn upload(&self, digest: &Digest, content: impl Into<Content>) -> Result<(), Error> {
        self.upload_in(None, digest, content).await
    }

    /// As [`Remote::upload`], in a session that is open already. Where the registry does not take it there, another is begun.
    ///
    /// # Errors
    /// As [`Remote::upload`].
    pub async fn upload_in(&self, session: Option<Session>, digest: &Digest, content: impl Into<Content>) -> Result<(), Error> {
        let content = content.into();
        if let Some(Session(url)) = session {
            match self.finish(url, digest, &content).await {
                Err(error) if content.is_there() => debug!("{error}; another upload is begun"),
                done => return done,
            }
        }
        retried(|| async {
            let Session(url) = self.open().await?;
            let finished = self.finish(url, digest, &content).await;
            finished.map_err(|error| unless_spent(error, &content))
        })
        .await
    }

    /// Leaves what was begun.
    pub async fn close(&self, session: Session) {
        self.cancel(session.0).await;
    }

    /// Uploads a blob whose digest comes out of its bytes: one POST, one PATCH, one PUT.
    ///
    /// # Errors
    /// As [`Remote::upload`].
    pub async fn upload_unnamed(&self, content: impl Into<Content>) -> Result<Uploaded, Error> {
        let content = content.into();
        retried(|| async {
            self.upload_unnamed_once(&content)
                .await
                .map_err(|error| unless_spent(error, &content))
        })
        .await
    }

    async fn upload_unnamed_once(&self, content: &Content) -> Result<Uploaded, Error> {
        let Session(url) = self.open().await?;
        let Some(stream) = content.open() else {
            return Err(Error::new(Kind::Content, self.subject("the upload cannot be begun again")));
        };
        let (stream, seen) = measured(stream);
        // without Content-Range: Artifact Registry takes one PATCH, but no chunks
        let ask = self.ask_upload(Method::PATCH, "the upload").at(url).header(CONTENT_TYPE, OCTETS);
        let ask = ask.content(Content::once(content.size(), stream));
        let answer = self.host.attempt(&ask).await?;
        let answer = expect_of_session(answer, StatusCode::ACCEPTED).await?;
        let url = answer.location()?;
        let uploaded = seen.finish();
        self.finish(url, &uploaded.digest, &Content::from("")).await?;
        Ok(uploaded)
    }

    /// Begins an upload, or mounts. A mount that we may not do becomes an upload.
    pub(super) async fn begin(&self, mount: Option<(&Digest, &Repository)>) -> Result<Begun, Error> {
        let Some((digest, from)) = mount.filter(|(_, from)| from.host() == self.repository.host()) else {
            return self.begin_at("blobs/uploads/", Scope::push(self.repository.path())).await;
        };
        let path = format!("blobs/uploads/?mount={digest}&from={}", from.path());
        let scope = Scope::push(self.repository.path()).and(Scope::pull(from.path()));
        match self.begin_at(&path, scope).await {
            Err(error) if !matches!(error.kind(), Kind::Unavailable) => {
                debug!("no mount: {error}");
                self.begin_at("blobs/uploads/", Scope::push(self.repository.path())).await
            }
            begun => begun,
        }
    }

    fn mounted_unasked(&self) -> Error {
        Error::malformed(&self.subject("upload"), "the registry mounted what was not asked for")
    }

    async fn begin_at(&self, path: &str, scope: Scope) -> Result<Begun, Error> {
        let ask = Ask::new(Method::POST, self.path(path), scope, self.subject("beginning an upload"));
        let answer = retried(|| self.host.attempt(&ask)).await?;
        let answer = answer.expect(&[StatusCode::CREATED, StatusCode::ACCEPTED]).await?;
        if answer.status == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        Ok(Begun::At(answer.location()?))
    }

    /// The last request of an upload, with the bytes that were not sent yet.
    pub(super) async fn finish(&self, mut url: Url, digest: &Digest, content: &Content) -> Result<(), Error> {
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let ask = self.ask_upload(Method::PUT, &format!("blob {digest}")).at(url);
        let ask = ask.header(CONTENT_TYPE, OCTETS).content(content.clone());
        let answer = self.host.attempt(&ask).await?;
        expect_of_session(answer, StatusCode::CREATED).await.map(drop)
    }

    /// Registries drop what was begun and left after a while, so that this fails does not matter.
    pub(super) async fn cancel(&self, url: Url) {
        let ask = Ask::new(Method::DELETE, "", self.cancelling(), self.subject("cancelling an upload")).at(url);
        if let Ok(Err(error)) = timeout(CANCEL_TIMEOUT, self.host.attempt(&ask)).await {
            debug!("{error}");
        }
    }

    /// Distribution takes it for a deletion, and one token for both saves another.
    fn cancelling(&self) -> Scope {
        let path = self.repository.path();
        Scope::push(path).and(Scope::delete(path))
    }

    fn ask_upload(&self, method: Method, thing: &str) -> Ask {
        let scope = Scope::push(self.repository.path());
        Ask::new(method, "", scope, self.subject(thing))
    }
}

/// A session that the registry has lost is begun again.
async fn expect_of_session(answer: Answer, right: StatusCode) -> Result<Answer, Error> {
    let lost = matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE);
    let result = answer.expect(&[right]).await;
    result.map_err(|error| if lost { error.again(Again::Soon) } else { error })
}

fn unless_spent(error: Error, content: &Content) -> Error {
    if content.is_there() { error } else { error.again(Again::Never) }
}

/// What has gone through a stream.
struct Seen(Arc<Mutex<(Sha256, u64)>>);

impl Seen {
    fn finish(self) -> Uploaded {
        let (hasher, size) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Uploaded {
            digest: Digest::finish(hasher),
            size,
        }
    }
}

fn measured(stream: ByteStream) -> (ByteStream, Seen) {
    let seen = Arc::new(Mutex::new((Sha256::new(), 0)));
    let of_stream = Arc::clone(&seen);
    let stream = stream.inspect(move |part| {
        if let Ok(bytes) = part {
            let mut seen = of_stream.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.update(bytes);
            seen.1 += bytes.len() as u64;
        }
    });
    (Box::pin(stream), Seen(seen))
}
