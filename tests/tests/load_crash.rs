//! A process that ends at any step of a load leaves a home in order, in which the same load succeeds.

use std::collections::BTreeSet;
use std::fs;

use larder::Image;
use larder::maintenance::VerifyDepth;
use larder_erofs::reader;
use larder_tests::archive::{Item, TestImage, docker_files, layer, tar_of};
use larder_tests::{Home, run};

/// The program that ends at a failpoint.
const CRASH: &str = env!("CARGO_BIN_EXE_larder-crash");

/// Whatever lies under a name that the index could give is whole.
fn assert_whole(home: &Home, when: &str) {
    for room in ["layers", "fsmeta"] {
        for name in home.files(room) {
            let image = fs::File::open(home.cache().join(room).join(&name)).expect("an artifact");
            let image = reader::Image::open(image).unwrap_or_else(|error| panic!("{when}: {name}: {error}"));
            reader::check(&image).unwrap_or_else(|error| panic!("{when}: {name}: {error}"));
        }
    }
    for name in home.files("vmdk") {
        let text = fs::read_to_string(home.cache().join("vmdk").join(name)).expect("a descriptor");
        assert!(text.ends_with("ddb.adapterType = \"ide\"\n"), "{when}: {text}");
    }
    for name in home.files("manifests") {
        let text = fs::read(home.cache().join("manifests").join(name)).expect("metadata");
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "{when}");
    }
}

/// Killed at every step, a load has put whole images into the index, in the order of the archive; no row lacks its artifact, no
/// artifact is half written; and the load that comes next succeeds.
#[test]
fn every_step_can_be_the_last() {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = directory.path().join("archive.tar");
    let mut other = TestImage::small(&["acme/app:2"]);
    other.layers.push(layer(&[Item::File("more", b"x")]));
    fs::write(&archive, tar_of(&docker_files(&[TestImage::small(&["acme/app:1"]), other])))
        .expect("the archive");
    let mut reached = BTreeSet::new();
    for failpoint in larder::failpoint::INGEST_NAMES {
        // Layers come first, then the images, then what is said of them.
        for nth in [1, 2, 3, 4, 6, 8, 9] {
            let home = Home::made();
            let when = format!("{failpoint}, {nth}");
            if !home.crash(CRASH, "load", &archive, failpoint, nth) {
                continue;
            }
            reached.insert(failpoint);
            assert_whole(&home, &when);
            let references = home.count("SELECT count(*) FROM image_ref");
            let expected = match failpoint {
                "ingest.inserted" => nth - 1..=nth - 1,
                "ingest.committed" => nth..=nth,
                // The second image is described after the first is added.
                _ if nth == 1 => 0..=0,
                _ => 0..=1,
            };
            assert!(expected.contains(&u32::try_from(references).expect("a number")), "{when}: {references}");
            let verify = || {
                let report = run(async { home.open().await.verify(VerifyDepth::Deep).await });
                report.expect("a report").findings.into_iter().filter(|finding| finding.is_damage()).count()
            };
            assert_eq!(verify(), 0, "{when}");
            run(async { Image::load_local(&home.open().await, &archive, Vec::new()).await }).expect("loaded");
            assert_eq!((home.count("SELECT count(*) FROM image_ref"), verify()), (2, 0), "{when}");
            assert_whole(&home, &when);
            assert_eq!((home.files("layers").len(), home.files("fsmeta").len()), (3, 2), "{when}");
        }
    }
    assert_eq!(reached, larder::failpoint::INGEST_NAMES.into(), "failpoints that nothing reaches");
}
