//! The tables: those of microsandbox 0.7.13, and Larder's own beside them.
//!
//! Larder's migrations are a list that only grows. Their names begin with `larder_`. Dropping them all loses nothing
//! of microsandbox's. When microsandbox rebuilds a table, the table loses Larder's indexes: each open for writing
//! creates missing ones again. Pins, origins and decisions are keyed by the normalized reference, or the unchanged
//! text if it does not parse, and uses by the digest of the manifest ([`journal`](super::journal)).

use chrono::{DateTime, Utc};
use rusqlite::{Connection, TransactionBehavior};

use crate::home::HomeProblem;

const SCHEMA_0_7_13: &str = include_str!("msb-0.7.13.schema.sql");
const MIGRATIONS_0_7_13: &str = include_str!("msb-0.7.13.migrations.txt");

/// The migrations of Larder's own tables. The position in this list, counted from 1, is the resulting version.
const LARDER_MIGRATIONS: [&str; 7] = [
    "
    CREATE INDEX larder_image_ref_manifest ON image_ref (manifest_id);
    CREATE INDEX larder_manifest_layer_layer ON manifest_layer (layer_id);
    CREATE INDEX larder_sandbox_rootfs_manifest ON sandbox_rootfs (manifest_id);
    CREATE TABLE larder_pin (
        reference TEXT NOT NULL PRIMARY KEY,
        created_at TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE larder_origin (
        reference TEXT NOT NULL PRIMARY KEY,
        origin TEXT NOT NULL CHECK (origin IN ('registry', 'archive')),
        recorded_at TEXT NOT NULL
    ) WITHOUT ROWID;
    -- Files that no row owns any longer and that are to be deleted: recorded with the rows that gave them up, and
    -- gone from here when they are gone from the disk.
    CREATE TABLE larder_deletion (
        id INTEGER NOT NULL PRIMARY KEY,
        room TEXT NOT NULL,
        name TEXT NOT NULL,
        inode INTEGER NOT NULL,
        size INTEGER NOT NULL,
        modified_ns INTEGER NOT NULL,
        born_ns INTEGER
    );
    CREATE TABLE larder_run (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        started_at TEXT NOT NULL,
        policy_name TEXT,
        policy_version TEXT,
        policy_hash TEXT,
        problem TEXT,
        report TEXT NOT NULL,
        duration_ms INTEGER NOT NULL
    );
    CREATE TABLE larder_decision (
        run_id INTEGER NOT NULL REFERENCES larder_run (id) ON DELETE CASCADE,
        reference TEXT NOT NULL,
        manifest_digest TEXT,
        decision TEXT NOT NULL,
        reason TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (run_id, reference)
    ) WITHOUT ROWID;
    CREATE INDEX larder_decision_reference ON larder_decision (reference);
    CREATE INDEX larder_decision_kept ON larder_decision (run_id) WHERE decision = 'kept';
",
    "
    -- Manifests that a sandbox needs although neither its row nor a reference says so any longer. A hold counts for as
    -- long as the sandbox exists; there is no foreign key, so that microsandbox may rebuild its table.
    CREATE TABLE larder_hold (
        sandbox_id INTEGER NOT NULL,
        manifest_digest TEXT NOT NULL,
        PRIMARY KEY (sandbox_id, manifest_digest)
    ) WITHOUT ROWID;
    -- A record says which cache its file is in ('' is any), and its number is not used again.
    ALTER TABLE larder_deletion RENAME TO larder_deletion_1;
    CREATE TABLE larder_deletion (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        cache TEXT NOT NULL,
        room TEXT NOT NULL,
        name TEXT NOT NULL,
        inode INTEGER NOT NULL,
        size INTEGER NOT NULL,
        modified_ns INTEGER NOT NULL,
        born_ns INTEGER
    );
    INSERT INTO larder_deletion SELECT id, '', room, name, inode, size, modified_ns, born_ns FROM larder_deletion_1;
    DROP TABLE larder_deletion_1;
",
    "
    -- Where an image came from is known of one manifest: what is pulled under its name later comes from elsewhere. Absent
    -- where it was recorded before.
    ALTER TABLE larder_origin ADD COLUMN manifest_digest TEXT;
",
    "
    -- One row: which home this is.
    CREATE TABLE larder_home (id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
    INSERT INTO larder_home (id) VALUES (lower(hex(randomblob(16))));
",
    "
    -- What made the plan of a run, and of a policy its config and grant (JSON) and what running it took. Absent where it was
    -- recorded before.
    ALTER TABLE larder_run ADD COLUMN made_by TEXT;
    ALTER TABLE larder_run ADD COLUMN config TEXT;
    ALTER TABLE larder_run ADD COLUMN granted TEXT;
    ALTER TABLE larder_run ADD COLUMN policy_ms INTEGER;
    ALTER TABLE larder_run ADD COLUMN fuel INTEGER;
",
    "
    -- The journal of use. An image is known by its manifest. `layers` is what it was made of, bottom to top: the first 16
    -- digits and the bytes of each. `booted_by` is the sandbox of the last boot, `pull_ms` and `pull_bytes` are the cost of
    -- the last pull that transferred a layer. Days are counted from 1970, times in seconds.
    CREATE TABLE larder_image (
        id INTEGER NOT NULL PRIMARY KEY,
        manifest_digest TEXT NOT NULL UNIQUE,
        first_seen_at INTEGER NOT NULL,
        last_day INTEGER NOT NULL,
        layers TEXT,
        booted_by TEXT,
        pull_ms INTEGER,
        pull_bytes INTEGER
    );
    CREATE INDEX larder_image_last_day ON larder_image (last_day);
    -- The references under which an image was seen.
    CREATE TABLE larder_name (
        reference TEXT NOT NULL,
        image_id INTEGER NOT NULL,
        named_at INTEGER NOT NULL,
        PRIMARY KEY (reference, image_id)
    ) WITHOUT ROWID;
    CREATE INDEX larder_name_image ON larder_name (image_id);
    -- The hours of a day in which an image was used, a bit for each, and the second of the last use.
    CREATE TABLE larder_use (
        day INTEGER NOT NULL,
        image_id INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        hours INTEGER NOT NULL,
        latest INTEGER NOT NULL,
        PRIMARY KEY (day, image_id, kind)
    ) WITHOUT ROWID;
    -- How far the tables of microsandbox were read.
    CREATE TABLE larder_swept (source TEXT NOT NULL PRIMARY KEY, at TEXT NOT NULL, id INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX larder_image_ref_updated ON image_ref (updated_at);
    CREATE INDEX larder_layer_used ON layer (last_used_at);
",
    "
    -- Jobs: up to when the times of a schedule are settled, their runs, what all runs add up to, and the file system over
    -- time. Times in milliseconds, those of `larder_disk` in seconds.
    CREATE TABLE larder_job (
        name TEXT NOT NULL PRIMARY KEY,
        seen_at INTEGER NOT NULL,
        schedule TEXT,
        settled_at INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        succeeded_at INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE larder_job_run (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        job TEXT NOT NULL,
        cause TEXT NOT NULL,
        mode TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER,
        outcome TEXT,
        report TEXT NOT NULL
    );
    CREATE INDEX larder_job_run_job ON larder_job_run (job, id);
    CREATE TABLE larder_job_count (
        job TEXT NOT NULL,
        name TEXT NOT NULL,
        label TEXT NOT NULL,
        value INTEGER NOT NULL,
        PRIMARY KEY (job, name, label)
    ) WITHOUT ROWID;
    CREATE TABLE larder_disk (
        at INTEGER NOT NULL PRIMARY KEY,
        size_bytes INTEGER NOT NULL,
        available_bytes INTEGER NOT NULL,
        inodes INTEGER NOT NULL,
        inodes_free INTEGER NOT NULL
    );
    -- The job of which a run was a step.
    ALTER TABLE larder_run ADD COLUMN job TEXT;
",
];

/// Returns the migrations that microsandbox 0.7.13 has run on a home, in their order.
pub(super) fn known_migrations() -> impl ExactSizeIterator<Item = &'static str> + Clone {
    MIGRATIONS_0_7_13.lines().collect::<Vec<_>>().into_iter()
}

/// Checks the recorded migrations of a home.
pub(super) fn check_migrations(found: &[String]) -> Result<(), HomeProblem> {
    let known: Vec<&str> = known_migrations().collect();
    if found.is_empty() {
        return Err(HomeProblem::NoHistory);
    }
    if let Some(unknown) = found.iter().find(|version| !known.contains(&version.as_str())) {
        return Err(HomeProblem::Newer(unknown.clone()));
    }
    let has = |version: &str| found.iter().any(|found| found == version);
    let last = known.iter().rposition(|version| has(version)).unwrap_or_default();
    if let Some(missing) = known[..last].iter().find(|version| !has(version)) {
        return Err(HomeProblem::HistoryGap((*missing).to_owned()));
    }
    if found.len() < known.len() {
        return Err(HomeProblem::Older { found: found.len(), known: known.len() });
    }
    Ok(())
}

/// Creates microsandbox's tables in an empty database, with the record of its migrations.
pub(super) fn create(connection: &mut Connection, now: DateTime<Utc>) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // The file is in the order of names: tables come first here, since indexes and triggers need them.
    let (tables, others): (Vec<_>, Vec<_>) = objects().partition(|object| object.starts_with("CREATE TABLE"));
    for object in tables.into_iter().chain(others) {
        transaction.execute_batch(&object)?;
    }
    {
        let mut record =
            transaction.prepare("INSERT INTO seaql_migrations (version, applied_at) VALUES (?1, ?2)")?;
        for version in known_migrations() {
            record.execute((version, now.timestamp()))?;
        }
    }
    transaction.commit()
}

/// Returns the statements of the schema, without the table that SQLite creates itself and refuses to create on request.
fn objects() -> impl Iterator<Item = String> {
    let text = SCHEMA_0_7_13.trim_start().trim_start_matches("CREATE ");
    // Every statement begins a line with this word, and no line within one does.
    text.split("\nCREATE ")
        .map(|statement| format!("CREATE {statement}"))
        .filter(|s| !s.contains("sqlite_sequence"))
}

/// Returns the version of Larder's own tables, or 0 if there are none.
pub(super) fn larder_version(connection: &Connection) -> rusqlite::Result<i64> {
    if !connection.table_exists(Some("main"), "larder_schema")? {
        return Ok(0);
    }
    connection.query_row("SELECT coalesce(max(version), 0) FROM larder_schema", [], |row| row.get(0))
}

/// The version that this library knows.
pub(super) const LARDER_VERSION: i64 = LARDER_MIGRATIONS.len() as i64;

/// Updates Larder's own tables to the current version, in one transaction, and creates missing indexes.
pub(super) fn migrate_larder(connection: &mut Connection) -> rusqlite::Result<()> {
    if larder_version(connection)? < LARDER_VERSION {
        migrate(connection)?;
    }
    // Where an index is there, its statement takes no lock.
    indexes().try_for_each(|statement| connection.execute_batch(&statement))
}

/// Returns the statements that create Larder's missing indexes.
fn indexes() -> impl Iterator<Item = String> {
    let statements = LARDER_MIGRATIONS.into_iter().flat_map(|migration| migration.split(';'));
    statements.filter_map(|statement| {
        let index = statement.trim().strip_prefix("CREATE INDEX ")?;
        Some(format!("CREATE INDEX IF NOT EXISTS {index}"))
    })
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction
        .execute_batch("CREATE TABLE IF NOT EXISTS larder_schema (version INTEGER NOT NULL PRIMARY KEY)")?;
    // Asked again: another process may have been faster.
    let from = larder_version(&transaction)?;
    if from == 0 {
        drop_indexes(&transaction)?;
    }
    for (version, migration) in (1..).zip(LARDER_MIGRATIONS).filter(|&(version, _)| version > from) {
        transaction.execute_batch(migration)?;
        transaction.execute("INSERT INTO larder_schema (version) VALUES (?1)", [version])?;
    }
    transaction.commit()
}

/// Drops Larder's indexes of microsandbox's tables: whoever drops Larder's tables may leave them.
fn drop_indexes(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT name FROM main.sqlite_master WHERE type = 'index' AND name LIKE 'larder!_%' ESCAPE '!'",
    )?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    names.iter().try_for_each(|name| connection.execute_batch(&format!("DROP INDEX main.\"{name}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created() -> Connection {
        let mut connection = Connection::open_in_memory().expect("a database");
        create(&mut connection, DateTime::UNIX_EPOCH).expect("the tables");
        connection
    }

    fn schema(connection: &Connection) -> Vec<(String, String, String)> {
        let mut statement = connection
            .prepare("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
            .expect("a statement");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("rows");
        rows.collect::<rusqlite::Result<_>>().expect("the schema")
    }

    /// A home that Larder creates has exactly the tables of microsandbox 0.7.13 and the record of its 33 migrations.
    #[test]
    fn creates_the_schema_of_microsandbox() {
        let connection = created();
        let made = schema(&connection);
        assert!(made.len() >= 40, "only {} objects", made.len());
        for (_, name, sql) in &made {
            assert!(SCHEMA_0_7_13.contains(&format!("{sql};")), "{name} differs: {sql}");
        }
        let named = SCHEMA_0_7_13.lines().filter(|line| line.starts_with("CREATE")).count();
        // SQLite's own table is in the file and has an entry of its own in the schema.
        assert_eq!(named, made.len(), "objects of the schema that were not made");
        let count: i64 = connection
            .query_row("SELECT count(*) FROM seaql_migrations", [], |row| row.get(0))
            .expect("the migrations");
        assert_eq!(count, 33);
    }

    /// Larder's migrations run once, even if they are applied again, and do not change microsandbox's tables.
    #[test]
    fn migrating_twice_changes_nothing() {
        let mut connection = created();
        let before = schema(&connection);
        migrate_larder(&mut connection).expect("the first time");
        let first = schema(&connection);
        migrate_larder(&mut connection).expect("the second time");
        assert_eq!(schema(&connection), first);
        assert_eq!(larder_version(&connection), Ok(LARDER_VERSION));
        let others: Vec<_> = first.into_iter().filter(|(_, name, _)| !name.starts_with("larder_")).collect();
        assert_eq!(others, before);
    }

    /// A home whose Larder tables were dropped, and the indexes of other tables left, is migrated anew.
    #[test]
    fn dropped_tables() {
        let mut connection = created();
        migrate_larder(&mut connection).expect("the first time");
        let before = schema(&connection);
        let tables = before.iter().filter(|(kind, name, _)| kind == "table" && name.starts_with("larder_"));
        for (_, name, _) in tables {
            connection
                .execute_batch(&format!("PRAGMA foreign_keys = off; DROP TABLE {name}"))
                .expect("dropped");
        }
        assert!(schema(&connection).iter().any(|(_, name, _)| name == "larder_layer_used"));
        migrate_larder(&mut connection).expect("the second time");
        assert_eq!(schema(&connection), before);
    }

    /// Indexes that are lost when microsandbox rebuilds a table are created again.
    #[test]
    fn lost_indexes() {
        let mut connection = created();
        migrate_larder(&mut connection).expect("the first time");
        let before = schema(&connection);
        let statements: Vec<String> = indexes().collect();
        assert_eq!(
            statements.len(),
            before.iter().filter(|(kind, name, _)| kind == "index" && name.starts_with("larder_")).count()
        );
        connection
            .execute_batch("DROP INDEX larder_image_ref_manifest; DROP INDEX larder_decision_kept")
            .expect("dropped");
        migrate_larder(&mut connection).expect("the second time");
        assert_eq!(schema(&connection), before);
    }

    /// A migration keeps the records of an earlier version. They match any cache.
    #[test]
    fn migrating_keeps_records() {
        let mut connection = created();
        connection
            .execute_batch(&format!(
                "CREATE TABLE larder_schema (version INTEGER NOT NULL PRIMARY KEY);
                 {}
                 INSERT INTO larder_schema VALUES (1);
                 INSERT INTO larder_deletion VALUES (7, 'layers', 'name', 1, 2, 3, NULL);",
                LARDER_MIGRATIONS[0]
            ))
            .expect("the first version");
        migrate_larder(&mut connection).expect("migrated");
        let record: (i64, String) = connection
            .query_row("SELECT id, cache FROM larder_deletion", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("the record");
        assert_eq!(record, (7, String::new()));
    }

    /// A home gets its own id with its first change, and keeps it.
    #[test]
    fn ids() {
        let id = |connection: &Connection| super::super::identity::home_id(connection).expect("a query");
        let (mut one, mut other) = (created(), created());
        migrate_larder(&mut one).expect("migrated");
        migrate_larder(&mut other).expect("migrated");
        let first = id(&one);
        assert!(first.is_some() && first != id(&other));
        migrate_larder(&mut one).expect("migrated again");
        assert_eq!(id(&one), first);
    }

    /// Each kind of migration history is distinguished from the others.
    #[test]
    fn histories() {
        let known: Vec<String> = known_migrations().map(str::to_owned).collect();
        let problem = |found: &[String]| check_migrations(found).map_err(|problem| problem.to_string());
        assert_eq!(problem(&known), Ok(()));
        let says = |found: &[String], text: &str| {
            let message = problem(found).expect_err("a problem");
            assert!(message.contains(text), "{message}");
        };
        says(&[], "without migration history");
        says(&known[..23], "23 of 33 migrations");
        says(
            &[known.clone(), vec!["m20991231_000001_future".to_owned()]].concat(),
            "m20991231_000001_future",
        );
        says(&[&known[..5], &known[6..]].concat(), &known[5]);
    }
}
