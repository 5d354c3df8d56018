//! Archives and layouts go into the cache whole, or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use larder::ingest::{ImageLoad, IngestLimits, LayerOutcome, Progress, ProgressEvent};
use larder::maintenance::{Repair, VerifyDepth};
use larder::{Image, ImageHandle, MicrosandboxError, MicrosandboxResult};
use larder_erofs::EntryPath;
use larder_erofs::reader;
use larder_tests::archive::{
    Files, Item, Packing, TestImage, add_blob, add_manifest, blob_name, digest, docker_files,
    foreign_architecture, layer, layout_files, pack, tar_of, write_directory,
};
use larder_tests::{Home, run};
use serde_json::json;
use tempfile::TempDir;

/// A home, and a directory for what is loaded into it.
struct Test {
    home: Home,
    directory: TempDir,
}

impl Test {
    fn new() -> Self {
        Self { home: Home::made(), directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn archive(&self, files: &Files) -> PathBuf {
        self.file("archive.tar", &tar_of(files))
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).expect("a file");
        self.path(name)
    }

    fn load(&self, input: &Path, tags: &[&str]) -> MicrosandboxResult<Vec<ImageHandle>> {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        run(async { Image::load_local(&self.home.open().await, input, tags).await })
    }

    /// Why something cannot be loaded, after a look at the cache, which has nothing then.
    fn refusal(&self, input: &Path, tags: &[&str]) -> String {
        let error = self.load(input, tags).expect_err("a refusal");
        assert_eq!(contents(&self.home), BTreeMap::new(), "left by: {error}");
        assert_eq!(self.home.count("SELECT count(*) FROM image_ref"), 0);
        error.to_string().replace(&self.directory.path().display().to_string(), "DIR")
    }

    fn refused_archive(&self, files: &Files) -> String {
        self.refusal(&self.archive(files), &[])
    }

    /// Why an image with this layer alone cannot be loaded.
    fn refused_layer(&self, layer: Vec<u8>) -> String {
        let diff_id = digest(&layer);
        let files = docker_files(&[TestImage::new(&["acme/app:1"], vec![layer])]);
        self.refused_archive(&files).replace(&diff_id, "LAYER")
    }
}

/// Every file of the cache but locks, with its content.
fn contents(home: &Home) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for room in ["layers", "fsmeta", "vmdk", "manifests", "tmp"] {
        for name in home.files(room) {
            let content = fs::read(home.cache().join(room).join(&name)).expect("a file");
            contents.insert(format!("{room}/{name}"), content);
        }
    }
    contents
}

/// What a sandbox sees of an image: every path, with its content where it is a file and its target where it is a link.
fn tree(home: &Home, manifest: &str, diff_ids: &[String]) -> BTreeMap<String, String> {
    let open = |room: &str, digest: &str| {
        let name = format!("{}.erofs", digest.replace(':', "_"));
        File::open(home.cache().join(room).join(name)).expect("an artifact")
    };
    let layers = diff_ids.iter().map(|diff_id| open("layers", diff_id)).collect();
    let image = reader::Image::open_with_devices(open("fsmeta", manifest), layers).expect("an image");
    reader::check(&image).expect("a sound image");
    let mut tree = BTreeMap::new();
    for entry in image.walk() {
        let entry = entry.expect("an entry");
        let content = match entry.inode.kind() {
            larder_erofs::FileKind::Regular => {
                let mut text = String::new();
                let mut data = image.data(&entry.inode).expect("data");
                std::io::Read::read_to_string(&mut data, &mut text).expect("its content");
                text
            }
            larder_erofs::FileKind::Symlink => {
                String::from_utf8(image.link_target(&entry.inode).expect("a target")).expect("text")
            }
            kind => format!("{kind:?}"),
        };
        tree.insert(entry.path.to_string(), content);
    }
    tree
}

/// Every form in which images come gives the same artifacts, and what a sandbox sees is what the layers make together.
#[test]
fn every_form() {
    let image = TestImage::small(&["acme/app:1"]);
    let mut known: Option<BTreeMap<String, Vec<u8>>> = None;
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let mut forms = vec![("layout", layout_files(std::slice::from_ref(&image), packing))];
        if packing == Packing::Plain {
            forms.push(("docker", docker_files(std::slice::from_ref(&image))));
        }
        for (form, files) in forms {
            for outside in [None, Some(Packing::Plain), Some(Packing::Gzip), Some(Packing::Zstd)] {
                let what = format!("{form} with layers {packing:?}, itself {outside:?}");
                let test = Test::new();
                let input = match outside {
                    Some(outside) => test.file("archive", &pack(&tar_of(&files), outside)),
                    None => {
                        write_directory(&test.path("directory"), &files);
                        test.path("directory")
                    }
                };
                let handles = test.load(&input, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
                let [handle] = handles.as_slice() else { panic!("{what}: {handles:?}") };
                assert_eq!(handle.reference(), "docker.io/acme/app:1", "{what}");
                assert_eq!((handle.os(), handle.layer_count()), (Some("linux"), 2), "{what}");
                let manifest = handle.manifest_digest().expect("a manifest");
                let seen = tree(&test.home, manifest, &image.diff_ids());
                assert_eq!(seen["etc/motd"], "other\n", "{what}");
                assert_eq!(seen["etc/same"], "hello\n", "{what}");
                assert_eq!(seen["etc/link"], "../../../motd", "{what}");
                assert!(!seen.contains_key("etc/gone"), "{what}: {seen:?}");
                let layers: BTreeMap<_, _> = contents(&test.home)
                    .into_iter()
                    .filter(|(name, _)| name.starts_with("layers/"))
                    .collect();
                assert_eq!(layers.len(), 2, "{what}");
                assert_eq!(known.get_or_insert_with(|| layers.clone()), &layers, "{what}");
                assert!(test.home.files("tmp").is_empty(), "{what}");
            }
        }
    }
}

/// The index says of an image what its config and manifest say, with its own platform and the sizes of its artifacts,
/// and a verification finds nothing.
#[test]
fn rows() {
    let test = Test::new();
    let image = TestImage::small(&["acme/app:1"]);
    let files = layout_files(std::slice::from_ref(&image), Packing::Gzip);
    test.load(&test.archive(&files), &[]).expect("loaded");
    let (detail, report) = run(async {
        let local = test.home.open().await;
        let detail = Image::inspect_local(&local, "acme/app:1").await.expect("the image");
        (detail, local.verify(VerifyDepth::Deep, Repair::ReportOnly).await.expect("a report"))
    });
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let config = detail.config.expect("a config");
    assert_eq!(config.digest, digest(image.config().to_string().as_bytes()));
    assert_eq!((config.env, config.cmd), (vec!["PATH=/bin".to_owned()], Some(vec!["sh".to_owned()])));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.labels, Some(json!({ "a": "b" })));
    let diff_ids: Vec<_> = detail.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    assert_eq!(diff_ids, image.diff_ids());
    for (layer, bytes) in detail.layers.iter().zip(&image.layers) {
        let blob = pack(bytes, Packing::Gzip);
        assert_eq!(layer.blob_digest, digest(&blob));
        assert_eq!(layer.compressed_size_bytes, Some(blob.len() as i64));
        assert_eq!(layer.media_type.as_deref(), Some("application/vnd.oci.image.layer.v1.tar+gzip"));
        let artifact = test.home.cache().join("layers").join(layer.diff_id.replace(':', "_") + ".erofs");
        let metadata = artifact.metadata().expect("the artifact");
        assert_eq!(layer.erofs_size_bytes, Some(metadata.len() as i64));
        assert_eq!(metadata.mode() & 0o7777, 0o644);
    }
    let one = |query: &str| test.home.texts(query).into_iter().next();
    assert_eq!(one("SELECT architecture FROM manifest"), Some(image.architecture.clone()));
    assert_eq!(
        one("SELECT origin FROM larder_origin WHERE reference = 'docker.io/acme/app:1'").as_deref(),
        Some("archive")
    );
    let metadata = contents(&test.home).into_iter().find(|(name, _)| name.starts_with("manifests/"));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.expect("metadata").1).expect("JSON");
    assert_eq!(metadata["raw_config_json"], image.config().to_string());
    assert_eq!(metadata["layers"][1]["diff_id"], image.diff_ids()[1]);
    assert_eq!(metadata["config"]["cmd"], json!(["sh"]));
}

/// What is loaded goes again with everything that it brought.
#[test]
fn pruned_again() {
    let test = Test::new();
    test.load(&test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])])), &[]).expect("loaded");
    run(async { Image::prune_local(&test.home.open().await).await }).expect("pruned");
    assert_eq!(contents(&test.home), BTreeMap::new());
}

#[derive(Default)]
struct Outcomes(Mutex<Vec<LayerOutcome>>);

impl Progress for Outcomes {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::LayerDone { outcome, .. } = event {
            self.0.lock().expect("a list").push(outcome);
        }
    }
}

/// A layer that the cache has is not converted again, one whose artifact is damaged is.
#[test]
fn layers_are_converted_once() {
    let test = Test::new();
    let archive = test.archive(&docker_files(&[TestImage::small(&["acme/app:1", "acme/app:2"])]));
    let outcomes = || {
        let outcomes = Arc::new(Outcomes::default());
        let load = ImageLoad::new(&archive).progress(outcomes.clone());
        let handles = run(async { load.run(&test.home.open().await).await }).expect("loaded");
        assert_eq!(handles.len(), 2);
        outcomes.0.lock().expect("a list").clone()
    };
    use LayerOutcome::{Cached, Converted};
    assert_eq!(outcomes(), [Converted, Converted]);
    let before = contents(&test.home);
    assert_eq!(outcomes(), [Cached, Cached]);
    assert_eq!(contents(&test.home), before);
    let damaged =
        test.home.cache().join("layers").join(test.home.files("layers").pop_first().expect("a layer"));
    File::options().write(true).open(&damaged).and_then(|file| file.set_len(4096)).expect("cut off");
    let mut again = outcomes();
    again.sort_by_key(|outcome| *outcome == Converted);
    assert_eq!(again, [Cached, Converted]);
    assert_eq!(contents(&test.home), before);
}

/// Names come from the archive or from whoever loads it; what is ambiguous or has no name is refused, and the refusal
/// says what to do.
#[test]
fn names() {
    let (one, mut two) = (TestImage::small(&["acme/app:1"]), TestImage::small(&["acme/app:2"]));
    two.layers.pop();
    let test = Test::new();
    let both = test.archive(&docker_files(&[one.clone(), two.clone()]));
    assert_eq!(
        test.refusal(&both, &["x"]),
        "`DIR/archive.tar`: it holds 2 images, and the given names can be for one only: `acme/app:1`, `acme/app:2`"
    );
    let references = |handles: Vec<ImageHandle>| {
        handles.iter().map(|handle| handle.reference().to_owned()).collect::<Vec<_>>()
    };
    let handles = test.load(&both, &[]).expect("loaded");
    assert_eq!(references(handles), ["docker.io/acme/app:1", "docker.io/acme/app:2"]);
    let alone = test.archive(&docker_files(std::slice::from_ref(&two)));
    let handles = test.load(&alone, &["localhost:5000/a:1", "acme/app:1"]).expect("loaded");
    assert_eq!(references(handles), ["localhost:5000/a:1", "docker.io/acme/app:1"]);
    // What had the name has another one image now.
    assert_eq!(test.home.count("SELECT count(DISTINCT manifest_id) FROM image_ref"), 1);

    let test = Test::new();
    let unnamed = TestImage { names: Vec::new(), ..one.clone() };
    let files = docker_files(std::slice::from_ref(&unnamed));
    assert!(test.refused_archive(&files).ends_with("has no name in it: name it with `--tag`"));
    // A mere tag says nothing of which image it is.
    let tagged = TestImage { names: vec!["latest".to_owned()], ..one.clone() };
    let files = layout_files(&[tagged], Packing::Plain);
    assert!(test.refused_archive(&files).ends_with("has no name in it: name it with `--tag`"));
    let bad = TestImage { names: vec!["acme//app:1".to_owned()], ..one };
    assert!(test.refused_archive(&docker_files(&[bad])).contains("`acme//app:1` is not an image reference"));
    let error = test.load(&both, &["a b"]).expect_err("no reference");
    assert!(matches!(error, MicrosandboxError::InvalidReference(_)), "{error}");
}

/// A reference in another spelling means the image that was loaded last, too.
#[test]
fn spellings() {
    let test = Test::new();
    test.load(&test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])])), &[]).expect("loaded");
    test.home.execute("UPDATE image_ref SET reference = 'acme/app:1'");
    let mut other = TestImage::small(&["acme/app:1"]);
    other.layers.pop();
    test.load(&test.archive(&docker_files(&[other])), &[]).expect("loaded");
    let names = test.home.texts(
        "SELECT reference FROM image_ref JOIN manifest ON manifest.id = manifest_id AND layer_count = 1",
    );
    assert_eq!(names, ["acme/app:1", "docker.io/acme/app:1"].map(str::to_owned).into());
}

/// Of an index the image for this machine is taken; where there is none, the refusal says what there is.
#[test]
fn platforms() {
    let ours = TestImage::small(&[]);
    let foreign = TestImage { architecture: foreign_architecture().to_owned(), ..ours.clone() };
    let mut files = Files::new();
    let mut descriptors: Vec<_> = [&foreign, &ours]
        .map(|image| {
            let mut descriptor = add_manifest(&mut files, image, Packing::Gzip);
            descriptor["platform"] = json!({ "os": "linux", "architecture": image.architecture });
            descriptor
        })
        .into();
    let mut attestation = descriptors[1].clone();
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    descriptors.push(attestation);
    let wanted = descriptors[1]["digest"].clone();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let nested = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": descriptors });
    let mut nested = add_blob(&mut files, media_type, nested.to_string().into_bytes());
    nested["annotations"] = json!({ "io.containerd.image.name": "docker.io/acme/app:1" });
    files.insert("index.json".to_owned(), json!({ "manifests": [nested] }).to_string().into_bytes());
    let test = Test::new();
    let handles = test.load(&test.archive(&files), &[]).expect("loaded");
    assert_eq!(handles[0].manifest_digest(), wanted.as_str());

    let test = Test::new();
    let foreign = TestImage { names: vec!["acme/app:1".to_owned()], ..foreign };
    for files in [
        docker_files(std::slice::from_ref(&foreign)),
        layout_files(std::slice::from_ref(&foreign), Packing::Plain),
    ] {
        let refusal = test.refused_archive(&files);
        let expected = format!(
            "`DIR/archive.tar`: there is no image for `linux/{}` in it, only for `linux/{}`",
            ours.architecture, foreign.architecture
        );
        assert_eq!(refusal, expected);
    }
}

/// An entry that no image should have is named with its archive and layer, and nothing of the image stays.
#[test]
fn bad_entries() {
    let test = Test::new();
    let table: [(&[Item<'_>], &str); 9] = [
        (&[Item::File("../escape", b"x")], "entry `../escape`: `../escape` has a component `..`"),
        (
            &[Item::File("a/../../escape", b"x")],
            "entry `a/../../escape`: `a/../../escape` has a component `..`",
        ),
        (&[Item::File("/etc/passwd", b"x")], "entry `/etc/passwd`: `/etc/passwd` is an absolute path"),
        (
            &[Item::HardLink("link", "../../etc/passwd")],
            "entry `link`: it is a hard link, and its target `../../etc/passwd` has a component `..`",
        ),
        (
            &[Item::HardLink("link", "nowhere")],
            "entry `link`: `link` is a hard link to `nowhere`, which is not there",
        ),
        (
            &[Item::Symlink("etc", "/"), Item::File("etc/passwd", b"x")],
            "entry `etc/passwd`: `etc/passwd` cannot be made: `etc` is not a directory",
        ),
        (
            &[Item::Symlink("empty", "")],
            "entry `empty`: `empty` is a symbolic link whose target is not 1 to 4095 bytes without NUL",
        ),
        (&[Item::File("a/.wh.", b"")], "entry `a/.wh.`: `a/.wh.` is not a valid whiteout"),
        (&[Item::Other("odd", b'Z')], "entry `odd`: entries of the type `Z` are no part of an image"),
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
    let test = Test::new();
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
                || refusal.ends_with("it is cut off"),
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

/// Nothing is believed to be what it says it is: blobs, contents, configs and manifests have the digests that name them.
#[test]
fn wrong_digests() {
    let test = Test::new();
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
    let test = Test::new();
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
    assert!(test.refused_archive(&files).contains("manifest.v1+json` is not one of an image"));
}

/// An archive or a directory leads to nothing outside of itself.
#[test]
fn nothing_outside_is_read() {
    let test = Test::new();
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
    let test = Test::new();
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
    let ratio = refusal(&zeros, |limits| (limits.ratio, limits.ratio_from_bytes) = (100, 0));
    assert_eq!(ratio, "it exceeds the limit of 100 times its compressed size");
    assert_eq!(refusal(&many, |limits| limits.layers = 0), "it exceeds the limit of 0 layers");
    let document = refusal(&many, |limits| limits.document_bytes = 10);
    assert_eq!(document, "it exceeds the limit of 10 bytes in a manifest, index or config");
}

/// A tar archive may lack its end: the blocks of zeros, and the padding of its last entry.
#[test]
fn missing_padding() {
    let test = Test::new();
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
    let refusal = Test::new().refused_layer(whole[..end - 1].to_vec());
    assert_eq!(refusal, "`DIR/archive.tar`, layer `LAYER`, entry `b`: it is cut off");
}

/// What whoever loaded an image before had is as it was when a later load under the same name fails.
#[test]
fn a_failure_changes_nothing() {
    let test = Test::new();
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

/// An image without layers is one, and so is one whose layer is empty.
#[test]
fn small_images() {
    let test = Test::new();
    let archive = test.archive(&docker_files(&[TestImage::new(&["none"], Vec::new())]));
    let handles = test.load(&archive, &[]).expect("loaded");
    let seen = tree(&test.home, handles[0].manifest_digest().expect("a manifest"), &[]);
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [(EntryPath::root().to_string(), "Directory".to_owned())]
    );
    let empty = TestImage::new(&["empty"], vec![layer(&[])]);
    assert_eq!(test.load(&test.archive(&docker_files(&[empty])), &[]).expect("loaded")[0].layer_count(), 1);
}
