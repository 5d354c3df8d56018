//! Converting layers from EROFS images back to tar.
//!
//! Members are ordered by their paths, each directory directly before its content, so the same image produces the same
//! bytes. Removals are written as whiteouts of the OCI image specification: a character device 0/0 is `.wh.NAME`, and a
//! directory with `trusted.overlay.opaque=y` contains `.wh..wh..opq`. The first of several names of an inode is the
//! file, and the others are hard links to it. A directory that no entry of the original layer described has no entry
//! here either. A socket has no form in tar and is left out, as are extended attributes whose names cannot be keys of pax
//! headers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read as _, Write};

use larder_erofs::format::Nid;
use larder_erofs::reader::{Image, ReadAt, ReadError, WalkEntry, WalkError};
use larder_erofs::{EntryPath, FileKind, MAX_NAME, Metadata, Permissions, Xattrs};

use super::super::whiteout::{OPAQUE_MARKER, WHITEOUT_PREFIX};
use super::tar::{Kind, Member, write_end, write_header, write_padding};

/// The number of bytes of a file that are held in memory.
const CHUNK: usize = 256 << 10;

/// A summary of a converted layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Written {
    /// The number of sockets that were left out.
    pub(super) sockets: u64,
    /// The number of extended attributes that were left out.
    pub(super) xattrs: u64,
}

/// The reason why a layer was not converted.
#[derive(Debug)]
pub(super) enum LayerFault {
    /// The image is damaged.
    Damaged(WalkError),
    /// Tar has no form for this entry.
    NotInTar { entry: EntryPath, why: &'static str },
    /// The archive could not be written.
    Write(io::Error),
    /// The caller cancelled the save.
    Cancelled,
}

/// A receiver of a layer's progress, which returns whether to continue.
pub(super) trait Watch {
    fn read(&self, bytes: u64) -> Result<(), LayerFault>;
}

/// Writes a layer's image as a tar archive.
pub(super) fn write_layer<S: ReadAt>(
    image: &Image<S>,
    out: &mut dyn Write,
    watch: &dyn Watch,
) -> Result<Written, LayerFault> {
    let mut layer = LayerTar {
        image,
        out,
        watch,
        linked: HashMap::new(),
        buffer: vec![0; CHUNK],
        written: Written::default(),
    };
    for entry in image.walk() {
        layer.entry(&entry.map_err(LayerFault::Damaged)?)?;
    }
    write_end(layer.out).map_err(LayerFault::Write)?;
    Ok(layer.written)
}

struct LayerTar<'a, S> {
    image: &'a Image<S>,
    out: &'a mut dyn Write,
    watch: &'a dyn Watch,
    /// The first name of each inode that has several.
    linked: HashMap<Nid, EntryPath>,
    buffer: Vec<u8>,
    written: Written,
}

impl<S: ReadAt> LayerTar<'_, S> {
    fn entry(&mut self, entry: &WalkEntry) -> Result<(), LayerFault> {
        self.watch.read(0)?;
        let WalkEntry { path, inode, .. } = entry;
        let name = path.file_name().unwrap_or_default();
        if name.starts_with(WHITEOUT_PREFIX) {
            return Err(not_in_tar(path, "a name that begins with `.wh.` means a removal there"));
        }
        if inode.is_whiteout() {
            if name.len() + WHITEOUT_PREFIX.len() > MAX_NAME {
                return Err(not_in_tar(path, "the name of what is removed leaves no room for `.wh.`"));
            }
            let metadata = mark(self.metadata(entry)?);
            return self.mark(path.parent().as_ref(), &[WHITEOUT_PREFIX, name].concat(), &metadata);
        }
        let metadata = self.metadata(entry)?;
        match inode.kind() {
            FileKind::Directory => return self.directory(entry, metadata),
            FileKind::Socket => {
                self.written.sockets += 1;
                return Ok(());
            }
            _ => {}
        }
        let (xattrs, left_out) = tar_xattrs(&metadata);
        let mut member = Member {
            name: path.as_bytes(),
            kind: Kind::File,
            target: &[],
            metadata: &metadata,
            size: 0,
            device: inode.device_number().map_or((0, 0), |number| (number.major(), number.minor())),
            xattrs: &xattrs,
        };
        if inode.nlink() > 1 {
            match self.linked.entry(inode.nid()) {
                Entry::Occupied(first) => {
                    let first = first.get().as_bytes();
                    let link = Member { kind: Kind::HardLink, target: first, device: (0, 0), ..member };
                    return write_header(&link, self.out).map_err(LayerFault::Write);
                }
                Entry::Vacant(vacant) => {
                    vacant.insert(path.clone());
                }
            }
        }
        self.written.xattrs += left_out;
        let target;
        match inode.kind() {
            FileKind::Symlink => {
                target = self.image.link_target(inode).map_err(|error| damaged(path, error))?;
                member = Member { kind: Kind::Symlink, target: &target, ..member };
            }
            FileKind::CharDevice => member.kind = Kind::CharDevice,
            FileKind::BlockDevice => member.kind = Kind::BlockDevice,
            FileKind::Fifo => member.kind = Kind::Fifo,
            FileKind::Regular | FileKind::Directory | FileKind::Socket => member.size = inode.size(),
        }
        write_header(&member, self.out).map_err(LayerFault::Write)?;
        if member.kind == Kind::File { self.content(entry) } else { Ok(()) }
    }

    fn directory(&mut self, entry: &WalkEntry, metadata: Metadata) -> Result<(), LayerFault> {
        let WalkEntry { path, inode, .. } = entry;
        let opaque = metadata.xattrs.is_opaque();
        let is_empty = || -> Result<bool, LayerFault> {
            let mut entries = self.image.entries(inode).map_err(|error| damaged(path, error))?;
            entries.next().transpose().map(|first| first.is_none()).map_err(|error| damaged(path, error))
        };
        // One that nothing describes comes with what it holds, or with its mark. The root is there anyway.
        let described = !inode.is_implied() || !path.is_root() && !opaque && is_empty()?;
        if described {
            let name = match path.as_bytes() {
                b"" => b"./".to_vec(),
                bytes => [bytes, b"/"].concat(),
            };
            let (xattrs, left_out) = tar_xattrs(&metadata);
            self.written.xattrs += left_out;
            let member = Member {
                name: &name,
                kind: Kind::Directory,
                target: &[],
                metadata: &metadata,
                size: 0,
                device: (0, 0),
                xattrs: &xattrs,
            };
            write_header(&member, self.out).map_err(LayerFault::Write)?;
        }
        if opaque { self.mark(Some(path), OPAQUE_MARKER, &mark(metadata)) } else { Ok(()) }
    }

    /// Writes the mark of a removal: an empty file.
    fn mark(
        &mut self,
        directory: Option<&EntryPath>,
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<(), LayerFault> {
        let name = match directory.map(EntryPath::as_bytes) {
            None | Some(b"") => name.to_vec(),
            Some(directory) => [directory, b"/", name].concat(),
        };
        let kind = Kind::File;
        let member =
            Member { name: &name, kind, target: &[], metadata, size: 0, device: (0, 0), xattrs: &[] };
        write_header(&member, self.out).map_err(LayerFault::Write)
    }

    fn content(&mut self, entry: &WalkEntry) -> Result<(), LayerFault> {
        let broken = |error: ReadError| damaged(&entry.path, error);
        let mut data = self.image.data(&entry.inode).map_err(broken)?;
        loop {
            let count = match data.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(broken(error.into())),
            };
            self.out.write_all(&self.buffer[..count]).map_err(LayerFault::Write)?;
            self.watch.read(count as u64)?;
        }
        write_padding(entry.inode.size(), self.out).map_err(LayerFault::Write)
    }

    fn metadata(&self, entry: &WalkEntry) -> Result<Metadata, LayerFault> {
        self.image.metadata(&entry.inode).map_err(|error| damaged(&entry.path, error))
    }
}

/// The names and values of extended attributes, in the form of an archive.
type TarXattrs<'a> = Vec<(Vec<u8>, &'a [u8])>;

/// Returns the extended attributes for tar, and the number of those that are left out. They are all except the mark of an
/// opaque directory, which has a form of its own, and those whose names cannot be keys of pax headers: these are UTF-8,
/// as many readers insist, and have no `=`.
fn tar_xattrs(metadata: &Metadata) -> (TarXattrs<'_>, u64) {
    let opaque = metadata.xattrs.is_opaque();
    let (mut xattrs, mut left_out) = (Vec::new(), 0);
    for (name, value) in &metadata.xattrs {
        let name = name.to_bytes();
        if name.contains(&b'=') || std::str::from_utf8(&name).is_err() {
            left_out += 1;
        } else if !(opaque && name == b"trusted.overlay.opaque") {
            xattrs.push((name, value));
        }
    }
    (xattrs, left_out)
}

/// Returns the metadata for the mark of a removal: only the time of the metadata in the image.
fn mark(metadata: Metadata) -> Metadata {
    Metadata {
        permissions: Permissions::from_mode(0),
        uid: 0,
        gid: 0,
        mtime: metadata.mtime,
        xattrs: Xattrs::new(),
    }
}

fn damaged(path: &EntryPath, source: ReadError) -> LayerFault {
    LayerFault::Damaged(WalkError { path: path.clone(), source })
}

fn not_in_tar(path: &EntryPath, why: &'static str) -> LayerFault {
    LayerFault::NotInTar { entry: path.clone(), why }
}
