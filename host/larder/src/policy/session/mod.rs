//! One run's view of the cache, and what it stages. Knows nothing of WIT: a version of the contract is a translation of
//! these calls (`v0_2`).
//!
//! A session holds one unchanging snapshot. The images are read when it begins (every plan lists them), what they cost
//! when that is first asked for, or at the beginning where a cap or a goal needs it; details one by one. What is staged
//! leaves the view at once and the cache not at all: a session only ever reads. Dropping it undoes everything.
//!
//! Every answer that a policy gets is decided by [`Access`]; what was denied is kept for the operator, each denial
//! once. A call past a cap stages nothing and spoils the whole run, whatever the policy makes of the answer.
//!
//! What the cache takes to read is measured apart ([`Session::reading`]), since it is not the policy's doing. Each image's
//! detail counts so once: who asks for it again pays with its own time.
//!
//! This file has the questions and the bookkeeping, `staging.rs` what changes the view, and `bounds.rs` the limits on what
//! crosses.

pub(super) mod access;
pub(super) mod answers;
mod bounds;
mod denials;
pub(super) mod images;
mod names;
pub(super) mod parameters;
pub(super) mod select;
pub(super) mod staging;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::access::{Access, NotRemovable, Refusal};
use self::answers::{Answer, CallError, Cost, GuestError, Inspected, Usage, unreadable};
use self::bounds::RECORD;
use self::denials::Denials;
use self::images::{Found, Images};
use self::select::{Conditions, Filter, Orders};
use self::staging::Staging;
use crate::error::MicrosandboxResult;
use crate::pattern::ReferencePattern;
use crate::plan::{LogLevel, LogLine, Right};
use crate::policy::error::{PolicyError, cut, is_one_line, one_line};
use crate::policy::grant::Limits;
use crate::policy::limits::LimitKey;
use crate::snapshot::{CacheSnapshot, CostGraph, DiskStatus, ImageHistory, Removal, Sharing};
use crate::units::ByteSize;

/// The longest reason that is kept, in bytes.
const REASON: usize = 512;

/// One run's view of the cache.
pub(crate) struct Session {
    source: Box<dyn CacheSnapshot>,
    pub(crate) access: Access,
    pub(crate) images: Images,
    pub(crate) staging: Staging,
    /// The costs of images, less what is staged. Absent until they are read.
    pub(crate) costs: Option<Removal>,
    /// The files that the images share that the run sees now. Absent until they are asked for.
    pub(crate) sharing: Option<Sharing>,
    history: Option<Vec<ImageHistory>>,
    disk: Option<DiskStatus>,
    denials: Denials,
    /// True once the run has read environment variables.
    pub(crate) has_shown_secrets: bool,
    orders: Orders,
    /// The pattern of the last `select`: pages ask for the same one again and again.
    last_pattern: Option<ReferencePattern>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) log_bytes: u64,
    reason_bytes: u64,
    reading: Duration,
}

impl Session {
    /// Reads the images of a snapshot, and what they cost where a cap or a goal needs that.
    ///
    /// # Errors
    /// [`PolicyError::Source`].
    pub(crate) fn new(
        mut source: Box<dyn CacheSnapshot>,
        access: Access,
        goal: Option<ByteSize>,
    ) -> Result<Self, PolicyError> {
        let failed = |error| PolicyError::Source(Box::new(error));
        let images = Images::new(source.images().map_err(failed)?, &access);
        let needs_costs = access.counts_bytes() || goal.is_some();
        let costs = needs_costs.then(|| source.costs().map(costs)).transpose().map_err(failed)?;
        Ok(Self {
            source,
            access,
            images,
            staging: Staging::new(goal),
            costs,
            sharing: None,
            history: None,
            disk: None,
            denials: Denials::default(),
            has_shown_secrets: false,
            orders: Orders::default(),
            last_pattern: None,
            log: Vec::new(),
            log_bytes: 0,
            reason_bytes: 0,
            reading: Duration::ZERO,
        })
    }

    /// Returns how long the cache took to read since the session began.
    pub(crate) fn reading(&self) -> Duration {
        self.reading
    }

    pub(crate) fn list(&mut self) -> Answer<Vec<usize>> {
        self.handles(self.images.present().map(|(index, _)| index).collect())
    }

    pub(crate) fn get(&mut self, reference: &str) -> Answer<usize> {
        self.find(reference)
    }

    pub(crate) fn inspect(&mut self, reference: &str) -> Answer<Inspected> {
        let index = self.find(reference)?;
        if let Err(refusal) = self.access.may_inspect(self.images.get(index).name()) {
            return Err(self.deny(Some(index), refusal));
        }
        let is_first = !std::mem::replace(&mut self.images.get_mut(index).is_inspected, true);
        let clock = Instant::now();
        let detail = self.source.detail(self.images.get(index).reference());
        if is_first {
            self.reading += clock.elapsed();
        }
        // One image that cannot be read does not end a run over all of them.
        let mut detail = detail.map_err(|error| unreadable(&error))?;
        let shows_env = self.access.sees_secrets();
        if let Some(config) = detail.config.as_mut().filter(|_| !shows_env) {
            config.env.clear();
        }
        self.check_detail(&detail)?;
        self.has_shown_secrets |= detail.config.as_ref().is_some_and(|config| !config.env.is_empty());
        Ok(Inspected { image: index, detail, shows_env })
    }

    pub(crate) fn select(&mut self, filter: Filter) -> Answer<Vec<usize>> {
        let after = match &filter.after {
            Some(after) => {
                self.check_text(after)?;
                let found = self.images.find_place(after);
                Some(self.resolve(after, found)?)
            }
            None => None,
        };
        let conditions = Conditions {
            reference: filter.reference.map(|text| self.pattern(text)).transpose()?,
            unused_since: filter.unused_since,
            arrived_before: filter.arrived_before,
            min_size_bytes: filter.min_size_bytes,
            unused: filter.unused,
        };
        let page = self.orders.page(&self.images, &conditions, filter.order, after, filter.limit);
        self.last_pattern = conditions.reference;
        self.handles(page)
    }

    pub(crate) fn usage(&mut self, references: Option<&[String]>) -> Answer<Vec<Usage>> {
        let asked = self.asked(references)?;
        Ok(asked.into_iter().map(|image| Usage { image, lacks: self.lacks(image) }).collect())
    }

    pub(crate) fn costs(&mut self, references: Option<&[String]>) -> Answer<Vec<Cost>> {
        let asked = self.asked(references)?;
        self.read_costs()?;
        let (Some(removal), images) = (&mut self.costs, &self.images) else { return Ok(Vec::new()) };
        // What is shared with hidden images is not told: a policy cannot find out that those exist.
        let sharing = self.sharing.get_or_insert_with(|| {
            Sharing::new(Arc::clone(removal.graph()), images.present().map(|(index, _)| index))
        });
        let cost = |image| Cost {
            image,
            unique_bytes: removal.would_free([image]).bytes,
            shared_bytes: sharing.shared_bytes(image),
        };
        Ok(asked.into_iter().map(cost).collect())
    }

    pub(crate) fn reclaimable_bytes(&mut self, references: &[String]) -> Answer<u64> {
        let images = self.asked(Some(references))?;
        self.read_costs()?;
        Ok(self.costs.as_mut().map_or(0, |removal| removal.would_free(images).bytes))
    }

    /// Returns the recorded past of images, each beside its number.
    pub(crate) fn history(&mut self, references: Option<&[String]>) -> Answer<Vec<(usize, ImageHistory)>> {
        let asked = self.asked(references)?;
        let history = match self.history.take() {
            Some(history) => history,
            None => self.read(|source| source.history()).map_err(|error| unreadable(&error))?,
        };
        let history = self.history.insert(history);
        let of = |image| (image, history.get(image).cloned().unwrap_or_default());
        Ok(asked.into_iter().map(of).collect())
    }

    pub(crate) fn disk(&mut self) -> Answer<DiskStatus> {
        let disk = match self.disk {
            Some(disk) => disk,
            None => self.read(|source| source.disk()).map_err(|error| unreadable(&error))?,
        };
        Ok(*self.disk.insert(disk))
    }

    pub(crate) fn log(&mut self, level: LogLevel, message: &str) -> Answer<()> {
        self.check_text(message)?;
        let limit = self.limits().log.as_bytes();
        // A line takes room even when it is empty.
        self.log_bytes = self.log_bytes.saturating_add(message.len() as u64 + 1);
        if self.log_bytes > limit {
            return Err(self.past(LimitKey::Log));
        }
        self.log.push(LogLine { level, message: one_line(message) });
        Ok(())
    }

    /// Keeps the reason for an image that the run sees or has staged. Returns false for any other.
    pub(crate) fn explain(&mut self, reference: &str, reason: String) -> Answer<bool> {
        self.check_text(reference)?;
        self.check_text(&reason)?;
        let Found::Image(index) = self.images.find_place(reference) else { return Ok(false) };
        let mut reason = if reason.len() <= REASON && is_one_line(&reason) {
            reason
        } else {
            one_line(cut(&reason, REASON))
        };
        // What replaces a control character is longer than it.
        reason.truncate(cut(&reason, REASON).len());
        let limit = self.limits().reasons.as_bytes();
        let image = self.images.get_mut(index);
        let before = image.reason.as_ref().map_or(0, String::len);
        self.reason_bytes = self.reason_bytes + reason.len() as u64 - before as u64;
        image.reason = Some(reason);
        if self.reason_bytes > limit {
            return Err(self.past(LimitKey::Reasons));
        }
        Ok(true)
    }

    /// Finds an image that the run sees now.
    pub(crate) fn find(&mut self, reference: &str) -> Answer<usize> {
        self.check_text(reference)?;
        let found = self.images.find(reference);
        self.resolve(reference, found)
    }

    /// Records what was refused for the operator and answers the policy.
    pub(crate) fn deny(&mut self, image: Option<usize>, refusal: Refusal) -> CallError {
        let right = refusal.right();
        let is_new = image.is_none_or(|index| self.images.get_mut(index).note_denied(right));
        let name = image.map(|index| self.images.get(index).name());
        if is_new {
            self.denials.record(&refusal, name);
        }
        CallError::Guest(GuestError::Denied { right, image, message: refusal.told(name) })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.access.document().limits
    }

    /// Reads what images cost, unless that is known.
    pub(crate) fn read_costs(&mut self) -> Answer<()> {
        if self.costs.is_none() {
            let graph = self.read(|source| source.costs());
            // There can be no plan without.
            let graph = graph.map_err(|error| CallError::Run(PolicyError::Source(Box::new(error))))?;
            let mut removal = costs(graph);
            for index in self.staging.staged(&self.images) {
                removal.remove(index);
            }
            self.costs = Some(removal);
        }
        Ok(())
    }

    pub(crate) fn resolve(&mut self, reference: &str, found: Found) -> Answer<usize> {
        match found {
            Found::Image(index) => {
                self.images.get_mut(index).is_shown = true;
                Ok(index)
            }
            Found::Hidden(index) => {
                // For the operator alone: the policy gets the answer that an absent image gets.
                let _ = self.deny(Some(index), Refusal::Hidden);
                Err(GuestError::NotFound(reference.to_owned()).into())
            }
            Found::Absent => Err(GuestError::NotFound(reference.to_owned()).into()),
            Found::Invalid(error) => {
                let (text, problem) = (reference.to_owned(), error.problem());
                Err(GuestError::Invalid { text, problem }.into())
            }
        }
    }

    /// Returns the right that the removal of an image would lack now.
    fn lacks(&mut self, index: usize) -> Option<Right> {
        if let Some(right) = self.images.get(index).facts.lacks {
            return Some(right);
        }
        if self.access.counts_repositories()
            && let Err(NotRemovable::Refused(refusal)) =
                self.access.may_remove(&self.images.subject(index), false)
        {
            return Some(refusal.right());
        }
        if self.images.get(index).facts.is_in_use {
            return Some(Right::Force);
        }
        (!self.has_room_for(index)).then_some(Right::Budget)
    }

    /// Returns the images of these references, or all that the run sees now.
    fn asked(&mut self, references: Option<&[String]>) -> Answer<Vec<usize>> {
        let asked: Vec<usize> = match references {
            Some(references) => {
                self.check_list(references.len(), 0)?;
                references.iter().map(|reference| self.find(reference)).collect::<Result<_, _>>()?
            }
            None => self.images.present().map(|(index, _)| index).collect(),
        };
        let bytes = asked.iter().map(|&index| RECORD + self.images.get(index).reference().len());
        self.check_list(asked.len(), bytes.sum())?;
        self.show(&asked);
        Ok(asked)
    }

    fn pattern(&mut self, text: String) -> Answer<ReferencePattern> {
        self.check_text(&text)?;
        match self.last_pattern.take_if(|last| last.as_str() == text) {
            Some(pattern) => Ok(pattern),
            None => text.parse().map_err(|error: crate::pattern::PatternError| {
                let problem = error.problem();
                GuestError::Invalid { text, problem }.into()
            }),
        }
    }

    /// Notes that an answer has these images.
    fn show(&mut self, images: &[usize]) {
        images.iter().for_each(|&index| self.images.get_mut(index).is_shown = true);
    }

    /// Asks the snapshot, and measures how long that takes.
    fn read<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn CacheSnapshot) -> MicrosandboxResult<T>,
    ) -> MicrosandboxResult<T> {
        let clock = Instant::now();
        let answer = ask(&mut *self.source);
        self.reading += clock.elapsed();
        answer
    }
}

fn costs(graph: CostGraph) -> Removal {
    Removal::new(Arc::new(graph))
}
