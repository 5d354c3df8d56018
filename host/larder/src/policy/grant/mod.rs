//! What a policy may do, as the operator writes it down.
//!
//! A [`GrantDocument`] is a TOML file of three tables: `[grant]`, what this policy may do; `[guard]`, what it may not
//! remove whatever else it may, beside what the home's own guard keeps; and `[limits]`, what a run may use up
//! (`limits.rs`). Every key may be left out. An empty document lets a policy see every image and change nothing.
//!
//! ```toml
//! [grant]
//! read   = ["**"]
//! remove = ["docker.io/acme/**"]
//! max-bytes = "20GiB"
//!
//! [guard]
//! protect = ["docker.io/acme/base"]
//!
//! [limits]
//! time = "5s"
//! ```
//!
//! An unknown key, a value of another kind and a pattern that does not parse are errors that name file, line and
//! key: a typing error never makes a grant wider. A plan carries the whole document, so that what was allowed
//! stands beside what was decided; it reads back to the same document.

mod diagnose;

use serde::{Deserialize, Serialize};

use crate::pattern::ReferencePattern;
use crate::policy::error::{Overrun, PolicyError};
pub use crate::policy::limits::Limits;
pub use crate::records::Guard;
use crate::reference::Reference;
use crate::units::{ByteSize, Share};

/// A grant with its guard and limits: the whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GrantDocument {
    /// The rights of the policy.
    pub grant: Grant,
    /// The images that stay in any case, in addition to those of the home's guard.
    pub guard: Guard,
    /// The limits of a run.
    pub limits: Limits,
}

/// The rights of a policy. The default: see every image, change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Grant {
    /// References that it can see; every other image does not exist for it. Default: `["**"]`.
    pub read: Vec<ReferencePattern>,
    /// Whose config and layers it can read. Default: none.
    pub inspect: Vec<ReferencePattern>,
    /// True if it sees environment variables. Default: withheld.
    pub secrets: bool,
    /// References that it may remove. Default: none.
    pub remove: Vec<ReferencePattern>,
    /// True if it may remove images that are in use. Default: no.
    pub force: bool,
    /// True if it may remove, in one call, everything unused that `remove` allows. Default: no.
    pub prune: bool,
    /// At most this many references. Default: no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_removals: Option<u32>,
    /// At most this many bytes freed. Default: no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
    /// At most this share of the references in the cache, hidden ones counted. Default: no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_share: Option<Share>,
}

impl Default for Grant {
    fn default() -> Self {
        Self {
            read: vec![everything()],
            inspect: Vec::new(),
            secrets: false,
            remove: Vec::new(),
            force: false,
            prune: false,
            max_removals: None,
            max_bytes: None,
            max_share: None,
        }
    }
}

impl GrantDocument {
    /// Reads a TOML document; `source_name` is what errors call it, such as the path it came from.
    ///
    /// # Errors
    /// [`PolicyError::InvalidGrant`] with line and key.
    pub fn from_toml(text: &str, source_name: &str) -> Result<Self, PolicyError> {
        let document: Self = toml::from_str(text)
            .map_err(|error| diagnose::diagnose(text, source_name, error.message(), error.span()))?;
        document.limits.check(source_name, text)?;
        Ok(document)
    }

    /// Refuses values that no run can have. [`from_toml`](Self::from_toml) and every run do this by themselves.
    ///
    /// # Errors
    /// [`PolicyError::InvalidGrant`] with the key.
    pub fn check(&self) -> Result<(), PolicyError> {
        self.limits.check("the grant", "")
    }
}

#[cfg(feature = "policy")]
impl GrantDocument {
    /// Returns the rights of a run without a grant: everything except `force`, under the default guard and limits.
    pub(super) fn preview() -> Self {
        Self::default().with_grant(Grant::every_right().with_force(false))
    }
}

#[cfg(feature = "policy")]
impl Grant {
    /// Returns the widest grant.
    pub(super) fn every_right() -> Self {
        let all = || vec![everything()];
        Self::default()
            .with_inspect(all())
            .with_remove(all())
            .with_secrets(true)
            .with_force(true)
            .with_prune(true)
    }
}

impl Grant {
    /// Returns whether it lets a policy remove the image that stands in the index as this text.
    pub(crate) fn allows_removal(&self, text: &str, reference: Option<&Reference>) -> bool {
        matches_any(&self.remove, text, reference)
    }

    /// Returns whether it lets a policy see that image.
    pub(crate) fn allows_reading(&self, text: &str, reference: Option<&Reference>) -> bool {
        matches_any(&self.read, text, reference)
    }

    /// Returns every cap that this much goes past, of a cache with so many references.
    pub(crate) fn overruns(&self, wanted: Total, references_in_cache: u64) -> Vec<Overrun> {
        let references = wanted.references;
        let removals = self.max_removals.filter(|&granted| references > u64::from(granted));
        let bytes = self.max_bytes.filter(|granted| wanted.bytes > granted.as_bytes());
        let share = self.max_share.filter(|granted| references > granted.of(references_in_cache));
        let mut overruns = Vec::new();
        overruns.extend(removals.map(|granted| Overrun::Removals { granted, wanted: references }));
        overruns
            .extend(bytes.map(|granted| Overrun::Bytes { granted, wanted: ByteSize::bytes(wanted.bytes) }));
        overruns.extend(share.map(|granted| Overrun::Share {
            granted,
            granted_references: granted.of(references_in_cache),
            wanted: references,
            total: references_in_cache,
        }));
        overruns
    }
}

/// Returns whether one of the patterns matches.
pub(super) fn matches_any(patterns: &[ReferencePattern], text: &str, reference: Option<&Reference>) -> bool {
    patterns.iter().any(|pattern| pattern.is_everything() || pattern.matches_text(text, reference))
}

/// The images that a run has staged, or wanted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Total {
    pub(crate) references: u64,
    /// Allocated bytes.
    pub(crate) bytes: u64,
}

/// Returns the pattern that every reference matches.
pub(super) fn everything() -> ReferencePattern {
    EVERYTHING.parse().expect("two stars are a pattern")
}

/// The text of [`everything`].
pub(super) const EVERYTHING: &str = "**";

impl std::str::FromStr for GrantDocument {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::from_toml(text, "the grant")
    }
}

macro_rules! setters {
    ($type:ty { $($(#[$doc:meta])* $with:ident: $field:ident = $value:ty;)* }) => {
        impl $type {
            $($(#[$doc])*
            #[must_use]
            pub fn $with(mut self, $field: impl Into<$value>) -> Self {
                self.$field = $field.into();
                self
            })*
        }
    };
}

setters!(GrantDocument {
    /// Returns the same document with this grant.
    with_grant: grant = Grant;
    /// Returns the same document with this guard.
    with_guard: guard = Guard;
    /// Returns the same document with these limits.
    with_limits: limits = Limits;
});

setters!(Grant {
    /// Returns the same grant, under which a policy sees these references.
    with_read: read = Vec<ReferencePattern>;
    /// Returns the same grant, under which a policy reads the config and layers of these references.
    with_inspect: inspect = Vec<ReferencePattern>;
    /// Returns the same grant, with or without environment variables.
    with_secrets: secrets = bool;
    /// Returns the same grant, under which a policy may remove these references.
    with_remove: remove = Vec<ReferencePattern>;
    /// Returns the same grant, with or without the right to remove images that are in use.
    with_force: force = bool;
    /// Returns the same grant, with or without the right to prune.
    with_prune: prune = bool;
    /// Returns the same grant with this cap on references.
    with_max_removals: max_removals = Option<u32>;
    /// Returns the same grant with this cap on bytes.
    with_max_bytes: max_bytes = Option<ByteSize>;
    /// Returns the same grant with this cap on the share of the cache.
    with_max_share: max_share = Option<Share>;
});

#[cfg(test)]
mod tests;
