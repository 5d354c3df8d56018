//! Each error at the command line: an exit status, a kind for programs, a hint for people.
//!
//! Exit statuses and kinds are stable. This is the only place that decides them.

mod classify;
mod status;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use larder::MicrosandboxError;
use larder::policy::PolicyError;

use crate::builtin::{BUILTINS, UnknownPolicy};
use crate::render::plain;
use classify::{classify, hint_at_limit, invalid_config};
use status::{INTERRUPTED, TRAPPED};

pub(crate) use classify::refused_config;
#[cfg(feature = "registry")]
pub(crate) use status::UNREACHABLE;
pub(crate) use status::{Probe, Status};

/// An error on its way to the console.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    kind: &'static str,
    hint: Option<Cow<'static, str>>,
    /// True if line feeds in the messages are the program's own.
    has_lines: bool,
    error: anyhow::Error,
}

impl Failure {
    fn new(status: Status, kind: &'static str, error: anyhow::Error) -> Self {
        Self { status, kind, hint: None, has_lines: false, error }
    }

    /// The arguments, or a file that they name, cannot be used.
    pub(crate) fn usage(message: String) -> Self {
        Self::new(Status::Usage, "usage", anyhow::Error::msg(message))
    }

    /// Something failed that is no error of the library.
    pub(crate) fn failed(
        kind: &'static str,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let error = anyhow::Error::new(source).context(message.into());
        Self::new(Status::Failed, kind, error)
    }

    /// A file that the arguments name could not be read.
    pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        let message = format!("could not read `{}`", path.display());
        Self { status: Status::Usage, ..Self::failed("unreadable", message, source) }
    }

    /// A file that the arguments name could not be written.
    pub(crate) fn unwritable(path: &Path, source: std::io::Error) -> Self {
        Self::failed("unwritable", format!("could not write `{}`", path.display()), source)
    }

    /// Nobody agreed to what was shown.
    pub(crate) fn declined() -> Self {
        let error = anyhow::Error::msg("nothing was changed");
        Self::new(Status::Failed, "declined", error)
    }

    /// A job did not reach its goal.
    pub(crate) fn goal_unmet(message: String) -> Self {
        let hint = "what holds the rest is in use, pinned, kept by a guard or beyond the grants, or is not Larder's: `larder df`";
        Self::new(Status::Failed, "goal-unmet", anyhow::Error::msg(message)).with_hint(hint)
    }

    /// The program was asked to end in the middle of something.
    pub(crate) fn interrupted() -> Self {
        Self::new(Status::Failed, INTERRUPTED, anyhow::Error::msg("interrupted"))
            .with_hint("what was begun is being taken back; Ctrl-C once more ends at once")
    }

    /// Returns whether it is that.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.kind == INTERRUPTED
    }

    /// The policy was allowed nothing of what it wanted.
    pub(crate) fn denied() -> Self {
        let error = anyhow::Error::msg("the grant allows none of what the policy wants to remove");
        Self::new(Status::Denied, "denied", error)
    }

    /// Returns the error of a policy that was to change something without a grant; `suggest` is the command that writes
    /// one.
    pub(crate) fn no_grant(suggest: &str) -> Self {
        let error = anyhow::Error::msg("a policy removes nothing without a grant");
        Self::new(Status::Denied, "no-grant", error).with_hint(hint_at_grant(suggest))
    }

    /// The same, as the failure to load, compile or otherwise use a policy.
    pub(crate) fn of_policy(self, verb: &str, policy: &impl fmt::Display) -> Self {
        let message = format!("could not {verb} `{policy}`");
        Self { error: self.error.context(message), ..self }
    }

    /// The same without a hint.
    #[cfg(feature = "registry")]
    pub(crate) fn without_hint(self) -> Self {
        Self { hint: None, ..self }
    }

    /// The same with a hint.
    pub(crate) fn with_hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with a message of several lines.
    pub(crate) fn with_lines(self) -> Self {
        Self { has_lines: true, ..self }
    }

    /// Returns whether line feeds in the messages are the program's own, and not of a text in them.
    pub(crate) fn has_lines(&self) -> bool {
        self.has_lines
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// A word for programs, such as `image-not-found`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the advice on what to do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the messages of the error and of its causes, outermost first.
    pub(crate) fn messages(&self) -> impl Iterator<Item = String> {
        self.error.chain().map(ToString::to_string)
    }
}

impl From<MicrosandboxError> for Failure {
    fn from(error: MicrosandboxError) -> Self {
        let (status, kind, hint) = classify(&error);
        let hint = hint.map(Cow::from).or_else(|| hint_at_limit(&error).map(Cow::from));
        let error = invalid_config(&error).map_or_else(|| error.into(), anyhow::Error::msg);
        // A backtrace has a line for each function.
        Self { status, kind, hint, has_lines: kind == TRAPPED, error }
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        MicrosandboxError::Policy(error).into()
    }
}

impl From<&UnknownPolicy> for Failure {
    fn from(error: &UnknownPolicy) -> Self {
        let names: Vec<_> = BUILTINS.iter().map(|builtin| format!("`{}`", builtin.name)).collect();
        let there_are = match names.as_slice() {
            [] => NO_BUILTINS.to_owned(),
            [only] => format!("there is {only}"),
            [first @ .., last] => format!("there are {} and {last}", first.join(", ")),
        };
        let hint = format!("{there_are}; a file is named by its path: `./{}`", plain(&error.name));
        Self::usage(error.to_string()).with_hint(hint)
    }
}

/// The advice for a program without policies.
pub(crate) const NO_BUILTINS: &str =
    "this program was built without policies, `cargo xtask build` builds one with them";

/// Returns what to do where a grant is missing; `suggest` is the command that writes one.
pub(crate) fn hint_at_grant(suggest: &str) -> String {
    format!("`{suggest}` writes the smallest grant that it needs")
}

#[cfg(feature = "kit")]
impl From<larder_kit::KitError> for Failure {
    fn from(error: larder_kit::KitError) -> Self {
        use larder_kit::KitError as K;
        let (status, kind) = match &error {
            K::InvalidName { .. } | K::UnknownLanguage { .. } => (Status::Usage, "usage"),
            K::NotEmpty { .. } => (Status::Usage, "not-empty"),
            K::NoManifest { .. }
            | K::BadManifest { .. }
            | K::MissingSource { .. }
            | K::BadContract { .. } => (Status::Usage, "invalid-project"),
            K::MissingProgram { .. } => (Status::Failed, "missing-program"),
            K::Command { .. } => (Status::Failed, "build-failed"),
            K::NotAPolicy { .. } => (Status::Policy, "not-a-policy"),
            K::Io { .. } => (Status::Failed, "io"),
            // The kit may learn to fail in ways that this program does not know yet.
            _ => (Status::Failed, "failed"),
        };
        // What a compiler says has lines.
        Self::new(status, kind, error.into()).with_lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What caused an error is said once, after it.
    #[test]
    fn causes_follow_what_they_caused() {
        let source = std::io::Error::other("the disk is on fire");
        let failure = Failure::unwritable(Path::new("plan.json"), source);
        let messages: Vec<_> = failure.messages().collect();
        assert_eq!(messages, ["could not write `plan.json`", "the disk is on fire"]);
        assert_eq!(failure.status(), Status::Failed);
    }

    /// An error of the cache under a policy is what it would be without the policy.
    #[test]
    fn a_policys_source_error_is_its_own() {
        let inner = MicrosandboxError::ImageNotFound("a".to_owned());
        let failure = Failure::from(PolicyError::Source(Box::new(inner)));
        assert_eq!((failure.status(), failure.kind()), (Status::NotFound, "image-not-found"));
    }
}
