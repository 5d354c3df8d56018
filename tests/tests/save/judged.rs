//! What other tools and the kernel make of what was saved.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use larder::ingest::{ImageLoad, ImageSave, LayerCompression, ZstdLevel};
use larder::{Image, ImageArchiveFormat};
use larder_tests::archive::this_architecture;
use larder_tests::judge::{Mount, can_mount, has_tools, tool, walk};
use larder_tests::real::{LayerOf, RealImage, fill};
use larder_tests::{Home, ImageStore, run, umoci_layout};
use serde_json::json;

use crate::archives::{FORMATS, image, save};

fn loaded(input: &Path, tags: &[&str]) -> Home {
    let home = Home::made();
    let load = tags.iter().copied().fold(ImageLoad::new(input), ImageLoad::tag);
    run(async { load.run(&home.open().await).await }).expect("loaded");
    home
}

/// umoci unpacks what was saved to the tree that it unpacks from the original: as an OCI layout, and as a Docker archive
/// that skopeo copied to one, each digest checked.
#[test]
fn other_tools_see_the_original() {
    if !has_tools(&["umoci", "skopeo"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (layout, unpacked) = umoci_layout(directory.path());
    let home = loaded(&layout, &["acme/app:1"]);
    let expected = walk(&unpacked);
    for (format, transport) in FORMATS.into_iter().zip(["docker-archive", "oci-archive"]) {
        save(&home, &["acme/app:1"], format, "saved.tar");
        let archive = home.path().with_file_name("saved.tar");
        let source = format!("{transport}:{}", archive.display());
        let said = tool("skopeo", ["inspect", &source]);
        assert!(said.contains("\"Os\": \"linux\""), "{said}");
        let copy = directory.path().join(transport);
        let target = format!("oci:{}:copy", copy.display());
        tool("skopeo", ["--insecure-policy", "copy", "--quiet", &source, &target]);
        let bundle = directory.path().join(format!("{transport}-bundle"));
        let bundle_name = bundle.to_str().expect("a path in UTF-8");
        tool("umoci", ["unpack", "--image", &format!("{}:copy", copy.display()), bundle_name]);
        let found = walk(&bundle.join("rootfs"));
        for (path, line) in &expected {
            assert_eq!(found.get(path), Some(line), "{transport}: {}", path.display());
        }
        assert_eq!(found.len(), expected.len(), "{transport}: {:?}", found.keys());
    }
}

/// The image of a home as the kernel mounts it.
fn mounted(home: &Home) -> Mount {
    let detail =
        run(async { Image::inspect_local(&home.open().await, "acme/app:1").await }).expect("the image");
    let artifact = |room: &str, digest: &str| -> PathBuf {
        home.cache().join(room).join(format!("{}.erofs", digest.replace(':', "_")))
    };
    let layers: Vec<PathBuf> = detail.layers.iter().map(|layer| artifact("layers", &layer.diff_id)).collect();
    Mount::new(&artifact("fsmeta", detail.handle.manifest_digest().expect("a manifest")), &layers)
}

/// The kernel shows of an image that was saved and loaded again what it shows of the first.
#[test]
fn the_kernel_shows_the_same() {
    if !has_tools(&["umoci"]) || !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (layout, _) = umoci_layout(directory.path());
    let home = loaded(&layout, &["acme/app:1"]);
    let expected = walk(mounted(&home).path());
    assert!(expected.len() > 15, "{expected:?}");
    for format in FORMATS {
        save(&home, &["acme/app:1"], format, "saved.tar");
        let again = loaded(&home.path().with_file_name("saved.tar"), &[]);
        let found = walk(mounted(&again).path());
        assert_eq!(found, expected, "{format:?}");
    }
}

/// Returns a line of [`walk`] without the time of a directory: podman does not set it back after a removal below.
fn without_times(line: &str) -> String {
    let is_time = |word: &&str| line.starts_with("4") && word.contains('.');
    line.split(' ').filter(|word| !is_time(word)).collect::<Vec<_>>().join(" ")
}

/// Podman loads what was saved, in both forms, compressed and not, under its names, and its files are those that umoci
/// unpacks.
#[test]
fn podman_sees_the_original() {
    if !has_tools(&["umoci"]) {
        return;
    }
    let Some(store) = ImageStore::find() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let (layout, unpacked) = umoci_layout(directory.path());
    let home = loaded(&layout, &["acme/app:1", "acme/app:2"]);
    let expected = walk(&unpacked);
    for format in FORMATS {
        for compression in [
            LayerCompression::None,
            LayerCompression::of(ImageArchiveFormat::Oci),
            LayerCompression::Zstd(ZstdLevel::DEFAULT),
        ] {
            let archive = store.path("saved.tar");
            let stream = File::create(&archive).expect("a file");
            let save = ImageSave::to_writer(["acme/app:1", "acme/app:2"], "a stream", stream);
            let save = save.format(format).compression(compression);
            run(async { save.run(&home.open().await).await }).expect("an archive");
            let said = store.run("podman", &["load", "--input", archive.to_str().expect("a path in UTF-8")]);
            for name in ["docker.io/acme/app:1", "docker.io/acme/app:2"] {
                assert!(said.contains(name), "{format:?}, {compression:?}: {said}");
            }
            let (working, root) = store.working("docker.io/acme/app:1");
            let found = walk(&root);
            for (path, line) in &expected {
                let found = found.get(path).map(|line| without_times(line));
                let expected = Some(without_times(line));
                assert_eq!(found, expected, "{format:?}, {compression:?}: {}", path.display());
            }
            assert_eq!(found.len(), expected.len(), "{format:?}, {compression:?}: {:?}", found.keys());
            store.run("buildah", &["rm", &working]);
            store.run("podman", &["rmi", "--force", "docker.io/acme/app:1", "docker.io/acme/app:2"]);
        }
    }
}

/// Other tools read a layer that was compressed in several parts, and find several images in a layout, of which some
/// readers know only `manifest.json`.
#[test]
fn large_layers_and_several_images() {
    let Some(store) = ImageStore::find() else { return };
    let home = Home::made();
    let large: Vec<u8> =
        (0..900_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
    let (base, top) = (LayerOf::new().file("large", &large).done(), LayerOf::new().file("top", "t").done());
    let plain = |reference, layers: &[&Vec<u8>]| RealImage {
        config: json!({ "architecture": this_architecture(), "os": "linux" }),
        ..image(reference, layers)
    };
    fill(&home.path(), &[plain("acme/app:1", &[&base, &top]), plain("acme/base:1", &[&base])]);
    save(&home, &["acme/app:1", "acme/base:1"], ImageArchiveFormat::Oci, "a.tar");
    let archive = home.path().with_file_name("a.tar");
    let said = store.run("podman", &["load", "--input", archive.to_str().expect("a path in UTF-8")]);
    for name in ["docker.io/acme/app:1", "docker.io/acme/base:1"] {
        assert!(said.contains(name), "{said}");
        let (_, root) = store.working(name);
        assert!(fs::read(root.join("large")).expect("the file") == large, "{name}");
        assert_eq!(root.join("top").exists(), name.contains("app"));
    }
}
