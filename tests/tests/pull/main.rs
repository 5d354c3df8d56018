//! Images come from registries whole, whatever the way there is like.

mod access;
mod bounds;
mod broken;
mod fetching;
mod files;
mod kept;
mod real;
mod redirects;
mod refused;
mod tokens;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::ingest::{Backoff, Credentials, ImagePull, Progress, ProgressEvent, Transport};
use larder::{ImageHandle, MicrosandboxResult};
use larder_tests::registry::{Request, TestRegistry};
use larder_tests::{Home, contents, run};

/// `acme:secret` as HTTP has it.
const BASIC: &str = "Basic YWNtZTpzZWNyZXQ=";

/// The credentials that [`BASIC`] is.
fn acme() -> Credentials {
    Credentials::Password { user: "acme".to_owned(), password: "secret".to_owned() }
}

/// What a request shows of who sends it.
fn shown(request: &Request) -> Option<&str> {
    request.headers.get("authorization").map(String::as_str)
}

/// A pull from a registry of a test, which does not wait between tries.
fn pull(registry: &TestRegistry, name: &str) -> ImagePull {
    let mut backoff = Backoff::default();
    backoff.first_wait = Duration::ZERO;
    backoff.jitter_percent = 0;
    ImagePull::new(registry.reference(name)).transport(Transport::PlainHttp).backoff(backoff)
}

/// What became of it in a home.
fn into_home(home: &Home, pull: ImagePull) -> MicrosandboxResult<ImageHandle> {
    run(async { pull.run(&home.open().await).await })
}

/// Why it cannot be pulled into a new home, after a look at the cache, which has nothing then but complete layers for the next pull. The registry's address
/// is left out.
fn refusal(registry: &TestRegistry, pull: ImagePull) -> String {
    let home = Home::made();
    let error = into_home(&home, pull).expect_err("a refusal");
    let left: Vec<String> =
        contents(&home).into_keys().filter(|name| !name.ends_with("-complete.erofs.part")).collect();
    assert!(left.is_empty(), "left by: {error}: {left:?}");
    assert_eq!(home.count("SELECT count(*) FROM image_ref"), 0);
    error.to_string().replace(&registry.address().to_string(), "REGISTRY")
}

/// What was told of retries: what was tried again, after so many milliseconds, and why.
#[derive(Default)]
struct Retries(Mutex<Vec<(String, u64, String)>>);

impl Retries {
    fn take(&self) -> Vec<(String, u64, String)> {
        std::mem::take(&mut self.0.lock().expect("a list"))
    }

    fn listening() -> Arc<Self> {
        Arc::default()
    }
}

impl Progress for Retries {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::Retrying { what, wait_ms, why } = event {
            self.0.lock().expect("a list").push((what.to_owned(), wait_ms, why.to_owned()));
        }
    }
}
