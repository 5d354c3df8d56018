//! What a pull that fails leaves for the next one.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use larder::ingest::{LayerOutcome, Progress, ProgressEvent};
use larder::{Image, ImageHandle, MicrosandboxResult};
use larder_tests::archive::{Item, Packing, TestImage, digest, docker_files, layer, pack};
use larder_tests::registry::{Answer, TestRegistry};
use larder_tests::{FIXTURE_NOW, Home, LoadTest, contents, run};

use crate::{into_home, pull};

/// An image of two layers.
fn image() -> TestImage {
    let (first, second) = (layer(&[Item::File("first", b"1")]), layer(&[Item::File("second", b"2")]));
    TestImage::new(&["acme/app:1"], vec![first, second])
}

/// The digest of a blob.
fn blob(place: usize) -> String {
    digest(&pack(&image().layers[place], Packing::Gzip))
}

/// A registry whose second layer is answered only when the first one is in the cache.
struct Slow {
    registry: TestRegistry,
    gate: Arc<Gate>,
    /// Whether the second layer is missing.
    fails: Arc<AtomicBool>,
}

#[derive(Default)]
struct Gate {
    is_done: Mutex<bool>,
    changed: Condvar,
}

impl Progress for Gate {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::LayerDone { outcome: LayerOutcome::Converted | LayerOutcome::Cached, .. } =
            event
        {
            *self.is_done.lock().expect("a flag") = true;
            self.changed.notify_all();
        }
    }
}

impl Gate {
    fn wait(&self) {
        let is_done = self.is_done.lock().expect("a flag");
        drop(self.changed.wait_while(is_done, |is_done| !*is_done).expect("a flag"));
    }
}

impl Slow {
    fn new() -> Self {
        let (gate, fails) = (Arc::<Gate>::default(), Arc::new(AtomicBool::new(true)));
        let (opened, failing, second) = (Arc::clone(&gate), Arc::clone(&fails), blob(1));
        let registry = TestRegistry::with_rule(&[image()], Packing::Gzip, move |request| {
            if !request.path.ends_with(&second) {
                return Answer::Right;
            }
            opened.wait();
            match failing.load(Ordering::Relaxed) {
                true => Answer::error(404, "BLOB_UNKNOWN", "no"),
                false => Answer::Right,
            }
        });
        Self { registry, gate, fails }
    }

    fn pull(&self, home: &Home) -> MicrosandboxResult<ImageHandle> {
        into_home(home, pull(&self.registry, "acme/app:1").progress(Arc::clone(&self.gate) as _))
    }

    fn requests_for_first(&self) -> usize {
        self.registry.requests().iter().filter(|request| request.path.ends_with(&blob(0))).count()
    }
}

fn name() -> String {
    format!("tmp/{}-complete.erofs.part", image().diff_ids()[0].replace(':', "_"))
}

fn files(home: &Home) -> Vec<String> {
    contents(home).into_keys().collect()
}

/// A layer that is complete when a pull fails is kept, and the next pull asks for the others alone, however often it fails.
#[test]
fn the_next_pull_goes_on() {
    let (slow, home) = (Slow::new(), Home::made());
    for _ in 0..2 {
        slow.pull(&home).expect_err("a blob is missing");
        assert_eq!(files(&home), [name()]);
    }
    slow.fails.store(false, Ordering::Relaxed);
    slow.pull(&home).expect("pulled");
    assert_eq!((slow.requests_for_first(), home.files("tmp").len()), (1, 0));
    // It is the same image as one that came at once.
    let other = Home::made();
    into_home(&other, pull(&TestRegistry::new(&[image()], Packing::Gzip), "acme/app:1")).expect("pulled");
    let artifacts = |home: &Home| {
        let mut files = contents(home);
        files.retain(|name, _| name.starts_with("layers/") || name.starts_with("fsmeta/"));
        files
    };
    assert_eq!(artifacts(&home), artifacts(&other));
}

/// A kept layer that is damaged is pulled again.
#[test]
fn damaged() {
    let (slow, home) = (Slow::new(), Home::made());
    slow.pull(&home).expect_err("a blob is missing");
    let file = File::options().write(true).open(home.cache().join(name())).expect("a file");
    file.set_len(100).expect("cut off");
    slow.fails.store(false, Ordering::Relaxed);
    slow.pull(&home).expect("pulled");
    assert_eq!((slow.requests_for_first(), home.files("tmp").len()), (2, 0));
}

/// What is kept is collected after a day, by a prune, as other work is.
#[test]
fn kept_for_a_day() {
    let (slow, home) = (Slow::new(), Home::made());
    slow.pull(&home).expect_err("a blob is missing");
    let file = File::options().write(true).open(home.cache().join(name())).expect("a file");
    let now: DateTime<Utc> = FIXTURE_NOW.parse().expect("a time");
    for (hours, expected) in [(23, 1), (25, 0)] {
        file.set_modified(SystemTime::from(now - TimeDelta::hours(hours))).expect("its time");
        run(async { Image::prune_local(&home.open().await).await }).expect("a prune");
        assert_eq!(files(&home).len(), expected, "after {hours} hours");
    }
}

/// A load that fails leaves nothing: its archive is still there.
#[test]
fn loads_keep_nothing() {
    let mut image = image();
    image.layers[1] = layer(&[Item::File("../escape", b"x")]);
    LoadTest::new().refused_archive(&docker_files(&[image]));
}

/// A pull that is dropped keeps what is complete as well.
#[test]
fn dropped() {
    let (slow, home) = (Slow::new(), Home::made());
    let pull = pull(&slow.registry, "acme/app:1").progress(Arc::clone(&slow.gate) as _);
    run(async {
        let local = home.open().await;
        let gate = Arc::clone(&slow.gate);
        let pulling = tokio::spawn(async move { pull.run(&local).await });
        tokio::task::spawn_blocking(move || gate.wait()).await.expect("a layer");
        pulling.abort();
        drop(pulling.await);
    });
    // What is undone is undone beside the caller.
    while files(&home) != [name()] {
        thread::yield_now();
    }
}
