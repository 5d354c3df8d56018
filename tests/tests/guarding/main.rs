//! What a guard keeps stays, whoever decides and however old the decision is, and what a plan was allowed to do is looked
//! at again when it is done.

mod table;

use std::fs;
use std::time::Duration;

use larder::plan::{Decision, Guard, Maker, PatternList, Plan, PlanEntry, PlanPolicy};
use larder::policy::{ByteSize, Grant, GrantDocument, Share};
use larder::{Image, ImagePruneReport, LocalBackend, MicrosandboxError};
use larder_tests::{FIXTURE_NOW, Home, run};

fn patterns(texts: &[&str]) -> Vec<larder::pattern::ReferencePattern> {
    texts.iter().map(|text| text.parse().expect("a pattern")).collect()
}

fn guard(home: &Home, text: &str) {
    fs::write(home.path().join("larder.toml"), text).expect("the guard");
}

/// A plan of a policy, under this grant, that removes these images of a home.
async fn policy_plan(local: &LocalBackend, grant: GrantDocument, removed: &[&str]) -> Plan {
    let images = local.snapshot().await.expect("a snapshot").images().expect("the images");
    let entries: Vec<PlanEntry> = images
        .iter()
        .map(|image| {
            if removed.contains(&image.handle.reference()) {
                PlanEntry::remove(&image.handle, "decided", 0, false)
            } else {
                PlanEntry::keep(&image.handle, "decided")
            }
        })
        .collect();
    let report = ImagePruneReport { image_refs_removed: removed.len() as u32, ..ImagePruneReport::default() };
    let mut plan = Plan::new(Maker::Policy, now(), entries, Vec::new(), report)
        .for_home(local.identity().await.expect("the home"));
    let hash = format!("sha256:{}", "0".repeat(64));
    plan.policy = Some(PlanPolicy { name: "made-up".to_owned(), version: "1.0.0".to_owned(), hash });
    plan.config = Some(serde_json::json!({ "keep": 2 }));
    plan.grant = Some(grant);
    plan
}

fn now() -> chrono::DateTime<chrono::Utc> {
    FIXTURE_NOW.parse().expect("a time")
}

/// May remove everything that nothing uses, however young.
fn everything() -> GrantDocument {
    GrantDocument::default()
        .with_grant(Grant::default().with_remove(patterns(&["**"])))
        .with_guard(Guard::default().with_min_age(Duration::ZERO))
}

fn spared(report: &larder::plan::PlanReport) -> Vec<(&str, &str)> {
    report.spared.iter().map(|image| (image.reference.as_str(), image.reason.as_str())).collect()
}

fn left(home: &Home, repository: &str) -> i64 {
    home.count(&format!("SELECT count(*) FROM image_ref WHERE reference LIKE '{repository}:%'"))
}

/// A prune without a policy keeps to the guard of the home and says why; a removal by name stands above it.
#[test]
fn a_prune_keeps_to_the_guard() {
    let home = Home::fixture();
    guard(&home, "[guard]\nprotect = [\"docker.io/acme/app00003\", \"docker.io/acme/gone\"]\nkeep = 2\n");
    run(async {
        let local = home.open().await;
        let plan = local.plan_prune().await.expect("a plan");
        let reason = |reference: &str| {
            let entry = plan.entries.iter().find(|entry| entry.reference == reference).expect("an entry");
            (entry.decision, entry.reason.clone())
        };
        assert_eq!(
            reason("docker.io/acme/app00003:v0"),
            (Decision::Keep, "kept by the guard: `docker.io/acme/app00003` is protected".to_owned())
        );
        assert_eq!(
            reason("docker.io/acme/app00004:v7"),
            (
                Decision::Keep,
                "kept by the guard: its repository would be left with fewer than 2 references".to_owned()
            )
        );
        assert_eq!(reason("docker.io/acme/app00004:v0"), (Decision::Remove, "nothing uses it".to_owned()));
        let unmatched: Vec<_> =
            plan.unmatched.iter().map(|pattern| (pattern.list, pattern.pattern.as_str())).collect();
        assert_eq!(unmatched, [(PatternList::Protect, "docker.io/acme/gone")]);

        Image::prune_local(&local).await.expect("a report");
        assert_eq!([left(&home, "docker.io/acme/app00003"), left(&home, "docker.io/acme/app00004")], [8, 2]);
        Image::remove_local(&local, "docker.io/acme/app00003:v0", false).await.expect("removed");
        assert_eq!(left(&home, "docker.io/acme/app00003"), 7);
    });
}

/// A guard that cannot be understood or found stops every prune and says where it is wrong; reading goes on, and so does a
/// removal by name.
#[test]
fn a_broken_guard_stops_prunes() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let before = local.plan_prune().await.expect("a plan");
        guard(&home, "[guard]\nprotct = []\n");
        let path = home.path().join("larder.toml");
        let expected = format!(
            "invalid configuration: `{}`, line 2: `protct`: no such key in `[guard]`; did you mean `protect`?; until that \
             is mended, neither a prune nor a policy removes anything",
            path.display()
        );
        let said = |result: Result<(), MicrosandboxError>| result.expect_err("refused").to_string();
        assert_eq!(said(local.plan_prune().await.map(drop)), expected);
        assert_eq!(said(local.apply(&before).await.map(drop)), expected);
        assert_eq!(said(Image::prune_local(&local).await.map(drop)), expected);
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), 41);
        assert_eq!(Image::list_local(&local).await.expect("a list").len(), 41);
        // Nor does a link to a file that is not there now say that there is no guard.
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("elsewhere.toml", &path).expect("a link");
        assert!(said(local.plan_prune().await.map(drop)).contains("is a symbolic link that leads nowhere"));
        assert!(said(local.apply(&before).await.map(drop)).contains("is a symbolic link that leads nowhere"));
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), 41);
        local.usage().await.expect("reading goes on");
        Image::remove_local(&local, "docker.io/acme/app00003:v0", false).await.expect("the operator's word");
    });
}

/// An embedder's guard adds to that of the home, and takes nothing away.
#[test]
fn a_builder_adds_to_the_guard() {
    let home = Home::fixture();
    guard(&home, "[guard]\nprotect = [\"docker.io/acme/app00003\"]\nkeep = 1\n");
    run(async {
        let more = Guard::default().with_protect(patterns(&["docker.io/acme/app00004"]));
        let local = LocalBackend::builder().home(home.path()).clock(now).guard(more);
        let local = local.build().await.expect("the home opened");
        let guard = local.guard().await.expect("a guard");
        let protect = patterns(&["docker.io/acme/app00003", "docker.io/acme/app00004"]);
        assert_eq!(guard, Guard { protect, min_age: None, keep: 1 });
        Image::prune_local(&local).await.expect("a report");
        assert_eq!(
            ["3", "4", "2"].map(|number| left(&home, &format!("docker.io/acme/app0000{number}"))),
            [8, 8, 1]
        );
    });
}

/// What arrives is young, under whichever name: a tag that is pulled again with another manifest, and one that is pulled
/// back to a manifest that was there before.
#[test]
fn an_old_tag_with_new_content_is_young() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        // The first change makes Larder's own tables.
        local.pin("docker.io/acme/app00004:v7").await.expect("pinned");
        home.execute(
            "UPDATE manifest SET created_at = '2026-11-24 11:59:00'
              WHERE id = (SELECT manifest_id FROM image_ref WHERE reference = 'docker.io/acme/app00003:v0');
             INSERT INTO larder_origin (reference, origin, recorded_at, manifest_digest)
             VALUES ('docker.io/acme/app00003:v1', 'registry', '2026-11-24 11:58:00', NULL);
             UPDATE image_ref SET updated_at = '2026-11-24 11:57:00' WHERE reference = 'docker.io/acme/app00003:v2';",
        );
        let arrived: Vec<_> = local.snapshot().await.expect("a snapshot").images().expect("the images");
        let arrived = |reference: &str| {
            let image = arrived.iter().find(|image| image.handle.reference() == reference);
            image.and_then(|image| image.arrived_at).map(|time| time.to_rfc3339())
        };
        assert_eq!(arrived("docker.io/acme/app00003:v0").as_deref(), Some("2026-11-24T11:59:00+00:00"));
        assert_eq!(arrived("docker.io/acme/app00003:v1").as_deref(), Some("2026-11-24T11:58:00+00:00"));

        guard(&home, "[guard]\nmin-age = \"1h\"\n");
        let names = ["v0", "v1", "v2", "v3"].map(|tag| format!("docker.io/acme/app00003:{tag}"));
        let plan = local.plan_prune().await.expect("a plan");
        let stays = |name: &String| {
            plan.entries.iter().any(|entry| {
                entry.reference == *name && entry.reason == "kept by the guard: it is younger than 1h"
            })
        };
        assert_eq!(names.each_ref().map(stays), [true, true, true, false]);

        // A plan that was made without looking is looked at when it is applied.
        fs::remove_file(home.path().join("larder.toml")).expect("no guard");
        let names = names.each_ref().map(String::as_str);
        let plan =
            policy_plan(&local, GrantDocument { guard: Guard::default(), ..everything() }, &names).await;
        let report = local.apply(&plan).await.expect("a report");
        assert_eq!(report.removed.len(), 1);
        assert!(spared(&report).iter().all(|(_, why)| *why == "it is younger than 1h"), "{report:?}");
    });
}

/// No repository is left with fewer references than the guard says, also where others have gone since a plan was made, and
/// the newest stay. References count in every spelling.
#[test]
fn repositories_keep_their_last_references() {
    let home = Home::fixture();
    guard(&home, "[guard]\nkeep = 3\n");
    home.execute(
        "UPDATE image_ref SET reference = 'acme/app00003:v7' WHERE reference = 'docker.io/acme/app00003:v7';
         UPDATE image_ref SET reference = 'index.docker.io/acme/app00003:v6' WHERE reference = 'docker.io/acme/app00003:v6';",
    );
    run(async {
        let local = home.open().await;
        let names: Vec<String> = (0..5).map(|tag| format!("docker.io/acme/app00003:v{tag}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = policy_plan(&local, everything(), &names).await;
        Image::remove_local(&local, "acme/app00003:v7", false).await.expect("removed");
        // Seven are left, and five of them are to go.
        let report = local.apply(&plan).await.expect("a report");
        let why = "its repository would be left with fewer than 3 references";
        assert_eq!(spared(&report), [("docker.io/acme/app00003:v4", why)]);
        assert_eq!(home.count("SELECT count(*) FROM image_ref WHERE reference LIKE '%app00003%'"), 3);
        let explained = local.explain("docker.io/acme/app00003:v4").await.expect("an explanation");
        assert_eq!(explained.decisions[0].reason, why);
    });
}

/// What a repository keeps are the last to arrive, by a prune and by a policy's plan alike: a tag whose manifest came in
/// last stays, however old the tag is.
#[test]
fn repositories_keep_the_last_to_arrive() {
    let home = Home::fixture();
    guard(&home, "[guard]\nkeep = 1\n");
    let again = "docker.io/acme/app00004:v0";
    home.execute(&format!(
        "UPDATE manifest SET created_at = '2026-11-24 11:00:00'
         WHERE id = (SELECT manifest_id FROM image_ref WHERE reference = '{again}')"
    ));
    run(async {
        let local = home.open().await;
        let plan = local.plan_prune().await.expect("a plan");
        let kept = |plan: &Plan| -> Vec<String> {
            let kept = plan.entries.iter().filter(|entry| entry.decision == Decision::Keep);
            kept.filter(|entry| entry.reference.contains("app00004"))
                .map(|entry| entry.reference.clone())
                .collect()
        };
        assert_eq!(kept(&plan), [again]);
        let names: Vec<String> = (0..8).map(|tag| format!("docker.io/acme/app00004:v{tag}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = policy_plan(&local, everything(), &names).await;
        let report = local.apply(&plan).await.expect("a report");
        assert_eq!(spared(&report), [(again, "its repository would be left without any reference")]);
    });
}

/// The guard of the home is read again in the transaction that removes: what protects an image while a plan is applied
/// counts as well.
#[test]
fn the_guard_counts_as_it_is_now() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let names = ["docker.io/acme/app00003:v0", "docker.io/acme/app00003:v1"];
        let plan = policy_plan(&local, everything(), &names).await;
        guard(&home, "[guard]\nprotect = [\"docker.io/acme/app00003:v1\"]\n");
        let report = local.apply(&plan).await.expect("a report");
        assert_eq!(spared(&report), [(names[1], "`docker.io/acme/app00003:v1` is protected")]);
        assert_eq!(report.removed.len(), 1);
        // What the plan was made under holds although the home says nothing of it any longer.
        fs::remove_file(home.path().join("larder.toml")).expect("no guard");
        let mut plan = policy_plan(&local, everything(), &names[1..]).await;
        plan.guard = Some(Guard::default().with_protect(patterns(&["docker.io/acme/app00003"])));
        let report = local.apply(&plan).await.expect("a report");
        assert_eq!(spared(&report), [(names[1], "`docker.io/acme/app00003` is protected")]);
    });
}

/// So it is in the transaction itself: what comes about after the images were chosen and claimed keeps them.
#[test]
fn the_transaction_looks_again() {
    let home = Home::fixture();
    guard(&home, "[guard]\nkeep = 2\n");
    run(async {
        let local = home.open().await;
        let names: Vec<String> = (0..6).map(|tag| format!("docker.io/acme/app00003:v{tag}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = policy_plan(&local, everything(), &names).await;
        let (path, index) = (home.path().join("larder.toml"), home.path().join("db/msb.db"));
        larder::failpoint::call_at("removal.claimed", move || {
            let guard = "[guard]\nkeep = 2\nprotect = [\"docker.io/acme/app00003:v0\"]\n";
            fs::write(path, guard).expect("another guard");
            // Another program removes what would have been left.
            let index = rusqlite::Connection::open(index).expect("the index");
            index
                .execute("DELETE FROM image_ref WHERE reference LIKE 'docker.io/acme/app00003:v7'", [])
                .expect("removed");
        });
        let report = local.apply(&plan).await.expect("a report");
        let mut spared = spared(&report);
        spared.sort_unstable();
        let why = "its repository would be left with fewer than 2 references";
        assert_eq!(
            spared,
            [(names[0], "`docker.io/acme/app00003:v0` is protected")],
            "v6 and v0 are two: {why}"
        );
        assert_eq!(left(&home, "docker.io/acme/app00003"), 2);
        let plan = policy_plan(&local, everything(), &["docker.io/acme/app00003:v6"]).await;
        fs::write(home.path().join("larder.toml"), "[guard]\nkeep = 1\n").expect("another guard");
        let index = home.path().join("db/msb.db");
        larder::failpoint::call_at("removal.claimed", move || {
            let index = rusqlite::Connection::open(index).expect("the index");
            index
                .execute("DELETE FROM image_ref WHERE reference LIKE 'docker.io/acme/app00003:v0'", [])
                .expect("removed");
        });
        let report = local.apply(&plan).await.expect("a report");
        assert_eq!(report.spared[0].reason, "its repository would be left without any reference");
        assert_eq!(left(&home, "docker.io/acme/app00003"), 1);
    });
}

/// A share is one of the cache as it is when the plan is applied, counting what of the plan is gone already; the oldest go.
#[test]
fn shares_are_of_the_cache_as_it_is() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let names: Vec<String> = (0..8).map(|tag| format!("docker.io/acme/app00003:v{tag}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut grant = everything();
        grant.grant.max_share = Some(Share::percent(20));
        let plan = policy_plan(&local, grant, &names).await;
        // 8 of 41 were within the share, 8 of 31 are not, and one of them is gone.
        for number in [1, 2] {
            for tag in 1..6 {
                let name = format!("docker.io/acme/app0000{number}:v{tag}");
                Image::remove_local(&local, &name, true).await.expect("removed");
            }
        }
        Image::remove_local(&local, names[0], false).await.expect("removed");
        let report = local.apply(&plan).await.expect("a report");
        let why = "`max-share` is 20% (6 of 31 references)";
        assert_eq!(spared(&report), [(names[7], why), (names[6], why)]);
        assert_eq!((report.removed.len(), report.gone.len()), (5, 1));
    });
}

/// A plan that contradicts itself, or its own grant, is refused before anything is touched.
#[test]
fn contradictions_are_refused() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let names = ["docker.io/acme/app00003:v0", "docker.io/acme/app00003:v1"];
        let plan = || policy_plan(&local, everything(), &names);
        type Change = fn(&mut Plan);
        let table: [(Change, &str); 12] = [
            (|plan| force(plan), "`entries[14].force`: nothing in the plan allows it"),
            (|plan| plan.policy = None, "`made_by` is `policy`, and `policy` is missing"),
            (|plan| plan.config = None, "`made_by` is `policy`, and `config` is missing"),
            (
                |plan| plan.grant = None,
                "its policy ran without a grant: it shows what would be removed, and nobody allowed that",
            ),
            (|plan| plan.made_by = Maker::Removal, "`policy` is there, and `made_by` is `removal`"),
            (
                |plan| {
                    (plan.policy, plan.config, plan.grant, plan.made_by) = (None, None, None, Maker::Prune);
                    force(plan);
                },
                "`entries[14].force`: nothing in the plan allows it",
            ),
            (
                |plan| {
                    (plan.policy, plan.config, plan.grant, plan.made_by) = (None, None, None, Maker::Removal);
                    force(plan);
                },
                "`entries[0].decision`: a removal by name keeps nothing",
            ),
            (
                |plan| grant(plan).remove = patterns(&["docker.io/acme/app00003:v0"]),
                "`entries[14].reference`: `docker.io/acme/app00003:v1` is not in `remove` of the plan's own grant",
            ),
            (
                |plan| grant(plan).read = patterns(&["docker.io/acme/app00003"]),
                "`entries[0].reference`: `docker.io/acme/app00004:v7` is not in `read` of the plan's own grant",
            ),
            (
                |plan| grant(plan).max_removals = Some(1),
                "it goes past its own grant: `max-removals` is 1, and it takes 2",
            ),
            (
                |plan| {
                    grant(plan).max_bytes = Some(ByteSize::bytes(1));
                    (plan.bytes, plan.entries[14].bytes) = (2, 2);
                },
                "it goes past its own grant: `max-bytes` is 1B, and it takes 2 B",
            ),
            (|plan| plan.collect.push(file()), "`collect` is there, and `made_by` is `policy`"),
        ];
        for (change, expected) in table {
            let mut plan = plan().await;
            change(&mut plan);
            let refused = local.apply(&plan).await.expect_err("refused").to_string();
            assert_eq!(refused, format!("the plan cannot be used: {expected}"));
        }
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), 41);
        local.apply(&plan().await).await.expect("unchanged, it is applied");
    });
}

fn grant(plan: &mut Plan) -> &mut Grant {
    &mut plan.grant.as_mut().expect("a grant").grant
}

fn force(plan: &mut Plan) {
    let removals = plan.entries.iter_mut().filter(|entry| entry.decision == Decision::Remove);
    removals.for_each(|entry| entry.force = true);
}

fn file() -> larder::maintenance::UnownedFile {
    serde_json::from_value(serde_json::json!({ "bytes": 0, "kind": "artifact", "path": "layers/x.erofs" }))
        .expect("a file")
}

/// A run is on record with config, grant and guard, and what its policy took where that has just run; one that failed is
/// there with why.
#[test]
fn runs_are_on_record_with_what_decided() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let mut plan = policy_plan(&local, everything(), &["docker.io/acme/app00003:v0"]).await;
        plan.guard = Some(Guard::default().with_keep(1_u32));
        let cost = larder::plan::RunCost { duration_ms: 7, fuel: Some(12) };
        local.apply_run(&plan, cost).await.expect("a report");
        let mut failed = larder::plan::FailedRun::new("the policy failed: it did not like it");
        failed.config = serde_json::json!({ "keep": 9 });
        local.record_failure(failed).await.expect("on record");
        Image::prune_local(&local).await.expect("a report");
        let runs = local.history(10).await.expect("a history");
        let [prune, failed, applied] = &runs[..] else { panic!("{runs:?}") };
        assert_eq!(
            (prune.made_by, &prune.config, &prune.grant, prune.cost),
            (Some(Maker::Prune), &None, &None, None)
        );
        assert_eq!(failed.problem.as_deref(), Some("the policy failed: it did not like it"));
        assert_eq!((failed.removed, &failed.config), (0, &Some(serde_json::json!({ "keep": 9 }))));
        assert_eq!((applied.made_by, applied.cost), (Some(Maker::Policy), Some(cost)));
        assert_eq!(applied.config, Some(serde_json::json!({ "keep": 2 })));
        let grant = applied.grant.as_ref().expect("a grant");
        assert_eq!(
            (&grant["grant"]["remove"], &grant["guard"]["keep"]),
            (&serde_json::json!(["**"]), &1.into())
        );
    });
}
