//! A check that everything in an image can be read, except the bytes of files.

use std::collections::HashMap;

use super::room::Room;
use super::{Image, Inode, ReadAt, ReadError, WalkError};
use crate::format::Nid;
use crate::metadata::FileKind;
use crate::path::EntryPath;

/// The links of an inode: the number that it states, and the number of names that were found.
struct Links {
    expected: u32,
    found: u32,
}

/// Walks an image and reads everything except the data of files: inodes, extended attributes, targets of symlinks, and
/// the places of file data. Compares the link counts of files with their names in the image. Does not compare those of
/// directories: no reader relies on them, and there are writers that don't count the directories in the root. Returns the
/// number of inodes.
///
/// # Errors
///
/// A [`WalkError`] for the first entry that is wrong.
pub fn check<S: ReadAt>(image: &Image<S>) -> Result<u64, WalkError> {
    let mut links: HashMap<Nid, Links> = HashMap::new();
    // Chunk addresses that lie upon each other could take for ever, as directories could.
    let mut tables = image.length();
    let mut room = Room::of_image(image.length());
    for entry in image.walk() {
        let entry = entry?;
        let inode = entry.inode;
        match links.get_mut(&inode.nid()) {
            Some(links) => links.found += 1,
            None => {
                check_inode(image, &inode, &mut tables, &mut room)
                    .map_err(|source| WalkError { path: entry.path, source })?;
                let expected = if inode.kind() == FileKind::Directory { 1 } else { inode.nlink() };
                links.insert(inode.nid(), Links { expected, found: 1 });
            }
        }
    }
    if links.values().any(|links| links.expected != links.found) {
        return Err(wrong_links(image, &links));
    }
    Ok(links.len() as u64)
}

/// Returns the error for the first entry whose inode states another number of links than it has names. Looks for paths
/// only now, because they take more memory than everything else.
fn wrong_links<S: ReadAt>(image: &Image<S>, links: &HashMap<Nid, Links>) -> WalkError {
    let is_wrong = |nid| links.get(&nid).is_some_and(|links| links.expected != links.found);
    let first = image.walk().find(|entry| entry.as_ref().map_or(true, |entry| is_wrong(entry.inode.nid())));
    let problem = "its link count is not the number of its names";
    match first {
        Some(Ok(entry)) => {
            WalkError { source: ReadError::invalid(entry.inode.nid(), problem), path: entry.path }
        }
        // It was walked before: its source has begun to fail.
        Some(Err(error)) => error,
        None => WalkError { path: EntryPath::root(), source: ReadError::invalid(Nid(0), problem) },
    }
}

fn check_inode<S: ReadAt>(
    image: &Image<S>,
    inode: &Inode,
    tables: &mut u64,
    room: &mut Room,
) -> Result<(), ReadError> {
    room.take(inode, image.xattrs(inode)?.size())?;
    *tables = tables
        .checked_sub(inode.chunk_table_size())
        .ok_or_else(|| ReadError::invalid(inode.nid(), "chunk addresses lie upon each other"))?;
    match inode.kind() {
        FileKind::Symlink => room.take(inode, image.link_target(inode)?.len()),
        FileKind::Regular => image.extents(inode)?.try_for_each(|extent| extent.map(drop)),
        _ => Ok(()),
    }
}
