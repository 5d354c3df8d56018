//! What each error is at the command line: an exit status, a kind for programs, a hint for people.
//!
//! Exit statuses and kinds are stable. This is the only place that decides them.

mod classify;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use larder::MicrosandboxError;
use larder::policy::PolicyError;

use crate::builtin::{BUILTINS, UnknownPolicy};
use crate::render::plain;
use classify::{classify, hint_at_limit, invalid_config};

pub(crate) use classify::refused_config;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Everything was done.
    Done = 0,
    /// Something failed, damage was found, or the answer was no.
    Failed = 1,
    /// The arguments, or a file that they name, cannot be used as they are.
    Usage = 2,
    /// There is no such image.
    NotFound = 3,
    /// An image is in use, pinned, or held by a live operation.
    InUse = 4,
    /// The policy could not be loaded, failed, or broke a limit.
    Policy = 5,
    /// There is no grant, a cap of it refused the plan, or a removal was refused for want of a right and nothing went. That
    /// a guard kept something is no failure.
    Denied = 6,
    /// The plan was applied, and some of its entries were spared.
    Spared = 7,
}

/// The answer to a probe, with the statuses that monitoring plugins have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Probe {
    /// All is well.
    Ok = 0,
    /// Somebody should look.
    Warning = 1,
    /// Somebody has to look.
    Critical = 2,
    /// It could not be found out.
    Unknown = 3,
}

impl From<Probe> for Status {
    /// Returns the status of the same number.
    fn from(probe: Probe) -> Self {
        match probe {
            Probe::Ok => Self::Done,
            Probe::Warning => Self::Failed,
            Probe::Critical => Self::Usage,
            Probe::Unknown => Self::NotFound,
        }
    }
}

/// The kind of what was not done since the program was asked to end.
const INTERRUPTED: &str = "interrupted";

/// The kind of a policy that broke off.
const TRAPPED: &str = "policy-trapped";

/// The kind of the failure to reach a registry.
pub(crate) const UNREACHABLE: &str = "registry-unreachable";

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// An error on its way to the console.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    kind: &'static str,
    hint: Option<Cow<'static, str>>,
    /// Whether line feeds in the messages are the program's own.
    has_lines: bool,
    error: anyhow::Error,
}

impl Failure {
    /// The arguments, or a file that they name, cannot be used.
    pub(crate) fn usage(message: String) -> Self {
        Self {
            status: Status::Usage,
            kind: "usage",
            hint: None,
            has_lines: false,
            error: anyhow::Error::msg(message),
        }
    }

    /// Something failed that is no error of the library.
    pub(crate) fn failed(
        kind: &'static str,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let error = anyhow::Error::new(source).context(message.into());
        Self { status: Status::Failed, kind, hint: None, has_lines: false, error }
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
        Self { status: Status::Failed, kind: "declined", hint: None, has_lines: false, error }
    }

    /// A job did not reach its goal.
    pub(crate) fn goal_unmet(message: String) -> Self {
        let hint = "what holds the rest is in use, pinned, kept by a guard or beyond the grants, or is not Larder's: `larder df`";
        let error = anyhow::Error::msg(message);
        Self { status: Status::Failed, kind: "goal-unmet", hint: Some(hint.into()), has_lines: false, error }
    }

    /// The program was asked to end in the middle of something.
    pub(crate) fn interrupted() -> Self {
        let error = anyhow::Error::msg("interrupted");
        let hint = Some("what was begun is being taken back; Ctrl-C once more ends at once");
        Self { status: Status::Failed, kind: INTERRUPTED, hint: hint.map(Cow::from), has_lines: false, error }
    }

    /// Whether it is that.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.kind == INTERRUPTED
    }

    /// The policy was allowed nothing of what it wanted.
    pub(crate) fn denied() -> Self {
        let error = anyhow::Error::msg("the grant allows none of what the policy wants to remove");
        Self { status: Status::Denied, kind: "denied", hint: None, has_lines: false, error }
    }

    /// Returns the error of a policy that was to change something without a grant; `suggest` is the command that writes
    /// one.
    pub(crate) fn no_grant(suggest: &str) -> Self {
        let error = anyhow::Error::msg("a policy removes nothing without a grant");
        let hint = Some(hint_at_grant(suggest).into());
        Self { status: Status::Denied, kind: "no-grant", hint, has_lines: false, error }
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

    /// What can be done about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What happened, and what caused it, outermost first.
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

/// What there is to do about a program without policies.
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
        Self { status, kind, hint: None, has_lines: true, error: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit statuses are what scripts rely on: each keeps its number.
    #[test]
    fn statuses_keep_their_numbers() {
        let table = [
            (Status::Done, 0),
            (Status::Failed, 1),
            (Status::Usage, 2),
            (Status::NotFound, 3),
            (Status::InUse, 4),
            (Status::Policy, 5),
            (Status::Denied, 6),
            (Status::Spared, 7),
        ];
        for (status, number) in table {
            assert_eq!(status as u8, number, "{status:?}");
        }
    }

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
