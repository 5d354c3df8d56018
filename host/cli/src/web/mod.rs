//! What a host shows of its cache and its jobs: metrics, and a page.
//!
//! - `source.rs`: where figures come from, and the measurement of the cache, which is kept for some minutes
//! - `metrics.rs`: figures as OpenMetrics and as Prometheus's text format, over HTTP and as a file
//! - `page/`: the page, one HTML file that needs nothing else
//! - `http.rs`: the server of both, and of two probes
//!
//! Everything is read from the home when it is asked for. The process itself counts nothing, so that a restart sets nothing
//! back, and any process of the home shows the same. Only what became of the last reload of the job file is the service's.
//!
//! # Who may look
//! Nothing here changes anything, and there are no passwords: who reaches the address sees the names of images. So the
//! address is a loopback one unless another is named. The page is sent with a policy that lets a browser load and run
//! nothing, and texts of the cache are escaped wherever they are.

pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod page;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use source::{Measured, Reload, Source};
