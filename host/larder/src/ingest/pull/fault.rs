//! The faults of requests to a registry: the message for each, and whether another try may help.

use std::error::Error;
use std::io;

use oci_client::errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode};

use crate::ingest::error::IngestProblem;

/// A request that failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) problem: IngestProblem,
    pub(super) remedy: Remedy,
}

/// The remedy for a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Try again later.
    Again,
    /// Try again later if the registry has answered before: an address that never answered may not be a registry.
    AgainOnceReached,
    /// No remedy.
    None,
}

impl Fault {
    pub(super) fn lasting(problem: IngestProblem) -> Self {
        Self { problem, remedy: Remedy::None }
    }

    pub(super) fn passing(problem: IngestProblem) -> Self {
        Self { problem, remedy: Remedy::Again }
    }

    /// Returns the fault of a connection that ended in the middle of a body.
    pub(super) fn of_stream(error: &io::Error) -> Self {
        Self::passing(IngestProblem::Unreachable(chain(error)))
    }
}

impl From<OciDistributionError> for Fault {
    fn from(error: OciDistributionError) -> Self {
        use OciDistributionError as E;
        match error {
            E::RegistryError { envelope, .. } => of_envelope(&envelope),
            E::ServerError { code, message, .. } => of_status(code, first_line(&message)),
            E::UnauthorizedError { .. } => Self::lasting(IngestProblem::Refused(None)),
            E::AuthenticationFailure(why) => {
                Self::lasting(IngestProblem::Refused(Some(text_of(&why).unwrap_or_else(|| first_line(&why)))))
            }
            E::RequestError(error) if error.is_builder() || error.is_redirect() => {
                Self::lasting(IngestProblem::Unreachable(chain(&error)))
            }
            E::RequestError(error) if error.is_connect() => {
                Self { problem: IngestProblem::Unreachable(chain(&error)), remedy: Remedy::AgainOnceReached }
            }
            E::RequestError(error) => Self::passing(IngestProblem::Unreachable(chain(&error))),
            E::IoError(error) => Self::of_stream(&error),
            E::DigestError(DigestError::VerificationError { expected, actual }) => {
                Self::lasting(match (expected.parse(), actual.parse()) {
                    (Ok(expected), Ok(found)) => {
                        IngestProblem::WrongDigest { what: "the manifest", expected, found }
                    }
                    _ => IngestProblem::Registry(format!("it sent `{actual}` for `{expected}`")),
                })
            }
            error => Self::lasting(IngestProblem::Registry(chain(&error))),
        }
    }
}

/// Returns the fault for the status of a response whose body does not follow the specification.
fn of_status(status: u16, said: String) -> Fault {
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    match status {
        401 | 403 => Fault::lasting(IngestProblem::Refused(None)),
        404 => Fault::lasting(IngestProblem::NotInRegistry),
        408 | 425 | 429 | 500.. => Fault::passing(IngestProblem::Registry(format!("status {status}{said}"))),
        _ => Fault::lasting(IngestProblem::Registry(format!("status {status}{said}"))),
    }
}

/// Returns the fault for the errors in a response (OCI distribution specification, error codes).
fn of_envelope(envelope: &OciEnvelope) -> Fault {
    let said = messages(envelope);
    match envelope.errors.first().map(|error| &error.code) {
        Some(
            OciErrorCode::ManifestUnknown
            | OciErrorCode::ManifestBlobUnknown
            | OciErrorCode::BlobUnknown
            | OciErrorCode::NameUnknown
            | OciErrorCode::NotFound,
        ) => Fault::lasting(IngestProblem::NotInRegistry),
        Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => {
            Fault::lasting(IngestProblem::Refused(Some(said)))
        }
        Some(OciErrorCode::Toomanyrequests) => Fault::passing(IngestProblem::Registry(said)),
        _ => Fault::lasting(IngestProblem::Registry(said)),
    }
}

/// Returns the errors in a body, if it has the form of the specification.
fn text_of(body: &str) -> Option<String> {
    serde_json::from_str::<OciEnvelope>(body).ok().map(|envelope| messages(&envelope))
}

fn messages(envelope: &OciEnvelope) -> String {
    let messages: Vec<String> = envelope
        .errors
        .iter()
        .map(|error| match error.message.as_str() {
            "" => serde_json::to_string(&error.code).unwrap_or_default().trim_matches('"').to_owned(),
            message => first_line(message),
        })
        .collect();
    if messages.is_empty() { "it does not say why".to_owned() } else { messages.join(", ") }
}

/// Returns the first line of a registry's text, with a bounded length, because the text can be anything.
fn first_line(text: &str) -> String {
    const SHOWN: usize = 200;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(SHOWN).collect()
}

/// Returns an error and its sources in one text, each source once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    first_line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Temporary faults are tried again: too many requests, and faults of the server. A missing or refused image is
    /// not.
    #[test]
    fn statuses() {
        for (status, remedy) in [
            (429, Remedy::Again),
            (408, Remedy::Again),
            (500, Remedy::Again),
            (503, Remedy::Again),
            (400, Remedy::None),
            (401, Remedy::None),
            (404, Remedy::None),
        ] {
            assert_eq!(of_status(status, String::new()).remedy, remedy, "{status}");
        }
    }

    /// A response in the form of the specification is classified by its code, and shown with its messages.
    #[test]
    fn envelopes() {
        let fault = |text: &str| {
            let envelope: OciEnvelope = serde_json::from_str(text).expect("an envelope");
            Fault::from(OciDistributionError::RegistryError { envelope, url: String::new() })
        };
        let limited = fault(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#);
        assert_eq!(limited.remedy, Remedy::Again);
        assert_eq!(limited.problem.to_string(), "the registry failed: slow down");
        let missing = fault(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
        assert!(matches!(missing.problem, IngestProblem::NotInRegistry));
        let denied = fault(r#"{"errors":[{"code":"DENIED","message":""}]}"#);
        assert!(denied.problem.to_string().contains("DENIED"), "{}", denied.problem);
    }

    /// For any text of a registry, one line of bounded length is shown.
    #[test]
    fn what_a_registry_says_is_cut() {
        let long = format!("\n\n  {}\u{1b}[31m\nsecond", "x".repeat(1000));
        let line = first_line(&long);
        assert_eq!(line.len(), 200);
        assert!(line.chars().all(|character| character == 'x'));
    }
}
