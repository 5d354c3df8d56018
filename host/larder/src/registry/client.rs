//! Requests to the registry of one repository, each repeated if that may help.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::watch;

use super::access::{Access, Kind};
use super::answer::{Answer, Blob, ContentRange};
use super::backoff::{Backoff, Waits};
use super::challenge::{Challenge, Refusal};
use super::credentials::Credentials;
use super::credentials::secret::Place;
use super::network::{Authorities, Network, Proxies, Request, Transport, host_of};
use super::problem::{Fault, Problem, Remedy};
use crate::reference::{Digest, Reference};

/// The host of Docker Hub, whose name in references is that of its website.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The header with the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The maximum number of tokens that are requested for one request: a first one, and one after that was refused.
const TOKENS: u32 = 2;

/// The settings for access to a registry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) credentials: Credentials,
    pub(crate) transport: Transport,
    pub(crate) proxies: Proxies,
    pub(crate) authorities: Authorities,
    pub(crate) backoff: Backoff,
}

/// A switch that ends all requests.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the requests are to end.
    pub(crate) async fn stopped(&self) {
        // It fails when there is no sender, and this is one.
        let _ = self.0.subscribe().wait_for(|stopped| *stopped).await;
    }
}

/// A guard that ends all requests when it is dropped.
#[derive(Debug)]
pub(crate) struct StopOnDrop(pub(crate) Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A request that failed and is about to be tried again.
pub(crate) struct Retry<'a> {
    /// The thing that is requested.
    pub(crate) what: &'a str,
    pub(crate) wait: Duration,
    pub(crate) why: &'a Problem,
}

/// The name of a manifest in its repository.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name<'a> {
    /// A tag, which names another manifest at another time.
    Tag(&'a str),
    /// The digest of the manifest.
    Digest(&'a Digest),
}

/// A part of a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// Everything from this position to the end.
    From(u64),
    /// So many bytes from this position.
    Of(u64, u64),
}

/// A manifest or an index, with the digest that it was asked for.
pub(crate) struct Document {
    pub(crate) text: Vec<u8>,
    pub(crate) digest: Digest,
    /// The media type in the header, if it is one of those that are accepted.
    pub(crate) media_type: Option<&'static str>,
}

/// A client for the repository of a reference.
pub(crate) struct Client {
    /// The root of the registry.
    root: Url,
    repository: String,
    network: Network,
    access: Access,
    backoff: Backoff,
    stop: Stop,
    told: Box<dyn Fn(Retry<'_>) + Send + Sync>,
    /// Set if the registry has ever answered.
    reached: AtomicBool,
    /// The bytes of manifests and blobs that arrived.
    received: AtomicU64,
}

impl Client {
    /// Makes a client. Sends no request yet.
    pub(crate) fn new(
        reference: &Reference,
        settings: Settings,
        stop: Stop,
        told: impl Fn(Retry<'_>) + Send + Sync + 'static,
    ) -> Result<Self, Problem> {
        let Settings { credentials, transport, proxies, authorities, backoff } = settings;
        let (registry, repository) = (reference.registry(), reference.path());
        let host = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
        let scheme = match transport {
            Transport::Https => "https",
            Transport::PlainHttp => "http",
        };
        let root = Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| Problem::Unreachable(error.to_string()))?;
        let place = Place { registry: registry.to_owned(), repository: repository.to_owned() };
        Ok(Self {
            root,
            repository: repository.to_owned(),
            network: Network::new(transport, proxies, authorities, backoff.longest_silence),
            access: Access::new(credentials, place),
            backoff,
            stop,
            told: Box::new(told),
            reached: AtomicBool::new(false),
            received: AtomicU64::new(0),
        })
    }

    /// Returns the number of bytes of manifests and blobs that arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns the waits for a new request.
    pub(crate) fn waits(&self) -> Waits {
        self.backoff.waits()
    }

    /// Requests a manifest or an index of at most so many bytes. `accepts` are the media types that it may have.
    pub(crate) async fn manifest(
        &self,
        what: &str,
        name: Name<'_>,
        accepts: &'static [&'static str],
        limit: u64,
    ) -> Result<Document, Problem> {
        let mut waits = self.waits();
        loop {
            let request = self.request_manifest(name, accepts, limit);
            match self.unless_stopped(request).await? {
                Ok(document) => return Ok(document),
                Err(fault) => self.wait(what, fault, &mut waits).await?,
            }
        }
    }

    async fn request_manifest(
        &self,
        name: Name<'_>,
        accepts: &'static [&'static str],
        limit: u64,
    ) -> Result<Document, Fault> {
        let answer = self.ask(self.manifest_request(Method::GET, name, accepts)).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        for warning in answer.warnings() {
            tracing::warn!("`{}` warns: {warning}", host_of(&self.root));
        }
        let stated = answer.header(CONTENT_DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
        let media_type = answer.header(CONTENT_TYPE.as_str()).map(media_type);
        let text = answer.document(limit).await?;
        self.received.fetch_add(text.len() as u64, Ordering::Relaxed);
        check_media_type(media_type.as_deref(), &text)?;
        let digest = Digest::of(&text);
        let expected = match name {
            Name::Digest(digest) => Some(digest),
            Name::Tag(_) => stated.as_ref(),
        };
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            let (expected, found) = (expected.clone(), digest);
            return Err(Fault::lasting(Problem::WrongDigest { expected, found }));
        }
        let accepted = |found: String| accepts.iter().copied().find(|accepted| *accepted == found);
        Ok(Document { text, digest, media_type: media_type.and_then(accepted) })
    }

    /// Requests the digest of a manifest without the manifest. Returns `None` if that fails in any way: then a request for
    /// the manifest says how.
    pub(crate) async fn digest(&self, name: Name<'_>, accepts: &'static [&'static str]) -> Option<Digest> {
        let request = self.ask(self.manifest_request(Method::HEAD, name, accepts));
        let answer = self.unless_stopped(request).await.ok()?.ok()?;
        let is_there = answer.status() == StatusCode::OK;
        answer.header(CONTENT_DIGEST).filter(|_| is_there)?.parse().ok()
    }

    fn manifest_request(&self, method: Method, name: Name<'_>, accepts: &[&str]) -> Request {
        let name = match name {
            Name::Tag(tag) => tag,
            Name::Digest(digest) => digest.as_str(),
        };
        let mut request = Request::new(method, self.url("manifests", name));
        // Media types have no character that a header may not have.
        if let Ok(accepts) = HeaderValue::from_str(&accepts.join(", ")) {
            request.headers.insert(ACCEPT, accepts);
        }
        request
    }

    /// Requests a blob of this size or a part of it, once. Returns `None` if the registry sends another part.
    pub(crate) async fn blob(&self, digest: &Digest, size: u64, part: Part) -> Result<Option<Blob>, Fault> {
        let mut request = Request::new(Method::GET, self.url("blobs", digest.as_str()));
        let range = match part {
            Part::Whole => None,
            Part::From(first) => Some((first, None)),
            Part::Of(first, length) => Some((first, Some(first.saturating_add(length).saturating_sub(1)))),
        };
        if let Some((first, last)) = range {
            let last = last.map_or_else(String::new, |last: u64| last.to_string());
            // Digits, and no character that a header may not have.
            if let Ok(range) = HeaderValue::from_str(&format!("bytes={first}-{last}")) {
                request.headers.insert(RANGE, range);
            }
        }
        let answer = self.ask(request).await?;
        match (answer.status(), range) {
            (StatusCode::OK, _) => Ok(Some(answer.blob(0))),
            (StatusCode::PARTIAL_CONTENT, Some((first, last))) => {
                let is_right = ContentRange::of(&answer).is_some_and(|sent| {
                    sent.first == first && sent.total == size && last.is_none_or(|last| sent.last == last)
                });
                Ok(is_right.then(|| answer.blob(first)))
            }
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) => Ok(None),
            _ => Err(self.refused(answer).await),
        }
    }

    /// Counts bytes of a blob that arrived.
    pub(crate) fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Sends a request, with what the registry asks to be shown.
    async fn ask(&self, request: Request) -> Result<Answer, Fault> {
        match self.converse(request).await {
            Ok(answer) => Ok(answer),
            // The service for tokens may refuse as well.
            Err(fault) => Err(self.access.explain(fault).await),
        }
    }

    /// Returns the fault of an answer that is not the one asked for.
    async fn refused(&self, answer: Answer) -> Fault {
        self.access.explain(answer.fault().await).await
    }

    async fn converse(&self, request: Request) -> Result<Answer, Fault> {
        let Request { method, url, headers, .. } = request;
        let mut shown = self.access.current(&self.network).await?;
        let mut tokens = 0;
        loop {
            let authorization = shown.as_ref().map(|shown| shown.header.clone());
            let (method, url, headers) = (method.clone(), url.clone(), headers.clone());
            let request = Request { method, url, headers, authorization, form: None };
            let answer = self.network.send(request).await?;
            self.reached.store(true, Ordering::Relaxed);
            // What another host refuses is nothing that the registry's credentials are for.
            if !answer.is_of_the_host() || tokens == TOKENS {
                return Ok(answer);
            }
            let challenge = match answer.status() {
                StatusCode::UNAUTHORIZED => Challenge::strongest(answer.headers(WWW_AUTHENTICATE.as_str())),
                StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => None,
                _ => return Ok(answer),
            };
            let challenge = match challenge {
                None if shown.is_none() && self.access.has_credentials().await => {
                    self.root_challenge().await?
                }
                challenge => challenge,
            };
            let Some(challenge) = challenge else { return Ok(answer) };
            let helps = match (&challenge, shown.as_ref().map(|shown| shown.kind)) {
                (_, None) | (Challenge::Bearer(_), Some(Kind::Credentials)) => tokens == 0,
                (Challenge::Bearer(service), Some(Kind::Token)) => service.refusal == Refusal::Other,
                (Challenge::Basic, Some(kind)) => kind == Kind::Token,
            };
            let answered = match helps {
                true => self.access.answer(challenge, shown.as_ref(), &self.network).await?,
                false => None,
            };
            if answered.is_none() {
                return Ok(answer);
            }
            shown = answered;
            tokens += 1;
        }
    }

    /// Returns what the root of the registry asks for. Some registries refuse or deny what strangers may not see, and ask for
    /// credentials there alone.
    async fn root_challenge(&self) -> Result<Option<Challenge>, Fault> {
        let mut url = self.root.clone();
        url.set_path("/v2/");
        let answer = self.network.send(Request::new(Method::GET, url)).await?;
        let asks = answer.status() == StatusCode::UNAUTHORIZED && answer.is_of_the_host();
        Ok(Challenge::strongest(answer.headers(WWW_AUTHENTICATE.as_str())).filter(|_| asks))
    }

    fn url(&self, kind: &str, name: &str) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("/v2/{}/{kind}/{name}", self.repository));
        url
    }

    /// Waits before the next try, or returns the problem if another try does not help.
    pub(crate) async fn wait(&self, what: &str, fault: Fault, waits: &mut Waits) -> Result<(), Problem> {
        let requested = match fault.remedy {
            Remedy::Again(requested) => Some(requested),
            Remedy::AgainOnceReached => self.reached.load(Ordering::Relaxed).then_some(None),
            Remedy::None => None,
        };
        let Some(wait) = requested.and_then(|requested| waits.next(requested)) else {
            return Err(fault.problem);
        };
        (self.told)(Retry { what, wait, why: &fault.problem });
        self.unless_stopped(tokio::time::sleep(wait)).await
    }

    /// Returns the result of some work, unless all requests are to end.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Problem> {
        tokio::select! {
            result = work => Ok(result),
            () = self.stop.stopped() => Err(Problem::Cancelled),
        }
    }
}

/// Returns the media type of a header `Content-Type`, without parameters.
fn media_type(header: &str) -> String {
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Refuses a document that is of another media type than the header says (OCI distribution specification, pulling
/// manifests). Registries that say nothing of images, such as `application/json` or `text/plain`, are not refused.
fn check_media_type(header: Option<&str>, text: &[u8]) -> Result<(), Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        media_type: Option<String>,
    }
    let Some(header) = header.filter(|header| header.starts_with("application/vnd.")) else { return Ok(()) };
    let own = serde_json::from_slice::<Probe>(text).ok().and_then(|probe| probe.media_type);
    match own.map(|own| own.to_ascii_lowercase()) {
        Some(own) if own != header => {
            let [own, header] = [own.as_str(), header].map(super::problem::first_line);
            let why = format!("it sent a document of the media type `{own}` as one of `{header}`");
            Err(Fault::lasting(Problem::Failed(why)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document is refused if header and document name two media types, and not if one of them names none of images.
    #[test]
    fn media_types() {
        let index = "application/vnd.oci.image.index.v1+json";
        let text = format!(r#"{{"mediaType":"{index}"}}"#);
        let check =
            |header: &str, text: &str| check_media_type(Some(&media_type(header)), text.as_bytes()).is_ok();
        assert!(check(&format!("{index}; charset=utf-8"), &text));
        assert!(check(&index.to_uppercase(), &text));
        assert!(!check("application/vnd.oci.image.manifest.v1+json", &text));
        for header in ["application/json", "text/plain", ""] {
            assert!(check(header, &text), "{header}");
        }
        assert!(check(index, "{}") && check(index, "<html>"));
        assert!(check_media_type(None, text.as_bytes()).is_ok());
    }
}
