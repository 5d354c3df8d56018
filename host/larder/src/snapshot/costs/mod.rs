//! What images cost: which files go when which references go.
//!
//! A reference needs its metadata file, which other spellings of it may share, and a manifest, which other
//! references may share. A manifest needs its own files and its layers, which other manifests may share. A manifest
//! that a sandbox or snapshot uses is *held*: its references may go, it and its files stay. A file that has other
//! hard links frees its blocks when its last link goes.
//!
//! [`CostGraph`] is that graph, [`Removal`] a set of references taken out of it. Taking one out costs as many steps
//! as it has files, whatever the size of the cache.
//!
//! Nothing here panics on what it is given: an image that the graph does not have frees nothing, an identifier of another
//! builder names nothing, and sums that are too large for their type are the largest number of it.

mod groups;
mod removal;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::{AddAssign, SubAssign};
use std::sync::atomic::{AtomicU64, Ordering};

pub use groups::{GroupBytes, Grouped};
pub use removal::{Removal, Sharing};

/// What one file takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileCost {
    /// Allocated bytes.
    pub bytes: u64,
    /// Where the file has more than one hard link: its inode, and how many links that has.
    pub hard_links: Option<HardLinks>,
}

/// An inode with more than one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HardLinks {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Number of names.
    pub links: u64,
}

impl FileCost {
    /// A file with one name.
    pub fn of(bytes: u64) -> Self {
        Self { bytes, hard_links: None }
    }
}

/// What goes together with some references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Allocated bytes.
    pub bytes: u64,
    /// Manifests that nothing reaches any longer.
    pub manifests: u32,
    /// Layers that nothing reaches any longer.
    pub layers: u32,
    /// Merged fsmeta images.
    pub fsmeta: u32,
    /// VMDK descriptors.
    pub vmdk: u32,
}

impl AddAssign for Freed {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.manifests = self.manifests.saturating_add(other.manifests);
        self.layers = self.layers.saturating_add(other.layers);
        self.fsmeta = self.fsmeta.saturating_add(other.fsmeta);
        self.vmdk = self.vmdk.saturating_add(other.vmdk);
    }
}

impl SubAssign for Freed {
    fn sub_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.manifests = self.manifests.saturating_sub(other.manifests);
        self.layers = self.layers.saturating_sub(other.layers);
        self.fsmeta = self.fsmeta.saturating_sub(other.fsmeta);
        self.vmdk = self.vmdk.saturating_sub(other.vmdk);
    }
}

/// A layer of a [`CostGraphBuilder`]. Names nothing in another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerId(NodeId);

/// A manifest of a [`CostGraphBuilder`]. Names nothing in another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ManifestId(NodeId);

/// A node of one graph among all that this process makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct NodeId {
    graph: u64,
    node: u32,
}

/// Files that go when nothing needs them any longer.
#[derive(Debug, Clone, Default)]
struct Node {
    /// How many references, manifests and holds need it.
    needed_by: u32,
    /// What goes with it, its hard-linked files aside.
    frees: Freed,
    /// Its hard-linked files: indexes into `CostGraph::inodes`.
    linked: Box<[u32]>,
    /// What it needs itself: layers, for a manifest.
    needs: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct Inode {
    bytes: u64,
    links: u64,
}

/// Which image needs which files. See the module's header.
#[derive(Debug, Clone, Default)]
pub struct CostGraph {
    /// Its number among the graphs of this process.
    number: u64,
    nodes: Vec<Node>,
    inodes: Vec<Inode>,
    /// Of each image, its metadata and its manifest.
    images: Vec<[Option<u32>; 2]>,
}

impl CostGraph {
    /// How many images it has. They have the numbers below that, in the order in which they were added.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Returns the bytes of all its files, held ones too, hard links counted once.
    pub fn bytes(&self) -> u64 {
        let nodes = self.nodes.iter().map(|node| node.frees.bytes);
        nodes.chain(self.inodes.iter().map(|inode| inode.bytes)).fold(0, u64::saturating_add)
    }

    /// The number of a node, if it is of this graph.
    fn node(&self, id: NodeId) -> Option<u32> {
        (id.graph == self.number).then_some(id.node)
    }

    /// Everything that an image needs: its metadata, its manifest, and the layers of that.
    fn needs_of(&self, image: usize) -> impl Iterator<Item = u32> + '_ {
        let own = self.images.get(image).into_iter().flatten().flatten().copied();
        own.flat_map(|node| std::iter::once(node).chain(self.nodes[node as usize].needs.iter().copied()))
    }

    /// Bytes of the files of a node.
    fn bytes_of(&self, node: u32) -> u64 {
        let node = &self.nodes[node as usize];
        let linked = node.linked.iter().map(|&inode| self.inodes[inode as usize].bytes);
        linked.fold(node.frees.bytes, u64::saturating_add)
    }
}

/// Makes a [`CostGraph`]: layers, then manifests and what holds them, then the images in their order.
///
/// Identifiers of another builder name nothing: a layer is left out then, a manifest that is held stays unheld, and an
/// image has no manifest.
#[derive(Debug)]
pub struct CostGraphBuilder {
    graph: CostGraph,
    inodes: HashMap<(u64, u64), u32>,
    metadata: HashMap<String, u32>,
    held: HashSet<u32>,
}

/// The number of the next graph.
static NEXT_GRAPH: AtomicU64 = AtomicU64::new(1);

impl Default for CostGraphBuilder {
    fn default() -> Self {
        let number = NEXT_GRAPH.fetch_add(1, Ordering::Relaxed);
        Self {
            graph: CostGraph { number, ..CostGraph::default() },
            inodes: HashMap::new(),
            metadata: HashMap::new(),
            held: HashSet::new(),
        }
    }
}

impl CostGraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer; without a file where that is missing.
    pub fn layer(&mut self, file: Option<FileCost>) -> LayerId {
        LayerId(self.node(file, Freed { layers: 1, ..Freed::default() }, Vec::new()))
    }

    /// Adds a manifest with its fsmeta image and VMDK descriptor, where they exist, and its layers.
    pub fn manifest(
        &mut self,
        fsmeta: Option<FileCost>,
        vmdk: Option<FileCost>,
        layers: &[LayerId],
    ) -> ManifestId {
        // A manifest may name a layer twice; it needs it once.
        let mut needs: Vec<u32> = layers.iter().filter_map(|layer| self.graph.node(layer.0)).collect();
        needs.sort_unstable();
        needs.dedup();
        for &layer in &needs {
            self.graph.nodes[layer as usize].needed_by += 1;
        }
        let frees = Freed {
            manifests: 1,
            fsmeta: u32::from(fsmeta.is_some()),
            vmdk: u32::from(vmdk.is_some()),
            ..Freed::default()
        };
        ManifestId(self.node(fsmeta.into_iter().chain(vmdk), frees, needs))
    }

    /// Marks a manifest that something other than a reference needs: it, its files and the metadata of the images
    /// added after this stay when those go.
    pub fn hold(&mut self, manifest: ManifestId) {
        if let Some(manifest) = self.graph.node(manifest.0) {
            self.graph.nodes[manifest as usize].needed_by += 1;
            self.held.insert(manifest);
        }
    }

    /// Adds the next image: the key and file of its metadata, which images of the same key share, and its manifest.
    pub fn image(&mut self, metadata: Option<(&str, FileCost)>, manifest: Option<ManifestId>) {
        let metadata = metadata.map(|(key, file)| match self.metadata.get(key) {
            Some(&node) => node,
            None => {
                let node = self.node([file], Freed::default(), Vec::new()).node;
                self.metadata.insert(key.to_owned(), node);
                node
            }
        });
        let manifest = manifest.and_then(|manifest| self.graph.node(manifest.0));
        let held = manifest.is_some_and(|manifest| self.held.contains(&manifest));
        if let Some(metadata) = metadata {
            self.graph.nodes[metadata as usize].needed_by += 1 + u32::from(held);
        }
        if let Some(manifest) = manifest {
            self.graph.nodes[manifest as usize].needed_by += 1;
        }
        self.graph.images.push([metadata, manifest]);
    }

    /// Adds a manifest that nothing reaches, after the images. Returns its number, which is used as an image's.
    pub(crate) fn unreached_manifest(&mut self, manifest: ManifestId) -> usize {
        self.image(None, Some(manifest));
        self.graph.images.len() - 1
    }

    /// Adds a layer that nothing reaches, after the images. Returns its number, which is used as an image's.
    pub(crate) fn unreached_layer(&mut self, layer: LayerId) -> usize {
        let layer = self.graph.node(layer.0);
        if let Some(layer) = layer {
            self.graph.nodes[layer as usize].needed_by += 1;
        }
        self.graph.images.push([None, layer]);
        self.graph.images.len() - 1
    }

    /// The graph.
    pub fn build(self) -> CostGraph {
        self.graph
    }

    fn node(
        &mut self,
        files: impl IntoIterator<Item = FileCost>,
        mut frees: Freed,
        needs: Vec<u32>,
    ) -> NodeId {
        let mut linked = Vec::new();
        for file in files {
            match file.hard_links {
                None => frees.bytes = frees.bytes.saturating_add(file.bytes),
                Some(HardLinks { device, inode, links }) => {
                    let inodes = &mut self.graph.inodes;
                    linked.push(*self.inodes.entry((device, inode)).or_insert_with(|| {
                        inodes.push(Inode { bytes: file.bytes, links });
                        (inodes.len() - 1) as u32
                    }));
                }
            }
        }
        let id = NodeId { graph: self.graph.number, node: self.graph.nodes.len() as u32 };
        self.graph.nodes.push(Node { needed_by: 0, frees, linked: linked.into(), needs: needs.into() });
        id
    }
}
