//! What podman and buildah write is loaded, under the names and with the files that they have.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use larder::ImageHandle;
use larder_tests::judge::walk;
use larder_tests::{Home, ImageStore, LoadTest, run, tree};

/// Makes `acme/app:1`, which is `acme/app:2` as well, and `acme/top:1` on top of it. Returns the files of the latter, by
/// path, with their contents.
fn make_images(store: &ImageStore) -> BTreeMap<String, String> {
    let (working, root) = store.working("scratch");
    for directory in ["etc", "usr/bin", "gone/inside", "opaque/old"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    for name in ["etc/motd", "etc/removed", "usr/bin/tool", "gone/inside/file", "opaque/old/file"] {
        fs::write(root.join(name), name).expect("a file");
    }
    fs::set_permissions(root.join("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/same")).expect("a link");
    symlink("../etc/motd", root.join("usr/motd")).expect("a link");
    store.run("buildah", &["config", "--env", "A=b", "--cmd", "/usr/bin/tool", &working]);
    store.run("buildah", &["commit", "--quiet", &working, "acme/app:1"]);
    store.run("buildah", &["tag", "acme/app:1", "acme/app:2"]);

    let (working, root) = store.working("acme/app:1");
    fs::remove_file(root.join("etc/removed")).expect("removed");
    fs::remove_dir_all(root.join("gone")).expect("removed");
    fs::remove_dir_all(root.join("opaque")).expect("removed");
    fs::create_dir(root.join("opaque")).expect("a directory");
    fs::write(root.join("opaque/new"), "new").expect("a file");
    store.run("buildah", &["commit", "--quiet", &working, "acme/top:1"]);
    walk(&root)
        .into_keys()
        .map(|path| (path.to_str().expect("UTF-8").to_owned(), content(&root.join(path))))
        .collect()
}

/// The content of a file, the target of a link, or what a directory is shown as.
fn content(path: &Path) -> String {
    if path.is_symlink() {
        fs::read_link(path).expect("a target").display().to_string()
    } else if path.is_dir() {
        "Directory".to_owned()
    } else {
        fs::read_to_string(path).expect("a file")
    }
}

fn seen(home: &Home, image: &ImageHandle) -> BTreeMap<String, String> {
    let detail = run(async { larder::Image::inspect_local(&home.open().await, image.reference()).await });
    let detail = detail.expect("the image");
    let diff_ids: Vec<String> = detail.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    assert_eq!(detail.config.expect("a config").env, ["A=b"]);
    let mut seen = tree(home, image.manifest_digest().expect("a manifest"), &diff_ids);
    seen.remove("/");
    seen
}

/// An image is loaded from each form that podman and buildah write, with its files, removals among them, and its config;
/// an archive of several images, with all their names.
#[test]
fn each_form_is_loaded() {
    let Some(store) = ImageStore::find() else { return };
    let expected = make_images(&store);
    assert!(expected.len() > 8 && !expected.contains_key("gone"), "{expected:?}");
    let at = |name: &str| store.path(name).to_str().expect("a path in UTF-8").to_owned();
    let names = ["localhost/acme/app:1", "localhost/acme/app:2", "localhost/acme/top:1"];
    let save = ["save", "--quiet", "--multi-image-archive", "--format", "docker-archive", "--output"];
    store.run("podman", &[&save[..], &[&at("multi.tar")], &names].concat());
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        store.run("podman", &["save", "--quiet", "--format", format, "--output", &at(format), names[2]]);
    }
    for (transport, name) in
        [("docker-archive", ":acme/top:1"), ("oci-archive", ":acme/top:1"), ("oci", ":latest")]
    {
        let target = format!("{transport}:{}{name}", at(&format!("pushed-{transport}")));
        store.run("buildah", &["push", "--quiet", "acme/top:1", &target]);
    }
    for (form, tags, loaded_as) in [
        ("multi.tar", &[][..], &names[..]),
        ("docker-archive", &[], &names[2..]),
        ("oci-archive", &[], &names[2..]),
        ("oci-dir", &["localhost/acme/top:1"], &names[2..]),
        // With the name that its store has for it.
        ("pushed-docker-archive", &[], &["docker.io/acme/top:1", "localhost/acme/top:1"]),
        ("pushed-oci-archive", &[], &["docker.io/acme/top:1"]),
        ("pushed-oci", &["acme/top:1"], &["docker.io/acme/top:1"]),
    ] {
        let test = LoadTest::new();
        let images = test.load(&store.path(form), tags).unwrap_or_else(|error| panic!("{form}: {error}"));
        let references: Vec<&str> = images.iter().map(ImageHandle::reference).collect();
        assert_eq!(references, loaded_as, "{form}");
        assert_eq!(seen(&test.home, images.last().expect("an image")), expected, "{form}");
    }
}
