//! Reading an image without trusting anything in it.
//!
//! [`Image`] reads from anything that is [`ReadAt`] and checks everything before it is used: every address is within
//! the image or its devices, names are valid and ordered, types agree, the checksum matches. Hostile bytes cause a
//! [`ReadError`]. They cannot make it panic, loop, or use more memory than a small multiple of the image. Nothing is
//! read before it is needed: opening reads the superblock and the device table.
//!
//! The reader supports uncompressed images with blocks of 4096 bytes, flat, inline and chunk-based inodes, shared
//! extended attributes and long prefixes of their names, and several devices.
//!
//! ```text
//! Image      open · root · inode · lookup · metadata · link_target · data · extents
//! Entries    the entries of a directory, in the order of names
//! Walk       everything, each directory before its content
//! probe      whether an image is there at all
//! check      everything but the bytes of files
//! dump       everything as text
//! ```
//!
//! Several threads may read one image at once.

mod check;
mod data;
mod directory;
mod dump;
mod error;
mod inode;
pub(crate) mod room;
mod source;
mod walk;
mod xattrs;

use crate::format::device::DEVICE_SLOT_SIZE;
use crate::format::{BLOCK, BLOCK_SIZE, DeviceSlot, FormatError, Superblock};
use source::Cache;

pub use check::check;
pub use data::{Extent, Extents, FileData, Place};
pub use directory::{DirEntry, Entries};
pub use dump::dump;
pub use error::{ReadError, WalkError};
pub use inode::Inode;
pub use source::ReadAt;
pub use walk::{Walk, WalkEntry};

/// An image and the devices that it refers to. See the [module](self).
///
/// ```
/// # use std::io::Cursor;
/// # use larder_erofs::{EntryPath, Metadata, Permissions, Timestamp, Xattrs};
/// # use larder_erofs::writer::{Entry, ImageWriter, Options};
/// # let metadata = Metadata {
/// #     permissions: Permissions::from_mode(0o644), uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Xattrs::new(),
/// # };
/// # let mut writer = ImageWriter::new(Cursor::new(Vec::new()), Options::default())?;
/// # writer.add(&EntryPath::parse(b"etc/motd")?, metadata, Entry::File { size: 3, data: &mut &b"hi\n"[..] })?;
/// # let bytes = writer.finish()?.0.into_inner();
/// use std::io::Read;
/// use larder_erofs::reader::Image;
///
/// let image = Image::open(bytes.as_slice())?;
/// let motd = image.lookup(&EntryPath::parse(b"etc/motd")?)?.expect("it was written");
/// let mut text = String::new();
/// image.data(&motd)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hi\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Image<S> {
    primary: Device<S>,
    devices: Devices<S>,
    superblock: Superblock,
    slots: Vec<DeviceSlot>,
    prefixes: Vec<xattrs::Prefix>,
    cache: Cache,
}

struct Device<S> {
    source: S,
    length: u64,
}

/// The places of data that is not in the image itself.
enum Devices<S> {
    /// In these devices.
    Each(Vec<Device<S>>),
    /// Behind the image, at the positions in the device table.
    Joined,
}

impl<S: ReadAt> Image<S> {
    /// Opens an image without separate devices: it refers to no devices, or `source` has them joined behind it, or the
    /// caller reads no data of them.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if the source has no image, or the image is cut off or uses features that are not supported.
    pub fn open(source: S) -> Result<Self, ReadError> {
        Self::new(source, Devices::Joined)
    }

    /// Opens an image with the devices that it refers to, in the order of its device table.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`ReadError::Devices`] if the image refers to another number of devices.
    pub fn open_with_devices(source: S, devices: Vec<S>) -> Result<Self, ReadError> {
        let devices = devices
            .into_iter()
            .map(|source| Ok(Device { length: source.length()?, source }))
            .collect::<Result<_, ReadError>>()?;
        Self::new(source, Devices::Each(devices))
    }

    fn new(source: S, devices: Devices<S>) -> Result<Self, ReadError> {
        let length = source.length()?;
        let mut first = [0; BLOCK_SIZE];
        if length < BLOCK {
            return Err(ReadError::Truncated { expected: BLOCK, found: length });
        }
        source.read_exact_at(&mut first, 0)?;
        let superblock = Superblock::parse(&first).map_err(ReadError::Superblock)?;
        let expected = u64::from(superblock.blocks) * BLOCK;
        if length < expected {
            return Err(ReadError::Truncated { expected, found: length });
        }
        let mut image = Self {
            primary: Device { source, length },
            devices,
            superblock,
            slots: Vec::new(),
            prefixes: Vec::new(),
            cache: Cache::default(),
        };
        image.slots = image.read_slots()?;
        image.check_devices()?;
        image.prefixes = image.read_prefixes()?;
        Ok(image)
    }

    /// Returns the superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Returns the devices that the image refers to.
    pub fn devices(&self) -> &[DeviceSlot] {
        &self.slots
    }

    /// Returns the length of the source in bytes, which is at least the length that the superblock states.
    pub fn length(&self) -> u64 {
        self.primary.length
    }

    fn read_slots(&self) -> Result<Vec<DeviceSlot>, ReadError> {
        let start = u64::from(self.superblock.device_table_slot) * DEVICE_SLOT_SIZE as u64;
        let mut slots = Vec::new();
        for index in 0..u64::from(self.superblock.extra_devices) {
            let mut slot = [0; DEVICE_SLOT_SIZE];
            self.read_metadata(&mut slot, start + index * DEVICE_SLOT_SIZE as u64).map_err(|error| {
                match error {
                    ReadError::Truncated { .. } => {
                        ReadError::Superblock(FormatError::Truncated("the device table"))
                    }
                    other => other,
                }
            })?;
            slots.push(DeviceSlot::parse(&slot));
        }
        Ok(slots)
    }

    fn check_devices(&self) -> Result<(), ReadError> {
        let Devices::Each(devices) = &self.devices else { return Ok(()) };
        if devices.len() != self.slots.len() {
            return Err(ReadError::Devices { expected: self.superblock.extra_devices, found: devices.len() });
        }
        for (device, slot) in devices.iter().zip(&self.slots) {
            let expected = u64::from(slot.blocks) * BLOCK;
            if device.length < expected {
                return Err(ReadError::Truncated { expected, found: device.length });
            }
        }
        Ok(())
    }

    /// Reads metadata, which is always in the image itself.
    fn read_metadata(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.metadata_end() {
            return Err(ReadError::Truncated { expected: end, found: self.metadata_end() });
        }
        Ok(self.cache.read(&self.primary.source, self.primary.length, buffer, offset)?)
    }

    /// Returns the offset of the end of the image itself, in bytes.
    fn metadata_end(&self) -> u64 {
        u64::from(self.superblock.blocks) * BLOCK
    }
}

impl<S> std::fmt::Debug for Image<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("superblock", &self.superblock)
            .field("devices", &self.slots)
            .finish_non_exhaustive()
    }
}

/// Checks that the source has an image, by its superblock and the inode of its root. Returns the superblock. Reads a
/// few kilobytes.
///
/// # Errors
///
/// A [`ReadError`] that names the problem.
pub fn probe<S: ReadAt>(source: S) -> Result<Superblock, ReadError> {
    let image = Image::open(source)?;
    image.root()?;
    Ok(image.superblock)
}
