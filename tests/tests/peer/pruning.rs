//! Prunes and removals by both, and what they leave.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;

use larder::{Image, ImagePruneReport, MicrosandboxResult};
use larder_tests::{Home, Peer, run};

/// What a prune says, and what it did.
#[derive(Debug)]
pub(crate) struct Pruned {
    /// What it says, but for the bytes, which both count in their own way.
    pub(crate) report: ImagePruneReport,
    /// The bytes that it says.
    pub(crate) bytes: Option<u64>,
    /// The lengths of the files that are gone.
    pub(crate) lengths_gone: Option<u64>,
    /// The allocated blocks of the files that are gone.
    pub(crate) blocks_gone: Option<u64>,
}

pub(crate) fn prune_with_larder(home: &Home) -> Pruned {
    pruned(home, || run(async { Image::prune_local(&home.open().await).await }).expect("a report"))
}

pub(crate) fn prune_with_the_sdk(peer: &Peer, home: &Home) -> Pruned {
    pruned(home, || serde_json::from_value(peer.ask(&home.path(), ["prune"])).expect("a report"))
}

pub(crate) fn remove_with_larder(home: &Home, reference: &str) -> MicrosandboxResult<()> {
    run(async { Image::remove_local(&home.open().await, reference, false).await })
}

fn pruned(home: &Home, prune: impl FnOnce() -> ImagePruneReport) -> Pruned {
    let before = sizes(home);
    let report = prune();
    let after = sizes(home);
    let gone = || before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(_, sizes)| sizes);
    let sum = |bytes: u64| (bytes > 0).then_some(bytes);
    Pruned {
        bytes: report.bytes_reclaimed,
        lengths_gone: sum(gone().map(|(length, _)| length).sum()),
        blocks_gone: sum(gone().map(|(_, blocks)| blocks).sum()),
        report: ImagePruneReport { bytes_reclaimed: None, ..report },
    }
}

/// Length and allocated bytes of every file of the cache.
fn sizes(home: &Home) -> BTreeMap<String, (u64, u64)> {
    let mut sizes = BTreeMap::new();
    for name in files(home) {
        let metadata = home.cache().join(&name).metadata().expect("a file");
        sizes.insert(name, (metadata.len(), metadata.blocks() * 512));
    }
    sizes
}

fn files(home: &Home) -> BTreeSet<String> {
    let rooms = ["layers", "fsmeta", "vmdk", "manifests", "tmp"];
    let names = |room: &'static str| home.files(room).into_iter().map(move |name| format!("{room}/{name}"));
    rooms.into_iter().flat_map(names).collect()
}

/// What there is: the rows of the index in words, and the files.
pub(crate) fn left(home: &Home) -> (BTreeMap<&'static str, BTreeSet<String>>, BTreeSet<String>) {
    let rows = [
        ("references", "SELECT reference FROM image_ref"),
        ("manifests", "SELECT digest FROM manifest"),
        ("configs", "SELECT digest FROM config"),
        ("layers", "SELECT diff_id FROM layer"),
        (
            "links",
            "SELECT digest || ' ' || position || ' ' || diff_id FROM manifest_layer
               JOIN manifest ON manifest.id = manifest_id JOIN layer ON layer.id = layer_id",
        ),
    ];
    (rows.into_iter().map(|(what, query)| (what, home.texts(query))).collect(), files(home))
}
