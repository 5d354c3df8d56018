//! Taking images out of the index.
//!
//! Sets of rows go in and out as JSON arrays of their numbers, so every question and every change is one statement,
//! whatever the size of the set. [`RemovalSet::read`] says which rows go with some references, and which files;
//! [`delete`] deletes exactly the rows that it is given, and only as far as nothing needs them by then.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::graph::{DigestRow, digest_row, digest_rows};
use super::lenient::integer;
use super::owners::Owner;
use super::{read, roots};
use crate::artifacts::Entry;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImageHandle, ImageUsers};
use crate::reference::{Reference, RowDigest};

/// A reference of the index, as it is to be removed.
#[derive(Debug, Clone)]
pub(crate) struct RefRow {
    pub(crate) id: i64,
    pub(crate) manifest: i64,
    pub(crate) handle: ImageHandle,
    /// What the reference means; absent where it does not parse.
    pub(crate) parsed: Option<Reference>,
}

/// What has to be as it was when a decision was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedRef {
    pub(crate) manifest_digest: Option<RowDigest>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

/// Rows to remove: references with what they alone need, and rows that no reference needs as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) refs: &'a [&'a RefRow],
    pub(crate) manifests: &'a [DigestRow],
    pub(crate) layers: &'a [DigestRow],
}

/// The rows that go together, and their files.
#[derive(Debug, Default)]
pub(crate) struct RemovalSet {
    /// Manifests that nothing needs without the references.
    pub(crate) manifests: Vec<i64>,
    /// Layers that nothing needs without those manifests.
    pub(crate) layers: Vec<i64>,
    /// Every file by which a live operation shows that it uses one of the rows: those that go, and those that stay
    /// because another row needs them. A file that several rows stand for is there for each of them.
    pub(crate) files: Vec<SetFile>,
}

/// A file of a [`RemovalSet`].
#[derive(Debug)]
pub(crate) struct SetFile {
    pub(crate) entry: Entry,
    /// The wanted row that it stands for, or the layer that goes with one.
    pub(crate) row: SetRow,
    /// Which of the wanted references it is counted for.
    pub(crate) counted_for: Option<usize>,
    /// Whether no row needs it once the set is gone.
    pub(crate) goes: bool,
}

/// A row of a [`RemovalSet`], by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SetRow {
    Reference(i64),
    Manifest(i64),
    Layer(i64),
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

/// A row that names an image and its manifest.
fn ref_row(row: &Row<'_>) -> rusqlite::Result<Option<RefRow>> {
    let (Some(handle), Some(manifest)) = (read::handle(row)?, integer(row, 9)?) else { return Ok(None) };
    Ok(Some(RefRow { id: row.get(8)?, manifest, parsed: handle.reference.parse().ok(), handle }))
}

const REF_COLUMNS: &str = concat!(
    "SELECT ",
    read::handle_columns!(),
    ", ref.id, ref.manifest_id FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id "
);

/// The row of exactly this reference.
pub(crate) fn find_ref(connection: &Connection, reference: &str) -> rusqlite::Result<Option<RefRow>> {
    let query = [REF_COLUMNS, "WHERE ref.reference = ?1"].concat();
    Ok(connection.prepare_cached(&query)?.query_row([reference], ref_row).optional()?.flatten())
}

/// The row of a reference: as it stands, or in another spelling of the same.
pub(crate) fn find_spelled(connection: &Connection, reference: &str) -> MicrosandboxResult<RefRow> {
    let find =
        |spelling: &str| find_ref(connection, spelling).map_err(MicrosandboxError::db("look an image up"));
    read::in_any_spelling(reference, find)
}

/// The rows of these references, each exactly as it stands.
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

/// Manifests that no reference names and nothing uses. `named_user` is up to date ([`roots::refresh`]).
pub(crate) fn unreached_manifests(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(
        connection,
        "SELECT id, digest FROM main.manifest
          WHERE id NOT IN (SELECT manifest_id FROM image_ref WHERE manifest_id IS NOT NULL)
            AND id NOT IN (SELECT manifest_id FROM image_user)",
    )
}

/// Layers that no manifest has.
pub(crate) fn unreached_layers(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(
        connection,
        "SELECT id, diff_id FROM main.layer WHERE id NOT IN (SELECT layer_id FROM manifest_layer)",
    )
}

impl RefRow {
    /// Under which a pin of this reference stands.
    pub(crate) fn key(&self) -> &str {
        self.parsed.as_ref().map_or(&self.handle.reference, Reference::as_str)
    }
}

impl ExpectedRef {
    /// What an image looks like now.
    pub(crate) fn of(handle: &ImageHandle) -> Self {
        let manifest_digest = handle.manifest_digest.clone().map(RowDigest::from);
        Self { manifest_digest, last_used_at: handle.last_used_at }
    }
}

impl RemovalSet {
    /// Reads what goes with these rows. The metadata of a reference stays while its manifest is among `in_use`.
    /// `named_user` is up to date ([`roots::refresh`]).
    pub(crate) fn read(
        connection: &Connection,
        wanted: Wanted<'_>,
        in_use: &HashSet<i64>,
    ) -> rusqlite::Result<Self> {
        let given_manifests =
            as_they_were(connection, "SELECT id, digest FROM main.manifest", wanted.manifests)?;
        let given_layers = as_they_were(connection, "SELECT id, diff_id FROM main.layer", wanted.layers)?;
        let wanted = Wanted { manifests: &given_manifests, layers: &given_layers, ..wanted };
        let refs = ids(wanted.refs.iter().map(|row| row.id));
        let manifests = going_manifests(connection, wanted, &refs)?;
        let layers = going_layers(connection, &manifests, wanted.layers)?;
        let shared = shared_spellings(connection, wanted.refs, &refs)?;
        // Of several references to a manifest, its files are counted for the last.
        let counted: HashMap<i64, usize> =
            wanted.refs.iter().enumerate().map(|(index, row)| (row.manifest, index)).collect();

        let mut files = Vec::new();
        for (index, row) in wanted.refs.iter().enumerate() {
            let stands_for = SetRow::Reference(row.id);
            if let Some(parsed) = &row.parsed {
                let goes = !shared.contains(parsed) && !in_use.contains(&row.manifest);
                files.extend(Owner::Reference(parsed.clone()).entries().map(|entry| SetFile {
                    entry,
                    row: stands_for,
                    counted_for: Some(index),
                    goes,
                }));
            }
            if let Some(Ok(digest)) = row.handle.manifest_digest.as_deref().map(str::parse) {
                files.extend(Owner::Manifest(digest).entries().map(|entry| SetFile {
                    entry,
                    row: stands_for,
                    counted_for: counted.get(&row.manifest).copied(),
                    goes: manifests.contains(&row.manifest),
                }));
            }
        }
        for row in wanted.manifests {
            let Some(digest) = row.digest.known() else { continue };
            files.extend(Owner::Manifest(digest.clone()).entries().map(|entry| SetFile {
                entry,
                row: SetRow::Manifest(row.id),
                counted_for: None,
                goes: manifests.contains(&row.id),
            }));
        }
        for layer in &layers {
            let Some(diff_id) = layer.row.digest.known() else { continue };
            let counted_for = layer.manifest.and_then(|manifest| counted.get(&manifest).copied());
            files.extend(Owner::Layer(diff_id.clone()).entries().map(|entry| SetFile {
                entry,
                row: SetRow::Layer(layer.row.id),
                counted_for,
                goes: true,
            }));
        }
        let layers = layers.into_iter().map(|layer| layer.row.id).collect();
        let mut manifests: Vec<i64> = manifests.into_iter().collect();
        manifests.sort_unstable();
        Ok(Self { manifests, layers, files })
    }

    /// Leaves the layers out whose file is not among `claimed`.
    pub(crate) fn keep_layers(&mut self, claimed: impl Fn(&Entry) -> bool) {
        let unclaimed: HashSet<i64> = self
            .files
            .iter()
            .filter_map(|file| match file.row {
                SetRow::Layer(id) if !claimed(&file.entry) => Some(id),
                _ => None,
            })
            .collect();
        if unclaimed.is_empty() {
            return;
        }
        self.layers.retain(|id| !unclaimed.contains(id));
        self.files.retain(|file| !matches!(file.row, SetRow::Layer(id) if unclaimed.contains(&id)));
    }
}

/// The rows that still have the digest that they had: in an index that was replaced meanwhile, a number may stand for
/// another row.
fn as_they_were(
    connection: &Connection,
    query: &str,
    rows: &[DigestRow],
) -> rusqlite::Result<Vec<DigestRow>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let query = [query, " WHERE id IN (SELECT value FROM json_each(?1))"].concat();
    let mut statement = connection.prepare_cached(&query)?;
    let there: HashMap<i64, RowDigest> = statement
        .query_map([ids(rows.iter().map(|row| row.id))], digest_row)?
        .map(|row| row.map(|row| (row.id, row.digest)))
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows.iter().filter(|row| there.get(&row.id) == Some(&row.digest)).cloned().collect())
}

/// The manifests of the wanted rows that nothing else needs.
fn going_manifests(
    connection: &Connection,
    wanted: Wanted<'_>,
    refs: &str,
) -> rusqlite::Result<HashSet<i64>> {
    let named = wanted.refs.iter().map(|row| row.manifest);
    let given = ids(named.chain(wanted.manifests.iter().map(|row| row.id)));
    let mut statement = connection.prepare_cached(concat!(
        "SELECT id FROM main.manifest
          WHERE id IN (SELECT value FROM json_each(?2))
            AND NOT EXISTS (SELECT 1 FROM image_ref WHERE image_ref.manifest_id = manifest.id
                                AND image_ref.id NOT IN (SELECT value FROM json_each(?1)))
            AND ",
        unused!()
    ))?;
    statement.query_map([refs, &given], |row| row.get(0))?.collect()
}

/// A layer that goes, with the last of the manifests that needed it.
struct GoingLayer {
    row: DigestRow,
    manifest: Option<i64>,
}

/// The layers that nothing needs without these manifests. Each layer of theirs is looked at once, however many of them
/// share it.
fn going_layers(
    connection: &Connection,
    manifests: &HashSet<i64>,
    given: &[DigestRow],
) -> rusqlite::Result<Vec<GoingLayer>> {
    let going = ids(manifests.iter().copied());
    let given = ids(given.iter().map(|row| row.id));
    let mut statement = connection.prepare_cached(
        "SELECT layer.id, layer.diff_id, needed.manifest_id
           FROM (SELECT layer_id, max(manifest_id) AS manifest_id FROM manifest_layer
                  WHERE manifest_id IN (SELECT value FROM json_each(?1)) GROUP BY layer_id) AS needed
           JOIN layer ON layer.id = needed.layer_id
          WHERE NOT EXISTS (SELECT 1 FROM manifest_layer AS other WHERE other.layer_id = needed.layer_id
                                AND other.manifest_id NOT IN (SELECT value FROM json_each(?1)))
          UNION ALL
         SELECT layer.id, layer.diff_id, NULL FROM layer
          WHERE layer.id IN (SELECT value FROM json_each(?2))
            AND NOT EXISTS (SELECT 1 FROM manifest_layer WHERE manifest_layer.layer_id = layer.id)",
    )?;
    statement
        .query_map([&going, &given], |row| Ok(GoingLayer { row: digest_row(row)?, manifest: row.get(2)? }))?
        .collect()
}

/// What references outside of the set mean that are other spellings of one in it.
fn shared_spellings(
    connection: &Connection,
    rows: &[&RefRow],
    refs: &str,
) -> rusqlite::Result<HashSet<Reference>> {
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
    Ok(shared)
}

/// The layers of a manifest.
pub(crate) fn layers_of(connection: &Connection, manifest: i64) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT layer_id FROM manifest_layer WHERE manifest_id = ?1")?;
    statement.query_map([manifest], |row| row.get(0))?.collect()
}

/// Returns how many layers each of these manifests has; those without any are left out.
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

/// The manifests that have a layer.
pub(crate) fn manifests_with(connection: &Connection, layer: i64) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT manifest_id FROM manifest_layer WHERE layer_id = ?1")?;
    statement.query_map([layer], |row| row.get(0))?.collect()
}

/// Deletes these references, and the manifests and layers of the set, which nothing needs without them. What a sandbox
/// needs by the name of such a reference is held for it ([`roots::hold`]).
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

/// Who needs the manifest of a reference besides its references.
pub(crate) fn users(connection: &Connection, row: &RefRow) -> rusqlite::Result<ImageUsers> {
    roots::users_of(connection, row.manifest)
}

/// What the index says about a reference now.
#[derive(Debug)]
pub(crate) struct LiveRef {
    pub(crate) manifest: i64,
    pub(crate) expected: ExpectedRef,
    pub(crate) in_use: bool,
    pub(crate) pinned: bool,
}

/// What the index says now about these references, by number. `named_user` is up to date ([`roots::refresh`]).
pub(crate) fn live_refs<'a>(
    connection: &Connection,
    rows: impl Iterator<Item = &'a RefRow> + Clone,
) -> rusqlite::Result<HashMap<i64, LiveRef>> {
    let known: HashMap<i64, &RefRow> = rows.clone().map(|row| (row.id, row)).collect();
    let pinned = pinned_among(connection, known.values().map(|row| row.key()))?;
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
        let Some(RefRow { id, manifest, handle, .. }) = ref_row(row)? else { return Ok(None) };
        // In an index that was replaced meanwhile, a number may stand for another reference.
        let Some(known) = known.get(&id).filter(|known| known.handle.reference == handle.reference) else {
            return Ok(None);
        };
        let pinned = pinned.contains(known.key());
        let live = LiveRef { manifest, expected: ExpectedRef::of(&handle), in_use: row.get(10)?, pinned };
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

/// Forgets what Larder noted about references that are gone: their origin, and the pins of those that were forced.
pub(crate) fn forget_notes(
    connection: &Connection,
    rows: &[&RefRow],
    forced: &[&str],
) -> rusqlite::Result<()> {
    let json = |keys: Vec<&str>| serde_json::Value::from(keys).to_string();
    connection
        .prepare_cached("DELETE FROM larder_origin WHERE reference IN (SELECT value FROM json_each(?1))")?
        .execute([json(rows.iter().map(|row| row.key()).collect())])?;
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
        let refs = [&row];
        live_refs(connection, refs.into_iter()).expect("its state");
        let wanted = Wanted { refs: &refs, ..Wanted::default() };
        let set = RemovalSet::read(connection, wanted, &HashSet::new()).expect("what goes");
        assert_eq!((set.manifests.len(), set.layers.len(), set.files[0].goes), (1, 1, true));
        let deleted = delete(connection, &refs, &set).expect("deleted");
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
