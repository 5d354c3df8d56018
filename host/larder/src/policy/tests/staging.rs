//! What a run may stage, and what comes of it.

use super::super::session::Session;
use super::super::{ByteSize, Overrun, PolicyError, PolicyRun, Share};
use super::{MemoryCache, NOW, cache, everything, grant, image, said, session};
use crate::plan::{Decision, Plan, PlanPolicy, Right};

fn plan(session: Session) -> Result<Plan, PolicyError> {
    let policy = PlanPolicy { name: "p".to_owned(), version: "1".to_owned(), hash: String::new() };
    session.into_plan(policy, &PolicyRun::new(NOW))
}

/// Whoever wants to remove is told what stands against it, in this order: the name, the grant, the guard, users.
#[test]
fn what_stands_against_a_removal() {
    let mut session =
        session(cache(), grant("[grant]\nremove = [\"docker.io/acme/**\"]\n[guard]\nprotect = [\"**:2\"]"));
    let table = [
        ("A B", false, "`A B` is not an image reference: "),
        ("docker.io/acme/gone:1", false, "not found: docker.io/acme/gone:1"),
        ("docker.io/other/secret:1", true, "denied: Right::Remove of \"docker.io/other/secret:1\""),
        ("docker.io/acme/tool:1", true, "denied: Right::Protected of \"docker.io/acme/tool:1\""),
        ("docker.io/acme/app:2", true, "denied: Right::Protected of \"docker.io/acme/app:2\""),
        ("docker.io/acme/app:1", false, "in use: docker.io/acme/app:1 by [\"web\"] []"),
        ("docker.io/acme/app:1", true, "denied: Right::Force of \"docker.io/acme/app:1\""),
        ("docker.io/acme/app:1", true, "denied: Right::Force of \"docker.io/acme/app:1\""),
    ];
    for (name, force, expected) in table {
        let said = said(session.remove(name, force));
        assert!(said.starts_with(expected), "{name}: {said}");
    }
    let plan = plan(session).expect("a plan");
    let denials: Vec<_> = plan.denials.iter().map(|denial| denial.right).collect();
    assert_eq!(denials, [Right::Remove, Right::Protected, Right::Protected, Right::Force], "each once");
    let reasons: Vec<_> = plan.entries.iter().map(|entry| entry.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "the policy was not allowed to remove it: docker.io/acme/tool:1: it is pinned",
            "the policy was not allowed to remove it: docker.io/acme/app:2: `**:2` is protected",
            "the policy was not allowed to remove it: docker.io/acme/app:1: something uses it, and the grant does not let this policy force its removal",
            "the policy was not allowed to remove it: docker.io/other/secret:1: the grant does not let this policy remove it",
        ]
    );
}

/// What is staged is gone for the run; its bytes, in the order of staging, sum up to what the plan frees; what is in
/// use frees nothing.
#[test]
fn bytes_sum_up() {
    let mut session = session(cache(), everything().with_guard(everything().guard.with_keep(0_u32)));
    for (name, force) in
        [("docker.io/other/secret:1", false), ("docker.io/acme/app:1", true), ("docker.io/acme/app:2", true)]
    {
        assert_eq!(said(session.remove(name, force)), "()");
    }
    assert_eq!(session.list().expect("a list").len(), 1);
    let plan = plan(session).expect("a plan");
    let entries: Vec<_> =
        plan.entries.iter().map(|entry| (entry.decision, entry.force, entry.bytes)).collect();
    assert_eq!(
        entries,
        [
            (Decision::Keep, false, 0),
            (Decision::Remove, false, 100),
            (Decision::Remove, true, 0),
            (Decision::Remove, false, 100),
        ]
    );
    assert_eq!((plan.bytes, plan.report.image_refs_removed, plan.report.layers_removed), (200, 3, 2));
}

/// `force` is staged no further than it is granted, and only where something uses the image: one that comes into use later
/// is not removed for having been asked for with force.
#[test]
fn force_is_staged_as_granted_and_needed() {
    let mut granted = session(cache(), grant("[grant]\nremove = [\"**\"]"));
    assert_eq!(said(granted.remove("docker.io/acme/app:2", true)), "()");
    assert!(plan(granted).expect("a plan").entries.iter().all(|entry| !entry.force));
    let mut needed = session(cache(), everything());
    for name in ["docker.io/acme/app:2", "docker.io/acme/app:1"] {
        assert_eq!(said(needed.remove(name, true)), "()");
    }
    let forced: Vec<_> = plan(needed).expect("a plan").removals().map(|entry| entry.force).collect();
    assert_eq!(forced, [false, true], "the newer one is not in use");
}

/// Each cap refuses the removal that passes it and in the end the whole plan, and says how much was wanted in all.
#[test]
fn caps() {
    let names = ["docker.io/acme/app:2", "docker.io/other/secret:1", "docker.io/acme/app:2"];
    let table = [
        ("max-removals = 1", Overrun::Removals { granted: 1, wanted: 2 }),
        (
            "max-bytes = \"150B\"",
            Overrun::Bytes { granted: ByteSize::bytes(150), wanted: ByteSize::bytes(200) },
        ),
        (
            "max-share = \"25%\"",
            Overrun::Share { granted: Share::percent(25), granted_references: 1, wanted: 2, total: 4 },
        ),
    ];
    for (cap, overrun) in table {
        let mut session = session(cache(), grant(&format!("[grant]\nremove = [\"**\"]\n{cap}")));
        let answers: Vec<_> = names.iter().map(|name| said(session.remove(name, false))).collect();
        let expected = [
            "()",
            "denied: Right::Budget of \"docker.io/other/secret:1\"",
            "not found: docker.io/acme/app:2",
        ];
        assert_eq!(answers, expected, "{cap}");
        assert_eq!(said(session.remove(names[1], false)), expected[1], "again, and still counted once");
        match plan(session) {
            Err(PolicyError::OverBudget(overruns)) => assert_eq!(overruns, [overrun]),
            other => panic!("{cap}: {other:?}"),
        }
    }
}

/// Pruning takes everything unused that may go, the oldest first, so that the guard keeps the newest of each
/// repository; what it may not take stays without a word.
#[test]
fn pruning() {
    let mut used = image("docker.io/a/a:0", 9);
    used.snapshots = vec!["s".to_owned()];
    let mut pinned = image("docker.io/a/b:1", 9);
    pinned.pinned = true;
    let cache = MemoryCache::new([
        used,
        pinned,
        image("docker.io/a/a:3", 1),
        image("docker.io/a/a:2", 2),
        image("docker.io/a/a:1", 3),
        image("docker.io/a/c:1", 4),
    ]);
    let text = |prune: bool| format!("[grant]\nremove = [\"**\"]\nprune = {prune}\n[guard]\nkeep = 2");
    let mut denied = session(cache.clone(), grant(&text(false)));
    assert_eq!(said(denied.prune()), "denied: Right::Prune of \"\"");
    let mut session = session(cache, grant(&text(true)));
    let report = session.prune().expect("a report");
    assert_eq!(
        (report.image_refs_removed, report.manifests_removed, report.bytes_reclaimed),
        (2, 2, Some(0))
    );
    assert_eq!(session.prune().expect("a report").image_refs_removed, 0, "nothing is left to prune");
    let plan = plan(session).expect("a plan");
    let removed: Vec<_> =
        plan.removals().map(|entry| (entry.reference.as_str(), entry.reason.as_str())).collect();
    assert_eq!(removed, [("docker.io/a/a:2", "nothing uses it"), ("docker.io/a/a:1", "nothing uses it")]);
    assert!(plan.denials.is_empty());
}

/// A prune past a cap stages nothing at all.
#[test]
fn a_prune_past_a_cap_stages_nothing() {
    let mut session = session(cache(), grant("[grant]\nremove = [\"**\"]\nprune = true\nmax-removals = 1"));
    assert_eq!(said(session.prune()), "denied: Right::Budget of \"\"");
    assert_eq!(session.list().expect("a list").len(), 4);
    match plan(session) {
        Err(PolicyError::OverBudget(overruns)) => {
            assert_eq!(overruns, [Overrun::Removals { granted: 1, wanted: 2 }]);
        }
        other => panic!("{other:?}"),
    }
}

/// The guard counts what a repository has left as the run goes on, hidden images too.
#[test]
fn the_guard_counts_what_is_left() {
    let images = ["docker.io/a/a:1", "docker.io/a/a:2", "docker.io/a/a:3"].map(|name| image(name, 1));
    let text =
        "[grant]\nread = [\"docker.io/a/a:1\", \"docker.io/a/a:2\"]\nremove = [\"**\"]\n[guard]\nkeep = 2";
    let mut session = session(MemoryCache::new(images), grant(text));
    assert_eq!(said(session.remove("docker.io/a/a:1", false)), "()");
    assert_eq!(
        said(session.remove("docker.io/a/a:2", false)),
        "denied: Right::Protected of \"docker.io/a/a:2\""
    );
}
