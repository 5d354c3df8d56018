//! Writing an image while its entries arrive. Memory grows with their number and not with their size.
//!
//! [`ImageWriter`] takes entries in any order in which a directory's parents are implied or earlier, as in a tar
//! archive. It writes file data to the sink at once: block-aligned, one file behind the other, from the second block
//! on. It keeps everything else in memory, and writes it when the writer is finished:
//!
//! ```text
//! block 0           zeros until the end, then the superblock, whose checksum makes the image valid
//! 1…                data of regular files, in the order in which they came
//!                   blocks of directories and of symlinks that do not fit behind their inode
//!                   shared extended attributes
//!                   inodes, breadth first from the root: the entries of a directory lie together
//! ```
//!
//! **After a crash** there is no superblock, so a file that is cut off anywhere is not an image: the magic is written
//! last. The caller ensures the order on the disk: it syncs the sink and renames it into place.
//!
//! **The same entries produce the same bytes.** No clock, random number or hash order affects an image. The order of
//! entries does: file data is in this order.
//!
//! **Zeros** of several blocks are not written: the sink is sought over them, so that a file has holes there. An image is as
//! long with them.
//!
//! **One cost**: data of a file that a later entry replaces stays in the image, without a name.

pub(crate) mod emit;
mod error;
pub(crate) mod layout;
pub(crate) mod sink;
pub(crate) mod tree;

use std::fmt;
use std::io::{Read, Seek, Write};

use crate::format::{BLOCK, BlockAddr};
use crate::metadata::{DeviceNumber, Metadata};
use crate::path::EntryPath;
pub use error::WriteError;
use sink::{CopyError, Sink};
use tree::{Content, Directory, Extent, Node, NodeId, Tree};

/// The maximum length in bytes of the target of a symbolic link that Linux follows.
pub const MAX_SYMLINK: usize = 4095;

/// The maximum number of symbolic links that are followed for one path, as in Linux.
pub const MAX_LINKS: usize = 40;

/// The encoding of an image's metadata. Linux reads each since 5.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Extended inodes only, and all extended attributes beside their inode, as simple readers expect. The reader of
    /// microsandbox 0.7 is one of them, and takes a compact inode for an extended one.
    #[default]
    Simple,
    /// Compact inodes if they lose nothing, and extended attributes that repeat stored once. Compact inodes have the
    /// time that most of them have.
    Dense,
}

/// The options for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// The encoding of metadata.
    pub encoding: Encoding,
    /// An identifier of the image. It is derived from the image's input, or zero: with a random one, the same input
    /// would make two different images.
    pub uuid: [u8; 16],
}

/// An entry, without its path and metadata.
pub enum Entry<'a> {
    /// A directory. If there is one already, it gets the new metadata and keeps its content.
    Directory,
    /// A regular file with the first `size` bytes of `data`.
    File {
        /// The size in bytes.
        size: u64,
        /// The source of the content. Bytes beyond `size` are not read.
        data: &'a mut dyn Read,
    },
    /// A symbolic link to this target, which is not interpreted.
    Symlink(&'a [u8]),
    /// A character device. With [`DeviceNumber::ZERO`] it is an overlayfs whiteout.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("Directory"),
            Self::File { size, .. } => f.debug_struct("File").field("size", size).finish_non_exhaustive(),
            Self::Symlink(target) => write!(f, "Symlink({})", target.escape_ascii()),
            Self::CharDevice(number) => f.debug_tuple("CharDevice").field(number).finish(),
            Self::BlockDevice(number) => f.debug_tuple("BlockDevice").field(number).finish(),
            Self::Fifo => f.write_str("Fifo"),
            Self::Socket => f.write_str("Socket"),
        }
    }
}

/// The effect of an entry on the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The name was free.
    New,
    /// The entry set the metadata of a directory that was there, or was implied by its content.
    Updated,
    /// The entry replaced another of the same name. A directory was replaced with all its content.
    Replaced,
}

/// A summary of a finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The length in blocks of 4096 bytes.
    pub blocks: u32,
    /// The number of inodes.
    pub inodes: u64,
}

impl Summary {
    /// Returns the length in bytes, a multiple of 4096.
    pub fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }
}

/// A writer of an image to a sink. See the [module](self) for the layout.
///
/// An error that concerns only names, like [`WriteError::MissingTarget`], leaves the image as it was, and other entries
/// may follow. After an error of the sink or of file data, every call fails with [`WriteError::Spoilt`].
///
/// ```
/// use std::io::Cursor;
/// use larder_erofs::{EntryPath, Metadata, Permissions, Timestamp, Xattrs};
/// use larder_erofs::writer::{Entry, ImageWriter, Options};
///
/// let metadata = Metadata {
///     permissions: Permissions::from_mode(0o644),
///     uid: 1000,
///     gid: 1000,
///     mtime: Timestamp::EPOCH,
///     xattrs: Xattrs::new(),
/// };
/// let mut image = ImageWriter::new(Cursor::new(Vec::new()), Options::default())?;
/// let entry = Entry::File { size: 6, data: &mut &b"hello\n"[..] };
/// image.add(&EntryPath::parse(b"greeting")?, metadata, entry)?;
/// let (image, summary) = image.finish()?;
/// assert_eq!(image.into_inner().len() as u64, summary.bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ImageWriter<W> {
    sink: Sink<W>,
    tree: Tree,
    options: Options,
    spoilt: bool,
}

impl<W: Write + Seek> ImageWriter<W> {
    /// Begins an image at the beginning of `sink`, which is empty and reads as zeros where it is sought over. Writes to the
    /// sink are up to 256 KiB each.
    ///
    /// # Errors
    ///
    /// [`WriteError::Write`] if the sink fails.
    pub fn new(sink: W, options: Options) -> Result<Self, WriteError> {
        let sink = Sink::new(sink, 1).map_err(WriteError::Write)?;
        Ok(Self { sink, tree: Tree::new(), options, spoilt: false })
    }

    /// Adds an entry. Creates missing directories above it with mode 0755, owner 0:0 and the time 0, and marks them as
    /// implied. Replaces an entry of the same name, except a directory by a directory.
    ///
    /// # Errors
    ///
    /// A [`WriteError`] that names the path.
    pub fn add(
        &mut self,
        path: &EntryPath,
        metadata: Metadata,
        entry: Entry<'_>,
    ) -> Result<Added, WriteError> {
        self.check()?;
        if let Entry::Directory = entry {
            return self.add_directory(path, metadata);
        }
        check_entry(path, &entry)?;
        let (parent, name) = self.tree.place(path)?;
        let content = match entry {
            Entry::File { size, data } => Content::File(self.copy(path, size, data)?),
            Entry::Symlink(target) => Content::Symlink(target.into()),
            Entry::CharDevice(number) => Content::CharDevice(number),
            Entry::BlockDevice(number) => Content::BlockDevice(number),
            Entry::Fifo => Content::Fifo,
            Entry::Socket => Content::Socket,
            Entry::Directory => Content::Directory(Directory::default()),
        };
        Ok(self.put(parent, name, Node { metadata, content }))
    }

    /// Adds another name for the entry at `target`, with its metadata.
    ///
    /// # Errors
    ///
    /// [`WriteError::MissingTarget`] or [`WriteError::LinkToDirectory`], or another error that names the path.
    pub fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<Added, WriteError> {
        let id = self.link_target(path, target)?;
        self.link(path, id)
    }

    /// Writes everything that is not yet written, the superblock last. Returns the sink, which is not yet synced.
    ///
    /// # Errors
    ///
    /// [`WriteError::Write`], [`WriteError::TooLarge`], or [`WriteError::Spoilt`] after an earlier failure.
    pub fn finish(self) -> Result<(W, Summary), WriteError> {
        self.check()?;
        let plan = layout::Plan::new(&self.tree, self.sink.position(), self.options.encoding, 0)?;
        emit::finish(self.sink, &self.tree, &plan, self.options, &[])
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn tree_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Adds the data of a file that has no name.
    pub(crate) fn add_unnamed(
        &mut self,
        path: &EntryPath,
        metadata: Metadata,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<NodeId, WriteError> {
        self.check()?;
        let content = Content::File(self.copy(path, size, data)?);
        Ok(self.tree.push(Node { metadata, content }))
    }

    /// Adds a name for a node.
    pub(crate) fn link(&mut self, path: &EntryPath, id: NodeId) -> Result<Added, WriteError> {
        self.check()?;
        let (parent, name) = self.tree.place(path)?;
        let added = self.seen(parent, name);
        self.tree.link(parent, name, id);
        Ok(added)
    }

    /// Returns the node that a hard link would name.
    pub(crate) fn link_target(&self, path: &EntryPath, target: &EntryPath) -> Result<NodeId, WriteError> {
        let missing = || WriteError::MissingTarget { path: path.clone(), target: target.clone() };
        let id = self.tree.find(target).ok_or_else(missing)?;
        if self.tree.directory(id).is_some() {
            return Err(WriteError::LinkToDirectory { path: path.clone(), target: target.clone() });
        }
        Ok(id)
    }

    fn check(&self) -> Result<(), WriteError> {
        if self.spoilt { Err(WriteError::Spoilt) } else { Ok(()) }
    }

    fn add_directory(&mut self, path: &EntryPath, metadata: Metadata) -> Result<Added, WriteError> {
        if let Some(id) = self.tree.find(path)
            && let Some(directory) = self.tree.directory_mut(id)
        {
            directory.implied = false;
            self.tree.get_mut(id).metadata = metadata;
            return Ok(Added::Updated);
        }
        let (parent, name) = self.tree.place(path)?;
        Ok(self.put(parent, name, Node { metadata, content: Content::Directory(Directory::default()) }))
    }

    fn put(&mut self, parent: NodeId, name: &[u8], node: Node) -> Added {
        let added = self.seen(parent, name);
        let id = self.tree.push(node);
        self.tree.link(parent, name, id);
        added
    }

    fn seen(&self, parent: NodeId, name: &[u8]) -> Added {
        if self.tree.child(parent, name).is_some() { Added::Replaced } else { Added::New }
    }

    /// Appends the data of a file and pads it to a whole block.
    fn copy(&mut self, path: &EntryPath, size: u64, data: &mut dyn Read) -> Result<Extent, WriteError> {
        if size == 0 {
            return Ok(Extent { device: 0, start: BlockAddr(0), size });
        }
        let start = self.sink.position() / BLOCK;
        let end = start.checked_add(size.div_ceil(BLOCK));
        let start = match (u32::try_from(start), end) {
            (Ok(start), Some(end)) if end < u64::from(u32::MAX) => BlockAddr(start),
            _ => return Err(WriteError::TooLarge),
        };
        self.spoilt = true;
        self.sink.copy(data, size).map_err(|error| match error {
            CopyError::Read(source) => WriteError::Data { path: path.clone(), source },
            CopyError::Short(found) => WriteError::ShortData { path: path.clone(), expected: size, found },
            CopyError::Write(source) => WriteError::Write(source),
        })?;
        self.sink.pad_to_block().map_err(WriteError::Write)?;
        self.spoilt = false;
        Ok(Extent { device: 0, start, size })
    }
}

/// Checks an entry on its own, without the others.
pub(crate) fn check_entry(path: &EntryPath, entry: &Entry<'_>) -> Result<(), WriteError> {
    match entry {
        Entry::Symlink(target) if target.is_empty() || target.len() > MAX_SYMLINK || target.contains(&0) => {
            Err(WriteError::SymlinkTarget(path.clone()))
        }
        Entry::Directory => Ok(()),
        _ if path.is_root() => Err(WriteError::RootIsADirectory),
        _ => Ok(()),
    }
}

impl<W> fmt::Debug for ImageWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageWriter").field("nodes", &self.tree.len()).finish_non_exhaustive()
    }
}
