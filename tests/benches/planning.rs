//! What looking costs: `df`, the plan of a prune and the plan of one removal, on homes of 1,000 and 10,000 images with
//! one base layer under all, as microsandbox made them and with Larder's indexes; and what a `get` is made of.
//! `cargo xtask bench planning` runs it. Every line is one measurement, the median of its runs; the last column says how
//! many times as long it takes with ten times the images.

use std::collections::HashMap;
use std::time::Duration;

use larder::{Image, LocalBackend};
use larder_tests::{FIXTURE_NOW, Home, ImageSpec, median, median_of, populate, run};
use rusqlite::{Connection, OpenFlags};

/// The query of a `get`.
const GET_SQL: &str =
    "SELECT ref.reference, ref.created_at, ref.updated_at, manifest.digest, manifest.architecture,
        manifest.os, manifest.layer_count, manifest.total_size_bytes, manifest.id
   FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id WHERE ref.reference = ?1";

/// How often what is quick is done, and what takes longer.
const OFTEN: usize = 2001;
const SOMETIMES: usize = 5;

fn main() {
    // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
    let sizes: &[u32] =
        if std::env::args().any(|argument| argument == "--bench") { &[1_000, 10_000] } else { &[20] };
    println!("{:<44} {:>7} {:>12} {:>7}", "what", "images", "time", "times");
    let mut lines = Lines::default();
    for &size in sizes {
        let home = home_of(size);
        planning(&home, size, "without indexes", &mut lines);
        run(async { home.open().await.unpin(&reference(1)).await }).expect("the indexes are made");
        planning(&home, size, "with indexes", &mut lines);
        getting(&home, size, &mut lines);
    }
}

/// The lines that were printed, to compare sizes.
#[derive(Default)]
struct Lines(HashMap<String, Duration>);

impl Lines {
    fn print(&mut self, what: String, size: u32, time: Duration) {
        let before = self.0.insert(what.clone(), time);
        let times = before.map(|before| format!("{:.1}", time.as_secs_f64() / before.as_secs_f64()));
        let shown = format!("{:.3} ms", time.as_secs_f64() * 1e3);
        println!("{what:<44} {size:>7} {shown:>12} {:>7}", times.unwrap_or_default());
    }
}

fn reference(number: u32) -> String {
    format!("docker.io/acme/app{number:05}:v1")
}

/// A home as microsandbox leaves it: each image has five layers of its own over one that all have.
fn home_of(size: u32) -> Home {
    let home = Home::made();
    let images: Vec<ImageSpec> = (0..size)
        .map(|number| ImageSpec {
            reference: reference(number),
            manifest: number,
            layers: std::iter::once(9_999_999).chain((0..5).map(|layer| number * 5 + layer)).collect(),
            age_days: i64::from(number % 365),
            unused_days: i64::from(number % 30),
            ..ImageSpec::default()
        })
        .collect();
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &images);
    assert_eq!(home.count("SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder_%'"), 0);
    home
}

fn planning(home: &Home, size: u32, indexes: &str, lines: &mut Lines) {
    let mut line = |what: &str, work: &dyn Fn()| {
        lines.print(format!("{what}, {indexes}"), size, median(SOMETIMES, work));
    };
    line("df, home opened", &|| {
        let usage = run(async { home.open().await.usage().await }).expect("the usage");
        assert_eq!((usage.images, usage.unused), (size as usize, size as usize));
    });
    line("prune --dry-run, home opened", &|| {
        let plan = run(async { home.open().await.plan_prune().await }).expect("a plan");
        assert_eq!(plan.removals().count(), size as usize);
    });
    line("plan of one removal, home opened", &|| {
        let references = [reference(size / 2)];
        let planned = run(async { home.open().await.plan_remove(&references, false).await });
        assert_eq!(planned.expect("a plan").plan.removals().count(), 1);
    });
}

/// A `get`, and the parts that it cannot do without.
fn getting(home: &Home, size: u32, lines: &mut Lines) {
    let reference = reference(size / 2);
    let database = home.path().join("db/msb.db");
    let plain = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the index");
    let mut statement = plain.prepare(GET_SQL).expect("the query");
    let stepped = median(OFTEN, &mut || {
        let found = statement.query_row([&reference], |row| row.get::<_, String>(0)).expect("the image");
        assert_eq!(found, reference);
    });
    let looked = median(OFTEN, &mut || assert!(std::fs::metadata(&database).expect("the index").is_file()));
    let (hopped, got) = run(async {
        let local = home.open().await;
        let hopped = median_of(OFTEN, async || tokio::task::spawn_blocking(|| ()).await.expect("done")).await;
        (hopped, median_of(OFTEN, async || get(&local, &reference).await).await)
    });
    lines.print("get".to_owned(), size, got);
    lines.print("  of it: to a blocking thread and back".to_owned(), size, hopped);
    lines.print("  of it: the same SQL in plain SQLite".to_owned(), size, stepped);
    lines.print("  of it: a look at the index's file".to_owned(), size, looked);
}

async fn get(local: &LocalBackend, reference: &str) {
    let image = Image::get_local(local, reference).await.expect("the image");
    assert_eq!(image.reference(), reference);
}
