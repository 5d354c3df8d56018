//! What becomes of images, and what the versions say of themselves.

use chrono::{DateTime, Utc};
use larder::policy::{ByteSize, Policy, PolicyRun};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_tests::{Home, run};
use serde_json::{Value, json};

use crate::agreement::{REMOVE_ALL, ago, agreed, difference, document, grant, image, now, policies};

/// The home that microsandbox made gets the same plan from all five, whatever the config.
#[test]
fn the_same_home() {
    let home = Home::fixture();
    let policies = policies();
    run(async {
        let local = home.open().await;
        for config in [json!({}), json!({"keep": 1}), json!({"keep": 0, "used-within": "1h30m"})] {
            let now: DateTime<Utc> = larder_tests::FIXTURE_NOW.parse().expect("a time");
            let run = PolicyRun::new(now).with_config(config).with_grant(grant(REMOVE_ALL));
            let mut plans = Vec::new();
            for (name, policy) in policies {
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
        // Pulled again: as young as its content.
        image("docker.io/acme/nightly:1", 300, Some(200)).with_arrived_at(ago(3_600)),
        image("docker.io/acme/nightly:2", 2, Some(2)),
        image("docker.io/acme/nightly:3", 301, Some(201)).with_arrived_at(ago(90_000)),
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
            "keep docker.io/acme/nightly:2 3rd newest of docker.io/acme/nightly, last used 2d ago, which is within 7d",
            "keep docker.io/acme/app:4 3rd newest of docker.io/acme/app, never used and arrived 3d ago, which is within 7d",
            "keep docker.io/acme/app:3 4th newest of docker.io/acme/app, last used 7d ago, which is within 7d",
            "remove docker.io/acme/app:2 5th newest of docker.io/acme/app, last used 8d ago, which is longer than 7d",
            "keep docker.io/other/app:1 the newest of docker.io/other/app",
            "keep docker.io/other/app:2 2nd newest of docker.io/other/app, never used and arrived 43d ago, which is longer \
             than 7d; kept because the grant does not let this policy remove it",
            "keep docker.io/acme/nightly:1 the newest of docker.io/acme/nightly",
            "keep docker.io/acme/nightly:3 2nd newest of docker.io/acme/nightly, arrived 1d1h ago, which is within 7d",
            "keep docker.io/acme/app:0 its arrival is not recorded, so its place in docker.io/acme/app is unknown",
        ]
    );
}

/// A run with a goal removes what arrived first, the same in all five.
#[test]
fn goals() {
    let images = (1..=9).map(|n| {
        let mut image = image(&format!("docker.io/acme/app:{n}"), n, None);
        image.layers = vec![format!("own{n}")];
        image
    });
    let cache =
        (1..=9).fold(MemoryCache::new(images), |cache, n| cache.with_layer(format!("own{n}"), 10_000));
    let run = PolicyRun::new(now()).with_config(json!({"keep": 1})).with_grant(grant(REMOVE_ALL));
    let plan = agreed(&cache, &run.with_goal(ByteSize::bytes(25_000))).expect("a plan");
    let plan: Value = serde_json::from_str(&plan).expect("a document");
    let entries = plan["entries"].as_array().expect("entries").iter();
    let removed =
        entries.filter(|entry| entry["decision"] == "remove").map(|entry| entry["reference"].as_str());
    let expected = [7, 8, 9].map(|n| format!("docker.io/acme/app:{n}"));
    assert!(removed.eq(expected.iter().map(|name| Some(name.as_str()))));
}

/// More images than a page has are read in pages, each once.
#[test]
fn more_images_than_a_page() {
    let images = (0..2_500).map(|n| image(&format!("docker.io/acme/app{}:v{n}", n % 300), n % 97, None));
    let run = PolicyRun::new(now()).with_config(json!({"keep": 4})).with_grant(grant(REMOVE_ALL));
    let plan = agreed(&MemoryCache::new(images), &run).expect("a plan");
    assert_eq!(plan.matches("\"decision\": \"remove\"").count(), 1_300);
}

/// All five say the same of themselves but for the name, and have the same schema.
#[test]
fn descriptions() {
    let described = |(name, policy): &(String, Policy)| {
        let description = run(policy.description()).expect("a description");
        assert_eq!(&description.name, name);
        (description.version.clone(), description.summary.clone(), description.config_schema.clone())
    };
    let first = described(&policies()[0]);
    for other in &policies()[1..] {
        assert_eq!(described(other), first, "{}", other.0);
    }
}
