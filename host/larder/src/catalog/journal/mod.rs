//! The journal of use: when an image came in, was booted, pulled, loaded and saved.
//!
//! microsandbox forgets the boots of a sandbox with the sandbox, and an image with its rows. So Larder keeps its own
//! record: of its own pulls, loads and saves in the transaction that makes them, or after it, and of what microsandbox
//! did by a [sweep](sweep()) of microsandbox's tables. Looking at an image is no use of it: neither `inspect` nor
//! `verify` nor a plan records anything.
//!
//! # Images, not references
//! A use is recorded for the digest of the manifest. A boot is one of the content: its sandbox has a manifest, and of
//! several tags of that manifest none was booted more than the others. A digest also finds its past again when the
//! image is removed and pulled again, and a tag that moves does not take the past of its old manifest along.
//! `larder_name` has the references under which a manifest was seen, so that the past of a reference can be told when
//! neither exists any longer.
//!
//! # Hours
//! `larder_use` has one row for each image, kind of use and day with any, with a bit for each of its 24 hours (UTC). So
//! two uses in one hour are one, recording a use again changes nothing, and an image that is booted all the time takes
//! some 600 bytes a month. Of the last use of a day the second is kept, too. Rows are ordered by day: a sweep writes at the end
//! of the table, and what is too old is at its beginning.
//!
//! # What counts
//! - **Boot**: a row of `run`, for the manifest in `sandbox_rootfs`.
//! - **Arrival**: the creation of a row in `manifest`, or of one in `image_ref` that is younger than its manifest.
//! - **Pull**, **load**: Larder's own, even if the cache had everything. The cost of a pull is recorded if it
//!   transferred a layer, so that a pull of nothing does not hide what the image costs.
//! - **Save**: Larder's own, in a home that Larder has changed before: a save does not make a home Larder's.
//! - **Touch**: `image_ref.updated_at`, which microsandbox sets when it pulls or loads an image or takes it for a
//!   sandbox, and `layer.last_used_at` of a layer that one image alone has. No arrival: nothing has to have come in.
//!
//! # What survives a crash
//! A transaction or nothing, as elsewhere in the catalog. A use is kept for 400 days, and an image until it was not used
//! for as long.

mod past;
mod sweep;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};

pub use past::UseRecord;
pub(crate) use past::{name_of, past_of, pasts};
pub(crate) use sweep::{Swept, sweep};

use super::read::time_at;
use super::{lenient, pins};

/// The number of days for which a use is kept.
const KEPT_DAYS: i64 = 400;

const DAY: i64 = 86_400;
const HOUR: i64 = 3600;

/// A kind of use. The numbers are those in the index: SQLite stores the first two without a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UseKind {
    Boot = 0,
    Touch = 1,
    Arrival = 2,
    Pull = 3,
    Load = 4,
    Save = 5,
}

/// The number of kinds.
const KINDS: usize = 6;

/// A use to record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewUse<'a> {
    pub(crate) manifest: &'a str,
    /// The reference by which it was used, in any spelling, if one is known.
    pub(crate) reference: Option<&'a str>,
    /// The sandbox that was booted.
    pub(crate) sandbox: Option<&'a str>,
    pub(crate) kind: UseKind,
    pub(crate) at: DateTime<Utc>,
}

/// The cost of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PullCost {
    pub(crate) duration_ms: u64,
    /// The bytes of manifests and blobs that came over the network.
    pub(crate) bytes: u64,
}

/// The place of a use in `larder_use`.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Days since 1970.
    day: i64,
    /// The bit of its hour.
    hours: u32,
    /// Its second of the day.
    second: i64,
}

impl Place {
    fn of(at: DateTime<Utc>) -> Self {
        let (day, second) = (at.timestamp().div_euclid(DAY), at.timestamp().rem_euclid(DAY));
        Self { day, hours: 1 << (second / HOUR), second }
    }
}

/// Records a use.
pub(crate) fn record(connection: &Connection, new: &NewUse<'_>) -> rusqlite::Result<()> {
    let image = image_of(connection, new)?;
    let Place { day, hours, second } = Place::of(new.at);
    connection
        .prepare_cached(
            "INSERT INTO larder_use (day, image_id, kind, hours, latest) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (day, image_id, kind) DO UPDATE SET hours = hours | excluded.hours,
                                                             latest = max(latest, excluded.latest)
              WHERE hours & excluded.hours = 0 OR latest < excluded.latest",
        )?
        .execute(params![day, image, new.kind as i64, hours, second])?;
    connection
        .prepare_cached("UPDATE larder_image SET last_day = ?2 WHERE id = ?1 AND last_day < ?2")?
        .execute([image, day])?;
    if new.sandbox.is_some() {
        connection
            .prepare_cached("UPDATE larder_image SET booted_by = ?2 WHERE id = ?1 AND booted_by IS NOT ?2")?
            .execute(params![image, new.sandbox])?;
    }
    if let Some(reference) = new.reference {
        connection
            .prepare_cached(
                "INSERT INTO larder_name (reference, image_id, named_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (reference, image_id) DO UPDATE SET named_at = excluded.named_at
                  WHERE named_at < excluded.named_at",
            )?
            .execute(params![pins::key(reference), image, new.at.timestamp()])?;
    }
    Ok(())
}

/// Records the cost of the pull of an image that was recorded.
pub(crate) fn record_cost(connection: &Connection, manifest: &str, cost: PullCost) -> rusqlite::Result<()> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    connection
        .prepare_cached("UPDATE larder_image SET pull_ms = ?2, pull_bytes = ?3 WHERE manifest_digest = ?1")?
        .execute(params![manifest, number(cost.duration_ms), number(cost.bytes)])
        .map(drop)
}

/// Returns the row of an image in the journal. Makes it with the first use.
fn image_of(connection: &Connection, new: &NewUse<'_>) -> rusqlite::Result<i64> {
    let known = connection
        .prepare_cached("SELECT id FROM larder_image WHERE manifest_digest = ?1")?
        .query_row([new.manifest], |row| row.get(0))
        .optional()?;
    if let Some(image) = known {
        return Ok(image);
    }
    let created_at = connection
        .prepare_cached("SELECT created_at FROM main.manifest WHERE digest = ?1")?
        .query_row([new.manifest], |row| time_at(row, 0))
        .optional()?
        .flatten();
    let first_seen_at = created_at.map_or(new.at, |created_at| created_at.min(new.at));
    // Odd values are no reason to record nothing: JSON has no place for bytes.
    connection
        .prepare_cached(
            "INSERT INTO larder_image (manifest_digest, first_seen_at, last_day, layers)
             VALUES (?1, ?2, ?3,
                     (SELECT json_group_array(json_array(digest, iif(typeof(bytes) = 'integer', bytes, NULL))) FROM
                         (SELECT substr(CAST(layer.diff_id AS TEXT), 8, 16) AS digest,
                                 coalesce(layer.erofs_size_bytes, layer.compressed_size_bytes) AS bytes
                            FROM main.manifest JOIN manifest_layer AS link ON link.manifest_id = manifest.id
                            JOIN main.layer ON layer.id = link.layer_id
                           WHERE manifest.digest = ?1 ORDER BY link.position)))",
        )?
        .insert(params![new.manifest, first_seen_at.timestamp(), Place::of(new.at).day])
}

/// Deletes uses that are older than 400 days, and images that were not used for as long: at most so many of each.
/// Returns whether some may be left.
fn expire(connection: &Connection, now: DateTime<Utc>, at_most: usize) -> rusqlite::Result<Swept> {
    let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
    let oldest = Place::of(now).day - KEPT_DAYS;
    let delete = |query: &str| connection.prepare_cached(query)?.execute([oldest, limit]);
    let uses = delete(
        "DELETE FROM larder_use WHERE (day, image_id, kind) IN
             (SELECT day, image_id, kind FROM larder_use WHERE day < ?1 ORDER BY day LIMIT ?2)",
    )?;
    // As many as the next statement deletes, before it does.
    delete(
        "DELETE FROM larder_name WHERE image_id IN
             (SELECT id FROM larder_image WHERE last_day < ?1 ORDER BY last_day, id LIMIT ?2)",
    )?;
    let images = delete(
        "DELETE FROM larder_image WHERE id IN
             (SELECT id FROM larder_image WHERE last_day < ?1 ORDER BY last_day, id LIMIT ?2)",
    )?;
    Ok(if uses < at_most && images < at_most { Swept::All } else { Swept::Part })
}
