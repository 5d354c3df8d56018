//! Errors of calls to the cache.

use std::fmt;

use crate::ImageUsers;

/// The failure of a call to the cache. As text, a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The cache has no such image, or the grant hides it. Holds the reference that was asked for.
    ImageNotFound(String),
    /// The image is in use, and `force` was false.
    ImageInUse(ImageUsers),
    /// The backend cannot do this: a cloud backend has no local image cache.
    Unsupported(String),
    /// The grant or the guard does not allow it. Nothing was staged.
    Denied(Denial),
    /// Not an image reference or pattern.
    InvalidReference(InvalidReference),
    /// The backend failed, or an error that this version has no case for. For people.
    Other(String),
}

/// A text that is not an image reference or pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidReference {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A call that was not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The right that the call lacked.
    pub right: Right,
    /// The image, if the call was about one.
    pub reference: Option<String>,
    /// One sentence for people.
    pub message: String,
}

/// A right that a call can lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To see the image at all.
    Read,
    /// To read its config and layers.
    Inspect,
    /// To remove it.
    Remove,
    /// To remove it although it is in use.
    Force,
    /// To prune all unused data.
    Prune,
    /// To exceed the number of images or bytes granted to this run.
    Budget,
    /// To touch an image that the operator protects: by a pin, a protected reference, a minimum age, or as one of the
    /// last of its repository.
    Protected,
}

impl Right {
    /// Returns why a run without this right leaves an image alone, to follow "kept because".
    pub fn obstacle(self) -> &'static str {
        match self {
            Right::Read => "the grant hides it",
            Right::Inspect => "the grant does not let this policy inspect it",
            Right::Remove => "the grant does not let this policy remove it",
            Right::Force => "something uses it",
            Right::Prune => "the grant does not let this policy prune",
            Right::Budget => "a cap of the grant is reached",
            Right::Protected => "the operator protects it",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ImageNotFound(reference) => {
                write!(f, "the cache has no image `{reference}` that this policy may see")
            }
            Error::ImageInUse(users) => write!(f, "`{}` is in use by {}", users.reference, users.names()),
            Error::Unsupported(message) | Error::Other(message) => f.write_str(message),
            Error::Denied(denial) => f.write_str(&denial.message),
            Error::InvalidReference(InvalidReference { text, problem }) => write!(f, "`{text}`: {problem}"),
        }
    }
}

impl std::error::Error for Error {}

impl ImageUsers {
    /// Returns all users in words, such as ``sandbox `web` and snapshot `before-upgrade` ``.
    pub fn names(&self) -> String {
        let sandboxes = self.sandboxes.iter().map(|name| format!("sandbox `{name}`"));
        let snapshots = self.snapshots.iter().map(|name| format!("snapshot `{name}`"));
        match listed(sandboxes.chain(snapshots).collect()) {
            (0, _) => String::from("a running operation"),
            (_, names) => names,
        }
    }
}

/// Returns how many names there are, and all of them in words: ``sandbox `web` and snapshot `before-upgrade` ``.
pub(crate) fn listed(names: Vec<String>) -> (usize, String) {
    let count = names.len();
    let mut text = String::new();
    for (index, name) in names.into_iter().enumerate() {
        if index > 0 {
            text += if index + 1 == count { " and " } else { ", " };
        }
        text += &name;
    }
    (count, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image in use is reported with every user, and with the operation that has no name.
    #[test]
    fn users_are_named() {
        let users = |sandboxes: &[&str], snapshots: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Error::ImageInUse(ImageUsers {
                reference: "acme/app:1".into(),
                sandboxes: owned(sandboxes),
                snapshots: owned(snapshots),
            })
            .to_string()
        };
        assert_eq!(users(&["web"], &[]), "`acme/app:1` is in use by sandbox `web`");
        assert_eq!(
            users(&["web", "job"], &["old"]),
            "`acme/app:1` is in use by sandbox `web`, sandbox `job` and snapshot `old`"
        );
        assert_eq!(users(&[], &[]), "`acme/app:1` is in use by a running operation");
    }
}
