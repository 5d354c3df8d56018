//! The limits of a run, in one table: keys, defaults, setters and messages follow from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::error::PolicyError;
#[cfg(feature = "policy")]
use crate::units::format_duration;
use crate::units::{ByteSize, human_duration};

/// Declares [`Limits`], the keys of `[limits]`, and all that depends on them. A row has the documentation of the limit,
/// its field, its key, its name as a [`LimitKey`], its setter, its default, and its meaning in messages.
macro_rules! limits {
    ($($(#[$attribute:meta])* $field:ident: $type:ty, $key:literal, $name:ident, $setter:ident = $default:expr, $meaning:literal;)*) => {
        /// The limits of a run. Exceeding any of them ends the run, and nothing is changed.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits {
            $($(#[$attribute])*
            #[serde(rename = $key)]
            pub $field: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Limits {
            /// The keys of `[limits]`, in the order of the fields.
            pub(super) const KEYS: &[&str] = &[$($key),*];

            $(#[doc = concat!("Returns the same limits with another `", $key, "`.")]
            #[must_use]
            pub fn $setter(mut self, $field: impl Into<$type>) -> Self {
                self.$field = $field.into();
                self
            })*
        }

        /// A key of `[limits]`.
        #[cfg(feature = "policy")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum LimitKey {
            $($name,)*
        }

        #[cfg(feature = "policy")]
        impl PolicyError {
            /// Returns the error of a run that exceeded this limit.
            pub(super) fn limit(key: LimitKey, limits: &Limits) -> Self {
                match key {
                    $(LimitKey::$name => Self::Limit {
                        limit: $key,
                        value: limits.$field.in_a_message(),
                        meaning: $meaning,
                    },)*
                }
            }
        }
    };
}

limits! {
    /// Wall time of the whole run, calls to the host included. Default: 5 s.
    #[serde(with = "human_duration")]
    time: Duration, "time", Time, with_time = Duration::from_secs(5), "the time that a run may take";

    /// All memories of the policy together. Default: 64 MiB.
    memory: ByteSize, "memory", Memory, with_memory = ByteSize::mib(64), "the memory that it may have";

    /// Calls to the host. Default: 1,000,000.
    host_calls: u64, "host-calls", HostCalls, with_host_calls = 1_000_000, "the calls that it may make";

    /// Log lines, in bytes of text, and one byte for each line. Default: 256 KiB.
    log: ByteSize, "log", Log, with_log = ByteSize::kib(256), "the text that it may log";

    /// Instructions, about; a run ends at the same one every time, but takes longer. Default: not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<u64>, "fuel", Fuel, with_fuel = None, "the instructions that it may run";

    /// The policy's call stack, from 64 KiB to 1 MiB. Default: 512 KiB.
    stack: ByteSize, "stack", Stack, with_stack = ByteSize::kib(512), "how deep its calls may go";

    /// Elements of all its tables together. Default: 1,000,000.
    table_elements: u64, "table-elements", TableElements, with_table_elements = 1_000_000,
        "the table elements that it may have";

    /// Parts that its component may consist of (module instances, tables, memories: each counted for itself).
    /// Default: 1000.
    instances: u32, "instances", Instances, with_instances = 1000, "the parts that it may consist of";

    /// The longest text that goes to or comes from it: a reference, a reason, a log line, a label. Default: 64 KiB.
    string: ByteSize, "string", String, with_string = ByteSize::kib(64), "the longest text that may cross";

    /// The longest list that goes to or comes from it, in elements. Default: 1,000,000.
    list: u32, "list", List, with_list = 1_000_000, "the longest list that may cross";

    /// The bytes that one call may carry in either direction. Default: 64 MiB.
    transfer: ByteSize, "transfer", Transfer, with_transfer = ByteSize::mib(64), "what one call may carry";

    /// The reasons that stand, in bytes of text. Default: 32 MiB.
    reasons: ByteSize, "reasons", Reasons, with_reasons = ByteSize::mib(32), "the reasons that it may give";

    /// References that may be staged for removal, a technical limit beside `max-removals`. Default: 1,000,000.
    removals: u32, "removals", Removals, with_removals = 1_000_000, "the removals that it may stage";
}

/// The smallest `stack`. Below this, no language's runtime starts.
const STACK_MIN: ByteSize = ByteSize::kib(64);

/// The largest `stack`, which fits into the thread of a run with room for the host's own functions.
pub(super) const STACK_MAX: ByteSize = ByteSize::mib(1);

impl Limits {
    /// Refuses values that no run can have. `source_name` and `text` are the document that they stand in, for the error.
    ///
    /// # Errors
    /// [`PolicyError::InvalidGrant`] with the key, and its line if the text has it.
    pub(super) fn check(&self, source_name: &str, text: &str) -> Result<(), PolicyError> {
        let stack = self.stack;
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

/// The value of a limit, as a message shows it.
#[cfg(feature = "policy")]
trait InAMessage {
    fn in_a_message(&self) -> String;
}

#[cfg(feature = "policy")]
impl InAMessage for Duration {
    fn in_a_message(&self) -> String {
        format_duration(*self)
    }
}

#[cfg(feature = "policy")]
impl InAMessage for ByteSize {
    fn in_a_message(&self) -> String {
        self.to_string()
    }
}

#[cfg(feature = "policy")]
impl InAMessage for u32 {
    fn in_a_message(&self) -> String {
        self.to_string()
    }
}

#[cfg(feature = "policy")]
impl InAMessage for u64 {
    fn in_a_message(&self) -> String {
        self.to_string()
    }
}

#[cfg(feature = "policy")]
impl InAMessage for Option<u64> {
    fn in_a_message(&self) -> String {
        self.unwrap_or_default().to_string()
    }
}

#[cfg(all(test, feature = "policy"))]
mod tests {
    use super::*;

    /// A limit is named by its key, with its value as the grant writes it.
    #[test]
    fn a_message_names_key_and_value() {
        let limits = Limits::default();
        assert_eq!(
            PolicyError::limit(LimitKey::Time, &limits).to_string(),
            "the policy went past its limit: `time` is 5s, the time that a run may take; to allow more, raise `time` in `[limits]`"
        );
    }
}
