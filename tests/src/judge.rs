//! Other programs and the kernel as judges of results. If a program is missing, the test prints that it is skipped and
//! passes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The beginning of the line that [`has_tools`] prints for a skipped test. `cargo xtask test` counts these lines.
pub const SKIPPED: &str = "skipped: ";

/// Returns whether these programs are installed. Prints that the test is skipped if one is missing.
pub fn has_tools(names: &[&str]) -> bool {
    let missing = names.iter().find(|name| Command::new(name).arg("--version").output().is_err());
    if let Some(name) = missing {
        eprintln!("{SKIPPED}`{name}` is not installed");
    }
    missing.is_none()
}

/// Returns whether images can be mounted here. Prints that the test is skipped if they cannot.
pub fn can_mount() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "mounting needs root"
    } else if !fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("erofs")) {
        "the kernel does not know EROFS"
    } else if !Path::new("/dev/loop-control").exists() {
        "there are no loop devices"
    } else {
        return true;
    };
    eprintln!("{SKIPPED}{why}");
    false
}

/// Runs a program to its end, and returns its output.
///
/// # Panics
/// Panics if the program fails, because the test cannot continue.
#[track_caller]
pub fn tool<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(name);
    let output = command.args(arguments).output().expect("the program ran");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A mounted EROFS image with its devices. Drop unmounts everything.
#[derive(Debug)]
pub struct Mount {
    directory: TempDir,
    loops: Vec<String>,
}

impl Mount {
    /// Mounts an image with its devices.
    #[track_caller]
    pub fn new(image: &Path, devices: &[PathBuf]) -> Self {
        let mut mount = Self { directory: tempfile::tempdir().expect("a directory"), loops: Vec::new() };
        let mut options = String::from("ro");
        for device in devices {
            options += &format!(",device={}", mount.attach(device));
        }
        let disk = mount.attach(image);
        let place = mount.path().to_str().expect("a path in UTF-8").to_owned();
        tool("mount", ["-t", "erofs", "-o", &options, &disk, &place]);
        mount
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    #[track_caller]
    fn attach(&mut self, file: &Path) -> String {
        let arguments = ["--find", "--show", "--read-only"].map(OsStr::new);
        let name = tool("losetup", arguments.into_iter().chain([file.as_os_str()]));
        self.loops.push(name.trim().to_owned());
        name.trim().to_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
        for device in &self.loops {
            let _ = Command::new("losetup").args(["--detach", device]).output();
        }
    }
}

/// Returns everything below a directory, with the kernel's records: kind, mode, owners, time, link count, device,
/// extended attributes, content. The directory itself is left out.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("its metadata");
            let kind = metadata.file_type();
            if kind.is_dir() {
                pending.push(path.clone());
            }
            let content = if kind.is_symlink() {
                format!("{:?}", fs::read_link(&path).expect("a target"))
            } else if kind.is_file() {
                crate::archive::digest(&fs::read(&path).expect("a file"))
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("device {:x}", metadata.rdev())
            } else {
                String::new()
            };
            // How many directories are in a directory is counted differently by each file system.
            let links = if kind.is_dir() { 0 } else { metadata.nlink() };
            let line = format!(
                "{:o} {}:{} {}.{:09} links {links} {:?} {content}",
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                xattrs(&path),
            );
            found.insert(path.strip_prefix(root).expect("below").to_owned(), line);
        }
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names).expect("a list of attributes");
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value).expect("an attribute");
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}
