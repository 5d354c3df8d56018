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
use std::time::{Duration, Instant};

use larder::{Image, ImageArchiveFormat, LocalBackend};
use larder_tests::archive::Packing;
use larder_tests::{Home, LargeImage, Peer, Usage, run};
use serde_json::{Value, json};

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
            let mut runs: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
            // The first round fills the kernel's cache and is forgotten.
            for round in 0..=rounds {
                for (contender, runs) in contenders.iter().zip(&mut runs) {
                    let run = contender.run(form, &home.path(), &directory.path().join("saved.tar"));
                    runs.extend((round > 0).then_some(run));
                }
            }
            report(&contenders, &runs);
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

/// One process.
struct Run {
    wall: Duration,
    cpu: Duration,
    peak_memory_kib: u64,
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Larder => "larder, synced",
            Self::Microsandbox(_) => "microsandbox",
            Self::Shell(_) => "shell",
        }
    }

    fn run(&self, form: &str, home: &Path, output: &Path) -> Run {
        let _ = fs::remove_file(output);
        // What an earlier process left to be written is not this one's.
        rustix::fs::sync();
        let clock = Instant::now();
        let (cpu, peak_memory_kib) = match self {
            Self::Larder => of_child(&[form.as_ref(), home.as_ref(), output.as_ref()]),
            Self::Shell(layers) => of_child(&["shell".as_ref(), form.as_ref(), layers.as_ref()]),
            Self::Microsandbox(peer) => {
                let call: [&OsStr; 4] = ["save".as_ref(), form.as_ref(), output.as_ref(), REFERENCE.as_ref()];
                let report = peer.call(home, call).unwrap_or_else(|refusal| panic!("{refusal}"));
                (report.cpu(), report.peak_memory_kib)
            }
        };
        Run { wall: clock.elapsed(), cpu, peak_memory_kib }
    }
}

/// Runs this program as a child that does one thing. Gives its processor time and its peak of memory.
fn of_child(arguments: &[&OsStr]) -> (Duration, u64) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let output = command.arg("child").args(arguments).output().expect("a child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("what it used");
    let number = |key: &str| said[key].as_u64().expect("a number");
    (Duration::from_millis(number("cpu_ms")), number("peak_memory_kib"))
}

/// Does the work, and tells what it used.
fn child(work: impl FnOnce()) {
    work();
    let usage = Usage::of_this_process();
    let cpu_ms = usage.cpu.as_millis() as u64;
    println!("{}", json!({ "cpu_ms": cpu_ms, "peak_memory_kib": usage.peak_memory_kib }));
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

fn report(contenders: &[Contender], runs: &[Vec<Run>]) {
    println!("{:<20} {:>8} {:>15} {:>8} {:>12}", "what", "wall s", "least and most", "cpu s", "memory MiB");
    let all: Vec<[f64; 3]> = runs.iter().map(|runs| medians(runs)).collect();
    for ((contender, runs), [wall, cpu, memory]) in contenders.iter().zip(runs).zip(&all) {
        let walls = || runs.iter().map(|run| run.wall.as_secs_f64());
        let (least, most) = (walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max));
        let spread = format!("{least:.2} … {most:.2}");
        println!("{:<20} {wall:>8.2} {spread:>15} {cpu:>8.2} {memory:>12.0}", contender.name());
    }
    for (other, [wall, cpu, _]) in contenders.iter().zip(&all).skip(1) {
        let (wall, cpu) = (all[0][0] / wall, all[0][1] / cpu);
        println!("larder / {}: wall {wall:.2}, cpu {cpu:.2}", other.name());
    }
    println!();
}

/// The medians of wall and processor time in seconds, and of memory in MiB.
fn medians(runs: &[Run]) -> [f64; 3] {
    let median = |of: fn(&Run) -> f64| {
        let mut numbers: Vec<f64> = runs.iter().map(of).collect();
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    [
        median(|run| run.wall.as_secs_f64()),
        median(|run| run.cpu.as_secs_f64()),
        median(|run| run.peak_memory_kib as f64 / 1024.0),
    ]
}
