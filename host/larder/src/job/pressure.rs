//! Bounds of a job, looked at together: the stricter counts.

use super::file::Pressure;
use super::watermark::{Quantity, Watermark};
use crate::records::FileSystemStatus;

/// It gets worse by a part of the distance between begin and end: one in so many.
const WORSE: u64 = 10;

impl Pressure {
    /// Returns whether the file system is past the start of a bound, so that the job begins.
    pub fn is_passed(&self, fs: &FileSystemStatus) -> bool {
        self.watermarks.iter().any(|watermark| watermark.on(fs).is_passed(fs))
    }

    /// Returns the bytes that have to become free until every bound is met: the most that one of them lacks. What a bound
    /// on inodes lacks is counted as so many files of the average size.
    pub fn missing_bytes(&self, fs: &FileSystemStatus) -> u64 {
        let missing =
            self.watermarks.iter().map(|watermark| in_bytes(watermark, watermark.on(fs).missing(fs), fs));
        missing.max().unwrap_or_default()
    }

    /// Returns whether so much more is missing than after a run that another one is due at once: a tenth of the distance
    /// between begin and end.
    pub(super) fn is_worse(&self, fs: &FileSystemStatus, after: &FileSystemStatus) -> bool {
        let distances = self.watermarks.iter().map(|watermark| {
            let on = watermark.on(fs);
            in_bytes(watermark, on.stop_free.saturating_sub(on.start_free), fs)
        });
        let step = (distances.min().unwrap_or_default() / WORSE).max(1);
        self.missing_bytes(fs) >= self.missing_bytes(after).saturating_add(step)
    }
}

/// Returns an amount of what a bound counts in bytes.
fn in_bytes(watermark: &Watermark, amount: u64, fs: &FileSystemStatus) -> u64 {
    match watermark.quantity {
        Quantity::Free | Quantity::Used => amount,
        Quantity::InodesFree => {
            let files = fs.inodes.saturating_sub(fs.inodes_free).max(1);
            amount.saturating_mul((fs.used_bytes() / files).max(1))
        }
    }
}
