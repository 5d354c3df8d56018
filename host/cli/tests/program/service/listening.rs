//! What a service shows on its address and in its file.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use larder_tests::FIXTURE_NOW;

use super::{Service, nightly};
use crate::harness::TestEnvironment;

/// Asks for a path, and returns the answer with its headers.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8(answer).expect("text")
}

/// A service serves the page, metrics and probes for as long as it runs, and leaves metrics in a file; all of them know of a
/// job file that cannot be used.
#[test]
fn page_metrics_and_probes() {
    let test = TestEnvironment::fixture();
    test.write("jobs.toml", nightly(&test, ""));
    let mut service = Service::start_with(&test, FIXTURE_NOW, 0, "--listen 0 --textfile larder.prom");
    let line = service.running.wait_for("serves a page and metrics on http://");
    let address =
        line.rsplit("http://").next().and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    service.look();
    assert!(get(&address, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get(&address, "/metrics");
    assert!(metrics.contains("larder_config_last_reload_successful 1"), "{metrics}");
    assert!(metrics.contains("larder_job_mode{job=\"nightly\",mode=\"apply\"} 1"), "{metrics}");
    let page = get(&address, "/");
    assert!(page.contains("nightly") && page.to_lowercase().contains("content-security-policy"), "{page}");
    assert!(test.read("larder.prom").contains("larder_config_last_reload_successful 1"));
    test.write("jobs.toml", "[jobs.nightly]\n");
    service.look();
    assert!(get(&address, "/metrics").contains("larder_config_last_reload_successful 0"));
    assert!(test.read("larder.prom").contains("larder_config_last_reload_successful 0"));
    let (status, _) = service.end();
    assert_eq!(status.code(), Some(0));
    assert!(TcpStream::connect(&address).is_err(), "nobody listens any longer");
}

/// An address that is taken is an error before anything runs.
#[test]
fn a_taken_address() {
    let test = TestEnvironment::fixture();
    test.write("jobs.toml", nightly(&test, ""));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let port = taken.local_addr().expect("its address").port();
    let output = test.larder(&format!("job start --file jobs.toml --log-format human --listen {port}"));
    assert_eq!(output.status, 1, "{output}");
    assert!(output.stderr.contains(&format!("could not listen on `127.0.0.1:{port}`")), "{output}");
}
