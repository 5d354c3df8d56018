//! Homes that share a cache delete nothing of each other's that no row of theirs owns, and a plan is for one home.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use larder::backend::CacheOwner;
use larder::maintenance::{FindingKind, VerifyDepth};
use larder::plan::Plan;
use larder::{Image, LocalBackend, MicrosandboxError};
use larder_tests::archive::{TestImage, docker_files, tar_of};
use larder_tests::{FIXTURE_NOW, Home, run};

/// So many layers, fsmeta images, descriptors and metadata files has the fixture.
const ALL: [usize; 4] = [240, 40, 40, 40];
/// Of these, what its sandboxes and its snapshot need.
const USED: [usize; 4] = [18, 3, 3, 3];

fn left(cache: &Home) -> [usize; 4] {
    ["layers", "fsmeta", "vmdk", "manifests"].map(|room| cache.files(room).len())
}

/// A backend of a home whose artifacts lie in this directory.
async fn with_cache(home: &Path, cache: &Path) -> LocalBackend {
    let now: chrono::DateTime<chrono::Utc> = FIXTURE_NOW.parse().expect("a time");
    let builder = LocalBackend::builder().home(home).cache_dir(cache).clock(move || now);
    builder.build().await.expect("the home opened")
}

async fn prune(local: &LocalBackend) {
    Image::prune_local(local).await.expect("a prune");
}

async fn claim(local: &LocalBackend) {
    let owner = local.cache_owner().await.expect("an owner");
    local.claim_cache(&owner).await.expect("claimed");
}

/// A home prunes the cache of another one, and neither its own nor that one's prune deletes what the other needs; which
/// of them changes first makes no difference.
#[test]
fn two_homes_with_one_cache() {
    for full_first in [false, true] {
        let (full, empty) = (Home::fixture(), Home::made());
        run(async {
            if full_first {
                full.open().await.pin("docker.io/acme/app00004:v7").await.expect("a change");
            }
            let local = with_cache(&empty.path(), &full.cache()).await;
            let plan = local.plan_prune().await.expect("a plan");
            let uncollected = plan.uncollected.as_ref().expect("files are left");
            assert_eq!((plan.collect.len(), uncollected.files), (0, 360), "{full_first}");
            assert!(uncollected.bytes > 0);
            let expected = if full_first { "is that of the home" } else { "lies outside of the home" };
            assert!(uncollected.reason.contains(expected), "{}", uncollected.reason);
            prune(&local).await;
            let report = local.verify(VerifyDepth::Shallow).await.expect("a report");
            let repair = local.plan_repair(&report).await.expect("a plan");
            local.apply(&repair).await.expect("a repair of nothing");
            assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Foreign));
            assert_eq!((report.findings.len(), report.problems.len()), (360, 0));
            assert_eq!(left(&full), ALL, "{full_first}");
            let kept = if full_first { USED.map(|used| used + 1) } else { USED };
            prune(&full.open().await).await;
            assert_eq!([left(&full)[1], left(&full)[2]], [kept[1], kept[2]]);
        });
    }
}

/// What one home takes into the cache of another stays, whoever was first: from then on nobody deletes what no row owns,
/// until an operator claims the cache.
#[test]
fn images_in_the_cache_of_another_home() {
    for full_first in [false, true] {
        let (full, other) = (Home::fixture(), Home::made());
        let directory = tempfile::tempdir().expect("a directory");
        let archive = directory.path().join("archive.tar");
        let image = TestImage::small(&["acme/guest:1"]);
        fs::write(&archive, tar_of(&docker_files(&[image]))).expect("an archive");
        run(async {
            if full_first {
                full.open().await.pin("docker.io/acme/app00004:v7").await.expect("a change");
            }
            let guest = with_cache(&other.path(), &full.cache()).await;
            Image::load_local(&guest, &archive, Vec::new()).await.expect("loaded");
            // What is a day old is old enough to be deleted.
            let later = chrono::Utc::now() + chrono::TimeDelta::days(1);
            let builder = LocalBackend::builder().home(full.path()).clock(move || later);
            let host = builder.build().await.expect("the home opened");
            let plan = host.plan_prune().await.expect("a plan");
            let reason = plan.uncollected.expect("files are left").reason;
            assert!(plan.collect.is_empty() && reason.contains("used by several homes"), "{reason}");
            prune(&host).await;
            let damage = |report: larder::maintenance::VerifyReport| {
                report.findings.iter().filter(|finding| finding.is_damage()).count()
            };
            let verify = || async { guest.verify(VerifyDepth::Shallow).await };
            assert_eq!(damage(verify().await.expect("a report")), 0, "{full_first}");
            claim(&host).await;
            prune(&host).await;
            assert_eq!(damage(verify().await.expect("a report")), 5, "what an operator claims is theirs");
        });
    }
}

/// A cache in the home that is a link to elsewhere is elsewhere; so is one of a copy of the home.
#[test]
fn linked_caches_and_copied_homes() {
    let (home, elsewhere) = (Home::fixture(), tempfile::tempdir().expect("a directory"));
    let cache = elsewhere.path().join("cache");
    fs::rename(home.cache(), &cache).expect("the cache moved");
    symlink(&cache, home.cache()).expect("a link");
    home.execute("DELETE FROM image_ref; DELETE FROM manifest_layer; DELETE FROM layer");
    run(async {
        let local = home.open().await;
        prune(&local).await;
        assert_eq!(left(&home)[0], 240, "a linked cache");
        claim(&local).await;
        assert_eq!(local.plan_prune().await.expect("a plan").uncollected, None);
        // The copy has the id and the link of the home that it is a copy of.
        drop(local);
        let copy = home.copy();
        let plan = copy.open().await.plan_prune().await.expect("a plan");
        let reason = plan.uncollected.expect("files are left").reason;
        assert!(reason.contains("from where it was copied or moved"), "{reason}");
        prune(&copy.open().await).await;
        assert_eq!(left(&copy)[0], 240, "a copy");
        prune(&home.open().await).await;
        assert_eq!(left(&home)[0], 0, "a cache that was claimed");
    });
}

/// A copy of a home has a cache of its own in it, and collects there.
#[test]
fn a_copied_home_with_its_cache() {
    let home = Home::fixture();
    run(async { home.open().await.pin("docker.io/acme/app00004:v7").await }).expect("a change");
    let copy = home.copy();
    copy.execute("DELETE FROM image_ref; DELETE FROM manifest_layer; DELETE FROM layer");
    run(async { prune(&copy.open().await).await });
    assert_eq!((left(&copy)[0], left(&home)), (0, ALL));
}

/// The index of another home, put over a cache, collects nothing there.
#[test]
fn an_index_of_another_home() {
    let (home, other) = (Home::fixture(), Home::made());
    run(async {
        home.open().await.pin("docker.io/acme/app00004:v7").await.expect("a change");
        claim(&other.open().await).await;
    });
    fs::rename(other.path().join("db/msb.db"), home.path().join("db/msb.db")).expect("restored");
    run(async {
        let local = home.open().await;
        let plan = local.plan_prune().await.expect("a plan");
        assert_eq!((plan.collect.len(), plan.uncollected.map(|left| left.files)), (0, Some(360)));
        prune(&local).await;
    });
    assert_eq!(left(&home), ALL);
}

/// A plan names its home, by its id, or by its path while it has none, and is applied to no other.
#[test]
fn a_plan_for_another_home() {
    let (home, other) = (Home::fixture(), Home::fixture());
    run(async {
        let local = home.open().await;
        let unnamed = local.plan_prune().await.expect("a plan");
        assert!(unnamed.home.as_ref().is_some_and(|home| home.id.is_none()));
        local.pin("docker.io/acme/app00004:v7").await.expect("a change");
        let named = local.plan_prune().await.expect("a plan");
        assert!(named.home.as_ref().is_some_and(|home| home.id.is_some()));
        let elsewhere = other.open().await;
        for changed in [false, true] {
            for plan in [&unnamed, &named] {
                let plan = Plan::from_json(&plan.to_json().expect("JSON")).expect("a plan");
                let refused = elsewhere.apply(&plan).await.expect_err("refused");
                assert!(matches!(refused, MicrosandboxError::PlanForAnotherHome { .. }), "{refused}");
                let refused = elsewhere.progress_of(&plan).await.expect_err("refused");
                assert!(matches!(refused, MicrosandboxError::PlanForAnotherHome { .. }), "{refused}");
            }
            if !changed {
                elsewhere.pin("docker.io/acme/app00004:v7").await.expect("a change");
            }
        }
        assert_eq!(other.count("SELECT count(*) FROM image_ref"), 41);
        let none = Plan { home: None, ..named.clone() };
        let refused = local.apply(&none).await.expect_err("refused").to_string();
        assert!(refused.contains("does not say which home"), "{refused}");
        assert_eq!(local.apply(&unnamed).await.expect("applied").removed.len(), 37);
    });
}

/// A plan that was made while the cache was the home's alone collects nothing once it is another's as well, and says so.
#[test]
fn a_cache_that_is_shared_since() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let now: chrono::DateTime<chrono::Utc> = FIXTURE_NOW.parse().expect("a time");
        let orphan = home.cache().join(format!("layers/sha256_{}.erofs", "f".repeat(64)));
        fs::write(&orphan, "another's").expect("a layer");
        let old = std::time::SystemTime::from(now) - std::time::Duration::from_secs(7200);
        fs::File::options().write(true).open(&orphan).expect("it").set_modified(old).expect("its age");
        let plan = local.plan_prune().await.expect("a plan");
        assert_eq!(plan.collect.len(), 1);
        fs::write(home.cache().join(".larder-home"), r#"{"home":null}"#).expect("a marker");
        let report = local.apply(&plan).await.expect("applied");
        assert!(orphan.exists());
        assert!(
            report.problems.iter().any(|problem| problem.contains("several homes")),
            "{:?}",
            report.problems
        );
    });
}

/// A cache is claimed from the owner that was seen, and from no other.
#[test]
fn a_claim_names_what_it_takes() {
    let (home, other) = (Home::fixture(), Home::made());
    run(async {
        claim(&home.open().await).await;
        let local = with_cache(&other.path(), &home.cache()).await;
        let refused = local.claim_cache(&CacheOwner::Nobody).await.expect_err("the cache of another home");
        assert!(refused.to_string().contains("another owner"), "{refused}");
        let owner = local.cache_owner().await.expect("an owner");
        assert_eq!(owner, CacheOwner::Home(home.open().await.identity().await.expect("its identity")));
        local.claim_cache(&owner).await.expect("claimed");
        claim(&local).await;
    });
}
