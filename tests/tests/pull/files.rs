//! Credentials that other programs keep: a registry that asks for none needs none, whatever state they are in.

use std::fs;
use std::path::PathBuf;

use larder::ingest::{Credentials, HomeRegistries};
use larder_tests::Home;
use larder_tests::archive::{Packing, TestImage};
use larder_tests::registry::{Answer, TestRegistry};
use serde_json::json;
use tempfile::TempDir;

use crate::{BASIC, into_home, pull, refusal, shown};

/// Starts a registry, open or closed.
fn registry(is_open: bool) -> TestRegistry {
    TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, move |request| {
        if is_open || shown(request) == Some(BASIC) {
            return Answer::Right;
        }
        Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\"")
    })
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    fs::write(&path, text).expect("written");
    (directory, path)
}

/// Credentials that cannot be used are an error only of a registry that refuses access without any.
#[test]
fn unusable_credentials() {
    for (config, said) in [
        ("{", "it cannot be understood, at line 1"),
        (
            r#"{"credsStore":"larder-test-missing"}"#,
            "`docker-credential-larder-test-missing`, which it names, is not installed",
        ),
        (
            r#"{"auths":{"REGISTRY":{"auth":"?"}}}"#,
            "its entry for `REGISTRY` is not a user and a password in Base64",
        ),
    ] {
        for is_open in [true, false] {
            let registry = registry(is_open);
            let (_directory, path) = file(&config.replace("REGISTRY", &registry.address().to_string()));
            let wanted = pull(&registry, "acme/app:1").credentials(Credentials::Docker(path.clone()));
            if is_open {
                into_home(&Home::made(), wanted).expect("pulled");
                continue;
            }
            let found = refusal(&registry, wanted);
            let expected = format!(
                "the registry refuses it, and the credentials in `{}` cannot be used: {said}",
                path.display()
            );
            assert!(found.contains(&expected), "{found}");
        }
    }
}

/// That is so too where it is the service for tokens that refuses.
#[test]
fn unusable_credentials_for_tokens() {
    let registry = TestRegistry::with_rule(&[], Packing::Gzip, |request| {
        if request.path.starts_with("/token") {
            return Answer::error(403, "DENIED", "nobody");
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
        Answer::header(401, "WWW-Authenticate", &realm)
    });
    let (_directory, path) = file("{");
    let said = refusal(&registry, pull(&registry, "acme/app:1").credentials(Credentials::Docker(path)));
    assert!(said.contains("cannot be used: it cannot be understood"), "{said}");
    let said = refusal(&registry, pull(&registry, "acme/app:1"));
    assert!(said.ends_with("the registry refuses it: nobody"), "{said}");
}

/// A registry's user is found in Docker's configuration, in podman's by a part of the repository, and in the settings of a
/// home.
#[test]
fn sources() {
    let registry = registry(false);
    let host = registry.address().to_string();
    let auth = json!({ "auth": "YWNtZTpzZWNyZXQ=" });
    let (_docker, docker) = file(&json!({ "auths": { format!("http://{host}/v2/"): auth } }).to_string());
    let (_podman, podman) = file(&json!({ "auths": { format!("{host}/acme"): auth } }).to_string());
    let login = json!({ "username": "acme", "password_env": "ACME" });
    let (home, _) =
        file(&json!({ "registries": { "hosts": { host.as_str(): { "auth": login } } } }).to_string());
    let home = HomeRegistries::read(home.path(), |_| Some("secret".to_owned())).expect("settings");
    let (_nobody, nobody) = file("{}");
    let first = |credentials| Credentials::FirstOf(vec![Credentials::Docker(nobody.clone()), credentials]);
    for credentials in [Credentials::Docker(docker), Credentials::Podman(podman), Credentials::Home(home)] {
        into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(first(credentials)))
            .expect("pulled");
    }
    let said = refusal(&registry, pull(&registry, "acme/app:1").credentials(Credentials::Docker(nobody)));
    assert!(said.ends_with("the registry refuses it"), "{said}");
}
