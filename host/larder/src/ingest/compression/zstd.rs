//! zstd: frames one after the other (RFC 8878).
//!
//! A decoder holds a window of what it has decoded, as large as the frame says. Windows of up to 8 MiB are what every
//! decoder should support, and each layer may have one. Larger ones, up to 128 MiB, are for one reader of the process at
//! a time: the others wait. Still larger ones are refused, as `zstd` itself refuses them unless it is told otherwise.

use std::io::{self, BufRead, Read};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, TryLockError};

use ::zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::damaged;
use crate::artifacts::lease;
use crate::ingest::error::IngestProblem;

/// The largest window that any number of readers have at once (RFC 8878, section 3.1.1.1.2).
const COMMON_WINDOW: u64 = 8 << 20;

/// The largest window, and its logarithm.
const MAX_WINDOW: u64 = 1 << MAX_WINDOW_LOG;
const MAX_WINDOW_LOG: u32 = 27;

/// The longest header of a frame (RFC 8878, section 3.1.1.1).
const HEADER: usize = 18;

/// The right to have a window above [`COMMON_WINDOW`].
static LARGE_WINDOW: Mutex<()> = Mutex::new(());

/// A reader of the content of all frames.
pub(super) struct ZstdReader<'a, R> {
    input: R,
    context: DCtx<'static>,
    /// The bytes of the input that were read to look at a header.
    head: Vec<u8>,
    is_within_frame: bool,
    large_window: Option<MutexGuard<'static, ()>>,
    cancelled: &'a AtomicBool,
}

impl<'a, R: BufRead> ZstdReader<'a, R> {
    pub(super) fn new(input: R, cancelled: &'a AtomicBool) -> Result<Self, IngestProblem> {
        let mut context = DCtx::create();
        context
            .set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))
            .map_err(of_zstd)
            .map_err(IngestProblem::reading)?;
        let head = Vec::with_capacity(HEADER);
        Ok(Self { input, context, head, is_within_frame: false, large_window: None, cancelled })
    }

    /// Begins the next frame. Returns whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while self.head.len() < HEADER {
            let bytes = self.input.fill_buf()?;
            let count = bytes.len().min(HEADER - self.head.len());
            if count == 0 {
                break;
            }
            self.head.extend_from_slice(&bytes[..count]);
            self.input.consume(count);
        }
        let window = window(&self.head).unwrap_or_default();
        if window > MAX_WINDOW {
            return Err(IngestProblem::Window { window, limit: MAX_WINDOW }.into_io());
        }
        if window > COMMON_WINDOW && self.large_window.is_none() {
            let right = lease::wait(self.cancelled, || match LARGE_WINDOW.try_lock() {
                Ok(right) => Ok(Some(right)),
                Err(TryLockError::Poisoned(right)) => Ok(Some(right.into_inner())),
                Err(TryLockError::WouldBlock) => Ok(None),
            });
            self.large_window = Some(right.map_err(|_| IngestProblem::Cancelled.into_io())?);
        }
        self.is_within_frame = !self.head.is_empty();
        Ok(self.is_within_frame)
    }
}

impl<R: BufRead> Read for ZstdReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let mut output = OutBuffer::around(into);
        while output.pos() == 0 {
            if !self.is_within_frame && !self.begin()? {
                break;
            }
            let from_head = !self.head.is_empty();
            let bytes = if from_head { &self.head } else { self.input.fill_buf()? };
            let is_end = bytes.is_empty();
            let mut input = InBuffer::around(bytes);
            let wanted = self.context.decompress_stream(&mut output, &mut input).map_err(of_zstd)?;
            let used = input.pos();
            if from_head {
                self.head.drain(..used);
            } else {
                self.input.consume(used);
            }
            self.is_within_frame = wanted > 0;
            if is_end && wanted > 0 && output.pos() == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(output.pos())
    }
}

fn of_zstd(code: usize) -> io::Error {
    damaged(get_error_name(code))
}

/// Returns the window of a frame in bytes, or `None` if this is not the header of one that has a window.
fn window(header: &[u8]) -> Option<u64> {
    let (magic, rest) = header.split_first_chunk()?;
    if u32::from_le_bytes(*magic) != 0xfd2f_b528 {
        return None;
    }
    let (&descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // A frame in one segment is its own window.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..length].copy_from_slice(rest.get(dictionary..dictionary + length)?);
    Some(u64::from_le_bytes(size).saturating_add(if length == 2 { 256 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use ::zstd::stream::write::Encoder;

    use super::*;

    fn packed(content: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(window_log).expect("a window");
        encoder.write_all(content).expect("compressed");
        encoder.finish().expect("a frame")
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        let cancelled = AtomicBool::new(false);
        // In small pieces, so that the ends of frames are anywhere in them.
        let input = io::BufReader::with_capacity(7, bytes);
        let mut reader = ZstdReader::new(input, &cancelled).expect("a reader");
        reader.read_to_end(&mut content).map(|_| content).map_err(|error| error.to_string())
    }

    /// The window of a frame is what its header says, also where the content is the window.
    #[test]
    fn windows() {
        for log in [10, 20, 23, 27] {
            assert_eq!(window(&packed(b"content", log)), Some(1 << log));
        }
        let whole = ::zstd::bulk::compress(&[7; 1000], 1).expect("a frame");
        assert_eq!(window(&whole), Some(1000));
        assert_eq!(window(&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), None);
        assert_eq!(window(&[]), None);
    }

    /// Frames are read as one, and those to be skipped are skipped.
    #[test]
    fn frames() {
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames =
            [&skipped[..], &packed(b"one ", 10), &packed(b"", 10), &skipped, &packed(&[b'2'; 100_000], 20)];
        let content = read(&frames.concat()).expect("content");
        assert_eq!(content, [&b"one "[..], &[b'2'; 100_000]].concat());
        let whole = packed(&[b'x'; 5000], 20);
        let cut = read(&whole[..whole.len() - 1]).expect_err("cut off");
        assert!(!cut.contains("damaged"), "{cut}");
        let error = read(&[&whole[..], b"junk"].concat()).expect_err("junk");
        assert!(error.starts_with("its compressed data is damaged: "), "{error}");
    }

    /// A window that would take too much memory is refused and named.
    #[test]
    fn too_large_a_window() {
        let mut frame = packed(b"content", 20);
        frame[5] = (28 - 10) << 3;
        assert_eq!(
            read(&frame).expect_err("refused"),
            "its zstd window has 256 MiB, and at most 128 MiB are used: compress it without `--long`, or with `--long=27`"
        );
    }

    /// A large window waits for another one, and waiting ends if it is cancelled.
    #[test]
    fn one_large_window_at_a_time() {
        let bytes = packed(b"content", 24);
        let cancelled = AtomicBool::new(false);
        let mut first = ZstdReader::new(bytes.as_slice(), &cancelled).expect("a reader");
        assert_eq!(first.read(&mut [0; 3]).expect("content"), 3);
        let given_up = AtomicBool::new(true);
        let mut second = ZstdReader::new(bytes.as_slice(), &given_up).expect("a reader");
        assert!(second.read(&mut [0; 3]).is_err_and(|error| error.to_string() == "it was given up"));
        drop(first);
        assert_eq!(second.read(&mut [0; 3]).expect("content"), 3);
        assert_eq!(read(&packed(b"small", 20)).expect("content"), b"small");
    }
}
