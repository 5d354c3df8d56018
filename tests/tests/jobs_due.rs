//! Jobs over time: which runs there are in a month of sleeps, clock changes, restarts and other files, with a clock and a
//! file system that tests set.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use larder::LocalBackend;
use larder::job::{
    FileSystemStatus, Health, JobCause, JobFile, JobOutcome, JobRunRecord, JobState, Jobs, PolicyName,
};
use larder::policy::Policy;
use larder_tests::{ENGINE, Home, component, run};

/// A clock that a test sets, in seconds.
#[derive(Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn at(time: &str) -> Self {
        let time: DateTime<Utc> = time.parse().expect("a time");
        Self(Arc::new(AtomicI64::new(time.timestamp())))
    }

    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.load(Ordering::Relaxed), 0).expect("a time")
    }

    fn set(&self, time: DateTime<Utc>) {
        self.0.store(time.timestamp(), Ordering::Relaxed);
    }

    fn pass(&self, time: TimeDelta) {
        self.0.fetch_add(time.num_seconds(), Ordering::Relaxed);
    }
}

/// A host: a home, its clock and its disk.
struct Host {
    home: Home,
    clock: Clock,
    free: Arc<AtomicU64>,
}

const SIZE: u64 = 100 << 20;

fn policies() -> Arc<HashMap<PolicyName, Policy>> {
    let bytes = std::fs::read(component("keep-recent")).expect("the component");
    let policy = run(Policy::load(&ENGINE, bytes)).expect("a policy");
    Arc::new(HashMap::from([(PolicyName::Bundled("keep-recent".to_owned()), policy)]))
}

impl Host {
    fn new(time: &str) -> Self {
        Self { home: Home::made(), clock: Clock::at(time), free: Arc::new(AtomicU64::new(50 << 20)) }
    }

    /// A service that starts now.
    fn start(&self, file: &str, policies: &Arc<HashMap<PolicyName, Policy>>) -> Jobs {
        let clock = self.clock.clone();
        let builder = LocalBackend::builder().home(self.home.path()).clock(move || clock.now());
        let local = builder.build_lazy().expect("a backend");
        let free = Arc::clone(&self.free);
        let status = move || {
            let available_bytes = free.load(Ordering::Relaxed);
            Ok(FileSystemStatus { size_bytes: SIZE, available_bytes, inodes: 0, inodes_free: 0 })
        };
        let file = JobFile::parse(file).unwrap_or_else(|findings| panic!("{findings}"));
        Jobs::new(local, file, Arc::<HashMap<_, _>>::clone(policies)).with_file_system(status)
    }

    /// Looks until a time, as a service does, and puts the clock there.
    fn until(&self, jobs: &Jobs, end: &str) -> Vec<JobRunRecord> {
        let end: DateTime<Utc> = end.parse().expect("a time");
        let mut ran = Vec::new();
        run(async {
            while self.clock.now() < end {
                let tick = jobs.tick(pending()).await.expect("a look");
                assert!(tick.problems.is_empty() && !tick.is_busy, "{tick:?}");
                ran.extend(tick.ran.into_iter().map(|run| run.record));
                assert!(tick.next_at > self.clock.now(), "a loop without a pause");
                self.clock.set(tick.next_at.min(end));
            }
        });
        ran
    }

    fn look(&self, jobs: &Jobs) -> Vec<JobRunRecord> {
        run(jobs.tick(pending())).expect("a look").ran.into_iter().map(|run| run.record).collect()
    }
}

fn said(runs: &[JobRunRecord]) -> Vec<String> {
    runs.iter()
        .map(|run| format!("{} {} {}", run.started_at.format("%m-%dT%H:%M"), run.job, run.cause))
        .collect()
}

const NIGHTLY: &str = r#"
[defaults]
time-zone = "Europe/Berlin"
[jobs.nightly]
schedule = "30 2 * * *"
policy = "keep-recent"
config = { keep = 1 }
grant = { remove = ["**"], max-share = "100%" }
"#;

/// A month with a clock change, a machine that sleeps, restarts, and another file: each time is one run, what was missed is
/// one late run, and neither a restart nor a new job runs anything.
#[test]
fn a_month() {
    let (host, policies) = (Host::new("2027-03-20T12:00:00Z"), policies());
    let jobs = host.start(NIGHTLY, &policies);
    let mut ran = host.until(&jobs, "2027-03-23T00:00:00Z");
    assert_eq!(said(&ran), ["03-21T01:30 nightly schedule", "03-22T01:30 nightly schedule"]);
    // A restart right after a run, and one right before the next.
    drop(jobs);
    let jobs = host.start(NIGHTLY, &policies);
    ran = host.until(&jobs, "2027-03-23T01:29:00Z");
    assert_eq!(said(&ran), <[String; 0]>::default());
    drop(jobs);
    let jobs = host.start(NIGHTLY, &policies);
    ran = host.until(&jobs, "2027-03-24T00:00:00Z");
    assert_eq!(said(&ran), ["03-23T01:30 nightly schedule"]);
    // Four nights asleep: one run when it wakes.
    host.clock.set("2027-03-27T10:00:00Z".parse().expect("a time"));
    ran = host.until(&jobs, "2027-03-28T00:00:00Z");
    assert_eq!(said(&ran), ["03-27T10:00 nightly catch-up"]);
    // 02:30 does not exist on 28 March: the first instant after the gap.
    ran = host.until(&jobs, "2027-03-30T00:00:00Z");
    assert_eq!(said(&ran), ["03-28T01:00 nightly schedule", "03-29T00:30 nightly schedule"]);
    // Another file: another schedule counts from now, and so does a job that is new.
    let file = NIGHTLY.replace("30 2 * * *", "0 9 * * *")
        + &NIGHTLY
            .split("[jobs.nightly]")
            .nth(1)
            .expect("a job")
            .replace("30 2", "0 8")
            .split("\n")
            .collect::<Vec<_>>()
            .join("\n")
            .replacen("schedule", "[jobs.morning]\nschedule", 1);
    let file = JobFile::parse(&file).unwrap_or_else(|findings| panic!("{findings}"));
    host.clock.set("2027-03-30T08:30:00Z".parse().expect("a time"));
    let jobs = jobs.with_file(file, Arc::<HashMap<_, _>>::clone(&policies));
    ran = host.until(&jobs, "2027-03-31T08:30:00Z");
    assert_eq!(said(&ran), ["03-31T06:00 morning schedule", "03-31T07:00 nightly schedule"]);
    // All of it is on record.
    let runs = run(async { host.home.open().await.job_runs(None, 100).await.expect("runs") });
    assert_eq!(runs.len(), 8);
    assert!(runs.iter().all(|run| run.outcome == Some(JobOutcome::Noop)), "{runs:?}");
}

/// In every zone, each day of a year around its clock changes is one run.
#[test]
fn one_run_a_day_in_every_zone() {
    let policies = policies();
    for zone in
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Auckland"]
    {
        let host = Host::new("2027-01-01T12:00:00Z");
        let file = NIGHTLY.replace("Europe/Berlin", zone).replace("30 2", "15 2");
        let jobs = host.start(&file, &policies);
        let mut days: Vec<String> = Vec::new();
        // The weeks of clock changes in 2027, and those around them.
        for (from, to) in [("03-10", "04-10"), ("04-20", "05-10"), ("09-20", "11-15")] {
            host.clock.set(format!("2027-{from}T12:00:00Z").parse().expect("a time"));
            host.look(&jobs);
            let (mut ran, end) = (Vec::new(), format!("2027-{to}T12:00:00Z").parse().expect("a time"));
            while host.clock.now() < end {
                ran.extend(host.look(&jobs));
                let next = run(jobs.status()).expect("a status").jobs[0].next_at.expect("a time");
                host.clock.set(next.min(end));
            }
            assert!(ran.iter().all(|run| run.cause == JobCause::Schedule), "{zone}: {ran:?}");
            days.extend(
                ran.iter().map(|run| (run.started_at + TimeDelta::hours(12)).format("%F").to_string()),
            );
        }
        let count = days.len();
        days.dedup();
        assert_eq!((count, days.len()), (31 + 20 + 56, 31 + 20 + 56), "{zone}");
    }
}

/// A clock that jumps by a year and back, and by an hour and back, makes one late run, and stops nothing for good.
#[test]
fn a_clock_that_jumps() {
    let (host, policies) = (Host::new("2027-06-01T12:00:00Z"), policies());
    let jobs = host.start(NIGHTLY, &policies);
    assert_eq!(host.until(&jobs, "2027-06-02T12:00:00Z").len(), 1);
    host.clock.set("2028-06-02T12:00:00Z".parse().expect("a time"));
    assert_eq!(said(&host.look(&jobs)), ["06-02T12:00 nightly catch-up"]);
    host.clock.set("2027-06-02T13:00:00Z".parse().expect("a time"));
    assert_eq!(host.look(&jobs), []);
    assert_eq!(
        said(&host.until(&jobs, "2027-06-04T12:00:00Z")),
        ["06-03T00:30 nightly schedule", "06-04T00:30 nightly schedule"]
    );
    // An hour back over a run: it does not run twice.
    host.clock.set("2027-06-05T00:31:00Z".parse().expect("a time"));
    assert_eq!(host.look(&jobs).len(), 1);
    host.clock.set("2027-06-04T23:31:00Z".parse().expect("a time"));
    assert_eq!(host.until(&jobs, "2027-06-05T12:00:00Z"), []);
    // A year back, and everything from there.
    host.clock.set("2026-06-05T12:00:00Z".parse().expect("a time"));
    assert_eq!(host.look(&jobs), []);
    assert_eq!(host.until(&jobs, "2026-06-07T12:00:00Z").len(), 2);
}

/// This host's share of the jitter is the same each day and after a restart, and each time is still one run.
#[test]
fn jitter_is_stable() {
    let (host, policies) = (Host::new("2027-06-01T12:00:00Z"), policies());
    let file = NIGHTLY.replace("[jobs.nightly]", "jitter = \"6h\"\n[jobs.nightly]");
    let mut minutes = Vec::new();
    for day in 2..5 {
        let jobs = host.start(&file, &policies);
        let ran = host.until(&jobs, &format!("2027-06-0{day}T12:00:00Z"));
        assert_eq!(ran.len(), 1, "{ran:?}");
        minutes.push(ran[0].started_at.format("%H:%M:%S").to_string());
    }
    assert!(minutes.iter().all(|minute| *minute == minutes[0]), "{minutes:?}");
    assert!(("00:30:00".."06:30:01").contains(&&*minutes[0]), "{minutes:?}");
}

const PRESSURE: &str = r#"
[jobs.pressure]
when-free-below = "20MiB"
until-free = "30MiB"
settle = "10m"
policy = "keep-recent"
config = { keep = 1 }
grant = { remove = ["**"], max-share = "100%" }
"#;

/// After a run under pressure there is no other for a while, unless it gets worse by a tenth of the distance between its
/// begin and its end.
#[test]
fn settling() {
    let (host, policies) = (Host::new("2027-06-01T12:00:00Z"), policies());
    let jobs = host.start(PRESSURE, &policies);
    let free = |mebibytes: u64| host.free.store(mebibytes << 20, Ordering::Relaxed);
    assert_eq!(host.until(&jobs, "2027-06-01T12:30:00Z"), []);
    free(19);
    let ran = host.look(&jobs);
    assert_eq!(said(&ran), ["06-01T12:30 pressure pressure"]);
    assert_eq!((ran[0].report.goal_bytes, ran[0].report.unmet_bytes), (Some(11 << 20), 11 << 20));
    assert_eq!(ran[0].outcome, Some(JobOutcome::Partial));
    assert_eq!(host.until(&jobs, "2027-06-01T12:39:00Z"), []);
    free(18);
    assert_eq!(host.look(&jobs).len(), 1, "a tenth of 10 MiB worse");
    assert_eq!(host.until(&jobs, "2027-06-01T12:48:59Z"), []);
    assert_eq!(host.until(&jobs, "2027-06-01T12:49:01Z").len(), 1, "settled");
    free(25);
    assert_eq!(host.until(&jobs, "2027-06-01T14:00:00Z"), [], "above its begin");
}

/// A job that ran is looked at again when it says, and a cache that is not there is an error: the disk that would be
/// measured is another one.
#[test]
fn the_next_look() {
    let (host, policies) = (Host::new("2027-06-01T12:00:00Z"), policies());
    let jobs =
        host.start(&PRESSURE.replace("settle = \"10m\"", "settle = \"5s\"\ncheck-every = \"5s\""), &policies);
    host.free.store(19 << 20, Ordering::Relaxed);
    let tick = run(jobs.tick(pending())).expect("a look");
    assert_eq!((tick.ran.len(), tick.next_at - host.clock.now()), (1, TimeDelta::seconds(5)));
    host.home.execute(
        "INSERT INTO layer (diff_id, blob_digest, created_at) VALUES ('sha256:' || hex(zeroblob(32)), 'sha256:' || hex(zeroblob(32)), '2027-06-01 12:00:00')",
    );
    let lost = run(jobs.tick(pending())).expect_err("no cache").to_string();
    assert!(lost.contains("is not there"), "{lost}");
    assert!(run(jobs.status()).is_err());
}

/// A policy that fails each time is tried again after one minute, two, four and so on, says why, and stops no other job.
#[test]
fn backing_off() {
    let (host, policies) = (Host::new("2027-06-01T12:00:00Z"), policies());
    let failing = PRESSURE.replace("pressure]", "broken]").replace("keep = 1", "keep = 0");
    let jobs = host.start(
        &(failing + NIGHTLY.split("[jobs").next().expect("defaults") + &PRESSURE.replace("20MiB", "1MiB")),
        &policies,
    );
    host.free.store(19 << 20, Ordering::Relaxed);
    let ran = host.until(&jobs, "2027-06-01T12:16:00Z");
    assert_eq!(
        said(&ran),
        ["06-01T12:00", "06-01T12:01", "06-01T12:03", "06-01T12:07", "06-01T12:15"]
            .map(|at| format!("{at} broken pressure"))
    );
    assert!(ran.iter().all(|run| run.outcome == Some(JobOutcome::Error)));
    assert!(ran[0].report.problem.as_ref().is_some_and(|problem| problem.contains("keep")), "{ran:?}");
    let status = run(jobs.status()).expect("a status");
    let [broken, pressure] = status.jobs.as_slice() else { panic!("two jobs") };
    assert_eq!((broken.failures, broken.state), (5, JobState::BackingOff));
    assert!(
        matches!(&broken.health, Health::Critical(reason) if reason.contains("5 times in a row")),
        "{broken:?}"
    );
    assert_eq!(pressure.health, Health::Ok);
    host.free.store(1 << 19, Ordering::Relaxed);
    let ran = host.look(&jobs);
    assert_eq!(said(&ran), ["06-01T12:16 pressure pressure"]);
    // A mended config runs at once, and what failed before counts no longer.
    let mended = JobFile::parse(&PRESSURE.replace("pressure]", "broken]")).expect("a file");
    let jobs = jobs.with_file(mended, Arc::<HashMap<_, _>>::clone(&policies));
    host.clock.pass(TimeDelta::hours(1));
    assert_eq!(host.look(&jobs)[0].outcome, Some(JobOutcome::Partial));
    assert_eq!(run(jobs.status()).expect("a status").jobs[0].failures, 0);
}

/// Services and timers that look at the same time on one home run each due job once.
#[test]
fn several_at_once() {
    let (host, policies) = (Host::new("2027-06-01T12:00:00Z"), policies());
    let all: Vec<Arc<Jobs>> = (0..4).map(|_| Arc::new(host.start(NIGHTLY, &policies))).collect();
    for jobs in &all {
        host.look(jobs);
    }
    for day in 2..8 {
        host.clock.set(format!("2027-06-0{day}T03:00:00Z").parse().expect("a time"));
        let ran = Arc::new(Mutex::new(Vec::new()));
        run(async {
            let looks: Vec<_> = all
                .iter()
                .map(|jobs| {
                    let (jobs, ran) = (Arc::clone(jobs), Arc::clone(&ran));
                    tokio::spawn(async move {
                        let tick = jobs.tick(pending()).await.expect("a look");
                        ran.lock().expect("a list").extend(tick.ran.into_iter().map(|run| run.record));
                    })
                })
                .collect();
            for look in looks {
                look.await.expect("a look");
            }
        });
        assert_eq!(ran.lock().expect("a list").len(), 1, "on day {day}");
    }
}

/// A job that has not succeeded for too long, and a bound that nobody looks at, are critical; a job that was just seen is
/// not.
#[test]
fn health() {
    let (host, policies) = (Host::new("2027-06-01T12:00:00Z"), policies());
    let jobs = host.start(&(NIGHTLY.to_owned() + PRESSURE), &policies);
    let healths = |jobs: &Jobs| -> Vec<Health> {
        run(jobs.status()).expect("a status").jobs.into_iter().map(|job| job.health).collect()
    };
    let [nightly, pressure] = <[Health; 2]>::try_from(healths(&jobs)).expect("two jobs");
    assert!(matches!(nightly, Health::Warning(reason) if reason.contains("nobody has looked")));
    assert!(matches!(pressure, Health::Critical(reason) if reason.contains("nobody has looked")));
    host.look(&jobs);
    assert_eq!(healths(&jobs), [Health::Ok, Health::Ok]);
    host.clock.set("2027-06-02T12:00:00Z".parse().expect("a time"));
    let [nightly, pressure] = <[Health; 2]>::try_from(healths(&jobs)).expect("two jobs");
    assert_eq!(nightly, Health::Ok, "once is late, not lost");
    assert!(matches!(pressure, Health::Critical(_)));
    host.clock.set("2027-06-03T12:00:00Z".parse().expect("a time"));
    let [nightly, _] = <[Health; 2]>::try_from(healths(&jobs)).expect("two jobs");
    assert!(matches!(nightly, Health::Critical(reason) if reason.contains("never succeeded")));
    host.look(&jobs);
    assert_eq!(healths(&jobs), [Health::Ok, Health::Ok]);
    // A goal that is not met for half an hour is a page.
    host.free.store(10 << 20, Ordering::Relaxed);
    host.look(&jobs);
    assert!(matches!(healths(&jobs)[1], Health::Warning(_)));
    host.until(&jobs, "2027-06-03T12:35:00Z");
    assert!(matches!(&healths(&jobs)[1], Health::Critical(reason) if reason.contains("not been met since")));
}
