//! Registries send what they should not: it is said in one sentence, and the cache is as it was.

use larder::MicrosandboxError;
use larder::ingest::{IngestLimits, IngestProblem};
use larder_tests::Home;
use larder_tests::archive::{
    Files, Item, Packing, TestImage, add_blob, blob_name, digest, foreign_architecture, layer, layout_files,
    pack,
};
use larder_tests::registry::{Answer, TestRegistry};
use serde_json::json;

use crate::{into_home, pull, refusal};

fn layout() -> (TestImage, Files) {
    let image = TestImage::small(&["acme/app:1"]);
    let files = layout_files(std::slice::from_ref(&image), Packing::Gzip);
    (image, files)
}

fn refused(files: Files) -> String {
    let registry = TestRegistry::with_files(files, |_| Answer::Right);
    refusal(&registry, pull(&registry, "acme/app:1"))
}

/// What a registry does not have is no such image, and an error of its own kind.
#[test]
fn unknown_images() {
    let (_, files) = layout();
    let registry = TestRegistry::with_files(files, |_| Answer::Right);
    for name in ["acme/app:2", "acme/other:1"] {
        let error = into_home(&Home::made(), pull(&registry, name)).expect_err("unknown");
        let MicrosandboxError::Ingest(error) = error else { panic!("{error:?}") };
        assert!(matches!(error.problem(), IngestProblem::NotInRegistry), "{error}");
    }
    let html = TestRegistry::with_rule(&[], Packing::Gzip, |request| match request.is_manifest() {
        true => Answer::Other { status: 404, headers: vec![], body: b"<html>no</html>".to_vec() },
        false => Answer::Right,
    });
    let said = refusal(&html, pull(&html, "acme/app:1"));
    assert_eq!(said, "`REGISTRY/acme/app:1`: the registry has no such image");
}

/// What is no manifest is named by its digest: a page for people, a manifest of the first version, a document too large.
#[test]
fn other_documents() {
    for (body, said) in [
        (b"<html>log in</html>".to_vec(), "cannot be read: expected value at line 1 column 1"),
        (
            br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(),
            "it is of schema version 1, which registries have given up",
        ),
        (
            br#"{"schemaVersion":2,"mediaType":"text/plain"}"#.to_vec(),
            "the media type `text/plain` is not one of an image",
        ),
        (vec![b' '; 9 << 20], "it exceeds the limit of 8388608 bytes in a manifest, index or config"),
    ] {
        let registry =
            TestRegistry::with_rule(&[], Packing::Gzip, move |request| match request.is_manifest() {
                true => Answer::body(body.clone()),
                false => Answer::Right,
            });
        let found = refusal(&registry, pull(&registry, "acme/app:1"));
        assert!(found.contains(said), "{found}");
    }
}

/// A document or blob of another digest or size than was promised is refused, whether longer, shorter or changed.
#[test]
fn wrong_content() {
    let (image, files) = layout();
    let blob = pack(&image.layers[0], Packing::Gzip);
    let config = image.config().to_string().into_bytes();
    let changed = |bytes: &[u8]| {
        let mut changed = bytes.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        changed
    };
    let mut padded = blob.clone();
    padded.extend_from_slice(&[0; 512]);
    for (what, digest, bytes, said) in [
        ("a changed config", digest(&config), changed(&config), "a document has the digest"),
        ("a longer config", digest(&config), [config.as_slice(), b" "].concat(), "bytes instead of"),
        ("a changed blob", digest(&blob), changed(&blob), "layer `sha256:"),
        ("a longer blob", digest(&blob), padded, "bytes instead of"),
    ] {
        let mut files = files.clone();
        files.insert(blob_name(&digest), bytes);
        let found = refused(files);
        assert!(found.contains(said), "{what}: {found}");
    }
}

/// A blob that ends early is asked for again, and given up when the rest never comes.
#[test]
fn short_blobs() {
    let (image, mut files) = layout();
    let blob = pack(&image.layers[0], Packing::Gzip);
    files.insert(blob_name(&digest(&blob)), blob[..blob.len() - 7].to_vec());
    let said = refused(files);
    let length = blob.len();
    assert!(said.contains(&format!("the connection ended after {} of {length} bytes", length - 7)), "{said}");
}

/// A manifest of another digest than the reference has is refused.
#[test]
fn pinned_digests() {
    let (_, files) = layout();
    let registry = TestRegistry::with_rule(&[], Packing::Gzip, {
        let manifest =
            files.iter().find(|(_, bytes)| bytes.starts_with(b"{\"config\"")).expect("one").1.clone();
        move |request| match request.is_manifest() {
            true => Answer::body(manifest.clone()),
            false => Answer::Right,
        }
    });
    let wanted = format!("acme/app@{}", digest(b"another"));
    let said = refusal(&registry, pull(&registry, &wanted));
    assert!(said.contains("the manifest has the digest `sha256:"), "{said}");
    assert!(said.contains(&format!("instead of `{}`", digest(b"another"))), "{said}");
}

/// A manifest of another digest than the registry states, or of another media type, is refused.
#[test]
fn contradictions() {
    let (image, files) = layout();
    let manifest = files.values().find(|bytes| bytes.starts_with(b"{\"config\"")).expect("one").clone();
    for (name, value, said) in [
        ("Docker-Content-Digest", digest(b"another"), "the manifest has the digest `sha256:"),
        (
            "Content-Type",
            "application/vnd.oci.image.index.v1+json".to_owned(),
            "it sent a document of the media type `application/vnd.oci.image.manifest.v1+json` as one of \
             `application/vnd.oci.image.index.v1+json`",
        ),
    ] {
        let body = manifest.clone();
        let registry = TestRegistry::with_rule(std::slice::from_ref(&image), Packing::Gzip, move |request| {
            let headers = vec![(name.to_owned(), value.clone())];
            match request.is_manifest() {
                true => Answer::Other { status: 200, headers, body: body.clone() },
                false => Answer::Right,
            }
        });
        let found = refusal(&registry, pull(&registry, "acme/app:1"));
        assert!(found.contains(said), "{found}");
    }
}

/// An image for other machines only is refused with what there is, and so is an index without any.
#[test]
fn other_platforms() {
    let mut image = TestImage::small(&["acme/app:1"]);
    image.architecture = foreign_architecture().to_owned();
    let foreign = format!("only for `linux/{}`", foreign_architecture());
    assert!(refused(layout_files(&[image], Packing::Gzip)).contains(&foreign));
    for (manifests, said) in [
        (json!([]), "has no images"),
        (
            json!([
                { "digest": digest(b"a"), "size": 1, "platform": { "os": "windows", "architecture": "amd64" } },
                { "digest": digest(b"b"), "size": 1, "platform": { "os": "linux", "architecture": "s390x" } },
            ]),
            "only for `windows/amd64`, `linux/s390x`",
        ),
    ] {
        let mut files = Files::new();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        let mut named = add_blob(&mut files, media_type, index.to_string().into_bytes());
        named["annotations"] = json!({ "org.opencontainers.image.ref.name": "acme/app:1" });
        let index = json!({ "schemaVersion": 2, "manifests": [named] }).to_string();
        files.insert("index.json".to_owned(), index.into_bytes());
        let found = refused(files);
        assert!(found.contains(said), "{found}");
    }
}

/// A blob that the registry has lost, and a layer that no image may have, are named with their layer.
#[test]
fn bad_layers() {
    let (image, mut files) = layout();
    let blob = digest(&pack(&image.layers[1], Packing::Gzip));
    files.remove(&blob_name(&blob));
    let said = refused(files);
    assert!(said.contains(&format!("layer `{}`: `{blob}` is missing", image.diff_ids()[1])), "{said}");

    let escape = TestImage::new(&["acme/app:1"], vec![layer(&[Item::File("../escape", b"x")])]);
    let said = refused(layout_files(&[escape], Packing::Gzip));
    assert!(said.contains("entry `../escape`"), "{said}");
}

/// The limits hold for what is pulled, too.
#[test]
fn limits() {
    let (_, files) = layout();
    let registry = TestRegistry::with_files(files, |_| Answer::Right);
    let mut limits = IngestLimits::default();
    limits.layer_bytes = 1000;
    let said = refusal(&registry, pull(&registry, "acme/app:1").limits(limits));
    assert!(said.contains("it exceeds the limit of 1000 bytes in a layer"), "{said}");
    let mut limits = IngestLimits::default();
    limits.document_bytes = 10;
    let said = refusal(&registry, pull(&registry, "acme/app:1").limits(limits));
    assert!(said.contains("it exceeds the limit of 10 bytes in a manifest"), "{said}");
}
