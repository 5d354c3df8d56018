//! What the entries of a layer mean.

mod common;

use std::io::Cursor;

use common::listing::{Listing, of_image};
use common::{Line, layer, metadata, options, path, whole_layer, with_xattrs};
use larder_erofs::layer::{LayerBuilder, LayerError};
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

/// A hard link needs something to link to, which a removal is not.
#[test]
fn no_links_to_removals() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    builder.whiteout(&path("a"), metadata(0).mtime).unwrap();
    let error = builder.hard_link(&path("b"), &path("a")).unwrap_err();
    assert!(matches!(error, LayerError::Write(WriteError::MissingTarget { .. })));
    assert_eq!(error.to_string(), "`b` is a hard link to `a`, which is not there");
}

/// An entry below a symbolic link or file is refused.
#[test]
fn nothing_goes_through_a_link() {
    let lines = [
        Line::new("lib", common::Item::Symlink(b"/etc".to_vec())),
        Line::file("lib/passwd", "root"),
        Line::file("lib/.wh.passwd", ""),
        Line::file("lib/.wh..wh..opq", ""),
    ];
    let (image, taken) = layer(&lines, Encoding::Simple);
    assert_eq!(taken, [true, false, false, false]);
    assert_eq!(names(&of_image(&Image::open(image.as_slice()).unwrap())), ["/", "lib"]);
}

/// The path behind the links above an entry stays in the image: `..` ends at its root, an absolute target begins there, and
/// what is not there is kept. Links in a circle, and those to impossible names, are named.
#[test]
fn links_are_resolved_within_the_image() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    for (name, target) in [
        ("lib", "usr/lib"),
        ("usr/up", "../../../etc"),
        ("absolute", "/usr/lib64/.//sub"),
        ("chain", "usr/up/more"),
        ("loop", "loop2"),
        ("loop2", "loop"),
        ("root", "/"),
    ] {
        builder.add(&path(name), metadata(0o777), Entry::Symlink(target.as_bytes())).unwrap();
    }
    builder.add(&path("usr/lib64"), metadata(0o777), Entry::Symlink(b"lib")).unwrap();
    let long = [b'n'; 300];
    builder.add(&path("long"), metadata(0o777), Entry::Symlink(&long)).unwrap();
    for (from, to) in [
        ("lib/x", "usr/lib/x"),
        ("lib", "lib"),
        ("usr/up/x", "etc/x"),
        ("absolute/x", "usr/lib/sub/x"),
        ("chain/a/b", "etc/more/a/b"),
        ("root/root/usr/x", "usr/x"),
        ("plain/x", "plain/x"),
        ("", ""),
    ] {
        assert_eq!(*builder.resolve(&path(from)).unwrap(), path(to), "{from}");
    }
    let message = |name: &str| builder.resolve(&path(name)).unwrap_err().to_string();
    assert_eq!(message("loop/x"), "`loop/x` cannot be made: the links above it lead in a circle");
    assert!(message("long/x").contains("a link above it leads to a name that cannot be: "));
}

/// A path that doubles behind each link is given up, and not followed for ever.
#[test]
fn links_that_grow_are_given_up() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    for number in 0..30 {
        let target = format!("l{0}/../l{0}/..", number + 1);
        builder
            .add(&path(&format!("l{number}")), metadata(0o777), Entry::Symlink(target.as_bytes()))
            .unwrap();
    }
    assert!(matches!(builder.resolve(&path("l0/x")), Err(WriteError::TooManyLinks(_))));
}

/// A file without a name is in the image under each name that it gets, as one file, and not without one.
#[test]
fn kept_files() {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    let mut keep = |content: &str| {
        let (size, mut data) = (content.len() as u64, content.as_bytes());
        builder.keep(&path("kept"), metadata(0o644), size, &mut data).unwrap()
    };
    let (named, _) = (keep("content"), keep("nobody's"));
    for name in ["a", "b/c"] {
        assert_eq!(builder.link_kept(&path(name), named).unwrap(), Added::New);
    }
    let image = builder.finish().unwrap().0.into_inner();
    let listing = of_image(&Image::open(image.as_slice()).unwrap());
    assert_eq!(names(&listing), ["/", "a", "b", "b/c"]);
    assert_eq!((listing[&path("a")].nlink, &listing[&path("b/c")].first), (2, &path("a")));
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
    assert_eq!(add("a/b"), Added::New);
    assert_eq!(add("a"), Added::Updated);
}
