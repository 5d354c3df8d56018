//! The choice among what an archive holds, and the names that images get.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use larder::ingest::{ImageLoad, MakeRoom, Platform, Progress, ProgressEvent};
use larder::{ImageHandle, MicrosandboxResult};
use larder_tests::archive::{
    Files, Item, Packing, TestImage, add_blob, add_manifest, digest, docker_files, foreign_architecture,
    layer, layout_files, this_architecture,
};
use larder_tests::{LoadTest, run};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn references(handles: &[ImageHandle]) -> Vec<&str> {
    handles.iter().map(ImageHandle::reference).collect()
}

/// An image with one file of this content.
fn image(content: &[u8]) -> TestImage {
    TestImage::new(&[], vec![layer(&[Item::File("file", content)])])
}

fn platform(os: &str, architecture: &str) -> Value {
    json!({ "os": os, "architecture": architecture })
}

/// Adds a manifest whose config and layers are of these kinds, and returns its descriptor.
fn artifact(files: &mut Files, config: &str, layer: &str) -> Value {
    let layers = [add_blob(files, layer, b"no tar".to_vec())];
    let config = add_blob(files, config, b"{}".to_vec());
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    add_blob(files, MANIFEST, manifest.to_string().into_bytes())
}

/// Adds an index of these members, and returns its descriptor with a name.
fn index(files: &mut Files, members: &[Value]) -> Value {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": members });
    named(add_blob(files, INDEX, index.to_string().into_bytes()), "acme/app:1")
}

fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    descriptor
}

/// Writes the index of a layout.
fn layout(mut files: Files, members: &[Value]) -> Files {
    files.insert("index.json".to_owned(), json!({ "manifests": members }).to_string().into_bytes());
    files
}

/// Members of an index that are no images are passed over, whatever they are, in a layout and within an index, before the image
/// and after it, and whether their blobs are there or not.
#[test]
fn other_members_are_passed_over() {
    let mut files = Files::new();
    let nydus = "application/vnd.oci.image.layer.nydus.blob.v1";
    let signature = "application/vnd.dev.cosign.simplesigning.v1+json";
    let config = "application/vnd.oci.image.config.v1+json";
    let mut erofs = artifact(&mut files, config, nydus);
    erofs["platform"] = platform("linux", this_architecture());
    erofs["platform"]["os.features"] = json!(["erofs"]);
    let mut absent = erofs.clone();
    absent["digest"] = json!(digest(b"absent"));
    let mut referrer = artifact(&mut files, "application/vnd.oci.empty.v1+json", "text/spdx");
    referrer["artifactType"] = json!("text/spdx");
    // Neither of them states a platform, so only their manifests say what they are; that of the last is not there.
    let signed = artifact(&mut files, config, signature);
    let unnamed_kind = json!({ "mediaType": "", "digest": digest(b"nowhere"), "size": 3 });
    let xml = add_blob(&mut files, "application/xml", b"<component/>".to_vec());
    let mut attestation = add_manifest(&mut files, &image(b"attestation"), Packing::Gzip);
    attestation["platform"] = platform("unknown", "unknown");
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest", "odd": 1 });
    for other in [erofs, absent, referrer, signed, unnamed_kind, xml, attestation] {
        for described in [true, false] {
            let mut files = files.clone();
            let mut good = add_manifest(&mut files, &image(b"good"), Packing::Gzip);
            let wanted = good["digest"].clone();
            if described {
                good["platform"] = platform("linux", this_architecture());
            }
            let orders = [[good.clone(), other.clone()], [other.clone(), good.clone()]];
            for members in orders {
                let test = LoadTest::new();
                let nested = index(&mut files, &members);
                let handles = test.load(&test.archive(&layout(files.clone(), &[nested])), &[]);
                let handles = handles.unwrap_or_else(|error| panic!("{members:?}: {error}"));
                assert_eq!(handles[0].manifest_digest(), wanted.as_str(), "{members:?}");
            }
            let test = LoadTest::new();
            let members = [other.clone(), named(good, "acme/app:1")];
            let handles = test.load(&test.archive(&layout(files, &members)), &[]);
            assert_eq!(references(&handles.expect("loaded")), ["docker.io/acme/app:1"]);
        }
    }
}

/// An archive of other things alone says what it has.
#[test]
fn nothing_but_other_things() {
    let test = LoadTest::new();
    let mut files = Files::new();
    let xml = add_blob(&mut files, "application/xml", b"<component/>".to_vec());
    let mut erofs = add_manifest(&mut files, &image(b"x"), Packing::Gzip);
    erofs["platform"] = platform("linux", this_architecture());
    erofs["platform"]["os.features"] = json!(["erofs"]);
    assert_eq!(
        test.refused_archive(&layout(files, &[xml, erofs])),
        "`DIR/archive.tar`: there is no image in it that can run here, only `application/xml`, an image for hosts with `erofs`"
    );
}

/// The platform in a descriptor stands above that in the config; what is unknown suits, and other names of a platform are the
/// platform.
#[test]
fn platforms_are_what_descriptors_say() {
    let foreign = TestImage { architecture: foreign_architecture().to_owned(), ..image(b"x") };
    let other_name = match this_architecture() {
        "amd64" => "x86_64",
        _ => "aarch64",
    };
    for (config, told, loads) in [
        (foreign_architecture(), Some(platform("linux", this_architecture())), true),
        (this_architecture(), Some(platform("linux", foreign_architecture())), false),
        (foreign_architecture(), None, false),
        ("", None, true),
        (other_name, None, true),
        ("", Some(platform("Linux", other_name)), true),
        (foreign_architecture(), Some(platform("", "")), false),
    ] {
        let mut files = Files::new();
        let image = TestImage { architecture: config.to_owned(), ..foreign.clone() };
        let mut member = add_manifest(&mut files, &image, Packing::Gzip);
        if let Some(told) = &told {
            member["platform"] = told.clone();
        }
        let test = LoadTest::new();
        let nested = index(&mut files, &[member]);
        let loaded = test.load(&test.archive(&layout(files, &[nested])), &[]);
        assert_eq!(loaded.is_ok(), loads, "{config}, {told:?}: {loaded:?}");
        // What the index of the home says is what the descriptor said, or nothing.
        let architecture = loaded.ok().map(|handles| handles[0].architecture().map(str::to_owned));
        let known = !config.is_empty() || told.is_some();
        let expected = loads.then(|| known.then(|| this_architecture().to_owned()));
        assert_eq!(architecture, expected, "{config}, {told:?}");
    }
}

/// Of several images for the platform the first is the one; for another platform that is asked for, another.
#[test]
fn the_first_that_suits() {
    let mut files = Files::new();
    let mut member = |content: &[u8], os: &str, architecture: &str| {
        let mut member = add_manifest(&mut files, &image(content), Packing::Gzip);
        member["platform"] = platform(os, architecture);
        member
    };
    let members = [
        member(b"1", "linux", foreign_architecture()),
        member(b"2", "linux", this_architecture()),
        member(b"3", "linux", this_architecture()),
        member(b"4", "linux", "s390x"),
    ];
    let test = LoadTest::new();
    let nested = index(&mut files, &members);
    let archive = test.archive(&layout(files, &[nested]));
    let digest = |platform: Option<&str>| {
        let load = ImageLoad::new(&archive);
        let platform: Option<Platform> = platform.map(|text| text.parse().expect("a platform"));
        let load = platform.into_iter().fold(load, ImageLoad::platform);
        let handles = run(async { load.run(&test.home.open().await).await }).expect("loaded");
        handles[0].manifest_digest().expect("a manifest").to_owned()
    };
    assert_eq!(digest(None), members[1]["digest"]);
    assert_eq!(digest(Some("linux/s390x")), members[3]["digest"]);
    assert_eq!(digest(Some(&format!("linux/{}", foreign_architecture()))), members[0]["digest"]);
}

/// The kinds of configs that Docker takes are taken, and plugins and charts are not.
#[test]
fn kinds_of_configs() {
    for (kind, loads) in [
        ("application/vnd.docker.container.image.v1+json", true),
        ("application/octet-stream", true),
        ("application/json", true),
        ("text/html", true),
        ("", true),
        ("application/vnd.docker.plugin.v1+json", false),
        ("application/vnd.cncf.helm.config.v1+json", false),
    ] {
        let test = LoadTest::new();
        let mut files = Files::new();
        let image = image(b"x");
        let layer = add_blob(&mut files, "application/vnd.oci.image.layer.v1.tar", image.layers[0].clone());
        let config = add_blob(&mut files, kind, image.config().to_string().into_bytes());
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let member = add_blob(&mut files, MANIFEST, manifest.to_string().into_bytes());
        let archive = test.archive(&layout(files, &[named(member, "acme/app:1")]));
        assert_eq!(test.load(&archive, &[]).is_ok(), loads, "{kind}");
    }
}

/// A manifest that is an index as well is refused: other programs would take another image of it.
#[test]
fn two_things_at_once() {
    let test = LoadTest::new();
    let mut files = Files::new();
    let good = add_manifest(&mut files, &image(b"x"), Packing::Gzip);
    let text = files[&format!("blobs/sha256/{}", &good["digest"].as_str().expect("a digest")[7..])].clone();
    let mut both: Value = serde_json::from_slice(&text).expect("a manifest");
    both["manifests"] = json!([good]);
    for kind in [MANIFEST, INDEX] {
        both["mediaType"] = json!(kind);
        let member = add_blob(&mut files, kind, both.to_string().into_bytes());
        let refusal = test.refused_archive(&layout(files.clone(), &[named(member, "acme/app:2")]));
        assert!(refusal.ends_with("it is an index and a manifest at once"), "{refusal}");
    }
}

/// An archive in both forms, whose forms spell a name differently, gives one image of one name.
#[test]
fn names_are_compared_as_references() {
    let test = LoadTest::new();
    let image = image(b"x");
    let mut files = Files::new();
    let mut member = add_manifest(&mut files, &image, Packing::Plain);
    member["annotations"] = json!({
        "io.containerd.image.name": "docker.io/library/alpine:3", "org.opencontainers.image.ref.name": "3",
    });
    let config = format!("blobs/sha256/{}", &digest(image.config().to_string().as_bytes())[7..]);
    let layer = format!("blobs/sha256/{}", &image.diff_ids()[0][7..]);
    let docker = json!([{ "Config": config, "RepoTags": ["alpine:3", null], "Layers": [layer] }]);
    files.insert("manifest.json".to_owned(), docker.to_string().into_bytes());
    let handles = test.load(&test.archive(&layout(files, &[member])), &[]).expect("loaded");
    assert_eq!(references(&handles), ["docker.io/library/alpine:3"]);
    let handles = test.load(&test.path("archive.tar"), &["x:1", "docker.io/library/x:1"]).expect("loaded");
    assert_eq!(references(&handles), ["docker.io/library/x:1"]);
}

/// Makes no room, and must not be asked.
struct NoRoom;

impl MakeRoom for NoRoom {
    fn make_room(&self, bytes: u64) -> Pin<Box<dyn Future<Output = MicrosandboxResult<()>> + Send + '_>> {
        panic!("{bytes} bytes for an image that cannot be loaded")
    }
}

/// No room is made for a layer whose blob is shorter than its descriptor says.
#[test]
fn stated_sizes_make_no_room() {
    let test = LoadTest::new();
    let mut files = Files::new();
    let image = image(b"x");
    let mut layer = add_blob(&mut files, "application/vnd.oci.image.layer.v1.tar", image.layers[0].clone());
    layer["size"] = json!(1_u64 << 50);
    let config = image.config().to_string().into_bytes();
    let config = add_blob(&mut files, "application/vnd.oci.image.config.v1+json", config);
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let member = add_blob(&mut files, MANIFEST, manifest.to_string().into_bytes());
    let load = ImageLoad::new(test.archive(&layout(files, &[named(member, "acme/app:1")])));
    let error = run(async { load.make_room(Arc::new(NoRoom)).run(&test.home.open().await).await });
    let error = error.expect_err("another size").to_string();
    assert!(
        error.ends_with(&format!("has {} bytes instead of {}", image.layers[0].len(), 1_u64 << 50)),
        "{error}"
    );
}

/// A name with a digest is for the manifest of that digest alone, whoever gives it.
#[test]
fn digests_in_names() {
    let other = format!("acme/app@{}", digest(b"another"));
    let mut bad = image(b"1");
    bad.names = vec![other.clone(), "acme/app:1".to_owned()];
    let test = LoadTest::new();
    let files = layout_files(std::slice::from_ref(&bad), Packing::Plain);
    let Chosen { names, skipped } = choose(&test, &files, &[], &[]).expect("loaded");
    assert_eq!(names, ["docker.io/acme/app:1"]);
    assert!(skipped[0].0.contains(&other) && skipped[0].1.contains("another manifest"), "{skipped:?}");
    let manifest = test.home.texts("SELECT digest FROM manifest").pop_first().expect("a manifest");
    let refusal = choose(&test, &files, &[&other], &[]).err().expect("another digest");
    assert!(refusal.ends_with(&format!("has another digest than its manifest, `{manifest}`")), "{refusal}");
    let right = format!("acme/app:2@{manifest}");
    let Chosen { names, .. } = choose(&test, &files, &[&right], &[]).expect("loaded");
    assert_eq!(names, [format!("docker.io/{right}")]);
}

/// Of two images of an archive with the same name, the last one gets it, and the other is told.
#[test]
fn one_name_twice() {
    let named = |content: &[u8]| TestImage { names: vec!["acme/app:1".to_owned()], ..image(content) };
    let test = LoadTest::new();
    let Chosen { names, skipped } =
        choose(&test, &docker_files(&[named(b"1"), named(b"2")]), &[], &[]).expect("loaded");
    assert_eq!((names.len(), skipped.len()), (1, 1));
    assert!(skipped[0].1.contains("the same name"), "{skipped:?}");
    assert_eq!(test.home.count("SELECT count(*) FROM manifest"), 1);
}

/// What an archive says is cut in a message, however long it is.
#[test]
fn long_texts_are_cut() {
    let test = LoadTest::new();
    let long = "x".repeat(1 << 20);
    let manifest = json!([{ "Config": long, "RepoTags": ["a:1"], "Layers": [] }]);
    let files = Files::from([("manifest.json".to_owned(), manifest.to_string().into_bytes())]);
    let refusal = test.refused_archive(&files);
    assert!(refusal.len() < 5000 && refusal.contains("xxx"), "{} bytes", refusal.len());
}

/// A listener to what is left out.
#[derive(Default)]
struct Skipped(Mutex<Vec<(String, String)>>);

impl Progress for Skipped {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::ImageSkipped { image, why } = event {
            self.0.lock().expect("a list").push((image.to_owned(), why.to_owned()));
        }
    }
}

/// The names that images got, and what was left out, each with its reason.
struct Chosen {
    names: Vec<String>,
    skipped: Vec<(String, String)>,
}

/// Loads the chosen images.
fn choose(test: &LoadTest, files: &Files, tags: &[&str], selections: &[&str]) -> Result<Chosen, String> {
    let skipped = Arc::<Skipped>::default();
    let load = tags.iter().fold(ImageLoad::new(test.archive(files)), |load, tag| load.tag(*tag));
    let load = selections.iter().fold(load, |load, image| load.select(*image)).progress(skipped.clone());
    let handles =
        run(async { load.run(&test.home.open().await).await }).map_err(|error| error.to_string())?;
    let names = references(&handles).into_iter().map(str::to_owned).collect();
    let skipped = std::mem::take(&mut *skipped.0.lock().expect("a list"));
    Ok(Chosen { names, skipped })
}

/// A layout whose names are tags alone, as umoci and skopeo write it, is loaded under a repository, as a whole or in part.
#[test]
fn tags_alone() {
    let mut files = Files::new();
    let [one, two] = [b"1", b"2"].map(|content| add_manifest(&mut files, &image(content), Packing::Gzip));
    let two_digest = two["digest"].as_str().expect("a digest").to_owned();
    let files = layout(files, &[named(one, "v1"), named(two, "v2")]);
    let test = LoadTest::new();
    let names =
        |tags: &[&str], selections: &[&str]| choose(&test, &files, tags, selections).map(|found| found.names);
    assert_eq!(
        names(&["acme/app"], &[]).expect("loaded"),
        ["docker.io/acme/app:v1", "docker.io/acme/app:v2"]
    );
    assert_eq!(names(&["acme/app"], &["v2"]).expect("loaded"), ["docker.io/acme/app:v2"]);
    assert_eq!(names(&["acme/other:3"], &["v1"]).expect("loaded"), ["docker.io/acme/other:3"]);
    assert_eq!(names(&["acme/other:4"], &[&two_digest[7..20]]).expect("loaded"), ["docker.io/acme/other:4"]);
    assert!(names(&["acme/other:3"], &[]).expect_err("two").contains("it holds 2 images"));
    let refusal = names(&["acme/app"], &["v3", "v1"]).expect_err("no such tag");
    assert!(refusal.ends_with("there is no image `v3` in it, only `v1`, `v2`"), "{refusal}");
    assert!(names(&[], &[]).expect_err("no names").ends_with("has a name with a repository: `v1`, `v2`"));
}

/// What has no name is left out and told; images of the same archive that have one are loaded. An image that is chosen by a name
/// gets that name alone.
#[test]
fn nameless_ones_are_left_out() {
    let named =
        TestImage { names: vec!["acme/app:1".to_owned(), "acme/app:latest".to_owned()], ..image(b"1") };
    let bad = TestImage { names: vec!["acme//app:1".to_owned()], ..image(b"2") };
    let lost = TestImage { names: vec!["<none>:<none>".to_owned()], ..image(b"3") };
    let files = docker_files(&[named, bad, lost, image(b"4")]);
    let test = LoadTest::new();
    let Chosen { names, skipped } = choose(&test, &files, &[], &[]).expect("loaded");
    assert_eq!(names, ["docker.io/acme/app:1", "docker.io/acme/app:latest"]);
    assert_eq!(skipped.len(), 3, "{skipped:?}");
    assert_eq!(skipped[0].0, "acme//app:1");
    assert!(skipped[1..].iter().all(|(image, why)| image.starts_with("sha256:") && why == "it has no name"));
    let Chosen { names, skipped } = choose(&test, &files, &[], &["acme/app:latest"]).expect("loaded");
    assert_eq!((names, skipped.len()), (vec!["docker.io/acme/app:latest".to_owned()], 0));
    // A repository keeps the tags; one name is for one image.
    let Chosen { names, .. } = choose(&test, &files, &["other"], &[]).expect("loaded");
    assert_eq!(names, ["docker.io/library/other:1", "docker.io/library/other:latest"]);
    let twice = [
        TestImage { names: vec!["a:1".to_owned()], ..image(b"5") },
        TestImage { names: vec!["b:1".to_owned()], ..image(b"6") },
    ];
    assert!(
        choose(&test, &docker_files(&twice), &["other"], &[])
            .err()
            .expect("one name")
            .contains("`a:1`, `b:1`")
    );
}

/// Of images without a name that are for this platform in several variants, the one that suits best is the image.
#[test]
fn variants_without_names() {
    let mut files = Files::new();
    let members: Vec<Value> = ["v3", "v2"]
        .iter()
        .map(|variant| {
            let mut member = add_manifest(&mut files, &image(variant.as_bytes()), Packing::Gzip);
            member["platform"] = platform("linux", this_architecture());
            member["platform"]["variant"] = json!(variant);
            member
        })
        .collect();
    let files = layout(files, &members);
    let test = LoadTest::new();
    let handles = test.load(&test.archive(&files), &["acme/app:1"]);
    if this_architecture() == "amd64" {
        assert_eq!(handles.expect("loaded")[0].manifest_digest(), members[1]["digest"].as_str());
    }
    let equal = layout_files(&[image(b"1"), image(b"2")], Packing::Plain);
    assert!(
        test.load(&test.archive(&equal), &["acme/app:1"]).expect_err("two").to_string().contains("2 images")
    );
}
