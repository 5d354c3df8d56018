//! Images in groups, and the bytes that belong to each group.

use super::{CostGraph, Inode};

/// The bytes of a group of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupBytes {
    /// Allocated bytes of files that only images of this group need.
    pub own: u64,
    /// Allocated bytes of files that images of this group and of others need. Each of these groups has them.
    pub shared: u64,
}

/// The bytes of all groups. Those of the groups' own and those that are shared add up to the bytes of all files that
/// images of groups need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grouped {
    /// The groups, by their numbers.
    pub groups: Vec<GroupBytes>,
    /// Allocated bytes of files that images of more than one group need, each counted once.
    pub shared: u64,
}

/// Who needs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NeededBy {
    Nothing,
    Group(usize),
    Several,
}

impl NeededBy {
    fn and(self, group: usize) -> Self {
        match self {
            Self::Nothing => Self::Group(group),
            Self::Group(other) if other == group => self,
            Self::Group(_) | Self::Several => Self::Several,
        }
    }
}

impl CostGraph {
    /// Returns the bytes of groups of images. `group_of` has the number of the group of each image, in their order. An
    /// image that it does not reach is in no group and counts for nothing. Files with several hard links count once.
    ///
    /// It takes as many steps as images have files.
    pub fn grouped(&self, group_of: &[usize]) -> Grouped {
        let mut nodes = vec![NeededBy::Nothing; self.nodes.len()];
        let mut inodes = vec![NeededBy::Nothing; self.inodes.len()];
        let count = group_of.iter().max().map_or(0, |highest| highest + 1);
        let mut images: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (image, &group) in group_of.iter().enumerate().take(self.images.len()) {
            images[group].push(image);
            for node in self.needs_of(image) {
                let needed_by = &mut nodes[node as usize];
                *needed_by = needed_by.and(group);
                for &inode in &self.nodes[node as usize].linked {
                    let needed_by = &mut inodes[inode as usize];
                    *needed_by = needed_by.and(group);
                }
            }
        }
        let mut grouped = Grouped { groups: Vec::with_capacity(count), shared: 0 };
        // The last group that counted each.
        let mut node_counted = vec![None; self.nodes.len()];
        let mut inode_counted = vec![None; self.inodes.len()];
        for (group, images) in images.iter().enumerate() {
            let mut bytes = GroupBytes::default();
            for node in images.iter().flat_map(|&image| self.needs_of(image)) {
                let node = node as usize;
                if node_counted[node].replace(group) == Some(group) {
                    continue;
                }
                bytes.count(nodes[node], self.nodes[node].frees.bytes);
                for &inode in &self.nodes[node].linked {
                    let inode = inode as usize;
                    if inode_counted[inode].replace(group) != Some(group) {
                        bytes.count(inodes[inode], self.inodes[inode].bytes);
                    }
                }
            }
            grouped.groups.push(bytes);
        }
        let several = |(needed_by, bytes): (NeededBy, u64)| (needed_by == NeededBy::Several).then_some(bytes);
        let of_nodes = nodes.into_iter().zip(self.nodes.iter().map(|node| node.frees.bytes));
        let of_inodes = inodes.into_iter().zip(self.inodes.iter().map(|Inode { bytes, .. }| *bytes));
        grouped.shared = of_nodes.chain(of_inodes).filter_map(several).fold(0, u64::saturating_add);
        grouped
    }
}

impl GroupBytes {
    fn count(&mut self, needed_by: NeededBy, bytes: u64) {
        let sum = if needed_by == NeededBy::Several { &mut self.shared } else { &mut self.own };
        *sum = sum.saturating_add(bytes);
    }
}
