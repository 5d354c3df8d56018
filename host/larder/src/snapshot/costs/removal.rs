//! Images taken out of a graph, and what they share while they are in it.

use std::sync::Arc;

use super::{CostGraph, Freed, ManifestId};

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

impl Removal {
    /// Nothing removed yet.
    pub fn new(graph: Arc<CostGraph>) -> Self {
        Self {
            needed_by: graph.nodes.iter().map(|node| node.needed_by).collect(),
            links: graph.inodes.iter().map(|inode| i64::try_from(inode.links).unwrap_or(i64::MAX)).collect(),
            removed: vec![false; graph.images.len()],
            freed: Freed::default(),
            graph,
        }
    }

    /// Takes an image out. Returns what goes with it now; nothing where it is out already, or is none of the graph.
    pub fn remove(&mut self, image: usize) -> Freed {
        let mut freed = Freed::default();
        // One that is none of the graph counts as out already.
        if self.removed.get_mut(image).is_none_or(|removed| std::mem::replace(removed, true)) {
            return freed;
        }
        let graph = Arc::clone(&self.graph);
        for node in graph.images[image].into_iter().flatten() {
            self.release(&graph, node, &mut freed);
        }
        self.freed += freed;
        freed
    }

    /// Puts an image back that was taken out. Returns what stays with it now; nothing where it is not out, or is none of
    /// the graph.
    pub fn put_back(&mut self, image: usize) -> Freed {
        let mut kept = Freed::default();
        if !self.removed.get_mut(image).is_some_and(std::mem::take) {
            return kept;
        }
        let graph = Arc::clone(&self.graph);
        for node in graph.images[image].into_iter().flatten() {
            self.claim(&graph, node, &mut kept);
        }
        self.freed -= kept;
        kept
    }

    /// Returns what would go if these were taken out together, on top of what is out already. Those that are none of the
    /// graph count for nothing.
    pub fn would_free(&mut self, images: impl IntoIterator<Item = usize>) -> Freed {
        let before = self.freed;
        let mut freed = Freed::default();
        let mut taken = Vec::new();
        for image in images {
            if self.removed.get(image) == Some(&false) {
                freed += self.remove(image);
                taken.push(image);
            }
        }
        for image in taken {
            self.put_back(image);
        }
        // Sums that are too large for their type are not subtracted from.
        self.freed = before;
        freed
    }

    /// What went with all that is out.
    pub fn freed(&self) -> Freed {
        self.freed
    }

    /// Returns whether a manifest of the graph went.
    pub(crate) fn took(&self, manifest: ManifestId) -> bool {
        self.graph.node(manifest.0).is_some_and(|manifest| self.needed_by[manifest as usize] == 0)
    }

    /// The graph that they were taken out of.
    pub fn graph(&self) -> &Arc<CostGraph> {
        &self.graph
    }

    /// One need fewer for a node; with the last, its files go, and it needs nothing itself any longer.
    fn release(&mut self, graph: &CostGraph, node: u32, freed: &mut Freed) {
        self.needed_by[node as usize] -= 1;
        if self.needed_by[node as usize] > 0 {
            return;
        }
        let gone = &graph.nodes[node as usize];
        *freed += gone.frees;
        for &inode in &gone.linked {
            self.links[inode as usize] -= 1;
            if self.links[inode as usize] == 0 {
                freed.bytes = freed.bytes.saturating_add(graph.inodes[inode as usize].bytes);
            }
        }
        for &layer in &gone.needs {
            self.release(graph, layer, freed);
        }
    }

    /// One need more for a node: the opposite of [`release`](Self::release).
    fn claim(&mut self, graph: &CostGraph, node: u32, kept: &mut Freed) {
        self.needed_by[node as usize] += 1;
        if self.needed_by[node as usize] > 1 {
            return;
        }
        let back = &graph.nodes[node as usize];
        *kept += back.frees;
        for &inode in &back.linked {
            if self.links[inode as usize] == 0 {
                kept.bytes = kept.bytes.saturating_add(graph.inodes[inode as usize].bytes);
            }
            self.links[inode as usize] += 1;
        }
        for &layer in &back.needs {
            self.claim(graph, layer, kept);
        }
    }
}

/// What some images of a [`CostGraph`] share with each other. Images that are not among them count for nothing.
#[derive(Debug, Clone)]
pub struct Sharing {
    graph: Arc<CostGraph>,
    /// Which images of the graph they are.
    among: Vec<bool>,
    /// How many of them need each node.
    needed_by: Vec<u32>,
}

impl Sharing {
    /// What these images share. One that is there twice counts once, one that is none of the graph not at all.
    pub fn new(graph: Arc<CostGraph>, images: impl IntoIterator<Item = usize>) -> Self {
        let (among, needed_by) = (vec![false; graph.images.len()], vec![0; graph.nodes.len()]);
        let mut sharing = Self { graph, among, needed_by };
        images.into_iter().for_each(|image| sharing.add(image));
        sharing
    }

    /// Adds one. Changes nothing for an image that is among them already, or is none of the graph.
    pub fn add(&mut self, image: usize) {
        if self.among.get_mut(image).is_some_and(|among| !std::mem::replace(among, true)) {
            self.graph.needs_of(image).for_each(|node| self.needed_by[node as usize] += 1);
        }
    }

    /// Takes one of them out. Changes nothing for an image that is not among them.
    pub fn remove(&mut self, image: usize) {
        if self.among.get_mut(image).is_some_and(std::mem::take) {
            self.graph.needs_of(image).for_each(|node| self.needed_by[node as usize] -= 1);
        }
    }

    /// Returns the bytes of the files that an image and at least two of them need, itself among these.
    pub fn shared_bytes(&self, image: usize) -> u64 {
        let shared = self.graph.needs_of(image).filter(|&node| self.needed_by[node as usize] > 1);
        shared.map(|node| self.graph.bytes_of(node)).fold(0, u64::saturating_add)
    }
}
