//! The server: pages that are read, and nothing else.
//!
//! It runs on a thread of its own, so that nothing that is asked of it delays a job. A connection answers one request, and
//! ends after ten seconds whatever it does; as many as 64 are open at a time, and others wait until one ends.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::TimeDelta;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use larder::job::Health;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::metrics::{Figures, Format};
use super::page::{self, Content};
use super::source::Measurements;
use super::source::Source;
use crate::render::plain;

/// The number of connections that are open at a time.
const CONNECTIONS: usize = 64;
/// The time that a connection has for a request and its answer.
const TIME: Duration = Duration::from_secs(10);
/// The time in which a connection has to ask for something, so that those that do not make place for others.
const HEADER_TIME: Duration = Duration::from_secs(1);
/// The time that a service may have looked at its jobs last, as far as it is recorded: every ten minutes.
const PATIENCE: TimeDelta = TimeDelta::minutes(30);
const PLAIN: &str = "text/plain; charset=utf-8";

type Response = hyper::Response<String>;

/// An address to listen on: an IP address with a port, or a port, which is one of 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenAddress(SocketAddr);

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ListenAddress {
    /// Returns the address and the port.
    pub(crate) fn address(self) -> SocketAddr {
        self.0
    }

    /// Listens on it.
    pub(crate) fn bind(self) -> io::Result<TcpListener> {
        TcpListener::bind(self.0)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return Ok(Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        let wrong = |_| {
            "an address to listen on is a port, such as `9464`, which is on this machine alone, or an IP address with a \
             port, such as `0.0.0.0:9464`"
                .to_owned()
        };
        text.parse().map(Self).map_err(wrong)
    }
}

/// A running server. Drop ends it, with the connections that are open.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Serves the metrics and the page of a home on a listener, until the result is dropped.
///
/// # Errors
/// Fails if the thread or what it needs cannot be had.
pub(crate) fn serve(listener: TcpListener, source: Source) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let measurements = Measurements::new(source.local.clone());
    let is_local = listener.local_addr()?.ip().is_loopback();
    let shown = Arc::new(Shown { source, measurements, is_local });
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("web".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                never = accept(listener, shown) => match never {},
                _ = stopped => {}
            }
        });
        // The cache may be being measured: that ends by itself.
        runtime.shutdown_background();
    })?;
    Ok(Server { stop: Some(stop), thread: Some(thread) })
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has ended.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers each connection on a task of its own.
async fn accept(listener: tokio::net::TcpListener, shown: Arc<Shown>) -> Infallible {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { continue };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shown = Arc::clone(&shown);
        let service = service_fn(move |request| {
            let shown = Arc::clone(&shown);
            async move { Ok::<_, Infallible>(protect(shown.answer(&request).await)) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // Whoever asked has gone, has asked for nothing that can be answered, or has been slow.
            let _ = timeout(TIME, connection).await;
            drop(permit);
        });
    }
}

/// Returns whether a request was made to an address or to `localhost`. A page of the web whose name was made to lead to this
/// machine has another name, and would read what is served here.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Sets the headers that every answer has, beside `Connection: close`.
fn protect(mut response: Response) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What every answer is made from.
struct Shown {
    source: Source,
    measurements: Arc<Measurements>,
    /// Set if it listens for this machine alone.
    is_local: bool,
}

impl Shown {
    async fn answer(&self, request: &Request<Incoming>) -> Response {
        let path = request.uri().path();
        let host = request.headers().get(header::HOST);
        if self.is_local && host.is_some_and(|host| !is_this_machine(host.to_str().unwrap_or_default())) {
            let text = "this is served to this machine alone, by its address or as `localhost`\n".to_owned();
            return answer(StatusCode::MISDIRECTED_REQUEST, PLAIN, text);
        }
        if !matches!(path, "/" | "/metrics" | "/healthz" | "/readyz") {
            return answer(StatusCode::NOT_FOUND, PLAIN, "there is no such page\n".to_owned());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused =
                answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "pages are read, by GET or HEAD\n".to_owned());
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/metrics" => self.metrics(request).await,
            "/healthz" => answer(StatusCode::OK, PLAIN, "ok\n".to_owned()),
            "/readyz" => self.ready().await,
            _ => self.page().await,
        }
    }

    async fn page(&self) -> Response {
        let Self { source, measurements, .. } = self;
        let jobs = Arc::clone(&source.jobs.borrow());
        let measured = measurements.latest().await;
        match Content::read(&source.local, Some(&jobs), measured).await {
            Ok(content) => answer(StatusCode::OK, "text/html; charset=utf-8", page::render(&content)),
            Err(error) => unavailable(&error.to_string()),
        }
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Response {
        let Self { source, measurements, .. } = self;
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        let (jobs, reload) = (Arc::clone(&source.jobs.borrow()), *source.reload.borrow());
        let measured = measurements.latest().await.inspect_err(|error| {
            tracing::warn!("the cache could not be measured for metrics: {error}");
        });
        let figures = Figures::read(&source.local, &jobs, measured.ok(), Some(reload)).await;
        match figures.map(|figures| figures.in_format(format)) {
            Ok(Ok(text)) => answer(StatusCode::OK, format.content_type(), text),
            Ok(Err(error)) => unavailable(&error.to_string()),
            Err(error) => unavailable(&error.to_string()),
        }
    }

    /// Says whether the jobs are looked at and do what they are to.
    async fn ready(&self) -> Response {
        let jobs = Arc::clone(&self.source.jobs.borrow());
        let status = match jobs.status().await {
            Ok(status) => status,
            Err(error) => return unavailable(&error.to_string()),
        };
        if status.looked_at.is_none_or(|at| status.at - at > PATIENCE) {
            return unavailable("nobody has looked at the jobs lately");
        }
        let critical = status.jobs.iter().find_map(|job| match &job.health {
            Health::Critical(reason) => Some(format!("{}: {reason}", job.job)),
            Health::Ok | Health::Warning(_) => None,
        });
        critical.map_or_else(
            || answer(StatusCode::OK, PLAIN, "ok\n".to_owned()),
            |critical| unavailable(&critical),
        )
    }
}

fn unavailable(why: &str) -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, plain(why) + "\n")
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
