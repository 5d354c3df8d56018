//! All images, manifests and layers of the index, and the links among them: one query each, for whoever looks at the
//! whole of it in one transaction.

use std::collections::HashMap;

use rusqlite::Connection;

use super::read;
use crate::records::{ImageHandle, Origin};
use crate::reference::RowDigest;

/// An image, and the row of its manifest.
pub(crate) struct ImageRow {
    pub(crate) handle: ImageHandle,
    pub(crate) manifest: i64,
}

/// A row whose digest names its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigestRow {
    pub(crate) id: i64,
    pub(crate) digest: RowDigest,
}

/// A layer of a manifest, by their rows.
pub(crate) struct Link {
    pub(crate) manifest: i64,
    pub(crate) layer: i64,
}

/// Every image, in the order of a listing.
pub(crate) fn images(connection: &Connection) -> rusqlite::Result<Vec<ImageRow>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        read::handle_columns!(),
        ", ref.manifest_id FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id
           ORDER BY ref.created_at DESC, ref.reference"
    ))?;
    statement
        .query_map([], |row| Ok(ImageRow { handle: read::handle(row)?, manifest: row.get(8)? }))?
        .collect()
}

/// Every manifest.
pub(crate) fn manifests(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(connection, "SELECT id, digest FROM main.manifest")
}

/// Every layer.
pub(crate) fn layers(connection: &Connection) -> rusqlite::Result<Vec<DigestRow>> {
    digest_rows(connection, "SELECT id, diff_id FROM main.layer")
}

/// Which manifest has which layers.
pub(crate) fn links(connection: &Connection) -> rusqlite::Result<Vec<Link>> {
    let mut statement = connection.prepare_cached("SELECT manifest_id, layer_id FROM manifest_layer")?;
    statement.query_map([], |row| Ok(Link { manifest: row.get(0)?, layer: row.get(1)? }))?.collect()
}

/// Where images came from, as far as that is recorded, by the key of their reference ([`super::pins::key`]).
pub(crate) fn origins(connection: &Connection) -> rusqlite::Result<HashMap<String, Origin>> {
    let mut statement = connection.prepare_cached("SELECT reference, origin FROM larder_origin")?;
    let rows = statement.query_map([], |row| {
        let origin = match row.get_ref(1)?.as_str()? {
            "registry" => Origin::Registry,
            "archive" => Origin::Archive,
            _ => Origin::Unknown,
        };
        Ok((row.get(0)?, origin))
    })?;
    rows.collect()
}

pub(super) fn digest_rows(connection: &Connection, query: &str) -> rusqlite::Result<Vec<DigestRow>> {
    let mut statement = connection.prepare_cached(query)?;
    statement.query_map([], digest_row)?.collect()
}

pub(super) fn digest_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<DigestRow> {
    Ok(DigestRow { id: row.get(0)?, digest: RowDigest::from(row.get::<_, String>(1)?) })
}
