//! Loading an image of about 900 MB in three layers, plain and as gzip, beside the least that its digests cost: inflating
//! and hashing the same bytes with the same crates, and `gunzip | sha256sum`. Each runs in a process of its own, which
//! tells its processor time and the most memory that it had. `cargo xtask bench load` runs it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use larder::Image;
use larder_tests::archive::{Item, Packing, TestImage, layer, layout_files, write_directory};
use larder_tests::{Home, run};
use sha2::{Digest as _, Sha256};

const LAYERS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["child", "load", home, input] => child(|| {
            run(async {
                let local = larder::LocalBackend::builder().home(home).build().await.expect("the home");
                Image::load_local(&local, input.as_ref(), vec!["acme/app:1".to_owned()])
                    .await
                    .expect("loaded");
            });
        }),
        ["child", "floor", input] => child(|| floor(input.as_ref())),
        // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
        arguments => measure(if arguments.contains(&"--bench") { 300 } else { 1 }),
    }
}

/// Measures images whose layers have so many megabytes each.
fn measure(megabytes: usize) {
    println!("{:<34} {:>9} {:>9} {:>10}", "what", "wall s", "cpu s", "memory MiB");
    let directory = tempfile::tempdir().expect("a directory");
    for (name, packing) in [("gzip", Packing::Gzip), ("plain", Packing::Plain)] {
        let layout = directory.path().join(name);
        let image = TestImage::new(&[], (0..LAYERS).map(|number| content(number, megabytes)).collect());
        write_directory(&layout, &layout_files(&[image], packing));
        rustix::fs::sync();
        let layout = layout.to_str().expect("a path in UTF-8");
        for _ in 0..2 {
            let home = Home::made();
            let home_path = home.path();
            let home_path = home_path.to_str().expect("a path in UTF-8");
            report(&format!("load, {name}"), &["child", "load", home_path, layout]);
        }
        report(&format!("inflate and hash, {name}"), &["child", "floor", layout]);
        if packing == Packing::Gzip {
            pipeline(layout);
        }
    }
}

/// A layer of files of a megabyte each, half of which cannot be compressed.
fn content(number: usize, megabytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ (number as u64 + 1);
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let files: Vec<(String, Vec<u8>)> = (0..megabytes)
        .map(|index| {
            let mut bytes = Vec::with_capacity(1 << 20);
            while bytes.len() < 1 << 20 {
                let word = random();
                match index % 2 {
                    0 => bytes.extend_from_slice(&word.to_le_bytes()),
                    _ => bytes.extend_from_slice(format!("{:05} lines of text\n", word % 5000).as_bytes()),
                }
            }
            bytes.truncate(1 << 20);
            (format!("layer{number}/file{index}"), bytes)
        })
        .collect();
    let items: Vec<Item<'_>> = files.iter().map(|(name, bytes)| Item::File(name, bytes)).collect();
    layer(&items)
}

fn report(what: &str, arguments: &[&str]) {
    let clock = Instant::now();
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(arguments)
        .output()
        .expect("a child");
    let wall = clock.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let mut numbers = said.split_whitespace().rev();
    let (memory, cpu) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    println!("{what:<34} {wall:>9.2} {cpu:>9} {memory:>10}");
}

/// Does the work, and tells the processor time in seconds and the peak of memory in MiB.
fn child(work: impl FnOnce()) {
    work();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default();
    // In hundredths of a second (proc_pid_stat, `utime` and `stime`), behind the name, which may hold spaces.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    let cpu = Duration::from_millis(10 * (ticks(11) + ticks(12)));
    println!("{:.2} {}", cpu.as_secs_f64(), peak / 1024);
}

/// Inflates and hashes every blob of a layout: both digests of what is compressed, one of what is not.
fn floor(layout: &Path) {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("blobs");
    std::thread::scope(|scope| {
        for blob in blobs {
            let path = blob.expect("a blob").path();
            scope.spawn(move || hash(&path));
        }
    });
}

fn hash(path: &Path) {
    struct Hashing<R>(R, Sha256);
    impl<R: Read> Read for Hashing<R> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(into)?;
            self.1.update(&into[..count]);
            Ok(count)
        }
    }
    let mut file = File::open(path).expect("a blob");
    let mut head = [0; 2];
    let is_gzip = file.read_exact(&mut head).is_ok() && head == [0x1f, 0x8b];
    let file = BufReader::with_capacity(256 << 10, Hashing(File::open(path).expect("a blob"), Sha256::new()));
    let mut content: Box<dyn Read> =
        if is_gzip { Box::new(flate2::bufread::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match content.read(&mut buffer).expect("content") {
            0 => break,
            count if is_gzip => hasher.update(&buffer[..count]),
            _ => {}
        }
    }
    let _ = io::stderr().write_all(&hasher.finalize()[..0]);
}

/// What a shell does for the same digests, one layer after the other.
fn pipeline(layout: &str) {
    let script =
        format!("for blob in {layout}/blobs/sha256/*; do gunzip -c $blob 2>/dev/null | sha256sum; done");
    let clock = Instant::now();
    let done = Command::new("sh").args(["-c", &script]).output();
    if done.is_ok_and(|output| output.status.success()) {
        println!("{:<34} {:>9.2}", "gunzip | sha256sum", clock.elapsed().as_secs_f64());
    }
}
