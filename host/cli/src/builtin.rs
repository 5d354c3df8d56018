//! The policies that come with the program: those that `LARDER_BUILTIN_POLICIES` named when it was built.

use std::fmt;

use crate::render::plain;

/// A policy that comes with the program.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Builtin {
    /// What commands call it by.
    pub(crate) name: &'static str,
    /// The component.
    pub(crate) bytes: &'static [u8],
}

/// Every one of them, sorted by name.
pub(crate) static BUILTINS: &[Builtin] = include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// A name that no policy of this program has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownPolicy {
    /// As it was given.
    pub(crate) name: String,
}

/// Finds a policy by its name.
///
/// # Errors
/// [`UnknownPolicy`].
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
