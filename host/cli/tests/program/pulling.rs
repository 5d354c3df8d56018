//! Images are pulled: what is shown, to people and to programs, and what each failure is at the command line.

use std::io::Write as _;
use std::process::Stdio;

use larder_tests::archive::{Packing, TestImage};
use larder_tests::registry::{AUTHORITY, Answer, Request, TestRegistry};

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

/// A user is one of a single registry: the password is shown to no other.
#[test]
fn one_user_one_registry() {
    let registries = [registry(), registry()];
    let test = TestEnvironment::made();
    let [first, second] = registries.each_ref().map(|registry| registry.reference("acme/app:1"));
    let arguments = format!("pull {first} {second} --plain-http --user acme --password-stdin");
    let output = test.larder(&arguments);
    assert_eq!(output.status, 2, "{output}");
    assert!(output.stderr.contains("`--user` is a user of one registry"), "{output}");
    assert!(registries.iter().all(|registry| registry.requests().is_empty()));
}

/// Plain HTTP is for registries on this machine, or for those that are named, and for no other image of the same call.
#[test]
fn plain_http_is_for_the_named() {
    let registry = registry();
    let test = TestEnvironment::made();
    let reference = registry.reference("acme/app:1");
    let elsewhere = format!("0.0.0.0:{}", registry.address().port());
    // The second is asked by HTTPS, which the registry does not speak.
    let both = test.larder(&format!("pull {reference} {elsewhere}/acme/app:1 --plain-http"));
    assert_eq!(both.status, 1, "{both}");
    assert!(
        both.stderr.contains(&format!("`{elsewhere}/acme/app:1`: the registry cannot be reached")),
        "{both}"
    );
    let named = test.larder(&format!("pull {elsewhere}/acme/app:1 --plain-http={elsewhere}"));
    assert_eq!(named.status, 0, "{named}");
    for (option, said) in [
        ("--plain-http", format!("`--plain-http={elsewhere}` names another")),
        ("--plain-http=acme.example", "no image is of the registry `acme.example`".to_owned()),
    ] {
        let refused = test.larder(&format!("pull {elsewhere}/acme/app:1 {option}"));
        assert_eq!(refused.status, 2, "{refused}");
        assert!(refused.stderr.contains(&said), "{refused}");
    }
}

/// The home's own settings name registries without encryption and authorities, and `-v` says whose credentials are shown.
#[test]
fn settings_of_the_home() {
    let closed = |request: &Request| match request.headers.get("authorization") {
        Some(_) => Answer::Right,
        None => Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\""),
    };
    let image = [TestImage::small(&["acme/app:1"])];
    let plain = TestRegistry::with_rule(&image, Packing::Gzip, closed);
    let encrypted = TestRegistry::encrypted(&image, closed);
    let test = TestEnvironment::made();
    let login = |insecure: bool| serde_json::json!({ "insecure": insecure, "auth": { "username": "acme", "password_env": "ACME_PASSWORD" } });
    let authority = test.directory().join("ca.pem");
    test.write("ca.pem", AUTHORITY);
    let settings = serde_json::json!({ "registries": {
        "ca_certs": authority,
        "hosts": { plain.address().to_string(): login(true), encrypted.address().to_string(): login(false) },
    } });
    test.write("home/config.json", settings.to_string());
    for registry in [&plain, &encrypted] {
        let mut command = test.command(&format!("pull {} -v", registry.reference("acme/app:1")));
        let output = command.env("ACME_PASSWORD", "hunter2").output().expect("the program");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{said}");
        let origin = format!("the credentials for `{}` are those of `", registry.address());
        assert!(said.contains(&origin) && said.contains("home/config.json`"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// A registry with an authority of its own is trusted with `--ca`. Without certificates of authorities plain HTTP works, and
/// HTTPS fails with what is missing.
#[test]
fn authorities() {
    let image = [TestImage::small(&["acme/app:1"])];
    let (plain, encrypted) = (registry(), TestRegistry::encrypted(&image, |_| Answer::Right));
    let test = TestEnvironment::made();
    test.write("ca.pem", AUTHORITY);
    test.write("none.pem", "no certificate");
    let pull = |arguments: String| {
        let mut command = test.command(&format!("pull {arguments}"));
        let command = command.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
        let output = command.output().expect("the program");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (status, said) = pull(format!("{} --plain-http", plain.reference("acme/app:1")));
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = pull(encrypted.reference("acme/app:1"));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("no certificates of authorities") && said.contains("`--ca`"), "{said}");
    let (status, said) = pull(format!("{} --ca ca.pem", encrypted.reference("acme/app:1")));
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = pull(format!("{} --ca none.pem", encrypted.reference("acme/app:1")));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("`none.pem`: "), "{said}");
}

/// Credentials that cannot be used are a warning of an image that needs none.
#[test]
fn unusable_credentials() {
    let registry =
        TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, |request| match request
            .headers
            .get("authorization")
            .map(String::as_str)
        {
            _ if request.path.starts_with("/token") => Answer::body(r#"{"token":"t"}"#),
            Some("Bearer t") => Answer::Right,
            _ => {
                let realm = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
                Answer::header(401, "WWW-Authenticate", &realm)
            }
        });
    let test = TestEnvironment::made();
    test.write("config.json", r#"{"credsStore":"larder-test-missing"}"#);
    let mut command = test.command(&format!("pull {} --plain-http", registry.reference("acme/app:1")));
    let output = command.env("DOCKER_CONFIG", test.directory()).output().expect("the program");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{said}");
    let warning = "`docker-credential-larder-test-missing`, which it names, is not installed";
    assert!(said.contains("warning:") && said.contains(warning), "{said}");
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
