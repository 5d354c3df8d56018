//! What the service manager is told, and another job file.

use std::fs;
use std::os::unix::fs::symlink;

use larder_tests::FIXTURE_NOW;
use rustix::process::Signal;

use super::{Service, job, messages, nightly};
use crate::harness::TestEnvironment;

fn environment() -> TestEnvironment {
    let test = TestEnvironment::fixture();
    test.write("jobs.toml", nightly(&test, ""));
    test
}

/// The service manager is told, in this order: that the service is ready, when it has looked at its jobs; that it reads the
/// job file again, since when, and that it has; that it stops. In between it hears signs of life.
#[test]
fn the_manager_is_told() {
    let test = environment();
    let service = Service::start(&test, FIXTURE_NOW, 0);
    assert_eq!(service.hear("READY=1"), ["READY=1"]);
    let status = service.hear("STATUS=").pop().expect("a status");
    assert!(status.starts_with("STATUS=1 job, looks again at "), "{status}");
    service.hear("WATCHDOG=1");
    service.hear("WATCHDOG=1");
    service.running.signal(Signal::HUP);
    let heard = service.hear("RELOADING=1");
    let (first, second) = heard[0].split_once('\n').expect("two lines");
    assert_eq!((first, heard.len()), ("RELOADING=1", 1));
    let now: u64 = second.strip_prefix("MONOTONIC_USEC=").expect("its time").parse().expect("a number");
    assert!(now > 0);
    assert_eq!(service.hear("READY=1"), ["READY=1"]);
    service.running.signal(Signal::TERM);
    assert_eq!(service.hear("STOPPING=1"), ["STOPPING=1"]);
    let (status, log) = service.ended();
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert_eq!(
        messages(&log),
        [
            "started with 1 job: `nightly`",
            "the job file was read again: 1 job: `nightly`",
            "stopping: images that are being removed still go",
            "stopped"
        ]
    );
    for line in &log {
        let time = line["time"].as_str().expect("a time");
        assert!(time.parse::<chrono::DateTime<chrono::Utc>>().is_ok() && line["level"] == "info", "{line}");
    }
}

/// Another job file is used without a signal: one that is written, and one that a swapped link leads to, as Kubernetes
/// swaps the links of a `ConfigMap`.
#[test]
fn another_file() {
    let test = TestEnvironment::fixture();
    let at = |name: &str| test.directory().join(name);
    for (version, name) in [("v1", "first"), ("v2", "second")] {
        fs::create_dir(at(version)).expect("a directory");
        test.write(&format!("{version}/jobs.toml"), job(&test, name, "max-share = \"100%\""));
    }
    symlink("v1", at("..data")).and_then(|()| symlink("..data/jobs.toml", at("jobs.toml"))).expect("links");
    let service = Service::ready(&test, FIXTURE_NOW);
    symlink("v2", at("..tmp")).and_then(|()| fs::rename(at("..tmp"), at("..data"))).expect("a swap");
    service.hear("RELOADING=1");
    service.hear("READY=1");
    test.write(
        "v2/jobs.toml",
        job(&test, "third", "max-share = \"100%\"") + &job(&test, "more", "max-removals = 1"),
    );
    service.hear("RELOADING=1");
    service.hear("READY=1");
    let (status, log) = service.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert_eq!(
        messages(&log)[..3],
        [
            "started with 1 job: `first`",
            "the job file was read again: 1 job: `second`",
            "the job file was read again: 2 jobs: `more`, `third`"
        ]
    );
}

/// A job file that cannot be used leaves the jobs as they are. Everything that is wrong with it is said, and once, however
/// often it is read; the manager's status says that it is not used. When it is mended, it is.
#[test]
fn a_broken_file() {
    let test = environment();
    let service = Service::ready(&test, FIXTURE_NOW);
    let broken = nightly(&test, "").replace("keep = 1", "kep = 1") + "[jobs.a]\nschedul = \"@daily\"\n";
    test.write("jobs.toml", &broken);
    service.hear("cannot be used");
    service.reload();
    // What only the policy can tell.
    test.write("jobs.toml", nightly(&test, "").replace("keep = 1", "kep = 1"));
    service.hear("RELOADING=1");
    service.hear("READY=1");
    fs::remove_file(test.directory().join("jobs.toml")).expect("the file");
    service.hear("RELOADING=1");
    service.hear("READY=1");
    test.write("jobs.toml", nightly(&test, "") + &job(&test, "b", "max-removals = 1"));
    service.hear("RELOADING=1");
    service.hear("READY=1");
    let (_, log) = service.end();
    let errors: Vec<&str> = log
        .iter()
        .filter(|line| line["level"] == "error")
        .map(|line| line["message"].as_str().expect("a text"))
        .collect();
    let said = |text: &str| errors.iter().filter(|error| error.contains(text)).count();
    assert_eq!(said("did you mean `schedule`?"), 1, "{errors:#?}");
    assert_eq!(said("the policy refuses it"), 1, "{errors:#?}");
    assert_eq!(said("could not read `jobs.toml`"), 1, "{errors:#?}");
    assert!(messages(&log).contains(&"the job file was read again: 2 jobs: `b`, `nightly`"), "{log:#?}");
}

/// At start, a job file that cannot be used is an error of usage that names everything that is wrong.
#[test]
fn broken_at_start() {
    let test = environment();
    let text = nightly(&test, "").replace("keep = 1", "kep = 1") + &job(&test, "b", "max-shar = \"1%\"");
    test.write("jobs.toml", text);
    let refused = test.larder("job start --file jobs.toml --log-format human");
    assert_eq!(refused.status, 2, "{refused}");
    assert!(refused.stderr.contains("did you mean `max-share`?"), "{refused}");
    let missing = test.larder("job start --file nowhere.toml");
    assert_eq!(missing.status, 2, "{missing}");
    let first: serde_json::Value =
        serde_json::from_str(missing.stderr.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["level"], "error");
}
