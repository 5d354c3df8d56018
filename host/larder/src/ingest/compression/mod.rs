//! Detection of compression by the first bytes, since media types are wrong more often than bytes.

mod gzip;
mod zstd;

use std::io::{self, BufRead, Read};
use std::sync::atomic::AtomicBool;

use super::error::IngestProblem;
use gzip::GzipReader;
use zstd::ZstdReader;

/// The number of first bytes that show the compression.
pub(crate) const HEAD: u64 = 10;

/// The compression of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    /// One that is known by this name, and not read.
    Foreign(&'static str),
}

impl Compression {
    /// Detects the compression by the first bytes.
    pub(crate) fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame to be skipped: `pzstd` begins with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', ..] => Self::Foreign("xz"),
            // The first file of an archive may be named like the first half.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Self::Foreign("bzip2"),
            _ => Self::None,
        }
    }

    /// Detects the compression of what a reader has, and returns a reader of all of it.
    pub(crate) fn of<R: Read>(mut source: R) -> io::Result<(Self, impl Read + use<R>)> {
        let mut head = Vec::new();
        (&mut source).take(HEAD).read_to_end(&mut head)?;
        Ok((Self::detect(&head), io::Cursor::new(head).chain(source)))
    }

    /// Returns a reader of the decompressed bytes. Consecutive members and frames are read as one. Waiting for memory ends
    /// if it is `cancelled`.
    ///
    /// # Errors
    /// Fails if the compression is not read.
    pub(crate) fn reader<'a>(
        self,
        input: impl BufRead + 'a,
        cancelled: &'a AtomicBool,
    ) -> Result<Box<dyn Read + 'a>, IngestProblem> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(GzipReader::new(input)),
            Self::Zstd => Box::new(ZstdReader::new(input, cancelled)?),
            Self::Foreign(name) => return Err(IngestProblem::Compression(name)),
        })
    }
}

/// Returns the error for compressed data that is damaged.
fn damaged(why: impl std::fmt::Display) -> io::Error {
    IngestProblem::Entry(format!("its compressed data is damaged: {why}")).into_io()
}
