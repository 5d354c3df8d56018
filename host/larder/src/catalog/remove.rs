//! Taking images out of the index.
//!
//! Sets of rows go in and out as JSON arrays of their numbers, so every question and every change is one statement,
//! whatever the size of the set. [`closure`] says what goes with some references; [`delete`] deletes exactly what it
//! is given, and only as far as nothing needs it by then.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{read, roots};
use crate::artifacts::removal::Seen;
use crate::records::ImageHandle;
use crate::records::ImageUsers;
use crate::reference::Reference;

/// A reference of the index, as it is to be removed.
#[derive(Debug, Clone)]
pub(crate) struct RefRow {
    pub(crate) id: i64,
    pub(crate) manifest: i64,
    pub(crate) handle: ImageHandle,
    /// What the reference means; absent where it does not parse.
    pub(crate) parsed: Option<Reference>,
}

/// A row whose digest names its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigestRow {
    pub(crate) id: i64,
    pub(crate) digest: String,
}

/// What goes when some references go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closure {
    /// Manifests that nothing needs then.
    pub(crate) manifests: Vec<DigestRow>,
    /// Layers that nothing needs then, each with the last of those manifests that needed it.
    pub(crate) layers: Vec<(DigestRow, Option<i64>)>,
    /// Of the given references, in their order: whether no other reference shares its metadata.
    pub(crate) metadata: Vec<bool>,
}

/// Rows to remove: references with what they alone need, and rows that no reference needs as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doomed {
    pub(crate) refs: Vec<RefRow>,
    pub(crate) manifests: Vec<DigestRow>,
    pub(crate) layers: Vec<DigestRow>,
}

/// How many rows went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deleted {
    pub(crate) refs: usize,
    pub(crate) manifests: usize,
    pub(crate) layers: usize,
}

/// The condition that nothing but references needs `manifest`: three look-ups by index.
macro_rules! unused {
    () => {
        "NOT EXISTS (SELECT 1 FROM sandbox_rootfs WHERE sandbox_rootfs.manifest_id = manifest.id)
         AND NOT EXISTS (SELECT 1 FROM snapshot_index WHERE snapshot_index.image_manifest_digest = manifest.digest)
         AND NOT EXISTS (SELECT 1 FROM temp.named_user WHERE named_user.manifest_id = manifest.id)"
    };
}

/// The numbers as a JSON array, for `json_each`.
fn ids(rows: impl Iterator<Item = i64>) -> String {
    let numbers: Vec<String> = rows.map(|id| id.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

fn ref_row(row: &Row<'_>) -> rusqlite::Result<RefRow> {
    let handle = read::handle(row)?;
    Ok(RefRow { id: row.get(8)?, manifest: row.get(9)?, parsed: handle.reference.parse().ok(), handle })
}

const REF_COLUMNS: &str = concat!(
    "SELECT ",
    read::handle_columns!(),
    ", ref.id, ref.manifest_id FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id "
);

/// The row of exactly this reference.
pub(crate) fn find_ref(connection: &Connection, reference: &str) -> rusqlite::Result<Option<RefRow>> {
    let query = [REF_COLUMNS, "WHERE ref.reference = ?1"].concat();
    connection.prepare_cached(&query)?.query_row([reference], ref_row).optional()
}

/// The rows of these references, each exactly as it stands.
pub(crate) fn find_refs(
    connection: &Connection,
    references: &[String],
) -> rusqlite::Result<HashMap<String, RefRow>> {
    let query = [REF_COLUMNS, "WHERE ref.reference IN (SELECT value FROM json_each(?1))"].concat();
    let mut statement = connection.prepare_cached(&query)?;
    let rows = statement.query_map([serde_json::Value::from(references).to_string()], ref_row)?;
    rows.map(|row| row.map(|row| (row.handle.reference.clone(), row))).collect()
}

/// Every reference that nothing uses and nobody pinned, oldest first.
pub(crate) fn unused_refs(connection: &Connection) -> rusqlite::Result<Vec<RefRow>> {
    let pins = super::pins::set(connection)?;
    let query = [REF_COLUMNS, "WHERE manifest.id IS NULL OR (", unused!(), ") ORDER BY ref.id"].concat();
    let mut statement = connection.prepare_cached(&query)?;
    let mut rows = statement.query_map([], ref_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    if !pins.is_empty() {
        rows.retain(|row| !pins.contains(row.key()));
    }
    Ok(rows)
}

/// Manifests that no reference names and nothing uses.
pub(crate) fn unreached_manifests(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(
        connection,
        concat!(
            "SELECT id, digest FROM main.manifest
              WHERE NOT EXISTS (SELECT 1 FROM image_ref WHERE image_ref.manifest_id = manifest.id) AND ",
            unused!()
        ),
    )
}

/// Layers that no manifest has.
pub(crate) fn unreached_layers(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(
        connection,
        "SELECT id, diff_id FROM main.layer
          WHERE NOT EXISTS (SELECT 1 FROM manifest_layer WHERE manifest_layer.layer_id = layer.id)",
    )
}

fn digest_rows(connection: &Connection, query: &str) -> rusqlite::Result<Vec<DigestRow>> {
    let mut statement = connection.prepare_cached(query)?;
    statement.query_map([], |row| Ok(DigestRow { id: row.get(0)?, digest: row.get(1)? }))?.collect()
}

impl RefRow {
    /// Under which a pin of this reference stands.
    pub(crate) fn key(&self) -> &str {
        self.parsed.as_ref().map_or(&self.handle.reference, Reference::as_str)
    }
}

/// What goes when these go. `named_user` is up to date ([`roots::refresh`]).
pub(crate) fn closure(connection: &Connection, doomed: &Doomed) -> rusqlite::Result<Closure> {
    let refs = ids(doomed.refs.iter().map(|row| row.id));
    let given_manifests =
        ids(doomed.refs.iter().map(|row| row.manifest).chain(doomed.manifests.iter().map(|row| row.id)));
    let mut statement = connection.prepare_cached(concat!(
        "SELECT id, digest FROM main.manifest
          WHERE id IN (SELECT value FROM json_each(?2))
            AND NOT EXISTS (SELECT 1 FROM image_ref WHERE image_ref.manifest_id = manifest.id
                                AND image_ref.id NOT IN (SELECT value FROM json_each(?1)))
            AND ",
        unused!()
    ))?;
    let manifests: Vec<DigestRow> = statement
        .query_map([&refs, &given_manifests], |row| Ok(DigestRow { id: row.get(0)?, digest: row.get(1)? }))?
        .collect::<rusqlite::Result<_>>()?;

    let going = ids(manifests.iter().map(|row| row.id));
    let given_layers = ids(doomed.layers.iter().map(|row| row.id));
    let mut statement = connection.prepare_cached(
        "SELECT layer.id, layer.diff_id, max(link.manifest_id)
           FROM manifest_layer AS link JOIN layer ON layer.id = link.layer_id
          WHERE link.manifest_id IN (SELECT value FROM json_each(?1))
            AND NOT EXISTS (SELECT 1 FROM manifest_layer AS other WHERE other.layer_id = layer.id
                                AND other.manifest_id NOT IN (SELECT value FROM json_each(?1)))
          GROUP BY layer.id
          UNION ALL
         SELECT layer.id, layer.diff_id, NULL FROM layer
          WHERE layer.id IN (SELECT value FROM json_each(?2))
            AND NOT EXISTS (SELECT 1 FROM manifest_layer WHERE manifest_layer.layer_id = layer.id)",
    )?;
    let layers = statement
        .query_map([&going, &given_layers], |row| {
            Ok((DigestRow { id: row.get(0)?, digest: row.get(1)? }, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let metadata = sole_spellings(connection, &doomed.refs, &refs)?;
    Ok(Closure { manifests, layers, metadata })
}

/// Of each reference, whether no reference outside of the set means the same in another spelling.
fn sole_spellings(connection: &Connection, rows: &[RefRow], refs: &str) -> rusqlite::Result<Vec<bool>> {
    let spellings: Vec<String> =
        rows.iter().filter_map(|row| row.parsed.as_ref()).flat_map(Reference::spellings).collect();
    let mut statement = connection.prepare_cached(
        "SELECT reference FROM image_ref WHERE reference IN (SELECT value FROM json_each(?1))
            AND id NOT IN (SELECT value FROM json_each(?2))",
    )?;
    let json = serde_json::Value::from(spellings).to_string();
    let mut shared = HashSet::new();
    let mut others = statement.query([json.as_str(), refs])?;
    while let Some(row) = others.next()? {
        shared.extend(row.get_ref(0)?.as_str()?.parse::<Reference>());
    }
    Ok(rows.iter().map(|row| row.parsed.as_ref().is_some_and(|parsed| !shared.contains(parsed))).collect())
}

/// The given manifests that need a layer.
pub(crate) fn manifests_with(connection: &Connection, layer: i64) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT manifest_id FROM manifest_layer WHERE layer_id = ?1")?;
    statement.query_map([layer], |row| row.get(0))?.collect()
}

/// Deletes these references, and the manifests and layers of the closure, which nothing needs without them.
pub(crate) fn delete(
    connection: &Connection,
    refs: &[RefRow],
    closure: &Closure,
) -> rusqlite::Result<Deleted> {
    let delete = |query: &str, ids: String| connection.prepare_cached(query)?.execute([ids]);
    Ok(Deleted {
        refs: delete(
            "DELETE FROM image_ref WHERE id IN (SELECT value FROM json_each(?1))",
            ids(refs.iter().map(|row| row.id)),
        )?,
        // Config and layer list of a manifest go with it, by their foreign keys.
        manifests: delete(
            "DELETE FROM manifest WHERE id IN (SELECT value FROM json_each(?1))",
            ids(closure.manifests.iter().map(|row| row.id)),
        )?,
        layers: delete(
            "DELETE FROM layer WHERE id IN (SELECT value FROM json_each(?1))",
            ids(closure.layers.iter().map(|(row, _)| row.id)),
        )?,
    })
}

/// Who needs the manifest of a reference besides its references.
pub(crate) fn users(connection: &Connection, row: &RefRow) -> rusqlite::Result<ImageUsers> {
    roots::users_of(connection, row.manifest)
}

/// What the index says about a reference now.
#[derive(Debug)]
pub(crate) struct LiveRef {
    pub(crate) manifest: i64,
    pub(crate) seen: Seen,
    pub(crate) in_use: bool,
    pub(crate) pinned: bool,
}

/// What the index says now about these references, by number. `named_user` is up to date ([`roots::refresh`]).
pub(crate) fn live_refs<'a>(
    connection: &Connection,
    rows: impl Iterator<Item = &'a RefRow> + Clone,
) -> rusqlite::Result<HashMap<i64, LiveRef>> {
    let keys: HashMap<i64, &str> = rows.clone().map(|row| (row.id, row.key())).collect();
    let pinned = pinned_among(connection, keys.values().copied())?;
    let query = [
        "SELECT ",
        read::handle_columns!(),
        ", ref.id, ref.manifest_id, manifest.id IS NOT NULL AND NOT (",
        unused!(),
        ") FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id
           WHERE ref.id IN (SELECT value FROM json_each(?1))",
    ]
    .concat();
    let mut statement = connection.prepare_cached(&query)?;
    let live = statement.query_map([ids(rows.map(|row| row.id))], |row| {
        let RefRow { id, manifest, handle, .. } = ref_row(row)?;
        let pinned = keys.get(&id).is_some_and(|key| pinned.contains(*key));
        Ok((id, LiveRef { manifest, seen: Seen::of(&handle), in_use: row.get(10)?, pinned }))
    })?;
    live.collect()
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

/// Forgets what Larder noted about references that are gone: their origin, and the pins of those that were forced.
pub(crate) fn forget_notes(
    connection: &Connection,
    rows: &[RefRow],
    forced: &[&str],
) -> rusqlite::Result<()> {
    let json = |keys: Vec<&str>| serde_json::Value::from(keys).to_string();
    connection
        .prepare_cached("DELETE FROM larder_origin WHERE reference IN (SELECT value FROM json_each(?1))")?
        .execute([json(rows.iter().map(RefRow::key).collect())])?;
    connection
        .prepare_cached("DELETE FROM larder_pin WHERE reference IN (SELECT value FROM json_each(?1))")?
        .execute([json(forced.to_vec())])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::catalog::schema;

    /// An index of so many images with a layer of their own each, and one that they all share.
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
        let doomed = Doomed { refs: vec![row], ..Doomed::default() };
        live_refs(connection, doomed.refs.iter()).expect("its state");
        let closure = closure(connection, &doomed).expect("what goes");
        assert_eq!((closure.manifests.len(), closure.layers.len(), closure.metadata[0]), (1, 1, true));
        let deleted = delete(connection, &doomed.refs, &closure).expect("deleted");
        assert_eq!((deleted.refs, deleted.manifests, deleted.layers), (1, 1, 1));
    }

    /// How many steps SQLite takes to remove one image, statements prepared.
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

    /// Rule 5: removing one image takes SQLite the same steps whatever the number of images, so removing all of them
    /// takes steps in proportion to it.
    #[test]
    fn removing_one_image_does_not_depend_on_the_others() {
        let [few, many] = [40, 4000].map(steps_to_remove_one);
        assert!(few > 100, "the steps were counted: {few}");
        assert!(many <= few + few / 10, "{few} steps among 40 images, {many} among 4000");
    }
}
