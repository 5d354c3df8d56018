//! Policies at the command line: plans made, read, applied and explained, and every way in which there is none.

use std::fs;

use crate::harness::TestEnvironment;

const GRANT: &str = "[grant]\nremove = [\"docker.io/acme/**\"]\n";

/// The fixture with the policy and a grant beside it.
fn environment() -> TestEnvironment {
    let test = TestEnvironment::fixture();
    test.policy("keep-recent");
    test.write("grant.toml", GRANT);
    test
}

/// A dry run shows every decision with its reason; the plan that is written is what a dry run prints.
#[test]
fn dry_runs() {
    let test = environment();
    const PRUNE: &str = "prune --policy keep-recent.wasm --config keep=2 --grant grant.toml";
    assert_output!("policy_dry_run", test.larder(&format!("{PRUNE} --dry-run")));
    let printed = test.larder(&format!("{PRUNE} --dry-run --format json"));
    assert_eq!((printed.status, printed.stderr.as_str()), (0, ""));
    test.larder(&format!("{PRUNE} --plan plan.json"));
    assert_eq!(printed.stdout, test.read_as_said("plan.json"));
    assert_eq!(test.home.count("SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder_%'"), 0);
}

/// A plan is applied as it was read, once; afterwards each decision can be explained.
#[test]
fn plan_apply_explain() {
    let test = environment();
    let planned =
        test.larder("prune --policy keep-recent.wasm --config keep=2 --grant grant.toml --plan plan.json -q");
    assert_eq!(planned.status, 0, "{planned}");
    assert_output!(
        "apply",
        test.larder("apply plan.json"),
        test.larder("apply plan.json --yes"),
        test.larder("apply plan.json --yes"),
    );
    let again = test.larder("apply plan.json --yes --format json").json();
    assert_eq!(again["gone"].as_array().map(Vec::len), Some(28));
    assert_output!(
        "explain",
        test.larder("history"),
        test.larder("history --format json"),
        test.larder("explain acme/app00004:v1"),
        test.larder("explain acme/app00004:v7"),
        test.larder("explain acme/app00000:v0"),
        test.larder("explain acme/app00004:v1 --format json"),
        test.larder("explain nope"),
        test.larder("explain a//b"),
    );
}

/// Without any run there is no history, and an image is explained by what needs it.
#[test]
fn no_history() {
    let test = TestEnvironment::fixture();
    assert_output!(
        "no_history",
        test.larder("history"),
        test.larder("history --format json"),
        test.larder("history many"),
        test.larder("history 0"),
        test.larder("explain acme/app00000:v0"),
        test.larder("explain acme/app00004:v7 --format json"),
    );
}

/// How an image was used is told, even if microsandbox has removed it.
#[test]
fn uses_are_explained() {
    let test = TestEnvironment::fixture();
    test.home.execute(
        "INSERT INTO run (sandbox_id, status, started_at) VALUES
             (1, 'Stopped', '2026-11-14 10:10:00'), (2, 'Stopped', '2026-11-21 10:40:05')",
    );
    let before = test.larder("explain acme/app00000:v0");
    test.larder("pin acme/app00004:v7");
    test.home.execute(
        "UPDATE larder_image SET pull_ms = 12000, pull_bytes = 80 * 1048576;
         INSERT INTO larder_use (day, image_id, kind, hours, latest) SELECT 20773, id, 3, 1, 60 FROM larder_image;
         INSERT INTO larder_use (day, image_id, kind, hours, latest) SELECT 20774, id, 5, 1, 60 FROM larder_image;
         DELETE FROM sandbox WHERE id IN (1, 2);
         DELETE FROM image_ref WHERE id = 1;
         DELETE FROM manifest WHERE id = 1",
    );
    let (after, json) = (test.larder("explain acme/app00000:v0"), "explain acme/app00000:v0 --format json");
    assert_output!("uses", before, after, test.larder(json));
}

/// An image that changed since the plan was made is spared, and the status says so.
#[test]
fn what_changed_is_spared() {
    let test = environment();
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/app00003:v*\"]\n");
    test.larder("prune --policy keep-recent.wasm --config keep=5 --grant grant.toml --plan plan.json");
    fs::copy(test.directory().join("plan.json"), test.directory().join("copy.json")).expect("a copy");
    test.larder("pin acme/app00003:v1");
    test.home.execute(
        "UPDATE image_ref SET manifest_id = (SELECT manifest_id FROM image_ref WHERE reference = 'docker.io/acme/app00004:v7')
          WHERE reference = 'docker.io/acme/app00003:v0'",
    );
    assert_output!("spared", test.larder("apply plan.json --yes"), test.larder("explain acme/app00003:v1"),);
    let again = test.larder("apply copy.json --yes --format json");
    assert_eq!(again.status, 7);
    let count = |key: &str| again.json()[key].as_array().map(Vec::len);
    assert_eq!(
        [count("removed"), count("spared"), count("gone"), count("kept")],
        [Some(0), Some(2), Some(1), Some(38)]
    );
}

/// A policy may do what its grant says: what it was denied is told, with what would allow it.
#[test]
fn grants() {
    let test = environment();
    test.write("part.toml", "[grant]\nremove = [\"docker.io/acme/app00003:*\"]\n");
    test.write("none.toml", "[grant]\n");
    test.write("misspelt.toml", "[grant]\nremoves = [\"**\"]\n");
    test.write("pattern.toml", "[grant]\nremove = [\"docker.io/[ab]\"]\n");
    let prune = |more: &str| test.larder(&format!("prune --policy keep-recent.wasm --config keep=2 {more}"));
    assert_output!(
        "grants",
        prune("--yes --grant none.toml"),
        prune("--yes --grant none.toml --format json"),
        prune("--yes --grant misspelt.toml"),
        prune("--yes --grant pattern.toml"),
        prune("--yes --grant nothing.toml"),
    );
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
    assert_output!("grant_in_part", prune("--yes --grant part.toml"));
}

/// Without a grant, a dry run shows what the policy would remove if everything was granted, and says how to write a grant; anything
/// else is refused before the policy runs. What was shown cannot be applied.
#[test]
fn without_a_grant() {
    let test = environment();
    test.write("everything.toml", "[grant]\nremove = [\"**\"]\n");
    let prune = |more: &str| test.larder(&format!("prune --policy keep-recent.wasm --config keep=2 {more}"));
    let preview = prune("--dry-run --format json");
    test.write("preview.json", &preview.stdout);
    assert_output!(
        "no_grant",
        prune("--dry-run"),
        prune("--plan plan.json"),
        prune("--yes"),
        prune("--yes --format json"),
        prune(""),
        test.larder("prune --yes --policy ./nothing"),
        test.larder("apply preview.json --yes"),
        test.larder(&format!("prune --yes --policy keep-recent.wasm --config {}.toml", "long-".repeat(12))),
    );
    assert_eq!((preview.status, preview.stderr.as_str()), (0, ""));
    let explained = test.larder("policy explain ./keep-recent.wasm --config keep=2 --config used-within=30d");
    let suggest =
        "`larder policy explain ./keep-recent.wasm --config keep=2 --config used-within=30d --suggest-grant`";
    assert!(explained.status == 0 && explained.stderr.contains(suggest), "{explained}");
    assert_eq!(test.larder("policy explain keep-recent.wasm -q").stderr, "");
    let (mut preview, mut granted) =
        (preview.json(), prune("--dry-run --format json --grant everything.toml").json());
    assert!(preview.get("grant").is_none(), "{preview}");
    for plan in [&mut preview, &mut granted] {
        plan.as_object_mut().expect("a plan").remove("grant");
    }
    assert_eq!(preview, granted);
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
    assert!(!test.directory().join("plan.json").exists());
}

/// A preview that the guard leaves nothing of is one all the same.
#[test]
fn previews_are_guarded() {
    let test = environment();
    let images: Vec<_> = (0..40).map(|image| format!("acme/app{:05}:v{}", image / 8, image % 8)).collect();
    assert_eq!(test.larder(&format!("pin {}", images.join(" "))).status, 0);
    let preview = test.larder("prune --policy keep-recent.wasm --config keep=2 --dry-run");
    assert_eq!(preview.status, 0, "{preview}");
    assert!(preview.stdout.ends_with("nothing to remove; 41 images stay\n"), "{preview}");
}

/// A cap that the policy goes past refuses the whole plan, and the status says that the grant did.
#[test]
fn caps() {
    let test = environment();
    test.write("capped.toml", format!("{GRANT}max-removals = 5\n"));
    let refused = test.larder("prune --policy keep-recent.wasm --config keep=2 --grant capped.toml --yes");
    assert_eq!(refused.status, 6, "{refused}");
    assert!(refused.stderr.contains("`max-removals` is 5"), "{refused}");
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
}

/// What is no policy, and a policy that fails or breaks a limit, changes nothing and says why.
#[test]
fn no_policy() {
    let test = environment();
    test.write("text.wasm", "hello");
    test.write("module.wasm", b"\0asm\x01\0\0\0");
    test.write("empty.wasm", "");
    test.write("limits.toml", format!("{GRANT}[limits]\nhost-calls = 3\n"));
    test.write("list.json", "[1]");
    test.write("broken.toml", "keep = = 2");
    let prune = |policy: &str, more: &str| {
        test.larder(&format!("prune --yes --grant grant.toml --policy {policy}.wasm {more}"))
    };
    assert_output!(
        "no_policy",
        prune("nothing", ""),
        prune("text", ""),
        prune("module", "--format json"),
        prune("empty", ""),
        prune("keep-recent", "--config keep=0"),
        prune("keep-recent", "--config kep=2"),
        test.larder("prune --yes --policy keep-recent.wasm --config keep=2 --grant limits.toml"),
        prune("keep-recent", "--config list.json"),
        prune("keep-recent", "--config broken.toml"),
        prune("keep-recent", "--config nothing.json"),
    );
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
}

/// A config comes from files and single values, the later ones winning.
#[test]
fn configs() {
    let test = environment();
    test.write("config.toml", "keep = 1\nused-within = \"2d\"\n");
    let plan = test.larder(
        "prune --policy keep-recent.wasm --config config.toml --config keep=3 --grant grant.toml --dry-run --format json",
    );
    assert_eq!(plan.json()["config"], serde_json::json!({ "keep": 3, "used-within": "2d" }));
}

/// What is no plan is refused before anything is touched.
#[test]
fn no_plan() {
    let test = environment();
    test.write("newer.json", "{\"version\": 3}");
    test.write("text.json", "hello");
    test.write("unknown.json", "{\"version\": 2, \"frobs\": []}");
    assert_output!(
        "no_plan",
        test.larder("apply nothing.json --yes"),
        test.larder("apply newer.json --yes"),
        test.larder("apply text.json --yes --format json"),
        test.larder("apply unknown.json --yes"),
    );
}
