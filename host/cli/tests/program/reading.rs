//! Commands that only look: what they say to people and to programs, and what they say where they cannot.

use std::fs;

use crate::harness::TestEnvironment;
use larder_tests::lines_of;

/// Images are listed newest first, or as asked for; names select repositories, patterns what they match.
#[test]
fn ls() {
    let test = TestEnvironment::fixture();
    assert_output!("ls", test.larder("ls"));
    assert_output!(
        "ls_selected",
        test.larder("ls acme/app00004"),
        test.larder("ls acme/app00004:v7"),
        test.larder("ls acme/app00000 --unused --sort used --reverse"),
        test.larder("ls docker.io/acme/*:v1 --sort size"),
        test.larder("ls **:v2 --sort reference"),
        test.larder("ls docker.io/acme/none*"),
        test.larder("ls -q docker.io/acme/none*"),
        test.larder("ls app*"),
    );
    assert_output!(
        "ls_refused",
        test.larder("ls docker.io/[ab]*"),
        test.larder("ls Nonsense"),
        test.larder("ls --sort colour"),
        test.larder("ls --sort colour --format json"),
    );
}

/// A tag that was pulled again came in first as long ago as ever, and arrived just now.
#[test]
fn ls_tells_arrivals() {
    let test = TestEnvironment::fixture();
    test.home.execute(
        "UPDATE manifest SET created_at = '2026-11-24 11:00:00'
          WHERE id = (SELECT manifest_id FROM image_ref WHERE reference = 'docker.io/acme/app00004:v0')",
    );
    let listed = test.larder("ls acme/app00004:v0").stdout;
    let [header, row] = [0, 1].map(|line| listed.lines().nth(line).expect("a header and a row"));
    let [created, arrived, used] =
        ["CREATED", "ARRIVED", "USED"].map(|name| header.find(name).expect("a column"));
    assert_ne!(row[created..arrived].trim(), row[arrived..used].trim(), "{listed}");
    assert_eq!(row[arrived..used].trim(), "60 minutes ago", "{listed}");
}

/// For programs, a listing is what microsandbox's SDK says about the same home, record by record.
#[test]
fn ls_json() {
    let test = TestEnvironment::fixture();
    let listed = test.larder("ls --format json");
    assert_eq!((listed.status, listed.stderr.as_str()), (0, ""));
    assert_eq!(listed.json(), serde_json::Value::from(lines_of("msb-0.7.13-41.list.jsonl")));
    assert_eq!(test.larder("ls nothing --format json").json(), serde_json::json!([]));
}

/// An image is shown with its config and its layers; one that is not there does not hide the others.
#[test]
fn inspect() {
    let test = TestEnvironment::fixture();
    assert_output!(
        "inspect",
        test.larder("inspect acme/app00004:v7 nope acme/app00000:v0"),
        test.larder("inspect nope --format json"),
        test.larder("inspect a//b"),
        test.larder("inspect"),
    );
}

/// For programs, an image is what microsandbox's SDK says about it.
#[test]
fn inspect_json() {
    let test = TestEnvironment::fixture();
    let expected = lines_of("msb-0.7.13-41.inspect.jsonl");
    let references: Vec<&str> =
        expected.iter().map(|detail| detail["handle"]["reference"].as_str().expect("a reference")).collect();
    let inspected = test.larder(&format!("inspect --format json {}", references.join(" ")));
    assert_eq!((inspected.status, inspected.stderr.as_str()), (0, ""));
    assert_eq!(inspected.json(), serde_json::Value::from(expected));
}

/// Space is told apart by who needs it.
#[test]
fn df() {
    let test = TestEnvironment::fixture();
    test.larder("pin acme/app00004:v7");
    assert_output!("df", test.larder("df"), test.larder("df --format json"));
    let usage = test.larder("df --format json").json();
    let number = |key: &str| usage[key].as_u64().unwrap_or_else(|| panic!("no {key} in {usage}"));
    assert_eq!(number("reclaimable_bytes"), number("unused_bytes") + number("unowned_bytes"));
    assert!(number("reclaimable_bytes") < number("cache_bytes"));
}

/// What is no home is told apart, with what to do about it.
#[test]
fn what_is_no_home() {
    let test = TestEnvironment::missing();
    let missing = test.larder("ls");
    let missing_json = test.larder("ls --format json");
    fs::write(test.home.path(), "x").expect("a file");
    let file = test.larder("ls");
    fs::remove_file(test.home.path()).expect("gone");
    fs::create_dir_all(test.home.path().join("stuff")).expect("a directory");
    let directory = test.larder("inspect a");
    fs::create_dir_all(test.home.path().join("db")).expect("a directory");
    fs::write(test.home.path().join("db/msb.db"), vec![b'x'; 8192]).expect("a file");
    let corrupt = test.larder("df");
    let corrupt_prune = test.larder("prune --yes --format json");
    assert_output!("no_home", missing, missing_json, file, directory, corrupt, corrupt_prune);
}

/// A home from a newer microsandbox is read, and refused to whoever wants to change it.
#[test]
fn a_newer_home() {
    let test = TestEnvironment::fixture();
    test.home
        .execute("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20991231_000001_future', 0)");
    assert_output!(
        "newer_home",
        test.larder("ls acme/app00004:v7"),
        test.larder("rm acme/app00004:v7 --yes")
    );
}

/// A text from the cache does not reach a terminal as anything but text.
#[test]
fn hostile_names() {
    let test = TestEnvironment::fixture();
    test.home.execute(
        "UPDATE image_ref SET reference = 'a' || char(27) || '[2Jb' WHERE reference LIKE '%app00004:v7'",
    );
    let listed = test.larder("ls **");
    assert!(!listed.stdout.contains('\u{1b}'), "{listed}");
    assert!(listed.stdout.contains("a\u{fffd}[2Jb"), "{listed}");
}

/// Whoever stops reading, such as `head`, ends nothing but the output.
#[test]
fn a_reader_that_goes_away() {
    let test = TestEnvironment::fixture();
    let mut child = test.command("ls --format json").spawn().expect("the program started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ended");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every command has help with an example.
#[test]
fn help() {
    let test = TestEnvironment::missing();
    assert_output!("help", test.larder("--help"));
    assert_output!("no_command", test.larder(""), test.larder("frobnicate"));
    for command in [
        "ls",
        "inspect",
        "df",
        "rm",
        "save",
        "pin",
        "unpin",
        "verify",
        "prune",
        "apply",
        "history",
        "explain",
        "policy",
        "policy list",
        "policy new",
        "policy build",
        "policy check",
        "policy test",
        "policy bench",
        "policy explain",
        "policy warm",
        "completions",
        "man",
    ] {
        let help = test.larder(&format!("{command} --help"));
        assert_eq!(help.status, 0, "{help}");
        assert!(help.stdout.contains("Example") && help.stdout.contains("larder "), "{help}");
    }
    assert_output!("help_prune", test.larder("prune --help"));
    assert_output!("help_policy", test.larder("policy --help"), test.larder("policy test --help"));
}

/// Completions and manual pages come from the parser, for each shell and each command.
#[test]
fn completions_and_manual_pages() {
    let test = TestEnvironment::missing();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = test.larder(&format!("completions {shell}"));
        assert_eq!((script.status, script.stderr.as_str()), (0, ""));
        assert!(script.stdout.contains("unpin"), "{shell}");
    }
    let page = test.larder("man");
    assert!(page.status == 0 && page.stdout.contains(".TH larder 1"), "{page}");
    assert_eq!(test.larder("man pages").status, 0);
    for page in ["larder.1", "larder-ls.1", "larder-prune.1"] {
        assert!(test.directory().join("pages").join(page).exists(), "{page}");
    }
    assert_eq!(test.larder("completions cmd").status, 2);
}
