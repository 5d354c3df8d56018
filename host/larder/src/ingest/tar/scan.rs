//! Finding the entries of an archive in a file, without reading their data.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::field::BLOCK;
use super::{TarEntry, TarStream};
use crate::ingest::error::IngestProblem;

/// The number of bytes that are read at once if data is skipped.
const SCANNED: usize = 4 * BLOCK;

/// A file with a position that can be moved.
struct Scanned<'f> {
    file: &'f File,
    position: u64,
    length: u64,
}

impl Read for Scanned<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// Calls `found` with every entry of an archive in a file, and the position of its data. Does not read the data.
pub(crate) fn scan(
    file: &File,
    mut found: impl FnMut(TarEntry, u64) -> Result<(), IngestProblem>,
) -> Result<(), IngestProblem> {
    let length = file.metadata().map_err(IngestProblem::reading)?.len();
    let mut stream = TarStream::with_buffer(Scanned { file, position: 0, length }, SCANNED);
    while let Some(entry) = stream.next_entry()? {
        let data = stream.source.position - (stream.end - stream.start) as u64;
        stream.jump()?;
        found(entry, data)?;
    }
    Ok(())
}

impl TarStream<Scanned<'_>> {
    /// Skips the data of the last entry without reading it.
    fn jump(&mut self) -> Result<(), IngestProblem> {
        let left = std::mem::take(&mut self.data_left);
        let buffered = left.min((self.end - self.start) as u64);
        self.start += buffered as usize;
        let end = self.source.position.checked_add(left - buffered);
        self.source.position =
            end.filter(|&end| end <= self.source.length).ok_or(IngestProblem::Truncated)?;
        Ok(())
    }
}
