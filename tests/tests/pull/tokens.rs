//! Tokens are asked for where and when a registry says, and are not trusted to last.

use std::sync::atomic::{AtomicUsize, Ordering};

use larder::ingest::{Authorities, Credentials, Transport};
use larder_tests::Home;
use larder_tests::archive::{Packing, TestImage};
use larder_tests::registry::{AUTHORITY, Answer, Request, TestRegistry};

use crate::{BASIC, Retries, acme, into_home, pull, refusal, shown};

fn image() -> [TestImage; 1] {
    [TestImage::small(&["acme/app:1"])]
}

/// Returns a challenge that leads to the registry's own address for tokens.
fn challenge(request: &Request) -> Answer {
    let host = &request.headers["host"];
    Answer::header(401, "WWW-Authenticate", &format!("Bearer realm=\"http://{host}/token\",service=\"acme\""))
}

/// Starts a registry that wants the token `t`, whose service for tokens answers as `tokens` determines.
fn with_tokens(tokens: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> TestRegistry {
    TestRegistry::with_rule(&image(), Packing::Gzip, move |request| match shown(request) {
        _ if request.path.starts_with("/token") => tokens(request),
        Some("Bearer t") => Answer::Right,
        _ => challenge(request),
    })
}

fn token() -> Answer {
    Answer::body(r#"{"token":"t"}"#)
}

/// A token is asked for where the registry says, with the user's credentials and for nothing but pulling, and shown
/// with each request afterwards.
#[test]
fn tokens() {
    let tokens = TestRegistry::with_rule(&[], Packing::Gzip, |request| {
        if shown(request) == Some(BASIC) {
            return token();
        }
        Answer::error(401, "UNAUTHORIZED", "who are you?")
    });
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"acme\"", tokens.address());
    let registry = TestRegistry::with_rule(&image(), Packing::Gzip, move |request| {
        if shown(request) == Some("Bearer t") {
            return Answer::Right;
        }
        Answer::header(401, "WWW-Authenticate", &challenge)
    });
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme())).expect("pulled");
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    for request in asked {
        assert!(request.path.contains("scope=repository%3Aacme%2Fapp%3Apull"), "{}", request.path);
        assert!(request.path.contains("service=acme"), "{}", request.path);
    }
    // The password is for whoever gives tokens, not for the registry.
    assert!(registry.requests().iter().all(|request| shown(request) != Some(BASIC)));
    let said = refusal(&registry, pull(&registry, "acme/app:1"));
    assert!(said.contains("the registry refuses it: who are you?"), "{said}");
}

/// The challenge that counts is that of the request that is refused, with a password and with a token: the root of the
/// registry is not asked, which may be open.
#[test]
fn the_resource_challenges() {
    let registry = TestRegistry::with_rule(&image(), Packing::Gzip, |request| match shown(request) {
        Some(BASIC) => Answer::Right,
        _ if request.path == "/v2/" => Answer::Right,
        _ => Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\""),
    });
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme())).expect("pulled");
    let requests = registry.requests();
    assert!(requests.iter().all(|request| request.path != "/v2/"));
    // What is known to be asked for is shown at once.
    assert_eq!(requests.iter().filter(|request| shown(request).is_none()).count(), 1);

    let registry = with_tokens(|_| token());
    into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled");
    assert_eq!(registry.requests().iter().filter(|request| shown(request).is_none()).count(), 2);
}

/// A registry that hides what strangers may not see, and asks for credentials at its root alone, is shown those that there
/// are.
#[test]
fn hidden_repositories() {
    for status in [401, 403, 404] {
        let registry =
            TestRegistry::with_rule(&image(), Packing::Gzip, move |request| match shown(request) {
                Some(BASIC) => Answer::Right,
                _ if request.path == "/v2/" => {
                    Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\"")
                }
                _ => Answer::header(status, "X-Nothing", "to see"),
            });
        into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme())).expect("pulled");
        let asked = registry.requests().len();
        refusal(&registry, pull(&registry, "acme/app:1"));
        assert_eq!(registry.requests().len(), asked + 1);
    }
}

/// Of several challenges the strongest counts, in one header or in two and in any order.
#[test]
fn two_challenges() {
    for in_one in [true, false] {
        let registry = TestRegistry::with_rule(&image(), Packing::Gzip, move |request| {
            let bearer = format!("bearer Realm=\"http://{}/token\"", request.headers["host"]);
            let basic = "BASIC realm=\"acme, and others\"";
            let values =
                if in_one { vec![format!("{basic}, {bearer}")] } else { vec![basic.to_owned(), bearer] };
            let headers = values.into_iter().map(|value| ("WWW-Authenticate".to_owned(), value)).collect();
            match shown(request) {
                _ if request.path.starts_with("/token") => token(),
                Some("Bearer t") => Answer::Right,
                _ => Answer::Other { status: 401, headers, body: Vec::new() },
            }
        });
        into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled");
        into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme())).expect("pulled");
    }
}

/// A service for tokens that is busy or breaks off is asked again, and given up as it is.
#[test]
fn busy_services() {
    let registry = with_tokens(|request| match request.before {
        0 => Answer::error(503, "UNAVAILABLE", "later"),
        1 => Answer::error(429, "TOOMANYREQUESTS", "slow down"),
        2 => Answer::Closed,
        _ => token(),
    });
    let retries = Retries::listening();
    into_home(&Home::made(), pull(&registry, "acme/app:1").progress(retries.clone())).expect("pulled");
    let told = retries.take();
    assert_eq!(told.len(), 3, "{told:?}");
    let host = registry.address();
    assert_eq!(
        told[0].2,
        format!("the registry failed: `{host}`, which gives its tokens: status 503: later")
    );

    let registry = with_tokens(|_| Answer::error(503, "UNAVAILABLE", "later"));
    let said = refusal(&registry, pull(&registry, "acme/app:1"));
    assert!(said.contains("`REGISTRY`, which gives its tokens: status 503: later"), "{said}");
    assert_eq!(registry.requests().iter().filter(|request| request.path.starts_with("/token")).count(), 6);
}

/// What is no answer of a service for tokens is said as that.
#[test]
fn odd_services() {
    for (answer, said) in [
        (Answer::body("<html>"), "which gives its tokens: it sent no answer of a token service"),
        (Answer::body("{}"), "there is no token in its answer"),
        (Answer::body(r#"{"token":"","access_token":null}"#), "there is no token in its answer"),
        (Answer::body(r#"{"token":"a\nb"}"#), "its token is not text"),
        (Answer::header(404, "X", "y"), "which gives its tokens, has none"),
    ] {
        let registry = with_tokens(move |_| answer.clone());
        let found = refusal(&registry, pull(&registry, "acme/app:1"));
        assert!(found.contains(said), "{found}");
    }
}

/// A token that expires in the middle of a pull is replaced once, by all requests together, and a new one that is not
/// valid yet likewise.
#[test]
fn tokens_expire() {
    // Each token is good for two requests.
    let uses = AtomicUsize::new(0);
    let registry = TestRegistry::with_rule(&image(), Packing::Gzip, move |request| {
        if request.path.starts_with("/token") {
            return Answer::body(format!(r#"{{"access_token":"t{}","expires_in":1}}"#, request.before));
        }
        let token = shown(request).and_then(|shown| shown.strip_prefix("Bearer t")?.parse::<usize>().ok());
        match token {
            Some(token) if token == uses.load(Ordering::Relaxed) / 2 => {
                uses.fetch_add(1, Ordering::Relaxed);
                Answer::Right
            }
            _ => challenge(request),
        }
    });
    into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled");
    assert_eq!(registry.requests().iter().filter(|request| request.path.starts_with("/token")).count(), 2);

    let registry = TestRegistry::with_rule(&image(), Packing::Gzip, |request| match shown(request) {
        _ if request.path.starts_with("/token") => {
            Answer::body(format!(r#"{{"token":"t{}"}}"#, request.before))
        }
        Some("Bearer t1") => Answer::Right,
        _ => challenge(request),
    });
    into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled");
}

/// A token is replaced once: a registry that refuses the second one refuses access. One that says that the rights do not
/// suffice is not asked again.
#[test]
fn tokens_that_do_not_help() {
    for (error, tokens) in [("", 2), (",error=\"invalid_token\"", 2), (",error=\"insufficient_scope\"", 1)] {
        let registry = TestRegistry::with_rule(&image(), Packing::Gzip, move |request| {
            if request.path.starts_with("/token") {
                return token();
            }
            let host = &request.headers["host"];
            let challenge = format!("Bearer realm=\"http://{host}/token\"{error}");
            let body = br#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#.to_vec();
            let headers = vec![("WWW-Authenticate".to_owned(), challenge)];
            Answer::Other { status: 401, headers, body }
        });
        let said = refusal(&registry, pull(&registry, "acme/app:1"));
        assert!(said.contains("the registry refuses it: not yours"), "{said}");
        let asked = registry.requests().iter().filter(|request| request.path.starts_with("/token")).count();
        assert_eq!(asked, tokens, "{error}");
    }
}

/// An identity token is exchanged for a token, in a form, and is shown to nobody else.
#[test]
fn identity_tokens() {
    let registry = with_tokens(|request| {
        let is_right = request.method == "POST" && request.body.contains("&refresh_token=s%26cret");
        if is_right { Answer::body(r#"{"access_token":"t"}"#) } else { Answer::error(401, "DENIED", "no") }
    });
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.json");
    let entry = serde_json::json!({ "auth": "MDAwOg==", "identitytoken": "s&cret" });
    let auths = serde_json::json!({ "auths": { registry.address().to_string(): entry } });
    std::fs::write(&config, auths.to_string()).expect("written");
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(Credentials::Docker(config)))
        .expect("pulled");
    for request in registry.requests() {
        assert!(!request.path.contains("cret") && shown(&request).is_none_or(|shown| shown == "Bearer t"));
    }
}

/// A registry that is reached by HTTPS has its tokens from a service that is, too: nothing is shown in plain HTTP.
#[test]
fn services_stay_encrypted() {
    let plain = TestRegistry::with_rule(&[], Packing::Gzip, |_| token());
    let realm = format!("http://{}/token?secret=1", plain.address());
    let registry = TestRegistry::encrypted(&image(), move |request| match shown(request) {
        Some("Bearer t") => Answer::Right,
        _ => Answer::header(401, "WWW-Authenticate", &format!("Bearer realm=\"{realm}\"")),
    });
    let wanted = pull(&registry, "acme/app:1")
        .transport(Transport::Https)
        .authorities(Authorities::from_pem(AUTHORITY).expect("a certificate"))
        .credentials(acme());
    let said = refusal(&registry, wanted);
    assert!(
        said.ends_with(&format!("its token service, `{}`, is reached by plain HTTP", plain.address())),
        "{said}"
    );
    assert!(plain.requests().is_empty());
}
