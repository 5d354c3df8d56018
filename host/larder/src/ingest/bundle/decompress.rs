//! Archives that are compressed as a whole.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::BUFFER;
use crate::artifacts::plain::without_temporary_name;
use crate::ingest::account::check_limit;
use crate::ingest::compression::{self, Compression};
use crate::ingest::error::IngestProblem;
use crate::ingest::limits::{IngestLimits, LimitKey};

/// Returns whether the content of a file is compressed.
pub(super) fn is_compressed(file: &File) -> Result<bool, IngestProblem> {
    let mut head = [0; compression::HEAD as usize];
    let length = file.read_at(&mut head, 0).map_err(IngestProblem::Read)?;
    Ok(Compression::detect(&head[..length]) != Compression::None)
}

/// A reader that counts what it reads.
struct Counted<'a, R> {
    source: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Decompresses an archive to a file without a name, which has holes where the archive has zeros. The limits are those of
/// a layer's bytes: a small archive does not become a large file.
pub(super) fn decompress(
    archive: impl Read,
    temporary: &Path,
    limits: &IngestLimits,
    cancelled: &AtomicBool,
) -> Result<File, IngestProblem> {
    let stored = Cell::new(0);
    let (compression, archive) = Compression::of(archive).map_err(IngestProblem::reading)?;
    let archive = BufReader::with_capacity(BUFFER, Counted { source: archive, count: &stored });
    let mut reader = compression.reader(archive, cancelled)?;
    let mut file =
        tempfile::tempfile_in(temporary).map_err(without_temporary_name).map_err(IngestProblem::writing)?;
    let mut buffer = vec![0; BUFFER];
    let (mut bytes, mut written) = (0, 0);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => {
                file.set_len(bytes).map_err(IngestProblem::writing)?;
                return Ok(file);
            }
            Ok(count) => {
                let piece = &buffer[..count];
                bytes += count as u64;
                let has_data = piece.iter().any(|&byte| byte != 0);
                let output = if has_data {
                    written += count as u64;
                    file.write_all(piece)
                } else {
                    file.seek_relative(count as i64)
                };
                output.map_err(IngestProblem::writing)?;
                check_limit(bytes, limits, LimitKey::ArchiveBytes)?;
                let beyond = |bytes| limits.beyond_ratio(bytes, stored.get());
                check_limit(beyond(bytes), limits, LimitKey::RatioFromZeros)?;
                check_limit(beyond(written), limits, LimitKey::RatioFromBytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(IngestProblem::reading(error)),
        }
    }
}
