//! Image layers: an EROFS image with the marks of removal that overlayfs understands.
//!
//! [`LayerBuilder`] is an [`ImageWriter`] that knows what a layer removes from the layers below it:
//!
//! - a [whiteout](LayerBuilder::whiteout) removes a name: the image has a character device 0/0 of that name.
//! - an [opaque](LayerBuilder::opaque) directory removes everything that the layers below have in it. It has the extended
//!   attribute `trusted.overlay.opaque=y`, which it keeps if a later entry describes the directory again.
//!
//! Removals affect only the layers below, in any order of entries. If a layer has a name and removes it, the removal
//! applies to that name alone: a directory is opaque, and anything else hides what is below anyway. For the same reason a
//! directory that replaces something else in its layer is opaque.
//!
//! Directories that no entry describes are created and marked as implied (the inode's 32-bit number is `u32::MAX`), so
//! that [merging](crate::merge) uses the metadata of a lower layer for them and not the defaults of this crate.
//!
//! A path is used as it is: an entry whose parent is a symbolic link is refused. A caller that wants such links to be
//! followed, within the layer, asks for the path behind them first: [`LayerBuilder::resolve`].

use std::borrow::Cow;
use std::io::{Read, Seek, Write};

use crate::metadata::{DeviceNumber, Metadata, Permissions, Timestamp};
use crate::path::EntryPath;
use crate::writer::tree::{Content, Directory, Node, NodeId};
use crate::writer::{Added, Entry, ImageWriter, Options, Summary, WriteError, check_entry};
use crate::xattr::{XattrError, Xattrs, opaque_name};

/// The error for an entry that was not added to a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// An error that any image can have.
    #[error(transparent)]
    Write(#[from] WriteError),

    /// A directory has so many extended attributes that the mark of an opaque directory does not fit.
    #[error("`{path}` cannot be made opaque")]
    Opaque {
        /// The directory.
        path: EntryPath,
        /// The reason.
        #[source]
        source: XattrError,
    },
}

/// A file of a layer that has no name yet. See [`LayerBuilder::keep`].
#[derive(Debug, Clone, Copy)]
pub struct Kept(NodeId);

/// A builder of the image of one layer. It takes entries in their order. See the [module](self) for the meaning of
/// removals.
///
/// ```
/// use std::io::Cursor;
/// use larder_erofs::{EntryPath, Metadata, Permissions, Timestamp, Xattrs};
/// use larder_erofs::layer::LayerBuilder;
/// use larder_erofs::writer::{Added, Entry, Options};
///
/// let metadata = Metadata {
///     permissions: Permissions::from_mode(0o644),
///     uid: 0,
///     gid: 0,
///     mtime: Timestamp::EPOCH,
///     xattrs: Xattrs::new(),
/// };
/// let mut layer = LayerBuilder::new(Cursor::new(Vec::new()), Options::default())?;
/// layer.whiteout(&EntryPath::parse(b"etc/motd")?, Timestamp::EPOCH)?;
/// let file = Entry::File { size: 3, data: &mut &b"new"[..] };
/// assert_eq!(layer.add(&EntryPath::parse(b"etc/issue")?, metadata, file)?, Added::New);
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

    /// Returns `path` with the symbolic links above its last component followed, as far as the layer has them, like in a
    /// root that cannot be left: an absolute target begins at the root of the layer, and `..` stays there. What the layer
    /// does not have is kept as it is.
    ///
    /// # Errors
    ///
    /// [`WriteError::TooManyLinks`], or [`WriteError::Unreachable`] if the result is not a path.
    pub fn resolve<'p>(&self, path: &'p EntryPath) -> Result<Cow<'p, EntryPath>, WriteError> {
        self.writer.tree().resolve(path)
    }

    /// Adds an entry. See [`ImageWriter::add`].
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the path.
    pub fn add(
        &mut self,
        path: &EntryPath,
        metadata: Metadata,
        entry: Entry<'_>,
    ) -> Result<Added, LayerError> {
        check_entry(path, &entry)?;
        self.open_parents(path)?;
        let hides_below = matches!(entry, Entry::Directory) && self.hides_below(path);
        let added = self.writer.add(path, metadata, entry)?;
        if hides_below && let Some(directory) = self.writer.tree_mut().find(path) {
            self.set_opaque(path, directory)?;
        }
        Ok(added)
    }

    /// Adds a hard link to an earlier entry. See [`ImageWriter::hard_link`].
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the path. A removal cannot be the target.
    pub fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<Added, LayerError> {
        let id = self.writer.link_target(path, target)?;
        if self.writer.tree_mut().get(id).content.is_whiteout() {
            return Err(WriteError::MissingTarget { path: path.clone(), target: target.clone() }.into());
        }
        self.link_kept(path, Kept(id))
    }

    /// Keeps the first `size` bytes of `data` as a file that has no name until it is [linked](Self::link_kept). `path` is
    /// for errors.
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the path.
    pub fn keep(
        &mut self,
        path: &EntryPath,
        metadata: Metadata,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<Kept, LayerError> {
        Ok(Kept(self.writer.add_unnamed(path, metadata, size, data)?))
    }

    /// Adds a name for a file that was kept. All of its names are hard links of each other.
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the path.
    pub fn link_kept(&mut self, path: &EntryPath, kept: Kept) -> Result<Added, LayerError> {
        self.open_parents(path)?;
        Ok(self.writer.link(path, kept.0)?)
    }

    /// Removes `path` from the layers below. `mtime` is the time of the mark.
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the path.
    pub fn whiteout(&mut self, path: &EntryPath, mtime: Timestamp) -> Result<(), LayerError> {
        self.open_parents(path)?;
        let tree = self.writer.tree_mut();
        let (parent, name) = tree.place(path)?;
        match tree.child(parent, name) {
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
                tree.link(parent, name, whiteout);
                Ok(())
            }
        }
    }

    /// Removes everything that the layers below have in a directory, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// A [`LayerError`] that names the directory.
    pub fn opaque(&mut self, directory: &EntryPath) -> Result<(), LayerError> {
        self.open(directory, directory.components().count())?;
        let id = self.writer.tree_mut().make_directory(directory)?;
        self.set_opaque(directory, id)
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

    /// Replaces a removal above `path` with an opaque directory: the layer has a directory there again, and hides what
    /// the layers below have in it.
    fn open_parents(&mut self, path: &EntryPath) -> Result<(), LayerError> {
        self.open(path, path.components().count().saturating_sub(1))
    }

    /// Replaces a removal among the first `depth` components of `path` with an opaque directory.
    fn open(&mut self, path: &EntryPath, depth: usize) -> Result<(), LayerError> {
        let tree = self.writer.tree_mut();
        let mut parent = NodeId::ROOT;
        for name in path.components().take(depth) {
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
