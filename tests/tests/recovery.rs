//! A process that ends at any step of a removal loses nothing, and the next change of the home finishes its work.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use larder::Image;
use larder::maintenance::{FindingKind, VerifyDepth};
use larder::plan::{RecoveredFiles, RunState, Verdict};
use larder_tests::{Home, run};

/// The program that ends at a failpoint.
const CRASH: &str = env!("CARGO_BIN_EXE_larder-crash");

const IN_USE: [&str; 3] =
    ["docker.io/acme/app00000:v0", "docker.io/acme/app00001:v0", "docker.io/acme/app00002:v0"];

/// Runs an operation that ends at a failpoint. Returns whether it got there.
fn crash(home: &Home, operation: &str, reference: &str, failpoint: &str, nth: u32) -> bool {
    home.crash(CRASH, operation, reference, failpoint, nth)
}

/// Opens the home for a change that changes nothing.
fn recover(home: &Home) {
    run(async { home.open().await.unpin(IN_USE[1]).await }).expect("nothing to unpin");
}

/// Rule 1: every artifact that the index names is there.
fn assert_no_row_without_artifact(home: &Home, when: &str) {
    let named = |query: &str, suffix: &str| -> BTreeSet<String> {
        home.texts(query).iter().map(|digest| format!("{}{suffix}", digest.replace(':', "_"))).collect()
    };
    let layers = named("SELECT diff_id FROM layer", ".erofs");
    assert!(layers.is_subset(&home.files("layers")), "{when}: a layer is gone");
    let manifests = "SELECT digest FROM manifest";
    assert!(named(manifests, ".erofs").is_subset(&home.files("fsmeta")), "{when}: an fsmeta image is gone");
    assert!(named(manifests, ".vmdk").is_subset(&home.files("vmdk")), "{when}: a descriptor is gone");
}

/// Nothing of a removal is left undone, and nothing but what it was to remove is gone.
fn assert_finished(home: &Home, when: &str) {
    assert_no_row_without_artifact(home, when);
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0, "{when}: records are left");
    let report = run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report");
    let orphans: Vec<_> =
        report.findings.iter().filter(|finding| finding.kind == FindingKind::Orphan).collect();
    assert!(orphans.is_empty(), "{when}: {orphans:?}");
    for reference in IN_USE {
        assert_eq!(
            home.count(&format!("SELECT count(*) FROM image_ref WHERE reference = '{reference}'")),
            1,
            "{when}"
        );
    }
    // Whoever goes on finds a home in order.
    run(async { Image::prune_local(&home.open().await).await }).expect("a prune");
    assert_eq!(home.texts("SELECT reference FROM image_ref"), IN_USE.map(str::to_owned).into(), "{when}");
    assert_eq!((home.files("layers").len(), home.files("fsmeta").len()), (18, 3), "{when}");
}

/// Killed at every step of a removal and of a prune, a process leaves an index that names nothing that is gone, and
/// the next open finishes what was begun.
#[test]
fn every_step_can_be_the_last() {
    let mut reached = BTreeSet::new();
    for failpoint in larder::failpoint::NAMES {
        for (operation, nth) in [("remove", 1), ("remove", 4), ("prune", 1), ("prune", 2), ("prune", 100)] {
            let home = Home::fixture();
            let when = format!("{operation} at {failpoint}, {nth}");
            if !crash(&home, operation, "docker.io/acme/app00004:v7", failpoint, nth) {
                continue;
            }
            reached.insert(failpoint);
            assert_no_row_without_artifact(&home, &when);
            recover(&home);
            assert_finished(&home, &when);
        }
    }
    assert_eq!(reached, larder::failpoint::NAMES.into(), "failpoints that nothing reaches");
}

/// A prune that was killed is on record: a run that has not ended, and every image that it removed.
#[test]
fn a_killed_prune_can_be_explained() {
    let home = Home::fixture();
    assert!(crash(&home, "prune", "", "removal.unlinking", 1));
    run(async {
        let local = home.open().await;
        let history = local.history(10).await.expect("a history");
        let [run] = history.as_slice() else { panic!("{history:?}") };
        assert_eq!((run.removed, run.state, run.report.image_refs_removed), (38, RunState::Killed, 38));
        assert_eq!(run.problem.as_deref(), Some("its process was killed before it was complete"));
        assert!(run.report.bytes_reclaimed > Some(0));
        let gone = local.explain("docker.io/acme/app00004:v7").await.expect("an explanation");
        assert!(gone.image.is_none());
        assert_eq!(
            (gone.decisions[0].verdict, gone.decisions[0].reason.as_str()),
            (Verdict::Removed, "nothing uses it")
        );
    });
    // What was not committed did not happen, and is not on record as if it had.
    let home = Home::fixture();
    assert!(crash(&home, "prune", "", "removal.recorded", 1));
    let history = run(async { home.open().await.history(10).await }).expect("a history");
    assert_eq!((history.len(), history[0].removed), (1, 0));
}

/// The allocated bytes of the artifacts in a cache.
fn allocated(home: &Home) -> u64 {
    let rooms = ["layers", "fsmeta", "vmdk", "manifests"];
    let files = rooms.iter().flat_map(|room| home.files(room).into_iter().map(|name| (*room, name)));
    files
        .map(|(room, name)| fs::metadata(home.cache().join(room).join(name)).expect("a file").blocks() * 512)
        .sum()
}

/// What a change finishes of a removal that was killed is in its report, with the files and bytes that went, also where
/// nothing else is left to do.
#[test]
fn what_a_change_finishes_is_in_its_report() {
    for failpoint in ["removal.committed", "removal.unlinked"] {
        let home = Home::fixture();
        let before = allocated(&home);
        assert!(crash(&home, "prune", "", failpoint, 1));
        let between = allocated(&home);
        assert_eq!(before == between, failpoint == "removal.committed");
        let records = home.count("SELECT count(*) FROM larder_deletion");
        run(async {
            let local = home.open().await;
            let plan = local.plan_prune().await.expect("a plan");
            let progress = local.progress_of(&plan).await.expect("an answer");
            assert_eq!(i64::try_from(progress.unfinished), Ok(records));
            let report = local.apply(&plan).await.expect("applied");
            let RecoveredFiles { bytes, files } = report.recovered;
            let gone = records - i64::from(before != between);
            assert_eq!(i64::try_from(files), Ok(gone), "{failpoint}");
            assert!(bytes > 0 && report.removed.is_empty());
            let freed = bytes + report.report.bytes_reclaimed.unwrap_or_default();
            assert_eq!(freed, between - allocated(&home), "{failpoint}");
            let again = local.apply(&local.plan_prune().await.expect("a plan")).await.expect("applied");
            assert_eq!(again.recovered, RecoveredFiles::default());
        });
    }
}

/// What was committed is gone for good, what was not is there as before: a removal is never seen half done.
#[test]
fn a_removal_is_whole_or_not_at_all() {
    for (failpoint, references) in
        [("removal.recorded", 41), ("removal.committed", 40), ("removal.unlinking", 40)]
    {
        let home = Home::fixture();
        assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", failpoint, 1));
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), references, "{failpoint}");
        assert_eq!(home.files("layers").len(), 240, "{failpoint}");
    }
}

const LAYER: &str = "sha256_d00000000000000000000000000000000000000000000000000000000000009c.erofs";

/// Rule 2: a file that the index owns again is not deleted, though it is the very file that was to go.
#[test]
fn recovery_spares_what_is_owned_again() {
    let home = Home::fixture();
    assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", "removal.committed", 1));
    let diff_id = LAYER.trim_end_matches(".erofs").replace('_', ":");
    home.execute(&format!("INSERT INTO layer (diff_id, blob_digest) VALUES ('{diff_id}', 'x')"));
    recover(&home);
    assert!(home.files("layers").contains(LAYER));
    assert_eq!(home.files("layers").len(), 235);
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
}

/// Rule 2: a newer file under the name of one that was to go is not deleted.
#[test]
fn recovery_spares_a_newer_file() {
    let home = Home::fixture();
    assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", "removal.committed", 1));
    let path = home.cache().join("layers").join(LAYER);
    let content = fs::read(&path).expect("the layer");
    let other = path.with_extension("new");
    fs::write(&other, content).expect("a newer file");
    fs::rename(&other, &path).expect("put in its place");
    recover(&home);
    assert!(path.exists());
    assert_eq!(home.files("layers").len(), 235);
}

/// Rule 3: a file that somebody holds is not deleted by the recovery, which comes back for it.
#[test]
fn recovery_spares_what_is_held() {
    let home = Home::fixture();
    assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", "removal.committed", 1));
    let lease = home.lease("layers", LAYER);
    recover(&home);
    assert!(home.files("layers").contains(LAYER));
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 1);
    drop(lease);
    recover(&home);
    assert!(!home.files("layers").contains(LAYER));
    assert_finished(&home, "once it was free");
}

/// A forced removal that was cut short keeps the data of an image in use.
#[test]
fn a_forced_removal_that_was_cut_short_keeps_data_in_use() {
    for failpoint in larder::failpoint::NAMES {
        let home = Home::fixture();
        crash(&home, "force", IN_USE[0], failpoint, 1);
        recover(&home);
        assert_no_row_without_artifact(&home, failpoint);
        assert_eq!((home.files("layers").len(), home.files("manifests").len()), (240, 40), "{failpoint}");
    }
}

/// A process that stays finishes, with its next change, what another one left since it opened the home.
#[test]
fn a_process_that_stays_recovers() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        local.pin(IN_USE[0]).await.expect("pinned");
        assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", "removal.committed", 1));
        assert_eq!(home.files("layers").len(), 240);
        local.unpin(IN_USE[0]).await.expect("unpinned");
        assert_eq!(home.files("layers").len(), 234);
        assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
    });
}

/// Records stay while the cache that they are about is not there, and a backend with another cache leaves them alone.
#[test]
fn records_wait_for_their_cache() {
    let home = Home::fixture();
    assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", "removal.committed", 1));
    let records = home.count("SELECT count(*) FROM larder_deletion");
    assert!(records > 0);
    let elsewhere = home.path().join("unmounted");
    fs::rename(home.cache(), &elsewhere).expect("the cache taken away");
    recover(&home);
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), records);
    fs::rename(&elsewhere, home.cache()).expect("the cache put back");

    let other = tempfile::tempdir().expect("a directory");
    for room in ["layers", "fsmeta", "vmdk", "manifests"] {
        fs::create_dir(other.path().join(room)).expect("a room");
    }
    run(async {
        let builder = larder::LocalBackend::builder().home(home.path()).cache_dir(other.path());
        builder.build().await.expect("the home opened").unpin(IN_USE[0]).await.expect("nothing to unpin");
    });
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), records);
    recover(&home);
    assert_finished(&home, "once the cache was back");
}

/// The number of a record is not used again, so that nobody forgets a record of another process by its number.
#[test]
fn numbers_of_records_are_not_used_again() {
    let home = Home::fixture();
    assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", "removal.committed", 1));
    let last = home.count("SELECT max(id) FROM larder_deletion");
    recover(&home);
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
    assert!(crash(&home, "remove", "docker.io/acme/app00004:v6", "removal.committed", 1));
    assert!(home.count("SELECT min(id) FROM larder_deletion") > last);
}

/// A recorded file whose lease cannot be had stops no change, and goes when it can.
#[test]
fn a_lease_that_cannot_be_had_stops_no_change() {
    let home = Home::fixture();
    assert!(crash(&home, "remove", "docker.io/acme/app00004:v7", "removal.committed", 1));
    let leases = home.cache().join("layers/.msb-leases");
    let aside = home.cache().join("layers/aside");
    fs::rename(&leases, &aside).expect("leases");
    fs::write(&leases, "a file in place of the leases").expect("a file");
    run(async { home.open().await.pin(IN_USE[0]).await }).expect("pinned");
    assert!(home.count("SELECT count(*) FROM larder_deletion") > 0);
    assert_eq!(home.files("fsmeta").len(), 39);
    fs::remove_file(&leases).and_then(|()| fs::rename(&aside, &leases)).expect("leases");
    run(async { home.open().await.unpin(IN_USE[0]).await }).expect("unpinned");
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
    assert_eq!(home.files("layers").len(), 234);
}
