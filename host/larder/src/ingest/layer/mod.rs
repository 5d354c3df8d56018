//! Converting one layer from its blob to its EROFS image.
//!
//! ```text
//! blob ── hash: blob digest ── decompress ── hash: diff ID, limits ── tar entries ── LayerBuilder ── limits ── file
//! ```
//!
//! Hashing is done beside the rest if processors are idle, since there are fewer layers than processors.
//!
//! Everything is a stream: only the tree of names is held in memory. The image counts as the layer's only if both
//! digests match, which is known at the end of the blob. Until then it has no name that any reader looks for.

mod entries;
mod hash;
mod streams;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::atomic::AtomicBool;

use larder_erofs::writer::Summary;

use super::account::{Account, Spent};
use super::cancel::Cancellable;
use super::compression::Compression;
use super::error::{IngestError, IngestProblem};
use super::limits::IngestLimits;
use super::progress::Meter;
use crate::reference::Digest;
use entries::write_image;
use hash::Hasher;
use streams::{ContentReader, StoredReader};

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
    pub(crate) spent: &'a Spent,
    pub(crate) cancelled: &'a AtomicBool,
    pub(crate) meter: &'a Meter,
}

/// A layer whose image was written.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) summary: Summary,
    pub(crate) skipped: Skipped,
}

/// The entries that were left out of an image, since no image has any of their types.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    pub(crate) count: u64,
    /// The types, each once.
    pub(crate) types: Vec<u8>,
}

/// Writes the EROFS image of a layer to `image`, which is empty. Does not sync the file.
pub(crate) fn convert(blob: LayerBlob<'_>, image: File, watch: &Watch<'_>) -> Result<Converted, IngestError> {
    let LayerBlob { origin, source, digest, diff_id: expected } = blob;
    let fail = |problem: IngestProblem| problem.of(origin).in_layer(expected);
    let source = Cancellable { source, cancelled: watch.cancelled };
    let (compression, source) =
        Compression::of(source).map_err(|error| fail(IngestProblem::reading(error)))?;
    let account = Account::new(watch.limits, watch.spent, watch.meter);

    let mut stored = StoredReader {
        source,
        // A blob that is not compressed has one digest: that of its content.
        hasher: (compression != Compression::None).then(|| hasher(2, &account)),
        meter: watch.meter,
    };
    let (converted, diff_id) = {
        let buffered = BufReader::with_capacity(CHUNK, &mut stored);
        let content = compression.reader(buffered, watch.cancelled).map_err(fail)?;
        let mut content = ContentReader { source: content, hasher: hasher(1, &account), account: &account };
        let converted = write_image(&mut content, image, expected, origin, &account)
            .map_err(|error| error.in_layer(expected))?;
        // Whatever stands behind the archive belongs to the digest.
        io::copy(&mut content, &mut io::sink()).map_err(|error| fail(IngestProblem::reading(error)))?;
        (converted, content.hasher.finish())
    };
    let found = stored.hasher.map_or_else(|| diff_id.clone(), Hasher::finish);
    check_digest("the blob", digest, found).map_err(fail)?;
    check_digest("its content", expected, diff_id).map_err(fail)?;
    Ok(converted)
}

/// Makes a hasher, on a thread of its own if this many processors are idle.
fn hasher(idle: usize, account: &Account<'_>) -> Hasher {
    if account.idle_processors() >= idle { Hasher::beside() } else { Hasher::here() }
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

/// Returns the UUID of an image that is made of the content with this digest: its first bytes.
pub(crate) fn uuid_of(digest: &Digest) -> [u8; 16] {
    let hex = digest.hex();
    // A digest has 64 hex digits.
    std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap_or_default())
}
