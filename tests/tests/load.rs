//! Archives and layouts go into the cache whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use larder::ingest::{ImageLoad, LayerOutcome};
use larder::maintenance::VerifyDepth;
use larder::snapshot::Origin;
use larder::{Image, ImageHandle, MicrosandboxError};
use larder_erofs::EntryPath;
use larder_tests::archive::{
    Files, Packing, TestImage, add_blob, add_manifest, digest, docker_files, foreign_architecture, layer,
    layout_files, pack, tar_of, write_directory,
};
use larder_tests::{LoadTest, Outcomes, contents, run, tree};
use serde_json::json;

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
                let test = LoadTest::new();
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
    let test = LoadTest::new();
    let image = TestImage::small(&["acme/app:1"]);
    let files = layout_files(std::slice::from_ref(&image), Packing::Gzip);
    test.load(&test.archive(&files), &[]).expect("loaded");
    let (detail, report) = run(async {
        let local = test.home.open().await;
        let detail = Image::inspect_local(&local, "acme/app:1").await.expect("the image");
        (detail, local.verify(VerifyDepth::Deep).await.expect("a report"))
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

/// Where an image came from is known of what came from there: what microsandbox pulls under the same name later is not an
/// archive's. A home whose record is older says it of the name.
#[test]
fn an_origin_belongs_to_a_manifest() {
    let test = LoadTest::new();
    test.load(&test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])])), &[]).expect("loaded");
    let origin = || {
        run(async {
            let mut snapshot = test.home.open().await.snapshot().await.expect("a snapshot");
            snapshot.images().expect("the images")[0].origin
        })
    };
    assert_eq!(origin(), Origin::Archive);
    test.home.execute("UPDATE manifest SET digest = 'sha256:' || printf('%064d', 1)");
    assert_eq!(origin(), Origin::Unknown);
    test.home.execute("ALTER TABLE larder_origin DROP COLUMN manifest_digest");
    assert_eq!(origin(), Origin::Archive);
}

/// What is loaded goes again with everything that it brought.
#[test]
fn pruned_again() {
    let test = LoadTest::new();
    test.load(&test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])])), &[]).expect("loaded");
    run(async { Image::prune_local(&test.home.open().await).await }).expect("pruned");
    assert_eq!(contents(&test.home), BTreeMap::new());
}

/// A layer that the cache has is not converted again, one whose artifact is damaged is.
#[test]
fn layers_are_converted_once() {
    let test = LoadTest::new();
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
    let test = LoadTest::new();
    let both = test.archive(&docker_files(&[one.clone(), two.clone()]));
    assert_eq!(
        test.refusal(&both, &["x:1"]),
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

    let test = LoadTest::new();
    let unnamed = TestImage { names: Vec::new(), ..one.clone() };
    let files = docker_files(std::slice::from_ref(&unnamed));
    let nameless = "none of its images has a name with a repository: `";
    assert!(test.refused_archive(&files).contains(&format!("{nameless}sha256:")));
    // A mere tag says nothing of which image it is.
    let tagged = TestImage { names: vec!["latest".to_owned()], ..one.clone() };
    let files = layout_files(&[tagged], Packing::Plain);
    assert!(test.refused_archive(&files).ends_with(&format!("{nameless}latest`")));
    let bad = TestImage { names: vec!["acme//app:1".to_owned()], ..one };
    assert!(test.refused_archive(&docker_files(&[bad])).contains("`acme//app:1` is not an image reference"));
    let error = test.load(&both, &["a b"]).expect_err("no reference");
    assert!(matches!(error, MicrosandboxError::InvalidReference(_)), "{error}");
}

/// A reference in another spelling means the image that was loaded last, too.
#[test]
fn spellings() {
    let test = LoadTest::new();
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

/// Metadata is not replaced while somebody reads it in order to hold what it names.
#[test]
fn whoever_reads_metadata_is_waited_for() {
    let test = LoadTest::new();
    test.load(&test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])])), &[]).expect("loaded");
    let name = test.home.files("manifests").into_iter().next().expect("metadata");
    let content = || fs::read(test.home.cache().join("manifests").join(&name)).expect("metadata");
    let before = content();
    let mut other = TestImage::small(&["acme/app:1"]);
    other.layers.pop();
    let archive = test.archive(&docker_files(&[other]));
    let key = name.strip_suffix(".json").expect("its name");
    let reading = test.home.lease("manifests", &format!("{key}.publication"));
    run(async {
        let local = test.home.open().await;
        let load = larder::Image::load_local(&local, &archive, Vec::new());
        tokio::time::timeout(std::time::Duration::from_millis(500), load).await.expect_err("it waits");
    });
    assert_eq!(content(), before);
    drop(reading);
    test.load(&archive, &[]).expect("loaded");
    assert_ne!(content(), before);
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
    let test = LoadTest::new();
    let handles = test.load(&test.archive(&files), &[]).expect("loaded");
    assert_eq!(handles[0].manifest_digest(), wanted.as_str());

    let test = LoadTest::new();
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

/// An image without layers is one, and so is one whose layer is empty.
#[test]
fn small_images() {
    let test = LoadTest::new();
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

/// A sound artifact that another program has published and holds is used, never replaced; nor is a damaged one, while
/// it is held.
#[test]
fn what_another_program_holds_is_used() {
    let test = LoadTest::new();
    let archive = test.archive(&docker_files(&[TestImage::small(&["acme/app:1"])]));
    test.load(&archive, &[]).expect("loaded");
    let layer = test.home.files("layers").pop_first().expect("a layer");
    let path = test.home.cache().join("layers").join(&layer);
    // As if the other program had not got to its rows yet.
    test.home.execute(
        "DELETE FROM image_ref; DELETE FROM manifest_layer; DELETE FROM manifest; DELETE FROM layer;",
    );
    let lease = test.home.lease("layers", &layer);
    let inode = || fs::metadata(&path).expect("a layer").ino();
    let before = inode();
    test.load(&archive, &[]).expect("loaded again");
    assert_eq!(inode(), before);

    File::options().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("cut off");
    let refusal = test.load(&archive, &[]).expect_err("held").to_string();
    assert!(refusal.contains("is damaged, and another program holds it"), "{refusal}");
    assert_eq!(inode(), before);
    drop(lease);
    test.load(&archive, &[]).expect("made again");
    assert_ne!(inode(), before);
}
