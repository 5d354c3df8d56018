//! A home that Larder made and filled, in the hands of the SDK.

use std::ffi::OsStr;

use larder_erofs::{Timestamp, Xattrs};
use larder_tests::{Peer, contents};
use serde_json::json;

use crate::answers::{Answers, filled_by_larder};
use crate::images::{Archives, REFERENCES, add_sandbox, app, bare, everything};
use crate::pruning::{left, prune_with_larder, prune_with_the_sdk, remove_with_larder};

/// The SDK lists, gets and inspects what Larder loaded, with Larder's answers: names, digests, sizes, layers, config.
#[test]
fn the_answers_are_the_same() {
    let Some(peer) = Peer::find() else { return };
    let home = filled_by_larder(&Archives::new().paths);
    let answers = Answers::of_larder(&home);
    assert_eq!(Answers::of_the_sdk(&peer, &home), answers);
    // And they are right.
    let mut listed: Vec<_> = answers.images.keys().map(String::as_str).collect();
    listed.sort_unstable();
    assert_eq!(listed, REFERENCES);
    for image in [app(), everything(), bare()] {
        for name in &image.names {
            assert_eq!(answers.digests(name).1, image.diff_ids(), "{name}");
        }
    }
    let config = &answers.images[REFERENCES[0]].1["config"];
    assert_eq!(config["entrypoint"], json!(["/init"]));
    assert_eq!(config["labels"], json!({ "empty": "", "org.example.team": "a b" }));
    assert_eq!(answers.images[REFERENCES[3]].1["config"]["labels"], json!(null));
}

/// What the SDK saves of a home that Larder filled, both load, and a sandbox sees in it what it saw before. The SDK saves
/// no extended attributes and no fractions of seconds.
#[test]
fn what_the_sdk_saves_is_whole() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();
    let home = filled_by_larder(&archives.paths);
    let before = Answers::of_larder(&home);
    for format in ["docker", "oci"] {
        let archive = archives.path(format);
        let call = [OsStr::new("save"), format.as_ref(), archive.as_os_str()];
        peer.ask(&home.path(), call.into_iter().chain(REFERENCES.map(OsStr::new)));
        let again = filled_by_larder(&[archive]);
        let after = Answers::of_larder(&again);
        for reference in REFERENCES {
            let mut expected = before.entries(&home, reference);
            for seen in expected.values_mut() {
                seen.metadata.xattrs = Xattrs::new();
                seen.metadata.mtime = Timestamp::new(seen.metadata.mtime.seconds(), 0).expect("a time");
            }
            // Nobody saves the root, which is in no layer here.
            expected.remove(".");
            let mut found = after.entries(&again, reference);
            found.remove(".");
            assert_eq!(found, expected, "{format}, {reference}");
        }
        assert_eq!(Answers::of_the_sdk(&peer, &again), after, "{format}");
    }
}

/// The SDK prunes a home that Larder filled as Larder does: it reports the same figures, the same files are gone, and what
/// a sandbox uses is left.
#[test]
fn pruned_alike() {
    let Some(peer) = Peer::find() else { return };
    let home = filled_by_larder(&Archives::new().paths);
    add_sandbox(&home, REFERENCES[2]);
    let copy = home.copy();
    let (by_larder, by_the_sdk) = (prune_with_larder(&home), prune_with_the_sdk(&peer, &copy));
    assert_eq!(by_the_sdk.report, by_larder.report);
    assert_eq!((by_larder.bytes, by_the_sdk.bytes), (by_larder.blocks_gone, by_the_sdk.lengths_gone));
    assert_eq!(left(&copy), left(&home));
    assert_eq!(Answers::of_the_sdk(&peer, &copy), Answers::of_larder(&home));
}

/// The SDK prunes everything that Larder loaded, to the last file.
#[test]
fn nothing_is_left_behind() {
    let Some(peer) = Peer::find() else { return };
    let home = filled_by_larder(&Archives::new().paths);
    prune_with_the_sdk(&peer, &home);
    assert!(contents(&home).is_empty(), "{:?}", contents(&home).keys());
}

/// The SDK removes one reference as Larder does, with the layers that nothing else needs, and refuses what is in use.
#[test]
fn removed_alike() {
    let Some(peer) = Peer::find() else { return };
    let home = filled_by_larder(&Archives::new().paths);
    add_sandbox(&home, REFERENCES[3]);
    for reference in REFERENCES {
        let (ours, theirs) = (home.copy(), home.copy());
        if reference == REFERENCES[3] {
            let refusal = remove_with_larder(&ours, reference).expect_err("it is in use");
            assert!(matches!(refusal, larder::MicrosandboxError::ImageInUse(_)), "{refusal}");
            let refusal = peer.call(&theirs.path(), ["remove", reference]).expect_err("it is in use");
            assert!(refusal.contains("in use"), "{refusal}");
        } else {
            remove_with_larder(&ours, reference).expect("removed");
            peer.ask(&theirs.path(), ["remove", reference]);
        }
        assert_eq!(left(&theirs), left(&ours), "{reference}");
    }
}
