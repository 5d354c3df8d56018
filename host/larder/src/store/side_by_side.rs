//! Work in parts that take longer one after the other.

use std::panic::resume_unwind;
use std::thread;

/// Does some work on each part, the last on this thread and the others each on one of its own, or on this one if there is no other
/// to be had. Returns the results in the order of the parts.
pub(super) fn side_by_side<T: Copy + Send, R: Send>(parts: &[T], work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let Some((&last, others)) = parts.split_last() else { return Vec::new() };
    let work = &work;
    thread::scope(|scope| {
        let begin = |&part: &T| {
            thread::Builder::new().spawn_scoped(scope, move || work(part)).map_err(|_| work(part))
        };
        let begun: Vec<_> = others.iter().map(begin).collect();
        let last = work(last);
        let end = |thread: thread::ScopedJoinHandle<'_, R>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        let ended = begun.into_iter().map(|begun| begun.map_or_else(|done| done, end));
        ended.chain([last]).collect()
    })
}
