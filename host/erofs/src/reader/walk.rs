//! A walk over everything in an image, each directory before its content.

use std::collections::HashSet;

use super::{Entries, Image, Inode, ReadAt, ReadError, WalkError};
use crate::format::Nid;
use crate::metadata::FileKind;
use crate::path::EntryPath;

/// An entry of a [`Walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// The path.
    pub path: EntryPath,
    /// The inode. Entries with the same [number](Inode::nid) are hard links of each other.
    pub inode: Inode,
}

impl<S: ReadAt> Image<S> {
    /// Returns everything in the image, the root first, each directory directly before its content, ordered by name.
    pub fn walk(&self) -> Walk<'_, S> {
        Walk {
            image: self,
            stack: Vec::new(),
            path: EntryPath::root(),
            seen: HashSet::new(),
            room: self.length(),
            state: State::Root,
        }
    }
}

/// An iterator over [everything](Image::walk) in an image. It ends with the first error.
///
/// A directory that the walk meets twice is an error, because the image has a loop. Directories that together are
/// larger than the image are an error, too: they overlap, and the walk would take forever.
#[derive(Debug)]
pub struct Walk<'i, S> {
    image: &'i Image<S>,
    stack: Vec<Entries<'i, S>>,
    /// The path of the last entry. Before the next one, the path of the directory on top of the stack.
    path: EntryPath,
    /// The directories that the walk has met.
    seen: HashSet<Nid>,
    /// The maximum total size of the directories that the walk has not met yet.
    room: u64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The root is next.
    Root,
    Running,
    Done,
}

impl<S: ReadAt> Walk<'_, S> {
    fn advance(&mut self) -> Result<Option<WalkEntry>, ReadError> {
        if self.state == State::Root {
            self.state = State::Running;
            let root = self.image.root()?;
            self.enter(&root)?;
            return Ok(Some(WalkEntry { path: EntryPath::root(), inode: root }));
        }
        loop {
            let Some(top) = self.stack.last_mut() else { return Ok(None) };
            let Some(entry) = top.next().transpose()? else {
                self.leave()?;
                continue;
            };
            self.path.push(&entry.name)?;
            let inode = self.image.inode(entry.nid)?;
            if inode.kind() != entry.kind {
                return Err(ReadError::invalid(entry.nid, "its directory says that it is of another kind"));
            }
            let path = self.path.clone();
            if inode.kind() == FileKind::Directory {
                self.enter(&inode)?;
            } else {
                self.path.pop();
            }
            return Ok(Some(WalkEntry { path, inode }));
        }
    }

    fn enter(&mut self, directory: &Inode) -> Result<(), ReadError> {
        if !self.seen.insert(directory.nid()) {
            return Err(ReadError::invalid(directory.nid(), "it is a directory that is in two places"));
        }
        self.room = self
            .room
            .checked_sub(directory.size())
            .ok_or_else(|| ReadError::invalid(directory.nid(), "directories lie upon each other"))?;
        self.stack.push(self.image.entries(directory)?);
        Ok(())
    }

    /// Removes the directory from the top of the stack.
    fn leave(&mut self) -> Result<(), ReadError> {
        let Some(done) = self.stack.pop() else { return Ok(()) };
        let nid = done.directory();
        let parent = self.stack.last().map_or(nid, Entries::directory);
        if done.dot.is_some_and(|dot| dot != nid) || done.dot_dot.is_some_and(|dot_dot| dot_dot != parent) {
            return Err(ReadError::invalid(nid, "its `.` or `..` name another directory"));
        }
        self.path.pop();
        Ok(())
    }
}

impl<S: ReadAt> Iterator for Walk<'_, S> {
    type Item = Result<WalkEntry, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let next = self.advance().map_err(|source| WalkError { path: self.path.clone(), source }).transpose();
        if matches!(next, Some(Err(_)) | None) {
            self.state = State::Done;
        }
        next
    }
}
