//! Images that umoci makes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::judge::tool;

/// Returns a layout with an image of two layers that umoci made of changes to a file system, and the bundle of its
/// last state.
pub fn umoci_layout(directory: &Path) -> (PathBuf, PathBuf) {
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
