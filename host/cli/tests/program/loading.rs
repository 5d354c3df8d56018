//! Images come in: what is shown, to people and to programs, and what is refused.

use larder_tests::archive::{Files, Item, TestImage, docker_files, layer, tar_of};

use serde_json::json;

use crate::harness::TestEnvironment;

fn archive(test: &TestEnvironment, name: &str, files: &Files) {
    test.write(name, tar_of(files));
}

/// Images are loaded from several archives, each layer once, into a home that is made for them.
#[test]
fn load() {
    let test = TestEnvironment::missing();
    let first = TestImage::small(&["acme/app:1", "acme/app:latest"]);
    let mut second = TestImage::new(&["acme/other:1"], vec![first.layers[0].clone()]);
    archive(&test, "first.tar", &docker_files(std::slice::from_ref(&first)));
    archive(&test, "second.tar", &docker_files(std::slice::from_ref(&second)));
    second.names.clear();
    archive(&test, "unnamed.tar", &docker_files(&[second]));
    let outputs = [
        test.larder("load first.tar"),
        test.larder("load second.tar first.tar -q"),
        test.larder("load unnamed.tar --tag localhost:5000/a:1"),
        test.larder("ls --sort reference"),
    ];
    assert!(outputs.iter().all(|output| output.status == 0), "{outputs:?}");
    // Layers are done in any order.
    assert!(
        outputs[0].stderr.lines().last().is_some_and(|line| line.starts_with("2 images: 2 new layers, "))
    );
    assert!(outputs[2].stderr.ends_with("1 image: 1 layer already there\n"), "{}", outputs[2]);
    assert_eq!(outputs[1].stderr, "");
    for reference in ["acme/app:1", "acme/app:latest", "acme/other:1"] {
        assert!(outputs[3].stdout.contains(&format!("docker.io/{reference}")), "{}", outputs[3]);
    }
    assert!(outputs[2].stdout.contains("localhost:5000/a:1"), "{}", outputs[2]);
}

/// Programs get the records of the images, and an object for each step on the way.
#[test]
fn load_for_programs() {
    let test = TestEnvironment::made();
    let image = TestImage::new(&["acme/app:1"], vec![layer(&[Item::File("file", &[7; 3_000_000])])]);
    let (digest, bytes) = (image.diff_ids().remove(0), image.layers[0].len());
    archive(&test, "image.tar", &docker_files(&[image]));
    let outputs = [test.larder("load image.tar --format json"), test.larder("load image.tar --format json")];
    let loaded = outputs.each_ref().map(|output| output.json()[0].clone());
    assert_eq!(loaded[0]["reference"], "docker.io/acme/app:1");
    assert_eq!(loaded[0]["manifest_digest"], loaded[1]["manifest_digest"]);
    let ready =
        json!({ "event": "image-ready", "manifest_digest": loaded[0]["manifest_digest"], "layers": 1 });
    let added = json!({
        "event": "image-added", "reference": "docker.io/acme/app:1", "manifest_digest": loaded[0]["manifest_digest"],
    });
    let started = json!({ "event": "layer-started", "layer": digest, "step": "convert", "bytes": bytes });
    let done =
        |outcome| json!({ "event": "layer-done", "layer": digest, "outcome": outcome, "bytes": bytes });
    assert_eq!(outputs[0].milestones(), [started, done("converted"), ready.clone(), added.clone()]);
    assert_eq!(outputs[1].milestones(), [done("cached"), ready, added]);
    assert!(outputs[0].stderr.matches("layer-advanced").count() > 1, "{}", outputs[0]);
    let quiet = test.larder("load image.tar --format json --quiet");
    assert_eq!((quiet.status, quiet.stderr.as_str()), (0, ""));
}

/// What cannot be loaded is said with the archive, and what to do where something can be done; the rest is loaded.
#[test]
fn load_refused() {
    let test = TestEnvironment::made();
    let bad = layer(&[Item::File("../escape", b"x")]);
    archive(&test, "bad.tar", &docker_files(&[TestImage::new(&["acme/bad:1"], vec![bad])]));
    archive(&test, "unnamed.tar", &docker_files(&[TestImage::small(&[])]));
    let mut other = TestImage::small(&["acme/app:2"]);
    other.layers.pop();
    archive(&test, "good.tar", &docker_files(&[TestImage::small(&["acme/app:1"]), other]));
    let some = test.larder("load bad.tar nowhere.tar good.tar -q");
    assert_eq!(some.status, 1, "{some}");
    assert!(some.stderr.contains("error: `bad.tar`, layer `sha256:"), "{some}");
    assert!(some.stderr.contains("entry `../escape`: `../escape` has a component `..`"), "{some}");
    assert!(some.stderr.contains("error: `nowhere.tar`: it cannot be read: "), "{some}");
    assert!(some.stdout.contains("docker.io/acme/app:1"), "{some}");
    let json = test.larder("load bad.tar --format json -q");
    let error: serde_json::Value = serde_json::from_str(&json.stderr).expect("one object");
    assert_eq!((json.status, error["kind"].as_str()), (1, Some("image-invalid")), "{json}");
    for (arguments, said) in [
        ("load unnamed.tar", "none of its images has a name with a repository: `sha256:"),
        ("load unnamed.tar", "`--tag NAME` names an image"),
        ("load good.tar --tag a:1", "it holds 2 images, and the given names can be for one only"),
        ("load good.tar --platform linux", "`linux` is not a platform: expected `OS/ARCH`"),
        (
            "load good.tar unnamed.tar --tag a",
            "`--tag` is for the images of one archive, and several are given",
        ),
        ("load good.tar --tag a//b", "`a//b` is not an image reference"),
    ] {
        let output = test.larder(arguments);
        assert_eq!(output.status, 2, "{output}");
        assert!(output.stderr.contains(said), "{output}");
    }
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 2);
}

/// Images are chosen by name, and what has no name is left out and said; the rest is loaded.
#[test]
fn load_chosen() {
    let test = TestEnvironment::made();
    let mut other = TestImage::small(&["acme/app:2"]);
    other.layers.pop();
    let unnamed = TestImage::new(&[], vec![layer(&[Item::File("x", b"x")])]);
    archive(&test, "some.tar", &docker_files(&[TestImage::small(&["acme/app:1"]), other, unnamed]));
    let chosen = test.larder("load some.tar --select acme/app:2");
    assert_eq!((chosen.status, chosen.stdout.matches("acme/app").count()), (0, 1), "{chosen}");
    assert!(!chosen.stderr.contains("left out"), "{chosen}");
    let all = test.larder("load some.tar --tag localhost:5000/app");
    assert!(
        all.stdout.contains("localhost:5000/app:1") && all.stdout.contains("localhost:5000/app:2"),
        "{all}"
    );
    assert!(all.stderr.contains("is left out: it has no name"), "{all}");
    let none = test.larder("load some.tar --select 3");
    assert_eq!(none.status, 3, "{none}");
    assert!(none.stderr.contains("there is no image `3` in it, only `acme/app:1`, `acme/app:2`"), "{none}");
    let foreign = test.larder("load some.tar --platform linux/s390x");
    assert_eq!(foreign.status, 1, "{foreign}");
    assert!(foreign.stderr.contains("there is no image for `linux/s390x` in it"), "{foreign}");
}

/// Images of an archive that were complete before one that cannot be loaded are shown, whether for people or for programs.
#[test]
fn load_failed_in_the_middle() {
    let test = TestEnvironment::made();
    let image =
        |name: &str, file: &str| TestImage::new(&[name], vec![layer(&[Item::File(file, name.as_bytes())])]);
    let images = [image("acme/a:1", "a"), image("acme/b:1", "../b"), image("acme/c:1", "c")];
    archive(&test, "some.tar", &docker_files(&images));
    for format in ["human", "json"] {
        let output = test.larder(&format!("load some.tar --format {format}"));
        assert_eq!(output.status, 1, "{output}");
        assert!(output.stdout.contains("docker.io/acme/a:1"), "{output}");
        assert!(!output.stdout.contains("acme/b") && !output.stdout.contains("acme/c"), "{output}");
        assert!(output.stderr.contains("`../b` has a component `..`"), "{output}");
    }
    assert_eq!(test.home.texts("SELECT reference FROM image_ref"), ["docker.io/acme/a:1".to_owned()].into());
}

/// A limit that an image exceeds is told with the option that raises it, and the option does. Keys and values that are none
/// are refused with those that are.
#[test]
fn limits() {
    let test = TestEnvironment::made();
    let large = layer(&[Item::File("file", &[7; 300_000])]);
    archive(&test, "large.tar", &docker_files(&[TestImage::new(&["acme/large:1"], vec![large])]));
    let refused = test.larder("load large.tar --limit layer-bytes=200KiB");
    assert_eq!(refused.status, 1, "{refused}");
    let (limit, hint) =
        ("it exceeds the limit of 204800 bytes in a layer", "`--limit layer-bytes=400KiB` doubles the limit");
    assert!(refused.stderr.contains(limit) && refused.stderr.contains(hint), "{refused}");
    assert_eq!(test.larder("load large.tar --limit layer-bytes=400KiB --limit layers=1").status, 0);
    for (option, part) in
        [("layer=1", "`layer` is not a limit: there are `archive-bytes`"), ("layers=x", "`x`")]
    {
        let unknown = test.larder(&format!("load large.tar --limit {option}"));
        assert!(unknown.status == 2 && unknown.stderr.contains(part), "{unknown}");
    }
    let help = test.larder("pull --help");
    assert!(help.stdout.contains("layer-bytes=64GiB  bytes in a layer"), "{help}");
}

/// What is taken otherwise than its maker may have meant is a warning, and an event for programs.
#[test]
fn warnings() {
    let test = TestEnvironment::made();
    let lower = layer(&[
        Item::Raw("label", b'V', b""),
        Item::File("usr/lib/libc", b"x"),
        Item::Symlink("lib", "usr/lib"),
    ]);
    let upper = layer(&[Item::File("lib/x", b"x")]);
    archive(&test, "odd.tar", &docker_files(&[TestImage::new(&["acme/odd:1"], vec![lower, upper])]));
    let loaded = test.larder("load odd.tar");
    assert_eq!(loaded.status, 0, "{loaded}");
    for part in
        ["1 entry left out, since no image has any of the types `V`", "hides what the link led to: `lib`"]
    {
        let is_warning = |line: &str| line.starts_with("warning: ") && line.contains(part);
        assert!(loaded.stderr.lines().any(is_warning), "{loaded}");
    }
    assert_eq!(test.larder("rm acme/odd:1 --yes").status, 0);
    let events = test.larder("load odd.tar --format json");
    for name in ["entries-skipped", "links-covered"] {
        assert!(events.stderr.contains(&format!(r#""event":"{name}""#)), "{events}");
    }
    assert!(!events.stderr.contains(r#"{"warning""#), "{events}");
}
