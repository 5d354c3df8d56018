//! The position of everything in an image, planned before anything is written.
//!
//! Inodes are placed breadth first from the root, so the root's number is small enough for its 16 bits. Slot 0 stays
//! empty, because programs take an inode number 0 for a deleted entry. Neither an inode nor an inode with its inline
//! content crosses a block: Linux requires it of inline content, and no reader has to handle it elsewhere.

use std::collections::BTreeMap;

use super::tree::{Content, Directory, Extent, NodeId, Tree};
use super::{Encoding, WriteError};
use crate::format::xattr::{MAX_SHARED_XATTRS, XATTR_HEADER_SIZE};
use crate::format::{BLOCK, ChunkFormat, DataLayout, InodeForm, NULL_BLOCK, SLOT_SIZE, dirent};
use crate::metadata::{FileKind, Metadata, Timestamp};
use crate::xattr::{XattrName, Xattrs, entry_size};

/// An inode and its position.
pub(crate) struct Placement {
    pub(crate) node: NodeId,
    /// The index of the directory that holds it first. For the root, the root itself.
    pub(crate) parent: usize,
    pub(crate) nlink: u32,
    pub(crate) slot: u64,
    pub(crate) form: InodeForm,
    pub(crate) layout: DataLayout,
    /// The size of the content in bytes.
    pub(crate) size: u64,
    /// The first block of content, or [`NULL_BLOCK`] if it has no blocks.
    pub(crate) start: u32,
}

impl Placement {
    /// Returns the number of blocks of its content in the metadata. Regular files have none there.
    fn metadata_blocks(&self) -> u64 {
        match self.layout {
            DataLayout::FlatPlain => self.size.div_ceil(BLOCK),
            DataLayout::FlatInline => self.size / BLOCK,
            DataLayout::ChunkBased => 0,
        }
    }
}

/// The plan of all metadata of an image. Addresses are in blocks.
pub(crate) struct Plan<'t> {
    /// The inodes in their order.
    pub(crate) inodes: Vec<Placement>,
    /// The index in `inodes` of each node.
    index: Vec<Option<u32>>,
    pub(crate) shared: SharedXattrs<'t>,
    pub(crate) xattr_start: u32,
    pub(crate) meta_start: u32,
    pub(crate) blocks: u32,
    pub(crate) build_time: Timestamp,
}

impl<'t> Plan<'t> {
    /// Plans the metadata from `position` on, a multiple of the block size. `devices` is the number of other
    /// images that hold file data.
    pub(crate) fn new(
        tree: &'t Tree,
        position: u64,
        encoding: Encoding,
        devices: u16,
    ) -> Result<Self, WriteError> {
        let (mut inodes, index) = number(tree);
        let shared = match encoding {
            Encoding::Simple => SharedXattrs::default(),
            Encoding::Dense => SharedXattrs::new(tree, &inodes),
        };
        let build_time = match encoding {
            Encoding::Simple => Timestamp::EPOCH,
            Encoding::Dense => most_common_time(tree, &inodes),
        };

        let mut next_block = position / BLOCK;
        let mut slots = 1;
        for inode in &mut inodes {
            let node = tree.get(inode.node);
            if encoding == Encoding::Dense && fits_compact(&node.metadata, inode, build_time) {
                inode.form = InodeForm::Compact;
            }
            let fixed = inode.form.size() + shared.body_size(&node.metadata.xattrs);
            let behind = match &node.content {
                Content::File(extent) => place_file(inode, extent, fixed, devices > 0),
                Content::Directory(_) | Content::Symlink(_) => {
                    let tail = inode.size % BLOCK;
                    if tail > 0 && fixed + tail <= BLOCK {
                        inode.layout = DataLayout::FlatInline;
                    }
                    let blocks = inode.metadata_blocks();
                    if blocks > 0 {
                        inode.start = u32::try_from(next_block).map_err(|_| WriteError::TooLarge)?;
                        next_block += blocks;
                    }
                    if inode.layout == DataLayout::FlatInline { tail } else { 0 }
                }
                _ => 0,
            };
            // What must not cross a block: the inode, and all that lies before inline content.
            let together = match inode.layout {
                DataLayout::FlatInline => fixed + behind,
                _ => inode.form.size(),
            };
            let room = BLOCK - slots * SLOT_SIZE % BLOCK;
            if together > room {
                slots += room / SLOT_SIZE;
            }
            inode.slot = slots;
            slots += (fixed + behind).div_ceil(SLOT_SIZE);
        }

        let xattr_start = next_block;
        let meta_start = xattr_start + shared.size.div_ceil(BLOCK);
        let blocks = meta_start + (slots * SLOT_SIZE).div_ceil(BLOCK);
        if blocks >= u64::from(NULL_BLOCK) {
            return Err(WriteError::TooLarge);
        }
        // All are below `blocks`, which fits.
        let [xattr_start, meta_start, blocks] = [xattr_start, meta_start, blocks].map(|at| at as u32);
        Ok(Self { inodes, index, shared, xattr_start, meta_start, blocks, build_time })
    }

    /// Returns the slot of a node that the root reaches.
    pub(crate) fn slot_of(&self, node: NodeId) -> u64 {
        self.index[node.index()].map_or(0, |index| self.inodes[index as usize].slot)
    }
}

/// Returns the inodes that the root reaches, breadth first, with their links counted.
fn number(tree: &Tree) -> (Vec<Placement>, Vec<Option<u32>>) {
    let placement = |node, parent| Placement {
        node,
        parent,
        nlink: 0,
        slot: 0,
        form: InodeForm::Extended,
        layout: DataLayout::FlatPlain,
        size: content_size(&tree.get(node).content),
        start: NULL_BLOCK,
    };
    let mut index = vec![None; tree.len()];
    let mut inodes = vec![placement(NodeId::ROOT, 0)];
    index[NodeId::ROOT.index()] = Some(0);
    inodes[0].nlink = 2;
    let mut at = 0;
    while at < inodes.len() {
        if let Content::Directory(directory) = &tree.get(inodes[at].node).content {
            for &child in directory.children.values() {
                let place = *index[child.index()].get_or_insert_with(|| {
                    inodes.push(placement(child, at));
                    inodes.len() as u32 - 1
                });
                if tree.directory(child).is_some() {
                    inodes[place as usize].nlink = 2;
                    inodes[at].nlink += 1;
                } else {
                    inodes[place as usize].nlink += 1;
                }
            }
        }
        at += 1;
    }
    (inodes, index)
}

fn content_size(content: &Content) -> u64 {
    match content {
        Content::Directory(directory) => dirent::encoded_size(names(directory).map(|(name, _)| name)),
        Content::File(extent) => extent.size,
        Content::Symlink(target) => target.len() as u64,
        _ => 0,
    }
}

/// Returns all names in a directory in their order, each with its node, and `.` and `..` without one at their sorted
/// positions.
fn names(directory: &Directory) -> impl Iterator<Item = (&[u8], Option<NodeId>)> {
    let mut dots = [(&b"."[..], None), (b"..", None)].into_iter().peekable();
    let mut children = directory.children.iter().map(|(name, &id)| (name.as_bytes(), Some(id))).peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some(dot), Some(child)) if dot.0 < child.0 => dots.next(),
        (Some(_), None) => dots.next(),
        _ => children.next(),
    })
}

/// Returns the entries of a directory in the order of [`names`].
pub(crate) fn entries<'t>(
    tree: &'t Tree,
    plan: &Plan<'t>,
    inode: &Placement,
    directory: &'t Directory,
) -> Vec<dirent::Dirent<'t>> {
    let parent = &plan.inodes[inode.parent];
    names(directory)
        .map(|(name, child)| {
            let (slot, kind) = match child {
                Some(child) => (plan.slot_of(child), tree.get(child).content.kind()),
                None if name == b"." => (inode.slot, FileKind::Directory),
                None => (parent.slot, FileKind::Directory),
            };
            dirent::Dirent { name, nid: crate::format::Nid(slot), kind }
        })
        .collect()
}

/// Sets the position of a file's data, and returns the number of bytes behind its inode.
fn place_file(inode: &mut Placement, extent: &Extent, fixed: u64, chunked: bool) -> u64 {
    if extent.size == 0 {
        inode.start = 0;
        return 0;
    }
    if !chunked {
        inode.start = extent.start.0;
        return 0;
    }
    inode.layout = DataLayout::ChunkBased;
    let format = ChunkFormat::for_size(extent.size);
    let chunks = extent.size.div_ceil(format.chunk_size());
    fixed.next_multiple_of(format.entry_size()) - fixed + chunks * format.entry_size()
}

fn fits_compact(metadata: &Metadata, inode: &Placement, build_time: Timestamp) -> bool {
    could_be_compact(metadata, inode) && metadata.mtime == build_time
}

fn could_be_compact(metadata: &Metadata, inode: &Placement) -> bool {
    let small = |value: u32| value <= u32::from(u16::MAX);
    small(metadata.uid) && small(metadata.gid) && small(inode.nlink) && inode.size <= u64::from(u32::MAX)
}

/// Returns the time that makes the most inodes compact. Of several such times, it is the earliest.
fn most_common_time(tree: &Tree, inodes: &[Placement]) -> Timestamp {
    let mut counts = BTreeMap::new();
    for inode in inodes {
        let metadata = &tree.get(inode.node).metadata;
        if could_be_compact(metadata, inode) {
            *counts.entry(metadata.mtime).or_insert(0u32) += 1;
        }
    }
    let most = counts.values().copied().max();
    counts.into_iter().find(|(_, count)| Some(*count) == most).map_or(Timestamp::EPOCH, |(time, _)| time)
}

/// The extended attributes that several inodes share, and the position of each.
#[derive(Default)]
pub(crate) struct SharedXattrs<'t> {
    /// The distance from the beginning in units of 4 bytes, by name and value.
    ids: BTreeMap<(&'t XattrName, &'t [u8]), u32>,
    /// The size of all entries, in bytes.
    size: u64,
}

impl<'t> SharedXattrs<'t> {
    fn new(tree: &'t Tree, inodes: &[Placement]) -> Self {
        let mut uses: BTreeMap<_, u32> = BTreeMap::new();
        for inode in inodes {
            for xattr in &tree.get(inode.node).metadata.xattrs {
                *uses.entry(xattr).or_default() += 1;
            }
        }
        let mut shared = Self::default();
        for ((name, value), count) in uses {
            let Ok(id) = u32::try_from(shared.size / 4) else { break };
            if count > 1 {
                shared.ids.insert((name, value), id);
                shared.size += entry_size(name, value) as u64;
            }
        }
        shared
    }

    /// Returns the entries in the order in which they are stored.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'t XattrName, &'t [u8])> {
        let mut entries: Vec<_> = self.ids.iter().collect();
        entries.sort_unstable_by_key(|(_, id)| **id);
        entries.into_iter().map(|(entry, _)| *entry)
    }

    /// Splits `xattrs` into the numbers of shared entries and the entries that are not shared.
    pub(crate) fn split<'x>(&self, xattrs: &'x Xattrs) -> (Vec<u32>, Vec<(&'x XattrName, &'x [u8])>) {
        let (mut ids, mut own) = (Vec::new(), Vec::new());
        for xattr in xattrs {
            match self.ids.get(&xattr) {
                Some(&id) if ids.len() < MAX_SHARED_XATTRS => ids.push(id),
                _ => own.push(xattr),
            }
        }
        (ids, own)
    }

    /// Returns the size in bytes of the attributes beside an inode with `xattrs`.
    fn body_size(&self, xattrs: &Xattrs) -> u64 {
        if xattrs.is_empty() {
            return 0;
        }
        let (ids, own) = self.split(xattrs);
        let own: usize = own.into_iter().map(|(name, value)| entry_size(name, value)).sum();
        (XATTR_HEADER_SIZE + 4 * ids.len() + own) as u64
    }
}
