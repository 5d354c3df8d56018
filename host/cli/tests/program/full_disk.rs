//! On a disk without a free byte the program reads, and a clean-up makes itself the room that it needs. Only root can
//! mount the disks of these tests.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use larder_tests::{FIXTURE_NOW, index_of};

use crate::harness::TestEnvironment;

/// A user without any rights of its own.
const NOBODY: u32 = 65534;

/// A home on a disk of its own.
struct FullDisk {
    /// What the program runs in, and the home that this is a copy of.
    test: TestEnvironment,
    mount: PathBuf,
}

/// The kinds of disk.
#[derive(Debug, Clone, Copy)]
enum Disk {
    Tmpfs,
    /// With blocks and a journal of its own.
    Ext4,
}

/// Who has the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Root,
    Nobody,
}

fn call<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) {
    let output = Command::new(program).args(arguments).output().expect("the program started");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns whether disks can be mounted here, and says so where they cannot.
fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root();
    if !can {
        eprintln!("skipped: only root can mount");
    }
    can
}

impl FullDisk {
    /// A disk of 12 MiB with a copy of the fixture on it, and room left.
    fn new(disk: Disk, owner: Owner) -> Self {
        let test = TestEnvironment::fixture();
        let mount = test.directory().join("disk");
        fs::create_dir(&mount).expect("a directory");
        let at = mount.to_str().expect("a path");
        match disk {
            Disk::Tmpfs => call("mount", ["-t", "tmpfs", "-o", "size=12m,mode=755", "none", at]),
            Disk::Ext4 => {
                let image = test.directory().join("image");
                File::create(&image).and_then(|file| file.set_len(12 << 20)).expect("an image");
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

    fn home(&self) -> PathBuf {
        self.mount.join("home")
    }

    fn ballast(&self) -> PathBuf {
        self.home().join(".larder-ballast")
    }

    /// Fills the disk to its last block.
    fn fill(&self) {
        let mut file = File::create(self.mount.join("filling")).expect("a file");
        for size in [1 << 16, 1 << 12, 1 << 9, 1] {
            while file.write_all(&vec![1; size]).and_then(|()| file.sync_all()).is_ok() {}
        }
        assert_eq!(rustix::fs::statvfs(&self.mount).expect("a disk").f_bavail, 0);
    }

    fn command(&self, user: Owner, arguments: &str) -> Command {
        let mut command = self.test.command(arguments);
        command.env("MSB_HOME", self.home());
        if user == Owner::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs the program. Returns its status, what it printed, and what it said.
    fn larder(&self, user: Owner, arguments: &str) -> (Option<i32>, String, String) {
        let output = self.command(user, arguments).output().expect("the program started");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn files(&self, room: &str) -> usize {
        let entries = fs::read_dir(self.home().join("cache").join(room)).expect("a room");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        names.filter(|name| name.starts_with("sha256_") && !name.ends_with(".lock")).count()
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // Left mounted, the directory could not be removed, which the test's end would show.
        let _ = Command::new("umount").arg(&self.mount).status();
    }
}

fn put_old(path: &Path, bytes: usize) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, vec![1; bytes]).expect("a file");
    let now: chrono::DateTime<chrono::Utc> = FIXTURE_NOW.parse().expect("a time");
    let modified = SystemTime::from(now) - Duration::from_secs(2 * 86_400);
    File::options().write(true).open(path).and_then(|file| file.set_modified(modified)).expect("its age");
}

/// What only reads works without a free byte, for the owner and for whoever may read, and leaves the disk as it was.
#[test]
fn reading() {
    if !can_mount() {
        return;
    }
    for (owner, user) in
        [(Owner::Root, Owner::Root), (Owner::Nobody, Owner::Nobody), (Owner::Root, Owner::Nobody)]
    {
        let full = FullDisk::new(Disk::Tmpfs, owner);
        for directory in [full.home(), full.home().join("db")] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        fs::set_permissions(full.home().join("db/msb.db"), fs::Permissions::from_mode(0o644))
            .expect("a mode");
        full.fill();
        for (arguments, expected) in [
            ("ls", "docker.io/acme/app00004:v7"),
            ("df", "unused images"),
            ("prune --dry-run", "38 images go, 3 stay"),
            ("inspect acme/app00004:v7", "docker.io/acme/app00004:v7"),
            ("history", ""),
        ] {
            let (status, said, error) = full.larder(user, arguments);
            assert_eq!(status, Some(0), "{arguments}, {owner:?} {user:?}: {error}");
            assert!(said.contains(expected), "{arguments}: {said}");
        }
    }
}

/// A prune that finds the disk full gives up the ballast of an earlier change, removes everything, and makes the ballast
/// again where there is room.
#[test]
fn a_prune_with_ballast() {
    if !can_mount() {
        return;
    }
    for (disk, owner) in
        [(Disk::Tmpfs, Owner::Root), (Disk::Tmpfs, Owner::Nobody), (Disk::Ext4, Owner::Nobody)]
    {
        let full = FullDisk::new(disk, owner);
        let (status, _, error) = full.larder(owner, "pin acme/app00004:v7");
        assert_eq!(status, Some(0), "{error}");
        assert!(full.ballast().metadata().expect("the ballast").blocks() >= 2048);
        full.fill();
        let (status, _, error) = full.larder(owner, "unpin acme/app00004:v7");
        assert_eq!(status, Some(1));
        assert!(
            error.contains("needs 1048576 bytes on the file system at `") && error.contains("/disk`"),
            "{error}"
        );
        assert!(full.ballast().exists(), "the ballast is for the clean-up");
        let (status, report, error) = full.larder(owner, "prune --yes --format json");
        assert_eq!(status, Some(0), "{disk:?} {owner:?}: {error}");
        let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
        assert_eq!(report["report"]["image_refs_removed"], 37);
        assert_eq!(
            (report["spared"].clone(), report["problems"].clone()),
            (serde_json::json!([]), serde_json::json!([]))
        );
        assert_eq!((full.files("fsmeta"), full.files("layers")), (4, 24));
        let (status, history, _) = full.larder(owner, "history --format json");
        let history: serde_json::Value = serde_json::from_str(&history).expect("a history");
        assert_eq!(
            (status, &history[0]["removed"], &history[0]["problem"]),
            (Some(0), &37.into(), &serde_json::Value::Null)
        );
        fs::remove_file(full.mount.join("filling")).expect("room");
        assert_eq!(full.larder(owner, "unpin acme/app00004:v7").0, Some(0));
        assert!(full.ballast().exists(), "made again");
    }
}

/// On a full disk, how images were used waits for a change with more room, and no clean-up waits for it.
#[test]
fn uses_wait_for_room() {
    if !can_mount() {
        return;
    }
    let full = FullDisk::new(Disk::Tmpfs, Owner::Root);
    assert_eq!(full.larder(Owner::Root, "pin acme/app00004:v7").0, Some(0));
    let run = "INSERT INTO run (sandbox_id, status, started_at) VALUES (1, 'Stopped', '2026-11-24 10:10:00')";
    index_of(&full.home()).execute(run, []).expect("a run");
    let boots = || -> i64 {
        let query = "SELECT count(*) FROM larder_use WHERE kind = 0";
        index_of(&full.home()).query_row(query, [], |row| row.get(0)).expect("a number")
    };
    full.fill();
    let (status, _, error) = full.larder(Owner::Root, "prune --yes");
    assert_eq!((status, boots()), (Some(0), 0), "{error}");
    fs::remove_file(full.mount.join("filling")).expect("room");
    assert_eq!(full.larder(Owner::Root, "unpin acme/app00004:v7").0, Some(0));
    assert_eq!(boots(), 1);
}

/// A plan is applied on a full disk as it is elsewhere.
#[test]
fn applying_a_plan() {
    if !can_mount() {
        return;
    }
    let full = FullDisk::new(Disk::Tmpfs, Owner::Root);
    assert_eq!(full.larder(Owner::Root, "pin acme/app00004:v7").0, Some(0));
    assert_eq!(full.larder(Owner::Root, "prune --plan plan.json").0, Some(0));
    full.fill();
    let (status, _, error) = full.larder(Owner::Root, "apply plan.json --yes");
    assert_eq!(status, Some(0), "{error}");
    assert_eq!(full.files("fsmeta"), 4);
}

/// Without ballast, unfinished work of the plan goes first and makes the room for the rest. Where there is none either,
/// nothing is changed, and it is said how many bytes are needed where.
#[test]
fn a_prune_without_ballast() {
    if !can_mount() {
        return;
    }
    for owner in [Owner::Root, Owner::Nobody] {
        let full = FullDisk::new(Disk::Tmpfs, owner);
        full.fill();
        let (status, _, error) = full.larder(owner, "prune --yes");
        assert_eq!(status, Some(1));
        assert!(error.contains("needs ") && error.contains(" bytes on the file system at `"), "{error}");
        assert_eq!((full.files("fsmeta"), full.files("layers")), (40, 240));

        let full = FullDisk::new(Disk::Tmpfs, owner);
        let work = full.home().join(format!("cache/tmp/sha256_{}.part", "e".repeat(64)));
        put_old(&work, 2 << 20);
        if owner == Owner::Nobody {
            call("chown", [OsStr::new("-R"), OsStr::new("65534:65534"), full.home().as_os_str()]);
        }
        full.fill();
        let (status, report, error) = full.larder(owner, "prune --yes --format json");
        assert_eq!(status, Some(0), "{owner:?}: {error}");
        let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
        assert_eq!(report["report"]["image_refs_removed"], 38);
        assert!(report["report"]["bytes_reclaimed"].as_u64() > Some(2 << 20));
        assert_eq!((work.exists(), full.files("fsmeta"), full.files("layers")), (false, 3, 18));
    }
}
