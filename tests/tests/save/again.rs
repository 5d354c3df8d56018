//! What was saved is loaded again, and is what it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use larder::ingest::ImageLoad;
use larder::{Image, ImageArchiveFormat, ImageConfigDetail};
use larder_tests::archive::{Item, TestImage, docker_files, layer, tar_of};
use larder_tests::real::{LayerOf, fill};
use larder_tests::{Home, run, tree};

use crate::archives::{FORMATS, config, everything_loadable, image, save};
use crate::read::holds;

/// A home with the images of an archive.
fn loaded(archive: &Path) -> Home {
    let home = Home::made();
    run(async { ImageLoad::new(archive).run(&home.open().await).await }).expect("loaded");
    home
}

fn bytes(home: &Home, archive: &str) -> Vec<u8> {
    fs::read(home.path().with_file_name(archive)).expect("the archive")
}

/// Images that were saved, loaded into another home and saved again give the same bytes: names, layers that they share,
/// and everything that a layer can have.
#[test]
fn the_same_bytes() {
    let home = Home::made();
    let (base, top) =
        (everything_loadable().done(), LayerOf::new().file("etc/.wh.motd", "").file("top", "t").done());
    let mut tag = image("localhost:5000/acme/app:2", &[&base, &top]);
    tag.config = config("acme/app:1");
    fill(&home.path(), &[image("acme/app:1", &[&base, &top]), tag, image("acme/base", &[&base])]);
    let references = ["acme/app:1", "localhost:5000/acme/app:2", "acme/base"];
    let [docker, oci] = FORMATS.map(|format| {
        let name = format!("{format:?}.tar");
        save(&home, &references, format, &name);
        bytes(&home, &name)
    });
    // A Docker archive has no annotations of manifests, and so what comes from it has none.
    use ImageArchiveFormat::{Docker, Oci};
    for (first, then, expected) in [(Docker, Docker, &docker), (Oci, Docker, &docker), (Oci, Oci, &oci)] {
        let again = loaded(&home.path().with_file_name(format!("{first:?}.tar")));
        save(&again, &references, then, "again.tar");
        assert!(bytes(&again, "again.tar") == *expected, "{first:?}, then {then:?}");
    }
}

/// The layers of a saved image that was loaded again hold what they held, down to the last attribute. What is lost is
/// what the page says: sockets.
#[test]
fn the_same_layers() {
    let home = Home::made();
    let layer = everything_loadable().done();
    fill(&home.path(), &[image("acme/app:1", &[&layer])]);
    for format in FORMATS {
        let report = save(&home, &["acme/app:1"], format, "a.tar");
        let again = loaded(&home.path().with_file_name("a.tar"));
        let saved = &report.images[0].layers[0];
        let name = format!("layers/{}.erofs", saved.diff_id.as_str().replace(':', "_"));
        let artifact = fs::read(again.cache().join(name)).expect("the artifact");
        let (found, expected) = (holds(&artifact), holds(&layer));
        for (path, words) in &expected {
            assert_eq!(found.get(path), Some(words), "{format:?}: {path}");
        }
        assert_eq!(found.len(), expected.len(), "{format:?}");
    }
}

/// What a sandbox sees of an image, by path, and its config.
fn seen(home: &Home, reference: &str) -> (BTreeMap<String, String>, ImageConfigDetail) {
    let detail = run(async { Image::inspect_local(&home.open().await, reference).await }).expect("the image");
    let diff_ids: Vec<String> = detail.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let manifest = detail.handle.manifest_digest().expect("a manifest");
    (tree(home, manifest, &diff_ids), detail.config.expect("a config"))
}

/// A sandbox sees of an image of other tools, saved and loaded again, what it saw before, and gets the same config but
/// for the digest.
#[test]
fn the_same_tree_and_config() {
    let app = TestImage::small(&["acme/app:1", "acme/app:latest"]);
    let opaque = layer(&[Item::Dir("etc"), Item::File("etc/.wh..wh..opq", b""), Item::File("etc/new", b"n")]);
    let mut other = TestImage::new(&["acme/other:1"], app.layers.clone());
    other.layers.push(opaque);
    let references = ["acme/app:1", "acme/app:latest", "acme/other:1"];
    let directory = tempfile::tempdir().expect("a directory");
    let archive = directory.path().join("archive.tar");
    fs::write(&archive, tar_of(&docker_files(&[app, other]))).expect("the archive");
    let home = loaded(&archive);
    for format in FORMATS {
        save(&home, &references, format, "a.tar");
        let again = loaded(&home.path().with_file_name("a.tar"));
        for reference in references {
            let ((tree, mut before), (tree_again, after)) = (seen(&home, reference), seen(&again, reference));
            assert!(tree.contains_key("etc/motd") != (reference == "acme/other:1"), "{tree:?}");
            assert_eq!(tree_again, tree, "{format:?}, {reference}");
            before.digest.clone_from(&after.digest);
            assert_eq!(after, before, "{format:?}, {reference}");
        }
        let count = |home: &Home, table: &str| home.count(&format!("SELECT count(*) FROM {table}"));
        for table in ["image_ref", "manifest", "layer"] {
            assert_eq!(count(&again, table), count(&home, table), "{format:?}, {table}");
        }
    }
}
