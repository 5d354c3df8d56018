//! What a page shows of a home: the cache by repository, and what runs decided.

use larder::plan::{Overview, Verdict};
use larder_tests::{FIXTURE_NOW, Home, ImageSpec, Users, images_on_one_base, populate, run};

fn home(images: &[ImageSpec]) -> Home {
    let home = Home::made();
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), images);
    home
}

fn image(reference: &str, manifest: u32, layers: &[u32]) -> ImageSpec {
    ImageSpec { reference: reference.to_owned(), manifest, layers: layers.to_vec(), ..ImageSpec::default() }
}

fn overview(home: &Home) -> Overview {
    run(async { home.open().await.overview().await }).expect("an overview")
}

/// A repository has the files of its own that no other needs, and what several need is counted once: together that is what
/// the cache takes. Used and pinned images stay on the list, and count.
#[test]
fn repositories_add_up() {
    let home = home(&[
        ImageSpec { users: Users::Sandbox, ..image("docker.io/acme/app:1", 1, &[1, 2]) },
        image("docker.io/acme/app:2", 2, &[1, 4]),
        image("docker.io/acme/web:1", 3, &[1, 5]),
        // Another tag of an image of `web`.
        image("quay.io/acme/copy:1", 3, &[]),
    ]);
    run(async { home.open().await.pin("docker.io/acme/app:2").await }).expect("a pin");
    let found = overview(&home);
    let names: Vec<&str> = found.repositories.iter().map(|one| one.repository.as_str()).collect();
    assert_eq!(names, ["docker.io/acme/app", "docker.io/acme/web", "quay.io/acme/copy"]);
    let counts: Vec<_> = found.repositories.iter().map(|one| (one.images, one.in_use, one.pinned)).collect();
    assert_eq!(counts, [(2, 1, 1), (1, 0, 0), (1, 0, 0)]);
    let own: u64 = found.repositories.iter().map(|one| one.own_bytes).sum();
    assert_eq!(own + found.shared_bytes, found.image_bytes);
    // The manifest of `web` is that of `copy`: only the metadata of each name is its own.
    let [app, web, copy] = &found.repositories[..] else { panic!("three repositories") };
    assert_eq!(web.own_bytes, copy.own_bytes);
    assert!(app.own_bytes > 2 * 4096 && web.shared_bytes == found.shared_bytes, "{found:?}");
    let usage = run(async { home.open().await.usage().await }).expect("the usage");
    assert!(found.image_bytes <= usage.cache_bytes, "{found:?} of {usage:?}");
    assert_eq!(overview(&Home::made()).repositories.len(), 0);
}

/// In the home of microsandbox, every reference is in a repository.
#[test]
fn a_home_of_microsandbox() {
    let found = overview(&Home::fixture());
    assert_eq!(found.repositories.iter().map(|one| one.images).sum::<usize>(), 41);
    assert_eq!(found.repositories.iter().map(|one| one.in_use).sum::<usize>(), 3);
}

/// What runs decided is listed by their numbers, what went first, as much as was asked for, with how much there is.
#[test]
fn decisions_of_runs() {
    let home = home(&images_on_one_base(6));
    let found = run(async {
        let local = home.open().await;
        local.pin("docker.io/acme/app00001:v1").await.expect("a pin");
        let planned =
            local.plan_remove(&["docker.io/acme/app00000:v1".to_owned()], false).await.expect("a plan");
        local.apply(&planned.plan).await.expect("it is applied");
        let plan = local.plan_prune().await.expect("a plan");
        local.apply(&plan).await.expect("it is applied");
        let runs: Vec<i64> = local.history(10).await.expect("a history").iter().map(|run| run.id).collect();
        let last = local.decisions(&runs[..1], 2).await.expect("decisions");
        let all = local.decisions(&runs, 100).await.expect("decisions");
        let none = local.decisions(&[], 100).await.expect("decisions");
        (last, all, none)
    });
    let (last, all, none) = found;
    assert_eq!((last.decisions.len(), last.total), (2, 5));
    assert!(last.decisions.iter().all(|one| one.verdict == Verdict::Removed && !one.reason.is_empty()));
    assert_eq!((all.decisions.len(), all.total), (6, 6));
    assert_eq!(all.decisions.last().map(|one| one.reference.as_str()), Some("docker.io/acme/app00001:v1"));
    assert!(
        all.decisions
            .iter()
            .filter(|one| one.verdict == Verdict::Removed)
            .map(|one| one.bytes)
            .is_sorted_by(|a, b| a >= b)
    );
    assert_eq!((none.decisions.len(), none.total), (0, 0));
}
