//! A verification finds what is wrong with an artifact, says it of that file alone, and of sound ones nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use larder::maintenance::{FindingKind, VerifyDepth, VerifyReport};
use larder::{Image, ImageArchiveFormat};
use larder_erofs::EntryPath;
use larder_erofs::format::{BLOCK_SIZE, Superblock, feature_compat};
use larder_tests::archive::{TestImage, docker_files};
use larder_tests::{LoadTest, contents, run};
use rustix::fs::{CWD, Mode, mkfifoat};

/// A home with one image of two layers.
struct Loaded {
    test: LoadTest,
    layers: Vec<String>,
    sound: BTreeMap<String, Vec<u8>>,
}

impl Loaded {
    fn new() -> Self {
        let test = LoadTest::new();
        let image = TestImage::small(&["acme/app:1"]);
        test.load(&test.archive(&docker_files(std::slice::from_ref(&image))), &[]).expect("loaded");
        let layers =
            image.diff_ids().iter().map(|id| format!("layers/{}.erofs", id.replace(':', "_"))).collect();
        let sound = contents(&test.home);
        Self { test, layers, sound }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.test.home.cache().join(name)
    }

    /// The one file of a room.
    fn only(&self, room: &str) -> String {
        let mut names = self.sound.keys().filter(|name| name.starts_with(room));
        let (name, more) = (names.next().expect("a file"), names.next());
        assert_eq!(more, None);
        name.clone()
    }

    fn verify(&self, depth: VerifyDepth) -> VerifyReport {
        run(async { self.test.home.open().await.verify(depth).await }).expect("a report")
    }

    /// What is found when a file is changed as told; it is sound again afterwards.
    fn found(
        &self,
        name: &str,
        depth: VerifyDepth,
        change: impl FnOnce(&Path),
    ) -> Vec<(String, FindingKind)> {
        let path = self.path(name);
        change(&path);
        let report = self.verify(depth);
        assert!(report.problems.is_empty() && report.skipped.is_empty(), "{report:?}");
        let finding =
            |finding: &larder::maintenance::Finding| (finding.path.display().to_string(), finding.kind);
        let found = report.findings.iter().map(finding).collect();
        if let Ok(there) = path.symlink_metadata() {
            if there.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.expect("taken away");
        }
        fs::write(&path, &self.sound[name]).expect("sound again");
        found
    }

    /// What is found when the bytes of a file are changed as told.
    fn found_in(
        &self,
        name: &str,
        depth: VerifyDepth,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Vec<(String, FindingKind)> {
        let mut bytes = self.sound[name].clone();
        change(&mut bytes);
        self.found(name, depth, |path| fs::write(path, bytes).expect("written"))
    }
}

/// Changes the superblock of an image, and makes its checksum right, which it need not be.
fn with_superblock(image: &mut [u8], change: impl FnOnce(&mut Superblock)) {
    let block: &mut [u8; BLOCK_SIZE] = image.first_chunk_mut().expect("a block");
    let has_checksum = feature_compat::CHECKSUM as u8;
    block[1024 + 8] &= !has_checksum;
    let mut superblock = Superblock::parse(block).expect("a superblock");
    superblock.feature_compat |= feature_compat::CHECKSUM;
    change(&mut superblock);
    superblock.encode(block);
}

/// The two slots of a device table, which begins behind the superblock.
fn slots(image: &mut [u8]) -> [&mut [u8]; 2] {
    let (first, second) = image[1152..1152 + 2 * 128].split_at_mut(128);
    [first, second]
}

/// A file that is cut, longer or shorter than it says, of another kind or no file at all is found for what it is, and
/// nothing else is.
#[test]
fn one_file() {
    let loaded = Loaded::new();
    let layer = loaded.layers[0].as_str();
    let shallow = VerifyDepth::Shallow;
    let only = |name: &str, kind| vec![(name.to_owned(), kind)];
    for name in [layer, &loaded.only("fsmeta")] {
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - BLOCK_SIZE);
        assert_eq!(loaded.found_in(name, shallow, cut), only(name, FindingKind::WrongSize));
        assert_eq!(loaded.found_in(name, shallow, Vec::clear), only(name, FindingKind::WrongSize));
        let more = |bytes: &mut Vec<u8>| bytes.extend([0; BLOCK_SIZE]);
        assert_eq!(loaded.found_in(name, shallow, more), only(name, FindingKind::WrongSize));
        let says_more = |bytes: &mut Vec<u8>| with_superblock(bytes, |superblock| superblock.blocks += 1);
        assert_eq!(loaded.found_in(name, shallow, says_more), only(name, FindingKind::WrongSize));
        let magic = |bytes: &mut Vec<u8>| bytes[1024] ^= 1;
        assert_eq!(loaded.found_in(name, shallow, magic), only(name, FindingKind::WrongMagic));
        let checksum = |bytes: &mut Vec<u8>| bytes[1024 + 4] ^= 1;
        assert_eq!(loaded.found_in(name, shallow, checksum), only(name, FindingKind::Damaged));
        let root = |bytes: &mut Vec<u8>| with_superblock(bytes, |superblock| superblock.root_nid = u16::MAX);
        assert_eq!(loaded.found_in(name, shallow, root), only(name, FindingKind::Damaged));
    }
    let (vmdk, metadata) = (loaded.only("vmdk"), loaded.only("manifests"));
    for name in [layer, &loaded.only("fsmeta"), &vmdk, &metadata] {
        let lost = |path: &Path| fs::remove_file(path).expect("taken away");
        assert_eq!(loaded.found(name, shallow, lost), only(name, FindingKind::Missing));
        let replaced = |with: fn(&Path)| {
            move |path: &Path| {
                fs::remove_file(path).expect("taken away");
                with(path);
            }
        };
        let link = replaced(|path| symlink("/dev/zero", path).expect("a link"));
        assert_eq!(loaded.found(name, shallow, link), only(name, FindingKind::NotAFile));
        let pipe = replaced(|path| mkfifoat(CWD, path, Mode::RUSR).expect("a pipe"));
        assert_eq!(loaded.found(name, VerifyDepth::Deep, pipe), only(name, FindingKind::NotAFile));
        let directory = replaced(|path| fs::create_dir(path).expect("a directory"));
        assert_eq!(loaded.found(name, shallow, directory), only(name, FindingKind::NotAFile));
    }
    let text = |bytes: &mut Vec<u8>| *bytes = b"#".repeat(320);
    assert_eq!(loaded.found_in(&vmdk, shallow, text), only(&vmdk, FindingKind::WrongMagic));
    assert_eq!(loaded.found_in(&metadata, shallow, text), only(&metadata, FindingKind::WrongMagic));
    let endless = |path: &Path| {
        File::options().write(true).open(path).and_then(|file| file.set_len(1 << 40)).expect("a long file");
    };
    assert_eq!(loaded.found(&metadata, shallow, endless), only(&metadata, FindingKind::WrongSize));
    assert!(loaded.verify(VerifyDepth::Deep).findings.is_empty(), "and sound ones are");
}

/// A damaged inode, and metadata that has not the digest that it says, are found by whoever reads everything.
#[test]
fn only_deep() {
    let loaded = Loaded::new();
    let metadata = loaded.only("manifests");
    for name in [loaded.layers[0].clone(), loaded.only("fsmeta")] {
        let bytes = loaded.sound[&name].as_slice();
        let image = larder_erofs::reader::Image::open(bytes).expect("an image");
        let inode =
            image.lookup(&EntryPath::parse(b"etc/motd").expect("a path")).expect("read").expect("there");
        let start = image.superblock().meta_start.0 as usize * BLOCK_SIZE + inode.nid().0 as usize * 32;
        let damage = |bytes: &mut Vec<u8>| {
            // The mode says what kind of file it is: none.
            bytes[start + 4..start + 6].fill(0);
            with_superblock(bytes, |_| {});
        };
        assert_eq!(loaded.found_in(&name, VerifyDepth::Shallow, damage), []);
        let found = loaded.found_in(&name, VerifyDepth::Deep, damage);
        assert_eq!(found, [(name, FindingKind::Damaged)]);
    }
    let edited = |bytes: &mut Vec<u8>| {
        let text = String::from_utf8(std::mem::take(bytes)).expect("text");
        *bytes = text.replace("SIGINT", "SIGHUP").into_bytes();
    };
    assert_eq!(loaded.found_in(&metadata, VerifyDepth::Shallow, edited), []);
    let found = loaded.found_in(&metadata, VerifyDepth::Deep, edited);
    assert_eq!(found, [(metadata, FindingKind::WrongDigest)]);
}

/// What joins the layers of an image is compared with them: a device table or descriptor with layers of another number,
/// order, length or place is found, and one without tags, as microsandbox writes it, is none.
#[test]
fn layers_that_do_not_fit() {
    let loaded = Loaded::new();
    let (fsmeta, vmdk) = (loaded.only("fsmeta"), loaded.only("vmdk"));
    let joined = |change: &dyn Fn(&mut Vec<u8>)| {
        loaded.found_in(&fsmeta, VerifyDepth::Shallow, |bytes| {
            change(bytes);
            with_superblock(bytes, |_| {});
        })
    };
    let wrong = [(fsmeta.clone(), FindingKind::WrongLayers)];
    let untag = |bytes: &mut Vec<u8>| slots(bytes).into_iter().for_each(|slot| slot[..64].fill(0));
    let swap = |bytes: &mut Vec<u8>| {
        let [first, second] = slots(bytes);
        first.swap_with_slice(second);
    };
    assert_eq!(joined(&swap), wrong);
    assert_eq!(joined(&untag), []);
    let both = |bytes: &mut Vec<u8>| {
        swap(bytes);
        untag(bytes);
    };
    assert_eq!(joined(&both), wrong);
    assert_eq!(joined(&|bytes| slots(bytes)[1][64] += 1), wrong);
    assert_eq!(joined(&|bytes| slots(bytes)[1][68] += 1), wrong);
    assert_eq!(joined(&|bytes| with_superblock(bytes, |superblock| superblock.extra_devices = 1)), wrong);

    let described = |change: &dyn Fn(&str) -> String| {
        loaded.found_in(&vmdk, VerifyDepth::Shallow, |bytes| {
            *bytes = change(std::str::from_utf8(bytes).expect("text")).into_bytes();
        })
    };
    let wrong = |kind| [(vmdk.clone(), kind)];
    let swap = |text: &str| {
        let mut lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("RW ")).expect("an extent");
        lines.swap(at + 1, at + 2);
        lines.join("\n")
    };
    let cache = loaded.test.home.cache().canonicalize().expect("the cache");
    let moved = |text: &str| text.replace(&*cache.to_string_lossy(), "/elsewhere");
    let cut = |text: &str| {
        let mut extents = text.lines().filter(|line| line.starts_with("RW "));
        text.replace(extents.next_back().expect("an extent"), "")
    };
    let longer = |text: &str| text.replacen("RW ", "RW 1", 1);
    let gap = |text: &str| text.replacen("\" 0\n", "\" 8\n", 1);
    assert_eq!(described(&swap), wrong(FindingKind::WrongLayers));
    assert_eq!(described(&moved), wrong(FindingKind::WrongLayers));
    assert_eq!(described(&cut), wrong(FindingKind::WrongLayers));
    assert_eq!(described(&longer), wrong(FindingKind::WrongLayers));
    assert_eq!(described(&gap), wrong(FindingKind::Damaged));
}

/// A length that the index remembers of an artifact that was built again is believed neither by a verification nor by a
/// save; that of a damaged one is found by both.
#[test]
fn the_superblock_says_how_long_an_image_is() {
    let loaded = Loaded::new();
    loaded.test.home.execute("UPDATE layer SET erofs_size_bytes = erofs_size_bytes + 4096");
    assert!(loaded.verify(VerifyDepth::Deep).findings.is_empty());
    let save = || {
        let references = ["acme/app:1".to_owned()];
        let output = loaded.test.path("saved.tar");
        run(async {
            let local = loaded.test.home.open().await;
            Image::save_local(&local, &references, &output, ImageArchiveFormat::Docker).await
        })
    };
    save().expect("saved");
    let cut = |path: &Path| {
        let file = File::options().write(true).open(path).expect("the layer");
        file.set_len(BLOCK_SIZE as u64).expect("cut");
        save().expect_err("damaged");
    };
    let found = loaded.found(&loaded.layers[0], VerifyDepth::Shallow, cut);
    assert_eq!(found, [(loaded.layers[0].clone(), FindingKind::WrongSize)]);
}

/// An image that was made as a flat disk alone has neither fsmeta image nor descriptor, and misses neither.
#[test]
fn flat_images() {
    let loaded = Loaded::new();
    let (fsmeta, vmdk) = (loaded.only("fsmeta"), loaded.only("vmdk"));
    let missing = |names: &[&String]| {
        names.iter().map(|&name| (name.clone(), FindingKind::Missing)).collect::<Vec<_>>()
    };
    let found = || {
        let report = loaded.verify(VerifyDepth::Shallow);
        let kinds = report.findings.iter().map(|finding| (finding.path.display().to_string(), finding.kind));
        kinds.collect::<Vec<_>>()
    };
    fs::remove_file(loaded.path(&fsmeta)).expect("lost");
    fs::remove_file(loaded.path(&vmdk)).expect("lost");
    assert_eq!(found(), missing(&[&fsmeta, &vmdk]));
    let record = fsmeta.replace("fsmeta/", "flat/refs/").replace(".erofs", ".json");
    fs::create_dir_all(loaded.path("flat/refs")).expect("a directory");
    fs::write(loaded.path(&record), "{}").expect("a record");
    assert_eq!(found(), []);
    fs::write(loaded.path(&fsmeta), &loaded.sound[&fsmeta]).expect("sound again");
    assert_eq!(found(), missing(&[&vmdk]));
}

/// A damaged file that somebody holds is skipped, and named as such, for as long as it is held.
#[test]
fn what_is_held_is_skipped() {
    let loaded = Loaded::new();
    let layer = &loaded.layers[0];
    File::options().write(true).open(loaded.path(layer)).and_then(|file| file.set_len(100)).expect("cut");
    let lease = loaded.test.home.lease("layers", layer.trim_start_matches("layers/"));
    let report = loaded.verify(VerifyDepth::Shallow);
    assert_eq!(report.skipped, [Path::new(layer)]);
    assert!(report.findings.is_empty(), "{report:?}");
    drop(lease);
    let report = loaded.verify(VerifyDepth::Shallow);
    assert!(report.skipped.is_empty(), "{report:?}");
    assert_eq!(report.findings.len(), 1);
}
