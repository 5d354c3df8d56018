//! Records of files to be deleted. A record is added in the transaction that deletes the rows of the file, and
//! removed when the directory without the file is on disk.
//!
//! A record names the cache of its file. Its number is never used again, so a process that removes its records
//! cannot remove a record of another process.

use rusqlite::{Connection, params};

use crate::artifacts::{Entry, FileIdentity, Room};

/// A file that a committed change released for deletion.
pub(crate) struct Deletion {
    pub(crate) id: i64,
    /// Absent if the record names something that is not an entry.
    pub(crate) entry: Option<Entry>,
    pub(crate) file: FileIdentity,
}

/// Records a file of `cache` that is to be deleted, within the transaction that deletes its rows. Returns the
/// record's number.
pub(crate) fn record(
    connection: &Connection,
    cache: &str,
    entry: &Entry,
    file: &FileIdentity,
) -> rusqlite::Result<i64> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO larder_deletion (cache, room, name, inode, size, modified_ns, born_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    // Numbers of inodes and sizes are kept as SQLite's signed integers, bit for bit.
    let (inode, size) = (file.inode as i64, file.size as i64);
    insert.insert(params![cache, entry.room.name(), entry.name, inode, size, file.modified_ns, file.born_ns])
}

/// Returns all records about files of `cache`, oldest first. Records from before caches were recorded match any cache.
pub(crate) fn pending(connection: &Connection, cache: &str) -> rusqlite::Result<Vec<Deletion>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, room, name, inode, size, modified_ns, born_ns FROM larder_deletion
          WHERE cache IN (?1, '') ORDER BY id",
    )?;
    let rows = statement.query_map([cache], |row| {
        let name: String = row.get(2)?;
        let room = Room::from_name(row.get_ref(1)?.as_str()?).filter(|room| room.key_of(&name).is_some());
        Ok(Deletion {
            id: row.get(0)?,
            entry: room.map(|room| Entry { room, name }),
            file: FileIdentity {
                inode: row.get::<_, i64>(3)? as u64,
                size: row.get::<_, i64>(4)? as u64,
                modified_ns: row.get(5)?,
                born_ns: row.get(6)?,
            },
        })
    })?;
    rows.collect()
}

/// Returns the number of records about files of `cache`.
pub(crate) fn count(connection: &Connection, cache: &str) -> rusqlite::Result<u64> {
    let mut count =
        connection.prepare_cached("SELECT count(*) FROM larder_deletion WHERE cache IN (?1, '')")?;
    count.query_row([cache], |row| row.get::<_, i64>(0)).map(|count| u64::try_from(count).unwrap_or_default())
}

/// Removes records.
pub(crate) fn forget(connection: &Connection, records: &[i64]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM larder_deletion WHERE id = ?1")?;
    for record in records {
        statement.execute([record])?;
    }
    Ok(())
}
