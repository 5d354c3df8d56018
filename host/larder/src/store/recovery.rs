//! Finishing deletions: what a process that ended in the middle of a removal left undone, and forgetting the records
//! of files that are gone.
//!
//! A record says which file it was: if another one has taken its name since, that is not deleted. A record is
//! forgotten when the directory without the file is on disk.

use crate::artifacts::CacheDir;
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::unlink;
use crate::catalog::owners::LiveOwners;
use crate::catalog::{Writer, deletions};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;

/// Forgets the records of files that are gone, once the directories are on disk.
pub(super) fn forget(writer: &mut Writer, cache: &CacheDir, records: &[i64]) -> MicrosandboxResult<()> {
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    for (_, room) in rooms.iter() {
        room.sync().map_err(MicrosandboxError::io("write to disk", &room.path))?;
    }
    failpoint!("removal.synced");
    deletions::forget(writer, records).map_err(MicrosandboxError::db("forget deleted files"))?;
    failpoint!("removal.forgotten");
    Ok(())
}

/// Finishes what a process that ended in the middle of a removal left undone.
///
/// A record whose entry somebody holds is left: it is a removal that is still under way, or somebody publishes that
/// entry again.
pub(super) fn recover(writer: &mut Writer, cache: &CacheDir) -> MicrosandboxResult<()> {
    let db = MicrosandboxError::db;
    let records = deletions::pending(writer.connection()).map_err(db("read the files to delete"))?;
    if records.is_empty() {
        return Ok(());
    }
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    let mut owners = LiveOwners::new(writer.connection());
    let mut done = Vec::new();
    for record in records {
        // A record that names no entry was not made by this library: there is nothing that it could delete.
        let Some(entry) = &record.entry else {
            done.push(record.id);
            continue;
        };
        let mut claims = Claims::default();
        match claims.claim(&rooms, entry) {
            Ok(Claim::Held) => {}
            Ok(Claim::Busy) => continue,
            // A lease that cannot be had may be held: a later change tries again.
            Err(error) => {
                tracing::warn!("could not lock the lease of `{}`: {error}", cache.path_of(entry).display());
                continue;
            }
        }
        if !owners.own(entry).map_err(db("look for the owner of a file"))?
            && let Err(error) = unlink(&rooms, entry, &record.file)
        {
            tracing::warn!("could not delete `{}`: {error}", cache.path_of(entry).display());
            continue;
        }
        done.push(record.id);
    }
    forget(writer, cache, &done)
}
