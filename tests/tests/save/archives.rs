//! What is in the archives.

use std::fs;

use larder::ImageArchiveFormat;
use larder::ingest::{ConfigOrigin, ImageSave, SaveReport};
use larder_erofs::DeviceNumber;
use larder_erofs::writer::Entry;
use larder_tests::archive::this_architecture;
use larder_tests::real::{LayerOf, RealImage, config_text, fill, layer_path, metadata_path, source_diff_id};
use larder_tests::{Home, run};
use serde_json::{Value, json};

use crate::read::{Saved, docker, holds, layer_of, members, oci};

pub(crate) const FORMATS: [ImageArchiveFormat; 2] = [ImageArchiveFormat::Docker, ImageArchiveFormat::Oci];

/// A layer with everything that a layer can have.
pub(crate) fn everything() -> Vec<u8> {
    everything_loadable()
        .xattrs(&[(b"trusted.overlay.opaque", b"x"), (b"user.of-a-directory", b"5")])
        .directory("not-opaque")
        .done()
}

/// All of that but what is left out when it is loaded: marks of overlayfs, which come from whiteouts alone.
pub(crate) fn everything_loadable() -> LayerOf {
    let number = |major, minor| DeviceNumber::new(major, minor).expect("a number");
    let long = [b"long/".as_slice(), &[b'n'; 255], b"/", &[b'm'; 200]].concat();
    LayerOf::new()
        .owned(0o755, 0, 0)
        .directory("")
        .directory("bin")
        .owned(0o4755, 0, 0)
        .file("bin/su", "#!")
        .link("bin/again", "bin/su")
        .link("sbin/undescribed/su", "bin/su")
        .owned(0o644, 1000, 4_000_000_000)
        .file("big", vec![7; 300_001])
        .file("block", vec![1; 4096])
        .file("empty", "")
        .file(&long, "long")
        .link("long-link", &long)
        .file(b"not-\xff\xfe-utf8", "bytes")
        .file("a=b c\n", "odd")
        .at(1_700_000_000, 123_456_789)
        .file("nanoseconds", "1")
        .at(-2, 750_000_000)
        .file("before-1970", "2")
        .at(20_000_000_000, 0)
        .file("far-away", "3")
        .at(1_700_000_000, 0)
        .xattrs(&[
            (b"security.capability", b"\x01\0\0\x02\0\n="),
            (b"user.empty", b""),
            (b"user.\xc3\xbc", b"x"),
        ])
        .file("capable", "4")
        .xattrs(&[(b"user.of-an-opaque", b"6")])
        .directory("opaque")
        .xattrs(&[])
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "7")
        .file("undescribed-and-opaque/.wh..wh..opq", "")
        .file("some/.wh.removed", "")
        .file(".wh.gone", "")
        .add("symlink", Entry::Symlink(b"../somewhere/\xff"))
        .add("long-symlink", Entry::Symlink(&[b't'; 4000]))
        .link("symlink-again", "symlink")
        .add("null", Entry::CharDevice(number(1, 3)))
        .add("disk", Entry::BlockDevice(number(4095, 1_048_575)))
        .add("fifo", Entry::Fifo)
        .add("socket", Entry::Socket)
}

pub(crate) fn config(user: &str) -> Value {
    json!({
        "architecture": this_architecture(),
        "os": "linux",
        "created": "2024-02-30T00:00:00.123456789Z",
        "config": {
            "Env": ["PATH=/bin", "A=ü"], "Cmd": ["sh"], "Entrypoint": ["/init"], "Labels": { "b": "1", "a": "" },
            "WorkingDir": "/srv", "User": user, "ExposedPorts": { "80/tcp": {} },
        },
        "history": [{ "created_by": "somebody", "empty_layer": true, "x": 1.0 }],
        "x-unknown": [1e100, null],
    })
}

pub(crate) fn image(reference: &'static str, layers: &[&Vec<u8>]) -> RealImage {
    RealImage {
        reference,
        config: config(reference),
        layers: layers.iter().map(|&layer| layer.clone()).collect(),
    }
}

/// Saves images beside a home.
pub(crate) fn save(home: &Home, references: &[&str], format: ImageArchiveFormat, name: &str) -> SaveReport {
    let save = ImageSave::new(references.iter().copied(), home.path().with_file_name(name)).format(format);
    run(async { save.run(&home.open().await).await }).expect("an archive")
}

/// A layer comes back with every kind of entry that tar has a form for, down to the last attribute, in both formats.
#[test]
fn layers_hold_what_they_held() {
    let home = Home::made();
    let layer = everything();
    fill(&home.path(), &[image("acme/app:1", &[&layer])]);
    let expected = holds(&layer);
    assert!(expected["sbin/undescribed"].contains("implied=true"), "{expected:#?}");
    for format in FORMATS {
        let report = save(&home, &["acme/app:1"], format, "a.tar");
        assert_eq!(report.images[0].layers[0].sockets_left_out, 1);
        let output = home.path().with_file_name("a.tar");
        assert_eq!(fs::metadata(&output).expect("the archive").len(), report.bytes_written);
        let tar = match format {
            ImageArchiveFormat::Docker => docker(&output).remove(0).layers.remove(0),
            ImageArchiveFormat::Oci => oci(&output).remove(0).0.layers.remove(0),
        };
        let found = holds(&layer_of(&tar));
        for (path, words) in &expected {
            assert_eq!(found.get(path), Some(words), "{path}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

/// An extended attribute whose name tar has no form for is left out and counted, once for each file whatever its names;
/// the rest of the file is there.
#[test]
fn attributes_without_a_form_are_counted() {
    let home = Home::made();
    let odd: [(&[u8], &[u8]); 3] = [(b"user.a=b", b"c"), (b"user.\xff", b"d"), (b"user.kept", b"e")];
    let layer = |xattrs| {
        LayerOf::new()
            .xattrs(xattrs)
            .directory("directory")
            .file("file", "content")
            .link("again", "file")
            .add("fifo", Entry::Fifo)
            .done()
    };
    fill(&home.path(), &[image("acme/app:1", &[&layer(&odd)])]);
    let report = save(&home, &["acme/app:1"], ImageArchiveFormat::Docker, "a.tar");
    assert_eq!(report.images[0].layers[0].xattrs_left_out, 6);
    let saved = docker(&home.path().with_file_name("a.tar")).remove(0).layers.remove(0);
    assert_eq!(holds(&layer_of(&saved)), holds(&layer(&odd[2..])));
}

/// The same images give the same bytes.
#[test]
fn saving_twice_gives_the_same() {
    let home = Home::made();
    fill(&home.path(), &[image("acme/app:1", &[&everything()])]);
    for format in FORMATS {
        let [one, two] = ["one.tar", "two.tar"].map(|name| {
            save(&home, &["acme/app:1"], format, name);
            fs::read(home.path().with_file_name(name)).expect("the archive")
        });
        assert!(one == two, "{format:?}");
    }
}

/// Several images are in one archive in the order of their references, with what they share in it once; references of
/// one manifest are tags of one image, in normal form, and a digest is none.
#[test]
fn images_share_an_archive() {
    let home = Home::made();
    let (base, top) = (LayerOf::new().file("base", "b").done(), LayerOf::new().file("top", "t").done());
    let mut other_name = image("python:3.12", &[&base, &top]);
    other_name.config = config("acme/app:1");
    let by_digest =
        "registry.example:5000/x@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let images = [
        image("acme/base", &[&base]),
        image("acme/app:1", &[&base, &top]),
        other_name,
        image(by_digest, &[]),
    ];
    fill(&home.path(), &images);
    let asked = ["acme/app:1", by_digest, "docker.io/acme/base:latest", "library/python:3.12", "acme/app:1"];
    let app = ["docker.io/acme/app:1", "docker.io/library/python:3.12"];
    let output = home.path().with_file_name("a.tar");

    let report = save(&home, &asked, ImageArchiveFormat::Docker, "a.tar");
    let saved = docker(&output);
    let tags: Vec<_> = saved.iter().map(|image| image.tags.clone()).collect();
    assert_eq!(tags, [app.to_vec(), vec![], vec!["docker.io/acme/base:latest"]]);
    assert_eq!(saved[2].layers, [saved[0].layers[0].clone()]);
    // Two layers, three configs, and the manifest.
    assert_eq!(members(&output).len(), 6);
    let references: Vec<_> = report.images.iter().map(|image| image.references.clone()).collect();
    assert_eq!(references, [vec!["acme/app:1", "python:3.12"], vec![by_digest], vec!["acme/base"]]);

    save(&home, &asked, ImageArchiveFormat::Oci, "a.tar");
    let saved = oci(&output);
    let tags: Vec<_> = saved.iter().map(|(image, _)| image.tags.clone()).collect();
    assert_eq!(tags, [vec![app[0]], vec![app[1]], vec![], vec!["docker.io/acme/base:latest"]]);
    assert_eq!(saved[0].1, saved[1].1);
    assert_eq!(
        saved[0].1["annotations"],
        json!({ "org.opencontainers.image.source": "https://example.com/app" })
    );
    // Two layers, three configs, three manifests, and the layout's two documents and two directories; and the list.
    assert_eq!(members(&output).len(), 13);
    // What reads `manifest.json` finds the same images in it, each once.
    let listed = docker(&output);
    let tags: Vec<_> = listed.iter().map(|image| image.tags.clone()).collect();
    assert_eq!(tags, [app.to_vec(), vec![], vec!["docker.io/acme/base:latest"]]);
    assert_eq!(listed[0].layers, saved[0].0.layers);
}

/// Layers whose archives come out alike are in an archive once, although the cache has them twice.
#[test]
fn layers_that_come_out_alike_are_one() {
    let home = Home::made();
    let layer = LayerOf::new().file("a", vec![1; 100_000]).done();
    // Blocks behind the last that belongs to the image are nothing of it.
    let padded = [layer.as_slice(), &[0; 4096]].concat();
    fill(&home.path(), &[image("acme/app:1", &[&layer, &padded])]);
    for (format, count) in [(ImageArchiveFormat::Docker, 3), (ImageArchiveFormat::Oci, 8)] {
        let report = save(&home, &["acme/app:1"], format, "a.tar");
        let [one, two] = &report.images[0].layers[..] else { panic!("{report:?}") };
        assert_eq!((&one.blob_digest, &one.diff_id), (&two.blob_digest, &two.diff_id));
        assert_eq!(
            (&one.source_diff_id, &two.source_diff_id),
            (&source_diff_id(&layer), &source_diff_id(&padded))
        );
        assert_eq!(members(&home.path().with_file_name("a.tar")).len(), count);
    }
}

/// A config is kept byte for byte but for its diff IDs, and wholly where these are right; where its text is lost, it is
/// made of the fields in the index.
#[test]
fn configs_are_kept() {
    let home = Home::made();
    let layer = LayerOf::new().file("a", "b").done();
    let image = image("acme/app:1", &[&layer]);
    fill(&home.path(), std::slice::from_ref(&image));
    let saved = || -> (Saved, ConfigOrigin) {
        let report = save(&home, &["acme/app:1"], ImageArchiveFormat::Docker, "a.tar");
        (docker(&home.path().with_file_name("a.tar")).remove(0), report.images[0].config)
    };
    let (first, origin) = saved();
    assert_eq!(origin, ConfigOrigin::DiffIdsReplaced);
    let new = crate::read::digest(&first.layers[0]);
    let text = config_text(&image);
    assert_eq!(first.config, text.replace(&source_diff_id(&layer), &new));

    // A cache that was filled from such an archive.
    let metadata = home.cache().join(metadata_path("acme/app:1"));
    let original = fs::read_to_string(&metadata).expect("the metadata");
    let mut document: Value = serde_json::from_str(&original).expect("a document");
    document["raw_config_json"] = first.config.clone().into();
    document["config_digest"] = crate::read::digest(first.config.as_bytes()).into();
    fs::write(&metadata, document.to_string()).expect("the metadata");
    let (second, origin) = saved();
    assert_eq!((&second.config, origin), (&first.config, ConfigOrigin::Verbatim));

    for damaged in [original.replace("somebody", "nobody"), original[..90].to_owned(), String::new()] {
        fs::write(&metadata, damaged).expect("the metadata");
        let (rebuilt, origin) = saved();
        assert_eq!(origin, ConfigOrigin::Rebuilt);
        let mut config = image.config["config"].clone();
        config.as_object_mut().expect("fields").remove("ExposedPorts");
        let expected = json!({
            "architecture": this_architecture(), "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": [new] },
        });
        assert_eq!(serde_json::from_str::<Value>(&rebuilt.config).expect("a config"), expected);
    }
}

/// The descriptors of an index have the platform that the config states, with its variant, and none where it states none;
/// a config that is made anew is for this machine.
#[test]
fn descriptors_have_platforms() {
    let home = Home::made();
    let layer = LayerOf::new().file("a", "b").done();
    let image_for = |reference, platform: Value| {
        let mut image = image(reference, &[&layer]);
        let fields = image.config.as_object_mut().expect("fields");
        fields.remove("architecture");
        fields.remove("os");
        fields.extend(platform.as_object().expect("fields").clone());
        image
    };
    let arm = json!({ "architecture": "arm64", "os": "linux", "variant": "v8" });
    let images = [
        image_for("acme/arm:1", arm.clone()),
        image_for("acme/empty:1", json!({ "architecture": "", "os": "" })),
        image_for("acme/lost:1", json!({ "x-lost": 1 })),
    ];
    fill(&home.path(), &images);
    fs::remove_file(home.cache().join(metadata_path("acme/lost:1"))).expect("gone");
    home.execute("UPDATE manifest SET architecture = NULL, os = NULL");
    save(&home, &["acme/arm:1", "acme/empty:1", "acme/lost:1"], ImageArchiveFormat::Oci, "a.tar");
    let members = members(&home.path().with_file_name("a.tar"));
    let index: Value = serde_json::from_slice(&members["index.json"]).expect("an index");
    let platforms = [0, 1, 2].map(|number| index["manifests"][number]["platform"].clone());
    let machine = json!({ "architecture": this_architecture(), "os": "linux" });
    assert_eq!(platforms, [arm, Value::Null, machine]);
    let named = &index["manifests"][0]["annotations"];
    for key in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
        assert_eq!(named[key], "docker.io/acme/arm:1");
    }
}

/// Saving changes nothing in the home; nothing but lock files is new.
#[test]
fn the_home_stays_as_it_was() {
    let home = Home::made();
    let layer = everything();
    fill(&home.path(), &[image("acme/app:1", &[&layer])]);
    run(async { drop(home.open().await) });
    let before = home.everything();
    assert!(before.contains_key(&home.cache().join(layer_path(&layer))));
    save(&home, &["acme/app:1"], ImageArchiveFormat::Oci, "a.tar");
    let mut after = home.everything();
    after.retain(|path, _| {
        !path.components().any(|part| part.as_os_str() == ".msb-leases") && !path.ends_with("msb.db-shm")
    });
    let mut before = before;
    before.retain(|path, _| !path.ends_with("msb.db-shm"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(before == after);
}
