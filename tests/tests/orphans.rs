//! Files that nothing owns are found, and deleted only when they are old, free and the cache's own.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use larder::Image;
use larder::maintenance::{FindingKind, Repair, RepairOutcome, VerifyDepth, VerifyReport};
use larder_tests::{FIXTURE_NOW, Home, run};
use rustix::fs::{FlockOperation, flock};

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

fn verify(home: &Home, repair: Repair) -> VerifyReport {
    run(async { home.open().await.verify(VerifyDepth::Shallow, repair).await }).expect("a report")
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
    let report = verify(&home, Repair::ReportOnly);
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

    let report = verify(&home, Repair::RemoveOrphans);
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
    verify(&home, Repair::RemoveOrphans);
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
    put(&cache.join("tmp/old.part"), "x", 25 * 60);
    put(&cache.join("tmp/young.part"), "x", 23 * 60);
    put(&cache.join("tmp/locked.part"), "x", 25 * 60);
    let lock = File::open(cache.join("tmp/locked.part")).expect("a file");
    flock(&lock, FlockOperation::NonBlockingLockShared).expect("a lock");

    run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!(home.files("flat/refs"), [kept].into());
    assert_eq!(home.files("tmp"), ["locked.part", "young.part"].map(str::to_owned).into());
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
