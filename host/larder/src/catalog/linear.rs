//! Rule 5, for planning: its cost, counted in steps of SQLite, grows in proportion to the home. A change also blocks
//! other writers for that many steps.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use super::history::{self, Expiry};
use super::journal::{self, Swept};
use super::removal_set::{RemovalSet, Wanted};
use super::remove;
use super::{graph, owners, pins, roots, schema};

/// The indexes that Larder adds to microsandbox's tables.
#[derive(Clone, Copy, PartialEq)]
enum Indexes {
    Made,
    Missing,
}

/// Makes an index of this many images with a layer of their own each and one base layer under all, and this many
/// sandboxes whose row names no manifest.
fn index(images: u32, sandboxes: u32, indexes: Indexes) -> Connection {
    let mut connection = Connection::open_in_memory().expect("a database");
    schema::create(&mut connection, chrono::DateTime::UNIX_EPOCH).expect("the tables");
    schema::migrate_larder(&mut connection).expect("Larder's tables");
    roots::prepare(&connection).expect("the views");
    connection
        .execute_batch(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {images})
             INSERT INTO manifest (id, digest) SELECT i, 'sha256:' || printf('%064x', i) FROM n;
             INSERT INTO layer (id, diff_id, blob_digest) SELECT id, digest, digest FROM manifest;
             INSERT INTO layer (id, diff_id, blob_digest) VALUES (1000000, 'sha256:' || printf('%064x', 1000000), 'base');
             INSERT INTO manifest_layer (manifest_id, layer_id, position) SELECT id, id, 1 FROM manifest;
             INSERT INTO manifest_layer (manifest_id, layer_id, position) SELECT id, 1000000, 0 FROM manifest;
             INSERT INTO image_ref (id, reference, manifest_id) SELECT id, 'docker.io/a/b:' || id, id FROM manifest;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {sandboxes})
             INSERT INTO sandbox (id, name, config, status)
             SELECT i, 'disk' || i, '{{\"image\":{{\"disk\":\"/vm/' || i || '.raw\"}}}}', 'stopped' FROM n WHERE {sandboxes} > 0;"
        ))
        .expect("the rows");
    if indexes == Indexes::Missing {
        connection
            .execute_batch(
                "DROP INDEX larder_image_ref_manifest; DROP INDEX larder_manifest_layer_layer;
                 DROP INDEX larder_sandbox_rootfs_manifest;",
            )
            .expect("no indexes");
    }
    connection
}

/// Returns the number of steps that SQLite takes for `work`.
fn steps(connection: &mut Connection, work: impl FnOnce(&Connection)) -> u64 {
    let steps = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&steps);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    connection.progress_handler(1, Some(count)).expect("a handler");
    work(connection);
    connection.progress_handler(0, None::<fn() -> bool>).expect("no handler");
    steps.load(Ordering::Relaxed)
}

/// Runs every query that the plan of a prune makes.
fn plan(connection: &Connection) {
    roots::refresh(connection).expect("the users");
    roots::all_users(connection).expect("the users");
    pins::set(connection).expect("the pins");
    graph::origins(connection).expect("the origins");
    graph::images(connection).expect("the images");
    graph::manifests(connection).expect("the manifests");
    graph::layers(connection).expect("the layers");
    graph::links(connection).expect("the links");
    owners::entries(connection).expect("the owners");
    remove::unreached_manifests(connection).expect("no manifests");
    remove::unreached_layers(connection).expect("no layers");
}

/// Planning a prune of four times the images takes at most five times the steps, with and without Larder's indexes, and
/// with a thousand sandboxes that name no manifest.
#[test]
fn planning_is_linear() {
    for indexes in [Indexes::Made, Indexes::Missing] {
        let [few, many] = [1000, 4000].map(|images| {
            let mut connection = index(images, 1000, indexes);
            steps(&mut connection, plan)
        });
        assert!(few > 10_000, "the steps were counted: {few}");
        assert!(many <= 5 * few, "{few} steps for 1000 images, {many} for 4000");
    }
}

/// Reading the removal set of every image, in batches, takes at most five times the steps for four times the images,
/// even if they all share a layer and a thousand sandboxes name no manifest.
#[test]
fn removal_sets_are_linear() {
    let [few, many] = [1000, 4000].map(|images| {
        let mut connection = index(images, 1000, Indexes::Made);
        let references: Vec<String> = (1..=images).map(|number| format!("docker.io/a/b:{number}")).collect();
        steps(&mut connection, |connection| {
            for batch in references.chunks(50) {
                roots::refresh(connection).expect("the users");
                let rows = remove::find_refs(connection, batch).expect("the rows");
                let refs: Vec<_> = rows.values().collect();
                remove::live_refs(connection, refs.iter().copied()).expect("their state");
                let wanted = Wanted { refs: &refs, ..Wanted::default() };
                let set = RemovalSet::read(connection, wanted, &HashSet::new()).expect("what goes");
                assert_eq!(set.manifests.len(), batch.len());
                remove::delete(connection, &refs, &set).expect("deleted");
            }
        })
    });
    assert!(few > 10_000, "the steps were counted: {few}");
    assert!(many <= 5 * few, "{few} steps for 1000 images, {many} for 4000");
}

/// Users by name are read once, and again only if another connection has changed the index or a reference got another
/// manifest.
#[test]
fn named_users_are_found_out_once() {
    let mut connection = index(10, 1000, Indexes::Made);
    let refresh = |connection: &Connection| roots::refresh(connection).expect("the users");
    let first = steps(&mut connection, refresh);
    let again = steps(&mut connection, refresh);
    assert!(first > 10_000 && again < 100, "{first} steps, then {again}");
    roots::forget(&connection).expect("forgotten");
    assert!(steps(&mut connection, refresh) > 10_000);
}

/// Decisions of old runs are deleted in pieces that are as short for a large run as for a small one. In the end the
/// last thousand runs are left, and the kept images of the last ten.
#[test]
fn expiry_is_done_in_pieces() {
    let longest = |decisions: u32| {
        let mut connection = index(0, 0, Indexes::Made);
        connection
            .execute_batch(&format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1005)
                 INSERT INTO larder_run (id, started_at, report, duration_ms) SELECT i, '2026-11-01 00:00:00', '{{}}', 0 FROM n;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {decisions})
                 INSERT INTO larder_decision (run_id, reference, decision, reason, bytes)
                 SELECT run.id, 'docker.io/a/b:' || i, iif(i % 2, 'kept', 'removed'), 'a reason', 0
                   FROM n, (SELECT id FROM larder_run WHERE id IN (3, 500, 1000)) AS run"
            ))
            .expect("the runs");
        let (mut longest, mut pieces) = (0, 0);
        let mut expiry = Expiry::More;
        while expiry == Expiry::More {
            let taken = steps(&mut connection, |connection| {
                expiry = history::expire(connection, 100).expect("expired");
            });
            (longest, pieces) = (taken.max(longest), pieces + 1);
        }
        assert!(pieces > decisions * 3 / 2 / 100, "{pieces} pieces");
        let count =
            |query: &str| connection.query_row(query, [], |row| row.get::<_, u32>(0)).expect("a number");
        assert_eq!(count("SELECT count(*) FROM larder_run"), 1000);
        assert_eq!(count("SELECT count(*) FROM larder_decision WHERE run_id = 3"), 0);
        assert_eq!(count("SELECT count(*) FROM larder_decision WHERE run_id = 500"), decisions / 2);
        assert_eq!(count("SELECT count(*) FROM larder_decision WHERE run_id = 1000"), decisions);
        longest
    };
    let [few, many] = [500, 5000].map(longest);
    assert!(few > 500, "the steps were counted: {few}");
    assert!(many <= few + few / 10, "{few} steps of 500 decisions, {many} of 5000");
}

/// A sweep of the journal reads only what is new: of one boot it takes as many steps in an index of four times the images
/// and runs. Reading the journal, swept or not, takes at most five times as many.
#[test]
fn sweeping_reads_what_is_new() {
    let now = "2026-11-24T12:00:00Z".parse().expect("an instant");
    let [few, many] = [1000, 4000].map(|images| {
        let mut connection = index(images, images, Indexes::Made);
        connection
            .execute_batch(
                "UPDATE image_ref SET updated_at = '2026-11-20 10:00:00.' || printf('%09d', id);
                 UPDATE layer SET last_used_at = '2026-11-20 10:00:00.' || printf('%09d', id);
                 INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode) SELECT id, id, 'oci' FROM sandbox;
                 INSERT INTO run (sandbox_id, status, started_at) SELECT id, 'Stopped', '2026-11-20 11:00:00' FROM sandbox;",
            )
            .expect("the uses");
        let read = |connection: &Connection| {
            assert_eq!(journal::pasts(connection, now).expect("the pasts").len(), images as usize);
        };
        let before = steps(&mut connection, read);
        while journal::sweep(&connection, now, 500).expect("swept") == Swept::Part {}
        let after = steps(&mut connection, read);
        connection
            .execute_batch("INSERT INTO run (sandbox_id, status, started_at) VALUES (1, '', '2026-11-21 11:00:00')")
            .expect("a boot");
        let swept = steps(&mut connection, |connection| {
            assert_eq!(journal::sweep(connection, now, 500), Ok(Swept::All));
        });
        [before, after, swept]
    });
    assert!(few[0] > 10_000 && few[1] > 1000 && few[2] > 100, "the steps were counted: {few:?}");
    assert!(many[0] <= 5 * few[0] && many[1] <= 5 * few[1], "{few:?} steps, then {many:?}");
    assert!(many[2] <= few[2] + few[2] / 10, "{few:?} steps, then {many:?}");
}

/// What is too old goes from the journal in pieces that take as many steps of much as of little.
#[test]
fn old_uses_go_in_pieces() {
    let now = "2026-11-24T12:00:00Z".parse().expect("an instant");
    let [few, many] = [500, 5000].map(|uses| {
        let mut connection = index(0, 0, Indexes::Made);
        connection
            .execute_batch(&format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {uses})
                 INSERT INTO larder_image (id, manifest_digest, first_seen_at, last_day) SELECT i, 'sha256:' || i, 0, 9 FROM n;
                 INSERT INTO larder_name (reference, image_id, named_at) SELECT 'docker.io/a/b:' || id, id, 0 FROM larder_image;
                 INSERT INTO larder_use (day, image_id, kind, hours, latest)
                 SELECT day.value, larder_image.id, 0, 1, 0 FROM larder_image, json_each('[9, 20781]') AS day"
            ))
            .expect("the uses");
        let taken = steps(&mut connection, |connection| {
            assert_eq!(journal::sweep(connection, now, 100), Ok(Swept::Part));
        });
        let count = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a number");
        let left = [count("SELECT count(*) FROM larder_use"), count("SELECT count(*) FROM larder_name")];
        assert_eq!(left, [2 * uses - 100, uses - 100]);
        taken
    });
    assert!(few > 1000, "the steps were counted: {few}");
    assert!(many <= few + few / 10, "{few} steps of 500 uses, {many} of 5000");
}
