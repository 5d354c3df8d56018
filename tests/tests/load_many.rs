//! Archives of many images, layers that many images share, and an index that another program changes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use larder::ingest::{ImageLoad, LayerOutcome, Progress, ProgressEvent};
use larder_tests::archive::{Files, Item, TestImage, docker_files, layer};
use larder_tests::{Home, LoadTest, Outcomes, contents, run, tree};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The program that ends at a failpoint.
const CRASH: &str = env!("CARGO_BIN_EXE_larder-crash");

/// Lets this process open at most so many files.
fn open_files(limit: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }).expect("a limit");
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    layer(&[Item::File(name, content)])
}

/// An archive of three hundred images is loaded by a process that may open few files, and every image is whole; an image of more
/// layers than that is refused with both numbers.
#[test]
fn three_hundred_images() {
    open_files(128);
    let base = file("base", b"base");
    let images: Vec<TestImage> = (0..300)
        .map(|number| {
            let name = format!("acme/app{number}:1");
            let own = (0..3).map(|layer| file(&format!("f{layer}"), format!("{number}").as_bytes()));
            TestImage::new(&[&name], std::iter::once(base.clone()).chain(own).collect())
        })
        .collect();
    let test = LoadTest::new();
    let handles = test.load(&test.archive(&docker_files(&images)), &[]).expect("loaded");
    assert_eq!(handles.len(), 300);
    for number in [0, 17, 299] {
        let manifest = handles[number].manifest_digest().expect("a manifest");
        assert_eq!(tree(&test.home, manifest, &images[number].diff_ids())["f2"], number.to_string());
    }
    assert!(test.home.files("tmp").is_empty());

    let layers = (0..70).map(|number| file("f", format!("{number}").as_bytes())).collect();
    let refusal = LoadTest::new().refused_archive(&docker_files(&[TestImage::new(&["acme/deep:1"], layers)]));
    assert!(
        refusal.ends_with(
            "it has 70 layers, and this process can hold 64 files at once: raise its limit of open files"
        ),
        "{refusal}"
    );
}

/// A failure leaves the images that were complete, whole, and nothing of the others.
#[test]
fn complete_images_stay() {
    let good = TestImage::new(&["acme/good:1"], vec![file("a", b"a")]);
    // More layers than a batch has, so that the first image is in before the last begins.
    open_files(64);
    let layers = (0..20).map(|number| file("f", format!("{number}").as_bytes())).collect();
    let middle = TestImage::new(&["acme/middle:1"], layers);
    let mut layers: Vec<_> = (0..20).map(|number| file("g", format!("{number}").as_bytes())).collect();
    layers.push(file("../escape", b"x"));
    let bad = TestImage::new(&["acme/bad:1"], layers);
    let test = LoadTest::new();
    let error = test.load(&test.archive(&docker_files(&[good, middle, bad])), &[]).expect_err("a bad layer");
    assert!(error.to_string().contains("`../escape` has a component `..`"), "{error}");
    let references = test.home.texts("SELECT reference FROM image_ref");
    assert_eq!(references, ["docker.io/acme/good:1", "docker.io/acme/middle:1"].map(str::to_owned).into());
    assert_eq!((test.home.files("layers").len(), test.home.files("fsmeta").len()), (21, 2));
    assert!(test.home.files("tmp").is_empty());
}

/// Three images on one base, whose file in the cache another writer has laid out in another way.
struct Shared {
    test: LoadTest,
    base: TestImage,
    images: Vec<TestImage>,
    /// The digests of the manifests.
    manifests: Vec<String>,
}

const NAMES: [&str; 3] = ["acme/a:1", "acme/b:1", "acme/c:1"];

impl Shared {
    fn new() -> Self {
        let (a, b) = ([b'a'; 9000], [b'b'; 5000]);
        let items = [Item::File("a", &a), Item::File("b", &b)];
        let base = TestImage::new(&["acme/base:1"], vec![layer(&items)]);
        let reversed = layer(&[Item::File("b", &b), Item::File("a", &a)]);
        let other = LoadTest::new();
        let archive = other.archive(&docker_files(&[TestImage::new(&["acme/other:1"], vec![reversed])]));
        other.load(&archive, &[]).expect("loaded");
        let test = LoadTest::new();
        fs::create_dir_all(test.home.cache().join("layers")).expect("a directory");
        let from = other.home.files("layers").pop_first().expect("a layer");
        let to = format!("{}.erofs", base.diff_ids()[0].replace(':', "_"));
        fs::copy(other.home.cache().join("layers").join(from), test.home.cache().join("layers").join(&to))
            .expect("a copy");
        let images: Vec<TestImage> = NAMES
            .iter()
            .map(|name| TestImage::new(&[name], vec![base.layers[0].clone(), file("own", name.as_bytes())]))
            .collect();
        let handles = test.load(&test.archive(&docker_files(&images)), &[]).expect("loaded");
        let manifests =
            handles.iter().filter_map(|handle| handle.manifest_digest().map(str::to_owned)).collect();
        Self { test, base, images, manifests }
    }

    fn home(&self) -> &Home {
        &self.test.home
    }

    /// The base in the cache.
    fn path(&self) -> std::path::PathBuf {
        let name = format!("{}.erofs", self.base.diff_ids()[0].replace(':', "_"));
        self.home().cache().join("layers").join(name)
    }

    fn damage(&self) {
        File::options().write(true).open(self.path()).and_then(|file| file.set_len(4096)).expect("cut off");
    }

    fn is_damaged(&self) -> bool {
        fs::metadata(self.path()).expect("the base").len() == 4096
    }

    /// An archive of the first image.
    fn archive(&self) -> std::path::PathBuf {
        self.test.archive(&docker_files(&self.images[..1]))
    }

    /// Returns what an image has, if it has its joined files.
    fn seen(&self, place: usize) -> Option<BTreeMap<String, String>> {
        let name = format!("{}.erofs", self.manifests[place].replace(':', "_"));
        let is_there = self.home().files("fsmeta").contains(&name);
        is_there.then(|| tree(self.home(), &self.manifests[place], &self.images[place].diff_ids()))
    }

    fn assert_right(&self, place: usize, when: &str) {
        let seen = self.seen(place).unwrap_or_else(|| panic!("{when}: no image {place}"));
        assert_eq!(
            (seen["a"].as_str(), seen["b"].as_str()),
            (&*"a".repeat(9000), &*"b".repeat(5000)),
            "{when}"
        );
        assert_eq!(seen["own"], NAMES[place], "{when}");
    }
}

/// A lost base is made again for every image that has it, with as few files open as for one, and each reads right.
#[test]
fn a_base_is_made_again_for_all() {
    let shared = Shared::new();
    let before = contents(shared.home());
    let more: Vec<TestImage> = (0..150)
        .map(|number| {
            let own = file("own", format!("{number}").as_bytes());
            TestImage::new(&[&format!("acme/more{number}:1")], vec![shared.base.layers[0].clone(), own])
        })
        .collect();
    let handles = shared.test.load(&shared.test.archive(&docker_files(&more)), &[]).expect("loaded");
    shared.damage();
    open_files(64);
    shared.test.load(&shared.archive(), &[]).expect("made again");
    let layer = format!("layers/{}.erofs", shared.base.diff_ids()[0].replace(':', "_"));
    assert_ne!(contents(shared.home())[&layer], before[&layer], "the layout is the same as before");
    (0..3).for_each(|place| shared.assert_right(place, "made again"));
    let manifest = handles[149].manifest_digest().expect("a manifest");
    assert_eq!(tree(shared.home(), manifest, &more[149].diff_ids())["own"], "149");
}

/// While a program holds an image that a new file of the base would not fit, the base is not replaced, and nothing changes.
#[test]
fn an_image_in_use_keeps_its_base() {
    let shared = Shared::new();
    shared.damage();
    let name = format!("{}.erofs", shared.manifests[1].replace(':', "_"));
    let lease = shared.home().lease("fsmeta", &name);
    let error = shared.test.load(&shared.archive(), &[]).expect_err("in use").to_string();
    assert!(
        error.contains(&format!("and `{}`, which a program uses, would not fit", shared.manifests[1])),
        "{error}"
    );
    assert!(shared.is_damaged());
    assert!(shared.home().files("fsmeta").contains(&name));
    drop(lease);
    shared.test.load(&shared.archive(), &[]).expect("made again");
    (0..3).for_each(|place| shared.assert_right(place, "afterwards"));
}

/// Killed at any step of making a base again, no image that can be seen reads wrong; the same load makes all of them whole.
#[test]
fn killed_while_a_base_is_made_again() {
    let mut killed = 0;
    for failpoint in
        ["ingest.written", "ingest.synced", "ingest.renamed", "ingest.described", "ingest.committed"]
    {
        for nth in 1..=7 {
            let shared = Shared::new();
            shared.damage();
            let when = format!("{failpoint}, {nth}");
            if !shared.home().crash(CRASH, "load", shared.archive(), failpoint, nth) {
                break;
            }
            killed += 1;
            for place in (0..3).filter(|_| !shared.is_damaged()) {
                if shared.seen(place).is_some() {
                    shared.assert_right(place, &when);
                }
            }
            shared.test.load(&shared.archive(), &[]).expect("made again");
            (0..3).for_each(|place| shared.assert_right(place, &when));
        }
    }
    assert!(killed > 15, "{killed} moments");
}

/// Changes the index from the moment at which the image is ready until the load says that it waits.
struct Busy {
    ready: Mutex<Sender<()>>,
    waiting: Mutex<Sender<()>>,
    locked: Mutex<Receiver<()>>,
}

impl Progress for Busy {
    fn event(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::ImageReady { .. } => {
                self.ready.lock().expect("a sender").send(()).expect("a listener");
                self.locked.lock().expect("a receiver").recv().expect("a lock");
            }
            ProgressEvent::WaitingForIndex => drop(self.waiting.lock().expect("a sender").send(())),
            _ => {}
        }
    }
}

/// A load waits for a program that changes the index for longer than any other change would be waited for, and keeps what it made.
#[test]
fn a_busy_index_is_waited_for() {
    let test = LoadTest::new();
    let archive = test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])]));
    let ((ready, is_ready), (waiting, is_waiting), (lock, locked)) =
        (mpsc::channel(), mpsc::channel(), mpsc::channel());
    let progress =
        Busy { ready: Mutex::new(ready), waiting: Mutex::new(waiting), locked: Mutex::new(locked) };
    let mut load = ImageLoad::new(archive).progress(Arc::new(progress));
    load = load.tag("acme/app:2");
    thread::scope(|scope| {
        let home = &test.home;
        scope.spawn(move || {
            is_ready.recv().expect("an image");
            let index = home.index();
            index.execute_batch("BEGIN IMMEDIATE").expect("a lock");
            lock.send(()).expect("the load");
            is_waiting.recv().expect("the load waits");
            index.execute_batch("ROLLBACK").expect("the end");
        });
        let handles = run(async { load.run(&test.home.open().await).await }).expect("loaded");
        assert_eq!(handles[0].reference(), "docker.io/acme/app:2");
    });
}

/// A layer that images of one archive share is made once.
#[test]
fn shared_layers_are_made_once() {
    let test = LoadTest::new();
    let base = file("base", b"base");
    let images: Vec<TestImage> = ["a:1", "b:1", "c:1"]
        .iter()
        .map(|name| TestImage::new(&[name], vec![base.clone(), file("own", name.as_bytes())]))
        .collect();
    let files: Files = docker_files(&images);
    let outcomes = Arc::<Outcomes>::default();
    let load = ImageLoad::new(test.archive(&files)).progress(outcomes.clone());
    run(async { load.run(&test.home.open().await).await }).expect("loaded");
    let outcomes = outcomes.0.lock().expect("a list");
    assert_eq!(*outcomes, [LayerOutcome::Converted; 4]);
}
