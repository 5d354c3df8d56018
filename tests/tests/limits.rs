//! What a load may use is bounded by what it writes: by all layers of a call together, and by holes as well.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use larder::ingest::{ImageLoad, IngestLimits, IngestProblem, LimitKey};
use larder::{ImageHandle, MicrosandboxError};
use larder_tests::archive::{Item, Packing, TestImage, digest, layer, layout_files, pack};
use larder_tests::{LoadTest, contents, entries, run};

const MIB: usize = 1 << 20;

/// Loads an image of these layers, compressed.
fn load(
    test: &LoadTest,
    layers: &[&[u8]],
    packing: Packing,
    set: impl FnOnce(&mut IngestLimits),
) -> Result<ImageHandle, MicrosandboxError> {
    let layers = layers.iter().map(|layer| layer.to_vec()).collect();
    let archive = test.archive(&layout_files(&[TestImage::new(&["acme/app:1"], layers)], packing));
    let mut limits = IngestLimits::default();
    set(&mut limits);
    let load = ImageLoad::new(archive).limits(limits);
    run(async { load.run(&test.home.open().await).await }).map(|mut handles| handles.remove(0))
}

/// Returns the limit that an image of these layers exceeds.
fn exceeded(layers: &[&[u8]], packing: Packing, set: impl FnOnce(&mut IngestLimits)) -> LimitKey {
    let test = LoadTest::new();
    let error = load(&test, layers, packing, set).expect_err("a limit");
    assert!(contents(&test.home).is_empty(), "{error}");
    match &error {
        MicrosandboxError::Ingest(error) => match error.problem() {
            IngestProblem::Limit { key, .. } => *key,
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

fn artifact(test: &LoadTest, layer: &[u8]) -> Metadata {
    let name = format!("{}.erofs", digest(layer).replace(':', "_"));
    test.home.cache().join("layers").join(name).metadata().expect("an artifact")
}

/// A file of zeros loads whatever its ratio, takes no disk, and reads as it was. Files beside it do as well.
#[test]
fn zeros_take_no_disk() {
    let zeros = layer(&[
        Item::File("before", b"before"),
        Item::File("zeros", &vec![0; 24 * MIB]),
        Item::File("mixed", &[&[0; 70_000][..], &[7; 70_000], &[0; 70_000]].concat()),
        Item::File("behind", b"behind"),
    ]);
    for packing in [Packing::Gzip, Packing::Zstd, Packing::Plain] {
        let test = LoadTest::new();
        let handle = load(&test, &[&zeros], packing, |limits| {
            (limits.ratio, limits.ratio_from_bytes) = (1, MIB as u64);
        })
        .expect("loaded");
        let seen = entries(&test.home, handle.manifest_digest().expect("a manifest"), &[digest(&zeros)]);
        let content = |name: &str| seen[name].content.clone();
        assert_eq!(content("zeros"), digest(&vec![0; 24 * MIB]));
        assert_eq!(content("mixed"), digest(&[&[0; 70_000][..], &[7; 70_000], &[0; 70_000]].concat()));
        assert_eq!((content("before"), content("behind")), (digest(b"before"), digest(b"behind")));
        let artifact = artifact(&test, &zeros);
        assert!(artifact.len() > 24 * MIB as u64, "{}", artifact.len());
        assert!(artifact.blocks() * 512 < MIB as u64, "{} blocks", artifact.blocks());
    }
}

/// Bytes that compress well count for all layers of a call together: each of these layers alone is within the limits.
#[test]
fn the_ratio_counts_for_a_call() {
    let layers = [b'a', b'b', b'c'].map(|byte| layer(&[Item::File("data", &vec![byte; 4 * MIB])]));
    let set = |limits: &mut IngestLimits| (limits.ratio, limits.ratio_from_bytes) = (10, 9 * MIB as u64);
    let layers = layers.each_ref().map(Vec::as_slice);
    load(&LoadTest::new(), &layers[..2], Packing::Gzip, set).expect("within the limit");
    assert_eq!(exceeded(&layers, Packing::Gzip, set), LimitKey::RatioFromBytes);
    // They have no ratio where they are not compressed.
    load(&LoadTest::new(), &layers, Packing::Plain, set).expect("within the limit");
}

/// The bytes of all layers of a call together are bounded, compressed or not.
#[test]
fn the_bytes_of_a_call() {
    let layers = [b'a', b'b', b'c'].map(|byte| layer(&[Item::File("data", &vec![byte; MIB])]));
    let layers = layers.each_ref().map(Vec::as_slice);
    let set = |limits: &mut IngestLimits| limits.call_bytes = 5 * MIB as u64 / 2;
    load(&LoadTest::new(), &layers[..2], Packing::Plain, set).expect("within the limit");
    assert_eq!(exceeded(&layers, Packing::Plain, set), LimitKey::CallBytes);
}

/// Makes a layer with a sparse file of GNU that is one hole.
fn hole(size: u64) -> Vec<u8> {
    let mut content = layer(&[Item::Raw("hole", b'S', b"")]);
    let size = [&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat();
    content[257..265].copy_from_slice(b"ustar  \0");
    // One region without bytes at the end, and the size with the hole.
    content[386..398].copy_from_slice(&size);
    content[398..410].copy_from_slice(b"00000000000\0");
    content[483..495].copy_from_slice(&size);
    content[148..156].fill(b' ');
    let sum: u32 = content[..512].iter().map(|&byte| u32::from(byte)).sum();
    content[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    content
}

/// Holes count: a small archive with a sparse file of 20 GiB is refused by default, before anything of it is written, and one
/// of 100 MiB loads and takes no disk.
#[test]
fn holes_count() {
    for packing in [Packing::Plain, Packing::Gzip] {
        assert_eq!(exceeded(&[&hole(20 << 30)], packing, |_| {}), LimitKey::RatioFromZeros);
    }
    assert_eq!(exceeded(&[&hole(100 << 30)], Packing::Plain, |_| {}), LimitKey::LayerBytes);
    let test = LoadTest::new();
    let content = hole(100 << 20);
    let handle = load(&test, &[&content], Packing::Plain, |_| {}).expect("loaded");
    let seen = entries(&test.home, handle.manifest_digest().expect("a manifest"), &[digest(&content)]);
    assert_eq!(seen["hole"].content, digest(&vec![0; 100 * MIB]));
    assert!(artifact(&test, &content).blocks() * 512 < MIB as u64);
}

/// Zeros that follow the archive of a layer count too, although nothing is made of them.
#[test]
fn zeros_behind_the_archive_count() {
    let content = [layer(&[Item::File("a", b"a")]), vec![0; 4 * MIB]].concat();
    let set = |limits: &mut IngestLimits| (limits.ratio, limits.ratio_from_zeros) = (10, MIB as u64);
    assert_eq!(exceeded(&[&content], Packing::Gzip, set), LimitKey::RatioFromZeros);
}

/// An archive that is compressed as a whole counts in the same way, also where it holds no image.
#[test]
fn compressed_archives_count() {
    let exceeded = |archive: &[u8]| {
        let test = LoadTest::new();
        let mut limits = IngestLimits::default();
        (limits.ratio, limits.ratio_from_bytes, limits.ratio_from_zeros) = (10, MIB as u64, 8 * MIB as u64);
        let load = ImageLoad::new(test.file("archive.tar", &pack(archive, Packing::Gzip))).limits(limits);
        let error = run(async { load.run(&test.home.open().await).await }).expect_err("refused");
        error.to_string().rsplit_once("limit of ").map(|(_, limit)| limit.to_owned())
    };
    let limit = |text: &str| Some(format!("{text}, beyond the ratio to their compressed size"));
    let tar = |byte: u8, size: usize| layer(&[Item::File("data", &vec![byte; size])]);
    assert_eq!(
        exceeded(&tar(7, 4 * MIB)),
        Some("1048576 bytes that layers write beyond the ratio to their compressed size".to_owned())
    );
    assert_eq!(exceeded(&tar(0, 16 * MIB)), limit("8388608 bytes that layers have, zeros among them"));
    // Within the limits it is read, and is no image.
    assert_eq!(exceeded(&tar(0, 4 * MIB)), None);
}
