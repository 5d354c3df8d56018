//! Images are pulled: what is shown, to people and to programs, and what each failure is at the command line.

use std::io::Write as _;
use std::process::Stdio;

use larder_tests::archive::{Packing, TestImage};
use larder_tests::registry::{Answer, TestRegistry};

use crate::harness::TestEnvironment;

fn registry() -> TestRegistry {
    TestRegistry::new(&[TestImage::small(&["acme/app:1"])], Packing::Gzip)
}

/// An image is pulled into a home that is made for it, and shown; what is there already is not downloaded again.
#[test]
fn pull() {
    let registry = registry();
    let test = TestEnvironment::missing();
    let reference = registry.reference("acme/app:1");
    let first = test.larder(&format!("pull {reference} --plain-http"));
    assert_eq!(first.status, 0, "{first}");
    assert!(first.stdout.contains(&reference) && first.stdout.contains("linux/"), "{first}");
    assert!(first.stderr.contains(": downloading "), "{first}");
    assert!(
        first.stderr.lines().last().is_some_and(|line| line.starts_with("1 image: 2 new layers, ")),
        "{first}"
    );
    let again = test.larder(&format!("pull {reference} --plain-http"));
    assert!(again.stderr.ends_with("1 image: 2 layers already there\n"), "{again}");
    assert!(test.larder("ls").stdout.contains(&reference));
}

/// Programs get the record of the image, and an object for each step on the way, tries that failed among them.
#[test]
fn pull_for_programs() {
    let registry = TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, |request| {
        match (request.is_blob(), request.before) {
            (true, 0) => Answer::Cut(30),
            _ => Answer::Right,
        }
    });
    let test = TestEnvironment::made();
    let reference = registry.reference("acme/app:1");
    let output = test.larder(&format!("pull {reference} --plain-http --format json"));
    assert_eq!(
        (output.status, output.json()[0]["reference"].as_str()),
        (0, Some(reference.as_str())),
        "{output}"
    );
    let events: Vec<serde_json::Value> =
        output.stderr.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let of = |kind: &str| events.iter().filter(|event| event["progress"]["event"] == kind).count();
    assert_eq!((of("layer-started"), of("layer-done"), of("image-ready")), (2, 2, 1), "{output}");
    // Both layers and the config.
    assert_eq!(of("retrying"), 3, "{output}");
}

/// Each failure has its exit status, its kind and a hint: no such image, refused, unreachable, busy for good.
#[test]
fn pull_refused() {
    let registry = TestRegistry::with_rule(&[], Packing::Gzip, |request| match request.path.as_str() {
        "/v2/acme/closed/manifests/1" => Answer::error(401, "UNAUTHORIZED", "authentication required"),
        "/v2/acme/odd/manifests/1" => Answer::error(418, "TEAPOT", "short and stout"),
        _ => Answer::Right,
    });
    let test = TestEnvironment::made();
    for (name, options, status, kind, said) in [
        ("acme/app:1", "--plain-http", 3, "image-not-found", "the registry has no such image"),
        ("acme/closed:1", "--plain-http", 1, "registry-refused", "the registry refuses it"),
        ("acme/odd:1", "--plain-http", 1, "registry-failed", "the registry failed: short and stout"),
        ("acme/app:1", "", 1, "registry-unreachable", "the registry cannot be reached: "),
    ] {
        let reference = registry.reference(name);
        let output = test.larder(&format!("pull {reference} {options} --format json"));
        let error: serde_json::Value = serde_json::from_str(&output.stderr).expect("one object");
        assert_eq!((output.status, error["kind"].as_str()), (status, Some(kind)), "{output}");
        assert!(error["error"].as_str().is_some_and(|error| error.contains(said)), "{output}");
        assert_eq!(error["hint"].is_string(), kind != "registry-failed", "{output}");
    }
    let output = test.larder("pull a//b");
    assert_eq!(output.status, 2, "{output}");
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 0);
}

/// The user's password comes by standard input, Docker's configuration is asked unless somebody else or nobody is to ask.
#[test]
fn pull_credentials() {
    const ACME: &str = "Basic YWNtZTpzZWNyZXQ=";
    let registry =
        TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, |request| match request
            .headers
            .get("authorization")
            .map(String::as_str)
        {
            Some(ACME) => Answer::Right,
            _ => Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\""),
        });
    let reference = registry.reference("acme/app:1");
    let test = TestEnvironment::made();
    let arguments = format!("pull {reference} --plain-http --user acme --password-stdin");
    let mut larder = test.command(&arguments).stdin(Stdio::piped()).spawn().expect("the program");
    larder.stdin.take().expect("its input").write_all(b"secret\n").expect("written");
    assert!(larder.wait_with_output().expect("its end").status.success());

    let auths =
        serde_json::json!({ "auths": { registry.address().to_string(): { "auth": "YWNtZTpzZWNyZXQ=" } } });
    test.write("config.json", auths.to_string());
    let with_docker = |options: &str| {
        let mut command = test.command(&format!("pull {reference} --plain-http {options}"));
        let output = command.env("DOCKER_CONFIG", test.directory()).output().expect("the program");
        output.status.code().expect("an exit status")
    };
    assert_eq!((with_docker(""), with_docker("--anonymous")), (0, 1));
    assert_eq!(test.larder(&format!("pull {reference} --user acme")).status, 2);
}

/// The hint after a registry that cannot be reached is nothing that was done already.
#[test]
fn hints_are_news() {
    let test = TestEnvironment::made();
    let unreachable = "pull 127.0.0.1:1/acme/app:1";
    let hint = "`--plain-http`";
    let (encrypted, plain) = (test.larder(unreachable), test.larder(&format!("{unreachable} --plain-http")));
    assert!(encrypted.status == 1 && encrypted.stderr.contains(hint), "{encrypted}");
    assert!(plain.status == 1 && !plain.stderr.contains("hint"), "{plain}");
}
