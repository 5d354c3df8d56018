//! Services and jobs beside each other.

use super::{A_DAY_LATER, Service, job, messages, nightly, runs, seen};
use crate::harness::TestEnvironment;

/// Of two services on one home, one runs each job that is due, once; a service that starts later runs none again.
#[test]
fn two_services() {
    let test = TestEnvironment::fixture();
    let more: String = ["b", "c"].map(|name| job(&test, name, "max-share = \"100%\"")).concat();
    test.write("jobs.toml", nightly(&test, &more));
    seen(&test);
    let services = [0, 1].map(|number| Service::start(&test, A_DAY_LATER, number));
    services.iter().for_each(|service| drop(service.hear("READY=1")));
    // One of them may have found the other at work.
    services.iter().for_each(Service::look);
    let later = Service::start(&test, A_DAY_LATER, 2);
    later.hear("READY=1");
    for service in services.into_iter().chain([later]) {
        let (status, log) = service.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
    }
    for name in ["nightly", "b", "c"] {
        assert_eq!(runs(&test, &format!("job = '{name}'")), 1, "{name}");
    }
    assert_eq!(runs(&test, "outcome IN ('success', 'noop') AND ended_at IS NOT NULL"), 3);
}

/// A job that fails each time is tried again later, and later each time, and stops no other. Each run has a line in the log,
/// with its figures for programs.
#[test]
fn a_job_that_fails() {
    let test = TestEnvironment::fixture();
    // It wants to remove more than its cap allows, and more than what the other one removes.
    let other = nightly(&test, "").replace("keep = 1", "keep = 2");
    test.write("jobs.toml", other + &job(&test, "capped", "max-removals = 1"));
    seen(&test);
    // The pause after the first failure is a minute, and two minutes after the second.
    let times = [
        A_DAY_LATER,
        "2026-11-25T12:00:59Z",
        "2026-11-25T12:01:01Z",
        "2026-11-25T12:03:00Z",
        "2026-11-25T12:03:05Z",
    ];
    let mut lines = Vec::new();
    for (time, expected) in times.into_iter().zip([1, 1, 2, 2, 3]) {
        let service = Service::ready(&test, time);
        service.look();
        let (status, log) = service.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert_eq!((runs(&test, "job = 'capped'"), runs(&test, "job = 'nightly'")), (expected, 1), "{time}");
        lines.extend(log.into_iter().filter(|line| line.get("run").is_some()));
    }
    assert_eq!(runs(&test, "job = 'capped' AND outcome = 'refused'"), 3);
    let (capped, nightly): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["job"] == "capped");
    assert_eq!((capped.len(), nightly.len()), (3, 1), "{lines:#?}");
    assert_eq!(
        [&capped[0]["level"], &capped[0]["outcome"], &capped[0]["cause"]],
        ["error", "refused", "catch-up"]
    );
    assert!(
        capped[0]["problem"].as_str().is_some_and(|problem| problem.contains("`max-removals` is 1")),
        "{capped:?}"
    );
    let removed = nightly[0]["removed"].as_u64().expect("a number");
    assert!(removed > 0 && nightly[0]["freed_bytes"].as_u64() > Some(0), "{nightly:?}");
    let message = nightly[0]["message"].as_str().expect("a text");
    assert!(
        message.starts_with(&format!("`nightly` (catch-up): success, removed {removed} images, freed ")),
        "{message}"
    );
}

/// A home that cannot be used ends no service: what is wrong is said once, and when it can be used, the jobs run.
#[test]
fn a_home_that_is_gone_for_a_while() {
    let test = TestEnvironment::fixture();
    test.write("jobs.toml", nightly(&test, ""));
    seen(&test);
    let (index, aside) = (test.home.path().join("db"), test.home.path().join("aside"));
    let mut service = Service::ready(&test, "2026-11-24T12:10:00Z");
    std::fs::rename(&index, &aside).expect("the index is moved away");
    service.running.signal(rustix::process::Signal::HUP);
    service.running.wait_for("\"level\":\"warn\"");
    std::fs::rename(&aside, &index).expect("the index is back");
    service.running.wait_for("the home can be used again");
    let (status, log) = service.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    let warnings: Vec<&str> =
        messages(&log).into_iter().filter(|message| message.contains("no index")).collect();
    assert!(warnings.len() <= 1, "{log:#?}");
}
