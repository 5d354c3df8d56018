//! Merging layers: makes one image (fsmeta) from the images of the layers, bottom to top.
//!
//! The merged image holds metadata only. The data of regular files stays in the layers: an inode refers to a layer and
//! its first block there. Layers are numbered in the device table in the order in which they were [added](Merger::add),
//! from 1 on. Linux reads it in two ways:
//!
//! - with the layers as devices of their own: `mount -t erofs -o device=LAYER1,device=LAYER2 FSMETA DIR`, since 5.16;
//! - with all of them joined to one disk, the merged image first, then the layers in their order, as a
//!   [VMDK](crate::vmdk) descriptor joins them: `mount -t erofs DISK DIR`, since 6.4. The device table holds the
//!   position of each layer for this purpose, so a layer must be exactly as long as its image.
//!
//! # The effect of a layer on those below
//!
//! The layer's entries apply in the order of the walk. A whiteout (character device 0/0) removes its name. An opaque
//! directory (`trusted.overlay.opaque=y`) removes everything that was in it. A directory over a directory replaces its
//! metadata and keeps its content. Everything else replaces what had its name. Whiteouts and the marks of opaque
//! directories are not in the result. Names that are hard links of each other in a layer stay so in the result, unless
//! an upper layer replaced them.
//!
//! A directory that no entry of its layer described ([`Inode::is_implied`](crate::reader::Inode::is_implied)) keeps the
//! metadata of a lower layer.
//!
//! A directory that replaces a symbolic link to a directory of the layers below hides what the link led to. Most often
//! the layer was made without knowing of the link. [`Merger::covered_links`] names such links.
//!
//! Memory grows with the merged metadata. The layers are read one after the other and need not stay open.

use std::collections::HashMap;
use std::io::{Seek, Write};

use crate::format::{BLOCK, BlockAddr, DataLayout, DeviceSlot, DeviceTag, Nid};
use crate::metadata::{FileKind, Metadata};
use crate::path::EntryPath;
use crate::reader::room::Room;
use crate::reader::{Image, Inode, Place, ReadAt, ReadError, WalkError};
use crate::writer::layout::Plan;
use crate::writer::sink::Sink;
use crate::writer::tree::{Content, Directory, Extent, Node, NodeId, Tree};
use crate::writer::{Options, Summary, WriteError, emit};
use crate::xattr::opaque_name;

/// The maximum number of links that [`CoveredLinks`] names.
const MAX_COVERED: usize = 16;

/// The symbolic links to directories that directories of upper layers replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoveredLinks {
    /// The first of them.
    pub paths: Vec<EntryPath>,
    /// The number of all of them.
    pub count: u64,
}

/// The maximum number of layers that can be merged.
pub const MAX_LAYERS: usize = u16::MAX as usize;

/// The error for layers that cannot be merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Part of the layer cannot be read.
    #[error(transparent)]
    Layer(#[from] WalkError),

    /// The data of a file has an inline tail or is in chunks, so that the merged image cannot refer to it.
    #[error("the data of `{0}` does not lie in whole consecutive blocks of its layer")]
    NotFlat(EntryPath),

    /// The layer itself refers to other images.
    #[error("the layer refers to {0} devices itself, and cannot be merged")]
    HasDevices(usize),

    /// The layer has bytes behind its image, or is cut off.
    #[error("the layer has {found} bytes, its image {expected}")]
    Length {
        /// The length that its superblock states, in bytes.
        expected: u64,
        /// The actual length, in bytes.
        found: u64,
    },

    /// There are more than [`MAX_LAYERS`] layers.
    #[error("there are more than {MAX_LAYERS} layers")]
    TooMany,

    /// The merged image cannot be written, or all layers together are too large.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A merger of layers. See the [module](self) for the rules.
///
/// After an error of [`add`](Self::add) the merger cannot be used.
///
/// ```
/// # use std::io::Cursor;
/// # use larder_erofs::{EntryPath, Metadata, Permissions, Timestamp, Xattrs};
/// # use larder_erofs::layer::LayerBuilder;
/// # use larder_erofs::writer::Entry;
/// use larder_erofs::format::DeviceTag;
/// use larder_erofs::merge::Merger;
/// use larder_erofs::reader::Image;
/// use larder_erofs::writer::Options;
///
/// # let layer = |name: &str| {
/// #     let metadata = Metadata {
/// #         permissions: Permissions::from_mode(0o644), uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Xattrs::new(),
/// #     };
/// #     let mut layer = LayerBuilder::new(Cursor::new(Vec::new()), Options::default()).unwrap();
/// #     layer.add(&EntryPath::parse(name.as_bytes()).unwrap(), metadata, Entry::Fifo).unwrap();
/// #     layer.finish().unwrap().0.into_inner()
/// # };
/// # let (bottom, top) = (layer("a"), layer("b"));
/// let mut merger = Merger::new();
/// merger.add(&Image::open(bottom.as_slice())?, DeviceTag::parse("bottom")?)?;
/// merger.add(&Image::open(top.as_slice())?, DeviceTag::parse("top")?)?;
/// let (fsmeta, summary) = merger.finish(Cursor::new(Vec::new()), Options::default())?;
/// assert_eq!(summary.inodes, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Merger {
    tree: Tree,
    /// The layers. Their mapped positions are only known at the end.
    layers: Vec<DeviceSlot>,
    metadata_bytes: u64,
    covered: CoveredLinks,
}

impl Default for Merger {
    fn default() -> Self {
        Self::new()
    }
}

impl Merger {
    /// Makes a merger without layers: an empty root.
    pub fn new() -> Self {
        Self { tree: Tree::new(), layers: Vec::new(), metadata_bytes: 0, covered: CoveredLinks::default() }
    }

    /// Puts a layer on top of the earlier ones. `tag` is written to the device table; it is usually the hexadecimal
    /// digest of the layer.
    ///
    /// # Errors
    ///
    /// A [`MergeError`] if the layer cannot be read or the merged image cannot refer to it.
    pub fn add<S: ReadAt>(&mut self, layer: &Image<S>, tag: DeviceTag) -> Result<(), MergeError> {
        let expected = u64::from(layer.superblock().blocks) * BLOCK;
        if layer.length() != expected {
            return Err(MergeError::Length { expected, found: layer.length() });
        }
        if !layer.devices().is_empty() {
            return Err(MergeError::HasDevices(layer.devices().len()));
        }
        let device = u16::try_from(self.layers.len() + 1).map_err(|_| MergeError::TooMany)?;
        self.layers.push(DeviceSlot { tag, blocks: layer.superblock().blocks, mapped: BlockAddr(0) });
        let room = Room::of_image(expected);
        let links = HashMap::new();
        let covered = &mut self.covered;
        let mut applied = Layer { image: layer, device, links, room, metadata_bytes: 0, covered };
        for entry in layer.walk() {
            let entry = entry?;
            applied.apply(&mut self.tree, &entry.path, &entry.inode)?;
        }
        self.metadata_bytes += applied.metadata_bytes;
        Ok(())
    }

    /// Returns the number of inodes in memory so far, including those that an upper layer replaced.
    pub fn inodes(&self) -> u64 {
        self.tree.len() as u64
    }

    /// Returns the number of bytes of names, link targets and extended attributes that were read into memory so far.
    pub fn metadata_bytes(&self) -> u64 {
        self.metadata_bytes
    }

    /// Returns the links to directories that directories of upper layers replaced so far. Those that the layer removes as
    /// well, by an opaque directory, are not among them.
    pub fn covered_links(&self) -> &CoveredLinks {
        &self.covered
    }

    /// Writes the merged image to `sink`, which is empty. Returns the sink, which is not yet synced.
    ///
    /// # Errors
    ///
    /// [`WriteError::Write`] if the sink fails, [`WriteError::TooLarge`] if the image and all layers together have more
    /// than 16 TiB.
    pub fn finish<W: Write + Seek>(self, sink: W, options: Options) -> Result<(W, Summary), WriteError> {
        // At most `MAX_LAYERS`.
        let devices = self.layers.len() as u16;
        let sink = Sink::new(sink, emit::header_blocks(devices)).map_err(WriteError::Write)?;
        let plan = Plan::new(&self.tree, sink.position(), options.encoding, devices)?;
        let slots = mapped(self.layers, plan.blocks)?;
        emit::finish(sink, &self.tree, &plan, options, &slots)
    }
}

/// Returns the device table, with the layers one after the other behind `blocks`.
fn mapped(mut layers: Vec<DeviceSlot>, blocks: u32) -> Result<Vec<DeviceSlot>, WriteError> {
    let mut next = blocks;
    for layer in &mut layers {
        layer.mapped = BlockAddr(next);
        next = next.checked_add(layer.blocks).ok_or(WriteError::TooLarge)?;
    }
    Ok(layers)
}

/// A layer during its merge into the others.
struct Layer<'l, S> {
    image: &'l Image<S>,
    device: u16,
    /// The inodes that have several names, with their nodes in the tree.
    links: HashMap<Nid, NodeId>,
    room: Room,
    metadata_bytes: u64,
    covered: &'l mut CoveredLinks,
}

impl<S: ReadAt> Layer<'_, S> {
    fn apply(&mut self, tree: &mut Tree, path: &EntryPath, inode: &Inode) -> Result<(), MergeError> {
        if inode.kind() == FileKind::Directory {
            return self.apply_directory(tree, path, inode);
        }
        let (parent, name) = tree.place(path)?;
        if inode.is_whiteout() {
            tree.unlink(parent, name);
            return Ok(());
        }
        let id = match self.links.get(&inode.nid()) {
            Some(&id) => id,
            None => {
                let node = self.node(path, inode)?;
                tree.push(node)
            }
        };
        if inode.nlink() > 1 {
            self.links.insert(inode.nid(), id);
        }
        tree.link(parent, name, id);
        Ok(())
    }

    fn apply_directory(
        &mut self,
        tree: &mut Tree,
        path: &EntryPath,
        inode: &Inode,
    ) -> Result<(), MergeError> {
        let mut metadata = self.metadata(path, inode)?;
        let opaque = metadata.xattrs.is_opaque();
        if opaque {
            metadata.xattrs.remove(&opaque_name());
        }
        let below = tree.find(path);
        if let Some(id) = below
            && let Some(directory) = tree.directory_mut(id)
        {
            if opaque {
                directory.children.clear();
            }
            if !inode.is_implied() {
                directory.implied = false;
                tree.get_mut(id).metadata = metadata;
            }
            return Ok(());
        }
        if let Some(id) = below
            && matches!(tree.get(id).content, Content::Symlink(_))
            && !opaque
            && tree.leads_to_directory(path)
        {
            self.covered.add(path);
        }
        let (parent, name) = tree.place(path)?;
        let directory = Directory { implied: inode.is_implied(), ..Directory::default() };
        let id = tree.push(Node { metadata, content: Content::Directory(directory) });
        tree.link(parent, name, id);
        Ok(())
    }

    fn metadata(&mut self, path: &EntryPath, inode: &Inode) -> Result<Metadata, MergeError> {
        let metadata = self.image.metadata(inode).map_err(|source| failed(path, source))?;
        self.take(path, inode, metadata.xattrs.size())?;
        self.metadata_bytes += path.file_name().map_or(0, <[u8]>::len) as u64;
        Ok(metadata)
    }

    fn take(&mut self, path: &EntryPath, inode: &Inode, bytes: usize) -> Result<(), MergeError> {
        self.metadata_bytes += bytes as u64;
        self.room.take(inode, bytes).map_err(|source| failed(path, source))
    }

    fn node(&mut self, path: &EntryPath, inode: &Inode) -> Result<Node, MergeError> {
        let metadata = self.metadata(path, inode)?;
        let number = inode.device_number();
        let content = match (inode.kind(), number) {
            (FileKind::Regular, _) => Content::File(self.extent(path, inode)?),
            (FileKind::Symlink, _) => {
                let target = self.image.link_target(inode).map_err(|source| failed(path, source))?;
                self.take(path, inode, target.len())?;
                Content::Symlink(target.into())
            }
            (FileKind::CharDevice, Some(number)) => Content::CharDevice(number),
            (FileKind::BlockDevice, Some(number)) => Content::BlockDevice(number),
            (FileKind::Socket, _) => Content::Socket,
            _ => Content::Fifo,
        };
        Ok(Node { metadata, content })
    }

    /// Returns the data of a file, as blocks of this layer.
    fn extent(&self, path: &EntryPath, inode: &Inode) -> Result<Extent, MergeError> {
        let size = inode.size();
        if size == 0 {
            return Ok(Extent { device: 0, start: BlockAddr(0), size });
        }
        let extent = match inode.layout() {
            DataLayout::FlatPlain => self.image.extents(inode).map_err(|source| failed(path, source))?.next(),
            DataLayout::FlatInline | DataLayout::ChunkBased => None,
        };
        match extent.transpose().map_err(|source| failed(path, source))?.map(|extent| extent.place) {
            Some(Place::Device { device: 0, position }) => {
                // A block number of 32 bits, since it lies within the image.
                let start = BlockAddr((position / BLOCK) as u32);
                Ok(Extent { device: self.device, start, size })
            }
            _ => Err(MergeError::NotFlat(path.clone())),
        }
    }
}

impl CoveredLinks {
    fn add(&mut self, path: &EntryPath) {
        self.count += 1;
        if self.paths.len() < MAX_COVERED {
            self.paths.push(path.clone());
        }
    }
}

fn failed(path: &EntryPath, source: ReadError) -> MergeError {
    WalkError { path: path.clone(), source }.into()
}
