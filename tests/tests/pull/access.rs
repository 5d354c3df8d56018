//! Who is shown to a registry, and how it is reached.

use std::fs;

use larder::ingest::{Credentials, Transport};
use larder_tests::Home;
use larder_tests::archive::{Packing, TestImage};
use larder_tests::registry::{Answer, Request, TestRegistry};

use crate::{into_home, pull, refusal};

/// `acme:secret` as HTTP has it.
const BASIC: &str = "Basic YWNtZTpzZWNyZXQ=";

fn acme() -> Credentials {
    Credentials::Password { user: "acme".to_owned(), password: "secret".to_owned() }
}

fn shown(request: &Request) -> Option<&str> {
    request.headers.get("authorization").map(String::as_str)
}

/// A registry that wants a user and a password.
fn closed() -> TestRegistry {
    TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, |request| {
        if shown(request) == Some(BASIC) {
            return Answer::Right;
        }
        Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\"")
    })
}

/// User and password open a registry that wants them, and so does Docker's configuration; without, or with others, it
/// stays closed.
#[test]
fn user_and_password() {
    let registry = closed();
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme())).expect("pulled");
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.json");
    let auths =
        serde_json::json!({ "auths": { registry.address().to_string(): { "auth": "YWNtZTpzZWNyZXQ=" } } });
    fs::write(&config, auths.to_string()).expect("written");
    let docker = Credentials::Docker(config);
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(docker)).expect("pulled");
    assert!(refusal(&registry, pull(&registry, "acme/app:1")).contains("the registry refuses it"));
    let other = Credentials::Password { user: "acme".to_owned(), password: "other".to_owned() };
    let said = refusal(&registry, pull(&registry, "acme/app:1").credentials(other));
    assert!(said.contains("the registry refuses it") && !said.contains("other"), "{said}");
}

/// A token is asked for where the registry says, with the user's credentials and for nothing but pulling, and shown
/// with each request afterwards.
#[test]
fn tokens() {
    let tokens = TestRegistry::with_rule(&[], Packing::Gzip, |request| {
        if shown(request) == Some(BASIC) {
            return Answer::body(r#"{"token":"let-me-in"}"#);
        }
        Answer::error(401, "UNAUTHORIZED", "who are you?")
    });
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"acme\"", tokens.address());
    let registry =
        TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, move |request| {
            if shown(request) == Some("Bearer let-me-in") {
                return Answer::Right;
            }
            Answer::header(401, "WWW-Authenticate", &challenge)
        });
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme())).expect("pulled");
    let asked = tokens.requests();
    assert!(!asked.is_empty());
    for request in asked {
        assert!(request.path.contains("scope=repository%3Aacme%2Fapp%3Apull"), "{}", request.path);
        assert!(request.path.contains("service=acme"), "{}", request.path);
    }
    // The password is for whoever gives tokens, not for the registry.
    assert!(registry.requests().iter().all(|request| shown(request) != Some(BASIC)));
    let said = refusal(&registry, pull(&registry, "acme/app:1"));
    assert!(said.contains("the registry refuses it: who are you?"), "{said}");
}

/// Credentials stay with the registry: where it sends a client elsewhere for a blob, they are not shown.
#[test]
fn credentials_stay() {
    let image = TestImage::small(&["acme/app:1"]);
    let elsewhere = TestRegistry::new(std::slice::from_ref(&image), Packing::Gzip);
    let address = format!("http://localhost:{}", elsewhere.address().port());
    let registry = TestRegistry::with_rule(&[image], Packing::Gzip, move |request| {
        if shown(request) != Some(BASIC) {
            return Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\"");
        }
        if request.is_blob() {
            return Answer::header(307, "Location", &format!("{address}{}", request.path));
        }
        Answer::Right
    });
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme())).expect("pulled");
    let asked = elsewhere.requests();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| shown(request).is_none()), "{asked:?}");
}

/// Plain HTTP is spoken only where it was asked for.
#[test]
fn plain_http_is_asked_for() {
    let registry = TestRegistry::new(&[TestImage::small(&["acme/app:1"])], Packing::Gzip);
    let said = refusal(&registry, pull(&registry, "acme/app:1").transport(Transport::Https));
    assert!(said.contains("the registry cannot be reached: "), "{said}");
    assert!(registry.requests().is_empty());
}

/// A registry that is not there is said at once, without tries: its name may be wrong.
#[test]
fn nobody_there() {
    let registry = TestRegistry::new(&[], Packing::Gzip);
    let wanted = pull(&registry, "acme/app:1");
    let address = registry.address();
    drop(registry);
    let retries = crate::Retries::listening();
    let error = into_home(&Home::made(), wanted.progress(retries.clone())).expect_err("nobody").to_string();
    assert!(
        error.starts_with(&format!("`{address}/acme/app:1`: the registry cannot be reached: ")),
        "{error}"
    );
    assert_eq!(retries.take(), []);
}

/// A proxy is asked where one is given, and not for what is excepted.
#[test]
fn proxies() {
    let proxy =
        TestRegistry::with_rule(&[], Packing::Gzip, |_| Answer::error(404, "NAME_UNKNOWN", "unknown"));
    let registry = TestRegistry::new(&[TestImage::small(&["acme/app:1"])], Packing::Gzip);
    let mut proxies = larder::ingest::Proxies::default();
    proxies.http = Some(format!("http://{}", proxy.address()));
    let said = refusal(&registry, pull(&registry, "acme/app:1").proxies(proxies.clone()));
    assert!(said.contains("no such image"), "{said}");
    assert!(registry.requests().is_empty() && !proxy.requests().is_empty());
    assert!(proxy.requests()[0].path.starts_with(&format!("http://{}/v2/", registry.address())));
    proxies.exceptions = Some("127.0.0.1".to_owned());
    into_home(&Home::made(), pull(&registry, "acme/app:1").proxies(proxies)).expect("pulled");
}
