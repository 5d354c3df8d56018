//! A home that the SDK made and filled, in the hands of Larder.

use larder::maintenance::VerifyDepth;
use larder::{Image, ImageArchiveFormat};
use larder_tests::{Home, Peer, contents, run};

use crate::answers::{Answers, filled_by_larder, filled_by_the_sdk};
use crate::images::{Archives, REFERENCES, add_sandbox};
use crate::pruning::{left, prune_with_larder, prune_with_the_sdk};

/// Larder lists, gets and inspects what the SDK loaded, with the SDK's answers, and finds nothing wrong in such a home.
#[test]
fn the_answers_are_the_same() {
    let Some(peer) = Peer::find() else { return };
    let home = filled_by_the_sdk(&peer, &Archives::new().paths);
    let answers = Answers::of_larder(&home);
    assert_eq!(Answers::of_the_sdk(&peer, &home), answers);
    assert_eq!(answers.images.keys().collect::<Vec<_>>(), REFERENCES);
    let report = run(async { home.open().await.verify(VerifyDepth::Deep).await });
    let report = report.expect("a report");
    assert!(report.findings.is_empty() && report.problems.is_empty(), "{report:?}");
    assert_eq!(report.checked, 4 + 3 * 2 + 5);
}

/// Of the same archives the SDK and Larder make the same images: digests, sizes, configs, and what a sandbox sees.
#[test]
fn the_images_are_the_same() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();
    let (theirs, ours) = (filled_by_the_sdk(&peer, &archives.paths), filled_by_larder(&archives.paths));
    let (by_the_sdk, by_larder) = (Answers::of_larder(&theirs), Answers::of_larder(&ours));
    for reference in REFERENCES {
        let known_to_larder_alone = ["erofs_size_bytes", "stop_signal", "created_at", "last_used_at"];
        let comparable = |answers: &Answers| {
            let mut detail = answers.images[reference].1.clone();
            for object in ["/handle", "/config", "/layers/0", "/layers/1"] {
                let object = detail.pointer_mut(object).and_then(|object| object.as_object_mut());
                let object = object.expect("an object");
                known_to_larder_alone.iter().for_each(|&key| drop(object.remove(key)));
            }
            detail
        };
        assert_eq!(comparable(&by_larder), comparable(&by_the_sdk));
        let (found, expected) = (by_larder.entries(&ours, reference), by_the_sdk.entries(&theirs, reference));
        assert!(!expected.is_empty());
        for (path, seen) in &expected {
            assert_eq!(found.get(path), Some(seen), "{reference}: {path}");
        }
        assert_eq!(found.len(), expected.len(), "{reference}");
    }
}

/// What Larder saves of a home that the SDK filled, the SDK loads, and a sandbox sees in it what it saw before.
#[test]
fn what_larder_saves_is_whole() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();
    let home = filled_by_the_sdk(&peer, &archives.paths);
    let before = Answers::of_larder(&home);
    for format in [ImageArchiveFormat::Docker, ImageArchiveFormat::Oci] {
        let archive = archives.path(&format!("{format:?}"));
        let references = REFERENCES.map(str::to_owned);
        let saved = run(async { Image::save_local(&home.open().await, &references, &archive, format).await });
        saved.expect("an archive");
        let again = filled_by_the_sdk(&peer, &[archive]);
        let after = Answers::of_the_sdk(&peer, &again);
        for reference in REFERENCES {
            assert_eq!(
                after.entries(&again, reference),
                before.entries(&home, reference),
                "{format:?}, {reference}"
            );
        }
    }
}

/// Larder prunes a home that the SDK filled as the SDK does: it reports the same figures, the same files are gone, and
/// what a sandbox uses is left.
#[test]
fn pruned_alike() {
    let Some(peer) = Peer::find() else { return };
    let home = filled_by_the_sdk(&peer, &Archives::new().paths);
    add_sandbox(&home, REFERENCES[3]);
    let copy = home.copy();
    let (by_larder, by_the_sdk) = (prune_with_larder(&home), prune_with_the_sdk(&peer, &copy));
    assert_eq!(by_larder.report, by_the_sdk.report);
    assert_eq!((by_larder.bytes, by_the_sdk.bytes), (by_larder.blocks_gone, by_the_sdk.lengths_gone));
    assert_eq!(left(&home), left(&copy));
}

/// Larder prunes everything that the SDK loaded, to the last file.
#[test]
fn nothing_is_left_behind() {
    let Some(peer) = Peer::find() else { return };
    let home: Home = filled_by_the_sdk(&peer, &Archives::new().paths);
    prune_with_larder(&home);
    assert!(contents(&home).is_empty(), "{:?}", contents(&home).keys());
}
