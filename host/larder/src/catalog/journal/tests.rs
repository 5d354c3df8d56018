use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::Connection;

use super::*;
use crate::catalog::{roots, schema, time};

const NOW: &str = "2026-11-24T12:00:00Z";

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

fn now() -> DateTime<Utc> {
    instant(NOW)
}

/// An index with the image 1, `docker.io/acme/app:1`, of a layer of 100 bytes, and two sandboxes of it, `ci-1` and `ci-2`.
fn index() -> Connection {
    let mut connection = Connection::open_in_memory().expect("a database");
    schema::create(&mut connection, DateTime::UNIX_EPOCH).expect("the tables");
    schema::migrate_larder(&mut connection).expect("Larder's tables");
    roots::prepare(&connection).expect("the views");
    execute(
        &connection,
        "INSERT INTO manifest (id, digest, created_at) VALUES (1, 'sha256:1', '2026-11-01 09:30:00');
         INSERT INTO image_ref (id, reference, manifest_id, created_at, updated_at)
         VALUES (1, 'docker.io/acme/app:1', 1, '2026-11-01 09:30:00', '2026-11-01 09:30:00');
         INSERT INTO layer (id, diff_id, blob_digest, compressed_size_bytes)
         VALUES (1, 'sha256:0123456789abcdef0123', 'sha256:b', 100);
         INSERT INTO manifest_layer (manifest_id, layer_id, position) VALUES (1, 1, 0);
         INSERT INTO sandbox (id, name, config, status) VALUES (1, 'ci-1', '{}', 'Stopped'), (2, 'ci-2', '{}', 'Stopped');
         INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode) VALUES (1, 1, 'oci'), (2, 1, 'oci')",
    );
    connection
}

fn execute(connection: &Connection, statements: &str) {
    connection.execute_batch(statements).expect("the statements");
}

fn boot(connection: &Connection, sandbox: i64, started_at: &str) {
    let query = "INSERT INTO run (sandbox_id, status, started_at) VALUES (?1, 'Stopped', ?2)";
    connection.execute(query, (sandbox, started_at)).expect("a run");
}

fn sweep_all(connection: &Connection) {
    while sweep(connection, now(), 100).expect("swept") == Swept::Part {}
}

fn past(connection: &Connection) -> UseRecord {
    past_of(connection, "sha256:1", now()).expect("a query").expect("a past")
}

fn boots(connection: &Connection) -> Vec<String> {
    let pasts = pasts(connection, now()).expect("a query");
    let boots = pasts["sha256:1"].boots();
    boots.iter().map(|boot| boot.format("%m-%d %H:%M:%S").to_string()).collect()
}

/// Every row of the journal, as text.
fn rows(connection: &Connection) -> Vec<String> {
    let queries = [
        "SELECT format('%s %s %s %s %s', id, manifest_digest, first_seen_at, last_day, booted_by) FROM larder_image",
        "SELECT format('%s %s %s', reference, image_id, named_at) FROM larder_name",
        "SELECT format('%s %s %s %s %s', day, image_id, kind, hours, latest) FROM larder_use",
        "SELECT format('%s %s %s', source, at, id) FROM larder_swept",
    ];
    let rows = |query: &str| {
        let mut statement = connection.prepare(query).expect("a query");
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
        rows.collect::<rusqlite::Result<Vec<_>>>().expect("texts")
    };
    queries.into_iter().flat_map(rows).collect()
}

/// Boots of one image within an hour are one, the last is known to the second and by its sandbox, and all are on record when
/// microsandbox has removed sandboxes and image.
#[test]
fn boots_outlive_what_was_booted() {
    let connection = index();
    boot(&connection, 1, "2026-11-20 08:10:00");
    boot(&connection, 1, "2026-11-24 10:10:00.123456789");
    boot(&connection, 2, "2026-11-24 10:40:05");
    let before = boots(&connection);
    assert_eq!(before, ["11-24 10:40:05", "11-20 08:00:00"], "read from microsandbox's tables");
    sweep_all(&connection);
    execute(
        &connection,
        "DELETE FROM sandbox; DELETE FROM image_ref; DELETE FROM manifest; DELETE FROM layer",
    );
    assert_eq!(boots(&connection), before);
    let past = past(&connection);
    assert_eq!((past.boots, past.last_booted_by.as_deref()), (2, Some("ci-2")));
    assert_eq!((past.first_booted_at, past.arrivals), (Some(instant("2026-11-20T08:00:00Z")), 1));
    assert_eq!(past.first_seen_at, Some(instant("2026-11-01T09:30:00Z")));
    let name = name_of(&connection, "acme/app:1").expect("a query");
    assert_eq!(name.as_deref(), Some("sha256:1"), "in another spelling");
    let layers: String =
        connection.query_row("SELECT layers FROM larder_image", [], |row| row.get(0)).expect("the layers");
    assert_eq!(layers, r#"[["0123456789abcdef",100]]"#);
}

/// What is swept again, after what was noted is lost as well, changes nothing.
#[test]
fn nothing_counts_twice() {
    let connection = index();
    boot(&connection, 1, "2026-11-24 10:10:00");
    sweep_all(&connection);
    let once = rows(&connection);
    sweep_all(&connection);
    assert_eq!(rows(&connection), once);
    execute(&connection, "DELETE FROM larder_swept");
    sweep_all(&connection);
    assert_eq!(rows(&connection), once);
    boot(&connection, 1, "2026-11-24 11:10:00");
    sweep_all(&connection);
    assert_eq!(past(&connection).boots, 2);
}

/// A table of runs that was made again is read from its beginning, whether its numbers are lower than those that were
/// read or have passed them.
#[test]
fn numbers_that_begin_again() {
    for runs in [1, 3, 5] {
        let connection = index();
        (0..3).for_each(|hour| boot(&connection, 1, &format!("2026-11-24 0{hour}:30:00")));
        sweep_all(&connection);
        execute(&connection, "DELETE FROM run; UPDATE sqlite_sequence SET seq = 0 WHERE name = 'run'");
        (0..runs).for_each(|hour| boot(&connection, 2, &format!("2026-11-23 0{hour}:30:00")));
        assert_eq!(past(&connection).boots, 3 + runs, "read");
        sweep_all(&connection);
        assert_eq!(past(&connection).boots, 3 + runs, "swept");
    }
}

/// A row with a time that is none, too old or yet to come is passed over, and one with odd values stops no other. So is
/// a table that a home does not have.
#[test]
fn odd_rows() {
    let connection = index();
    execute(
        &connection,
        "PRAGMA foreign_keys = OFF;
         INSERT INTO run (sandbox_id, status, started_at) VALUES
             (1, '', NULL), (1, '', x'ff'), (1, '', 7), (1, '', 'yesterday'), (1, '', '2024-01-01 00:00:00'),
             (1, '', '2027-01-01 00:00:00'), (9, '', '2026-11-24 10:00:00'), (1, '', '2026-11-24 10:00:00'), (1, '', 'zzz');
         UPDATE layer SET diff_id = x'ff', compressed_size_bytes = x'00', last_used_at = x'ff';
         UPDATE sandbox SET name = x'ff' WHERE id = 1;
         INSERT INTO image_ref (reference, manifest_id, created_at, updated_at) VALUES
             (x'ff', 1, 3, '2026-11-24 09:00:00'), ('a', 99, NULL, '2026-11-24 09:00:00'), ('b', 1, NULL, 'zzz'),
             ('c', 1, '2027-01-01 00:00:00', '2027-01-01 00:00:00')",
    );
    for sweep in [false, true] {
        if sweep {
            sweep_all(&connection);
        }
        let past = past(&connection);
        assert_eq!((past.boots, past.last_booted_by, past.arrivals), (1, None, 1));
        assert_eq!(past.last_touched_at, Some(instant("2026-11-24T09:00:00Z")));
    }
    execute(
        &connection,
        "INSERT INTO image_ref (reference, manifest_id, updated_at) VALUES ('d', 1, '2026-11-24 11:00:00')",
    );
    execute(&connection, "DROP TABLE memory_allocation_node; DROP TABLE cpu_allocation; DROP TABLE run");
    // Each open of a home compiles the queries.
    connection.flush_prepared_statement_cache();
    sweep_all(&connection);
    assert_eq!(past(&connection).last_touched_at, Some(instant("2026-11-24T11:00:00Z")));
}

/// A row is seen that was committed a little after rows of a later time.
#[test]
fn late_rows() {
    let connection = index();
    execute(&connection, "UPDATE image_ref SET updated_at = '2026-11-24 11:59:58'");
    sweep_all(&connection);
    execute(
        &connection,
        "INSERT INTO manifest (id, digest, created_at) VALUES (2, 'sha256:2', '2026-11-24 11:59:55');
         INSERT INTO image_ref (reference, manifest_id, created_at, updated_at)
         VALUES ('late', 2, '2026-11-24 11:59:55', '2026-11-24 11:59:55')",
    );
    sweep_all(&connection);
    assert_eq!(name_of(&connection, "late").expect("a query").as_deref(), Some("sha256:2"));
}

/// A tag that moves leaves its past with the manifest that it named, and a layer tells of a use if one image alone has it.
#[test]
fn what_is_told_of_which_image() {
    let connection = index();
    sweep_all(&connection);
    execute(
        &connection,
        "INSERT INTO manifest (id, digest, created_at) VALUES (2, 'sha256:2', '2026-11-10 07:00:00');
         INSERT INTO layer (id, diff_id, blob_digest) VALUES (2, 'sha256:l', 'sha256:b');
         INSERT INTO manifest_layer (manifest_id, layer_id, position) VALUES (2, 1, 0), (2, 2, 1);
         UPDATE image_ref SET manifest_id = 2, updated_at = '2026-11-10 07:00:00';
         UPDATE layer SET last_used_at = '2026-11-12 05:00:00'",
    );
    sweep_all(&connection);
    let of = |digest: &str| past_of(&connection, digest, now()).expect("a query").expect("a past");
    let (old, new) = (of("sha256:1"), of("sha256:2"));
    assert_eq!((old.arrivals, old.last_touched_at), (1, Some(instant("2026-11-01T09:30:00Z"))));
    assert_eq!((new.arrivals, new.last_touched_at), (1, Some(instant("2026-11-12T05:00:00Z"))));
    assert_eq!(name_of(&connection, "docker.io/acme/app:1").expect("a query").as_deref(), Some("sha256:2"));
}

/// A use is kept for 400 days and an image for as long after its last use. What is too old goes in pieces.
#[test]
fn expiry() {
    let connection = index();
    for age in [402, 401, 400, 1] {
        for number in 0..5 {
            let new = NewUse {
                manifest: &format!("sha256:{}", if age > 400 { number } else { 9 }),
                reference: Some("a"),
                sandbox: None,
                kind: UseKind::Load,
                at: now() - TimeDelta::days(age),
            };
            record(&connection, &new).expect("recorded");
        }
    }
    let count = |table: &str| -> i64 {
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .expect("a number")
    };
    assert_eq!((count("larder_use"), count("larder_image"), count("larder_name")), (12, 6, 6));
    assert_eq!(expire(&connection, now(), 3), Ok(Swept::Part));
    assert_eq!((count("larder_use"), count("larder_image"), count("larder_name")), (9, 3, 3));
    while expire(&connection, now(), 3) == Ok(Swept::Part) {}
    assert_eq!((count("larder_use"), count("larder_image"), count("larder_name")), (2, 1, 1));
}

/// An image of ten layers with two names, of which a sandbox is booted in each hour, takes less than 1 KB a month over a
/// year, with all that is kept of it.
#[test]
fn a_year_of_constant_use() {
    const IMAGES: i64 = 40;
    const DAYS: i64 = 30;
    let connection = index();
    let digest = |number: i64| format!("sha256:{:064x}", number + 1000);
    let insert = |query: &str, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(query).and_then(|mut query| query.execute(values)).expect("a row");
    };
    for image in 0..IMAGES {
        insert("INSERT INTO manifest (id, digest) VALUES (?1, ?2)", &[&(image + 1000), &digest(image)]);
        for position in 0..10 {
            let layer = 1000 + image * 10 + position;
            insert(
                "INSERT INTO layer (id, diff_id, blob_digest, compressed_size_bytes) VALUES (?1, ?2, 'b', 123456789)",
                &[&layer, &digest(layer)],
            );
            insert(
                "INSERT INTO manifest_layer (manifest_id, layer_id, position) VALUES (?1, ?2, ?3)",
                &[&(image + 1000), &layer, &position],
            );
        }
    }
    let number =
        |query: &str| -> i64 { connection.query_row(query, [], |row| row.get(0)).expect("a number") };
    let page_bytes = number("PRAGMA page_size");
    let begin = instant("2026-06-01T00:17:00Z");
    let references = ["docker.io/acme/some-service:v1.2.3", "docker.io/acme/some-service:v1"];
    let month = |month: i64| {
        let before = number("PRAGMA page_count");
        for hour in 0..DAYS * 24 {
            for image in 0..IMAGES {
                let new = NewUse {
                    manifest: &digest(image),
                    reference: references.get(hour as usize).copied(),
                    sandbox: Some("ci-runner-1234"),
                    kind: UseKind::Boot,
                    at: begin + TimeDelta::hours(month * DAYS * 24 + hour),
                };
                record(&connection, &new).expect("recorded");
            }
        }
        (number("PRAGMA page_count") - before) * page_bytes / IMAGES
    };
    let (first, second) = (month(0), month(1));
    assert_eq!(number("SELECT count(*) FROM larder_use"), 2 * DAYS * IMAGES);
    assert!(second > 300, "the bytes were counted: {second}");
    assert!((first + 11 * second) / 12 < 1000, "{first} bytes in the first month, {second} in each other");
}

/// A time is written as it was before it was parsed: places of the journal are those of the index.
#[test]
fn places() {
    let at = time::parse("1969-12-31 23:59:59").expect("a time");
    let place = Place::of(at);
    assert_eq!((place.day, place.hours, place.second), (-1, 1 << 23, DAY - 1));
}
