//! What the tests of this crate share: trees in memory, random ones, and the judges that are not ours.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod judge;
pub(crate) mod listing;
pub(crate) mod model;
pub(crate) mod random;

use std::io::Cursor;

use larder_erofs::layer::{LayerBuilder, LayerError};
use larder_erofs::writer::{Encoding, Entry, Options};
use larder_erofs::{DeviceNumber, EntryPath, Metadata, Name, Permissions, Timestamp, XattrName, Xattrs};

pub(crate) const ENCODINGS: [Encoding; 2] = [Encoding::Simple, Encoding::Dense];

pub(crate) fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes()).unwrap()
}

pub(crate) fn options(encoding: Encoding) -> Options {
    Options { encoding, uuid: [0; 16] }
}

/// Mode `mode`, owner 0:0, a time with nanoseconds, no extended attributes.
pub(crate) fn metadata(mode: u32) -> Metadata {
    Metadata {
        permissions: Permissions::from_mode(mode),
        uid: 0,
        gid: 0,
        mtime: Timestamp::new(1_700_000_000, 123_456_789).unwrap(),
        xattrs: Xattrs::new(),
    }
}

pub(crate) fn with_xattrs(mut metadata: Metadata, xattrs: &[(&str, &[u8])]) -> Metadata {
    for (name, value) in xattrs {
        metadata.xattrs.set(XattrName::parse(name.as_bytes()).unwrap(), value).unwrap();
    }
    metadata
}

/// An entry as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice(DeviceNumber),
    BlockDevice(DeviceNumber),
    Fifo,
    Socket,
    HardLink(EntryPath),
}

/// A line of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) path: EntryPath,
    pub(crate) metadata: Metadata,
    pub(crate) item: Item,
}

impl Line {
    pub(crate) fn new(path: &str, item: Item) -> Self {
        Self {
            path: self::path(path),
            metadata: metadata(if item == Item::Directory { 0o755 } else { 0o644 }),
            item,
        }
    }

    pub(crate) fn directory(path: &str) -> Self {
        Self::new(path, Item::Directory)
    }

    pub(crate) fn file(path: &str, content: &str) -> Self {
        Self::new(path, Item::File(content.into()))
    }

    /// A whiteout or another empty file.
    pub(crate) fn empty(path: &str) -> Self {
        Self::file(path, "")
    }

    pub(crate) fn link(path: &str, target: &str) -> Self {
        Self::new(path, Item::HardLink(self::path(target)))
    }

    pub(crate) fn metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }
}

/// Calls `with` with the entry of an item that is no hard link.
pub(crate) fn with_entry<T>(item: &Item, with: impl FnOnce(Entry<'_>) -> T) -> T {
    match item {
        Item::Directory => with(Entry::Directory),
        Item::File(content) => {
            with(Entry::File { size: content.len() as u64, data: &mut content.as_slice() })
        }
        Item::Symlink(target) => with(Entry::Symlink(target)),
        Item::CharDevice(number) => with(Entry::CharDevice(*number)),
        Item::BlockDevice(number) => with(Entry::BlockDevice(*number)),
        Item::Fifo => with(Entry::Fifo),
        Item::Socket => with(Entry::Socket),
        Item::HardLink(_) => panic!("a hard link is no entry"),
    }
}

/// Applies a line to a layer. Removals have the names that archives give them: `.wh.NAME` and `.wh..wh..opq`.
pub(crate) fn apply(builder: &mut LayerBuilder<Cursor<Vec<u8>>>, line: &Line) -> Result<(), LayerError> {
    let parent = line.path.parent().unwrap_or_default();
    if line.path.components().any(|name| name.starts_with(b".wh..wh.") && name != b".wh..wh..opq") {
        return Ok(());
    }
    match line.path.file_name().and_then(|name| name.strip_prefix(b".wh.")) {
        Some(b".wh..opq") => return builder.opaque(&parent),
        Some(name) => {
            return builder.whiteout(&parent.join(&Name::parse(name).unwrap()).unwrap(), line.metadata.mtime);
        }
        None => {}
    }
    match &line.item {
        Item::HardLink(target) => builder.hard_link(&line.path, target),
        item => with_entry(item, |entry| builder.add(&line.path, line.metadata.clone(), entry)),
    }
    .map(drop)
}

/// The image of a layer, and which of its lines were taken.
pub(crate) fn layer(lines: &[Line], encoding: Encoding) -> (Vec<u8>, Vec<bool>) {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options(encoding)).unwrap();
    let taken = lines.iter().map(|line| apply(&mut builder, line).is_ok()).collect();
    (builder.finish().unwrap().0.into_inner(), taken)
}

/// The image of a layer of which every line is taken.
pub(crate) fn whole_layer(lines: &[Line], encoding: Encoding) -> Vec<u8> {
    let (image, taken) = layer(lines, encoding);
    assert!(taken.iter().all(|taken| *taken), "{taken:?}");
    image
}
