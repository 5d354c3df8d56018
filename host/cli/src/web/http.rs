//! The server: pages that are read, and nothing else.
//!
//! It runs on a thread of its own, so that nothing that is asked of it delays a job. A connection answers one request, and
//! ends after ten seconds whatever it does; as many as 16 are open at a time, and others wait until one ends.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use chrono::TimeDelta;
use larder::job::Health;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Sleep, sleep};

use super::metrics::{Figures, Format};
use super::page::{self, Content};
use super::source::Measurements;
use super::source::Source;
use crate::render::plain;

/// The number of connections that are open at a time.
const CONNECTIONS: usize = 16;
/// The time that a connection has for a request and its answer.
const TIME: Duration = Duration::from_secs(10);
/// The time that a service may have looked at its jobs last, as far as it is recorded: every ten minutes.
const PATIENCE: TimeDelta = TimeDelta::minutes(30);
const PLAIN: &str = "text/plain; charset=utf-8";

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
        Listener {
            inner: tokio::net::TcpListener::from_std(listener)?,
            free: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("web".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                // It ends with an error of no connection, and by itself never.
                _ = axum::serve(listener, router(source)).into_future() => {}
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

/// What every answer is made from.
#[derive(Clone)]
struct Shown {
    source: Source,
    measurements: Arc<Measurements>,
}

fn router(source: Source) -> Router {
    let measurements = Measurements::new(source.local.clone());
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || answer(StatusCode::OK, PLAIN, "ok\n".to_owned())))
        .route("/readyz", get(ready))
        .fallback(async || answer(StatusCode::NOT_FOUND, PLAIN, "there is no such page\n".to_owned()))
        .layer(map_response(protect))
        .with_state(Shown { source, measurements })
}

/// Sets the headers that every answer has.
async fn protect(mut response: Response) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONNECTION, "close"),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page(State(shown): State<Shown>) -> Response {
    let Shown { source, measurements } = shown;
    let jobs = Arc::clone(&source.jobs.borrow());
    let measured = measurements.latest().await;
    match Content::read(&source.local, Some(&jobs), measured).await {
        Ok(content) => answer(StatusCode::OK, "text/html; charset=utf-8", page::render(&content)),
        Err(error) => unavailable(&error.to_string()),
    }
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let Shown { source, measurements } = shown;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
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
async fn ready(State(shown): State<Shown>) -> Response {
    let jobs = Arc::clone(&shown.source.jobs.borrow());
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
    critical
        .map_or_else(|| answer(StatusCode::OK, PLAIN, "ok\n".to_owned()), |critical| unavailable(&critical))
}

fn unavailable(why: &str) -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, plain(why) + "\n")
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// A listener with a bounded number of connections.
struct Listener {
    inner: tokio::net::TcpListener,
    free: Arc<Semaphore>,
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.free).acquire_owned().await else { continue };
            match self.inner.accept().await {
                Ok((stream, from)) => {
                    let connection = Connection { stream, end: Box::pin(sleep(TIME)), _permit: permit };
                    return (connection, from);
                }
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection with an end.
struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
