//! Compressing on several threads.
//!
//! The content is cut into blocks, and each is compressed by itself. The bytes depend on content and level alone, and not on the
//! number of threads. An archive is larger by a percent or two than one that is compressed as a whole.
//!
//! - **gzip**: a block ends at a byte, with a marker (RFC 1951, 3.2.4: a stored block without bytes). One after the other they are
//!   one deflate stream, in one gzip member, which every reader reads.
//! - **zstd**: a block is a frame (RFC 8878, 3.1). One after the other they are one content.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::compression::{GzipLevel, ZstdLevel};

/// The number of bytes in a block of gzip, which looks back for 32 KiB.
const GZIP_BLOCK: usize = 1 << 20;

/// The number of bytes in a block of zstd, which looks back for as much as its level wants: 2 MiB with the usual one.
const ZSTD_BLOCK: usize = 4 << 20;

/// The maximum number of threads. Each has up to two blocks.
const MAX_THREADS: usize = 8;

/// A header without a name and a time (RFC 1952, 2.3): the same content gives the same bytes.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The last block of a deflate stream, without bytes.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip(GzipLevel),
    Zstd(ZstdLevel),
}

impl Codec {
    fn block(self) -> usize {
        match self {
            Self::Gzip(_) => GZIP_BLOCK,
            Self::Zstd(_) => ZSTD_BLOCK,
        }
    }

    fn compress(self, block: &[u8]) -> io::Result<Compressed> {
        match self {
            Self::Gzip(level) => deflate(block, level),
            Self::Zstd(level) => {
                let bytes = zstd::bulk::compress(block, level.get() as i32)?;
                Ok(Compressed { bytes, crc: Crc::new() })
            }
        }
    }
}

/// Threads that compress blocks. Dropping them ends them.
pub(super) struct Compressors {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    block: Vec<u8>,
    codec: Codec,
    done: SyncSender<io::Result<Compressed>>,
}

struct Compressed {
    bytes: Vec<u8>,
    /// The checksum of the content, for gzip.
    crc: Crc,
}

impl Compressors {
    /// Starts as many threads as there are processors.
    pub(super) fn start() -> io::Result<Self> {
        Self::with_threads(thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS))
    }

    fn with_threads(count: usize) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let mut compressors = Self { jobs: Some(jobs), threads: Vec::new() };
        let queue: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(queue));
        for _ in 0..count {
            let queue = Arc::clone(&queue);
            let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
            let work = move || {
                while let Some(Job { block, codec, done }) = next() {
                    // A writer that was dropped takes nothing.
                    let _ = done.send(codec.compress(&block));
                }
            };
            compressors.threads.push(thread::Builder::new().name("compress".to_owned()).spawn(work)?);
        }
        Ok(compressors)
    }

    fn submit(&self, block: Vec<u8>, codec: Codec) -> Receiver<io::Result<Compressed>> {
        let (done, result) = sync_channel(1);
        // Without threads, the receiver says so.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(Job { block, codec, done }));
        result
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // What a thread panicked with, its receiver has seen.
            let _ = thread.join();
        }
    }
}

fn deflate(block: &[u8], level: GzipLevel) -> io::Result<Compressed> {
    let mut crc = Crc::new();
    crc.update(block);
    let mut deflate = Compress::new(Compression::new(level.get()), false);
    // A few bytes more for each part that cannot be compressed.
    let mut bytes = Vec::with_capacity(block.len() + block.len() / 256 + 64);
    loop {
        let rest = block.get(deflate.total_in() as usize..).unwrap_or_default();
        deflate.compress_vec(rest, &mut bytes, FlushCompress::Sync)?;
        // The marker is written when there is room left behind it.
        if deflate.total_in() == block.len() as u64 && bytes.len() < bytes.capacity() {
            return Ok(Compressed { bytes, crc });
        }
        bytes.reserve(GZIP_BLOCK / 16);
    }
}

/// A writer that compresses what is written.
pub(super) struct Blocks<'a, W> {
    inner: W,
    codec: Codec,
    compressors: &'a Compressors,
    block: Vec<u8>,
    /// The blocks in progress, in their order.
    pending: VecDeque<Receiver<io::Result<Compressed>>>,
    crc: Crc,
}

impl<'a, W: Write> Blocks<'a, W> {
    pub(super) fn new(mut inner: W, codec: Codec, compressors: &'a Compressors) -> io::Result<Self> {
        if matches!(codec, Codec::Gzip(_)) {
            inner.write_all(&HEADER)?;
        }
        let (block, pending, crc) = (Vec::with_capacity(codec.block()), VecDeque::new(), Crc::new());
        Ok(Self { inner, codec, compressors, block, pending, crc })
    }

    /// Writes the rest, and returns the inner writer.
    pub(super) fn finish(mut self) -> io::Result<W> {
        // A content without a frame would be none.
        if !self.block.is_empty() || matches!(self.codec, Codec::Zstd(_)) {
            self.submit();
        }
        while !self.pending.is_empty() {
            self.take()?;
        }
        if matches!(self.codec, Codec::Gzip(_)) {
            self.inner.write_all(&LAST_BLOCK)?;
            self.inner.write_all(&self.crc.sum().to_le_bytes())?;
            // Modulo 2³², as the format has it.
            self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        }
        Ok(self.inner)
    }

    fn submit(&mut self) {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(self.codec.block()));
        self.pending.push_back(self.compressors.submit(block, self.codec));
    }

    /// Waits for the oldest block, and writes it.
    fn take(&mut self) -> io::Result<()> {
        let Some(oldest) = self.pending.pop_front() else { return Ok(()) };
        let ended = |_| io::Error::other("a thread that compresses has ended");
        let Compressed { bytes, crc } = oldest.recv().map_err(ended)??;
        self.crc.combine(&crc);
        self.inner.write_all(&bytes)
    }
}

impl<W: Write> Write for Blocks<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.codec.block();
        let count = bytes.len().min(size - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == size {
            self.submit();
            if self.pending.len() >= 2 * self.compressors.threads.len() {
                self.take()?;
            }
        }
        Ok(count)
    }

    /// Does nothing: a flush would make the bytes depend on when it was asked for.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    const CODECS: [Codec; 2] = [Codec::Gzip(GzipLevel::DEFAULT), Codec::Zstd(ZstdLevel::DEFAULT)];

    fn compress(codec: Codec, content: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let compressors = Compressors::with_threads(threads).expect("threads");
        let mut blocks = Blocks::new(Vec::new(), codec, &compressors).expect("a header");
        for piece in content.chunks(piece) {
            blocks.write_all(piece).expect("written");
        }
        blocks.finish().expect("the end")
    }

    /// Bytes that look random, or not.
    fn content(length: usize, mask: u32) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24 & mask) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// What was written is read back, whatever its length, and if it cannot be compressed. With gzip it is one member.
    #[test]
    fn it_is_read_back() {
        for codec in CODECS {
            let block = codec.block();
            for mask in [0, 0x0f, 0xff] {
                for length in [0, 1, block - 1, block, block + 1, 2 * block + 12_345] {
                    let content = content(length, mask);
                    let written = compress(codec, &content, 2, 100_000);
                    let mut read = Vec::new();
                    let done = match codec {
                        // A reader of one member, which ends with it.
                        Codec::Gzip(_) => GzDecoder::new(written.as_slice()).read_to_end(&mut read),
                        Codec::Zstd(_) => {
                            zstd::stream::copy_decode(written.as_slice(), &mut read).map(|()| 0)
                        }
                    };
                    done.expect("it is whole");
                    assert!(read == content, "{codec:?}: {length} bytes of {mask:x}");
                    assert!(
                        written.len() < length + length / 256 + 64,
                        "{codec:?}: {} of {length}",
                        written.len()
                    );
                }
            }
        }
    }

    /// The bytes are the same with any number of threads, and however the content is cut.
    #[test]
    fn the_bytes_depend_on_the_content_alone() {
        for codec in CODECS {
            let content = content(3 * codec.block() + 1, 0x3f);
            let expected = compress(codec, &content, 1, usize::MAX);
            for (threads, piece) in [(1, 4096), (2, usize::MAX), (3, 7_777), (16, 1 << 20)] {
                assert!(
                    compress(codec, &content, threads, piece) == expected,
                    "{codec:?}: {threads} threads, {piece}"
                );
            }
        }
    }

    /// What is cut into blocks is hardly larger than what is compressed as a whole.
    #[test]
    fn blocks_cost_little() {
        let content = content(8 << 20, 0x0f);
        let mut whole = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        whole.write_all(&content).expect("written");
        let whole = whole.finish().expect("gzip").len();
        assert!(compress(CODECS[0], &content, 2, 1 << 20).len() * 100 < whole * 101);
        let whole = zstd::bulk::compress(&content, 3).expect("zstd").len();
        assert!(compress(CODECS[1], &content, 2, 1 << 20).len() * 100 < whole * 101);
    }
}
