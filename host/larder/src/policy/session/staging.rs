//! What a run stages, what that frees, and the plan that it makes.
//!
//! Removals are kept in the order in which they were staged, since a goal takes the first of them. One that is taken back
//! leaves its place empty. A removal that a cap refuses is remembered: it spoils the run, and counts in what is said of
//! by how much.
//!
//! Caps are about what the plan removes. A removal that is staged when those before it meet the goal is not in the plan
//! and counts for none; whether it comes into the plan after all, since one before it was taken back, shows at the end.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Session;
use super::access::{NotRemovable, Refusal, Remaining, Total};
use super::answers::{Answer, CallError, GuestError};
use super::images::{Image, Images, Staged};
use crate::plan::guard;
use crate::plan::{Decision, Maker, Plan, PlanEntry, PlanPolicy, unmatched};
use crate::policy::error::PolicyError;
use crate::policy::limits::LimitKey;
use crate::policy::session::parameters::PolicyRun;
use crate::records::ImagePruneReport;
use crate::snapshot::{Freed, MemoryCache, Removal};
use crate::units::ByteSize;

/// The images that a run has staged.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    goal: Option<ByteSize>,
    /// The images in the order in which they were staged. One counts if it is staged, and in this place.
    order: Vec<u32>,
    /// The number of images that are staged.
    references: u64,
    /// Images whose removal a cap has refused.
    refused: BTreeSet<usize>,
    /// True once an image that something uses was staged.
    pub(crate) has_forced: bool,
    /// True once a prune was staged.
    pub(crate) has_pruned: bool,
}

/// The images that a prune stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub(crate) references: usize,
    pub(crate) freed: Freed,
}

impl Staging {
    pub(crate) fn new(goal: Option<ByteSize>) -> Self {
        Self { goal, ..Self::default() }
    }

    /// Returns the images that are staged, in that order.
    pub(crate) fn staged<'a>(&'a self, images: &'a Images) -> impl Iterator<Item = usize> + 'a {
        let is_here = |&(index, position): &(usize, u32)| {
            images.get(index).staged.is_some_and(|staged| staged.position == position)
        };
        let places = self.order.iter().map(|&index| index as usize).zip(0..);
        places.filter(is_here).map(|(index, _)| index)
    }
}

impl Session {
    pub(crate) fn remove(&mut self, reference: &str, force: bool) -> Answer<()> {
        let index = self.find(reference)?;
        let answer = self.may_remove(index, force);
        self.images.get_mut(index).is_asked_for |=
            !matches!(&answer, Err(NotRemovable::Refused(Refusal::NotGranted | Refusal::NotForceable)));
        match answer {
            Ok(()) => {
                let force = self.access.effective_force(&self.images.subject(index), force);
                self.stage(&[index], force, false).map(drop)
            }
            Err(NotRemovable::Refused(refusal)) => {
                self.images.get_mut(index).refused = Some(NotRemovable::Refused(refusal.clone()));
                Err(self.deny(Some(index), refusal))
            }
            Err(NotRemovable::InUse) => {
                self.images.get_mut(index).refused = Some(NotRemovable::InUse);
                Err(GuestError::InUse(index).into())
            }
        }
    }

    /// Takes back a removal that the run has staged.
    pub(crate) fn restore(&mut self, reference: &str) -> Answer<()> {
        self.check_text(reference)?;
        let found = self.images.find_staged(reference);
        let index = self.resolve(reference, found)?;
        self.images.unstage(index);
        self.staging.references -= 1;
        if let Some(removal) = &mut self.costs {
            removal.put_back(index);
        }
        if let Some(sharing) = &mut self.sharing {
            sharing.add(index);
        }
        Ok(())
    }

    pub(crate) fn prune(&mut self) -> Answer<Pruned> {
        if let Err(refusal) = self.access.may_prune() {
            return Err(self.deny(None, refusal));
        }
        self.read_costs()?;
        let unused = self.unused();
        let freed = self.stage(&unused, false, true)?;
        Ok(Pruned { references: unused.len(), freed })
    }

    /// Returns what remains of the caps.
    pub(crate) fn budget(&self) -> Remaining {
        self.access.remaining(self.total(), self.images.len() as u64)
    }

    /// Returns true if the removal of one more image is within the caps.
    pub(crate) fn has_room_for(&mut self, index: usize) -> bool {
        if self.meets_goal() {
            return true;
        }
        let mut total = self.total();
        total.references += 1;
        if self.access.counts_bytes() {
            let more = self.costs.as_mut().map_or(0, |removal| removal.would_free([index]).bytes);
            total.bytes = total.bytes.saturating_add(more);
        }
        self.access.overruns(total, self.images.len() as u64).is_empty()
    }

    fn total(&self) -> Total {
        let bytes = self.costs.as_ref().map_or(0, |removal| removal.freed().bytes);
        Total { references: self.staging.references, bytes }
    }

    /// Returns true if what is staged meets the goal: the plan has nothing that is staged later.
    fn meets_goal(&self) -> bool {
        self.staging.goal.is_some_and(|goal| self.total().bytes >= goal.as_bytes())
    }

    fn may_remove(&self, index: usize, force: bool) -> Result<(), NotRemovable> {
        let facts = self.images.get(index).facts;
        if facts.lacks.is_none() && !facts.is_in_use && !self.access.counts_repositories() {
            // It was judged before the run, and nothing else counts.
            return Ok(());
        }
        self.access.may_remove(&self.images.subject(index), force)
    }

    /// Returns everything unused that may be removed, the first arrival first, so that the guard keeps the newest of a
    /// repository.
    fn unused(&self) -> Vec<usize> {
        let present: Vec<usize> = self.images.present().map(|(index, _)| index).collect();
        let arrivals = present.iter().map(|&index| self.images.get(index).record.arrived_at);
        let oldest_first = guard::oldest_first(arrivals);
        let mut taken: HashMap<&str, u32> = HashMap::new();
        let mut unused = Vec::new();
        for index in oldest_first.into_iter().map(|place| present[place]) {
            let mut subject = self.images.subject(index);
            let taken = taken.entry(self.images.repository(index)).or_default();
            subject.left_in_repository = subject.left_in_repository.map(|left| left.saturating_sub(*taken));
            if !subject.in_use && self.access.may_remove(&subject, false).is_ok() {
                unused.push(index);
                *taken += 1;
            }
        }
        unused
    }

    /// Stages all of these, or none where a cap refuses. Returns what that frees, as far as costs are known.
    fn stage(&mut self, images: &[usize], force: bool, by_prune: bool) -> Answer<Freed> {
        let mut freed = Freed::default();
        let before = self.staging.references;
        // The plan's removals, with those of these images that it has.
        let mut planned = None;
        for (&index, references) in images.iter().zip(before + 1..) {
            let is_in_plan = !self.meets_goal();
            if let Some(removal) = &mut self.costs {
                freed += removal.remove(index);
            }
            if is_in_plan {
                planned = Some(Total { references, ..self.total() });
            }
        }
        let references = before + images.len() as u64;
        let in_cache = self.images.len() as u64;
        let refusal = planned.and_then(|planned| self.access.within_budget(planned, in_cache).err());
        if refusal.is_some() || references > u64::from(self.limits().removals) {
            if let Some(removal) = &mut self.costs {
                images.iter().for_each(|&index| _ = removal.put_back(index));
            }
            return Err(match refusal {
                Some(refusal) => self.refuse(images, refusal),
                None => self.past(LimitKey::Removals),
            });
        }
        for &index in images {
            let position = self.staging.order.len() as u32;
            self.staging.order.push(index as u32);
            self.images.stage(index, Staged { force, by_prune, position });
            if let Some(sharing) = &mut self.sharing {
                // What shared something with it shares it no longer.
                sharing.remove(index);
            }
        }
        self.staging.references = references;
        self.staging.has_forced |= force;
        self.staging.has_pruned |= by_prune;
        Ok(freed)
    }

    /// Returns the images that were ever staged, those that were taken back too.
    pub(crate) fn ever_staged(&self) -> BTreeSet<usize> {
        self.staging.order.iter().map(|&index| index as usize).collect()
    }

    /// Returns the bytes that the removal of these images alone would free; 0 if costs were not read.
    pub(crate) fn bytes_of(&self, images: impl IntoIterator<Item = usize>) -> u64 {
        let removal = self.costs.as_ref().map(|removal| Removal::new(Arc::clone(removal.graph())));
        removal.map_or(0, |mut removal| removal.would_free(images).bytes)
    }

    /// Remembers what a cap has refused, and answers the policy.
    fn refuse(&mut self, images: &[usize], refusal: Refusal) -> CallError {
        self.staging.refused.extend(images);
        let image = match images {
            &[image] => Some(image),
            _ => None,
        };
        self.deny(image, refusal)
    }

    /// Returns why there can be no plan, where the policy wanted more than its caps allow: what the plan would remove, and
    /// what a cap refused.
    pub(crate) fn over_budget(&self) -> Option<PolicyError> {
        // What a cap refused may be staged all the same, since others were taken back.
        let refused = self.staging.refused.iter().copied();
        let mut refused = refused.filter(|&index| self.images.get(index).staged.is_none()).peekable();
        if self.staging.goal.is_none() {
            refused.peek()?;
        }
        let wanted: Vec<usize> = self.planned().into_iter().chain(refused).collect();
        let total = Total { references: wanted.len() as u64, bytes: self.bytes_of(wanted.iter().copied()) };
        let overruns = self.access.overruns(total, self.images.len() as u64);
        (!overruns.is_empty()).then_some(PolicyError::OverBudget(overruns))
    }

    /// Returns the images that the plan removes, in the order of staging: with a goal, as many as meet it together.
    fn planned(&self) -> Vec<usize> {
        let staged = self.staging.staged(&self.images);
        let (Some(goal), Some(costs)) = (self.staging.goal, &self.costs) else { return staged.collect() };
        let mut removal = Removal::new(Arc::clone(costs.graph()));
        let needed = staged.take_while(|&index| {
            let is_needed = removal.freed().bytes < goal.as_bytes();
            if is_needed {
                removal.remove(index);
            }
            is_needed
        });
        needed.collect()
    }

    /// Sets another goal, for another plan of what was staged.
    pub(crate) fn set_goal(&mut self, goal: ByteSize) {
        self.staging.goal = Some(goal);
    }

    /// Closes the state of the cache. What was read of it is known, and what was staged makes a plan as before; costs have
    /// to be read by then.
    pub(crate) fn close(&mut self) {
        self.source = Box::new(MemoryCache::new([]));
    }

    /// Returns what was staged as a plan of this run: with a goal, as much of it as the goal takes.
    ///
    /// # Errors
    /// [`PolicyError::OverBudget`], also where the policy did not mind being refused; [`PolicyError::Source`] where what
    /// the removals free cannot be read.
    pub(crate) fn plan(&mut self, policy: PlanPolicy, run: &PolicyRun) -> Result<Plan, PolicyError> {
        if let Some(error) = self.over_budget() {
            return Err(error);
        }
        let (bytes, freed) = self.settle()?;
        let entries: Vec<PlanEntry> = self
            .images
            .visible()
            .map(|(index, image)| entry(image, bytes[index], self.staging.goal))
            .collect();
        let removed = entries.iter().filter(|entry| entry.decision == Decision::Remove).count();
        let report = ImagePruneReport {
            image_refs_removed: u32::try_from(removed).unwrap_or(u32::MAX),
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
            goal: run.goal(),
            guard: Some(rights.guard.for_policy()),
            grant: run.grant().cloned(),
            unmatched,
            denials: self.denials.list(),
            log: self.log.clone(),
            ..plan
        })
    }

    /// Returns what each image frees in the order of staging, and all together; nothing for one that stays. With a goal,
    /// those stay that it is met without.
    fn settle(&mut self) -> Result<(Vec<Option<u64>>, Freed), PolicyError> {
        let mut bytes = vec![None; self.images.len()];
        let planned = self.planned();
        if planned.is_empty() {
            return Ok((bytes, Freed::default()));
        }
        match self.read_costs() {
            Err(CallError::Run(error)) => return Err(error),
            Err(CallError::Guest(_)) | Ok(()) => {}
        }
        let graph = self.costs.as_ref().map(|removal| Arc::clone(removal.graph())).unwrap_or_default();
        let mut removal = Removal::new(graph);
        for index in planned {
            bytes[index] = Some(removal.remove(index).bytes);
        }
        Ok((bytes, removal.freed()))
    }
}

/// Returns the decision on an image that frees these bytes, or that stays.
fn entry(image: &Image, bytes: Option<u64>, goal: Option<ByteSize>) -> PlanEntry {
    let handle = &image.record.handle;
    let reason = match (&image.reason, &image.staged, bytes, goal, &image.refused) {
        (_, Some(_), None, Some(goal), _) => format!("the goal of {goal:#} is met without it"),
        (Some(reason), ..) => reason.clone(),
        (None, Some(staged), ..) if staged.by_prune => "nothing uses it".to_owned(),
        (None, Some(_), ..) => "removed by the policy, which gave no reason".to_owned(),
        (None, None, _, _, Some(why)) => {
            let why = match why {
                NotRemovable::Refused(refusal) => refusal.message(Some(image.name())),
                NotRemovable::InUse => "something uses it".to_owned(),
            };
            format!("the policy was not allowed to remove it: {why}")
        }
        (None, None, ..) => "not mentioned by the policy".to_owned(),
    };
    match (image.staged, bytes) {
        (Some(staged), Some(bytes)) => PlanEntry::remove(handle, reason, bytes, staged.force),
        _ => PlanEntry::keep(handle, reason),
    }
}
