//! SQLite holds no value to the type of its column: one that is odd hides no other image and stops nothing.

use larder::Image;
use larder_tests::{Home, run};

/// What is listed, planned to be removed, and left after a prune.
fn prune(home: &Home) -> (usize, u32, usize) {
    run(async {
        let local = home.open().await;
        let listed = Image::list_local(&local).await.expect("the images");
        for image in &listed {
            Image::inspect_local(&local, image.reference()).await.expect("an image");
        }
        let plan = local.plan_prune().await.expect("a plan");
        Image::prune_local(&local).await.expect("pruned");
        let left = Image::list_local(&local).await.expect("the images");
        (listed.len(), plan.report.image_refs_removed, left.len())
    })
}

/// Sizes, names, digests and configs of another type or form than expected stop neither a listing nor a prune: the row goes with
/// the others.
#[test]
fn odd_values() {
    for statement in [
        "UPDATE manifest SET total_size_bytes = 'many' WHERE id = 5",
        "UPDATE manifest SET total_size_bytes = 1.5, layer_count = 'some', architecture = x'ff' WHERE id = 5",
        "UPDATE config SET digest = x'00ff', env = x'ff', working_dir = 7 WHERE manifest_id = 5",
        "UPDATE layer SET compressed_size_bytes = 'x', erofs_size_bytes = x'00', blob_digest = x'ff' WHERE id = 5",
        "INSERT INTO sandbox (id, name, config, status) VALUES (900, x'ff', x'ff00', 'stopped')",
        "UPDATE image_ref SET created_at = x'ff', updated_at = 3 WHERE id = 5",
        "UPDATE manifest SET digest = '' WHERE id = 5",
        "UPDATE manifest SET digest = upper(digest) WHERE id = 5",
        "UPDATE manifest SET digest = 'sha512:' || substr(digest, 8) || substr(digest, 8) WHERE id = 5",
        "UPDATE image_ref SET reference = '' WHERE id = 5",
    ] {
        let home = Home::fixture();
        home.execute(statement);
        assert_eq!(prune(&home), (41, 38, 3), "{statement}");
    }
}

/// A row whose reference is no text names no image: it is left out, and what it needs stays.
#[test]
fn odd_references() {
    for value in ["x'646f636b6572'", "CAST(x'ff' AS TEXT)"] {
        let home = Home::fixture();
        let (id, digest): (i64, String) = home
            .index()
            .query_row(
                "SELECT ref.id, manifest.digest FROM image_ref AS ref JOIN manifest ON manifest.id = ref.manifest_id
                  WHERE reference = 'docker.io/acme/app00004:v7'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .expect("an image");
        home.execute(&format!("UPDATE image_ref SET reference = {value} WHERE id = {id}"));
        assert_eq!(prune(&home), (40, 37, 3), "{value}");
        assert_eq!(home.count(&format!("SELECT count(*) FROM manifest WHERE digest = '{digest}'")), 1);
        assert!(home.files("fsmeta").contains(&format!("{}.erofs", digest.replace(':', "_"))));
    }
}
