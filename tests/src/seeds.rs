//! The seeds of fuzzing: small, real inputs for each target.
//!
//! Layers are from this machine's `tar` in each of its formats, images are made from them, and archives and documents
//! are from [`archive`](crate::archive).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use larder::ingest::{IngestLimits, fuzzing};
use larder_erofs::format::DeviceTag;
use larder_erofs::layer::LayerBuilder;
use larder_erofs::merge::Merger;
use larder_erofs::reader::Image;
use larder_erofs::writer::{Encoding, Entry, Options};
use larder_erofs::{DeviceNumber, EntryPath, Metadata, Permissions, Timestamp, XattrName, Xattrs};
use serde_json::json;

use crate::archive::{
    Item, Packing, TestImage, docker_files, layer, layout_files, pack, tar_of, this_architecture,
};
use crate::judge::tool;

/// The seeds by name.
pub type Seeds = BTreeMap<String, Vec<u8>>;

/// Returns the seeds of each target.
pub fn seeds() -> BTreeMap<&'static str, Seeds> {
    let layers = layers();
    BTreeMap::from([
        ("archive", archives()),
        ("challenge", challenges()),
        ("choice", layouts()),
        ("credentials", credentials()),
        ("erofs", images(&layers)),
        ("manifest", documents()),
        ("tar", blobs(&layers)),
    ])
}

/// Returns what registries ask for.
fn challenges() -> Seeds {
    let seeds = [
        ("basic", "Basic realm=\"Registry Realm\""),
        (
            "docker-hub",
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:library/app:pull\"",
        ),
        ("refused", "Bearer realm=\"https://r/token\",service=\"r\",error=\"insufficient_scope\""),
        ("two", "Basic realm=\"x\", Bearer realm=\"https://r/token\""),
        ("lines", "Negotiate\nbearer realm=https\nBASIC"),
        ("escaped", "Bearer realm=\"https://r/\\\"a\\\"\", service=\"b\\\\\""),
    ];
    seeds.into_iter().map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).collect()
}

/// Returns files with credentials.
fn credentials() -> Seeds {
    let auth = json!({ "auth": "YWNtZTpzZWNyZXQ=" });
    let seeds = [
        ("docker-hub", json!({ "auths": { "https://index.docker.io/v1/": auth } })),
        ("parts", json!({ "auths": { "r:5000": auth, "r:5000/acme": auth, "https://r:5000/v2/": auth } })),
        ("pair", json!({ "auths": { "r:5000": { "auth": "", "username": "acme", "password": "secret" } } })),
        (
            "token",
            json!({ "auths": { "r:5000": { "auth": "MDAwOg==", "identitytoken": "t" }, "docker.io": null } }),
        ),
        (
            "helpers",
            json!({ "credsStore": "desktop", "credHelpers": { "r:5000": "ecr-login", "other": null } }),
        ),
        ("empty", json!({ "auths": null, "credsStore": "" })),
    ];
    seeds.into_iter().map(|(name, file)| (name.to_owned(), file.to_string().into_bytes())).collect()
}

/// Returns layers that are not compressed.
fn layers() -> Seeds {
    let mut layers = Seeds::new();
    for (index, layer) in TestImage::small(&[]).layers.into_iter().enumerate() {
        layers.insert(format!("small-{index}"), layer);
    }
    layers.insert("odd".to_owned(), odd_layer());
    layers.insert("extended".to_owned(), extended_layer());
    let directory = tempfile::tempdir().expect("a directory");
    make_tree(directory.path());
    for (name, options) in [
        ("v7", &["--format=v7", "tree"][..]),
        ("ustar", &["--format=ustar", "tree"]),
        ("gnu", &["--format=gnu", "tree"]),
        ("posix", &["--format=posix", "tree"]),
        ("sparse-oldgnu", &["--format=oldgnu", "--sparse", "holes"]),
        ("sparse-gnu", &["--format=gnu", "--sparse", "holes"]),
        ("sparse-0.0", &["--format=posix", "--sparse", "--sparse-version=0.0", "holes"]),
        ("sparse-0.1", &["--format=posix", "--sparse", "--sparse-version=0.1", "holes"]),
        ("sparse-1.0", &["--format=posix", "--sparse", "--sparse-version=1.0", "holes"]),
    ] {
        layers.insert(name.to_owned(), tar_program(directory.path(), options));
    }
    layers
}

/// Makes a `tree` with an entry of each kind that needs no privilege, and a file with `holes`.
fn make_tree(root: &Path) {
    let long = "n".repeat(120);
    fs::create_dir_all(root.join("tree/etc").join(&long)).expect("directories");
    fs::write(root.join("tree/etc/motd"), "hello\n").expect("a file");
    fs::write(root.join("tree/etc").join(&long).join("file"), "x").expect("a file");
    fs::hard_link(root.join("tree/etc/motd"), root.join("tree/etc/same")).expect("a link");
    symlink("l".repeat(110), root.join("tree/etc/link")).expect("a link");
    tool("mkfifo", [root.join("tree/fifo")]);
    let mut holes = File::create(root.join("holes")).expect("a file");
    // More regions than have room in a header of GNU.
    for offset in (0..(7 * 32) << 10).step_by(32 << 10) {
        holes.seek(SeekFrom::Start(offset)).expect("a place");
        holes.write_all(b"data").expect("written");
    }
    holes.set_len(256 << 10).expect("a hole at its end");
}

/// Returns the archive that this machine's `tar` makes of a directory's tree. Other archives here are made by another
/// library.
fn tar_program(directory: &Path, options: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(directory).args(["-cf", "-", "-b1", "--sort=name", "--mtime=@1700000000.5"]);
    // Format v7 has no room for long names, and leaves them out with an error.
    let output = tar.args(options).output().expect("tar");
    assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Returns a layer of rare entries.
fn odd_layer() -> Vec<u8> {
    layer(&[
        Item::Dir("./"),
        Item::Raw("zero", b'3', b""),
        Item::Raw("block", b'4', b""),
        Item::Raw("fifo", b'6', b""),
        Item::Raw("contiguous", b'7', b""),
        Item::Raw("old", 0, b""),
        Item::Dir("a"),
        Item::File("a/.wh..wh..opq", b""),
        Item::File("a/.wh..wh.plnk", b""),
        Item::File("a/b/c/.wh.gone", b""),
        Item::HardLink("a/fifo", "/fifo"),
        Item::File("zero", b"replaced"),
        Item::Dir("zero"),
        Item::Raw("label", b'V', b"x"),
        Item::Symlink("through", "/a/b"),
        Item::Symlink("a/b/up", "../../../a"),
        Item::File("//through/up/below", b"below"),
        Item::File(".wh..wh.plnk/1.2", b"kept"),
        Item::HardLink("kept", "/.wh..wh.plnk/1.2"),
        Item::Raw("././@LongLink", b'L', &[b'n'; 120]),
        Item::Raw("x", b'x', b"7 uid=\n9 mtime=\n"),
        Item::Raw("x", b'x', b"10 uid=-2\n"),
        Item::File("zeros", &[0; 40_000]),
    ])
}

/// Returns a layer with extended headers: global ones, and ones for one entry.
fn extended_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut global = tar::Header::new_ustar();
    let comment = b"17 comment=hello\n";
    global.set_entry_type(tar::EntryType::XGlobalHeader);
    global.set_size(comment.len() as u64);
    tar.append_data(&mut global, "global", &comment[..]).expect("an entry");
    for (name, size) in [("file", 3), ("other", 0)] {
        tar.append_pax_extensions([
            ("mtime", &b"-1.25"[..]),
            ("path", name.as_bytes()),
            ("uid", b"4000000"),
            ("SCHILY.xattr.user.name", b"value"),
            ("SCHILY.xattr.security.capability", &[1, 0, 0, 2, 0, 4]),
            ("LIBARCHIVE.xattr.user.other", b"eA=="),
        ])
        .expect("an extended header");
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_uid(1 << 30);
        tar.append_data(&mut header, "x", &b"abc"[..size as usize]).expect("an entry");
    }
    tar.into_inner().expect("an archive")
}

/// Returns layers as blobs, some of them compressed.
fn blobs(layers: &Seeds) -> Seeds {
    let mut blobs = layers.clone();
    for name in ["small-0", "posix", "odd"] {
        let layer = &layers[name];
        blobs.insert(format!("{name}-gzip"), pack(layer, Packing::Gzip));
        blobs.insert(format!("{name}-zstd"), pack(layer, Packing::Zstd));
        let (begin, end) = layer.split_at(layer.len() / 2);
        let members = [pack(begin, Packing::Gzip), pack(end, Packing::Gzip)].concat();
        blobs.insert(format!("{name}-members"), members);
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        blobs.insert(format!("{name}-frames"), [&skipped[..], &pack(layer, Packing::Zstd)].concat());
    }
    blobs
}

/// Returns EROFS images: of layers, of merged layers, and with everything that layers do not have.
fn images(layers: &Seeds) -> Seeds {
    let limits = IngestLimits::default();
    let mut images: Seeds = layers
        .iter()
        .filter(|(_, layer)| layer.len() < 16 << 10)
        .filter_map(|(name, layer)| Some((name.clone(), fuzzing::layer(layer, &limits).ok()?)))
        .collect();
    for (name, encoding) in [("simple", Encoding::Simple), ("dense", Encoding::Dense)] {
        images.insert(name.to_owned(), rich_image(encoding));
        let lower = rich_image(encoding);
        let upper = images["small-1"].clone();
        let merged = merge(&[&lower, &upper], encoding);
        images.insert(format!("{name}-merged"), merged.clone());
        images.insert(format!("{name}-joined"), [merged, lower, upper].concat());
    }
    images
}

/// Returns an image with each kind of inode, extended attributes that repeat, and a directory of several blocks.
fn rich_image(encoding: Encoding) -> Vec<u8> {
    let options = Options { encoding, ..Options::default() };
    let mut builder = LayerBuilder::new(Cursor::new(Vec::new()), options).expect("a layer");
    let mut xattrs = Xattrs::new();
    for (name, value) in [(&b"user.name"[..], &b"value"[..]), (b"security.capability", &[7; 20])] {
        xattrs.set(XattrName::parse(name).expect("a name"), value).expect("room");
    }
    let metadata = Metadata {
        permissions: Permissions::from_mode(0o644),
        uid: 1000,
        gid: 70_000,
        mtime: Timestamp::new(1_700_000_000, 5).expect("a time"),
        xattrs,
    };
    let number = DeviceNumber::new(8, 1).expect("a device");
    let entries: [(&str, Entry<'_>); 7] = [
        ("dir/file", Entry::File { size: 6, data: &mut &b"hello\n"[..] }),
        ("dir/large", Entry::File { size: 5000, data: &mut &[7; 5000][..] }),
        ("link", Entry::Symlink(b"dir/file")),
        ("char", Entry::CharDevice(number)),
        ("block", Entry::BlockDevice(number)),
        ("fifo", Entry::Fifo),
        ("socket", Entry::Socket),
    ];
    let path = |text: &str| EntryPath::parse(text.as_bytes()).expect("a path");
    for (name, entry) in entries {
        builder.add(&path(name), metadata.clone(), entry).expect("an entry");
    }
    builder.hard_link(&path("dir/same"), &path("dir/file")).expect("a link");
    for index in 0..20 {
        let name = format!("many/{}{index}", "n".repeat(230));
        builder.hard_link(&path(&name), &path("fifo")).expect("a link");
    }
    builder.finish().expect("an image").0.into_inner()
}

fn merge(layers: &[&[u8]], encoding: Encoding) -> Vec<u8> {
    let mut merger = Merger::new();
    for layer in layers {
        let tag = DeviceTag::parse("layer").expect("a tag");
        merger.add(&Image::open(*layer).expect("an image"), tag).expect("a layer");
    }
    let options = Options { encoding, ..Options::default() };
    merger.finish(Cursor::new(Vec::new()), options).expect("merged").0.into_inner()
}

/// Returns archives of images, in every supported form.
fn archives() -> Seeds {
    let names = ["acme/app:1", "localhost:5000/app:2"];
    let image = TestImage::new(&names, vec![layer(&[Item::File("a", b"x")]), layer(&[Item::Dir("b")])]);
    let images = std::slice::from_ref(&image);
    let mut archives = Seeds::new();
    for (name, packing) in [("plain", Packing::Plain), ("gzip", Packing::Gzip), ("zstd", Packing::Zstd)] {
        let docker = pack(&tar_of(&docker_files(images)), packing);
        archives.insert(format!("docker-{name}"), docker);
        archives.insert(format!("layout-{name}"), tar_of(&layout_files(images, packing)));
        // What newer Dockers write: both.
        let mut both = layout_files(images, packing);
        both.insert("manifest.json".to_owned(), docker_entry(&both).into_bytes());
        archives.insert(format!("both-{name}"), tar_of(&both));
    }
    let linked = docker_files(images);
    let mut items: Vec<Item<'_>> = Vec::new();
    for (name, content) in &linked {
        items.push(Item::File(name, content));
    }
    items.push(Item::Symlink("linked/layer.tar", "../layer.tar"));
    items.push(Item::HardLink("again", "linked/layer.tar"));
    archives.insert("links".to_owned(), layer(&items));
    archives
}

/// Returns Docker's `manifest.json` for a layout with one image.
fn docker_entry(layout: &BTreeMap<String, Vec<u8>>) -> String {
    let blobs: Vec<&String> = layout.keys().filter(|name| name.starts_with("blobs/")).collect();
    json!([{ "Config": blobs[0], "RepoTags": ["acme/app:docker"], "Layers": blobs[1..] }]).to_string()
}

/// Returns documents in the form of the target `manifest`: the index of a layout, Docker's `manifest.json`, and blobs.
fn documents() -> Seeds {
    let architecture = this_architecture();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin"], "Cmd": ["sh"], "Entrypoint": null, "WorkingDir": "/", "User": "",
            "StopSignal": "SIGINT", "Labels": { "a": "b" }, "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/data": {} },
        },
        "rootfs": { "type": "layers", "diff_ids": ["@9"] },
    });
    let config = config.to_string();
    let platform = |variant: &str| {
        format!(r#""platform":{{"os":"linux","architecture":"{architecture}","variant":"{variant}"}}"#)
    };
    let foreign = r#""platform":{"os":"windows","architecture":"arm64"}"#;
    let attached = r#""annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
    let named = r#""annotations":{"org.opencontainers.image.ref.name":"acme/app:1"}"#;
    let named_by_containerd = r#""annotations":{"io.containerd.image.name":"acme/app:1"}"#;
    let typed = r#""mediaType":"application/vnd.oci.image.manifest.v1+json","#;
    let plain = index(&[entry(2, named)]);
    let docker = r#"[{"Config":"blobs/sha256/%2","RepoTags":["acme/app:2"],"Layers":["blobs/sha256/%9"]}]"#;
    let same = docker.replace("%2", "%3");
    let choice = index(&[entry(3, &platform("v3")), entry(3, foreign), entry(4, attached)]);
    let variants = [platform("v1"), platform("v2")].map(|platform| entry(2, &format!("{platform},{named}")));
    Seeds::from([
        ("layout".to_owned(), input(&[&plain, "", &manifest(3, typed), &config])),
        ("layout-old".to_owned(), input(&[&plain, "", &manifest(3, ""), &config])),
        (
            "containerd".to_owned(),
            input(&[&index(&[entry(2, named_by_containerd)]), "", &manifest(3, ""), &config]),
        ),
        ("variants".to_owned(), input(&[&index(&variants), "", &manifest(3, typed), &config])),
        ("nested".to_owned(), input(&[&plain, "", &choice, &manifest(4, typed), &config])),
        (
            "deep".to_owned(),
            input(&[
                &plain,
                "",
                &index(&[entry(3, "")]),
                &index(&[entry(4, "")]),
                &manifest(5, typed),
                &config,
            ]),
        ),
        ("docker".to_owned(), input(&["", docker, &config])),
        ("both".to_owned(), input(&[&plain, &same, &manifest(3, typed), &config])),
    ])
}

/// Returns the layouts among the [`documents`].
fn layouts() -> Seeds {
    let mut layouts = documents();
    layouts.remove("docker");
    layouts
}

/// Joins documents to an input. The document with the number 9 is a layer.
fn input(documents: &[&str]) -> Vec<u8> {
    let mut all: Vec<&str> = documents.to_vec();
    all.resize(9, "");
    all.push("layer");
    all.join("\0").into_bytes()
}

fn index(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
}

fn entry(document: u8, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"digest":"@{document}","size":#{document}{comma}{more}}}"#)
}

fn manifest(config: u8, media_type: &str) -> String {
    let layer = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"@9","size":#9}"#;
    let config = format!(
        r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@{config}","size":#{config}}}"#
    );
    format!(r#"{{"schemaVersion":2,{media_type}"config":{config},"layers":[{layer}]}}"#)
}
