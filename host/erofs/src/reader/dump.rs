//! An image as text, for people.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{Extent, Image, Inode, Place, ReadAt, ReadError};
use crate::format::{DataLayout, InodeForm};
use crate::metadata::FileKind;
use crate::path::shown;

/// Writes an image as text: one line for its superblock, each device and each entry, in the order of a
/// [walk](Image::walk). The line of an entry says if part of the entry cannot be read. The walk ends with the first
/// entry that it cannot pass, which is the last line. The text is for people, and may change in any version.
///
/// # Errors
///
/// The errors of `out`.
pub fn dump<S: ReadAt>(image: &Image<S>, out: &mut dyn Write) -> io::Result<()> {
    let superblock = image.superblock();
    writeln!(
        out,
        "superblock: {} blocks, {} inodes, metadata at {}, shared xattrs at {}, root {}, features {:#x} {:#x}, \
         build time {}.{:09}",
        superblock.blocks,
        superblock.inodes,
        superblock.meta_start.0,
        superblock.xattr_start.0,
        superblock.root_nid,
        superblock.feature_compat,
        superblock.feature_incompat,
        superblock.build_time.seconds(),
        superblock.build_time.nanoseconds(),
    )?;
    for (index, device) in image.devices().iter().enumerate() {
        writeln!(
            out,
            "device {}: {} blocks, mapped at {}, {}",
            index + 1,
            device.blocks,
            device.mapped.0,
            device.tag
        )?;
    }
    for entry in image.walk() {
        match entry {
            Ok(entry) => writeln!(out, "{} {}", entry.path, describe(image, &entry.inode))?,
            Err(error) => writeln!(out, "{} cannot be read: {}", error.path, error.source)?,
        }
    }
    Ok(())
}

fn describe<S: ReadAt>(image: &Image<S>, inode: &Inode) -> String {
    let mut text = format!(
        "#{} {} {:04o} {}:{} links {} size {} time {}.{:09}",
        inode.nid().0,
        kind(inode),
        inode.permissions().bits(),
        inode.uid(),
        inode.gid(),
        inode.nlink(),
        inode.size(),
        inode.mtime().seconds(),
        inode.mtime().nanoseconds(),
    );
    if inode.form() == InodeForm::Compact {
        text += " compact";
    }
    if inode.layout() == DataLayout::FlatInline {
        text += " inline";
    }
    if let Err(error) = describe_rest(image, inode, &mut text) {
        let _ = write!(text, " ({error})");
    }
    text
}

fn describe_rest<S: ReadAt>(image: &Image<S>, inode: &Inode, text: &mut String) -> Result<(), ReadError> {
    if let Some(number) = inode.device_number() {
        let _ = write!(text, " {}/{}", number.major(), number.minor());
    }
    for (name, value) in &image.xattrs(inode)? {
        let _ = write!(text, " {name}={}", shown(value));
    }
    match inode.kind() {
        FileKind::Symlink => {
            let _ = write!(text, " -> {}", shown(&image.link_target(inode)?));
        }
        FileKind::Regular => {
            for extent in image.extents(inode)? {
                let Extent { length, place, .. } = extent?;
                let _ = match place {
                    Place::Hole => write!(text, " [hole, {length}]"),
                    Place::Device { device, position } => {
                        write!(text, " [device {device} at {position}, {length}]")
                    }
                };
            }
        }
        _ => {}
    }
    Ok(())
}

fn kind(inode: &Inode) -> &'static str {
    match inode.kind() {
        FileKind::Regular => "file",
        FileKind::Directory if inode.is_implied() => "implied directory",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice if inode.is_whiteout() => "whiteout",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}
