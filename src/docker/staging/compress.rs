//! Layers as gzip, in members that each core can make by itself: members one after another are gzip too (RFC 1952, section 2.2).

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use libdeflater::{CompressionLvl, Compressor};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::archive::Layer;
use crate::machine;
use crate::registry::ByteStream;

/// Bytes of a layer in one member. Whatever changes here changes the digests of all layers.
const MEMBER: usize = 256 << 10;
/// Of libdeflate; what comes out is hardly ever larger than at level 6 of zlib, which Docker takes.
const LEVEL: i32 = 5;
/// Members that wait to be sent, beside those in work.
const AHEAD: usize = 2;

/// Shared by all layers, so that they take no more memory than one.
#[derive(Clone)]
pub(super) struct Gzip {
    cores: usize,
    members: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Worker>>>,
}

/// What a member is made with, to be used for others.
struct Worker {
    compressor: Compressor,
    content: Vec<u8>,
    compressed: Vec<u8>,
}

impl Gzip {
    pub(super) fn new() -> Self {
        let cores = machine::cores();
        Self {
            cores,
            members: Arc::new(Semaphore::new(cores + AHEAD)),
            idle: Arc::default(),
        }
    }

    /// The same bytes each time. `reached` is told how far into the layer they come.
    pub(super) fn stream(&self, layer: Arc<Layer>, reached: impl Fn(u64) + Send + 'static) -> ByteStream {
        let gzip = self.clone();
        let compressed = stream::iter(0..layer.size.div_ceil(MEMBER as u64)).map(move |number| {
            let (gzip, layer) = (gzip.clone(), layer.clone());
            async move {
                let place = Arc::clone(&gzip.members).acquire_owned().await?;
                let start = number * MEMBER as u64;
                let member = spawn_blocking(move || gzip.member(&layer, start)).await??;
                Ok((member, start, place))
            }
        });
        let sent = compressed.buffered(self.cores).map_ok(move |(member, start, _place)| {
            reached(start + MEMBER as u64);
            member
        });
        Box::pin(sent)
    }

    fn member(&self, layer: &Layer, start: u64) -> io::Result<Bytes> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worker = idle().pop().unwrap_or_else(Worker::new);
        let member = worker.member(layer, start);
        idle().push(worker);
        member
    }
}

impl Worker {
    fn new() -> Self {
        let mut compressor = Compressor::new(CompressionLvl::new(LEVEL).expect("there is this level"));
        Self {
            content: vec![0; MEMBER],
            compressed: vec![0; compressor.gzip_compress_bound(MEMBER)],
            compressor,
        }
    }

    fn member(&mut self, layer: &Layer, start: u64) -> io::Result<Bytes> {
        let length = usize::try_from(layer.size - start).map_or(MEMBER, |rest| rest.min(MEMBER));
        let content = &mut self.content[..length];
        layer.file.read_exact_at(content, start)?;
        let length = self
            .compressor
            .gzip_compress(content, &mut self.compressed)
            .map_err(io::Error::other)?;
        Ok(Bytes::copy_from_slice(&self.compressed[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    async fn through(content: &[u8]) -> (Vec<u8>, Vec<u64>) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        let layer = Arc::new(Layer {
            size: content.len() as u64,
            file,
        });
        let (reached, gzip) = (Arc::new(Mutex::new(Vec::new())), Gzip::new());
        let told = Arc::clone(&reached);
        let stream = gzip.stream(layer, move |bytes| told.lock().expect("alone").push(bytes));
        let bytes: Vec<Bytes> = stream.try_collect().await.expect("compressed");
        let reached = reached.lock().expect("alone").clone();
        (bytes.concat(), reached)
    }

    #[tokio::test]
    async fn a_layer_comes_back_whole_and_is_compressed_the_same_each_time() {
        for size in [1, MEMBER - 1, MEMBER, MEMBER + 1, 7 * MEMBER + 5] {
            let content: Vec<u8> = (0..size).map(|at| u8::try_from(at * at % 251).expect("a byte")).collect();
            let (compressed, reached) = through(&content).await;
            let mut back = Vec::new();
            flate2::read::MultiGzDecoder::new(compressed.as_slice())
                .read_to_end(&mut back)
                .expect("gzip");
            assert!(back == content, "{size} bytes");
            assert!(reached.is_sorted() && reached.last() >= Some(&(size as u64)), "{reached:?}");
            assert!(compressed == through(&content).await.0, "{size} bytes");
        }
    }
}
