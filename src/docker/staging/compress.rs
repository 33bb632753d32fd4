//! Layers as gzip, in members that each core can make by itself: members one after another are gzip too (RFC 1952, section 2.2).

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use libdeflater::{CompressionLvl, Compressor};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::archive::Layer;
use crate::registry::ByteStream;

/// Bytes of a layer in one member. Whatever changes here changes the digests of all layers.
const MEMBER: usize = 1 << 20;
const LEVEL: i32 = 6;
/// Members that wait to be sent, beside those in work.
const AHEAD: usize = 2;

/// Shared by all layers, so that they take no more memory than one.
#[derive(Clone)]
pub(super) struct Gzip {
    cores: usize,
    members: Arc<Semaphore>,
}

impl Gzip {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            cores,
            members: Arc::new(Semaphore::new(cores + AHEAD)),
        }
    }

    /// The same bytes each time. `reached` is told how far into the layer they come.
    pub(super) fn stream(&self, layer: Arc<Layer>, reached: impl Fn(u64) + Send + 'static) -> ByteStream {
        let members = self.members.clone();
        let compressed = stream::iter(0..layer.size.div_ceil(MEMBER as u64)).map(move |number| {
            let (members, layer) = (members.clone(), layer.clone());
            async move {
                let place = members.acquire_owned().await?;
                let start = number * MEMBER as u64;
                let member = spawn_blocking(move || member(&layer, start)).await??;
                Ok((member, start, place))
            }
        });
        let sent = compressed.buffered(self.cores).map_ok(move |(member, start, _place)| {
            reached(start + MEMBER as u64);
            member
        });
        Box::pin(sent)
    }
}

fn member(layer: &Layer, start: u64) -> io::Result<Bytes> {
    let length = (layer.size - start).min(MEMBER as u64);
    let mut content = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    layer.file.read_exact_at(&mut content, start)?;
    let mut gzip = Compressor::new(CompressionLvl::new(LEVEL).expect("there is this level"));
    let mut compressed = vec![0; gzip.gzip_compress_bound(content.len())];
    let length = gzip.gzip_compress(&content, &mut compressed).map_err(io::Error::other)?;
    compressed.truncate(length);
    compressed.shrink_to_fit();
    Ok(compressed.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::sync::Mutex;

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
