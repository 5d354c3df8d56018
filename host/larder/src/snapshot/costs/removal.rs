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
            links: graph.inodes.iter().map(|inode| i64::try_from(inode.links).unwrap_or(i64::MAX)).collect(),
            removed: vec![false; graph.images.len()],
            freed: Freed::default(),
            graph,
        }
    }

    /// Takes an image out. Returns what goes with it now; nothing where it is out already, or is none of the graph.
    pub fn remove(&mut self, image: usize) -> Freed {
        let freed = self.take_out(image, &mut Undo::default());
        self.freed += freed;
        freed
    }

    /// Returns what would go if these were taken out together, on top of what is out already. Those that are none of the
    /// graph count for nothing.
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
        self.graph.node(manifest.0).is_some_and(|manifest| self.needed_by[manifest as usize] == 0)
    }

    /// The graph that they were taken out of.
    pub fn graph(&self) -> &Arc<CostGraph> {
        &self.graph
    }

    fn take_out(&mut self, image: usize, undo: &mut Undo) -> Freed {
        let mut freed = Freed::default();
        // One that is none of the graph counts as out already.
        if self.removed.get_mut(image).is_none_or(|removed| std::mem::replace(removed, true)) {
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
                freed.bytes = freed.bytes.saturating_add(graph.inodes[inode as usize].bytes);
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
    /// Which images of the graph they are.
    among: Vec<bool>,
    /// How many of them need each node.
    needed_by: Vec<u32>,
}

impl Sharing {
    /// What these images share. One that is there twice counts once, one that is none of the graph not at all.
    pub fn new(graph: Arc<CostGraph>, images: impl IntoIterator<Item = usize>) -> Self {
        let mut among = vec![false; graph.images.len()];
        let mut needed_by = vec![0; graph.nodes.len()];
        for image in images {
            if among.get_mut(image).is_some_and(|among| !std::mem::replace(among, true)) {
                graph.needs_of(image).for_each(|node| needed_by[node as usize] += 1);
            }
        }
        Self { graph, among, needed_by }
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
