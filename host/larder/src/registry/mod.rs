//! A client of the OCI distribution API: manifests, blobs and tokens, for one repository.
//!
//! ```text
//! client       requests, each repeated if that may help
//! access       what is shown to a registry: Basic credentials, or a token that is renewed
//! challenge    what a registry asks for
//! token        requests for tokens
//! network      connections: TLS, proxies, redirects
//! answer       bodies with a bound, ranges, the errors in a body
//! backoff      the waits between tries
//! problem      what can go wrong, and whether another try may help
//! credentials  the credentials: none, a user, or those in the files of other programs
//! settings     the registries in the settings of a home
//! ```
//!
//! # Trust
//! A registry is a stranger. Every body has a bound while it is read. HTTPS stays HTTPS across redirects and token
//! services. Credentials and tokens go to the host that they are for, and no message or log has one, nor the query of a
//! URL, which may be signed.
//!
//! # Faults
//! 429, 5xx and broken connections are tried again alike for manifests, blobs and tokens, after the time that the
//! registry asks for (`Retry-After`) or after [`Backoff`]. A 401 to a request with a token gets a new token once.
//!
//! # Environment
//! The client reads no environment: proxies, files and variables are the caller's to name.

mod access;
mod answer;
mod backoff;
pub(crate) mod challenge;
mod client;
pub(crate) mod credentials;
mod network;
mod problem;
mod settings;
mod token;

pub use backoff::Backoff;
pub use credentials::Credentials;
pub use network::{Authorities, Proxies, Transport, is_loopback};
pub use settings::HomeRegistries;

pub(crate) use client::{Client, Document, Name, Part, Retry, Settings, Stop, StopOnDrop};
pub(crate) use problem::{Fault, Problem};
