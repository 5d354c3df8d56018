//! A registry on loopback that answers as a test wants, and records the requests.
//!
//! It speaks the part of the OCI distribution specification that pulling needs, over HTTP/1.1 in plain or in TLS, a thread
//! for each connection. A rule of the test sees each request first, and may replace the answer.
//!
//! `fixtures/tls` has the certificate of the registry for this machine's names, and that of its authority, whose key is
//! gone.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::archive::{Files, Packing, TestImage, blob_name, digest, layout_files};

/// The certificate of the authority that an encrypted registry has its own from.
pub const AUTHORITY: &[u8] = include_bytes!("../fixtures/tls/ca.pem");

/// A request of a client.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, such as `GET`.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// Headers, their names in lowercase.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// The number of earlier requests of this method for this path.
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
    /// No answer: the connection is closed.
    Closed,
    /// The correct answer, with nothing more after this many bytes of the body until the client gives up.
    Stalled(usize),
    /// The correct answer, a few bytes at a time.
    Trickled,
    /// The whole content, even if the client requested a part.
    Whole,
    /// The part that was requested, with this header `Content-Range` or none.
    PartAs(Option<String>),
    /// A status with a body that never ends.
    Endless(u16),
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

/// The transport of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Plain HTTP.
    Plain,
    /// HTTPS, with a certificate of [`AUTHORITY`].
    Encrypted,
}

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
    tls: Option<Arc<ServerConfig>>,
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
        Self::at("127.0.0.1:0", Wire::Plain, files, rule).expect("a port")
    }

    /// Starts a registry with these images that is reached by HTTPS.
    pub fn encrypted(
        images: &[TestImage],
        rule: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let files = layout_files(images, Packing::Gzip);
        Self::at("127.0.0.1:0", Wire::Encrypted, files, rule).expect("a port")
    }

    /// Starts a registry at an address of this machine.
    ///
    /// # Errors
    /// An error if this machine has no such address.
    pub fn at(
        address: &str,
        wire: Wire,
        files: Files,
        rule: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("an index");
        let named = index["manifests"].as_array().expect("manifests").iter().filter_map(|descriptor| {
            let name = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
            Some((name.to_owned(), descriptor["digest"].as_str()?.to_owned()))
        });
        let tags = named.collect();
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            files,
            tags,
            rule: Box::new(rule),
            tls: (wire == Wire::Encrypted).then(|| Arc::new(tls())),
            requests: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Self { address, shared, accepting: Some(accepting) })
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

/// Returns the settings of an encrypted registry.
fn tls() -> ServerConfig {
    let certificates = CertificateDer::pem_slice_iter(include_bytes!("../fixtures/tls/server.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../fixtures/tls/server.key"));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(
            certificates.map(|certificate| certificate.expect("a certificate")).collect(),
            key.expect("a key"),
        )
        .expect("a certificate and its key")
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
        thread::spawn(move || drop(connect(stream, &shared)));
    }
}

fn connect(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    match &shared.tls {
        Some(tls) => {
            let connection = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
            converse(StreamOwned::new(connection, stream), shared)
        }
        None => converse(stream, shared),
    }
}

fn converse(stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream, shared)? {
        let answer = (shared.rule)(&request);
        if !respond(stream.get_mut(), shared, &request, answer)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(input: &mut BufReader<impl Read>, shared: &Shared) -> io::Result<Option<Request>> {
    let mut line = Vec::new();
    if input.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split(' ');
    let (Some(method @ ("GET" | "HEAD" | "POST")), Some(path)) = (words.next(), words.next()) else {
        // What does not begin as HTTP is somebody who tries TLS.
        return Ok(None);
    };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut request = Request { method, path, headers: BTreeMap::new(), body: String::new(), before: 0 };
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        request.headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = request.headers.get("content-length").and_then(|length| length.parse().ok());
    input.by_ref().take(length.unwrap_or_default()).read_to_string(&mut request.body)?;
    let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
    let is_same = |other: &&Request| (&other.method, &other.path) == (&request.method, &request.path);
    request.before = requests.iter().filter(is_same).count();
    requests.push(request.clone());
    Ok(Some(request))
}

/// Sends an answer. Returns whether the connection stays open.
fn respond(
    stream: &mut (impl Read + Write),
    shared: &Shared,
    request: &Request,
    answer: Answer,
) -> io::Result<bool> {
    if let Answer::Endless(status) = answer {
        write!(stream, "HTTP/1.1 {status} Status\r\nConnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[b' '; 64 << 10])?;
        }
    }
    if matches!(answer, Answer::Closed) {
        return Ok(false);
    }
    let ending = answer.clone();
    let (status, headers, body) = match answer {
        Answer::Other { status, headers, body } => (status, headers, body),
        answer => shared.content_as(request, &answer),
    };
    write!(stream, "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n", body.len())?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.flush()?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    match ending {
        Answer::Cut(bytes) => {
            stream.write_all(&body[..bytes.min(body.len())])?;
            stream.flush()?;
            return Ok(false);
        }
        Answer::Stalled(bytes) => {
            stream.write_all(&body[..bytes.min(body.len())])?;
            stream.flush()?;
            // Until the client closes the connection.
            let _ = stream.read(&mut [0]);
            return Ok(false);
        }
        Answer::Trickled => {
            for piece in body.chunks(7) {
                stream.write_all(piece)?;
                stream.flush()?;
            }
        }
        _ => stream.write_all(&body)?,
    }
    stream.flush()?;
    Ok(true)
}

/// The first byte of the requested part, and the last (RFC 9110, section 14.1.2).
fn range(request: &Request) -> Option<(usize, usize)> {
    let (begin, end) = request.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((begin.parse().ok()?, end.parse().unwrap_or(usize::MAX)))
}

impl Shared {
    /// Returns status, headers and body of the content at a path.
    fn content_as(&self, request: &Request, answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let range = range(request).filter(|_| !matches!(answer, Answer::Whole));
        match (self.content(request), range) {
            (Some(content), Some((begin, last))) => {
                let end = last.saturating_add(1).min(content.len());
                let right = || format!("bytes {begin}-{}/{}", end - 1, content.len());
                let stated = if let Answer::PartAs(other) = answer { other.clone() } else { Some(right()) };
                let headers = stated.into_iter().map(|range| ("Content-Range".to_owned(), range));
                (206, headers.collect(), content[begin..end].to_vec())
            }
            (Some(content), None) if request.is_manifest() => {
                let mut headers = vec![("Docker-Content-Digest".to_owned(), digest(content))];
                let document: Option<Value> = serde_json::from_slice(content).ok();
                let media_type =
                    document.and_then(|document| Some(document["mediaType"].as_str()?.to_owned()));
                headers.extend(media_type.map(|media_type| ("Content-Type".to_owned(), media_type)));
                (200, headers, content.to_vec())
            }
            (Some(content), None) => (200, Vec::new(), content.to_vec()),
            (None, _) if request.path == "/v2/" => (200, Vec::new(), b"{}".to_vec()),
            (None, _) => {
                let code = if request.is_blob() { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
                let body = format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#);
                (404, Vec::new(), body.into_bytes())
            }
        }
    }

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
