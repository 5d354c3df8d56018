//! All images, manifests and layers of the index, and the links among them: one query each, for whoever looks at the
//! whole of it in one transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use super::lenient::{any_text, integer, text};
use super::read;
use crate::records::{ImageHandle, Origin};
use crate::reference::RowDigest;

/// An image, and the row of its manifest.
pub(crate) struct ImageRow {
    pub(crate) handle: ImageHandle,
    pub(crate) manifest: i64,
    /// When the manifest came in.
    pub(crate) manifest_created_at: Option<DateTime<Utc>>,
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

/// Every image, and what rows need that name none.
#[derive(Default)]
pub(crate) struct Images {
    /// In the order of a listing.
    pub(crate) rows: Vec<ImageRow>,
    /// Manifests of rows whose reference is no text: nobody can ask for them, and they are not unused either.
    pub(crate) nameless: Vec<i64>,
}

/// Reads every image.
pub(crate) fn images(connection: &Connection) -> rusqlite::Result<Images> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        read::handle_columns!(),
        ", ref.manifest_id, manifest.created_at
           FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id
           ORDER BY ref.created_at DESC, ref.reference"
    ))?;
    let mut images = Images::default();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(manifest) = integer(row, 8)? else { continue };
        match read::handle(row)? {
            Some(handle) => {
                let manifest_created_at = read::time_at(row, 9)?;
                images.rows.push(ImageRow { handle, manifest, manifest_created_at });
            }
            None => images.nameless.push(manifest),
        }
    }
    Ok(images)
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
    let link = |row: &rusqlite::Row<'_>| {
        let (manifest, layer) = (integer(row, 0)?, integer(row, 1)?);
        Ok(manifest.zip(layer).map(|(manifest, layer)| Link { manifest, layer }))
    };
    statement.query_map([], link)?.filter_map(Result::transpose).collect()
}

/// Where an image came from.
#[derive(Debug)]
pub(crate) struct RecordedOrigin {
    origin: Origin,
    /// The manifest that came from there.
    manifest: Option<String>,
    /// When this was recorded. Whatever the name means now, it has not meant it for longer.
    pub(crate) recorded_at: Option<DateTime<Utc>>,
}

impl RecordedOrigin {
    /// The origin of an image with this manifest, under the name that this was recorded for.
    pub(crate) fn of(&self, manifest: Option<&str>) -> Origin {
        let is_it = self.manifest.is_none() || self.manifest.as_deref() == manifest;
        if is_it { self.origin } else { Origin::Unknown }
    }
}

/// The diff IDs of the layers of each manifest, bottom to top.
pub(crate) fn compositions(connection: &Connection) -> rusqlite::Result<HashMap<RowDigest, Vec<RowDigest>>> {
    let mut statement = connection.prepare_cached(
        "SELECT manifest.digest, layer.diff_id
           FROM manifest_layer AS link JOIN main.manifest ON manifest.id = link.manifest_id
           JOIN main.layer ON layer.id = link.layer_id
          ORDER BY link.manifest_id, link.position",
    )?;
    let mut compositions: HashMap<RowDigest, Vec<RowDigest>> = HashMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let manifest = RowDigest::from(any_text(row, 0)?);
        compositions.entry(manifest).or_default().push(RowDigest::from(any_text(row, 1)?));
    }
    Ok(compositions)
}

/// Where images came from, as far as that is recorded, by the key of their reference ([`super::pins::key`]).
pub(crate) fn origins(connection: &Connection) -> rusqlite::Result<HashMap<String, RecordedOrigin>> {
    // A home that an earlier Larder wrote last is read as it is.
    let has_manifest = connection.prepare("SELECT manifest_digest FROM larder_origin LIMIT 0").is_ok();
    let manifest = if has_manifest { "manifest_digest" } else { "NULL" };
    let query = format!("SELECT reference, origin, {manifest}, recorded_at FROM larder_origin");
    let mut statement = connection.prepare_cached(&query)?;
    let rows = statement.query_map([], |row| {
        let origin = match text(row, 1)?.as_deref() {
            Some("registry") => Origin::Registry,
            Some("archive") => Origin::Archive,
            _ => Origin::Unknown,
        };
        let recorded_at = read::time_at(row, 3)?;
        Ok((any_text(row, 0)?, RecordedOrigin { origin, manifest: text(row, 2)?, recorded_at }))
    })?;
    rows.collect()
}

pub(super) fn digest_rows(connection: &Connection, query: &str) -> rusqlite::Result<Vec<DigestRow>> {
    let mut statement = connection.prepare_cached(query)?;
    statement.query_map([], digest_row)?.collect()
}

pub(super) fn digest_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<DigestRow> {
    Ok(DigestRow { id: row.get(0)?, digest: RowDigest::from(any_text(row, 1)?) })
}
