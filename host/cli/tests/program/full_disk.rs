//! On a disk without a free byte the program reads, and a clean-up makes itself the room that it needs. Only root can
//! mount the disks of these tests.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use larder_tests::{FIXTURE_NOW, index_of};

use crate::disk::{Disk, Owner, SmallDisk, call, can_mount};
use crate::harness::TestEnvironment;

/// A disk of 12 MiB with a copy of the fixture on it, and room left.
fn small(disk: Disk, owner: Owner) -> SmallDisk {
    SmallDisk::new(TestEnvironment::fixture(), disk, owner, 12)
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
        let full = small(Disk::Tmpfs, owner);
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
        let full = small(disk, owner);
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
    let full = small(Disk::Tmpfs, Owner::Root);
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
    let full = small(Disk::Tmpfs, Owner::Root);
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
        let full = small(Disk::Tmpfs, owner);
        full.fill();
        let (status, _, error) = full.larder(owner, "prune --yes");
        assert_eq!(status, Some(1));
        assert!(error.contains("needs ") && error.contains(" bytes on the file system at `"), "{error}");
        assert_eq!((full.files("fsmeta"), full.files("layers")), (40, 240));

        let full = small(Disk::Tmpfs, owner);
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
