//! Homes whose images have real layers: EROFS images made of entries, with the rows and the metadata of a pull.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use larder::reference::{Digest, Reference};
use larder_erofs::layer::LayerBuilder;
use larder_erofs::writer::{Entry, Options};
use larder_erofs::{EntryPath, Metadata, Name, Permissions, Timestamp, XattrName, Xattrs};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

/// A builder of a layer, from entries in the order of an archive.
pub struct LayerOf {
    builder: LayerBuilder<Cursor<Vec<u8>>>,
    metadata: Metadata,
}

impl Default for LayerOf {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerOf {
    /// Makes a layer without entries.
    pub fn new() -> Self {
        let metadata = Metadata {
            permissions: Permissions::from_mode(0o644),
            uid: 0,
            gid: 0,
            mtime: Timestamp::new(1_700_000_000, 0).expect("a time"),
            xattrs: Xattrs::new(),
        };
        let builder = LayerBuilder::new(Cursor::new(Vec::new()), Options::default()).expect("a layer");
        Self { builder, metadata }
    }

    /// Sets the permissions and owners of later entries.
    pub fn owned(mut self, mode: u32, uid: u32, gid: u32) -> Self {
        self.metadata.permissions = Permissions::from_mode(mode);
        (self.metadata.uid, self.metadata.gid) = (uid, gid);
        self
    }

    /// Sets the time of later entries.
    pub fn at(mut self, seconds: i64, nanoseconds: u32) -> Self {
        self.metadata.mtime = Timestamp::new(seconds, nanoseconds).expect("a time");
        self
    }

    /// Sets the extended attributes of later entries.
    pub fn xattrs(mut self, xattrs: &[(&[u8], &[u8])]) -> Self {
        self.metadata.xattrs = Xattrs::new();
        for (name, value) in xattrs {
            let name = XattrName::parse(name).expect("a name");
            self.metadata.xattrs.set(name, value).expect("an attribute");
        }
        self
    }

    /// Adds an entry.
    pub fn add(mut self, path: impl AsRef<[u8]>, entry: Entry<'_>) -> Self {
        let path = EntryPath::parse(path.as_ref()).expect("a path");
        add_named(&mut self.builder, &path, self.metadata.clone(), entry);
        self
    }

    /// Adds a file.
    pub fn file(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let mut content = content.as_ref();
        self.add(path, Entry::File { size: content.len() as u64, data: &mut content })
    }

    /// Adds a directory.
    pub fn directory(self, path: impl AsRef<[u8]>) -> Self {
        self.add(path, Entry::Directory)
    }

    /// Adds a hard link.
    pub fn link(mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let parse = |path: &[u8]| EntryPath::parse(path).expect("a path");
        self.builder.hard_link(&parse(path.as_ref()), &parse(target.as_ref())).expect("a link");
        self
    }

    /// Returns the EROFS image.
    pub fn done(self) -> Vec<u8> {
        self.builder.finish().expect("an image").0.into_inner()
    }
}

/// Adds an entry to a layer, or what its name means in an archive: `.wh.NAME` removes a name, `.wh..wh..opq` what is below
/// its directory.
pub fn add_named(
    builder: &mut LayerBuilder<Cursor<Vec<u8>>>,
    path: &EntryPath,
    metadata: Metadata,
    entry: Entry<'_>,
) {
    let parent = path.parent().unwrap_or_default();
    match path.file_name().and_then(|name| name.strip_prefix(b".wh.")) {
        Some(b".wh..opq") => builder.opaque(&parent).expect("an opaque directory"),
        Some(name) => {
            let removed = parent.join(&Name::parse(name).expect("a name")).expect("a path");
            builder.whiteout(&removed, metadata.mtime).expect("a whiteout");
        }
        None => drop(builder.add(path, metadata, entry).expect("an entry")),
    }
}

/// An image to add to a home.
#[derive(Debug, Clone)]
pub struct RealImage {
    /// The reference.
    pub reference: &'static str,
    /// The fields of its config besides `rootfs`.
    pub config: Value,
    /// The EROFS images, bottom to top.
    pub layers: Vec<Vec<u8>>,
}

/// Returns the diff ID in the index of a layer of [`fill`]. It differs from that of an archive by Larder, as if another
/// program had written the layer's archive.
pub fn source_diff_id(layer: &[u8]) -> String {
    Digest::of(layer).to_string()
}

/// Returns the path in the cache of a layer of [`fill`].
pub fn layer_path(layer: &[u8]) -> String {
    format!("layers/{}.erofs", source_diff_id(layer).replace(':', "_"))
}

/// Adds images to an existing home, as a pull does.
pub fn fill(home: &Path, images: &[RealImage]) {
    let cache = home.join("cache");
    for room in ["layers", "fsmeta", "vmdk", "manifests", "tmp"] {
        fs::create_dir_all(cache.join(room)).expect("a directory");
    }
    let index = Connection::open(home.join("db/msb.db")).expect("the index");
    for image in images {
        add(&index, &cache, image);
    }
}

/// Returns the text of an image's config in a home filled by [`fill`]. Its form differs from that of a serializer.
pub fn config_text(image: &RealImage) -> String {
    let diff_ids: Vec<String> = image.layers.iter().map(|layer| source_diff_id(layer)).collect();
    let fields = image.config.as_object().expect("fields");
    let fields = fields.iter().rev().map(|(key, value)| format!("  {} : {value},\n", json!(key)));
    format!(
        "{{\n{}  \"rootfs\": {{\"type\": \"layers\", \"diff_ids\": {}}}\n}}\n",
        fields.collect::<String>(),
        json!(diff_ids)
    )
}

fn add(index: &Connection, cache: &Path, image: &RealImage) {
    let config = config_text(image);
    let config_digest = Digest::of(config.as_bytes()).to_string();
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|layer| {
            json!({
                "digest": Digest::of(&[b"blob", layer.as_slice()].concat()).as_str(), "diff_id": source_diff_id(layer),
                "media_type": "application/vnd.oci.image.layer.v1.tar+gzip", "size_bytes": 1000,
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "config": { "digest": config_digest, "size": config.len() },
        "layers": layers,
        "annotations": { "org.opencontainers.image.source": "https://example.com/app" },
    });
    let manifest = manifest.to_string();
    let digest = Digest::of(manifest.as_bytes()).to_string();
    let known = index.query_row("SELECT id FROM manifest WHERE digest = ?1", [&digest], |row| row.get(0));
    let id: i64 = known.optional().expect("an answer").unwrap_or_else(|| {
        for layer in &image.layers {
            fs::write(cache.join(layer_path(layer)), layer).expect("a layer");
        }
        add_rows(index, image, &digest, &config_digest, &layers)
    });
    let now = "2026-11-20 10:00:00";
    index
        .execute(
            "INSERT INTO image_ref (reference, manifest_id, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)",
            params![image.reference, id, now],
        )
        .expect("a reference");
    let metadata = json!({
        "manifest_digest": digest, "config_digest": config_digest, "raw_manifest_json": manifest,
        "raw_config_json": config, "config": {}, "layers": layers,
    });
    fs::write(cache.join(metadata_path(image.reference)), metadata.to_string()).expect("the metadata");
}

/// Returns the path in the cache of a reference's metadata file.
pub fn metadata_path(reference: &str) -> String {
    let reference: Reference = reference.parse().expect("a reference");
    let key = Digest::of(reference.as_str().as_bytes()).to_string();
    format!("manifests/{}.json", key.trim_start_matches("sha256:"))
}

fn add_rows(
    index: &Connection,
    image: &RealImage,
    digest: &str,
    config_digest: &str,
    layers: &[Value],
) -> i64 {
    let text = |key: &str| image.config[key].as_str().map(str::to_owned);
    let list = |key: &str| {
        Some(&image.config["config"][key]).filter(|list| list.is_array()).map(ToString::to_string)
    };
    let field = |key: &str| image.config["config"][key].as_str().map(str::to_owned);
    index
        .execute(
            "INSERT INTO manifest (digest, config_digest, architecture, os, layer_count, total_size_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                digest,
                config_digest,
                text("architecture"),
                text("os"),
                layers.len() as i64,
                1000 * layers.len() as i64
            ],
        )
        .expect("a manifest");
    let id = index.last_insert_rowid();
    index
        .execute(
            "INSERT INTO config (manifest_id, digest, env, cmd, entrypoint, labels, working_dir, user)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                id,
                config_digest,
                list("Env"),
                list("Cmd"),
                list("Entrypoint"),
                image.config["config"]["Labels"].as_object().map(|labels| json!(labels).to_string()),
                field("WorkingDir"),
                field("User"),
            ],
        )
        .expect("a config");
    for (position, layer) in layers.iter().enumerate() {
        let (diff_id, blob) = (layer["diff_id"].as_str(), layer["digest"].as_str());
        index
            .execute(
                "INSERT INTO layer (diff_id, blob_digest, media_type, compressed_size_bytes)
                 VALUES (?1, ?2, 'application/vnd.oci.image.layer.v1.tar+gzip', 1000) ON CONFLICT DO NOTHING",
                params![diff_id, blob],
            )
            .expect("a layer");
        index
            .execute(
                "INSERT INTO manifest_layer (manifest_id, layer_id, position)
                 SELECT ?1, id, ?2 FROM layer WHERE diff_id = ?3",
                params![id, position as i64, diff_id],
            )
            .expect("a layer of the manifest");
    }
    id
}
