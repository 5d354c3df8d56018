//! Recording what microsandbox did: its boots, and what it last pulled, loaded or took.
//!
//! A sweep reads the rows that are newer than those of the last one, and notes how far it got in `larder_swept`. That
//! only saves work: what is read again changes nothing. So each doubt is resolved by reading again: a table of runs
//! that was made again, and a clock that was set back.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{KEPT_DAYS, NewUse, UseKind, expire, record};
use crate::catalog::lenient::text;
use crate::catalog::read::time_at;
use crate::catalog::time;

/// The time by which a row may be older than the rows that were committed before it: a program takes its time, then
/// waits for its turn to write.
const LATE: TimeDelta = TimeDelta::seconds(10);

/// The result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    /// Everything was recorded, and nothing is too old.
    All,
    /// Something may be left for the next sweep.
    Part,
}

/// A table of microsandbox that says when images were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Runs,
    References,
    Layers,
}

/// The last row that was read of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Cursor {
    at: String,
    id: i64,
}

/// The rows that were read of a source.
struct Page {
    cursor: Cursor,
    is_full: bool,
}

impl Source {
    const ALL: [Self; 3] = [Self::Runs, Self::References, Self::Layers];

    fn name(self) -> &'static str {
        match self {
            Self::Runs => "run",
            Self::References => "image_ref",
            Self::Layers => "layer",
        }
    }

    /// Returns the query for the rows after a cursor. Its columns are row, time, manifest, reference, sandbox, and the
    /// times at which reference and manifest came in.
    fn query(self) -> &'static str {
        match self {
            Self::Runs => {
                "SELECT run.id, run.started_at, manifest.digest, NULL, sandbox.name, NULL, NULL
                   FROM run LEFT JOIN sandbox_rootfs AS rootfs ON rootfs.sandbox_id = run.sandbox_id
                   LEFT JOIN main.manifest ON manifest.id = rootfs.manifest_id
                   LEFT JOIN sandbox ON sandbox.id = run.sandbox_id
                  WHERE run.id > ?1 ORDER BY run.id LIMIT ?2"
            }
            Self::References => {
                "SELECT ref.id, ref.updated_at, manifest.digest, ref.reference, NULL, ref.created_at, manifest.created_at
                   FROM main.image_ref AS ref LEFT JOIN main.manifest ON manifest.id = ref.manifest_id
                  WHERE (ref.updated_at, ref.id) > (?1, ?2) AND ref.updated_at <= ?3
                  ORDER BY ref.updated_at, ref.id LIMIT ?4"
            }
            // A layer that several images have does not say which of them was used.
            Self::Layers => {
                "SELECT layer.id, layer.last_used_at,
                        (SELECT iif(min(link.manifest_id) = max(link.manifest_id), min(manifest.digest), NULL)
                           FROM (SELECT DISTINCT manifest_id FROM manifest_layer WHERE layer_id = layer.id LIMIT 2) AS link
                           JOIN main.manifest ON manifest.id = link.manifest_id),
                        NULL, NULL, NULL, NULL
                   FROM main.layer
                  WHERE (layer.last_used_at, layer.id) > (?1, ?2) AND layer.last_used_at <= ?3
                  ORDER BY layer.last_used_at, layer.id LIMIT ?4"
            }
        }
    }

    /// Returns the place up to which it was read.
    fn cursor(self, connection: &Connection, now: DateTime<Utc>) -> rusqlite::Result<Cursor> {
        let cursor = connection
            .prepare_cached("SELECT at, id FROM larder_swept WHERE source = ?1")?
            .query_row([self.name()], |row| {
                Ok(Cursor { at: text(row, 0)?.unwrap_or_default(), id: row.get(1)? })
            })
            .optional()?
            .unwrap_or_default();
        let is_void = match self {
            Self::Runs => is_another_table(connection, &cursor),
            Self::References | Self::Layers => cursor.at > time::format(now),
        };
        Ok(if is_void { Cursor::default() } else { cursor })
    }

    fn note(self, connection: &Connection, cursor: &Cursor) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO larder_swept (source, at, id) VALUES (?1, ?2, ?3)
                 ON CONFLICT (source) DO UPDATE SET at = excluded.at, id = excluded.id
                  WHERE at <> excluded.at OR id <> excluded.id",
            )?
            .execute(params![self.name(), cursor.at, cursor.id])
            .map(drop)
    }

    /// Reads at most so many rows after a cursor. Returns `None` if the home does not have the table or its columns.
    fn read(
        self,
        connection: &Connection,
        mut cursor: Cursor,
        now: DateTime<Utc>,
        limit: i64,
        visit: &mut dyn FnMut(&NewUse<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Option<Page>> {
        let Ok(mut statement) = connection.prepare_cached(self.query()) else { return Ok(None) };
        let mut rows = match self {
            Self::Runs => statement.query([cursor.id, limit])?,
            _ => statement.query(params![cursor.at, cursor.id, time::format(now), limit])?,
        };
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            cursor = Cursor { at: text(row, 1)?.unwrap_or_default(), id: row.get(0)? };
            let Some(manifest) = text(row, 2)? else { continue };
            let (reference, sandbox) = (text(row, 3)?, text(row, 4)?);
            let (named_at, came_at) = (time_at(row, 5)?, time_at(row, 6)?);
            // Before its manifest came in, a reference named another one.
            let is_of_it = |at: &DateTime<Utc>| came_at.is_none_or(|came_at| *at >= came_at);
            let (named_at, at) = (named_at.filter(is_of_it), time_at(row, 1)?.filter(is_of_it));
            let kind = if self == Self::Runs { UseKind::Boot } else { UseKind::Touch };
            let uses = [(UseKind::Arrival, came_at), (UseKind::Arrival, named_at), (kind, at)];
            for (kind, at) in uses {
                let Some(at) = at.filter(|at| is_kept(*at, now)) else { continue };
                let (reference, sandbox) = (reference.as_deref(), sandbox.as_deref());
                visit(&NewUse { manifest: &manifest, reference, sandbox, kind, at })?;
            }
        }
        let is_full = count >= limit;
        let settled = time::format(now - LATE);
        if self != Self::Runs && cursor.at > settled {
            cursor = Cursor { at: settled, id: 0 };
        }
        Ok(Some(Page { cursor, is_full }))
    }
}

/// Returns whether a time is neither too old to be recorded nor in the future.
fn is_kept(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    at <= now && at >= now - TimeDelta::days(KEPT_DAYS)
}

/// Returns whether the table of runs is not the one that was read up to this row: its numbers begin again, or the row
/// is another one.
fn is_another_table(connection: &Connection, last: &Cursor) -> bool {
    let numbers = "SELECT coalesce((SELECT seq FROM main.sqlite_sequence WHERE name = 'run'), 0) < ?1";
    let row = "SELECT EXISTS (SELECT 1 FROM run WHERE id = ?1 AND iif(typeof(started_at) = 'text', started_at, '') <> ?2)";
    let ask = |query: &str, last: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(query).and_then(|mut query| query.query_row(last, |row| row.get(0)))
    };
    ask(numbers, &[&last.id]).unwrap_or(false) || ask(row, &[&last.id, &last.at]).unwrap_or(false)
}

/// Passes every use to `visit` that microsandbox's tables have and the journal may not have.
pub(super) fn unswept(
    connection: &Connection,
    now: DateTime<Utc>,
    visit: &mut dyn FnMut(&NewUse<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    for source in Source::ALL {
        source.read(connection, source.cursor(connection, now)?, now, i64::MAX, visit)?;
    }
    Ok(())
}

/// Records what microsandbox did since the last sweep, and deletes what is too old: reads and deletes at most so many
/// rows of each table, so that a transaction is short however much there is.
pub(crate) fn sweep(connection: &Connection, now: DateTime<Utc>, at_most: usize) -> rusqlite::Result<Swept> {
    let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
    let mut swept = expire(connection, now, at_most)?;
    for source in Source::ALL {
        let cursor = source.cursor(connection, now)?;
        let page = source.read(connection, cursor, now, limit, &mut |new| record(connection, new))?;
        let Some(page) = page else { continue };
        source.note(connection, &page.cursor)?;
        if page.is_full {
            swept = Swept::Part;
        }
    }
    Ok(swept)
}
