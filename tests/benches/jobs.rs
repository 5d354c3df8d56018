//! What jobs cost: planning under pressure and a run that frees a tenth of a cache of 10,000 images, beside the same policy
//! by hand; a look that finds nothing due; and how large the journal of use is after a year of 1,000 images and 50 boots an
//! hour. `cargo xtask bench jobs` runs it. Every line is one measurement, the median of its runs.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use larder::LocalBackend;
use larder::job::{FileSystemStatus, JobFile, Jobs, Pass, PolicyName};
use larder::policy::{ByteSize, GrantDocument, Policy, PolicyRun};
use larder_tests::{ENGINE, FIXTURE_NOW, Home, ImageSpec, Usage, component, median, populate, run};

const GRANT: &str = "[grant]\nremove = [\"**\"]\nmax-share = \"100%\"\n[guard]\nmin-age = \"0s\"\n";

fn main() {
    // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (size, hours) = if is_bench { (10_000, 365 * 24) } else { (20, 3) };
    let policy = disk_budget();
    println!("{:<52} {:>14}", "what", "");
    pressure(size, &policy);
    looking(size, &policy);
    journal(if is_bench { 1_000 } else { 20 }, hours);
}

fn print(what: &str, time: Duration) {
    println!("{what:<52} {:>11.1} ms", time.as_secs_f64() * 1e3);
}

fn disk_budget() -> Policy {
    let bytes = std::fs::read(component("disk-budget")).expect("the component");
    run(Policy::load(&ENGINE, bytes)).expect("a policy")
}

fn name() -> PolicyName {
    PolicyName::Bundled("disk-budget".to_owned())
}

/// A home of images with one base, of some 5 KiB each.
fn home_of(size: u32) -> Home {
    let home = Home::made();
    let images: Vec<ImageSpec> = (0..size)
        .map(|number| ImageSpec {
            reference: format!("docker.io/acme/app{:03}:v{number}", number % 100),
            manifest: number,
            layers: std::iter::once(9_000_000).chain((0..5).map(|layer| number * 5 + layer)).collect(),
            age_days: 1 + i64::from(number % 300),
            unused_days: 1 + i64::from(number % 300),
            ..ImageSpec::default()
        })
        .collect();
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &images);
    run(async { home.open().await.unpin("docker.io/acme/app000:v0").await.map(drop) }).expect("a change");
    home
}

fn jobs_of(home: &Home, policy: &Policy, until: u64) -> Jobs {
    let text = format!(
        "[guard]\nmin-age = \"0s\"\n[jobs.pressure]\nwhen-free-below = \"{}B\"\nuntil-free = \"{until}B\"\n\
         policy = \"disk-budget\"\ngrant = {{ remove = [\"**\"], max-share = \"100%\" }}\n\
         [jobs.nightly]\nschedule = \"@yearly\"\npolicy = \"disk-budget\"\n\
         grant = {{ remove = [\"**\"], max-share = \"100%\" }}\n",
        until - 1
    );
    let file = JobFile::parse(&text).unwrap_or_else(|findings| panic!("{findings}"));
    let local = run(home.open());
    Jobs::new(local, file, Arc::new(HashMap::from([(name(), policy.clone())])))
}

fn grant() -> GrantDocument {
    GrantDocument::from_toml(GRANT, "the bench").expect("a grant")
}

/// What a tenth of the images frees.
fn tenth(home: &Home, size: u32, policy: &Policy) -> u64 {
    let everything = run(async {
        let policy_run = PolicyRun::new(FIXTURE_NOW.parse().expect("a time"))
            .with_grant(grant())
            .with_goal(ByteSize::bytes(u64::MAX));
        home.open().await.plan_policy(policy, &policy_run).await.expect("a plan").plan.bytes
    });
    everything / 10 + u64::from(size == 0)
}

fn pressure(size: u32, policy: &Policy) {
    let home = home_of(size);
    let goal = tenth(&home, size, policy);
    let free = || FileSystemStatus::of(&home.cache()).expect("its state").available_bytes;
    let jobs = jobs_of(&home, policy, free() + goal);
    let pressure = "pressure".parse().expect("a name");
    let plan = || {
        let ran = run(jobs.run(&pressure, Pass::DryRun, pending())).expect("a run").expect("it is alone");
        assert!(ran.record.report.removed > 0);
    };
    print(&format!("plan under pressure, {size} images"), median(5, plan));
    let by_hand = |home: &Home| {
        let policy_run = PolicyRun::new(FIXTURE_NOW.parse().expect("a time"))
            .with_grant(grant())
            .with_goal(ByteSize::bytes(goal));
        run(async { home.open().await.plan_policy(policy, &policy_run).await.expect("a plan").plan })
    };
    print(&format!("the same policy and goal by hand, {size} images"), median(5, || drop(by_hand(&home))));

    let copy = home.copy();
    let jobs = jobs_of(&home, policy, free() + goal);
    let mut removed = 0;
    let real = || {
        let ran = run(jobs.run(&pressure, Pass::Real, pending())).expect("a run").expect("it is alone");
        removed = ran.record.report.removed;
    };
    let took = median(1, real);
    print(&format!("a run that frees a tenth: {removed} images"), took);
    let mut removed = 0;
    let apply = || {
        let plan = by_hand(&copy);
        let report = run(async { copy.open().await.apply(&plan).await.expect("applied") });
        removed = report.removed.len();
    };
    let took = median(1, apply);
    print(&format!("plan and apply by hand: {removed} images"), took);
}

/// What a look costs that finds nothing due.
fn looking(size: u32, policy: &Policy) {
    let home = home_of(size);
    let jobs = jobs_of(&home, policy, 2);
    let look = || {
        let tick = run(jobs.tick(pending())).expect("a look");
        assert!(tick.ran.is_empty() && tick.problems.is_empty(), "{tick:?}");
    };
    look();
    let before = Usage::of_this_process().cpu;
    const LOOKS: u32 = 100;
    print(&format!("a look that finds nothing due, {size} images"), median(LOOKS as usize, look));
    let cpu = (Usage::of_this_process().cpu - before) / LOOKS;
    print("its processor time", cpu);
}

/// The journal after so many hours, in each of which 50 of so many images are booted.
fn journal(images: u32, hours: i64) {
    let home = home_of(images);
    let start: DateTime<Utc> = FIXTURE_NOW.parse().expect("a time");
    let now = Arc::new(AtomicI64::new(start.timestamp()));
    let clock = Arc::clone(&now);
    let builder = LocalBackend::builder().home(home.path());
    let builder =
        builder.clock(move || DateTime::from_timestamp(clock.load(Ordering::Relaxed), 0).expect("a time"));
    let local = builder.build_lazy().expect("a backend");
    let mut index = home.index();
    index
        .execute_batch(
            "INSERT INTO sandbox (id, name, config, status, created_at, updated_at)
                 SELECT id, 's' || id, '{}', 'Running', created_at, created_at FROM manifest;
             INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode) SELECT id, id, 'overlay' FROM manifest;",
        )
        .expect("sandboxes");
    let size = |index: &rusqlite::Connection| -> i64 {
        index
            .query_row(
                "SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'larder!_use%' ESCAPE '!'
                     OR name LIKE 'larder!_image' ESCAPE '!' OR name LIKE 'larder!_name%' ESCAPE '!'
                     OR name LIKE 'sqlite_autoindex_larder_image%'",
                [],
                |row| row.get(0),
            )
            .unwrap_or_default()
    };
    run(local.record_uses()).expect("recorded");
    let before = size(&index);
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let clock = std::time::Instant::now();
    for hour in 0..hours {
        now.store(start.timestamp() + (hour + 1) * 3600, Ordering::Relaxed);
        let booting = index.transaction().expect("a transaction");
        for boot in 0..50 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Half of the boots are of a tenth of the images.
            let among = if boot % 2 == 0 { u64::from(images) / 10 } else { u64::from(images) };
            let at =
                DateTime::from_timestamp(start.timestamp() + hour * 3600 + boot * 60, 0).expect("a time");
            booting
                .execute(
                    "INSERT INTO run (sandbox_id, status, started_at) VALUES (?1, 'Stopped', ?2)",
                    (
                        i64::try_from(1 + random % among.max(1)).expect("a row"),
                        at.format("%F %T").to_string(),
                    ),
                )
                .expect("a boot");
        }
        booting.commit().expect("committed");
        run(local.record_uses()).expect("recorded");
    }
    let took = clock.elapsed();
    let after = size(&index);
    let months = images as f64 * hours as f64 / 730.0;
    println!(
        "{:<52} {:>9.1} MiB",
        format!("the journal of {images} images after {hours} hours of 50 boots"),
        (after - before) as f64 / f64::from(1 << 20)
    );
    println!("{:<52} {:>9.0} bytes", "an image and month of it", (after - before) as f64 / months);
    print("a sweep of it, an hour's worth", took / u32::try_from(hours).expect("a number"));
}
