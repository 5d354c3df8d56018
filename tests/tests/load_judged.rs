//! What other tools write is loaded, and what the kernel then shows is what they themselves make of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use larder::{Image, ImageHandle};
use larder_tests::judge::{Mount, can_mount, has_tools, tool, walk};
use larder_tests::{Home, run};

fn load(home: &Home, input: &Path, tags: &[&str]) -> ImageHandle {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let loaded = run(async { Image::load_local(&home.open().await, input, tags).await });
    let mut handles = loaded.unwrap_or_else(|error| panic!("{}: {error}", input.display()));
    assert_eq!(handles.len(), 1, "{handles:?}");
    handles.remove(0)
}

/// A layout with an image of two layers that umoci made of changes to a file system, and the bundle of its last state.
fn umoci_layout(directory: &Path) -> (PathBuf, PathBuf) {
    let layout = directory.join("layout");
    let image = format!("{}:latest", layout.display());
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    tool("umoci", ["init", "--layout", &text(&layout)]);
    tool("umoci", ["new", "--image", &image]);
    for (number, change) in [first_layer as fn(&Path), second_layer].into_iter().enumerate() {
        let bundle = directory.join(format!("bundle{number}"));
        tool("umoci", ["unpack", "--image", &image, &text(&bundle)]);
        change(&bundle.join("rootfs"));
        tool("umoci", ["repack", "--image", &image, &text(&bundle)]);
    }
    let last = directory.join("last");
    tool("umoci", ["unpack", "--image", &image, &text(&last)]);
    (layout, last.join("rootfs"))
}

fn first_layer(root: &Path) {
    for directory in ["etc", "usr/bin", "deep/er/still", "gone/inside", "opaque/old"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    for (name, content) in [
        ("etc/motd", &b"hello\n"[..]),
        ("etc/removed", b"x"),
        ("usr/bin/tool", &[7; 70_000]),
        ("usr/bin/empty", b""),
        ("gone/inside/file", b"x"),
        ("opaque/old/file", b"x"),
        ("caf\u{e9}", b"not ASCII"),
    ] {
        fs::write(root.join(name), content).expect("a file");
    }
    fs::set_permissions(root.join("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    std::os::unix::fs::chown(root.join("etc/motd"), Some(12), Some(34)).expect("an owner");
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/same")).expect("a link");
    symlink("../../bin/tool", root.join("deep/er/link")).expect("a link");
    symlink("/nowhere", root.join(format!("deep/{}", "l".repeat(200)))).expect("a link");
    fs::write(root.join("n".repeat(255)), b"a long name").expect("a file");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("etc/motd"), "user.larder", b"value", flags).expect("an attribute");
    tool("mkfifo", [root.join("deep/fifo")]);
    tool("mknod", [root.join("deep/null").as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]);
}

fn second_layer(root: &Path) {
    fs::remove_file(root.join("etc/removed")).expect("removed");
    fs::remove_dir_all(root.join("gone")).expect("removed");
    fs::remove_dir_all(root.join("opaque")).expect("removed");
    fs::create_dir(root.join("opaque")).expect("a directory");
    fs::write(root.join("opaque/new"), b"new").expect("a file");
    fs::write(root.join("usr/bin/empty"), b"no longer").expect("a file");
    fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o700)).expect("a mode");
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
