//! What stays, whatever a policy or a prune decides, as it is written down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pattern::ReferencePattern;
use crate::units::human_duration;

/// What no policy and no prune removes, whatever else it may do.
///
/// The operator writes it down once for the home, in `HOME/larder.toml`; a grant, a run and the builder of a backend add
/// to it, and take nothing away ([`and`](Self::and)). `larder rm` and pins are the operator's own word and stand above it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Guard {
    /// References that stay. Default: none.
    pub protect: Vec<ReferencePattern>,
    /// What came in or was used less than this ago stays, and so does what came in at an unknown time. `0s` turns it off.
    /// Where nobody sets it, it is one hour for policies, and nothing for a prune without one.
    #[serde(with = "human_duration::option", skip_serializing_if = "Option::is_none")]
    pub min_age: Option<Duration>,
    /// No repository is left with fewer references. Default: 0.
    pub keep: u32,
}

impl Guard {
    /// The `min-age` of policies where nobody sets one.
    pub const POLICY_MIN_AGE: Duration = Duration::from_secs(3600);

    /// The same, protecting these.
    #[must_use]
    pub fn with_protect(mut self, protect: impl Into<Vec<ReferencePattern>>) -> Self {
        self.protect = protect.into();
        self
    }

    /// The same with this minimum age.
    #[must_use]
    pub fn with_min_age(mut self, min_age: impl Into<Option<Duration>>) -> Self {
        self.min_age = min_age.into();
        self
    }

    /// The same, keeping this many references in every repository.
    #[must_use]
    pub fn with_keep(mut self, keep: impl Into<u32>) -> Self {
        self.keep = keep.into();
        self
    }

    /// Returns what both want: all that either protects, the larger `min-age`, the larger `keep`.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for pattern in &other.protect {
            if !self.protect.contains(pattern) {
                self.protect.push(pattern.clone());
            }
        }
        // What is not set is less than anything that is.
        self.min_age = self.min_age.max(other.min_age);
        self.keep = self.keep.max(other.keep);
        self
    }

    /// Returns the same for a policy: with a `min-age` in any case.
    #[must_use]
    pub(crate) fn for_policy(mut self) -> Self {
        self.min_age.get_or_insert(Self::POLICY_MIN_AGE);
        self
    }

    /// Returns whether it protects nothing, so that no image has to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.protect.is_empty() && self.min_age.is_none_or(|age| age.is_zero()) && self.keep == 0
    }
}
