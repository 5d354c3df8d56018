//! Whatever is removed from whatever home, index and disk agree, nothing needed is lost, nothing unneeded is left,
//! and what was promised to be freed is freed, to the byte.

mod busy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use larder::maintenance::{FindingKind, VerifyDepth};
use larder::plan::Maker;
use larder::policy::{Plan, PlanEntry};
use larder::snapshot::Removal;
use larder::{Image, ImagePruneReport, LocalBackend, MicrosandboxError};
use larder_tests::{FIXTURE_NOW, Home, ImageSpec, Users, layer_digest, manifest_digest, populate, run};
use proptest::prelude::*;

/// Something that is done to a home.
#[derive(Debug, Clone)]
enum Step {
    Remove {
        image: usize,
        force: bool,
    },
    Prune,
    /// As a policy would have it: these images, forced or not.
    Plan {
        images: Vec<usize>,
        force: bool,
    },
    Pin {
        image: usize,
    },
    /// An operation begins to hold the image, as a pull or a starting sandbox does.
    Lease {
        image: usize,
    },
    /// The sandboxes and snapshots of a home are removed.
    FreeAll,
}

#[derive(Debug, Clone)]
struct Case {
    images: Vec<ImageSpec>,
    /// Pairs of layers whose files are one file with two names.
    linked: Option<(u32, u32)>,
    steps: Vec<Step>,
}

fn case() -> impl Strategy<Value = Case> {
    let users = prop_oneof![
        4 => Just(Users::None),
        1 => Just(Users::Sandbox),
        1 => Just(Users::NamedInConfig),
        1 => Just(Users::Snapshot),
    ];
    // A manifest's layers follow from its number, so that every reference of it names the same.
    let layers = prop::collection::vec(prop::collection::vec(0..8_u32, 1..4), 4);
    let images = prop::collection::vec((0..4_u32, users, 0..100_i64), 1..8);
    let step = prop_oneof![
        3 => (0..8_usize, any::<bool>()).prop_map(|(image, force)| Step::Remove { image, force }),
        1 => Just(Step::Prune),
        3 => (prop::collection::vec(0..8_usize, 1..5), any::<bool>()).prop_map(|(images, force)| Step::Plan { images, force }),
        1 => (0..8_usize).prop_map(|image| Step::Pin { image }),
        1 => (0..8_usize).prop_map(|image| Step::Lease { image }),
        1 => Just(Step::FreeAll),
    ];
    let linked = prop::option::of((0..4_u32, 4..8_u32));
    (layers, images, linked, prop::collection::vec(step, 1..6)).prop_map(|(layers, images, linked, steps)| {
        let images =
            images.into_iter().enumerate().map(|(number, (manifest, users, unused_days))| ImageSpec {
                reference: format!("docker.io/acme/app:{number}"),
                manifest,
                layers: layers[manifest as usize].clone(),
                users,
                age_days: 100,
                unused_days,
            });
        Case { images: images.collect(), linked, steps }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any sequence of removals, prunes and applied plans all of that holds.
    #[test]
    fn nothing_lost_and_nothing_left(case in case()) {
        let home = Home::made();
        populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &case.images);
        if let Some((first, second)) = case.linked {
            link(&home, first, second);
        }
        run(async {
            let local = home.open().await;
            // The first change adds Larder's own tables, which the checks look into.
            drop(local.unpin("docker.io/acme/app:0").await);
            let mut leases = BTreeMap::new();
            for step in &case.steps {
                take(&home, &local, &case, step, &mut leases).await;
                check(&home, &local, &leases).await;
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The plan of a prune says what its application does, and to the byte what that frees, files that nothing owns
    /// included. Afterwards there is nothing left to plan.
    #[test]
    fn a_prune_does_what_its_plan_says(case in case(), orphans in 0..4_u32) {
        let home = Home::made();
        populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &case.images);
        if let Some((first, second)) = case.linked {
            link(&home, first, second);
        }
        for number in 0..orphans {
            let room = ["layers", "fsmeta", "vmdk", "layers"][number as usize];
            put_orphan(&home, room, 100 + number);
        }
        run(async {
            let local = home.open().await;
            let before = allocated(&home.cache());
            let plan = local.plan_prune().await.expect("a plan");
            let report = local.apply(&plan).await.expect("a report");
            let freed = before - allocated(&home.cache());
            assert_eq!((plan.bytes, report.report.bytes_reclaimed.unwrap_or(0)), (freed, freed));
            assert_eq!(ImagePruneReport { bytes_reclaimed: plan.report.bytes_reclaimed, ..report.report }, plan.report);
            let went: BTreeMap<&str, u64> =
                report.removed.iter().map(|image| (image.reference.as_str(), image.bytes)).collect();
            for entry in plan.removals() {
                assert!(went.contains_key(entry.reference.as_str()), "{entry:?}");
            }
            assert_eq!(home.texts("SELECT reference FROM image_ref"), needed(&home));
            let left = local.plan_prune().await.expect("a plan");
            assert_eq!((left.is_empty(), left.bytes), (true, 0));
        });
    }
}

/// Puts in a file that nothing owns, as old as everything.
fn put_orphan(home: &Home, room: &str, number: u32) {
    let name = match room {
        "vmdk" => manifest_digest(number) + ".vmdk",
        _ => layer_digest(number) + ".erofs",
    };
    let path = home.cache().join(room).join(name.replace(':', "_"));
    fs::write(&path, vec![1; 5000]).expect("a file");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(long_ago))
        .expect("its time");
}

/// Makes two layers one file with two names, where both exist.
fn link(home: &Home, first: u32, second: u32) {
    let path = |number: u32| home.cache().join("layers").join(format!("sha256_d{number:063x}.erofs"));
    if path(first).exists() && path(second).exists() {
        fs::remove_file(path(second)).expect("a layer");
        fs::hard_link(path(first), path(second)).expect("a link");
    }
}

async fn take(
    home: &Home,
    local: &LocalBackend,
    case: &Case,
    step: &Step,
    leases: &mut BTreeMap<String, fs::File>,
) {
    let reference = |image: usize| &case.images[image % case.images.len()].reference;
    let before = allocated(&home.cache());
    match step {
        Step::Remove { image, force } => remove(home, local, reference(*image), *force, leases).await,
        Step::Prune => {
            let stay = &needed(home) | &leased(home, leases);
            let report = Image::prune_local(local).await.expect("a report");
            assert_eq!(report.bytes_reclaimed.unwrap_or(0), before - allocated(&home.cache()), "{report:?}");
            assert_eq!(home.texts("SELECT reference FROM image_ref"), stay);
        }
        Step::Plan { images, force } => {
            let wanted = images.iter().map(|&image| reference(image).clone()).collect();
            apply(home, local, &wanted, *force, leases, before).await;
        }
        Step::Pin { image } => match local.pin(reference(*image)).await {
            Ok(_) | Err(MicrosandboxError::ImageNotFound(_)) => {}
            Err(error) => panic!("{error}"),
        },
        Step::Lease { image } => {
            let digest = manifest_digest(case.images[image % case.images.len()].manifest);
            let name = format!("{}.erofs", digest.replace(':', "_"));
            leases.insert(digest, home.lease("fsmeta", &name));
        }
        Step::FreeAll => {
            leases.clear();
            home.execute("DELETE FROM sandbox_rootfs; DELETE FROM sandbox; DELETE FROM snapshot_index;");
        }
    }
}

async fn remove(
    home: &Home,
    local: &LocalBackend,
    reference: &str,
    force: bool,
    leases: &BTreeMap<String, fs::File>,
) {
    let is_there = home.texts("SELECT reference FROM image_ref").contains(reference);
    let protected = needed(home).contains(reference) && !force || leased(home, leases).contains(reference);
    match Image::remove_local(local, reference, force).await {
        Ok(()) => assert!(is_there && !protected, "{reference} went"),
        Err(MicrosandboxError::ImageInUse(_)) => assert!(is_there && protected, "{reference} stayed"),
        Err(MicrosandboxError::ImageNotFound(_)) => assert!(!is_there, "{reference} is there"),
        Err(error) => panic!("{error}"),
    }
}

/// Plans to remove what is there of some references, and applies that: what was promised is freed, unless something
/// was spared.
async fn apply(
    home: &Home,
    local: &LocalBackend,
    wanted: &BTreeSet<String>,
    force: bool,
    leases: &BTreeMap<String, fs::File>,
    before: u64,
) {
    let mut snapshot = local.snapshot().await.expect("a state");
    let images = snapshot.images().expect("the images");
    let mut removal = Removal::new(Arc::new(snapshot.costs().expect("the costs")));
    let selected: Vec<usize> = (0..images.len())
        .filter(|&index| wanted.contains(images[index].handle.reference()))
        .filter(|&index| !images[index].pinned && (force || images[index].users.is_empty()))
        .collect();
    let together = removal.would_free(selected.iter().copied());
    let entries = selected
        .iter()
        .map(|&index| PlanEntry::remove(&images[index].handle, "to see", removal.remove(index).bytes, force))
        .collect();
    let refs = ImagePruneReport { image_refs_removed: selected.len() as u32, ..ImagePruneReport::default() };
    let identity = local.identity().await.expect("the home");
    let now = FIXTURE_NOW.parse().expect("a time");
    let plan = Plan::new(Maker::Removal, now, entries, Vec::new(), refs).for_home(identity);
    assert_eq!(plan.bytes, together.bytes, "one by one and together");
    drop(snapshot);

    let held = leased(home, leases);
    let stay = &home.texts("SELECT reference FROM image_ref")
        - &plan.removals().map(|entry| entry.reference.clone()).collect();
    let report = local.apply(&plan).await.expect("a report");
    let left = home.texts("SELECT reference FROM image_ref");
    assert!(stay.is_subset(&left) && (&left - &stay).is_subset(&held), "{left:?}");
    assert!(report.spared.iter().all(|image| held.contains(&image.reference)), "{:?}", report.spared);
    let freed = report.report.bytes_reclaimed.unwrap_or(0);
    assert_eq!(freed, before - allocated(&home.cache()), "measured and reported");
    assert_eq!(freed, report.removed.iter().map(|image| image.bytes).sum::<u64>());
    if report.spared.is_empty() {
        assert_eq!(freed, plan.bytes, "promised and freed");
        assert_eq!(report.report.manifests_removed, together.manifests);
        assert_eq!(report.report.layers_removed, together.layers);
    }
}

/// The references that a sandbox, a snapshot or a pin protects.
fn needed(home: &Home) -> BTreeSet<String> {
    home.texts(
        "SELECT reference FROM image_ref WHERE manifest_id IN (SELECT manifest_id FROM sandbox_rootfs)
          UNION SELECT ref.reference FROM image_ref AS ref JOIN manifest ON manifest.id = ref.manifest_id
                  JOIN snapshot_index ON image_manifest_digest = manifest.digest
          UNION SELECT other.reference FROM sandbox
                  JOIN sandbox_rootfs ON sandbox_id = sandbox.id AND sandbox_rootfs.manifest_id IS NULL
                  JOIN image_ref AS named ON named.reference = json_extract(config, '$.image.reference')
                  JOIN image_ref AS other ON other.manifest_id = named.manifest_id
          UNION SELECT ref.reference FROM image_ref AS ref JOIN manifest ON manifest.id = ref.manifest_id
                  JOIN larder_hold ON manifest_digest = manifest.digest JOIN sandbox ON sandbox.id = sandbox_id
          UNION SELECT reference FROM larder_pin",
    )
}

/// The references whose image an operation holds.
fn leased(home: &Home, leases: &BTreeMap<String, fs::File>) -> BTreeSet<String> {
    let of = |digest: &String| {
        home.texts(&format!(
            "SELECT reference FROM image_ref JOIN manifest ON manifest.id = manifest_id WHERE digest = '{digest}'"
        ))
    };
    leases.keys().flat_map(of).collect()
}

/// Index and disk agree, and everything that is used has its data.
async fn check(home: &Home, local: &LocalBackend, leases: &BTreeMap<String, fs::File>) {
    let report = local.verify(VerifyDepth::Shallow).await.expect("a report");
    for finding in &report.findings {
        // Metadata outlives its reference while a sandbox uses the image, and is collected after it.
        let is_late_metadata = finding.kind == FindingKind::Orphan && finding.path.starts_with("manifests");
        // The files are not those of a real image, and are there: no more is asked of them.
        let is_there =
            !matches!(finding.kind, FindingKind::Missing | FindingKind::Orphan | FindingKind::Foreign);
        assert!(is_late_metadata || is_there, "{finding:?}");
    }
    assert_eq!(home.count("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
    for digest in leases.keys().filter(|digest| home.texts("SELECT digest FROM manifest").contains(*digest)) {
        let name = format!("{}.erofs", digest.replace(':', "_"));
        assert!(home.files("fsmeta").contains(&name), "{name} was held");
    }
}

fn allocated(directory: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    ["layers", "fsmeta", "vmdk", "manifests"]
        .into_iter()
        .flat_map(|room| fs::read_dir(directory.join(room)).expect("a room"))
        .map(|entry| entry.expect("an entry").metadata().expect("a file"))
        .filter(|metadata| metadata.is_file() && seen.insert(metadata.ino()))
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}
