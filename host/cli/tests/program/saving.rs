//! Images as archives.

use std::fs;

use crate::harness::TestEnvironment;
use larder_erofs::writer::Entry;
use larder_tests::real::{LayerOf, RealImage, fill, layer_path, metadata_path};

fn with_images() -> (TestEnvironment, Vec<u8>) {
    let test = TestEnvironment::made();
    let base = LayerOf::new().file("etc/motd", "hello\n").add("run/socket", Entry::Socket).done();
    let top = LayerOf::new().file("app", vec![1; 100_000]).done();
    let image = |reference, layers: &[&Vec<u8>]| RealImage {
        reference,
        config: serde_json::json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/app"] } }),
        layers: layers.iter().map(|&layer| layer.clone()).collect(),
    };
    let by_digest = "acme/app@sha256:0123456789012345678901234567890123456789012345678901234567890123";
    fill(&test.home.path(), &[image("acme/app:1", &[&base, &top]), image(by_digest, &[&base])]);
    (test, top)
}

/// Saving says each layer once, and in the end what was saved and what was not; for programs it is one record.
#[test]
fn save() {
    let (test, _) = with_images();
    let by_digest = "acme/app@sha256:0123456789012345678901234567890123456789012345678901234567890123";
    fs::remove_file(test.home.cache().join(metadata_path(by_digest))).expect("gone");
    assert_output!(
        "save",
        test.larder(&format!("save app:1 acme/app:1 {by_digest} -o app.tar")),
        test.larder(&format!("save acme/app:1 {by_digest} -o app.tar")),
        test.larder("save acme/app:1 -o oci.tar --as oci --format json"),
    );
    for name in ["app.tar", "oci.tar"] {
        assert!(test.directory().join(name).is_file(), "{name}");
    }
}

/// What cannot be saved is named, with what to do about it.
#[test]
fn save_refused() {
    let (test, top) = with_images();
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
