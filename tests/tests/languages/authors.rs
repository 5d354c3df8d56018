//! What authors start from.

use std::path::PathBuf;
use std::process::Command;

use larder::policy::{Policy, PolicyRun};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_kit::{Language, Project, Tools, scaffold};
use larder_tests::{ENGINE, find_component, has_all_languages, run, target};
use serde_json::{Value, json};

use crate::agreement::{document, grant, image, now};

/// A new policy builds in each language, is one that this host runs, and decides what its scenarios say: the same in
/// each.
#[test]
fn what_authors_start_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut held = image("docker.io/acme/used:1", 90, None);
    held.sandboxes.push("web".into());
    let mut pinned = image("docker.io/acme/pinned:1", 91, None);
    pinned.pinned = true;
    let cache = MemoryCache::new([
        image("docker.io/acme/app:5", 2, None),
        image("docker.io/acme/app:4", 40, Some(3)),
        image("docker.io/acme/app:3", 50, Some(31)),
        image("docker.io/acme/app:2", 60, None),
        MemoryImage::new("docker.io/acme/app:1"),
        held,
        pinned,
        image("docker.io/other/app:1", 92, None),
        image("docker.io/acme/app:future", -3, None),
        image("docker.io/acme/kept:1", 93, None),
    ]);
    let grant =
        grant("[grant]\nremove = [\"docker.io/acme/**\"]\n[guard]\nprotect = [\"docker.io/acme/kept\"]\n");
    let policy_run = PolicyRun::new(now()).with_grant(grant);
    let mut plans = Vec::new();
    for language in Language::ALL {
        // Where a policy in this language was built, another can be.
        let can_be_built =
            || has_all_languages() && find_component(&format!("keep-recent-{language}")).is_some();
        if language != Language::Rust && !can_be_built() {
            continue;
        }
        let place: PathBuf = directory.path().join(language.as_str());
        scaffold(&place, &"demo".parse().expect("a name"), language).expect("a new policy");
        let project = Project::open(&place).expect("a policy");
        let project = project.in_work_directory(target().join("guests/scaffolds").join(language.as_str()));
        let tools = Tools::in_directory(target().join("tools"));
        let built = project
            .build(&tools, &project.default_output(), &mut |_| {})
            .unwrap_or_else(|error| panic!("{language}: {error}"));
        let bytes = std::fs::read(&built.path).expect("the component");
        assert_eq!(bytes.len() as u64, built.bytes);
        let policy = run(Policy::load(&ENGINE, bytes)).unwrap_or_else(|error| panic!("{language}: {error}"));
        let decide = |config: Value| {
            run(policy.evaluate(Box::new(cache.clone()), &policy_run.clone().with_config(config)))
        };
        let error = decide(json!({"max-age": 3})).expect_err("a slip").to_string();
        assert!(
            error.contains("unknown key `max-age`: the only key is `max-age-days`"),
            "{language}: {error}"
        );
        let error = decide(json!({"max-age-days": -3})).expect_err("a slip").to_string();
        assert!(error.contains("`max-age-days`"), "{language}: {error}");
        let plan =
            decide(json!({"max-age-days": 30})).unwrap_or_else(|error| panic!("{language}: {error}")).plan;
        plans.push((language, document("demo", plan)));
    }
    let (_, first) = &plans[0];
    for reason in [
        "not used for 2d, which is within 30d",
        "not used for 3d, which is within 30d",
        "not used for 31d, which is longer than 30d",
        "neither a last use nor an arrival is recorded",
        "not used for 0d, which is within 30d",
        "in use",
        "pinned by the operator",
        "longer than 30d; kept because the grant does not let this policy remove it",
        "longer than 30d; kept because the operator protects it",
    ] {
        assert!(first.contains(&format!("{reason}\"")), "{first}");
    }
    for (language, plan) in &plans {
        assert_eq!(plan, first, "{language}");
    }
}

/// A new policy in Rust passes its native tests, too.
#[test]
fn native_tests_of_a_new_policy_in_rust() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("demo");
    scaffold(&place, &"demo".parse().expect("a name"), Language::Rust).expect("a new policy");
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--target-dir"]).arg(target().join("guests/scaffolds/native"));
    let output = cargo.current_dir(&place).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
