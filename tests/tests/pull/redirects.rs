//! Where a registry leads to: nothing is shown there, HTTPS stays HTTPS, and what was signed is in no message.

use larder::ingest::{Authorities, Transport};
use larder_tests::Home;
use larder_tests::archive::{Packing, TestImage};
use larder_tests::registry::{AUTHORITY, Answer, TestRegistry};

use crate::{BASIC, Retries, acme, into_home, pull, refusal, shown};

const SIGNED: &str = "X-Amz-Signature=5ecre7";

fn image() -> [TestImage; 1] {
    [TestImage::small(&["acme/app:1"])]
}

/// Credentials stay with the registry: where it sends a client elsewhere for a blob, they are not shown, and what is
/// asked there is not answered.
#[test]
fn credentials_stay() {
    for challenges in [false, true] {
        let elsewhere = TestRegistry::with_rule(&image(), Packing::Gzip, move |_| match challenges {
            true => Answer::header(401, "WWW-Authenticate", "Basic realm=\"elsewhere\""),
            false => Answer::Right,
        });
        let address = format!("http://localhost:{}", elsewhere.address().port());
        let registry = TestRegistry::with_rule(&image(), Packing::Gzip, move |request| {
            if shown(request) != Some(BASIC) {
                return Answer::header(401, "WWW-Authenticate", "Basic realm=\"acme\"");
            }
            if request.is_blob() {
                return Answer::header(307, "Location", &format!("{address}{}", request.path));
            }
            Answer::Right
        });
        let wanted = pull(&registry, "acme/app:1").credentials(acme());
        if challenges {
            let said = refusal(&registry, wanted);
            let port = elsewhere.address().port();
            let expected =
                format!("the registry refuses it: it leads to `localhost:{port}`: it refuses access");
            assert!(said.contains(&expected), "{said}");
        } else {
            into_home(&Home::made(), wanted).expect("pulled");
            assert_eq!(elsewhere.requests().len(), 3);
        }
        let asked = elsewhere.requests();
        assert!(!asked.is_empty() && asked.iter().all(|request| shown(request).is_none()), "{asked:?}");
    }
}

/// What a redirect has been signed with is in no message, whatever becomes of it.
#[test]
fn signatures_stay_hidden() {
    let storage = |answer: fn() -> Answer| TestRegistry::with_rule(&[], Packing::Gzip, move |_| answer());
    let gone = {
        let gone = storage(|| Answer::Right);
        gone.address()
    };
    let forbidden = storage(|| Answer::error(403, "DENIED", SIGNED));
    let broken = storage(|| Answer::Closed);
    let busy = storage(|| Answer::error(503, "BUSY", SIGNED));
    for address in [gone, forbidden.address(), broken.address(), busy.address()] {
        let registry = TestRegistry::with_rule(&image(), Packing::Gzip, move |request| {
            if request.is_blob() {
                return Answer::header(307, "Location", &format!("http://{address}/blob?{SIGNED}"));
            }
            Answer::Right
        });
        let retries = Retries::listening();
        let said = refusal(&registry, pull(&registry, "acme/app:1").progress(retries.clone()));
        let told = format!("{:?}", retries.take());
        assert!(said.contains(&address.to_string()), "{said}");
        for text in [said, told] {
            assert!(!text.contains("X-Amz") && !text.contains("5ecre7"), "{text}");
        }
    }
}

/// HTTPS stays HTTPS: a registry that leads to plain HTTP is not followed, for manifests and for blobs.
#[test]
fn redirects_stay_encrypted() {
    let plain = TestRegistry::new(&image(), Packing::Gzip);
    for kind in ["/manifests/", "/blobs/"] {
        let address = plain.address();
        let registry = TestRegistry::encrypted(&image(), move |request| {
            if request.path.contains(kind) {
                return Answer::header(
                    302,
                    "Location",
                    &format!("http://{address}{}?{SIGNED}", request.path),
                );
            }
            Answer::Right
        });
        let wanted = pull(&registry, "acme/app:1")
            .transport(Transport::Https)
            .authorities(Authorities::from_pem(AUTHORITY).expect("a certificate"));
        let said = refusal(&registry, wanted);
        let expected = format!("it redirects from HTTPS to plain HTTP, at `{address}`");
        assert!(said.ends_with(&expected), "{said}");
    }
    assert!(plain.requests().is_empty());
}

/// Redirects are followed as often as ten times, relative ones too, and to addresses of HTTP alone.
#[test]
fn redirects_end() {
    for (times, said) in [(10, None), (11, Some("it redirects more than 10 times"))] {
        let registry = TestRegistry::with_rule(&image(), Packing::Gzip, move |request| {
            let (path, query) = request.path.split_once('?').unwrap_or((&request.path, "0"));
            match query.parse::<usize>() {
                Ok(done) if request.is_manifest() && done < times => {
                    Answer::header(302, "Location", &format!("{path}?{}", done + 1))
                }
                _ if request.is_manifest() => Answer::body(image_manifest()),
                _ => Answer::Right,
            }
        });
        match said {
            Some(said) => assert!(refusal(&registry, pull(&registry, "acme/app:1")).contains(said)),
            None => drop(into_home(&Home::made(), pull(&registry, "acme/app:1")).expect("pulled")),
        }
    }
    for location in ["file:///etc/passwd", "http://", "ftp://a/b"] {
        let registry =
            TestRegistry::with_rule(&[], Packing::Gzip, move |_| Answer::header(302, "Location", location));
        let said = refusal(&registry, pull(&registry, "acme/app:1"));
        assert!(said.contains("it redirects to an invalid address"), "{said}");
    }
}

/// Returns the text of the manifest of [`image`].
fn image_manifest() -> Vec<u8> {
    let files = larder_tests::archive::layout_files(&image(), Packing::Gzip);
    files.values().find(|bytes| bytes.starts_with(b"{\"config\"")).expect("a manifest").clone()
}
