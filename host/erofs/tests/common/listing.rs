//! Trees as values that can be compared, whatever they come from.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use larder_erofs::reader::{Image, ReadAt};
use larder_erofs::{
    DeviceNumber, EntryPath, FileKind, Metadata, Name, Permissions, Timestamp, XattrName, Xattrs,
};

/// What an entry is, content included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: FileKind,
    pub(crate) metadata: Metadata,
    pub(crate) nlink: u64,
    /// Of a file its length and checksum, of a symlink its target.
    pub(crate) content: (u64, u32, Vec<u8>),
    pub(crate) device: Option<DeviceNumber>,
    /// The first path with the same inode.
    pub(crate) first: EntryPath,
}

pub(crate) type Listing = BTreeMap<EntryPath, Seen>;

/// Length and checksum of a stream.
pub(crate) fn sum(data: &mut dyn Read) -> (u64, u32, Vec<u8>) {
    let (mut length, mut crc) = (0, 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match data.read(&mut buffer).unwrap() {
            0 => return (length, crc, Vec::new()),
            count => {
                length += count as u64;
                crc = crc32c::crc32c_append(crc, &buffer[..count]);
            }
        }
    }
}

/// All that an image holds, as this crate reads it.
pub(crate) fn of_image<S: ReadAt>(image: &Image<S>) -> Listing {
    let mut firsts = BTreeMap::new();
    image
        .walk()
        .map(|entry| {
            let entry = entry.unwrap();
            let inode = entry.inode;
            let content = match inode.kind() {
                FileKind::Regular => sum(&mut image.data(&inode).unwrap()),
                FileKind::Symlink => (0, 0, image.link_target(&inode).unwrap()),
                _ => (0, 0, Vec::new()),
            };
            let first = firsts.entry(inode.nid()).or_insert_with(|| entry.path.clone()).clone();
            let seen = Seen {
                kind: inode.kind(),
                metadata: image.metadata(&inode).unwrap(),
                nlink: inode.nlink().into(),
                content,
                device: inode.device_number(),
                first,
            };
            (entry.path, seen)
        })
        .collect()
}

/// All that lies below a directory, as the kernel says.
pub(crate) fn of_directory(root: &Path) -> Listing {
    let mut firsts: BTreeMap<u64, EntryPath> = BTreeMap::new();
    let mut listing = Listing::new();
    let mut todo = vec![(EntryPath::root(), root.to_owned())];
    let mut all = Vec::new();
    while let Some((path, place)) = todo.pop() {
        let stat = std::fs::symlink_metadata(&place).unwrap();
        if stat.is_dir() {
            for entry in std::fs::read_dir(&place).unwrap() {
                let entry = entry.unwrap();
                let name = Name::parse(entry.file_name().as_bytes()).unwrap();
                todo.push((path.join(&name).unwrap(), entry.path()));
            }
        }
        all.push((path, place, stat));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, place, stat) in all {
        let first = firsts.entry(stat.ino()).or_insert_with(|| path.clone()).clone();
        let (kind, content) = content_of(&place, &stat);
        let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice).then(|| {
            DeviceNumber::new(rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev())).unwrap()
        });
        let metadata = Metadata {
            permissions: Permissions::from_mode(stat.mode()),
            uid: stat.uid(),
            gid: stat.gid(),
            mtime: Timestamp::new(stat.mtime(), stat.mtime_nsec() as u32).unwrap(),
            xattrs: xattrs_of(&place),
        };
        listing.insert(path, Seen { kind, metadata, nlink: stat.nlink(), content, device, first });
    }
    listing
}

fn content_of(place: &PathBuf, stat: &std::fs::Metadata) -> (FileKind, (u64, u32, Vec<u8>)) {
    let none = (0, 0, Vec::new());
    let file_type = stat.file_type();
    if file_type.is_dir() {
        (FileKind::Directory, none)
    } else if file_type.is_file() {
        (FileKind::Regular, sum(&mut std::fs::File::open(place).unwrap()))
    } else if file_type.is_symlink() {
        (FileKind::Symlink, (0, 0, std::fs::read_link(place).unwrap().into_os_string().into_vec()))
    } else if file_type.is_char_device() {
        (FileKind::CharDevice, none)
    } else if file_type.is_block_device() {
        (FileKind::BlockDevice, none)
    } else if file_type.is_fifo() {
        (FileKind::Fifo, none)
    } else {
        (FileKind::Socket, none)
    }
}

fn xattrs_of(place: &Path) -> Xattrs {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(place, &mut names[..]).unwrap();
    let mut xattrs = Xattrs::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(place, name, &mut value[..]).unwrap();
        xattrs.set(XattrName::parse(name).unwrap(), &value[..length]).unwrap();
    }
    xattrs
}

/// Compares two listings, and says what differs rather than all.
#[track_caller]
pub(crate) fn assert_same(found: &Listing, expected: &Listing) {
    for (path, entry) in expected {
        assert_eq!(found.get(path), Some(entry), "{path}");
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{path} should not be there");
    }
}
