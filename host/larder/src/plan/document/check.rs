//! What a plan may have in it, so that what was shown is what is done, and nothing that was not allowed.
//!
//! A document may have been written by hand, or changed. What contradicts itself is refused as a whole: its parts, and what
//! it says was allowed. Whether it still holds for a cache is asked when it is applied.

use std::collections::HashMap;
use std::path::{Component, Path};

use super::{Decision, Plan, PlanEntry, invalid};
use crate::error::MicrosandboxResult;
use crate::policy::grant::Total;
use crate::policy::{Grant, Overrun};
use crate::records::Maker;
use crate::reference::{Digest, Reference};

impl Plan {
    /// Checks that it can be applied: that its parts agree, and that somebody allowed what is in it, an operator by a grant
    /// or whoever planned without a policy.
    ///
    /// # Errors
    /// [`InvalidPlan`](crate::MicrosandboxError::InvalidPlan) with the place in it, and for a preview.
    pub fn check_allowed(&self) -> MicrosandboxResult<()> {
        self.check().map_err(invalid)?;
        if self.policy.is_none() || self.grant.is_some() {
            return Ok(());
        }
        let problem =
            "its policy ran without a grant: it shows what would be removed, and nobody allowed that";
        Err(invalid(problem.to_owned()))
    }

    /// Returns whether the parts agree with each other.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_maker()?;
        self.check_entries()?;
        for (index, entry) in self.collect.iter().enumerate() {
            if !stays_inside(&entry.path) {
                let path = entry.path.display();
                return Err(format!("`collect[{index}].path`: `{path}` is not a path inside the cache"));
            }
        }
        let total = self.all_bytes().try_fold(0, u64::checked_add);
        if total != Some(self.bytes) {
            return Err(format!("`bytes` is {}, which is not the sum of the bytes in it", self.bytes));
        }
        let removed = self.removals().count();
        let said = self.report.image_refs_removed;
        if u32::try_from(removed) != Ok(said) {
            return Err(format!(
                "`report.image_refs_removed` is {said}, and {removed} entries are to be removed"
            ));
        }
        match &self.grant {
            Some(document) => self.check_grant(&document.grant),
            None => Ok(()),
        }
    }

    /// Checks that it has the parts of what made it, and no others.
    fn check_maker(&self) -> Result<(), String> {
        let made_by = self.made_by;
        let has = [
            ("policy", self.policy.is_some(), made_by == Maker::Policy),
            ("config", self.config.is_some(), made_by == Maker::Policy),
        ];
        for (key, is_there, belongs) in has {
            match (is_there, belongs) {
                (true, false) => return Err(format!("`{key}` is there, and `made_by` is `{made_by}`")),
                (false, true) => return Err(format!("`made_by` is `{made_by}`, and `{key}` is missing")),
                _ => {}
            }
        }
        let may_have = [
            ("goal", self.goal.is_some(), made_by == Maker::Policy),
            ("grant", self.grant.is_some(), made_by == Maker::Policy),
            ("guard", self.guard.is_some(), matches!(made_by, Maker::Policy | Maker::Prune)),
            ("denials", !self.denials.is_empty(), made_by == Maker::Policy),
            ("entries", !self.entries.is_empty(), made_by != Maker::Repair),
            ("unreached", !self.unreached.is_empty(), made_by == Maker::Prune),
            ("collect", !self.collect.is_empty(), matches!(made_by, Maker::Prune | Maker::Repair)),
        ];
        if let Some((key, ..)) = may_have.into_iter().find(|&(_, is_there, belongs)| is_there && !belongs) {
            return Err(format!("`{key}` is there, and `made_by` is `{made_by}`"));
        }
        if let Some(policy) = &self.policy {
            policy.hash.parse::<Digest>().map_err(|error| format!("`policy.hash`: {error}"))?;
        }
        if self.config.as_ref().is_some_and(|config| !config.is_object()) {
            return Err("`config`: expected an object".to_owned());
        }
        self.grant.as_ref().map_or(Ok(()), |grant| grant.check().map_err(|error| format!("`grant`: {error}")))
    }

    fn check_entries(&self) -> Result<(), String> {
        let mut seen: HashMap<&str, Decision> = HashMap::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let place = |field: &str, problem: String| format!("`entries[{index}].{field}`: {problem}");
            // Rows are named as the index has them, odd ones too.
            let reference = &entry.reference;
            match seen.insert(reference, entry.decision) {
                None => {}
                Some(before) if before == entry.decision => {
                    return Err(place("reference", format!("`{reference}` is in the plan already")));
                }
                Some(_) => {
                    return Err(place("reference", format!("`{reference}` is to be removed and to be kept")));
                }
            }
            match entry.decision {
                Decision::Keep if entry.bytes > 0 || entry.force => {
                    return Err(place("bytes", "what stays frees nothing and needs no force".to_owned()));
                }
                Decision::Keep if self.made_by == Maker::Removal => {
                    return Err(place("decision", "a removal by name keeps nothing".to_owned()));
                }
                Decision::Remove if entry.force && !self.may_force() => {
                    return Err(place("force", "nothing in the plan allows it".to_owned()));
                }
                Decision::Keep | Decision::Remove => {}
            }
        }
        Ok(())
    }

    /// Returns whether it may remove what is in use: by the operator's own word, or by a grant. A preview shows as much.
    fn may_force(&self) -> bool {
        match self.made_by {
            Maker::Removal => true,
            Maker::Policy => self.grant.as_ref().is_some_and(|document| document.grant.force),
            Maker::Prune | Maker::Repair => false,
        }
    }

    /// Checks that its grant allows what is in it, as far as that can be told without the cache.
    fn check_grant(&self, grant: &Grant) -> Result<(), String> {
        for (index, entry) in self.entries.iter().enumerate() {
            let PlanEntry { reference, decision, .. } = entry;
            let parsed = reference.parse::<Reference>().ok();
            let may_read = grant.allows_reading(reference, parsed.as_ref());
            let may_remove = *decision == Decision::Keep || grant.allows_removal(reference, parsed.as_ref());
            for (may, key) in [(may_read, "read"), (may_remove, "remove")] {
                if !may {
                    return Err(format!(
                        "`entries[{index}].reference`: `{reference}` is not in `{key}` of the plan's own grant"
                    ));
                }
            }
        }
        let total = Total { references: self.removals().count() as u64, bytes: self.bytes };
        // Which share of the cache that is, the cache says.
        let overruns = grant.overruns(total, u64::MAX);
        match overruns.iter().find(|overrun| !matches!(overrun, Overrun::Share { .. })) {
            Some(overrun) => Err(format!("it goes past its own grant: {}", overrun.in_words("and it takes"))),
            None => Ok(()),
        }
    }
}

/// Returns whether a relative path goes down only.
fn stays_inside(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}
