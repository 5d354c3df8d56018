//! The tree of an image that is being made: all metadata, no file data.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{MAX_LINKS, WriteError};
use crate::format::BlockAddr;
use crate::metadata::{DeviceNumber, FileKind, Metadata};
use crate::path::{EntryPath, MAX_PATH, Name};

/// An inode of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const ROOT: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) metadata: Metadata,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Directory(Directory),
    File(Extent),
    Symlink(Box<[u8]>),
    CharDevice(DeviceNumber),
    BlockDevice(DeviceNumber),
    Fifo,
    Socket,
}

impl Content {
    pub(crate) fn kind(&self) -> FileKind {
        match self {
            Self::Directory(_) => FileKind::Directory,
            Self::File(_) => FileKind::Regular,
            Self::Symlink(_) => FileKind::Symlink,
            Self::CharDevice(_) => FileKind::CharDevice,
            Self::BlockDevice(_) => FileKind::BlockDevice,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
        }
    }

    /// Returns whether this marks a removal.
    pub(crate) fn is_whiteout(&self) -> bool {
        matches!(self, Self::CharDevice(DeviceNumber::ZERO))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) children: BTreeMap<Name, NodeId>,
    /// No entry described it; it exists because of its content.
    pub(crate) implied: bool,
}

/// The data of a regular file, in consecutive blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The device that holds it, counted from 1; 0 is the image itself.
    pub(crate) device: u16,
    pub(crate) start: BlockAddr,
    pub(crate) size: u64,
}

/// A tree with a root directory. Nodes without a name stay in the arena and are not written to the image.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// Makes a tree with a root that no entry describes.
    pub(crate) fn new() -> Self {
        let mut tree = Self { nodes: Vec::new() };
        tree.push(Node { metadata: Metadata::implied(), content: implied_directory() });
        tree
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    pub(crate) fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.get(id).content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match &mut self.get_mut(id).content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.directory(parent)?.children.get(name).copied()
    }

    /// Returns the node of `path`, without following symbolic links.
    pub(crate) fn find(&self, path: &EntryPath) -> Option<NodeId> {
        path.components().try_fold(NodeId::ROOT, |id, name| self.child(id, name))
    }

    /// Adds a node that has no name yet.
    pub(crate) fn push(&mut self, node: Node) -> NodeId {
        // A tree of 4 billion nodes does not fit in memory.
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        id
    }

    /// Sets `name` in the directory `parent` to `child`.
    pub(crate) fn link(&mut self, parent: NodeId, name: &[u8], child: NodeId) {
        if let Some(directory) = self.directory_mut(parent) {
            directory.children.insert(Name::of_component(name), child);
        }
    }

    pub(crate) fn unlink(&mut self, parent: NodeId, name: &[u8]) {
        if let Some(directory) = self.directory_mut(parent) {
            directory.children.remove(name);
        }
    }

    /// Returns the directory that holds `path`, which it creates with its parents if it is missing, and the
    /// last component.
    pub(crate) fn place<'p>(&mut self, path: &'p EntryPath) -> Result<(NodeId, &'p [u8]), WriteError> {
        let name = path.file_name().ok_or(WriteError::RootIsADirectory)?;
        let mut above = path.components();
        above.next_back();
        Ok((self.make_directories(path, above)?, name))
    }

    /// Returns the directory at `path`, which it creates with its parents if it is missing.
    pub(crate) fn make_directory(&mut self, path: &EntryPath) -> Result<NodeId, WriteError> {
        self.make_directories(path, path.components())
    }

    fn make_directories<'p>(
        &mut self,
        path: &EntryPath,
        components: impl Iterator<Item = &'p [u8]>,
    ) -> Result<NodeId, WriteError> {
        let mut parent = NodeId::ROOT;
        for component in components {
            parent = match self.child(parent, component) {
                Some(child) if self.directory(child).is_some() => child,
                Some(_) => return Err(self.not_a_directory(path)),
                None => {
                    let child =
                        self.push(Node { metadata: Metadata::implied(), content: implied_directory() });
                    self.link(parent, component, child);
                    child
                }
            };
        }
        Ok(parent)
    }

    /// Returns `path` with the symbolic links above its last component followed. See
    /// [`LayerBuilder::resolve`](crate::layer::LayerBuilder::resolve).
    pub(crate) fn resolve<'p>(&self, path: &'p EntryPath) -> Result<Cow<'p, EntryPath>, WriteError> {
        let mut above = path.components();
        let Some(name) = above.next_back() else { return Ok(Cow::Borrowed(path)) };
        let mut parent = Some(NodeId::ROOT);
        let is_plain = above.clone().all(|component| {
            parent = parent.and_then(|parent| self.child(parent, component));
            !parent.is_some_and(|id| matches!(self.get(id).content, Content::Symlink(_)))
        });
        if is_plain {
            return Ok(Cow::Borrowed(path));
        }
        let steps =
            self.follow(above.rev().collect()).ok_or_else(|| WriteError::TooManyLinks(path.clone()))?;
        let mut resolved = EntryPath::root();
        let names = steps.iter().map(|step| step.0).chain([name]);
        for name in names {
            let pushed = Name::parse(name).and_then(|name| resolved.push(&name));
            pushed.map_err(|source| WriteError::Unreachable { path: path.clone(), source })?;
        }
        Ok(Cow::Owned(resolved))
    }

    /// Returns whether there is a directory at `path`, after following all symbolic links.
    pub(crate) fn leads_to_directory(&self, path: &EntryPath) -> bool {
        let steps = self.follow(path.components().rev().collect()).unwrap_or_default();
        steps.last().and_then(|step| step.1).is_some_and(|id| self.directory(id).is_some())
    }

    /// Follows components from the root on, links among them; the last of `pending` is the first. Returns the names from
    /// the root, each with its node if there is one, or `None` if there are more links than [`MAX_LINKS`], or more steps
    /// than a path can have.
    fn follow<'t>(&'t self, mut pending: Vec<&'t [u8]>) -> Option<Vec<(&'t [u8], Option<NodeId>)>> {
        let mut steps: Vec<(&[u8], Option<NodeId>)> = Vec::new();
        let mut links = 0;
        let mut left = MAX_PATH;
        while let Some(name) = pending.pop() {
            left = left.checked_sub(1)?;
            if name == b".." {
                steps.pop();
                continue;
            }
            if name.is_empty() || name == b"." {
                continue;
            }
            let parent = steps.last().map_or(Some(NodeId::ROOT), |step| step.1);
            let node = parent.and_then(|parent| self.child(parent, name));
            let Some(Content::Symlink(target)) = node.map(|id| &self.get(id).content) else {
                steps.push((name, node));
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if target.starts_with(b"/") {
                steps.clear();
            }
            pending.extend(target.split(|&byte| byte == b'/').rev());
        }
        Some(steps)
    }

    /// Returns the error that names the first component of `path` that is not a directory.
    fn not_a_directory(&self, path: &EntryPath) -> WriteError {
        let mut obstacle = path.clone();
        while self.find(&obstacle).is_none() && !obstacle.is_root() {
            obstacle.pop();
        }
        WriteError::NotADirectory { path: path.clone(), obstacle }
    }
}

fn implied_directory() -> Content {
    Content::Directory(Directory { implied: true, ..Directory::default() })
}
