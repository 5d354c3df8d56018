//! What images cost: what goes with which, and what is shared.

use std::sync::Arc;

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

/// What is put back is as if it had never been out, in whatever order; what is not out is not put back.
#[test]
fn what_is_put_back_was_never_out() {
    let link = FileCost { bytes: LAYER, hard_links: Some(HardLinks { device: 1, inode: 7, links: 2 }) };
    let mut graph = shared_base();
    for layer in [graph.layer(Some(link)), graph.layer(Some(link))] {
        let manifest = graph.manifest(None, None, &[layer]);
        graph.image(None, Some(manifest));
    }
    let graph = Arc::new(graph.build());
    let mut removal = Removal::new(Arc::clone(&graph));
    assert_eq!(removal.put_back(0), Freed::default());
    let all: Vec<u64> = (0..5).map(|image| removal.remove(image).bytes).collect();
    let kept: Vec<u64> = [4, 0, 2, 1, 3].map(|image| removal.put_back(image).bytes).to_vec();
    assert_eq!(all.iter().sum::<u64>(), kept.iter().sum::<u64>());
    assert_eq!((removal.freed(), removal.put_back(3)), (Freed::default(), Freed::default()));
    assert_eq!((0..5).map(|image| removal.remove(image).bytes).collect::<Vec<_>>(), all);
    let mut sharing = Sharing::new(graph, [0, 1]);
    sharing.remove(1);
    sharing.add(1);
    sharing.add(1);
    assert_eq!(sharing.shared_bytes(0), LAYER);
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

/// An image that the graph does not have frees and shares nothing, however it is asked about; a sum that is too large is
/// the largest number.
#[test]
fn images_that_are_not_there() {
    let graph = Arc::new(shared_base().build());
    assert_eq!(graph.images(), 3);
    let mut removal = Removal::new(Arc::clone(&graph));
    for image in [3, usize::MAX] {
        assert_eq!(removal.remove(image), Freed::default());
    }
    assert_eq!(removal.would_free([0, 3, usize::MAX]), removal.would_free([0]));
    let mut sharing = Sharing::new(Arc::clone(&graph), [0, 1, 1, 3, usize::MAX]);
    sharing.remove(2);
    sharing.remove(usize::MAX);
    assert_eq!([0, 1, usize::MAX].map(|image| sharing.shared_bytes(image)), [LAYER, LAYER, 0]);
    assert_eq!(Removal::new(Arc::default()).would_free([0]), Freed::default());

    let mut graph = CostGraphBuilder::new();
    let links = HardLinks { device: 1, inode: 1, links: u64::MAX };
    let [whole, linked] = [None, Some(links)].map(|hard_links| FileCost { bytes: u64::MAX, hard_links });
    let layers = [whole, whole, linked].map(|file| graph.layer(Some(file)));
    let manifest = graph.manifest(Some(whole), Some(whole), &layers);
    graph.image(Some(("a", whole)), Some(manifest));
    let graph = Arc::new(graph.build());
    assert_eq!(Removal::new(Arc::clone(&graph)).remove(0).bytes, u64::MAX);
    assert_eq!(Sharing::new(graph, [0]).shared_bytes(0), 0);
}

/// An identifier of another builder names nothing, whether its number is one of this builder or not.
#[test]
fn identifiers_of_another_builder() {
    let mut other = CostGraphBuilder::new();
    let foreign: Vec<_> = (0..9).map(|_| other.layer(Some(FileCost::of(1)))).collect();
    let foreign_manifest = other.manifest(None, None, &foreign);
    let mut graph = CostGraphBuilder::new();
    let own = graph.layer(Some(FileCost::of(LAYER)));
    let manifest = graph.manifest(None, None, &[foreign[0], own, foreign[8]]);
    graph.hold(foreign_manifest);
    graph.image(None, Some(manifest));
    graph.image(None, Some(foreign_manifest));
    let mut removal = Removal::new(Arc::new(graph.build()));
    assert_eq!(removal.remove(1), Freed::default());
    assert_eq!(removal.remove(0), Freed { bytes: LAYER, manifests: 1, layers: 1, ..Freed::default() });
    assert!(removal.took(manifest) && !removal.took(foreign_manifest));
}

/// A hard-linked file frees its blocks once, with its last link.
#[test]
fn hard_links_count_once() {
    let link = |links| FileCost { bytes: LAYER, hard_links: Some(HardLinks { device: 1, inode: 7, links }) };
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

/// What a group has of its own is what would go with all of it, and that of all groups and what they share is all there is.
/// Files with two names count once.
#[test]
fn groups_add_up() {
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..50 {
        let mut graph = CostGraphBuilder::new();
        let layers: Vec<_> = (0..8)
            .map(|number| {
                // Layers 0 and 1 are one file.
                let links = HardLinks { device: 1, inode: 1, links: 2 };
                let file = FileCost { bytes: 100 + number / 2, hard_links: (number < 2).then_some(links) };
                graph.layer(Some(file))
            })
            .collect();
        let manifests: Vec<_> = (0..6)
            .map(|number| {
                let of: Vec<_> = if number == 0 {
                    layers.clone()
                } else {
                    (0..3).map(|_| layers[random(8) as usize]).collect()
                };
                graph.manifest(Some(FileCost::of(10)), None, &of)
            })
            .collect();
        let mut group_of = Vec::new();
        for number in 0..9_usize {
            let metadata = format!("{}", number % 8);
            let manifest = manifests[if number < 6 { number } else { random(6) as usize }];
            graph.image(Some((&metadata, FileCost::of(5))), Some(manifest));
            group_of.push(random(4) as usize);
        }
        let graph = Arc::new(graph.build());
        let grouped = graph.grouped(&group_of);
        let mut removal = Removal::new(Arc::clone(&graph));
        for (number, group) in grouped.groups.iter().enumerate() {
            let members =
                group_of.iter().enumerate().filter(|(_, of)| **of == number).map(|(image, _)| image);
            assert_eq!(group.own, removal.would_free(members).bytes, "{group_of:?}");
        }
        let all = removal.would_free(0..graph.images()).bytes;
        assert_eq!(grouped.groups.iter().map(|group| group.own).sum::<u64>() + grouped.shared, all);
    }
    assert_eq!(
        CostGraphBuilder::new().build().grouped(&[3]),
        Grouped { groups: vec![GroupBytes::default(); 4], shared: 0 }
    );
}
