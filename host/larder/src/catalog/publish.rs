//! Adding images to the index.
//!
//! One transaction adds an image. Existing rows are updated and never duplicated: a manifest and a layer
//! are identified by their digests, a reference by its normalized text. If the index has a reference in several
//! spellings, all of them name the same image afterwards.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde_json::json;

use super::journal::{self, NewUse, PullCost, UseKind};
use super::{read, roots, time};
use crate::artifacts::{Entry, Room};
use crate::records::ImageHandle;
use crate::reference::{Digest, Reference};

/// An image whose artifacts are all in place.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) references: Vec<Reference>,
    pub(crate) manifest: Digest,
    pub(crate) media_type: String,
    pub(crate) config_digest: Digest,
    /// `None` if neither the config nor an index states it.
    pub(crate) os: Option<String>,
    pub(crate) architecture: Option<String>,
    pub(crate) variant: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) stop_signal: Option<String>,
    /// The layers, from bottom to top.
    pub(crate) layers: Vec<NewLayer>,
}

impl NewImage {
    /// Returns the files that its rows own, except the metadata of its references.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        let layers = self.layers.iter().map(|layer| Entry::named(Room::Layers, &layer.diff_id));
        layers.chain(Entry::joined(&self.manifest))
    }
}

/// A layer whose artifact is in place.
#[derive(Debug)]
pub(crate) struct NewLayer {
    pub(crate) diff_id: Digest,
    pub(crate) blob_digest: Digest,
    pub(crate) media_type: String,
    pub(crate) compressed_bytes: u64,
    pub(crate) erofs_bytes: u64,
}

/// The origin of a new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewOrigin {
    /// The image was loaded from an archive.
    Archive,
    /// The image was pulled from a registry.
    #[cfg(feature = "registry")]
    Registry,
}

impl NewOrigin {
    fn use_kind(self) -> UseKind {
        match self {
            Self::Archive => UseKind::Load,
            #[cfg(feature = "registry")]
            Self::Registry => UseKind::Pull,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            #[cfg(feature = "registry")]
            Self::Registry => "registry",
        }
    }
}

/// Returns the manifests that have this layer, each with its layers from bottom to top.
pub(crate) fn manifests_with_layer(
    connection: &Connection,
    diff_id: &Digest,
) -> rusqlite::Result<Vec<(Digest, Vec<Digest>)>> {
    let mut manifests = connection.prepare_cached(
        "SELECT DISTINCT manifest.id, manifest.digest FROM main.layer
           JOIN manifest_layer AS link ON link.layer_id = layer.id
           JOIN main.manifest ON manifest.id = link.manifest_id
          WHERE layer.diff_id = ?1",
    )?;
    let mut layers = connection.prepare_cached(
        "SELECT layer.diff_id FROM manifest_layer AS link JOIN main.layer ON layer.id = link.layer_id
          WHERE link.manifest_id = ?1 ORDER BY link.position",
    )?;
    let rows: Vec<(i64, String)> = manifests
        .query_map([diff_id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut found = Vec::new();
    for (id, digest) in rows {
        let texts: Vec<String> =
            layers.query_map([id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let parsed: Result<Vec<Digest>, _> = texts.iter().map(|text| text.parse()).collect();
        if let (Ok(digest), Ok(parsed)) = (digest.parse(), parsed) {
            found.push((digest, parsed));
        }
    }
    Ok(found)
}

/// Adds an image to the index, and returns the records of its references, in their order. Records its arrival and its cost, if
/// that was measured.
pub(crate) fn insert(
    connection: &Connection,
    image: &NewImage,
    origin: NewOrigin,
    cost: Option<PullCost>,
    at: DateTime<Utc>,
) -> rusqlite::Result<Vec<ImageHandle>> {
    let now = time::format(at);
    // A sandbox keeps the manifest that it had when its reference moves.
    roots::refresh(connection)?;
    roots::forget(connection)?;
    let mut handles = Vec::new();
    let manifest = upsert_manifest(connection, image, &now)?;
    replace_config(connection, manifest, image, &now)?;
    replace_layers(connection, manifest, image, &now)?;
    for reference in &image.references {
        upsert_reference(connection, manifest, reference, &now)?;
        record_origin(connection, &image.manifest, reference, origin, &now)?;
        let new = NewUse {
            manifest: image.manifest.as_str(),
            reference: Some(reference.as_str()),
            sandbox: None,
            kind: origin.use_kind(),
            at,
        };
        journal::record(connection, &new)?;
        handles.extend(read::handle_of(connection, reference.as_str())?);
    }
    if let Some(cost) = cost {
        journal::record_cost(connection, image.manifest.as_str(), cost)?;
    }
    Ok(handles)
}

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn upsert_manifest(connection: &Connection, image: &NewImage, now: &str) -> rusqlite::Result<i64> {
    let bytes = image.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.compressed_bytes));
    connection
        .prepare_cached(
            "INSERT INTO manifest (digest, media_type, config_digest, architecture, os, variant, layer_count,
                                   total_size_bytes, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (digest) DO UPDATE SET
                 media_type = excluded.media_type, config_digest = excluded.config_digest,
                 architecture = excluded.architecture, os = excluded.os, variant = excluded.variant,
                 layer_count = excluded.layer_count, total_size_bytes = excluded.total_size_bytes
             RETURNING id",
        )?
        .query_row(
            params![
                image.manifest.as_str(),
                image.media_type,
                image.config_digest.as_str(),
                image.architecture,
                image.os,
                image.variant,
                number(image.layers.len() as u64),
                number(bytes),
                now
            ],
            |row| row.get(0),
        )
}

fn replace_config(
    connection: &Connection,
    manifest: i64,
    image: &NewImage,
    now: &str,
) -> rusqlite::Result<()> {
    let list = |list: &Option<Vec<String>>| list.as_ref().map(|list| json!(list).to_string());
    // What is empty is not there, as with microsandbox.
    let env = (!image.env.is_empty()).then(|| json!(image.env).to_string());
    let labels = (!image.labels.is_empty()).then(|| json!(image.labels).to_string());
    connection.prepare_cached("DELETE FROM config WHERE manifest_id = ?1")?.execute([manifest])?;
    connection
        .prepare_cached(
            "INSERT INTO config (manifest_id, digest, env, cmd, entrypoint, working_dir, user, labels, stop_signal,
                                 created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            manifest,
            image.config_digest.as_str(),
            env,
            list(&image.cmd),
            list(&image.entrypoint),
            image.working_dir,
            image.user,
            labels,
            image.stop_signal,
            now
        ])?;
    Ok(())
}

fn replace_layers(
    connection: &Connection,
    manifest: i64,
    image: &NewImage,
    now: &str,
) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM manifest_layer WHERE manifest_id = ?1")?.execute([manifest])?;
    // Of a layer that came in several compressions the first is remembered, as by microsandbox: there is one row for all.
    let mut upsert = connection.prepare_cached(
        "INSERT INTO layer (diff_id, blob_digest, media_type, compressed_size_bytes, erofs_size_bytes, created_at,
                            last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
         ON CONFLICT (diff_id) DO UPDATE SET
             erofs_size_bytes = excluded.erofs_size_bytes, last_used_at = excluded.last_used_at
         RETURNING id",
    )?;
    let mut link = connection
        .prepare_cached("INSERT INTO manifest_layer (manifest_id, layer_id, position) VALUES (?1, ?2, ?3)")?;
    for (position, layer) in (0_i64..).zip(&image.layers) {
        let id: i64 = upsert.query_row(
            params![
                layer.diff_id.as_str(),
                layer.blob_digest.as_str(),
                layer.media_type,
                number(layer.compressed_bytes),
                number(layer.erofs_bytes),
                now
            ],
            |row| row.get(0),
        )?;
        link.execute([manifest, id, position])?;
    }
    Ok(())
}

fn upsert_reference(
    connection: &Connection,
    manifest: i64,
    reference: &Reference,
    now: &str,
) -> rusqlite::Result<()> {
    let spellings = json!(reference.spellings()).to_string();
    let moving: String = connection
        .prepare_cached(
            "SELECT json_group_array(id) FROM image_ref
              WHERE reference IN (SELECT value FROM json_each(?1)) AND manifest_id <> ?2",
        )?
        .query_row(params![spellings, manifest], |row| row.get(0))?;
    roots::hold(connection, &moving)?;
    connection
        .prepare_cached(
            "UPDATE image_ref SET manifest_id = ?1, updated_at = ?2
              WHERE reference IN (SELECT value FROM json_each(?3))",
        )?
        .execute(params![manifest, now, spellings])?;
    connection
        .prepare_cached(
            "INSERT INTO image_ref (reference, manifest_id, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)
             ON CONFLICT (reference) DO NOTHING",
        )?
        .execute(params![reference.as_str(), manifest, now])
        .map(drop)
}

fn record_origin(
    connection: &Connection,
    manifest: &Digest,
    reference: &Reference,
    origin: NewOrigin,
    now: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO larder_origin (reference, origin, recorded_at, manifest_digest) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (reference) DO UPDATE SET origin = excluded.origin, recorded_at = excluded.recorded_at,
                                                   manifest_digest = excluded.manifest_digest",
        )?
        .execute(params![reference.as_str(), origin.as_str(), now, manifest.as_str()])
        .map(drop)
}
