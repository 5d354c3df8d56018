//! A plan is applied as far as it still holds: nothing else goes, and what became of it is on record.

use larder::policy::{Decision, GrantDocument, Plan, Policy, PolicyEngine, PolicyRun, Right, Verdict};
use larder::{LocalBackend, MicrosandboxError};
use larder_tests::{FIXTURE_NOW, Home, component, run};

/// What `keep-recent` with `keep = 2` plans for the fixture under this grant.
async fn plan(local: &LocalBackend, grant: &str) -> Result<Plan, MicrosandboxError> {
    let grant = GrantDocument::from_toml(grant, "grant.toml").expect("a grant");
    plan_run(local, PolicyRun::new(FIXTURE_NOW.parse().expect("a time")).with_grant(grant)).await
}

/// What `keep-recent` with `keep = 2` plans for the fixture in this run.
async fn plan_run(local: &LocalBackend, run: PolicyRun) -> Result<Plan, MicrosandboxError> {
    let bytes = std::fs::read(component("keep-recent")).expect("the policy");
    let policy = Policy::load(&PolicyEngine::new().expect("an engine"), bytes).await.expect("a policy");
    let run = run.with_config(serde_json::json!({ "keep": 2 }));
    local.plan_policy(&policy, &run).await.map(|evaluation| evaluation.plan)
}

const REMOVE_ACME: &str = "[grant]\nremove = [\"docker.io/acme/**\"]\n";

/// A plan keeps two of each repository and what is in use, and applying it frees what it promised; a second time
/// there is nothing left to do.
#[test]
fn a_plan_does_what_it_says() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let plan = plan(&local, REMOVE_ACME).await.expect("a plan");
        // Reading it back from its document changes nothing.
        let plan = Plan::from_json(&plan.to_json().expect("JSON")).expect("the plan");
        let before = home.texts("SELECT reference FROM image_ref");
        let planned = plan.removals().map(|entry| entry.reference.clone()).collect();
        // 41 references in five repositories: ten stay as the newest, and three that are in use.
        assert_eq!(plan.removals().count(), 28);

        let report = local.apply(&plan).await.expect("a report");
        assert_eq!(home.texts("SELECT reference FROM image_ref"), &before - &planned);
        assert_eq!(report.report.bytes_reclaimed, Some(plan.bytes));
        assert_eq!((report.report.image_refs_removed, report.removed.len(), report.kept.len()), (28, 28, 13));
        assert!(report.spared.is_empty() && report.gone.is_empty() && report.problems.is_empty());

        let again = local.apply(&plan).await.expect("a report");
        assert_eq!((again.gone.len(), again.removed.len(), again.run), (28, 0, None));
    });
}

/// What changed since the plan was made is spared, and the report says why: used, replaced, come into use, pinned.
#[test]
fn what_changed_is_spared() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let plan = plan(&local, REMOVE_ACME).await.expect("a plan");
        home.execute(
            "UPDATE image_ref SET updated_at = '2026-11-24 11:59:59' WHERE reference = 'docker.io/acme/app00003:v1';
             UPDATE image_ref SET manifest_id = (SELECT manifest_id FROM image_ref WHERE reference = 'docker.io/acme/app00004:v7')
              WHERE reference = 'docker.io/acme/app00003:v2';
             INSERT INTO sandbox (id, name, config, status) VALUES (9, 'new', '{}', 'running');
             INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode)
             SELECT 9, manifest_id, 'layered' FROM image_ref WHERE reference = 'docker.io/acme/app00003:v3';",
        );
        local.pin("docker.io/acme/app00003:v4").await.expect("pinned");
        let lease = home
            .lease("fsmeta", "sha256_a00000000000000000000000000000000000000000000000000000000000001d.erofs");

        let report = local.apply(&plan).await.expect("a report");
        drop(lease);
        let mut spared: Vec<_> =
            report.spared.iter().map(|image| format!("{}: {}", image.reference, image.reason)).collect();
        spared.sort();
        assert_eq!(
            spared,
            [
                "docker.io/acme/app00003:v1: was used after this was decided",
                "docker.io/acme/app00003:v2: names another manifest than when this was decided",
                "docker.io/acme/app00003:v3: used by sandbox `new`",
                "docker.io/acme/app00003:v4: pinned",
                "docker.io/acme/app00003:v5: held by a live operation",
            ]
        );
        assert_eq!((report.removed.len(), report.report.skipped_in_use), (23, 1));
        for image in &report.spared {
            let reference = &image.reference;
            assert_eq!(
                home.count(&format!("SELECT count(*) FROM image_ref WHERE reference = '{reference}'")),
                1
            );
        }
    });
}

/// A cap refuses the whole plan and says by how much; without a right to remove, everything stays with that reason.
#[test]
fn caps_and_grants_hold() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let capped = plan(&local, "[grant]\nremove = [\"**\"]\nmax-removals = 10\n").await;
        let message = capped.expect_err("over its cap").to_string();
        assert!(message.contains("max-removals") && message.contains("10"), "{message}");
        let powerless = plan(&local, "").await.expect("a plan");
        assert!(powerless.is_empty());
        assert!(powerless.entries.iter().all(|entry| entry.decision == Decision::Keep));
        assert_eq!(powerless.denials.len(), 28);
        let guarded = plan(&local, &format!("{REMOVE_ACME}[guard]\nkeep = 5\n")).await.expect("a plan");
        let left = |repository: &str| {
            let kept = guarded.entries.iter().filter(|entry| entry.decision == Decision::Keep);
            kept.filter(|entry| entry.reference.starts_with(repository)).count()
        };
        assert_eq!((left("docker.io/acme/app00003:"), left("docker.io/acme/app00000:")), (5, 5));
    });
    assert_eq!(
        home.count("SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder_%'"),
        0,
        "planning writes nothing"
    );
}

/// A preview shows what the policy would remove if everything was granted, as far as pins and the guard let it, and is refused when it
/// is to be applied, also after it was written and read. Whoever asks for no preview gets a run that removes nothing.
#[test]
fn a_preview_is_not_applied() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        local.pin("docker.io/acme/app00003:v4").await.expect("pinned");
        // The guard protects what is younger than an hour, also the third newest of a repository.
        home.execute(
            "UPDATE image_ref SET created_at = '2026-11-24 11:50:00'
              WHERE reference IN ('docker.io/acme/app00003:v0', 'docker.io/acme/app00003:v1', 'docker.io/acme/app00003:v2')",
        );
        let now = FIXTURE_NOW.parse().expect("a time");
        let preview = plan_run(&local, PolicyRun::preview(now)).await.expect("a plan");
        assert_eq!((preview.removals().count(), &preview.grant), (26, &None));
        assert_eq!(preview.denials.iter().map(|denial| denial.right).collect::<Vec<_>>(), [Right::Protected]);
        let json = preview.to_json().expect("JSON");
        for preview in [&preview, &Plan::from_json(&json).expect("the plan")] {
            let refused = local.apply(preview).await.expect_err("refused");
            assert!(matches!(refused, MicrosandboxError::InvalidPlan(_)));
            assert_eq!(
                refused.to_string(),
                "the plan cannot be used: its policy ran without a grant: it shows what would be removed, and nobody \
                 allowed that"
            );
        }
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), 41);
        assert!(local.history(10).await.expect("a history").is_empty());

        let nothing = plan_run(&local, PolicyRun::new(now)).await.expect("a plan");
        assert_eq!((nothing.removals().count(), &nothing.grant), (0, &Some(GrantDocument::default())));
        local.apply(&nothing).await.expect("a report");
        let granted = PolicyRun::preview(now).with_grant(nothing.grant.unwrap_or_default());
        assert_eq!(granted, PolicyRun::new(now), "a preview with a grant is none");
    });
}

/// Every run that changed something can be looked up, and every image of it explained, gone or not.
#[test]
fn runs_are_on_record() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        assert!(local.history(10).await.expect("a history").is_empty());
        let plan = plan(&local, REMOVE_ACME).await.expect("a plan");
        let report = local.apply(&plan).await.expect("a report");
        let history = local.history(10).await.expect("a history");
        assert_eq!(history.len(), 1);
        assert_eq!((Some(history[0].id), history[0].removed, history[0].kept), (report.run, 28, 13));
        assert_eq!(history[0].policy.as_ref().map(|policy| policy.name.as_str()), Some("keep-recent"));

        let gone = local.explain("acme/app00003:v1").await.expect("an explanation");
        assert!(gone.image.is_none());
        assert_eq!((gone.decisions[0].verdict, gone.decisions.len()), (Verdict::Removed, 1));
        assert!(gone.decisions[0].reason.starts_with("7th newest of docker.io/acme/app00003"), "{gone:?}");
        let kept = local.explain("docker.io/acme/app00000:v0").await.expect("an explanation");
        assert_eq!(
            (kept.decisions[0].verdict, kept.users.to_string()),
            (Verdict::Kept, "sandboxes `web`, `worker`".to_owned())
        );
        assert!(matches!(local.explain("acme/none:1").await, Err(MicrosandboxError::ImageNotFound(_))));
    });
}

/// An error on the way ends the work with a report of what went until then, which is on record with what ended it.
#[test]
fn an_error_on_the_way_says_what_went() {
    let home = Home::fixture();
    // A layer that no manifest has, and whose row cannot be removed: it goes after the images.
    home.execute(
        "DELETE FROM manifest_layer WHERE layer_id = 30;
         CREATE TRIGGER stop BEFORE DELETE ON layer WHEN OLD.id = 30 BEGIN SELECT RAISE(ABORT, 'stopped'); END;",
    );
    run(async {
        let local = home.open().await;
        let plan = local.plan_prune().await.expect("a plan");
        match local.apply(&plan).await {
            Err(MicrosandboxError::Incomplete { report, source }) => {
                assert_eq!((report.removed.len(), report.report.image_refs_removed), (38, 38));
                assert!(matches!(*source, MicrosandboxError::Database { .. }), "{source:?}");
            }
            other => panic!("{other:?}"),
        }
        let history = local.history(10).await.expect("a history");
        assert_eq!((history.len(), history[0].removed, history[0].problem.is_some()), (1, 38, true));
        assert_eq!(history[0].report.image_refs_removed, 38);
    });
}

/// A plain prune as a plan promises what it frees, files that nothing owns included, and does no more than it says.
#[test]
fn a_prune_as_a_plan() {
    let home = Home::fixture();
    // A manifest that no reference reaches, and a layer that no manifest has.
    home.execute(
        "DELETE FROM image_ref WHERE reference = 'docker.io/acme/app00004:v6';
         DELETE FROM manifest_layer WHERE layer_id = 30;",
    );
    let orphan = home.cache().join(format!("layers/sha256_f{:063x}.erofs", 1));
    std::fs::write(&orphan, [0; 4096]).expect("an orphan");
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    std::fs::File::options()
        .write(true)
        .open(&orphan)
        .and_then(|file| file.set_modified(old))
        .expect("its age");
    run(async {
        let local = home.open().await;
        let plan = local.plan_prune().await.expect("a plan");
        assert_eq!(
            (plan.removals().count(), plan.report.manifests_removed, plan.report.layers_removed),
            (37, 37, 222)
        );
        let late = home.cache().join(format!("layers/sha256_f{:063x}.erofs", 2));
        std::fs::copy(&orphan, &late).expect("another orphan");
        std::fs::File::options()
            .write(true)
            .open(&late)
            .and_then(|file| file.set_modified(old))
            .expect("its age");

        let report = local.apply(&plan).await.expect("a report");
        assert_eq!(report.report, plan.report);
        assert!(!orphan.exists() && late.exists(), "what is not in the plan stays");
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), 3);
        assert_eq!(home.count("SELECT count(*) FROM layer"), 18);
    });
}
