//! The device table: the other images that an image refers to, in slots of 128 bytes.

use std::fmt;

use super::superblock::{SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use super::{BlockAddr, array, u32_at};

/// The size of a slot, in bytes. The superblock states the beginning of the table in this unit.
pub(crate) const DEVICE_SLOT_SIZE: usize = 128;

/// The place of the table in images of this crate, in slots: directly behind the superblock.
pub(crate) const DEVICE_TABLE_SLOT: u16 = ((SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE) / DEVICE_SLOT_SIZE) as u16;

/// The label of a device: 1 to 64 printable ASCII characters, usually the hexadecimal SHA-256 of its content.
///
/// Linux up to 6.3 refuses an image with a device that has no label.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceTag([u8; 64]);

/// The error for text that is not a [`DeviceTag`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a device's tag is 1 to 64 printable ASCII characters")]
pub struct DeviceTagError;

impl DeviceTag {
    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// [`DeviceTagError`] if it is empty, longer than 64 characters, or contains a character that is not printable
    /// ASCII.
    pub fn parse(text: &str) -> Result<Self, DeviceTagError> {
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(DeviceTagError);
        }
        let mut tag = [0; 64];
        tag[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(tag))
    }
}

impl fmt::Debug for DeviceTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceTag({self})")
    }
}

impl fmt::Display for DeviceTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        f.write_str(&crate::path::shown(&self.0[..length]))
    }
}

/// One device that an image refers to (`struct erofs_deviceslot`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSlot {
    /// The label of the device.
    pub tag: DeviceTag,
    /// The length of the device in blocks.
    pub blocks: u32,
    /// The first block of the device in the address space that joins all devices, the image itself first. Linux
    /// uses it since 6.4 when it mounts without `device=`. 0 if it was not set.
    pub mapped: BlockAddr,
}

impl DeviceSlot {
    /// Parses a slot. Every 128 bytes are a valid slot.
    pub fn parse(bytes: &[u8; DEVICE_SLOT_SIZE]) -> Self {
        Self {
            tag: DeviceTag(array(bytes, 0)),
            blocks: u32_at(bytes, 64),
            mapped: BlockAddr(u32_at(bytes, 68)),
        }
    }

    /// Returns the slot as bytes.
    pub fn encode(&self) -> [u8; DEVICE_SLOT_SIZE] {
        let mut bytes = [0; DEVICE_SLOT_SIZE];
        bytes[..64].copy_from_slice(&self.tag.0);
        bytes[64..68].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.mapped.0.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot decodes to the slot that was encoded, and a tag shows as text in a message.
    #[test]
    fn slots_survive() {
        let tag = DeviceTag::parse(&"a".repeat(64)).unwrap();
        let slot = DeviceSlot { tag, blocks: 1, mapped: BlockAddr(2) };
        assert_eq!(DeviceSlot::parse(&slot.encode()), slot);
        assert_eq!(tag.to_string(), "a".repeat(64));
        for refused in ["", "a b", "ä", &"a".repeat(65)] {
            assert_eq!(DeviceTag::parse(refused), Err(DeviceTagError));
        }
    }
}
