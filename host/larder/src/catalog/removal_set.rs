//! The rows that are removed together, with their files.
//!
//! A set is read within the transaction that acts on it, and is valid in that transaction. It contains more files than
//! are deleted: every file whose lease a live operation would hold while it uses one of the rows, so that the remover
//! knows the leases to claim.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::graph::{DigestRow, digest_row};
use super::owners::Owner;
use super::remove::{RefRow, ids, unused};
use crate::artifacts::Entry;
use crate::reference::{Reference, RowDigest};

/// The rows to remove: references with everything that only they need, and rows that no reference needs already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) refs: &'a [&'a RefRow],
    pub(crate) manifests: &'a [DigestRow],
    pub(crate) layers: &'a [DigestRow],
}

/// The rows to remove together, and their files.
#[derive(Debug, Default)]
pub(crate) struct RemovalSet {
    /// The manifests that nothing needs without the references.
    pub(crate) manifests: Vec<i64>,
    /// The layers that nothing needs without those manifests.
    pub(crate) layers: Vec<i64>,
    /// Every file whose lease a live operation holds while it uses one of the rows: files to delete, and files that
    /// stay because another row needs them. A file that protects several rows is listed for each of them.
    pub(crate) files: Vec<SetFile>,
}

/// A file of a [`RemovalSet`].
#[derive(Debug)]
pub(crate) struct SetFile {
    pub(crate) entry: Entry,
    /// The wanted row that the file protects, or the layer that is removed with one.
    pub(crate) row: SetRow,
    /// The index of the wanted reference that the file is counted for.
    pub(crate) counted_for: Option<usize>,
    /// Set if no row needs the file after the set is removed.
    pub(crate) goes: bool,
}

/// A row of a [`RemovalSet`], by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SetRow {
    Reference(i64),
    Manifest(i64),
    Layer(i64),
}

impl RemovalSet {
    /// Reads the rows and files to remove for these rows. The metadata of a reference stays while its manifest is
    /// among `in_use`. `named_user` is up to date ([`roots::refresh`]).
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

    /// Removes the layers from the set whose file is not among `claimed`.
    pub(crate) fn keep_layers(&mut self, claimed: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut kept = Vec::new();
        let mut unclaimed: HashSet<i64> = HashSet::new();
        self.files.retain(|file| match file.row {
            SetRow::Layer(id) if !claimed(&file.entry) => {
                unclaimed.insert(id);
                kept.push(file.entry.clone());
                false
            }
            _ => true,
        });
        self.layers.retain(|id| !unclaimed.contains(id));
        kept
    }
}

/// Returns the rows that still have the same digest: in an index that was replaced meanwhile, a number may belong to
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

/// Returns the manifests of the wanted rows that nothing else needs.
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

/// A layer to remove, with the last of the manifests that needed it.
struct GoingLayer {
    row: DigestRow,
    manifest: Option<i64>,
}

/// Returns the layers that nothing needs without these manifests. Each of their layers is checked once, even if many
/// of the manifests share it.
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

/// Returns the meanings of references outside of the set that are other spellings of one in it.
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
