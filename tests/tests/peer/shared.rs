//! Larder and the SDK on one home, in turns and at once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chrono::TimeDelta;
use larder::maintenance::VerifyDepth;
use larder::{Image, LocalBackend};
use larder_erofs::vmdk::{Extent, descriptor};
use larder_tests::judge::{Mount, can_mount, walk};
use larder_tests::{Home, Peer, run};

use crate::answers::{Answers, filled_by_larder, filled_by_the_sdk, load_with_larder, load_with_the_sdk};
use crate::images::{Archives, REFERENCES};
use crate::pruning::left;

/// The file of a digest.
fn artifact(home: &Home, room: &str, digest: &str) -> PathBuf {
    home.cache().join(room).join(format!("{}.erofs", digest.replace(':', "_")))
}

/// The inode of every artifact: one that was made again has another.
fn artifacts(home: &Home) -> BTreeMap<PathBuf, u64> {
    let mut inodes = BTreeMap::new();
    for room in ["layers", "fsmeta", "vmdk"] {
        for name in home.files(room) {
            let path = home.cache().join(room).join(name);
            inodes.insert(path.clone(), path.metadata().expect("an artifact").ino());
        }
    }
    inodes
}

/// What one has loaded the other does not make again: every artifact stays the one that it was, no row is doubled.
#[test]
fn nothing_is_made_twice() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();

    let home = filled_by_larder(&archives.paths);
    let (made, rows) = (artifacts(&home), left(&home));
    archives.paths.iter().for_each(|path| load_with_the_sdk(&peer, &home, path));
    assert_eq!(artifacts(&home), made);
    assert_eq!(left(&home), rows);
    assert_eq!(Answers::of_the_sdk(&peer, &home), Answers::of_larder(&home));

    let home = filled_by_the_sdk(&peer, &archives.paths);
    let (made, rows) = (artifacts(&home), left(&home));
    archives.paths.iter().for_each(|path| load_with_larder(&home, path, TimeDelta::hours(1)));
    assert_eq!(artifacts(&home), made);
    assert_eq!(left(&home), rows);
    assert_eq!(Answers::of_the_sdk(&peer, &home), Answers::of_larder(&home));
}

/// An image of which one has made a layer and the other makes the rest is the same as one that one of them made alone.
#[test]
fn images_share_layers() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();
    let alone = filled_by_larder(&archives.paths);
    let expected = Answers::of_larder(&alone).entries(&alone, REFERENCES[3]);
    let (app, bare) = (&archives.paths[0], &archives.paths[2]);

    let by_larder_first = Home::made();
    load_with_larder(&by_larder_first, app, TimeDelta::zero());
    let made = artifacts(&by_larder_first);
    load_with_the_sdk(&peer, &by_larder_first, bare);
    check(&by_larder_first, &made, &expected);

    let by_the_sdk_first = Home::missing();
    load_with_the_sdk(&peer, &by_the_sdk_first, app);
    let made = artifacts(&by_the_sdk_first);
    load_with_larder(&by_the_sdk_first, bare, TimeDelta::zero());
    check(&by_the_sdk_first, &made, &expected);

    fn check(home: &Home, made: &BTreeMap<PathBuf, u64>, expected: &BTreeMap<String, larder_tests::Seen>) {
        let now = artifacts(home);
        assert!(made.iter().all(|(path, inode)| now.get(path) == Some(inode)), "{made:?} {now:?}");
        // A layer, an fsmeta image and a descriptor.
        assert_eq!(now.len(), made.len() + 3);
        assert_eq!(&Answers::of_larder(home).entries(home, REFERENCES[3]), expected);
    }
}

/// The disk of an image with a layer of more than 2 GiB is described by the SDK as by Larder.
#[test]
fn large_disks_are_joined_alike() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();
    let home = filled_by_larder(&archives.paths[..1]);
    let (manifest, diff_ids) = Answers::of_larder(&home).digests(REFERENCES[0]);
    let disk: Vec<PathBuf> = std::iter::once(artifact(&home, "fsmeta", &manifest))
        .chain(diff_ids.iter().map(|diff_id| artifact(&home, "layers", diff_id)))
        .collect();
    // Holes only: the SDK looks at the length of a layer that is there, and at how it begins.
    let grown = File::options().write(true).open(&disk[1]).expect("a layer");
    grown.set_len((5 << 30) + 4096).expect("its length");
    let vmdk = artifact(&home, "vmdk", &manifest).with_extension("vmdk");
    fs::remove_file(&vmdk).expect("no descriptor");
    load_with_the_sdk(&peer, &home, &archives.paths[0]);

    let length = |path: &PathBuf| path.metadata().expect("a file").len();
    let extents: Vec<_> = disk.iter().map(|path| Extent { path, length: length(path) }).collect();
    let text = fs::read_to_string(vmdk).expect("a descriptor");
    assert_eq!(text.lines().filter(|line| line.starts_with("RW ")).count(), 5);
    assert_eq!(text, descriptor(&extents).expect("a descriptor"));
}

/// The kernel shows the same of an image that Larder made and of one that the SDK made of the same archive.
#[test]
fn the_kernel_shows_the_same() {
    let Some(peer) = Peer::find() else { return };
    if !can_mount() {
        return;
    }
    let archives = Archives::new();
    let mount = |home: &Home| {
        let (manifest, diff_ids) = Answers::of_larder(home).digests(REFERENCES[2]);
        let layers: Vec<PathBuf> = diff_ids.iter().map(|diff_id| artifact(home, "layers", diff_id)).collect();
        walk(Mount::new(&artifact(home, "fsmeta", &manifest), &layers).path())
    };
    let seen = mount(&filled_by_larder(&archives.paths));
    assert!(seen.len() > 1500, "{}", seen.len());
    assert_eq!(seen, mount(&filled_by_the_sdk(&peer, &archives.paths)));
}

/// While one loads images again and again, the other prunes: every call is answered, and in the end the index names
/// nothing that is not there.
#[test]
fn both_at_once() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();
    let home = Home::made();
    let backend = run(async { LocalBackend::builder().home(home.path()).build().await }).expect("the home");
    let prune = || {
        run(async { Image::prune_local(&backend).await }).expect("a report");
    };
    beside(prune, || {
        for path in archives.paths.iter().cycle().take(9) {
            // The image may be gone again before the SDK has looked it up to answer.
            let loaded = peer.call(&home.path(), ["load".as_ref(), path.as_os_str()]);
            assert!(loaded.as_ref().map_or_else(|why| why.contains("not found"), |_| true), "{loaded:?}");
        }
    });
    check(&backend);
    let prune = || drop(peer.ask(&home.path(), ["prune"]));
    beside(prune, || {
        for path in archives.paths.iter().cycle().take(30) {
            let loaded = run(async { Image::load_local(&backend, path, Vec::new()).await });
            assert!(!loaded.expect("loaded").is_empty());
        }
    });
    check(&backend);
    archives.paths.iter().for_each(|path| load_with_the_sdk(&peer, &home, path));
    assert_eq!(Answers::of_the_sdk(&peer, &home), Answers::of_larder(&home));
    check(&backend);

    fn check(backend: &LocalBackend) {
        let report = run(async { backend.verify(VerifyDepth::Shallow).await });
        let damage: Vec<_> =
            report.expect("a report").findings.into_iter().filter(|finding| finding.is_damage()).collect();
        assert!(damage.is_empty(), "{damage:?}");
    }
}

/// Both load an image on the same base at the same time, again and again: each image reads right, whoever made the base.
#[test]
fn both_make_one_base() {
    let Some(peer) = Peer::find() else { return };
    let archives = Archives::new();
    let alone = filled_by_larder(&archives.paths);
    let expected = [0, 3].map(|place| Answers::of_larder(&alone).entries(&alone, REFERENCES[place]));
    let (app, bare) = (&archives.paths[0], &archives.paths[2]);
    for round in 0..8 {
        let home = Home::made();
        let (of_the_sdk, of_larder) = if round % 2 == 0 { (app, bare) } else { (bare, app) };
        thread::scope(|scope| {
            scope.spawn(|| load_with_the_sdk(&peer, &home, of_the_sdk));
            load_with_larder(&home, of_larder, TimeDelta::zero());
        });
        let answers = Answers::of_larder(&home);
        let seen = [0, 3].map(|place| answers.entries(&home, REFERENCES[place]));
        assert_eq!(seen, expected, "round {round}");
        assert_eq!(Answers::of_the_sdk(&peer, &home), answers);
    }
}

/// Does one thing over and over while another is done.
fn beside(over_and_over: impl Fn() + Sync, once: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                over_and_over();
            }
        });
        let _stop = Stop(&done);
        once();
    });
}

/// Ends the other thread, also where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
