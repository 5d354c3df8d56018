//! Pulling an image of about 900 MB in three layers from docker-registry on loopback, beside `skopeo copy` of the same image: whole,
//! with every connection cut three times on the way, and with the process killed three times. A proxy between them counts the bytes,
//! and cuts or kills whenever another quarter of the image has passed.
//!
//! Each measurement is from the beginning of the first process to the end of the last, on an empty home or directory. skopeo has
//! `--retry-times 5` where connections are cut. `cargo xtask bench pull` runs it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use larder::LocalBackend;
use larder::ingest::{ImagePull, Transport};
use larder_tests::archive::Packing;
use larder_tests::docker_registry::DockerRegistry;
use larder_tests::judge::has_tools;
use larder_tests::{Home, LargeImage, run};

const NAME: &str = "acme/large:1";
const CUTS: u64 = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["child", home, reference] => pull(home.as_ref(), reference),
        // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
        arguments if arguments.contains(&"--bench") => measure(300 << 20, 3),
        _ => measure(1 << 20, 1),
    }
}

/// Pulls in this process.
fn pull(home: &Path, reference: &str) {
    run(async {
        let local = LocalBackend::builder().home(home).build().await.expect("a home");
        ImagePull::new(reference).transport(Transport::PlainHttp).run(&local).await.expect("pulled");
    });
}

/// Measures an image whose layers have so many bytes each, so many times.
fn measure(layer_bytes: u64, rounds: usize) {
    if !has_tools(&["docker-registry", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = LargeImage::make(directory.path(), Packing::Gzip, 3, layer_bytes);
    let registry = DockerRegistry::start("");
    registry.push(&image.layout, "docker.io/acme/large:1", NAME, &[]);
    let stored = image.archive.metadata().expect("the archive").len();
    println!(
        "3 layers of {} MiB, gzip ({} MiB over the wire at least): medians of {rounds}",
        layer_bytes >> 20,
        stored >> 20
    );
    println!("{:<28} {:>9} {:>16} {:>10}", "what", "seconds", "bytes", "of it more");
    for contender in [
        Contender { program: Program::Larder, trouble: Trouble::None },
        Contender { program: Program::Skopeo, trouble: Trouble::None },
        Contender { program: Program::Larder, trouble: Trouble::Cut },
        Contender { program: Program::Skopeo, trouble: Trouble::Cut },
        Contender { program: Program::Larder, trouble: Trouble::Kill },
        Contender { program: Program::Skopeo, trouble: Trouble::Kill },
    ] {
        let runs: Option<Vec<Run>> = (0..rounds).map(|_| contender.run(registry.address(), stored)).collect();
        let Some(mut runs) = runs else {
            println!("{:<28} {:>9}", contender.name(), "fails");
            continue;
        };
        runs.sort_by_key(|run| run.time);
        let middle = &runs[rounds / 2];
        println!(
            "{:<28} {:>9.2} {:>16} {:>9.1}%",
            contender.name(),
            middle.time.as_secs_f64(),
            middle.bytes,
            (middle.bytes as f64 / stored as f64 - 1.0) * 100.0
        );
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Larder,
    Skopeo,
}

/// What happens on the way, three times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Every connection is cut.
    Cut,
    /// The process is killed, and begun again.
    Kill,
}

struct Contender {
    program: Program,
    trouble: Trouble,
}

struct Run {
    time: Duration,
    /// The bytes from the registry.
    bytes: u64,
}

impl Contender {
    fn name(&self) -> String {
        let program = match self.program {
            Program::Larder => "larder",
            Program::Skopeo => "skopeo",
        };
        let trouble = match self.trouble {
            Trouble::None => "",
            Trouble::Cut => ", cut three times",
            Trouble::Kill => ", killed three times",
        };
        format!("{program}{trouble}")
    }

    /// Returns `None` if another program than Larder gives up.
    fn run(&self, registry: SocketAddr, stored: u64) -> Option<Run> {
        let proxy = Proxy::start(registry);
        let (home, target) = (Home::missing(), tempfile::tempdir().expect("a directory"));
        let begun = Instant::now();
        let mut child = self.child(&proxy, &home, target.path());
        let mut marks = (1..=CUTS)
            .map(|nth| stored / (CUTS + 1) * nth)
            .filter(|_| self.trouble != Trouble::None)
            .peekable();
        let status = loop {
            if let Some(status) = child.try_wait().expect("its state") {
                break status;
            }
            if marks.next_if(|&mark| proxy.bytes() >= mark).is_some() {
                match self.trouble {
                    Trouble::None => {}
                    Trouble::Cut => proxy.cut(),
                    Trouble::Kill => {
                        child.kill().expect("killed");
                        child.wait().expect("its state");
                        child = self.child(&proxy, &home, target.path());
                    }
                }
            }
            thread::sleep(Duration::from_millis(1));
        };
        if self.program != Program::Larder && !status.success() {
            return None;
        }
        assert!(status.success(), "{}: {status}", self.name());
        assert!(marks.peek().is_none(), "{}: it was over before the last mark", self.name());
        Some(Run { time: begun.elapsed(), bytes: proxy.bytes() })
    }

    fn child(&self, proxy: &Proxy, home: &Home, target: &Path) -> Child {
        let mut command = match self.program {
            Program::Larder => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.arg("child").arg(home.path()).arg(format!("{}/{NAME}", proxy.address));
                command
            }
            Program::Skopeo => {
                let mut command = Command::new("skopeo");
                command.args([
                    "--insecure-policy",
                    "copy",
                    "--quiet",
                    "--src-tls-verify=false",
                    "--retry-times=5",
                ]);
                command
                    .arg(format!("docker://{}/{NAME}", proxy.address))
                    .arg(format!("oci:{}:1", target.display()));
                command
            }
        };
        command.stdout(Stdio::null()).spawn().expect("a process")
    }
}

/// What lies between a client and the registry.
struct Proxy {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    /// The connections of clients.
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Self {
            address: listener.local_addr().expect("an address"),
            bytes: Arc::default(),
            open: Arc::default(),
        };
        let (bytes, open) = (Arc::clone(&proxy.bytes), Arc::clone(&proxy.open));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(registry)) else { continue };
                open.lock().expect("a list").push(client.try_clone().expect("a socket"));
                let ends = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
                thread::spawn(move || pass(ends.0, ends.1, None));
                let counted = Arc::clone(&bytes);
                thread::spawn(move || pass(server, client, Some(&counted)));
            }
        });
        proxy
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn cut(&self) {
        for connection in self.open.lock().expect("a list").drain(..) {
            // The client may have closed it.
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

/// Passes bytes on until one end is closed, and closes the other.
fn pass(mut from: TcpStream, mut to: TcpStream, counted: Option<&AtomicU64>) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        if let Some(counted) = counted {
            counted.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}
