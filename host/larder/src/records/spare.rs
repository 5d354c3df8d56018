//! Why an image that was to go was left alone, as a word.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of reason for which an image that was to go was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpareCause {
    /// Something uses it.
    InUse,
    /// Somebody pinned it.
    Pinned,
    /// A live operation holds it.
    Leased,
    /// It names another manifest than when it was decided to remove it.
    Changed,
    /// It was used after it was decided to remove it.
    UsedSince,
    /// A guard keeps it, or the grant does not reach as far any longer.
    Guarded,
}

impl fmt::Display for SpareCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
