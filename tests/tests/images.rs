//! The image API gives what microsandbox's own SDK gives for the same home.

use std::os::unix::fs::MetadataExt as _;

use larder::{Image, MicrosandboxError};
use larder_tests::{Home, lines_of, run};

/// `list` equals the SDK's dump of the fixture, record by record and in its order.
#[test]
fn list_equals_the_sdk() {
    let home = Home::fixture();
    let images = run(async { Image::list_local(&home.open().await).await }).expect("the images");
    let listed: Vec<_> = images.iter().map(|image| serde_json::to_value(image).expect("a record")).collect();
    assert_eq!(listed, lines_of("msb-0.7.13-41.list.jsonl"));
}

/// `inspect` equals the SDK's dump of the fixture for each of its images, and `get` the handle in it.
#[test]
fn inspect_and_get_equal_the_sdk() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        for expected in lines_of("msb-0.7.13-41.inspect.jsonl") {
            let reference = expected["handle"]["reference"].as_str().expect("a reference");
            let detail = Image::inspect_local(&local, reference).await.expect("the image");
            assert_eq!(serde_json::to_value(&detail).expect("a record"), expected);
            let handle = Image::get_local(&local, reference).await.expect("the image");
            assert_eq!(serde_json::to_value(&handle).expect("a record"), expected["handle"]);
        }
    });
}

/// A reference is found as it stands, then normalized; what is absent and what is no reference are told apart.
#[test]
fn references_are_matched_in_any_spelling() {
    let home = Home::fixture();
    home.execute(
        "UPDATE image_ref SET reference = 'python:3.12' WHERE reference = 'docker.io/acme/app00003:v1';
         UPDATE image_ref SET reference = 'not a reference' WHERE reference = 'docker.io/acme/app00003:v2';",
    );
    run(async {
        let local = home.open().await;
        let found = async |reference: &str| match Image::get_local(&local, reference).await {
            Ok(image) => image.reference().to_owned(),
            Err(MicrosandboxError::ImageNotFound(reference)) => format!("{reference}: not found"),
            Err(error) => error.to_string(),
        };
        for spelling in [
            "python:3.12",
            "library/python:3.12",
            "docker.io/library/python:3.12",
            "index.docker.io/python:3.12",
        ] {
            assert_eq!(found(spelling).await, "python:3.12", "{spelling}");
        }
        assert_eq!(found("acme/app00004:v7").await, "docker.io/acme/app00004:v7");
        assert_eq!(found("acme/app00000").await, "docker.io/acme/app00000:latest");
        assert_eq!(found("not a reference").await, "not a reference");
        assert_eq!(found("python:3.13").await, "python:3.13: not found");
        assert!(found("Not a reference!").await.contains("is not an image reference"));
    });
}

/// `prune` removes the figures that microsandbox removes and leaves the three images in use, and its bytes are the
/// allocated blocks of what went.
#[test]
fn prune_equals_the_sdk() {
    let home = Home::fixture();
    let before = allocated(&home);
    let report = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!(
        (report.image_refs_removed, report.manifests_removed, report.layers_removed),
        (38, 37, 222),
        "{report:?}"
    );
    assert_eq!(
        (report.fsmeta_removed, report.vmdk_removed, report.skipped_in_use),
        (37, 37, 0),
        "{report:?}"
    );
    assert_eq!(report.bytes_reclaimed, Some(before - allocated(&home)));
    let left = ["docker.io/acme/app00000:v0", "docker.io/acme/app00001:v0", "docker.io/acme/app00002:v0"];
    assert_eq!(home.texts("SELECT reference FROM image_ref"), left.map(str::to_owned).into());
    assert_eq!((home.files("layers").len(), home.files("manifests").len()), (18, 3));
    let again = run(async { Image::prune_local(&home.open().await).await }).expect("a report");
    assert_eq!(again, larder::ImagePruneReport::default());
}

fn allocated(home: &Home) -> u64 {
    let files = |room: &str| {
        let room_path = home.cache().join(room);
        home.files(room)
            .into_iter()
            .map(move |name| std::fs::metadata(room_path.join(name)).expect("a file").blocks() * 512)
    };
    ["layers", "fsmeta", "vmdk", "manifests"].into_iter().flat_map(files).sum()
}
