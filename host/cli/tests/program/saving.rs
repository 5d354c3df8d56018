//! Images as archives.

use std::fs;

use crate::harness::TestEnvironment;
use larder_erofs::writer::Entry;
use larder_tests::real::{LayerOf, RealImage, fill, layer_path, metadata_path, source_diff_id};
use serde_json::json;

const BY_DIGEST: &str = "acme/app@sha256:0123456789012345678901234567890123456789012345678901234567890123";

/// A home with two images, one of both layers and one of the first, which has two names.
fn with_images() -> (TestEnvironment, [Vec<u8>; 2]) {
    let test = TestEnvironment::made();
    let base = LayerOf::new().file("etc/motd", "hello\n").add("run/socket", Entry::Socket).done();
    let top = LayerOf::new().file("app", vec![1; 100_000]).done();
    let image = |reference, layers: &[&Vec<u8>]| RealImage {
        reference,
        config: json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/app"] } }),
        layers: layers.iter().map(|&layer| layer.clone()).collect(),
    };
    let images =
        [image("acme/app:1", &[&base, &top]), image(BY_DIGEST, &[&base]), image("acme/base:1", &[&base])];
    fill(&test.home.path(), &images);
    (test, [base, top])
}

/// Saving says each layer once, and in the end what was saved and what was not; for programs it is one record.
#[test]
fn save() {
    let (test, _) = with_images();
    fs::remove_file(test.home.cache().join(metadata_path(BY_DIGEST))).expect("gone");
    assert_output!(
        "save",
        test.larder(&format!("save app:1 acme/app:1 {BY_DIGEST} -o app.tar")),
        test.larder(&format!("save acme/app:1 {BY_DIGEST} -o app.tar")),
        test.larder("save acme/app:1 -o oci.tar --as oci --format json"),
    );
    for name in ["app.tar", "oci.tar"] {
        assert!(test.directory().join(name).is_file(), "{name}");
    }
}

/// Programs get an object for each step on the way, each layer once although two images have it.
#[test]
fn save_for_programs() {
    let (test, [base, top]) = with_images();
    let output = test.larder("save acme/app:1 acme/base:1 -o app.tar --format json");
    assert_eq!(output.json()["images"][1]["references"], json!(["acme/base:1"]));
    let layer = |layer: &Vec<u8>| {
        let (digest, bytes) = (source_diff_id(layer), layer.len());
        [
            json!({ "event": "layer-started", "layer": digest, "step": "save", "bytes": bytes }),
            json!({ "event": "layer-done", "layer": digest, "outcome": "saved", "bytes": bytes }),
        ]
    };
    let ready = |reference: &str, layers: usize| {
        let manifest = test.home.texts(&format!(
            "SELECT digest FROM manifest JOIN image_ref ON manifest_id = manifest.id WHERE reference = '{reference}'"
        ));
        [json!({ "event": "image-ready", "manifest_digest": manifest.first(), "layers": layers })]
    };
    let expected =
        [&layer(&base)[..], &layer(&top)[..], &ready("acme/app:1", 2)[..], &ready("acme/base:1", 1)[..]];
    assert_eq!(output.milestones(), expected.concat());
}

/// What cannot be saved is named, with what to do about it.
#[test]
fn save_refused() {
    let (test, [_, top]) = with_images();
    fs::write(test.home.cache().join(layer_path(&top)), "x").expect("a file");
    assert_output!(
        "save_refused",
        test.larder("save acme/app:1 -o app.tar"),
        test.larder("save acme/app:1 -o app.tar --format json"),
        test.larder("save acme/app:1 -o missing/app.tar"),
        test.larder("save acme/app:1"),
        test.larder("save acme/app:1 -o app.tar --as zip"),
    );
    assert!(!test.directory().join("app.tar").exists());
}
