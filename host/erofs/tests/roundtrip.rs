//! What is written is read.

mod common;

use std::io::Cursor;

use common::listing::{assert_same, of_image};
use common::model::Model;
use common::{ENCODINGS, Item, Line, metadata, options, path, random, with_entry, with_xattrs};
use larder_erofs::format::{BLOCK_SIZE, DataLayout, InodeForm};
use larder_erofs::reader::{Image, check, dump, probe};
use larder_erofs::writer::{Added, Encoding, Entry, ImageWriter, WriteError};
use larder_erofs::{FileKind, Timestamp, XattrName};
use proptest::prelude::*;

/// Writes lines as they are, whiteouts too; the model gets those that were taken.
fn write(lines: &[Line], encoding: Encoding) -> (Vec<u8>, Model) {
    let mut writer = ImageWriter::new(Cursor::new(Vec::new()), options(encoding)).unwrap();
    let mut model = Model::new();
    for line in lines {
        let added = match &line.item {
            Item::HardLink(target) => writer.hard_link(&line.path, target),
            item => with_entry(item, |entry| writer.add(&line.path, line.metadata.clone(), entry)),
        };
        if added.is_ok() {
            model.add(line);
        }
    }
    let (image, summary) = writer.finish().unwrap();
    let image = image.into_inner();
    assert_eq!(image.len() as u64, summary.bytes());
    (image, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A random tree is read as it was written, in either encoding, and passes every check.
    #[test]
    fn random_trees_survive(lines in random::lines()) {
        for encoding in ENCODINGS {
            let (bytes, model) = write(&lines, encoding);
            let image = Image::open(bytes.as_slice()).unwrap();
            assert_same(&of_image(&image), &model.listing());
            prop_assert_eq!(check(&image).unwrap(), image.superblock().inodes);
        }
    }

    /// Every entry is found by its path, and no other.
    #[test]
    fn lookup_finds_what_there_is(lines in random::lines(), absent in random::path(random::name())) {
        let (bytes, model) = write(&lines, Encoding::Simple);
        let image = Image::open(bytes.as_slice()).unwrap();
        let listing = model.listing();
        for (path, entry) in &listing {
            let inode = image.lookup(path).unwrap();
            prop_assert_eq!(inode.map(|inode| inode.kind()), Some(entry.kind));
        }
        prop_assert_eq!(image.lookup(&absent).unwrap().is_some(), listing.contains_key(&absent));
    }

    /// The same entries give the same bytes.
    #[test]
    fn images_are_reproducible(lines in random::lines()) {
        for encoding in ENCODINGS {
            prop_assert!(write(&lines, encoding).0 == write(&lines, encoding).0);
        }
    }

    /// The length of an image is a multiple of its blocks, and files lie in whole blocks without inline tails.
    #[test]
    fn files_are_block_aligned(lines in random::lines()) {
        for encoding in ENCODINGS {
            let (bytes, _) = write(&lines, encoding);
            prop_assert_eq!(bytes.len() % BLOCK_SIZE, 0);
            let image = Image::open(bytes.as_slice()).unwrap();
            for entry in image.walk() {
                let inode = entry.unwrap().inode;
                prop_assert!(inode.kind() != FileKind::Regular || inode.layout() == DataLayout::FlatPlain);
            }
        }
    }
}

/// Simple images have extended inodes only; dense ones have compact inodes wherever nothing is lost by it.
#[test]
fn compact_where_they_fit() {
    let at =
        |seconds| larder_erofs::Metadata { mtime: Timestamp::new(seconds, 5).unwrap(), ..metadata(0o644) };
    let lines = [
        Line::directory("").metadata(at(1)),
        Line::file("common-1", "x").metadata(at(1)),
        Line::file("common-2", "x").metadata(at(1)),
        Line::file("other-time", "x").metadata(at(2)),
        Line::file("large-uid", "x").metadata(larder_erofs::Metadata { uid: 65536, ..at(1) }),
        Line::file("large-gid", "x").metadata(larder_erofs::Metadata { gid: 65536, ..at(1) }),
    ];
    let forms = |encoding| {
        let (bytes, model) = write(&lines, encoding);
        let image = Image::open(bytes.as_slice()).unwrap();
        assert_same(&of_image(&image), &model.listing());
        let form = |name| image.lookup(&path(name)).unwrap().unwrap().form();
        ["", "common-1", "common-2", "other-time", "large-uid", "large-gid"].map(form)
    };
    assert_eq!(forms(Encoding::Simple), [InodeForm::Extended; 6]);
    let [compact, extended] = [InodeForm::Compact, InodeForm::Extended];
    assert_eq!(forms(Encoding::Dense), [compact, compact, compact, extended, extended, extended]);
}

/// An inode with more than 65,535 names keeps their number.
#[test]
fn many_hard_links() {
    for encoding in ENCODINGS {
        let mut writer = ImageWriter::new(Cursor::new(Vec::new()), options(encoding)).unwrap();
        writer.add(&path("0"), metadata(0o644), Entry::Fifo).unwrap();
        for index in 1..70_000 {
            writer.hard_link(&path(&index.to_string()), &path("0")).unwrap();
        }
        let bytes = writer.finish().unwrap().0.into_inner();
        let image = Image::open(bytes.as_slice()).unwrap();
        assert_eq!(image.lookup(&path("69999")).unwrap().unwrap().nlink(), 70_000);
        assert_eq!(check(&image).unwrap(), 2);
    }
}

/// Attributes that many inodes have are stored once in a dense image.
#[test]
fn shared_xattrs() {
    let shared = with_xattrs(metadata(0o644), &[("trusted.a", &[7; 3000]), ("user.b", b"x")]);
    let lines: Vec<_> =
        (0..100).map(|index| Line::empty(&index.to_string()).metadata(shared.clone())).collect();
    let [simple, dense] = ENCODINGS.map(|encoding| {
        let (bytes, model) = write(&lines, encoding);
        assert_same(&of_image(&Image::open(bytes.as_slice()).unwrap()), &model.listing());
        bytes.len()
    });
    assert!(simple > 300_000 && dense < 30_000, "{simple} {dense}");
}

/// 300 shared attributes are more than an inode can refer to: the rest stands beside it.
#[test]
fn more_shared_xattrs_than_fit() {
    let mut metadata = metadata(0o644);
    for index in 0..300 {
        let name = XattrName::parse(format!("user.{index}").as_bytes()).unwrap();
        metadata.xattrs.set(name, b"value").unwrap();
    }
    let lines = ["a", "b"].map(|name| Line::empty(name).metadata(metadata.clone()));
    let (bytes, model) = write(&lines, Encoding::Dense);
    assert_same(&of_image(&Image::open(bytes.as_slice()).unwrap()), &model.listing());
}

/// Extended attributes up to all the room that there is beside an inode survive.
#[test]
fn the_largest_xattrs() {
    let mut metadata = metadata(0o755);
    for index in 0..4 {
        let name = XattrName::parse(format!("user.{index}").as_bytes()).unwrap();
        metadata.xattrs.set(name, &vec![index; 65_520]).unwrap();
    }
    let lines = [Line::directory("a").metadata(metadata.clone()), Line::file("b", "x").metadata(metadata)];
    for encoding in ENCODINGS {
        let (bytes, model) = write(&lines, encoding);
        assert_same(&of_image(&Image::open(bytes.as_slice()).unwrap()), &model.listing());
    }
}

/// A later entry takes the place of an earlier one; a directory keeps what it holds.
#[test]
fn later_entries_replace() {
    let mut writer = ImageWriter::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    let mut add = |name: &str, mode, item: Item| {
        with_entry(&item, |entry| writer.add(&path(name), metadata(mode), entry)).unwrap()
    };
    assert_eq!(add("d/f", 0o644, Item::File(b"1".to_vec())), Added::New);
    assert_eq!(add("d", 0o700, Item::Directory), Added::Updated);
    assert_eq!(add("d/f", 0o600, Item::File(b"22".to_vec())), Added::Replaced);
    assert_eq!(add("e/f", 0o644, Item::Fifo), Added::New);
    assert_eq!(add("e", 0o644, Item::Fifo), Added::Replaced);
    let bytes = writer.finish().unwrap().0.into_inner();
    let listing = of_image(&Image::open(bytes.as_slice()).unwrap());
    assert_eq!(listing.keys().map(ToString::to_string).collect::<Vec<_>>(), ["/", "d", "d/f", "e"]);
    assert_eq!(listing[&path("d")].metadata.permissions.bits(), 0o700);
    assert_eq!(listing[&path("d/f")].content.0, 2);
}

/// An entry that cannot be added is named, with what is in its way, and others follow it.
#[test]
fn errors_name_the_path() {
    let mut writer = ImageWriter::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    writer.add(&path("usr/bin"), metadata(0o644), Entry::Symlink(b"../bin")).unwrap();
    let fifo = |writer: &mut ImageWriter<_>, name| writer.add(&path(name), metadata(0o644), Entry::Fifo);
    let symlink = |writer: &mut ImageWriter<_>, target: &[u8]| {
        writer.add(&path("link"), metadata(0o777), Entry::Symlink(target)).unwrap_err().to_string()
    };
    let messages = [
        fifo(&mut writer, "usr/bin/env/x").unwrap_err().to_string(),
        fifo(&mut writer, "").unwrap_err().to_string(),
        writer.hard_link(&path("a"), &path("usr/gone")).unwrap_err().to_string(),
        writer.hard_link(&path("a"), &path("usr")).unwrap_err().to_string(),
        symlink(&mut writer, b""),
        symlink(&mut writer, &[b'x'; 4096]),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    `usr/bin/env/x` cannot be made: `usr/bin` is not a directory
    the root of an image can only be a directory
    `a` is a hard link to `usr/gone`, which is not there
    `a` is a hard link to `usr`, which is a directory
    `link` is a symbolic link whose target is not 1 to 4095 bytes without NUL
    `link` is a symbolic link whose target is not 1 to 4095 bytes without NUL
    ");
    assert_eq!(fifo(&mut writer, "still/works").unwrap(), Added::New);
    let bytes = writer.finish().unwrap().0.into_inner();
    assert_eq!(of_image(&Image::open(bytes.as_slice()).unwrap()).len(), 5);
}

/// A file whose data ends early spoils the image: it can only be thrown away.
#[test]
fn short_data_spoils_the_image() {
    let mut writer = ImageWriter::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    let entry = Entry::File { size: 10_000, data: &mut &[0; 9_999][..] };
    let error = writer.add(&path("etc/x"), metadata(0o644), entry).unwrap_err();
    assert_eq!(error.to_string(), "the data of `etc/x` ends after 9999 of 10000 bytes");
    assert!(matches!(writer.add(&path("y"), metadata(0o644), Entry::Fifo), Err(WriteError::Spoilt)));
    assert!(matches!(writer.finish(), Err(WriteError::Spoilt)));
}

/// Until an image is finished, what is in the sink is none.
#[test]
fn an_unfinished_image_is_no_image() {
    let mut sink = Cursor::new(Vec::new());
    let mut writer = ImageWriter::new(&mut sink, options(Encoding::Simple)).unwrap();
    let entry = Entry::File { size: 3 << 20, data: &mut std::io::repeat(7) };
    writer.add(&path("large"), metadata(0o644), entry).unwrap();
    drop(writer);
    let bytes = sink.into_inner();
    assert!(bytes.len() >= 2 << 20);
    assert_eq!(probe(bytes.as_slice()).unwrap_err().to_string(), "this is no EROFS image");
}

/// The dump says all that there is, a line each.
#[test]
fn a_dump() {
    let number = larder_erofs::DeviceNumber::new(8, 1).unwrap();
    let mut xattrs =
        with_xattrs(metadata(0o4755), &[("user.origin", b"here"), ("trusted.overlay.opaque", b"y")]);
    xattrs.uid = 1000;
    let lines = [
        Line::directory("etc").metadata(xattrs),
        Line::file("etc/motd", "hello"),
        Line::link("etc/issue", "etc/motd"),
        Line::empty("etc/empty"),
        Line::new("etc/mtab", Item::Symlink(b"/proc/mounts".to_vec())),
        Line::new("dev/sda1", Item::BlockDevice(number)),
        Line::new("gone", Item::CharDevice(larder_erofs::DeviceNumber::ZERO)),
        Line::new("run/socket", Item::Socket),
    ];
    let (bytes, _) = write(&lines, Encoding::Simple);
    let mut text = Vec::new();
    dump(&Image::open(bytes.as_slice()).unwrap(), &mut text).unwrap();
    insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r"
    superblock: 3 blocks, 10 inodes, metadata at 2, shared xattrs at 2, root 1, features 0x3 0x0, build time 0.000000000
    / #1 implied directory 0755 0:0 links 5 size 88 time 0.000000000 inline
    dev #6 implied directory 0755 0:0 links 2 size 43 time 0.000000000 inline
    dev/sda1 #23 block device 0644 0:0 links 1 size 0 time 1700000000.123456789 8/1
    etc #10 directory 4755 1000:0 links 2 size 93 time 1700000000.123456789 inline user.origin=here trusted.overlay.opaque=y
    etc/empty #25 file 0644 0:0 links 1 size 0 time 1700000000.123456789
    etc/issue #27 file 0644 0:0 links 2 size 5 time 1700000000.123456789 [device 0 at 4096, 5]
    etc/motd #27 file 0644 0:0 links 2 size 5 time 1700000000.123456789 [device 0 at 4096, 5]
    etc/mtab #29 symlink 0644 0:0 links 1 size 12 time 1700000000.123456789 inline -> /proc/mounts
    gone #17 whiteout 0644 0:0 links 1 size 0 time 1700000000.123456789 0/0
    run #19 implied directory 0755 0:0 links 2 size 45 time 0.000000000 inline
    run/socket #32 socket 0644 0:0 links 1 size 0 time 1700000000.123456789
    ");
}
