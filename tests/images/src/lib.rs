//! Test images that are made in memory, and the archives and layouts that contain them.
//!
//! An archive is a map from names to contents, so a test can damage any file before it is written.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The files of an archive or a layout.
pub type Files = BTreeMap<String, Vec<u8>>;

/// An entry of a layer.
#[derive(Debug, Clone)]
pub enum Item<'a> {
    /// A directory.
    Dir(&'a str),
    /// A file with this content.
    File(&'a str, &'a [u8]),
    /// A symbolic link with this target.
    Symlink(&'a str, &'a str),
    /// A hard link to this name.
    HardLink(&'a str, &'a str),
    /// An entry of another type, with this content.
    Raw(&'a str, u8, &'a [u8]),
}

/// The compression of layer blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// No compression.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// An image that is not in an archive or layout yet.
#[derive(Debug, Clone)]
pub struct TestImage {
    /// The layers as tar archives, from bottom to top.
    pub layers: Vec<Vec<u8>>,
    /// The architecture.
    pub architecture: String,
    /// The settings for starting a sandbox: the field `config` of the image's config.
    pub runtime: Value,
    /// The names.
    pub names: Vec<String>,
}

/// Returns the digest of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Returns the name of a digest's blob in a layout.
pub fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Returns the architecture of this machine, as images name it.
pub fn this_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Returns the architecture of another machine.
pub fn foreign_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" }
}

/// Makes a layer with these entries.
pub fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let (name, kind, content, target): (_, u8, &[u8], _) = match item {
            Item::Dir(name) => (name, b'5', &[], ""),
            Item::File(name, content) => (name, b'0', content, ""),
            Item::Symlink(name, target) => (name, b'2', &[], *target),
            Item::HardLink(name, target) => (name, b'1', &[], *target),
            Item::Raw(name, kind, content) => (name, *kind, content, ""),
        };
        let mut header = tar::Header::new_ustar();
        // Not through the crate's own checks: some names are bad on purpose.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).expect("an entry");
    }
    tar.into_inner().expect("an archive")
}

/// Compresses bytes.
pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).expect("compressed");
            writer.finish().expect("compressed")
        }
        Packing::Zstd => zstd::encode_all(bytes, 1).expect("compressed"),
    }
}

impl TestImage {
    /// Makes an image for this machine.
    pub fn new(names: &[&str], layers: Vec<Vec<u8>>) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let runtime = json!({
            "Env": ["PATH=/bin"], "Cmd": ["sh"], "StopSignal": "SIGINT", "Labels": { "a": "b" },
        });
        Self { layers, architecture: this_architecture().to_owned(), runtime, names }
    }

    /// Makes a small image of two layers, the upper of which removes and replaces something of the lower.
    pub fn small(names: &[&str]) -> Self {
        let lower = layer(&[
            Item::Dir("etc"),
            Item::File("etc/motd", b"hello\n"),
            Item::File("etc/gone", b"gone\n"),
            Item::Symlink("etc/link", "../../../motd"),
            Item::HardLink("etc/same", "etc/motd"),
        ]);
        let upper = layer(&[Item::File("etc/.wh.gone", b""), Item::File("etc/motd", b"other\n")]);
        Self::new(names, vec![lower, upper])
    }

    /// Returns the digests of its layers.
    pub fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| digest(layer)).collect()
    }

    /// Returns its config.
    pub fn config(&self) -> Value {
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.runtime,
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids() },
        })
    }
}

/// Returns the files that `docker save` writes.
pub fn docker_files(images: &[TestImage]) -> Files {
    let mut files = Files::new();
    let mut entries = Vec::new();
    for image in images {
        let config = image.config().to_string().into_bytes();
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let mut names = Vec::new();
        for layer in &image.layers {
            let name = format!("{}/layer.tar", &digest(layer)[7..]);
            files.insert(name.clone(), layer.clone());
            names.push(name);
        }
        entries.push(json!({ "Config": config_name, "RepoTags": image.names, "Layers": names }));
        files.insert(config_name, config);
    }
    files.insert("manifest.json".to_owned(), Value::from(entries).to_string().into_bytes());
    files
}

/// Returns the files of an OCI image layout.
pub fn layout_files(images: &[TestImage], packing: Packing) -> Files {
    let mut files = Files::new();
    let mut manifests = Vec::new();
    for image in images {
        let platform = json!({ "os": "linux", "architecture": image.architecture });
        let manifest = add_manifest(&mut files, image, packing);
        for name in image.names.iter().map(String::as_str).chain(image.names.is_empty().then_some("")) {
            let mut descriptor = manifest.clone();
            descriptor["platform"] = platform.clone();
            if !name.is_empty() {
                descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
            }
            manifests.push(descriptor);
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    files.insert("index.json".to_owned(), index.into_bytes());
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

/// Adds a blob, and returns its descriptor.
pub fn add_blob(files: &mut Files, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = digest(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    files.insert(blob_name(&digest), bytes);
    descriptor
}

/// Adds the manifest of an image with everything that it needs, and returns its descriptor.
pub fn add_manifest(files: &mut Files, image: &TestImage, packing: Packing) -> Value {
    let suffix = match packing {
        Packing::Plain => "",
        Packing::Gzip => "+gzip",
        Packing::Zstd => "+zstd",
    };
    let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
    let layers: Vec<Value> =
        image.layers.iter().map(|layer| add_blob(files, &media_type, pack(layer, packing))).collect();
    let config = image.config().to_string().into_bytes();
    let config = add_blob(files, "application/vnd.oci.image.config.v1+json", config);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    add_blob(files, media_type, manifest.to_string().into_bytes())
}

/// Returns files as one tar archive.
pub fn tar_of(files: &Files) -> Vec<u8> {
    let items: Vec<Item<'_>> = files.iter().map(|(name, content)| Item::File(name, content)).collect();
    layer(&items)
}

/// Writes files into a directory.
pub fn write_directory(directory: &Path, files: &Files) {
    for (name, content) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
}
