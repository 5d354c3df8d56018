//! What trees and layers mean, said as plainly as possible: a map from paths to inodes.

use std::collections::BTreeMap;

use larder_erofs::{EntryPath, FileKind, Metadata, Permissions, Timestamp, Xattrs};

use super::listing::{Listing, Seen, sum};
use super::{Item, Line};

/// A tree. Entries with the same inode are hard links of each other.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    entries: BTreeMap<EntryPath, usize>,
    inodes: Vec<(Metadata, Item)>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let mut model = Self { entries: BTreeMap::new(), inodes: Vec::new() };
        model.put(&EntryPath::root(), implied(), Item::Directory);
        model
    }

    /// Puts one entry into the tree, with the directories above it. `whiteouts` are not looked for.
    pub(crate) fn add(&mut self, line: &Line) {
        if let Item::HardLink(target) = &line.item {
            let inode = self.entries[target];
            self.make_parents(&line.path);
            self.remove(&line.path);
            self.entries.insert(line.path.clone(), inode);
        } else if line.item == Item::Directory && self.is_directory(&line.path) {
            let inode = self.entries[&line.path];
            self.inodes[inode].0 = line.metadata.clone();
        } else {
            self.make_parents(&line.path);
            self.remove(&line.path);
            self.put(&line.path, line.metadata.clone(), line.item.clone());
        }
    }

    /// Puts a layer upon the tree: what it removes goes first, since removals mean the layers below alone.
    pub(crate) fn add_layer(&mut self, lines: &[&Line]) {
        for line in lines {
            if is_aufs(&line.path) {
                continue;
            }
            match whiteout(&line.path) {
                Some(Whiteout::Opaque(directory)) => {
                    let inside = self.below(&directory);
                    inside.iter().for_each(|path| self.remove(path));
                }
                Some(Whiteout::Name(path)) => self.remove(&path),
                None => {}
            }
        }
        for line in lines {
            if is_aufs(&line.path) {
                continue;
            }
            match whiteout(&line.path) {
                Some(_) => self.make_parents(&line.path),
                None => self.add(line),
            }
        }
    }

    pub(crate) fn listing(&self) -> Listing {
        let mut firsts = BTreeMap::new();
        self.entries
            .iter()
            .map(|(path, inode)| {
                let (metadata, item) = &self.inodes[*inode];
                let (kind, device) = match item {
                    Item::Directory => (FileKind::Directory, None),
                    Item::File(_) => (FileKind::Regular, None),
                    Item::Symlink(_) => (FileKind::Symlink, None),
                    Item::CharDevice(number) => (FileKind::CharDevice, Some(*number)),
                    Item::BlockDevice(number) => (FileKind::BlockDevice, Some(*number)),
                    Item::Fifo => (FileKind::Fifo, None),
                    Item::Socket => (FileKind::Socket, None),
                    Item::HardLink(_) => panic!("a hard link is no inode"),
                };
                let content = match item {
                    Item::File(content) => sum(&mut content.as_slice()),
                    Item::Symlink(target) => (0, 0, target.clone()),
                    _ => (0, 0, Vec::new()),
                };
                let nlink = match kind {
                    FileKind::Directory => 2 + self.subdirectories(path),
                    _ => self.entries.values().filter(|other| *other == inode).count() as u64,
                };
                let first = firsts.entry(*inode).or_insert_with(|| path.clone()).clone();
                (path.clone(), Seen { kind, metadata: metadata.clone(), nlink, content, device, first })
            })
            .collect()
    }

    fn put(&mut self, path: &EntryPath, metadata: Metadata, item: Item) {
        self.entries.insert(path.clone(), self.inodes.len());
        self.inodes.push((metadata, item));
    }

    fn is_directory(&self, path: &EntryPath) -> bool {
        self.entries.get(path).is_some_and(|inode| self.inodes[*inode].1 == Item::Directory)
    }

    fn make_parents(&mut self, path: &EntryPath) {
        let Some(parent) = path.parent() else { return };
        self.make_parents(&parent);
        if !self.is_directory(&parent) {
            self.put(&parent, implied(), Item::Directory);
        }
    }

    fn below(&self, directory: &EntryPath) -> Vec<EntryPath> {
        let depth = directory.components().count();
        let is_below = |path: &&EntryPath| {
            path.components().count() > depth && path.components().take(depth).eq(directory.components())
        };
        self.entries.keys().filter(is_below).cloned().collect()
    }

    fn remove(&mut self, path: &EntryPath) {
        for below in self.below(path) {
            self.entries.remove(&below);
        }
        if !path.is_root() {
            self.entries.remove(path);
        }
    }

    fn subdirectories(&self, path: &EntryPath) -> u64 {
        let inside = |other: &&EntryPath| other.parent().as_ref() == Some(path) && self.is_directory(other);
        self.entries.keys().filter(inside).count() as u64
    }
}

enum Whiteout {
    Opaque(EntryPath),
    Name(EntryPath),
}

fn whiteout(path: &EntryPath) -> Option<Whiteout> {
    let parent = path.parent()?;
    let name = path.file_name()?.strip_prefix(b".wh.")?;
    if name == b".wh..opq" {
        return Some(Whiteout::Opaque(parent));
    }
    Some(Whiteout::Name(parent.join(&larder_erofs::Name::parse(name).ok()?).unwrap()))
}

fn is_aufs(path: &EntryPath) -> bool {
    path.components().any(|name| name.starts_with(b".wh..wh.") && name != b".wh..wh..opq")
}

/// Of a directory that nobody described.
pub(crate) fn implied() -> Metadata {
    Metadata {
        permissions: Permissions::from_mode(0o755),
        uid: 0,
        gid: 0,
        mtime: Timestamp::EPOCH,
        xattrs: Xattrs::new(),
    }
}
