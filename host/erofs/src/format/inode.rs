//! Inodes: 32 bytes (compact) or 64 (extended), and the chunk indexes behind them.

use super::{FormatError, NULL_BLOCK, SLOT_SIZE, u16_at, u32_at, u64_at};
use crate::metadata::Timestamp;

/// How much an inode can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InodeForm {
    /// 32 bytes: owner, group and links of 16 bits, a size of 32, the time that the superblock gives to all.
    Compact,
    /// 64 bytes: everything.
    Extended,
}

impl InodeForm {
    /// The size in bytes.
    pub const fn size(self) -> u64 {
        match self {
            Self::Compact => SLOT_SIZE,
            Self::Extended => 2 * SLOT_SIZE,
        }
    }
}

/// Where the content of an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataLayout {
    /// In consecutive blocks.
    FlatPlain,
    /// In consecutive blocks but for what does not fill the last one: that stands behind the inode.
    FlatInline,
    /// In chunks of a fixed size, whose addresses stand behind the inode.
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

/// An inode as it lies in an image (`struct erofs_inode_compact`, `struct erofs_inode_extended`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InodeRecord {
    /// Which of the two.
    pub form: InodeForm,
    /// Where the content is.
    pub layout: DataLayout,
    /// The size of the extended attributes behind it: none if 0, otherwise 12 bytes and 4 for each above 1.
    pub xattr_count: u16,
    /// File type and permissions.
    pub mode: u16,
    /// How many names the inode has.
    pub nlink: u32,
    /// The size of the content in bytes.
    pub size: u64,
    /// The first block, the device number or the [`ChunkFormat`], by kind and layout.
    pub union: u32,
    /// A number for programs that know no 64-bit inode numbers.
    pub ino: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The time of modification; `None` in a compact inode, which has the image's build time.
    pub mtime: Option<Timestamp>,
}

impl InodeRecord {
    /// Parses an inode from the beginning of `bytes`.
    ///
    /// # Errors
    ///
    /// A [`FormatError`] if `bytes` end within it, or it has a form or layout that this crate does not read.
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

    /// Appends the inode to `out`. Of a compact one, what goes beyond its fields is cut off: the caller has chosen the
    /// form to fit.
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

/// How the chunks of an inode are addressed (`struct erofs_inode_chunk_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkFormat {
    block_bits: u8,
    indexed: bool,
}

impl ChunkFormat {
    const BLOCK_BITS: u32 = 0x1f;
    const INDEXES: u32 = 0x20;

    /// Chunks with a device each, so large that the fewest are needed for `size` bytes: one up to 8 TiB.
    pub fn for_size(size: u64) -> Self {
        let blocks = size.div_ceil(super::BLOCK).max(1);
        let bits = u64::BITS - (blocks - 1).leading_zeros();
        Self { block_bits: bits.min(Self::BLOCK_BITS) as u8, indexed: true }
    }

    /// Parses the field of an inode.
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

    /// The field as it lies in an inode.
    pub fn encode(self) -> u32 {
        u32::from(self.block_bits) | if self.indexed { Self::INDEXES } else { 0 }
    }

    /// The size of a chunk as a power of two.
    pub fn chunk_bits(self) -> u8 {
        super::BLOCK_BITS + self.block_bits
    }

    /// The size of a chunk in bytes.
    pub fn chunk_size(self) -> u64 {
        1 << self.chunk_bits()
    }

    /// The size of one address: 8 bytes with a device, 4 without. The first one is aligned to it.
    pub fn entry_size(self) -> u64 {
        if self.indexed { 8 } else { 4 }
    }
}

/// Where a chunk is (`struct erofs_inode_chunk_index`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkIndex {
    /// Which device, counted from 1; 0 is the image itself, or the one address space of all devices.
    pub device: u16,
    /// The first block; `None` is a hole.
    pub start: Option<u32>,
}

impl ChunkIndex {
    /// Parses an address of `format`.
    ///
    /// # Errors
    ///
    /// [`FormatError::Truncated`] if `bytes` end within it.
    pub fn parse(format: ChunkFormat, bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes =
            bytes.get(..format.entry_size() as usize).ok_or(FormatError::Truncated("a chunk's address"))?;
        let (device, start) =
            if format.indexed { (u16_at(bytes, 2), u32_at(bytes, 4)) } else { (0, u32_at(bytes, 0)) };
        Ok(Self { device, start: (start != NULL_BLOCK).then_some(start) })
    }

    /// The address with its device, 8 bytes.
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

    /// Both forms survive, and have their size.
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

    /// Addresses survive with and without a device.
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
