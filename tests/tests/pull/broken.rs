//! Connections break, registries are busy: what arrived is not asked for again, and what cannot be had leaves nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::ingest::Backoff;
use larder_tests::archive::{Item, Packing, TestImage, digest, layer};
use larder_tests::registry::{Answer, Request, TestRegistry};
use larder_tests::{Home, contents, run, tree};

use crate::{Retries, into_home, pull, refusal};

/// An image with one layer of some hundred kilobytes, which do not compress.
fn large(name: &str) -> TestImage {
    let mut state = 1_u64;
    let mut content = Vec::new();
    for _ in 0..40_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        content.extend_from_slice(&state.to_le_bytes());
    }
    TestImage::new(&[name], vec![layer(&[Item::File("data", &content)])])
}

fn range(request: &Request) -> usize {
    // A blob is asked for from its beginning without one.
    let Some(range) = request.headers.get("range") else { return 0 };
    range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("a number")
}

/// A download that breaks off goes on where it ended, as often as it takes, and no byte is asked for twice.
#[test]
fn downloads_go_on_where_they_ended() {
    let image = large("acme/app:1");
    let blob = image.diff_ids()[0].clone();
    let of_layer = blob.clone();
    // Ten times, which is more than the tries for one that makes no progress.
    let registry = TestRegistry::with_rule(std::slice::from_ref(&image), Packing::Plain, move |request| {
        let cut = request.path.ends_with(&of_layer) && request.before < 10;
        if cut { Answer::Cut(10_000) } else { Answer::Right }
    });
    let home = Home::made();
    let retries = Retries::listening();
    let handle = into_home(&home, pull(&registry, "acme/app:1").progress(retries.clone())).expect("pulled");
    let begins: Vec<usize> =
        registry.requests().iter().filter(|request| request.path.ends_with(&blob)).map(range).collect();
    assert_eq!(begins, (0..=10).map(|number| number * 10_000).collect::<Vec<_>>());
    assert_eq!(retries.take().len(), 10);
    let manifest = handle.manifest_digest().expect("a digest");
    assert_eq!(home.files("layers").iter().filter(|name| name.ends_with(".erofs")).count(), 1);
    assert!(home.cache().join("fsmeta").join(manifest.replace(':', "_") + ".erofs").exists());
}

/// A registry that knows no ranges sends all of it again, and what is there already is passed over.
#[test]
fn registries_without_ranges() {
    let image = TestImage::small(&["acme/app:1"]);
    let registry = TestRegistry::with_rule(std::slice::from_ref(&image), Packing::Gzip, |request| {
        match (request.is_blob(), request.before) {
            (true, 0) => Answer::Cut(20),
            _ => Answer::Whole,
        }
    });
    let home = Home::made();
    let handle = into_home(&home, pull(&registry, "acme/app:1")).expect("pulled");
    let seen = tree(&home, handle.manifest_digest().expect("a digest"), &image.diff_ids());
    assert_eq!(seen["etc/motd"], "other\n");
}

/// Too many requests and faults of the server are waited out, each wait twice as long as the one before, up to the
/// longest.
#[test]
fn busy_registries_are_asked_again() {
    let registry = TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, |request| {
        match (request.is_manifest(), request.before) {
            (true, 0) => Answer::error(429, "TOOMANYREQUESTS", "slow down"),
            (true, 1) => Answer::error(503, "UNAVAILABLE", "later"),
            (true, 2) => Answer::header(502, "X-Nothing", "in the body"),
            (true, 3) => Answer::Cut(10),
            _ => Answer::Right,
        }
    });
    let mut backoff = Backoff::default();
    backoff.first_wait = Duration::from_millis(1);
    backoff.longest_wait = Duration::from_millis(4);
    backoff.jitter_percent = 0;
    let retries = Retries::listening();
    let wanted = pull(&registry, "acme/app:1").backoff(backoff).progress(retries.clone());
    into_home(&Home::made(), wanted).expect("pulled");
    let told = retries.take();
    let waits: Vec<u64> = told.iter().map(|(_, wait, _)| *wait).collect();
    assert_eq!(waits, [1, 2, 4, 4]);
    assert_eq!(told[0].2, "the registry failed: slow down");
    assert!(told[1].2.contains("status 503"), "{told:?}");
    assert!(told[3].2.contains("cannot be reached"), "{told:?}");
}

/// A registry that stays busy is given up after the tries that were allowed, and said as it is.
#[test]
fn patience_ends() {
    for (kind, wanted) in [("manifests", 1), ("blobs", 4)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let image = [TestImage::small(&["acme/app:1"])];
        let registry = TestRegistry::with_rule(&image, Packing::Gzip, move |request| {
            if !request.path.contains(kind) {
                return Answer::Right;
            }
            count.fetch_add(1, Ordering::Relaxed);
            Answer::error(429, "TOOMANYREQUESTS", "pull rate limit")
        });
        let mut backoff = Backoff::default();
        backoff.retries = 3;
        backoff.first_wait = Duration::ZERO;
        let said = refusal(&registry, pull(&registry, "acme/app:1").backoff(backoff));
        assert!(said.contains("the registry failed: pull rate limit"), "{said}");
        assert!(said.starts_with("`REGISTRY/acme/app:1`"), "{said}");
        assert!(asked.load(Ordering::Relaxed) >= 4, "{kind}: {wanted}");
    }
}

/// A connection that breaks again and again before anything of the rest came is given up, too.
#[test]
fn no_progress_is_given_up() {
    let image = large("acme/app:1");
    let blob = image.diff_ids()[0].clone();
    let of_layer = blob.clone();
    let registry = TestRegistry::with_rule(&[image], Packing::Plain, move |request| {
        match (request.path.ends_with(&of_layer), request.before) {
            (true, 0) => Answer::Cut(5_000),
            (true, _) => Answer::Cut(0),
            _ => Answer::Right,
        }
    });
    let said = refusal(&registry, pull(&registry, "acme/app:1"));
    assert!(said.contains("cannot be reached"), "{said}");
    // One that made progress, and five after that.
    let tries = registry.requests().iter().filter(|request| request.path.ends_with(&blob)).count();
    assert_eq!(tries, 6);
}

/// A pull that nobody waits for any longer ends in the middle of a download, and leaves nothing.
#[test]
fn given_up_in_the_middle() {
    let image = large("acme/app:1");
    let of_layer = image.diff_ids()[0].clone();
    let (reached, in_the_middle) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let registry = TestRegistry::with_rule(&[image], Packing::Plain, move |request| {
        if request.path.ends_with(&of_layer) {
            if request.before == 0 {
                return Answer::Cut(50_000);
            }
            let _ = reached.send(());
            // Until the test is over.
            let _ = released.lock().expect("a channel").recv();
        }
        Answer::Right
    });
    let home = Home::made();
    run(async {
        let local = home.open().await;
        let wanted = pull(&registry, "acme/app:1");
        let task = tokio::spawn({
            let local = local.clone();
            async move { wanted.run(&local).await }
        });
        tokio::task::spawn_blocking(move || in_the_middle.recv()).await.expect("no panic").expect("asked");
        task.abort();
        assert!(task.await.expect_err("given up").is_cancelled());
        // What it had to do on threads that may block is over when nothing in the cache is held any longer.
        larder::Image::prune_local(&local).await.expect("pruned");
    });
    drop(release);
    assert_eq!(home.count("SELECT count(*) FROM image_ref"), 0);
    let left: Vec<_> = contents(&home).into_keys().filter(|name| !name.starts_with("tmp/")).collect();
    assert_eq!(left, Vec::<String>::new());
}

/// The time that a registry asks for is waited, up to the longest that is allowed, and counts as a try: for manifests, blobs
/// and tokens.
#[test]
fn registries_say_when() {
    for path in ["/manifests/", "/blobs/", "/token"] {
        let image = [TestImage::small(&["acme/app:1"])];
        let registry = TestRegistry::with_rule(&image, Packing::Gzip, move |request| {
            let busy = |status: u16, after: &str| {
                let headers = [("Retry-After", after), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")];
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
                Answer::Other { status, headers: headers.into(), body: Vec::new() }
            };
            let host = request.headers["host"].as_str();
            match (request.path.contains(path), request.before) {
                (true, 0) => busy(503, "0"),
                (true, 1) => busy(429, "3600"),
                (true, 2) => busy(429, "Sun, 06 Nov 1994 09:49:37 GMT"),
                (true, 3) => busy(503, "Sun, 06 Nov 1994 07:49:37 GMT"),
                _ if request.path.starts_with("/token") => Answer::body(r#"{"token":"t"}"#),
                _ if request.headers.contains_key("authorization") => Answer::Right,
                _ => {
                    let challenge = format!("Bearer realm=\"http://{host}/token\"");
                    Answer::header(401, "WWW-Authenticate", &challenge)
                }
            }
        });
        let mut backoff = Backoff::default();
        // None of these is waited.
        backoff.first_wait = Duration::from_secs(3600);
        backoff.longest_wait = Duration::from_secs(3600);
        backoff.longest_requested_wait = Duration::from_millis(3);
        let retries = Retries::listening();
        let wanted = pull(&registry, "acme/app:1").backoff(backoff).progress(retries.clone());
        into_home(&Home::made(), wanted).expect("pulled");
        let mut waits: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (what, wait, _) in retries.take() {
            waits.entry(what).or_default().push(wait);
        }
        let expected = if path == "/blobs/" { 3 } else { 1 };
        assert_eq!(waits.len(), expected, "{path}: {waits:?}");
        assert!(waits.values().all(|waits| waits == &[0, 3, 3, 0]), "{path}: {waits:?}");
    }
}

/// A part of a blob is believed only if it is the part that was requested: otherwise all of the blob is requested.
#[test]
fn parts_are_checked() {
    let image = large("acme/app:1");
    let blob = image.diff_ids()[0].clone();
    let length = image.layers[0].len();
    for range in [
        None,
        Some(format!("bytes 9999-{}/{length}", length - 1)),
        Some(format!("bytes 10000-{}/{}", length - 1, length + 1)),
        Some("bytes 10000-*/*".to_owned()),
    ] {
        let of_layer = blob.clone();
        let registry =
            TestRegistry::with_rule(std::slice::from_ref(&image), Packing::Plain, move |request| {
                match (request.path.ends_with(&of_layer), request.before) {
                    (true, 0) => Answer::Cut(10_000),
                    _ => Answer::PartAs(range.clone()),
                }
            });
        into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled");
        let of_layer = |request: &Request| request.path.ends_with(&blob);
        let asked = registry.requests().into_iter().filter(of_layer);
        let ranges: Vec<_> = asked.map(|request| request.headers.get("range").cloned()).collect();
        assert_eq!(ranges, [None, Some("bytes=10000-".to_owned()), None]);
    }
}

/// A connection on which nothing comes is broken, and one on which little comes is not.
#[test]
fn slow_and_stalled_connections() {
    let image = TestImage::small(&["acme/app:1"]);
    let registry = TestRegistry::with_rule(&[image], Packing::Gzip, |request| {
        match (request.is_blob(), request.before) {
            (true, 0) => Answer::Stalled(20),
            (true, _) => Answer::Trickled,
            (false, _) => Answer::Right,
        }
    });
    let mut backoff = Backoff::default();
    backoff.first_wait = Duration::ZERO;
    backoff.longest_silence = Duration::from_millis(300);
    let retries = Retries::listening();
    let wanted = pull(&registry, "acme/app:1").backoff(backoff).progress(retries.clone());
    into_home(&Home::made(), wanted).expect("pulled");
    let told = retries.take();
    assert!(told.len() >= 3 && told.iter().all(|(_, _, why)| why.contains("cannot be reached")), "{told:?}");
}

/// A layer that cannot be had ends the others at once, also one that waits for bytes.
#[test]
fn a_failure_ends_the_others() {
    let image = TestImage::small(&["acme/app:1"]);
    let [bad, stalled] = [&image.layers[0], &image.layers[1]].map(|layer| digest(layer));
    let stalled_path = stalled.clone();
    let (asked, is_asked) = mpsc::channel();
    let is_asked = Mutex::new(is_asked);
    let registry = TestRegistry::with_rule(&[image], Packing::Plain, move |request| {
        if request.path.ends_with(&stalled_path) {
            let _ = asked.send(());
            return Answer::Stalled(100);
        }
        if request.path.ends_with(&bad) {
            // The other one is under way.
            let _ = is_asked.lock().expect("a channel").recv();
            return Answer::error(404, "BLOB_UNKNOWN", "unknown");
        }
        Answer::Right
    });
    // The silence after which a connection is broken is a minute.
    let said = refusal(&registry, pull(&registry, "acme/app:1"));
    assert!(said.contains("is missing"), "{said}");
    assert_eq!(registry.blobs_asked_for().iter().filter(|asked| **asked == stalled).count(), 1);
}
