//! Guests that misbehave, one crime each: what each gets, that the cache is as before, and that the host lives on.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use larder::policy::{Evaluation, GrantDocument, Limits, Policy, PolicyError, PolicyRun};
use larder::snapshot::{CacheSnapshot, CostGraph, DiskStatus, ImageRecord, MemoryCache, MemoryImage};
use larder::{LocalBackend, MicrosandboxError, MicrosandboxResult};
use larder_tests::{ENGINE, FIXTURE_NOW, Home, guest, hostile_guest, hostile_guests, run};

/// What every crime is committed under: much is granted, and little of everything is left.
const GRANT: &str = r#"
    [grant]
    read = ["docker.io/acme/app00000:*", "docker.io/acme/app00003:*"]
    inspect = ["**"]
    secrets = true
    remove = ["**"]
    force = true
    prune = true

    [limits]
    time = "1s"
    memory = "2MiB"
    host-calls = 3_000
    list = 5_000
    reasons = "3KiB"
    removals = 5
    instances = 30
"#;

/// Every file of the folder, and the beginning of what the operator reads.
const CRIMES: &[(&str, &str)] = &[
    ("allocation-past-memory", "trap in evaluate: it handed over what the contract does not allow"),
    ("budget-denied", "a plan that removes 2"),
    ("call-flood", "limit host-calls 3000"),
    ("core-module", "refused: a core WebAssembly module"),
    ("division-by-zero", "trap in evaluate: it divided by zero"),
    ("empty-log-flood", "limit host-calls 3000"),
    ("endless-allocation", "limit time 1s"),
    ("endless-describe", "limit time 1s"),
    ("endless-loop", "limit time 1s"),
    ("endless-start", "limit time 1s"),
    ("foreign-environment", "foreign import wasi:cli/environment@0.2.0"),
    ("foreign-files", "foreign import wasi:filesystem/preopens@0.2.0"),
    ("foreign-sockets", "foreign import wasi:sockets/tcp@0.2.0"),
    ("get-from-describe", "trap in describe: it gave up"),
    ("huge-error", "failed with 4097 characters"),
    ("huge-list", "limit list 5000"),
    ("huge-log-line", "limit string 64KiB"),
    ("huge-reason", "limit string 64KiB"),
    ("huge-schema", "description config-schema"),
    ("huge-string", "limit string 64KiB"),
    ("huge-summary", "description summary"),
    ("lies", "a plan that removes 1"),
    ("list-past-memory", "trap in evaluate: it handed over what the contract does not allow"),
    ("log-flood", "limit log 256KiB"),
    ("log-from-describe", "trap in describe: it called `report.log`, and `describe` has access to nothing"),
    ("lying-length", "trap in describe: it handed over what the contract does not allow"),
    ("many-tables", "limit instances 30"),
    ("memory-at-birth", "limit memory 2MiB"),
    ("memory-bomb", "limit memory 2MiB"),
    ("name-is-a-path", "description name"),
    ("one-string-many-times", "limit transfer 64MiB"),
    ("other-types", "refused: a component whose `larder:image` has other types than this host's"),
    ("other-world", "refused: a component of another world"),
    ("reason-flood", "limit reasons 3KiB"),
    ("recursion", "limit stack 512KiB"),
    ("removal-flood", "limit removals 5"),
    ("result-past-memory", "trap in evaluate: it handed over what the contract does not allow"),
    ("schema-for-a-terminal", "a plan that removes 0"),
    ("schema-is-not-json", "description config-schema"),
    ("string-not-utf8", "trap in evaluate: it handed over what the contract does not allow"),
    ("string-past-memory", "trap in evaluate: it handed over what the contract does not allow"),
    ("table-bomb", "limit table-elements 1000000"),
    ("trap", "trap in evaluate: it gave up"),
    ("trap-at-start", "trap in describe: it gave up"),
    ("trap-in-allocation", "trap in evaluate: it gave up"),
    ("trap-in-describe", "trap in describe: it gave up"),
];

fn grant() -> GrantDocument {
    GRANT.parse().expect("a grant")
}

fn policy_run(grant: GrantDocument) -> PolicyRun {
    PolicyRun::new(FIXTURE_NOW.parse().expect("an instant")).with_grant(grant)
}

/// Loads a guest and runs it on a home.
async fn commit(
    local: &LocalBackend,
    component: &[u8],
    grant: GrantDocument,
) -> Result<Evaluation, PolicyError> {
    let policy = Policy::load(&ENGINE, component).await?;
    local.plan_policy(&policy, &policy_run(grant)).await.map_err(|error| match error {
        MicrosandboxError::Policy(error) => error,
        other => panic!("{other}"),
    })
}

fn verdict(result: Result<Evaluation, PolicyError>) -> String {
    match result {
        Ok(evaluation) => format!("a plan that removes {}", evaluation.plan.removals().count()),
        Err(PolicyError::Limit { limit, value, .. }) => format!("limit {limit} {value}"),
        Err(PolicyError::Trapped { during, cause, .. }) => format!("trap in {during}: {cause}"),
        Err(PolicyError::InvalidDescription { field, .. }) => format!("description {field}"),
        Err(PolicyError::NotAComponent { found, .. }) => format!("refused: {found}"),
        Err(PolicyError::ForeignImport { import, .. }) => format!("foreign import {import}"),
        Err(PolicyError::Failed(message)) => format!("failed with {} characters", message.chars().count()),
        Err(other) => other.to_string(),
    }
}

/// No guest is without its line in the table, and no line without its guest.
#[test]
fn the_table_is_complete() {
    let entries = fs::read_dir(hostile_guests()).expect("the folder");
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| {
        path.extension().is_some_and(|extension| extension == "wat")
            && path.file_stem().is_some_and(|name| name != "prelude")
    });
    let files: BTreeSet<_> =
        files.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    assert_eq!(files, CRIMES.iter().map(|(crime, _)| (*crime).to_owned()).collect());
}

/// Each crime ends its run with the limit or the reason that the table says, one after another and all at once in one
/// process; the home is as before, and an honest policy still works.
#[test]
fn every_crime_gets_what_the_table_says() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let before = home.everything();
        for (crime, expected) in CRIMES {
            let verdict = verdict(commit(&local, &hostile_guest(crime), grant()).await);
            assert!(verdict.starts_with(expected), "{crime}: {verdict}");
        }
        let all = CRIMES.iter().map(|&(crime, expected)| {
            let local = local.clone();
            tokio::spawn(async move {
                let verdict = verdict(commit(&local, &hostile_guest(crime), grant()).await);
                // Where all run at once, time may be the first limit that one of them meets.
                let out_of_time = verdict == "limit time 1s";
                assert!(verdict.starts_with(expected) || out_of_time, "{crime}: {verdict}");
            })
        });
        for crime in all.collect::<Vec<_>>() {
            crime.await.expect("the host lives on");
        }
        commit(&local, &guest(""), grant()).await.expect("an honest policy runs");
        assert_eq!(home.everything(), before, "nothing of the home has changed");
    });
}

/// Fuel ends a loop at the same instruction every time, long before the clock would.
#[test]
fn fuel_ends_a_loop() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let limits = Limits::default().with_fuel(1_000_000).with_time(Duration::from_secs(3600));
        let verdict =
            verdict(commit(&local, &hostile_guest("endless-loop"), grant().with_limits(limits)).await);
        assert_eq!(verdict, "limit fuel 1000000");
    });
}

/// A removal past a cap makes no plan, although the policy takes no notice of it.
#[test]
fn a_cap_cannot_be_ignored() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let capped = grant().with_grant(grant().grant.with_max_removals(1));
        let verdict = verdict(commit(&local, &hostile_guest("budget-denied"), capped).await);
        let expected =
            "the policy wants to remove more than its grant allows: `max-removals` is 1, it wants at least 2";
        assert_eq!(verdict, expected);
    });
}

/// What a guest cannot see is in no plan, however it asks for it.
#[test]
fn hidden_images_are_in_no_plan() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let plan = commit(&local, &hostile_guest("lies"), grant()).await.expect("a plan").plan;
        assert_eq!(plan.entries.len(), 17, "nine of app00000 and eight of app00003");
        assert!(plan.entries.iter().all(|entry| !entry.reference.contains("app00001")));
    });
}

/// A guest that breaks off is reported with its own functions, innermost first.
#[test]
fn a_backtrace_names_the_guests_functions() {
    let component = guest(
        "(func $_ZN4acme5panic17h0123456789abcdefE (unreachable))
         (func $decide (call $_ZN4acme5panic17h0123456789abcdefE))
         (func $on_evaluate (call $decide))",
    );
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    let result = run(policy.evaluate(Box::new(MemoryCache::new([])), &policy_run(grant())));
    let Err(PolicyError::Trapped { during, backtrace, .. }) = result else { panic!("no trap") };
    assert_eq!(during, "evaluate");
    assert_eq!(backtrace, ["acme::panic", "decide", "on_evaluate", "evaluate"]);
}

/// A function may have a name of any length, and is reported by the beginning of it.
#[test]
fn a_backtrace_has_short_names() {
    let name = "x".repeat(90_000);
    let component = guest(&format!("(func ${name} (unreachable)) (func $on_evaluate (call ${name}))"));
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    let result = run(policy.evaluate(Box::new(MemoryCache::new([])), &policy_run(grant())));
    let Err(PolicyError::Trapped { backtrace, .. }) = result else { panic!("no trap") };
    assert_eq!(backtrace[0], format!("{}…", "x".repeat(200)));
}

/// A guest that can live with less memory than it asks for is not punished for asking.
#[test]
fn a_refused_page_is_not_the_end() {
    let component = guest(
        "(func $on_evaluate
            (if (i32.ne (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable)))",
    );
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    run(policy.evaluate(Box::new(MemoryCache::new([])), &policy_run(grant()))).expect("a plan");
}

/// What the cache takes to read is not on the guest's clock, however slow the disk is; what the guest asks for again is.
#[test]
fn a_slow_cache_does_not_count() {
    struct Slow(MemoryCache);
    // Waiting is what this test is about: it is the slow disk.
    fn wait() {
        std::thread::sleep(Duration::from_millis(400));
    }
    impl CacheSnapshot for Slow {
        fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
            wait();
            self.0.images()
        }
        fn detail(&mut self, reference: &str) -> MicrosandboxResult<larder::ImageDetail> {
            wait();
            self.0.detail(reference)
        }
        fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
            wait();
            self.0.costs()
        }
        fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
            wait();
            self.0.disk()
        }
    }
    let evaluate = |evaluate: &str| {
        let component = guest(&format!(
            r#"(import "larder:image/usage@0.2.0" "reclaimable-bytes" (func $reclaimable (param i32 i32 i32)))
            (import "larder:image/usage@0.2.0" "disk" (func $disk (param i32)))
            (import "larder:image/images@0.2.0" "inspect" (func $inspect (param i32 i32 i32)))
            (data (i32.const 4096) "docker.io/acme/app00003:v0") ;; 26 bytes
            (func $on_evaluate {evaluate})"#
        ));
        let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
        let hurried = grant().with_limits(Limits::default().with_time(Duration::from_millis(300)));
        let cache = MemoryCache::new([MemoryImage::new("docker.io/acme/app00003:v0")]);
        verdict(run(policy.evaluate(Box::new(Slow(cache)), &policy_run(hurried))))
    };
    let costs = "(call $reclaimable (i32.const 4096) (i32.const 0) (i32.const 8192))";
    let disk = "(call $disk (i32.const 8192))";
    let inspect = "(call $inspect (i32.const 4096) (i32.const 26) (i32.const 8192))";
    assert_eq!(evaluate(&[costs, costs, disk, disk, inspect].concat()), "a plan that removes 0");
    assert_eq!(evaluate(&[inspect, inspect].concat()), "limit time 300ms");
    assert_eq!(evaluate(&format!("{costs} (loop $forever (br $forever))")), "limit time 300ms");
}
