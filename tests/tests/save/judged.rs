//! What other tools and the kernel make of what was saved.

use std::path::{Path, PathBuf};

use larder::Image;
use larder::ingest::ImageLoad;
use larder_tests::judge::{Mount, can_mount, has_tools, tool, walk};
use larder_tests::{Home, run, umoci_layout};

use crate::archives::{FORMATS, save};

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
