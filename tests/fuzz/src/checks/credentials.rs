//! The files with credentials that Docker and podman keep.
//!
//! **Invariant**: what is wrong with a file is said in one short line, without anything that the file has in quotes.

use larder::ingest::fuzzing;

use super::Verdict;

/// The repositories that are looked up.
const REPOSITORIES: [(&str, &str); 2] = [("docker.io", "library/app"), ("r:5000", "acme/app")];

/// The longest that a message may be.
const MESSAGE: usize = 200;

/// See the [module](self).
pub fn check(bytes: &[u8]) -> Verdict {
    let mut verdict = Verdict::Taken;
    for (registry, repository) in REPOSITORIES {
        if let Err(message) = fuzzing::credentials(bytes, registry, repository) {
            assert!(message.len() <= MESSAGE && !message.chars().any(char::is_control), "{message:?}");
            let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
            assert!(quoted.iter().all(|quoted| *quoted == registry), "{message:?}");
            verdict = Verdict::Refused;
        }
    }
    verdict
}
