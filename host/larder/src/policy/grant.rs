//! What a policy may do, as the operator writes it down.
//!
//! A [`GrantDocument`] is a TOML file of three tables: `[grant]`, what this policy may do; `[guard]`, what it may not
//! remove whatever else it may, beside what the home's own guard keeps; and `[limits]`, what a run may use up. Every key may be left out. An empty document lets
//! a policy see every image and change nothing.
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

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Overrun, PolicyError};
use crate::pattern::ReferencePattern;
pub use crate::records::Guard;
use crate::reference::Reference;
use crate::units::{ByteSize, Share, human_duration};

/// A grant with its guard and limits: the whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GrantDocument {
    /// What the policy may do.
    pub grant: Grant,
    /// What stays in any case, in addition to the guard of the home.
    pub guard: Guard,
    /// What a run may use up.
    pub limits: Limits,
}

/// What a policy may do. The default: see every image, change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Grant {
    /// References that it can see; every other image does not exist for it. Default: `["**"]`.
    pub read: Vec<ReferencePattern>,
    /// Whose config and layers it can read. Default: none.
    pub inspect: Vec<ReferencePattern>,
    /// Whether it sees environment variables. Default: withheld.
    pub secrets: bool,
    /// What it may remove. Default: nothing.
    pub remove: Vec<ReferencePattern>,
    /// Whether it may remove what is in use. Default: no.
    pub force: bool,
    /// Whether it may remove, in one call, everything unused that `remove` allows. Default: no.
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

/// What a run may use up. Exceeding any of them ends the run, and nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Wall time of the whole run, calls to the host included. Default: 5 s.
    #[serde(with = "human_duration")]
    pub time: Duration,
    /// All memories of the policy together. Default: 64 MiB.
    pub memory: ByteSize,
    /// Calls to the host. Default: 1,000,000.
    pub host_calls: u64,
    /// Log lines, in bytes of text, and one byte for each line. Default: 256 KiB.
    pub log: ByteSize,
    /// Instructions, about; a run ends at the same one every time, but takes longer. Default: not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// The policy's call stack, from 64 KiB to 1 MiB. Default: 512 KiB.
    pub stack: ByteSize,
    /// Elements of all its tables together. Default: 1,000,000.
    pub table_elements: u64,
    /// Parts that its component may consist of (module instances, tables, memories: each counted for itself).
    /// Default: 1000.
    pub instances: u32,
    /// The longest text that goes to or comes from it: a reference, a reason, a log line, a label. Default: 64 KiB.
    pub string: ByteSize,
    /// The longest list that goes to or comes from it, in elements. Default: 1,000,000.
    pub list: u32,
    /// What one call may carry in either direction. Default: 64 MiB.
    pub transfer: ByteSize,
    /// The reasons that stand, in bytes of text. Default: 32 MiB.
    pub reasons: ByteSize,
    /// References that may be staged for removal, a technical limit beside `max-removals`. Default: 1,000,000.
    pub removals: u32,
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

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(5),
            memory: ByteSize::mib(64),
            host_calls: 1_000_000,
            log: ByteSize::kib(256),
            fuel: None,
            stack: ByteSize::kib(512),
            table_elements: 1_000_000,
            instances: 1000,
            string: ByteSize::kib(64),
            list: 1_000_000,
            transfer: ByteSize::mib(64),
            reasons: ByteSize::mib(32),
            removals: 1_000_000,
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
        document.check_in(source_name, text)?;
        Ok(document)
    }

    /// Refuses values that no run can have. [`from_toml`](Self::from_toml) and every run do this by themselves.
    ///
    /// # Errors
    /// [`PolicyError::InvalidGrant`] with the key.
    pub fn check(&self) -> Result<(), PolicyError> {
        self.check_in("the grant", "")
    }

    fn check_in(&self, source_name: &str, text: &str) -> Result<(), PolicyError> {
        let stack = self.limits.stack;
        if (STACK_MIN..=STACK_MAX).contains(&stack) {
            return Ok(());
        }
        let line = text.lines().position(|line| line.trim_start().starts_with("stack"));
        Err(PolicyError::InvalidGrant {
            source_name: source_name.to_owned(),
            line: line.map(|line| line + 1),
            key: "stack".to_owned(),
            problem: format!("`{stack}` is not a size from `{STACK_MIN}` to `{STACK_MAX}`"),
            suggestion: None,
        })
    }
}

#[cfg(feature = "policy")]
impl GrantDocument {
    /// What a run without a grant may do: everything except `force`, under the default guard and limits.
    pub(super) fn preview() -> Self {
        Self::default().with_grant(Grant::every_right().with_force(false))
    }
}

#[cfg(feature = "policy")]
impl Grant {
    /// The widest grant.
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

/// What a run has staged, or wanted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Total {
    pub(crate) references: u64,
    /// Allocated bytes.
    pub(crate) bytes: u64,
}

/// The pattern that every reference matches.
pub(super) fn everything() -> ReferencePattern {
    EVERYTHING.parse().expect("two stars are a pattern")
}

/// The text of [`everything`].
pub(super) const EVERYTHING: &str = "**";

/// Below this, no language's runtime starts.
const STACK_MIN: ByteSize = ByteSize::kib(64);
/// Above this, the host's own stack would have to be larger than the 2 MiB that threads usually get.
const STACK_MAX: ByteSize = ByteSize::mib(1);

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
    /// The same with this grant.
    with_grant: grant = Grant;
    /// The same with this guard.
    with_guard: guard = Guard;
    /// The same with these limits.
    with_limits: limits = Limits;
});

setters!(Grant {
    /// The same, seeing these.
    with_read: read = Vec<ReferencePattern>;
    /// The same, reading the config and layers of these.
    with_inspect: inspect = Vec<ReferencePattern>;
    /// The same, with or without environment variables.
    with_secrets: secrets = bool;
    /// The same, allowed to remove these.
    with_remove: remove = Vec<ReferencePattern>;
    /// The same, with or without the right to remove what is in use.
    with_force: force = bool;
    /// The same, with or without the right to prune.
    with_prune: prune = bool;
    /// The same with this cap on references.
    with_max_removals: max_removals = Option<u32>;
    /// The same with this cap on bytes.
    with_max_bytes: max_bytes = Option<ByteSize>;
    /// The same with this cap on the share of the cache.
    with_max_share: max_share = Option<Share>;
});

setters!(Limits {
    /// The same with this much time.
    with_time: time = Duration;
    /// The same with this much memory.
    with_memory: memory = ByteSize;
    /// The same with this many host calls.
    with_host_calls: host_calls = u64;
    /// The same with this much log.
    with_log: log = ByteSize;
    /// The same with this much fuel, or uncounted.
    with_fuel: fuel = Option<u64>;
    /// The same with this much stack.
    with_stack: stack = ByteSize;
});

#[cfg(test)]
mod tests;
