//! The entries of a layer's archive as entries of its image.
//!
//! Names are relative to the root of the layer: a leading slash counts for nothing, and `..` is refused. A parent that is
//! a symbolic link of the same layer is followed, and so is one above the target of a hard link: only names of the image
//! are looked up, and nothing leads out of its root.
//!
//! An entry of a type that no image has is left out and counted: volume labels and other records of a vendor's tar. POSIX
//! has readers take unknown types for files, which would put files into the image that were none.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use larder_erofs::layer::{Kept, LayerBuilder, LayerError};
use larder_erofs::writer::{Encoding, Entry, Options, WriteError};
use larder_erofs::{
    DeviceNumber, EntryPath, Metadata, Permissions, Timestamp, XattrError, XattrName, Xattrs,
};

use super::streams::ImageFile;
use super::{Converted, Skipped, uuid_of};
use crate::ingest::account::Account;
use crate::ingest::error::{IngestError, IngestProblem};
use crate::ingest::tar::{SparseReader, TarEntry, TarKind, TarStream};
use crate::ingest::whiteout::Meaning;
use crate::reference::Digest;

/// The number that is no user or group: an owner that is not to be changed.
const UNCHANGED: u32 = u32::MAX;

/// The bytes that the extended attributes of an inode take in an image at most. Kernels before 6.4 count them in 16 bits,
/// with a header, and a directory may get the mark of an opaque one.
const MAX_XATTRS: usize = (64 << 10) - 64;

/// Writes the image of an archive.
pub(super) fn write_image(
    content: impl Read,
    file: File,
    diff_id: &Digest,
    origin: &str,
    account: &Account<'_>,
) -> Result<Converted, IngestError> {
    let fail = |problem: IngestProblem| problem.of(origin);
    let options = Options { encoding: Encoding::Simple, uuid: uuid_of(diff_id) };
    let builder =
        LayerBuilder::new(ImageFile { file, account }, options).map_err(|error| fail(of_write(error)))?;
    let mut layer = Layer { builder, aufs_links: HashMap::new(), skipped: Skipped::default() };
    let mut archive = TarStream::new(content);
    let (mut entries, mut held) = (0_u64, 0_u64);
    let mut last: Option<Vec<u8>> = None;
    loop {
        let next = archive.next_entry().map_err(|problem| {
            let last = last.take().filter(|_| matches!(problem, IngestProblem::Truncated));
            last.iter().fold(fail(problem), |error, last| error.at_entry(last))
        })?;
        let Some(mut entry) = next else { break };
        let name = std::mem::take(&mut entry.path);
        entries += 1;
        held += (name.len() + entry.metadata_bytes()) as u64;
        // A long name can make two thousand directories.
        let added = account
            .holds(entries.max(layer.builder.inodes()), held)
            .and_then(|()| account.has(entry.hole_bytes()))
            .and_then(|()| layer.add(&mut archive, &name, entry));
        added.map_err(|problem| fail(problem).at_entry(&name))?;
        last = Some(name);
    }
    let (_, summary) = layer.builder.finish().map_err(|error| fail(of_write(error)))?;
    Ok(Converted { summary, skipped: layer.skipped })
}

/// A layer while its entries are added.
struct Layer<'a> {
    builder: LayerBuilder<ImageFile<'a>>,
    /// The files that AUFS kept for hard links.
    aufs_links: HashMap<Vec<u8>, Kept>,
    skipped: Skipped,
}

impl Layer<'_> {
    fn add<R: Read>(
        &mut self,
        archive: &mut TarStream<R>,
        name: &[u8],
        mut entry: TarEntry,
    ) -> Result<(), IngestProblem> {
        if let TarKind::Other(kind) = entry.kind {
            self.skipped.count += 1;
            if !self.skipped.types.contains(&kind) {
                self.skipped.types.push(kind);
            }
            return Ok(());
        }
        let path = EntryPath::parse_from_root(name);
        let path = path.map_err(|error| IngestProblem::Entry(error.to_string()))?;
        let path = self.builder.resolve(&path).map_err(of_write)?;
        let sparse = entry.sparse.take();
        let stored = entry.stored;
        let metadata = metadata(&entry)?;
        let mut data = archive.data();
        let mut holes;
        let (size, data): (u64, &mut dyn Read) = match sparse {
            Some((size, regions)) => {
                holes = SparseReader::new(data, size, regions);
                (size, &mut holes)
            }
            None => (stored, &mut data),
        };
        match Meaning::of(&path)? {
            Meaning::Entry => {}
            Meaning::Whiteout(path) => {
                return self.builder.whiteout(&path, metadata.mtime).map_err(of_layer);
            }
            Meaning::Opaque(directory) => return self.builder.opaque(&directory).map_err(of_layer),
            Meaning::AufsLink(link) if entry.kind == TarKind::File => {
                let kept = self.builder.keep(&path, metadata, size, data).map_err(of_layer)?;
                self.aufs_links.insert(link, kept);
                return Ok(());
            }
            Meaning::AufsLink(_) | Meaning::Ignored => return Ok(()),
        }
        let entry = match &entry.kind {
            TarKind::HardLink(target) => return self.hard_link(&path, target),
            TarKind::File => Entry::File { size, data },
            TarKind::Directory => Entry::Directory,
            TarKind::Symlink(target) => Entry::Symlink(target),
            &TarKind::CharDevice(major, minor) => Entry::CharDevice(device(major, minor)?),
            &TarKind::BlockDevice(major, minor) => Entry::BlockDevice(device(major, minor)?),
            TarKind::Fifo | TarKind::Other(_) => Entry::Fifo,
        };
        self.builder.add(&path, metadata, entry).map(drop).map_err(of_layer)
    }

    fn hard_link(&mut self, path: &EntryPath, target: &[u8]) -> Result<(), IngestProblem> {
        let target = EntryPath::parse_from_root(target)
            .map_err(|error| IngestProblem::Entry(format!("it is a hard link, and its target {error}")))?;
        if let Ok(Meaning::AufsLink(link)) = Meaning::of(&target)
            && let Some(kept) = self.aufs_links.get(&link)
        {
            return self.builder.link_kept(path, *kept).map(drop).map_err(of_layer);
        }
        let target = self.builder.resolve(&target).map_err(of_write)?;
        self.builder.hard_link(path, &target).map(drop).map_err(of_layer)
    }
}

fn device(major: i64, minor: i64) -> Result<DeviceNumber, IngestProblem> {
    let number = u32::try_from(major).ok().zip(u32::try_from(minor).ok());
    let number = number.and_then(|(major, minor)| DeviceNumber::new(major, minor));
    number.ok_or_else(|| IngestProblem::Entry(format!("Linux has no device {major}/{minor}")))
}

/// Returns the owner of an entry. Numbers below zero are those of systems that count so: -2 is 4294967294. The owner -1
/// is none, and the file stays with root, as `chown` leaves it.
fn owner(id: i64) -> Result<u32, IngestProblem> {
    let id = u32::try_from(id)
        .or_else(|_| i32::try_from(id).map(i32::cast_unsigned))
        .map_err(|_| IngestProblem::Entry(format!("Linux has no user or group {id}")))?;
    Ok(if id == UNCHANGED { 0 } else { id })
}

fn metadata(entry: &TarEntry) -> Result<Metadata, IngestProblem> {
    let (seconds, nanoseconds) = entry.mtime;
    let mut xattrs = Xattrs::new();
    for (name, value) in &entry.xattrs {
        // Marks of overlayfs come from whiteouts alone: in a layer they could show what lies elsewhere.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        match XattrName::parse(name) {
            Ok(name) => xattrs.set(name, value).map_err(|error| IngestProblem::Entry(error.to_string()))?,
            // Attributes of other file systems mean nothing in this one.
            Err(XattrError::Namespace(_)) => {}
            Err(error) => return Err(IngestProblem::Entry(error.to_string())),
        }
    }
    if xattrs.size() > MAX_XATTRS {
        let size = xattrs.size();
        let problem = format!("its extended attributes take {size} bytes, and at most {MAX_XATTRS} are read");
        return Err(IngestProblem::Entry(problem));
    }
    Ok(Metadata {
        permissions: Permissions::from_mode(entry.mode),
        uid: owner(entry.uid)?,
        gid: owner(entry.gid)?,
        mtime: Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::EPOCH),
        xattrs,
    })
}

fn of_layer(error: LayerError) -> IngestProblem {
    match error {
        LayerError::Write(error) => of_write(error),
        LayerError::Opaque { path, source } => {
            IngestProblem::Entry(format!("`{path}` cannot be made opaque: {source}"))
        }
        other => IngestProblem::Entry(other.to_string()),
    }
}

fn of_write(error: WriteError) -> IngestProblem {
    match error {
        WriteError::Write(source) => IngestProblem::writing(source),
        WriteError::Data { source, .. } => IngestProblem::reading(source),
        WriteError::ShortData { .. } => IngestProblem::Truncated,
        other => IngestProblem::Entry(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Owners below zero are those of systems that count so, and -1 is none.
    #[test]
    fn owners() {
        for (id, expected) in [
            (0, Some(0)),
            (4_294_967_294, Some(4_294_967_294)),
            (-2, Some(4_294_967_294)),
            (-1, Some(0)),
            (4_294_967_295, Some(0)),
            (4_294_967_296, None),
            (i64::from(i32::MIN) - 1, None),
        ] {
            assert_eq!(owner(id).ok(), expected, "{id}");
        }
    }
}
