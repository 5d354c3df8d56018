//! What other tools write is loaded, and what the kernel then shows is what they themselves make of it.

use std::path::{Path, PathBuf};

use larder::{Image, ImageHandle};
use larder_tests::archive::{Item, Packing, TestImage, layer, layout_files, write_directory};
use larder_tests::judge::{Mount, can_mount, has_tools, tool, walk};
use larder_tests::{Home, run, umoci_layout};

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
