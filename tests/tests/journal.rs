//! How images were used is on record, whatever microsandbox removes meanwhile.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use larder::ingest::ImageSave;
use larder::maintenance::VerifyDepth;
use larder::policy::{GrantDocument, Policy, PolicyRun, UseRecord};
use larder::snapshot::ImageHistory;
use larder::{Image, LocalBackend};
use larder_tests::archive::{TestImage, docker_files};
use larder_tests::{ENGINE, FIXTURE_NOW, Home, LoadTest, guest, run};

/// The image of the fixture that the sandboxes `web` and `worker` use.
const USED: &str = "docker.io/acme/app00000:v0";

/// Two boots of it within an hour, and one before.
const BOOTS: &str = "INSERT INTO run (sandbox_id, status, started_at) VALUES
     (1, 'Stopped', '2026-11-23 08:30:00'), (1, 'Stopped', '2026-11-24 10:10:00'), (2, 'Stopped', '2026-11-24 10:40:05')";

/// microsandbox removes the sandboxes and the image.
const REMOVED: &str =
    "DELETE FROM sandbox; DELETE FROM image_ref WHERE id = 1; DELETE FROM manifest WHERE id = 1";

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn uses(home: &Home, reference: &str) -> UseRecord {
    let explanation = run(async { home.open().await.explain(reference).await });
    explanation.expect("an explanation").uses.expect("uses")
}

/// What a decision is told of an image.
async fn history(local: &LocalBackend, reference: &str) -> ImageHistory {
    let mut snapshot = local.snapshot().await.expect("a snapshot");
    let reference = reference.to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let images = snapshot.images().expect("the images");
        let place = images.iter().position(|image| image.handle.reference() == reference);
        snapshot.history().expect("a history").swap_remove(place.expect("the image"))
    });
    told.await.expect("a history")
}

/// The rows of the journal, as text.
fn journal(home: &Home) -> BTreeSet<String> {
    let mut rows =
        home.texts("SELECT format('%s %s %s %s %s', day, image_id, kind, hours, latest) FROM larder_use");
    rows.extend(home.texts("SELECT format('%s %s %s', id, manifest_digest, booted_by) FROM larder_image"));
    rows
}

/// The first change by a backend records what microsandbox did. It is told when sandboxes and image are gone, and again to
/// decisions when the same image is back.
#[test]
fn boots_outlive_sandbox_and_image() {
    let home = Home::fixture();
    home.execute(BOOTS);
    run(async { home.open().await.pin("acme/app00004:v7").await }).expect("pinned");
    home.execute("CREATE TABLE kept AS SELECT * FROM manifest WHERE id = 1");
    home.execute(REMOVED);
    let told = uses(&home, "acme/app00000:v0");
    assert_eq!((told.boots, told.last_booted_by.as_deref()), (2, Some("worker")));
    assert_eq!(told.last_booted_at, Some(instant("2026-11-24T10:40:05Z")));

    home.execute(&format!(
        "INSERT INTO manifest SELECT * FROM kept;
         INSERT INTO image_ref (reference, manifest_id, created_at, updated_at)
         VALUES ('{USED}', 1, '2026-11-24 11:00:00', '2026-11-24 11:00:00')"
    ));
    let told = run(async { history(&home.open().await, USED).await });
    let boots = ["2026-11-24T10:40:05Z", "2026-11-23T08:00:00Z"].map(instant);
    assert_eq!((told.boots.as_slice(), told.boot_count, told.arrivals), (&boots[..], 2, 2));
}

/// A backend that stays open records when it is asked to, and two at once count nothing twice.
#[test]
fn two_record_at_once() {
    let home = Home::fixture();
    run(async {
        let (one, other) = (home.open().await, home.open().await);
        one.record_uses().await.expect("recorded");
        home.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
             INSERT INTO run (sandbox_id, status, started_at)
             SELECT 1 + i % 3, 'Stopped', datetime('2026-11-24 10:59:00', '-' || i || ' minutes') FROM n",
        );
        let (first, second) = tokio::join!(one.record_uses(), other.record_uses());
        first.and(second).expect("recorded");
        // 50 hours, and of the sandboxes `web` and `worker` one image.
        assert_eq!(history(&one, USED).await.boot_count, 50);
        assert_eq!(history(&one, "docker.io/acme/app00001:v0").await.boot_count, 50);
    });
    let recorded = journal(&home);
    home.execute(REMOVED);
    run(async { home.open().await.record_uses().await }).expect("recorded");
    assert_eq!(journal(&home), recorded);
}

/// Looking at images is no use of them, and neither is planning.
async fn look(local: &LocalBackend) {
    Image::list_local(local).await.expect("the images");
    Image::inspect_local(local, USED).await.expect("the image");
    local.verify(VerifyDepth::Shallow).await.expect("a report");
    local.plan_prune().await.expect("a plan");
    local.usage().await.expect("what is used");
    local.explain(USED).await.expect("an explanation");
}

/// In a home that Larder has never changed, decisions are told what microsandbox's own tables say, and nothing is written.
#[test]
fn a_home_of_microsandbox() {
    let home = Home::fixture();
    home.execute(BOOTS);
    let told = run(async {
        let local = home.open().await;
        look(&local).await;
        history(&local, USED).await
    });
    assert_eq!((told.boot_count, told.arrivals, told.last_pull), (2, 1, None));
    assert_eq!(
        told.first_seen_at,
        Some(instant("2026-11-23T08:30:00Z")),
        "the row of its manifest is younger"
    );
    assert_eq!(uses(&home, USED).boots, 2);
    assert_eq!(home.count("SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder_%'"), 0);
}

/// Looking records nothing in a home that has a journal either: neither uses of its own, nor what microsandbox did.
#[test]
fn looking_is_no_use() {
    let home = Home::fixture();
    run(async { home.open().await.pin("acme/app00004:v7").await }).expect("pinned");
    home.execute(BOOTS);
    let before = journal(&home);
    run(async { look(&home.open().await).await });
    assert_eq!(journal(&home), before);
    assert!(!before.is_empty());
}

/// Loads and saves are on record. A save does so only in a home that Larder has changed before.
#[test]
fn loads_and_saves() {
    let test = LoadTest::new();
    let archive = test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])]));
    test.load(&archive, &[]).expect("loaded");
    let told = uses(&test.home, "acme/app:1");
    assert_eq!((told.arrivals, told.last_loaded_at), (1, Some(instant(FIXTURE_NOW))));
    assert_eq!((told.last_saved_at, told.last_pull_bytes), (None, None));
    let save = || {
        let save = ImageSave::new(["acme/app:1"], test.path("saved.tar"));
        run(async { save.run(&test.home.open().await).await }).expect("saved")
    };
    save();
    let told = uses(&test.home, "acme/app:1");
    assert_eq!((told.arrivals, told.last_saved_at), (1, Some(instant(FIXTURE_NOW))));

    let ours = |kind: &str| {
        let query = format!(
            "SELECT name FROM sqlite_master WHERE type = '{kind}' AND sql IS NOT NULL AND name LIKE 'larder_%'"
        );
        test.home.texts(&query)
    };
    for kind in ["index", "table"] {
        ours(kind)
            .iter()
            .for_each(|name| test.home.execute(&format!("PRAGMA foreign_keys = OFF; DROP {kind} {name}")));
    }
    save();
    assert_eq!(ours("table"), BTreeSet::new());
}

/// A policy is told the boots of an image and how often it came in.
#[test]
fn a_policy_is_told() {
    let home = Home::fixture();
    home.execute(BOOTS);
    // Of the one image: two boots, the newest first, two in number, and one arrival.
    let component = guest(
        r#"(import "larder:image/usage@0.2.0" "get-history" (func $history (param i32 i32 i32 i32)))
           (func $on_evaluate (local $image i32)
              (call $history (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8192))
              (if (i32.load8_u (i32.const 8192)) (then unreachable))
              (if (i32.ne (i32.load (i32.const 8200)) (i32.const 1)) (then unreachable))
              (local.set $image (i32.load (i32.const 8196)))
              (if (i32.ne (i32.load offset=36 (local.get $image)) (i32.const 2)) (then unreachable))
              (if (i64.ne (i64.load (i32.load offset=32 (local.get $image))) (i64.const 1795516805)) (then unreachable))
              (if (i64.ne (i64.load offset=40 (local.get $image)) (i64.const 2)) (then unreachable))
              (if (i32.ne (i32.load offset=48 (local.get $image)) (i32.const 1)) (then unreachable)))"#,
    );
    let policy_run = PolicyRun::new(instant(FIXTURE_NOW)).with_grant(
        GrantDocument::from_toml(&format!("[grant]\nread = [\"{USED}\"]\n"), "grant").expect("a grant"),
    );
    let told = run(async {
        let policy = Policy::load(&ENGINE, component).await.expect("a policy");
        policy.evaluate(home.open().await.snapshot().await.expect("a snapshot"), &policy_run).await
    });
    told.expect("it was told so");
}
