//! A policy is the same in every language: the five versions of `keep-recent` give the same plan for the same cache,
//! byte for byte but for the policy's own name and hash, and fail with the same words. And what an author starts from
//! builds, loads and decides the same in each language.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{Evaluation, GrantDocument, Plan, Policy, PolicyEngine, PolicyError, PolicyRun};
use larder::state::{MemoryCache, MemoryImage};
use larder_kit::{Language, Project, Tools, scaffold};
use larder_tests::{Home, component, run};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

const REMOVE_ALL: &str = "[grant]\nremove = [\"**\"]\n[guard]\nmin-age = \"0s\"\n";

fn engine() -> &'static PolicyEngine {
    static ENGINE: OnceLock<PolicyEngine> = OnceLock::new();
    ENGINE.get_or_init(|| PolicyEngine::new().expect("an engine"))
}

/// The five versions, Rust first, each by its name.
fn policies() -> &'static [(String, Policy)] {
    static POLICIES: OnceLock<Vec<(String, Policy)>> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let name = |language: Language| match language {
            Language::Rust => "keep-recent".to_owned(),
            other => format!("keep-recent-{other}"),
        };
        let load = |name: String| {
            let bytes = std::fs::read(component(&name)).expect("the component");
            let policy = Policy::load(engine(), &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, policy)
        };
        Language::ALL.map(name).map(load).into()
    })
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 500).expect("a time")
}

fn ago(seconds: i64) -> DateTime<Utc> {
    now() - TimeDelta::seconds(seconds)
}

fn grant(text: &str) -> GrantDocument {
    GrantDocument::from_toml(text, "grant.toml").expect("a grant")
}

/// What a run came to, less what tells the versions apart.
fn outcome(name: &str, result: Result<Evaluation, PolicyError>) -> Result<String, String> {
    let plan =
        result.map(|evaluation| evaluation.plan).map_err(|error| error.to_string().replace(name, "NAME"))?;
    Ok(document(name, plan))
}

fn document(name: &str, mut plan: Plan) -> String {
    let policy = plan.policy.as_mut().expect("a policy");
    assert_eq!((policy.name.as_str(), policy.version.as_str()), (name, "0.1.0"));
    policy.name = "NAME".to_owned();
    policy.hash = "HASH".to_owned();
    serde_json::to_string_pretty(&plan).expect("a document")
}

/// Runs all five on a cache, and gives what they agree on.
fn agreed(cache: &MemoryCache, run: &PolicyRun) -> Result<String, String> {
    let mut outcomes = policies().iter().map(|(name, policy)| {
        let result = policy.evaluate(Box::new(cache.clone()), run);
        (name, outcome(name, result))
    });
    let (_, first) = outcomes.next().expect("the one in Rust");
    for (name, other) in outcomes {
        assert!(other == first, "`{name}` with {}: {}", run.config(), difference(&other, &first));
    }
    first
}

/// Where two outcomes part: plans are too long to be shown whole.
fn difference(one: &Result<String, String>, other: &Result<String, String>) -> String {
    let text = |outcome: &Result<String, String>| {
        outcome.as_ref().map_or_else(|error| format!("error: {error}"), String::clone)
    };
    let (one, other) = (text(one), text(other));
    let parted = one.lines().zip(other.lines()).find(|(a, b)| a != b);
    parted.map_or_else(|| "one ends before the other".to_owned(), |(a, b)| format!("{a}\n instead of {b}"))
}

fn image(reference: &str, created_days: i64, used_days: Option<i64>) -> MemoryImage {
    let mut image = MemoryImage::new(reference);
    image.created_at = Some(ago(created_days * 86_400));
    image.last_used_at = used_days.map(|days| ago(days * 86_400));
    image
}

/// The home that microsandbox made gets the same plan from all five, whatever the config.
#[test]
fn the_same_home() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        for config in [json!({}), json!({"keep": 1}), json!({"keep": 0, "used-within": "1h30m"})] {
            let now: DateTime<Utc> = larder_tests::FIXTURE_NOW.parse().expect("a time");
            let run = PolicyRun::new(now).with_config(config).with_grant(grant(REMOVE_ALL));
            let mut plans = Vec::new();
            for (name, policy) in policies() {
                let result = local.plan_policy(policy, &run).await;
                plans.push(document(name, result.expect("a plan").plan));
            }
            assert!(plans[0].contains("sandbox") && plans[0].matches("\"reference\"").count() >= 41);
            for plan in &plans[1..] {
                assert!(*plan == plans[0], "{}", difference(&Ok(plan.clone()), &Ok(plans[0].clone())));
            }
        }
    });
}

/// One cache has everything that can become of an image: the five say the same of each, and what they say is what the
/// policy's page promises.
#[test]
fn every_kind_of_decision() {
    let mut held = image("docker.io/acme/app:6", 1, None);
    held.sandboxes = vec!["web".into(), "job".into()];
    held.snapshots = vec!["before".into()];
    let mut pinned = image("docker.io/acme/app:5", 2, None);
    pinned.pinned = true;
    let undated = MemoryImage::new("docker.io/acme/app:0");
    let cache = MemoryCache::new([
        held,
        pinned,
        image("docker.io/acme/app:4", 3, None),
        image("docker.io/acme/app:3", 40, Some(7)),
        image("docker.io/acme/app:2", 41, Some(8)),
        image("docker.io/other/app:1", 42, Some(-1)),
        image("docker.io/other/app:2", 43, None),
        undated,
    ]);
    let config = json!({"keep": 1, "used-within": "1w"});
    let grant = grant("[grant]\nremove = [\"docker.io/acme/**\"]\n");
    let run = PolicyRun::new(now()).with_config(config).with_grant(grant);
    let plan: Value = serde_json::from_str(&agreed(&cache, &run).expect("a plan")).expect("a document");
    let decisions: Vec<String> = plan["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| {
            ["decision", "reference", "reason"].map(|key| entry[key].as_str().unwrap_or("?")).join(" ")
        })
        .collect();
    assert_eq!(
        decisions,
        [
            "keep docker.io/acme/app:6 in use by 2 sandboxes and 1 snapshot",
            "keep docker.io/acme/app:5 pinned by the operator",
            "keep docker.io/acme/app:4 3rd newest of docker.io/acme/app, never used and created 3d ago, which is within 7d",
            "keep docker.io/acme/app:3 4th newest of docker.io/acme/app, last used 7d ago, which is within 7d",
            "remove docker.io/acme/app:2 5th newest of docker.io/acme/app, last used 8d ago, which is longer than 7d",
            "keep docker.io/other/app:1 the newest of docker.io/other/app",
            "keep docker.io/other/app:2 2nd newest of docker.io/other/app, never used and created 43d ago, which is longer \
             than 7d; kept because docker.io/other/app:2: the grant does not let this policy remove it",
            "keep docker.io/acme/app:0 has no creation date, so its place in docker.io/acme/app is unknown",
        ]
    );
}

/// Texts that are references in any spelling, and texts that are none.
const REFERENCES: [&str; 30] = [
    "python",
    "python:3.12",
    "docker.io/python:3.13",
    "docker.io/library/python:3.14",
    "index.docker.io/library/python:3.11",
    "index.docker.io/python@sha256:00ff",
    "acme/app:1",
    "acme/app:2",
    "docker.io/acme/app:3",
    "docker.io/acme/app:4",
    "docker.io/acme/app:5",
    "docker.io/acme/app:11",
    "docker.io/acme/app@sha256:aa",
    "docker.io/acme/app:6@sha256:bb",
    "localhost/app:1",
    "localhost/app:2",
    "localhost:5000/app",
    "localhost:5000/app:1",
    "quay.io/a/b/c:1",
    "quay.io/a/b/c:2",
    "quay.io/a/b/c@sha256:cc:dd",
    "Not A Reference",
    "/",
    "//::@@",
    "@",
    "a/",
    "é:1",
    "\u{fffd}/ä:1",
    "\u{1f4e6}/ä:1",
    "docker.io//x",
];

/// Images that have no name yet.
fn images() -> impl Strategy<Value = MemoryImage> {
    // Few instants, so that many images share one; ahead of now, too, and not on whole seconds.
    let instant = || {
        let few = [-90_000, 0, 1, 3_599, 86_400, 604_800, 31_536_000_i64];
        let seconds = prop_oneof![7 => proptest::sample::select(few.to_vec()), 1 => 0..10_000_000_i64];
        let exact = (seconds, prop_oneof![Just(0_i64), Just(499), Just(500), Just(501)])
            .prop_map(|(seconds, nanoseconds)| ago(seconds) - TimeDelta::nanoseconds(nanoseconds));
        proptest::option::weighted(0.85, exact)
    };
    let names = || {
        let name = prop_oneof![Just("web"), Just("job"), Just("")].prop_map(str::to_owned);
        prop_oneof![6 => Just(Vec::new()), 1 => proptest::collection::vec(name, 0..3)]
    };
    let parts = (instant(), instant(), names(), names(), 0..10_u8);
    parts.prop_map(|(created, used, sandboxes, snapshots, number)| {
        let mut image = MemoryImage::new("");
        image.created_at = created;
        image.last_used_at = used;
        image.sandboxes = sandboxes;
        image.snapshots = snapshots;
        image.pinned = number == 0;
        // Some are tags of one manifest, and share its layers.
        image.manifest = if number < 3 { "shared".to_owned() } else { String::new() };
        image.layers = vec!["base".to_owned(), format!("own{number}")];
        image
    })
}

fn caches() -> impl Strategy<Value = MemoryCache> {
    let chosen = proptest::sample::subsequence(REFERENCES.to_vec(), 0..=REFERENCES.len());
    (chosen, proptest::collection::vec(images(), REFERENCES.len())).prop_map(|(references, images)| {
        let images = references.into_iter().zip(images).map(|(reference, mut image)| {
            image.reference = reference.to_owned();
            if image.manifest.is_empty() {
                image.manifest = reference.to_owned();
            }
            image
        });
        let cache = MemoryCache::new(images).with_layer("base", 8192);
        (0..10).fold(cache, |cache, n| cache.with_layer(format!("own{n}"), 4096 * (n + 1)))
    })
}

fn configs() -> impl Strategy<Value = Value> {
    let keep = proptest::option::weighted(
        0.8,
        prop_oneof![Just(1_u32), Just(1), Just(2), Just(11), Just(u32::MAX), 0..4_u32],
    );
    let ages = ["0s", "1s", "1h", "59m59s", "1d", "7d", "1w", "1w1s", "52w", "3650d"];
    let within = proptest::option::of(proptest::sample::select(ages.to_vec()));
    (keep, within).prop_map(|(keep, within)| {
        let mut config = serde_json::Map::new();
        config.extend(keep.map(|keep| ("keep".to_owned(), keep.into())));
        config.extend(within.map(|within| ("used-within".to_owned(), within.into())));
        config.into()
    })
}

fn grants() -> impl Strategy<Value = GrantDocument> {
    let texts = [
        REMOVE_ALL,
        REMOVE_ALL,
        "",
        "[grant]\nremove = [\"**\"]\n",
        "[grant]\nremove = [\"docker.io/acme/**\"]\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nread = [\"docker.io/**\"]\nremove = [\"**\"]\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nremove = [\"**\"]\n[guard]\nmin-age = \"30d\"\nprotect = [\"**/python:*\"]\n",
        "[grant]\nremove = [\"**\"]\n[guard]\nmin-age = \"0s\"\nkeep = 2\n",
        "[grant]\nremove = [\"**\"]\nmax-removals = 2\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nremove = [\"**\"]\nmax-bytes = \"20KiB\"\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nremove = [\"**\"]\nmax-share = \"10%\"\nforce = true\n[guard]\nmin-age = \"0s\"\n",
    ];
    proptest::sample::select(texts.to_vec()).prop_map(grant)
}

/// Whatever cache, config and grant: ties, missing dates and those ahead of now, pins, users, spellings, texts that are
/// no references, denials, guards and caps.
#[test]
fn any_cache_any_config_any_grant() {
    let mut random = TestRunner::deterministic();
    let strategy = (caches(), configs(), grants());
    let (mut plans, mut failures, mut removals) = (0, 0, 0);
    for _ in 0..200 {
        let (cache, config, grant) = strategy.new_tree(&mut random).expect("a case").current();
        let run = PolicyRun::new(now()).with_config(config).with_grant(grant);
        match agreed(&cache, &run) {
            Ok(plan) => {
                plans += 1;
                removals += plan.matches("\"decision\": \"remove\"").count();
            }
            Err(_) => failures += 1,
        }
    }
    // The cases are worth something: most give a plan that removes, and some break a cap or have a useless config.
    assert!(
        plans > 150 && failures > 5 && removals > 100,
        "{plans} plans, {failures} failures, {removals} removals"
    );
}

/// More images than a page has are read in pages, each once.
#[test]
fn more_images_than_a_page() {
    let images = (0..2_500).map(|n| image(&format!("docker.io/acme/app{}:v{n}", n % 300), n % 97, None));
    let run = PolicyRun::new(now()).with_config(json!({"keep": 4})).with_grant(grant(REMOVE_ALL));
    let plan = agreed(&MemoryCache::new(images), &run).expect("a plan");
    assert_eq!(plan.matches("\"decision\": \"remove\"").count(), 1_300);
}

/// Lengths of time are read and written the same, and what is none is refused with the same words.
#[test]
fn lengths_of_time() {
    let cache = MemoryCache::new([
        image("docker.io/acme/app:1", 400, Some(13)),
        image("docker.io/acme/app:2", 400, Some(12)),
        image("docker.io/acme/app:3", 399, None),
    ]);
    let decided = |within: &str| {
        let config = json!({"keep": 0, "used-within": within});
        agreed(&cache, &PolicyRun::new(now()).with_config(config).with_grant(grant(REMOVE_ALL)))
    };
    for within in
        ["12d", "1w5d23h59m59s", "007d", "0s", "90m", "1w2d", "18446744073709551615s", "30500568904943w"]
    {
        decided(within).unwrap_or_else(|error| panic!("{within}: {error}"));
    }
    let long = "9".repeat(60) + "é";
    let refused = [
        "",
        "30",
        "d",
        "-1d",
        "1.5d",
        "1d ",
        " 1d",
        "1d1d",
        "1m1h",
        "1y",
        "1dé",
        "é",
        "1d\u{1f4e6}",
        "1D",
        "1\u{0}d",
        "99999999999999999999d",
        "9999999999999999999w",
        "18446744073709551616s",
        "18446744073709551615s1s",
        "30500568904944w",
        "000000000000000000000000000000000000001x",
        "1w1w",
        "1s1",
        &long,
        "\"\\\n",
    ];
    for within in refused {
        let error = decided(within).expect_err(within);
        assert!(error.contains("config of NAME: `used-within`: `"), "{error}");
    }
}

/// A config that does not conform is refused with the same words, which name the key.
#[test]
fn refused_configs() {
    let table = [
        (json!({"keep": 0}), "`keep` is 0 and `used-within` is not set"),
        (json!({"keep": 0, "used-within": null}), "`keep` is 0 and `used-within` is not set"),
        (json!({"kep": 2}), "config of NAME: unknown key `kep`: the keys are `keep` and `used-within`"),
        (json!({"keep": "x", "zzz": 1, "aaa": [{"a": [1, {}]}]}), "unknown key `aaa`"),
        (json!({"a\"\\\n\u{e9}\u{1f4e6}": 1}), "unknown key `a\"\\ é\u{1f4e6}`"),
        (json!({"keep": -1}), "config of NAME: `keep`: invalid value: integer `-1`, expected u32"),
        (json!({"keep": 4_294_967_296_u64}), "`keep`: invalid value: integer `4294967296`, expected u32"),
        (json!({"keep": 9_007_199_254_740_993_u64}), "integer `9007199254740993`"),
        (json!({"keep": u64::MAX}), "integer `18446744073709551615`"),
        (json!({"keep": i64::MIN}), "integer `-9223372036854775808`"),
        (json!({"keep": 2.0}), "`keep`: invalid type: floating point `2.0`, expected u32"),
        (json!({"keep": 1.5}), "floating point `1.5`"),
        (json!({"keep": true}), "`keep`: invalid type: boolean `true`, expected u32"),
        (json!({"keep": null}), "`keep`: invalid type: null, expected u32"),
        (json!({"keep": [1]}), "`keep`: invalid type: sequence, expected u32"),
        (json!({"keep": {"keep": 1}}), "`keep`: invalid type: map, expected u32"),
        (json!({"keep": "2"}), "`keep`: invalid type: string \"2\", expected u32"),
        (json!({"keep": "\"\\\n\t\r\u{0}\u{1b}\u{7f}é\u{1f4e6}'/"}), "`keep`: invalid type: string "),
        (json!({"keep": 2, "used-within": 7}), "`used-within`: invalid type: integer `7`, expected a string"),
        (
            json!({"keep": 2, "used-within": 0.25}),
            "`used-within`: invalid type: floating point `0.25`, expected",
        ),
        (json!({"used-within": false}), "`used-within`: invalid type: boolean `false`, expected a string"),
        (
            json!({"keep": 2, "used-within": {"keep": 1.5}}),
            "`used-within`: invalid type: map, expected a string",
        ),
        (json!({"used-within": ["1d"]}), "`used-within`: invalid type: sequence, expected a string"),
        (json!({"keep": "x", "used-within": 7}), "`keep`: invalid type: string \"x\", expected u32"),
    ];
    let cache = MemoryCache::new([image("docker.io/acme/app:1", 1, None)]);
    for (config, expected) in table {
        let error = agreed(&cache, &PolicyRun::new(now()).with_config(config)).expect_err("an error");
        assert!(error.contains(expected), "{error}");
    }
}

/// All five say the same of themselves but for the name, and have the same schema.
#[test]
fn descriptions() {
    let described = |(name, policy): &(String, Policy)| {
        let description = policy.description().expect("a description");
        assert_eq!(&description.name, name);
        (description.version.clone(), description.summary.clone(), description.config_schema.clone())
    };
    let first = described(&policies()[0]);
    for other in &policies()[1..] {
        assert_eq!(described(other), first, "{}", other.0);
    }
}

/// The directory that everything is built in: tools and what was compiled before are used again.
fn target() -> PathBuf {
    let policies = component("keep-recent");
    policies.parent().and_then(Path::parent).expect("the target directory").to_owned()
}

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
    ]);
    let run = PolicyRun::new(now()).with_grant(grant("[grant]\nremove = [\"docker.io/acme/**\"]\n"));
    let mut plans = Vec::new();
    for language in Language::ALL {
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
        let policy = Policy::load(engine(), &bytes).unwrap_or_else(|error| panic!("{language}: {error}"));
        let decide =
            |config: Value| policy.evaluate(Box::new(cache.clone()), &run.clone().with_config(config));
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
        "never used and created 2d ago, which is within 30d",
        "last used 3d ago, which is within 30d",
        "last used 31d ago, which is longer than 30d",
        "neither a last use nor a creation is on record",
        "never used and created 0d ago, which is within 30d",
        "in use",
        "pinned by the operator",
        "longer than 30d; kept because docker.io/other/app:1: the grant does not let this policy remove it",
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
