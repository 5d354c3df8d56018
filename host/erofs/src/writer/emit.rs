//! Writing what was planned, in the order of the image.

use std::convert::Infallible;
use std::io::{self, Seek, Write};

use super::layout::{self, Placement, Plan};
use super::sink::Sink;
use super::tree::{Content, NodeId, Tree};
use super::{Options, Summary, WriteError};
use crate::format::device::{DEVICE_SLOT_SIZE, DEVICE_TABLE_SLOT};
use crate::format::{
    BLOCK, BLOCK_SIZE, BlockAddr, ChunkFormat, ChunkIndex, DataLayout, DeviceSlot, InodeForm, InodeRecord,
    SLOT_SIZE, Superblock, dirent, feature_compat, feature_incompat, xattr,
};

/// The inode number that marks a directory without an entry. Linux does not use it.
pub(crate) const IMPLIED_INO: u32 = u32::MAX;

/// Returns the number of blocks that the superblock and `devices` slots take.
pub(crate) fn header_blocks(devices: u16) -> u32 {
    let slots = usize::from(DEVICE_TABLE_SLOT) + usize::from(devices);
    (slots * DEVICE_SLOT_SIZE).div_ceil(BLOCK_SIZE) as u32
}

/// Writes the metadata at the end of the sink, and the header over its beginning.
pub(crate) fn finish<W: Write + Seek>(
    mut sink: Sink<W>,
    tree: &Tree,
    plan: &Plan<'_>,
    options: Options,
    devices: &[DeviceSlot],
) -> Result<(W, Summary), WriteError> {
    write_metadata(&mut sink, tree, plan).map_err(WriteError::Write)?;
    let summary = Summary { blocks: plan.blocks, inodes: plan.inodes.len() as u64 };
    let sink = sink.finish(&header(plan, options, devices)).map_err(WriteError::Write)?;
    Ok((sink, summary))
}

/// Returns the superblock and the device table, as whole blocks.
fn header(plan: &Plan<'_>, options: Options, devices: &[DeviceSlot]) -> Vec<u8> {
    let count = devices.len() as u16;
    let mut header = vec![0; header_blocks(count) as usize * BLOCK_SIZE];
    let table = &mut header[usize::from(DEVICE_TABLE_SLOT) * DEVICE_SLOT_SIZE..];
    for (slot, device) in table.chunks_exact_mut(DEVICE_SLOT_SIZE).zip(devices) {
        slot.copy_from_slice(&device.encode());
    }
    let superblock = Superblock {
        feature_compat: feature_compat::CHECKSUM | feature_compat::MTIME,
        feature_incompat: match count {
            0 => 0,
            _ => feature_incompat::CHUNKED_FILE | feature_incompat::DEVICE_TABLE,
        },
        root_nid: plan.slot_of(NodeId::ROOT) as u16,
        inodes: plan.inodes.len() as u64,
        build_time: plan.build_time,
        blocks: plan.blocks,
        meta_start: BlockAddr(plan.meta_start),
        xattr_start: BlockAddr(plan.xattr_start),
        uuid: options.uuid,
        volume_name: [0; 16],
        extra_devices: count,
        device_table_slot: if count == 0 { 0 } else { DEVICE_TABLE_SLOT },
        xattr_prefix_count: 0,
        xattr_prefix_start: 0,
    };
    if let Some(first) = header.first_chunk_mut() {
        superblock.encode(first);
    }
    header
}

fn write_metadata<W: Write + Seek>(sink: &mut Sink<W>, tree: &Tree, plan: &Plan<'_>) -> io::Result<()> {
    for inode in &plan.inodes {
        write_blocks(sink, tree, plan, inode)?;
    }
    let mut bytes = Vec::new();
    for (name, value) in plan.shared.iter() {
        bytes.clear();
        xattr::encode_entry(name, value, &mut bytes);
        sink.write(&bytes)?;
    }
    sink.pad_to_block()?;
    for (index, inode) in plan.inodes.iter().enumerate() {
        bytes.clear();
        encode_inode(tree, plan, index, inode, &mut bytes);
        sink.pad_to(BlockAddr(plan.meta_start).offset() + inode.slot * SLOT_SIZE)?;
        sink.write(&bytes)?;
    }
    sink.pad_to_block()
}

/// Writes the whole blocks of a directory's or symlink's content.
fn write_blocks<W: Write + Seek>(
    sink: &mut Sink<W>,
    tree: &Tree,
    plan: &Plan<'_>,
    inode: &Placement,
) -> io::Result<()> {
    match &tree.get(inode.node).content {
        Content::Directory(directory) => {
            let inline = inode.layout == DataLayout::FlatInline;
            if inline && inode.size < BLOCK {
                return Ok(());
            }
            dirent::encode(&layout::entries(tree, plan, inode, directory), |block| {
                if block.len() == BLOCK_SIZE || !inline { sink.write(block) } else { Ok(()) }
            })?;
            sink.pad_to_block()
        }
        Content::Symlink(target) if inode.layout == DataLayout::FlatPlain => {
            sink.write(target)?;
            sink.pad_to_block()
        }
        _ => Ok(()),
    }
}

/// Encodes an inode with everything that is behind it.
fn encode_inode(tree: &Tree, plan: &Plan<'_>, index: usize, inode: &Placement, out: &mut Vec<u8>) {
    let node = tree.get(inode.node);
    let mut body = Vec::new();
    if !node.metadata.xattrs.is_empty() {
        let (shared, own) = plan.shared.split(&node.metadata.xattrs);
        xattr::encode_header(&shared, &mut body);
        for (name, value) in own {
            xattr::encode_entry(name, value, &mut body);
        }
    }
    let implied = matches!(&node.content, Content::Directory(directory) if directory.implied);
    let record = InodeRecord {
        form: inode.form,
        layout: inode.layout,
        xattr_count: xattr::body_count(body.len()),
        mode: node.content.kind().mode_bits() | node.metadata.permissions.bits(),
        nlink: inode.nlink,
        size: inode.size,
        union: match (&node.content, inode.layout) {
            (Content::CharDevice(number) | Content::BlockDevice(number), _) => number.encode(),
            (Content::Fifo | Content::Socket, _) => 0,
            (_, DataLayout::ChunkBased) => ChunkFormat::for_size(inode.size).encode(),
            _ => inode.start,
        },
        ino: if implied { IMPLIED_INO } else { index as u32 + 1 },
        uid: node.metadata.uid,
        gid: node.metadata.gid,
        mtime: (inode.form == InodeForm::Extended).then_some(node.metadata.mtime),
    };
    record.encode(out);
    out.extend_from_slice(&body);
    match (&node.content, inode.layout) {
        (Content::File(extent), DataLayout::ChunkBased) => {
            let format = ChunkFormat::for_size(extent.size);
            out.resize(out.len().next_multiple_of(format.entry_size() as usize), 0);
            for chunk in 0..extent.size.div_ceil(format.chunk_size()) {
                let start = u64::from(extent.start.0) + chunk * (format.chunk_size() / BLOCK);
                let index = ChunkIndex { device: extent.device, start: u32::try_from(start).ok() };
                out.extend(index.encode());
            }
        }
        (Content::Directory(directory), DataLayout::FlatInline) => {
            let entries = layout::entries(tree, plan, inode, directory);
            let Ok(()) = dirent::encode(&entries, |block| {
                if block.len() < BLOCK_SIZE {
                    out.extend_from_slice(block);
                }
                Ok::<(), Infallible>(())
            });
        }
        (Content::Symlink(target), DataLayout::FlatInline) => out.extend_from_slice(target),
        _ => {}
    }
}
