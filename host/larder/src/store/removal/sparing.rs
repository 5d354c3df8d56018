//! Why an image stays that was to go, and who has the last word on that.

use rusqlite::Connection;
use serde::Serialize;

use super::{RemoveMode, Target};
use crate::catalog::remove::{self, LiveRef};
use crate::error::MicrosandboxResult;
use crate::records::{ImageUsers, SpareCause};

/// Has the last word on removals: in the transaction that makes them, it looks at the images as they are then.
pub(crate) trait Veto: Send + Sync {
    /// Returns why each of these images stays; none for one that may go, after those before it. `freed` are the allocated
    /// bytes that the removal has freed so far.
    ///
    /// # Errors
    /// Where that cannot be found out: then none of them goes.
    fn veto(
        &self,
        connection: &Connection,
        images: &[(&Target, &LiveRef)],
        freed: u64,
    ) -> MicrosandboxResult<Vec<Option<SpareReason>>>;
}

/// Why an image that was to go was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpareReason {
    /// Something uses it.
    InUse(ImageUsers),
    /// The operator pinned it.
    Pinned,
    /// A live operation reads it, publishes it or deletes it.
    Leased,
    /// The reference names another manifest than when it was decided to remove it.
    Replaced,
    /// It was used after it was decided to remove it.
    Used,
    /// A guard keeps it, or the grant that it was decided under does not reach as far any longer: a clause that says which.
    Guarded(String),
}

impl SpareReason {
    /// Returns the kind of reason.
    pub fn cause(&self) -> SpareCause {
        match self {
            Self::InUse(_) => SpareCause::InUse,
            Self::Pinned => SpareCause::Pinned,
            Self::Leased => SpareCause::Leased,
            Self::Replaced => SpareCause::Changed,
            Self::Used => SpareCause::UsedSince,
            Self::Guarded(_) => SpareCause::Guarded,
        }
    }
}

impl std::fmt::Display for SpareReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(users) => write!(f, "used by {users}"),
            Self::Pinned => f.write_str("pinned"),
            Self::Leased => f.write_str("held by a live operation"),
            Self::Replaced => f.write_str("names another manifest than when this was decided"),
            Self::Used => f.write_str("was used after this was decided"),
            Self::Guarded(why) => f.write_str(why),
        }
    }
}

impl Serialize for SpareReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An image that was to go and was left alone.
#[derive(Debug, Clone, Serialize)]
pub struct SparedImage {
    /// The reference.
    pub reference: String,
    /// The manifest that it named when it was decided to remove it.
    pub manifest_digest: Option<String>,
    /// Why.
    pub reason: SpareReason,
}

impl SparedImage {
    /// An image that stays, with the manifest that it was decided about.
    pub(crate) fn of(target: &Target, reason: SpareReason) -> Self {
        Self {
            reference: target.row.handle.reference.clone(),
            manifest_digest: target.expected.manifest_digest.clone().map(String::from),
            reason,
        }
    }
}

/// Returns why an image is not removed any longer, whatever guards say.
pub(crate) fn reason_to_spare(
    connection: &Connection,
    target: &Target,
    now: &LiveRef,
) -> rusqlite::Result<Option<SpareReason>> {
    if target.row.manifest != now.manifest || target.expected.manifest_digest != now.expected.manifest_digest
    {
        return Ok(Some(SpareReason::Replaced));
    }
    if target.expected.last_used_at != now.expected.last_used_at {
        return Ok(Some(SpareReason::Used));
    }
    if now.in_use && target.mode == RemoveMode::Unused {
        return Ok(Some(SpareReason::InUse(remove::users(connection, &target.row)?)));
    }
    Ok((now.pinned && target.mode != RemoveMode::Force).then_some(SpareReason::Pinned))
}
