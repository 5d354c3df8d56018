//! What a run stages, what that frees, and the plan that comes of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::access::{NotRemovable, Refusal, Total};
use super::bindings::types;
use super::convert;
use super::error::{LimitKey, PolicyError};
use super::images::{Images, Staged};
use super::run::PolicyRun;
use super::session::{Answer, Session, Stop};
use crate::plan::{Maker, Plan, PlanEntry, PlanPolicy, Right, unmatched};
use crate::records::ImagePruneReport;
use crate::snapshot::{CacheSnapshot, Freed, Removal, Sharing};

/// What images cost, less what is staged; read when it is first asked for.
#[derive(Default)]
pub(super) struct Costs {
    removal: Option<Removal>,
    sharing: Option<Sharing>,
}

impl Costs {
    pub(super) fn get(&mut self, source: &mut dyn CacheSnapshot) -> Answer<&mut Removal> {
        let removal = match self.removal.take() {
            Some(removal) => removal,
            None => {
                let graph =
                    source.costs().map_err(|error| Stop::End(PolicyError::Source(Box::new(error))))?;
                Removal::new(Arc::new(graph))
            }
        };
        Ok(self.removal.insert(removal))
    }

    /// What the images that the run can see now share with each other. What they share with hidden ones is not told:
    /// a policy cannot find out that those exist.
    pub(super) fn sharing(&mut self, source: &mut dyn CacheSnapshot, images: &Images) -> Answer<&Sharing> {
        let sharing = match self.sharing.take() {
            Some(sharing) => sharing,
            None => {
                let graph = Arc::clone(self.get(source)?.graph());
                Sharing::new(graph, images.present().map(|(index, _)| index))
            }
        };
        Ok(self.sharing.insert(sharing))
    }

    /// An image is staged: whoever shared something with it shares it no longer.
    fn stage(&mut self, image: usize) {
        if let Some(sharing) = &mut self.sharing {
            sharing.remove(image);
        }
    }

    /// What all that is staged frees.
    fn freed(&self) -> Freed {
        self.removal.as_ref().map(Removal::freed).unwrap_or_default()
    }
}

/// What a run would have staged without its caps.
pub(super) struct Wanted {
    removal: Removal,
    images: HashSet<usize>,
    staged: u64,
}

impl Wanted {
    fn total(&self) -> Total {
        Total { references: self.staged + self.images.len() as u64, bytes: self.removal.freed().bytes }
    }

    /// Adds what was refused.
    fn refuse(&mut self, images: &[usize]) {
        for &image in images {
            self.images.insert(image);
            self.removal.remove(image);
        }
    }

    /// Adds what was staged after something had been refused.
    fn stage(&mut self, image: usize) {
        self.staged += 1;
        self.images.remove(&image);
        self.removal.remove(image);
    }
}

impl Session {
    pub(super) fn remove(&mut self, reference: &str, force: bool) -> Answer<()> {
        let index = self.find(reference)?;
        let subject = self.images.subject(index);
        let answer = self.access.may_remove(&subject, force);
        let force = self.access.effective_force(&subject, force);
        self.images.get_mut(index).asked |= !matches!(
            &answer,
            Err(NotRemovable::Refused(Refusal { right: Right::Remove | Right::Force, .. }))
        );
        match answer {
            Ok(()) => self.stage(&[index], force, false).map(drop),
            Err(NotRemovable::Refused(refusal)) => {
                self.images.get_mut(index).refused = Some(refusal.message.clone());
                Err(self.deny(Some(index), refusal))
            }
            Err(NotRemovable::InUse) => {
                let image = self.images.get_mut(index);
                image.refused = Some("something uses it".to_owned());
                Err(types::Error::ImageInUse(convert::users(image.reference(), &image.state.users)).into())
            }
        }
    }

    pub(super) fn prune(&mut self) -> Answer<types::ImagePruneReport> {
        if let Err(refusal) = self.access.may_prune() {
            return Err(self.deny(None, refusal));
        }
        let unused = self.unused();
        let freed = self.stage(&unused, false, true)?;
        Ok(types::ImagePruneReport {
            image_refs_removed: count(unused.len()),
            manifests_removed: freed.manifests,
            layers_removed: freed.layers,
            fsmeta_removed: freed.fsmeta,
            vmdk_removed: freed.vmdk,
            bytes_reclaimed: Some(freed.bytes),
        })
    }

    /// Everything unused that may be removed, oldest first, so that the guard keeps the newest of a repository.
    fn unused(&self) -> Vec<usize> {
        let present: Vec<_> = self.images.present().map(|(index, _)| index).collect();
        let mut taken: HashMap<&str, u32> = HashMap::new();
        let mut unused = Vec::new();
        for index in present.into_iter().rev() {
            let mut subject = self.images.subject(index);
            let taken =
                subject.left_in_repository.as_mut().zip(subject.name.reference()).map(|(left, name)| {
                    let taken = taken.entry(name.repository()).or_default();
                    *left = left.saturating_sub(*taken);
                    taken
                });
            if !subject.in_use && self.access.may_remove(&subject, false).is_ok() {
                unused.push(index);
                taken.into_iter().for_each(|taken| *taken += 1);
            }
        }
        unused
    }

    /// Stages all of these, or none where a cap refuses. Returns what that frees.
    fn stage(&mut self, images: &[usize], force: bool, by_prune: bool) -> Answer<Freed> {
        let removal = self.costs.get(&mut *self.source)?;
        let more =
            if self.access.counts_bytes() { removal.would_free(images.iter().copied()).bytes } else { 0 };
        let total = Total {
            references: self.staged.references + images.len() as u64,
            bytes: self.staged.bytes.saturating_add(more),
        };
        if let Err(refusal) = self.access.within_budget(total, self.images.len() as u64) {
            let staged = self.staged.references;
            let fresh = || Wanted { removal: removal.clone(), images: HashSet::new(), staged };
            self.wanted.get_or_insert_with(fresh).refuse(images);
            let image = match images {
                &[image] => Some(image),
                _ => None,
            };
            return Err(self.deny(image, refusal));
        }
        if total.references > u64::from(self.access.document().limits.removals) {
            return Err(self.past(LimitKey::Removals));
        }
        let mut freed = Freed::default();
        for &image in images {
            let frees = removal.remove(image);
            freed += frees;
            self.images.stage(image, Staged { force, bytes: frees.bytes, by_prune });
            if let Some(wanted) = &mut self.wanted {
                wanted.stage(image);
            }
        }
        let staged_bytes = removal.freed().bytes;
        images.iter().for_each(|&image| self.costs.stage(image));
        self.staged = Total { references: total.references, bytes: staged_bytes };
        Ok(freed)
    }

    /// Why there can be no plan, where the policy wanted more than its caps allow.
    pub(super) fn over_budget(&self) -> Option<PolicyError> {
        let wanted = self.wanted.as_ref()?;
        Some(PolicyError::OverBudget(self.access.overruns(wanted.total(), self.images.len() as u64)))
    }

    /// Returns what was staged as a plan of this run.
    ///
    /// # Errors
    /// [`PolicyError::OverBudget`], also where the policy did not mind being refused.
    pub(super) fn into_plan(self, policy: PlanPolicy, run: &PolicyRun) -> Result<Plan, PolicyError> {
        if let Some(error) = self.over_budget() {
            return Err(error);
        }
        let entry = |(_, image): (usize, &super::images::Image)| {
            let handle = &image.state.handle;
            let reason = match (&image.reason, &image.staged, &image.refused) {
                (Some(reason), ..) => reason.clone(),
                (None, Some(staged), _) if staged.by_prune => "nothing uses it".to_owned(),
                (None, Some(_), _) => "removed by the policy, which gave no reason".to_owned(),
                (None, None, Some(why)) => format!("the policy was not allowed to remove it: {why}"),
                (None, None, None) => "not mentioned by the policy".to_owned(),
            };
            match image.staged {
                Some(Staged { force, bytes, .. }) => PlanEntry::remove(handle, reason, bytes, force),
                None => PlanEntry::keep(handle, reason),
            }
        };
        let entries = self.images.visible().map(entry).collect();
        let freed = self.costs.freed();
        let report = ImagePruneReport {
            image_refs_removed: count(usize::try_from(self.staged.references).unwrap_or(usize::MAX)),
            manifests_removed: freed.manifests,
            layers_removed: freed.layers,
            fsmeta_removed: freed.fsmeta,
            vmdk_removed: freed.vmdk,
            ..ImagePruneReport::default()
        };
        let plan = Plan::new(Maker::Policy, run.now(), entries, Vec::new(), report);
        let rights = run.rights();
        let names: Vec<_> =
            self.images.all().map(|image| (image.reference(), image.name().reference())).collect();
        let unmatched = unmatched::of_grant(&rights, &names);
        drop(names);
        Ok(Plan {
            policy: Some(policy),
            config: Some(run.config().clone()),
            guard: Some(rights.guard.for_policy()),
            grant: run.grant().cloned(),
            unmatched,
            denials: self.denials,
            log: self.log,
            ..plan
        })
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
