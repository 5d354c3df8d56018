//! Pins: images that neither a prune nor a policy removes, even if the policy decides to.
//!
//! A pin is for the normalized reference, so it applies to every spelling, and to an image that is pulled under
//! the reference again.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::{read, time};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::reference::Reference;

/// Returns the key of a pin, an origin or a decision: the normalized reference, or the unchanged text if it does
/// not parse.
pub(crate) fn key(reference: &str) -> String {
    reference.parse::<Reference>().map_or_else(|_| reference.to_owned(), |parsed| parsed.to_string())
}

/// Pins an image that is in the cache. Returns whether it was not pinned before.
pub(crate) fn pin(connection: &Connection, reference: &str, now: DateTime<Utc>) -> MicrosandboxResult<bool> {
    let handle = read::get(connection, reference)?;
    let added = connection.execute(
        "INSERT INTO larder_pin (reference, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![key(handle.reference()), time::format(now)],
    );
    added.map(|rows| rows > 0).map_err(MicrosandboxError::db("pin an image"))
}

/// Removes a pin, even of an image that is not in the cache. Returns whether the pin existed.
pub(crate) fn unpin(connection: &Connection, reference: &str) -> MicrosandboxResult<bool> {
    let removed = connection
        .execute("DELETE FROM larder_pin WHERE reference = ?1", [key(reference)])
        .map_err(MicrosandboxError::db("unpin an image"))?;
    if removed == 0 {
        // Nothing to take away is fine for an image that is there, and a mistake for one that is not.
        read::get(connection, reference)?;
    }
    Ok(removed > 0)
}

/// Returns all pins, sorted.
pub(crate) fn list(connection: &Connection) -> MicrosandboxResult<Vec<String>> {
    let query = || -> rusqlite::Result<Vec<String>> {
        let mut statement =
            connection.prepare_cached("SELECT reference FROM larder_pin ORDER BY reference")?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    query().map_err(MicrosandboxError::db("list pins"))
}

/// Returns all pins as a set, for queries about many images.
pub(crate) fn set(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare_cached("SELECT reference FROM larder_pin")?;
    statement.query_map([], |row| row.get(0))?.collect()
}
