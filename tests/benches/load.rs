//! Loading an image of about 900 MB in three layers and in one, as gzip, zstd and plain, beside the least that its digests
//! cost, which is to decompress and hash the same bytes with the same crates; beside `gunzip | sha256sum`, also with the
//! `gunzip` of libdeflate where it is installed; and beside microsandbox, where `cargo xtask peer` has built it. Larder's
//! images are synced to the disk when a load is done, and microsandbox's are not.
//!
//! Each measurement is a process from its start to its end, on an empty home, with the input in the kernel's cache and
//! nothing left to be written to the disk. All of them take turns, so that what else the machine does meets all alike.
//! `cargo xtask bench load` runs it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use larder::{Image, LocalBackend};
use larder_tests::archive::Packing;
use larder_tests::contest::{Medians, Run, child, contest, of_child};
use larder_tests::{Home, LargeImage, Peer, run};
use sha2::{Digest as _, Sha256};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["child", "larder", home, archive] => child(|| load(home.as_ref(), archive.as_ref())),
        ["child", "floor", layout] => child(|| decompress_and_hash(layout.as_ref())),
        ["child", "shell", program, layout] => child(|| gunzip_and_sha256sum(program, layout.as_ref())),
        // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
        arguments if arguments.contains(&"--bench") => measure(900 << 20, 5),
        _ => measure(3 << 20, 1),
    }
}

/// The programs that decompress gzip: that of GNU, and that of libdeflate, which is the fastest.
const GUNZIP: [&str; 2] = ["gunzip", "libdeflate-gunzip"];

/// Measures images of so many bytes, so many times.
fn measure(bytes: u64, rounds: usize) {
    let peer = Peer::built();
    if peer.is_none() {
        println!("microsandbox is not measured: `cargo xtask peer` builds it\n");
    }
    let packings = [("gzip", Packing::Gzip), ("zstd", Packing::Zstd), ("plain", Packing::Plain)];
    let shells = GUNZIP.into_iter().filter(|program| Command::new(program).arg("-V").output().is_ok());
    let shells: Vec<&str> = shells.collect();
    for ((name, packing), layers) in packings.into_iter().flat_map(|packing| [(packing, 3), (packing, 1)]) {
        let layer_bytes = bytes / layers;
        let directory = tempfile::tempdir().expect("a directory");
        let image = LargeImage::make(directory.path(), packing, layers, layer_bytes);
        let stored = image.archive.metadata().expect("the archive").len() >> 20;
        let word = if layers == 1 { "layer" } else { "layers" };
        println!("{layers} {word} of {} MiB, {name} ({stored} MiB): medians of {rounds}", layer_bytes >> 20);
        let mut contenders = vec![Contender::Larder];
        contenders.extend(peer.clone().map(Contender::Microsandbox));
        contenders.push(Contender::Floor);
        if packing == Packing::Gzip {
            contenders.extend(shells.iter().map(|program| Contender::Shell(program)));
        }
        let medians = contest(&contenders, rounds, Contender::name, |contender| contender.run(&image));
        report(&contenders, &medians);
    }
}

/// What is measured.
enum Contender {
    Larder,
    Microsandbox(Peer),
    Floor,
    Shell(&'static str),
}

impl Contender {
    fn name(&self) -> String {
        match self {
            Self::Larder => "larder, synced".to_owned(),
            Self::Microsandbox(_) => "microsandbox".to_owned(),
            Self::Floor => "decompress and hash".to_owned(),
            Self::Shell(program) => format!("{program} | sha256sum"),
        }
    }

    fn run(&self, image: &LargeImage) -> Run {
        let home = Home::made();
        Run::measure(|| match self {
            Self::Larder => of_child(&["larder".as_ref(), home.path().as_ref(), image.archive.as_ref()]),
            Self::Floor => of_child(&["floor".as_ref(), image.layout.as_ref()]),
            Self::Shell(program) => of_child(&["shell".as_ref(), program.as_ref(), image.layout.as_ref()]),
            Self::Microsandbox(peer) => {
                let report = peer.call(&home.path(), ["load".as_ref(), image.archive.as_os_str()]);
                report.unwrap_or_else(|refusal| panic!("{refusal}")).usage()
            }
        })
    }
}

fn load(home: &Path, archive: &Path) {
    run(async {
        let local = LocalBackend::builder().home(home).build().await.expect("the home");
        Image::load_local(&local, archive, Vec::new()).await.expect("loaded");
    });
}

/// Hashes every blob of a layout, and what it holds where it is compressed.
fn decompress_and_hash(layout: &Path) {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("blobs");
    std::thread::scope(|scope| {
        for blob in blobs {
            let path = blob.expect("a blob").path();
            scope.spawn(move || {
                let digests = digests(&path);
                assert!(path.ends_with(digests.0), "{}", path.display());
            });
        }
    });
}

/// The digests of a blob and of what it holds.
fn digests(path: &Path) -> (String, Option<String>) {
    struct Hashing<R>(R, Sha256);
    impl<R: Read> Read for Hashing<R> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(into)?;
            self.1.update(&into[..count]);
            Ok(count)
        }
    }
    let hex = |hasher: Sha256| hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut head = [0; 4];
    let mut file = File::open(path).expect("a blob");
    let _ = file.read_exact(&mut head);
    let mut blob = Hashing(File::open(path).expect("a blob"), Sha256::new());
    let mut buffer = vec![0; 256 << 10];
    let mut read_all = |content: &mut dyn Read| while content.read(&mut buffer).expect("content") > 0 {};
    let mut content_of = |content: Box<dyn Read + '_>| {
        let mut content = Hashing(content, Sha256::new());
        read_all(&mut content);
        hex(content.1)
    };
    let stored = BufReader::with_capacity(256 << 10, &mut blob);
    let content = match head {
        [0x1f, 0x8b, ..] => Some(content_of(Box::new(flate2::bufread::MultiGzDecoder::new(stored)))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(stored).expect("a decoder");
            Some(content_of(Box::new(decoder)))
        }
        _ => None,
    };
    read_all(&mut blob);
    (hex(blob.1), content)
}

/// What a shell does for the digests of the contents, one blob after the other.
fn gunzip_and_sha256sum(program: &str, layout: &Path) {
    let script = format!("for blob in blobs/sha256/*; do {program} -c < $blob 2>/dev/null | sha256sum; done");
    let mut shell = Command::new("sh");
    let status = shell.args(["-c", &script]).current_dir(layout).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{script}");
}

fn report(contenders: &[Contender], medians: &[Medians]) {
    let of = |wanted: fn(&Contender) -> bool| {
        contenders.iter().zip(medians).find(|(contender, _)| wanted(contender)).map(|(_, medians)| *medians)
    };
    let Some(larder) = of(|contender| matches!(contender, Contender::Larder)) else { return };
    if let Some(theirs) = of(|other| matches!(other, Contender::Microsandbox(_))) {
        let (wall, cpu) = (larder.wall / theirs.wall, larder.cpu / theirs.cpu);
        let memory = larder.memory / theirs.memory;
        println!("larder / microsandbox: wall {wall:.2} (at most 1), cpu {cpu:.2}, memory {memory:.2}");
    }
    if let Some(floor) = of(|other| matches!(other, Contender::Floor)) {
        let (wall, cpu) = (larder.wall / floor.wall, larder.cpu / floor.cpu);
        println!("larder / decompress and hash: wall {wall:.2}, cpu {cpu:.2} (at most 1.3)");
    }
    println!("larder's memory: {:.0} MiB (at most 128)\n", larder.memory);
}
