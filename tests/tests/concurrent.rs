//! Several programs on one home at the same time: two that prune, and one that uses images as microsandbox does.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use larder::maintenance::{FindingKind, VerifyDepth};
use larder_tests::{FIXTURE_NOW, Home, images_on_one_base, populate, run};

const MANIFEST: &str = "sha256_a000000000000000000000000000000000000000000000000000000000000027";

/// The entries of the image that is used meanwhile: its fsmeta image, its descriptor and two of its layers.
fn entries() -> [(&'static str, String); 4] {
    let layer = |digit: char| {
        format!("sha256_d00000000000000000000000000000000000000000000000000000000000009{digit}.erofs")
    };
    [
        ("fsmeta", format!("{MANIFEST}.erofs")),
        ("vmdk", format!("{MANIFEST}.vmdk")),
        ("layers", layer('c')),
        ("layers", layer('d')),
    ]
}

/// Takes the image's leases again and again, and checks that what it holds does not go. Tells when it first held it.
fn use_image(home: &Home, stop: &AtomicBool, begun: &Sender<()>) {
    let paths: Vec<PathBuf> =
        entries().iter().map(|(room, name)| home.cache().join(room).join(name)).collect();
    while !stop.load(Ordering::Relaxed) {
        let leases: Vec<Option<File>> =
            entries().iter().map(|(room, name)| home.try_lease(room, name)).collect();
        if leases.iter().any(Option::is_none) || !paths.iter().all(|path| path.exists()) {
            continue;
        }
        // Who waits for this waits for the first only.
        let _ = begun.send(());
        for _ in 0..50 {
            assert!(paths.iter().all(|path| path.exists()), "a file went that was held");
            std::thread::yield_now();
        }
    }
}

/// Two removals beside each other spare nothing of what nobody uses: each waits for the other's batch.
#[test]
fn removals_take_turns() {
    let home = Arc::new(Home::made());
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &images_on_one_base(300));
    let prune = || {
        let home = Arc::clone(&home);
        std::thread::spawn(move || {
            run(async {
                let local = home.open().await;
                let plan = local.plan_prune().await.expect("a plan");
                local.apply(&plan).await.expect("a report")
            })
        })
    };
    let reports = [prune(), prune()].map(|thread| thread.join().expect("its end"));
    let spared = reports.iter().map(|report| report.spared.len()).sum::<usize>();
    let removed = reports.iter().map(|report| report.removed.len()).sum::<usize>();
    assert_eq!((spared, removed), (0, 300));
    assert_eq!(home.count("SELECT count(*) FROM image_ref"), 0);
}

/// Two prunes and a user of an image do not harm each other: each image goes once, whole, and never while it is held.
#[test]
fn programs_share_a_home() {
    for _ in 0..4 {
        let home = Arc::new(Home::fixture());
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, first) = channel();
        let user = {
            let (home, stop) = (Arc::clone(&home), Arc::clone(&stop));
            std::thread::spawn(move || use_image(&home, &stop, &begun))
        };
        first.recv().expect("the image is in use");
        // The failpoint is none that there is: both run to their end.
        let prune = || {
            let mut prune = Command::new(env!("CARGO_BIN_EXE_larder-crash"));
            prune.arg(home.path()).args(["prune", "", "none", "1"]).spawn().expect("a prune")
        };
        let prunes = [prune(), prune()];
        for mut prune in prunes {
            assert!(prune.wait().expect("its end").success());
        }
        stop.store(true, Ordering::Relaxed);
        user.join().expect("nothing went that was held");

        let report = run(async {
            let local = home.open().await;
            larder::Image::prune_local(&local).await.expect("a last prune");
            local.verify(VerifyDepth::Shallow).await.expect("a report")
        });
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), 3);
        assert_eq!(home.files("layers").len(), 18);
        assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
        let lost = report.findings.iter().filter(|finding| {
            matches!(finding.kind, FindingKind::Missing | FindingKind::Orphan)
                && !finding.path.starts_with("manifests")
        });
        assert_eq!(lost.count(), 0, "{:?}", report.findings);
    }
}
