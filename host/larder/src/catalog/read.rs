//! Questions about images: one query each, however large the home.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior};

use super::lenient::{any_text, integer, text};
use super::time;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImageConfigDetail, ImageDetail, ImageHandle, ImageLayerDetail};
use crate::reference::Reference;

/// The columns of an image, in the order in which [`handle`] reads them.
macro_rules! handle_columns {
    () => {
        "ref.reference, ref.created_at, ref.updated_at, manifest.digest, manifest.architecture, manifest.os, \
         manifest.layer_count, manifest.total_size_bytes"
    };
}
pub(super) use handle_columns;

const FROM_IMAGES: &str = " FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id";

/// Fails with SQLite's `no such …` where a table or column that the queries of this module name is missing.
pub(super) fn check_schema(connection: &Connection) -> rusqlite::Result<()> {
    for query in [list_query(), get_query(), CONFIG_QUERY.to_owned(), LAYERS_QUERY.to_owned()] {
        connection.prepare_cached(&query)?;
    }
    Ok(())
}

fn list_query() -> String {
    [concat!("SELECT ", handle_columns!()), FROM_IMAGES, " ORDER BY ref.created_at DESC, ref.reference"]
        .concat()
}

fn get_query() -> String {
    [concat!("SELECT ", handle_columns!(), ", manifest.id"), FROM_IMAGES, " WHERE ref.reference = ?1"]
        .concat()
}

const CONFIG_QUERY: &str = "SELECT digest, env, cmd, entrypoint, working_dir, user, labels, stop_signal
                              FROM config WHERE manifest_id = ?1";

const LAYERS_QUERY: &str =
    "SELECT layer.diff_id, layer.blob_digest, layer.media_type, layer.compressed_size_bytes,
                                   layer.erofs_size_bytes, link.position
                              FROM manifest_layer AS link JOIN layer ON layer.id = link.layer_id
                             WHERE link.manifest_id = ?1 ORDER BY link.position";

/// Every image, newest created first; images of the same time in the order of their references. A row whose reference
/// is no text names no image, and is left out.
pub(crate) fn list(connection: &Connection) -> MicrosandboxResult<Vec<ImageHandle>> {
    let query = || -> rusqlite::Result<Vec<ImageHandle>> {
        let mut statement = connection.prepare_cached(&list_query())?;
        let mut rows = statement.query([])?;
        let mut handles = Vec::new();
        while let Some(row) = rows.next()? {
            handles.extend(handle(row)?);
        }
        Ok(handles)
    };
    query().map_err(MicrosandboxError::db("list images"))
}

/// The image of this reference: as it stands, or in another spelling of the same.
pub(crate) fn get(connection: &Connection, reference: &str) -> MicrosandboxResult<ImageHandle> {
    find(connection, reference).map(|(handle, _)| handle)
}

/// As [`get`], with config and layers, all of one state.
pub(crate) fn inspect(connection: &Connection, reference: &str) -> MicrosandboxResult<ImageDetail> {
    // Dropped without a commit, which for a transaction that only reads is the same.
    let _state = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Deferred)
        .map_err(MicrosandboxError::db("inspect an image"))?;
    inspect_in_transaction(connection, reference)
}

/// As [`inspect`], within a transaction of the caller's.
pub(crate) fn inspect_in_transaction(
    connection: &Connection,
    reference: &str,
) -> MicrosandboxResult<ImageDetail> {
    let (mut handle, manifest) = find(connection, reference)?;
    let Some(manifest) = manifest else {
        return Ok(ImageDetail { handle, config: None, layers: Vec::new() });
    };
    let query = || -> rusqlite::Result<_> {
        let config =
            connection.prepare_cached(CONFIG_QUERY)?.query_row([manifest], config_detail).optional()?;
        let mut layers = connection.prepare_cached(LAYERS_QUERY)?;
        let layers = layers.query_map([manifest], layer_detail)?.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok((config, layers))
    };
    let (config, layers) = query().map_err(MicrosandboxError::db("inspect an image"))?;
    handle.layer_count = layers.len();
    Ok(ImageDetail { handle, config, layers })
}

/// The image of a reference, and the row of its manifest.
fn find(connection: &Connection, reference: &str) -> MicrosandboxResult<(ImageHandle, Option<i64>)> {
    let query = |spelling: &str| -> MicrosandboxResult<Option<_>> {
        connection
            .prepare_cached(&get_query())
            .and_then(|mut statement| {
                let found = statement.query_row([spelling], |row| Ok((handle(row)?, integer(row, 8)?)));
                Ok(found.optional()?.and_then(|(handle, manifest)| Some((handle?, manifest))))
            })
            .map_err(MicrosandboxError::db("look an image up"))
    };
    in_any_spelling(reference, query)
}

/// The image of exactly this reference.
pub(super) fn handle_of(connection: &Connection, reference: &str) -> rusqlite::Result<Option<ImageHandle>> {
    Ok(connection.prepare_cached(&get_query())?.query_row([reference], handle).optional()?.flatten())
}

/// What `query` finds under a reference as it stands, or else in another spelling of the same.
pub(crate) fn in_any_spelling<T>(
    reference: &str,
    query: impl Fn(&str) -> MicrosandboxResult<Option<T>>,
) -> MicrosandboxResult<T> {
    if let Some(found) = query(reference)? {
        return Ok(found);
    }
    for spelling in reference.parse::<Reference>()?.spellings() {
        if let Some(found) = query(&spelling)? {
            return Ok(found);
        }
    }
    Err(MicrosandboxError::ImageNotFound(reference.to_owned()))
}

/// One row of the columns of `handle_columns`; none where the reference is no text.
pub(super) fn handle(row: &Row<'_>) -> rusqlite::Result<Option<ImageHandle>> {
    let Some(reference) = text(row, 0)? else { return Ok(None) };
    Ok(Some(ImageHandle {
        reference,
        created_at: time_at(row, 1)?,
        last_used_at: time_at(row, 2)?,
        manifest_digest: text(row, 3)?,
        architecture: text(row, 4)?,
        os: text(row, 5)?,
        layer_count: integer(row, 6)?.and_then(|count| usize::try_from(count).ok()).unwrap_or(0),
        size_bytes: integer(row, 7)?,
    }))
}

/// Returns a time; none where the column holds anything else.
pub(super) fn time_at(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<chrono::DateTime<chrono::Utc>>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(time::parse),
        _ => None,
    })
}

fn config_detail(row: &Row<'_>) -> rusqlite::Result<ImageConfigDetail> {
    Ok(ImageConfigDetail {
        digest: any_text(row, 0)?,
        env: json_at(row, 1)?.unwrap_or_default(),
        cmd: json_at(row, 2)?,
        entrypoint: json_at(row, 3)?,
        working_dir: text(row, 4)?,
        user: text(row, 5)?,
        labels: json_at(row, 6)?,
        stop_signal: text(row, 7)?,
    })
}

/// A column that holds JSON. One that holds something else says nothing: one bad row must not hide the image.
fn json_at<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    Ok(text(row, column)?.and_then(|text| serde_json::from_str(&text).ok()))
}

fn layer_detail(row: &Row<'_>) -> rusqlite::Result<ImageLayerDetail> {
    Ok(ImageLayerDetail {
        diff_id: any_text(row, 0)?,
        blob_digest: any_text(row, 1)?,
        media_type: text(row, 2)?,
        compressed_size_bytes: integer(row, 3)?,
        erofs_size_bytes: integer(row, 4)?,
        position: row.get(5)?,
    })
}
