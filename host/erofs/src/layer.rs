//! Image layers: takes tar-like entries and writes an EROFS image, with the marks of removal that overlayfs
//! understands.
//!
//! [`LayerBuilder`] is an [`ImageWriter`] that knows how OCI layers record removals (OCI image specification,
//! "Whiteouts"), and what they mean within one layer:
//!
//! - `.wh.NAME` removes `NAME` from the layers below: the image has a character device 0/0 of that name.
//! - `.wh..wh..opq` removes everything that the layers below have in its directory. The directory gets the extended
//!   attribute `trusted.overlay.opaque=y`. It keeps the attribute if a later entry describes the directory again.
//! - other names that begin with `.wh..wh.` are bookkeeping of AUFS, and are ignored.
//!
//! Removals affect only the layers below, in any order of entries. If a layer has both `NAME` and `.wh.NAME`, the
//! removal applies to `NAME` itself: a directory is opaque, and anything else hides what is below anyway. For the same
//! reason a directory that replaces something else in its layer is opaque.
//!
//! Directories that no entry describes are created and marked as implied (the inode's 32-bit number is `u32::MAX`), so
//! that [merging](crate::merge) uses the metadata of a lower layer for them and not the defaults of this crate.

use std::io::{Seek, Write};

use crate::metadata::{DeviceNumber, Metadata, Permissions, Timestamp, XattrError, Xattrs, opaque_name};
use crate::path::{EntryPath, Name};
use crate::writer::tree::{Content, Directory, Node, NodeId};
use crate::writer::{Added, Entry, ImageWriter, Options, Summary, WriteError, check_entry};

/// The beginning of a removal's name.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name that makes a directory opaque.
pub const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

/// The beginning of the names of AUFS' own files.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// The effect of an entry on a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The entry is in the tree.
    Added(Added),
    /// The entry removes a name from the layers below.
    Whiteout,
    /// The entry removes everything in its directory from the layers below.
    Opaque,
    /// The entry is bookkeeping of AUFS, and is left out.
    Ignored,
}

/// The error for an entry that was not added to a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// An error that any image can have.
    #[error(transparent)]
    Write(#[from] WriteError),

    /// The name of a removal names nothing that can be removed, or another entry is inside it.
    #[error("`{0}` is not a valid whiteout")]
    Whiteout(EntryPath),

    /// A directory has so many extended attributes that the mark of an opaque directory does not fit.
    #[error("the directory of `{path}` cannot be made opaque")]
    Opaque {
        /// The entry that makes the directory opaque.
        path: EntryPath,
        /// The reason.
        #[source]
        source: XattrError,
    },
}

/// A builder of the image of one layer. It takes entries in their order. See the [module](self) for the meaning of
/// removals.
///
/// ```
/// use std::io::Cursor;
/// use larder_erofs::{EntryPath, Metadata, Permissions, Timestamp, Xattrs};
/// use larder_erofs::layer::{Applied, LayerBuilder};
/// use larder_erofs::writer::{Entry, Options};
///
/// let metadata = Metadata {
///     permissions: Permissions::from_mode(0o644),
///     uid: 0,
///     gid: 0,
///     mtime: Timestamp::EPOCH,
///     xattrs: Xattrs::new(),
/// };
/// let mut layer = LayerBuilder::new(Cursor::new(Vec::new()), Options::default())?;
/// let removal = Entry::File { size: 0, data: &mut std::io::empty() };
/// let applied = layer.add(&EntryPath::parse(b"etc/.wh.motd")?, metadata, removal)?;
/// assert_eq!(applied, Applied::Whiteout);
/// let (image, _) = layer.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LayerBuilder<W> {
    writer: ImageWriter<W>,
}

impl<W: Write + Seek> LayerBuilder<W> {
    /// Begins a layer. See [`ImageWriter::new`].
    ///
    /// # Errors
    ///
    /// [`WriteError::Write`] if the sink fails.
    pub fn new(sink: W, options: Options) -> Result<Self, WriteError> {
        Ok(Self { writer: ImageWriter::new(sink, options)? })
    }

    /// Adds an entry. See [`ImageWriter::add`]. For a removal, only path and time are used, and its data is not read.
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the path.
    pub fn add(
        &mut self,
        path: &EntryPath,
        metadata: Metadata,
        entry: Entry<'_>,
    ) -> Result<Applied, LayerError> {
        if let Some(applied) = self.remove(path, metadata.mtime)? {
            return Ok(applied);
        }
        check_entry(path, &entry)?;
        self.open_parents(path)?;
        let hides_below = matches!(entry, Entry::Directory) && self.hides_below(path);
        let added = self.writer.add(path, metadata, entry)?;
        if hides_below && let Some(directory) = self.writer.tree_mut().find(path) {
            self.set_opaque(path, directory)?;
        }
        Ok(Applied::Added(added))
    }

    /// Adds a hard link to an earlier entry. See [`ImageWriter::hard_link`].
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the path. A removal cannot be the target.
    pub fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<Applied, LayerError> {
        if let Some(applied) = self.remove(path, Timestamp::EPOCH)? {
            return Ok(applied);
        }
        let id = self.writer.link_target(path, target)?;
        if self.writer.tree_mut().get(id).content.is_whiteout() {
            return Err(WriteError::MissingTarget { path: path.clone(), target: target.clone() }.into());
        }
        self.open_parents(path)?;
        Ok(Applied::Added(self.writer.hard_link(path, target)?))
    }

    /// Returns the number of inodes so far, all of them in memory. It includes directories that no entry describes and
    /// inodes that were replaced.
    pub fn inodes(&self) -> u64 {
        self.writer.tree().len() as u64
    }

    /// Writes the rest of the image. See [`ImageWriter::finish`].
    ///
    /// # Errors
    ///
    /// A [`WriteError`] if the sink fails, the image is too large, or an earlier call failed.
    pub fn finish(self) -> Result<(W, Summary), WriteError> {
        self.writer.finish()
    }

    /// Applies the entry as a removal, if its path is one.
    fn remove(&mut self, path: &EntryPath, mtime: Timestamp) -> Result<Option<Applied>, LayerError> {
        let mut components = path.components();
        let name = components.next_back().unwrap_or_default();
        let mut inside = components;
        if inside.clone().any(|component| component.starts_with(AUFS_PREFIX)) {
            return Ok(Some(Applied::Ignored));
        }
        if inside.any(|component| component.starts_with(WHITEOUT_PREFIX)) {
            return Err(LayerError::Whiteout(path.clone()));
        }
        let Some(removed) = name.strip_prefix(WHITEOUT_PREFIX) else { return Ok(None) };
        if name == OPAQUE_MARKER {
            self.open_parents(path)?;
            let (parent, _) = self.writer.tree_mut().place(path)?;
            self.set_opaque(path, parent)?;
            return Ok(Some(Applied::Opaque));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(Some(Applied::Ignored));
        }
        let removed = Name::parse(removed).map_err(|_| LayerError::Whiteout(path.clone()))?;
        self.open_parents(path)?;
        self.add_whiteout(path, &removed, mtime)?;
        Ok(Some(Applied::Whiteout))
    }

    fn add_whiteout(&mut self, path: &EntryPath, name: &Name, mtime: Timestamp) -> Result<(), LayerError> {
        let tree = self.writer.tree_mut();
        let (parent, _) = tree.place(path)?;
        match tree.child(parent, name.as_bytes()) {
            Some(existing) => match tree.directory_mut(existing) {
                Some(directory) => {
                    // What a lower layer says of it is removed with it.
                    directory.implied = false;
                    self.set_opaque(path, existing)
                }
                None => Ok(()),
            },
            None => {
                let permissions = Permissions::from_mode(0);
                let metadata = Metadata { permissions, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() };
                let content = Content::CharDevice(DeviceNumber::ZERO);
                let whiteout = tree.push(Node { metadata, content });
                tree.link(parent, name.as_bytes(), whiteout);
                Ok(())
            }
        }
    }

    /// Replaces a removal above `path` with an opaque directory: the layer has a directory there again, and hides what
    /// the layers below have in it.
    fn open_parents(&mut self, path: &EntryPath) -> Result<(), LayerError> {
        let tree = self.writer.tree_mut();
        let mut parent = NodeId::ROOT;
        let mut above = path.components();
        above.next_back();
        for name in above {
            let Some(child) = tree.child(parent, name) else { break };
            if tree.get(child).content.is_whiteout() {
                let content = Content::Directory(Directory::default());
                let directory = tree.push(Node { metadata: Metadata::implied(), content });
                tree.link(parent, name, directory);
                return self.set_opaque(path, directory);
            }
            parent = child;
        }
        Ok(())
    }

    /// Returns whether the current entry at `path` hides what the layers below have there.
    fn hides_below(&mut self, path: &EntryPath) -> bool {
        let tree = self.writer.tree_mut();
        tree.find(path)
            .is_some_and(|id| tree.directory(id).is_none() || tree.get(id).metadata.xattrs.is_opaque())
    }

    fn set_opaque(&mut self, path: &EntryPath, directory: NodeId) -> Result<(), LayerError> {
        let xattrs = &mut self.writer.tree_mut().get_mut(directory).metadata.xattrs;
        xattrs.set(opaque_name(), b"y").map_err(|source| LayerError::Opaque { path: path.clone(), source })
    }
}
