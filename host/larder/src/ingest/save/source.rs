//! The source of a save: images of the index, and their files under leases.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rusqlite::Connection;

use super::SaveError;
use crate::artifacts::lease::SharedLeases;
use crate::artifacts::plain::{MAX_METADATA, open_file_at, read_at};
use crate::artifacts::{CacheDir, Entry, Room, Rooms};
use crate::catalog::read;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::ingest::metadata::KeptMetadata;
use crate::records::{ImageDetail, ImageLayerDetail};
use crate::reference::{Digest, Reference};

/// An image to save.
#[derive(Debug)]
pub(super) struct Target {
    /// The references in the spelling of the index, at least one.
    pub(super) references: Vec<String>,
    /// The names for the archive.
    pub(super) tags: Vec<String>,
    /// The digest of the image's manifest.
    pub(super) manifest_digest: String,
}

/// An image with leases, so that no process deletes its files.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) detail: ImageDetail,
    /// The metadata. Absent if the file is missing or damaged.
    pub(super) metadata: Option<KeptMetadata>,
    _leases: SharedLeases,
}

/// Returns the images of these references in their order, with the references of one manifest together.
pub(super) fn resolve(connection: &Connection, references: &[String]) -> MicrosandboxResult<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for reference in references {
        let handle = read::get(connection, reference)?;
        let Some(manifest_digest) = handle.manifest_digest else {
            return Err(SaveError::NoManifest { reference: handle.reference }.into());
        };
        let tag = handle.reference.parse::<Reference>()?.tagged().map(str::to_owned);
        let known = targets.iter().position(|target| target.manifest_digest == manifest_digest);
        let target = match known {
            Some(index) => &mut targets[index],
            None => {
                targets.push(Target { references: Vec::new(), tags: Vec::new(), manifest_digest });
                // Just pushed.
                let last = targets.len() - 1;
                &mut targets[last]
            }
        };
        if !target.references.contains(&handle.reference) {
            target.references.push(handle.reference);
        }
        target.tags.extend(tag.filter(|tag| !target.tags.contains(tag)));
    }
    if targets.is_empty() { Err(SaveError::NoReferences.into()) } else { Ok(targets) }
}

impl Target {
    /// Takes the leases of the image's files, and then reads its records.
    pub(super) fn hold(
        &self,
        connection: &Connection,
        rooms: &Rooms,
        cache: &CacheDir,
        cancelled: &AtomicBool,
    ) -> MicrosandboxResult<Held> {
        // There is one at least: `resolve` makes no target without.
        let reference = self.references.first().map_or("", String::as_str);
        let before = self.inspect(connection, reference)?;
        let metadata = Entry::metadata(&reference.parse()?);
        let entries = before.layers.iter().filter_map(|layer| Entry::of_digest(Room::Layers, &layer.diff_id));
        let entries: Vec<Entry> = entries.chain([metadata.clone()]).collect();
        let leases = SharedLeases::hold(rooms, &entries, cancelled).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => super::interrupted(),
            _ => MicrosandboxError::io("lock", cache.root())(error),
        })?;
        let detail = self.inspect(connection, reference)?;
        if detail.layers != before.layers {
            return Err(SaveError::Changed { reference: reference.to_owned() }.into());
        }
        let room = rooms.get(metadata.room);
        let text = room.and_then(|room| read_at(&room.directory, metadata.name.as_ref(), MAX_METADATA).ok());
        let metadata = text.and_then(|text| KeptMetadata::parse(&text)?.about(&self.manifest_digest));
        Ok(Held { detail, metadata, _leases: leases })
    }

    fn inspect(&self, connection: &Connection, reference: &str) -> MicrosandboxResult<ImageDetail> {
        match read::inspect(connection, reference) {
            Ok(detail) if detail.handle.manifest_digest() == Some(self.manifest_digest.as_str()) => {
                Ok(detail)
            }
            Ok(_) | Err(MicrosandboxError::ImageNotFound(_)) => {
                Err(SaveError::Changed { reference: reference.to_owned() }.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// Opens the artifact of a layer. Returns it with its path and length. The length is checked against the
/// superblock when the artifact is read, because the index may have another one: microsandbox does not
/// measure what it builds again.
pub(super) fn layer_file(
    rooms: &Rooms,
    cache: &CacheDir,
    reference: &str,
    layer: &ImageLayerDetail,
) -> MicrosandboxResult<(PathBuf, File, u64)> {
    let diff_id: Digest = layer.diff_id.parse()?;
    let entry = Entry::of(Room::Layers, diff_id.hex());
    let path = cache.path_of(&entry);
    let stat = rooms.stat(&entry).map_err(MicrosandboxError::io("look at", &path))?;
    let Some(stat) = stat else {
        return Err(SaveError::Missing { reference: reference.to_owned(), path }.into());
    };
    if !stat.is_file {
        let what = "it is not a regular file".to_owned();
        return Err(SaveError::Damaged { reference: reference.to_owned(), path, what }.into());
    }
    let room = rooms.get(entry.room).ok_or_else(|| io::ErrorKind::NotFound.into());
    let file = room.and_then(|room| open_file_at(&room.directory, entry.name.as_ref()));
    let file = file.map_err(MicrosandboxError::io("open", &path))?;
    Ok((path, file, stat.identity.size))
}
