//! Files that nothing owns are found, and deleted only when they are old, free and the cache's own.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use larder::Image;
use larder::maintenance::{FindingKind, RepairOutcome, VerifyDepth, VerifyReport};
use larder_tests::{FIXTURE_NOW, Home, run};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, Timespec, Timestamps, flock, mkfifoat, utimensat};

/// An age in minutes at the time that counts as now.
fn put(path: &Path, content: &str, minutes: u64) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, content).expect("a file");
    let now: chrono::DateTime<chrono::Utc> = FIXTURE_NOW.parse().expect("a time");
    let modified = SystemTime::from(now) - Duration::from_secs(60 * minutes);
    File::options().write(true).open(path).and_then(|file| file.set_modified(modified)).expect("its age");
}

fn orphan(number: u32) -> String {
    format!("sha256_f{number:063x}.erofs")
}

fn verify(home: &Home) -> VerifyReport {
    run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report")
}

/// Verifies, deletes the orphans, and says which of them are gone.
fn repair(home: &Home) -> VerifyReport {
    run(async {
        let local = home.open().await;
        let report = local.verify(VerifyDepth::Shallow).await.expect("a report");
        local.apply(&local.plan_repair(&report).await.expect("a plan")).await.expect("applied");
        local.note_repairs(report).await.expect("a report")
    })
}

/// Verification names what is missing, damaged, and unowned; repair deletes the old and free of the last, and says so.
#[test]
fn verify_and_repair() {
    let home = Home::fixture();
    let layers = home.cache().join("layers");
    put(&layers.join(orphan(1)), "old", 90);
    put(&layers.join(orphan(2)), "young", 30);
    put(&layers.join(orphan(3)), "leased", 90);
    put(&layers.join("notes.txt"), "mine", 90);
    let lease = home.lease("layers", &orphan(3));
    fs::remove_file(
        layers.join("sha256_d000000000000000000000000000000000000000000000000000000000000030.erofs"),
    )
    .expect("lost");
    put(
        &layers.join("sha256_d000000000000000000000000000000000000000000000000000000000000031.erofs"),
        "cut",
        90,
    );

    let found = |report: &VerifyReport, kind| -> Vec<String> {
        let of_kind = report.findings.iter().filter(|finding| finding.kind == kind);
        of_kind
            .map(|finding| finding.path.file_name().expect("a name").to_string_lossy().into_owned())
            .collect()
    };
    let report = verify(&home);
    assert_eq!(found(&report, FindingKind::Orphan), [orphan(1), orphan(2), orphan(3)]);
    assert_eq!(found(&report, FindingKind::Foreign), ["notes.txt"]);
    assert_eq!(
        found(&report, FindingKind::WrongSize),
        ["sha256_d000000000000000000000000000000000000000000000000000000000000031.erofs"]
    );
    assert!(found(&report, FindingKind::Missing).contains(
        &"sha256_d000000000000000000000000000000000000000000000000000000000000030.erofs".to_owned()
    ));
    assert!(report.findings.iter().all(|finding| finding.repair.is_none()));

    let report = repair(&home);
    let outcome = |name: &str| {
        report.findings.iter().find(|finding| finding.path.ends_with(name)).and_then(|finding| finding.repair)
    };
    assert_eq!(outcome(&orphan(1)), Some(RepairOutcome::Removed));
    for left in [&orphan(2), &orphan(3), "notes.txt"] {
        assert_eq!(outcome(left), Some(RepairOutcome::Left), "{left}");
        assert!(layers.join(left).exists(), "{left}");
    }
    assert!(!layers.join(orphan(1)).exists());
    drop(lease);
    repair(&home);
    assert!(!layers.join(orphan(3)).exists());
}

/// A prune collects flat disks whose image is gone and temporary work older than a day that nobody has locked.
#[test]
fn prune_collects_what_microsandbox_leaves() {
    let home = Home::fixture();
    let cache = home.cache();
    let [kept, gone] = ["10", "27"].map(|number| {
        format!("sha256_a0000000000000000000000000000000000000000000000000000000000000{number}.json")
    });
    let [kept_blob, gone_blob] = ["1", "2"].map(|digit| digit.repeat(64));
    put(&cache.join("flat/refs").join(&kept), &format!(r#"{{"artifact":"sha256:{kept_blob}"}}"#), 90);
    put(&cache.join("flat/refs").join(&gone), &format!(r#"{{"artifact":"sha256:{gone_blob}"}}"#), 90);
    for blob in [&kept_blob, &gone_blob] {
        put(&cache.join(format!("flat/blobs/sha256_{blob}.raw")), "disk", 90);
    }
    let [old, young, locked] = ["1", "2", "3"].map(|digit| format!("sha256_{}.part", digit.repeat(64)));
    put(&cache.join("tmp").join(&old), "x", 25 * 60);
    put(&cache.join("tmp").join(&young), "x", 23 * 60);
    put(&cache.join("tmp").join(&locked), "x", 25 * 60);
    let lock = File::open(cache.join("tmp").join(&locked)).expect("a file");
    flock(&lock, FlockOperation::NonBlockingLockShared).expect("a lock");

    run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!(home.files("flat/refs"), [kept].into());
    assert_eq!(home.files("tmp"), [locked, young].into());
    assert_eq!(home.files("flat/blobs"), [format!("sha256_{kept_blob}.raw")].into());
}

/// Where the record of a flat disk cannot be read, nobody knows what it names, and no flat disk is deleted.
#[test]
fn an_unreadable_record_protects_flat_disks() {
    let home = Home::fixture();
    let refs = home.cache().join("flat/refs");
    let blob = home.cache().join(format!("flat/blobs/sha256_{}.raw", "1".repeat(64)));
    fs::create_dir_all(
        refs.join("sha256_a000000000000000000000000000000000000000000000000000000000000010.json"),
    )
    .expect("a directory");
    put(&blob, "disk", 90);
    run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert!(blob.exists());
}

/// Makes a file, directory or link old, itself and not what it leads to.
fn age(path: &Path) {
    let long_ago = Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: long_ago, last_modification: long_ago };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("its age");
}

fn prune(home: &Home) {
    run(async { Image::prune_local(&home.open().await).await }).expect("a report");
}

/// Of `tmp/` only the names that a cache makes are deleted, whatever the age of the rest, which is reported.
#[test]
fn what_no_cache_makes_stays() {
    let home = Home::fixture();
    let tmp = home.cache().join("tmp");
    let part = format!("sha256_{}.part", "1".repeat(64));
    put(&tmp.join("thesis/chapter1"), "mine", 90);
    put(&tmp.join("notes.part"), "mine", 90);
    fs::create_dir(tmp.join(&part)).expect("a directory where a file belongs");
    symlink("/etc/passwd", tmp.join(format!("sha256_{}.spool", "2".repeat(64)))).expect("a link");
    mkfifoat(CWD, tmp.join(format!("sha256_{}.part", "3".repeat(64))), Mode::RUSR).expect("a pipe");
    put(&home.cache().join("layers/backup.tar.gz"), "mine", 90);
    for entry in
        fs::read_dir(&tmp).expect("tmp").chain(fs::read_dir(tmp.join("thesis")).expect("a directory"))
    {
        age(&entry.expect("an entry").path());
    }
    age(&home.cache().join("layers/backup.tar.gz"));
    let before = home.files("tmp");
    prune(&home);
    assert_eq!(home.files("tmp"), before);
    assert!(tmp.join("thesis/chapter1").exists());
    let report = verify(&home);
    let foreign = report.findings.iter().filter(|finding| finding.kind == FindingKind::Foreign);
    assert_eq!(foreign.count(), before.len() + 1);
}

/// A directory of the cache that is a symbolic link is reported, and nothing is deleted through it.
#[test]
fn nothing_goes_through_a_link() {
    let home = Home::fixture();
    let elsewhere = tempfile::tempdir().expect("a directory");
    let part = elsewhere.path().join(format!("sha256_{}.part", "1".repeat(64)));
    put(&part, "x", 90);
    age(&part);
    let tmp = home.cache().join("tmp");
    let _ = fs::remove_dir_all(&tmp);
    symlink(elsewhere.path(), &tmp).expect("a link");
    prune(&home);
    assert!(part.exists());
    let report = verify(&home);
    let found = report.findings.iter().find(|finding| finding.path == Path::new("tmp"));
    assert_eq!(found.map(|finding| finding.kind), Some(FindingKind::Foreign));
}

/// A pipe under the name of metadata, and metadata that is too long, stop nothing.
#[test]
fn a_pipe_hangs_nothing() {
    let home = Home::fixture();
    let manifests = home.cache().join("manifests");
    mkfifoat(CWD, manifests.join(format!("{}.json", "f".repeat(64))), Mode::RUSR).expect("a pipe");
    let long = manifests.join(format!("{}.json", "e".repeat(64)));
    File::create(&long).and_then(|file| file.set_len(1 << 40)).expect("a long file");
    prune(&home);
    let report = verify(&home);
    let kinds = report.findings.iter().filter(|finding| finding.path.starts_with("manifests"));
    assert_eq!(
        kinds.map(|finding| finding.kind).collect::<Vec<_>>(),
        [FindingKind::Orphan, FindingKind::Foreign]
    );
}

/// Work goes only while the lock of whoever could be doing it is free: of a layer, an image, a flat disk, a download.
#[test]
fn work_under_a_lock_stays() {
    let home = Home::fixture();
    let tmp = home.cache().join("tmp");
    let name = format!("sha256_{}", "9".repeat(64));
    let works =
        [".erofs.part", ".spool", ".work", ".flat.work", ".part"].map(|suffix| format!("{name}{suffix}"));
    let locks = [
        format!("layers/{name}.erofs.lock"),
        format!("vmdk/{name}.vmdk.lock"),
        format!("flat/locks/{name}.lock"),
        format!("tmp/{name}.download.lock"),
    ];
    let held: Vec<File> = locks
        .iter()
        .map(|lock| {
            let path = home.cache().join(lock);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            let file = File::create(path).expect("a lock");
            flock(&file, FlockOperation::NonBlockingLockExclusive).expect("a lock");
            file
        })
        .collect();
    fs::create_dir_all(&tmp).expect("a directory");
    for work in &works {
        let path = tmp.join(work);
        if work.ends_with(".work") {
            put(&path.join("inner/file"), "x", 90)
        } else {
            put(&path, "x", 90)
        }
        for path in [path.join("inner/file"), path.join("inner"), path].iter().filter(|path| path.exists()) {
            age(path);
        }
    }
    prune(&home);
    assert_eq!(home.files("tmp"), works.into());
    drop(held);
    prune(&home);
    assert!(home.files("tmp").is_empty());
}

/// A flat disk and its record stay while a lease shows that their image is in use, and go when nobody has one.
#[test]
fn a_flat_disk_in_use_stays() {
    let home = Home::fixture();
    let [manifest, artifact] = ["7", "8"].map(|digit| digit.repeat(64));
    let record = format!("sha256_{manifest}.json");
    put(&home.cache().join("flat/refs").join(&record), &format!(r#"{{"artifact":"sha256:{artifact}"}}"#), 90);
    put(&home.cache().join(format!("flat/blobs/sha256_{artifact}.raw")), "disk", 90);
    let lease = home.lease("vmdk", &format!("sha256_{manifest}.vmdk"));
    prune(&home);
    assert!(home.files("flat/refs").contains(&record));
    assert!(home.files("flat/blobs").contains(&format!("sha256_{artifact}.raw")));
    drop(lease);
    prune(&home);
    assert!(!home.files("flat/refs").contains(&record));
    assert!(!home.files("flat/blobs").contains(&format!("sha256_{artifact}.raw")));
}

/// A file name that is not Unicode stops neither verification nor a plan.
#[test]
fn odd_names_stop_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = Home::fixture();
    for room in ["layers", "tmp"] {
        put(&home.cache().join(room).join(std::ffi::OsStr::from_bytes(b"\xff")), "x", 90);
        age(&home.cache().join(room).join(std::ffi::OsStr::from_bytes(b"\xff")));
    }
    let report = repair(&home);
    assert_eq!(report.findings.iter().filter(|finding| finding.kind == FindingKind::Foreign).count(), 2);
    assert!(serde_json::to_string(&report).expect("a document").contains("layers/"));
    let plan = run(async { home.open().await.plan_prune().await }).expect("a plan");
    plan.to_json().expect("a document");
    prune(&home);
}

/// An orphan with several names frees its blocks when the last of them goes: what a plan says it frees is what is freed.
#[test]
fn hard_linked_orphans_count_once() {
    let home = Home::fixture();
    run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    let layers = home.cache().join("layers");
    put(&layers.join(orphan(1)), &"x".repeat(1 << 20), 90);
    put(&layers.join(orphan(3)), &"x".repeat(1 << 20), 90);
    fs::hard_link(layers.join(orphan(1)), layers.join(orphan(2))).expect("another name");
    fs::hard_link(layers.join(orphan(3)), home.path().join("elsewhere")).expect("a name elsewhere");
    put(&home.cache().join("fsmeta").join(orphan(4)), "merged", 90);
    let (plan, report) = run(async {
        let local = home.open().await;
        (local.plan_prune().await.expect("a plan"), Image::prune_local(&local).await.expect("a report"))
    });
    assert_eq!(plan.report, report);
    assert!(report.bytes_reclaimed > Some(1 << 20) && report.bytes_reclaimed < Some(2 << 20), "{report:?}");
    assert_eq!(report.fsmeta_removed, 1);
    assert!(home.files("layers").iter().all(|name| !name.contains("_f000")));
}
