//! A plan: what is to be removed, and why, as a document that a person can read and a later command can apply.
//!
//! A plan holds everything that decided it (the policy's hash, the config, the whole grant), every image that was
//! seen with the decision and its reason, and of each image what it was when it was seen (manifest, times), so that
//! whoever applies it can tell whether it is still the same. Applying it removes nothing that is not in it.
//!
//! The document is JSON. It is the same, byte for byte, for the same state, policy, config and grant: keys stand in
//! the order of the fields below, images in the order of the list (newest created first). [`VERSION`] changes when a
//! reader of before would misunderstand it; keys that a reader does not know are refused, not ignored.

mod check;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::artifacts::unowned::UnownedFile;
use crate::error::slip::in_words;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::HomeIdentity;
use crate::plan::UnmatchedPattern;
use crate::policy::GrantDocument;
use crate::records::{Guard, ImageHandle, ImagePruneReport, Maker, PlanPolicy, UnreachedKind};
use crate::reference::RowDigest;
use crate::units::ByteSize;

/// The version of the document that this crate writes and reads.
pub const VERSION: u32 = 2;

/// The largest document that is read, in bytes: a plan over a million images has about half of it.
const MAX_DOCUMENT: usize = 512 << 20;

/// What is to be removed, and why.
///
/// It is a JSON document, the same byte for byte for the same state, policy, config and grant. Applying it removes
/// nothing that is not in it, and checks each image again: its manifest and times have to be what they were.
///
/// A plan with a policy and without a grant is a preview: it shows what the policy would remove if everything was granted. Nothing in
/// it was allowed, so it cannot be applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// What made it. What may be in a plan, and what stands in its way when it is applied, depends on that.
    pub made_by: Maker,
    /// The instant that the decision counts as now.
    pub created_at: DateTime<Utc>,
    /// The home that it is for, and no other; absent where it was made from a cache in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<HomeIdentity>,
    /// The policy that decided; there exactly if a policy made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PlanPolicy>,
    /// The policy's config; absent without a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
    /// The bytes to free, if that was asked for: of what the policy wanted to remove, the first that free so many are in the
    /// plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<ByteSize>,
    /// What the policy was allowed; absent without a policy, and in a preview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantDocument>,
    /// What stayed whoever decided: all guards of that time together. Absent where none was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// What applying it frees, in allocated bytes: the sum over `entries`, `unreached` and `collect`.
    pub bytes: u64,
    /// What applying it will report, if nothing changes until then.
    pub report: ImagePruneReport,
    /// Every image that was seen, newest created first.
    pub entries: Vec<PlanEntry>,
    /// Manifests and layers that no reference reaches and that go as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<UnreachedRow>,
    /// Files that nothing owns and that go as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collect: Vec<UnownedFile>,
    /// Files that nothing of this home owns and that stay, since the cache may be another home's as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncollected: Option<Uncollected>,
    /// Patterns of grant and guard that matched no image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<UnmatchedPattern>,
    /// What the policy tried and was not allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denials: Vec<Denial>,
    /// What the policy logged, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
}

/// What is to become of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanEntry {
    /// The reference as it stands in the index.
    pub reference: String,
    /// What is to become of it.
    pub decision: Decision,
    /// Whether it is to go although something uses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Why.
    pub reason: String,
    /// What removing it frees in allocated bytes, on top of what was decided before it; 0 for what stays.
    pub bytes: u64,
    /// The manifest it resolved to.
    pub manifest_digest: Option<String>,
    /// When it came into the cache.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A manifest or layer that no reference reaches. What only it needs goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnreachedRow {
    /// Which row.
    pub kind: UnreachedKind,
    /// Its digest; for a layer, its diff ID.
    pub digest: RowDigest,
    /// What removing it frees in allocated bytes, on top of the images and what stands before it.
    pub bytes: u64,
}

/// Files that nothing of this home owns, in a cache that may be another home's as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uncollected {
    /// Allocated bytes.
    pub bytes: u64,
    /// How many they are.
    pub files: u64,
    /// Why they stay, in one sentence.
    pub reason: String,
}

/// What is to become of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It goes.
    Remove,
    /// It stays.
    Keep,
}

/// A right that a call can lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// Something a policy tried and was not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// What it lacked.
    pub right: Right,
    /// The image it was about, as it stands in the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// One sentence for people.
    pub message: String,
    /// What in the grant, or which command, would allow it.
    pub allowed_by: String,
}

/// One line that a policy logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The line, without control characters.
    pub message: String,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// For the author of the policy.
    Debug,
    /// For whoever wants to know.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

impl PlanEntry {
    /// An image that stays.
    pub fn keep(handle: &ImageHandle, reason: impl Into<String>) -> Self {
        Self {
            reference: handle.reference.clone(),
            decision: Decision::Keep,
            force: false,
            reason: reason.into(),
            bytes: 0,
            manifest_digest: handle.manifest_digest.clone(),
            created_at: handle.created_at,
            last_used_at: handle.last_used_at,
        }
    }

    /// An image that goes and frees this many bytes, on top of what went before it.
    pub fn remove(handle: &ImageHandle, reason: impl Into<String>, bytes: u64, force: bool) -> Self {
        Self { decision: Decision::Remove, force, bytes, ..Self::keep(handle, reason) }
    }
}

impl Plan {
    /// A plan without a policy. `report` is what is projected; its `bytes_reclaimed` and the plan's `bytes` are
    /// set to what the entries and files sum up to.
    pub fn new(
        made_by: Maker,
        created_at: DateTime<Utc>,
        entries: Vec<PlanEntry>,
        collect: Vec<UnownedFile>,
        report: ImagePruneReport,
    ) -> Self {
        let mut plan = Self {
            version: VERSION,
            made_by,
            created_at,
            home: None,
            policy: None,
            config: None,
            goal: None,
            grant: None,
            guard: None,
            bytes: 0,
            report,
            entries,
            unreached: Vec::new(),
            collect,
            uncollected: None,
            unmatched: Vec::new(),
            denials: Vec::new(),
            log: Vec::new(),
        };
        plan.sum_up();
        plan
    }

    /// The same plan with rows that no reference reaches.
    #[must_use]
    pub fn with_unreached(mut self, rows: Vec<UnreachedRow>) -> Self {
        self.unreached = rows;
        self.sum_up();
        self
    }

    /// The same plan for a home: as it stands, it is for none, and can be applied to none.
    #[must_use]
    pub fn for_home(mut self, home: HomeIdentity) -> Self {
        self.home = Some(home);
        self
    }

    /// Sets the bytes to what the parts sum up to.
    fn sum_up(&mut self) {
        self.bytes = self.all_bytes().fold(0, u64::saturating_add);
        self.report.bytes_reclaimed = (!self.is_empty()).then_some(self.bytes);
    }

    /// The bytes of every part.
    fn all_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        let entries = self.entries.iter().map(|entry| entry.bytes);
        let unreached = self.unreached.iter().map(|row| row.bytes);
        entries.chain(unreached).chain(self.collect.iter().map(|file| file.bytes))
    }

    /// The images that go, in the order of the list.
    pub fn removals(&self) -> impl Iterator<Item = &PlanEntry> {
        self.entries.iter().filter(|entry| entry.decision == Decision::Remove)
    }

    /// Whether applying it does nothing.
    pub fn is_empty(&self) -> bool {
        self.removals().next().is_none() && self.unreached.is_empty() && self.collect.is_empty()
    }

    /// Checks that it is for a home.
    ///
    /// # Errors
    /// [`MicrosandboxError::PlanForAnotherHome`], and [`MicrosandboxError::InvalidPlan`] where it says no home.
    pub fn check_home(&self, home: &HomeIdentity) -> MicrosandboxResult<()> {
        match &self.home {
            Some(planned) if planned.names(home) => Ok(()),
            Some(planned) => Err(MicrosandboxError::PlanForAnotherHome {
                planned: planned.path.clone(),
                home: home.path.clone(),
            }),
            None => Err(invalid("it does not say which home it is for".to_owned())),
        }
    }

    /// The document, for people and machines: JSON, indented, with a newline at its end.
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidPlan`] where a path in `collect` is not Unicode.
    pub fn to_json(&self) -> MicrosandboxResult<String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| invalid(error.to_string()))?;
        text.push('\n');
        Ok(text)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidPlan`] with the place in it, where it is of another version, is not complete, or
    /// contradicts itself.
    pub fn from_json(text: &str) -> MicrosandboxResult<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if text.len() > MAX_DOCUMENT {
            return Err(invalid(format!("it has {} bytes; at most {MAX_DOCUMENT} are read", text.len())));
        }
        // The version first: another one has other fields.
        let not_read = |error: serde_json::Error| invalid(in_words(&error.to_string(), "an object"));
        let Versioned { version } = serde_json::from_str(text).map_err(not_read)?;
        if version != VERSION {
            let problem =
                format!("`version` is {version}, and this larder reads {VERSION}: make the plan again");
            return Err(invalid(problem));
        }
        let plan: Self = serde_json::from_str(text).map_err(not_read)?;
        plan.check().map_err(invalid)?;
        Ok(plan)
    }
}

fn invalid(problem: String) -> MicrosandboxError {
    MicrosandboxError::InvalidPlan(problem)
}

#[cfg(test)]
mod tests;
