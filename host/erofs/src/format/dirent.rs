//! Directories: blocks that hold entries of 12 bytes each, followed by their names. Entries are ordered by name.
//!
//! The name offset of the first entry implies the number of entries in the block. A name ends where the next one
//! begins; the last name ends at the end of the block or at a NUL.

use super::{BLOCK_SIZE, FormatError, Nid, u16_at, u64_at};
use crate::metadata::FileKind;
use crate::path::MAX_NAME;

const DIRENT_SIZE: usize = 12;

/// An entry of a directory, `.` and `..` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// The name: 1 to 255 bytes without `/` and NUL.
    pub name: &'a [u8],
    /// The number of the inode.
    pub nid: Nid,
    /// The kind of the inode.
    pub kind: FileKind,
}

/// A block of a directory (`struct erofs_dirent`).
#[derive(Debug, Clone, Copy)]
pub struct DirBlock<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> DirBlock<'a> {
    /// Parses the bytes of a block and checks its first name offset. The last block of a directory may be shorter than
    /// the others.
    ///
    /// # Errors
    ///
    /// A [`FormatError`] if the bytes cannot be a block with at least one entry.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        if bytes.len() < DIRENT_SIZE || bytes.len() > BLOCK_SIZE {
            return Err(FormatError::Truncated("a directory block"));
        }
        let names = usize::from(u16_at(bytes, 8));
        if names == 0 || names % DIRENT_SIZE != 0 || names >= bytes.len() {
            return Err(FormatError::Invalid("a directory block has a wrong number of entries"));
        }
        Ok(Self { bytes, count: names / DIRENT_SIZE })
    }

    /// Returns the number of entries, at least one.
    #[expect(clippy::len_without_is_empty, reason = "no block is empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns the entry at `index`, or `None` behind the last one.
    ///
    /// # Errors
    ///
    /// A [`FormatError`] if the name or the type of the entry is invalid.
    pub fn get(&self, index: usize) -> Result<Option<Dirent<'a>>, FormatError> {
        if index >= self.count {
            return Ok(None);
        }
        let at = index * DIRENT_SIZE;
        let start = usize::from(u16_at(self.bytes, at + 8));
        let last = index + 1 == self.count;
        let end = if last { self.bytes.len() } else { usize::from(u16_at(self.bytes, at + DIRENT_SIZE + 8)) };
        let mut name = (start >= self.count * DIRENT_SIZE)
            .then(|| self.bytes.get(start..end))
            .flatten()
            .ok_or(FormatError::Invalid("a name lies outside of its directory block"))?;
        if last {
            let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            name = &name[..length];
        }
        if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) || name.contains(&b'/') {
            return Err(FormatError::Invalid("a directory holds a name that cannot be one"));
        }
        let kind = FileKind::from_dirent_type(self.bytes[at + 10])
            .ok_or(FormatError::Invalid("a directory entry has an unknown type"))?;
        Ok(Some(Dirent { name, nid: Nid(u64_at(self.bytes, at)), kind }))
    }
}

/// The distribution of a directory's names, in their order, over blocks: as many in each as fit.
#[derive(Default)]
struct Filling {
    /// The bytes used in the current block.
    used: usize,
    /// The bytes of full blocks.
    full: u64,
}

impl Filling {
    /// Adds a name. Returns `true` if it begins a new block.
    fn take(&mut self, name: &[u8]) -> bool {
        let room = DIRENT_SIZE + name.len();
        let opens = self.used + room > BLOCK_SIZE;
        if opens {
            self.full += BLOCK_SIZE as u64;
            self.used = 0;
        }
        self.used += room;
        opens
    }
}

/// Returns the size in bytes of the directory that [`encode`] makes of these names.
pub(crate) fn encoded_size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut filling = Filling::default();
    for name in names {
        filling.take(name);
    }
    filling.full + filling.used as u64
}

/// Encodes a directory of `entries`, which are ordered by name, with names of at most 255 bytes. Calls `emit` with
/// each block: full blocks are padded with zeros, the last one is as long as its content.
pub(crate) fn encode<E>(
    entries: &[Dirent<'_>],
    mut emit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut filling = Filling::default();
    let mut block = Vec::with_capacity(BLOCK_SIZE);
    let mut first = 0;
    for (index, entry) in entries.iter().enumerate() {
        if filling.take(entry.name) {
            encode_block(&entries[first..index], &mut block);
            block.resize(BLOCK_SIZE, 0);
            emit(&block)?;
            first = index;
        }
    }
    encode_block(&entries[first..], &mut block);
    emit(&block)
}

fn encode_block(entries: &[Dirent<'_>], block: &mut Vec<u8>) {
    block.clear();
    let mut name_offset = entries.len() * DIRENT_SIZE;
    for entry in entries {
        block.extend(entry.nid.0.to_le_bytes());
        block.extend((name_offset as u16).to_le_bytes());
        block.extend([entry.kind.dirent_type(), 0]);
        name_offset += entry.name.len();
    }
    for entry in entries {
        block.extend_from_slice(entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(names: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let entries: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| Dirent { name, nid: Nid(index as u64), kind: FileKind::Regular })
            .collect();
        let mut blocks = Vec::new();
        encode(&entries, |block| {
            blocks.push(block.to_vec());
            Ok::<(), ()>(())
        })
        .unwrap();
        blocks
    }

    /// Names of every length decode to what was encoded, in as many blocks as they need, and `encoded_size` agrees.
    #[test]
    fn directories_survive() {
        let names: Vec<_> = (0..2000).map(|index| vec![b'x'; index % 255 + 1]).collect();
        let blocks = blocks(&names);
        let size: usize = blocks.iter().map(Vec::len).sum();
        assert_eq!(size as u64, encoded_size(names.iter().map(Vec::as_slice)));
        let mut index = 0;
        for block in &blocks {
            let block = DirBlock::parse(block).unwrap();
            for at in 0..block.len() {
                let entry = block.get(at).unwrap().unwrap();
                assert_eq!((entry.name, entry.nid), (names[index].as_slice(), Nid(index as u64)));
                index += 1;
            }
            assert_eq!(block.get(block.len()), Ok(None));
        }
        assert_eq!(index, names.len());
    }

    /// A block whose names fill it to the last byte has no NUL behind its last name.
    #[test]
    fn a_block_can_be_full() {
        let names: Vec<_> = (0..17).map(|index| vec![b'x'; if index < 15 { 255 } else { 79 - 12 }]).collect();
        assert_eq!(blocks(&names[..16]).iter().map(Vec::len).collect::<Vec<_>>(), [15 * 267 + 79]);
        let filled =
            names[..15].iter().cloned().chain([vec![b'y'; 4096 - 15 * 267 - 12]]).collect::<Vec<_>>();
        let blocks = blocks(&filled);
        assert_eq!(blocks[0].len(), 4096);
        assert_eq!(DirBlock::parse(&blocks[0]).unwrap().get(15).unwrap().unwrap().name, filled[15]);
    }

    /// Name offsets that leave the block, decrease or overlap the entries are errors.
    #[test]
    fn broken_blocks_are_refused() {
        let good = blocks(&[b"a".to_vec(), b"b".to_vec()]).remove(0);
        assert!(DirBlock::parse(&good).is_ok());
        for (at, value) in [(8, 0), (8, 13), (8, 255), (9, 255)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(DirBlock::parse(&bad).is_err(), "{at} {value}");
        }
        for (at, value) in [(20, 0), (20, 24), (20, 200), (10, 0), (10, 9), (24, b'/'), (25, 0)] {
            let mut bad = good.clone();
            bad[at] = value;
            let block = DirBlock::parse(&bad).unwrap();
            assert!(block.get(0).is_err() || block.get(1).is_err(), "{at} {value}");
        }
        assert!(DirBlock::parse(&good[..11]).is_err());
    }
}
