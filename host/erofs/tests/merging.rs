//! What layers make together.

mod common;

use std::io::Cursor;

use common::listing::{Listing, assert_same, of_image};
use common::model::Model;
use common::{ENCODINGS, Item, Line, layer, metadata, options, path, random, whole_layer, with_xattrs};
use larder_erofs::format::DeviceTag;
use larder_erofs::merge::{MergeError, Merger};
use larder_erofs::reader::{Image, check};
use larder_erofs::writer::{Encoding, Summary};
use larder_erofs::{FileKind, Metadata};
use proptest::prelude::*;

fn merge(layers: &[Vec<u8>], encoding: Encoding) -> (Vec<u8>, Summary) {
    let mut merger = Merger::new();
    for (index, layer) in layers.iter().enumerate() {
        let tag = DeviceTag::parse(&format!("layer-{index}")).unwrap();
        merger.add(&Image::open(layer.as_slice()).unwrap(), tag).unwrap();
    }
    let (image, summary) = merger.finish(Cursor::new(Vec::new()), options(encoding)).unwrap();
    (image.into_inner(), summary)
}

/// The listing with the layers as devices, which is also that of all joined.
fn read(fsmeta: &[u8], layers: &[Vec<u8>]) -> Listing {
    let devices = layers.iter().map(Vec::as_slice).collect();
    let image = Image::open_with_devices(fsmeta, devices).unwrap();
    check(&image).unwrap();
    let listing = of_image(&image);
    let joined = [fsmeta].into_iter().chain(layers.iter().map(Vec::as_slice)).collect::<Vec<_>>().concat();
    assert_same(&of_image(&Image::open(joined).unwrap()), &listing);
    listing
}

fn merged(layers: &[&[Line]]) -> Listing {
    let layers: Vec<_> = layers.iter().map(|lines| whole_layer(lines, Encoding::Simple)).collect();
    read(&merge(&layers, Encoding::Simple).0, &layers)
}

fn names(listing: &Listing) -> Vec<String> {
    listing.keys().map(ToString::to_string).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Random layers make together what unpacking one after the other makes, hard links and implied directories
    /// included.
    #[test]
    fn random_layers(stack in proptest::collection::vec(random::layer_lines(), 1..5)) {
        for encoding in ENCODINGS {
            let mut model = Model::new();
            let mut layers = Vec::new();
            for lines in &stack {
                let (image, taken) = layer(lines, encoding);
                let taken: Vec<_> =
                    lines.iter().zip(taken).filter(|(_, taken)| *taken).map(|(line, _)| line).collect();
                model.add_layer(&taken);
                layers.push(image);
            }
            let (fsmeta, summary) = merge(&layers, encoding);
            prop_assert_eq!(fsmeta.len() as u64, summary.bytes());
            assert_same(&read(&fsmeta, &layers), &model.listing());
        }
    }
}

/// Whiteouts and opaque directories remove what is below, and are not in the result.
#[test]
fn removals_apply_and_vanish() {
    let listing = merged(&[
        &[Line::file("etc/motd", "old"), Line::file("etc/passwd", "root"), Line::file("var/log/a", "x")],
        &[Line::empty("etc/.wh.motd"), Line::empty("var/.wh..wh..opq"), Line::file("var/b", "y")],
    ]);
    assert_eq!(names(&listing), ["/", "etc", "etc/passwd", "var", "var/b"]);
    assert!(listing[&path("var")].metadata.xattrs.is_empty());
}

/// A removal in one layer does not reach a layer above.
#[test]
fn what_was_removed_can_come_back() {
    let listing = merged(&[&[Line::file("a/b", "1")], &[Line::empty(".wh.a")], &[Line::file("a/c", "2")]]);
    assert_eq!(names(&listing), ["/", "a", "a/c"]);
}

/// A directory of an upper layer has its own metadata and what both layers hold; attributes are not mixed.
#[test]
fn upper_metadata_wins() {
    let lower = with_xattrs(metadata(0o755), &[("user.lower", b"1")]);
    let upper = Metadata { uid: 7, ..with_xattrs(metadata(0o700), &[("user.upper", b"2")]) };
    let listing = merged(&[
        &[Line::directory("d").metadata(lower), Line::file("d/1", "")],
        &[Line::directory("d").metadata(upper.clone()), Line::file("d/2", "")],
    ]);
    assert_eq!(names(&listing), ["/", "d", "d/1", "d/2"]);
    assert_eq!(listing[&path("d")].metadata, upper);
}

/// A directory that an upper layer only implies keeps what the lower layer says of it.
#[test]
fn implied_directories_say_nothing() {
    let lower = Metadata { gid: 50, ..metadata(0o2775) };
    let listing = merged(&[
        &[Line::directory("").metadata(metadata(0o711)), Line::directory("var/mail").metadata(lower.clone())],
        &[Line::file("var/mail/root", "")],
    ]);
    assert_eq!(listing[&path("var/mail")].metadata, lower);
    assert_eq!(listing[&path("")].metadata.permissions.bits(), 0o711);
}

/// Hard links stay together as far as no upper layer takes a name, and their count is that of the names left.
#[test]
fn hard_links_are_kept() {
    let listing = merged(&[
        &[Line::file("a", "same"), Line::link("b", "a"), Line::link("c", "a")],
        &[Line::file("b", "other")],
    ]);
    assert_eq!((listing[&path("a")].nlink, listing[&path("b")].nlink), (2, 1));
    assert_eq!(listing[&path("c")].first, path("a"));
}

/// A file replaces a directory with all it held, and a directory a file.
#[test]
fn kinds_replace_each_other() {
    let listing = merged(&[
        &[Line::file("a/b", "1"), Line::file("c", "2")],
        &[Line::file("a", "3"), Line::file("c/d", "4")],
    ]);
    assert_eq!(names(&listing), ["/", "a", "c", "c/d"]);
    assert_eq!(listing[&path("a")].kind, FileKind::Regular);
}

/// The device table has each layer with its tag, its blocks and its place behind the ones before.
#[test]
fn the_device_table_joins_the_layers() {
    let layers = ["1", "22", "333"].map(|content| whole_layer(&[Line::file("f", content)], Encoding::Simple));
    let (fsmeta, summary) = merge(&layers, Encoding::Simple);
    let image = Image::open(fsmeta.as_slice()).unwrap();
    let mut next = summary.blocks;
    for (index, (slot, layer)) in image.devices().iter().zip(&layers).enumerate() {
        assert_eq!(slot.tag.to_string(), format!("layer-{index}"));
        assert_eq!((slot.mapped.0, u64::from(slot.blocks) * 4096), (next, layer.len() as u64));
        next += slot.blocks;
    }
    assert_eq!(image.devices().len(), 3);
}

/// Without its layers a merged image shows all but the data of files, and says what it lacks.
#[test]
fn data_needs_the_layers() {
    let layers = [whole_layer(&[Line::file("f", "x")], Encoding::Simple)];
    let (fsmeta, _) = merge(&layers, Encoding::Simple);
    let image = Image::open(fsmeta.as_slice()).unwrap();
    check(&image).unwrap();
    let file = image.lookup(&path("f")).unwrap().unwrap();
    let error = std::io::read_to_string(image.data(&file).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the image refers to 1 devices, 0 were given");
    let error = Image::open_with_devices(fsmeta.as_slice(), vec![]).unwrap_err();
    assert_eq!(error.to_string(), "the image refers to 1 devices, 0 were given");
}

/// A hundred layers have a device table of several blocks.
#[test]
fn many_layers() {
    let layers: Vec<_> = (0..100)
        .map(|index| {
            let name = index.to_string();
            whole_layer(&[Line::file(&name, &name), Line::file("common", &name)], Encoding::Simple)
        })
        .collect();
    let listing = read(&merge(&layers, Encoding::Dense).0, &layers);
    assert_eq!(listing.len(), 102);
    let expected = common::listing::sum(&mut &b"99"[..]);
    assert_eq!((&listing[&path("99")].content, &listing[&path("common")].content), (&expected, &expected));
}

/// What cannot be referred to is refused: a merged image as a layer, a layer with something behind it, an inline file.
#[test]
fn what_cannot_be_merged_is_refused() {
    let add = |layer: &[u8]| {
        let tag = DeviceTag::parse("tag").unwrap();
        Merger::new().add(&Image::open(layer).unwrap(), tag).unwrap_err()
    };
    let layer = whole_layer(&[Line::file("f", "x")], Encoding::Simple);
    let (fsmeta, _) = merge(std::slice::from_ref(&layer), Encoding::Simple);
    assert!(matches!(add(&fsmeta), MergeError::HasDevices(1)));
    assert!(matches!(add(&[layer, vec![0; 4096]].concat()), MergeError::Length { .. }));
}

/// Merging gives the same bytes for the same layers.
#[test]
fn merging_is_reproducible() {
    let layers = [
        whole_layer(&[Line::file("a", "1"), Line::new("l", Item::Symlink(b"a".to_vec()))], Encoding::Simple),
        whole_layer(&[Line::file("b/c", "2"), Line::empty(".wh.a")], Encoding::Simple),
    ];
    for encoding in ENCODINGS {
        assert!(merge(&layers, encoding) == merge(&layers, encoding));
    }
}

/// A directory over a link to a directory is told, with the link's path. One that is opaque, a link to something else, and a
/// link over a link are not.
#[test]
fn covered_links() {
    let link = |name: &str, target: &[u8]| Line::new(name, Item::Symlink(target.to_vec()));
    let lower = [
        Line::directory("usr/lib"),
        link("lib", b"usr/lib"),
        link("far", b"/lib/../lib"),
        link("renewed", b"usr/lib"),
        link("removed", b"usr/lib"),
        link("nowhere", b"gone"),
        Line::file("file", "x"),
        link("to-file", b"file"),
    ];
    let upper = [
        Line::file("lib/x", "x"),
        Line::directory("far"),
        link("renewed", b"usr"),
        Line::empty(".wh.removed"),
        Line::file("removed/x", "x"),
        Line::directory("nowhere"),
        Line::directory("to-file"),
        Line::directory("usr/lib"),
    ];
    let mut merger = Merger::new();
    for lines in [&lower[..], &upper] {
        let layer = whole_layer(lines, Encoding::Simple);
        merger.add(&Image::open(layer.as_slice()).unwrap(), DeviceTag::parse("tag").unwrap()).unwrap();
    }
    let covered = merger.covered_links();
    assert_eq!(covered.paths, [path("far"), path("lib")]);
    assert_eq!(covered.count, 2);
}
