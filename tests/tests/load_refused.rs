//! What cannot be loaded is refused in one sentence, and leaves the cache as it was.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use larder::ingest::{ImageLoad, IngestLimits, Progress, ProgressEvent};
use larder::{Image, MicrosandboxError};
use larder_tests::archive::{
    Files, Item, Packing, TestImage, add_blob, add_manifest, blob_name, digest, docker_files, layer,
    layout_files, pack, tar_of,
};
use larder_tests::judge::{SKIPPED, tool};
use larder_tests::{LoadTest, contents, run, tree};
use proptest::prelude::*;
use serde_json::json;

/// An entry that no image should have is named with its archive and layer, and nothing of the image stays.
#[test]
fn bad_entries() {
    let test = LoadTest::new();
    let table: [(&[Item<'_>], &str); 8] = [
        (&[Item::File("../escape", b"x")], "entry `../escape`: `../escape` has a component `..`"),
        (
            &[Item::File("a/../../escape", b"x")],
            "entry `a/../../escape`: `a/../../escape` has a component `..`",
        ),
        (&[Item::File("/../escape", b"x")], "entry `/../escape`: `../escape` has a component `..`"),
        (
            &[Item::HardLink("link", "../../etc/passwd")],
            "entry `link`: it is a hard link, and its target `../../etc/passwd` has a component `..`",
        ),
        (
            &[Item::HardLink("link", "nowhere")],
            "entry `link`: `link` is a hard link to `nowhere`, which is not there",
        ),
        (
            &[Item::Symlink("a", "b"), Item::Symlink("b", "a"), Item::File("a/x", b"x")],
            "entry `a/x`: `a/x` cannot be made: the links above it lead in a circle",
        ),
        (
            &[Item::Symlink("empty", "")],
            "entry `empty`: `empty` is a symbolic link whose target is not 1 to 4095 bytes without NUL",
        ),
        (&[Item::File("a/.wh.", b"")], "entry `a/.wh.`: `a/.wh.` is not a valid whiteout"),
    ];
    for (items, expected) in table {
        assert_eq!(test.refused_layer(layer(items)), format!("`DIR/archive.tar`, layer `LAYER`, {expected}"));
    }
    // Where a symbolic link leads is nobody's business but the sandbox's.
    let fine = layer(&[Item::Dir("/"), Item::Symlink("out", "../../../etc/passwd"), Item::File("./a", b"x")]);
    test.load(&test.archive(&docker_files(&[TestImage::new(&["a"], vec![fine])])), &[]).expect("loaded");
}

/// What is cut off or damaged is refused as that, wherever it is.
#[test]
fn cut_off_and_damaged() {
    let test = LoadTest::new();
    let image = TestImage::small(&["acme/app:1"]);
    let whole = tar_of(&docker_files(std::slice::from_ref(&image)));
    assert_eq!(test.refusal(&test.file("a.tar", &whole[..2000]), &[]), "`DIR/a.tar`: it is cut off");
    let packed = pack(&whole, Packing::Gzip);
    assert_eq!(
        test.refusal(&test.file("a.tar", &packed[..packed.len() / 2]), &[]),
        "`DIR/a.tar`: it is cut off"
    );
    let packed = pack(&whole, Packing::Zstd);
    let refusal = test.refusal(&test.file("a.tar", &packed[..packed.len() / 2]), &[]);
    assert_eq!(refusal, "`DIR/a.tar`: it is cut off");
    for junk in [&b"not an archive"[..], &[0; 4096], &[b'x'; 4096], &[]] {
        let refusal = test.refusal(&test.file("junk", junk), &[]);
        assert!(
            refusal.ends_with("it is neither a `docker save` archive nor an OCI image layout")
                || refusal.ends_with("it is cut off")
                || junk.is_empty() && refusal.ends_with("it is empty"),
            "{refusal}"
        );
    }

    // The layer, cut off in the data of its first file, under the digest of what is there.
    let big = layer(&[Item::File("big", &[7; 5000])]);
    let refusal = test.refused_layer(big[..2000].to_vec());
    assert_eq!(refusal, "`DIR/archive.tar`, layer `LAYER`, entry `big`: it is cut off");
    let mut damaged = big.clone();
    damaged[3] ^= 1;
    assert!(test.refused_layer(damaged).contains("it is no valid tar archive"));

    let mut files = layout_files(std::slice::from_ref(&image), Packing::Gzip);
    let blob = pack(&image.layers[0], Packing::Gzip);
    let name = blob_name(&digest(&blob));
    for cut in [blob.len() - 1, 12] {
        files.insert(name.clone(), blob[..cut].to_vec());
        assert!(test.refused_archive(&files).contains(&format!("has {cut} bytes instead of {}", blob.len())));
    }
    let mut damaged = blob.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    files.insert(name.clone(), damaged);
    assert!(test.refused_archive(&files).contains(", layer `sha256:"));
    files.remove(&name);
    assert!(test.refused_archive(&files).ends_with(&format!("`{name}` is missing")));
    for document in ["index.json", "manifest.json"] {
        let mut files = Files::new();
        files.insert(document.to_owned(), b"[{\"Config\": ".to_vec());
        assert!(test.refused_archive(&files).contains(&format!("`{document}` cannot be read: ")));
    }
}

/// A compression that is not read is named, and so is a window that takes too much memory, of an archive and of a layer.
#[test]
fn unread_compression() {
    let test = LoadTest::new();
    let xz = b"\xfd7zXZ\0\0\x04 and more".to_vec();
    let bzip2 = b"BZh91AY&SY and more".to_vec();
    let mut window = pack(&layer(&[Item::File("a", b"x")]), Packing::Zstd);
    // The window of the frame is in its header, unless the frame is in one segment.
    window[4] &= !0xe0;
    window[5] = (31 - 10) << 3;
    let unread = |name: &str| {
        format!("it is compressed with {name}: decompress it first, or compress it with gzip or zstd")
    };
    let too_large = "its zstd window has 2048 MiB, and at most 128 MiB are used: compress it without `--long`, or with \
                     `--long=27`";
    for (bytes, expected) in [(xz, unread("xz")), (bzip2, unread("bzip2")), (window, too_large.to_owned())] {
        assert_eq!(test.refusal(&test.file("a.tar", &bytes), &[]), format!("`DIR/a.tar`: {expected}"));
        assert_eq!(test.refused_layer(bytes), format!("`DIR/archive.tar`, layer `LAYER`: {expected}"));
    }
    // The name of the first file of an archive may begin like that.
    let fine = layer(&[Item::File("BZh91", b"x")]);
    test.load(&test.archive(&docker_files(&[TestImage::new(&["a"], vec![fine])])), &[]).expect("loaded");
}

/// Headers that could mean something else to somebody else are refused.
#[test]
fn ambiguous_headers() {
    let test = LoadTest::new();
    // The second record has another length than it says, and hides that there is a third.
    let records: &[u8] = b"10 path=a\n99 size=1\n11 uid=100\n";
    let refusal = test.refused_layer(layer(&[Item::Raw("x", b'x', records), Item::File("a", b"x")]));
    assert!(
        refusal.ends_with("it is no valid tar archive: an extended header has a damaged record"),
        "{refusal}"
    );
    let attributes = "x".repeat(40_000);
    let records: String = ["a", "b"]
        .map(|name| format!("{} SCHILY.xattr.user.{name}={attributes}\n", 6 + 20 + 40_000 + 1))
        .concat();
    let refusal =
        test.refused_layer(layer(&[Item::Raw("x", b'x', records.as_bytes()), Item::File("a", b"x")]));
    assert!(refusal.contains("its extended attributes take 80016 bytes"), "{refusal}");
}

/// Nothing is believed to be what it says it is: blobs, contents, configs and manifests have the digests that name them.
#[test]
fn wrong_digests() {
    let test = LoadTest::new();
    let image = TestImage::small(&["acme/app:1"]);
    // A layer with another content than its config says.
    let mut files = docker_files(std::slice::from_ref(&image));
    let name = format!("{}/layer.tar", &image.diff_ids()[1][7..]);
    let other = layer(&[Item::File("other", b"x")]);
    files.insert(name, other.clone());
    let expected = format!(
        "`DIR/archive.tar`, layer `{0}`: the blob has the digest `{1}` instead of `{0}`",
        image.diff_ids()[1],
        digest(&other)
    );
    assert_eq!(test.refused_archive(&files), expected);
    // A blob with the right content in another compression.
    let mut files = layout_files(std::slice::from_ref(&image), Packing::Gzip);
    let blob = pack(&image.layers[0], Packing::Gzip);
    let mut other = blob.clone();
    // The operating system in the header of gzip.
    other[9] = 77;
    files.insert(blob_name(&digest(&blob)), other.clone());
    let refusal = test.refused_archive(&files);
    assert!(refusal.ends_with(&format!(
        "the blob has the digest `{}` instead of `{}`",
        digest(&other),
        digest(&blob)
    )));
    // A config and a manifest that were changed.
    for document in [image.config().to_string(), {
        let mut files = Files::new();
        let descriptor = add_manifest(&mut files, &image, Packing::Gzip);
        let name = blob_name(descriptor["digest"].as_str().expect("a digest"));
        String::from_utf8(files[&name].clone()).expect("text")
    }] {
        let mut files = layout_files(std::slice::from_ref(&image), Packing::Gzip);
        let name = blob_name(&digest(document.as_bytes()));
        assert!(
            files
                .insert(
                    name,
                    document.replace("linux", "linuX").replace("\"size\":", "\"Size\":").into_bytes()
                )
                .is_some()
        );
        assert!(test.refused_archive(&files).contains("a document has the digest `sha256:"));
    }
}

/// Manifest and config have as many layers, and all of them are of kinds that images are made of.
#[test]
fn wrong_shapes() {
    let test = LoadTest::new();
    let image = TestImage::small(&["acme/app:1"]);
    let more = TestImage { layers: vec![image.layers[0].clone()], ..image.clone() };
    let mut files = docker_files(std::slice::from_ref(&image));
    let manifest = String::from_utf8(files["manifest.json"].clone()).expect("text");
    let short = more.config().to_string().into_bytes();
    let short_name = format!("{}.json", &digest(&short)[7..]);
    let name = format!("{}.json", &digest(image.config().to_string().as_bytes())[7..]);
    files.insert("manifest.json".to_owned(), manifest.replace(&name, &short_name).into_bytes());
    files.insert(short_name, short);
    let refusal = test.refused_archive(&files);
    assert_eq!(refusal, "`DIR/archive.tar`: the manifest has 2 layers, and the config 1 diff IDs");

    let mut files = Files::new();
    let layer = add_blob(&mut files, "application/x-sock", b"x".to_vec());
    let config = image.config().to_string().into_bytes();
    let config = add_blob(&mut files, "application/vnd.oci.image.config.v1+json", config);
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = add_blob(&mut files, media_type, manifest.to_string().into_bytes());
    let index = |manifest: &serde_json::Value| json!({ "manifests": [manifest] }).to_string().into_bytes();
    files.insert("index.json".to_owned(), index(&manifest));
    let refusal = test.refused_archive(&files);
    assert_eq!(refusal, "`DIR/archive.tar`: the media type `application/x-sock` is not one of an image");
    let mut other = manifest.clone();
    other["mediaType"] = json!("application/vnd.docker.distribution.manifest.v1+json");
    files.insert("index.json".to_owned(), index(&other));
    assert_eq!(
        test.refused_archive(&files),
        "`DIR/archive.tar`: there is no image in it that can run here, only \
         `application/vnd.docker.distribution.manifest.v1+json`"
    );
}

/// An archive or a directory leads to nothing outside of itself.
#[test]
fn nothing_outside_is_read() {
    let test = LoadTest::new();
    let mut files = docker_files(&[TestImage::small(&["acme/app:1"])]);
    files.insert("../../escape".to_owned(), b"x".to_vec());
    let refusal = test.refused_archive(&files);
    assert_eq!(refusal, "`DIR/archive.tar`, entry `../../escape`: `../../escape` has a component `..`");

    test.file("secret", b"[]");
    let directory = test.path("layout");
    fs::create_dir(&directory).expect("a directory");
    std::os::unix::fs::symlink("../secret", directory.join("manifest.json")).expect("a link");
    let refusal = test.refusal(&directory, &[]);
    assert_eq!(refusal, "`DIR/layout`, entry `manifest.json`: it leads out of the directory");
}

/// A layer that asks for more than the limits allow is refused, by whichever of them.
#[test]
fn limits() {
    let test = LoadTest::new();
    let zeros = layer(&[Item::File("zeros", &vec![0; 4 << 20])]);
    let many: Vec<String> = (0..200).map(|number| format!("f{number}")).collect();
    let many: Vec<Item<'_>> = many.iter().map(|name| Item::File(name, b"")).collect();
    let many = layer(&many);
    let refusal = |layer: &[u8], set: fn(&mut IngestLimits)| {
        let files = layout_files(&[TestImage::new(&["acme/app:1"], vec![layer.to_vec()])], Packing::Gzip);
        let archive = test.archive(&files);
        let mut limits = IngestLimits::default();
        set(&mut limits);
        let load = ImageLoad::new(archive).limits(limits);
        let error = run(async { load.run(&test.home.open().await).await }).expect_err("a limit").to_string();
        assert_eq!(contents(&test.home), BTreeMap::new(), "{error}");
        error.rsplit_once(": ").expect("a problem").1.to_owned()
    };
    assert_eq!(
        refusal(&zeros, |limits| limits.layer_bytes = 1 << 20),
        "it exceeds the limit of 1048576 bytes in a layer"
    );
    assert_eq!(
        refusal(&many, |limits| limits.layer_entries = 100),
        "it exceeds the limit of 100 entries in a layer"
    );
    let ratio = refusal(&zeros, |limits| (limits.ratio, limits.ratio_from_zeros) = (10, 1 << 20));
    assert_eq!(
        ratio,
        "it exceeds the limit of 1048576 bytes that layers have, zeros among them, beyond the ratio to their compressed size"
    );
    assert_eq!(refusal(&many, |limits| limits.layers = 0), "it exceeds the limit of 0 layers");
    let document = refusal(&many, |limits| limits.document_bytes = 10);
    assert_eq!(document, "it exceeds the limit of 10 bytes in a manifest, index or config");
    assert_eq!(
        refusal(&many, |limits| limits.all_documents_bytes = 10),
        "it exceeds the limit of 10 bytes in all manifests, indexes and configs"
    );
    assert_eq!(refusal(&many, |limits| limits.images = 0), "it exceeds the limit of 0 images in an archive");
    assert_eq!(
        refusal(&many, |limits| limits.archive_entries = 3),
        "it exceeds the limit of 3 entries in an archive"
    );
    assert_eq!(
        refusal(&many, |limits| limits.layer_metadata_bytes = 100),
        "it exceeds the limit of 100 bytes of names and attributes in a layer"
    );
    assert_eq!(
        refusal(&many, |limits| limits.image_entries = 100),
        "it exceeds the limit of 100 entries in all layers"
    );
    assert_eq!(
        refusal(&many, |limits| limits.image_metadata_bytes = 100),
        "it exceeds the limit of 100 bytes of names and attributes in all layers"
    );
    let deep = ["a/", "b/", "c/"].map(|name| name.repeat(40));
    let deep: Vec<Item<'_>> = deep.iter().map(|name| Item::Dir(name)).collect();
    assert_eq!(
        refusal(&layer(&deep), |limits| limits.layer_entries = 50),
        "it exceeds the limit of 50 entries in a layer"
    );
}

/// A few documents that lead to each other again and again are given up, however few bytes they are.
#[test]
fn documents_without_end() {
    let test = LoadTest::new();
    let mut files = Files::new();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let mut inner = add_manifest(&mut files, &TestImage::small(&[]), Packing::Plain);
    for _ in 0..2 {
        let index = json!({ "manifests": vec![inner; 1000] }).to_string();
        inner = add_blob(&mut files, media_type, index.into_bytes());
    }
    let index = json!({ "manifests": vec![inner; 1000] }).to_string();
    files.insert("index.json".to_owned(), index.into_bytes());
    assert_eq!(
        test.refused_archive(&files),
        "`DIR/archive.tar`: it exceeds the limit of 67108864 bytes in all manifests, indexes and configs"
    );
}

/// Links that make many layers of one large blob do not make more work: it is read once to know its digest.
#[test]
fn links_to_one_blob() {
    let test = LoadTest::new();
    let content = layer(&[Item::File("a", b"x")]);
    let mut files = docker_files(&[TestImage::new(&["acme/app:1"], vec![content.clone()])]);
    let name = files.keys().find(|name| name.ends_with("layer.tar")).expect("a layer").clone();
    files.insert(name.clone(), pack(&content, Packing::Gzip));
    // The same blob for the same diff ID, under two names.
    let manifest = String::from_utf8(files["manifest.json"].clone()).expect("text");
    let twice = TestImage::new(&["acme/app:1"], vec![content.clone(), content]).config().to_string();
    let twice_name = format!("{}.json", &digest(twice.as_bytes())[7..]);
    let once_name = manifest.split('"').find(|part| part.ends_with(".json")).expect("a config").to_owned();
    let manifest = manifest.replace(&once_name, &twice_name);
    let manifest = manifest.replace(&format!("[\"{name}\"]"), &format!("[\"{name}\",\"link\"]"));
    files.insert("manifest.json".to_owned(), manifest.into_bytes());
    files.insert(twice_name, twice.into_bytes());
    let mut items: Vec<Item<'_>> = files.iter().map(|(name, content)| Item::File(name, content)).collect();
    items.push(Item::Symlink("link", &name));
    let handles = test.load(&test.file("archive.tar", &layer(&items)), &[]).expect("loaded");
    assert_eq!(handles[0].layer_count(), 2);
}

/// A tar archive may lack its end: the blocks of zeros, and the padding of its last entry.
#[test]
fn missing_padding() {
    let test = LoadTest::new();
    let whole = layer(&[Item::File("a", b"first"), Item::File("b", &[b'x'; 700])]);
    // Headers are a block, the first content is padded to one.
    let end = 3 * 512 + 700;
    for (number, length) in [end, end + 100, end + 324, end + 324 + 512].into_iter().enumerate() {
        let name = format!("acme/app:{number}");
        let files = docker_files(&[TestImage::new(&[&name], vec![whole[..length].to_vec()])]);
        let handles = test.load(&test.archive(&files), &[]).expect("loaded");
        let seen =
            tree(&test.home, handles[0].manifest_digest().expect("a manifest"), &[digest(&whole[..length])]);
        assert_eq!(seen["b"].len(), 700);
    }
    let refusal = LoadTest::new().refused_layer(whole[..end - 1].to_vec());
    assert_eq!(refusal, "`DIR/archive.tar`, layer `LAYER`, entry `b`: it is cut off");
}

/// What whoever loaded an image before had is as it was when a later load under the same name fails.
#[test]
fn a_failure_changes_nothing() {
    let test = LoadTest::new();
    test.load(&test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])])), &[]).expect("loaded");
    let before = contents(&test.home);
    let mut other = TestImage::small(&["acme/app:1"]);
    other.layers[1] = layer(&[Item::File("fine", b"x")]);
    let archive = test.archive(&docker_files(&[other]));
    // The rows are the last step, and this one refuses them.
    test.home
        .execute("CREATE TRIGGER refuse BEFORE UPDATE ON image_ref BEGIN SELECT RAISE(ABORT, 'no'); END");
    let error = test.load(&archive, &[]).expect_err("refused");
    assert!(matches!(error, MicrosandboxError::Database { .. }), "{error}");
    assert_eq!(contents(&test.home), before);
    test.home.execute("DROP TRIGGER refuse");
    test.load(&archive, &[]).expect("loaded");
    assert_ne!(contents(&test.home), before);
}

/// A full disk is said to be full, and what was begun is gone.
#[test]
fn full_disk() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("{SKIPPED}mounting needs root");
        return;
    }
    let test = LoadTest::new();
    let cache = tempfile::tempdir().expect("a directory");
    let place = cache.path().to_str().expect("a path in UTF-8");
    tool("mount", ["-t", "tmpfs", "-o", "size=1m", "larder-test", place]);
    let big = layer(&[Item::File("big", &vec![7; 4 << 20])]);
    let archive = test.archive(&docker_files(&[TestImage::new(&["acme/app:1"], vec![big])]));
    let backend = larder::LocalBackend::builder().home(test.home.path()).cache_dir(cache.path());
    let error = run(async {
        let local = backend.build().await.expect("the home opened");
        Image::load_local(&local, &archive, Vec::new()).await.expect_err("a full disk")
    });
    let left: Vec<_> = ["layers", "tmp"]
        .into_iter()
        .flat_map(|room| fs::read_dir(cache.path().join(room)).expect("a room"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension != "lock" && extension != "msb-leases")
        })
        .collect();
    tool("umount", [place]);
    assert!(error.to_string().ends_with(": there is no space left for it in the cache"), "{error}");
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

/// Ends the load that tells it of its first layer.
struct GiveUp(tokio::sync::Notify);

impl Progress for GiveUp {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::LayerStarted { .. } = event {
            self.0.notify_one();
        }
    }
}

/// A load that nobody waits for any longer leaves the cache as it was.
#[test]
fn given_up() {
    let test = LoadTest::new();
    let archive = test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])]));
    let progress = Arc::new(GiveUp(tokio::sync::Notify::new()));
    // The runtime goes only when all of its work has ended.
    run(async {
        let local = test.home.open().await;
        let load = ImageLoad::new(&archive).progress(progress.clone());
        tokio::select! {
            biased;
            () = progress.0.notified() => {}
            _ = load.run(&local) => {}
        }
    });
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 0);
    assert_eq!(contents(&test.home), BTreeMap::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to an archive, it is loaded or refused, and a refusal leaves nothing.
    #[test]
    fn damage_is_survived(at in 0_usize..12_000, byte: u8, cut in proptest::option::of(0_usize..12_000)) {
        let test = LoadTest::new();
        let mut bytes = tar_of(&docker_files(&[TestImage::small(&["acme/app:1"])]));
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut.map_or(length, |cut| cut % length));
        if test.load(&test.file("archive.tar", &bytes), &[]).is_err() {
            prop_assert_eq!(contents(&test.home), BTreeMap::new());
        }
    }
}
