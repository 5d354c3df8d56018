//! Compressing with gzip on several threads.
//!
//! The content is cut into blocks, and each is compressed by itself and ends at a byte, with a marker (RFC 1951, 3.2.4:
//! a stored block without bytes). One after the other they are one deflate stream, in one gzip member, which every
//! reader reads. The bytes depend on content and level alone, and not on the number of threads. An archive is larger by
//! less than one percent than one that is compressed as a whole.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::compression::GzipLevel;

/// The number of bytes in a block.
const BLOCK: usize = 1 << 20;

/// The maximum number of threads. Each has up to two blocks.
const MAX_THREADS: usize = 8;

/// A header without a name and a time (RFC 1952, 2.3): the same content gives the same bytes.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The last block of a deflate stream, without bytes.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Threads that compress blocks. Dropping them ends them.
pub(super) struct Compressors {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    block: Vec<u8>,
    level: GzipLevel,
    done: SyncSender<io::Result<Compressed>>,
}

struct Compressed {
    bytes: Vec<u8>,
    /// The checksum of the content.
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
                while let Some(Job { block, level, done }) = next() {
                    // A writer that was dropped takes nothing.
                    let _ = done.send(compress(&block, level));
                }
            };
            compressors.threads.push(thread::Builder::new().name("compress".to_owned()).spawn(work)?);
        }
        Ok(compressors)
    }

    fn submit(&self, block: Vec<u8>, level: GzipLevel) -> Receiver<io::Result<Compressed>> {
        let (done, result) = sync_channel(1);
        // Without threads, the receiver says so.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(Job { block, level, done }));
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

fn compress(block: &[u8], level: GzipLevel) -> io::Result<Compressed> {
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
        bytes.reserve(BLOCK / 16);
    }
}

/// A writer that compresses what is written.
pub(super) struct Gzip<'a, W> {
    inner: W,
    level: GzipLevel,
    compressors: &'a Compressors,
    block: Vec<u8>,
    /// The blocks in progress, in their order.
    pending: VecDeque<Receiver<io::Result<Compressed>>>,
    crc: Crc,
}

impl<'a, W: Write> Gzip<'a, W> {
    pub(super) fn new(mut inner: W, level: GzipLevel, compressors: &'a Compressors) -> io::Result<Self> {
        inner.write_all(&HEADER)?;
        let (block, pending, crc) = (Vec::with_capacity(BLOCK), VecDeque::new(), Crc::new());
        Ok(Self { inner, level, compressors, block, pending, crc })
    }

    /// Writes the rest, and returns the inner writer.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.submit();
        }
        while !self.pending.is_empty() {
            self.take()?;
        }
        self.inner.write_all(&LAST_BLOCK)?;
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        // Modulo 2³², as the format has it.
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.inner)
    }

    fn submit(&mut self) {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.pending.push_back(self.compressors.submit(block, self.level));
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

impl<W: Write> Write for Gzip<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
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

    fn gzip(content: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let compressors = Compressors::with_threads(threads).expect("threads");
        let mut gzip = Gzip::new(Vec::new(), GzipLevel::DEFAULT, &compressors).expect("a header");
        for piece in content.chunks(piece) {
            gzip.write_all(piece).expect("written");
        }
        gzip.finish().expect("the end")
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

    /// One member is read back as what was written, whatever its length, and if it cannot be compressed.
    #[test]
    fn it_is_read_back() {
        for mask in [0, 0x0f, 0xff] {
            for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 12_345] {
                let content = content(length, mask);
                let written = gzip(&content, 2, 100_000);
                let mut read = Vec::new();
                // A reader of one member, which ends with it.
                GzDecoder::new(written.as_slice()).read_to_end(&mut read).expect("gzip");
                assert!(read == content, "{length} bytes of {mask:x}");
                assert!(written.len() < length + length / 256 + 64, "{} of {length}", written.len());
            }
        }
    }

    /// The bytes are the same with any number of threads, and however the content is cut.
    #[test]
    fn the_bytes_depend_on_the_content_alone() {
        let content = content(5 * BLOCK + 1, 0x3f);
        let expected = gzip(&content, 1, usize::MAX);
        for (threads, piece) in [(1, 4096), (2, usize::MAX), (3, 7_777), (16, BLOCK)] {
            assert!(gzip(&content, threads, piece) == expected, "{threads} threads, {piece}");
        }
    }

    /// What is cut into blocks is hardly larger than what is compressed as a whole.
    #[test]
    fn blocks_cost_little() {
        let content = content(8 * BLOCK, 0x0f);
        let mut whole = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        whole.write_all(&content).expect("written");
        let whole = whole.finish().expect("gzip").len();
        assert!(gzip(&content, 2, BLOCK).len() * 100 < whole * 101);
    }
}
