//! Blobs: whether they are there, and their bytes.

use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::Remote;
use super::ask::Ask;
use super::content::{AnyError, ByteStream};
use super::error::{Again, Error, Kind};
use super::retry::retried;
use super::tokens::Scope;
use crate::reference::Digest;

impl Remote {
    /// # Errors
    /// When the registry does not say.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let ask = self.ask_blob(Method::HEAD, digest);
        let answer = retried(|| self.host.attempt(&ask)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        answer.expect(&[StatusCode::OK]).await.map(|_| true)
    }

    /// The whole blob, which is at most `most` bytes, and has this digest.
    ///
    /// # Errors
    /// `NotFound` where there is none; when the registry does not give it, or gives something else.
    pub async fn blob(&self, digest: &Digest, most: usize) -> Result<Bytes, Error> {
        let ask = self.ask_blob(Method::GET, digest);
        let once = || async {
            let answer = self.host.attempt(&ask).await?.expect(&[StatusCode::OK]).await?;
            answer.bytes(most).await
        };
        let bytes = retried(once).await?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(another(&ask.subject))
        }
    }

    /// The blob's bytes as they come. The stream ends with an error where they have another digest.
    ///
    /// # Errors
    /// As [`Remote::blob`], before the first byte; what breaks later is an error of the stream.
    pub async fn blob_stream(&self, digest: &Digest) -> Result<ByteStream, Error> {
        let ask = self.ask_blob(Method::GET, digest);
        let answer = retried(|| self.host.attempt(&ask)).await?;
        let answer = answer.expect(&[StatusCode::OK]).await?;
        Ok(verified(answer.into_stream(), digest.clone(), ask.subject))
    }

    fn ask_blob(&self, method: Method, digest: &Digest) -> Ask {
        let (path, scope) = (self.path(&format!("blobs/{digest}")), Scope::pull(self.repository.path()));
        Ask::new(method, path, scope, self.subject(format_args!("blob {digest}")))
    }
}

fn verified(stream: ByteStream, digest: Digest, subject: String) -> ByteStream {
    let start = Some((stream, Sha256::new()));
    Box::pin(futures_util::stream::unfold(start, move |state| {
        let (digest, subject) = (digest.clone(), subject.clone());
        async move {
            let (mut stream, mut hasher) = state?;
            match stream.next().await {
                Some(Ok(bytes)) => {
                    hasher.update(&bytes);
                    Some((Ok(bytes), Some((stream, hasher))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None if Digest::finish(hasher) == digest => None,
                None => Some((Err(AnyError::from(another(&subject))), None)),
            }
        }
    }))
}

fn another(subject: &str) -> Error {
    let message = format!("{subject}: the registry gave other bytes than those of this digest");
    Error::new(Kind::Malformed, message).again(Again::Never)
}
