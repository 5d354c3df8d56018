//! The image API on homes of 1,000 and 10,000 images, beside the least that the same work can cost: stepping the
//! same SQL in plain SQLite, unlinking the same files; and beside microsandbox on a copy of the same home, where
//! `cargo xtask peer` has built it. `cargo xtask bench images` runs it; every line is one measurement, the median of its
//! runs. Processes are started and homes opened before the clock runs, but for the line that says so.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::{Image, LocalBackend};
use larder_tests::{Home, ImageSpec, Peer, PeerReport, Users, median, median_of, middle, populate, run};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

const LIST_SQL: &str =
    "SELECT ref.reference, ref.created_at, ref.updated_at, manifest.digest, manifest.architecture,
        manifest.os, manifest.layer_count, manifest.total_size_bytes
   FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id
  ORDER BY ref.created_at DESC, ref.reference";

/// How often what is quick is done, and what takes longer.
const OFTEN: usize = 201;
const SOMETIMES: usize = 21;

/// How many times as long as Larder microsandbox may prune before it is ended.
const PEER_LIMIT: u32 = 310;

fn main() {
    // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
    let sizes: &[u32] =
        if std::env::args().any(|argument| argument == "--bench") { &[1_000, 10_000] } else { &[20] };
    let peer = Peer::built();
    if peer.is_none() {
        println!("microsandbox is not measured: `cargo xtask peer` builds it\n");
    }
    println!(
        "{:<28} {:>7} {:>12} {:>12} {:>7} {:>14} {:>8}",
        "what", "images", "larder", "floor", "ratio", "microsandbox", "faster"
    );
    for &size in sizes {
        let home = home_of(size);
        let beside = peer.clone().map(|peer| Beside { peer, home: home.copy() });
        opening(&home, size, beside.as_ref());
        reading(&home, size, beside.as_ref());
        removing(&home, size, beside.as_ref());
        drop((home, beside));
        pruning(size, peer.as_ref());
    }
}

/// The peer, and its copy of the home.
struct Beside {
    peer: Peer,
    home: Home,
}

impl Beside {
    fn call(&self, call: &[&str]) -> PeerReport {
        self.peer.call(&self.home.path(), call).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// The median of the calls in a report.
    fn time(&self, call: &[&str]) -> Duration {
        middle(self.call(call).calls())
    }
}

/// A home in which eight images of a repository share two of their six layers, and one image in a hundred is used.
fn home_of(size: u32) -> Home {
    let home = Home::made();
    let images: Vec<ImageSpec> = (0..size)
        .map(|number| {
            let (app, tag) = (number / 8, number % 8);
            let shared = (0..2).map(|layer| 1_000_000 + app * 2 + layer);
            ImageSpec {
                reference: format!("docker.io/acme/app{app:05}:v{tag}"),
                manifest: number,
                layers: shared.chain((0..4).map(|layer| number * 4 + layer)).collect(),
                users: if number % 100 == 0 { Users::Sandbox } else { Users::None },
                age_days: i64::from(number % 365),
                unused_days: i64::from(number % 30),
            }
        })
        .collect();
    populate(&home.path(), larder_tests::FIXTURE_NOW.parse().expect("a time"), &images);
    // A home in use has a lock file for every entry that somebody ever held.
    for room in ["layers", "fsmeta", "vmdk", "manifests"] {
        home.files(room).iter().for_each(|name| drop(home.lease(room, name)));
    }
    home
}

/// Opening a home that nobody has open, and the first list.
fn opening(home: &Home, size: u32, beside: Option<&Beside>) {
    let ours = run(median_of(SOMETIMES, async || {
        drop(Image::list_local(&home.open().await).await.expect("the images"));
    }));
    let theirs = beside.map(|beside| {
        let time = |report: PeerReport| report.opened() + report.calls().iter().sum::<Duration>();
        middle((0..SOMETIMES).map(|_| time(beside.call(&["list"]))).collect())
    });
    line("open and list", size, ours, None, theirs);
}

fn reading(home: &Home, size: u32, beside: Option<&Beside>) {
    let database = home.path().join("db/msb.db");
    let plain = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the index");
    let mut statement = plain.prepare(LIST_SQL).expect("the query");
    let floor = median(SOMETIMES, || {
        let mut rows = statement.query([]).expect("rows");
        let mut bytes = 0;
        while let Some(row) = rows.next().expect("a row") {
            bytes += (0..8).filter(|&column| !matches!(row.get_ref(column), Ok(ValueRef::Null))).count();
        }
        assert!(bytes > 0);
    });
    let reference = format!("docker.io/acme/app{:05}:v3", size / 16);
    let (often, sometimes) = (OFTEN.to_string(), SOMETIMES.to_string());
    run(async {
        let local = home.open().await;
        let listed =
            median_of(SOMETIMES, async || drop(Image::list_local(&local).await.expect("the images"))).await;
        line("list", size, listed, Some(floor), beside.map(|beside| beside.time(&["list", &sometimes])));
        let got =
            median_of(OFTEN, async || drop(Image::get_local(&local, &reference).await.expect("the image")))
                .await;
        line("get", size, got, None, beside.map(|beside| beside.time(&["get", &reference, &often])));
        let inspected = median_of(OFTEN, async || {
            drop(Image::inspect_local(&local, &reference).await.expect("the image"));
        });
        let theirs = beside.map(|beside| beside.time(&["inspect", &reference, &often]));
        line("inspect", size, inspected.await, None, theirs);
    });
}

fn removing(home: &Home, size: u32, beside: Option<&Beside>) {
    let references: Vec<String> =
        (1..=15).map(|number| format!("docker.io/acme/app{:05}:v{}", number / 7, 1 + number % 7)).collect();
    let ours = run(async {
        let local = home.open().await;
        // Opens the home for writing, which is done once.
        drop(local.unpin("docker.io/acme/app00000:v1").await);
        let mut next = references.iter();
        let removed = median_of(references.len(), async || {
            let reference = next.next().expect("a reference");
            Image::remove_local(&local, reference, false).await.expect("removed");
        });
        removed.await
    });
    let theirs = beside.map(|beside| {
        let call: Vec<&str> =
            std::iter::once("remove").chain(references.iter().map(String::as_str)).collect();
        beside.time(&call)
    });
    line("remove one", size, ours, None, theirs);
}

fn pruning(size: u32, peer: Option<&Peer>) {
    let runs = if size > 1000 { 3 } else { 5 };
    let mut times = Vec::new();
    let mut floors = Vec::new();
    let mut waits = Vec::new();
    for _ in 0..runs {
        let home = home_of(size);
        let clock = Instant::now();
        unlink_all(&home.cache());
        floors.push(clock.elapsed());
        drop(home);

        let home = home_of(size);
        let local = run(home.open());
        // Opens the home for writing, which is done once.
        drop(run(local.unpin("docker.io/acme/app00000:v1")));
        let (time, wait) = watched(&home, || prune(&local));
        times.push(time);
        waits.push(wait);
    }
    let ours = middle(times);
    // Once: of a large home it takes very long, so that it is ended where the ratio is known to be large enough.
    let limit = ours * PEER_LIMIT;
    let mut ended = false;
    let theirs = peer.map(|peer| {
        let home = home_of(size);
        watched(&home, || match peer.call_within(&home.path(), ["prune"], limit) {
            Some(report) => middle(report.calls()),
            None => {
                ended = true;
                limit
            }
        })
    });
    line("prune", size, ours, Some(middle(floors)), theirs.map(|(time, _)| time));
    if ended {
        println!("  microsandbox was ended after that time, with its prune not done: it takes longer");
    }
    line("longest wait of a writer", size, middle(waits), None, theirs.map(|(_, wait)| wait));
}

fn prune(local: &LocalBackend) -> Duration {
    run(async {
        let clock = Instant::now();
        let report = Image::prune_local(local).await.expect("a report");
        assert!(report.image_refs_removed > 0);
        clock.elapsed()
    })
}

/// How long some work says that it took, and the longest that another writer had to wait meanwhile.
fn watched(home: &Home, work: impl FnOnce() -> Duration) -> (Duration, Duration) {
    let done = Arc::new(AtomicBool::new(false));
    let (other, stop) = (home.index(), Arc::clone(&done));
    other.busy_timeout(Duration::from_secs(3600)).expect("a timeout");
    let writer = std::thread::spawn(move || {
        let mut longest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            let clock = Instant::now();
            other.execute_batch("BEGIN IMMEDIATE; COMMIT").expect("a transaction");
            longest = longest.max(clock.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        longest
    });
    let time = work();
    done.store(true, Ordering::Relaxed);
    (time, writer.join().expect("the other writer"))
}

fn unlink_all(cache: &Path) {
    for room in ["manifests", "fsmeta", "vmdk", "layers"] {
        for entry in std::fs::read_dir(cache.join(room)).expect("a room") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                std::fs::remove_file(path).expect("unlinked");
            }
        }
    }
}

fn line(what: &str, size: u32, ours: Duration, floor: Option<Duration>, theirs: Option<Duration>) {
    let show = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    let times = |time: Duration, other: Duration| time.as_secs_f64() / other.as_secs_f64();
    let ratio = floor.map(|floor| format!("{:.2}", times(ours, floor)));
    let faster = theirs.map(|theirs| format!("{:.1} x", times(theirs, ours)));
    let text = |text: Option<String>| text.unwrap_or_default();
    println!(
        "{what:<28} {size:>7} {:>12} {:>12} {:>7} {:>14} {:>8}",
        show(ours),
        text(floor.map(show)),
        text(ratio),
        text(theirs.map(show)),
        text(faster)
    );
}
