//! The examination of one file: compares it with what its name says.
//!
//! Files are opened relative to their directory, as regular files and without following links, and reads into memory
//! are bounded. Nothing in a file is trusted: [`larder_erofs::reader`] checks everything that it reads.
//!
//! The length of an EROFS image is compared with its own superblock. The index has a column for the length, but only
//! Larder fills it, and it is outdated after microsandbox has built an artifact again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_erofs::format::{BLOCK_SIZE, FormatError};
use larder_erofs::reader::{Image, ReadError, WalkError, check};

use super::{FindingKind, Named, VerifyDepth};
use crate::artifacts::plain::{MAX_METADATA, open_file_at, read_at};
use crate::artifacts::{CacheDir, Entry, Room, RoomDir, Rooms};
use crate::reference::Digest;

/// The reason why a file is not what its name says.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: FindingKind,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(kind: FindingKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub(super) fn damaged(error: &dyn std::error::Error) -> Self {
        Self::new(FindingKind::Damaged, chain(error))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::InvalidInput => FindingKind::NotAFile,
            io::ErrorKind::FileTooLarge => FindingKind::WrongSize,
            _ => FindingKind::Unreadable,
        };
        Self::new(kind, error.to_string())
    }
}

/// Returns an error and its sources in one text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// An examiner of files, one after the other.
pub(super) struct Examiner<'a> {
    pub(super) cache: &'a CacheDir,
    pub(super) rooms: &'a Rooms,
    pub(super) depth: VerifyDepth,
    /// Set if the caller cancelled the verification.
    cancelled: &'a AtomicBool,
    /// The number of blocks of each layer that was examined. Absent for a layer that is missing or damaged.
    blocks: HashMap<Entry, Option<u32>>,
    /// For a directory that a descriptor names: `true` if it is the expected room.
    pub(super) directories: HashMap<(PathBuf, Room), bool>,
}

impl<'a> Examiner<'a> {
    pub(super) fn new(
        cache: &'a CacheDir,
        rooms: &'a Rooms,
        depth: VerifyDepth,
        cancelled: &'a AtomicBool,
    ) -> Self {
        Self { cache, rooms, depth, cancelled, blocks: HashMap::new(), directories: HashMap::new() }
    }

    /// Examines a file that the index names.
    pub(super) fn examine(&mut self, file: &Named) -> Result<(), Fault> {
        match (file.entry.room, &file.image) {
            (Room::Layers, _) => self.layer(&file.entry, &file.owner),
            (Room::Fsmeta, Some(image)) => self.fsmeta(&file.entry, image),
            (Room::Vmdk, Some(image)) => self.descriptor(&file.entry, image),
            // Only manifests own files of these rooms.
            (Room::Fsmeta | Room::Vmdk, None) => Ok(()),
            (Room::Manifests, _) => self.metadata(&file.entry, &file.owner),
        }
    }

    /// Opens a file that is needed by `owner`.
    pub(super) fn open(&self, entry: &Entry, owner: &str) -> Result<File, Fault> {
        let room = self.room(entry, owner)?;
        open_file_at(&room.directory, entry.name.as_ref()).map_err(|error| fault_of_opening(error, owner))
    }

    /// Reads a small file that is needed by `owner`.
    pub(super) fn read(&self, entry: &Entry, owner: &str) -> Result<Vec<u8>, Fault> {
        let room = self.room(entry, owner)?;
        read_at(&room.directory, entry.name.as_ref(), MAX_METADATA)
            .map_err(|error| fault_of_opening(error, owner))
    }

    fn room(&self, entry: &Entry, owner: &str) -> Result<&RoomDir, Fault> {
        self.rooms.get(entry.room).ok_or_else(|| missing(owner))
    }

    /// Returns the number of blocks of a layer, if the layer was or can be examined.
    pub(super) fn blocks_of(&mut self, layer: &Entry) -> Option<u32> {
        if let Some(blocks) = self.blocks.get(layer) {
            return *blocks;
        }
        let file = self.open(layer, "").ok();
        let blocks = file.and_then(|file| sound_image(&file).ok().map(|image| image.superblock().blocks));
        self.blocks.insert(layer.clone(), blocks);
        blocks
    }

    fn layer(&mut self, entry: &Entry, owner: &str) -> Result<(), Fault> {
        let examined = self.examine_layer(entry, owner);
        self.blocks.insert(entry.clone(), examined.as_ref().ok().copied());
        examined.map(drop)
    }

    fn examine_layer(&self, entry: &Entry, owner: &str) -> Result<u32, Fault> {
        let file = self.open(entry, owner)?;
        let image = sound_image(&file)?;
        if !image.devices().is_empty() {
            return Err(Fault::new(FindingKind::Damaged, "a layer refers to no devices, and this one does"));
        }
        if self.depth == VerifyDepth::Deep {
            check(&image).map_err(fault_in)?;
            self.read_all(&file)?;
        }
        Ok(image.superblock().blocks)
    }

    /// Reads every byte, because only that finds a failing disk.
    pub(super) fn read_all(&self, mut file: &File) -> Result<(), Fault> {
        let mut buffer = vec![0; 256 << 10];
        // Whoever asked is told nothing any longer.
        while !self.cancelled.load(Ordering::Relaxed) && file.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn metadata(&self, entry: &Entry, owner: &str) -> Result<(), Fault> {
        #[derive(serde::Deserialize)]
        struct Metadata {
            manifest_digest: String,
            config_digest: String,
            raw_manifest_json: String,
            raw_config_json: String,
        }
        let text = self.read(entry, owner)?;
        let metadata = serde_json::from_slice::<Metadata>(&text)
            .map_err(|_| Fault::new(FindingKind::WrongMagic, "it is not the metadata of an image"))?;
        if self.depth == VerifyDepth::Shallow {
            return Ok(());
        }
        let parts = [
            ("manifest", metadata.raw_manifest_json, metadata.manifest_digest),
            ("config", metadata.raw_config_json, metadata.config_digest),
        ];
        match parts.into_iter().find(|(_, text, digest)| Digest::of(text.as_bytes()).as_str() != digest) {
            Some((part, _, digest)) => {
                Err(Fault::new(FindingKind::WrongDigest, format!("its {part} is not that of `{digest}`")))
            }
            None => Ok(()),
        }
    }
}

pub(super) fn missing(owner: &str) -> Fault {
    Fault::new(FindingKind::Missing, format!("`{owner}` needs it"))
}

fn fault_of_opening(error: io::Error, owner: &str) -> Fault {
    if error.kind() == io::ErrorKind::NotFound { missing(owner) } else { error.into() }
}

/// Opens an EROFS image whose superblock and root are valid and that is exactly as long as its superblock says.
pub(super) fn sound_image(file: &File) -> Result<Image<&File>, Fault> {
    let image = Image::open(file).map_err(|error| match error {
        ReadError::Io(error) => error.into(),
        ReadError::Superblock(FormatError::Magic) => {
            Fault::new(FindingKind::WrongMagic, "it has no EROFS superblock")
        }
        ReadError::Truncated { .. } => Fault::new(FindingKind::WrongSize, error.to_string()),
        error => Fault::damaged(&error),
    })?;
    let expected = u64::from(image.superblock().blocks) * BLOCK_SIZE as u64;
    if image.length() != expected {
        let detail = format!("it has {} bytes, its superblock says {expected}", image.length());
        return Err(Fault::new(FindingKind::WrongSize, detail));
    }
    image.root().map_err(fault_of)?;
    Ok(image)
}

fn fault_of(error: ReadError) -> Fault {
    match error {
        ReadError::Io(error) => error.into(),
        error => Fault::damaged(&error),
    }
}

/// Returns the fault that an error of a walk means.
pub(super) fn fault_in(error: WalkError) -> Fault {
    match error.source {
        ReadError::Io(error) => error.into(),
        _ => Fault::damaged(&error),
    }
}
