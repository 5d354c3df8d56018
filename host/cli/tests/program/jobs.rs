//! Jobs at the command line: what is wrong with a file, what its jobs will do, and what they did.

use crate::harness::TestEnvironment;

const FILE: &str = r#"[guard]
min-age = "0s"

[defaults]
time-zone = "Europe/Berlin"
jitter = "30m"

[jobs.nightly]
schedule = "30 2 * * *"
policy = "keep-recent"
config = { keep = 2 }
grant = { remove = ["docker.io/acme/**"], max-share = "90%" }

[jobs.watching]
schedule = "@hourly"
policy = "max-age"
config = { max-age = "1d" }
grant = { remove = ["**"], max-share = "100%" }
mode = "observe"
"#;

fn environment() -> TestEnvironment {
    let test = TestEnvironment::fixture();
    std::fs::write(test.home.path().join("larder.toml"), FILE).expect("the job file");
    test
}

/// A check says in sentences what each job will do; a list has a line for each.
#[test]
fn checked() {
    let test = environment();
    assert_output!("job_check", test.larder("job check"), test.larder("job list"));
    let checked = test.larder("job check --format json").json();
    assert_eq!(checked["jobs"][0]["next_at"].as_array().map(Vec::len), Some(5));
    let listed = test.larder("job list --format json").json();
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
    test.policy("keep-recent");
    let other = format!("policy = \"./keep-recent.wasm@sha256:{}\"", "0".repeat(64));
    let text = [
        job("a", "policy = \"keep-recnt\""),
        job("b", "policy = \"keep-recent\"\nconfig = { kep = 2 }"),
        job("c", "policy = \"keep-recent\"\nconfig = { keep = 0 }"),
        job("d", "policy = \"./missing.wasm\""),
    ];
    test.write("policies.toml", &text.concat());
    assert_output!(
        "job_refused",
        test.larder("job check --file broken.toml"),
        test.larder("job check --file policies.toml"),
        test.larder("job check --file nowhere.toml"),
        test.larder("job run nightly yearly"),
    );
    // Digests differ from build to build.
    test.write("other.toml", &job("a", &other));
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
    assert_output!("job_run", test.larder("job run nightly --dry-run"), test.larder("job run watching"));
    assert_eq!(images(), before);
    assert_output!("job_run_real", test.larder("job run nightly"), test.larder("job run nightly"));
    assert!(images() < before);
    let again = test.larder("job run nightly --format json").json();
    assert_eq!(again[0]["steps"][0]["report"]["removed"].as_array().map(Vec::len), Some(0));
}

/// The schema that is printed is JSON.
#[test]
fn schema() {
    let test = environment();
    let printed = test.larder("job schema").json();
    assert_eq!(printed["title"], "larder.toml");
}
