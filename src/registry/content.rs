//! What is uploaded, and the bodies of requests.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::Notify;

const A_PART: usize = 64 * 1024;

pub(super) type AnyError = Box<dyn StdError + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, AnyError>;

pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, AnyError>> + Send>>;

/// The bytes of an upload. What can be made anew is sent again after a failure, the rest is sent once.
#[derive(Clone)]
pub struct Content {
    size: Option<u64>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Bytes(Bytes),
    Anew(Arc<dyn Fn() -> ByteStream + Send + Sync>),
    Once(Arc<Mutex<Option<ByteStream>>>),
}

impl Content {
    /// `make` gives the same bytes each time it is called, `size` of them where that is known.
    pub fn stream(size: impl Into<Option<u64>>, make: impl Fn() -> ByteStream + Send + Sync + 'static) -> Self {
        Self {
            size: size.into(),
            source: Source::Anew(Arc::new(make)),
        }
    }

    #[must_use]
    pub fn once(size: impl Into<Option<u64>>, stream: ByteStream) -> Self {
        Self {
            size: size.into(),
            source: Source::Once(Arc::new(Mutex::new(Some(stream)))),
        }
    }

    pub(super) fn size(&self) -> Option<u64> {
        match &self.source {
            Source::Bytes(bytes) => Some(bytes.len() as u64),
            _ => self.size,
        }
    }

    /// Whether [`Content::open`] has something to give.
    pub(super) fn is_there(&self) -> bool {
        match &self.source {
            Source::Once(stream) => stream.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
            _ => true,
        }
    }

    pub(super) fn open(&self) -> Option<ByteStream> {
        match &self.source {
            Source::Bytes(bytes) => Some(Box::pin(futures_util::stream::iter(parts(bytes.clone())))),
            Source::Anew(make) => Some(make()),
            Source::Once(stream) => stream.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }

    /// A request's body, that says through `progress` whenever a part of it was taken.
    pub(super) fn body(&self, progress: &Arc<Notify>) -> Option<Body> {
        if let Source::Bytes(bytes) = &self.source
            && bytes.len() <= A_PART
        {
            return Some(Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync());
        }
        let progress = Arc::clone(progress);
        let frames = self.open()?.map_ok(Frame::data).inspect(move |_| progress.notify_one());
        Some(StreamBody::new(frames).boxed_unsync())
    }
}

/// In parts, so that their being taken tells of progress.
fn parts(mut bytes: Bytes) -> impl Iterator<Item = Result<Bytes, AnyError>> + Send {
    std::iter::from_fn(move || {
        let part = bytes.split_to(bytes.len().min(A_PART));
        (!part.is_empty()).then_some(Ok(part))
    })
}

impl<B: Into<Bytes>> From<B> for Content {
    fn from(bytes: B) -> Self {
        Self {
            size: None,
            source: Source::Bytes(bytes.into()),
        }
    }
}
