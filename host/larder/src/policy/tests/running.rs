//! Runs that end well, or by the policy's own will.

use serde_json::json;

use super::guest::{ENGINE, EXPLAIN, GET, Guest, LIST, LOG, REMOVE};
use super::{NOW, cache, everything, grant};
use crate::policy::{
    Decision, Evaluation, GrantDocument, Limits, Overrun, Plan, Policy, PolicyError, PolicyRun,
};
use crate::state::MemoryCache;

fn evaluate(guest: &Guest<'_>, grant: GrantDocument) -> Result<Evaluation, PolicyError> {
    let policy = Policy::load(&ENGINE, &guest.component()).expect("a policy");
    policy.evaluate(Box::new(cache()), &PolicyRun::new(NOW).with_grant(grant))
}

/// `app` is `docker.io/acme/app:2`, 20 characters at 4096; `old` is `docker.io/acme/app:1` at 4128.
const NAMES: &str = r#"
    (data (i32.const 4096) "docker.io/acme/app:2")
    (data (i32.const 4128) "docker.io/acme/app:1")
    (data (i32.const 4160) "old \1b[2J")"#;

const REMOVE_APP: &str = "(call $remove (i32.const 4096) (i32.const 20) (i32.const 0) (i32.const 8192))";

/// A policy that does nothing keeps everything, and the plan lists every image that it could see.
#[test]
fn an_empty_policy_keeps_everything() {
    let Evaluation { plan, stats, .. } =
        evaluate(&Guest::default(), GrantDocument::default()).expect("a plan");
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
    let explain = "(call $explain (i32.const 4096) (i32.const 20) (i32.const 4160) (i32.const 8))";
    let log = "(call $log (i32.const 2) (i32.const 4160) (i32.const 8))";
    let guest = Guest {
        imports: &[REMOVE, EXPLAIN, LOG],
        extra: NAMES,
        evaluate: &format!("{REMOVE_APP} {explain} {log}"),
        ..Guest::default()
    };
    let policy = Policy::load(&ENGINE, &guest.component()).expect("a policy");
    let run = PolicyRun::new(NOW).with_grant(everything()).with_config(json!({ "keep": 1 }));
    let plan = policy.evaluate(Box::new(cache()), &run).expect("a plan").plan;
    let removed: Vec<_> = plan.removals().map(|entry| (entry.reference.as_str(), entry.bytes)).collect();
    assert_eq!(removed, [("docker.io/acme/app:2", 100)]);
    assert_eq!(plan.entries[1].reason, "old \u{fffd}[2J");
    assert_eq!(plan.log[0].message, "old \u{fffd}[2J");
    assert_eq!((plan.bytes, plan.report.image_refs_removed, plan.report.layers_removed), (100, 1, 1));
    let header = plan.policy.as_ref().expect("a policy made it");
    assert_eq!((header.name.as_str(), header.version.as_str()), ("guest", "1.2.0"));
    assert_eq!(header.hash, policy.hash().to_string());
    assert_eq!((&plan.config, &plan.grant), (&Some(json!({ "keep": 1 })), &Some(everything())));
    let again = policy.evaluate(Box::new(cache()), &run).expect("a plan").plan;
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
    let guest = Guest {
        imports: &[REMOVE],
        extra: NAMES,
        evaluate: &format!("{REMOVE_APP} (return (i32.const 0))"),
        ..Guest::default()
    };
    let error = evaluate(&guest, everything()).expect_err("no plan");
    assert_eq!(error.to_string(), "the policy failed: no");
}

/// A removal past a cap spoils the run although the policy does not care, and the error says by how much.
#[test]
fn a_swallowed_denial_spoils_the_run() {
    let both = format!(
        "{REMOVE_APP} (call $remove (i32.const 4128) (i32.const 20) (i32.const 1) (i32.const 8192)) {REMOVE_APP}"
    );
    let guest = Guest { imports: &[REMOVE], extra: NAMES, evaluate: &both, ..Guest::default() };
    let capped = everything().with_grant(everything().grant.with_max_removals(1));
    match evaluate(&guest, capped) {
        Err(PolicyError::OverBudget(overruns)) => {
            assert_eq!(overruns, [Overrun::Removals { granted: 1, wanted: 2 }]);
        }
        other => panic!("{other:?}"),
    }
}

/// Nothing of a run is left for the next one: a fresh instance each time.
#[test]
fn runs_do_not_meet() {
    let guest = Guest {
        extra: "(global $ran (mut i32) (i32.const 0))",
        evaluate: "(if (global.get $ran) (then unreachable)) (global.set $ran (i32.const 1))",
        ..Guest::default()
    };
    let policy = Policy::load(&ENGINE, &guest.component()).expect("a policy");
    for _ in 0..3 {
        policy.evaluate(Box::new(cache()), &PolicyRun::new(NOW)).expect("a plan");
    }
}

/// With fuel, the same run uses the same amount, and with less than that it ends.
#[test]
fn fuel_is_deterministic() {
    let spin = "(loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))";
    let guest = Guest { evaluate: spin, ..Guest::default() };
    let with = |fuel: u64| {
        let limits = Limits::default().with_fuel(fuel);
        evaluate(&guest, GrantDocument::default().with_limits(limits))
    };
    let used = with(1_000_000).expect("a plan").stats.fuel.expect("counted");
    assert_eq!(with(used).expect("a plan").stats.fuel, Some(used));
    let error = with(used / 2).expect_err("no plan").to_string();
    assert!(error.contains("`fuel` is "), "{error}");
}

/// The config has to be an object.
#[test]
fn odd_configs_are_refused() {
    let policy = Policy::load(&ENGINE, &Guest::default().component()).expect("a policy");
    for (config, what) in [(json!(null), "null"), (json!([]), "a list"), (json!("x"), "a string")] {
        let run = PolicyRun::new(NOW).with_config(config);
        let error = policy.evaluate(Box::new(MemoryCache::new([])), &run).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("the config of a policy has to be a JSON object, and this is {what}")
        );
    }
}

/// A policy says what it is, and says it once.
#[test]
fn a_policy_describes_itself() {
    let policy = Policy::load(&ENGINE, &Guest::default().component()).expect("a policy");
    let description = policy.description().expect("a description");
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
    let guest = Guest { imports: &[LIST, GET], evaluate: expect_three, ..Guest::default() };
    evaluate(&guest, grant("[grant]\nread = [\"docker.io/acme/**\"]")).expect("a plan");
}
