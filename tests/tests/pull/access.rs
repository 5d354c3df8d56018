//! Who is shown to a registry, and how it is reached.

use std::fs;

use larder::ingest::{Authorities, Credentials, ImagePull, Proxies, Transport};
use larder_tests::Home;
use larder_tests::archive::{Packing, TestImage, layout_files};
use larder_tests::registry::{AUTHORITY, Answer, TestRegistry, Wire};

use crate::{BASIC, acme, into_home, pull, refusal, shown};

/// A registry that wants a user and a password.
fn closed() -> TestRegistry {
    TestRegistry::with_rule(&[TestImage::small(&["acme/app:1"])], Packing::Gzip, |request| {
        if shown(request) == Some(BASIC) {
            return Answer::Right;
        }
        Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\"")
    })
}

/// What a registry sends back of the credentials is in no message: neither the password, nor the header, nor a token.
#[test]
fn echoed_secrets() {
    let registry = TestRegistry::with_rule(&[], Packing::Gzip, |request| match shown(request) {
        Some(header) => Answer::error(403, "DENIED", &format!("no access for {header} (secret)")),
        None => Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\""),
    });
    let said = refusal(&registry, pull(&registry, "acme/app:1").credentials(acme()));
    assert!(said.contains("no access for Basic … (…)") && said.contains("as the user `acme`"), "{said}");
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
    let mut proxies = Proxies::default();
    proxies.http = Some(format!("http://{}", proxy.address()));
    // Another name of the same machine, which is not one of loopback.
    let host = format!("0.0.0.0:{}", registry.address().port());
    let wanted = || ImagePull::new(format!("{host}/acme/app:1")).transport(Transport::PlainHttp);
    let said = into_home(&Home::made(), wanted().proxies(proxies.clone())).expect_err("unknown").to_string();
    assert!(said.contains("no such image"), "{said}");
    assert!(registry.requests().is_empty() && !proxy.requests().is_empty());
    assert!(proxy.requests()[0].path.starts_with(&format!("http://{host}/v2/")));
    let asked = proxy.requests().len();
    for exceptions in ["0.0.0.0", "*", "10.0.0.0/8, 0.0.0.0/31"] {
        proxies.exceptions = Some(exceptions.to_owned());
        into_home(&Home::made(), wanted().proxies(proxies.clone())).expect("pulled");
    }
    assert_eq!(proxy.requests().len(), asked);
}

/// This machine itself is reached without a proxy, whatever is excepted.
#[test]
fn no_proxy_for_this_machine() {
    let proxy = TestRegistry::new(&[], Packing::Gzip);
    let registry = TestRegistry::new(&[TestImage::small(&["acme/app:1"])], Packing::Gzip);
    for exceptions in [None, Some("acme.example".to_owned())] {
        let mut proxies = Proxies::default();
        proxies.http = Some(format!("http://{}", proxy.address()));
        proxies.exceptions = exceptions;
        for host in ["127.0.0.1", "localhost"] {
            let wanted = ImagePull::new(format!("{host}:{}/acme/app:1", registry.address().port()));
            let wanted = wanted.transport(Transport::PlainHttp).proxies(proxies.clone());
            into_home(&Home::made(), wanted).expect("pulled");
        }
    }
    assert!(proxy.requests().is_empty());
}

/// A registry may have an IPv6 address.
#[test]
fn addresses() {
    let files = layout_files(&[TestImage::small(&["acme/app:1"])], Packing::Gzip);
    let Ok(registry) = TestRegistry::at("[::1]:0", Wire::Plain, files, |_| Answer::Right) else { return };
    let handle = into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled");
    assert!(handle.reference().starts_with("[::1]:"), "{}", handle.reference());
}

/// A registry is believed by HTTPS if its certificate is of an authority that is trusted, and not else.
#[test]
fn authorities() {
    let registry = TestRegistry::encrypted(&[TestImage::small(&["acme/app:1"])], |_| Answer::Right);
    let wanted = || pull(&registry, "acme/app:1").transport(Transport::Https);
    let authority = Authorities::from_pem(AUTHORITY).expect("a certificate");
    into_home(&Home::made(), wanted().authorities(authority)).expect("pulled");
    let said = refusal(&registry, wanted());
    assert!(said.contains("the registry cannot be reached: "), "{said}");
    for odd in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        assert!(Authorities::from_pem(odd.as_bytes()).is_err(), "{odd}");
    }
}
