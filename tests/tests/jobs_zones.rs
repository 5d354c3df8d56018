//! Schedules judged by Python's `zoneinfo`: twenty years in zones with every kind of clock change.

use std::io::Write as _;
use std::process::{Command, Stdio};

use chrono::{DateTime, Utc};
use larder::job::{JobFile, Schedule, Trigger};
use larder_tests::judge::has_tools;

/// Zones whose clocks change by an hour and by half of one, in both hemispheres, at midnight, during Ramadan, and no
/// longer, and one that left out a day.
const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Tehran",
    "Africa/Cairo",
    "Pacific/Apia",
];

/// The hour and minute of the schedule.
const TIMES: [(u32, u32); 4] = [(0, 15), (1, 59), (2, 30), (23, 45)];

/// Answers for each line `ZONE HOUR MINUTE`: the instants from 2010 to 2030 at which a clock in that zone shows that time,
/// the first if it does so twice, and the end of the gap if it never does.
const JUDGE: &str = r#"
import sys
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

for line in sys.stdin:
    name, hour, minute = line.split()
    zone, day, instants = ZoneInfo(name), date(2010, 1, 1), []
    while day < date(2030, 1, 1):
        local = datetime.combine(day, time(int(hour), int(minute)), zone)
        instant = local.astimezone(timezone.utc)
        if instant.astimezone(zone).replace(fold=0) != local:
            # Search for the end of the gap: the first instant that the clock shows a later time.
            low = instant - timedelta(hours=30)
            high = instant + timedelta(hours=30)
            while high - low > timedelta(seconds=1):
                middle = (low + (high - low) / 2).replace(microsecond=0)
                if middle.astimezone(zone).replace(tzinfo=None) < local.replace(tzinfo=None):
                    low = middle
                else:
                    high = middle
            instant = high
        instants.append(int(instant.timestamp()))
        day += timedelta(days=1)
    print(*sorted(set(instants)))
"#;

fn schedule(zone: &str, hour: u32, minute: u32) -> Schedule {
    let text = format!(
        "[jobs.a]\nschedule = \"{minute} {hour} * * *\"\ntime-zone = \"{zone}\"\npolicy = \"keep-recent\"\n\
         grant = {{ remove = [\"**\"], max-removals = 1 }}\n"
    );
    let job = JobFile::parse(&text).unwrap_or_else(|findings| panic!("{findings}")).jobs.remove(0);
    let Trigger::Schedule { schedule, .. } = job.trigger else { panic!("a schedule") };
    schedule
}

fn instants(schedule: &Schedule) -> Vec<i64> {
    let [start, end]: [DateTime<Utc>; 2] =
        ["2010-01-02T00:00:00Z", "2029-12-31T00:00:00Z"].map(|time| time.parse().expect("a time"));
    let first = schedule.next_after(start);
    let all = std::iter::successors(first, |last| schedule.next_after(*last));
    all.take_while(|at| *at < end).map(|at| at.timestamp()).collect()
}

/// A time of day is due once a day for twenty years, at the instant that `zoneinfo` computes for it.
#[test]
fn twenty_years() {
    if !has_tools(&["python3"]) {
        return;
    }
    let cases: Vec<_> = ZONES
        .iter()
        .flat_map(|zone| TIMES.iter().map(move |&(hour, minute)| (*zone, hour, minute)))
        .collect();
    let mut python = Command::new("python3")
        .args(["-c", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python started");
    let input: String =
        cases.iter().map(|(zone, hour, minute)| format!("{zone} {hour} {minute}\n")).collect();
    python.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
    let output = python.wait_with_output().expect("Python ended");
    assert!(output.status.success());
    let judged = String::from_utf8(output.stdout).expect("text");
    assert_eq!(judged.lines().count(), cases.len());
    for ((zone, hour, minute), line) in cases.into_iter().zip(judged.lines()) {
        let ours = instants(&schedule(zone, hour, minute));
        let (first, last) = (ours[0], ours[ours.len() - 1]);
        let judged: Vec<i64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        let judged: Vec<i64> = judged.into_iter().filter(|at| (first..=last).contains(at)).collect();
        let differ = ours.iter().zip(&judged).find(|(ours, judged)| ours != judged);
        assert_eq!(differ, None, "{zone} {hour}:{minute}");
        assert_eq!(ours.len(), judged.len(), "{zone} {hour}:{minute}");
        assert!(ours.len() > 7200, "{zone}: {} days", ours.len());
    }
}
