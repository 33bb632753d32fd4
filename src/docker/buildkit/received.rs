//! Takes the files that a build exports to whoever asked for it (moby/buildkit, `session/filesync`).

use std::sync::{Arc, Mutex};

use bollard::moby::filesync::v1::BytesMessage;
use bollard::moby::filesync::v1::file_send_server::FileSend;
use futures_util::stream::{self, BoxStream};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone, Default)]
pub(super) struct Received {
    bytes: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Received {
    pub(super) fn up_to(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock().expect("nobody panics with the lock"))
    }
}

#[tonic::async_trait]
impl FileSend for Received {
    type DiffCopyStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let mut messages = request.into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.message().await? {
            if all.len() + message.data.len() > self.limit {
                return Err(Status::resource_exhausted(format!(
                    "more than {} bytes of files are not taken",
                    self.limit
                )));
            }
            all.extend(message.data);
        }
        *self.bytes.lock().expect("nobody panics with the lock") = all;
        Ok(Response::new(Box::pin(stream::empty())))
    }
}
