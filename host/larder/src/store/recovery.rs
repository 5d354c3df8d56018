//! Records of files that are to be deleted, and deleting them.
//!
//! A record says which file it was: if another one has taken its name since, that is not deleted. A record is
//! forgotten when the directory without the file is on disk.

use std::collections::HashSet;
use std::io;

use rusqlite::{Connection, OptionalExtension as _, params};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::super::lease::{Claim, Claims};
use super::super::{CacheDir, Entry, FileIdentity, Room, Rooms, stat_at};
use crate::catalog::Writer;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::reference::Reference;

/// Records files that are to be deleted, within the transaction that gives them up. Gives the records' numbers.
pub(super) fn record<'a>(
    connection: &Connection,
    files: impl Iterator<Item = (&'a Entry, &'a FileIdentity)>,
) -> rusqlite::Result<Vec<i64>> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO larder_deletion (room, name, inode, size, modified_ns, born_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    files
        .map(|(entry, file)| {
            // Numbers of inodes and sizes are kept as SQLite's signed integers, bit for bit.
            let (inode, size) = (file.inode as i64, file.size as i64);
            insert.insert(params![entry.room.name(), entry.name, inode, size, file.modified_ns, file.born_ns])
        })
        .collect()
}

/// Deletes a file, if it still is the one that was seen. Gives the allocated bytes that this freed: none while the
/// file has another name, and none where it was gone already.
pub(super) fn unlink(rooms: &Rooms, entry: &Entry, seen: &FileIdentity) -> io::Result<u64> {
    failpoint!("removal.unlinking");
    let Some(room) = rooms.get(entry.room) else { return Ok(0) };
    let Some(stat) = stat_at(&room.directory, &entry.name)? else { return Ok(0) };
    if stat.identity != *seen {
        return Ok(0);
    }
    match unlinkat(&room.directory, &entry.name, AtFlags::empty()) {
        Ok(()) => Ok(if stat.links == 1 { stat.allocated } else { 0 }),
        Err(Errno::NOENT) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a file that has no record. Says whether there was one.
pub(crate) fn unlink_now(rooms: &Rooms, entry: &Entry) -> io::Result<bool> {
    let Some(room) = rooms.get(entry.room) else { return Ok(false) };
    match unlinkat(&room.directory, &entry.name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Forgets the records of files that are gone, once the directories are on disk.
pub(super) fn forget(writer: &mut Writer, cache: &CacheDir, records: &[i64]) -> MicrosandboxResult<()> {
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    for (_, room) in rooms.iter() {
        room.sync().map_err(MicrosandboxError::io("write to disk", &room.path))?;
    }
    failpoint!("removal.synced");
    let mut delete = || -> rusqlite::Result<()> {
        let transaction = writer.begin()?;
        {
            let mut statement = transaction.prepare_cached("DELETE FROM larder_deletion WHERE id = ?1")?;
            for record in records {
                statement.execute([record])?;
            }
        }
        transaction.commit()
    };
    delete().map_err(MicrosandboxError::db("forget deleted files"))?;
    failpoint!("removal.forgotten");
    Ok(())
}

struct Record {
    id: i64,
    entry: Option<Entry>,
    file: FileIdentity,
}

/// Finishes what a process that ended in the middle of a removal left undone.
///
/// A record whose entry somebody holds is left: it is a removal that is still under way, or somebody publishes that
/// entry again.
pub(crate) fn recover(writer: &mut Writer, cache: &CacheDir) -> MicrosandboxResult<()> {
    let db = MicrosandboxError::db;
    let records = pending(writer.connection()).map_err(db("read the files to delete"))?;
    if records.is_empty() {
        return Ok(());
    }
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    let mut metadata = None;
    let mut done = Vec::new();
    for record in records {
        // A record that names no entry was not made by this library: there is nothing that it could delete.
        let Some(entry) = &record.entry else {
            done.push(record.id);
            continue;
        };
        let mut claims = Claims::default();
        let claim = claims.claim(&rooms, entry);
        match claim.map_err(MicrosandboxError::io("lock the lease of", &cache.path_of(entry)))? {
            Claim::Busy => continue,
            Claim::Held => {}
        }
        if !is_owned(writer.connection(), entry, &mut metadata).map_err(db("look for the owner of a file"))?
            && let Err(error) = unlink(&rooms, entry, &record.file)
        {
            tracing::warn!("could not delete `{}`: {error}", cache.path_of(entry).display());
            continue;
        }
        done.push(record.id);
    }
    forget(writer, cache, &done)
}

fn pending(connection: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, room, name, inode, size, modified_ns, born_ns FROM larder_deletion ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(2)?;
        let room = Room::from_name(row.get_ref(1)?.as_str()?).filter(|room| room.key_of(&name).is_some());
        Ok(Record {
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

/// Whether a row of the index owns an entry. `metadata` keeps what owns metadata, which is known only once all
/// references were read.
pub(crate) fn is_owned(
    connection: &Connection,
    entry: &Entry,
    metadata: &mut Option<HashSet<String>>,
) -> rusqlite::Result<bool> {
    let Some(key) = entry.room.key_of(&entry.name) else { return Ok(false) };
    let query = match entry.room {
        Room::Layers => "SELECT 1 FROM main.layer WHERE diff_id = ?1",
        Room::Fsmeta | Room::Vmdk => "SELECT 1 FROM main.manifest WHERE digest = ?1",
        Room::Manifests => {
            let keys = match metadata {
                Some(keys) => keys,
                None => metadata.insert(metadata_keys(connection)?),
            };
            return Ok(keys.contains(key));
        }
    };
    let digest = format!("sha256:{key}");
    connection.prepare_cached(query)?.query_row([digest], |_| Ok(())).optional().map(|row| row.is_some())
}

/// The names of the metadata of every reference.
pub(crate) fn metadata_keys(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare_cached("SELECT reference FROM image_ref")?;
    let references = statement.query_map([], |row| row.get::<_, String>(0))?;
    references
        .filter_map(|reference| match reference {
            Ok(text) => text.parse::<Reference>().ok().map(|parsed| Ok(parsed.metadata_key())),
            Err(error) => Some(Err(error)),
        })
        .collect()
}
