//! Layers as gzip (RFC 1952), in blocks that each core can make by itself: what ends at a byte and is not the last one can
//! have any other behind it (RFC 1951, section 3.2.3), and checksums can be put together.

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use memchr::memmem;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Layer;
use crate::machine;
use crate::registry::ByteStream;

/// Bytes of a layer in one block. Whatever changes here changes the digests of all layers.
pub(in crate::docker) const BLOCK: usize = 256 << 10;
/// What comes out is hardly ever larger than at level 6, which Docker takes.
const LEVEL: Compression = Compression::new(5);
/// Bytes that are looked at together; files begin at such places of a tar.
const PIECE: usize = 512;
/// The squares of how often each byte is in a piece of noise, added up, are 1,534, with a standard deviation of 45.
const NOISE: RangeInclusive<u32> = 1_200..=1_850;
/// Pieces in a row that are worth to be stored.
const DENSE: usize = 4;
/// How far back deflate finds what comes again.
const WINDOW: usize = 32 << 10;
/// Bytes that are looked for in the window.
const PROBE: usize = 8;
/// No name, no time, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Blocks that wait to be sent, beside those in work.
const AHEAD: usize = 2;

/// Shared by all layers, so that they take no more memory than one.
#[derive(Clone)]
pub(super) struct Gzip {
    cores: usize,
    blocks: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Worker>>>,
}

/// What a block is made with, to be used for others.
struct Worker {
    deflate: Compress,
    content: Vec<u8>,
    compressed: Vec<u8>,
}

struct Block {
    compressed: Vec<u8>,
    crc: Crc,
}

impl Gzip {
    pub(super) fn new() -> Self {
        let cores = machine::cores();
        Self {
            cores,
            blocks: Arc::new(Semaphore::new(cores + AHEAD)),
            idle: Arc::default(),
        }
    }

    /// The same bytes each time. `reached` is told how far into the layer they come.
    pub(super) fn stream(&self, layer: Arc<dyn Layer>, reached: impl Fn(u64) + Send + 'static) -> ByteStream {
        let gzip = self.clone();
        let size = layer.size();
        let compressed = stream::iter((0..size.max(1)).step_by(BLOCK)).map(move |start| {
            let (gzip, layer) = (gzip.clone(), Arc::clone(&layer));
            async move {
                let place = Arc::clone(&gzip.blocks).acquire_owned().await?;
                let block = spawn_blocking(move || gzip.block(layer.as_ref(), start)).await??;
                Ok((block, start, place))
            }
        });
        let mut crc = Crc::new();
        let sent = compressed.buffered(self.cores).map_ok(move |(block, start, _place)| {
            let Block {
                mut compressed,
                crc: of_block,
            } = block;
            crc.combine(&of_block);
            let end = start + BLOCK as u64;
            if end >= size {
                compressed.extend(crc.sum().to_le_bytes());
                compressed.extend(crc.amount().to_le_bytes());
            }
            reached(end);
            Bytes::from(compressed)
        });
        Box::pin(stream::once(async { Ok(Bytes::from_static(&HEADER)) }).chain(sent))
    }

    fn block(&self, layer: &dyn Layer, start: u64) -> io::Result<Block> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worker = idle().pop().unwrap_or_else(Worker::new);
        let block = worker.block(layer, start);
        idle().push(worker);
        block
    }
}

impl Worker {
    fn new() -> Self {
        Self {
            deflate: Compress::new(LEVEL, false),
            content: vec![0; BLOCK],
            // what cannot be compressed gets a few bytes longer
            compressed: Vec::with_capacity(BLOCK + BLOCK / 8),
        }
    }

    fn block(&mut self, layer: &dyn Layer, start: u64) -> io::Result<Block> {
        let rest = layer.size() - start;
        let length = usize::try_from(rest).map_or(BLOCK, |rest| rest.min(BLOCK));
        layer.read_block(start, &mut self.content[..length])?;
        let content = &self.content[..length];
        let is_last = rest <= BLOCK as u64;
        let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
        squeeze(&mut self.deflate, content, flush, &mut self.compressed)?;
        let mut crc = Crc::new();
        crc.update(content);
        Ok(Block {
            compressed: self.compressed.clone(),
            crc,
        })
    }
}

/// Archives, pictures and models are compressed already, and would take the longest: what is dense is stored.
fn squeeze(deflate: &mut Compress, content: &[u8], flush: FlushCompress, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    let mut start = 0;
    for (is_dense, end) in runs(content) {
        let (run, flush) = (&content[start..end], if end == content.len() { flush } else { FlushCompress::Sync });
        if is_dense {
            store(run, flush, into);
        } else {
            // it knows nothing of what was stored
            deflate.reset();
            deflate.compress_vec(run, into, flush)?;
            if deflate.total_in() != run.len() as u64 || into.len() == into.capacity() {
                return Err(io::Error::other("a block gets longer than it may by compression"));
            }
        }
        start = end;
    }
    Ok(())
}

/// RFC 1951, section 3.2.4, from a byte's begin on.
fn store(content: &[u8], flush: FlushCompress, into: &mut Vec<u8>) {
    let mut parts = content.chunks(usize::from(u16::MAX)).peekable();
    while let Some(part) = parts.next() {
        let is_last = matches!(flush, FlushCompress::Finish) && parts.peek().is_none();
        let length = u16::try_from(part.len()).expect("as long as a part");
        into.push(u8::from(is_last));
        into.extend(length.to_le_bytes());
        into.extend((!length).to_le_bytes());
        into.extend(part);
    }
}

/// What is dense and what is not, with its end, in turns.
fn runs(content: &[u8]) -> Vec<(bool, usize)> {
    let pieces = content.chunks(PIECE).enumerate();
    let dense: Vec<bool> = pieces.map(|(at, piece)| is_dense(content, at * PIECE, piece)).collect();
    let mut runs: Vec<(bool, usize)> = Vec::new();
    let mut end = 0;
    for same in dense.chunk_by(|one, next| one == next) {
        end += same.len() * PIECE;
        let run = (same[0] && same.len() >= DENSE, end.min(content.len()));
        match runs.last_mut() {
            Some(last) if !last.0 && !run.0 => *last = run,
            _ => runs.push(run),
        }
    }
    if runs.is_empty() {
        runs.push((false, 0));
    }
    runs
}

/// Whether compression gains nothing: all bytes are as frequent as in noise, and nothing of it was there before.
fn is_dense(content: &[u8], start: usize, piece: &[u8]) -> bool {
    if piece.len() < PIECE {
        return false;
    }
    let mut counts = [0_u16; 256];
    for byte in piece {
        counts[usize::from(*byte)] += 1;
    }
    let squares = counts.iter().map(|count| u32::from(*count) * u32::from(*count)).sum();
    // each run that is stored has a piece that is looked for
    let is_new = || {
        let before = &content[start.saturating_sub(WINDOW)..start];
        !start.is_multiple_of(DENSE * PIECE) || memmem::find(before, &piece[..PROBE]).is_none()
    };
    NOISE.contains(&squares) && is_new()
}

#[cfg(test)]
mod tests {
    use super::super::archive::Spooled;
    use super::*;
    use std::io::{Read as _, Write as _};

    async fn through(content: &[u8]) -> (Vec<u8>, Vec<u64>) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        let layer = Arc::new(Spooled {
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
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK + 5] {
            let mut content: Vec<u8> = (0..size).map(|at| u8::try_from(at * at % 251).expect("a byte")).collect();
            // one block that cannot be compressed
            let end = size.min(BLOCK);
            getrandom::fill(&mut content[..end]).expect("random bytes");
            let (compressed, reached) = through(&content).await;
            let mut back = Vec::new();
            let mut reader = flate2::bufread::GzDecoder::new(compressed.as_slice());
            reader.read_to_end(&mut back).expect("gzip");
            assert!(back == content, "{size} bytes");
            assert!(reader.into_inner().is_empty(), "it is one member");
            assert!(reached.is_sorted() && reached.last() >= Some(&(size as u64)), "{reached:?}");
            assert!(compressed == through(&content).await.0, "{size} bytes");
            let most = end + (size - end) / 8 + 100;
            assert!(compressed.len() < most, "{size} bytes become {}, not {most}", compressed.len());
        }
    }

    #[tokio::test]
    async fn what_is_dense_is_stored_wherever_it_begins() {
        let mut content = vec![b'h'; PIECE];
        for part in 0_u8..100 {
            let mut noise = vec![0; 4096];
            getrandom::fill(&mut noise).expect("random bytes");
            content.extend(noise);
            content.extend([b'a' + part % 26; 4096]);
        }
        let (dense, whole) = runs(&content[..BLOCK]).iter().fold((0, 0), |(dense, start), (is_dense, end)| {
            (dense + if *is_dense { end - start } else { 0 }, *end)
        });
        assert!(whole == BLOCK && dense.abs_diff(BLOCK / 2) < BLOCK / 16, "{dense} of {whole}");
        let (compressed, _) = through(&content).await;
        let mut back = Vec::new();
        let mut reader = flate2::bufread::GzDecoder::new(compressed.as_slice());
        reader.read_to_end(&mut back).expect("gzip");
        assert!(back == content);
        assert!(compressed.len() < 100 * 4096 * 11 / 10, "{}", compressed.len());
        // noise that was there before can be left out
        let again = [&content[PIECE..PIECE + 4096]; 32].concat();
        assert!(through(&again).await.0.len() < again.len() / 2);
    }
}
