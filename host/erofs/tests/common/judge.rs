//! The judges: `fsck.erofs`, and the kernel. Where they are missing, a test says so and passes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Says that a test is skipped, and why.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Whether `fsck.erofs` is installed. Says that the test is skipped if not.
pub(crate) fn has_fsck() -> bool {
    let found = Command::new("fsck.erofs").arg("-V").output().is_ok();
    if !found {
        skipped("`fsck.erofs` is not installed (Debian: erofs-utils)");
    }
    found
}

/// Asserts that `fsck.erofs` finds nothing to say against an image.
#[track_caller]
pub(crate) fn assert_fsck(image: &Path, devices: &[PathBuf]) {
    let mut command = Command::new("fsck.erofs");
    for device in devices {
        let mut argument = OsString::from("--device=");
        argument.push(device);
        command.arg(argument);
    }
    let output = command.arg("--extract").arg(image).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("<E>"), "{}: {said}", image.display());
}

/// Whether images can be mounted here. Says that the test is skipped if not.
pub(crate) fn can_mount() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "mounting needs root"
    } else if !std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("erofs")) {
        "the kernel does not know EROFS"
    } else if !Path::new("/dev/loop-control").exists() {
        "there are no loop devices"
    } else {
        return true;
    };
    skipped(why);
    false
}

/// A mounted image, with the loop devices below it. Dropping it takes both away.
#[derive(Debug)]
pub(crate) struct Mount {
    directory: TempDir,
    loops: Vec<PathBuf>,
}

impl Mount {
    /// Mounts `image` with `devices`.
    #[track_caller]
    pub(crate) fn new(image: &Path, devices: &[PathBuf]) -> Self {
        let mut mount = Self { directory: tempfile::tempdir().unwrap(), loops: Vec::new() };
        let mut options = String::from("ro");
        for device in devices {
            options += &format!(",device={}", mount.attach(device).display());
        }
        let disk = mount.attach(image);
        run(Command::new("mount").args(["-t", "erofs", "-o", &options]).arg(disk).arg(mount.path()));
        mount
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    #[track_caller]
    fn attach(&mut self, file: &Path) -> PathBuf {
        let name = run(Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(file));
        let device = PathBuf::from(name.trim());
        self.loops.push(device.clone());
        device
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
        for device in &self.loops {
            let _ = Command::new("losetup").arg("--detach").arg(device).output();
        }
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
