//! The entries of directories.

use super::{Image, Inode, ReadAt, ReadError};
use crate::format::{BLOCK, DirBlock, Nid};
use crate::metadata::FileKind;
use crate::path::Name;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: Name,
    /// The number of the inode.
    pub nid: Nid,
    /// The kind that the directory states. In a damaged image, the inode may state another kind.
    pub kind: FileKind,
}

impl<S: ReadAt> Image<S> {
    /// Returns the entries of a directory, ordered by name, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Kind`] if the inode is not a directory.
    pub fn entries(&self, directory: &Inode) -> Result<Entries<'_, S>, ReadError> {
        directory.expect(FileKind::Directory)?;
        Ok(Entries {
            image: self,
            directory: *directory,
            position: 0,
            block: Vec::new(),
            index: 0,
            last: Vec::new(),
            dot: None,
            dot_dot: None,
        })
    }

    /// Finds the inode of `name` in a directory, by bisection over its blocks.
    pub(super) fn find(&self, directory: &Inode, name: &[u8]) -> Result<Option<Nid>, ReadError> {
        let wrong = |problem| ReadError::Inode { nid: directory.nid, problem };
        let (mut low, mut high) = (0, directory.size().div_ceil(BLOCK));
        let mut block = Vec::new();
        while low < high {
            let middle = low + (high - low) / 2;
            self.read_dir_block(directory, middle * BLOCK, &mut block)?;
            let parsed = DirBlock::parse(&block).map_err(wrong)?;
            let first = parsed.get(0).map_err(wrong)?;
            if first.is_some_and(|first| name < first.name) { high = middle } else { low = middle + 1 }
        }
        let Some(last) = low.checked_sub(1) else { return Ok(None) };
        self.read_dir_block(directory, last * BLOCK, &mut block)?;
        let parsed = DirBlock::parse(&block).map_err(wrong)?;
        let mut index = 0;
        while let Some(entry) = parsed.get(index).map_err(wrong)? {
            if entry.name == name {
                return Ok(Some(entry.nid));
            }
            index += 1;
        }
        Ok(None)
    }

    fn read_dir_block(&self, directory: &Inode, position: u64, block: &mut Vec<u8>) -> Result<(), ReadError> {
        block.resize((directory.size() - position).min(BLOCK) as usize, 0);
        self.read_content(directory, block, position)
    }
}

/// An iterator over the [entries](Image::entries) of a directory. It ends with the first error.
#[derive(Debug)]
pub struct Entries<'i, S> {
    image: &'i Image<S>,
    directory: Inode,
    /// The offset of the next block.
    position: u64,
    block: Vec<u8>,
    /// The index of the next entry in `block`.
    index: usize,
    last: Vec<u8>,
    /// The inode of `.`, once the iterator has passed it.
    pub(super) dot: Option<Nid>,
    /// The inode of `..`, once the iterator has passed it.
    pub(super) dot_dot: Option<Nid>,
}

impl<S: ReadAt> Entries<'_, S> {
    pub(super) fn directory(&self) -> Nid {
        self.directory.nid
    }

    fn advance(&mut self) -> Result<Option<DirEntry>, ReadError> {
        let nid = self.directory.nid;
        let wrong = |problem| ReadError::Inode { nid, problem };
        loop {
            let entry = match &self.block {
                block if block.is_empty() => None,
                block => DirBlock::parse(block).and_then(|block| block.get(self.index)).map_err(wrong)?,
            };
            let Some(entry) = entry else {
                if self.position >= self.directory.size() {
                    return Ok(None);
                }
                self.image.read_dir_block(&self.directory, self.position, &mut self.block)?;
                self.position += BLOCK;
                self.index = 0;
                continue;
            };
            self.index += 1;
            if entry.name <= self.last.as_slice() {
                return Err(ReadError::invalid(nid, "a directory is out of order"));
            }
            self.last.clear();
            self.last.extend_from_slice(entry.name);
            match entry.name {
                b"." => self.dot = Some(entry.nid),
                b".." => self.dot_dot = Some(entry.nid),
                name => {
                    return Ok(Some(DirEntry { name: Name::parse(name)?, nid: entry.nid, kind: entry.kind }));
                }
            }
        }
    }
}

impl<S: ReadAt> Iterator for Entries<'_, S> {
    type Item = Result<DirEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_)) | None) {
            self.position = self.directory.size();
            self.block.clear();
        }
        next
    }
}
