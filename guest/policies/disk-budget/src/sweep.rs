//! Removes unit after unit, until enough is freed.
//!
//! The bytes that an image frees depend on what is removed before it: its layers are removed with the last image that
//! has them. So each step asks the host for the bytes of a set, given what is staged, and takes the least recently used
//! unit that completes something. Units that free nothing yet wait at the front, and are asked about again after each
//! step, all in one call: that makes two calls a step, however many images there are.
//!
//! The caps of the grant end a sweep early: the host refuses a whole plan that exceeds them, and half of what is needed
//! is better than nothing.

use larder_guest::{Budget, Cache, Failure, Level, Size, Timestamp};

use crate::budget::Need;
use crate::unit::Unit;

/// The result of an attempt to remove a unit.
enum Step {
    /// This many bytes are freed.
    Freed(u64),
    /// A tag may not be removed after all, so the unit stays.
    Kept,
    /// The caps of the grant leave no room for the unit.
    Capped,
}

/// Stages units, the least recently used first, until the needed bytes are freed, and explains every image.
pub(crate) fn sweep(
    units: &[Unit],
    need: Need,
    now: Timestamp,
    cache: &mut impl Cache,
) -> Result<(), Failure> {
    let mut pending = Vec::with_capacity(units.len());
    for unit in units {
        match unit.held_by() {
            Some(holder) => explain(unit, &holder, cache),
            None => pending.push(unit),
        }
    }
    // From here on the least recently used is the last, from where it is taken at no cost.
    pending.reverse();
    let mut freed = 0_u64;
    // The number of units at the front that are known to free nothing, not even all of them together.
    let mut waiting = 0;
    let mut is_capped = false;
    let mut budget = cache.get_budget();
    while freed < need.bytes && !is_capped {
        let index = next(&pending, waiting, cache)?;
        waiting = index.unwrap_or(pending.len());
        let Some(index) = index else { break };
        let unit = pending.remove(pending.len() - 1 - index);
        let rest = Need { bytes: need.bytes - freed, ..need };
        match stage(unit, rest, &mut budget, now, cache)? {
            Step::Freed(bytes) => freed = freed.saturating_add(bytes),
            Step::Kept => {}
            Step::Capped => is_capped = true,
        }
    }
    for (index, unit) in pending.into_iter().rev().enumerate() {
        let reason = if index < waiting {
            "images that stay hold all that it has"
        } else if is_capped {
            "a cap of the grant is reached"
        } else {
            "the budget is met without it"
        };
        explain(unit, &format!("{}; {reason}", unit.touched(now)), cache);
    }
    if freed < need.bytes {
        let missing = Size::from_bytes(need.bytes - freed);
        let rest = if is_capped {
            "a cap of the grant is reached"
        } else {
            "what is left is in use, pinned, or not for this run to remove"
        };
        cache.log(Level::Warn, &format!("{missing} are left {}: {rest}", need.name));
    }
    Ok(())
}

/// Returns the index of the first pending unit, counted from the last, that frees something, together with the waiting
/// ones before it.
fn next(pending: &[&Unit], waiting: usize, cache: &impl Cache) -> Result<Option<usize>, Failure> {
    let frees = |count: usize| -> Result<bool, Failure> {
        let first = pending.iter().rev().take(count);
        let references: Vec<&str> = first.flat_map(|unit| unit.references()).collect();
        Ok(cache.reclaimable_bytes(&references)? > 0)
    };
    // The answer lies in `none..some`: the first `none` units free nothing, the first `some` do.
    let (mut none, mut some) = (0, waiting);
    if waiting == 0 || !frees(waiting)? {
        let mut step = 1;
        loop {
            if some == pending.len() {
                return Ok(None);
            }
            none = some;
            some = pending.len().min(waiting + step);
            if frees(some)? {
                break;
            }
            step *= 2;
        }
    }
    while some - none > 1 {
        let middle = none + (some - none) / 2;
        *(if frees(middle)? { &mut some } else { &mut none }) = middle;
    }
    Ok(Some(none))
}

/// Stages all tags of a unit, or none of them.
fn stage(
    unit: &Unit,
    rest: Need,
    budget: &mut Budget,
    now: Timestamp,
    cache: &mut impl Cache,
) -> Result<Step, Failure> {
    let references = unit.references();
    let gain = cache.reclaimable_bytes(&references)?;
    let Some(left) = budget_after(*budget, references.len(), gain) else {
        explain(unit, &format!("{}; a cap of the grant is reached", unit.touched(now)), cache);
        return Ok(Step::Capped);
    };
    let effect = match gain {
        0 => String::from("what it shares is freed with the others that go"),
        gain => {
            format!("frees {} of the {} {}", Size::from_bytes(gain), Size::from_bytes(rest.bytes), rest.name)
        }
    };
    let reason = format!("{}; {effect}", unit.touched(now));
    for (index, reference) in references.iter().enumerate() {
        if !cache.remove_because(reference, &reason)? {
            for staged in &references[..index] {
                cache.restore(staged)?;
                cache.explain(staged, &format!("{reason}; kept because another tag of its manifest is"));
            }
            return Ok(Step::Kept);
        }
    }
    *budget = left;
    Ok(Step::Freed(gain))
}

/// Returns what remains of the caps after so many removals that free so many bytes. None if they exceed a cap.
fn budget_after(budget: Budget, removals: usize, bytes: u64) -> Option<Budget> {
    let mut left = budget;
    if let Some(count) = &mut left.removals {
        *count = count.checked_sub(u32::try_from(removals).ok()?)?;
    }
    if let Some(count) = &mut left.bytes {
        *count = count.checked_sub(bytes)?;
    }
    Some(left)
}

fn explain(unit: &Unit, reason: &str, cache: &mut impl Cache) {
    for reference in unit.references() {
        cache.explain(reference, reason);
    }
}
