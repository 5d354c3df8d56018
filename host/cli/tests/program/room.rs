//! Room for what is loaded and pulled, on a disk of 64 MiB that only root can mount.

use std::fs;

use larder_tests::archive::{Item, Packing, TestImage, docker_files, layer, tar_of};
use larder_tests::registry::TestRegistry;

use crate::disk::{Disk, Owner, SmallDisk, can_mount};
use crate::harness::TestEnvironment;

/// A job that makes room by the images that were used longest ago.
const JOBS: &str = r#"
[guard]
min-age = "0s"

[jobs.pressure]
when-free-below = "4MiB"
until-free = "8MiB"
make-room = true
policy = "disk-budget"
grant = { remove = ["docker.io/acme/**"], max-share = "100%" }
"#;

/// An image of so many MiB that no compression makes smaller.
fn image(name: &str, mebibytes: usize) -> TestImage {
    let mut number =
        name.bytes().fold(0x9E37_79B9_7F4A_7C15_u64, |number, byte| number.rotate_left(7) ^ u64::from(byte));
    let mut next = || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number
    };
    let content: Vec<u8> =
        std::iter::repeat_with(|| next().to_le_bytes()).take(mebibytes << 17).flatten().collect();
    TestImage::new(&[name], vec![layer(&[Item::File("data", &content)])])
}

/// A disk with two images of 20 MiB on it, which leave some 20 MiB.
fn disk(kind: Disk) -> SmallDisk {
    let disk = SmallDisk::new(TestEnvironment::made(), kind, Owner::Root, 64);
    for name in ["docker.io/acme/old:1", "docker.io/acme/old:2"] {
        disk.test.write("image.tar", tar_of(&docker_files(&[image(name, 19)])));
        let (status, _, said) = disk.larder(Owner::Root, "load image.tar");
        assert_eq!(status, Some(0), "{said}");
    }
    disk
}

fn references(disk: &SmallDisk) -> Vec<String> {
    let (_, listed, _) = disk.larder(Owner::Root, "ls --format json");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("a list");
    let mut names: Vec<String> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|image| image["reference"].as_str().expect("a name").to_owned())
        .collect();
    names.sort();
    names
}

/// A pull that does not fit is refused before any layer is asked for, with what it needs and what there is; a job that
/// makes room lets it in, and takes no more images than that takes.
#[test]
fn a_pull_that_does_not_fit() {
    if !can_mount() {
        return;
    }
    for kind in [Disk::Tmpfs, Disk::Ext4] {
        let disk = disk(kind);
        let registry = TestRegistry::new(&[image("acme/new:1", 36)], Packing::Gzip);
        let pull = format!("pull {} --plain-http --anonymous", registry.reference("acme/new:1"));
        let (status, _, said) = disk.larder(Owner::Root, &pull);
        assert_eq!(status, Some(1), "{said}");
        assert!(
            said.contains("it needs about 37.") && said.contains("available on the file system"),
            "{said}"
        );
        assert!(said.contains("--no-room"), "{said}");
        // The end of the layer says how long its content is; nothing else of it was asked for.
        let layers = registry.requests().into_iter().filter(|request| {
            request.is_blob() && request.headers.get("range").is_none_or(|range| range == "bytes=0-")
        });
        assert!(layers.count() <= 1, "the config alone");
        assert_eq!(references(&disk).len(), 2);

        fs::write(disk.home().join("larder.toml"), JOBS).expect("a job file");
        let (status, _, said) = disk.larder(Owner::Root, &pull);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("making room: 37.") && said.contains("`pressure` removed 1 image"), "{said}");
        let left = references(&disk);
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.iter().any(|name| name.ends_with("acme/new:1")), "{left:?}");
        let (status, _, said) = disk.larder(Owner::Root, "verify");
        assert_eq!(status, Some(0), "{said}");
        let (_, runs, _) = disk.larder(Owner::Root, "history --format json");
        assert!(runs.contains("\"job\": \"pressure\""), "{runs}");
    }
}

/// A load that does not fit, even if everything went that the jobs may remove, is refused before anything goes, and says what
/// holds the space. So it is where the only job observes.
#[test]
fn a_load_that_can_never_fit() {
    if !can_mount() {
        return;
    }
    let disk = disk(Disk::Tmpfs);
    disk.test.write("image.tar", tar_of(&docker_files(&[image("docker.io/acme/new:1", 36)])));
    disk.test.write("huge.tar", tar_of(&docker_files(&[image("docker.io/acme/new:2", 80)])));
    let refused = |jobs: &str, archive: &str| {
        fs::write(disk.home().join("larder.toml"), jobs).expect("a job file");
        let (status, _, said) = disk.larder(Owner::Root, &format!("load {archive}"));
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("it needs about ") && !said.contains("` removed "), "{said}");
        assert_eq!(references(&disk), ["docker.io/acme/old:1", "docker.io/acme/old:2"]);
        said
    };
    let protected = JOBS.replace("[guard]", "[guard]\nprotect = [\"docker.io/acme/old:*\"]");
    let said = refused(&protected, "image.tar");
    assert!(
        said.contains("so they removed nothing") && said.contains("kept by the guard (2 images)"),
        "{said}"
    );
    let said = refused(JOBS, "huge.tar");
    assert!(said.contains("so they removed nothing"), "{said}");
    refused(&JOBS.replace("make-room = true", "make-room = true\nmode = \"observe\""), "image.tar");
}

/// Loads fill a disk until a bound is passed; what is due then removes until its end, and no more. On the full disk, too.
#[test]
fn loads_until_a_bound_is_passed() {
    if !can_mount() {
        return;
    }
    for kind in [Disk::Tmpfs, Disk::Ext4] {
        let disk = disk(kind);
        fs::write(disk.home().join("larder.toml"), JOBS).expect("a job file");
        let (status, _, said) = disk.larder(Owner::Root, "job run --due");
        assert_eq!((status, said.contains("nothing is due")), (Some(0), true), "{said}");
        disk.test.write("image.tar", tar_of(&docker_files(&[image("docker.io/acme/new:1", 15)])));
        let (status, _, said) = disk.larder(Owner::Root, "load image.tar");
        assert_eq!(status, Some(0), "{said}");
        disk.fill();
        let (status, out, said) = disk.larder(Owner::Root, "job run --due");
        assert_eq!(status, Some(0), "{out}{said}");
        assert_eq!(references(&disk).len(), 2, "{out}{said}");
        let (_, status, _) = disk.larder(Owner::Root, "job run --due");
        assert_eq!(status, "");
        let (clean, _, said) = disk.larder(Owner::Root, "verify");
        assert_eq!(clean, Some(0), "{said}");
    }
}
