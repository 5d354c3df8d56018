//! The users of a manifest: sandboxes and snapshots.
//!
//! Every connection has a temporary view `image_user(manifest_id, kind, name)` over three sources: `sandbox_rootfs`
//! (sandboxes of any status), `snapshot_index`, and the temporary table `named_user`. `named_user` has the sandboxes
//! whose row names no manifest: microsandbox does not protect their images, although their config names a manifest
//! digest or an image reference. [`refresh`] fills it in the transaction of the query.
//!
//! A reference in a config determines the needed manifest only until the reference is removed or names another
//! manifest. In the transaction that does so, [`hold`] records the manifest for the sandbox. The record counts as long
//! as the sandbox exists.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;

use super::data_version;
use super::lenient::{any_text, integer};
use crate::records::ImageUsers;
use crate::reference::{Digest, Reference};

/// Creates the view. Called once per connection.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TEMP TABLE named_user (
             manifest_id INTEGER NOT NULL,
             sandbox_id INTEGER NOT NULL,
             name TEXT NOT NULL,
             PRIMARY KEY (manifest_id, sandbox_id)
         ) WITHOUT ROWID;
         CREATE TEMP TABLE named_user_state (data_version INTEGER NOT NULL);
         CREATE TEMP VIEW image_user AS
         SELECT rootfs.manifest_id, 'sandbox' AS kind,
                coalesce(sandbox.name, 'sandbox ' || rootfs.sandbox_id) AS name
           FROM sandbox_rootfs AS rootfs LEFT JOIN sandbox ON sandbox.id = rootfs.sandbox_id
          WHERE rootfs.manifest_id IS NOT NULL
          UNION ALL
         SELECT manifest.id, 'snapshot', coalesce(snapshot.name, snapshot.digest)
           FROM snapshot_index AS snapshot JOIN main.manifest ON manifest.digest = snapshot.image_manifest_digest
          UNION ALL
         SELECT manifest_id, 'sandbox', name FROM named_user;",
    )?;
    // What a running sandbox was started with, where this microsandbox records it.
    let has_active: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('sandbox', 'main') WHERE name = 'active_config')",
        [],
        |row| row.get(0),
    )?;
    let active = "UNION ALL SELECT id, name, active_config FROM sandbox WHERE active_config IS NOT NULL";
    connection.execute_batch(&format!(
        "CREATE TEMP VIEW sandbox_config (sandbox_id, name, config) AS
         SELECT id, name, config FROM sandbox {};",
        if has_active { active } else { "" }
    ))
}

/// Fills `named_user` from the sandboxes whose row names no manifest. Does nothing if no other connection has changed
/// the index since the last time.
///
/// Does not notice this connection's own changes: a change that gives a reference another manifest calls [`forget`].
pub(crate) fn refresh(connection: &Connection) -> rusqlite::Result<()> {
    // Asked before anything is read: a change in between is seen by the next call.
    let now = data_version(connection)?;
    let filled: Option<i64> = connection
        .prepare_cached("SELECT data_version FROM temp.named_user_state")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if filled == Some(now) {
        return Ok(());
    }
    forget(connection)?;
    fill(connection)?;
    connection
        .prepare_cached("INSERT INTO temp.named_user_state (data_version) VALUES (?1)")?
        .execute([now])
        .map(drop)
}

/// Makes the next [`refresh`] fill `named_user` again.
pub(crate) fn forget(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM temp.named_user_state")?.execute([]).map(drop)
}

/// A sandbox whose row names no manifest.
struct Nameless {
    id: i64,
    name: String,
    config: String,
}

fn fill(connection: &Connection) -> rusqlite::Result<()> {
    let mut nameless = connection.prepare_cached(
        "SELECT sandbox.sandbox_id, sandbox.name, sandbox.config
           FROM sandbox_config AS sandbox LEFT JOIN sandbox_rootfs AS rootfs USING (sandbox_id)
          WHERE NOT EXISTS (SELECT 1 FROM main.manifest WHERE id = rootfs.manifest_id)",
    )?;
    let sandboxes: Vec<Nameless> = nameless
        .query_map([], |row| {
            Ok(Nameless { id: row.get(0)?, name: any_text(row, 1)?, config: any_text(row, 2)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    connection.prepare_cached("DELETE FROM temp.named_user")?.execute([])?;
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO temp.named_user (manifest_id, sandbox_id, name) VALUES (?1, ?2, ?3)",
    )?;
    for sandbox in sandboxes {
        for text in texts(&sandbox.config) {
            for manifest in manifests_named(connection, &text)? {
                insert.execute(params![manifest, sandbox.id, sandbox.name])?;
            }
        }
    }
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO temp.named_user (manifest_id, sandbox_id, name)
             SELECT manifest.id, sandbox.id, sandbox.name
               FROM larder_hold AS hold JOIN sandbox ON sandbox.id = hold.sandbox_id
               JOIN main.manifest ON manifest.digest = hold.manifest_digest",
        )?
        .execute([])
        .map(drop)
}

/// Records the manifests of these references for the sandboxes that name them only in their config. The references, a
/// JSON array of row numbers, are about to be removed or to name other manifests. [`refresh`] has run in this
/// transaction.
pub(super) fn hold(connection: &Connection, references: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO larder_hold (sandbox_id, manifest_digest)
             SELECT named.sandbox_id, manifest.digest
               FROM temp.named_user AS named JOIN main.manifest ON manifest.id = named.manifest_id
              WHERE manifest.id IN (SELECT manifest_id FROM image_ref WHERE id IN (SELECT value FROM json_each(?1)))",
        )?
        .execute([references])?;
    connection
        .prepare_cached("DELETE FROM larder_hold WHERE sandbox_id NOT IN (SELECT id FROM sandbox)")?
        .execute([])
        .map(drop)
}

/// Returns the users of one manifest. [`refresh`] has run.
pub(crate) fn users_of(connection: &Connection, manifest: i64) -> rusqlite::Result<ImageUsers> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT kind, name FROM image_user WHERE manifest_id = ?1 ORDER BY kind, name",
    )?;
    let mut users = ImageUsers::default();
    let mut rows = statement.query([manifest])?;
    while let Some(row) = rows.next()? {
        add(&mut users, row.get_ref(0)?.as_str()?, any_text(row, 1)?);
    }
    Ok(users)
}

/// Returns whether a sandbox or snapshot uses the manifest with this digest. [`refresh`] has run.
pub(crate) fn is_used(connection: &Connection, digest: &Digest) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM image_user
                             WHERE manifest_id = (SELECT id FROM main.manifest WHERE digest = ?1))",
        )?
        .query_row([digest.as_str()], |row| row.get(0))
}

/// Returns the users of the manifest with this digest. [`refresh`] has run.
pub(crate) fn users_of_digest(connection: &Connection, digest: &str) -> rusqlite::Result<ImageUsers> {
    let mut statement = connection.prepare_cached("SELECT id FROM main.manifest WHERE digest = ?1")?;
    let manifest = statement.query_row([digest], |row| row.get(0)).optional()?;
    manifest.map_or_else(|| Ok(ImageUsers::default()), |manifest| users_of(connection, manifest))
}

/// Returns the users of every manifest that has any. [`refresh`] has run.
pub(crate) fn all_users(connection: &Connection) -> rusqlite::Result<HashMap<i64, ImageUsers>> {
    let mut statement = connection
        .prepare_cached("SELECT DISTINCT manifest_id, kind, name FROM image_user ORDER BY kind, name")?;
    let mut users: HashMap<i64, ImageUsers> = HashMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // What is no number names no manifest.
        let Some(manifest) = integer(row, 0)? else { continue };
        add(users.entry(manifest).or_default(), row.get_ref(1)?.as_str()?, any_text(row, 2)?);
    }
    Ok(users)
}

fn add(users: &mut ImageUsers, kind: &str, name: String) {
    if kind == "sandbox" { users.sandboxes.push(name) } else { users.snapshots.push(name) }
}

/// Returns every text in a sandbox's config that could name an image. A config that is not JSON is split at its quotes:
/// it may be damaged, and the images that it names are still needed.
fn texts(config: &str) -> BTreeSet<String> {
    fn collect(value: &Value, texts: &mut BTreeSet<String>) {
        match value {
            Value::String(text) => drop(texts.insert(text.clone())),
            Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
            Value::Object(fields) => fields.values().for_each(|value| collect(value, texts)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut found = BTreeSet::new();
    match serde_json::from_str(config) {
        Ok(value) => collect(&value, &mut found),
        Err(_) => found.extend(config.split('"').map(str::to_owned)),
    }
    found.retain(|text| !text.is_empty() && text.len() <= 1024);
    found
}

/// Returns the manifests that a text names: as a digest, as a reference in any spelling, or as both.
fn manifests_named(connection: &Connection, text: &str) -> rusqlite::Result<Vec<i64>> {
    let mut named = Vec::new();
    let digest = text.rsplit_once('@').map_or(text, |(_, digest)| digest);
    if digest.parse::<Digest>().is_ok() {
        let mut by_digest = connection.prepare_cached("SELECT id FROM main.manifest WHERE digest = ?1")?;
        named.extend(by_digest.query_row([digest], |row| row.get::<_, i64>(0)).optional()?);
        if digest.len() == text.len() {
            return Ok(named);
        }
    }
    let spellings = text.parse::<Reference>().map_or_else(|_| Vec::new(), |reference| reference.spellings());
    let mut by_reference =
        connection.prepare_cached("SELECT manifest_id FROM main.image_ref WHERE reference = ?1")?;
    for spelling in spellings.iter().map(String::as_str).chain([text]) {
        named.extend(by_reference.query_row([spelling], |row| integer(row, 0)).optional()?.flatten());
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text anywhere in a config names an image, even if the config is damaged.
    #[test]
    fn texts_of_a_config() {
        let found = |config: &str| texts(config).into_iter().collect::<Vec<_>>();
        assert_eq!(found(r#"{"image":{"oci":{"reference":"python"}},"n":1}"#), ["python"]);
        assert!(found(r#"{"image":{"reference":"python:3.12","#).contains(&"python:3.12".to_owned()));
        assert!(found("{}").is_empty());
    }
}
