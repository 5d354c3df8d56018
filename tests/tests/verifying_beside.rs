//! A verification beside those who change the cache cries no wolf.
//!
//! Points in the library are armed for the whole process: this file has one test.

use larder::Image;
use larder::failpoint::{VERIFY_READ, call_at};
use larder::maintenance::{FindingKind, VerifyDepth, VerifyReport};
use larder_tests::archive::{TestImage, docker_files};
use larder_tests::{Home, LoadTest, run};

/// Verifies a home on which something else is done when the index has been read and no file was looked at.
fn verify_beside(home: &Home, work: impl FnOnce() + Send + 'static) -> VerifyReport {
    // Of its own runtime, as another program.
    call_at(VERIFY_READ, move || std::thread::spawn(work).join().expect("its end"));
    run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report")
}

/// The files of a kind, metadata aside: the fixture has none of some references.
fn paths(report: &VerifyReport, kind: FindingKind) -> Vec<String> {
    let found = report.findings.iter().filter(|finding| finding.kind == kind);
    let found = found.filter(|finding| !finding.path.starts_with("manifests"));
    found.map(|finding| finding.path.display().to_string()).collect()
}

/// What a prune takes away while files are looked at is not missing, what is loaded meanwhile no orphan, and a file that
/// is truly lost is missing nevertheless; of one that is just being deleted nothing is said.
#[test]
fn no_wolf() {
    let home = Home::fixture();
    let used = run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report");
    assert!(paths(&used, FindingKind::Missing).is_empty());
    let lost = "layers/sha256_d000000000000000000000000000000000000000000000000000000000000030.erofs";
    let pruning = home.copy();
    std::fs::remove_file(pruning.cache().join(lost)).expect("lost");
    let path = pruning.path();
    let report = verify_beside(&pruning, move || {
        let report = run(async {
            let local = larder::LocalBackend::builder().home(path).build().await.expect("the home");
            Image::prune_local(&local).await.expect("pruned")
        });
        assert_eq!(report.image_refs_removed, 38);
    });
    let there = |query: &str| pruning.count(query) > 0;
    let still_named = there("SELECT count(*) FROM layer WHERE diff_id LIKE '%030'");
    assert_eq!(
        paths(&report, FindingKind::Missing),
        if still_named { vec![lost.to_owned()] } else { vec![] }
    );
    assert!(paths(&report, FindingKind::Orphan).is_empty(), "{report:?}");

    let test = LoadTest::new();
    let archive = test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])]));
    let path = test.home.path();
    let report = verify_beside(&test.home, move || {
        run(async {
            let local = larder::LocalBackend::builder().home(path).build().await.expect("the home");
            Image::load_local(&local, &archive, Vec::new()).await.expect("loaded")
        });
    });
    assert!(report.findings.is_empty() && report.skipped.is_empty(), "{report:?}");

    let name = lost.trim_start_matches("layers/");
    std::fs::remove_file(home.cache().join(lost)).expect("taken away");
    let deletion = home.deletion("layers", name);
    let report = run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report");
    assert!(report.skipped.iter().any(|path| path.as_os_str() == lost), "{report:?}");
    assert!(paths(&report, FindingKind::Missing).is_empty());
    drop(deletion);
    let report = run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report");
    assert_eq!(paths(&report, FindingKind::Missing), [lost]);
}
