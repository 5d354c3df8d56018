//! The server and the metrics of a home.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use larder::job::{JobFile, Jobs, PolicyName};
use larder::policy::Policy;
use larder::reference::Digest;
use larder_tests::judge::has_tools;
use larder_tests::{ENGINE, FIXTURE_NOW, Home, component, images_on_one_base, populate, run};
use tokio::sync::watch;

use super::http::{ListenAddress, Server, serve};
use super::metrics::Format;
use super::page;
use super::{Reload, Source};

const FILE: &str = r#"
[jobs.nightly]
schedule = "@daily"
policy = "keep-recent"
config = { keep = 1 }
grant = { remove = ["**"], max-share = "50%" }
mode = "observe"

[jobs.pressure]
when-free-below = "99.9998%"
until-free = "99.9999%"
policy = "keep-recent"
config = { keep = 1 }
grant = { remove = ["docker.io/acme/app0000*"], max-share = "100%" }
"#;

/// A home with jobs, its server, and the two things that change while it serves.
struct Served {
    home: Home,
    address: SocketAddr,
    jobs: watch::Sender<Arc<Jobs>>,
    reload: watch::Sender<Reload>,
    _server: Server,
}

fn now() -> DateTime<Utc> {
    FIXTURE_NOW.parse().expect("a time")
}

impl Served {
    /// Serves a home with this job file, after a look at its jobs if there is to be one.
    fn new(home: Home, file: &str, ticks: bool) -> Self {
        let jobs = Arc::new(jobs(&home, file));
        if ticks {
            let tick = run(jobs.tick(std::future::pending())).expect("a look at the jobs");
            assert!(tick.problems.is_empty(), "{tick:?}");
        }
        let local = run(home.open());
        let (jobs, jobs_seen) = watch::channel(jobs);
        let (reload, reload_seen) = watch::channel(Reload::succeeded(now() - TimeDelta::hours(1)));
        let listener = "0".parse::<ListenAddress>().expect("an address").bind().expect("a listener");
        let address = listener.local_addr().expect("its address");
        assert!(address.ip().is_loopback());
        let server =
            serve(listener, Source { local, jobs: jobs_seen, reload: reload_seen }).expect("a server");
        Self { home, address, jobs, reload, _server: server }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut text = String::new();
        // The server closes the connection.
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        Answer { head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).expect("a status")
    }
}

fn jobs(home: &Home, file: &str) -> Jobs {
    let bytes = std::fs::read(component("keep-recent")).expect("the component");
    let policy = run(Policy::load(&ENGINE, bytes)).expect("a policy");
    let policies = HashMap::from([(PolicyName::Bundled("keep-recent".to_owned()), policy)]);
    let file = JobFile::parse(file).unwrap_or_else(|findings| panic!("{findings}"));
    Jobs::new(run(home.open()), file, Arc::new(policies))
}

/// A home of twelve images that nothing uses.
fn home() -> Home {
    let home = Home::made();
    populate(&home.path(), now(), &images_on_one_base(12));
    home
}

/// Metrics say what the jobs of a home did, in both formats, and the server that is asked second has the same: nothing is
/// counted in the process.
#[test]
fn metrics_are_those_of_the_home() {
    let served = Served::new(home(), FILE, true);
    let answer = served.get("/metrics");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer:?}");
    let again = Served::new(served.home.copy(), FILE, false).get("/metrics").body;
    let without_disk = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("larder_filesystem_"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(without_disk(&answer.body), without_disk(&again));
    for expected in [
        "larder_images{state=\"unused\"} ",
        "larder_bytes{kind=\"shared\"} ",
        "larder_job_attempts_total{job=\"pressure\",trigger=\"pressure\",result=\"partial\"} 1\n",
        "larder_job_removed_images_total{job=\"pressure\"} ",
        "larder_job_target_bytes_bucket{job=\"pressure\",le=\"+Inf\"} 1\n",
        "larder_job_duration_seconds_bucket{job=\"pressure\",le=\"0.1\"} ",
        "larder_job_goal_unmet{job=\"pressure\"} 1.0\n",
        "larder_job_mode{job=\"nightly\",mode=\"observe\"} 1.0\n",
        "larder_job_mode{job=\"nightly\",mode=\"apply\"} 0.0\n",
        "larder_job_next_run_timestamp_seconds{job=\"nightly\"} ",
        "larder_config_last_reload_successful 1.0\n",
    ] {
        assert!(answer.body.contains(expected), "{expected} is not in\n{}", answer.body);
    }
    // Names and digests of images are no labels.
    assert!(!answer.body.contains("acme") && !answer.body.contains("sha256"), "{}", answer.body);
    served.reload.send_modify(|reload| *reload = reload.failed());
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let open = served.ask(&format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"));
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open:?}");
    assert!(
        open.body.ends_with("# EOF\n") && open.body.contains("larder_config_last_reload_successful 0.0\n")
    );
}

/// The format is OpenMetrics for who asks for it, and the text format for everybody else.
#[test]
fn formats() {
    for (accept, expected) in [
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/plain;version=0.0.4", Format::Text),
        ("text/plain;q=0.5, application/openmetrics-text; version=1.0.0", Format::OpenMetrics),
        ("application/openmetrics-text;q=0", Format::Text),
        ("application/openmetrics-text;q=0.0", Format::Text),
        ("application/openmetrics-text;q=0.5", Format::OpenMetrics),
    ] {
        assert_eq!(Format::accepted(accept), expected, "{accept}");
    }
}

/// Prometheus takes both formats, and has nothing to say about names, types and helps.
#[test]
fn prometheus_takes_metrics() {
    if !has_tools(&["promtool"]) {
        return;
    }
    let served = Served::new(home(), FILE, true);
    let text = served.get("/metrics").body;
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("promtool runs");
    check.stdin.take().expect("its input").write_all(text.as_bytes()).expect("the metrics");
    let output = check.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    // Its reader of OpenMetrics wants a time of each sample.
    let accept = "Accept: application/openmetrics-text";
    let open = served.ask(&format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n\r\n")).body;
    let timed = open.lines().map(|line| match line.starts_with('#') {
        true => format!("{line}\n"),
        false => format!("{line} 1700000000\n"),
    });
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("metrics");
    std::fs::write(&file, timed.collect::<String>()).expect("the metrics");
    let mut read = Command::new("promtool");
    read.args(["tsdb", "create-blocks-from", "openmetrics"]).args([&file, &directory.path().join("blocks")]);
    let output = read.output().expect("promtool runs");
    assert!(output.status.success(), "{}\n{open}", String::from_utf8_lossy(&output.stderr));
}

/// A probe says whether the process lives, another whether the jobs are looked at and do what they are to, and why not.
#[test]
fn probes() {
    let calm = FILE.replace("99.9998%", "0.0001%").replace("99.9999%", "0.0002%");
    let served = Served::new(home(), &calm, false);
    assert_eq!((served.get("/healthz").status(), &*served.get("/healthz").body), ("200", "ok\n"));
    let answer = served.get("/readyz");
    assert_eq!((answer.status(), &*answer.body), ("503", "nobody has looked at the jobs lately\n"));
    run(served.jobs.borrow().tick(std::future::pending())).expect("a look at the jobs");
    assert_eq!((served.get("/readyz").status(), &*served.get("/readyz").body), ("200", "ok\n"));
    // Runs that failed are a fault, and the file may have become another one since.
    served.home.execute("UPDATE larder_job SET failures = 3 WHERE name = 'nightly'");
    let answer = served.get("/readyz");
    assert_eq!(answer.status(), "503");
    assert!(answer.body.starts_with("nightly: it failed 3 times in a row"), "{answer:?}");
    assert_eq!(answer.body.lines().count(), 1);
    let (_, pressure) = calm.split_once("[jobs.pressure]").expect("two jobs");
    served.jobs.send_replace(Arc::new(jobs(&served.home, &format!("[jobs.pressure]{pressure}"))));
    assert_eq!(served.get("/readyz").status(), "200");
    std::fs::rename(served.home.path(), served.home.path().with_file_name("away")).expect("it goes");
    assert_eq!(served.get("/readyz").status(), "503");
    assert_eq!(served.get("/healthz").status(), "200");
}

/// The page is served with what keeps a browser from loading or running anything, everything is read only, and a connection
/// answers once.
#[test]
fn answers_are_protected() {
    let served = Served::new(home(), FILE, true);
    let page = served.get("/");
    assert_eq!(page.status(), "200");
    assert!(page.body.starts_with("<!DOCTYPE html>") && page.body.ends_with("</html>"), "{}", page.body);
    assert!(page.body.contains("pressure") && page.body.contains("docker.io/acme/app00011"), "{}", page.body);
    for path in ["/", "/metrics", "/healthz", "/readyz", "/nothing"] {
        let answer = served.get(path);
        for header in [
            "cache-control: no-store",
            "connection: close",
            "content-security-policy: default-src 'none'; style-src 'sha256-",
            "cross-origin-resource-policy: same-origin",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
        ] {
            assert!(answer.head.contains(header), "{path} without {header}: {}", answer.head);
        }
    }
    assert_eq!(served.get("/nothing").status(), "404");
    let refused = served.ask("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(refused.status(), "405");
    assert!(refused.head.contains("allow: get, head"), "{refused:?}");
    // A name that somebody made lead here is none of this machine.
    let hosts = ["127.0.0.1:9464", "[::1]", "LOCALHOST:1", "other.example", "localhost.example:80", ""];
    let statuses = hosts.map(|host| {
        let asked = served.ask(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        asked.status().to_owned()
    });
    assert_eq!(statuses, ["200", "200", "200", "421", "421", "421"]);
    let healthy = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(served.ask(&healthy.repeat(2)).body, "ok\n");
    let head = served.ask("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status(), &*head.body), ("200", ""));
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let mut stream = TcpStream::connect(served.address).expect("a connection");
    // The server may close it before all is written.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

/// Connections that say nothing delay nobody for longer than they may last.
#[test]
fn silent_connections_end() {
    let served = Served::new(home(), FILE, false);
    let silent: Vec<TcpStream> =
        (0..16).map(|_| TcpStream::connect(served.address).expect("a connection")).collect();
    assert_eq!(served.get("/healthz").status(), "200");
    drop(silent);
}

/// A server that is dropped ends, with the connections that are open.
#[test]
fn a_dropped_server_ends() {
    let served = Served::new(home(), FILE, false);
    let mut open = TcpStream::connect(served.address).expect("a connection");
    open.write_all(b"GET / HTTP/1.1\r\n").expect("half of a request");
    let address = served.address;
    drop(served);
    assert!(TcpStream::connect(address).is_err());
    open.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    assert!(matches!(open.read(&mut [0; 16]), Ok(0) | Err(_)));
}

/// An address is a loopback one unless another is named, and what is none is explained.
#[test]
fn addresses() {
    let address = |text: &str| text.parse::<ListenAddress>().map(|address| format!("{address:?}"));
    assert_eq!(address("9464").as_deref(), Ok("ListenAddress(127.0.0.1:9464)"));
    assert_eq!(address("0.0.0.0:80").as_deref(), Ok("ListenAddress(0.0.0.0:80)"));
    assert_eq!(address("[::1]:80").as_deref(), Ok("ListenAddress([::1]:80)"));
    for wrong in ["", "localhost", "127.0.0.1", "99999", ":80"] {
        assert!(address(wrong).expect_err("no address").starts_with("an address to listen on is a port"));
    }
}

/// The policy of the page names the style that is in it, and nothing else may be loaded or run.
#[test]
fn the_policy_names_the_style() {
    let digest = Digest::of(include_bytes!("page/style.css")).to_string();
    let hex = digest.strip_prefix("sha256:").expect("a SHA-256 digest").as_bytes();
    let bytes: Vec<u8> = hex
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"))
        .collect();
    let expected = base64(&bytes);
    assert!(
        page::CONTENT_SECURITY_POLICY.contains(&format!("style-src 'sha256-{expected}'")),
        "`page/style.css.sha256` has to be `{expected}`"
    );
    assert!(page::CONTENT_SECURITY_POLICY.starts_with("default-src 'none'; "));
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| -> String {
        let number = (0..3)
            .fold(0_usize, |number, at| number << 8 | three.get(at).map_or(0, |byte| usize::from(*byte)));
        let letter = |at: usize| char::from(LETTERS[number >> (18 - 6 * at) & 63]);
        (0..4).map(|at| if at <= three.len() { letter(at) } else { '=' }).collect()
    };
    bytes.chunks(3).map(group).collect()
}
