//! Images as archives.

use std::fs::{self, File};
use std::io::Read as _;

use crate::harness::TestEnvironment;
use larder_erofs::writer::Entry;
use larder_tests::Terminal;
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
        test.larder("save acme/app:1 -o app.tar --as zip"),
        test.larder("save acme/app:1 -o app.tar --compression-level 3"),
        test.larder("save acme/app:1 -o app.tar --compression gzip --compression-level 10"),
        test.larder("save acme/app:1 -o app.tar --compression zstd --compression-level 20"),
    );
    assert!(!test.directory().join("app.tar").exists());
}

/// Without a file, standard output gets the archive and nothing else, and standard error the rest: for people a summary, for
/// programs the record.
#[test]
fn save_to_standard_output() {
    let (test, _) = with_images();
    for form in
        ["--as docker", "--as oci", "--compression gzip --compression-level 1", "--as oci --compression zstd"]
    {
        assert_eq!(test.larder(&format!("save acme/app:1 {form} -o app.tar")).status, 0);
        let expected = fs::read(test.directory().join("app.tar")).expect("the archive");
        for output in ["", "-o -", "-o - --format json", "-q"] {
            let output = test.command(&format!("save acme/app:1 {form} {output}")).output().expect("it ran");
            assert_eq!(output.status.code(), Some(0));
            assert!(output.stdout == expected, "{form}");
        }
    }
    assert!(!test.directory().join("-").exists());
    let said = |arguments| {
        let output = test.command(arguments).output().expect("it ran");
        String::from_utf8(output.stderr).expect("text")
    };
    assert_eq!(said("save acme/app:1 -q"), "");
    let people = said("save acme/app:1");
    let last = people.lines().last().expect("a summary");
    assert!(last.starts_with("saved 1 image with 2 layers to standard output: "), "{people}");
    let programs = said("save acme/app:1 --format json");
    let lines: Vec<serde_json::Value> =
        programs.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(lines.last().expect("a record")["saved"]["images"][0]["references"], json!(["acme/app:1"]));
    assert!(lines.iter().rev().skip(1).all(|line| line["progress"].is_object()), "{programs}");
}

/// An archive is not written to a terminal.
#[test]
fn terminals_get_no_archive() {
    let (test, _) = with_images();
    for arguments in ["save acme/app:1", "save acme/app:1 -o -"] {
        let (status, screen) = Terminal::start(test.command(arguments)).end();
        assert_eq!(status.code(), Some(2), "{screen}");
        let expected =
            "error: standard output is a terminal, which shows no archive: name a file with `-o FILE`";
        assert_eq!(screen.replace('\n', " ").replace("  ", " "), expected);
    }
}

/// What is saved to a pipe is loaded from it into another home, compressed or not; the other home is made for it.
#[test]
fn from_home_to_home() {
    let (test, _) = with_images();
    for (number, form) in ["--as docker", "--as oci", "--as oci --compression none"].into_iter().enumerate() {
        let other = format!("--home other{number}");
        let mut save =
            test.command(&format!("save acme/app:1 acme/base:1 {form}")).spawn().expect("it started");
        let archive = save.stdout.take().expect("its output");
        let load = test.command(&format!("{other} load -q")).stdin(archive).output().expect("it ran");
        assert_eq!(String::from_utf8_lossy(&load.stderr), "");
        assert!(save.wait().expect("its end").success());
        let shown = test.larder(&format!("{other} ls --format json"));
        let references: Vec<String> = shown
            .json()
            .as_array()
            .expect("images")
            .iter()
            .map(|image| image["reference"].as_str().expect("a reference").to_owned())
            .collect();
        for reference in ["docker.io/acme/app:1", "docker.io/acme/base:1"] {
            assert!(references.iter().any(|found| found == reference), "{shown}");
        }
    }
}

/// A pipe that nobody reads any more ends a save without a word, and with the status of a failure.
#[test]
fn closed_pipes_end_it() {
    let (test, _) = with_images();
    for form in ["docker", "oci"] {
        let mut save = test.command(&format!("save acme/app:1 --as {form} -q")).spawn().expect("it started");
        drop(save.stdout.take());
        let output = save.wait_with_output().expect("its end");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]), "{form}");
    }
    assert_eq!(fs::read_dir(test.home.cache().join("tmp")).map_or(0, Iterator::count), 0);
}

/// An output that is full is said so, without the name of a file that is not there.
#[test]
fn a_full_output_is_said() {
    let (test, _) = with_images();
    let full = File::options().write(true).open("/dev/full").expect("the device");
    let mut save = test.command("save acme/app:1 -q").stdout(full).spawn().expect("it started");
    let mut said = String::new();
    save.stderr.take().expect("its output").read_to_string(&mut said).expect("text");
    assert_eq!(save.wait().expect("its end").code(), Some(1));
    let expected =
        "error: could not write `standard output`\n  caused by: No space left on device (os error 28)\n";
    assert_eq!(said, expected);
}

/// Standard input is an archive where `-` or nothing is given: a file or a pipe, but no terminal, and once.
#[test]
fn load_from_standard_input() {
    let (test, _) = with_images();
    assert_eq!(test.larder("save acme/base:1 -o base.tar --as oci").status, 0);
    for (number, arguments) in ["load", "load -", "load - --tag localhost/other:1"].into_iter().enumerate() {
        let archive = File::open(test.directory().join("base.tar")).expect("the archive");
        let load = test.command(&format!("--home other{number} {arguments}"));
        let output = { load }.stdin(archive).output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            said.contains(if number == 2 { "localhost/other:1" } else { "docker.io/acme/base:1" }),
            "{said}"
        );
    }
    let empty = test.larder("load");
    assert_eq!(empty.status, 1);
    assert!(empty.stderr.starts_with("error: `standard input`: it is empty\n"), "{empty}");
    let twice = test.larder("load - base.tar -");
    assert_eq!((twice.status, twice.stderr.contains("`-` is given twice")), (2, true), "{twice}");
    for arguments in ["load", "load -"] {
        let (status, screen) = Terminal::start(test.command(arguments)).end();
        assert_eq!(status.code(), Some(2), "{screen}");
        assert!(screen.starts_with("error: standard input is a terminal: name an archive"), "{screen}");
    }
}
