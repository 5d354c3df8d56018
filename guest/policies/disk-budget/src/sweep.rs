//! One after the other, until the budget is met.
//!
//! What an image frees depends on what went before it: its layers go with the last image that has them. So each
//! step asks the host what goes with a set, given what is staged, and takes the least recently used unit that
//! completes something. Units that free nothing yet wait at the front, and are asked about again after each step,
//! all in one call: that makes two calls a step, however many images there are.

use larder_guest::{Cache, Failure, Level, Size, Timestamp};

use crate::unit::Unit;

/// Stages units, the least recently used first, until `excess` bytes are freed, and explains every image.
pub(crate) fn sweep(
    units: &[Unit],
    excess: u64,
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
    // How many of the first pending units are known to free nothing, not even all of them together.
    let mut waiting = 0;
    while freed < excess {
        let index = next(&pending, waiting, cache)?;
        waiting = index.unwrap_or(pending.len());
        let Some(index) = index else { break };
        let unit = pending.remove(pending.len() - 1 - index);
        freed = freed.saturating_add(stage(unit, excess - freed, now, cache)?);
    }
    for (index, unit) in pending.into_iter().rev().enumerate() {
        let reason = if index < waiting {
            "images that stay hold all that it has"
        } else {
            "the budget is met without it"
        };
        explain(unit, &format!("{}; {reason}", unit.touched(now)), cache);
    }
    if freed < excess {
        let missing = Size::from_bytes(excess - freed);
        let message = format!(
            "the cache stays {missing} above its budget: what is left is in use, pinned, or not for this run to remove"
        );
        cache.log(Level::Warn, &message);
    }
    Ok(())
}

/// The first pending unit, counted from the last, that frees something, together with the waiting ones before it.
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

/// Stages all tags of a unit; gives the bytes that this frees: none if a tag stays.
fn stage(unit: &Unit, excess: u64, now: Timestamp, cache: &mut impl Cache) -> Result<u64, Failure> {
    let gain = cache.reclaimable_bytes(&unit.references())?;
    let effect = match gain {
        0 => String::from("what it shares is freed with the others that go"),
        gain => {
            format!("frees {} of the {} above the budget", Size::from_bytes(gain), Size::from_bytes(excess))
        }
    };
    let reason = format!("{}; {effect}", unit.touched(now));
    for reference in unit.references() {
        if !cache.remove_because(reference, &reason)? {
            return Ok(0);
        }
    }
    Ok(gain)
}

fn explain(unit: &Unit, reason: &str, cache: &mut impl Cache) {
    for reference in unit.references() {
        cache.explain(reference, reason);
    }
}
