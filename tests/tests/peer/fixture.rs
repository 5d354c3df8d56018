//! The fixture: a home with users of images, which the SDK made.

use larder_tests::{Home, Peer, lines_of};
use serde_json::Value;

use crate::pruning::{left, prune_with_larder, prune_with_the_sdk};

/// What is written down as the SDK's answers is what it answers.
#[test]
fn the_recorded_answers_are_the_sdks() {
    let Some(peer) = Peer::find() else { return };
    let home = Home::fixture();
    assert_eq!(peer.ask(&home.path(), ["list"]), Value::from(lines_of("msb-0.7.13-41.list.jsonl")));
    for expected in lines_of("msb-0.7.13-41.inspect.jsonl") {
        let reference = expected["handle"]["reference"].as_str().expect("a reference");
        assert_eq!(peer.ask(&home.path(), ["inspect", reference]), expected);
    }
}

/// A prune by Larder and one by the SDK leave the same rows and the same files, and count them alike.
#[test]
fn pruned_alike() {
    let Some(peer) = Peer::find() else { return };
    let (ours, theirs) = (Home::fixture(), Home::fixture());
    let (by_larder, by_the_sdk) = (prune_with_larder(&ours), prune_with_the_sdk(&peer, &theirs));
    assert_eq!(by_larder.report, by_the_sdk.report);
    assert_eq!((by_larder.bytes, by_the_sdk.bytes), (by_larder.blocks_gone, by_the_sdk.lengths_gone));
    assert_eq!(left(&ours), left(&theirs));
}
