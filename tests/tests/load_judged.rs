//! What other tools write is loaded, and what the kernel then shows is what they themselves make of it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use larder::{Image, ImageHandle};
use larder_tests::archive::{
    Item, Packing, TestImage, digest, docker_files, layer, layout_files, write_directory,
};
use larder_tests::judge::{Mount, can_mount, has_tools, tool, walk};
use larder_tests::{Home, LoadTest, entries, run, umoci_layout};

fn load(home: &Home, input: &Path, tags: &[&str]) -> ImageHandle {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let loaded = run(async { Image::load_local(&home.open().await, input, tags).await });
    let mut handles = loaded.unwrap_or_else(|error| panic!("{}: {error}", input.display()));
    assert_eq!(handles.len(), 1, "{handles:?}");
    handles.remove(0)
}

/// Names, modes, owners, times, link counts, devices, extended attributes and contents of a mounted image are those of
/// the tree that umoci unpacks from the same layers.
#[test]
fn the_kernel_shows_what_umoci_unpacks() {
    if !has_tools(&["umoci"]) || !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (layout, unpacked) = umoci_layout(directory.path());
    let home = Home::made();
    let handle = load(&home, &layout, &["acme/app:1"]);
    let detail =
        run(async { Image::inspect_local(&home.open().await, "acme/app:1").await }).expect("the image");
    let name = |digest: &str| format!("{}.erofs", digest.replace(':', "_"));
    let layers: Vec<PathBuf> =
        detail.layers.iter().map(|layer| home.cache().join("layers").join(name(&layer.diff_id))).collect();
    assert_eq!(layers.len(), 2);
    let fsmeta = home.cache().join("fsmeta").join(name(handle.manifest_digest().expect("a manifest")));
    let mount = Mount::new(&fsmeta, &layers);
    let (seen, expected) = (walk(mount.path()), walk(&unpacked));
    assert!(expected.len() > 15, "{expected:?}");
    for (path, line) in &expected {
        assert_eq!(seen.get(path), Some(line), "{}", path.display());
    }
    assert_eq!(seen.len(), expected.len(), "{:?}", seen.keys());
}

/// Layers with absolute names, entries below links of the same layer, holes and zeros are for the kernel what umoci unpacks
/// of them, and `fsck.erofs` finds nothing to say against them.
#[test]
fn odd_layers_are_what_umoci_unpacks() {
    if !has_tools(&["umoci", "fsck.erofs"]) || !can_mount() {
        return;
    }
    let lower = layer(&[
        Item::Dir("/"),
        Item::Dir("/usr"),
        Item::Dir("/usr/lib"),
        Item::Symlink("/lib", "usr/lib"),
        Item::File("lib/a", b"a"),
        Item::HardLink("/lib/same", "lib/a"),
        Item::File("//usr//lib/gone", b"x"),
        Item::Dir("etc"),
        Item::Symlink("usr/up", "../../../etc"),
        Item::File("usr/up/x", b"x"),
        Item::File("zeros", &[0; 1 << 20]),
        Item::File("mixed", &[&[7; 5000][..], &[0; 100_000], &[7; 5000]].concat()),
    ]);
    let upper = layer(&[Item::Dir("usr"), Item::Dir("usr/lib"), Item::File("/usr/lib/.wh.gone", b"")]);
    let directory = tempfile::tempdir().expect("a directory");
    let layout = directory.path().join("layout");
    let image = TestImage::new(&["latest"], vec![lower, upper]);
    write_directory(&layout, &layout_files(std::slice::from_ref(&image), Packing::Gzip));
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let bundle = directory.path().join("bundle");
    tool("umoci", ["unpack", "--image", &format!("{}:latest", layout.display()), &text(&bundle)]);
    let home = Home::made();
    let handle = load(&home, &layout, &["acme/app:1"]);
    let name = |digest: &str| format!("{}.erofs", digest.replace(':', "_"));
    let layers: Vec<PathBuf> =
        image.diff_ids().iter().map(|diff_id| home.cache().join("layers").join(name(diff_id))).collect();
    for layer in &layers {
        let said = tool("fsck.erofs", [layer]);
        assert!(!said.contains("<E>"), "{said}");
    }
    let fsmeta = home.cache().join("fsmeta").join(name(handle.manifest_digest().expect("a manifest")));
    let mount = Mount::new(&fsmeta, &layers);
    let (seen, expected) = (walk(mount.path()), walk(&bundle.join("rootfs")));
    for (path, line) in &expected {
        // Other file systems have no mode of a link, and these links have that of files.
        let line = line.replacen("120777", "120644", 1);
        assert_eq!(seen.get(path), Some(&line), "{}", path.display());
    }
    assert_eq!(seen.len(), expected.len(), "{:?}", seen.keys());
}

/// `fsck.erofs` finds nothing to say against what is made of layers of other tools.
#[test]
fn fsck_agrees() {
    if !has_tools(&["umoci", "fsck.erofs"]) || !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (layout, _) = umoci_layout(directory.path());
    let home = Home::made();
    load(&home, &layout, &["acme/app:1"]);
    for name in home.files("layers") {
        let said = tool("fsck.erofs", [home.cache().join("layers").join(name)]);
        assert!(!said.contains("<E>"), "{said}");
    }
}

/// An archive and a layout that skopeo copied are loaded, with the same layers as the original.
#[test]
fn skopeo_copies() {
    if !has_tools(&["umoci", "skopeo"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (layout, _) = umoci_layout(directory.path());
    // The layout of an image that was never given an architecture says that of its maker.
    let source = format!("oci:{}:latest", layout.display());
    let home = Home::made();
    load(&home, &layout, &["acme/app:layout"]);
    let layers = home.files("layers");
    for (format, tag) in [("docker-archive", "acme/app:docker"), ("oci-archive", "acme/app:oci")] {
        let archive = directory.path().join(format);
        let target = format!("{format}:{}:{tag}", archive.display());
        tool("skopeo", ["--insecure-policy", "copy", "--quiet", &source, &target]);
        let handle = load(&home, &archive, &[]);
        assert_eq!(handle.reference(), format!("docker.io/{tag}"));
        assert_eq!(home.files("layers"), layers, "{format}");
    }
}

/// A file with holes and long names are what GNU tar archived, in each of its formats.
#[test]
fn formats_of_gnu_tar() {
    if !has_tools(&["tar"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("root");
    let long = ["d".repeat(100), "f".repeat(140)].join("/");
    fs::create_dir_all(root.join(&long).parent().expect("a parent")).expect("a directory");
    fs::write(root.join(&long), "long").expect("a file");
    // More regions than have room in a header and in the first block behind it.
    let holes = fs::File::create(root.join("holes")).expect("a file");
    for region in 0..40_u64 {
        holes.write_all_at(&[region as u8; 4096], region * 64 * 1024).expect("written");
    }
    holes.set_len(40 * 64 * 1024 + 1000).expect("a length");
    let content = digest(&fs::read(root.join("holes")).expect("a file"));
    let short = ["--exclude", "d*"];
    for options in [
        &["--format=v7", short[0], short[1]][..],
        &["--format=ustar", short[0], short[1]],
        &["--format=oldgnu", "--sparse"],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        let archive = directory.path().join("layer.tar");
        let place = [root.as_os_str(), archive.as_os_str()].map(|path| path.to_str().expect("UTF-8"));
        let arguments = ["--create", "--directory", place[0], "--file", place[1]];
        tool("tar", arguments.into_iter().chain(options.iter().copied()).chain(["."]));
        let layer = fs::read(&archive).expect("the archive");
        // The formats of sparse files leave the holes out.
        assert_eq!(layer.len() < 1 << 20, options.contains(&"--sparse"), "{options:?}");
        let test = LoadTest::new();
        let diff_id = digest(&layer);
        let image = TestImage::new(&["acme/app:1"], vec![layer]);
        let handles = test.load(&test.archive(&docker_files(&[image])), &[]).expect("loaded");
        let seen = entries(&test.home, handles[0].manifest_digest().expect("a manifest"), &[diff_id]);
        assert_eq!(seen["holes"].content, content, "{options:?}");
        if !options.contains(&short[0]) {
            assert_eq!(seen[&long].content, digest(b"long"), "{options:?}");
        }
    }
}
