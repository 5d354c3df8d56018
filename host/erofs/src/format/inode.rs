//! Inodes: 32 bytes (compact) or 64 (extended), and the chunk indexes behind them.

use super::{FormatError, NULL_BLOCK, SLOT_SIZE, u16_at, u32_at, u64_at};
use crate::metadata::Timestamp;

/// The form of an inode, which bounds the values that it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InodeForm {
    /// 32 bytes: owner, group and link count of 16 bits, a size of 32 bits, and the modification time of the
    /// superblock.
    Compact,
    /// 64 bytes: all fields at their full width.
    Extended,
}

impl InodeForm {
    /// Returns the size in bytes.
    pub const fn size(self) -> u64 {
        match self {
            Self::Compact => SLOT_SIZE,
            Self::Extended => 2 * SLOT_SIZE,
        }
    }
}

/// The way in which the content of an inode is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataLayout {
    /// The content is in consecutive blocks.
    FlatPlain,
    /// The content is in consecutive blocks, except the part that does not fill the last block: it is behind the inode.
    FlatInline,
    /// The content is in chunks of a fixed size, whose addresses are behind the inode.
    ChunkBased,
}

impl DataLayout {
    const fn bits(self) -> u16 {
        match self {
            Self::FlatPlain => 0,
            Self::FlatInline => 2,
            Self::ChunkBased => 4,
        }
    }
}

/// The record of an inode in an image (`struct erofs_inode_compact`, `struct erofs_inode_extended`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InodeRecord {
    /// The form of the record.
    pub form: InodeForm,
    /// The way in which the content is stored.
    pub layout: DataLayout,
    /// The size of the extended attributes behind the inode: none if 0, otherwise 12 bytes and 4 for each count above
    /// 1.
    pub xattr_count: u16,
    /// File type and permissions.
    pub mode: u16,
    /// The number of names that the inode has.
    pub nlink: u32,
    /// The size of the content in bytes.
    pub size: u64,
    /// The first block, the device number or the [`ChunkFormat`], depending on kind and layout.
    pub union: u32,
    /// The inode number for programs that cannot hold a 64-bit number.
    pub ino: u32,
    /// The user ID of the owner.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The time of modification. `None` in a compact inode, which has the image's build time.
    pub mtime: Option<Timestamp>,
}

impl InodeRecord {
    /// Parses the inode at the beginning of `bytes`.
    ///
    /// # Errors
    ///
    /// A [`FormatError`] if `bytes` end within the inode, or its form or layout is one that this crate does not read.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        const CUT: FormatError = FormatError::Truncated("an inode");
        let head = bytes.get(..32).ok_or(CUT)?;
        let format = u16_at(head, 0);
        if format >= 1 << 4 {
            return Err(FormatError::Invalid("an inode has an unknown format"));
        }
        let layout = match format >> 1 {
            0 => DataLayout::FlatPlain,
            2 => DataLayout::FlatInline,
            4 => DataLayout::ChunkBased,
            1 | 3 => return Err(FormatError::Invalid("an inode is compressed, which is not supported")),
            _ => return Err(FormatError::Invalid("an inode has an unknown data layout")),
        };
        let (xattr_count, mode) = (u16_at(head, 2), u16_at(head, 4));
        let (union, ino) = (u32_at(head, 16), u32_at(head, 20));
        if format & 1 == 0 {
            return Ok(Self {
                form: InodeForm::Compact,
                layout,
                xattr_count,
                mode,
                nlink: u16_at(head, 6).into(),
                size: u32_at(head, 8).into(),
                union,
                ino,
                uid: u16_at(head, 24).into(),
                gid: u16_at(head, 26).into(),
                mtime: None,
            });
        }
        let whole = bytes.get(..64).ok_or(CUT)?;
        let mtime = Timestamp::new(u64_at(whole, 32).cast_signed(), u32_at(whole, 40))
            .ok_or(FormatError::Invalid("the time of an inode has too many nanoseconds"))?;
        Ok(Self {
            form: InodeForm::Extended,
            layout,
            xattr_count,
            mode,
            nlink: u32_at(whole, 44),
            size: u64_at(whole, 8),
            union,
            ino,
            uid: u32_at(whole, 24),
            gid: u32_at(whole, 28),
            mtime: Some(mtime),
        })
    }

    /// Appends the inode to `out`. A compact inode loses the bits that its fields cannot hold, so the caller chooses a
    /// form that fits.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let version = u16::from(self.form == InodeForm::Extended);
        out.extend((version | self.layout.bits() << 1).to_le_bytes());
        out.extend(self.xattr_count.to_le_bytes());
        out.extend(self.mode.to_le_bytes());
        match self.form {
            InodeForm::Compact => {
                out.extend((self.nlink as u16).to_le_bytes());
                out.extend((self.size as u32).to_le_bytes());
                out.extend([0; 4]);
                out.extend(self.union.to_le_bytes());
                out.extend(self.ino.to_le_bytes());
                out.extend((self.uid as u16).to_le_bytes());
                out.extend((self.gid as u16).to_le_bytes());
                out.extend([0; 4]);
            }
            InodeForm::Extended => {
                let mtime = self.mtime.unwrap_or_default();
                out.extend([0; 2]);
                out.extend(self.size.to_le_bytes());
                out.extend(self.union.to_le_bytes());
                out.extend(self.ino.to_le_bytes());
                out.extend(self.uid.to_le_bytes());
                out.extend(self.gid.to_le_bytes());
                out.extend(mtime.seconds().to_le_bytes());
                out.extend(mtime.nanoseconds().to_le_bytes());
                out.extend(self.nlink.to_le_bytes());
                out.extend([0; 16]);
            }
        }
    }
}

/// The format of an inode's chunk addresses (`struct erofs_inode_chunk_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkFormat {
    block_bits: u8,
    indexed: bool,
}

impl ChunkFormat {
    const BLOCK_BITS: u32 = 0x1f;
    const INDEXES: u32 = 0x20;

    /// Returns the format with a device in each address and with the fewest chunks for `size` bytes: one chunk up to 8
    /// TiB.
    pub fn for_size(size: u64) -> Self {
        let blocks = size.div_ceil(super::BLOCK).max(1);
        let bits = u64::BITS - (blocks - 1).leading_zeros();
        Self { block_bits: bits.min(Self::BLOCK_BITS) as u8, indexed: true }
    }

    /// Parses the `union` field of an inode.
    ///
    /// # Errors
    ///
    /// [`FormatError::Invalid`] if bits are set that this crate does not know.
    pub fn parse(raw: u32) -> Result<Self, FormatError> {
        if raw & !(Self::BLOCK_BITS | Self::INDEXES) != 0 {
            return Err(FormatError::Invalid("an inode has an unknown chunk format"));
        }
        Ok(Self { block_bits: (raw & Self::BLOCK_BITS) as u8, indexed: raw & Self::INDEXES != 0 })
    }

    /// Returns the value for the `union` field of an inode.
    pub fn encode(self) -> u32 {
        u32::from(self.block_bits) | if self.indexed { Self::INDEXES } else { 0 }
    }

    /// Returns the size of a chunk as a power of two.
    pub fn chunk_bits(self) -> u8 {
        super::BLOCK_BITS + self.block_bits
    }

    /// Returns the size of a chunk in bytes.
    pub fn chunk_size(self) -> u64 {
        1 << self.chunk_bits()
    }

    /// Returns the size of one address in bytes: 8 with a device, 4 without. The first address is aligned to this size.
    pub fn entry_size(self) -> u64 {
        if self.indexed { 8 } else { 4 }
    }
}

/// The address of a chunk (`struct erofs_inode_chunk_index`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkIndex {
    /// The number of the device, from 1. 0 is the image itself, or the one address space of all devices.
    pub device: u16,
    /// The first block. `None` is a hole.
    pub start: Option<u32>,
}

impl ChunkIndex {
    /// Parses a chunk address in `format`.
    ///
    /// # Errors
    ///
    /// [`FormatError::Truncated`] if `bytes` end within the address.
    pub fn parse(format: ChunkFormat, bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes =
            bytes.get(..format.entry_size() as usize).ok_or(FormatError::Truncated("a chunk's address"))?;
        let (device, start) =
            if format.indexed { (u16_at(bytes, 2), u32_at(bytes, 4)) } else { (0, u32_at(bytes, 0)) };
        Ok(Self { device, start: (start != NULL_BLOCK).then_some(start) })
    }

    /// Returns the address with its device, 8 bytes.
    pub fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[2..4].copy_from_slice(&self.device.to_le_bytes());
        bytes[4..].copy_from_slice(&self.start.unwrap_or(NULL_BLOCK).to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: InodeRecord = InodeRecord {
        form: InodeForm::Compact,
        layout: DataLayout::FlatInline,
        xattr_count: 1,
        mode: 0o100_644,
        nlink: 2,
        size: 3,
        union: 4,
        ino: 5,
        uid: 6,
        gid: 7,
        mtime: None,
    };

    /// Both forms decode to the inode that was encoded, and have their size.
    #[test]
    fn inodes_survive() {
        let extended = InodeRecord {
            form: InodeForm::Extended,
            layout: DataLayout::ChunkBased,
            nlink: 1 << 20,
            size: 1 << 40,
            uid: 1 << 30,
            gid: u32::MAX,
            mtime: Timestamp::new(-1, 999_999_999),
            ..INODE
        };
        for inode in [INODE, extended] {
            let mut bytes = Vec::new();
            inode.encode(&mut bytes);
            assert_eq!(bytes.len() as u64, inode.form.size());
            assert_eq!(InodeRecord::parse(&bytes), Ok(inode));
            bytes.pop();
            assert_eq!(InodeRecord::parse(&bytes), Err(FormatError::Truncated("an inode")));
        }
    }

    /// A file has as few chunks as the format allows.
    #[test]
    fn chunks_are_as_large_as_their_file() {
        for (size, bits) in
            [(1, 12), (4096, 12), (4097, 13), (1 << 33, 33), ((1 << 33) + 1, 34), (u64::MAX, 43)]
        {
            assert_eq!(ChunkFormat::for_size(size).chunk_bits(), bits, "{size}");
        }
        let format = ChunkFormat::for_size(5000);
        assert_eq!(ChunkFormat::parse(format.encode()), Ok(format));
    }

    /// Addresses with and without a device decode to what was encoded.
    #[test]
    fn chunk_indexes_survive() {
        for index in [ChunkIndex { device: 3, start: Some(9) }, ChunkIndex { device: 0, start: None }] {
            assert_eq!(ChunkIndex::parse(ChunkFormat::for_size(1), &index.encode()), Ok(index));
        }
        let map = ChunkFormat::parse(1).unwrap();
        assert_eq!(ChunkIndex::parse(map, &[7, 0, 0, 0]), Ok(ChunkIndex { device: 0, start: Some(7) }));
        assert!(ChunkIndex::parse(map, &[7, 0, 0]).is_err());
    }
}
