//! Answers of registries: bodies with a bound, parts of blobs, and the errors in a body.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, DATE, HeaderMap, RETRY_AFTER, WARNING};
use serde::Deserialize;

use super::problem::{Fault, Problem, Remedy, first_line};

/// The maximum number of bytes that are read of the body of an error.
const ERROR_BYTES: usize = 8 << 10;

/// The time after which no more is read of the body of an error.
const ERROR_TIME: Duration = Duration::from_secs(10);

/// The maximum number of messages that are shown of an error.
const ERRORS_SHOWN: usize = 3;

/// The maximum number of warnings of an answer.
const WARNINGS_SHOWN: usize = 3;

/// An answer, whose body is still to be read.
pub(super) struct Answer {
    response: reqwest::Response,
    /// The host that answered, if it is another than the one that was asked.
    elsewhere: Option<String>,
}

impl Answer {
    pub(super) fn new(response: reqwest::Response, elsewhere: Option<String>) -> Self {
        Self { response, elsewhere }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns a header, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns all headers of a name that are text.
    pub(super) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// Returns the warnings of the registry for the user (OCI distribution specification, warnings).
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.headers(WARNING.as_str()).filter_map(warning).take(WARNINGS_SHOWN)
    }

    /// Returns whether the host that was asked answered, and no other.
    pub(super) fn is_of_the_host(&self) -> bool {
        self.elsewhere.is_none()
    }

    /// Reads the body, which is at most so many bytes.
    pub(super) async fn document(self, limit: u64) -> Result<Vec<u8>, Fault> {
        let mut blob = Blob { response: self.response, begins: 0 };
        let mut text = Vec::new();
        while let Some(piece) = blob.piece().await? {
            if (text.len() + piece.len()) as u64 > limit {
                return Err(Fault::lasting(Problem::TooLarge(limit)));
            }
            text.extend_from_slice(&piece);
        }
        Ok(text)
    }

    /// Returns the body as that of a blob.
    pub(super) fn blob(self, begins: u64) -> Blob {
        Blob { response: self.response, begins }
    }

    /// Returns the fault that an answer other than the expected one is.
    pub(super) async fn fault(mut self) -> Fault {
        let status = self.status().as_u16();
        if let Some(host) = self.elsewhere {
            // Its text is not the registry's, and may have what was signed.
            return of_status(status, None, self.response.headers())
                .map_text(|said| format!("it leads to `{host}`: {said}"));
        }
        let mut body = Vec::new();
        let read = async {
            while body.len() < ERROR_BYTES
                && let Ok(Some(piece)) = self.response.chunk().await
            {
                body.extend_from_slice(&piece[..piece.len().min(ERROR_BYTES - body.len())]);
            }
        };
        // What arrived by then is enough.
        let _ = tokio::time::timeout(ERROR_TIME, read).await;
        of_status(status, serde_json::from_slice(&body).ok(), self.response.headers())
    }
}

/// Returns the text of a header `Warning`: `299 - "TEXT"`.
fn warning(header: &str) -> Option<String> {
    let text = header.trim().strip_prefix("299 - \"")?.strip_suffix('"')?;
    Some(first_line(&text.replace("\\\"", "\""))).filter(|text| !text.is_empty())
}

/// The bytes of a blob, or of a part of it.
pub(crate) struct Blob {
    response: reqwest::Response,
    /// The position of the first byte in the blob.
    pub(crate) begins: u64,
}

impl Blob {
    /// Returns the next bytes, or `None` at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        self.response.chunk().await.map_err(Fault::of_connection)
    }
}

/// The errors in a body: those of the OCI distribution specification, or of a service that gives tokens.
#[derive(Debug, Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    /// The reason of Docker's token service.
    #[serde(default)]
    details: Option<String>,
    /// The reason of services that follow OAuth 2.0.
    #[serde(default)]
    error_description: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Envelope {
    /// Returns the errors as one text.
    fn text(&self) -> Option<String> {
        let entries = self.errors.iter().take(ERRORS_SHOWN).map(|error| match error.message.as_deref() {
            None | Some("") => first_line(&error.code),
            Some(message) => first_line(message),
        });
        let others =
            [&self.details, &self.error_description].into_iter().flatten().map(|text| first_line(text));
        let said: Vec<String> = entries.chain(others).filter(|text| !text.is_empty()).collect();
        (!said.is_empty()).then(|| said.join(", "))
    }
}

/// Returns the fault for a status and the errors in the body (OCI distribution specification, error codes).
fn of_status(status: u16, envelope: Option<Envelope>, headers: &HeaderMap) -> Fault {
    let envelope = envelope.unwrap_or_default();
    let said = envelope.text();
    let code = envelope.errors.first().map(|error| error.code.to_ascii_uppercase());
    let failed = |said: Option<String>| {
        Problem::Failed(match said {
            Some(said) if status < 500 => said,
            Some(said) => format!("status {status}: {said}"),
            None => format!("status {status}"),
        })
    };
    match (status, code.as_deref()) {
        (408 | 425 | 429 | 500.., _) | (_, Some("TOOMANYREQUESTS")) => {
            Fault { problem: failed(said), remedy: Remedy::Again(retry_after(headers)) }
        }
        (401 | 403, _) | (_, Some("UNAUTHORIZED" | "DENIED")) => Fault::lasting(Problem::Refused(said)),
        (404, _)
        | (
            _,
            Some(
                "MANIFEST_UNKNOWN" | "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "NAME_UNKNOWN" | "NOT_FOUND",
            ),
        ) => Fault::lasting(Problem::Missing),
        _ => Fault::lasting(failed(said)),
    }
}

impl Fault {
    fn map_text(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.problem = match self.problem {
            Problem::Failed(said) => Problem::Failed(change(said)),
            Problem::Refused(_) => Problem::Refused(Some(change("it refuses access".to_owned()))),
            problem => problem,
        };
        self
    }
}

/// Returns the time that a header `Retry-After` asks for (RFC 9110, section 10.2.3). A date counts from the answer's own
/// `Date`, so that the clock of this machine does not matter.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let after = text(RETRY_AFTER)?;
    if !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(after.parse().unwrap_or(u64::MAX)));
    }
    let date = |text| DateTime::parse_from_rfc2822(text).ok();
    let wait = date(after)? - date(text(DATE)?)?;
    // One that is over is none.
    Some(wait.to_std().unwrap_or_default())
}

/// A part of a blob, as `Content-Range` has it (RFC 9110, section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: u64,
}

impl ContentRange {
    /// Returns the part that the headers of an answer state, if it is whole and makes sense.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        Self::parse(answer.header(CONTENT_RANGE.as_str())?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, total) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
        (first <= last && last < total).then_some(Self { first, last, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        of_status(status, serde_json::from_str(body).ok(), &HeaderMap::new())
    }

    /// Temporary faults are tried again: too many requests, and faults of the server. A missing or refused image is
    /// not.
    #[test]
    fn statuses() {
        for (status, remedy) in [
            (429, Remedy::Again(None)),
            (408, Remedy::Again(None)),
            (500, Remedy::Again(None)),
            (503, Remedy::Again(None)),
            (400, Remedy::None),
            (401, Remedy::None),
            (404, Remedy::None),
            (304, Remedy::None),
        ] {
            assert_eq!(fault(status, "<html>").remedy, remedy, "{status}");
        }
    }

    /// An answer in the form of the specification, or of a token service, is classified by its status and code, and
    /// shown with its messages.
    #[test]
    fn envelopes() {
        let failed = |said: &str| Problem::Failed(said.to_owned());
        let limited = fault(400, r#"{"errors":[{"code":"toomanyrequests","message":"slow down"}]}"#);
        assert_eq!((limited.remedy, limited.problem), (Remedy::Again(None), failed("slow down")));
        let missing = fault(400, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","detail":{"a":[1]}}]}"#);
        assert_eq!(missing.problem, Problem::Missing);
        let denied =
            fault(403, r#"{"errors":[{"code":"DENIED","message":""},{"code":"X","message":"a\nb"}]}"#);
        assert_eq!(denied.problem, Problem::Refused(Some("DENIED, a".to_owned())));
        let token = fault(401, r#"{"details":"incorrect username or password"}"#);
        assert_eq!(token.problem, Problem::Refused(Some("incorrect username or password".to_owned())));
        assert_eq!(fault(418, r#"{"errors":[]}"#).problem, failed("status 418"));
        assert_eq!(
            fault(502, r#"{"errors":[{"code":"UNAVAILABLE"}]}"#).problem,
            failed("status 502: UNAVAILABLE")
        );
        let many = format!(r#"{{"errors":[{}{{}}]}}"#, r#"{"code":"A"},"#.repeat(1000));
        assert_eq!(fault(400, &many).problem, failed("A, A, A"));
    }

    /// A time to wait is a number of seconds, or a date beside that of the answer. A time that is over is none, and what
    /// is neither does not count.
    #[test]
    fn times_to_wait() {
        let wait = |after: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().expect("a value"));
            date.map(|date| headers.insert(DATE, date.parse().expect("a value")));
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait("30", None), Some(30));
        assert_eq!(wait("0", None), Some(0));
        assert_eq!(wait("99999999999999999999999", None), Some(u64::MAX));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(30));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(0));
        for odd in ["Sun, 06 Nov 1994 08:50:07 GMT", "soon", "-1", ""] {
            assert_eq!(wait(odd, None), None, "{odd}");
        }
    }

    /// A warning is text in quotes, behind the code of all warnings of registries.
    #[test]
    fn warnings() {
        assert_eq!(warning(r#"299 - "the \"old\" tag goes""#).as_deref(), Some(r#"the "old" tag goes"#));
        for odd in [r#"110 - "stale""#, "299 - x", r#"299 - """#, "299 - \"", ""] {
            assert_eq!(warning(odd), None, "{odd}");
        }
    }

    /// A part of a blob is one with both ends and the length of the whole.
    #[test]
    fn parts() {
        let part = |text| ContentRange::parse(text).map(|part| (part.first, part.last, part.total));
        assert_eq!(part("bytes 10-19/100"), Some((10, 19, 100)));
        for odd in [
            "bytes 10-19/*",
            "bytes */100",
            "bytes 19-10/100",
            "bytes 10-100/100",
            "items 1-2/3",
            "bytes 1-2",
            "10-19/100",
        ] {
            assert_eq!(part(odd), None, "{odd}");
        }
    }
}
