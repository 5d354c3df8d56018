//! A registry on loopback that answers as a test wants, and records the requests.
//!
//! It speaks the part of the OCI distribution specification that pulling needs, over plain HTTP/1.1, a thread for each
//! connection. A rule of the test sees each request first, and may replace the answer.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::archive::{Files, Packing, TestImage, blob_name, layout_files};

/// A request of a client.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path with the query.
    pub path: String,
    /// Headers, their names in lowercase.
    pub headers: BTreeMap<String, String>,
    /// The number of earlier requests for this path.
    pub before: usize,
}

impl Request {
    /// Returns whether the request is for a blob.
    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    /// Returns whether the request is for a manifest or index.
    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The correct answer.
    Right,
    /// The correct answer, with the connection closed after this many bytes of the body.
    Cut(usize),
    /// The whole content, even if the client requested a part.
    Whole,
    /// Another answer.
    Other {
        /// The status.
        status: u16,
        /// Headers besides the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
}

impl Answer {
    /// Returns a status with an error in the form of the specification.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::Other { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    /// Returns a status with a header and nothing else.
    pub fn header(status: u16, name: &str, value: &str) -> Self {
        Self::Other { status, headers: vec![(name.to_owned(), value.to_owned())], body: Vec::new() }
    }

    /// Returns an answer with these bytes instead of the correct ones.
    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self::Other { status: 200, headers: Vec::new(), body: body.into() }
    }
}

type Rule = dyn Fn(&Request) -> Answer + Send + Sync;

/// A registry for tests. Drop closes it.
pub struct TestRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    /// The blobs of a layout, including manifests.
    files: Files,
    /// The digests of manifests and indexes by `REPOSITORY:TAG`.
    tags: BTreeMap<String, String>,
    rule: Box<Rule>,
    requests: Mutex<Vec<Request>>,
    closed: AtomicBool,
}

impl TestRegistry {
    /// Starts a registry with these images, which answers correctly.
    pub fn new(images: &[TestImage], packing: Packing) -> Self {
        Self::with_rule(images, packing, |_| Answer::Right)
    }

    /// Starts a registry with these images, whose answers `rule` determines.
    pub fn with_rule(
        images: &[TestImage],
        packing: Packing,
        rule: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::with_files(layout_files(images, packing), rule)
    }

    /// Starts a registry with the files of a layout, under the names in its `index.json`.
    pub fn with_files(files: Files, rule: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("an index");
        let named = index["manifests"].as_array().expect("manifests").iter().filter_map(|descriptor| {
            let name = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
            Some((name.to_owned(), descriptor["digest"].as_str()?.to_owned()))
        });
        let tags = named.collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            files,
            tags,
            rule: Box::new(rule),
            requests: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Returns the reference of an image in this registry, such as `127.0.0.1:40001/acme/app:1`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Returns the address of the registry.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the digests of the requested blobs, in the order of the requests.
    pub fn blobs_asked_for(&self) -> Vec<String> {
        let of = |request: &Request| request.path.rsplit('/').next().unwrap_or_default().to_owned();
        self.requests().iter().filter(|request| request.is_blob()).map(of).collect()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.closed.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that goes away in the middle is what some tests are about.
        thread::spawn(move || drop(converse(&stream, &shared)));
    }
}

fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input, shared)? {
        let answer = (shared.rule)(&request);
        if !respond(stream, shared, &request, answer)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(input: &mut BufReader<&TcpStream>, shared: &Shared) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    // What does not begin as HTTP is somebody who tries TLS.
    let Some(path) = line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else {
        return Ok(None);
    };
    let mut request = Request { path: path.to_owned(), headers: BTreeMap::new(), before: 0 };
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        request.headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
    request.before = requests.iter().filter(|other| other.path == request.path).count();
    requests.push(request.clone());
    Ok(Some(request))
}

/// Sends an answer. Returns whether the connection stays open.
fn respond(mut stream: &TcpStream, shared: &Shared, request: &Request, answer: Answer) -> io::Result<bool> {
    // The first byte, and the last (RFC 9110, section 14.1.2).
    let range = request.headers.get("range").and_then(|range| {
        let (begin, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((begin.parse::<usize>().ok()?, end.parse::<usize>().unwrap_or(usize::MAX)))
    });
    let (status, headers, body, cut) = match answer {
        Answer::Other { status, headers, body } => (status, headers, body, None),
        Answer::Right | Answer::Whole | Answer::Cut(_) => {
            let cut = if let Answer::Cut(bytes) = answer { Some(bytes) } else { None };
            let range = range.filter(|_| !matches!(answer, Answer::Whole));
            match (shared.content(request), range) {
                (Some(content), Some((begin, last))) => {
                    let end = last.saturating_add(1).min(content.len());
                    (206, Vec::new(), content[begin..end].to_vec(), cut)
                }
                (Some(content), None) => (200, Vec::new(), content.to_vec(), cut),
                (None, _) if request.path == "/v2/" => (200, Vec::new(), b"{}".to_vec(), cut),
                (None, _) => {
                    let code = if request.is_blob() { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
                    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#);
                    (404, Vec::new(), body.into_bytes(), cut)
                }
            }
        }
    };
    write!(stream, "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n", body.len())?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())])?;
    Ok(cut.is_none())
}

impl Shared {
    /// Returns the content at a path: `/v2/REPOSITORY/manifests/TAG`, or `DIGEST` instead of `TAG`, or `blobs/DIGEST`.
    fn content(&self, request: &Request) -> Option<&[u8]> {
        let path = request.path.strip_prefix("/v2/")?;
        let (rest, last) = path.rsplit_once('/')?;
        let (repository, kind) = rest.rsplit_once('/')?;
        let wanted = match kind {
            "manifests" if !last.starts_with("sha256:") => self.tags.get(&format!("{repository}:{last}"))?,
            _ => last,
        };
        self.files.get(&blob_name(wanted)).map(Vec::as_slice)
    }
}
