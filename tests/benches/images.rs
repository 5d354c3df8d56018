//! The image API on homes of 1,000 and 10,000 images, beside the least that the same work can cost: stepping the
//! same SQL in plain SQLite, unlinking the same files. `cargo xtask bench` runs it; every line is one measurement,
//! the median of its runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::{Image, LocalBackend};
use larder_tests::{Home, ImageSpec, Users, populate, run};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

const LIST_SQL: &str =
    "SELECT ref.reference, ref.created_at, ref.updated_at, manifest.digest, manifest.architecture,
        manifest.os, manifest.layer_count, manifest.total_size_bytes
   FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id
  ORDER BY ref.created_at DESC, ref.reference";

fn main() {
    // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
    let sizes: &[u32] =
        if std::env::args().any(|argument| argument == "--bench") { &[1_000, 10_000] } else { &[20] };
    println!("{:<28} {:>8} {:>12} {:>12} {:>7}", "what", "images", "larder", "floor", "ratio");
    for &size in sizes {
        let home = home_of(size);
        reading(&home, size);
        removing(&home, size);
        drop(home);
        pruning(size);
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

fn reading(home: &Home, size: u32) {
    let database = home.path().join("db/msb.db");
    let plain = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the index");
    let mut statement = plain.prepare(LIST_SQL).expect("the query");
    let floor = median(21, || {
        let mut rows = statement.query([]).expect("rows");
        let mut bytes = 0;
        while let Some(row) = rows.next().expect("a row") {
            bytes += (0..8).filter(|&column| !matches!(row.get_ref(column), Ok(ValueRef::Null))).count();
        }
        assert!(bytes > 0);
    });
    run(async {
        let local = home.open().await;
        let listed = median_of(21, async || drop(Image::list_local(&local).await.expect("the images"))).await;
        line("list", size, listed, Some(floor));
        let reference = format!("docker.io/acme/app{:05}:v3", size / 16);
        let got =
            median_of(201, async || drop(Image::get_local(&local, &reference).await.expect("the image")))
                .await;
        line("get", size, got, None);
        let inspected =
            median_of(201, async || drop(Image::inspect_local(&local, &reference).await.expect("the image")))
                .await;
        line("inspect", size, inspected, None);
    });
}

fn removing(home: &Home, size: u32) {
    run(async {
        let local = home.open().await;
        // Opens the home for writing, which is done once.
        drop(local.unpin("docker.io/acme/app00000:v1").await);
        let mut number = 0;
        let removed = median_of(15, async || {
            number += 1;
            let reference = format!("docker.io/acme/app{:05}:v{}", number / 7, 1 + number % 7);
            Image::remove_local(&local, &reference, false).await.expect("removed");
        });
        line("remove one", size, removed.await, None);
    });
}

fn pruning(size: u32) {
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
        let (time, wait) = run(async { prune(&home, &home.open().await).await });
        times.push(time);
        waits.push(wait);
    }
    line("prune", size, middle(times), Some(middle(floors)));
    line("longest wait of a writer", size, middle(waits), None);
}

/// How long a prune takes, and the longest that another writer had to wait meanwhile.
async fn prune(home: &Home, local: &LocalBackend) -> (Duration, Duration) {
    drop(local.unpin("docker.io/acme/app00000:v1").await);
    let done = Arc::new(AtomicBool::new(false));
    let (other, stop) = (home.index(), Arc::clone(&done));
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
    let clock = Instant::now();
    let report = Image::prune_local(local).await.expect("a report");
    let time = clock.elapsed();
    done.store(true, Ordering::Relaxed);
    assert!(report.image_refs_removed > 0);
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

fn line(what: &str, size: u32, time: Duration, floor: Option<Duration>) {
    let show = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    let ratio =
        floor.map_or(String::new(), |floor| format!("{:.2}", time.as_secs_f64() / floor.as_secs_f64()));
    println!("{what:<28} {size:>8} {:>12} {:>12} {ratio:>7}", show(time), floor.map_or(String::new(), show));
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn median(runs: usize, mut work: impl FnMut()) -> Duration {
    let time = |work: &mut dyn FnMut()| {
        let clock = Instant::now();
        work();
        clock.elapsed()
    };
    middle((0..runs).map(|_| time(&mut work)).collect())
}

async fn median_of(runs: usize, mut work: impl AsyncFnMut()) -> Duration {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let clock = Instant::now();
        work().await;
        times.push(clock.elapsed());
    }
    middle(times)
}
