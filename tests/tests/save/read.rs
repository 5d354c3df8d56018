//! Archives and layers, read back without the code that wrote them.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::path::Path;

use larder::reference::Digest;
use larder_erofs::layer::LayerBuilder;
use larder_erofs::reader::Image;
use larder_erofs::writer::{Entry, Options};
use larder_erofs::{DeviceNumber, EntryPath, FileKind, Metadata, Permissions, Timestamp, XattrName, Xattrs};
use larder_tests::real::add_named;
use serde_json::Value;
use tar::EntryType;

/// The members of an archive by name; none is in it twice.
pub(crate) fn members(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(archive).expect("the archive"));
    let mut members = BTreeMap::new();
    for entry in archive.entries().expect("members") {
        let mut entry = entry.expect("a member");
        let name = entry.path().expect("a name").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        assert!(members.insert(name.clone(), content).is_none(), "{name} twice");
    }
    members
}

/// An image as an archive has it.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) tags: Vec<String>,
    pub(crate) config: String,
    /// Plain tar, bottom to top.
    pub(crate) layers: Vec<Vec<u8>>,
}

/// The images of a Docker archive, their digests checked.
pub(crate) fn docker(archive: &Path) -> Vec<Saved> {
    let members = members(archive);
    let images: Value = serde_json::from_slice(&members["manifest.json"]).expect("a manifest");
    let image = |image: &Value| {
        let config = image["Config"].as_str().expect("a config");
        let layers = image["Layers"].as_array().expect("layers").iter();
        let layers: Vec<Vec<u8>> =
            layers.map(|name| plain(&members[name.as_str().expect("a name")])).collect();
        let saved = Saved {
            tags: image["RepoTags"].as_array().expect("tags").iter().map(text).collect(),
            config: String::from_utf8(members[config].clone()).expect("text"),
            layers,
        };
        let hex = config.trim_start_matches("blobs/sha256/").trim_end_matches(".json");
        assert_eq!(format!("sha256:{hex}"), digest(saved.config.as_bytes()));
        check_diff_ids(&saved);
        saved
    };
    images.as_array().expect("images").iter().map(image).collect()
}

/// The images of an OCI archive, their digests and lengths checked. One that has several tags is there for each.
pub(crate) fn oci(archive: &Path) -> Vec<(Saved, Value)> {
    let members = members(archive);
    assert_eq!(members["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let blob = |descriptor: &Value| -> Vec<u8> {
        let name = text(&descriptor["digest"]);
        let content = members[&format!("blobs/{}", name.replace(':', "/"))].clone();
        assert_eq!(digest(&content), name);
        assert_eq!(descriptor["size"].as_u64(), Some(content.len() as u64));
        content
    };
    let index: Value = serde_json::from_slice(&members["index.json"]).expect("an index");
    let image = |descriptor: &Value| {
        let manifest: Value = serde_json::from_slice(&blob(descriptor)).expect("a manifest");
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let content = |layer: &Value| {
            let blob = blob(layer);
            let suffix = suffix(&blob);
            assert_eq!(layer["mediaType"], format!("application/vnd.oci.image.layer.v1.tar{suffix}"));
            plain(&blob)
        };
        let tag = descriptor["annotations"].get("org.opencontainers.image.ref.name");
        let saved = Saved {
            tags: tag.iter().map(|tag| text(tag)).collect(),
            config: String::from_utf8(blob(&manifest["config"])).expect("text"),
            layers: layers.map(content).collect(),
        };
        check_diff_ids(&saved);
        (saved, manifest)
    };
    index["manifests"].as_array().expect("manifests").iter().map(image).collect()
}

/// The end of the media type of a blob.
fn suffix(blob: &[u8]) -> &'static str {
    match blob {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "+zstd",
        _ => "",
    }
}

/// What a blob holds: one member of gzip, frames of zstd, or the blob itself.
fn plain(blob: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match suffix(blob) {
        "+gzip" => drop(flate2::read::GzDecoder::new(blob).read_to_end(&mut plain).expect("gzip")),
        "+zstd" => zstd::stream::copy_decode(blob, &mut plain).expect("zstd"),
        _ => plain.extend_from_slice(blob),
    }
    plain
}

fn check_diff_ids(image: &Saved) {
    let config: Value = serde_json::from_str(&image.config).expect("a config");
    let layers: Vec<String> = image.layers.iter().map(|layer| digest(layer)).collect();
    assert_eq!(config["rootfs"]["diff_ids"], Value::from(layers));
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// What an EROFS image holds, in words, by path. Sockets are left out, as archives leave them out.
pub(crate) fn holds(image: &[u8]) -> BTreeMap<String, String> {
    let image = Image::open(image).expect("an image");
    let mut first_names = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for entry in image.walk() {
        let entry = entry.expect("an entry");
        let inode = entry.inode;
        if inode.kind() == FileKind::Socket {
            continue;
        }
        let path = entry.path.to_string();
        let first = first_names.entry(inode.nid()).or_insert_with(|| path.clone());
        let content = match inode.kind() {
            FileKind::Regular => {
                let mut content = Vec::new();
                image.data(&inode).expect("a file").read_to_end(&mut content).expect("its content");
                digest(&content)
            }
            FileKind::Symlink => image.link_target(&inode).expect("a link").escape_ascii().to_string(),
            _ => format!("{:?}", inode.device_number()),
        };
        let metadata = image.metadata(&inode).expect("metadata");
        let links = if inode.kind() == FileKind::Directory { 0 } else { inode.nlink() };
        let implied = inode.is_implied();
        let words = format!("{:?} {links} of {first} implied={implied} {content} {metadata:?}", inode.kind());
        entries.insert(path, words);
    }
    entries
}

/// The EROFS image of a layer's archive. What pax headers mean is read off the standard, not off the writer.
pub(crate) fn layer_of(tar: &[u8]) -> Vec<u8> {
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), Options::default()).expect("a layer");
    let mut archive = tar::Archive::new(tar);
    let mut records = BTreeMap::new();
    // Raw: the crate takes a line feed in a value for the end of its record.
    for entry in archive.entries().expect("members").raw(true) {
        let mut entry = entry.expect("a member");
        let header = entry.header().clone();
        if header.entry_type() == EntryType::XHeader {
            let mut pax = Vec::new();
            entry.read_to_end(&mut pax).expect("its content");
            records = parse_pax(&pax);
            continue;
        }
        let mut metadata = Metadata {
            permissions: Permissions::from_mode(header.mode().expect("a mode")),
            uid: header.uid().expect("an owner") as u32,
            gid: header.gid().expect("a group") as u32,
            mtime: Timestamp::new(header.mtime().expect("a time") as i64, 0).expect("a time"),
            xattrs: Xattrs::new(),
        };
        let mut name = entry.path_bytes().into_owned();
        let mut target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
        for (key, value) in std::mem::take(&mut records) {
            let number = || String::from_utf8(value.clone()).expect("a number");
            match key.as_slice() {
                b"uid" => metadata.uid = number().parse().expect("a number"),
                b"gid" => metadata.gid = number().parse().expect("a number"),
                b"mtime" => metadata.mtime = time(&number()),
                b"path" => name = value,
                b"linkpath" => target = value,
                _ => {
                    let name = key.strip_prefix(b"SCHILY.xattr.").expect("an extended attribute");
                    let name = XattrName::parse(name).expect("its name");
                    metadata.xattrs.set(name, &value).expect("its value");
                }
            }
        }
        let path = EntryPath::parse(&name).expect("a path");
        let number = || {
            let part = |number: std::io::Result<Option<u32>>| number.expect("a number").expect("a number");
            DeviceNumber::new(part(header.device_major()), part(header.device_minor())).expect("a number")
        };
        let kind = match header.entry_type() {
            EntryType::Regular => Entry::File { size: entry.size(), data: &mut entry },
            EntryType::Directory => Entry::Directory,
            EntryType::Symlink => Entry::Symlink(&target),
            EntryType::Char => Entry::CharDevice(number()),
            EntryType::Block => Entry::BlockDevice(number()),
            EntryType::Fifo => Entry::Fifo,
            EntryType::Link => {
                builder.hard_link(&path, &EntryPath::parse(&target).expect("a path")).expect("a link");
                continue;
            }
            kind => panic!("a member of kind {kind:?}"),
        };
        add_named(&mut builder, &path, metadata, kind);
    }
    builder.finish().expect("an image").0.into_inner()
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`.
fn parse_pax(mut pax: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    while !pax.is_empty() {
        let space = pax.iter().position(|&byte| byte == b' ').expect("a space");
        let length: usize = std::str::from_utf8(&pax[..space]).expect("a number").parse().expect("a number");
        let record = pax[space + 1..length].strip_suffix(b"\n").expect("a line feed");
        let equals = record.iter().position(|&byte| byte == b'=').expect("an equals sign");
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        pax = &pax[length..];
    }
    records
}

/// A decimal number of seconds since 1970.
fn time(text: &str) -> Timestamp {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let fraction: i128 = format!("{fraction:0<9}").parse().expect("a fraction");
    let nanoseconds = sign * (whole.parse::<i128>().expect("seconds") * 1_000_000_000 + fraction);
    let seconds = nanoseconds.div_euclid(1_000_000_000) as i64;
    Timestamp::new(seconds, nanoseconds.rem_euclid(1_000_000_000) as u32).expect("a time")
}
