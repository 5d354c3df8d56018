//! Runs that end well, or by the policy's own will.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{
    ByteSize, Decision, Evaluation, Grant, GrantDocument, Guard, Limits, Overrun, Plan, Policy, PolicyError,
    PolicyRun,
};
use larder::snapshot::{CacheSnapshot, CostGraph, DiskStatus, ImageRecord, MemoryCache, MemoryImage};
use larder::{ImageDetail, MicrosandboxResult};
use larder_tests::{ENGINE, guest, run};
use serde_json::json;

const NOW: DateTime<Utc> = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");

/// Three images of `acme`, the oldest in use, the newest pinned, and one of somebody else; each has a layer of 100
/// bytes of its own.
fn cache() -> MemoryCache {
    let image = |reference: &str, age_days: i64| {
        let mut image = MemoryImage::new(reference);
        image.created_at = NOW.checked_sub_signed(TimeDelta::days(age_days));
        image.layers = vec![reference.to_owned()];
        image
    };
    let mut old = image("docker.io/acme/app:1", 20);
    old.sandboxes = vec!["web".to_owned()];
    let mut tool = image("docker.io/acme/tool:1", 5);
    tool.pinned = true;
    let images = [old, tool, image("docker.io/acme/app:2", 10), image("docker.io/other/secret:1", 30)];
    let names = images.clone().map(|image| image.reference);
    names.into_iter().fold(MemoryCache::new(images), |cache, layer| cache.with_layer(layer, 100))
}

/// May do everything; the guard protects nothing.
fn everything() -> GrantDocument {
    let all = || vec!["**".parse().expect("a pattern")];
    let grant = Grant::default().with_inspect(all()).with_remove(all()).with_force(true).with_prune(true);
    GrantDocument::default().with_grant(grant).with_guard(Guard::default().with_min_age(Duration::ZERO))
}

fn evaluate(component: &[u8], grant: GrantDocument) -> Result<Evaluation, PolicyError> {
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    run(policy.evaluate(Box::new(cache()), &PolicyRun::new(NOW).with_grant(grant)))
}

/// A guest that calls these imports in its `evaluate`.
fn caller(imports: &[&str], evaluate: &str) -> Vec<u8> {
    guest(&format!("{}\n{NAMES}\n(func $on_evaluate {evaluate})", imports.join("\n")))
}

const LIST: &str = r#"(import "larder:image/images@0.2.0" "list" (func $list (param i32)))"#;
const REMOVE: &str =
    r#"(import "larder:image/images@0.2.0" "remove" (func $remove (param i32 i32 i32 i32)))"#;
const LOG: &str = r#"(import "larder:image/report@0.2.0" "log" (func $log (param i32 i32 i32)))"#;
const EXPLAIN: &str =
    r#"(import "larder:image/report@0.2.0" "explain" (func $explain (param i32 i32 i32 i32) (result i32)))"#;

/// Two names of 20 characters, and a reason with an escape sequence.
const NAMES: &str = r#"
    (data (i32.const 4096) "docker.io/acme/app:2")
    (data (i32.const 4128) "docker.io/acme/app:1")
    (data (i32.const 4160) "old \1b[2J")"#;

const REMOVE_APP: &str = "(call $remove (i32.const 4096) (i32.const 20) (i32.const 0) (i32.const 8192))";

/// A policy that does nothing keeps everything, and the plan lists every image that it could see.
#[test]
fn an_empty_policy_keeps_everything() {
    let Evaluation { plan, stats, .. } = evaluate(&guest(""), GrantDocument::default()).expect("a plan");
    let entries: Vec<_> =
        plan.entries.iter().map(|entry| (entry.reference.as_str(), entry.decision)).collect();
    assert_eq!(
        entries,
        [
            ("docker.io/acme/tool:1", Decision::Keep),
            ("docker.io/acme/app:2", Decision::Keep),
            ("docker.io/acme/app:1", Decision::Keep),
            ("docker.io/other/secret:1", Decision::Keep),
        ]
    );
    assert!(plan.entries.iter().all(|entry| entry.reason == "not mentioned by the policy"));
    assert!(plan.is_empty() && plan.bytes == 0 && plan.report.bytes_reclaimed.is_none());
    assert_eq!((stats.host_calls, stats.fuel, stats.memory_bytes), (0, None, 65536));
}

/// What is staged and explained becomes a plan with the policy's name and hash, the config and the whole grant; its
/// texts have lost what a terminal would obey.
#[test]
fn what_is_staged_becomes_the_plan() {
    let explain = "(drop (call $explain (i32.const 4096) (i32.const 20) (i32.const 4160) (i32.const 8)))";
    let log = "(call $log (i32.const 2) (i32.const 4160) (i32.const 8))";
    let component = caller(&[REMOVE, EXPLAIN, LOG], &format!("{REMOVE_APP} {explain} {log}"));
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    let policy_run = PolicyRun::new(NOW).with_grant(everything()).with_config(json!({ "keep": 1 }));
    let plan = run(policy.evaluate(Box::new(cache()), &policy_run)).expect("a plan").plan;
    let removed: Vec<_> = plan.removals().map(|entry| (entry.reference.as_str(), entry.bytes)).collect();
    assert_eq!(removed, [("docker.io/acme/app:2", 100)]);
    assert_eq!(plan.entries[1].reason, "old \u{fffd}[2J");
    assert_eq!(plan.log[0].message, "old \u{fffd}[2J");
    assert_eq!((plan.bytes, plan.report.image_refs_removed, plan.report.layers_removed), (100, 1, 1));
    let header = plan.policy.as_ref().expect("a policy made it");
    assert_eq!((header.name.as_str(), header.version.as_str()), ("guest", "1.2.0"));
    assert_eq!(header.hash, policy.hash().to_string());
    assert_eq!((&plan.config, &plan.grant), (&Some(json!({ "keep": 1 })), &Some(everything())));
    let again = run(policy.evaluate(Box::new(cache()), &policy_run)).expect("a plan").plan;
    assert_eq!(
        again.to_json().expect("JSON"),
        plan.to_json().expect("JSON"),
        "the same input, the same plan"
    );
    assert_eq!(Plan::from_json(&plan.to_json().expect("JSON")).expect("the same"), plan);
}

/// A policy that returns an error makes no plan, and its words are passed on.
#[test]
fn an_error_is_passed_on() {
    let component = caller(&[REMOVE], &format!("{REMOVE_APP} (global.set $fails (i32.const 1))"));
    let error = evaluate(&component, everything()).expect_err("no plan");
    assert_eq!(error.to_string(), "the policy failed: no");
}

/// A removal past a cap spoils the run although the policy does not care, and the error says by how much.
#[test]
fn a_swallowed_denial_spoils_the_run() {
    let both = format!(
        "{REMOVE_APP} (call $remove (i32.const 4128) (i32.const 20) (i32.const 1) (i32.const 8192)) {REMOVE_APP}"
    );
    let component = caller(&[REMOVE], &both);
    let capped = everything().with_grant(everything().grant.with_max_removals(1));
    match evaluate(&component, capped) {
        Err(PolicyError::OverBudget(overruns)) => {
            assert_eq!(overruns, [Overrun::Removals { granted: 1, wanted: 2 }]);
        }
        other => panic!("{other:?}"),
    }
}

/// A guest takes back what it has staged, is told what there is no image for, and knows what remains of its caps and
/// which goal the run has.
#[test]
fn what_a_guest_is_told() {
    let imports = [
        REMOVE,
        EXPLAIN,
        r#"(import "larder:image/images@0.2.0" "restore" (func $restore (param i32 i32 i32)))"#,
        r#"(import "larder:image/usage@0.2.0" "get-budget" (func $budget (param i32)))"#,
        r#"(import "larder:image/usage@0.2.0" "get-usage" (func $usage (param i32 i32 i32 i32)))"#,
        r#"(import "larder:image/usage@0.2.0" "get-costs" (func $costs (param i32 i32 i32 i32)))"#,
        r#"(import "larder:image/usage@0.2.0" "get-history" (func $history (param i32 i32 i32 i32)))"#,
    ];
    // Of the budget: whether there is a cap on removals and how many remain, whether there is one on bytes.
    let left = |removals: u32| {
        format!(
            "(call $budget (i32.const 8192))
            (if (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1)) (then unreachable))
            (if (i32.ne (i32.load (i32.const 8196)) (i32.const {removals})) (then unreachable))
            (if (i32.load8_u (i32.const 8200)) (then unreachable))"
        )
    };
    // Of every visible image: no error, and as many answers as there are images.
    let all = |function: &str, images: u32| {
        format!(
            "(call ${function} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8192))
            (if (i32.load8_u (i32.const 8192)) (then unreachable))
            (if (i32.ne (i32.load (i32.const 8200)) (i32.const {images})) (then unreachable))"
        )
    };
    let ok = "(if (i32.load8_u (i32.const 8192)) (then unreachable))";
    let explain = |address: u32, length: u32, expected: u32| {
        format!(
            "(if (i32.ne (call $explain (i32.const {address}) (i32.const {length}) (i32.const 4160) (i32.const 3)) (i32.const {expected}))
                (then unreachable))"
        )
    };
    let restore = "(call $restore (i32.const 4096) (i32.const 20) (i32.const 8192))";
    let evaluate = [
        "(if (i64.ne (global.get $goal) (i64.const 100)) (then unreachable))",
        &left(2),
        REMOVE_APP,
        ok,
        &left(1),
        &all("usage", 3),
        &explain(4096, 20, 1),
        restore,
        ok,
        &left(2),
        &all("usage", 4),
        &all("costs", 4),
        &all("history", 4),
        // Without its last character, it is the name of no image.
        &explain(4096, 18, 0),
        REMOVE_APP,
        ok,
    ]
    .join("\n");
    let policy = run(Policy::load(&ENGINE, caller(&imports, &evaluate))).expect("a policy");
    let grant = everything().grant.with_max_removals(2);
    let policy_run =
        PolicyRun::new(NOW).with_grant(everything().with_grant(grant)).with_goal(ByteSize::bytes(100));
    let plan = run(policy.evaluate(Box::new(cache()), &policy_run)).expect("a plan").plan;
    let removed: Vec<_> = plan.removals().map(|entry| entry.reference.as_str()).collect();
    assert_eq!(removed, ["docker.io/acme/app:2"]);
    let written = Plan::from_json(&plan.to_json().expect("a document")).expect("a plan");
    assert_eq!((written.goal, &written), (Some(ByteSize::bytes(100)), &plan));
}

/// Nothing of a run is left for the next one: a fresh instance each time.
#[test]
fn runs_do_not_meet() {
    let component = guest(
        "(global $ran (mut i32) (i32.const 0))
         (func $on_evaluate
            (if (global.get $ran) (then unreachable))
            (global.set $ran (i32.const 1)))",
    );
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    for _ in 0..3 {
        run(policy.evaluate(Box::new(cache()), &PolicyRun::new(NOW))).expect("a plan");
    }
}

/// With fuel, the same run uses the same amount, and with less than that it ends.
#[test]
fn fuel_is_deterministic() {
    let component = guest(
        "(func $on_evaluate (local $i i32)
            (loop $more
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $i) (i32.const 1000)))))",
    );
    let with = |fuel: u64| {
        let limits = Limits::default().with_fuel(fuel);
        evaluate(&component, GrantDocument::default().with_limits(limits))
    };
    let used = with(1_000_000).expect("a plan").stats.fuel.expect("counted");
    assert_eq!(with(used).expect("a plan").stats.fuel, Some(used));
    let error = with(used / 2).expect_err("no plan").to_string();
    assert!(error.contains("`fuel` is "), "{error}");
}

/// The config has to be an object.
#[test]
fn odd_configs_are_refused() {
    let policy = run(Policy::load(&ENGINE, guest(""))).expect("a policy");
    for (config, what) in [(json!(null), "null"), (json!([]), "a list"), (json!("x"), "a string")] {
        let policy_run = PolicyRun::new(NOW).with_config(config);
        let error = run(policy.evaluate(Box::new(MemoryCache::new([])), &policy_run)).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("the config of a policy has to be a JSON object, and this is {what}")
        );
    }
}

/// A policy says what it is, and says it once.
#[test]
fn a_policy_describes_itself() {
    let policy = run(Policy::load(&ENGINE, guest(""))).expect("a policy");
    let description = run(policy.description()).expect("a description");
    assert_eq!((description.name.as_str(), description.version.as_str()), ("guest", "1.2.0"));
    assert_eq!(description.summary, "A guest for tests.");
    assert_eq!(description.config_schema, json!({}));
}

/// A guest reads what it is given: a list of every image it may see.
#[test]
fn a_list_arrives() {
    // The result is at 8192: whether it is an error, then the pointer to the elements and their number.
    let expect_three = "(call $list (i32.const 8192))
        (if (i32.load8_u (i32.const 8192)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 8200)) (i32.const 3)) (then unreachable))";
    let grant = "[grant]\nread = [\"docker.io/acme/**\"]".parse().expect("a grant");
    evaluate(&caller(&[LIST], expect_three), grant).expect("a plan");
}

/// Forty runs of one policy are under way at once, and each gets its plan.
#[test]
fn many_run_at_once() {
    struct Waiting(MemoryCache, Arc<Barrier>);
    impl CacheSnapshot for Waiting {
        fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
            self.0.images()
        }
        fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail> {
            self.0.detail(reference)
        }
        fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
            // Everybody has an instance when this returns.
            self.1.wait();
            self.0.costs()
        }
        fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
            self.0.disk()
        }
    }
    const RUNS: usize = 40;
    let reclaimable =
        r#"(import "larder:image/usage@0.2.0" "reclaimable-bytes" (func $reclaimable (param i32 i32 i32)))"#;
    let component =
        caller(&[reclaimable], "(call $reclaimable (i32.const 4096) (i32.const 0) (i32.const 8192))");
    let policy = run(Policy::load(&ENGINE, component)).expect("a policy");
    let barrier = Arc::new(Barrier::new(RUNS));
    std::thread::scope(|scope| {
        for _ in 0..RUNS {
            scope.spawn(|| {
                let source = Waiting(cache(), Arc::clone(&barrier));
                let limits = Limits::default().with_time(Duration::from_secs(60));
                let grant = everything().with_limits(limits);
                let policy_run = PolicyRun::new(NOW).with_grant(grant);
                run(policy.evaluate(Box::new(source), &policy_run)).expect("a plan");
            });
        }
    });
}

/// A policy with a large table is stopped by its limit alone, and runs where that allows it.
#[test]
fn a_large_table_has_a_limit() {
    let large = guest("(table 1500000 funcref)");
    let error = evaluate(&large, everything()).expect_err("too large").to_string();
    assert!(error.contains("`table-elements` is 1000000"), "{error}");
    let limits: GrantDocument = "[limits]\ntable-elements = 2_000_000".parse().expect("limits");
    evaluate(&large, everything().with_limits(limits.limits)).expect("a plan");
}
