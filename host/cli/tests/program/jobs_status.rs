//! What jobs are up to, for people, programs and monitoring systems.

use crate::harness::{Output, TestEnvironment};

const BEGIN: &str = "2026-11-24T12:00:00Z";

fn environment() -> TestEnvironment {
    let test = TestEnvironment::fixture();
    let policy = test.job_policy("keep-recent");
    let step = format!("policy = \"{policy}\"\nconfig = {{ keep = 1 }}\ngrant = {{ remove = [\"**\"], ");
    let schedule = "schedule = \"30 2 * * *\"\ntime-zone = \"UTC\"\njitter = \"0s\"\n";
    let pressure = "when-free-below = \"1B\"\nuntil-free = \"2B\"\n";
    test.write("nightly.toml", format!("[jobs.nightly]\n{schedule}{step}max-share = \"100%\" }}\n"));
    test.write("capped.toml", format!("[jobs.capped]\n{schedule}{step}max-removals = 1 }}\n"));
    test.write("pressure.toml", format!("[jobs.pressure]\n{pressure}{step}max-share = \"100%\" }}\n"));
    test
}

/// Runs what is due at a time.
fn due(test: &TestEnvironment, now: &str, file: &str) -> Output {
    test.larder_at(now, &format!("job run --due --file {file}.toml --code-cache code"))
}

/// Asks as a monitoring system does, and compares with what is expected: the exit status, and the line or its beginning.
#[track_caller]
fn check(test: &TestEnvironment, now: &str, file: &str, status: i32, line: &str) {
    let output = test.larder_at(now, &format!("job status --check --file {file}.toml"));
    assert_eq!((output.status, output.stderr.as_str()), (status, ""), "{output}");
    assert!(output.stdout.starts_with(line), "{output}\nexpected {line}");
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
}

/// A job that succeeds is all right until it has been due twice without another success.
#[test]
fn healthy_and_overdue() {
    let test = environment();
    check(&test, BEGIN, "nightly", 1, "LARDER WARNING - nightly: nobody has looked yet whether it is due\n");
    due(&test, BEGIN, "nightly");
    check(&test, BEGIN, "nightly", 0, "LARDER OK - 1 job, all is well\n");
    due(&test, "2026-11-25T02:31:00Z", "nightly");
    check(&test, "2026-11-25T12:00:00Z", "nightly", 0, "LARDER OK");
    check(&test, "2026-11-27T02:59:00Z", "nightly", 0, "LARDER OK");
    let overdue = "LARDER CRITICAL - nightly: it has not succeeded since 2026-11-25T02:31:00+00:00";
    check(&test, "2026-11-27T03:01:00Z", "nightly", 2, overdue);
    due(&test, "2026-11-27T03:02:00Z", "nightly");
    check(&test, "2026-11-27T03:03:00Z", "nightly", 0, "LARDER OK");
}

/// A job that fails is a warning, and the third time in a row it is critical.
#[test]
fn failing() {
    let test = environment();
    due(&test, BEGIN, "capped");
    for (now, status, line) in [
        ("2026-11-25T02:31:00Z", 1, "LARDER WARNING - capped: its last run failed: ./keep-recent.wasm"),
        ("2026-11-25T02:33:00Z", 1, "LARDER WARNING - capped: its last run failed: ./keep-recent.wasm"),
        (
            "2026-11-25T02:36:00Z",
            2,
            "LARDER CRITICAL - capped: it failed 3 times in a row: ./keep-recent.wasm",
        ),
    ] {
        let ran = due(&test, now, "capped");
        assert_ne!(ran.status, 0, "{ran}");
        check(&test, now, "capped", status, line);
    }
    let output = test.larder_at("2026-11-25T02:36:30Z", "job status --file capped.toml");
    assert!(
        output.stdout.contains("backing off") && output.stdout.contains("refused, 30 seconds ago"),
        "{output}"
    );
}

/// A run whose process was killed is a warning, until the next one has ended.
#[test]
fn killed() {
    let test = environment();
    due(&test, BEGIN, "nightly");
    due(&test, "2026-11-25T02:31:00Z", "nightly");
    test.home.execute("UPDATE larder_job_run SET ended_at = NULL, outcome = NULL");
    check(&test, "2026-11-25T03:00:00Z", "nightly", 1, "LARDER WARNING - nightly: its last run was killed\n");
}

/// A bound that nobody looks at is critical. Nobody has to look before there is a service, and then as often as the job says.
#[test]
fn nobody_looks() {
    let test = environment();
    check(
        &test,
        BEGIN,
        "pressure",
        2,
        "LARDER CRITICAL - pressure: nobody has looked at the file system yet\n",
    );
    due(&test, BEGIN, "pressure");
    check(&test, "2026-11-24T12:29:00Z", "pressure", 0, "LARDER OK");
    let line =
        "LARDER CRITICAL - pressure: nobody has looked at the file system since 2026-11-24 12:00:00 UTC\n";
    check(&test, "2026-11-24T12:31:00Z", "pressure", 2, line);
    // A clock that was ahead has left what is to come, which says nothing.
    due(&test, "2026-11-24T20:00:00Z", "pressure");
    check(&test, "2026-11-24T12:10:00Z", "pressure", 0, "LARDER OK");
}

/// What cannot be found out is unknown: without a job file, with one that is broken, without a home.
#[test]
fn unknown() {
    let test = environment();
    check(&test, BEGIN, "nowhere", 3, "LARDER UNKNOWN - could not read `nowhere.toml`: No such file");
    test.write("broken.toml", "[jobs.a]\nschedul = \"@daily\"\n");
    check(&test, BEGIN, "broken", 3, "LARDER UNKNOWN - 1 error in the job file; broken.toml:2:1:");
    let missing = TestEnvironment::missing();
    missing.write("nightly.toml", "");
    check(&missing, BEGIN, "nightly", 3, "LARDER UNKNOWN - ");
    let output = missing.larder("job status --file nightly.toml");
    assert_eq!(output.status, 1, "without `--check`, it is the failure that it is: {output}");
}

/// The table has a row for each job, and the JSON everything that the library knows. Neither changes anything.
#[test]
fn shown() {
    let test = environment();
    let both = test.read("nightly.toml") + &test.read("pressure.toml");
    test.write("both.toml", both);
    due(&test, BEGIN, "both");
    due(&test, "2026-11-25T02:31:00Z", "both");
    let before =
        test.home.count("SELECT total_changes()") + test.home.count("SELECT count(*) FROM larder_job_run");
    let now = "2026-11-25T02:41:00Z";
    assert_output!(
        "job_status",
        test.larder_at(now, "job status --file both.toml"),
        test.larder_at(now, "job status --check --file both.toml"),
    );
    let status = test.larder_at(now, "job status --file both.toml --format json").json();
    assert_eq!(status["jobs"][0]["health"]["level"], "ok");
    assert_eq!(status["jobs"][0]["last"]["outcome"], "success");
    assert_eq!(status["jobs"][1]["bounds"][0]["quantity"], "free");
    assert_eq!(status["looked_at"], "2026-11-25T02:31:00Z");
    let after =
        test.home.count("SELECT total_changes()") + test.home.count("SELECT count(*) FROM larder_job_run");
    assert_eq!(before, after);
}
