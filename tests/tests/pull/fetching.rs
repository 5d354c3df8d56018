//! What is asked for, and what comes of it.

use std::sync::{Arc, Barrier, Mutex, mpsc};

use chrono::{DateTime, TimeDelta, Utc};
use larder::ingest::{LayerOutcome, LayerStep, Progress, ProgressEvent};
use larder::{Image, LocalBackend};
use larder_tests::archive::{
    Item, Packing, TestImage, add_blob, add_manifest, digest, foreign_architecture, layer, layout_files,
};
use larder_tests::registry::{Answer, TestRegistry};
use larder_tests::{FIXTURE_NOW, Home, LoadTest, contents, run, tree};
use serde_json::json;

use crate::{into_home, pull};

/// What is pulled is what the same layout gives when it is loaded, artifacts and rows, and the index knows that it can
/// be had again.
#[test]
fn as_if_it_were_loaded() {
    let image = TestImage::small(&["acme/app:1"]);
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let registry = TestRegistry::new(std::slice::from_ref(&image), packing);
        let home = Home::made();
        let handle = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
        assert_eq!(handle.reference(), registry.reference("acme/app:1"));

        let loaded = LoadTest::new();
        let layout = loaded.archive(&layout_files(std::slice::from_ref(&image), packing));
        let other = loaded.load(&layout, &[&registry.reference("acme/app:1")]).expect("loaded");
        assert_eq!(handle.manifest_digest(), other[0].manifest_digest());
        // Descriptors of disks have the paths of their homes.
        let files = |home: &Home| {
            let mut files = contents(home);
            files.retain(|name, _| !name.starts_with("vmdk/"));
            files
        };
        assert_eq!(files(&home), files(&loaded.home), "{packing:?}");
        let detail = |home: &Home| {
            let detail = run(async { Image::inspect_local(&home.open().await, handle.reference()).await });
            let detail = detail.expect("the image");
            (format!("{:?}", detail.config), format!("{:?}", detail.layers))
        };
        assert_eq!(detail(&home), detail(&loaded.home));
        let origins = home.texts("SELECT origin FROM larder_origin");
        assert_eq!(origins.into_iter().collect::<Vec<_>>(), ["registry"]);
        assert!(home.files("tmp").is_empty());
    }
}

/// Of an index, the image for this machine is pulled, and nothing of the others is asked for.
#[test]
fn an_index_is_resolved() {
    let image = TestImage::small(&[]);
    let mut foreign = TestImage::new(&[], vec![layer(&[])]);
    foreign.architecture = foreign_architecture().to_owned();
    let mut files = layout_files(&[], Packing::Gzip);
    let mut manifests = Vec::new();
    for image in [&foreign, &image] {
        let mut descriptor = add_manifest(&mut files, image, Packing::Gzip);
        descriptor["platform"] = json!({ "os": "linux", "architecture": image.architecture });
        manifests.push(descriptor);
    }
    let wanted = manifests[1]["digest"].as_str().expect("a digest").to_owned();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    let mut named = add_blob(&mut files, media_type, index.to_string().into_bytes());
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": "acme/app:1" });
    let layout = json!({ "schemaVersion": 2, "manifests": [named] }).to_string();
    files.insert("index.json".to_owned(), layout.into_bytes());

    let registry = TestRegistry::with_files(files, |_| Answer::Right);
    let home = Home::made();
    let handle = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    assert_eq!(handle.manifest_digest(), Some(wanted.as_str()));
    assert_eq!(registry.requests().iter().filter(|request| request.is_manifest()).count(), 2);
    assert_eq!(registry.blobs_asked_for().len(), 3, "a config and two layers");
}

/// An image is pulled by its digest, with a tag and without, and the reference says so afterwards.
#[test]
fn by_digest() {
    let image = TestImage::small(&["acme/app:1"]);
    let registry = TestRegistry::new(std::slice::from_ref(&image), Packing::Gzip);
    let home = Home::made();
    let manifest = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    let manifest = manifest.manifest_digest().expect("a digest").to_owned();
    for name in [format!("acme/app@{manifest}"), format!("acme/app:1@{manifest}")] {
        let handle = into_home(&home, pull(&registry, &name)).expect("pulled");
        assert_eq!(handle.reference(), registry.reference(&name));
        assert_eq!(handle.manifest_digest(), Some(manifest.as_str()));
    }
}

/// What the cache has is not asked for: neither layers that another image brought, nor anything but the manifest of an
/// image that is there.
#[test]
fn nothing_is_downloaded_twice() {
    let first = TestImage::small(&["acme/app:1"]);
    let second = TestImage::new(&["acme/app:2"], vec![first.layers[0].clone(), layer(&[])]);
    let registry = TestRegistry::new(&[first, second.clone()], Packing::Plain);
    let home = Home::made();
    into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    assert_eq!(registry.blobs_asked_for().len(), 3);
    into_home(&home, pull(&registry, "acme/app:1")).expect("pulled again");
    assert_eq!(registry.blobs_asked_for().len(), 3);
    into_home(&home, pull(&registry, "acme/app:2")).expect("pulled");
    let mut asked = registry.blobs_asked_for().split_off(3);
    asked.sort();
    let mut wanted = vec![digest(second.config().to_string().as_bytes()), digest(&second.layers[1])];
    wanted.sort();
    assert_eq!(asked, wanted);
}

/// A tag that still leads to the same manifest costs a look at its digest, and one that moved is downloaded. A reference
/// with a digest that the cache has costs nothing.
#[test]
fn unchanged_tags() {
    let (old, new) = (TestImage::small(&["acme/app:1"]), TestImage::new(&["acme/app:2"], vec![layer(&[])]));
    let registry = TestRegistry::with_rule(&[old, new.clone()], Packing::Gzip, |request| {
        // A registry without digests of manifests in its headers.
        match request.path.ends_with("/2") && request.method == "HEAD" {
            true => Answer::header(200, "X-Nothing", "of use"),
            false => Answer::Right,
        }
    });
    let home = Home::made();
    let manifests = |since: usize| {
        let requests = registry.requests().split_off(since);
        let manifests = requests.iter().filter(|request| request.is_manifest());
        (registry.requests().len(), manifests.map(|request| request.method.clone()).collect::<Vec<_>>())
    };
    let handle = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    let (seen, asked) = manifests(0);
    assert_eq!(asked, ["GET"]);
    let again = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled again");
    assert_eq!(again.manifest_digest(), handle.manifest_digest());
    let (seen, asked) = manifests(seen);
    assert_eq!(asked, ["HEAD"]);
    for _ in 0..2 {
        into_home(&home, pull(&registry, "acme/app:2")).expect("pulled");
    }
    let (seen, asked) = manifests(seen);
    assert_eq!(asked, ["GET", "HEAD", "GET"]);
    let by_digest = format!("acme/app@{}", handle.manifest_digest().expect("a digest"));
    for _ in 0..2 {
        into_home(&home, pull(&registry, &by_digest)).expect("pulled");
    }
    assert_eq!(manifests(seen).1, ["GET"]);
}

/// A pull is on record with its time and its bytes. One that finds everything present is an arrival of its own, and leaves
/// the cost of the one before.
#[test]
fn a_pull_is_on_record() {
    let registry = TestRegistry::new(&[TestImage::small(&["acme/app:1"])], Packing::Plain);
    let home = Home::made();
    let pull_at = |hours: i64| {
        let now = FIXTURE_NOW.parse::<DateTime<Utc>>().expect("a time") + TimeDelta::hours(hours);
        let local = LocalBackend::builder().home(home.path()).clock(move || now);
        run(async {
            let local = local.build().await.expect("a home");
            let handle = pull(&registry, "acme/app:1").run(&local).await.expect("pulled");
            let uses = local.explain(handle.reference()).await.expect("an explanation").uses;
            (now, uses.expect("uses"))
        })
    };
    let (now, first) = pull_at(0);
    assert_eq!((first.arrivals, first.last_pulled_at, first.boots), (1, Some(now), 0));
    let blobs: usize = contents(&home).keys().filter(|name| name.starts_with("layers/")).count();
    assert!(first.last_pull_bytes > Some(blobs as u64 * 512), "{first:?}");
    assert!(first.last_pull_ms.is_some());
    let (now, second) = pull_at(2);
    assert_eq!((second.arrivals, second.last_pulled_at), (2, Some(now)));
    assert_eq!((second.last_pull_bytes, second.last_pull_ms), (first.last_pull_bytes, first.last_pull_ms));
}

/// A tag that leads to another image is that image after the next pull.
#[test]
fn a_tag_moves() {
    let (old, new) = (TestImage::small(&["acme/app:1"]), TestImage::new(&["acme/app:1"], vec![layer(&[])]));
    let home = Home::made();
    let registry = TestRegistry::new(&[old], Packing::Gzip);
    let name = registry.reference("acme/app:1");
    into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    let mut moved = layout_files(std::slice::from_ref(&new), Packing::Gzip);
    let index = String::from_utf8(moved["index.json"].clone()).expect("text");
    moved.insert("index.json".to_owned(), index.replace("acme/app:1", &name).into_bytes());
    let layout = LoadTest::new();
    let layout = layout.archive(&moved);
    run(async { Image::load_local(&home.open().await, &layout, vec![]).await }).expect("loaded");
    assert_eq!(home.count("SELECT count(*) FROM image_ref"), 1);
    let handle = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    assert_eq!(handle.layer_count(), 2);
}

/// An artifact that was lost is downloaded again.
#[test]
fn lost_artifacts_come_back() {
    let image = TestImage::small(&["acme/app:1"]);
    let registry = TestRegistry::new(std::slice::from_ref(&image), Packing::Gzip);
    let home = Home::made();
    let handle = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    let before = contents(&home);
    let lost = home.cache().join("layers").join(image.diff_ids()[1].replace(':', "_") + ".erofs");
    std::fs::remove_file(lost).expect("removed");
    into_home(&home, pull(&registry, "acme/app:1")).expect("pulled again");
    assert_eq!(contents(&home), before);
    let seen = tree(&home, handle.manifest_digest().expect("a digest"), &image.diff_ids());
    assert_eq!(seen["etc/motd"], "other\n");
}

/// Layers are downloaded side by side: the registry answers no one before all are asked for.
#[test]
fn layers_come_side_by_side() {
    let layers = (0..4).map(|number| layer(&[Item::File(&number.to_string(), b"x")]));
    let image = TestImage::new(&["acme/app:1"], layers.collect());
    let config = digest(image.config().to_string().as_bytes());
    let all = Barrier::new(4);
    let registry = TestRegistry::with_rule(&[image], Packing::Gzip, move |request| {
        if request.is_blob() && !request.path.ends_with(&config) {
            all.wait();
        }
        Answer::Right
    });
    into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled");
}

/// Every layer is told of from its beginning to its end, with bytes that grow to those of its blob.
#[test]
fn progress_is_told() {
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);
    impl Progress for Told {
        fn event(&self, event: ProgressEvent<'_>) {
            let line = match event {
                ProgressEvent::LayerStarted { step: LayerStep::Download, bytes, .. } => {
                    format!("begin {bytes}")
                }
                ProgressEvent::LayerAdvanced { done, bytes, .. } => format!("{done} of {bytes}"),
                ProgressEvent::LayerDone { outcome: LayerOutcome::Converted, bytes, .. } => {
                    format!("end {bytes}")
                }
                ProgressEvent::ImageReady { layers, .. } => format!("{layers} layers"),
                ProgressEvent::ImageAdded { .. } => "added".to_owned(),
                other => format!("{other:?}"),
            };
            self.0.lock().expect("a list").push(line);
        }
    }
    let image = TestImage::new(&["acme/app:1"], vec![layer(&[])]);
    let bytes = image.layers[0].len();
    let registry = TestRegistry::new(&[image], Packing::Plain);
    let told = Arc::new(Told::default());
    into_home(&Home::made(), pull(&registry, "acme/app:1").progress(told.clone())).expect("pulled");
    let expected = [
        format!("begin {bytes}"),
        format!("{bytes} of {bytes}"),
        format!("end {bytes}"),
        "1 layers".to_owned(),
        "added".to_owned(),
    ];
    assert_eq!(*told.0.lock().expect("a list"), expected);
}

/// A pull works on whichever runtime the caller has, one of a single thread without timers and sockets, too, and from
/// several tasks at once.
#[test]
fn any_runtime() {
    let images = [TestImage::small(&["acme/app:1"]), TestImage::small(&["acme/app:2"])];
    let registry = TestRegistry::new(&images, Packing::Gzip);
    let home = Home::made();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let local: LocalBackend = home.open().await;
        let tasks = ["acme/app:1", "acme/app:2"].map(|name| {
            let (local, pull) = (local.clone(), pull(&registry, name));
            tokio::spawn(async move { pull.run(&local).await })
        });
        for task in tasks {
            task.await.expect("no panic").expect("pulled");
        }
    });
    assert_eq!(home.count("SELECT count(*) FROM image_ref"), 2);
    assert_eq!(home.files("layers").iter().filter(|name| name.ends_with(".erofs")).count(), 2);
}

/// Of two pulls of the same layers at once, one downloads each layer, and the other waits for it and says so.
#[test]
fn two_at_once() {
    struct Waits(Mutex<Option<mpsc::Sender<()>>>);
    impl Progress for Waits {
        fn event(&self, event: ProgressEvent<'_>) {
            if matches!(event, ProgressEvent::Waiting { .. }) {
                // Whoever listens needs to know once.
                drop(self.0.lock().expect("a channel").take());
            }
        }
    }
    let shared = layer(&[Item::File("shared", b"x")]);
    let images = ["acme/app:1", "acme/app:2"].map(|name| TestImage::new(&[name], vec![shared.clone()]));
    let blob = digest(&shared);
    let (waits, waiting) = mpsc::channel::<()>();
    let (asked, is_asked) = mpsc::channel();
    let waiting = Mutex::new(waiting);
    let registry = TestRegistry::with_rule(&images, Packing::Plain, move |request| {
        if request.path.ends_with(&blob) {
            asked.send(()).expect("a test that listens");
            // Nothing of the layer comes before the other one waits for it.
            let _ = waiting.lock().expect("a channel").recv();
        }
        Answer::Right
    });
    let home = Home::made();
    run(async {
        let local = home.open().await;
        let first = tokio::spawn({
            let (local, pull) = (local.clone(), pull(&registry, "acme/app:1"));
            async move { pull.run(&local).await }
        });
        tokio::task::spawn_blocking(move || is_asked.recv().map(|()| is_asked))
            .await
            .expect("no panic")
            .expect("asked");
        let progress = Arc::new(Waits(Mutex::new(Some(waits))));
        pull(&registry, "acme/app:2").progress(progress).run(&local).await.expect("pulled");
        first.await.expect("no panic").expect("pulled");
    });
    let times = registry.blobs_asked_for().iter().filter(|asked| **asked == digest(&shared)).count();
    assert_eq!(times, 1);
}
