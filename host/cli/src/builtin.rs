//! The policies that are compiled into the program: those that `LARDER_BUILTIN_POLICIES` named at build time.

use std::fmt;

use crate::render::plain;

/// A policy that is compiled into the program.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Builtin {
    /// The name of the policy in commands.
    pub(crate) name: &'static str,
    /// The component.
    pub(crate) bytes: &'static [u8],
}

/// All built-in policies, sorted by name.
pub(crate) static BUILTINS: &[Builtin] = include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// The error for a name that no built-in policy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownPolicy {
    /// The name as it was given.
    pub(crate) name: String,
}

/// Finds a policy by its name.
///
/// # Errors
/// [`UnknownPolicy`] if there is no policy of this name.
pub(crate) fn find(name: &str) -> Result<&'static Builtin, UnknownPolicy> {
    let found = BUILTINS.iter().find(|builtin| builtin.name == name);
    found.ok_or_else(|| UnknownPolicy { name: name.to_owned() })
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no policy `{}` in this program", plain(&self.name))
    }
}

impl std::error::Error for UnknownPolicy {}

impl fmt::Debug for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builtin").field("name", &self.name).finish_non_exhaustive()
    }
}
