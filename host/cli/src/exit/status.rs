//! The numbers and the words that scripts rely on: exit statuses, and kinds that stand in more than one place.

use std::process::ExitCode;

/// The end of a command.
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
pub(super) const INTERRUPTED: &str = "interrupted";

/// The kind of a policy that broke off.
pub(super) const TRAPPED: &str = "policy-trapped";

/// The kind of the failure to reach a registry.
pub(crate) const UNREACHABLE: &str = "registry-unreachable";

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
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
}
