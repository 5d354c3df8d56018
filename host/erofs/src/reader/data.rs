//! The content of inodes, in every layout.

use std::io::{self, Read};

use super::{Devices, Image, Inode, ReadAt, ReadError};
use crate::format::{BLOCK, BlockAddr, ChunkFormat, ChunkIndex, DataLayout};
use crate::metadata::FileKind;
use crate::writer::MAX_SYMLINK;

/// A run of consecutive bytes of a file and the place where they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the first byte in the file.
    pub offset: u64,
    /// The number of bytes.
    pub length: u64,
    /// The place where the bytes are stored.
    pub place: Place,
}

/// The place where bytes of a file are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The bytes are not stored: they are zeros.
    Hole,
    /// The bytes are in a device.
    Device {
        /// The number of the device, from 1. 0 is the image itself.
        device: u16,
        /// The offset in the device, in bytes.
        position: u64,
    },
}

impl<S: ReadAt> Image<S> {
    /// Returns the content of a regular file, as a stream.
    ///
    /// # Errors
    ///
    /// [`ReadError::Kind`] if the inode is not a regular file.
    pub fn data(&self, inode: &Inode) -> Result<FileData<'_, S>, ReadError> {
        inode.expect(FileKind::Regular)?;
        Ok(FileData { image: self, inode: *inode, position: 0 })
    }

    /// Returns the places where the content of a regular file is stored. Consecutive chunks that are stored one behind
    /// the other are one extent.
    ///
    /// # Errors
    ///
    /// [`ReadError::Kind`] if the inode is not a regular file.
    pub fn extents(&self, inode: &Inode) -> Result<Extents<'_, S>, ReadError> {
        inode.expect(FileKind::Regular)?;
        Ok(Extents { image: self, inode: *inode, position: 0 })
    }

    /// Returns the target of a symbolic link: 1 to 4095 bytes without NUL.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if the inode is not a symbolic link, or is damaged.
    pub fn link_target(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        inode.expect(FileKind::Symlink)?;
        if inode.size() == 0 || inode.size() > MAX_SYMLINK as u64 {
            return Err(ReadError::invalid(inode.nid, "its target has a length that none can have"));
        }
        let mut target = vec![0; inode.size() as usize];
        self.read_content(inode, &mut target, 0)?;
        if target.contains(&0) {
            return Err(ReadError::invalid(inode.nid, "its target contains a NUL byte"));
        }
        Ok(target)
    }

    /// Fills `buffer` from `position` of an inode's content. The range is within the content.
    pub(super) fn read_content(
        &self,
        inode: &Inode,
        mut buffer: &mut [u8],
        mut position: u64,
    ) -> Result<(), ReadError> {
        while !buffer.is_empty() {
            let extent = self.extent_at(inode, position)?;
            let left = extent.offset + extent.length - position;
            let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, later) = buffer.split_at_mut(count);
            self.read_place(now, extent.place, position - extent.offset)?;
            buffer = later;
            position += count as u64;
        }
        Ok(())
    }

    fn read_place(&self, buffer: &mut [u8], place: Place, skip: u64) -> Result<(), ReadError> {
        let Place::Device { device, position } = place else {
            buffer.fill(0);
            return Ok(());
        };
        let position = position + skip;
        match (device.checked_sub(1), &self.devices) {
            (None, _)
                if position + buffer.len() as u64 <= self.metadata_end() && buffer.len() as u64 <= BLOCK =>
            {
                self.read_metadata(buffer, position)
            }
            (None, _) => Ok(self.primary.source.read_exact_at(buffer, position)?),
            (Some(index), Devices::Each(devices)) => {
                // `resolve` has seen that the device is there.
                let device = &devices[usize::from(index)];
                Ok(device.source.read_exact_at(buffer, position)?)
            }
            (Some(index), Devices::Joined) => {
                let mapped = self.slots[usize::from(index)].mapped;
                let end = mapped.offset() + position + buffer.len() as u64;
                if mapped == BlockAddr(0) || end > self.primary.length {
                    return Err(ReadError::Devices { expected: self.superblock.extra_devices, found: 0 });
                }
                Ok(self.primary.source.read_exact_at(buffer, mapped.offset() + position)?)
            }
        }
    }

    /// Returns the extent that holds `position`, which is within the content.
    fn extent_at(&self, inode: &Inode, position: u64) -> Result<Extent, ReadError> {
        let size = inode.size();
        if position >= size {
            return Err(ReadError::invalid(inode.nid, "its content ends before"));
        }
        let here = |position| Place::Device { device: 0, position };
        let start = BlockAddr(inode.record.union).offset();
        match inode.layout() {
            DataLayout::FlatPlain => Ok(Extent { offset: 0, length: size, place: here(start) }),
            DataLayout::FlatInline => {
                let blocks = (size - 1) / BLOCK * BLOCK;
                if position < blocks {
                    return Ok(Extent { offset: 0, length: blocks, place: here(start) });
                }
                Ok(Extent { offset: blocks, length: size - blocks, place: here(inode.tail_offset()) })
            }
            DataLayout::ChunkBased => self.chunk_at(inode, position),
        }
    }

    fn chunk_at(&self, inode: &Inode, position: u64) -> Result<Extent, ReadError> {
        let wrong = |problem| ReadError::Inode { nid: inode.nid, problem };
        let format = ChunkFormat::parse(inode.record.union).map_err(wrong)?;
        let chunk = position >> format.chunk_bits();
        let table = inode.tail_offset().next_multiple_of(format.entry_size());
        let mut entry = [0; 8];
        let entry = &mut entry[..format.entry_size() as usize];
        self.read_metadata(entry, table + chunk * format.entry_size())?;
        let index = ChunkIndex::parse(format, entry).map_err(wrong)?;
        let offset = chunk << format.chunk_bits();
        let length = format.chunk_size().min(inode.size() - offset);
        let place = match index.start {
            None => Place::Hole,
            Some(start) => self.resolve(inode, index.device, start, length.div_ceil(BLOCK))?,
        };
        Ok(Extent { offset, length, place })
    }

    /// Returns the place of `blocks` from `start` on in the device of a chunk. The device number has as many bits as
    /// the table needs. Device 0 is one address space of all devices.
    fn resolve(&self, inode: &Inode, device: u16, start: u32, blocks: u64) -> Result<Place, ReadError> {
        let outside = || ReadError::invalid(inode.nid, "its content lies outside of its device");
        let mask = (self.slots.len() + 1).next_power_of_two() - 1;
        let device = usize::from(device) & mask;
        let (start, blocks_there, device) = if let Some(index) = device.checked_sub(1) {
            let slot = self.slots.get(index).ok_or_else(outside)?;
            (start, slot.blocks, device)
        } else {
            let mapped = self.slots.iter().enumerate().find(|(_, slot)| {
                let from = slot.mapped.0;
                from != 0 && start >= from && u64::from(start) < u64::from(from) + u64::from(slot.blocks)
            });
            match mapped {
                Some((index, slot)) => (start - slot.mapped.0, slot.blocks, index + 1),
                None => (start, self.superblock.blocks, 0),
            }
        };
        if u64::from(start) + blocks > u64::from(blocks_there) {
            return Err(outside());
        }
        // The table has at most 65535 devices.
        Ok(Place::Device { device: device as u16, position: BlockAddr(start).offset() })
    }
}

/// An iterator over the [extents](Image::extents) of a file. It ends with the first error.
#[derive(Debug)]
pub struct Extents<'i, S> {
    image: &'i Image<S>,
    inode: Inode,
    position: u64,
}

impl<S: ReadAt> Iterator for Extents<'_, S> {
    type Item = Result<Extent, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.inode.size() {
            return None;
        }
        let mut extent = match self.image.extent_at(&self.inode, self.position) {
            Ok(extent) => extent,
            Err(error) => {
                self.position = self.inode.size();
                return Some(Err(error));
            }
        };
        loop {
            self.position = extent.offset + extent.length;
            if self.position >= self.inode.size() {
                return Some(Ok(extent));
            }
            // An error is met again by the next call.
            match self.image.extent_at(&self.inode, self.position) {
                Ok(next) if continues(&extent, &next) => extent.length += next.length,
                _ => return Some(Ok(extent)),
            }
        }
    }
}

fn continues(extent: &Extent, next: &Extent) -> bool {
    match (extent.place, next.place) {
        (Place::Hole, Place::Hole) => true,
        (
            Place::Device { device, position },
            Place::Device { device: next_device, position: next_position },
        ) => device == next_device && position + extent.length == next_position,
        _ => false,
    }
}

/// The content of a file as a stream. It cannot seek: use [extents](Image::extents) for that.
#[derive(Debug)]
pub struct FileData<'i, S> {
    image: &'i Image<S>,
    inode: Inode,
    position: u64,
}

impl<S: ReadAt> Read for FileData<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.inode.size() - self.position;
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.image.read_content(&self.inode, &mut buffer[..count], self.position).map_err(
            |error| match error {
                ReadError::Io(error) => error,
                other => io::Error::new(io::ErrorKind::InvalidData, other),
            },
        )?;
        self.position += count as u64;
        Ok(count)
    }
}
