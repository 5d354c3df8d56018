//! What a run may stage, and what comes of it.

use super::{Access, MemoryCache, NOW, cache, everything, grant, image, said, session};
use crate::plan::{Decision, Plan, PlanPolicy, Right};
use crate::policy::session::Session;
use crate::policy::{ByteSize, Overrun, PolicyError, PolicyRun, Share};

fn plan(mut session: Session) -> Result<Plan, PolicyError> {
    let policy = PlanPolicy { name: "p".to_owned(), version: "1".to_owned(), hash: String::new() };
    session.plan(policy, &PolicyRun::new(NOW))
}

/// Whoever wants to remove is told what stands against it, in this order: the name, the grant, the guard, users.
#[test]
fn what_stands_against_a_removal() {
    let mut session =
        session(cache(), grant("[grant]\nremove = [\"docker.io/acme/**\"]\n[guard]\nprotect = [\"**:2\"]"));
    let table = [
        ("A B", false, "A B: at character 2, expected "),
        ("docker.io/acme/gone:1", false, "not found: docker.io/acme/gone:1"),
        ("docker.io/other/secret:1", true, "Remove: docker.io/other/secret:1: the grant"),
        ("docker.io/acme/tool:1", true, "Protected: docker.io/acme/tool:1: "),
        ("docker.io/acme/app:2", true, "Protected: docker.io/acme/app:2: the operator protects it"),
        ("docker.io/acme/app:1", false, "in use"),
        ("docker.io/acme/app:1", true, "Force: docker.io/acme/app:1: "),
        ("docker.io/acme/app:1", true, "Force: docker.io/acme/app:1: "),
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

/// `force` is staged where something uses the image, and no further than it is granted: an image that comes into use
/// later is not removed for having been asked for with force.
#[test]
fn force_is_staged_where_it_is_needed() {
    let mut ungranted = session(cache(), grant("[grant]\nremove = [\"**\"]"));
    assert_eq!(said(ungranted.remove("docker.io/acme/app:2", true)), "()");
    assert!(plan(ungranted).expect("a plan").entries.iter().all(|entry| !entry.force));
    let mut granted = session(cache(), everything());
    for name in ["docker.io/acme/app:1", "docker.io/acme/app:2"] {
        assert_eq!(said(granted.remove(name, true)), "()");
    }
    let plan = plan(granted).expect("a plan");
    let forced: Vec<_> = plan.removals().map(|entry| (entry.reference.as_str(), entry.force)).collect();
    assert_eq!(forced, [("docker.io/acme/app:2", false), ("docker.io/acme/app:1", true)]);
}

/// What is taken back is visible again and in no plan; what is not staged cannot be taken back.
#[test]
fn taking_back() {
    let mut session = session(cache(), everything());
    let name = "docker.io/acme/app:2";
    assert_eq!(said(session.restore(name)), "not found: docker.io/acme/app:2");
    assert_eq!(said(session.restore("A B")), said(session.get("A B")));
    for _ in 0..2 {
        assert_eq!(said(session.remove(name, false)), "()");
        assert_eq!(said(session.get(name)), "not found: docker.io/acme/app:2");
        assert_eq!(said(session.restore("acme/app:2")), "()", "in any spelling");
        assert_eq!(said(session.get(name)), "1");
    }
    assert_eq!(said(session.remove("docker.io/other/secret:1", false)), "()");
    assert_eq!(said(session.remove(name, false)), "()");
    let plan = plan(session).expect("a plan");
    let removed: Vec<_> = plan.removals().map(|entry| (entry.reference.as_str(), entry.bytes)).collect();
    assert_eq!(removed, [(name, 100), ("docker.io/other/secret:1", 100)], "each once");
}

/// A goal is met by the first of what was staged that free so much together, shared layers counted; the rest is kept,
/// with a reason that says so.
#[test]
fn goals() {
    let images = ["docker.io/a/a:1", "docker.io/a/a:2", "docker.io/a/a:3"];
    let cache = images
        .iter()
        .fold(MemoryCache::new(images.map(|name| image(name, 1))).with_layer("base", 1000), |cache, name| {
            cache.with_layer(*name, 100)
        });
    let of = |goal: u64, staged: &[&str]| {
        let access = Access::new(everything(), NOW);
        let goal = ByteSize::bytes(goal);
        let mut session = Session::new(Box::new(cache.clone()), access, Some(goal)).expect("a session");
        for name in staged {
            assert_eq!(said(session.remove(name, false)), "()");
            session.explain(name, "old".to_owned()).expect("an answer");
        }
        plan(session).expect("a plan")
    };
    let [one, two, three] = images;
    // What has to be freed, what is staged, how much of that goes, and what it frees.
    let table: [(u64, &[&str], usize, u64); 8] = [
        (0, &[one, two, three], 0, 0),
        (1, &[], 0, 0),
        (1, &[three, one], 1, 100),
        (100, &[three, one], 1, 100),
        (101, &[three, one], 2, 200),
        (201, &[three, one], 2, 200),
        (201, &[three, one, two], 3, 1300),
        (u64::MAX, &[three, one, two], 3, 1300),
    ];
    for (goal, staged, gone, bytes) in table {
        let plan = of(goal, staged);
        let mut removed: Vec<_> = plan.removals().map(|entry| entry.reference.as_str()).collect();
        let mut expected = staged[..gone].to_vec();
        removed.sort_unstable();
        expected.sort_unstable();
        assert_eq!((removed, plan.bytes), (expected, bytes), "{goal} of {staged:?}");
        assert_eq!(plan.report.image_refs_removed as usize, gone);
        let kept = plan.entries.iter().filter(|entry| entry.decision == Decision::Keep);
        for entry in kept.filter(|entry| staged.contains(&entry.reference.as_str())) {
            assert_eq!(entry.reason, format!("the goal of {:#} is met without it", ByteSize::bytes(goal)));
        }
    }
}

/// What a cap refused counts no longer once other removals were taken back for it.
#[test]
fn a_cap_is_kept_by_taking_back() {
    let mut session = session(cache(), grant("[grant]\nremove = [\"**\"]\nmax-removals = 1"));
    assert_eq!(said(session.remove("docker.io/acme/app:2", false)), "()");
    assert!(said(session.remove("docker.io/other/secret:1", false)).starts_with("Budget: "));
    assert_eq!(said(session.restore("docker.io/acme/app:2")), "()");
    assert_eq!(said(session.remove("docker.io/other/secret:1", false)), "()");
    let plan = plan(session).expect("a plan");
    assert_eq!(plan.removals().count(), 1);
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
        let answer = |answer: String| answer.split(": this goes").next().unwrap_or_default().to_owned();
        let answers: Vec<_> = names.iter().map(|name| answer(said(session.remove(name, false)))).collect();
        let expected = ["()", "Budget", "not found: docker.io/acme/app:2"];
        assert_eq!(answers, expected, "{cap}");
        assert_eq!(
            answer(said(session.remove(names[1], false))),
            expected[1],
            "again, and still counted once"
        );
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
    assert!(said(denied.prune()).starts_with("Prune: "));
    let mut session = session(cache, grant(&text(true)));
    let report = session.prune().expect("a report");
    assert_eq!((report.references, report.freed.manifests, report.freed.bytes), (2, 2, 0));
    assert_eq!(session.prune().expect("a report").references, 0, "nothing is left to prune");
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
    assert!(said(session.prune()).starts_with("Budget: "));
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
    assert!(said(session.remove("docker.io/a/a:2", false)).starts_with("Protected: docker.io/a/a:2: "));
    assert_eq!(said(session.restore("docker.io/a/a:1")), "()");
    assert_eq!(said(session.remove("docker.io/a/a:2", false)), "()", "what is taken back counts again");
}

/// With a goal, the caps are about what the plan removes: what is staged when the goal is met counts for none, unless
/// something before it is taken back and the plan has it after all. Before the goal is met, a cap refuses as without one.
#[test]
fn caps_and_a_goal() {
    /// Stages four images that free so many bytes each, and takes some back. Returns how many removals were refused, and
    /// how many the plan has.
    fn staged(caps: &str, goal: u64, bytes: [u64; 4], back: &[&str]) -> (usize, Result<usize, String>) {
        let names = ["a", "b", "c", "d"].map(|name| format!("docker.io/acme/{name}:1"));
        let cache = names.iter().zip(bytes).fold(MemoryCache::new([]), |cache, (name, bytes)| {
            cache.with_image(image(name, 10)).with_layer(name, bytes)
        });
        let access = Access::new(grant(&format!("[grant]\nremove = [\"**\"]\n{caps}\n")), NOW);
        let goal = Some(ByteSize::bytes(goal));
        let mut session = Session::new(Box::new(cache), access, goal).expect("a session");
        let refused = names.iter().filter(|name| said(session.remove(name, false)) != "()").count();
        for name in back {
            session.restore(name).expect("it is staged");
        }
        (refused, plan(session).map(|plan| plan.removals().count()).map_err(|error| error.to_string()))
    }

    let first = &["docker.io/acme/a:1"];
    for caps in ["max-removals = 2", "max-bytes = \"200B\"", "max-share = \"50%\""] {
        assert_eq!(staged(caps, 200, [100; 4], &[]), (0, Ok(2)), "{caps}");
        assert_eq!(staged(caps, 150, [100; 4], first), (0, Ok(2)), "{caps}");
        assert_eq!(staged(caps, 0, [100; 4], &[]), (0, Ok(0)), "{caps}");
        let (refused, plan) = staged(caps, 300, [100; 4], &[]);
        assert!(refused == 2 && plan.is_err(), "{caps}: {plan:?}");
    }
    // Without the first, the plan has the two after it.
    assert_eq!(staged("max-removals = 1", 200, [200, 100, 100, 100], &[]), (0, Ok(1)));
    let (refused, plan) = staged("max-removals = 1", 200, [200, 100, 100, 100], first);
    assert!(refused == 0 && plan.is_err(), "{plan:?}");
}
