//! Layer blobs: tar archives, compressed or not, as strangers make them.
//!
//! **Invariant**: any bytes are refused, or become an image that [`reader::check`] accepts, whose files can be read to
//! their ends, and that can be joined as the layer of an image.

use std::io;

use larder::ingest::{IngestLimits, fuzzing};
use larder_erofs::FileKind;
use larder_erofs::format::DeviceTag;
use larder_erofs::merge::Merger;
use larder_erofs::reader::{self, Image};
use larder_erofs::writer::Options;

use super::Verdict;

/// So small that each is met by an input of some kilobytes, and nothing takes long.
fn limits() -> IngestLimits {
    let mut limits = IngestLimits::default();
    limits.layer_bytes = 1 << 20;
    limits.layer_entries = 200;
    limits.layer_metadata_bytes = 16 << 10;
    limits.ratio = 50;
    limits.ratio_from_bytes = 256 << 10;
    limits.ratio_from_zeros = 512 << 10;
    limits
}

/// See the [module](self).
pub fn check(bytes: &[u8]) -> Verdict {
    let Ok(bytes) = fuzzing::layer(bytes, &limits()) else { return Verdict::Refused };
    let image = Image::open(bytes.as_slice()).unwrap_or_else(|error| panic!("no image was written: {error}"));
    reader::check(&image).unwrap_or_else(|error| panic!("a broken image was written: {error}"));
    for entry in image.walk() {
        let entry = entry.expect("what was checked");
        if entry.inode.kind() == FileKind::Regular {
            let mut data = image.data(&entry.inode).expect("a file");
            let read = io::copy(&mut data, &mut io::sink()).expect("its content");
            assert_eq!(read, entry.inode.size(), "of {}", entry.path);
        }
    }
    joined(&image, &bytes);
    Verdict::Taken
}

/// Joins a sound layer as the only one of its image.
pub(super) fn joined(image: &Image<&[u8]>, bytes: &[u8]) {
    let mut merger = Merger::new();
    merger
        .add(image, DeviceTag::parse("layer").expect("a tag"))
        .unwrap_or_else(|error| panic!("a layer cannot be joined: {error}"));
    let (fsmeta, summary) = merger
        .finish(io::Cursor::new(Vec::new()), Options::default())
        .unwrap_or_else(|error| panic!("a layer cannot be joined: {error}"));
    let fsmeta = fsmeta.into_inner();
    let joined = Image::open_with_devices(fsmeta.as_slice(), vec![bytes])
        .unwrap_or_else(|error| panic!("no image was joined: {error}"));
    let inodes = reader::check(&joined).unwrap_or_else(|error| panic!("a broken image was joined: {error}"));
    assert_eq!(inodes, summary.inodes);
}
