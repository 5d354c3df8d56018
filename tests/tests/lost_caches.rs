//! A cache that is not there, because its disk is not mounted, a link leads to nothing or it was deleted, costs no row of
//! the index.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use larder::backend::{CacheOwner, HomeProblem};
use larder::maintenance::{FindingKind, VerifyDepth};
use larder::{Image, LocalBackend, MicrosandboxError};
use larder_tests::archive::{TestImage, docker_files, tar_of};
use larder_tests::{Home, run};

const UNUSED: &str = "docker.io/acme/app00004:v7";

/// A home whose artifacts are elsewhere, as its settings say.
fn with_cache_at(cache: &Path) -> Home {
    let home = Home::fixture();
    fs::rename(home.cache(), cache).expect("the cache moved");
    let settings = serde_json::json!({ "paths": { "cache": cache } });
    fs::write(home.path().join("config.json"), settings.to_string()).expect("the settings");
    home
}

fn is_missing<T>(result: Result<T, MicrosandboxError>) -> bool {
    match result {
        Err(MicrosandboxError::Home(error)) => matches!(error.problem, HomeProblem::CacheMissing { .. }),
        _ => false,
    }
}

/// Checks that every removal is refused, and that the rows stay.
async fn check_refusals(home: &Home, case: &str) {
    let local = home.open().await;
    let rows = home.count("SELECT count(*) FROM image_ref");
    assert!(rows > 0);
    assert!(is_missing(local.plan_prune().await), "{case}");
    assert!(is_missing(Image::prune_local(&local).await), "{case}");
    assert!(is_missing(local.plan_remove(&[UNUSED.to_owned()], false).await), "{case}");
    assert!(is_missing(Image::remove_local(&local, UNUSED, true).await), "{case}");
    // Any other change works, and marks nothing.
    local.pin(UNUSED).await.expect("a pin");
    local.unpin(UNUSED).await.expect("no pin");
    assert_eq!(home.count("SELECT count(*) FROM image_ref"), rows, "{case}");
    let report = local.verify(VerifyDepth::Shallow).await.expect("a report");
    let missing = report.findings.iter().filter(|finding| finding.kind == FindingKind::Missing).count();
    assert_eq!(missing as u64, report.checked, "{case}: all of it is missing");
    assert!(
        report.problems.iter().any(|problem| problem.contains("is not there")),
        "{case}: {:?}",
        report.problems
    );
}

/// A disk that is not mounted, with and without its mount point, costs no row: removals are refused, nothing is marked, and
/// nothing is added there. Once it is back, a plan from before is applied as it was made.
#[test]
fn a_disk_that_is_not_mounted() {
    let disk = tempfile::tempdir().expect("a directory");
    let (mounted, away) = (disk.path().join("cache"), disk.path().join("away"));
    let home = with_cache_at(&mounted);
    let archive = disk.path().join("image.tar");
    let image = TestImage::small(&["acme/new:1"]);
    fs::write(&archive, tar_of(&docker_files(&[image]))).expect("an archive");
    run(async {
        let plan = home.open().await.plan_prune().await.expect("a plan");
        assert!(plan.removals().count() > 30);
        for has_mount_point in [false, true] {
            fs::rename(&mounted, &away).expect("unmounted");
            if has_mount_point {
                fs::create_dir(&mounted).expect("a mount point");
            }
            check_refusals(&home, &format!("mount point: {has_mount_point}")).await;
            let local = home.open().await;
            assert!(is_missing(local.apply(&plan).await));
            assert!(is_missing(Image::load_local(&local, &archive, Vec::new()).await));
            if has_mount_point {
                assert_eq!(fs::read_dir(&mounted).expect("a directory").count(), 0);
                fs::remove_dir(&mounted).expect("removed");
            }
            fs::rename(&away, &mounted).expect("mounted");
        }
        let report = home.open().await.apply(&plan).await.expect("applied");
        assert_eq!(report.removed.len(), plan.removals().count());
        assert!(report.report.bytes_reclaimed > Some(0));
    });
}

/// A link in the home that leads to nothing is a cache elsewhere that is not there.
#[test]
fn a_link_that_leads_to_nothing() {
    let home = Home::fixture();
    fs::remove_dir_all(home.cache()).expect("removed");
    symlink(home.path().join("nowhere"), home.cache()).expect("a link");
    run(check_refusals(&home, "a link"));
    assert!(!home.path().join("nowhere").exists());
}

/// A directory that holds something else is not the cache that the settings mean.
#[test]
fn another_directory() {
    let disk = tempfile::tempdir().expect("a directory");
    let home = with_cache_at(&disk.path().join("cache"));
    fs::rename(disk.path().join("cache"), disk.path().join("away")).expect("moved");
    fs::create_dir_all(disk.path().join("cache/photos")).expect("a directory");
    run(check_refusals(&home, "photos"));
    assert_eq!(fs::read_dir(disk.path().join("cache")).expect("a directory").count(), 1);
}

/// Rooms without any of the files that the index names are no cache, nor is that of another home.
#[test]
fn rooms_without_files() {
    for marked in [false, true] {
        let (home, other) = (Home::fixture(), Home::made());
        fs::remove_dir_all(home.cache()).expect("removed");
        fs::create_dir_all(home.cache().join("layers")).expect("a room");
        fs::write(home.cache().join("layers/x.erofs"), "x").expect("a file");
        run(async {
            if marked {
                let builder = LocalBackend::builder().home(other.path()).cache_dir(home.cache());
                let local = builder.build().await.expect("the home opened");
                let owner = local.cache_owner().await.expect("an owner");
                local.claim_cache(&owner).await.expect("claimed");
            }
            check_refusals(&home, &format!("rooms; marked: {marked}")).await;
        });
    }
}

/// Where a cache in the home was deleted, nothing is added either, since it may be a disk that is not mounted, and a load
/// that fails makes nothing that looks like a cache. Once it is claimed, a prune removes the rows and a load works.
#[test]
fn a_cache_that_was_deleted() {
    let disk = tempfile::tempdir().expect("a directory");
    let archive = disk.path().join("image.tar");
    fs::write(&archive, tar_of(&docker_files(&[TestImage::small(&["acme/new:1"])]))).expect("an archive");
    let home = Home::fixture();
    fs::remove_dir_all(home.cache()).expect("deleted");
    fs::create_dir(home.cache()).expect("a mount point");
    run(async {
        let local = home.open().await;
        assert!(is_missing(Image::load_local(&local, &archive, Vec::new()).await));
        assert_eq!(fs::read_dir(home.cache()).expect("a directory").count(), 0);
        check_refusals(&home, "deleted").await;
        assert_eq!(local.cache_owner().await.expect("an owner"), CacheOwner::Missing);
        let refused =
            local.claim_cache(&CacheOwner::Nobody).await.expect_err("it was not seen to be missing");
        assert!(refused.to_string().contains("another owner"), "{refused}");
        local.claim_cache(&CacheOwner::Missing).await.expect("claimed");
        Image::load_local(&local, &archive, Vec::new()).await.expect("loaded");
        let report = Image::prune_local(&local).await.expect("a prune");
        assert!(report.image_refs_removed > 30);
    });
}
