//! Removing images from the index.
//!
//! Sets of rows are passed as JSON arrays of their numbers, so every query and every change is one statement for a set
//! of any size. A [`RemovalSet`] lists the rows and files to remove with some references. [`delete`] deletes only the
//! given rows, and only those that nothing needs at that moment.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::graph::{DigestRow, digest_rows};
use super::lenient::integer;
use super::removal_set::RemovalSet;
use super::{read, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImageHandle, ImageUsers};
use crate::reference::{Reference, RowDigest};

/// A reference of the index that is to be removed.
#[derive(Debug, Clone)]
pub(crate) struct RefRow {
    pub(crate) id: i64,
    pub(crate) manifest: i64,
    pub(crate) handle: ImageHandle,
    /// The parsed reference, or `None` if it does not parse.
    pub(crate) parsed: Option<Reference>,
}

/// The properties of a reference that must not have changed since a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedRef {
    pub(crate) manifest_digest: Option<RowDigest>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

/// The numbers of rows that were deleted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deleted {
    pub(crate) refs: usize,
    pub(crate) manifests: usize,
    pub(crate) layers: usize,
}

/// The condition that only references need `manifest`: three look-ups by index.
macro_rules! unused {
    () => {
        "NOT EXISTS (SELECT 1 FROM sandbox_rootfs WHERE sandbox_rootfs.manifest_id = manifest.id)
         AND NOT EXISTS (SELECT 1 FROM snapshot_index WHERE snapshot_index.image_manifest_digest = manifest.digest)
         AND NOT EXISTS (SELECT 1 FROM temp.named_user WHERE named_user.manifest_id = manifest.id)"
    };
}
pub(super) use unused;

/// Returns the numbers as a JSON array, for `json_each`.
pub(super) fn ids(rows: impl Iterator<Item = i64>) -> String {
    let numbers: Vec<String> = rows.map(|id| id.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// Reads a row that names an image and its manifest.
fn ref_row(row: &Row<'_>) -> rusqlite::Result<Option<RefRow>> {
    let (Some(handle), Some(manifest)) = (read::handle(row)?, integer(row, 9)?) else { return Ok(None) };
    Ok(Some(RefRow { id: row.get(8)?, manifest, parsed: handle.reference.parse().ok(), handle }))
}

const REF_COLUMNS: &str = concat!(
    "SELECT ",
    read::handle_columns!(),
    ", ref.id, ref.manifest_id FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id "
);

/// Returns the row of exactly this reference.
pub(crate) fn find_ref(connection: &Connection, reference: &str) -> rusqlite::Result<Option<RefRow>> {
    let query = [REF_COLUMNS, "WHERE ref.reference = ?1"].concat();
    Ok(connection.prepare_cached(&query)?.query_row([reference], ref_row).optional()?.flatten())
}

/// Returns the row of a reference in this spelling, or otherwise in another one.
pub(crate) fn find_spelled(connection: &Connection, reference: &str) -> MicrosandboxResult<RefRow> {
    let find =
        |spelling: &str| find_ref(connection, spelling).map_err(MicrosandboxError::db("look an image up"));
    read::in_any_spelling(reference, find)
}

/// Returns the rows of these references, each in exactly this spelling.
pub(crate) fn find_refs(
    connection: &Connection,
    references: &[String],
) -> rusqlite::Result<HashMap<String, RefRow>> {
    let query = [REF_COLUMNS, "WHERE ref.reference IN (SELECT value FROM json_each(?1))"].concat();
    let mut statement = connection.prepare_cached(&query)?;
    let rows = statement.query_map([serde_json::Value::from(references).to_string()], ref_row)?;
    let rows = rows.filter_map(Result::transpose);
    rows.map(|row| row.map(|row| (row.handle.reference.clone(), row))).collect()
}

/// Returns the manifests that no reference names and nothing uses. `named_user` is up to date ([`roots::refresh`]).
pub(crate) fn unreached_manifests(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(
        connection,
        "SELECT id, digest FROM main.manifest
          WHERE id NOT IN (SELECT manifest_id FROM image_ref WHERE manifest_id IS NOT NULL)
            AND id NOT IN (SELECT manifest_id FROM image_user)",
    )
}

/// Returns the layers that no manifest has.
pub(crate) fn unreached_layers(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(
        connection,
        "SELECT id, diff_id FROM main.layer WHERE id NOT IN (SELECT layer_id FROM manifest_layer)",
    )
}

impl RefRow {
    /// Returns the key of a pin of this reference.
    pub(crate) fn key(&self) -> &str {
        self.parsed.as_ref().map_or(&self.handle.reference, Reference::as_str)
    }
}

impl ExpectedRef {
    /// Returns the current properties of an image.
    pub(crate) fn of(handle: &ImageHandle) -> Self {
        let manifest_digest = handle.manifest_digest.clone().map(RowDigest::from);
        Self { manifest_digest, last_used_at: handle.last_used_at }
    }
}

/// Returns the layers of a manifest.
pub(crate) fn layers_of(connection: &Connection, manifest: i64) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT layer_id FROM manifest_layer WHERE manifest_id = ?1")?;
    statement.query_map([manifest], |row| row.get(0))?.collect()
}

/// Returns the number of layers of each of these manifests. Manifests without layers are left out.
pub(crate) fn layer_counts(
    connection: &Connection,
    manifests: &[i64],
) -> rusqlite::Result<HashMap<i64, usize>> {
    let mut statement = connection.prepare_cached(
        "SELECT manifest_id, count(*) FROM manifest_layer
          WHERE manifest_id IN (SELECT value FROM json_each(?1)) GROUP BY manifest_id",
    )?;
    let counts = statement.query_map([ids(manifests.iter().copied())], |row| {
        Ok((row.get(0)?, row.get::<_, u32>(1)? as usize))
    })?;
    counts.collect()
}

/// Returns the manifests that have a layer, each once, even if it has the layer several times.
pub(crate) fn manifests_with(connection: &Connection, layer: i64) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT manifest_id FROM manifest_layer WHERE layer_id = ?1")?;
    statement.query_map([layer], |row| row.get(0))?.collect()
}

/// Deletes these references, and the manifests and layers of the set, which nothing needs without them. Records the
/// manifest for a sandbox that names such a reference ([`roots::hold`]).
pub(crate) fn delete(
    connection: &Connection,
    refs: &[&RefRow],
    set: &RemovalSet,
) -> rusqlite::Result<Deleted> {
    let delete = |query: &str, ids: String| connection.prepare_cached(query)?.execute([ids]);
    let refs = ids(refs.iter().map(|row| row.id));
    roots::hold(connection, &refs)?;
    Ok(Deleted {
        refs: delete("DELETE FROM image_ref WHERE id IN (SELECT value FROM json_each(?1))", refs)?,
        // Config and layer list of a manifest go with it, by their foreign keys.
        manifests: delete(
            "DELETE FROM manifest WHERE id IN (SELECT value FROM json_each(?1))",
            ids(set.manifests.iter().copied()),
        )?,
        layers: delete(
            "DELETE FROM layer WHERE id IN (SELECT value FROM json_each(?1))",
            ids(set.layers.iter().copied()),
        )?,
    })
}

/// Returns the users of a reference's manifest besides its references.
pub(crate) fn users(connection: &Connection, row: &RefRow) -> rusqlite::Result<ImageUsers> {
    roots::users_of(connection, row.manifest)
}

/// The current state of a reference in the index.
#[derive(Debug)]
pub(crate) struct LiveRef {
    pub(crate) manifest: i64,
    pub(crate) expected: ExpectedRef,
    /// As [`ImageRecord`](crate::snapshot::ImageRecord) has it.
    pub(crate) arrived_at: Option<DateTime<Utc>>,
    pub(crate) in_use: bool,
    pub(crate) pinned: bool,
}

/// Returns the current state of these references, by number. `named_user` is up to date ([`roots::refresh`]).
pub(crate) fn live_refs<'a>(
    connection: &Connection,
    rows: impl Iterator<Item = &'a RefRow> + Clone,
) -> rusqlite::Result<HashMap<i64, LiveRef>> {
    let known: HashMap<i64, &RefRow> = rows.clone().map(|row| (row.id, row)).collect();
    let pinned = pinned_among(connection, known.values().map(|row| row.key()))?;
    let recorded = recorded_among(connection, known.values().map(|row| row.key()))?;
    let query = [
        "SELECT ",
        read::handle_columns!(),
        ", ref.id, ref.manifest_id, manifest.id IS NOT NULL AND NOT (",
        unused!(),
        "), manifest.created_at FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id
           WHERE ref.id IN (SELECT value FROM json_each(?1))",
    ]
    .concat();
    let mut statement = connection.prepare_cached(&query)?;
    let live = statement.query_map([ids(rows.map(|row| row.id))], |row| {
        let Some(RefRow { id, manifest, handle, .. }) = ref_row(row)? else { return Ok(None) };
        // In an index that was replaced meanwhile, a number may stand for another reference.
        let Some(known) = known.get(&id).filter(|known| known.handle.reference == handle.reference) else {
            return Ok(None);
        };
        let pinned = pinned.contains(known.key());
        let recorded_at = recorded.get(known.key()).copied();
        let arrived_at = handle.created_at.max(read::time_at(row, 11)?).max(recorded_at);
        let expected = ExpectedRef::of(&handle);
        let live = LiveRef { manifest, expected, arrived_at, in_use: row.get(10)?, pinned };
        Ok(Some((id, live)))
    })?;
    live.filter_map(Result::transpose).collect()
}

fn pinned_among<'a>(
    connection: &Connection,
    keys: impl Iterator<Item = &'a str>,
) -> rusqlite::Result<HashSet<String>> {
    let keys = serde_json::Value::from(keys.collect::<Vec<_>>()).to_string();
    let mut statement = connection.prepare_cached(
        "SELECT reference FROM larder_pin WHERE reference IN (SELECT value FROM json_each(?1))",
    )?;
    statement.query_map([keys], |row| row.get(0))?.collect()
}

/// Returns the time of the last arrival that Larder recorded under each of these keys.
fn recorded_among<'a>(
    connection: &Connection,
    keys: impl Iterator<Item = &'a str>,
) -> rusqlite::Result<HashMap<String, DateTime<Utc>>> {
    let keys = serde_json::Value::from(keys.collect::<Vec<_>>()).to_string();
    let mut statement = connection.prepare_cached(
        "SELECT reference, recorded_at FROM larder_origin WHERE reference IN (SELECT value FROM json_each(?1))",
    )?;
    let recorded = statement.query_map([keys], |row| Ok((row.get(0)?, read::time_at(row, 1)?)))?;
    recorded.filter_map(|row| row.map(|(key, time)| Some((key, time?))).transpose()).collect()
}

/// Counts the references of the repository of `reference`, in every spelling, up to `at_most`.
pub(crate) fn count_repository(
    connection: &Connection,
    reference: &Reference,
    at_most: u32,
) -> rusqlite::Result<u32> {
    // What has this name, or begins with it and the sign before a tag or a digest: ranges of the index of references.
    let mut statement = connection.prepare_cached(
        "SELECT reference FROM image_ref WHERE reference = ?1
         UNION ALL SELECT reference FROM image_ref WHERE reference > ?1 || ':' AND reference < ?1 || ';'
         UNION ALL SELECT reference FROM image_ref WHERE reference > ?1 || '@' AND reference < ?1 || 'A'",
    )?;
    let mut count = 0;
    for name in reference.repository_spellings() {
        let mut rows = statement.query([name])?;
        while let Some(row) = rows.next()? {
            if count >= at_most {
                return Ok(count);
            }
            // A port and a path may follow the same sign.
            let other = super::lenient::text(row, 0)?.and_then(|text| text.parse::<Reference>().ok());
            count += u32::from(other.is_some_and(|other| other.repository() == reference.repository()));
        }
    }
    Ok(count)
}

/// Counts the references of an index.
pub(crate) fn count_references(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM image_ref", [], |row| row.get::<_, u32>(0)).map(u64::from)
}

/// Deletes Larder's notes about references that no spelling has any longer: their origin, and the pins of forced
/// removals. Called after their rows are deleted.
pub(crate) fn forget_notes<'a>(
    connection: &Connection,
    rows: &[&'a RefRow],
    forced: &[&str],
) -> rusqlite::Result<()> {
    let spelled = |row: &&'a RefRow| {
        let (key, handle) = (row.key(), &row.handle.reference);
        let spellings = row.parsed.as_ref().map_or_else(|| vec![handle.clone()], Reference::spellings);
        spellings.into_iter().map(move |spelling| (spelling, key))
    };
    let spellings: HashMap<String, &str> = rows.iter().flat_map(spelled).collect();
    let mut gone: HashSet<&str> = spellings.values().copied().collect();
    let json = |texts: Vec<&str>| serde_json::Value::from(texts).to_string();
    let mut there = connection.prepare_cached(
        "SELECT reference FROM image_ref WHERE reference IN (SELECT value FROM json_each(?1))",
    )?;
    let mut there = there.query([json(spellings.keys().map(String::as_str).collect())])?;
    while let Some(row) = there.next()? {
        if let Some(key) = spellings.get(row.get_ref(0)?.as_str()?) {
            gone.remove(key);
        }
    }
    connection
        .prepare_cached("DELETE FROM larder_origin WHERE reference IN (SELECT value FROM json_each(?1))")?
        .execute([json(gone.iter().copied().collect())])?;
    connection
        .prepare_cached("DELETE FROM larder_pin WHERE reference IN (SELECT value FROM json_each(?1))")?
        .execute([json(forced.iter().copied().filter(|key| gone.contains(key)).collect())])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::removal_set::Wanted;
    use super::*;
    use crate::catalog::schema;

    /// Makes an index of this many images with a layer of their own each, and one that they all share.
    fn index(images: u32) -> Connection {
        let mut connection = Connection::open_in_memory().expect("a database");
        schema::create(&mut connection, chrono::DateTime::UNIX_EPOCH).expect("the tables");
        schema::migrate_larder(&mut connection).expect("Larder's tables");
        roots::prepare(&connection).expect("the views");
        connection
            .execute_batch(&format!(
                "PRAGMA foreign_keys = on;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {images})
                 INSERT INTO manifest (id, digest) SELECT i, 'sha256:' || printf('%064x', i) FROM n;
                 INSERT INTO layer (id, diff_id, blob_digest) SELECT id, digest, digest FROM manifest;
                 INSERT INTO layer (id, diff_id, blob_digest) VALUES (1000000, 'shared', 'shared');
                 INSERT INTO config (manifest_id, digest) SELECT id, digest FROM manifest;
                 INSERT INTO manifest_layer (manifest_id, layer_id, position) SELECT id, id, 0 FROM manifest;
                 INSERT INTO manifest_layer (manifest_id, layer_id, position) SELECT id, 1000000, 1 FROM manifest;
                 INSERT INTO image_ref (id, reference, manifest_id) SELECT id, 'docker.io/a/b:' || id, id FROM manifest;"
            ))
            .expect("the images");
        connection
    }

    fn remove(connection: &Connection, reference: &str) {
        roots::refresh(connection).expect("the users");
        let row = find_ref(connection, reference).expect("a look-up").expect("the image");
        let refs = [&row];
        live_refs(connection, refs.into_iter()).expect("its state");
        let wanted = Wanted { refs: &refs, ..Wanted::default() };
        let set = RemovalSet::read(connection, wanted, &HashSet::new()).expect("what goes");
        assert_eq!((set.manifests.len(), set.layers.len(), set.files[0].goes), (1, 1, true));
        let deleted = delete(connection, &refs, &set).expect("deleted");
        assert_eq!((deleted.refs, deleted.manifests, deleted.layers), (1, 1, 1));
    }

    /// Returns the number of steps that SQLite takes to remove one image, with prepared statements.
    fn steps_to_remove_one(images: u32) -> u64 {
        let mut connection = index(images);
        remove(&connection, "docker.io/a/b:1");
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).expect("a handler");
        remove(&connection, "docker.io/a/b:7");
        steps.load(Ordering::Relaxed)
    }

    /// Rule 5: removing one image takes SQLite the same number of steps for any number of images, so the steps to
    /// remove all of them are proportional to that number.
    #[test]
    fn removing_one_image_does_not_depend_on_the_others() {
        let [few, many] = [40, 4000].map(steps_to_remove_one);
        assert!(few > 100, "the steps were counted: {few}");
        assert!(many <= few + few / 10, "{few} steps among 40 images, {many} among 4000");
    }
}
