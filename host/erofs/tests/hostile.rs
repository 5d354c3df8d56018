//! Bytes that were made to hurt: errors are fine, panics are bugs.

mod common;

use std::io::Cursor;

use common::{ENCODINGS, Item, Line, layer, metadata, options, path, random, whole_layer, with_xattrs};
use larder_erofs::format::{
    ChunkFormat, ChunkIndex, DeviceSlot, DeviceTag, DirBlock, InodeRecord, Superblock, XattrBody, XattrEntry,
};
use larder_erofs::merge::{MergeError, Merger};
use larder_erofs::reader::{Image, check, dump, probe};
use larder_erofs::writer::Encoding;
use larder_erofs::{EntryPath, XattrName};
use proptest::collection::vec;
use proptest::prelude::*;

/// Does with an image all that can be done. The superblock's checksum does not help.
fn exercise(bytes: &[u8]) {
    let _ = probe(bytes);
    let Ok(image) = Image::open(bytes) else { return };
    let _ = check(&image);
    dump(&image, &mut std::io::sink()).unwrap();
    for name in ["a", "a/b", "zzz"] {
        let _ = image.lookup(&path(name));
    }
    for entry in image.walk().map_while(Result::ok) {
        if let Ok(data) = image.data(&entry.inode) {
            // A file can say that it is long without being so: a chunk can be many holes.
            let _ = std::io::copy(&mut std::io::Read::take(data, 1 << 16), &mut std::io::sink());
        }
    }
    let mut merger = Merger::new();
    if merger.add(&image, DeviceTag::parse("tag").unwrap()).is_ok() {
        let _ = merger.finish(Cursor::new(Vec::new()), options(Encoding::Dense));
    }
}

/// Turns the checksum off, so that a change is not found by it alone.
fn without_checksum(bytes: &mut [u8]) {
    bytes[1024 + 8] &= !1;
}

/// An image with everything in it, merged or a layer.
fn image() -> impl Strategy<Value = Vec<u8>> {
    (random::lines(), random::layer_lines(), 0..2usize, any::<bool>()).prop_map(
        |(one, two, encoding, merged)| {
            let encoding = ENCODINGS[encoding];
            let (lower, _) = layer(&one, encoding);
            if !merged {
                return lower;
            }
            let (upper, _) = layer(&two, encoding);
            let mut merger = Merger::new();
            for layer in [&lower, &upper] {
                merger
                    .add(&Image::open(layer.as_slice()).unwrap(), DeviceTag::parse("tag").unwrap())
                    .unwrap();
            }
            let mut fsmeta =
                merger.finish(Cursor::new(Vec::new()), options(encoding)).unwrap().0.into_inner();
            fsmeta.extend(lower);
            fsmeta.extend(upper);
            fsmeta
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No change to an image makes reading it panic or never end.
    #[test]
    fn changed_images(
        bytes in image(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut bytes = bytes;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if bytes.len() > 2048 {
            without_checksum(&mut bytes);
        }
        exercise(&bytes);
    }

    /// Nor does one to its metadata, where changes matter most.
    #[test]
    fn changed_metadata(
        bytes in image(),
        changes in vec((any::<prop::sample::Index>(), select_value()), 1..6),
    ) {
        let mut bytes = bytes;
        without_checksum(&mut bytes);
        let superblock = Superblock::parse(bytes.first_chunk().unwrap()).unwrap();
        let start = superblock.meta_start.offset() as usize;
        let end = superblock.blocks as usize * 4096;
        for (at, value) in changes {
            // Inodes begin at multiples of 32, and what matters in them are the first 24 bytes.
            let at = start + at.index((end - start) / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        exercise(&bytes);
    }

    /// Nor one to the superblock and the device table.
    #[test]
    fn changed_superblocks(bytes in image(), changes in vec((0..64usize, select_value()), 1..4)) {
        let mut bytes = bytes;
        for (at, value) in changes {
            // The magic, the flags and the block size stay: everything else would be refused at once.
            let at = 1024 + at * 4;
            if ![1024, 1032, 1036].contains(&at) {
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
        without_checksum(&mut bytes);
        exercise(&bytes);
    }

    /// Every parser takes every bytes.
    #[test]
    fn parsers_take_anything(bytes in vec(any::<u8>(), 0..5000)) {
        let _ = Image::open(bytes.as_slice());
        let _ = InodeRecord::parse(&bytes);
        let _ = XattrEntry::parse(&bytes);
        let _ = EntryPath::parse(&bytes);
        let _ = XattrName::parse(&bytes);
        if let Ok(body) = XattrBody::parse(&bytes) {
            let _ = (body.shared().count(), body.entries().count());
        }
        if let Ok(block) = DirBlock::parse(&bytes) {
            for index in 0..=block.len() {
                let _ = block.get(index);
            }
        }
        if let Some(slot) = bytes.first_chunk() {
            let _ = DeviceSlot::parse(slot).tag.to_string();
        }
        if let Some(word) = bytes.first_chunk()
            && let Ok(format) = ChunkFormat::parse(u32::from_le_bytes(*word))
        {
            let _ = ChunkIndex::parse(format, &bytes);
        }
    }
}

/// Values that mean something: none, all, small numbers and powers of two.
fn select_value() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), 0u32..64, (0u32..32).prop_map(|bit| 1 << bit), any::<u32>(),]
}

/// Where an inode begins in an image, in bytes.
fn place(image: &[u8], name: &str) -> usize {
    let superblock = Superblock::parse(image.first_chunk().unwrap()).unwrap();
    let nid = Image::open(image).unwrap().lookup(&path(name)).unwrap().unwrap().nid();
    superblock.meta_start.offset() as usize + nid.0 as usize * 32
}

/// A directory that holds one above itself is found, and so is one in two places.
#[test]
fn loops_are_found() {
    let mut bytes = whole_layer(&[Line::directory("a/b"), Line::directory("c")], Encoding::Simple);
    let (a, b) = (place(&bytes, "a"), place(&bytes, "a/b"));
    // The inline content of `a`: its third entry is `b`. Let it be `a`.
    let nid = ((a - place(&bytes, "") + 32) / 32) as u64;
    assert_ne!(a, b);
    let entry = a + 64 + 24;
    bytes[entry..entry + 8].copy_from_slice(&nid.to_le_bytes());
    let error = Image::open(bytes.as_slice()).unwrap().walk().find_map(Result::err).unwrap();
    assert_eq!(error.path, path("a/b"));
    assert!(error.source.to_string().ends_with("it is a directory that is in two places"));
}

/// A directory that says of a file that it is something else is found.
#[test]
fn kinds_must_agree() {
    let mut bytes = whole_layer(&[Line::file("f", "x")], Encoding::Simple);
    let root = place(&bytes, "");
    bytes[root + 64 + 24 + 10] = 7;
    let error = Image::open(bytes.as_slice()).unwrap().walk().find_map(Result::err).unwrap();
    assert!(error.source.to_string().ends_with("its directory says that it is of another kind"));
}

/// A wrong link count is found.
#[test]
fn link_counts_are_compared() {
    let mut bytes = whole_layer(&[Line::file("f", "x"), Line::link("g", "f")], Encoding::Simple);
    let file = place(&bytes, "f");
    bytes[file + 44] = 3;
    let error = check(&Image::open(bytes.as_slice()).unwrap()).unwrap_err();
    assert!(error.source.to_string().ends_with("its link count is not the number of its names"));
}

/// A directory may state any link count: microsandbox's root has 2, however many directories are in it.
#[test]
fn link_counts_of_directories_are_not_compared() {
    let mut bytes = whole_layer(&[Line::directory("a"), Line::directory("b")], Encoding::Simple);
    let root = place(&bytes, "");
    assert_eq!(bytes[root + 44], 4);
    bytes[root + 44] = 2;
    assert_eq!(check(&Image::open(bytes.as_slice()).unwrap()).unwrap(), 3);
}

/// Inodes that all share an extended attribute cannot make gigabytes of kilobytes.
#[test]
fn sharing_has_a_bound() {
    let labelled = with_xattrs(metadata(0o644), &[("user.large", &[7; 60_000])]);
    let lines: Vec<Line> = (0..300)
        .map(|index| Line::new(&format!("f{index}"), Item::Fifo).metadata(labelled.clone()))
        .collect();
    let bytes = whole_layer(&lines, Encoding::Dense);
    assert!(bytes.len() < 100_000);
    let image = Image::open(bytes.as_slice()).unwrap();
    let problem = "inodes share too much of the image";
    assert!(check(&image).unwrap_err().source.to_string().ends_with(problem));
    let error = Merger::new().add(&image, DeviceTag::parse("tag").unwrap()).unwrap_err();
    assert!(matches!(error, MergeError::Layer(error) if error.source.to_string().ends_with(problem)));
    check(&Image::open(whole_layer(&lines[..10], Encoding::Dense).as_slice()).unwrap()).unwrap();
}

/// A file that reaches beyond the image is refused before a byte of it is read.
#[test]
fn files_end_within_the_image() {
    let mut bytes = whole_layer(&[Line::file("f", "x")], Encoding::Simple);
    let file = place(&bytes, "f");
    bytes[file + 8 + 3] = 1;
    let error = Image::open(bytes.as_slice()).unwrap().lookup(&path("f")).unwrap_err();
    assert!(error.to_string().ends_with("its content lies outside of the image"));
}

/// An image that lost its end is known as such.
#[test]
fn cut_images_are_refused() {
    let bytes = whole_layer(&[Line::file("f", "x")], Encoding::Simple);
    let cut = &bytes[..bytes.len() - 4096];
    let expected = format!("the image has {} of {} bytes", cut.len(), bytes.len());
    assert_eq!(probe(cut).unwrap_err().to_string(), expected);
    assert_eq!(probe(&bytes[..100]).unwrap_err().to_string(), "the image has 100 of 4096 bytes");
}
