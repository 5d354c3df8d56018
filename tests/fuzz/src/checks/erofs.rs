//! EROFS images, of whichever maker.
//!
//! **Invariant**: any bytes can be opened, checked, walked, written down, looked up in, read and merged as a layer, with
//! errors as answers. What the check accepts, a walk and a look-up agree about. What was merged, the check accepts.
//!
//! How much is read of the files of an image is bounded here, and nothing else is: a file may be a hole of any size.

use std::io::{self, Read as _};

use larder_erofs::FileKind;
use larder_erofs::format::DeviceTag;
use larder_erofs::merge::Merger;
use larder_erofs::reader::{self, Image};
use larder_erofs::writer::{Encoding, Options};

use super::Verdict;

/// How much is read of all files together.
const READ: u64 = 1 << 20;

/// How many paths are looked up.
const LOOK_UPS: usize = 50;

/// See the [module](self).
pub fn check(bytes: &[u8]) -> Verdict {
    let probed = reader::probe(bytes);
    let Ok(image) = Image::open(bytes) else { return Verdict::Refused };
    let sound = reader::check(&image).is_ok();
    assert!(!sound || probed.is_ok(), "an image is sound that is none");
    reader::dump(&image, &mut io::sink()).expect("written to nowhere");
    look_up(&image, sound);
    read(&image);
    if let 1..=4 = image.devices().len()
        && let Ok(image) = Image::open_with_devices(bytes, vec![bytes; image.devices().len()])
    {
        read(&image);
    }
    merge(&image, bytes);
    if sound { Verdict::Taken } else { Verdict::Refused }
}

/// Looks up what a walk comes to.
fn look_up(image: &Image<&[u8]>, sound: bool) {
    for entry in image.walk().map_while(Result::ok).take(LOOK_UPS) {
        let found = image.lookup(&entry.path);
        if sound {
            assert_eq!(found.expect("a sound image").as_ref(), Some(&entry.inode), "{}", entry.path);
        }
    }
}

/// Reads the files that a walk comes to.
fn read(image: &Image<&[u8]>) {
    let mut left = READ;
    for entry in image.walk().map_while(Result::ok) {
        if entry.inode.kind() == FileKind::Regular
            && let Ok(data) = image.data(&entry.inode)
        {
            left -= io::copy(&mut data.take(left), &mut io::sink()).unwrap_or_default();
        }
    }
}

/// Merges the image as a layer, upon itself.
fn merge(image: &Image<&[u8]>, bytes: &[u8]) {
    let mut merger = Merger::new();
    for tag in ["lower", "upper"] {
        if merger.add(image, DeviceTag::parse(tag).expect("a tag")).is_err() {
            return;
        }
    }
    let options = Options { encoding: Encoding::Dense, ..Options::default() };
    let (fsmeta, _) = merger
        .finish(io::Cursor::new(Vec::new()), options)
        .unwrap_or_else(|error| panic!("layers cannot be merged: {error}"));
    let fsmeta = fsmeta.into_inner();
    let merged = Image::open_with_devices(fsmeta.as_slice(), vec![bytes; 2])
        .unwrap_or_else(|error| panic!("no image was merged: {error}"));
    reader::check(&merged).unwrap_or_else(|error| panic!("a broken image was merged: {error}"));
}
