//! Inodes, with all checks that do not need their content.

use super::{Image, ReadAt, ReadError};
use crate::format::xattr::body_size;
use crate::format::{
    BLOCK, ChunkFormat, DataLayout, FormatError, InodeForm, InodeRecord, NULL_BLOCK, Nid, SLOT_SIZE,
};
use crate::metadata::{DeviceNumber, FileKind, Metadata, Permissions, Timestamp};
use crate::path::EntryPath;
use crate::writer::emit::IMPLIED_INO;

/// An inode of an [`Image`]. Its methods return the fields of its record. The image has the methods for everything
/// stored elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    pub(super) nid: Nid,
    /// The offset of its record, in bytes.
    pub(super) offset: u64,
    pub(super) record: InodeRecord,
    kind: FileKind,
    mtime: Timestamp,
}

impl Inode {
    /// Returns its number.
    pub fn nid(&self) -> Nid {
        self.nid
    }

    /// Returns its kind.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Returns its permission bits.
    pub fn permissions(&self) -> Permissions {
        Permissions::from_mode(self.record.mode.into())
    }

    /// Returns the user ID of its owner.
    pub fn uid(&self) -> u32 {
        self.record.uid
    }

    /// Returns its group ID.
    pub fn gid(&self) -> u32 {
        self.record.gid
    }

    /// Returns the time of its content's last change.
    pub fn mtime(&self) -> Timestamp {
        self.mtime
    }

    /// Returns the number of its names. For a directory, it is 2 plus the number of directories in it.
    pub fn nlink(&self) -> u32 {
        self.record.nlink
    }

    /// Returns the size of its content in bytes: of a file, of a symlink's target, or of a directory as it is stored.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Returns the form of its record.
    pub fn form(&self) -> InodeForm {
        self.record.form
    }

    /// Returns the layout of its content.
    pub fn layout(&self) -> DataLayout {
        self.record.layout
    }

    /// Returns the number of a device, or `None` if it is not a device.
    pub fn device_number(&self) -> Option<DeviceNumber> {
        matches!(self.kind, FileKind::CharDevice | FileKind::BlockDevice)
            .then(|| DeviceNumber::decode(self.record.union))
    }

    /// Returns whether it marks a removal: a character device with number 0/0.
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.device_number() == Some(DeviceNumber::ZERO)
    }

    /// Returns whether it is a directory that no entry described when this crate made the image. Its metadata is
    /// then a default. Images by other programs have no such directories.
    pub fn is_implied(&self) -> bool {
        self.kind == FileKind::Directory && self.record.ino == IMPLIED_INO
    }

    /// Returns the size of its extended attributes in bytes, header included.
    pub(super) fn xattr_size(&self) -> u64 {
        body_size(self.record.xattr_count)
    }

    /// Returns the offset of the content or the chunk addresses behind it, in bytes.
    pub(super) fn tail_offset(&self) -> u64 {
        self.offset + self.record.form.size() + self.xattr_size()
    }

    /// Returns the size of the chunk addresses behind it, in bytes. They are within the image.
    pub(super) fn chunk_table_size(&self) -> u64 {
        match (self.layout(), ChunkFormat::parse(self.record.union)) {
            (DataLayout::ChunkBased, Ok(format)) => {
                self.size().div_ceil(format.chunk_size()) * format.entry_size()
            }
            _ => 0,
        }
    }

    pub(super) fn expect(&self, expected: FileKind) -> Result<(), ReadError> {
        if self.kind == expected {
            return Ok(());
        }
        Err(ReadError::Kind { nid: self.nid, expected, found: self.kind })
    }
}

impl<S: ReadAt> Image<S> {
    /// Returns the root directory.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if its inode is damaged or not a directory.
    pub fn root(&self) -> Result<Inode, ReadError> {
        let root = self.inode(Nid(self.superblock.root_nid.into()))?;
        root.expect(FileKind::Directory)?;
        Ok(root)
    }

    /// Returns the inode with this number, which is from a directory entry of this image.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if there is no such inode, or it is damaged.
    pub fn inode(&self, nid: Nid) -> Result<Inode, ReadError> {
        let wrong = |problem| ReadError::Inode { nid, problem };
        let offset = nid
            .0
            .checked_mul(SLOT_SIZE)
            .and_then(|offset| offset.checked_add(self.superblock.meta_start.offset()))
            .filter(|offset| *offset < self.metadata_end())
            .ok_or_else(|| wrong(FormatError::Invalid("its number lies outside of the image")))?;
        // The last slot of an image may hold a compact inode.
        let mut bytes = [0; InodeForm::Extended.size() as usize];
        let there = InodeForm::Extended.size().min(self.metadata_end() - offset) as usize;
        self.read_metadata(&mut bytes[..there], offset)?;
        let record = InodeRecord::parse(&bytes[..there]).map_err(wrong)?;
        let kind = FileKind::from_mode(record.mode)
            .ok_or_else(|| wrong(FormatError::Invalid("it has an unknown file type")))?;
        let mtime = record.mtime.unwrap_or(self.superblock.build_time);
        let inode = Inode { nid, offset, record, kind, mtime };
        self.check_place(&inode)?;
        Ok(inode)
    }

    /// Finds the inode of `path`, without following symbolic links. Returns `None` if there is no such entry.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if a directory on the path is damaged.
    pub fn lookup(&self, path: &EntryPath) -> Result<Option<Inode>, ReadError> {
        let mut inode = self.root()?;
        for name in path.components() {
            if inode.kind != FileKind::Directory {
                return Ok(None);
            }
            let Some(nid) = self.find(&inode, name)? else { return Ok(None) };
            inode = self.inode(nid)?;
        }
        Ok(Some(inode))
    }

    /// Returns an inode's permissions, owner, time and extended attributes.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if the attributes are damaged.
    pub fn metadata(&self, inode: &Inode) -> Result<Metadata, ReadError> {
        Ok(Metadata {
            permissions: inode.permissions(),
            uid: inode.uid(),
            gid: inode.gid(),
            mtime: inode.mtime(),
            xattrs: self.xattrs(inode)?,
        })
    }

    /// Checks that everything that belongs to an inode is within the image, without reading it.
    fn check_place(&self, inode: &Inode) -> Result<(), ReadError> {
        let invalid = |what| Err(ReadError::invalid(inode.nid, what));
        if inode.tail_offset() > self.metadata_end() {
            return invalid("its extended attributes lie outside of the image");
        }
        if matches!(
            inode.kind,
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket
        ) || inode.size() == 0
        {
            return Ok(());
        }
        if inode.size() > i64::MAX as u64 {
            return invalid("its size is larger than a file can be");
        }
        let blocks = match inode.layout() {
            DataLayout::FlatPlain => inode.size().div_ceil(BLOCK),
            DataLayout::FlatInline => {
                let tail = inode.size() - (inode.size() - 1) / BLOCK * BLOCK;
                if inode.tail_offset() % BLOCK + tail > BLOCK
                    || inode.tail_offset() + tail > self.metadata_end()
                {
                    return invalid("its inline content crosses a block");
                }
                (inode.size() - 1) / BLOCK
            }
            DataLayout::ChunkBased => {
                let format = ChunkFormat::parse(inode.record.union)
                    .map_err(|problem| ReadError::Inode { nid: inode.nid, problem })?;
                let chunks = inode.size().div_ceil(format.chunk_size());
                let table = inode.tail_offset().next_multiple_of(format.entry_size());
                let end = chunks.checked_mul(format.entry_size()).and_then(|size| size.checked_add(table));
                if end.is_none_or(|end| end > self.metadata_end()) {
                    return invalid("its chunk addresses lie outside of the image");
                }
                0
            }
        };
        let end = u64::from(inode.record.union) + blocks;
        if blocks > 0 && (inode.record.union == NULL_BLOCK || end > u64::from(self.superblock.blocks)) {
            return invalid("its content lies outside of the image");
        }
        Ok(())
    }
}
