//! What the entries of a layer mean.

mod common;

use std::io::Cursor;

use common::listing::{Listing, of_image};
use common::{Line, layer, metadata, options, path, whole_layer, with_xattrs};
use larder_erofs::layer::{Applied, LayerBuilder, LayerError};
use larder_erofs::reader::Image;
use larder_erofs::writer::{Added, Encoding, Entry, WriteError};
use larder_erofs::{DeviceNumber, FileKind, XattrName};

fn listing(lines: &[Line]) -> Listing {
    of_image(&Image::open(whole_layer(lines, Encoding::Simple).as_slice()).unwrap())
}

fn names(listing: &Listing) -> Vec<String> {
    listing.keys().map(ToString::to_string).collect()
}

fn is_opaque(listing: &Listing, name: &str) -> bool {
    let name_of_mark = XattrName::parse(b"trusted.overlay.opaque").unwrap();
    listing[&path(name)].metadata.xattrs.get(&name_of_mark) == Some(b"y")
}

fn is_whiteout(listing: &Listing, name: &str) -> bool {
    let entry = &listing[&path(name)];
    (entry.kind, entry.device) == (FileKind::CharDevice, Some(DeviceNumber::ZERO))
}

/// A whiteout becomes a character device 0/0 of the removed name, and its parents are made.
#[test]
fn a_whiteout_is_a_device() {
    let listing = listing(&[Line::empty("etc/.wh.motd")]);
    assert_eq!(names(&listing), ["/", "etc", "etc/motd"]);
    assert!(is_whiteout(&listing, "etc/motd"));
    assert_eq!(listing[&path("etc/motd")].metadata.mtime, metadata(0).mtime);
}

/// An opaque marker becomes an attribute of its directory, which keeps it when it is described afterwards.
#[test]
fn an_opaque_directory_stays_opaque() {
    let described = with_xattrs(metadata(0o700), &[("user.a", b"b")]);
    let before =
        listing(&[Line::empty("etc/.wh..wh..opq"), Line::directory("etc").metadata(described.clone())]);
    let after = listing(&[Line::directory("etc").metadata(described), Line::empty("etc/.wh..wh..opq")]);
    assert_eq!(names(&before), ["/", "etc"]);
    assert!(is_opaque(&before, "etc"));
    assert_eq!(before, after);
    assert_eq!(before[&path("etc")].metadata.permissions.bits(), 0o700);
    assert_eq!(before[&path("etc")].metadata.xattrs.len(), 2);
}

/// The root can be opaque too.
#[test]
fn an_opaque_root() {
    assert!(is_opaque(&listing(&[Line::empty(".wh..wh..opq"), Line::directory("")]), ""));
}

/// A layer that removes a name and has it itself: a directory hides what is below, anything else does so anyway.
#[test]
fn a_removed_name_that_is_there() {
    for lines in [
        [Line::empty(".wh.a"), Line::directory("a")],
        [Line::directory("a"), Line::empty(".wh.a")],
        [Line::file("a", "x"), Line::directory("a")],
        [Line::empty(".wh.a"), Line::file("a/b", "x")],
        [Line::file("a/b", "x"), Line::empty(".wh.a")],
    ] {
        assert!(is_opaque(&listing(&lines), "a"), "{lines:?}");
    }
    for lines in [[Line::empty(".wh.a"), Line::file("a", "x")], [Line::file("a", "x"), Line::empty(".wh.a")]]
    {
        let listing = listing(&lines);
        assert_eq!((listing.len(), listing[&path("a")].kind), (2, FileKind::Regular), "{lines:?}");
    }
}

/// What AUFS left in a layer is left out, with all that lies in it.
#[test]
fn aufs_is_ignored() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    for name in [".wh..wh.plnk", ".wh..wh.plnk/1.2", ".wh..wh.aufs", "a/.wh..wh.orph"] {
        let entry = Entry::File { size: 3, data: &mut &b"abc"[..] };
        assert_eq!(builder.add(&path(name), metadata(0o644), entry).unwrap(), Applied::Ignored, "{name}");
    }
    let image = builder.finish().unwrap().0.into_inner();
    assert_eq!(names(&of_image(&Image::open(image.as_slice()).unwrap())), ["/"]);
}

/// Removals that remove nothing, or hold something, are named.
#[test]
fn invalid_whiteouts() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    let mut message = |name: &str| {
        let entry = Entry::File { size: 0, data: &mut std::io::empty() };
        builder.add(&path(name), metadata(0o644), entry).unwrap_err().to_string()
    };
    assert_eq!(message("a/.wh."), "`a/.wh.` is not a valid whiteout");
    assert_eq!(message(".wh..."), "`.wh...` is not a valid whiteout");
    assert_eq!(message(".wh.a/b"), "`.wh.a/b` is not a valid whiteout");
}

/// A hard link needs something to link to, which a removal is not.
#[test]
fn no_links_to_removals() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    let entry = Entry::File { size: 0, data: &mut std::io::empty() };
    assert_eq!(builder.add(&path(".wh.a"), metadata(0o644), entry).unwrap(), Applied::Whiteout);
    let error = builder.hard_link(&path("b"), &path("a")).unwrap_err();
    assert!(matches!(error, LayerError::Write(WriteError::MissingTarget { .. })));
    assert_eq!(error.to_string(), "`b` is a hard link to `a`, which is not there");
}

/// An entry below a symbolic link or file is refused: it would lie where the link points.
#[test]
fn nothing_goes_through_a_link() {
    let lines = [
        Line::new("lib", common::Item::Symlink(b"/etc".to_vec())),
        Line::file("lib/passwd", "root"),
        Line::file("lib/.wh.passwd", ""),
    ];
    let (image, taken) = layer(&lines, Encoding::Simple);
    assert_eq!(taken, [true, false, false]);
    assert_eq!(names(&of_image(&Image::open(image.as_slice()).unwrap())), ["/", "lib"]);
}

/// A directory that no entry described is known as such, until one does.
#[test]
fn implied_directories_are_marked() {
    let bytes = whole_layer(&[Line::file("a/b/c", "x"), Line::directory("a")], Encoding::Simple);
    let image = Image::open(bytes.as_slice()).unwrap();
    let implied = |name| image.lookup(&path(name)).unwrap().unwrap().is_implied();
    assert_eq!(["", "a", "a/b", "a/b/c"].map(implied), [true, false, true, false]);
}

/// What an entry did is said.
#[test]
fn entries_say_what_they_did() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    let mut add = |name: &str| builder.add(&path(name), metadata(0o755), Entry::Directory).unwrap();
    assert_eq!(add("a/b"), Applied::Added(Added::New));
    assert_eq!(add("a"), Applied::Added(Added::Updated));
    assert_eq!(builder.hard_link(&path("a/.wh..wh..opq"), &path("x")).unwrap(), Applied::Opaque);
}
