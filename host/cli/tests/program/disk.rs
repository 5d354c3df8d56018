//! A home on a disk of its own, of a few megabytes. Only root can mount it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::TestEnvironment;

/// A user without any rights of its own.
const NOBODY: u32 = 65534;

/// A home on a disk of its own.
pub(crate) struct SmallDisk {
    /// What the program runs in, and the home that this is a copy of.
    pub(crate) test: TestEnvironment,
    pub(crate) mount: PathBuf,
}

/// The kinds of disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Disk {
    Tmpfs,
    /// With blocks and a journal of its own.
    Ext4,
}

/// Who has the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Root,
    Nobody,
}

pub(crate) fn call<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) {
    let output = Command::new(program).args(arguments).output().expect("the program started");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns whether disks can be mounted here, and says so where they cannot.
pub(crate) fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root();
    if !can {
        eprintln!("skipped: only root can mount");
    }
    can
}

impl SmallDisk {
    /// A disk of so many MiB with a copy of the home of a test on it.
    pub(crate) fn new(test: TestEnvironment, disk: Disk, owner: Owner, mebibytes: u64) -> Self {
        let mount = test.directory().join("disk");
        fs::create_dir(&mount).expect("a directory");
        let at = mount.to_str().expect("a path");
        match disk {
            Disk::Tmpfs => {
                call("mount", ["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=755"), "none", at])
            }
            Disk::Ext4 => {
                let image = test.directory().join("image");
                File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
                let image = image.to_str().expect("a path");
                call("mkfs.ext4", ["-q", "-m", "0", "-N", "2048", "-J", "size=1", image]);
                call("mount", ["-o", "loop", image, at]);
            }
        }
        let full = Self { test, mount };
        call("cp", [OsStr::new("-a"), full.test.home.path().as_os_str(), full.home().as_os_str()]);
        // The directories above the disk are this user's alone.
        fs::set_permissions(full.test.directory(), fs::Permissions::from_mode(0o755)).expect("a mode");
        if owner == Owner::Nobody {
            call("chown", [OsStr::new("-R"), OsStr::new("65534:65534"), full.home().as_os_str()]);
        }
        full
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.mount.join("home")
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.home().join(".larder-ballast")
    }

    /// Fills the disk to its last block.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.mount.join("filling")).expect("a file");
        for size in [1 << 16, 1 << 12, 1 << 9, 1] {
            while file.write_all(&vec![1; size]).and_then(|()| file.sync_all()).is_ok() {}
        }
        assert_eq!(rustix::fs::statvfs(&self.mount).expect("a disk").f_bavail, 0);
    }

    pub(crate) fn command(&self, user: Owner, arguments: &str) -> Command {
        let mut command = self.test.command(arguments);
        command.env("MSB_HOME", self.home());
        if user == Owner::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs the program. Returns its status, what it printed, and what it said.
    pub(crate) fn larder(&self, user: Owner, arguments: &str) -> (Option<i32>, String, String) {
        let output = self.command(user, arguments).output().expect("the program started");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn files(&self, room: &str) -> usize {
        let entries = fs::read_dir(self.home().join("cache").join(room)).expect("a room");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        names.filter(|name| name.starts_with("sha256_") && !name.ends_with(".lock")).count()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Left mounted, the directory could not be removed, which the test's end would show.
        let _ = Command::new("umount").arg(&self.mount).status();
    }
}
