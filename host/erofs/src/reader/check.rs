//! Whether everything in an image can be read, but for the bytes of files.

use std::collections::HashMap;

use super::{Image, Inode, ReadAt, ReadError, WalkError};
use crate::format::Nid;
use crate::metadata::FileKind;
use crate::path::EntryPath;

/// The links of an inode: its number says how many, and there were so many.
struct Links {
    path: EntryPath,
    expected: u32,
    found: u32,
}

/// Walks an image and reads all that can be read: inodes, extended attributes, targets of symlinks, and where the data
/// of files lies, but not that data. Compares link counts with the names that there are. Gives the number of inodes.
///
/// # Errors
///
/// A [`WalkError`] for the first entry with something wrong.
pub fn check<S: ReadAt>(image: &Image<S>) -> Result<u64, WalkError> {
    let mut links: HashMap<Nid, Links> = HashMap::new();
    // Chunk addresses that lie upon each other could take for ever, as directories could.
    let mut room = image.length();
    for entry in image.walk() {
        let entry = entry?;
        let inode = entry.inode;
        if inode.kind() == FileKind::Directory
            && let Some(links) = links.get_mut(&entry.parent)
        {
            links.found += 1;
        }
        match links.get_mut(&inode.nid()) {
            Some(links) => links.found += 1,
            None => {
                let failed = |source| WalkError { path: entry.path.clone(), source };
                check_inode(image, &inode, &mut room).map_err(failed)?;
                let found = if inode.kind() == FileKind::Directory { 2 } else { 1 };
                links.insert(inode.nid(), Links { path: entry.path, expected: inode.nlink(), found });
            }
        }
    }
    let count = links.len() as u64;
    let mut wrong: Vec<_> = links.into_iter().filter(|(_, links)| links.expected != links.found).collect();
    wrong.sort_unstable_by_key(|(nid, _)| *nid);
    match wrong.into_iter().next() {
        None => Ok(count),
        Some((nid, links)) => {
            let source = ReadError::invalid(nid, "its link count is not the number of its names");
            Err(WalkError { path: links.path, source })
        }
    }
}

fn check_inode<S: ReadAt>(image: &Image<S>, inode: &Inode, room: &mut u64) -> Result<(), ReadError> {
    image.xattrs(inode)?;
    *room = room
        .checked_sub(inode.chunk_table_size())
        .ok_or_else(|| ReadError::invalid(inode.nid(), "chunk addresses lie upon each other"))?;
    match inode.kind() {
        FileKind::Symlink => image.link_target(inode).map(drop),
        FileKind::Regular => image.extents(inode)?.try_for_each(|extent| extent.map(drop)),
        _ => Ok(()),
    }
}
