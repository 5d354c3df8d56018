//! The waits between tries.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The number and times of the retries of a request: after a broken connection, on 429 (too many requests), and on
/// faults of the server (5xx). Each wait is twice as long as the one before, less a random part, so that many clients
/// do not come back at once. The count starts again when some bytes of a blob arrive.
///
/// A registry that asks for a time (`Retry-After`) gets it instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The number of retries: 5.
    pub retries: u32,
    /// The length of the first wait: half a second.
    pub first_wait: Duration,
    /// The maximum length of a wait: 30 seconds.
    pub longest_wait: Duration,
    /// The maximum length of a wait that a registry asks for: 5 minutes.
    pub longest_requested_wait: Duration,
    /// The time without a byte after which a connection counts as broken: a minute.
    pub longest_silence: Duration,
    /// The part of a wait that is random, in percent: 25. A wait is at most so much shorter.
    pub jitter_percent: u8,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            retries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            longest_requested_wait: Duration::from_secs(300),
            longest_silence: Duration::from_secs(60),
            jitter_percent: 25,
        }
    }
}

impl Backoff {
    /// Returns the waits between tries.
    pub(crate) fn waits(self) -> Waits {
        Waits { backoff: self, left: self.retries, next: self.first_wait }
    }
}

/// The waits that are left.
#[derive(Debug)]
pub(crate) struct Waits {
    backoff: Backoff,
    left: u32,
    next: Duration,
}

impl Waits {
    /// Returns the next wait, or `None` if there were enough. `requested` is the time that the registry asks for.
    pub(crate) fn next(&mut self, requested: Option<Duration>) -> Option<Duration> {
        // The seed of a hasher is the standard library's only random number.
        self.next_with(requested, || RandomState::new().hash_one(0))
    }

    fn next_with(&mut self, requested: Option<Duration>, random: impl FnOnce() -> u64) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let wait = self.next.min(self.backoff.longest_wait);
        self.next = self.next.saturating_mul(2);
        if let Some(requested) = requested {
            return Some(requested.min(self.backoff.longest_requested_wait));
        }
        let random_part = wait / 100 * u32::from(self.backoff.jitter_percent.min(100));
        let part = u32::try_from(random() % 1024).unwrap_or_default();
        Some(wait - random_part / 1024 * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(waits: &mut Waits, random: u64) -> Vec<Duration> {
        std::iter::from_fn(|| waits.next_with(None, || random)).collect()
    }

    /// Waits double up to the longest, and end after the tries. A random part is left out of each, up to the set
    /// percentage.
    #[test]
    fn waits_double() {
        let backoff = Backoff {
            retries: 4,
            first_wait: Duration::from_secs(10),
            longest_wait: Duration::from_secs(30),
            ..Backoff::default()
        };
        let all = [10, 20, 30, 30].map(Duration::from_secs);
        assert_eq!(seconds(&mut backoff.waits(), 0), all);
        for (wait, full) in seconds(&mut backoff.waits(), 1023).into_iter().zip(all) {
            assert!(wait >= full * 3 / 4 && wait < full * 4 / 5, "{wait:?}");
        }
        let exact = Backoff { jitter_percent: 0, ..backoff };
        assert_eq!(seconds(&mut exact.waits(), 1023), all);
        let endless = Backoff { first_wait: Duration::MAX, longest_wait: Duration::MAX, ..backoff };
        assert!(seconds(&mut endless.waits(), 1023).iter().all(|wait| *wait > Duration::MAX / 2));
        let odd = Backoff { jitter_percent: 255, ..backoff };
        assert!(seconds(&mut odd.waits(), 1023).iter().all(|wait| *wait < Duration::from_secs(1)));
    }

    /// The time that a registry asks for is waited, also none, up to a limit, and counts as one of the tries.
    #[test]
    fn requested_waits() {
        let mut waits = Backoff { retries: 3, ..Backoff::default() }.waits();
        assert_eq!(waits.next(Some(Duration::from_secs(40))), Some(Duration::from_secs(40)));
        assert_eq!(waits.next(Some(Duration::ZERO)), Some(Duration::ZERO));
        assert_eq!(waits.next(Some(Duration::MAX)), Some(Duration::from_secs(300)));
        assert_eq!(waits.next(Some(Duration::ZERO)), None);
    }
}
