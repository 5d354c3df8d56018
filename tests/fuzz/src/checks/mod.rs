//! What holds of all bytes, target by target: errors are fine; panics, hangs and memory without bound are bugs.
//!
//! Fuzzing looks for bytes of which it does not hold. `tests/tests/fuzzed.rs` includes this module and does the same
//! with what was found.

pub mod archive;
pub mod challenge;
pub mod choice;
pub mod credentials;
pub mod erofs;
pub mod manifest;
pub mod tar;

/// Whether bytes were something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are refused.
    Refused,
    /// They are what the target is about.
    Taken,
}

/// What a target does with some bytes. Panics where they are a finding.
pub type Check = fn(&[u8]) -> Verdict;

/// Every target by its name.
pub const TARGETS: [(&str, Check); 7] = [
    ("archive", archive::check),
    ("challenge", challenge::check),
    ("choice", choice::check),
    ("credentials", credentials::check),
    ("erofs", erofs::check),
    ("manifest", manifest::check),
    ("tar", tar::check),
];
