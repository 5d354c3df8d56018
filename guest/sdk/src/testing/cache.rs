//! The cache in memory: its images, what is staged, and what a test asks for afterwards.

use std::cell::Cell;
use std::collections::HashMap;

use super::ledger::Ledger;
use super::reference::{Reference, normalize};
use super::{FakeImage, select};
use crate::{Budget, Denial, DiskStatus, Error, InvalidReference, Level, Order, Right, Size};

/// The most images that a page has, unless a test sets another number: so few that a policy which does not ask for the
/// next page fails its test.
const PAGE: usize = 3;

/// The longest reason that is kept, in bytes.
const REASON: usize = 512;

/// An image cache in memory, and what a policy did to it.
#[derive(Debug, Clone)]
pub struct FakeCache {
    /// Newest created first, as they are listed.
    pub(super) images: Vec<FakeImage>,
    pub(super) ledger: Ledger,
    pub(super) disk: DiskStatus,
    pub(super) page: usize,
    /// The grant's caps.
    caps: Budget,
    /// Indexes of images whose removal a cap has refused.
    refused: Vec<usize>,
    pub(super) goal_bytes: Option<u64>,
    /// Indexes of images, in the order of their removal.
    staged: Vec<usize>,
    /// For each image.
    is_staged: Vec<bool>,
    by_reference: HashMap<String, usize>,
    reasons: HashMap<usize, String>,
    logs: Vec<(Level, String)>,
    host_calls: Cell<u64>,
}

impl FakeCache {
    /// Makes a cache of these images, on a disk of 1 TiB that has nothing else on it.
    ///
    /// # Panics
    ///
    /// Panics if two images have the same reference.
    pub fn new(images: impl IntoIterator<Item = FakeImage>) -> Self {
        let mut images: Vec<FakeImage> = images.into_iter().collect();
        let mut ledger = Ledger::default();
        for image in &mut images {
            ledger.add(image);
            let layers = &ledger.manifest(image).layers;
            image.handle.layer_count = u32::try_from(layers.len()).unwrap_or(u32::MAX);
            let bytes: u64 = layers.iter().map(|name| ledger.layer_bytes(name)).sum();
            image.complete(bytes);
        }
        images.sort_by(|a, b| select::compare(Order::CreatedNewestFirst, a, b));
        let by_reference: HashMap<_, _> =
            images.iter().enumerate().map(|(index, image)| (image.handle.reference.clone(), index)).collect();
        assert_eq!(by_reference.len(), images.len(), "a reference stands for one image");
        let capacity_bytes = 1 << 40;
        let cache_bytes = ledger.bytes();
        let disk = DiskStatus {
            cache_bytes,
            capacity_bytes,
            available_bytes: capacity_bytes.saturating_sub(cache_bytes),
        };
        Self {
            is_staged: vec![false; images.len()],
            images,
            ledger,
            disk,
            page: PAGE,
            caps: Budget::default(),
            refused: Vec::new(),
            goal_bytes: None,
            staged: Vec::new(),
            by_reference,
            reasons: HashMap::new(),
            logs: Vec::new(),
            host_calls: Cell::new(0),
        }
    }

    /// Puts it on a disk of this size, of which so much is free.
    pub fn on_disk(mut self, capacity: &str, available: &str) -> Self {
        self.disk.capacity_bytes = bytes(capacity);
        self.disk.available_bytes = bytes(available);
        self
    }

    /// Sets the most images that a page has. The default is 3, where a host has 1024.
    pub fn with_page(mut self, images: usize) -> Self {
        self.page = images.max(1);
        self
    }

    /// Caps the number of removals, as `max-removals` of a grant does.
    pub fn with_max_removals(mut self, removals: u32) -> Self {
        self.caps.removals = Some(removals);
        self
    }

    /// Caps the bytes that removals free, as `max-bytes` of a grant does.
    pub fn with_max_bytes(mut self, size: &str) -> Self {
        self.caps.bytes = Some(bytes(size));
        self
    }

    /// Sets the bytes that [`run`](super::run) is to free: of what the policy stages, only the first removals that free
    /// so much together are kept.
    pub fn with_goal(mut self, size: &str) -> Self {
        self.goal_bytes = Some(bytes(size));
        self
    }

    /// Returns the references that were removed, in that order.
    pub fn staged(&self) -> Vec<&str> {
        self.staged.iter().map(|&index| self.images[index].handle.reference.as_str()).collect()
    }

    /// Returns the last reason for an image.
    pub fn reason(&self, reference: &str) -> Option<&str> {
        self.reasons.get(self.by_reference.get(reference)?).map(String::as_str)
    }

    /// Returns what was logged.
    pub fn logs(&self) -> &[(Level, String)] {
        &self.logs
    }

    /// Returns the number of calls that a component would have made to the host.
    pub fn host_calls(&self) -> u64 {
        self.host_calls.get()
    }

    /// Returns one line for each image, newest created first: `remove REFERENCE: REASON` or `keep REFERENCE: REASON`.
    pub fn decisions(&self) -> Vec<String> {
        let line = |(index, image): (usize, &FakeImage)| {
            let verb = if self.is_staged[index] { "remove" } else { "keep" };
            let reason = self.reasons.get(&index).map_or("(no reason given)", String::as_str);
            format!("{verb} {}: {reason}", image.handle.reference)
        };
        self.images.iter().enumerate().map(line).collect()
    }

    /// Undoes what was staged since `before`.
    pub(super) fn undo(&mut self, before: FakeCache) {
        self.ledger = before.ledger;
        self.staged = before.staged;
        self.is_staged = before.is_staged;
    }

    /// Returns the error of a run that wanted more than its caps allow, whatever it made of the refusal.
    pub(super) fn over_budget(&self) -> Option<String> {
        let refused: Vec<usize> =
            self.refused.iter().copied().filter(|&index| !self.is_staged[index]).collect();
        let mut plan = self.clone();
        plan.keep_to_goal();
        let bytes = plan.ledger.freed_so_far().saturating_add(plan.freed_by(&refused));
        let is_over = self.caps.removals.is_some_and(|cap| plan.staged.len() + refused.len() > cap as usize)
            || self.caps.bytes.is_some_and(|cap| bytes > cap);
        is_over.then(|| "the policy wants to remove more than its grant allows".to_owned())
    }

    /// Takes back the removals that the goal does not take.
    pub(super) fn keep_to_goal(&mut self) {
        let Some(goal) = self.goal_bytes else { return };
        let staged = std::mem::take(&mut self.staged);
        for &index in &staged {
            self.is_staged[index] = false;
            self.ledger.restore(&self.images[index]);
        }
        let mut freed = 0;
        for index in staged {
            if freed >= goal {
                self.record_reason(index, "the goal is met without it");
            } else {
                freed += self.stage(index);
            }
        }
    }

    pub(super) fn count_call(&self) {
        self.host_calls.set(self.host_calls.get() + 1);
    }

    pub(super) fn is_in_use(&self, index: usize) -> bool {
        self.ledger.is_in_use(&self.images[index])
    }

    /// Returns the indexes of the images that the run can see now, in the order of the list.
    pub(super) fn visible(&self) -> Vec<usize> {
        (0..self.images.len()).filter(|&index| !self.is_staged[index]).collect()
    }

    /// Finds an image that the run can see now: by the text itself, then by its normalized form.
    pub(super) fn find(&self, reference: &str) -> Result<usize, Error> {
        self.find_if(reference, |index| !self.is_staged[index])
    }

    /// Finds an image, also one that is staged.
    pub(super) fn find_place(&self, reference: &str) -> Result<usize, Error> {
        self.find_if(reference, |_| true)
    }

    fn find_if(&self, text: &str, is_there: impl Fn(usize) -> bool) -> Result<usize, Error> {
        if let Some(&index) = self.by_reference.get(text)
            && is_there(index)
        {
            return Ok(index);
        }
        let Some(reference) = Reference::parse(text) else {
            let problem = "not an image reference".to_owned();
            return Err(Error::InvalidReference(InvalidReference { text: text.to_owned(), problem }));
        };
        let exact = self.by_reference.get(&reference.normalized).copied();
        let same = (0..self.images.len())
            .filter(|&index| normalize(&self.images[index].handle.reference) == reference.normalized);
        let found = exact.into_iter().chain(same).find(|&index| is_there(index));
        found.ok_or_else(|| Error::ImageNotFound(text.to_owned()))
    }

    /// Returns the right that a removal would lack. An image in use lacks [`Right::Force`] without `force`.
    pub(super) fn lacks(&self, index: usize, force: bool) -> Option<Right> {
        let image = &self.images[index];
        let refused = image.refused.filter(|right| matches!(right, Right::Remove | Right::Protected));
        let refused = refused.or(image.pinned.then_some(Right::Protected));
        let is_forced = force && image.refused != Some(Right::Force);
        let in_use = (self.is_in_use(index) && !is_forced).then_some(Right::Force);
        refused.or(in_use).or(self.is_past_caps(&[index]).then_some(Right::Budget))
    }

    /// Tells whether a cap refuses these. What is staged once the goal is met is not in the plan, and counts for none.
    fn is_past_caps(&self, more: &[usize]) -> bool {
        let meets =
            |goal: u64, count: usize| self.ledger.freed_so_far() + self.freed_by(&more[..count]) >= goal;
        let in_plan = self.goal_bytes.and_then(|goal| (0..more.len()).find(|&count| meets(goal, count)));
        let more = &more[..in_plan.unwrap_or(more.len())];
        let left = self.budget();
        !more.is_empty()
            && (left.removals.is_some_and(|removals| more.len() > removals as usize)
                || left.bytes.is_some_and(|left| self.freed_by(more) > left))
    }

    /// Returns the bytes that the removal of these images together would free now.
    fn freed_by(&self, images: &[usize]) -> u64 {
        self.ledger.freed(images.iter().map(|&index| &self.images[index])).bytes
    }

    pub(super) fn budget(&self) -> Budget {
        let removals = u32::try_from(self.staged.len()).unwrap_or(u32::MAX);
        Budget {
            removals: self.caps.removals.map(|cap| cap.saturating_sub(removals)),
            bytes: self.caps.bytes.map(|cap| cap.saturating_sub(self.ledger.freed_so_far())),
        }
    }

    pub(super) fn deny(&self, right: Right, index: Option<usize>) -> Error {
        let reference = index.map(|index| self.images[index].handle.reference.clone());
        let message = match &reference {
            Some(reference) => format!("`{reference}`: {}", right.obstacle()),
            None => right.obstacle().to_owned(),
        };
        Error::Denied(Denial { right, reference, message })
    }

    /// Stages images, or none of them if a cap refuses.
    pub(super) fn stage_all(&mut self, indexes: &[usize]) -> Result<(), Error> {
        if self.is_past_caps(indexes) {
            self.refused.extend(indexes);
            self.refused.sort_unstable();
            self.refused.dedup();
            let only = if let &[index] = indexes { Some(index) } else { None };
            return Err(self.deny(Right::Budget, only));
        }
        for &index in indexes {
            self.stage(index);
        }
        Ok(())
    }

    /// Stages an image. Returns the bytes that this frees.
    fn stage(&mut self, index: usize) -> u64 {
        self.staged.push(index);
        self.is_staged[index] = true;
        self.ledger.remove(&self.images[index])
    }

    /// Takes back a removal.
    pub(super) fn unstage(&mut self, reference: &str) -> Result<(), Error> {
        let index = self.find_if(reference, |index| self.is_staged[index])?;
        self.staged.retain(|staged| *staged != index);
        self.is_staged[index] = false;
        self.ledger.restore(&self.images[index]);
        Ok(())
    }

    pub(super) fn record_log(&mut self, level: Level, message: &str) {
        self.logs.push((level, message.to_owned()));
    }

    pub(super) fn record_reason(&mut self, index: usize, reason: &str) {
        let mut end = REASON.min(reason.len());
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.reasons.insert(index, reason[..end].to_owned());
    }
}

fn bytes(size: &str) -> u64 {
    size.parse::<Size>().unwrap_or_else(|error| panic!("{error}")).bytes()
}
