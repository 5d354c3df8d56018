//! Whatever a registry sends, no more of it is read than it may be.

use larder::ingest::Backoff;
use larder_tests::archive::{Packing, TestImage, digest};
use larder_tests::registry::{Answer, Request, TestRegistry};

use crate::{pull, refusal};

/// Returns why a pull fails from a registry that answers some requests without end.
fn refused(status: u16, endless: impl Fn(&Request) -> bool + Send + Sync + 'static) -> String {
    let image = [TestImage::small(&["acme/app:1"])];
    let registry = TestRegistry::with_rule(&image, Packing::Gzip, move |request| match endless(request) {
        true => Answer::Endless(status),
        false => Answer::Right,
    });
    let mut backoff = Backoff::default();
    backoff.retries = 0;
    refusal(&registry, pull(&registry, "acme/app:1").backoff(backoff))
}

/// Documents, blobs and errors that never end are given up at their limit.
#[test]
fn endless_bodies() {
    let said = refused(200, Request::is_manifest);
    assert!(said.ends_with("it exceeds the limit of 8388608 bytes in a manifest, index or config"), "{said}");
    let config = digest(TestImage::small(&[]).config().to_string().as_bytes());
    let of_config = config.clone();
    let said = refused(200, move |request| request.path.ends_with(&of_config));
    assert!(said.contains(&config) && said.contains("bytes instead of"), "{said}");
    let said = refused(200, move |request| request.is_blob() && !request.path.ends_with(&config));
    assert!(said.contains("layer `sha256:") && said.contains("bytes instead of"), "{said}");
    for (status, said) in [
        (500, "the registry failed: status 500"),
        (404, "the registry has no such image"),
        (403, "the registry refuses it"),
        (418, "the registry failed: status 418"),
        (302, "the registry failed: "),
    ] {
        let found = refused(status, Request::is_manifest);
        assert!(found.contains(said), "{found}");
    }
}

/// A token that never ends is given up, and so is an error of the service for tokens.
#[test]
fn endless_tokens() {
    for (status, said) in
        [(200, "sent more than 65536 bytes"), (503, "status 503"), (401, "the registry refuses it")]
    {
        let registry = TestRegistry::with_rule(&[], Packing::Gzip, move |request| {
            if request.path.starts_with("/token") {
                return Answer::Endless(status);
            }
            let host = &request.headers["host"];
            Answer::header(401, "WWW-Authenticate", &format!("Bearer realm=\"http://{host}/token\""))
        });
        let mut backoff = Backoff::default();
        backoff.retries = 0;
        let found = refusal(&registry, pull(&registry, "acme/app:1").backoff(backoff));
        assert!(found.contains(said), "{found}");
    }
}
