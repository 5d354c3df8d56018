//! Image layers: tar-like entries in, an EROFS image out, with the marks of removal that overlayfs understands.
//!
//! [`LayerBuilder`] is an [`ImageWriter`] that knows how OCI layers write removals down (OCI image specification,
//! "Whiteouts"), and what they mean in one layer after the other:
//!
//! - `.wh.NAME` removes `NAME` from the layers below: it becomes a character device 0/0 of that name.
//! - `.wh..wh..opq` removes all that the layers below have in its directory: the directory gets the extended attribute
//!   `trusted.overlay.opaque=y`, and keeps it when it is described again.
//! - other names that begin with `.wh..wh.` are bookkeeping of AUFS, and nothing.
//!
//! Removals concern the layers below alone, whatever their place among the entries. Where a layer has both `NAME` and
//! `.wh.NAME`, the removal is in `NAME` itself: a directory is opaque, and anything else hides what is below anyway. For
//! the same reason a directory that takes the place of something else in its layer is opaque.
//!
//! Directories that no entry describes are made and marked as implied (the inode's 32-bit number is `u32::MAX`), so that
//! [merging](crate::merge) gives them what a lower layer says of them and not what was made up here.

use std::io::{Seek, Write};

use crate::metadata::{DeviceNumber, Metadata, Permissions, Timestamp, XattrError, Xattrs, opaque_name};
use crate::path::{EntryPath, Name};
use crate::writer::tree::{Content, Directory, Node, NodeId};
use crate::writer::{Added, Entry, ImageWriter, Options, Summary, WriteError, check_entry};

/// What the name of a removal begins with.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name that makes a directory opaque.
pub const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

/// What the names of AUFS' own files begin with.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// What an entry did to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is in the tree.
    Added(Added),
    /// It removes a name from the layers below.
    Whiteout,
    /// It removes from the layers below all that is in its directory.
    Opaque,
    /// It is bookkeeping of AUFS, and left out.
    Ignored,
}

/// Why an entry was not added to a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// As for every image.
    #[error(transparent)]
    Write(#[from] WriteError),

    /// The name of a removal says nothing that could be removed, or something lies in it.
    #[error("`{0}` is not a valid whiteout")]
    Whiteout(EntryPath),

    /// A directory has so many extended attributes that there is no room to mark it as opaque.
    #[error("the directory of `{path}` cannot be made opaque")]
    Opaque {
        /// What asked for it.
        path: EntryPath,
        /// Why.
        #[source]
        source: XattrError,
    },
}

/// Builds the image of one layer from its entries, in their order. See the [module](self) for what they mean.
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

    /// Adds an entry. See [`ImageWriter::add`]. Of a removal only path and time matter; its data is not read.
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
    /// A [`LayerError`] that names the path. A removal is no target.
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

    /// How many inodes there are by now: those of directories that no entry describes and those that were replaced
    /// since, too. All of them are in memory.
    pub fn inodes(&self) -> u64 {
        self.writer.tree().len() as u64
    }

    /// Writes the rest. See [`ImageWriter::finish`].
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub fn finish(self) -> Result<(W, Summary), WriteError> {
        self.writer.finish()
    }

    /// Takes the entry as a removal, if its path is one.
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

    /// Replaces a removal above `path` by an opaque directory: something is there again, and nothing of what was below.
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

    /// Whether what lies at `path` now hides what the layers below have there.
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
