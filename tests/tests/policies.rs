//! The policies decide what the tables here say: natively, and as the components that hosts run.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use disk_budget::DiskBudget;
use keep_recent::KeepRecent;
use larder::policy::{Decision, GrantDocument, Policy, PolicyRun};
use larder::snapshot::{DiskStatus, MemoryCache, MemoryImage, Origin};
use larder_guest::testing::{self, FakeCache, FakeImage};
use larder_tests::{ENGINE, component, run};
use max_age::MaxAge;

const KIB: u64 = 1024;

/// An image of a table, and what is to become of it.
#[derive(Clone, Copy)]
struct Row {
    reference: &'static str,
    created_days: i64,
    used_days: Option<i64>,
    is: Is,
    /// Name and KiB of its one layer.
    layer: (&'static str, u64),
    decision: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Is {
    Free,
    Sandboxed,
    Snapshotted,
    Pinned,
    FromArchive,
}

fn row(
    reference: &'static str,
    created_days: i64,
    used_days: impl Into<Option<i64>>,
    decision: &'static str,
) -> Row {
    Row {
        reference,
        created_days,
        used_days: used_days.into(),
        is: Is::Free,
        layer: (reference, 100),
        decision,
    }
}

impl Row {
    fn is(self, is: Is) -> Self {
        Self { is, ..self }
    }

    fn layer(self, name: &'static str, kib: u64) -> Self {
        Self { layer: (name, kib), ..self }
    }

    fn native(&self) -> FakeImage {
        let days = |days: i64| format!("{days}d");
        let image = FakeImage::new(self.reference).created(&days(self.created_days)).metadata_bytes(0);
        let image = image.layer(self.layer.0, &format!("{}KiB", self.layer.1));
        let image = match self.used_days {
            Some(used) => image.used(&days(used)),
            None => image,
        };
        match self.is {
            Is::Free => image,
            Is::Sandboxed => image.sandbox("web"),
            Is::Snapshotted => image.snapshot("base"),
            Is::Pinned => image.pinned(),
            Is::FromArchive => image.origin(larder_guest::Origin::Archive),
        }
    }

    fn in_memory(&self) -> MemoryImage {
        let ago = |days: i64| now() - TimeDelta::days(days);
        let mut image = MemoryImage::new(self.reference);
        image.layers = vec![self.layer.0.to_owned()];
        image.created_at = Some(ago(self.created_days));
        image.last_used_at = self.used_days.map(ago);
        match self.is {
            Is::Free => {}
            Is::Sandboxed => image.sandboxes = vec!["web".to_owned()],
            Is::Snapshotted => image.snapshots = vec!["base".to_owned()],
            Is::Pinned => image.pinned = true,
            Is::FromArchive => image.origin = Origin::Archive,
        }
        image
    }
}

/// The time that the SDK's fake cache counts as now.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).expect("a time")
}

/// Checks a table both ways: decisions as `remove REFERENCE: REASON` and `keep …`, in the order of the references.
fn check<P: larder_guest::Policy>(component: &str, config: &str, rows: &[Row]) {
    let expected: Vec<String> = rows
        .iter()
        .map(|row| {
            let (decision, reason) = row.decision.split_once(": ").expect("a decision and a reason");
            format!("{decision} {}: {reason}", row.reference)
        })
        .collect();
    let sorted = |mut decisions: Vec<String>| {
        decisions.sort_by_key(|line| line.split_once(' ').map(|(_, image)| image.to_owned()));
        decisions
    };
    let mut cache = FakeCache::new(rows.iter().map(Row::native));
    testing::run::<P>(config, &mut cache).expect("a native run");
    assert_eq!(sorted(cache.decisions()), expected, "natively");
    assert_eq!(sorted(run_component(component, config, rows)), expected, "as a component");
}

fn run_component(name: &str, config: &str, rows: &[Row]) -> Vec<String> {
    let bytes = std::fs::read(component(name)).expect("the component");
    let policy = run(Policy::load(&ENGINE, bytes)).expect("a policy");
    assert_eq!(run(policy.description()).expect("a description").name, name);

    let layers: BTreeMap<&str, u64> = rows.iter().map(|row| row.layer).collect();
    let cache_bytes = layers.values().map(|kib| kib * KIB).sum();
    let disk = DiskStatus { cache_bytes, capacity_bytes: 100 << 30, available_bytes: 50 << 30 };
    let mut cache = MemoryCache::new(rows.iter().map(Row::in_memory)).with_disk(disk);
    for row in rows {
        cache = cache.with_layer(row.layer.0, row.layer.1 * KIB);
    }
    let grant = GrantDocument::from_toml("[grant]\nremove = [\"**\"]\n", "grant.toml").expect("a grant");
    let policy_run =
        PolicyRun::new(now()).with_config(serde_json::from_str(config).expect("a config")).with_grant(grant);
    let plan = run(policy.evaluate(Box::new(cache), &policy_run)).expect("a plan").plan;
    let line = |entry: &larder::policy::PlanEntry| {
        let decision = if entry.decision == Decision::Remove { "remove" } else { "keep" };
        format!("{decision} {}: {}", entry.reference, entry.reason)
    };
    plan.entries.iter().map(line).collect()
}

/// `keep-recent` keeps the newest of each repository, what was used of late, and what is needed.
#[test]
fn keep_recent() {
    check::<KeepRecent>(
        "keep-recent",
        r#"{"keep": 1, "used-within": "7d"}"#,
        &[
            row(
                "docker.io/acme/a:1",
                30,
                30,
                "remove: 4th newest of docker.io/acme/a, last used 30d ago, which is longer than 7d",
            ),
            row(
                "docker.io/acme/a:2",
                20,
                5,
                "keep: 3rd newest of docker.io/acme/a, last used 5d ago, which is within 7d",
            ),
            row("docker.io/acme/a:3", 10, 10, "keep: pinned by the operator").is(Is::Pinned),
            row("docker.io/acme/a:4", 5, 5, "keep: the newest of docker.io/acme/a"),
            row("docker.io/acme/b:1", 90, 90, "keep: in use by 1 sandbox").is(Is::Sandboxed),
            row("docker.io/acme/b:2", 80, 80, "keep: the newest of docker.io/acme/b"),
        ],
    );
}

/// `max-age` goes by the last use, spares what is needed, and gives images from archives more time.
#[test]
fn max_age() {
    check::<MaxAge>(
        "max-age",
        r#"{"max-age": "7d", "archive-max-age": "30d"}"#,
        &[
            row("docker.io/acme/a:1", 90, 8, "remove: last used 8d ago, which is longer than 7d"),
            row("docker.io/acme/a:2", 90, 7, "keep: last used 7d ago, which is within 7d"),
            row(
                "docker.io/acme/a:3",
                8,
                None,
                "remove: never used and arrived 8d ago, which is longer than 7d",
            ),
            row(
                "docker.io/acme/b:1",
                90,
                20,
                "keep: loaded from an archive and last used 20d ago, which is within 30d",
            )
            .is(Is::FromArchive),
            row("docker.io/acme/b:2", 90, 90, "keep: in use by 1 snapshot").is(Is::Snapshotted),
        ],
    );
}

/// `disk-budget` removes the least recently used that frees something, judged by what is shared, and stops in time.
#[test]
fn disk_budget() {
    check::<DiskBudget>(
        "disk-budget",
        r#"{"max-bytes": "250KiB"}"#,
        &[
            row("docker.io/acme/a:1", 90, 50, "keep: in use by 1 sandbox")
                .is(Is::Sandboxed)
                .layer("base", 100),
            row(
                "docker.io/acme/b:1",
                90,
                40,
                "keep: last used 40d ago; images that stay hold all that it has",
            )
            .layer("base", 100),
            row(
                "docker.io/acme/c:1",
                90,
                30,
                "remove: last used 30d ago; frees 100KiB of the 150KiB above the budget",
            ),
            row(
                "docker.io/acme/d:1",
                90,
                20,
                "remove: last used 20d ago; frees 100KiB of the 50KiB above the budget",
            ),
            row("docker.io/acme/e:1", 90, 10, "keep: last used 10d ago; the budget is met without it"),
        ],
    );
}
