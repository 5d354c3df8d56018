//! Tar archives as streams: entry by entry, in bounded memory.
//!
//! ```text
//! entry     an entry without its data
//! header    the fields of one block
//! pax       the records of an extended header
//! sparse    the maps of files with holes, in each of their four formats
//! scan      the entries of an archive in a file, without reading their data
//! ```
//!
//! The formats are those of POSIX (ustar, pax), GNU and star, and what came before them. Where they leave a choice, the
//! answer is that of Go's `archive/tar`, which most images are made and read with: of several extended headers before
//! an entry the last counts, an empty value in one means that the header's own counts, a long name ends at its first NUL,
//! and numbers may be binary and below zero. An extended header whose records do not fill it is refused.
//!
//! An archive may end behind the data of its last entry: the padding and the two blocks of zeros behind it may be missing
//! or cut off, since some tools forget to write them. A single block of zeros between entries is skipped.

mod entry;
mod field;
mod header;
mod pax;
mod scan;
mod sparse;

use std::io::{self, Read};

pub(crate) use entry::{TarEntry, TarKind};
use field::{BLOCK, Block};
use header::Header;
use pax::Pax;
pub(crate) use scan::scan;
use sparse::Region;
pub(crate) use sparse::SparseReader;

use super::error::IngestProblem;

/// The number of bytes that are read from the source at once.
const CHUNK: usize = 128 << 10;

/// The maximum number of bytes before the data of an entry: long names, extended headers, and the map of a sparse file.
const MAX_HEADERS: u64 = 8 << 20;

/// The records of the headers before an entry, which are about it.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Pax,
    bytes: u64,
}

/// An archive that is read from beginning to end.
pub(crate) struct TarStream<R> {
    source: R,
    buffer: Vec<u8>,
    /// The beginning of the part of the buffer that was read and not used yet.
    start: usize,
    end: usize,
    /// The remaining bytes of the entry's data.
    data_left: u64,
    padding_left: usize,
}

impl<R: Read> TarStream<R> {
    pub(crate) fn new(source: R) -> Self {
        Self::with_buffer(source, CHUNK)
    }

    fn with_buffer(source: R, bytes: usize) -> Self {
        Self { source, buffer: vec![0; bytes], start: 0, end: 0, data_left: 0, padding_left: 0 }
    }

    /// Returns the next entry. Skips the unread data of the last one.
    pub(crate) fn next_entry(&mut self) -> Result<Option<TarEntry>, IngestProblem> {
        io::copy(&mut self.data(), &mut io::sink()).map_err(IngestProblem::reading)?;
        self.skip_padding()?;
        let (mut before, mut global) = (Extensions::default(), 0);
        while let Some(block) = self.header_block()? {
            let header = Header::new(&block)?;
            match header.kind() {
                b'L' if header.has_extensions() => {
                    before.long_name = Some(self.text(&header, &mut before.bytes)?)
                }
                b'K' if header.has_extensions() => {
                    before.long_link = Some(self.text(&header, &mut before.bytes)?)
                }
                b'x' if header.has_extensions() => {
                    before.pax = Pax::parse(&self.extension(&header, &mut before.bytes)?)?;
                }
                // What holds for all entries that follow: comments, as far as images have it.
                b'g' => drop(self.extension(&header, &mut global)?),
                _ => return self.entry(&header, before).map(Some),
            }
        }
        if before.bytes > 0 { Err(IngestProblem::Truncated) } else { Ok(None) }
    }

    /// Returns the data of the last entry.
    pub(crate) fn data(&mut self) -> TarData<'_, R> {
        TarData(self)
    }

    /// Makes an entry of its header and those before it.
    fn entry(&mut self, header: &Header<'_>, before: Extensions) -> Result<TarEntry, IngestProblem> {
        let Extensions { long_name, long_link, mut pax, mut bytes } = before;
        let path = pax.path.take().or(long_name).unwrap_or_else(|| header.path());
        let link = pax.link_path.take().or(long_link).unwrap_or_else(|| header.link_name());
        let kind = match header.kind() {
            // Tar before POSIX has no type for directories.
            0 if path.ends_with(b"/") => TarKind::Directory,
            b'0' | 0 | b'7' | b'S' => TarKind::File,
            b'1' => TarKind::HardLink(link),
            b'2' => TarKind::Symlink(link),
            b'3' => TarKind::CharDevice(header.device_major()?, header.device_minor()?),
            b'4' => TarKind::BlockDevice(header.device_major()?, header.device_minor()?),
            b'5' => TarKind::Directory,
            b'6' => TarKind::Fifo,
            other => TarKind::Other(other),
        };
        // What has no data is not believed to have some. A file may have, whatever its name makes of it: its data is not the next
        // header.
        let stored = match (&kind, header.kind()) {
            (TarKind::File | TarKind::Other(_), _) | (_, 0) => pax.size.map_or_else(|| header.size(), Ok)?,
            _ => 0,
        };
        self.data_left = stored;
        self.padding_left = padding(stored);
        let sparse = match kind {
            TarKind::File => self.sparse(header, &mut pax, &mut bytes)?,
            _ => None,
        };
        Ok(TarEntry {
            path: pax.sparse.name.take().filter(|_| sparse.is_some()).unwrap_or(path),
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime().map(|seconds| (seconds, 0)), Ok)?,
            xattrs: pax.xattrs,
            stored: self.data_left,
            sparse,
        })
    }

    /// Returns the size and the map of a file with holes. A map before the data is read off it.
    fn sparse(
        &mut self,
        header: &Header<'_>,
        pax: &mut Pax,
        bytes: &mut u64,
    ) -> Result<Option<(u64, Vec<Region>)>, IngestProblem> {
        if header.kind() == b'S' {
            let mut regions = Vec::new();
            let mut more = header.sparse_regions(&mut regions)?;
            while more {
                take(bytes, BLOCK as u64)?;
                let block = self.block()?.ok_or(IngestProblem::Truncated)?;
                more = sparse::extend(&block, &mut regions)?;
            }
            return Ok(Some((header.real_size()?, regions)));
        }
        let Some(size) = pax.sparse.size else { return Ok(None) };
        if pax.sparse.version != Some((1, 0)) {
            return Ok(pax.sparse.regions.take().map(|regions| (size, regions)));
        }
        let mut used = 0;
        let mut line = || self.line(&mut used);
        let count = line()?;
        let mut regions = Vec::new();
        for _ in 0..count {
            sparse::push(&mut regions, Region { offset: line()?, length: line()? })?;
        }
        // The map is padded like an entry.
        let mut rest = [0; BLOCK];
        let rest = &mut rest[..padding(used)];
        self.data().read_exact(rest).map_err(IngestProblem::reading)?;
        Ok(Some((size, regions)))
    }

    /// Returns a number in a line of the entry's data.
    fn line(&mut self, used: &mut u64) -> Result<u64, IngestProblem> {
        let mut number: Option<u64> = None;
        loop {
            let mut byte = [0];
            // Otherwise each byte is a call of its own of what is below.
            self.fill(1)?;
            self.data().read_exact(&mut byte).map_err(IngestProblem::reading)?;
            *used += 1;
            let digit = match (byte[0], number) {
                (b'\n', Some(number)) => return Ok(number),
                (digit @ b'0'..=b'9', _) => u64::from(digit - b'0'),
                _ => return Err(sparse::no_map()),
            };
            let next = number.unwrap_or_default().checked_mul(10).and_then(|tens| tens.checked_add(digit));
            // Zeros at the beginning of a number could go on for ever.
            number = Some(next.filter(|_| *used <= MAX_HEADERS).ok_or_else(sparse::no_map)?);
        }
    }

    /// Returns the block of the next header, or `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<Block>, IngestProblem> {
        let mut zeros = 0;
        while zeros < 2 {
            match self.block()? {
                Some(block) if block.iter().all(|&byte| byte == 0) => zeros += 1,
                other => return Ok(other),
            }
        }
        Ok(None)
    }

    /// Returns the next block, or `None` at the end, which may be cut off within a block of zeros.
    fn block(&mut self) -> Result<Option<Block>, IngestProblem> {
        let whole = self.fill(BLOCK)?;
        let rest = &self.buffer[self.start..self.end];
        match rest.first_chunk() {
            Some(block) if whole => {
                let block = *block;
                self.start += BLOCK;
                Ok(Some(block))
            }
            _ if rest.iter().all(|&byte| byte == 0) => Ok(None),
            _ => Err(IngestProblem::Truncated),
        }
    }

    /// Returns the content of a header that describes the next entry.
    fn extension(&mut self, header: &Header<'_>, bytes: &mut u64) -> Result<Vec<u8>, IngestProblem> {
        let size = header.size()?;
        take(bytes, size.saturating_add(BLOCK as u64))?;
        let mut content = Vec::new();
        (self.data_left, self.padding_left) = (size, padding(size));
        self.data().read_to_end(&mut content).map_err(IngestProblem::reading)?;
        self.skip_padding()?;
        Ok(content)
    }

    /// Returns the content of a header up to its first NUL.
    fn text(&mut self, header: &Header<'_>, bytes: &mut u64) -> Result<Vec<u8>, IngestProblem> {
        let mut text = self.extension(header, bytes)?;
        text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
        Ok(text)
    }

    /// Reads until the buffer has this many bytes. Returns whether there were as many.
    fn fill(&mut self, bytes: usize) -> Result<bool, IngestProblem> {
        if self.end - self.start >= bytes {
            return Ok(true);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < bytes {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(IngestProblem::reading(error)),
            }
        }
        Ok(true)
    }

    fn skip_padding(&mut self) -> Result<(), IngestProblem> {
        // Less than a block, which may be missing at the end.
        let padding = std::mem::take(&mut self.padding_left);
        self.fill(padding)?;
        self.start += padding.min(self.end - self.start);
        Ok(())
    }
}

fn padding(bytes: u64) -> usize {
    (bytes.wrapping_neg() % BLOCK as u64) as usize
}

/// Counts bytes of headers before an entry.
fn take(bytes: &mut u64, more: u64) -> Result<(), IngestProblem> {
    *bytes = bytes.saturating_add(more);
    if *bytes > MAX_HEADERS {
        return Err(IngestProblem::Tar("an entry has headers without end".to_owned()));
    }
    Ok(())
}

/// The data of an entry as it is stored.
pub(crate) struct TarData<'a, R>(&'a mut TarStream<R>);

impl<R: Read> Read for TarData<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let stream = &mut *self.0;
        let wanted = usize::try_from(stream.data_left).unwrap_or(usize::MAX).min(into.len());
        if wanted == 0 {
            return Ok(0);
        }
        let buffered = &stream.buffer[stream.start..stream.end];
        let count = if buffered.is_empty() {
            stream.source.read(&mut into[..wanted])?
        } else {
            let count = wanted.min(buffered.len());
            into[..count].copy_from_slice(&buffered[..count]);
            stream.start += count;
            count
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.data_left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes an archive of blocks and contents, padded.
    fn archive(parts: &[&[u8]]) -> Vec<u8> {
        let mut archive = Vec::new();
        for part in parts {
            archive.extend_from_slice(part);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive
    }

    fn header(name: &str, kind: u8, size: usize) -> Vec<u8> {
        header::tests::block(|fields| {
            fields[..name.len()].copy_from_slice(name.as_bytes());
            fields[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
            fields[156] = kind;
        })
    }

    fn entries(archive: &[u8]) -> Result<Vec<TarEntry>, String> {
        let mut stream = TarStream::new(archive);
        let mut entries = Vec::new();
        loop {
            match stream.next_entry() {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => return Ok(entries),
                Err(problem) => return Err(problem.to_string()),
            }
        }
    }

    /// The data of a file is never the next header, whatever its name says of it: before POSIX a slash at its end made a directory.
    #[test]
    fn data_is_no_header() {
        let hidden = header("evil", b'0', 0);
        for (kind, is_dir) in [(b'0', false), (0, true)] {
            let bytes =
                archive(&[&header("a/", kind, BLOCK), &hidden, &header("b", b'0', 0), &[0; 2 * BLOCK]]);
            let entries = entries(&bytes).expect("entries");
            let names: Vec<&[u8]> = entries.iter().map(|entry| entry.path.as_slice()).collect();
            assert_eq!(names, [&b"a/"[..], b"b"]);
            assert_eq!(matches!(entries[0].kind, TarKind::Directory), is_dir);
        }
    }

    /// A long name ends at its first NUL, and of several extended headers the last one counts.
    #[test]
    fn what_precedes_an_entry() {
        let (first, second) = (b"14 path=first\n", b"13 uid=70000\n");
        let bytes = archive(&[
            &header("././@LongLink", b'L', 9),
            b"long\0\0\0ab",
            &header("a", b'x', first.len()),
            first,
            &header("a", b'x', second.len()),
            second,
            &header("short", b'0', 0),
        ]);
        let entries = entries(&bytes).expect("an entry");
        assert_eq!((entries[0].path.as_slice(), entries[0].uid), (&b"long"[..], 70_000));
    }

    /// A number of the map before the data of a file counts as data of the archive, also where an extended header has the
    /// size of both.
    #[test]
    fn a_map_before_the_data() {
        let pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.name=the-name\n\
            26 GNU.sparse.realsize=10\n12 size=516\n";
        let bytes = archive(&[
            &header("a", b'x', pax.len()),
            pax,
            &header("b", b'0', 7),
            &[&b"1\n2\n4\n"[..], &[0; 506], b"data"].concat(),
            &header("c", b'0', 0),
        ]);
        let entries = entries(&bytes).expect("entries");
        let file = &entries[0];
        assert_eq!((file.path.as_slice(), file.stored, file.hole_bytes()), (&b"the-name"[..], 4, 6));
        assert_eq!(file.sparse, Some((10, vec![Region { offset: 2, length: 4 }])));
        assert_eq!(entries[1].path, b"c");
    }

    /// A file has as many regions as a database has, in the map before its data.
    #[test]
    fn many_regions() {
        let pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.realsize=900000\n";
        let map: String = (0..20_000).map(|region| format!("{}\n1\n", 40 * region)).collect();
        let map = archive(&[format!("20000\n{map}").as_bytes()]);
        let data = [map, vec![b'x'; 20_000]].concat();
        let bytes = archive(&[&header("a", b'x', pax.len()), pax, &header("b", b'0', data.len()), &data]);
        let entries = entries(&bytes).expect("an entry");
        assert_eq!((entries[0].stored, entries[0].hole_bytes()), (20_000, 880_000));
    }

    /// Headers without end are given up, before they are read into memory.
    #[test]
    fn headers_without_end() {
        let large = header("a", b'L', MAX_HEADERS as usize);
        let error = entries(&large).expect_err("refused");
        assert_eq!(error, "it is no valid tar archive: an entry has headers without end");
        let many = header("a", b'g', 0).repeat(1 + MAX_HEADERS as usize / BLOCK);
        assert!(entries(&many).is_err_and(|error| error.ends_with("without end")));
    }
}
