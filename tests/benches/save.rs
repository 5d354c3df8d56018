//! Saving an image of about 900 MB, in one layer and in three, plain and with gzip: beside microsandbox, where
//! `cargo xtask peer` has built it, and beside `gzip` or `cat` of the same layers and `sha256sum` of what they make, which
//! is the least that an archive costs. Larder's archives are synced to the disk when a save is done, and microsandbox's are
//! not.
//!
//! Each measurement is a process from its start to its end, on the same home, with its files in the kernel's cache and
//! nothing left to be written to the disk. All of them take turns, so that what else the machine does meets all alike.
//! `cargo xtask bench save` runs it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use larder::{Image, ImageArchiveFormat, LocalBackend};
use larder_tests::archive::Packing;
use larder_tests::contest::{Medians, Run, child, contest, of_child};
use larder_tests::{Home, LargeImage, Peer, run};

const REFERENCE: &str = "docker.io/acme/large:1";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["child", "shell", form, layers] => child(|| in_shell(form, layers.as_ref())),
        ["child", form, home, output] => child(|| save(form, home.as_ref(), output.as_ref())),
        // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
        arguments if arguments.contains(&"--bench") => measure(900 << 20, 5),
        _ => measure(3 << 20, 1),
    }
}

/// Measures images with so many bytes of files, so many times.
fn measure(bytes: u64, rounds: usize) {
    let peer = Peer::built();
    if peer.is_none() {
        println!("microsandbox is not measured: `cargo xtask peer` builds it\n");
    }
    for layers in [1, 3] {
        let directory = tempfile::tempdir().expect("a directory");
        let image = LargeImage::make(directory.path(), Packing::Plain, layers, bytes / layers);
        let home = Home::made();
        let load = async { Image::load_local(&home.open().await, &image.archive, Vec::new()).await };
        run(load).expect("loaded");
        for form in ["docker", "oci"] {
            println!("{layers} layers, {} MiB together, {form}: medians of {rounds}", bytes >> 20);
            let mut contenders = vec![Contender::Larder];
            contenders.extend(peer.clone().map(Contender::Microsandbox));
            contenders.push(Contender::Shell(image.layout.join("blobs/sha256")));
            let output = directory.path().join("saved.tar");
            let medians = contest(&contenders, rounds, Contender::name, |contender| {
                contender.run(form, &home.path(), &output)
            });
            report(&contenders, &medians);
        }
    }
}

/// What is measured.
enum Contender {
    Larder,
    Microsandbox(Peer),
    /// With the directory of the layers.
    Shell(PathBuf),
}

impl Contender {
    fn name(&self) -> String {
        let name = match self {
            Self::Larder => "larder, synced",
            Self::Microsandbox(_) => "microsandbox",
            Self::Shell(_) => "shell",
        };
        name.to_owned()
    }

    fn run(&self, form: &str, home: &Path, output: &Path) -> Run {
        let _ = fs::remove_file(output);
        Run::measure(|| match self {
            Self::Larder => of_child(&[form.as_ref(), home.as_ref(), output.as_ref()]),
            Self::Shell(layers) => of_child(&["shell".as_ref(), form.as_ref(), layers.as_ref()]),
            Self::Microsandbox(peer) => {
                let call: [&OsStr; 4] = ["save".as_ref(), form.as_ref(), output.as_ref(), REFERENCE.as_ref()];
                peer.call(home, call).unwrap_or_else(|refusal| panic!("{refusal}")).usage()
            }
        })
    }
}

fn save(form: &str, home: &Path, output: &Path) {
    let format = if form == "oci" { ImageArchiveFormat::Oci } else { ImageArchiveFormat::Docker };
    run(async {
        let local = LocalBackend::builder().home(home).build().await.expect("the home");
        Image::save_local(&local, &[REFERENCE.to_owned()], output, format).await.expect("saved");
    });
}

/// What a shell does for the blobs and their digests, one layer after the other.
fn in_shell(form: &str, layers: &Path) {
    let filter = if form == "oci" { "gzip --no-name --stdout" } else { "cat" };
    let script = format!("for layer in *; do {filter} $layer | tee ../../blob | sha256sum; done");
    let mut shell = Command::new("sh");
    let status = shell.args(["-c", &script]).current_dir(layers).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{script}");
}

fn report(contenders: &[Contender], medians: &[Medians]) {
    let Some((larder, others)) = medians.split_first() else { return };
    for (other, theirs) in contenders.iter().skip(1).zip(others) {
        let (wall, cpu) = (larder.wall / theirs.wall, larder.cpu / theirs.cpu);
        println!("larder / {}: wall {wall:.2}, cpu {cpu:.2}", other.name());
    }
    println!();
}
