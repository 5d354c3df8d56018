//! What a registry asks for: the values of its headers `WWW-Authenticate`, one a line.
//!
//! **Invariant**: a challenge has nothing that the header has not: its parameters are in it, character by character.

use larder::ingest::fuzzing;

use super::Verdict;

/// See the [module](self).
pub fn check(bytes: &[u8]) -> Verdict {
    let headers = String::from_utf8_lossy(bytes);
    let Some(parameters) = fuzzing::challenge(&headers) else { return Verdict::Refused };
    for parameter in parameters {
        assert!(!parameter.is_empty());
        let mut header = headers.chars();
        assert!(parameter.chars().all(|wanted| header.any(|found| found == wanted)), "{parameter:?}");
    }
    Verdict::Taken
}
