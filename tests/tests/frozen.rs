//! Components that were built against a version of the contract when that was made. Whatever changes, they run.

use std::fs;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{ComponentReport, Decision, Evaluation, Grant, GrantDocument, Guard, Policy, PolicyRun};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_tests::{ENGINE, fixtures, run};
use serde_json::json;

const NOW: DateTime<Utc> = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");

/// Runs a fixture on three images of one repository, one day old and more; a sandbox uses the oldest.
fn evaluate(fixture: &str, config: serde_json::Value) -> Evaluation {
    let component = fs::read(fixtures().join(fixture)).expect("the fixture");
    assert_eq!(ComponentReport::of(&component).wit_version.as_deref(), Some("0.2.0"), "{fixture}");
    let images = (1..=3).map(|days| {
        let mut image = MemoryImage::new(format!("docker.io/acme/app:{days}"));
        image.created_at = NOW.checked_sub_signed(TimeDelta::days(days));
        image.sandboxes.extend((days == 3).then(|| "web".to_owned()));
        image
    });
    let all = || vec!["**".parse().expect("a pattern")];
    let grant = Grant::default().with_inspect(all()).with_remove(all()).with_prune(true);
    let guard = Guard::default().with_min_age(Duration::ZERO);
    let grant = GrantDocument::default().with_grant(grant).with_guard(guard);
    let policy_run = PolicyRun::new(NOW).with_config(config).with_grant(grant);
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    run(policy.evaluate(Box::new(MemoryCache::new(images)), &policy_run)).expect("a plan")
}

/// A policy of 0.2.0 in Rust decides as it did when it was built.
#[test]
fn a_policy_of_0_2_0_decides_as_before() {
    let plan = evaluate("keep-recent-0.2.0.wasm", json!({ "keep": 1 })).plan;
    let decisions: Vec<_> = plan
        .entries
        .iter()
        .map(|entry| (entry.reference.as_str(), entry.decision, entry.reason.as_str()))
        .collect();
    assert_eq!(
        decisions,
        [
            ("docker.io/acme/app:1", Decision::Keep, "the newest of docker.io/acme/app"),
            (
                "docker.io/acme/app:2",
                Decision::Remove,
                "2nd newest of docker.io/acme/app, of which 1 is kept"
            ),
            ("docker.io/acme/app:3", Decision::Keep, "in use by 1 sandbox"),
        ]
    );
}

/// A component that imports every function of 0.2.0, with the types of then, is loaded and runs.
#[test]
fn every_function_of_0_2_0_is_there() {
    let evaluation = evaluate("every-function-0.2.0.wasm", json!({}));
    // It asks for a list, and removes the newest image.
    assert_eq!(evaluation.stats.host_calls, 2);
    let removed: Vec<_> = evaluation.plan.removals().map(|entry| entry.reference.as_str()).collect();
    assert_eq!(removed, ["docker.io/acme/app:1"]);
}

/// Prints where to put the fixture that the test above runs, made of this version of the contract: for a new version.
#[test]
#[ignore = "writes the fixture of a new version"]
fn make_every_function() {
    let function = |interface: &str, name: &str, signature: &str| {
        format!("(import \"larder:image/{interface}@0.2.0\" \"{name}\" (func ${name} {signature}))\n")
    };
    let imports = [
        function("images", "list", "(param i32)"),
        function("images", "get", "(param i32 i32 i32)"),
        function("images", "inspect", "(param i32 i32 i32)"),
        function("images", "remove", "(param i32 i32 i32 i32)"),
        function("images", "restore", "(param i32 i32 i32)"),
        function("images", "prune", "(param i32)"),
        function("images", "select", "(param i32 i32)"),
        function("usage", "get-usage", "(param i32 i32 i32 i32)"),
        function("usage", "get-costs", "(param i32 i32 i32 i32)"),
        function("usage", "reclaimable-bytes", "(param i32 i32 i32)"),
        function("usage", "get-history", "(param i32 i32 i32 i32)"),
        function("usage", "disk", "(param i32)"),
        function("usage", "get-budget", "(param i32)"),
        function("report", "log", "(param i32 i32 i32)"),
        function("report", "explain", "(param i32 i32 i32 i32) (result i32)"),
    ];
    let fields = format!(
        "{}
        (data (i32.const 4096) \"docker.io/acme/app:1\")
        (func $on_evaluate
            (call $list (i32.const 8192))
            (call $remove (i32.const 4096) (i32.const 20) (i32.const 0) (i32.const 8192)))",
        imports.concat()
    );
    let component = larder_tests::guest(&fields);
    fs::write(fixtures().join("every-function-0.2.0.wasm"), component).expect("the fixture is written");
}
