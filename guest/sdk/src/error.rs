//! How a call to the cache can fail.

use std::fmt;

use crate::ImageUsers;

/// Why a call to the cache failed. As text, a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The cache holds no such image, or the grant hides it.
    ImageNotFound(String),
    /// Something uses the image, and `force` was false.
    ImageInUse(ImageUsers),
    /// The backend cannot do this: a cloud backend has no local image cache.
    Unsupported(String),
    /// The grant does not allow it. Nothing was staged.
    Denied(Denial),
    /// Not an image reference.
    InvalidReference(String),
    /// The backend failed, or something this version has no case for.
    Other(String),
}

/// What was not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The right that the call lacked.
    pub right: Right,
    /// The image it was about.
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
    /// To remove it although something uses it.
    Force,
    /// To prune all unused data.
    Prune,
    /// To go past the number of images or bytes granted to this run.
    Budget,
    /// To touch what the operator protects: a pin, a protected reference, a minimum age.
    Protected,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ImageNotFound(reference) => {
                write!(f, "the cache holds no image `{reference}` that this policy may see")
            }
            Error::ImageInUse(users) => write!(f, "`{}` is in use by {}", users.reference, users.names()),
            Error::Unsupported(message) | Error::Other(message) => f.write_str(message),
            Error::Denied(denial) => f.write_str(&denial.message),
            Error::InvalidReference(reference) => write!(f, "`{reference}` is not an image reference"),
        }
    }
}

impl std::error::Error for Error {}

impl ImageUsers {
    /// All users in words, such as ``sandbox `web` and snapshot `before-upgrade` ``.
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
