//! Converting one layer from its blob to its EROFS image.
//!
//! ```text
//! blob ── hash: blob digest ── decompress ── hash: diff ID, limits ── tar entries ── LayerBuilder ── file
//! ```
//!
//! Everything is a stream: only the tree of names is held in memory. The image counts as the layer's only if both
//! digests match, which is known at the end of the blob. Until then it has no name that any reader looks for.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use larder_erofs::layer::{LayerBuilder, LayerError};
use larder_erofs::writer::{Encoding, Entry, Options, Summary, WriteError};
use larder_erofs::{
    DeviceNumber, EntryPath, Metadata, Permissions, Timestamp, XattrError, XattrName, Xattrs,
};
use sha2::{Digest as _, Sha256};

use super::compression::Compression;
use super::error::{IngestError, IngestProblem};
use super::limits::IngestLimits;
use super::progress::Meter;
use super::tar::{SparseReader, TarEntry, TarKind, TarStream};
use crate::reference::Digest;

/// The number of bytes that show the compression of a blob.
const HEAD: u64 = 4;

/// The number of bytes of a blob that are read at once.
const CHUNK: usize = 256 << 10;

/// The bytes of a blob, from its beginning.
pub(crate) type BlobSource = Box<dyn Read + Send>;

/// A blob with its expected properties.
pub(crate) struct LayerBlob<'a> {
    /// The path or reference that the blob belongs to, for errors.
    pub(crate) origin: &'a str,
    pub(crate) source: BlobSource,
    pub(crate) digest: &'a Digest,
    pub(crate) diff_id: &'a Digest,
}

/// The progress and the limits of a conversion.
pub(crate) struct Watch<'a> {
    pub(crate) limits: &'a IngestLimits,
    pub(crate) cancelled: &'a AtomicBool,
    pub(crate) meter: &'a Meter,
}

/// Writes the EROFS image of a layer to `image`, which is empty. Does not sync the file.
pub(crate) fn convert(blob: LayerBlob<'_>, image: File, watch: &Watch<'_>) -> Result<Summary, IngestError> {
    let LayerBlob { origin, mut source, digest, diff_id: expected } = blob;
    let fail = |problem: IngestProblem| problem.of(origin).in_layer(expected);
    let mut head = Vec::new();
    let read = (&mut source).take(HEAD).read_to_end(&mut head);
    read.map_err(|error| fail(IngestProblem::reading(error)))?;
    let compression = Compression::detect(&head);

    let mut stored = StoredReader {
        source: io::Cursor::new(head).chain(source),
        // A blob that is not compressed has one digest: that of its content.
        hasher: (compression != Compression::None).then(Sha256::new),
        watch,
    };
    let (summary, diff_id) = {
        let buffered = BufReader::with_capacity(CHUNK, &mut stored);
        let content = compression.reader(buffered).map_err(|error| fail(IngestProblem::reading(error)))?;
        let mut content = ContentReader { source: content, hasher: Sha256::new(), bytes: 0, watch };
        let summary = write_image(&mut content, image, origin, expected, watch)?;
        // Whatever stands behind the archive belongs to the digest.
        io::copy(&mut content, &mut io::sink()).map_err(|error| fail(IngestProblem::reading(error)))?;
        (summary, digest_of(content.hasher))
    };
    let found = stored.hasher.map_or_else(|| diff_id.clone(), digest_of);
    check_digest("the blob", digest, found).map_err(fail)?;
    check_digest("its content", expected, diff_id).map_err(fail)?;
    Ok(summary)
}

fn digest_of(hasher: Sha256) -> Digest {
    Digest::of_hash(&hasher.finalize())
}

pub(crate) fn check_digest(
    what: &'static str,
    expected: &Digest,
    found: Digest,
) -> Result<(), IngestProblem> {
    if *expected == found {
        return Ok(());
    }
    Err(IngestProblem::WrongDigest { what, expected: expected.clone(), found })
}

/// A reader of the blob as it is stored, which hashes and counts the bytes.
struct StoredReader<'a, R> {
    source: R,
    hasher: Option<Sha256>,
    watch: &'a Watch<'a>,
}

impl<R: Read> Read for StoredReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.watch.cancelled.load(Ordering::Relaxed) {
            return Err(IngestProblem::Cancelled.into_io());
        }
        let count = self.source.read(into)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&into[..count]);
        }
        self.watch.meter.add(count as u64);
        Ok(count)
    }
}

/// A reader of the decompressed blob, which hashes the bytes and enforces the limits.
struct ContentReader<'a> {
    source: Box<dyn Read + 'a>,
    hasher: Sha256,
    bytes: u64,
    watch: &'a Watch<'a>,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into).map_err(damaged)?;
        self.hasher.update(&into[..count]);
        self.bytes += count as u64;
        let limits = self.watch.limits;
        if self.bytes > limits.layer_bytes {
            return Err(
                IngestProblem::Limit { limit: limits.layer_bytes, unit: "bytes in a layer" }.into_io()
            );
        }
        let allowed = self.watch.meter.done().saturating_mul(limits.ratio).max(limits.ratio_from_bytes);
        if self.bytes > allowed {
            let unit = "times its compressed size";
            return Err(IngestProblem::Limit { limit: limits.ratio, unit }.into_io());
        }
        Ok(count)
    }
}

/// Turns a decompressor's error for damaged data into the problem that it means.
fn damaged(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            IngestProblem::Entry(format!("its compressed data is damaged: {error}")).into_io()
        }
        // That of zstd: `incomplete frame`.
        _ => error,
    }
}

fn write_image(
    content: &mut ContentReader<'_>,
    image: File,
    origin: &str,
    diff_id: &Digest,
    watch: &Watch<'_>,
) -> Result<Summary, IngestError> {
    let fail = |problem: IngestProblem| problem.of(origin).in_layer(diff_id);
    let options = Options { encoding: Encoding::Simple, uuid: uuid_of(diff_id) };
    let mut builder = LayerBuilder::new(image, options).map_err(|error| fail(of_write(error)))?;
    let mut archive = TarStream::new(content);
    let limits = watch.limits;
    let mut entries = 0_u64;
    // Holes cost time and disk as data does.
    let mut bytes = 0_u64;
    let mut held = 0_u64;
    let mut last: Option<Vec<u8>> = None;
    loop {
        let next = archive.next_entry().map_err(|problem| match &last {
            Some(last) if matches!(problem, IngestProblem::Truncated) => fail(problem).at_entry(last),
            _ => fail(problem),
        })?;
        let Some(mut entry) = next else { break };
        let name = std::mem::take(&mut entry.path);
        let at = |problem: IngestProblem| fail(problem).at_entry(&name);
        // A long name can make two thousand directories.
        entries += 1;
        check_limit(entries.max(builder.inodes()), limits.layer_entries, "entries in a layer").map_err(at)?;
        bytes = bytes.saturating_add(entry.sparse.as_ref().map_or(0, |(size, _)| *size));
        held += (name.len() + entry.metadata_bytes()) as u64;
        check_limit(bytes, limits.layer_bytes, "bytes in a layer").map_err(at)?;
        check_limit(held, limits.layer_metadata_bytes, "bytes of names and attributes in a layer")
            .map_err(at)?;
        add(&mut builder, &mut archive, &name, entry).map_err(at)?;
        last = Some(name);
    }
    let (_, summary) = builder.finish().map_err(|error| fail(of_write(error)))?;
    Ok(summary)
}

/// Refuses a count above its limit.
pub(crate) fn check_limit(count: u64, limit: u64, unit: &'static str) -> Result<(), IngestProblem> {
    if count > limit { Err(IngestProblem::Limit { limit, unit }) } else { Ok(()) }
}

/// Returns the UUID of an image that is made of the content with this digest: its first bytes.
pub(crate) fn uuid_of(digest: &Digest) -> [u8; 16] {
    let hex = digest.hex();
    // A digest has 64 hex digits.
    std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap_or_default())
}

fn add<R: Read>(
    builder: &mut LayerBuilder<File>,
    archive: &mut TarStream<R>,
    name: &[u8],
    mut entry: TarEntry,
) -> Result<(), IngestProblem> {
    let path = entry_path(name)?;
    let device = |major, minor| {
        DeviceNumber::new(major, minor)
            .ok_or_else(|| IngestProblem::Entry(format!("Linux has no device {major}/{minor}")))
    };
    let sparse = entry.sparse.take();
    let stored = entry.stored;
    let metadata = metadata(&entry)?;
    match &entry.kind {
        TarKind::File => {
            let data = archive.data();
            let (size, mut data): (u64, Box<dyn Read + '_>) = match sparse {
                Some((size, regions)) => (size, Box::new(SparseReader::new(data, size, regions))),
                None => (stored, Box::new(data)),
            };
            builder.add(&path, metadata, Entry::File { size, data: &mut data })
        }
        TarKind::Directory => builder.add(&path, metadata, Entry::Directory),
        TarKind::HardLink(target) => {
            // A target is looked for in the layer, from its root: some tools write it as an absolute path.
            let target = target.strip_prefix(b"/").unwrap_or(target);
            let target = EntryPath::parse(target).map_err(|error| {
                IngestProblem::Entry(format!("it is a hard link, and its target {error}"))
            })?;
            builder.hard_link(&path, &target)
        }
        TarKind::Symlink(target) => builder.add(&path, metadata, Entry::Symlink(target)),
        &TarKind::CharDevice(major, minor) => {
            builder.add(&path, metadata, Entry::CharDevice(device(major, minor)?))
        }
        &TarKind::BlockDevice(major, minor) => {
            builder.add(&path, metadata, Entry::BlockDevice(device(major, minor)?))
        }
        TarKind::Fifo => builder.add(&path, metadata, Entry::Fifo),
        TarKind::Other(kind) => {
            let kind = kind.escape_ascii();
            return Err(IngestProblem::Entry(format!(
                "entries of the type `{kind}` are no part of an image"
            )));
        }
    }
    .map(drop)
    .map_err(of_layer)
}

/// Parses the path of an entry. `/` alone is the root, as some tools write it.
fn entry_path(name: &[u8]) -> Result<EntryPath, IngestProblem> {
    if !name.is_empty() && name.iter().all(|&byte| byte == b'/') {
        return Ok(EntryPath::root());
    }
    EntryPath::parse(name).map_err(|error| IngestProblem::Entry(error.to_string()))
}

fn metadata(entry: &TarEntry) -> Result<Metadata, IngestProblem> {
    let owner = |id: u64| {
        u32::try_from(id).map_err(|_| IngestProblem::Entry(format!("Linux has no user or group {id}")))
    };
    let (seconds, nanoseconds) = entry.mtime;
    let mut xattrs = Xattrs::new();
    for (name, value) in &entry.xattrs {
        // Marks of overlayfs come from whiteouts alone: in a layer they could show what lies elsewhere.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        match XattrName::parse(name) {
            Ok(name) => xattrs.set(name, value).map_err(|error| IngestProblem::Entry(error.to_string()))?,
            // Attributes of other file systems mean nothing in this one.
            Err(XattrError::Namespace(_)) => {}
            Err(error) => return Err(IngestProblem::Entry(error.to_string())),
        }
    }
    Ok(Metadata {
        permissions: Permissions::from_mode(entry.mode),
        uid: owner(entry.uid)?,
        gid: owner(entry.gid)?,
        mtime: Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::EPOCH),
        xattrs,
    })
}

fn of_layer(error: LayerError) -> IngestProblem {
    match error {
        LayerError::Write(error) => of_write(error),
        LayerError::Opaque { path, source } => {
            IngestProblem::Entry(format!("the directory of `{path}` cannot be made opaque: {source}"))
        }
        other => IngestProblem::Entry(other.to_string()),
    }
}

fn of_write(error: WriteError) -> IngestProblem {
    match error {
        WriteError::Write(source) => IngestProblem::writing(source),
        WriteError::Data { source, .. } => IngestProblem::reading(source),
        WriteError::ShortData { .. } => IngestProblem::Truncated,
        other => IngestProblem::Entry(other.to_string()),
    }
}
