//! The one place that decides what a guard keeps.
//!
//! It is asked when a policy stages a removal, when a prune is planned, and again when a plan is applied, in the
//! transaction that removes. Each time it is asked about an image as it is then.
//!
//! Where something is not known, the image stays: one of unknown age counts as young, and a clock that cannot be
//! subtracted from makes every image young.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;
use crate::pattern::ReferencePattern;
use crate::records::Guard;
use crate::reference::Reference;
use crate::store::Store;
use crate::units::format_duration;

/// An image that is to go, as far as a guard looks at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// As it stands in the index.
    pub(crate) text: &'a str,
    /// What that means; there are texts in the index that are no references.
    pub(crate) reference: Option<&'a Reference>,
    pub(crate) arrived_at: Option<DateTime<Utc>>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
    /// References that its repository has before this one goes; absent where it has no repository.
    pub(crate) left_in_repository: Option<u32>,
}

/// Why a guard keeps an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protection {
    /// It is protected by name.
    Named(ReferencePattern),
    /// It came in, or was used, less than this ago.
    Young(Duration),
    /// It came in at an unknown time.
    OfUnknownAge(Duration),
    /// Its repository would be left with fewer references than these.
    OneOfTheLast(u32),
}

impl fmt::Display for Protection {
    /// As a clause about the image, such as "it is younger than 1h".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(pattern) => write!(f, "`{pattern}` is protected"),
            Self::Young(age) => write!(f, "it is younger than {}", format_duration(*age)),
            Self::OfUnknownAge(age) => {
                write!(f, "nobody knows whether it is older than {}", format_duration(*age))
            }
            Self::OneOfTheLast(1) => f.write_str("its repository would be left without any reference"),
            Self::OneOfTheLast(keep) => {
                write!(f, "its repository would be left with fewer than {keep} references")
            }
        }
    }
}

impl Protection {
    /// Names what would have to be changed.
    #[cfg(feature = "policy")]
    pub(crate) fn allowed_by(&self) -> String {
        match self {
            Self::Named(pattern) => format!("`protect` in `[guard]` without `{pattern}`"),
            Self::Young(_) | Self::OfUnknownAge(_) => "a lower `min-age` in `[guard]`".to_owned(),
            Self::OneOfTheLast(_) => "a lower `keep` in `[guard]`".to_owned(),
        }
    }
}

/// Returns the places of images in the order in which they go where a repository keeps its newest: the oldest arrival
/// first. Of one time, what is listed last goes first; what came in at an unknown time goes last.
pub(crate) fn oldest_first(
    arrivals: impl DoubleEndedIterator<Item = Option<DateTime<Utc>>> + ExactSizeIterator,
) -> Vec<usize> {
    let mut places: Vec<_> = arrivals.enumerate().rev().collect();
    places.sort_by_key(|&(_, arrived_at)| arrived_at.unwrap_or(DateTime::<Utc>::MAX_UTC));
    places.into_iter().map(|(place, _)| place).collect()
}

impl Guard {
    /// Returns why an image stays; none where it may go.
    pub(crate) fn protection(&self, image: &Candidate<'_>, now: DateTime<Utc>) -> Option<Protection> {
        let named = |pattern: &&ReferencePattern| {
            pattern.is_everything() || pattern.matches_text(image.text, image.reference)
        };
        if let Some(pattern) = self.protect.iter().find(named) {
            return Some(Protection::Named(pattern.clone()));
        }
        if let Some(age) = self.min_age.filter(|age| !age.is_zero()) {
            let oldest_young = TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age));
            match (image.arrived_at, oldest_young) {
                (None, _) => return Some(Protection::OfUnknownAge(age)),
                (arrived_at, Some(oldest)) if arrived_at.max(image.last_used_at) <= Some(oldest) => {}
                (Some(_), _) => return Some(Protection::Young(age)),
            }
        }
        let is_one_of_the_last = image.left_in_repository.is_some_and(|left| left <= self.keep);
        is_one_of_the_last.then_some(Protection::OneOfTheLast(self.keep))
    }
}

impl LocalBackend {
    /// Returns the guard of this home: what `HOME/larder.toml` says now and what the builder of this backend adds.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::MicrosandboxError::InvalidConfig) with line and key where the file cannot be understood,
    /// and where it cannot be read.
    pub async fn guard(&self) -> MicrosandboxResult<Guard> {
        let store = Arc::clone(self.store());
        blocking("read the guard of a home", move || of_home(&store)).await
    }
}

/// Reads the guard of a home: what the operator wrote, and what the embedder adds.
pub(crate) fn of_home(store: &Store) -> MicrosandboxResult<Guard> {
    let written = crate::home::guard::read(store.catalog().paths())?;
    Ok(written.and(store.guard()))
}
