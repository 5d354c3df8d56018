//! The smallest grant for a policy.

use chrono::{DateTime, TimeDelta, Utc};
use larder::pattern::ReferencePattern;
use larder::policy::{
    ByteSize, Grant, GrantDocument, GrantSuggestion, Policy, PolicyError, PolicyRun, Right,
};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_tests::{ENGINE, guest, run};

const NOW: DateTime<Utc> = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");

/// Two images of `acme/app`, the older one in use, one of `acme/tool`, pinned, and one of somebody else; each has a
/// layer of 100 bytes of its own.
fn cache() -> MemoryCache {
    let mut old = image("docker.io/acme/app:1", 20);
    old.sandboxes = vec!["web".to_owned()];
    let mut tool = image("docker.io/acme/tool:1", 5);
    tool.pinned = true;
    let images = [old, tool, image("docker.io/acme/app:2", 10), image("docker.io/other/secret:1", 30)];
    let names = images.clone().map(|image| image.reference);
    names.into_iter().fold(MemoryCache::new(images), |cache, layer| cache.with_layer(layer, 100))
}

fn image(reference: &str, age_days: i64) -> MemoryImage {
    let mut image = MemoryImage::new(reference);
    image.created_at = NOW.checked_sub_signed(TimeDelta::days(age_days));
    image.layers = vec![reference.to_owned()];
    image
}

const LIST: &str = r#"(import "larder:image/images@0.2.0" "list" (func $list (param i32)))"#;
const REMOVE: &str =
    r#"(import "larder:image/images@0.2.0" "remove" (func $remove (param i32 i32 i32 i32)))"#;
const INSPECT: &str = r#"(import "larder:image/images@0.2.0" "inspect" (func $inspect (param i32 i32 i32)))"#;
const RESTORE: &str = r#"(import "larder:image/images@0.2.0" "restore" (func $restore (param i32 i32 i32)))"#;
const BUDGET: &str = r#"(import "larder:image/usage@0.2.0" "get-budget" (func $budget (param i32)))"#;
const PRUNE: &str = r#"(import "larder:image/images@0.2.0" "prune" (func $prune (param i32)))"#;

/// The newer image of `acme/app`, which nothing uses; the older one, in use; `acme/tool`, pinned; somebody else's.
const NAMES: &str = r#"
    (data (i32.const 4096) "docker.io/acme/app:2")
    (data (i32.const 4128) "docker.io/acme/app:1")
    (data (i32.const 4160) "docker.io/acme/tool:1")
    (data (i32.const 4192) "docker.io/other/secret:1")"#;
const REMOVE_NEW: &str = "(call $remove (i32.const 4096) (i32.const 20) (i32.const 0) (i32.const 8192))";
const FORCE_NEW: &str = "(call $remove (i32.const 4096) (i32.const 20) (i32.const 1) (i32.const 8192))";
const FORCE_OLD: &str = "(call $remove (i32.const 4128) (i32.const 20) (i32.const 1) (i32.const 8192))";
const RESTORE_NEW: &str = "(call $restore (i32.const 4096) (i32.const 20) (i32.const 8192))";
const REMOVE_OTHER: &str = "(call $remove (i32.const 4192) (i32.const 24) (i32.const 0) (i32.const 8192))";
const REMOVE_TOOL: &str = "(call $remove (i32.const 4160) (i32.const 21) (i32.const 0) (i32.const 8192))";
const INSPECT_OTHER: &str = "(call $inspect (i32.const 4192) (i32.const 24) (i32.const 8192))";
/// Gives up where the last call failed: its result begins with whether it did.
const OR_FAIL: &str = "(if (i32.load8_u (i32.const 8192)) (then (global.set $fails (i32.const 1)) (return)))";

fn suggest(
    evaluate: &str,
    policy_run: &PolicyRun,
    cache: MemoryCache,
) -> Result<GrantSuggestion, PolicyError> {
    let fields = format!(
        "{LIST} {REMOVE} {RESTORE} {INSPECT} {PRUNE} {BUDGET} {NAMES} (func $on_evaluate {evaluate})"
    );
    run(async {
        let policy = Policy::load(&ENGINE, guest(&fields)).await.expect("a policy");
        policy.suggest_grant(Box::new(cache), policy_run).await
    })
}

/// The suggestion for a policy over the tests' cache, its lists as texts.
fn grant_for(evaluate: &str) -> Grant {
    suggest(evaluate, &PolicyRun::new(NOW), cache()).expect("a suggestion").document.grant
}

fn texts(patterns: &[ReferencePattern]) -> Vec<&str> {
    patterns.iter().map(ReferencePattern::as_str).collect()
}

/// A policy that removes one image sees and removes its repository, at most as much as it did, and has no switch. One run
/// finds that out, and one confirms it.
#[test]
fn a_removal_needs_its_repository() {
    let suggestion = suggest(REMOVE_NEW, &PolicyRun::new(NOW), cache()).expect("a suggestion");
    let app = vec!["docker.io/acme/app:*".parse().expect("a pattern")];
    let expected = Grant::default()
        .with_read(app.clone())
        .with_remove(app)
        .with_max_removals(1)
        .with_max_bytes(ByteSize::bytes(100));
    assert_eq!(suggestion.document, GrantDocument::default().with_grant(expected));
    let seen: Vec<_> =
        suggestion.evaluation.plan.entries.iter().map(|entry| entry.reference.as_str()).collect();
    assert_eq!(seen, ["docker.io/acme/app:2", "docker.io/acme/app:1"]);
    assert_eq!(suggestion.unrestricted.plan.entries.len(), 4);
    assert_eq!(suggestion.runs, 2);
}

/// A policy that changes nothing needs no right at all, and gets no cap that would mean nothing.
#[test]
fn nothing_needs_nothing() {
    assert_eq!(grant_for(""), Grant::default().with_read(Vec::new()));
    let listing = "(call $list (i32.const 8192))";
    assert_eq!(grant_for(listing), Grant::default().with_read(Vec::new()), "what it saw changed nothing");
}

/// What a policy inspects is suggested, whatever it makes of it, and nothing more.
#[test]
fn what_is_inspected() {
    let other = || vec!["docker.io/other/secret:*".parse().expect("a pattern")];
    let expected = Grant::default().with_read(other()).with_inspect(other());
    assert_eq!(grant_for(INSPECT_OTHER), expected);
}

/// Force is suggested where an image in use goes, and not where it was asked for without need.
#[test]
fn force() {
    assert!(!grant_for(FORCE_NEW).force);
    assert!(grant_for(FORCE_OLD).force);
}

/// Pruning is suggested where the policy prunes, with the repositories of what that removes.
#[test]
fn prune() {
    let grant = grant_for("(call $prune (i32.const 8192))");
    assert_eq!((grant.prune, grant.max_removals), (true, Some(2)));
    assert_eq!(texts(&grant.remove), ["docker.io/acme/app:*", "docker.io/other/secret:*"]);
    assert!(
        !grant_for(&format!("{REMOVE_NEW} (call $inspect (i32.const 0) (i32.const 0) (i32.const 8192))"))
            .prune
    );
}

/// What a policy reads of images is suggested where it decides otherwise without, secrets only where it looks at them.
#[test]
fn inspect_and_secrets() {
    let grant = grant_for(&format!("{INSPECT_OTHER} {OR_FAIL} {REMOVE_NEW}"));
    assert_eq!((texts(&grant.inspect), grant.secrets), (vec!["docker.io/other/secret:*"], false));
    assert_eq!(texts(&grant.read), ["docker.io/acme/app:*", "docker.io/other/secret:*"]);
    assert_eq!(texts(&grant.remove), ["docker.io/acme/app:*"]);

    // Whether there are environment variables is 172 bytes into a detail, which begins 8 bytes into the result.
    let without_env =
        "(if (i32.eqz (i32.load8_u (i32.const 8372))) (then (global.set $fails (i32.const 1)) (return)))";
    let mut image = MemoryImage::new("docker.io/other/secret:1");
    image.env = vec!["TOKEN=x".to_owned()];
    let cache = MemoryCache::new([image]);
    let looking =
        |evaluate: &str| suggest(evaluate, &PolicyRun::new(NOW), cache.clone()).expect("a suggestion");
    let suggestion = looking(&format!("{INSPECT_OTHER} {OR_FAIL} {without_env}"));
    let grant = suggestion.document.grant;
    assert!(grant.secrets && grant.remove.is_empty() && grant.max_removals.is_none(), "{grant:?}");
    assert_eq!(suggestion.runs, 3, "without them first");
    assert!(!looking(INSPECT_OTHER).document.grant.secrets, "they were shown, and changed nothing");
}

/// A policy that decides otherwise where it sees only what goes gets all that it was shown.
#[test]
fn what_has_to_be_seen() {
    // At least so many images, or it fails: the length of a list is 8 bytes into its result.
    let at_least = |images: u32| {
        format!(
            "(call $list (i32.const 8192))
             (if (i32.lt_u (i32.load (i32.const 8200)) (i32.const {images})) (then (global.set $fails (i32.const 1)) (return))) {REMOVE_NEW}"
        )
    };
    assert_eq!(texts(&grant_for(&at_least(2)).read), ["docker.io/acme/app:*"]);
    let suggestion = suggest(&at_least(3), &PolicyRun::new(NOW), cache()).expect("a suggestion");
    let grant = suggestion.document.grant;
    assert_eq!((texts(&grant.read), texts(&grant.remove)), (vec!["**"], vec!["docker.io/acme/app:*"]));
    assert_eq!((grant.max_removals, suggestion.runs), (Some(1), 3));
    // The other image is asked for by its name alone, and has to be there.
    let asking = format!("{REMOVE_OTHER} {OR_FAIL} {REMOVE_NEW} {OR_FAIL} {RESTORE_NEW} {OR_FAIL}");
    let grant = grant_for(&asking);
    let both = vec!["docker.io/acme/app:*", "docker.io/other/secret:*"];
    assert_eq!((texts(&grant.read), texts(&grant.remove)), (both.clone(), both));
    assert_eq!((grant.max_removals, grant.max_bytes), (Some(2), Some(ByteSize::bytes(200))));
}

/// A policy that decides by what remains of its caps gets none.
#[test]
fn caps_that_are_missed() {
    // Of the budget: whether there is a cap on removals.
    let without_caps = "(call $budget (i32.const 8192))
        (if (i32.load8_u (i32.const 8192)) (then (global.set $fails (i32.const 1)) (return)))";
    let suggestion = suggest(&format!("{without_caps} {REMOVE_NEW}"), &PolicyRun::new(NOW), cache())
        .expect("a suggestion");
    let grant = suggestion.document.grant;
    assert_eq!((grant.max_removals, grant.max_bytes), (None, None));
    assert_eq!(texts(&grant.remove), ["docker.io/acme/app:*"]);
}

/// What a goal leaves was staged all the same: the caps leave room for it.
#[test]
fn goals() {
    let run = PolicyRun::new(NOW).with_goal(ByteSize::bytes(50));
    let suggestion = suggest(&format!("{REMOVE_OTHER} {REMOVE_NEW}"), &run, cache()).expect("a suggestion");
    let grant = suggestion.document.grant;
    assert_eq!((suggestion.evaluation.plan.removals().count(), suggestion.runs), (1, 2));
    assert_eq!((texts(&grant.remove), grant.max_removals), (vec!["docker.io/other/secret:*"], Some(2)));
}

/// The guard holds while grants are tried, and what it kept needs no grant; neither do caps and lists of before count.
#[test]
fn guard_and_limits_stay() {
    let before: GrantDocument =
        "[grant]\nread = []\nmax-removals = 0\n[guard]\nprotect = [\"**:2\"]\n[limits]\nhost-calls = 7"
            .parse()
            .expect("a grant");
    let run = PolicyRun::new(NOW).with_grant(before.clone());
    let suggestion = suggest(&format!("{REMOVE_NEW} {REMOVE_TOOL} {FORCE_OLD}"), &run, cache());
    let suggestion = suggestion.expect("a suggestion");
    let GrantDocument { grant, guard, limits } = suggestion.document;
    assert_eq!((guard, limits), (before.guard, before.limits));
    assert_eq!(
        (texts(&grant.read), texts(&grant.remove)),
        (vec!["docker.io/acme/app:*"], vec!["docker.io/acme/app:*"])
    );
    let denied: Vec<_> = suggestion.evaluation.plan.denials.iter().map(|denial| denial.right).collect();
    assert_eq!(denied, [Right::Protected, Right::Read]);
}

/// Where the policy fails with every right, there is nothing to suggest, and its error says why.
#[test]
fn failures_are_passed_on() {
    let error = suggest("(global.set $fails (i32.const 1)) (return)", &PolicyRun::new(NOW), cache())
        .expect_err("no suggestion");
    assert_eq!(error.to_string(), "the policy failed: no");
}
