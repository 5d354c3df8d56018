//! The files that join the layers of an image: compares its fsmeta image and its VMDK descriptor with the layers.
//!
//! The device table of an fsmeta image has a slot for each layer, bottom to top, with the number of blocks and their
//! position when all layers are joined to one disk. Larder writes the layer's diff ID as the tag of the slot, and
//! microsandbox leaves the tag empty. The descriptor joins the fsmeta image and then the layers, each as long as its
//! file.

use std::fs::File;
use std::io;
use std::path::Path;

use larder_erofs::format::{BLOCK_SIZE, DeviceSlot};
use larder_erofs::reader::{Image, ReadAt, check};
use larder_erofs::vmdk::{self, JoinedFile};

use super::examine::{Examiner, Fault, fault_in, sound_image};
use super::{Composition, FindingKind, VerifyDepth};
use crate::artifacts::unowned::FLAT_REFS;
use crate::artifacts::{Entry, Room, open_dir, stat_at};
use crate::reference::RowDigest;

impl Composition {
    /// Returns the files of its layers, with `None` for a layer whose diff ID is invalid.
    fn files(&self) -> impl Iterator<Item = Option<Entry>> + '_ {
        self.layers.iter().map(|layer| layer.known().map(|diff_id| Entry::named(Room::Layers, diff_id)))
    }
}

fn wrong_layers(detail: String) -> Fault {
    Fault::new(FindingKind::WrongLayers, detail)
}

impl Examiner<'_> {
    pub(super) fn fsmeta(&mut self, entry: &Entry, image: &Composition) -> Result<(), Fault> {
        let file = match self.open(entry, image.manifest.as_str()) {
            Err(fault) if fault.kind == FindingKind::Missing && self.is_flat_only(image)? => return Ok(()),
            opened => opened?,
        };
        let fsmeta = sound_image(&file)?;
        let slots = fsmeta.devices();
        if slots.len() != image.layers.len() {
            let (found, expected) = (slots.len(), image.layers.len());
            return Err(wrong_layers(format!("it joins {found} layers, the image has {expected}")));
        }
        let mut mapped = u64::from(fsmeta.superblock().blocks);
        for (position, (slot, layer)) in slots.iter().zip(image.files()).enumerate() {
            let blocks = layer.and_then(|layer| self.blocks_of(&layer));
            check_slot(slot, blocks, mapped, &image.layers[position], position)?;
            mapped += u64::from(slot.blocks);
        }
        if self.depth == VerifyDepth::Deep {
            let devices = slots.iter().map(|slot| Source::Layer(u64::from(slot.blocks) * BLOCK_SIZE as u64));
            let whole = Image::open_with_devices(Source::Fsmeta(&file), devices.collect());
            let whole = whole.map_err(|error| Fault::damaged(&error))?;
            check(&whole).map_err(fault_in)?;
            self.read_all(&file)?;
        }
        Ok(())
    }

    pub(super) fn descriptor(&mut self, entry: &Entry, image: &Composition) -> Result<(), Fault> {
        let text = match self.read(entry, image.manifest.as_str()) {
            Err(fault) if fault.kind == FindingKind::Missing && self.is_flat_only(image)? => return Ok(()),
            read => read?,
        };
        let text = String::from_utf8_lossy(&text);
        let files = vmdk::files(&text).map_err(|error| match error {
            vmdk::ParseError::Header => Fault::new(FindingKind::WrongMagic, "it is no VMDK descriptor"),
            error => Fault::damaged(&error),
        })?;
        let expected =
            std::iter::once(Some(Entry::named(Room::Fsmeta, &image.manifest))).chain(image.files());
        let expected: Vec<Option<Entry>> = expected.collect();
        if files.len() != expected.len() {
            let (found, expected) = (files.len(), expected.len());
            return Err(wrong_layers(format!("it joins {found} files, the image has {expected}")));
        }
        for (position, (file, expected)) in files.iter().zip(expected).enumerate() {
            // A row whose digest is none names no file.
            let Some(expected) = expected else { continue };
            self.check_joined(file, &expected, position)?;
        }
        Ok(())
    }

    /// Compares a file of a descriptor with the expected file at this position.
    fn check_joined(&mut self, file: &JoinedFile, expected: &Entry, position: usize) -> Result<(), Fault> {
        let number = position + 1;
        if file.path.file_name().is_none_or(|name| name != expected.name.as_str()) {
            let path = expected.path();
            return Err(wrong_layers(format!("file {number} is not `{}`", path.display())));
        }
        if !self.is_room(file.path.parent().unwrap_or(Path::new("")), expected.room) {
            let path = file.path.display();
            return Err(wrong_layers(format!("file {number} is `{path}`, which is not in this cache")));
        }
        // What is missing or damaged is a finding of its own.
        if let Some(blocks) = self.blocks_of(expected)
            && u64::from(blocks) * BLOCK_SIZE as u64 != file.length
        {
            let found = u64::from(blocks) * BLOCK_SIZE as u64;
            let expected = file.length;
            return Err(wrong_layers(format!(
                "file {number} has {found} bytes, the descriptor says {expected}"
            )));
        }
        Ok(())
    }

    /// Returns whether a path leads to a room of this cache.
    fn is_room(&mut self, path: &Path, room: Room) -> bool {
        let key = (path.to_owned(), room);
        if let Some(&known) = self.directories.get(&key) {
            return known;
        }
        let same = || {
            let there = stat_at(open_dir(path).ok()??, ".").ok()??;
            let here = stat_at(&self.rooms.get(room)?.directory, ".").ok()??;
            Some((there.device, there.identity.inode) == (here.device, here.identity.inode))
        };
        let same = same().unwrap_or(false);
        self.directories.insert(key, same);
        same
    }

    /// Returns whether an image exists only as a flat disk.
    fn is_flat_only(&self, image: &Composition) -> io::Result<bool> {
        for entry in &Entry::joined(&image.manifest) {
            if self.rooms.stat(entry)?.is_some() {
                return Ok(false);
            }
        }
        let Some(records) = self.cache.open_plain(Path::new(FLAT_REFS))? else { return Ok(false) };
        let name = format!("sha256_{}.json", image.manifest.hex());
        Ok(stat_at(records, name)?.is_some_and(|stat| stat.is_file))
    }
}

/// Compares a slot of the device table with the layer at this position. `mapped` is the expected beginning of the
/// layer behind the fsmeta image and the earlier layers, in blocks.
fn check_slot(
    slot: &DeviceSlot,
    blocks: Option<u32>,
    mapped: u64,
    layer: &RowDigest,
    position: usize,
) -> Result<(), Fault> {
    let number = position + 1;
    let tag = slot.tag.to_string();
    // A tag that is no digest says nothing about which layer it is.
    let is_digest = tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(diff_id) = layer.known().filter(|diff_id| is_digest && diff_id.hex() != tag) {
        return Err(wrong_layers(format!("layer {number} is `sha256:{tag}` and not `{diff_id}`")));
    }
    // What is missing or damaged is a finding of its own.
    if let Some(blocks) = blocks.filter(|&blocks| blocks != slot.blocks) {
        let expected = slot.blocks;
        return Err(wrong_layers(format!(
            "layer {number} has {blocks} blocks, the device table says {expected}"
        )));
    }
    let begins = u64::from(slot.mapped.0);
    if begins != 0 && begins != mapped {
        let detail = format!("layer {number} begins at block {mapped}, the device table says {begins}");
        return Err(wrong_layers(detail));
    }
    Ok(())
}

/// A source for checking an fsmeta image: only the length of its layers needs to be known.
enum Source<'a> {
    Fsmeta(&'a File),
    /// A layer of this many bytes.
    Layer(u64),
}

impl ReadAt for Source<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Fsmeta(file) => file.read_exact_at(buffer, offset),
            // Data lies there, which is read with the layer.
            Self::Layer(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Fsmeta(file) => file.length(),
            Self::Layer(bytes) => Ok(*bytes),
        }
    }
}
