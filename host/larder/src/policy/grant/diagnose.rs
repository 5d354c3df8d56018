//! What is wrong with a grant, by line and key.

use crate::error::slip::{Keys, Slip};
use crate::policy::error::PolicyError;
use crate::policy::limits::Limits;

/// The keys of each table, for suggestions; a test keeps them equal to the fields.
pub(super) const KEYS: Keys = Keys {
    what: "a grant",
    tables: &[
        ("", &["grant", "guard", "limits"]),
        (
            "grant",
            &[
                "read",
                "inspect",
                "secrets",
                "remove",
                "force",
                "prune",
                "max-removals",
                "max-bytes",
                "max-share",
            ],
        ),
        ("guard", &["protect", "min-age", "keep"]),
        ("limits", Limits::KEYS),
    ],
};

/// Makes an error that names line and key out of the parser's message and the place it gives.
pub(super) fn diagnose(
    text: &str,
    source_name: &str,
    message: &str,
    span: Option<std::ops::Range<usize>>,
) -> PolicyError {
    let Slip { line, key, problem, suggestion } = Slip::find(text, &KEYS, message, span);
    PolicyError::InvalidGrant { source_name: source_name.to_owned(), line, key, problem, suggestion }
}
