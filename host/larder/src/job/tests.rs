use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::*;
use crate::policy::ByteSize;

const DESIGN: &str = r#"
[guard]
protect = ["docker.io/acme/base"]

[defaults]
time-zone = "Europe/Berlin"
jitter = "30m"

[jobs.nightly]
schedule = "30 3 * * *"
policy   = "keep-recent"
config   = { keep = 3 }
grant    = { remove = ["docker.io/acme/**"], max-share = "25%" }

[jobs.pressure]
when-free-below = "15%"
until-free      = "25%"
when-used-above = "80GiB"
until-used      = "70GiB"
check-every     = "30s"
make-room       = true
step = [
  { policy = "max-age", config = { max-age = "30d" }, grant = { remove = ["**"], max-share = "50%" } },
  { policy = "policies/mine.wasm@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", grant = { remove = ["**"], max-removals = 10 } },
]
mode = "observe"
"#;

/// A file is read with everything that it says, and what it leaves out has its default.
#[test]
fn a_file() {
    let file = JobFile::parse(DESIGN).expect("a file");
    assert_eq!(file.warnings, []);
    assert_eq!(file.guard.protect.len(), 1);
    let [nightly, pressure] = file.jobs.as_slice() else { panic!("two jobs") };
    assert_eq!((nightly.name.as_str(), nightly.mode), ("nightly", Mode::Apply));
    let Trigger::Schedule { schedule, jitter } = &nightly.trigger else { panic!("a schedule") };
    assert_eq!((schedule.pattern(), schedule.zone()), ("30 3 * * *", "Europe/Berlin"));
    assert_eq!(*jitter, Duration::from_secs(1800));
    assert_eq!(nightly.steps[0].config, serde_json::json!({ "keep": 3 }));
    assert_eq!(pressure.mode, Mode::Observe);
    let Trigger::Pressure(bound) = &pressure.trigger else { panic!("a bound") };
    assert_eq!(bound.check_every, Duration::from_secs(30));
    assert_eq!(bound.settle, Duration::from_secs(600));
    assert!(bound.make_room);
    assert_eq!(bound.watermarks.len(), 2);
    assert_eq!(pressure.steps[0].policy, PolicyName::Bundled("max-age".to_owned()));
    assert!(matches!(&pressure.steps[1].policy, PolicyName::File { digest: Some(_), .. }));
    assert_eq!(JobFile::parse("").expect("an empty file").jobs, []);
}

/// A bound in bytes, of what is free or used, is one number on a file system: what has to be free.
#[test]
fn bounds_on_a_file_system() {
    let gib = |gib: u64| ByteSize::gib(gib).as_bytes();
    let fs = |free: u64| FileSystemStatus {
        size_bytes: gib(100),
        available_bytes: gib(free),
        inodes: 0,
        inodes_free: 0,
    };
    let JobFile { jobs, .. } = JobFile::parse(DESIGN).expect("a file");
    let Trigger::Pressure(bound) = &jobs[1].trigger else { panic!("a bound") };
    let [free, used] = [0, 1].map(|index: usize| bound.watermarks[index].on(&fs(50)));
    assert_eq!((free.start_free, free.stop_free), (gib(15), gib(25)));
    assert_eq!((used.start_free, used.stop_free), (gib(20), gib(30)));
    assert!(free.is_right() && used.is_right());
    assert!(!free.is_passed(&fs(15)) && free.is_passed(&fs(14)));
    assert!(!used.is_passed(&fs(20)) && used.is_passed(&fs(19)));
    assert_eq!([free.missing(&fs(14)), used.missing(&fs(14)), used.missing(&fs(31))], [gib(11), gib(16), 0]);
    let inodes: Watermark = Watermark {
        quantity: Quantity::InodesFree,
        start: "5%".parse().expect("an amount"),
        stop: "10%".parse().expect("an amount"),
    };
    assert!(
        !inodes.on(&fs(0)).is_passed(&fs(0)),
        "a file system that counts no inodes is never short of them"
    );
}

/// The messages of a file, one a line.
fn messages(text: &str) -> String {
    match JobFile::parse(text) {
        Ok(file) => Findings(file.warnings).to_string(),
        Err(findings) => findings.to_string(),
    }
}

/// Everything that is wrong with a file is found at once, each with line, column and what to do.
#[test]
fn bad_files() {
    let cases: Vec<&str> = include_str!("bad_files.txt").split("=====\n").collect();
    assert!(cases.len() >= 30, "{} files", cases.len());
    let shown = cases.iter().map(|file| {
        let messages = messages(file);
        assert!(!messages.is_empty(), "nothing is wrong with\n{file}");
        format!("{}\n-----\n{messages}\n", file.trim())
    });
    insta::assert_snapshot!(shown.collect::<Vec<_>>().join("=====\n"));
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

/// What is due in the night of a clock change is due once, and never at a time that does not exist.
#[test]
fn clock_changes() {
    let schedule = Schedule::parse("30 2 * * *", "Europe/Berlin").expect("a schedule");
    let mut now = at("2027-03-26T12:00:00Z");
    let mut due = Vec::new();
    for _ in 0..3 {
        now = schedule.next_after(now).expect("a next time");
        due.push(schedule.local(now));
    }
    assert_eq!(
        due,
        ["2027-03-27T02:30:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"],
        "02:30 does not exist on the 28th"
    );
    let changes = schedule.clock_changes(at("2026-11-28T00:00:00Z"));
    let [gap, overlap] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(gap.kind, ClockChangeKind::Gap);
    assert_eq!((gap.from.as_str(), gap.until.as_str()), ("2027-03-28T02:00:00", "2027-03-28T03:00:00"));
    assert_eq!(
        (gap.scheduled.as_str(), gap.due.as_slice()),
        ("2027-03-28T02:30:00", &["2027-03-28T03:00:00+02:00".to_owned()][..])
    );
    assert_eq!((overlap.kind, overlap.scheduled.as_str()), (ClockChangeKind::Overlap, "2027-10-31T02:30:00"));
    assert_eq!(overlap.due.len(), 1, "once, although the time comes twice: {overlap:?}");
    let noon = Schedule::parse("0 12 * * *", "Europe/Berlin").expect("a schedule");
    assert_eq!(noon.clock_changes(at("2026-11-28T00:00:00Z")), [], "no clock change meets it");
}

/// A schedule is in the zone that is named, and the next time is always later.
#[test]
fn schedules() {
    let hourly = Schedule::parse("@hourly", "UTC").expect("a schedule");
    assert_eq!(hourly.next_after(at("2026-11-28T10:00:00Z")), Some(at("2026-11-28T11:00:00Z")));
    assert_eq!(hourly.next_after(at("2026-11-28T10:59:59.999Z")), Some(at("2026-11-28T11:00:00Z")));
    let seconds = Schedule::parse("*/20 * * * * *", "Asia/Kolkata").expect("a schedule");
    assert_eq!(seconds.next_after(at("2026-11-28T10:00:05Z")), Some(at("2026-11-28T10:00:20Z")));
    assert_eq!(Schedule::parse("30 3 * * *", "UTC").expect("a schedule").describe(), "At 03:30.");
    let error = Schedule::parse("0 0 30 2 *", "UTC").expect_err("no such day");
    assert_eq!(error.to_string(), "`0 0 30 2 *` is never due: there is no such day");
}

/// The schema has exactly the keys that the file may have.
#[test]
fn the_schema_has_every_key() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).expect("JSON");
    let keys = |path: &str| -> BTreeSet<String> {
        let properties = schema.pointer(path).and_then(|value| value.as_object()).expect("properties");
        properties.keys().cloned().collect()
    };
    // The reader names every key that a table may have, where it finds one that it does not know.
    let known = |table: &str| -> BTreeSet<String> {
        let error = match table {
            "file" => toml::from_str::<keys::FileKeys>("x = 1").err(),
            "defaults" => toml::from_str::<keys::DefaultKeys>("x = 1").err(),
            "job" => toml::from_str::<keys::JobKeys>("x = 1").err(),
            "step" => toml::from_str::<keys::StepKeys>("x = 1").err(),
            "guard" => toml::from_str::<crate::policy::Guard>("x = 1").err(),
            _ => toml::from_str::<crate::policy::Grant>("x = 1").err(),
        };
        let message = error.expect("an unknown key").message().to_owned();
        let (_, names) = message.split_once("expected").expect("the known ones");
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    for (table, path) in [
        ("file", "/properties"),
        ("defaults", "/$defs/defaults/properties"),
        ("job", "/$defs/job/properties"),
        ("step", "/$defs/step/properties"),
        ("guard", "/$defs/guard/properties"),
        ("grant", "/$defs/grant/properties"),
    ] {
        assert_eq!(keys(path), known(table), "{table}");
    }
}
