//! What others say of our images: `fsck.erofs`, and the kernel that mounts them.

mod common;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use common::judge::{Mount, assert_fsck, can_mount, has_fsck};
use common::listing::{Listing, assert_same, of_directory, of_image, sum};
use common::{ENCODINGS, Item, Line, layer, metadata, options, path, random, whole_layer, with_xattrs};
use larder_erofs::format::DeviceTag;
use larder_erofs::layer::LayerBuilder;
use larder_erofs::merge::Merger;
use larder_erofs::reader::{Image, check};
use larder_erofs::writer::{Encoding, Entry, ImageWriter};
use larder_erofs::{DeviceNumber, Metadata, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

/// Images of layers in files, the image that they merge to, and one file of all.
struct Stack {
    directory: TempDir,
    fsmeta: PathBuf,
    layers: Vec<PathBuf>,
}

impl Stack {
    fn new(layers: &[Vec<Line>], encoding: Encoding) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layers: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(index, lines)| {
                let file = directory.path().join(format!("layer-{index}"));
                std::fs::write(&file, layer(lines, encoding).0).unwrap();
                file
            })
            .collect();
        let fsmeta = directory.path().join("fsmeta");
        merge(&layers, encoding, &fsmeta);
        Self { directory, fsmeta, layers }
    }

    fn joined(&self) -> PathBuf {
        let disk = self.directory.path().join("disk");
        let mut out = File::create(&disk).unwrap();
        for part in [&self.fsmeta].into_iter().chain(&self.layers) {
            io::copy(&mut File::open(part).unwrap(), &mut out).unwrap();
        }
        disk
    }

    /// As this crate reads it.
    fn listing(&self) -> Listing {
        let open = |file| File::open(file).unwrap();
        let layers = self.layers.iter().map(open).collect();
        of_image(&Image::open_with_devices(open(&self.fsmeta), layers).unwrap())
    }
}

fn merge(layers: &[PathBuf], encoding: Encoding, fsmeta: &PathBuf) {
    let mut merger = Merger::new();
    for (index, layer) in layers.iter().enumerate() {
        let tag = DeviceTag::parse(&format!("{index:064}")).unwrap();
        merger.add(&Image::open(File::open(layer).unwrap()).unwrap(), tag).unwrap();
    }
    merger.finish(File::create(fsmeta).unwrap(), options(encoding)).unwrap();
}

/// One of everything that an image can hold.
fn everything() -> Vec<Line> {
    let acl =
        [2u8, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 4, 0]
            .into_iter()
            .chain([0xff; 4])
            .collect::<Vec<_>>();
    let mut lines = vec![
        Line::directory(""),
        Line::directory("sticky").metadata(metadata(0o1777)),
        Line::file("setuid", "x").metadata(metadata(0o4755)),
        Line::file("old", "x").metadata(Metadata {
            mtime: Timestamp::new(-2_000_000_000, 999_999_999).unwrap(),
            ..metadata(0o600)
        }),
        Line::file("far", "x")
            .metadata(Metadata { mtime: Timestamp::new(20_000_000_000, 1).unwrap(), ..metadata(0o600) }),
        Line::file("owned", "x").metadata(Metadata { uid: 70_000, gid: 4_000_000_000, ..metadata(0o640) }),
        Line::new("short", Item::Symlink(b"target".to_vec())),
        Line::new("long", Item::Symlink(vec![b'x'; 4095])),
        Line::new("middle", Item::Symlink(vec![b'y'; 3000])),
        Line::new("char", Item::CharDevice(DeviceNumber::new(4095, 1_048_575).unwrap())),
        Line::new("block", Item::BlockDevice(DeviceNumber::new(8, 300).unwrap())),
        Line::new("fifo", Item::Fifo),
        Line::new("socket", Item::Socket),
        Line::file("removed/.wh.name", ""),
        Line::file("opaque/.wh..wh..opq", ""),
        Line::link("sticky/other-name", "setuid"),
        Line::file("attributes", "x").metadata(with_xattrs(
            metadata(0o644),
            &[
                ("user.empty", b""),
                ("user.large", &[7; 60_000]),
                ("security.other", b"\0\x01"),
                ("trusted.shared", b"the same"),
                ("system.posix_acl_access", &acl),
            ],
        )),
        Line::directory("attributes-of-a-directory")
            .metadata(with_xattrs(metadata(0o755), &[("trusted.shared", b"the same"), ("user.x", b"y")])),
    ];
    for length in [0, 1, 4095, 4096, 4097, 1 << 20] {
        lines.push(Line::new(&format!("files/{length}"), Item::File(vec![length as u8 | 1; length])));
    }
    lines.push(Line {
        path: larder_erofs::EntryPath::parse(&[0xff; 255]).unwrap(),
        ..Line::file("x", "name")
    });
    // Directories whose last block is empty, full, inline and not.
    for count in [1, 14, 15, 16, 100, 1000] {
        for index in 0..count {
            lines.push(Line::file(&format!("directories/{count}/{index:0>200}"), "x"));
        }
    }
    lines
}

/// `count` random values.
fn samples<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn written(lines: &[Line], encoding: Encoding) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    std::fs::write(&file, layer(lines, encoding).0).unwrap();
    (directory, file)
}

/// `fsck.erofs` reads every file of an image with everything, and of random ones, without a complaint.
#[test]
fn fsck_accepts_layers() {
    if !has_fsck() {
        return;
    }
    for lines in [everything(), Vec::new()].into_iter().chain(samples(random::lines(), 40)) {
        for encoding in ENCODINGS {
            let (_directory, file) = written(&lines, encoding);
            assert_fsck(&file, &[]);
        }
    }
}

/// `fsck.erofs` follows a merged image into its layers.
#[test]
fn fsck_accepts_merged_images() {
    if !has_fsck() {
        return;
    }
    let random = samples(proptest::collection::vec(random::layer_lines(), 2..5), 20);
    for layers in [vec![everything(), vec![Line::file("upper", "x")]]].into_iter().chain(random) {
        for encoding in ENCODINGS {
            let stack = Stack::new(&layers, encoding);
            assert_fsck(&stack.fsmeta, &stack.layers);
        }
    }
}

/// The kernel sees in a layer what was written: names, modes, owners, times, links, attributes, devices, contents.
#[test]
fn the_kernel_reads_layers() {
    if !can_mount() {
        return;
    }
    for lines in [everything(), Vec::new()].into_iter().chain(samples(random::lines(), 12)) {
        for encoding in ENCODINGS {
            let (_directory, file) = written(&lines, encoding);
            let mount = Mount::new(&file, &[]);
            assert_same(
                &of_directory(mount.path()),
                &of_image(&Image::open(File::open(&file).unwrap()).unwrap()),
            );
        }
    }
}

/// The kernel sees in a merged image what the layers make together: with the layers as devices, and with all joined.
#[test]
fn the_kernel_reads_merged_images() {
    if !can_mount() {
        return;
    }
    let random = samples(proptest::collection::vec(random::layer_lines(), 1..5), 10);
    let known = vec![
        everything(),
        vec![Line::file("files/4096", "short"), Line::file(".wh.directories", ""), Line::file("upper", "x")],
    ];
    for layers in [known].into_iter().chain(random) {
        for encoding in ENCODINGS {
            let stack = Stack::new(&layers, encoding);
            let expected = stack.listing();
            let mount = Mount::new(&stack.fsmeta, &stack.layers);
            assert_same(&of_directory(mount.path()), &expected);
            let mount = Mount::new(&stack.joined(), &[]);
            assert_same(&of_directory(mount.path()), &expected);
        }
    }
}

/// A directory of 100,000 entries is whole for the kernel, for `fsck.erofs` and for us, and each is found by its name.
#[test]
fn a_hundred_thousand_entries() {
    let name = |index: u32| format!("d/{}-{index}", index.wrapping_mul(2_654_435_761));
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(Encoding::Simple)).unwrap();
    for index in 0..100_000 {
        builder.add(&path(&name(index)), metadata(0o644), Entry::Fifo).unwrap();
    }
    let bytes = builder.finish().unwrap().0.into_inner();
    let image = Image::open(bytes.as_slice()).unwrap();
    assert_eq!(check(&image).unwrap(), 100_002);
    for index in (0..100_000).step_by(997) {
        assert!(image.lookup(&path(&name(index))).unwrap().is_some());
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    std::fs::write(&file, &bytes).unwrap();
    if has_fsck() {
        assert_fsck(&file, &[]);
    }
    if can_mount() {
        let mount = Mount::new(&file, &[]);
        assert_eq!(std::fs::read_dir(mount.path().join("d")).unwrap().count(), 100_000);
        for index in (0..100_000).step_by(997) {
            assert!(mount.path().join(name(index)).symlink_metadata().is_ok());
        }
    }
}

/// A file sink that leaves zeros out, so that a large image costs little.
struct Sparse(File);

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        for piece in bytes.chunks(ZEROS.len()) {
            if *piece == ZEROS[..piece.len()] {
                self.0.seek(SeekFrom::Current(piece.len() as i64))?;
            } else {
                self.0.write_all(piece)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for Sparse {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

/// Zeros up to `size`, but for a mark at each of these places.
struct Marked {
    position: u64,
    marks: Vec<u64>,
}

impl Read for Marked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(0);
        for mark in &self.marks {
            if (self.position..self.position + buffer.len() as u64).contains(mark) {
                buffer[(mark - self.position) as usize] = 0xaa;
            }
        }
        self.position += buffer.len() as u64;
        Ok(buffer.len())
    }
}

/// A file beyond 4 GiB is whole in its layer and in a merged image.
#[test]
fn files_beyond_four_gigabytes() {
    let size = (4 << 30) + 12_345;
    let marks = || vec![0, (4 << 30) - 1, 4 << 30, size - 1];
    let directory = tempfile::tempdir().unwrap();
    let [file, fsmeta] = ["layer", "fsmeta"].map(|name| directory.path().join(name));
    let mut writer =
        ImageWriter::new(Sparse(File::create(&file).unwrap()), options(Encoding::Dense)).unwrap();
    let mut data = Marked { position: 0, marks: marks() };
    writer.add(&path("large"), metadata(0o644), Entry::File { size, data: &mut data }).unwrap();
    let small = Entry::File { size: 5, data: &mut &b"after"[..] };
    writer.add(&path("small"), metadata(0o644), small).unwrap();
    let (sink, summary) = writer.finish().unwrap();
    assert_eq!(sink.0.metadata().unwrap().len(), summary.bytes());
    merge(std::slice::from_ref(&file), Encoding::Dense, &fsmeta);

    let expected = sum(&mut Marked { position: 0, marks: marks() }.take(size));
    let image =
        Image::open_with_devices(File::open(&fsmeta).unwrap(), vec![File::open(&file).unwrap()]).unwrap();
    let large = image.lookup(&path("large")).unwrap().unwrap();
    assert_eq!(image.extents(&large).unwrap().count(), 1);
    assert_eq!(sum(&mut image.data(&large).unwrap()), expected);
    if can_mount() {
        for (image, devices) in [(&file, vec![]), (&fsmeta, vec![file.clone()])] {
            let mount = Mount::new(image, &devices);
            assert_eq!(sum(&mut File::open(mount.path().join("large")).unwrap()), expected);
            assert_eq!(std::fs::read(mount.path().join("small")).unwrap(), b"after");
        }
    }
}

/// What `mkfs.erofs` made in its usual ways is read, and merged where its files lie in whole blocks: neither with inline
/// tails nor in chunks.
#[test]
fn images_of_mkfs_are_read() {
    if !has_fsck() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let place = |name: &str| source.path().join(name);
    std::fs::create_dir(place("sub")).unwrap();
    for length in [0usize, 1, 100, 4096, 5000, 100_000] {
        std::fs::write(place(&format!("sub/{length}")), vec![7; length]).unwrap();
    }
    for index in 0..500 {
        std::fs::write(place(&format!("a rather long name of a file that is empty {index}")), "").unwrap();
    }
    std::fs::hard_link(place("sub/1"), place("link")).unwrap();
    std::os::unix::fs::symlink("sub/1", place("symlink")).unwrap();
    // The file system below may not have attributes.
    let _ = rustix::fs::lsetxattr(place("sub"), "user.a", b"b", rustix::fs::XattrFlags::empty());

    let variants: [&[&str]; 4] = [
        &["-Enoinline_data"],
        &["-Eforce-inode-compact"],
        &["--chunksize=4096"],
        &["-x1", "-Enoinline_data"],
    ];
    for (index, arguments) in variants.iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("image");
        let made = std::process::Command::new("mkfs.erofs")
            .args(["-T1000", "--quiet"])
            .args(*arguments)
            .args([&file, source.path()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let image = Image::open(File::open(&file).unwrap()).unwrap();
        check(&image).unwrap();
        let found = of_image(&image);
        for (path, expected) in of_directory(source.path()) {
            let found = &found[&path];
            assert_eq!(
                (&found.content, found.kind, found.nlink),
                (&expected.content, expected.kind, expected.nlink)
            );
            assert_eq!(found.metadata.xattrs, expected.metadata.xattrs, "{path}");
        }
        let merged = Merger::new().add(&image, DeviceTag::parse("tag").unwrap());
        assert_eq!(merged.is_ok(), [true, false, false, true][index], "{arguments:?}: {merged:?}");
    }
}

/// A layer of the simple encoding has nothing that a simple reader stumbles over: extended inodes and no shared
/// attributes.
#[test]
fn simple_images_are_simple() {
    let bytes = whole_layer(&everything(), Encoding::Simple);
    let image = Image::open(bytes.as_slice()).unwrap();
    assert_eq!(image.superblock().xattr_start, image.superblock().meta_start);
    for entry in image.walk() {
        assert_eq!(entry.unwrap().inode.form(), larder_erofs::format::InodeForm::Extended);
    }
}
