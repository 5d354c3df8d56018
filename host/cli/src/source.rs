//! The source of a policy: a file, or this program.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TryMapValueParser, TypedValueParser as _, ValueParserFactory};
use serde::Serialize;

use crate::builtin::{self, Builtin, UnknownPolicy};
use crate::exit::Failure;
use crate::input;

/// A policy in an argument: its path, or its name if it is compiled into the program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum PolicySource {
    /// A file.
    File(PathBuf),
    /// A policy that is compiled into the program.
    Builtin(&'static Builtin),
}

impl PolicySource {
    /// Parses an argument. A text that contains `/` or ends in `.wasm` is a path, and any other text is a name.
    ///
    /// # Errors
    /// [`UnknownPolicy`] for a name that no built-in policy has.
    fn parse(argument: OsString) -> Result<Self, UnknownPolicy> {
        let bytes = argument.as_encoded_bytes();
        if bytes.contains(&b'/') || bytes.ends_with(b".wasm") {
            return Ok(Self::File(argument.into()));
        }
        builtin::find(&argument.to_string_lossy()).map(Self::Builtin)
    }

    /// Returns the bytes of the component.
    pub(crate) fn bytes(&self) -> Result<Cow<'static, [u8]>, Failure> {
        match self {
            Self::File(path) => input::policy(path).map(Cow::Owned),
            Self::Builtin(builtin) => Ok(Cow::Borrowed(builtin.bytes)),
        }
    }

    /// Returns the path, or `None` for a policy that is compiled into the program.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Builtin(_) => None,
        }
    }
}

/// Writes the source as it is typed.
impl fmt::Display for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Builtin(builtin) => f.write_str(builtin.name),
        }
    }
}

impl Serialize for PolicySource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(path) => path.serialize(serializer),
            Self::Builtin(builtin) => builtin.name.serialize(serializer),
        }
    }
}

/// The parser of arguments that name a policy.
type Parser = TryMapValueParser<OsStringValueParser, fn(OsString) -> Result<PolicySource, UnknownPolicy>>;

impl ValueParserFactory for PolicySource {
    type Parser = Parser;

    fn value_parser() -> Parser {
        OsStringValueParser::new().try_map(PolicySource::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that contains `/` or ends in `.wasm` is a path, and any other text is a name.
    #[test]
    fn sources() {
        let file = |path: &str| Ok(PolicySource::File(path.into()));
        let unknown = |name: &str| Err(UnknownPolicy { name: name.to_owned() });
        let table = [
            ("keep-recent.wasm", file("keep-recent.wasm")),
            (".wasm", file(".wasm")),
            ("./keep-recent", file("./keep-recent")),
            ("policies/keep-recent", file("policies/keep-recent")),
            ("/etc/larder/keep-recent", file("/etc/larder/keep-recent")),
            ("keep-recent/", file("keep-recent/")),
            ("no-such-policy", unknown("no-such-policy")),
            ("no-such-policy.wat", unknown("no-such-policy.wat")),
            ("no-such-policy.WASM", unknown("no-such-policy.WASM")),
            ("", unknown("")),
            ("..", unknown("..")),
        ];
        for (text, expected) in table {
            assert_eq!(PolicySource::parse(text.into()), expected, "{text}");
        }
        for builtin in builtin::BUILTINS {
            assert_eq!(PolicySource::parse(builtin.name.into()), Ok(PolicySource::Builtin(builtin)));
            assert_eq!(PolicySource::Builtin(builtin).to_string(), builtin.name);
        }
    }
}
