//! The ends of a conversion: the blob as it is stored, its content, and the file of the image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::hash::Hasher;
use crate::ingest::account::Account;
use crate::ingest::error::IngestProblem;
use crate::ingest::progress::Meter;

/// A reader of the blob as it is stored, which hashes and counts the bytes.
pub(super) struct StoredReader<'a, R> {
    pub(super) source: R,
    pub(super) hasher: Option<Hasher>,
    pub(super) meter: &'a Meter,
}

impl<R: Read> Read for StoredReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&into[..count]);
        }
        self.meter.add(count as u64);
        Ok(count)
    }
}

/// A reader of the decompressed blob, which hashes the bytes and enforces the limits.
pub(super) struct ContentReader<'a> {
    pub(super) source: Box<dyn Read + 'a>,
    pub(super) hasher: Hasher,
    pub(super) account: &'a Account<'a>,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        self.hasher.update(&into[..count]);
        self.account.has(count as u64).map_err(IngestProblem::into_io)?;
        Ok(count)
    }
}

/// The file of an image, which counts what is written to the disk and not what is left out as holes.
pub(super) struct ImageFile<'a> {
    pub(super) file: File,
    pub(super) account: &'a Account<'a>,
}

impl Write for ImageFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.account.writes(count as u64).map_err(IngestProblem::into_io)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for ImageFile<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
