//! Removing images: what goes, what stays, and who is asked.

use std::fs;

use larder::maintenance::{FindingKind, PinChange, VerifyDepth};
use larder::{Image, MicrosandboxError};
use larder_tests::archive::{TestImage, docker_files};
use larder_tests::{FIXTURE_NOW, Home, ImageSpec, LoadTest, layer_digest, populate, run};
use sha2::{Digest as _, Sha256};

const UNUSED: &str = "docker.io/acme/app00004:v7";
const SANDBOXED: &str = "docker.io/acme/app00000:v0";
const SNAPSHOTTED: &str = "docker.io/acme/app00002:v0";
/// One of two tags of a manifest; the other is `docker.io/acme/app00000:v7`.
const TAGGED: &str = "docker.io/acme/app00000:latest";

fn remove(home: &Home, reference: &str, force: bool) -> Result<(), MicrosandboxError> {
    run(async { Image::remove_local(&home.open().await, reference, force).await })
}

fn rows(home: &Home) -> [i64; 5] {
    ["image_ref", "manifest", "config", "layer", "manifest_layer"]
        .map(|table| home.count(&format!("SELECT count(*) FROM {table}")))
}

fn files(home: &Home) -> [usize; 4] {
    ["manifests", "fsmeta", "vmdk", "layers"].map(|room| home.files(room).len())
}

fn metadata_of(reference: &str) -> String {
    let key: String = Sha256::digest(reference).iter().map(|byte| format!("{byte:02x}")).collect();
    key + ".json"
}

/// An unused image goes whole: its reference, manifest, config and layers, and all their files.
#[test]
fn an_unused_image_goes_whole() {
    for force in [false, true] {
        let home = Home::fixture();
        remove(&home, "acme/app00004:v7", force).expect("removed");
        assert_eq!(rows(&home), [40, 39, 39, 234, 234]);
        assert_eq!(files(&home), [39, 39, 39, 234]);
        assert!(matches!(remove(&home, UNUSED, force), Err(MicrosandboxError::ImageNotFound(_))));
    }
}

/// An image in use is refused with the names of its users; with force it loses its reference and keeps its data.
#[test]
fn an_image_in_use_keeps_its_data() {
    for (reference, users) in [(SANDBOXED, "sandboxes `web`, `worker`"), (SNAPSHOTTED, "snapshot `base`")] {
        let home = Home::fixture();
        match remove(&home, reference, false) {
            Err(MicrosandboxError::ImageInUse(message)) => assert!(message.ends_with(users), "{message}"),
            other => panic!("{reference}: {other:?}"),
        }
        assert_eq!(rows(&home), [41, 40, 40, 240, 240]);
        remove(&home, reference, true).expect("untagged");
        assert_eq!(rows(&home), [40, 40, 40, 240, 240]);
        assert_eq!(files(&home), [40, 40, 40, 240]);
        // And it stays for as long as it is used, however often somebody prunes.
        run(async { Image::prune_local(&home.open().await).await }).expect("a report");
        assert_eq!(home.files("fsmeta").len(), 3);
        assert!(home.files("manifests").contains(&metadata_of(reference)));
        home.execute("DELETE FROM sandbox_rootfs; DELETE FROM snapshot_index;");
        run(async { Image::prune_local(&home.open().await).await }).expect("a report");
        assert_eq!((rows(&home), files(&home)), ([0; 5], [0; 4]));
    }
}

/// A sandbox whose row names no manifest protects what its config names, as a digest or in any spelling.
#[test]
fn a_config_protects_what_it_names() {
    let digest = "sha256:a000000000000000000000000000000000000000000000000000000000000027";
    let pinned = format!("docker.io/other/name@{digest}");
    for name in [UNUSED, "acme/app00004:v7", "index.docker.io/acme/app00004:v7", digest, &pinned] {
        let home = Home::fixture();
        home.execute(&format!(
            r#"INSERT INTO sandbox (id, name, config, status) VALUES (9, 'unbound', '{{"image":{{"oci":["{name}"]}}}}', 'created');
               INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode) VALUES (9, NULL, 'layered');"#
        ));
        match remove(&home, UNUSED, false) {
            Err(MicrosandboxError::ImageInUse(message)) => {
                assert!(message.ends_with("sandbox `unbound`"), "{message}")
            }
            other => panic!("{name}: {other:?}"),
        }
        let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
        assert_eq!(report.image_refs_removed, 37, "{name}");
    }
}

/// Puts the unused image in a second time, in another spelling.
fn add_spelling(home: &Home) {
    home.execute(
        "INSERT INTO image_ref (reference, manifest_id, created_at)
         SELECT 'acme/app00004:v7', manifest_id, created_at FROM image_ref WHERE reference = 'docker.io/acme/app00004:v7'",
    );
}

/// Puts a sandbox in that names its image only in its config.
fn add_sandbox(home: &Home, reference: &str) {
    home.execute(&format!(
        r#"INSERT INTO sandbox (id, name, config, status) VALUES (9, 'unbound', '{{"image":"{reference}"}}', 'stopped');"#
    ));
}

/// A sandbox that names its image only in its config keeps the image's data when the reference is removed by force, for as
/// long as the sandbox exists.
#[test]
fn a_sandbox_keeps_what_a_removed_reference_named() {
    let home = Home::fixture();
    add_sandbox(&home, "acme/app00004:v7");
    let kept = "sha256_a000000000000000000000000000000000000000000000000000000000000027.erofs";
    remove(&home, UNUSED, true).expect("untagged");
    for _ in 0..2 {
        run(async { Image::prune_local(&home.open().await).await }).expect("a report");
        assert!(home.files("fsmeta").contains(kept));
    }
    assert_eq!((home.files("fsmeta").len(), home.files("layers").len()), (4, 24));
    home.execute("DELETE FROM sandbox WHERE name = 'unbound'");
    run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!((home.files("fsmeta").len(), home.files("layers").len()), (3, 18));
}

/// A sandbox that names its image only in its config keeps the manifest that it had when the reference is given another one.
#[test]
fn a_sandbox_keeps_what_a_moved_reference_named() {
    let test = LoadTest::new();
    let first = TestImage::small(&["acme/app:1"]);
    let mut second = first.clone();
    second.layers.pop();
    test.load(&test.archive(&docker_files(&[first])), &[]).expect("loaded");
    add_sandbox(&test.home, "acme/app:1");
    let old = test.home.files("fsmeta");
    test.load(&test.archive(&docker_files(&[second])), &[]).expect("loaded");
    run(async { Image::prune_local(&test.home.open().await).await }).expect("a report");
    assert!(old.is_subset(&test.home.files("fsmeta")));
    test.home.execute("DELETE FROM sandbox");
    run(async { Image::prune_local(&test.home.open().await).await }).expect("a report");
    assert!(test.home.files("fsmeta").is_empty());
}

/// One of two tags of a manifest goes alone; the second takes the manifest with it.
#[test]
fn the_last_tag_takes_the_manifest() {
    let home = Home::fixture();
    remove(&home, TAGGED, false).expect("removed");
    assert_eq!((rows(&home)[..2].to_vec(), files(&home)), (vec![40, 40], [40, 40, 40, 240]));
    remove(&home, "docker.io/acme/app00000:v7", false).expect("removed");
    assert_eq!((rows(&home)[..2].to_vec(), files(&home)), (vec![39, 39], [39, 39, 39, 234]));
}

/// Two spellings of a reference share their metadata, which goes with the second.
#[test]
fn spellings_share_their_metadata() {
    let home = Home::fixture();
    add_spelling(&home);
    remove(&home, UNUSED, false).expect("removed");
    assert!(home.files("manifests").contains(&metadata_of(UNUSED)));
    remove(&home, "acme/app00004:v7", false).expect("removed");
    assert!(!home.files("manifests").contains(&metadata_of(UNUSED)));
}

/// What is noted of a reference stays as long as one of its spellings does: its pin, also when another one goes with force,
/// and where it came from.
#[test]
fn notes_belong_to_every_spelling() {
    let home = Home::fixture();
    add_spelling(&home);
    run(async { home.open().await.pin(UNUSED).await }).expect("pinned");
    home.execute(&format!(
        "INSERT INTO larder_origin (reference, origin, recorded_at)
         VALUES ('{UNUSED}', 'archive', '2026-11-01 00:00:00')"
    ));
    let notes = "SELECT (SELECT count(*) FROM larder_pin) * 10 + (SELECT count(*) FROM larder_origin)";
    remove(&home, "acme/app00004:v7", true).expect("removed");
    assert_eq!(home.count(notes), 11);
    remove(&home, UNUSED, true).expect("removed");
    assert_eq!(home.count(notes), 0);
}

/// A sandbox without a manifest protects what the config names that it runs with, as well as what it was made with.
#[test]
fn the_config_of_a_running_sandbox_protects() {
    let home = Home::fixture();
    home.execute(&format!(
        r#"INSERT INTO sandbox (name, config, active_config, status)
           VALUES ('runs', '{{}}', '{{"image":{{"reference":"{UNUSED}"}}}}', 'running')"#
    ));
    match remove(&home, UNUSED, false) {
        Err(MicrosandboxError::ImageInUse(message)) => assert!(message.contains("runs"), "{message}"),
        other => panic!("{other:?}"),
    }
    let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!(report.image_refs_removed, 37);
}

/// A sandbox whose row names a manifest that is not there protects what its config names.
#[test]
fn a_row_that_names_nothing_is_no_name() {
    let home = Home::fixture();
    home.execute(&format!(
        r#"PRAGMA foreign_keys = off;
           INSERT INTO sandbox (id, name, config, status) VALUES (9, 'dangling', '{{"image":"{UNUSED}"}}', 'stopped');
           INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode) VALUES (9, 4242, 'layered');"#
    ));
    assert!(matches!(remove(&home, UNUSED, false), Err(MicrosandboxError::ImageInUse(_))));
    let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!(report.image_refs_removed, 37);
}

/// Manifests without a reference, layers and files without a row that somebody holds are counted and left.
#[test]
fn what_is_held_is_counted() {
    let home = Home::fixture();
    home.execute(&format!("DELETE FROM image_ref WHERE reference = '{UNUSED}'"));
    let digest = "sha256_a000000000000000000000000000000000000000000000000000000000000027";
    let orphan = format!("sha256_{}.vmdk", "f".repeat(64));
    fs::write(home.cache().join("vmdk").join(&orphan), "nothing's").expect("an orphan");
    let old = std::time::SystemTime::UNIX_EPOCH;
    let file =
        fs::File::options().write(true).open(home.cache().join("vmdk").join(&orphan)).expect("the orphan");
    file.set_modified(old).expect("an old orphan");
    let leases = [home.lease("fsmeta", &format!("{digest}.erofs")), home.lease("vmdk", &orphan)];
    let prune = || run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    let report = prune();
    assert_eq!((report.image_refs_removed, report.manifests_removed, report.skipped_in_use), (37, 36, 2));
    drop(leases);
    let report = prune();
    assert_eq!((report.manifests_removed, report.vmdk_removed, report.skipped_in_use), (1, 2, 0));
}

/// A file that was lost before is not counted as removed.
#[test]
fn what_is_not_there_is_not_counted() {
    let home = Home::fixture();
    for room in ["fsmeta", "vmdk"] {
        let name = home.files(room).into_iter().next().expect("a file");
        fs::remove_file(home.cache().join(room).join(name)).expect("lost");
    }
    home.execute("DELETE FROM sandbox_rootfs; DELETE FROM snapshot_index; DELETE FROM sandbox;");
    let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!((report.manifests_removed, report.fsmeta_removed, report.vmdk_removed), (40, 39, 39));
}

/// Metadata stays as long as a snapshot uses the manifest that it names, also when its reference goes and the reference's row
/// names another manifest.
#[test]
fn metadata_of_a_manifest_in_use_stays() {
    let home = Home::fixture();
    home.execute(&format!(
        "UPDATE image_ref SET manifest_id = (SELECT manifest_id FROM image_ref WHERE reference = '{UNUSED}')
          WHERE reference = '{SNAPSHOTTED}'"
    ));
    remove(&home, SNAPSHOTTED, false).expect("removed");
    for _ in 0..2 {
        assert!(home.files("manifests").contains(&metadata_of(SNAPSHOTTED)));
        run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    }
    home.execute("DELETE FROM snapshot_index");
    run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert!(!home.files("manifests").contains(&metadata_of(SNAPSHOTTED)));
}

/// An image of which a live operation holds any entry is refused, even with force, and prune passes it by.
#[test]
fn a_lease_protects() {
    let digest = "sha256_a000000000000000000000000000000000000000000000000000000000000027";
    let layer = "sha256_d00000000000000000000000000000000000000000000000000000000000009c.erofs";
    let entries = [
        ("manifests", metadata_of(UNUSED)),
        ("fsmeta", format!("{digest}.erofs")),
        ("vmdk", format!("{digest}.vmdk")),
        ("layers", layer.to_owned()),
    ];
    for (room, name) in entries {
        let home = Home::fixture();
        let lease = home.lease(room, &name);
        for force in [false, true] {
            match remove(&home, UNUSED, force) {
                Err(MicrosandboxError::ImageInUse(message)) => {
                    assert!(message.contains("live operation"), "{message}")
                }
                other => panic!("{room}: {other:?}"),
            }
        }
        let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
        assert_eq!((report.image_refs_removed, report.skipped_in_use), (37, 1), "{room}");
        assert!(home.cache().join(room).join(&name).exists());
        assert_eq!(home.count(&format!("SELECT count(*) FROM image_ref WHERE reference = '{UNUSED}'")), 1);
        drop(lease);
        remove(&home, UNUSED, false).expect("removed once nobody holds it");
    }
}

/// A pin holds against prune and against a removal without force, in any spelling, and goes with force.
#[test]
fn a_pin_protects() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        assert_eq!(local.pin("acme/app00004:v7").await.expect("pinned"), PinChange::Changed);
        assert_eq!(local.pin(UNUSED).await.expect("pinned"), PinChange::Unchanged);
        assert_eq!(local.pins().await.expect("pins"), [UNUSED]);
        assert_eq!(Image::prune_local(&local).await.expect("a report").image_refs_removed, 37);
        match Image::remove_local(&local, UNUSED, false).await {
            Err(MicrosandboxError::ImageInUse(message)) => {
                assert!(message.ends_with("is pinned"), "{message}")
            }
            other => panic!("{other:?}"),
        }
        Image::remove_local(&local, UNUSED, true).await.expect("removed");
        assert!(local.pins().await.expect("pins").is_empty());
        assert!(matches!(local.pin(UNUSED).await, Err(MicrosandboxError::ImageNotFound(_))));
    });
}

/// A malformed reference, a directory or a stray file in place of an artifact, and missing artifacts do not stop a
/// prune, and what is not the cache's own stays.
#[test]
fn prune_passes_what_is_broken() {
    let home = Home::fixture();
    home.execute(
        "UPDATE image_ref SET reference = 'UPPER case!' WHERE reference = 'docker.io/acme/app00003:v1';
         UPDATE layer SET diff_id = 'sha256:../../../etc/passwd' WHERE id = 100;",
    );
    let layers = home.cache().join("layers");
    let directory =
        layers.join("sha256_d000000000000000000000000000000000000000000000000000000000000030.erofs");
    fs::remove_file(&directory).expect("a layer taken away");
    fs::create_dir_all(directory.join("inside")).expect("a directory in its place");
    fs::remove_file(
        layers.join("sha256_d000000000000000000000000000000000000000000000000000000000000031.erofs"),
    )
    .expect("a layer lost");
    let stray = layers.join("notes.txt");
    fs::write(&stray, "mine").expect("a stray file");
    let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!((report.image_refs_removed, report.manifests_removed, report.layers_removed), (38, 37, 222));
    assert!(directory.join("inside").exists() && stray.exists());
    assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
    let verified = run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report");
    let foreign = verified.findings.iter().filter(|finding| finding.kind == FindingKind::Foreign).count();
    assert_eq!(foreign, 2, "{:?}", verified.findings);
}

/// Ten references at once or one by one: what is shared goes with the last that needs it.
#[test]
fn every_reference_can_be_removed() {
    let home = Home::fixture();
    home.execute("DELETE FROM sandbox_rootfs; DELETE FROM snapshot_index;");
    for reference in home.texts("SELECT reference FROM image_ref") {
        remove(&home, &reference, false).expect("removed");
    }
    assert_eq!((rows(&home), files(&home)), ([0; 5], [0; 4]));
}

/// A lease that cannot be had counts as one that somebody holds: it spares one image, and stops nothing else.
#[test]
fn a_lease_that_cannot_be_had_is_busy() {
    let home = Home::fixture();
    let layer = "sha256_d00000000000000000000000000000000000000000000000000000000000009c.erofs";
    let key: String = Sha256::digest(layer.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let lease = home.cache().join(format!("layers/.msb-leases/{key}.lock"));
    let _ = fs::remove_file(&lease);
    fs::create_dir_all(&lease).expect("a directory in place of the lease");
    let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!((report.image_refs_removed, report.skipped_in_use), (37, 1));
    fs::remove_dir(&lease).expect("free again");
    remove(&home, UNUSED, false).expect("removed");
}

/// An image that is held spares no other that shares a layer with it, and a shared layer that is held spares none of
/// its images: it stays, and goes when nobody holds it.
#[test]
fn what_is_shared_spares_nobody() {
    let shared = format!("sha256_{}.erofs", "e".repeat(64));
    let digest = "sha256_a000000000000000000000000000000000000000000000000000000000000027";
    let fixture = || {
        let home = Home::fixture();
        fs::write(home.cache().join("layers").join(&shared), "layer").expect("a layer");
        home.execute(&format!(
            "INSERT INTO layer (id, diff_id, blob_digest) VALUES (99999, 'sha256:{0}', 'x');
             INSERT INTO manifest_layer (manifest_id, layer_id, position)
               SELECT id, 99999, 999 FROM manifest;",
            "e".repeat(64)
        ));
        // Nothing keeps it but what is held.
        home.execute("DELETE FROM sandbox_rootfs; DELETE FROM snapshot_index; DELETE FROM sandbox;");
        home
    };
    let prune = |home: &Home| run(async { Image::prune_local(&home.open().await).await }).expect("a report");

    let home = fixture();
    let leases = [home.lease("fsmeta", &format!("{digest}.erofs")), home.lease("layers", &shared)];
    let report = prune(&home);
    assert_eq!((report.image_refs_removed, report.skipped_in_use), (40, 1));
    assert!(home.cache().join("layers").join(&shared).exists());
    assert_eq!(home.count("SELECT count(*) FROM manifest_layer WHERE layer_id = 99999"), 1);
    drop(leases);

    let home = fixture();
    let lease = home.lease("layers", &shared);
    let report = prune(&home);
    assert_eq!((report.image_refs_removed, report.skipped_in_use), (41, 1));
    assert!(home.cache().join("layers").join(&shared).exists());
    assert_eq!(home.count("SELECT count(*) FROM layer"), 1);
    drop(lease);
    prune(&home);
    assert!(!home.cache().join("layers").join(&shared).exists());
    assert_eq!(home.count("SELECT count(*) FROM layer"), 0);
}

/// An image that has a layer twice is spared while that is held, as if it had it once.
#[test]
fn a_layer_that_is_there_twice() {
    let home = Home::made();
    let reference = "docker.io/acme/app:1".to_owned();
    let image = ImageSpec { reference, layers: vec![0, 0], age_days: 100, ..ImageSpec::default() };
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &[image]);
    let lease = home.lease("layers", &(layer_digest(0).replace(':', "_") + ".erofs"));
    run(async {
        let local = home.open().await;
        let report = Image::prune_local(&local).await.expect("a report");
        assert_eq!((report.image_refs_removed, report.skipped_in_use), (0, 1));
        drop(lease);
        assert_eq!(Image::prune_local(&local).await.expect("a report").image_refs_removed, 1);
    });
}
