//! Dry runs that explain, and grants that are suggested.

use crate::harness::TestEnvironment;

fn environment() -> TestEnvironment {
    let test = TestEnvironment::fixture();
    test.policy("keep-recent");
    test.policy("max-age");
    test.write(
        "part.toml",
        "[grant]\nremove = [\"docker.io/acme/app00003:*\"]\nsecrets = true\n[guard]\nkeep = 1\n",
    );
    test
}

/// A dry run prints the decision and the reason for every image, and what would allow what was denied.
#[test]
fn explaining() {
    let test = environment();
    assert_output!(
        "policy_explain",
        test.larder("policy explain keep-recent.wasm --config keep=2 --grant part.toml"),
        test.larder("policy explain keep-recent.wasm --config keep=0"),
        test.larder("policy explain nothing.wasm"),
        test.larder("policy explain keep-recent.wasm --grant nothing.toml"),
    );
    let plan = test.larder("policy explain keep-recent.wasm --config keep=2 --grant part.toml --format json");
    assert_eq!(plan.json()["denials"].as_array().map(Vec::len), Some(22));
    assert_eq!(
        plan.json()["denials"][0]["allowed_by"],
        "`remove = [\"docker.io/acme/app00000:v1\"]` in `[grant]`"
    );
    let dry = test
        .larder("prune --policy keep-recent.wasm --config keep=2 --grant part.toml --dry-run --format json");
    assert_eq!(plan.stdout, dry.stdout, "it is the same document");
}

/// The grant that is suggested is one that a run takes, and under it the policy decides as under every right.
#[test]
fn a_suggested_grant_suffices() {
    let test = environment();
    let removals = |grant: &str| {
        let plan = test.larder(&format!(
            "prune --policy keep-recent.wasm --config keep=2 --grant {grant} --dry-run --format json"
        ));
        assert_eq!(plan.status, 0, "{plan}");
        let entries = plan.json()["entries"].as_array().expect("entries").clone();
        let removed = entries.into_iter().filter(|entry| entry["decision"] == "remove");
        removed.map(|entry| entry["reference"].as_str().expect("a reference").to_owned()).collect::<Vec<_>>()
    };
    let suggested = test.larder("policy explain keep-recent.wasm --config keep=2 --suggest-grant");
    test.write("suggested.toml", &suggested.stdout);
    test.write("everything.toml", "[grant]\nremove = [\"**\"]\n");
    assert_eq!(removals("suggested.toml"), removals("everything.toml"));
    assert_eq!(removals("suggested.toml").len(), 28);
    assert_output!(
        "suggested_grant",
        suggested,
        test.larder("policy explain max-age.wasm --config max-age=1000d --suggest-grant"),
        test.larder("policy explain keep-recent.wasm --config keep=0 --suggest-grant"),
    );
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
}

/// A grant that is given is compared with the suggested one key by key: what the policy needs more, and what it does
/// not need.
#[test]
fn a_given_grant_is_compared() {
    let test = environment();
    test.write("capped.toml", "[grant]\nremove = [\"**\"]\nmax-removals = 5\n");
    let explain = |grant: &str, more: &str| {
        test.larder(&format!(
            "policy explain keep-recent.wasm --config keep=2 --suggest-grant --grant {grant} {more}"
        ))
    };
    let suggested = explain("part.toml", "-q");
    test.write("suggested.toml", &suggested.stdout);
    assert_output!(
        "grants_compared",
        explain("part.toml", ""),
        explain("capped.toml", ""),
        explain("suggested.toml", ""),
    );
    let json = explain("part.toml", "--format json").json();
    assert!(json["diff"].as_array().expect("a diff").contains(&"-secrets = true".into()), "{json}");
    assert_eq!(json["toml"], suggested.stdout);
    assert_eq!(json["plan"]["report"]["image_refs_removed"], 28);
}
