//! Connections to a registry and to what it leads to: TLS, proxies, redirects.
//!
//! Redirects are followed by a rule of our own: at most ten, never from HTTPS to plain HTTP, and what is shown to a host
//! is shown to no other. There are no cookies.

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Certificate, Method, NoProxy, Proxy, StatusCode, Url, redirect};

use super::answer::Answer;
use super::problem::{Fault, Problem};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// The time after which an attempt to connect fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum number of redirects of a request.
const MAX_REDIRECTS: usize = 10;

/// The hosts that no proxy is asked for: this machine.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// The transport to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Encrypted, with a certificate that this machine trusts.
    #[default]
    Https,
    /// Not encrypted: anyone on the network path can read and change the data. For registries on this machine.
    PlainHttp,
}

/// The proxies between this machine and a registry. By default there are none: the environment is not read.
///
/// This machine itself (`localhost`, 127.0.0.0/8 and ::1) is reached without a proxy.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Proxies {
    /// The URL of the proxy for [`Transport::Https`].
    pub https: Option<String>,
    /// The URL of the proxy for [`Transport::PlainHttp`].
    pub http: Option<String>,
    /// The hosts, domains and networks that are reached without a proxy, separated by commas, as in `NO_PROXY`. `*` means
    /// all.
    pub exceptions: Option<String>,
}

/// Hides the proxies' URLs, because they may contain a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("exceptions", &self.exceptions).finish_non_exhaustive()
    }
}

/// Certificates of authorities that are trusted beside those of this machine.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Vec<Certificate>);

impl Authorities {
    /// Reads the certificates of a PEM file.
    ///
    /// # Errors
    /// [`InvalidConfig`](MicrosandboxError::InvalidConfig) if there are none in it, or one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> MicrosandboxResult<Self> {
        let invalid = |why: &str| MicrosandboxError::InvalidConfig(why.to_owned());
        let certificates = Certificate::from_pem_bundle(pem)
            .map_err(|_| invalid("a certificate in PEM format cannot be read"))?;
        if certificates.is_empty() {
            return Err(invalid("there is no certificate in PEM format"));
        }
        Ok(Self(certificates))
    }

    /// Adds other certificates.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Returns whether a registry, such as `localhost:5000`, is on this machine by its name.
pub fn is_loopback(registry: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{registry}/")) else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A request.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// The header `Authorization`, which is shown to the host of the URL alone.
    pub(super) authorization: Option<HeaderValue>,
    /// A form. A request with one is not redirected.
    pub(super) form: Option<String>,
}

impl Request {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), authorization: None, form: None }
    }
}

/// The connections of a pull, kept open between requests.
pub(super) struct Network {
    pub(super) transport: Transport,
    proxies: Proxies,
    authorities: Authorities,
    /// The time without a byte after which a connection counts as broken.
    silence: Duration,
    /// Made when they are needed: plain HTTP needs no certificates.
    plain: OnceLock<Result<reqwest::Client, Problem>>,
    encrypted: OnceLock<Result<reqwest::Client, Problem>>,
}

impl Network {
    pub(super) fn new(
        transport: Transport,
        proxies: Proxies,
        authorities: Authorities,
        silence: Duration,
    ) -> Self {
        let (plain, encrypted) = Default::default();
        Self { transport, proxies, authorities, silence, plain, encrypted }
    }

    /// Sends a request, and follows redirects.
    pub(super) async fn send(&self, request: Request) -> Result<Answer, Fault> {
        let Request { method, mut url, headers, authorization, form } = request;
        let origin = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let is_origin = url.origin() == origin;
            let mut sent = self.client(&url)?.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(authorization) = authorization.as_ref().filter(|_| is_origin) {
                sent = sent.header(AUTHORIZATION, authorization);
            }
            if let Some(form) = &form {
                sent = sent.body(form.clone());
            }
            let elsewhere = (!is_origin).then(|| host_of(&url));
            let response = sent.send().await.map_err(|error| of(error, elsewhere.as_deref()))?;
            if !is_redirect(response.status()) || form.is_some() {
                return Ok(Answer::new(response, elsewhere));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            url = next(&url, location)?;
        }
        Err(Fault::lasting(Problem::Failed(format!("it redirects more than {MAX_REDIRECTS} times"))))
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, Fault> {
        let client = match url.scheme() {
            "https" => self.encrypted.get_or_init(|| {
                self.build(|builder| {
                    builder.https_only(true).tls_certs_merge(self.authorities.0.iter().cloned())
                })
            }),
            // No certificates are looked for where none are needed.
            _ => self.plain.get_or_init(|| self.build(|builder| builder.tls_certs_only([]))),
        };
        client.as_ref().map_err(|problem| Fault::lasting(problem.clone()))
    }

    fn build(
        &self,
        trust: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<reqwest::Client, Problem> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(self.silence)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy();
        let exceptions = self.proxies.exceptions.as_deref().unwrap_or_default();
        let is_all = exceptions.split(',').any(|exception| exception.trim() == "*");
        let exceptions = format!("{LOOPBACK},{exceptions}");
        let https = self.proxies.https.as_ref().map(Proxy::https);
        let http = self.proxies.http.as_ref().map(Proxy::http);
        for proxy in https.into_iter().chain(http).filter(|_| !is_all) {
            // Its URL may contain a password.
            let proxy =
                proxy.map_err(|_| Problem::Unreachable("the URL of the proxy is not valid".to_owned()))?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&exceptions)));
        }
        trust(builder).build().map_err(|error| match Fault::of_connection(error).problem {
            Problem::Unreachable(why) if why.contains("No CA certificates") => Problem::NoAuthorities,
            problem => problem,
        })
    }
}

/// Returns the fault of a connection to the host that was asked, or to another.
fn of(error: reqwest::Error, elsewhere: Option<&str>) -> Fault {
    let fault = Fault::of_connection(error);
    match (fault.problem, elsewhere) {
        (Problem::Unreachable(why), Some(host)) => {
            Fault { problem: Problem::Unreachable(format!("it leads to `{host}`: {why}")), ..fault }
        }
        (problem, _) => Fault { problem, ..fault },
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns the URL that a redirect leads to.
fn next(from: &Url, location: Option<&str>) -> Result<Url, Fault> {
    let fail = |why: String| Fault::lasting(Problem::Failed(why));
    let url = location.and_then(|location| from.join(location).ok());
    let mut url = url
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
        .ok_or_else(|| fail("it redirects to an invalid address".to_owned()))?;
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(fail(format!("it redirects from HTTPS to plain HTTP, at `{}`", host_of(&url))));
    }
    strip(&mut url);
    Ok(url)
}

/// Removes what a URL has for its reader alone: a user and a fragment.
pub(super) fn strip(url: &mut Url) {
    // Each fails on URLs without a host, which there are none of.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
}

/// Returns the host of a URL, with its port if it is an odd one. The rest of a URL may be secret.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A registry is on this machine if its name says so, with any port.
    #[test]
    fn loopback() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]", "[::1]:5000"]
        {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in
            ["docker.io", "localhost.example:5000", "192.168.1.1:5000", "[fe80::1]:5000", "", "a b"]
        {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    /// A redirect leads from plain HTTP to HTTPS and never back, to no other scheme, and without a user.
    #[test]
    fn redirects() {
        let from = |text: &str, location: &str| {
            let next = next(&Url::parse(text).expect("a URL"), Some(location));
            next.map(|url| url.to_string()).map_err(|fault| fault.problem)
        };
        assert_eq!(from("https://a/v2/b", "/c?d").as_deref(), Ok("https://a/c?d"));
        assert_eq!(from("http://a:5000/v2/b", "https://u:p@s/x#y").as_deref(), Ok("https://s/x"));
        let plain = "it redirects from HTTPS to plain HTTP, at `s:81`".to_owned();
        assert_eq!(from("https://a/", "http://s:81/x?signature=1"), Err(Problem::Failed(plain)));
        for odd in ["file:///etc/passwd", "ftp://a/b", "https://", "data:,x"] {
            assert!(from("http://a/", odd).is_err(), "{odd}");
        }
        assert!(next(&Url::parse("http://a/").expect("a URL"), None).is_err());
    }

    /// Printing the settings shows no URL of a proxy.
    #[test]
    fn proxies_stay_hidden() {
        let proxies = Proxies {
            https: Some("http://u:hunter2@p".to_owned()),
            http: None,
            exceptions: Some("a".to_owned()),
        };
        let shown = format!("{proxies:?}");
        assert!(shown.contains("exceptions") && !shown.contains("hunter2"), "{shown}");
    }
}
