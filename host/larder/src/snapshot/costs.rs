//! What images cost: which files go when which references go.
//!
//! A reference needs its metadata file, which other spellings of it may share, and a manifest, which other
//! references may share. A manifest needs its own files and its layers, which other manifests may share. A manifest
//! that a sandbox or snapshot uses is *held*: its references may go, it and its files stay. A file that has other
//! hard links frees its blocks when its last link goes.
//!
//! [`CostGraph`] is that graph, [`Removal`] a set of references taken out of it. Taking one out costs as many steps
//! as it has files, whatever the size of the cache.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::sync::Arc;

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
        self.bytes += other.bytes;
        self.manifests += other.manifests;
        self.layers += other.layers;
        self.fsmeta += other.fsmeta;
        self.vmdk += other.vmdk;
    }
}

/// A layer of a [`CostGraphBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerId(u32);

/// A manifest of a [`CostGraphBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ManifestId(u32);

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
    nodes: Vec<Node>,
    inodes: Vec<Inode>,
    /// Of each image, its metadata and its manifest.
    images: Vec<[Option<u32>; 2]>,
}

impl CostGraph {
    /// Everything that an image needs: its metadata, its manifest, and the layers of that.
    fn needs_of(&self, image: usize) -> impl Iterator<Item = u32> + '_ {
        let own = self.images[image].iter().flatten().copied();
        own.flat_map(|node| std::iter::once(node).chain(self.nodes[node as usize].needs.iter().copied()))
    }

    /// Bytes of the files of a node.
    fn bytes_of(&self, node: u32) -> u64 {
        let node = &self.nodes[node as usize];
        node.frees.bytes + node.linked.iter().map(|&inode| self.inodes[inode as usize].bytes).sum::<u64>()
    }
}

/// Makes a [`CostGraph`]: layers, then manifests and what holds them, then the images in their order.
#[derive(Debug, Default)]
pub struct CostGraphBuilder {
    graph: CostGraph,
    inodes: HashMap<(u64, u64), u32>,
    metadata: HashMap<String, u32>,
    held: HashSet<ManifestId>,
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
        let mut needs: Vec<u32> = layers.iter().map(|layer| layer.0).collect();
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
        self.graph.nodes[manifest.0 as usize].needed_by += 1;
        self.held.insert(manifest);
    }

    /// Adds the next image: the key and file of its metadata, which images of the same key share, and its manifest.
    pub fn image(&mut self, metadata: Option<(&str, FileCost)>, manifest: Option<ManifestId>) {
        let metadata = metadata.map(|(key, file)| match self.metadata.get(key) {
            Some(&node) => node,
            None => {
                let node = self.node([file], Freed::default(), Vec::new());
                self.metadata.insert(key.to_owned(), node);
                node
            }
        });
        let held = manifest.is_some_and(|manifest| self.held.contains(&manifest));
        if let Some(metadata) = metadata {
            self.graph.nodes[metadata as usize].needed_by += 1 + u32::from(held);
        }
        if let Some(manifest) = manifest {
            self.graph.nodes[manifest.0 as usize].needed_by += 1;
        }
        self.graph.images.push([metadata, manifest.map(|manifest| manifest.0)]);
    }

    /// Adds a manifest that nothing reaches, after the images. Returns its number, which is used as an image's.
    pub(crate) fn unreached_manifest(&mut self, manifest: ManifestId) -> usize {
        self.image(None, Some(manifest));
        self.graph.images.len() - 1
    }

    /// Adds a layer that nothing reaches, after the images. Returns its number, which is used as an image's.
    pub(crate) fn unreached_layer(&mut self, layer: LayerId) -> usize {
        self.graph.nodes[layer.0 as usize].needed_by += 1;
        self.graph.images.push([None, Some(layer.0)]);
        self.graph.images.len() - 1
    }

    /// The graph.
    pub fn build(self) -> CostGraph {
        self.graph
    }

    fn node(&mut self, files: impl IntoIterator<Item = FileCost>, mut frees: Freed, needs: Vec<u32>) -> u32 {
        let mut linked = Vec::new();
        for file in files {
            match file.hard_links {
                None => frees.bytes += file.bytes,
                Some(HardLinks { device, inode, links }) => {
                    let inodes = &mut self.graph.inodes;
                    linked.push(*self.inodes.entry((device, inode)).or_insert_with(|| {
                        inodes.push(Inode { bytes: file.bytes, links });
                        (inodes.len() - 1) as u32
                    }));
                }
            }
        }
        self.graph.nodes.push(Node { needed_by: 0, frees, linked: linked.into(), needs: needs.into() });
        (self.graph.nodes.len() - 1) as u32
    }
}

/// References taken out of a [`CostGraph`], and what went with them.
#[derive(Debug, Clone)]
pub struct Removal {
    graph: Arc<CostGraph>,
    /// What is left of `Node::needed_by` and `Inode::links`.
    needed_by: Vec<u32>,
    links: Vec<i64>,
    removed: Vec<bool>,
    freed: Freed,
}

/// What a removal changed, to take it back.
#[derive(Default)]
struct Undo {
    nodes: Vec<u32>,
    inodes: Vec<u32>,
    images: Vec<usize>,
}

impl Removal {
    /// Nothing removed yet.
    pub fn new(graph: Arc<CostGraph>) -> Self {
        Self {
            needed_by: graph.nodes.iter().map(|node| node.needed_by).collect(),
            links: graph.inodes.iter().map(|inode| inode.links as i64).collect(),
            removed: vec![false; graph.images.len()],
            freed: Freed::default(),
            graph,
        }
    }

    /// Takes an image out. Returns what goes with it now; nothing where it is out already.
    pub fn remove(&mut self, image: usize) -> Freed {
        let freed = self.take_out(image, &mut Undo::default());
        self.freed += freed;
        freed
    }

    /// What would go if these were taken out together, on top of what is out already.
    pub fn would_free(&mut self, images: impl IntoIterator<Item = usize>) -> Freed {
        let mut undo = Undo::default();
        let mut freed = Freed::default();
        for image in images {
            freed += self.take_out(image, &mut undo);
        }
        undo.nodes.into_iter().for_each(|node| self.needed_by[node as usize] += 1);
        undo.inodes.into_iter().for_each(|inode| self.links[inode as usize] += 1);
        undo.images.into_iter().for_each(|image| self.removed[image] = false);
        freed
    }

    /// What went with all that is out.
    pub fn freed(&self) -> Freed {
        self.freed
    }

    /// Returns whether a manifest of the graph went.
    pub(crate) fn took(&self, manifest: ManifestId) -> bool {
        self.needed_by[manifest.0 as usize] == 0
    }

    /// The graph that they were taken out of.
    pub fn graph(&self) -> &Arc<CostGraph> {
        &self.graph
    }

    fn take_out(&mut self, image: usize, undo: &mut Undo) -> Freed {
        let mut freed = Freed::default();
        if std::mem::replace(&mut self.removed[image], true) {
            return freed;
        }
        undo.images.push(image);
        let graph = Arc::clone(&self.graph);
        for node in graph.images[image].into_iter().flatten() {
            self.release(&graph, node, &mut freed, undo);
        }
        freed
    }

    /// One need fewer for a node; with the last, its files go, and it needs nothing itself any longer.
    fn release(&mut self, graph: &CostGraph, node: u32, freed: &mut Freed, undo: &mut Undo) {
        undo.nodes.push(node);
        self.needed_by[node as usize] -= 1;
        if self.needed_by[node as usize] > 0 {
            return;
        }
        let gone = &graph.nodes[node as usize];
        *freed += gone.frees;
        for &inode in &gone.linked {
            undo.inodes.push(inode);
            self.links[inode as usize] -= 1;
            if self.links[inode as usize] == 0 {
                freed.bytes += graph.inodes[inode as usize].bytes;
            }
        }
        for &layer in &gone.needs {
            self.release(graph, layer, freed, undo);
        }
    }
}

/// What some images of a [`CostGraph`] share with each other. Images that are not among them count for nothing.
#[derive(Debug, Clone)]
pub struct Sharing {
    graph: Arc<CostGraph>,
    /// How many of the images need each node.
    needed_by: Vec<u32>,
}

impl Sharing {
    /// What these images share.
    pub fn new(graph: Arc<CostGraph>, images: impl IntoIterator<Item = usize>) -> Self {
        let mut needed_by = vec![0; graph.nodes.len()];
        for image in images {
            graph.needs_of(image).for_each(|node| needed_by[node as usize] += 1);
        }
        Self { graph, needed_by }
    }

    /// Takes one of them out.
    pub fn remove(&mut self, image: usize) {
        for node in self.graph.needs_of(image) {
            let needed_by = &mut self.needed_by[node as usize];
            *needed_by = needed_by.saturating_sub(1);
        }
    }

    /// Bytes of the files that one of them and at least one other need.
    pub fn shared_bytes(&self, image: usize) -> u64 {
        let shared = self.graph.needs_of(image).filter(|&node| self.needed_by[node as usize] > 1);
        shared.map(|node| self.graph.bytes_of(node)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: u64 = 100;

    /// Images 0 and 1 share a base layer, image 2 is a second tag of image 1's manifest.
    fn shared_base() -> CostGraphBuilder {
        let mut graph = CostGraphBuilder::new();
        let layers: Vec<_> = (0..3).map(|_| graph.layer(Some(FileCost::of(LAYER)))).collect();
        let first = graph.manifest(Some(FileCost::of(10)), Some(FileCost::of(1)), &[layers[0], layers[1]]);
        let second = graph.manifest(Some(FileCost::of(10)), None, &[layers[0], layers[2]]);
        graph.image(None, Some(first));
        graph.image(Some(("second:1", FileCost::of(5))), Some(second));
        graph.image(Some(("second:2", FileCost::of(5))), Some(second));
        graph
    }

    /// A set frees what only it needs, which may be more than its members free one by one.
    #[test]
    fn a_set_frees_more_than_its_members() {
        let mut removal = Removal::new(Arc::new(shared_base().build()));
        let alone: Vec<u64> = (0..3).map(|image| removal.would_free([image]).bytes).collect();
        assert_eq!(alone, [LAYER + 11, 5, 5]);
        assert_eq!(removal.would_free([1, 2]).bytes, LAYER + 10 + 5 + 5);
        assert_eq!(
            removal.would_free([0, 1, 2]),
            Freed { bytes: 3 * LAYER + 11 + 10 + 10, manifests: 2, layers: 3, fsmeta: 2, vmdk: 1 }
        );
    }

    /// What is asked changes nothing, what is removed counts from then on, and once.
    #[test]
    fn questions_leave_no_trace() {
        let mut removal = Removal::new(Arc::new(shared_base().build()));
        assert_eq!(removal.would_free([1, 2]), removal.would_free([2, 1, 2]));
        assert_eq!(removal.remove(1).bytes, 5);
        assert_eq!(removal.remove(1), Freed::default());
        assert_eq!(removal.would_free([2]).bytes, LAYER + 10 + 5);
        removal.remove(2);
        removal.remove(0);
        assert_eq!(removal.freed().bytes, 3 * LAYER + 31);
    }

    /// A held manifest keeps its files and its metadata when its last reference goes.
    #[test]
    fn what_is_held_stays() {
        let mut graph = CostGraphBuilder::new();
        let layer = graph.layer(Some(FileCost::of(LAYER)));
        let manifest = graph.manifest(Some(FileCost::of(10)), None, &[layer, layer]);
        graph.hold(manifest);
        graph.image(Some(("a", FileCost::of(5))), Some(manifest));
        assert_eq!(Removal::new(Arc::new(graph.build())).remove(0), Freed::default());
    }

    /// Images share what at least two of them need; one that is not among them, or was taken out, counts for nothing.
    #[test]
    fn sharing_is_among_the_given_images() {
        let graph = Arc::new(shared_base().build());
        let shared = |images: &[usize]| {
            let sharing = Sharing::new(Arc::clone(&graph), images.iter().copied());
            images.iter().map(|&image| sharing.shared_bytes(image)).collect::<Vec<_>>()
        };
        // All of a manifest is shared by its tags, and the base by everybody.
        assert_eq!(shared(&[0, 1, 2]), [LAYER, 2 * LAYER + 10, 2 * LAYER + 10]);
        assert_eq!(shared(&[0, 1]), [LAYER, LAYER]);
        assert_eq!(shared(&[0]), [0]);
        let mut sharing = Sharing::new(graph, [0, 1]);
        sharing.remove(1);
        assert_eq!(sharing.shared_bytes(0), 0);
    }

    /// A hard-linked file frees its blocks once, with its last link.
    #[test]
    fn hard_links_count_once() {
        let link =
            |links| FileCost { bytes: LAYER, hard_links: Some(HardLinks { device: 1, inode: 7, links }) };
        for (links, freed) in [(2, LAYER), (3, 0)] {
            let mut graph = CostGraphBuilder::new();
            let layers = [graph.layer(Some(link(links))), graph.layer(Some(link(links)))];
            for layer in layers {
                let manifest = graph.manifest(None, None, &[layer]);
                graph.image(None, Some(manifest));
            }
            let mut removal = Removal::new(Arc::new(graph.build()));
            assert_eq!(removal.remove(0).bytes, 0);
            assert_eq!(removal.remove(1).bytes, freed, "{links} links");
        }
    }
}
