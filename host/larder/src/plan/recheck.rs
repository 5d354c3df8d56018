//! What a plan says was allowed, looked at again as things are when it is applied.
//!
//! The guard of the home as it is now, the guards that the plan was made under, and the caps of its own grant are asked
//! about every image in the transaction that removes it, and before anything goes about all of them together, where how
//! many go matters. What they keep is spared. A removal by name stands above all that, and a repair removes no images.
//!
//! Where not all images of a plan may go, because a repository would be left with too few or the plan would take too large
//! a share of the cache, the oldest go and the newest are spared.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::document::Plan;
use super::guard::{self, Candidate};
use crate::catalog::remove::{self, LiveRef};
use crate::catalog::roots;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::policy::Grant;
use crate::records::{Guard, Maker};
use crate::reference::Reference;
use crate::store::Store;
use crate::store::removal::{SpareReason, SparedImage, Target, Veto, reason_to_spare};

/// The guards and the grant of a plan that is being applied.
#[derive(Clone)]
pub(super) struct Recheck {
    store: Arc<Store>,
    made_by: Maker,
    /// What stayed when it was made.
    guard: Guard,
    grant: Option<Grant>,
}

/// The images of a plan that may go, and those that are spared before anything goes.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) targets: Vec<Target>,
    pub(super) spared: Vec<SparedImage>,
}

/// What a removal has come to, as far as caps and guards count it.
struct Tally<'a> {
    guard: &'a Guard,
    now: chrono::DateTime<chrono::Utc>,
    /// References that each repository has left.
    left: HashMap<String, u32>,
    /// Allocated bytes that may be freed, and those that are.
    max_bytes: Option<u64>,
    freed: u64,
    /// References that may still go, with the clause that says why no more.
    share: Option<(u64, String)>,
}

impl Recheck {
    pub(super) fn new(store: &Arc<Store>, plan: &Plan) -> Self {
        let grant = plan.grant.as_ref();
        let guards = plan.guard.iter().chain(grant.map(|document| &document.guard));
        Self {
            store: Arc::clone(store),
            made_by: plan.made_by,
            guard: guards.fold(Guard::default(), Guard::and),
            grant: grant.map(|document| document.grant.clone()),
        }
    }

    /// Returns every guard together, that of the home as it is now.
    fn guard_now(&self) -> MicrosandboxResult<Guard> {
        let guard = guard::of_home(&self.store)?.and(&self.guard);
        Ok(if self.made_by == Maker::Policy { guard.for_policy() } else { guard })
    }

    /// Returns whether anything may stand in the way of this plan.
    fn applies(&self) -> bool {
        matches!(self.made_by, Maker::Policy | Maker::Prune)
    }

    /// Chooses among all images of a plan, of which `gone` are gone already. What stays for another reason is left to the
    /// transaction that finds it out.
    ///
    /// # Errors
    /// Where the guard of the home cannot be understood, or the index not be read.
    pub(super) fn choose(
        &self,
        connection: &Connection,
        targets: Vec<Target>,
        gone: usize,
    ) -> MicrosandboxResult<Chosen> {
        if !self.applies() {
            return Ok(Chosen { targets, spared: Vec::new() });
        }
        let db = || MicrosandboxError::db("look at the images again");
        let guard = self.guard_now()?;
        let share = self.grant.as_ref().and_then(|grant| grant.max_share);
        // Whatever else keeps an image, the others have no part in it: the transaction that removes it finds that out.
        if guard.keep == 0 && share.is_none() {
            return Ok(Chosen { targets, spared: Vec::new() });
        }
        roots::refresh(connection).map_err(db())?;
        let live = remove::live_refs(connection, targets.iter().map(|target| &target.row)).map_err(db())?;
        let share = share.map(|share| -> MicrosandboxResult<_> {
            let total = remove::count_references(connection).map_err(db())? + gone as u64;
            let granted = share.of(total);
            let clause = format!("`max-share` is {share} ({granted} of {total} references)");
            Ok((granted.saturating_sub(gone as u64), clause))
        });
        let mut tally = Tally { share: share.transpose()?, ..self.tally(&guard, None) };
        tally.count(connection, &targets, u32::MAX)?;
        let mut stays = vec![None; targets.len()];
        let arrivals = targets.iter().map(|target| live.get(&target.row.id).and_then(|now| now.arrived_at));
        for place in guard::oldest_first(arrivals) {
            let target = &targets[place];
            let Some(now) = live.get(&target.row.id) else { continue };
            if reason_to_spare(connection, target, now).map_err(db())?.is_none() {
                stays[place] = tally.take(target, now);
            }
        }
        let mut chosen = Chosen::default();
        for (target, stays) in targets.into_iter().zip(stays) {
            match stays {
                Some(reason) => chosen.spared.push(SparedImage::of(&target, reason)),
                None => chosen.targets.push(target),
            }
        }
        Ok(chosen)
    }

    fn tally<'a>(&self, guard: &'a Guard, freed: Option<u64>) -> Tally<'a> {
        // Before anything is freed, the plan's own sum is within its cap.
        let max_bytes = freed.and(self.grant.as_ref()).and_then(|grant| grant.max_bytes);
        Tally {
            guard,
            now: self.store.now(),
            left: HashMap::new(),
            max_bytes: max_bytes.map(|size| size.as_bytes()),
            freed: freed.unwrap_or_default(),
            share: None,
        }
    }
}

impl Veto for Recheck {
    fn veto(
        &self,
        connection: &Connection,
        images: &[(&Target, &LiveRef)],
        freed: u64,
    ) -> MicrosandboxResult<Vec<Option<SpareReason>>> {
        if !self.applies() {
            return Ok(vec![None; images.len()]);
        }
        let guard = self.guard_now()?;
        let mut tally = self.tally(&guard, Some(freed));
        if guard.is_empty() && tally.max_bytes.is_none() {
            return Ok(vec![None; images.len()]);
        }
        // No more has to be known than whether enough are left.
        let enough = guard.keep.saturating_add(u32::try_from(images.len()).unwrap_or(u32::MAX));
        tally.count(connection, images.iter().map(|(target, _)| *target), enough)?;
        let mut vetoes = vec![None; images.len()];
        for place in guard::oldest_first(images.iter().map(|(_, now)| now.arrived_at)) {
            let (target, now) = images[place];
            vetoes[place] = tally.take(target, now);
        }
        Ok(vetoes)
    }
}

impl Tally<'_> {
    /// Counts what the repositories of these images have, as far as a guard asks for it, up to `at_most`.
    fn count<'t>(
        &mut self,
        connection: &Connection,
        targets: impl IntoIterator<Item = &'t Target>,
        at_most: u32,
    ) -> MicrosandboxResult<()> {
        if self.guard.keep == 0 {
            return Ok(());
        }
        for reference in targets.into_iter().filter_map(|target| target.row.parsed.as_ref()) {
            if !self.left.contains_key(reference.repository()) {
                let left = remove::count_repository(connection, reference, at_most)
                    .map_err(MicrosandboxError::db("count the references of a repository"))?;
                self.left.insert(reference.repository().to_owned(), left);
            }
        }
        Ok(())
    }

    /// Takes an image, or returns why it stays.
    fn take(&mut self, target: &Target, now: &LiveRef) -> Option<SpareReason> {
        let reference = target.row.parsed.as_ref();
        let left = reference.map(Reference::repository).and_then(|repository| self.left.get_mut(repository));
        let candidate = Candidate {
            text: target.row.handle.reference(),
            reference,
            arrived_at: now.arrived_at,
            last_used_at: now.expected.last_used_at,
            left_in_repository: left.as_deref().copied(),
        };
        if let Some(protection) = self.guard.protection(&candidate, self.now) {
            return Some(SpareReason::Guarded(protection.to_string()));
        }
        let freed = self.freed.saturating_add(target.bytes);
        if let Some(max_bytes) = self.max_bytes.filter(|&max_bytes| freed > max_bytes) {
            let max_bytes = crate::units::ByteSize::bytes(max_bytes);
            let clause = format!("`max-bytes` is {max_bytes}, and more would be freed with this");
            return Some(SpareReason::Guarded(clause));
        }
        match &mut self.share {
            Some((0, clause)) => return Some(SpareReason::Guarded(clause.clone())),
            Some((references, _)) => *references -= 1,
            None => {}
        }
        self.freed = freed;
        left.into_iter().for_each(|left| *left -= 1);
        None
    }
}
