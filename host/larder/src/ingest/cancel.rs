//! Cancellation of work whose future was dropped.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::IngestProblem;

/// A flag for blocking work. It is dropped with the future that waits for the work, and drop sets the flag.
#[derive(Default)]
pub(crate) struct CancelOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A reader that fails once the work is cancelled.
pub(crate) struct Cancellable<'a, R> {
    pub(crate) source: R,
    pub(crate) cancelled: &'a AtomicBool,
}

impl<R> Cancellable<'_, R> {
    fn check(&self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(IngestProblem::Cancelled.into_io()) } else { Ok(()) }
    }
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let count = self.source.read(into)?;
        // A pipe may have kept it waiting.
        self.check()?;
        Ok(count)
    }
}
