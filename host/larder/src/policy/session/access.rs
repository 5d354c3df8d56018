//! The one place that decides what a policy may do.
//!
//! Each right is one function. They are pure: they get a [`Subject`], say yes, or say which right is lacking, why, and
//! what would allow it. What a guard keeps is decided where it is decided for everybody ([`crate::plan::guard`]), and
//! what the lists and caps of a grant mean is the grant's to say: both are asked again when a plan is applied.

use std::cell::OnceCell;

use chrono::{DateTime, Utc};

use crate::pattern::ReferencePattern;
use crate::plan::Right;
use crate::plan::guard::{Candidate, Protection};
use crate::policy::error::Overrun;
pub(crate) use crate::policy::grant::Total;
use crate::policy::grant::{GrantDocument, matches_any};
use crate::reference::Reference;

/// The name of an image: its reference as it stands in the index, and, once a pattern or a repository asks for
/// it, what that normalizes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    text: &'a str,
    reference: &'a OnceCell<Option<Reference>>,
}

impl<'a> Name<'a> {
    /// Makes a name of a text and the place of its parsed form.
    pub(crate) fn new(text: &'a str, reference: &'a OnceCell<Option<Reference>>) -> Self {
        Self { text, reference }
    }

    /// Returns it as it stands in the index.
    pub(crate) fn text(self) -> &'a str {
        self.text
    }

    /// Returns it as patterns see it: normalized, or as it stands if it is no reference.
    pub(crate) fn normalized(self) -> &'a str {
        self.reference().map_or(self.text, Reference::as_str)
    }

    /// Returns whether a pattern matches.
    pub(crate) fn matches(self, pattern: &ReferencePattern) -> bool {
        pattern.is_everything() || pattern.matches_text(self.text, self.reference())
    }

    /// Returns the reference; there are texts in the index that are none.
    pub(crate) fn reference(self) -> Option<&'a Reference> {
        self.reference.get_or_init(|| self.text.parse().ok()).as_ref()
    }
}

/// An image that somebody wants to remove.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) pinned: bool,
    pub(crate) arrived_at: Option<DateTime<Utc>>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
    /// True if a sandbox or snapshot uses it.
    pub(crate) in_use: bool,
    /// References that its repository has before this one goes; `None` where the name has no repository.
    pub(crate) left_in_repository: Option<u32>,
}

/// A right that is lacking, and why. It has no words before it is shown, which most refusals never are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The grant hides the image: for the operator, never for the policy.
    Hidden,
    /// The grant does not let the policy read config and layers.
    NotInspectable,
    /// The grant does not let the policy remove it.
    NotGranted,
    /// Something uses it, and the grant does not let the policy force its removal.
    NotForceable,
    /// The operator has pinned it.
    Pinned,
    /// The guard keeps it.
    Guarded(Box<Protection>),
    /// The grant does not let the policy prune.
    NotPrunable,
    /// It would go past these caps.
    OverBudget(Vec<Overrun>),
}

/// A reason for which an image may not be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotRemovable {
    /// A right is lacking.
    Refused(Refusal),
    /// Something uses it, and `force` was not asked for.
    InUse,
}

/// The rest of the caps. A field is absent if there is no such cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remaining {
    pub(crate) removals: Option<u64>,
    pub(crate) bytes: Option<u64>,
}

/// The rights of one run.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    document: GrantDocument,
    now: DateTime<Utc>,
}

impl Access {
    /// Returns the rights that a document gives at this instant. Its guard is one for a policy.
    pub(crate) fn new(mut document: GrantDocument, now: DateTime<Utc>) -> Self {
        document.guard = document.guard.for_policy();
        Self { document, now }
    }

    pub(crate) fn document(&self) -> &GrantDocument {
        &self.document
    }

    /// Returns whether the image may be seen at all.
    pub(crate) fn may_read(&self, name: Name<'_>) -> bool {
        self.document.grant.allows_reading(name.text, name.reference())
    }

    /// Checks that config and layers may be read.
    pub(crate) fn may_inspect(&self, name: Name<'_>) -> Result<(), Refusal> {
        if matches_any(&self.document.grant.inspect, name.text, name.reference()) {
            return Ok(());
        }
        Err(Refusal::NotInspectable)
    }

    /// Returns whether environment variables are shown.
    pub(crate) fn sees_secrets(&self) -> bool {
        self.document.grant.secrets
    }

    /// Checks that the image may be removed. Caps are [`within_budget`](Self::within_budget)'s.
    pub(crate) fn may_remove(&self, image: &Subject<'_>, force: bool) -> Result<(), NotRemovable> {
        let name = image.name;
        if !self.document.grant.allows_removal(name.text, name.reference()) {
            return Err(Refusal::NotGranted.into());
        }
        self.unguarded(image)?;
        match (image.in_use, force, self.document.grant.force) {
            (false, _, _) | (true, true, true) => Ok(()),
            (true, false, _) => Err(NotRemovable::InUse),
            (true, true, false) => Err(Refusal::NotForceable.into()),
        }
    }

    /// Returns whether a removal that asked for `force` is staged with it: only if the grant has it, and something uses
    /// the image. An image that comes into use later is spared when the plan is applied.
    pub(crate) fn effective_force(&self, image: &Subject<'_>, force: bool) -> bool {
        force && image.in_use && self.document.grant.force
    }

    /// Checks that everything unused may be removed in one call.
    pub(crate) fn may_prune(&self) -> Result<(), Refusal> {
        if self.document.grant.prune { Ok(()) } else { Err(Refusal::NotPrunable) }
    }

    /// Checks that a run may stage this much in all, of a cache with this many references.
    pub(crate) fn within_budget(&self, wanted: Total, references_in_cache: u64) -> Result<(), Refusal> {
        let overruns = self.overruns(wanted, references_in_cache);
        if overruns.is_empty() { Ok(()) } else { Err(Refusal::OverBudget(overruns)) }
    }

    /// Returns every cap that this much exceeds.
    pub(crate) fn overruns(&self, wanted: Total, references_in_cache: u64) -> Vec<Overrun> {
        self.document.grant.overruns(wanted, references_in_cache)
    }

    /// Returns what remains of the caps after this much is staged, of a cache with this many references.
    pub(crate) fn remaining(&self, staged: Total, references_in_cache: u64) -> Remaining {
        let grant = &self.document.grant;
        let share = grant.max_share.map(|share| share.of(references_in_cache));
        let removals = grant.max_removals.map(u64::from).into_iter().chain(share).min();
        Remaining {
            removals: removals.map(|granted| granted.saturating_sub(staged.references)),
            bytes: grant.max_bytes.map(|granted| granted.as_bytes().saturating_sub(staged.bytes)),
        }
    }

    /// Returns whether bytes matter to any cap.
    pub(crate) fn counts_bytes(&self) -> bool {
        self.document.grant.max_bytes.is_some()
    }

    /// Returns whether the number of references in a repository matters.
    pub(crate) fn counts_repositories(&self) -> bool {
        self.document.guard.keep > 0
    }

    /// Checks that the operator does not protect the image from every policy.
    fn unguarded(&self, image: &Subject<'_>) -> Result<(), Refusal> {
        if image.pinned {
            return Err(Refusal::Pinned);
        }
        let candidate = Candidate {
            text: image.name.text,
            reference: image.name.reference(),
            arrived_at: image.arrived_at,
            last_used_at: image.last_used_at,
            left_in_repository: image.left_in_repository,
        };
        match self.document.guard.protection(&candidate, self.now) {
            None => Ok(()),
            Some(why) => Err(Refusal::Guarded(Box::new(why))),
        }
    }
}

impl Refusal {
    /// Returns the right that is lacking.
    pub(crate) fn right(&self) -> Right {
        match self {
            Self::Hidden => Right::Read,
            Self::NotInspectable => Right::Inspect,
            Self::NotGranted => Right::Remove,
            Self::NotForceable => Right::Force,
            Self::Pinned | Self::Guarded(_) => Right::Protected,
            Self::NotPrunable => Right::Prune,
            Self::OverBudget(_) => Right::Budget,
        }
    }

    /// Says for the operator why a call about this image, or about none, was refused.
    pub(crate) fn message(&self, image: Option<Name<'_>>) -> String {
        let why = match self {
            Self::Hidden => "the grant hides it".to_owned(),
            Self::NotInspectable => "the grant does not let this policy inspect it".to_owned(),
            Self::NotGranted => "the grant does not let this policy remove it".to_owned(),
            Self::NotForceable => {
                "something uses it, and the grant does not let this policy force its removal".to_owned()
            }
            Self::Pinned => "it is pinned".to_owned(),
            Self::Guarded(why) => why.to_string(),
            Self::NotPrunable => "the grant does not let this policy prune".to_owned(),
            Self::OverBudget(overruns) => {
                // There is none without an overrun.
                let first = overruns.first().map(ToString::to_string).unwrap_or_default();
                return format!("this goes past what the grant allows in one run: {first}");
            }
        };
        image.map_or_else(|| why.clone(), |name| format!("{}: {why}", name.normalized()))
    }

    /// Says the same to the policy. Which of the operator's patterns protects an image is not for it.
    pub(crate) fn told(&self, image: Option<Name<'_>>) -> String {
        match (self, image) {
            (Self::Guarded(why), Some(name)) if matches!(**why, Protection::Named(_)) => {
                format!("{}: the operator protects it", name.normalized())
            }
            _ => self.message(image),
        }
    }

    /// Names what in the grant, or which command, would allow it.
    pub(crate) fn allowed_by(&self, image: Option<Name<'_>>) -> String {
        let name = image.map_or("", Name::normalized);
        let in_list = |key: &str| format!("`{key} = [\"{name}\"]` in `[grant]`");
        match self {
            Self::Hidden => in_list("read"),
            Self::NotInspectable => in_list("inspect"),
            Self::NotGranted => in_list("remove"),
            Self::NotForceable => "`force = true` in `[grant]`".to_owned(),
            Self::Pinned => format!("`larder unpin {name}`"),
            Self::Guarded(why) => why.allowed_by(),
            Self::NotPrunable => "`prune = true` in `[grant]`".to_owned(),
            Self::OverBudget(overruns) => {
                let keys: Vec<_> = overruns.iter().map(|overrun| format!("`{}`", overrun.key())).collect();
                format!("a higher {} in `[grant]`", keys.join(" and "))
            }
        }
    }
}

impl From<Refusal> for NotRemovable {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[cfg(test)]
mod tests;
