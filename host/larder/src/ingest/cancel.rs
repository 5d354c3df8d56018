//! Reading that ends when the work is cancelled.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::IngestProblem;

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
