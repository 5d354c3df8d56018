//! Jobs at the command line: what is wrong with a file, what its jobs will do, and what they did.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use larder::reference::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::harness::{Output, TestEnvironment};

const FILE: &str = r#"[guard]
min-age = "0s"

[defaults]
time-zone = "Europe/Berlin"
jitter = "30m"

[jobs.nightly]
schedule = "30 2 * * *"
policy = "./keep-recent.wasm@KEEP-RECENT"
config = { keep = 2 }
grant = { remove = ["docker.io/acme/**"], max-share = "90%" }

[jobs.watching]
schedule = "@hourly"
policy = "./max-age.wasm@MAX-AGE"
config = { max-age = "1d" }
grant = { remove = ["**"], max-share = "100%" }
mode = "observe"
"#;

/// The fixture with a job file beside it, which names its policies by the digests that they have in this build.
fn environment() -> TestEnvironment {
    let test = TestEnvironment::fixture();
    test.write("jobs.toml", with_digests(&test, FILE));
    test
}

/// Puts the policies beside the home, and their digests into a text.
fn with_digests(test: &TestEnvironment, text: &str) -> String {
    digests(test).into_iter().fold(text.to_owned(), |text, (name, digest)| text.replace(name, &digest))
}

fn digests(test: &TestEnvironment) -> [(&'static str, String); 2] {
    [("KEEP-RECENT", "keep-recent"), ("MAX-AGE", "max-age")].map(|(word, name)| {
        let bytes = std::fs::read(test.directory().join(test.policy(name))).expect("the policy");
        (word, Digest::of(&bytes).to_string())
    })
}

/// Runs the program on that file, and replaces the digests in what it says.
fn larder(test: &TestEnvironment, arguments: &str) -> Output {
    let mut output = test.larder(&format!("{arguments} --file jobs.toml"));
    for (word, digest) in digests(test) {
        output.stdout = output.stdout.replace(&digest, word);
        output.stderr = output.stderr.replace(&digest, word);
    }
    output
}

/// A check says in sentences what each job will do; a list has a line for each.
#[test]
fn checked() {
    let test = environment();
    assert_output!("job_check", larder(&test, "job check"), larder(&test, "job list"));
    let checked = larder(&test, "job check --format json").json();
    assert_eq!(checked["jobs"][0]["next_at"].as_array().map(Vec::len), Some(5));
    let listed = larder(&test, "job list --format json").json();
    assert_eq!(listed[1]["mode"], "observe");
    assert_eq!(test.home.count("SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder_%'"), 0);
}

/// Everything that is wrong is said at once, what only a policy or a file can tell included.
#[test]
fn refused() {
    let test = environment();
    test.write(
        "broken.toml",
        "[jobs.a]\nschedul = \"@daily\"\n\n[jobs.b]\nwhen-free-below = \"15%\"\npolicy = \"max-age\"\n",
    );
    let grant = "grant = { remove = [\"**\"], max-share = \"1%\" }\n";
    let job = |name: &str, rest: &str| format!("[jobs.{name}]\nschedule = \"@daily\"\n{rest}\n{grant}\n");
    let other = format!("policy = \"./keep-recent.wasm@sha256:{}\"", "0".repeat(64));
    let keep_recent = "policy = \"./keep-recent.wasm@KEEP-RECENT\"\nconfig = ";
    let text = [
        job("b", &format!("{keep_recent}{{ kep = 2 }}")),
        job("c", &format!("{keep_recent}{{ keep = 0 }}")),
        job("d", "policy = \"./missing.wasm\""),
    ];
    test.write("jobs.toml", with_digests(&test, &text.concat()));
    assert_output!(
        "job_refused",
        test.larder("job check --file broken.toml"),
        larder(&test, "job check"),
        test.larder("job check --file nowhere.toml"),
        larder(&test, "job run b yearly"),
    );
    // Digests and the policies of the program differ from build to build.
    test.write("unknown.toml", job("a", "policy = \"keep-recnt\""));
    let refused = test.larder("job check --file unknown.toml");
    assert_eq!(refused.status, 2, "{refused}");
    assert!(
        refused.stderr.contains("unknown.toml:3:1: `jobs.a.policy`: there is no policy `keep-recnt`"),
        "{refused}"
    );
    test.write("other.toml", job("a", &other));
    let refused = test.larder("job check --file other.toml");
    assert_eq!(refused.status, 2, "{refused}");
    assert!(
        refused
            .stderr
            .contains("is another file than the one with this digest; write `./keep-recent.wasm@sha256:"),
        "{refused}"
    );
}

/// A run removes what its policies say, a dry run and a job that observes show it.
#[test]
fn ran() {
    let test = environment();
    let images = || test.home.count("SELECT count(*) FROM image_ref");
    let before = images();
    assert_output!("job_run", larder(&test, "job run nightly --dry-run"), larder(&test, "job run watching"));
    assert_eq!(images(), before);
    assert_output!("job_run_real", larder(&test, "job run nightly"), larder(&test, "job run nightly"));
    assert!(images() < before);
    let again = larder(&test, "job run nightly --format json").json();
    assert_eq!(again[0]["steps"][0]["reports"][0]["removed"].as_array().map(Vec::len), Some(0));
}

/// A job that is named while another one runs says once that it waits, and runs when that one has ended.
#[test]
fn waited() {
    let test = environment();
    let running = File::open(test.home.path()).expect("the home");
    flock(&running, FlockOperation::LockExclusive).expect("the lock of a run");
    let mut larder = test.command("job run watching --file jobs.toml").spawn().expect("the program");
    let said = BufReader::new(larder.stderr.take().expect("its errors"));
    let mut said = said.lines().map(|line| line.expect("what it says"));
    let waits = |line: &String| line.contains("`watching` waits: another job is running in this home");
    assert!(said.any(|line| waits(&line)), "it ended");
    drop(running);
    assert_eq!(said.filter(waits).count(), 0);
    let output = larder.wait_with_output().expect("its end");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing to remove; 41 images stay\n");
    assert_eq!(test.home.count("SELECT count(*) FROM larder_job WHERE name = 'watching'"), 1);
}

/// The schema that is printed is JSON.
#[test]
fn schema() {
    let test = environment();
    let printed = test.larder("job schema").json();
    assert_eq!(printed["title"], "larder.toml");
}
