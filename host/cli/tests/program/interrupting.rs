//! A program that is asked to end, or ended, in the middle of its work.
//!
//! Where that is, a lock decides that a test holds: the program waits for it as it would for another process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use larder_erofs::reader;
use larder_tests::archive::{Item, Packing, TestImage, docker_files, layer, tar_of};
use larder_tests::judge::tool;
use larder_tests::real::{LayerOf, RealImage, fill, metadata_path};
use larder_tests::registry::TestRegistry;
use larder_tests::{Running, contents};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::TestEnvironment;

/// An image of two layers. The larger one is converted first.
fn two_layers() -> TestImage {
    let large = layer(&[Item::File("large", &[7; 300_000])]);
    TestImage::new(&["acme/app:1"], vec![large, layer(&[Item::File("small", b"x")])])
}

/// The lock of whoever makes the last layer of an image.
fn making(test: &TestEnvironment, image: &TestImage) -> File {
    let digest = image.diff_ids().pop().expect("a layer");
    test.home.making("layers", &format!("{}.erofs", digest.replace(':', "_")))
}

/// Starts loading an image whose first layer is then in the cache, and whose second waits for the lock.
fn stopped_load(test: &TestEnvironment) -> (Running, File) {
    let image = two_layers();
    test.write("image.tar", tar_of(&docker_files(std::slice::from_ref(&image))));
    let lock = making(test, &image);
    let mut running = Running::start(test.command("load image.tar --format json"));
    running.wait_for("layer-done");
    assert_eq!(test.home.files("layers").len(), 1);
    (running, lock)
}

fn rows(test: &TestEnvironment) -> Vec<i64> {
    let tables = ["image_ref", "manifest", "config", "layer"];
    tables.map(|table| test.home.count(&format!("SELECT count(*) FROM {table}"))).into()
}

/// Asked to end, a load takes back what it had done: neither rows nor files are left, but locks. It says so.
#[test]
fn load_interrupted() {
    for signal in [Signal::INT, Signal::TERM] {
        let test = TestEnvironment::made();
        let (mut running, lock) = stopped_load(&test);
        running.signal(signal);
        let error = running.wait_for("error");
        let error: serde_json::Value = serde_json::from_str(&error).expect("an object");
        assert_eq!(
            (error["error"].as_str(), error["kind"].as_str()),
            (Some("interrupted"), Some("interrupted"))
        );
        let (status, stdout, stderr) = running.end();
        drop(lock);
        assert_eq!((status.code(), stdout.as_str()), (Some(1), "[]\n"), "{stderr}");
        assert!(stderr.trim_end().ends_with('}') && !stderr.contains("image-ready"), "{stderr}");
        assert_eq!(rows(&test), [0; 4]);
        assert_eq!(contents(&test.home), BTreeMap::new());
    }
}

/// What was loaded before stays, and is shown; nothing more is begun.
#[test]
fn load_interrupted_after_the_first() {
    let test = TestEnvironment::made();
    let first = TestImage::new(&["acme/first:1"], vec![layer(&[Item::File("a", b"a")])]);
    test.write("first.tar", tar_of(&docker_files(&[first])));
    test.write("image.tar", tar_of(&docker_files(&[two_layers()])));
    let lock = making(&test, &two_layers());
    let mut running = Running::start(test.command("load first.tar image.tar first.tar"));
    for _ in 0..2 {
        running.wait_for(": done in ");
    }
    running.signal(Signal::INT);
    let (status, stdout, stderr) = running.end();
    drop(lock);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: interrupted\n"), "{stderr}");
    assert!(stdout.contains("docker.io/acme/first:1") && !stdout.contains("acme/app"), "{stdout}");
    assert!(stderr.lines().last().is_some_and(|line| line.starts_with("1 image: ")), "{stderr}");
    assert_eq!(rows(&test), [1; 4]);
}

/// A pull ends, too, although what it waits for never comes. It leaves the layer that is complete for the next one.
#[test]
fn pull_interrupted() {
    let test = TestEnvironment::made();
    let image = two_layers();
    let registry = TestRegistry::new(std::slice::from_ref(&image), Packing::Gzip);
    let lock = making(&test, &image);
    let reference = registry.reference("acme/app:1");
    let mut running = Running::start(test.command(&format!("pull {reference} --plain-http --format json")));
    running.wait_for("layer-done");
    running.signal(Signal::INT);
    running.wait_for(r#""kind":"interrupted""#);
    let (status, _, stderr) = running.end();
    drop(lock);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(rows(&test), [0; 4]);
    let left: Vec<String> = contents(&test.home).into_keys().collect();
    assert!(left.len() == 1 && left[0].ends_with("-complete.erofs.part"), "{left:?}");
}

/// A named pipe, open for writing, which nobody has to read for that.
fn pipe(test: &TestEnvironment) -> File {
    let path = test.directory().join("pipe");
    tool("mkfifo", [&path]);
    File::options().read(true).write(true).open(path).expect("the pipe")
}

/// An archive that comes through a pipe is given up, too, long before its end.
#[test]
fn load_from_a_pipe_interrupted() {
    let test = TestEnvironment::made();
    let mut pipe = pipe(&test);
    let mut running = Running::start(test.command("load pipe"));
    // More than a pipe holds: when that is written, the most of it is read.
    pipe.write_all(&tar_of(&docker_files(&[two_layers()]))).expect("a reader");
    running.signal(Signal::INT);
    running.wait_for("error: interrupted");
    running.wait_for("hint: what was begun is being taken back; Ctrl-C once more ends at once");
    // Whatever comes now is the last that is read, although the pipe is open.
    pipe.write_all(&[0; 512]).expect("a reader");
    let (status, _, stderr) = running.end();
    drop(pipe);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(rows(&test), [0; 4]);
    assert_eq!(contents(&test.home), BTreeMap::new());
}

/// Asked twice, the program ends at once, although what it reads from is open.
#[test]
fn interrupted_twice() {
    let test = TestEnvironment::made();
    let mut pipe = pipe(&test);
    let mut running = Running::start(test.command("load pipe"));
    pipe.write_all(&tar_of(&docker_files(&[two_layers()]))).expect("a reader");
    running.signal(Signal::TERM);
    running.wait_for("error: interrupted");
    running.signal(Signal::INT);
    let (status, _, stderr) = running.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(rows(&test), [0; 4]);
}

/// Killed, a load leaves no rows, and under the names of artifacts nothing that is not whole; the next one succeeds.
#[test]
fn load_killed() {
    let test = TestEnvironment::made();
    let (running, lock) = stopped_load(&test);
    running.signal(Signal::KILL);
    let (status, ..) = running.end();
    assert_eq!(status.signal(), Some(9));
    assert_eq!(rows(&test), [0; 4]);
    let left: Vec<String> = contents(&test.home).into_keys().collect();
    let [artifact] = &left[..] else { panic!("{left:?}") };
    let image = File::open(test.home.cache().join(artifact)).expect("an artifact");
    reader::check(&reader::Image::open(image).expect("an image")).expect("a sound image");
    drop(lock);
    let outputs = [test.larder("load image.tar"), test.larder("verify --deep")];
    assert!(outputs.iter().all(|output| output.status == 0), "{outputs:?}");
    assert_eq!(rows(&test), [1, 1, 1, 2]);
}

fn image(reference: &'static str, content: &[u8]) -> RealImage {
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux" });
    RealImage { reference, config, layers: vec![LayerOf::new().file("file", content).done()] }
}

fn beside(test: &TestEnvironment) -> Vec<PathBuf> {
    let entries = fs::read_dir(test.directory()).expect("a directory");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Asked to end, a save leaves the archive that was there, and nothing else.
#[test]
fn save_interrupted() {
    let test = TestEnvironment::made();
    fill(&test.home.path(), &[image("acme/app:1", b"1"), image("acme/app:2", b"2")]);
    test.write("out.tar", "old");
    let before = beside(&test);
    let second = metadata_path("acme/app:2");
    let lock = test.home.deletion("manifests", second.trim_start_matches("manifests/"));
    let mut running = Running::start(test.command("save acme/app:1 acme/app:2 -o out.tar --format json"));
    running.wait_for("image-ready");
    assert_eq!(beside(&test).len(), before.len() + 1, "the archive in the making");
    running.signal(Signal::INT);
    running.wait_for(r#""kind":"interrupted""#);
    drop(lock);
    let (status, stdout, stderr) = running.end();
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    assert_eq!(beside(&test), before);
    assert_eq!(test.read("out.tar"), "old");
}

/// Asked to end, a prune says how much it did and how much it leaves, and its record says that it was interrupted; the next
/// one does the rest.
#[test]
fn prune_interrupted() {
    for signal in [Signal::INT, Signal::TERM] {
        let test = TestEnvironment::fixture();
        assert_eq!(test.larder("pin acme/app00000:v0").status, 0);
        let index = test.home.index();
        index.execute_batch("BEGIN IMMEDIATE").expect("the writer's lock");
        let mut running = Running::start(test.command("prune --yes -v"));
        running.wait_for("removing");
        running.signal(signal);
        running.wait_for(
            "interrupted: the images that are being removed still go; Ctrl-C once more ends at once",
        );
        index.execute_batch("COMMIT").expect("the lock is given back");
        let (status, stdout, stderr) = running.end();
        assert_eq!(
            (status.code(), stdout.as_str()),
            (Some(1), "removed 0 images, freed 0 B, left 38\n"),
            "{stderr}"
        );
        assert!(stderr.contains("error: interrupted\nhint: what is gone stays gone"), "{stderr}");
        let history = test.larder("history --format json").json();
        assert_eq!([&history[0]["state"], &history[0]["problem"]], ["ended", "interrupted"]);
        let rest = test.larder("prune --yes");
        assert!(rest.stdout.starts_with("removed 38 images"), "{rest}");
    }
}

/// Ends a program by a signal, and returns its exit status.
///
/// # Panics
/// Panics if it does not end.
#[track_caller]
fn ended(mut child: Child) -> Option<i32> {
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a program that runs");
    let (send, end) = channel();
    thread::spawn(move || send.send(child.wait().expect("its end")));
    end.recv_timeout(Duration::from_secs(60)).expect("it ends").code()
}

/// A save whose archive nobody takes ends when it is asked to.
#[test]
fn save_interrupted_at_a_full_pipe() {
    let test = TestEnvironment::made();
    let layer = LayerOf::new().file("large", vec![7; 3_000_000]).done();
    let image = RealImage {
        reference: "acme/app:1",
        config: serde_json::json!({ "architecture": "amd64", "os": "linux" }),
        layers: vec![layer],
    };
    fill(&test.home.path(), &[image]);
    let mut child = test.command("save acme/app:1 --format json").spawn().expect("it started");
    let pipe = child.stdout.take().expect("its output");
    let said = BufReader::new(child.stderr.take().expect("its messages")).lines();
    // The first piece of the file is longer than a pipe, which holds 16 pages, not each of them full.
    while ioctl_fionread(&pipe).expect("a number") < 32 << 10 {
        thread::yield_now();
    }
    assert_eq!(ended(child), Some(1));
    assert!(said.map_while(Result::ok).any(|line| line.contains(r#""kind":"interrupted""#)));
    drop(pipe);
}

/// A load whose archive never comes ends when it is asked to.
#[test]
fn load_interrupted_at_an_empty_pipe() {
    let test = TestEnvironment::made();
    let mut child = test.command("load -").stdin(Stdio::piped()).spawn().expect("it started");
    let pipe = child.stdin.take().expect("its input");
    let catches = |status: &str| {
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("its signals");
        let caught = u64::from_str_radix(caught.trim(), 16).expect("a mask");
        caught >> (Signal::TERM.as_raw() - 1) & 1 == 1
    };
    while !catches(&fs::read_to_string(format!("/proc/{}/status", child.id())).expect("its status")) {
        thread::yield_now();
    }
    assert_eq!(ended(child), Some(1));
    drop(pipe);
    assert_eq!(contents(&test.home), BTreeMap::new());
}
