//! Tar archives as streams: entry by entry, in bounded memory.
//!
//! The crate `tar-core` parses entries. It supports the formats of GNU and POSIX with long names, extended attributes
//! and sparse files, and bounds its memory. This module feeds it from a reader and decides where an archive may end:
//! behind the data of its last entry. Padding and the two blocks of zeros behind it may be missing, since some tools
//! forget to write them.

use std::io::{self, Read};

use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, HEADER_SIZE, Header, PaxExtensions, SparseEntry};

use super::error::IngestProblem;

/// The number of bytes that are read from the source at once.
const CHUNK: usize = 128 << 10;

/// The maximum number of bytes before the data of an entry: headers, long names, attributes, and the map of a sparse
/// file.
const MAX_HEADERS: usize = 2 << 20;

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TarKind {
    File,
    Directory,
    /// A hard link to this name.
    HardLink(Vec<u8>),
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    /// A type that no image supports.
    Other(u8),
}

/// An entry without its data.
#[derive(Debug, Clone)]
pub(crate) struct TarEntry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: TarKind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// The modification time: seconds since 1970, and nanoseconds after them.
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The number of bytes of data in the archive.
    pub(crate) stored: u64,
    /// For a file with holes: its size, and the positions of its data.
    pub(crate) sparse: Option<(u64, Vec<SparseEntry>)>,
}

impl TarEntry {
    fn new(entry: &ParsedEntry<'_>, sparse: Option<(u64, Vec<SparseEntry>)>) -> Result<Self, IngestProblem> {
        let number = |device: Option<u32>| device.unwrap_or_default();
        let link = || entry.link_target.as_deref().unwrap_or_default().to_vec();
        let kind = match entry.entry_type {
            // Tar before POSIX has no type for directories.
            EntryType::Regular if entry.path.ends_with(b"/") => TarKind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => TarKind::File,
            EntryType::Directory => TarKind::Directory,
            EntryType::Link => TarKind::HardLink(link()),
            EntryType::Symlink => TarKind::Symlink(link()),
            EntryType::Char => TarKind::CharDevice(number(entry.dev_major), number(entry.dev_minor)),
            EntryType::Block => TarKind::BlockDevice(number(entry.dev_major), number(entry.dev_minor)),
            EntryType::Fifo => TarKind::Fifo,
            other => TarKind::Other(other.to_byte()),
        };
        // What has no data is not believed to have some.
        let has_data = matches!(kind, TarKind::File | TarKind::Other(_));
        Ok(Self {
            path: entry.path.to_vec(),
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: mtime(entry)?,
            xattrs: entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            stored: if has_data { entry.size } else { 0 },
            sparse,
        })
    }
}

impl TarEntry {
    /// Returns the number of bytes that the entry takes in memory beside its path and its data.
    pub(crate) fn metadata_bytes(&self) -> usize {
        let target = match &self.kind {
            TarKind::Symlink(target) | TarKind::HardLink(target) => target.len(),
            _ => 0,
        };
        target + self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// Returns the time of an entry. An extended header may have a time before 1970 and with a fraction. An invalid
/// number in it is an error.
fn mtime(entry: &ParsedEntry<'_>) -> Result<(i64, u32), IngestProblem> {
    // Times before 1970 are two's complement in the header.
    let mut mtime = (entry.mtime as i64, 0);
    for extension in PaxExtensions::new(entry.pax.unwrap_or_default()) {
        let extension = extension.map_err(|error| IngestProblem::Tar(error.to_string()))?;
        let key = extension.key_bytes();
        let value = || std::str::from_utf8(extension.value_bytes()).unwrap_or("?");
        let known = match key {
            b"mtime" => parse_time(value()).map(|time| mtime = time),
            b"size" | b"uid" | b"gid" => value().parse::<u64>().ok().map(drop),
            _ => Some(()),
        };
        if known.is_none() {
            let key = key.escape_ascii();
            return Err(IngestProblem::Tar(format!("`{}` is no value for `{key}`", value())));
        }
    }
    Ok(mtime)
}

/// Parses decimal seconds with a fraction, such as `-1.5`.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanoseconds) = (seconds.parse::<i64>().ok()?, digits.parse::<u32>().ok()?);
    Some(match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

fn parser() -> Parser {
    let limits = Limits { max_metadata_size: 1 << 20, ..Limits::default() };
    let mut parser = Parser::new(limits);
    // Times before 1970 are errors to it. Whatever else it would refuse is refused here.
    parser.set_ignore_pax_errors(true);
    parser
}

/// The result of [`parse_next`].
enum Parsed {
    /// An entry after this many bytes.
    Entry(usize, Box<TarEntry>),
    /// This many bytes to skip.
    Skip(usize),
    /// At least this many bytes are needed, which is more than there are.
    Need(usize),
    End,
}

fn parse_next(parser: &mut Parser, input: &[u8]) -> Result<Parsed, IngestProblem> {
    check_extensions(input)?;
    let event = parser.parse(input).map_err(|error| IngestProblem::Tar(error.to_string()))?;
    Ok(match event {
        ParseEvent::NeedData { min_bytes } => {
            // It may ask for no more than it has, where it looks for the end of a line.
            let wanted = if min_bytes > input.len() { min_bytes } else { input.len() + HEADER_SIZE };
            if wanted > MAX_HEADERS {
                return Err(without_end());
            }
            Parsed::Need(wanted)
        }
        ParseEvent::Entry { consumed, entry } => {
            Parsed::Entry(consumed, Box::new(TarEntry::new(&entry, None)?))
        }
        ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
            Parsed::Entry(consumed, Box::new(TarEntry::new(&entry, Some((real_size, sparse_map)))?))
        }
        ParseEvent::GlobalExtensions { consumed, .. } => Parsed::Skip(consumed),
        ParseEvent::End { .. } => Parsed::End,
    })
}

/// Refuses long names and extended headers of impossible sizes. The parser adds sizes up before it checks them, and
/// the largest sizes overflow.
fn check_extensions(mut input: &[u8]) -> Result<(), IngestProblem> {
    while let Some(block) = input.first_chunk::<HEADER_SIZE>() {
        let header = Header::from_bytes(block);
        let size = match header.entry_type() {
            EntryType::GnuLongName | EntryType::GnuLongLink | EntryType::XHeader => header.entry_size(),
            // Between headers, the parser skips one.
            _ if block.iter().all(|&byte| byte == 0) => Ok(0),
            _ => return Ok(()),
        };
        // What is no number is the parser's to refuse.
        let size = size.unwrap_or_default();
        if size > MAX_HEADERS as u64 {
            return Err(without_end());
        }
        let next = HEADER_SIZE + (size as usize).next_multiple_of(HEADER_SIZE);
        input = input.get(next..).unwrap_or_default();
    }
    Ok(())
}

fn without_end() -> IngestProblem {
    IngestProblem::Tar("an entry has headers without end".to_owned())
}

/// Returns whether an archive may end with these bytes at the position of a header.
fn may_end_with(rest: &[u8]) -> bool {
    rest.len() <= HEADER_SIZE && rest.iter().all(|&byte| byte == 0)
}

fn padding(stored: u64) -> u64 {
    stored.wrapping_neg() % HEADER_SIZE as u64
}

/// An archive that is read from beginning to end.
pub(crate) struct TarStream<R> {
    source: R,
    parser: Parser,
    buffer: Vec<u8>,
    /// The beginning of the part of the buffer that was read and not used yet.
    start: usize,
    end: usize,
    /// The remaining bytes of the entry's data.
    data_left: u64,
    padding_left: u64,
}

impl<R: Read> TarStream<R> {
    pub(crate) fn new(source: R) -> Self {
        let buffer = vec![0; CHUNK];
        Self { source, parser: parser(), buffer, start: 0, end: 0, data_left: 0, padding_left: 0 }
    }

    /// Returns the next entry. Skips the unread data of the last one.
    pub(crate) fn next_entry(&mut self) -> Result<Option<TarEntry>, IngestProblem> {
        io::copy(&mut self.data(), &mut io::sink()).map_err(IngestProblem::reading)?;
        self.skip_padding()?;
        loop {
            match parse_next(&mut self.parser, &self.buffer[self.start..self.end])? {
                Parsed::Entry(consumed, entry) => {
                    self.start += consumed;
                    self.data_left = entry.stored;
                    self.padding_left = padding(entry.stored);
                    return Ok(Some(*entry));
                }
                Parsed::Skip(consumed) => self.start += consumed,
                Parsed::Need(bytes) => {
                    if !self.fill(bytes)? {
                        let rest = &self.buffer[self.start..self.end];
                        return if may_end_with(rest) { Ok(None) } else { Err(IngestProblem::Truncated) };
                    }
                }
                Parsed::End => return Ok(None),
            }
        }
    }

    /// Returns the data of the last entry.
    pub(crate) fn data(&mut self) -> TarData<'_, R> {
        TarData(self)
    }

    /// Reads until the buffer has this many bytes. Returns whether there were as many.
    fn fill(&mut self, bytes: usize) -> Result<bool, IngestProblem> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        // All that was read is parsed again: what is not enough is doubled.
        if self.buffer.len() < 2 * bytes {
            self.buffer.resize((2 * bytes).next_multiple_of(CHUNK), 0);
        }
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
        let padding = self.padding_left as usize;
        self.padding_left = 0;
        if self.end - self.start < padding {
            self.fill(padding)?;
        }
        self.start += padding.min(self.end - self.start);
        Ok(())
    }
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

/// A reader of a file with holes, made from its data without them.
pub(crate) struct SparseReader<R> {
    data: R,
    regions: std::vec::IntoIter<SparseEntry>,
    region: Option<SparseEntry>,
    position: u64,
    size: u64,
}

impl<R: Read> SparseReader<R> {
    pub(crate) fn new(data: R, size: u64, regions: Vec<SparseEntry>) -> Self {
        let mut regions = regions.into_iter();
        let region = regions.next();
        Self { data, regions, region, position: 0, size }
    }
}

impl<R: Read> Read for SparseReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bounded = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(into.len());
        let disorder = || IngestProblem::Tar("the regions of a sparse file are out of order".to_owned());
        loop {
            let end = self.region.map_or(self.size, |region| region.offset);
            if self.position < end {
                let count = bounded(end.min(self.size) - self.position);
                if count == 0 && !into.is_empty() {
                    return Err(disorder().into_io());
                }
                into[..count].fill(0);
                self.position += count as u64;
                return Ok(count);
            }
            let Some(region) = self.region else { return Ok(0) };
            let end = region.offset.checked_add(region.length).filter(|&end| end <= self.size);
            let end = end.ok_or_else(|| disorder().into_io())?;
            if region.offset > self.position {
                return Err(disorder().into_io());
            }
            let count = bounded(end.saturating_sub(self.position));
            if end > self.position {
                let count = self.data.read(&mut into[..count])?;
                if count == 0 && !into.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.position += count as u64;
                return Ok(count);
            }
            self.region = self.regions.next();
            if self.region.is_some_and(|next| next.offset < end) {
                return Err(disorder().into_io());
            }
        }
    }
}

/// The number of bytes that are read at once if data is skipped.
const SCANNED: usize = 4 * HEADER_SIZE;

/// Calls `found` with every entry of an archive in a file, and the position of its data. Does not read the data.
pub(crate) fn scan(
    file: &std::fs::File,
    mut found: impl FnMut(TarEntry, u64) -> Result<(), IngestProblem>,
) -> Result<(), IngestProblem> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata().map_err(IngestProblem::reading)?.len();
    let mut parser = parser();
    let mut position = 0_u64;
    let mut buffer = Vec::new();
    let mut filled = 0;
    loop {
        match parse_next(&mut parser, &buffer[..filled])? {
            Parsed::Entry(consumed, entry) => {
                let data = position + consumed as u64;
                let end = data.checked_add(entry.stored).filter(|&end| end <= length);
                let end = end.ok_or(IngestProblem::Truncated)?;
                position = end + padding(entry.stored);
                filled = 0;
                found(*entry, data)?;
            }
            Parsed::Skip(consumed) => {
                position += consumed as u64;
                filled = 0;
            }
            Parsed::Need(bytes) => {
                let available = usize::try_from(length.saturating_sub(position)).unwrap_or(usize::MAX);
                if available < bytes {
                    let mut rest = vec![0; available];
                    file.read_exact_at(&mut rest, position).map_err(IngestProblem::reading)?;
                    return if may_end_with(&rest) { Ok(()) } else { Err(IngestProblem::Truncated) };
                }
                // All that was read is parsed again: what is not enough is doubled.
                filled = bytes.max(2 * filled).max(SCANNED).min(available);
                buffer.resize(buffer.len().max(filled), 0);
                file.read_exact_at(&mut buffer[..filled], position).map_err(IngestProblem::reading)?;
            }
            Parsed::End => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times have nanoseconds, and may be before 1970.
    #[test]
    fn times() {
        let table = [
            ("1.5", Some((1, 500_000_000))),
            ("1", Some((1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("0.1234567891", Some((0, 123_456_789))),
            ("x", None),
            ("1.-5", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }

    /// A file with holes reads with zeros in them. Regions that overlap or are behind the end of the file are refused.
    #[test]
    fn holes() {
        let read = |size, regions: &[(u64, u64)]| {
            let regions = regions.iter().map(|&(offset, length)| SparseEntry { offset, length }).collect();
            let mut bytes = Vec::new();
            SparseReader::new(&b"abcdef"[..], size, regions).read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(8, &[(1, 2), (5, 1), (8, 0)]).expect("a file"), b"\0ab\0\0c\0\0");
        assert_eq!(read(3, &[]).expect("a file"), b"\0\0\0");
        for bad in [&[(0, 4), (2, 2)][..], &[(6, 4)], &[(4, 2), (0, 2)], &[(u64::MAX, 2)], &[(0, 8)]] {
            assert!(read(8, bad).is_err(), "{bad:?}");
        }
    }
}
