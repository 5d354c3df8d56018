//! Records of files that are to be deleted: made in the transaction whose rows gave the files up, and forgotten when
//! the directory without the file is on disk.

use rusqlite::{Connection, params};

use super::Writer;
use crate::artifacts::{Entry, FileIdentity, Room};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// A file that a committed change has given up.
pub(crate) struct Deletion {
    pub(crate) id: i64,
    /// Absent where the record names nothing that is an entry.
    pub(crate) entry: Option<Entry>,
    pub(crate) file: FileIdentity,
}

/// Records a file that is to be deleted, within the transaction that gives it up. Returns the record's number.
pub(crate) fn record(connection: &Connection, entry: &Entry, file: &FileIdentity) -> rusqlite::Result<i64> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO larder_deletion (room, name, inode, size, modified_ns, born_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    // Numbers of inodes and sizes are kept as SQLite's signed integers, bit for bit.
    let (inode, size) = (file.inode as i64, file.size as i64);
    insert.insert(params![entry.room.name(), entry.name, inode, size, file.modified_ns, file.born_ns])
}

/// Every record, oldest first.
pub(crate) fn pending(connection: &Connection) -> rusqlite::Result<Vec<Deletion>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, room, name, inode, size, modified_ns, born_ns FROM larder_deletion ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
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

/// Forgets records, in a transaction of its own.
pub(crate) fn forget(writer: &mut Writer, records: &[i64]) -> MicrosandboxResult<()> {
    let action = "forget deleted files";
    writer.change(action, |connection| {
        let delete = || -> rusqlite::Result<()> {
            let mut statement = connection.prepare_cached("DELETE FROM larder_deletion WHERE id = ?1")?;
            records.iter().try_for_each(|record| statement.execute([record]).map(drop))
        };
        delete().map_err(MicrosandboxError::db(action))
    })
}
