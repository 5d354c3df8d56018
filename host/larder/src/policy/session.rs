//! One run's view of the cache, and what it stages.
//!
//! A session holds one unchanging state. The images are read when it begins (every plan lists them), what they cost
//! when that is first asked for, details one by one. What is staged leaves the view at once and the cache not at all:
//! a session only ever reads. Dropping it undoes everything.
//!
//! Every answer that a policy gets is decided by [`Access`]; what was denied is kept for the operator, each denial
//! once. A call past a cap stages nothing and spoils the whole run, whatever the policy makes of the answer.
//!
//! This file has the questions and the bookkeeping, `staging.rs` what changes the view.

use std::collections::HashSet;

use super::access::{Access, Refusal, Total};
use super::bindings::{images as wit, report, types, usage};
use super::convert;
use super::error::{LimitKey, PolicyError, one_line};
use super::grant::Limits;
use super::images::{Found, Images};
use super::select::{Conditions, Orders};
use super::staging::{Costs, Wanted};
use crate::pattern::ReferencePattern;
use crate::plan::{Denial, LogLine, Right};
use crate::snapshot::CacheSnapshot;

/// Why a call gives no result.
#[derive(Debug)]
pub(super) enum Stop {
    /// The policy is told, and goes on.
    Answer(types::Error),
    /// The run ends.
    End(PolicyError),
}

/// What a call gives.
pub(super) type Answer<T> = Result<T, Stop>;

impl From<types::Error> for Stop {
    fn from(error: types::Error) -> Self {
        Self::Answer(error)
    }
}

/// One run's view of the cache.
pub(super) struct Session {
    pub(super) source: Box<dyn CacheSnapshot>,
    pub(super) access: Access,
    pub(super) images: Images,
    pub(super) costs: Costs,
    pub(super) staged: Total,
    /// What the run would have staged without its caps; there once a cap has refused something.
    pub(super) wanted: Option<Wanted>,
    pub(super) denials: Vec<Denial>,
    denied: HashSet<(Right, Option<usize>)>,
    orders: Orders,
    /// The pattern of the last `select`: pages ask for the same one again and again.
    last_pattern: Option<ReferencePattern>,
    pub(super) log: Vec<LogLine>,
    pub(super) log_bytes: u64,
    reason_bytes: u64,
}

impl Session {
    /// Reads the images of a state.
    pub(super) fn new(mut source: Box<dyn CacheSnapshot>, access: Access) -> Result<Self, PolicyError> {
        let images = source.images().map_err(|error| PolicyError::Source(Box::new(error)))?;
        Ok(Self {
            images: Images::new(images, &access),
            source,
            access,
            costs: Costs::default(),
            staged: Total::default(),
            wanted: None,
            denials: Vec::new(),
            denied: HashSet::new(),
            orders: Orders::default(),
            last_pattern: None,
            log: Vec::new(),
            log_bytes: 0,
            reason_bytes: 0,
        })
    }

    pub(super) fn list(&mut self) -> Answer<Vec<types::ImageHandle>> {
        self.handles(self.images.present().map(|(index, _)| index).collect())
    }

    pub(super) fn get(&mut self, reference: &str) -> Answer<types::ImageHandle> {
        let index = self.find(reference)?;
        Ok(convert::handle(&self.images.get(index).state.handle))
    }

    pub(super) fn inspect(&mut self, reference: &str) -> Answer<types::ImageDetail> {
        let index = self.find(reference)?;
        if let Err(refusal) = self.access.may_inspect(self.images.get(index).name()) {
            return Err(self.deny(Some(index), refusal));
        }
        self.images.get_mut(index).inspected = true;
        let detail = self.source.detail(self.images.get(index).reference());
        // One image that cannot be read does not end a run over all of them.
        let detail = detail.map_err(|error| types::Error::Other(chain(&error)))?;
        let detail = convert::detail(detail, self.access.sees_secrets());
        let cargo = convert::detail_cargo(&detail);
        if cargo.longest_text as u64 > self.limits().string.as_bytes() {
            return Err(self.past(LimitKey::String));
        }
        self.carries(cargo.longest_list, cargo.bytes)?;
        Ok(detail)
    }

    pub(super) fn select(&mut self, filter: wit::ImageFilter) -> Answer<Vec<types::ImageHandle>> {
        let instant = |time: Option<types::Datetime>| match time.map(convert::instant) {
            Some(None) => Err(types::Error::Other("the filter has an instant that is not one".to_owned())),
            time => Ok(time.flatten()),
        };
        let after = filter.after.as_deref().map(|after| {
            self.takes(after)?;
            let found = self.images.find_place(after);
            self.resolve(after, found)
        });
        let conditions = Conditions {
            reference: filter.reference.map(|text| self.pattern(text)).transpose()?,
            unused_since: instant(filter.unused_since)?,
            created_before: instant(filter.created_before)?,
            min_size_bytes: filter.min_size_bytes,
            unused: filter.unused,
        };
        let order = convert::order(filter.order);
        let page = self.orders.page(&self.images, &conditions, order, after.transpose()?, filter.limit);
        self.last_pattern = conditions.reference;
        self.handles(page)
    }

    pub(super) fn list_usage(&mut self) -> Answer<Vec<usage::ImageUsage>> {
        let present: Vec<_> = self.images.present().map(|(index, _)| index).collect();
        let bytes =
            present.iter().map(|&index| convert::RECORD_BYTES + self.images.get(index).reference().len());
        self.carries(present.len(), bytes.sum())?;
        present.into_iter().map(|index| self.usage(index)).collect()
    }

    pub(super) fn get_usage(&mut self, reference: &str) -> Answer<usage::ImageUsage> {
        let index = self.find(reference)?;
        self.usage(index)
    }

    pub(super) fn reclaimable_bytes(&mut self, references: &[String]) -> Answer<u64> {
        self.carries(references.len(), 0)?;
        let images: Vec<_> =
            references.iter().map(|reference| self.find(reference)).collect::<Result<_, _>>()?;
        let removal = self.costs.get(&mut *self.source)?;
        Ok(removal.would_free(images).bytes)
    }

    pub(super) fn disk(&mut self) -> Answer<usage::DiskStatus> {
        let disk = self.source.disk().map_err(|error| types::Error::Other(chain(&error)))?;
        Ok(usage::DiskStatus {
            cache_bytes: disk.cache_bytes,
            capacity_bytes: disk.capacity_bytes,
            available_bytes: disk.available_bytes,
        })
    }

    pub(super) fn log(&mut self, level: report::Level, message: &str) -> Answer<()> {
        self.takes(message)?;
        let limit = self.limits().log.as_bytes();
        // A line takes room even when it is empty.
        self.log_bytes = self.log_bytes.saturating_add(message.len() as u64 + 1);
        if self.log_bytes > limit {
            return Err(self.past(LimitKey::Log));
        }
        self.log.push(LogLine { level: convert::level(level), message: one_line(message) });
        Ok(())
    }

    /// Keeps the reason for an image that the run sees or has staged; there is nobody to tell about any other.
    pub(super) fn explain(&mut self, reference: &str, reason: &str) -> Answer<()> {
        self.takes(reference)?;
        self.takes(reason)?;
        let Found::Image(index) = self.images.find_place(reference) else { return Ok(()) };
        let reason = one_line(reason);
        let before = self.images.get(index).reason.as_ref().map_or(0, String::len);
        self.reason_bytes = self.reason_bytes + reason.len() as u64 - before as u64;
        if self.reason_bytes > self.limits().reasons.as_bytes() {
            return Err(self.past(LimitKey::Reasons));
        }
        self.images.get_mut(index).reason = Some(reason);
        Ok(())
    }

    /// Finds an image that the run can see now.
    pub(super) fn find(&mut self, reference: &str) -> Answer<usize> {
        self.takes(reference)?;
        let found = self.images.find(reference);
        self.resolve(reference, found)
    }

    /// Notes what was refused for the operator and answers the policy.
    pub(super) fn deny(&mut self, image: Option<usize>, refusal: Refusal) -> Stop {
        let Refusal { right, message, allowed_by } = refusal;
        let reference = image.map(|index| self.images.get(index).reference().to_owned());
        if self.denied.insert((right, image)) {
            let (reference, message) = (reference.clone(), message.clone());
            self.denials.push(Denial { right, reference, message, allowed_by });
        }
        Stop::Answer(types::Error::Denied(types::Denial { right: convert::right(right), reference, message }))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.access.document().limits
    }

    /// The end of a run that went past a limit.
    pub(super) fn past(&self, key: LimitKey) -> Stop {
        Stop::End(PolicyError::limit(key, self.limits()))
    }

    fn resolve(&mut self, reference: &str, found: Found) -> Answer<usize> {
        match found {
            Found::Image(index) => Ok(index),
            Found::Hidden(index) => {
                let refusal = self.access.hidden(self.images.get(index).name());
                // For the operator alone: the policy gets the answer that an absent image gets.
                let _ = self.deny(Some(index), refusal);
                Err(types::Error::ImageNotFound(reference.to_owned()).into())
            }
            Found::Absent => Err(types::Error::ImageNotFound(reference.to_owned()).into()),
            Found::Invalid(error) => Err(types::Error::InvalidReference(error.to_string()).into()),
        }
    }

    fn pattern(&mut self, text: String) -> Answer<ReferencePattern> {
        self.takes(&text)?;
        match self.last_pattern.take_if(|last| last.as_str() == text) {
            Some(pattern) => Ok(pattern),
            None => {
                text.parse().map_err(|error| Stop::Answer(types::Error::InvalidReference(format!("{error}"))))
            }
        }
    }

    fn handles(&self, images: Vec<usize>) -> Answer<Vec<types::ImageHandle>> {
        let handle = |&index: &usize| &self.images.get(index).state.handle;
        self.carries(images.len(), images.iter().map(|index| convert::handle_bytes(handle(index))).sum())?;
        Ok(images.iter().map(|index| convert::handle(handle(index))).collect())
    }

    fn usage(&mut self, index: usize) -> Answer<usage::ImageUsage> {
        let unique_bytes = self.costs.get(&mut *self.source)?.would_free([index]).bytes;
        let shared_bytes = self.costs.sharing(&mut *self.source, &self.images)?.shared_bytes(index);
        let state = &self.images.get(index).state;
        let count = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
        Ok(usage::ImageUsage {
            reference: state.handle.reference.clone(),
            sandboxes: count(&state.users.sandboxes),
            snapshots: count(&state.users.snapshots),
            pinned: state.pinned,
            origin: convert::origin(state.origin),
            unique_bytes,
            shared_bytes,
        })
    }

    /// Whether a text that the policy hands over is short enough.
    fn takes(&self, text: &str) -> Answer<()> {
        if text.len() as u64 > self.limits().string.as_bytes() {
            Err(self.past(LimitKey::String))
        } else {
            Ok(())
        }
    }

    /// Whether a list that crosses is short enough.
    fn carries(&self, elements: usize, bytes: usize) -> Answer<()> {
        if elements as u64 > u64::from(self.limits().list) {
            return Err(self.past(LimitKey::List));
        }
        if bytes as u64 > self.limits().transfer.as_bytes() {
            return Err(self.past(LimitKey::Transfer));
        }
        Ok(())
    }
}

/// An error and its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    one_line(&text)
}
