//! Homes for measurements: any number of images that share layers, manifests and users as specified.

use std::fs::{self, File};
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};

/// The users of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Users {
    /// No user.
    #[default]
    None,
    /// A sandbox, by its row.
    Sandbox,
    /// A sandbox whose row names no manifest: its config names the reference.
    NamedInConfig,
    /// A snapshot.
    Snapshot,
}

/// An image to add to a home.
#[derive(Debug, Clone, Default)]
pub struct ImageSpec {
    /// The reference.
    pub reference: String,
    /// The number of its manifest. References with the same number share a manifest.
    pub manifest: u32,
    /// The numbers of its layers. Manifests with the same numbers share layers. Only the first reference of a
    /// manifest counts.
    pub layers: Vec<u32>,
    /// The users of the image.
    pub users: Users,
    /// The age in days, at the time passed to [`populate`].
    pub age_days: i64,
    /// The number of days since its last use.
    pub unused_days: i64,
}

/// Returns the digest of the manifest with this number.
pub fn manifest_digest(number: u32) -> String {
    format!("sha256:a{number:063x}")
}

/// Returns the digest of the layer with this number.
pub fn layer_digest(number: u32) -> String {
    format!("sha256:d{number:063x}")
}

/// Returns so many images, `docker.io/acme/app00000:v1` and so on, that nothing has used for a hundred days. Each has a layer
/// of its own, above one that all share.
pub fn images_on_one_base(count: u32) -> Vec<ImageSpec> {
    let image = |number: u32| ImageSpec {
        reference: format!("docker.io/acme/app{number:05}:v1"),
        manifest: number,
        layers: vec![9_999_999, number],
        age_days: 100,
        unused_days: 100,
        ..ImageSpec::default()
    };
    (0..count).map(image).collect()
}

/// Adds images with their files to an existing home.
pub fn populate(home: &Path, now: DateTime<Utc>, images: &[ImageSpec]) {
    let cache = home.join("cache");
    for room in ["layers", "fsmeta", "vmdk", "manifests", "tmp"] {
        fs::create_dir_all(cache.join(room)).expect("a directory");
    }
    let mut index = Connection::open(home.join("db/msb.db")).expect("the index");
    index.pragma_update(None, "synchronous", "off").expect("a setting");
    let transaction = index.transaction().expect("a transaction");
    for image in images {
        add(&transaction, &cache, now, image);
    }
    transaction.commit().expect("the images");
}

fn add(index: &Connection, cache: &Path, now: DateTime<Utc>, image: &ImageSpec) {
    let digest = manifest_digest(image.manifest);
    let time = |days: i64| (now - TimeDelta::days(days)).format("%Y-%m-%d %H:%M:%S%.9f").to_string();
    let known =
        index.query_row("SELECT id FROM manifest WHERE digest = ?1", [&digest], |row| row.get::<_, i64>(0));
    let manifest = known.unwrap_or_else(|_| add_manifest(index, cache, &digest, image));
    index
        .prepare_cached(
            "INSERT INTO image_ref (reference, manifest_id, created_at, updated_at) VALUES (?1, ?2, ?3, ?4)",
        )
        .and_then(|mut insert| {
            insert.execute(params![image.reference, manifest, time(image.age_days), time(image.unused_days)])
        })
        .expect("a reference");
    let normalized: larder::reference::Reference = image.reference.parse().expect("a reference");
    let key: String = Sha256::digest(normalized.as_str()).iter().map(|byte| format!("{byte:02x}")).collect();
    write(
        &cache.join("manifests").join(format!("{key}.json")),
        format!(r#"{{"manifest_digest":"{digest}"}}"#).as_bytes(),
    );
    add_user(index, image, manifest, &digest);
}

fn add_manifest(index: &Connection, cache: &Path, digest: &str, image: &ImageSpec) -> i64 {
    let manifest = index
        .prepare_cached(
            "INSERT INTO manifest (digest, config_digest, architecture, os, layer_count, total_size_bytes)
             VALUES (?1, ?1, 'amd64', 'linux', ?2, ?3)",
        )
        .and_then(|mut insert| {
            insert.insert(params![digest, image.layers.len() as i64, 1_000_000 * image.layers.len() as i64])
        })
        .expect("a manifest");
    index
        .prepare_cached(
            "INSERT INTO config (manifest_id, digest, env, labels) VALUES (?1, ?2, '[\"PATH=/bin\"]', '{}')",
        )
        .and_then(|mut insert| insert.execute(params![manifest, digest]))
        .expect("a config");
    let name = digest.replace(':', "_");
    write(&cache.join("fsmeta").join(format!("{name}.erofs")), &erofs(1));
    write(&cache.join("vmdk").join(format!("{name}.vmdk")), b"# Disk DescriptorFile\n");
    for (position, &number) in image.layers.iter().enumerate() {
        let diff_id = layer_digest(number);
        let layer = index
            .prepare_cached(
                "INSERT INTO layer (diff_id, blob_digest, compressed_size_bytes) VALUES (?1, ?1, 1000000)
                 ON CONFLICT (diff_id) DO UPDATE SET blob_digest = excluded.blob_digest RETURNING id",
            )
            .and_then(|mut insert| insert.query_row([&diff_id], |row| row.get::<_, i64>(0)))
            .expect("a layer");
        index
            .prepare_cached(
                "INSERT INTO manifest_layer (manifest_id, layer_id, position) VALUES (?1, ?2, ?3)",
            )
            .and_then(|mut insert| insert.execute(params![manifest, layer, position as i64]))
            .expect("a layer of the manifest");
        let file = cache.join("layers").join(format!("{}.erofs", diff_id.replace(':', "_")));
        if !file.exists() {
            write(&file, &erofs(1 + number as usize % 3));
        }
    }
    manifest
}

fn add_user(index: &Connection, image: &ImageSpec, manifest: i64, digest: &str) {
    let name = format!("user of {}", image.reference);
    let sandbox = |manifest: Option<i64>, config: &str| {
        index
            .execute(
                "INSERT INTO sandbox (name, config, status) VALUES (?1, ?2, 'stopped')",
                params![name, config],
            )
            .expect("a sandbox");
        index
            .execute(
                "INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode) VALUES (?1, ?2, 'layered')",
                params![index.last_insert_rowid(), manifest],
            )
            .expect("its root");
    };
    match image.users {
        Users::None => {}
        Users::Sandbox => sandbox(Some(manifest), "{}"),
        Users::NamedInConfig => {
            sandbox(None, &format!(r#"{{"image":{{"reference":"{}"}}}}"#, image.reference))
        }
        Users::Snapshot => {
            index
                .execute(
                    "INSERT INTO snapshot_index (digest, name, scope, state_kind, image_ref, image_manifest_digest,
                                                 artifact_path, created_at, indexed_at)
                     VALUES (?1, ?1, 'managed', 'disk', ?2, ?3, ?1, '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
                    params![name, image.reference, digest],
                )
                .expect("a snapshot");
        }
    }
}

/// Returns the minimum of bytes that pass for an EROFS image: this many blocks, and the superblock's first bytes.
fn erofs(blocks: usize) -> Vec<u8> {
    let mut image = vec![0; blocks * 4096];
    image[1024..1028].copy_from_slice(&0xE0F5_E1E2_u32.to_le_bytes());
    image
}

/// Writes a file that was last modified long ago, so that its age does not protect it.
fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("a file");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    File::options().write(true).open(path).and_then(|file| file.set_modified(long_ago)).expect("its time");
}
