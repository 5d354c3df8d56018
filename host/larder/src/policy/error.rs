//! The errors of loading a policy, and of a run that ended without a plan.
//!
//! After any of these, nothing has been staged anywhere and nothing of the cache has changed.

use std::fmt;
use std::path::PathBuf;

use crate::error::MicrosandboxError;
use crate::units::{ByteSize, Share};

/// The error of a policy that could not be loaded, or of a run that ended without a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The bytes are not a policy: not WebAssembly, a core module, damaged, or a component of another world.
    #[error("this is not a policy: {found}; {remedy}")]
    NotAComponent {
        /// A description of the bytes.
        found: String,
        /// The remedy.
        remedy: &'static str,
    },

    /// The component needs something that no policy gets.
    #[error("this policy imports {import}; {reason}")]
    ForeignImport {
        /// The import as WIT names it, such as `wasi:sockets/tcp@0.2.0`.
        import: String,
        /// The interface that policies don't get, and the one that they have instead.
        reason: &'static str,
    },

    /// The component speaks another version of `larder:image`.
    #[error(
        "this policy {direction} {interface}; this host speaks larder:image@{}: rebuild the policy against its `wit/`",
        crate::policy::WIT_VERSION
    )]
    WrongVersion {
        /// `imports` or `exports`.
        direction: &'static str,
        /// The interface with its version, such as `larder:image/policy@0.3.0`.
        interface: String,
    },

    /// The component is larger than this host compiles.
    #[error("this policy has {size:#}; this host compiles at most {cap:#}")]
    TooLarge {
        /// Its size.
        size: ByteSize,
        /// The largest that is compiled.
        cap: ByteSize,
    },

    /// The description that the policy gives of itself cannot be used.
    #[error("the policy describes itself wrongly: its {field} {problem}")]
    InvalidDescription {
        /// The field of `description`, as WIT names it.
        field: &'static str,
        /// The problem with it.
        problem: String,
    },

    /// The config is not a JSON object.
    #[error("the config of a policy has to be a JSON object, and this is {0}")]
    InvalidConfig(&'static str),

    /// The grant cannot be read.
    #[error("{source_name}{}: `{key}`: {problem}{}", Line(.line), Suggestion(.suggestion))]
    InvalidGrant {
        /// The source of the document.
        source_name: String,
        /// The line in it, counted from 1, where there is one.
        line: Option<usize>,
        /// The key, as the document writes it.
        key: String,
        /// The problem with it.
        problem: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },

    /// The policy broke off.
    #[error("the policy broke off in `{during}`: {cause}{}", Backtrace(.backtrace))]
    Trapped {
        /// The export that was running: `describe` or `evaluate`.
        during: &'static str,
        /// The cause.
        cause: String,
        /// The policy's own functions, innermost first; empty where it has no names.
        backtrace: Vec<String>,
    },

    /// The policy used up what `[limits]` allows.
    #[error(
        "the policy went past its limit: `{limit}` is {value}, {meaning}; to allow more, raise `{limit}` in `[limits]`"
    )]
    Limit {
        /// The key in `[limits]`.
        limit: &'static str,
        /// Its value, as the grant writes it.
        value: String,
        /// The meaning of the key.
        meaning: &'static str,
    },

    /// The policy returned an error. The text is its own.
    #[error("the policy failed: {0}")]
    Failed(String),

    /// The policy wanted to remove more than the grant's caps allow.
    #[error("the policy wants to remove more than its grant allows: {}", Overruns(.0))]
    OverBudget(Vec<Overrun>),

    /// The cache could not be read.
    #[error("the cache could not be read for the policy")]
    Source(#[source] Box<MicrosandboxError>),

    /// Compiled code could not be kept.
    #[error("the code cache `{}` cannot be used: {problem}", .path.display())]
    CodeCache {
        /// Its directory.
        path: PathBuf,
        /// The problem with it, or with the entry.
        problem: String,
    },

    /// Compiled code was to be kept, and the engine was not told where.
    #[error("this engine has no code cache: give it a directory for one")]
    NoCodeCache,

    /// This host could not set up what runs policies.
    #[error("this host cannot run policies: {0}")]
    Host(String),
}

/// A cap of a grant, and how much a policy wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overrun {
    /// `max-removals`.
    Removals {
        /// References that the grant allows.
        granted: u32,
        /// References that the policy wanted to remove, at least: a policy that is refused may stop there.
        wanted: u64,
    },
    /// `max-bytes`.
    Bytes {
        /// The bytes that the grant allows.
        granted: ByteSize,
        /// The bytes that the policy wanted to free, at least.
        wanted: ByteSize,
    },
    /// `max-share`.
    Share {
        /// The share that the grant allows.
        granted: Share,
        /// That share in references.
        granted_references: u64,
        /// References that the policy wanted to remove, at least.
        wanted: u64,
        /// References in the cache.
        total: u64,
    },
}

impl Overrun {
    /// Returns the key in `[grant]`.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Removals { .. } => "max-removals",
            Self::Bytes { .. } => "max-bytes",
            Self::Share { .. } => "max-share",
        }
    }

    /// Returns the cap and, after these words, what went past it.
    pub(crate) fn in_words(&self, words: &str) -> String {
        let key = self.key();
        match self {
            Self::Removals { granted, wanted } => format!("`{key}` is {granted}, {words} {wanted}"),
            Self::Bytes { granted, wanted } => format!("`{key}` is {granted}, {words} {wanted:#}"),
            Self::Share { granted, granted_references, wanted, total } => {
                format!("`{key}` is {granted} ({granted_references} of {total} references), {words} {wanted}")
            }
        }
    }
}

/// Writes the cap and the least that the policy wanted. How much it would have wanted in all is not known: a policy that
/// asks for its budget, or stops where it is refused, asks for no more.
impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words("it wants at least"))
    }
}

/// `, line 7`, where there is a line.
struct Line<'a>(&'a Option<usize>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

struct Suggestion<'a>(&'a Option<String>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |suggestion| write!(f, "; did you mean {suggestion}?"))
    }
}

struct Backtrace<'a>(&'a [String]);

impl fmt::Display for Backtrace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|frame| write!(f, "\n    in {frame}"))
    }
}

struct Overruns<'a>(&'a [Overrun]);

impl fmt::Display for Overruns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(index, overrun)| write!(f, "{}{overrun}", if index == 0 { "" } else { "; " }))
    }
}

/// Makes a text of a policy safe to print on one line: control characters, which could rewrite a terminal, and the
/// marks that reorder text are replaced.
#[cfg(feature = "policy")]
pub(super) fn one_line(text: &str) -> String {
    let replace = |character: char| match character {
        '\n' | '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        character if character.is_control() => char::REPLACEMENT_CHARACTER,
        character => character,
    };
    let text = text.trim_end();
    if is_one_line(text) {
        return text.to_owned();
    }
    text.chars().map(replace).collect()
}

/// Returns true if [`one_line`] changes nothing of a text. There are more such texts: these are the usual ones.
#[cfg(feature = "policy")]
pub(super) fn is_one_line(text: &str) -> bool {
    // Looked at as a whole: a loop that ends early takes its bytes one by one.
    text.bytes().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~')) && !text.ends_with(' ')
}

/// Returns the beginning of a text, of at most so many bytes.
#[cfg(feature = "policy")]
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Returns a name out of a component as it is shown: a file can have one of a hundred kilobytes.
#[cfg(feature = "policy")]
pub(super) fn short_name(name: &str) -> String {
    const LONGEST: usize = 200;
    let short = cut(name, LONGEST);
    one_line(short) + if short.len() < name.len() { "…" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every message says what is wrong and what to do, in the words of the files that people edit.
    #[test]
    fn messages() {
        let table = [
            (
                PolicyError::NotAComponent { found: "a core module".into(), remedy: "run `x`" },
                "this is not a policy: a core module; run `x`",
            ),
            (
                PolicyError::ForeignImport {
                    import: "wasi:sockets/tcp@0.2.0".into(),
                    reason: "policies get no network",
                },
                "this policy imports wasi:sockets/tcp@0.2.0; policies get no network",
            ),
            (
                PolicyError::WrongVersion {
                    direction: "exports",
                    interface: "larder:image/policy@0.3.0".into(),
                },
                "this policy exports larder:image/policy@0.3.0; this host speaks larder:image@0.2: rebuild the policy against its `wit/`",
            ),
            (
                PolicyError::TooLarge { size: ByteSize::mib(70), cap: ByteSize::mib(64) },
                "this policy has 70.0 MiB; this host compiles at most 64.0 MiB",
            ),
            (
                PolicyError::InvalidConfig("a list"),
                "the config of a policy has to be a JSON object, and this is a list",
            ),
            (
                PolicyError::Trapped {
                    during: "evaluate",
                    cause: "it divided by zero".into(),
                    backtrace: vec!["keep_recent::decide".into(), "run".into()],
                },
                "the policy broke off in `evaluate`: it divided by zero\n    in keep_recent::decide\n    in run",
            ),
            (PolicyError::Failed("no budget".into()), "the policy failed: no budget"),
            (
                PolicyError::OverBudget(vec![
                    Overrun::Removals { granted: 50, wanted: 60 },
                    Overrun::Bytes { granted: ByteSize::gib(20), wanted: ByteSize::bytes(27 << 30) },
                    Overrun::Share {
                        granted: Share::percent(25),
                        granted_references: 10,
                        wanted: 60,
                        total: 41,
                    },
                ]),
                "the policy wants to remove more than its grant allows: `max-removals` is 50, it wants at least 60; `max-bytes` is 20GiB, it wants at least 27.0 GiB; `max-share` is 25% (10 of 41 references), it wants at least 60",
            ),
        ];
        for (error, expected) in table {
            assert_eq!(error.to_string(), expected);
        }
    }

    /// No text of a policy reaches a terminal as anything but text.
    #[cfg(feature = "policy")]
    #[test]
    fn texts_are_disarmed() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\u{202e}d\r\n"), "a\u{fffd}[2Jb c\u{fffd}d");
        assert_eq!((cut("aé", 2), cut("aé", 3), cut("", 9)), ("a", "aé", ""));
        assert_eq!(
            (short_name("wasi:cli"), short_name(&"x".repeat(201))),
            ("wasi:cli".into(), "x".repeat(200) + "…")
        );
    }
}
