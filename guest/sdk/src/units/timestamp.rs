//! Instants.

use std::time::Duration;

use super::Age;

/// An instant in UTC, to the nanosecond.
///
/// There is no clock here: now is what the host says it is, so that a run can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

const NANOSECONDS: u32 = 1_000_000_000;

impl Timestamp {
    /// So many whole seconds since 1970-01-01T00:00:00Z (negative before it), and nanoseconds past them.
    ///
    /// None for a thousand million nanoseconds or more.
    pub const fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        if nanoseconds < NANOSECONDS { Some(Self { seconds, nanoseconds }) } else { None }
    }

    /// Whole seconds since 1970-01-01T00:00:00Z; negative before it.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds past [`seconds`](Self::seconds), below 1 000 000 000.
    pub const fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// How long ago this instant is, seen from `now`; none if it lies in the future.
    pub fn age(self, now: Timestamp) -> Option<Age> {
        let nanoseconds = i64::from(now.nanoseconds) - i64::from(self.nanoseconds);
        let borrow = i128::from(nanoseconds < 0);
        let seconds = i128::from(now.seconds) - i128::from(self.seconds) - borrow;
        let seconds = u64::try_from(seconds).ok()?;
        let nanoseconds = u32::try_from(nanoseconds.rem_euclid(i64::from(NANOSECONDS))).ok()?;
        Some(Duration::new(seconds, nanoseconds).into())
    }

    /// [`age`](Self::age) in words: `12d ago`, or `in the future`.
    pub fn ago(self, now: Timestamp) -> String {
        match self.age(now) {
            None => String::from("in the future"),
            Some(age) => format!("{age} ago"),
        }
    }

    /// The instant so long before this one; none where it cannot be written.
    pub fn checked_sub(self, age: Age) -> Option<Self> {
        let age = age.as_duration();
        let nanoseconds = i64::from(self.nanoseconds) - i64::from(age.subsec_nanos());
        let borrow = i64::from(nanoseconds < 0);
        let seconds = self.seconds.checked_sub_unsigned(age.as_secs())?.checked_sub(borrow)?;
        Self::new(seconds, u32::try_from(nanoseconds.rem_euclid(i64::from(NANOSECONDS))).ok()?)
    }

    /// The instant so long after this one; none where it cannot be written.
    pub fn checked_add(self, age: Age) -> Option<Self> {
        let age = age.as_duration();
        // Two counts below 10⁹ each: the sum fits.
        let nanoseconds = self.nanoseconds + age.subsec_nanos();
        let carry = i64::from(nanoseconds / NANOSECONDS);
        let seconds = self.seconds.checked_add_unsigned(age.as_secs())?.checked_add(carry)?;
        Self::new(seconds, nanoseconds % NANOSECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp::new(seconds, nanoseconds).unwrap()
    }

    fn age(seconds: u64, nanoseconds: u32) -> Age {
        Duration::new(seconds, nanoseconds).into()
    }

    /// An age is exact to the nanosecond, on both sides of 1970, and there is none for the future.
    #[test]
    fn ages() {
        let now = at(1_000, 500);
        assert_eq!(at(1_000, 500).age(now), Some(Age::ZERO));
        assert_eq!(at(999, 600).age(now), Some(age(0, 999_999_900)));
        assert_eq!(at(-1, 0).age(now), Some(age(1_001, 500)));
        assert_eq!(at(1_000, 501).age(now), None);
        assert_eq!(at(i64::MIN, 0).age(at(i64::MAX, 0)), Some(age(u64::MAX, 0)));
        assert_eq!(at(1_001, 0).ago(now), "in the future");
        assert_eq!(at(940, 500).ago(now), "1m ago");
    }

    /// Adding what was subtracted gives the same instant, and what cannot be written is none.
    #[test]
    fn arithmetic() {
        let now = at(10, 100);
        let step = age(20, 999_999_999);
        assert_eq!(now.checked_sub(step), Some(at(-11, 101)));
        assert_eq!(at(-11, 101).checked_add(step), Some(now));
        assert_eq!(at(i64::MIN, 0).checked_sub(age(0, 1)), None);
        assert_eq!(at(i64::MAX, 999_999_999).checked_add(age(0, 1)), None);
        assert_eq!(now.checked_sub(age(u64::MAX, 0)), None);
        assert_eq!(Timestamp::new(0, NANOSECONDS), None);
    }
}
