//! A service that is asked to end, or killed.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use larder_tests::judge::tool;
use larder_tests::{FIXTURE_NOW, images_on_one_base, populate};
use rustix::process::Signal;

use super::{A_DAY_LATER, Service, nightly, runs, seen};
use crate::harness::TestEnvironment;

/// A home of so many images that nothing uses, and a job that is due and removes all but one.
fn environment(images: u32) -> TestEnvironment {
    let test = TestEnvironment::made();
    let mut specs = images_on_one_base(images);
    for (number, image) in specs.iter_mut().enumerate() {
        image.reference = format!("docker.io/acme/app:v{number}");
    }
    populate(&test.home.path(), FIXTURE_NOW.parse().expect("a time"), &specs);
    test.write("jobs.toml", nightly(&test, "[guard]\nmin-age = \"0s\"\n"));
    seen(&test);
    test
}

fn images(test: &TestEnvironment) -> i64 {
    test.home.count("SELECT count(*) FROM image_ref")
}

/// The index is sound.
fn check(test: &TestEnvironment) {
    for pragma in ["integrity_check", "foreign_key_check"] {
        let said = test.home.texts(&format!("SELECT * FROM pragma_{pragma}"));
        assert!(said.iter().all(|said| said == "ok"), "{pragma}: {said:?}");
    }
}

/// Asked to end in the middle of a run, a service ends with status 0. The images that it was removing are gone, the others
/// are whole, and the run is on record to its end: what it removed, and that it was stopped. The next service does the
/// rest.
#[test]
fn asked_in_the_middle_of_a_run() {
    const IMAGES: i64 = 1200;
    let test = environment(IMAGES as u32);
    let service = Service::start(&test, A_DAY_LATER, 0);
    let begun = Instant::now();
    while images(&test) == IMAGES {
        assert!(begun.elapsed() < Duration::from_secs(120), "it removes nothing");
        thread::sleep(Duration::from_millis(1));
    }
    service.running.signal(Signal::TERM);
    service.hear("STOPPING=1");
    let (status, log) = service.ended();
    assert_eq!(status.code(), Some(0), "{log:?}");
    let left = images(&test);
    assert!(left > 1, "it went on to the end");
    let line = log.iter().find(|line| line.get("run").is_some()).expect("the line of the run");
    assert_eq!(line["outcome"], "partial", "{line}");
    assert!(line["problem"].as_str().is_some_and(|problem| problem.ends_with(": interrupted")), "{line}");
    assert_eq!(line["removed"].as_i64(), Some(IMAGES - left));
    assert_eq!(runs(&test, "outcome = 'partial' AND ended_at IS NOT NULL"), 1);
    check(&test);
    let files = ["manifests", "fsmeta", "vmdk"].map(|room| test.home.files(room).len() as i64);
    assert_eq!(files, [left; 3]);
    let rest = test.larder_at(A_DAY_LATER, "job run nightly --file jobs.toml --code-cache code");
    assert_eq!((rest.status, images(&test)), (0, 1), "{rest}");
}

/// A service that is killed at any moment loses nothing that was to stay, and nothing that was on record. Whatever it had
/// begun, the next one ends: the job is run to its end, and no file is left of what went.
#[test]
fn killed_at_random() {
    // Several batches of a removal.
    const IMAGES: u32 = 200;
    const ROUNDS: u64 = 16;
    let (mut random, mut longest) = (0x9e37_79b9_u64, Duration::from_millis(200));
    let (mut killed_in_a_run, mut partly) = (0, 0);
    // What is left by a run that nobody kills.
    let first = environment(IMAGES);
    let ran = first.larder_at(A_DAY_LATER, "job run --due --file jobs.toml --code-cache code");
    assert_eq!(ran.status, 0, "{ran}");
    let expected = left(&first);
    for round in 0..ROUNDS {
        let test = environment(IMAGES);
        // With the policy compiled, a run is most of what the service does.
        tool(
            "cp",
            ["-a", "--"]
                .map(Path::new)
                .into_iter()
                .chain([first.directory().join("code").as_path(), test.directory().join("code").as_path()]),
        );
        let service = Service::start(&test, A_DAY_LATER, 0);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let begun = Instant::now();
        // Some are killed before their run begins, most of them in it.
        while round % 4 > 0 && runs(&test, "true") == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no run has begun");
        }
        if round % 4 == 3 {
            // When it has removed a part.
            while images(&test) == i64::from(IMAGES) && runs(&test, "ended_at IS NOT NULL") == 0 {
                assert!(begun.elapsed() < Duration::from_secs(60), "nothing was removed");
            }
        } else {
            thread::sleep(longest.mul_f64((random % 1000) as f64 / 1000.0));
        }
        service.running.signal(Signal::KILL);
        let Service { running, socket, .. } = service;
        let (status, ..) = running.end();
        std::fs::remove_file(socket).expect("the socket");
        assert_eq!(status.signal(), Some(9), "round {round}");
        let (begun_runs, ended) = (runs(&test, "true"), runs(&test, "ended_at IS NOT NULL"));
        killed_in_a_run += begun_runs - ended;
        partly += i64::from((expected.0.len() as i64 + 1..i64::from(IMAGES)).contains(&images(&test)));
        if ended > 0 {
            // It was over: the next one is killed earlier.
            longest = longest.mul_f64(0.7);
        }
        let (status, log) = Service::ready(&test, A_DAY_LATER).end();
        assert_eq!(status.code(), Some(0), "{log:?}");
        check(&test);
        assert_eq!(left(&test), expected, "round {round}");
        assert_eq!(test.home.count("SELECT count(*) FROM larder_deletion"), 0);
        // What was begun is on record, and what ended did not run again.
        assert_eq!(runs(&test, "true"), begun_runs + i64::from(ended == 0), "round {round}");
        assert_eq!(runs(&test, "ended_at IS NOT NULL"), 1, "round {round}");
    }
    println!(
        "of {ROUNDS} services, {killed_in_a_run} were killed in a run, {partly} when it had removed a part"
    );
    assert!(killed_in_a_run > 0 && partly > 0, "no service was killed when it had removed a part");
}

/// The references of a home, and what a verification finds, which includes what is missing and what nothing owns.
fn left(test: &TestEnvironment) -> (BTreeSet<String>, serde_json::Value) {
    let verified = test.larder_at(A_DAY_LATER, "verify --format json").json();
    (test.home.texts("SELECT reference FROM image_ref"), verified["findings"].clone())
}
