//! The superblock: 128 bytes at offset 1024 of the first block, with a checksum over the rest of that block.

use super::{BLOCK_BITS, BLOCK_SIZE, BlockAddr, FormatError, array, u16_at, u32_at, u64_at};
use crate::metadata::Timestamp;

const MAGIC: u32 = 0xe0f5_e1e2;

/// The offset of the superblock in the image, in bytes.
pub(crate) const SUPERBLOCK_OFFSET: usize = 1024;
/// The length of the superblock in bytes.
pub(crate) const SUPERBLOCK_SIZE: usize = 128;

/// The features that a reader may ignore.
pub mod feature_compat {
    /// The superblock has a checksum.
    pub const CHECKSUM: u32 = 0x1;
    /// Inodes hold the time of modification.
    pub const MTIME: u32 = 0x2;
}

/// The features that a reader must know.
pub mod feature_incompat {
    /// Compressed data may end with zeros. The bit has no meaning for uncompressed images, and is set in them, too.
    pub const ZERO_PADDING: u32 = 0x1;
    /// The image has chunk-based inodes.
    pub const CHUNKED_FILE: u32 = 0x4;
    /// The image has a device table.
    pub const DEVICE_TABLE: u32 = 0x8;
    /// The image has long prefixes for the names of extended attributes.
    pub const XATTR_PREFIXES: u32 = 0x40;
    /// All features that this crate reads.
    pub const SUPPORTED: u32 = ZERO_PADDING | CHUNKED_FILE | DEVICE_TABLE | XATTR_PREFIXES;
}

/// The superblock (`struct erofs_super_block`): the fields that uncompressed images use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Bits of [`feature_compat`].
    pub feature_compat: u32,
    /// Bits of [`feature_incompat`].
    pub feature_incompat: u32,
    /// The slot of the root's inode. The field has only 16 bits, so the root is in the first 2 MiB of the metadata.
    pub root_nid: u16,
    /// The number of inodes.
    pub inodes: u64,
    /// The modification time of all compact inodes.
    pub build_time: Timestamp,
    /// The number of blocks of the image, without those of other devices.
    pub blocks: u32,
    /// The block from which inode slots are counted.
    pub meta_start: BlockAddr,
    /// The block from which shared extended attributes are counted.
    pub xattr_start: BlockAddr,
    /// An identifier of the image.
    pub uuid: [u8; 16],
    /// A label that ends with NUL.
    pub volume_name: [u8; 16],
    /// The number of devices that the image refers to.
    pub extra_devices: u16,
    /// The beginning of the device table, in units of 128 bytes.
    pub device_table_slot: u16,
    /// The number of long prefixes of extended attribute names.
    pub xattr_prefix_count: u8,
    /// The beginning of the long prefixes, in units of 4 bytes.
    pub xattr_prefix_start: u32,
}

impl Superblock {
    /// Parses the first block of an image. Checks the checksum if the image has one.
    ///
    /// # Errors
    ///
    /// A [`FormatError`] if the block is not from an EROFS image, is damaged, or has features that this crate does
    /// not read.
    pub fn parse(block: &[u8; BLOCK_SIZE]) -> Result<Self, FormatError> {
        let bytes: [u8; SUPERBLOCK_SIZE] = array(block, SUPERBLOCK_OFFSET);
        if u32_at(&bytes, 0) != MAGIC {
            return Err(FormatError::Magic);
        }
        let feature_compat = u32_at(&bytes, 8);
        if bytes[12] != BLOCK_BITS {
            return Err(FormatError::BlockSize(bytes[12]));
        }
        if feature_compat & feature_compat::CHECKSUM != 0 {
            let (expected, found) = (u32_at(&bytes, 4), checksum(block));
            if expected != found {
                return Err(FormatError::Checksum { expected, found });
            }
        }
        let feature_incompat = u32_at(&bytes, 0x50);
        if feature_incompat & !feature_incompat::SUPPORTED != 0 {
            return Err(FormatError::Features(feature_incompat & !feature_incompat::SUPPORTED));
        }
        if bytes[13] != 0 {
            return Err(FormatError::Invalid("the superblock has extension slots, which are not supported"));
        }
        if bytes[0x5a] != 0 {
            return Err(FormatError::Invalid(
                "directory blocks of another size than blocks are not supported",
            ));
        }
        let build_time = Timestamp::new(u64_at(&bytes, 0x18).cast_signed(), u32_at(&bytes, 0x20))
            .ok_or(FormatError::Invalid("the build time has too many nanoseconds"))?;
        let has_devices = feature_incompat & feature_incompat::DEVICE_TABLE != 0;
        Ok(Self {
            feature_compat,
            feature_incompat,
            root_nid: u16_at(&bytes, 0x0e),
            inodes: u64_at(&bytes, 0x10),
            build_time,
            blocks: u32_at(&bytes, 0x24),
            meta_start: BlockAddr(u32_at(&bytes, 0x28)),
            xattr_start: BlockAddr(u32_at(&bytes, 0x2c)),
            uuid: array(&bytes, 0x30),
            volume_name: array(&bytes, 0x40),
            extra_devices: if has_devices { u16_at(&bytes, 0x56) } else { 0 },
            device_table_slot: u16_at(&bytes, 0x58),
            xattr_prefix_count: bytes[0x5b],
            xattr_prefix_start: u32_at(&bytes, 0x5c),
        })
    }

    /// Writes the superblock into the first block of an image, with the checksum of the block's content at that moment.
    pub fn encode(&self, block: &mut [u8; BLOCK_SIZE]) {
        let bytes = &mut block[SUPERBLOCK_OFFSET..SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE];
        bytes.fill(0);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &MAGIC.to_le_bytes());
        put(0x08, &self.feature_compat.to_le_bytes());
        put(0x0c, &[BLOCK_BITS]);
        put(0x0e, &self.root_nid.to_le_bytes());
        put(0x10, &self.inodes.to_le_bytes());
        put(0x18, &self.build_time.seconds().to_le_bytes());
        put(0x20, &self.build_time.nanoseconds().to_le_bytes());
        put(0x24, &self.blocks.to_le_bytes());
        put(0x28, &self.meta_start.0.to_le_bytes());
        put(0x2c, &self.xattr_start.0.to_le_bytes());
        put(0x30, &self.uuid);
        put(0x40, &self.volume_name);
        put(0x50, &self.feature_incompat.to_le_bytes());
        put(0x56, &self.extra_devices.to_le_bytes());
        put(0x58, &self.device_table_slot.to_le_bytes());
        put(0x5b, &[self.xattr_prefix_count]);
        put(0x5c, &self.xattr_prefix_start.to_le_bytes());
        if self.feature_compat & feature_compat::CHECKSUM != 0 {
            let checksum = checksum(block);
            block[SUPERBLOCK_OFFSET + 4..SUPERBLOCK_OFFSET + 8].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// Returns the CRC32C of the bytes from the superblock to the end of its block, with zero for the checksum itself.
/// Linux does not invert the result, unlike the usual CRC32C.
fn checksum(block: &[u8; BLOCK_SIZE]) -> u32 {
    let crc = crc32c::crc32c(&block[SUPERBLOCK_OFFSET..SUPERBLOCK_OFFSET + 4]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    !crc32c::crc32c_append(crc, &block[SUPERBLOCK_OFFSET + 8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            feature_compat: feature_compat::CHECKSUM | feature_compat::MTIME,
            feature_incompat: feature_incompat::CHUNKED_FILE | feature_incompat::DEVICE_TABLE,
            root_nid: 1,
            inodes: 2,
            build_time: Timestamp::new(-3, 4).unwrap(),
            blocks: 5,
            meta_start: BlockAddr(6),
            xattr_start: BlockAddr(7),
            uuid: [8; 16],
            volume_name: *b"larder\0\0\0\0\0\0\0\0\0\0",
            extra_devices: 9,
            device_table_slot: 10,
            xattr_prefix_count: 11,
            xattr_prefix_start: 12,
        }
    }

    /// A superblock decodes to the superblock that was encoded.
    #[test]
    fn survives() {
        let mut block = [0; BLOCK_SIZE];
        superblock().encode(&mut block);
        assert_eq!(Superblock::parse(&block), Ok(superblock()));
    }

    /// A flipped bit anywhere from the superblock to the end of the block is found.
    #[test]
    fn checksum_covers_the_block() {
        let mut block = [0; BLOCK_SIZE];
        superblock().encode(&mut block);
        for at in [SUPERBLOCK_OFFSET + 4, SUPERBLOCK_OFFSET + 0x24, SUPERBLOCK_OFFSET + 127, 2000, 4095] {
            let mut damaged = block;
            damaged[at] ^= 1;
            assert!(matches!(Superblock::parse(&damaged), Err(FormatError::Checksum { .. })), "{at}");
        }
    }

    /// Another file system, another block size and compression are each refused with an error of their own.
    #[test]
    fn what_is_not_supported_is_named() {
        let refusal = |at: usize, value: u8| {
            let mut block = [0; BLOCK_SIZE];
            Superblock { feature_compat: 0, ..superblock() }.encode(&mut block);
            block[SUPERBLOCK_OFFSET + at] = value;
            Superblock::parse(&block).unwrap_err()
        };
        assert_eq!(refusal(0, 0), FormatError::Magic);
        assert_eq!(refusal(12, 9), FormatError::BlockSize(9));
        assert_eq!(refusal(0x50, 0x12), FormatError::Features(0x12));
    }
}
