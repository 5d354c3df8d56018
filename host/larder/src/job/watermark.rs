//! Bounds of a file system: where a job begins, and where it ends.
//!
//! The space of a file system is what is used and what is available, as `df` counts it: blocks that are reserved for
//! root belong to neither. So the shares of both add up to the whole.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::artifacts;
use crate::error::{MicrosandboxError, MicrosandboxResult};
pub use crate::records::FileSystemStatus;
use crate::units::{ByteSize, Share};

/// A part of a file system, as a size or as a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Size(ByteSize),
    /// This share of the whole.
    Share(Share),
}

/// The quantity that a bound counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Bytes that are available.
    Free,
    /// Bytes that are used, by whomever.
    Used,
    /// Inodes that are available.
    InodesFree,
}

/// A bound: a job begins at `start` and ends at `stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The quantity that it counts.
    pub quantity: Quantity,
    /// The amount below which (or, of used bytes, above which) the job begins.
    pub start: Amount,
    /// The amount at which it ends.
    pub stop: Amount,
}

/// A bound on one file system, counted as what is free: of used bytes, the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ResolvedWatermark {
    /// The quantity that the bound counts.
    pub quantity: Quantity,
    /// The job begins if less than so many bytes, or inodes, are free.
    pub start_free: u64,
    /// It ends if so many are free.
    pub stop_free: u64,
}

impl FileSystemStatus {
    /// Asks the file system of a path, or of its next parent that is there.
    ///
    /// # Errors
    /// [`MicrosandboxError::Io`] where the file system does not answer.
    pub fn of(path: &Path) -> MicrosandboxResult<Self> {
        let fs = artifacts::file_system(path).map_err(MicrosandboxError::io("measure", path))?;
        let blocks = |count: u64| fs.f_frsize.saturating_mul(count);
        let used = fs.f_blocks.saturating_sub(fs.f_bfree);
        Ok(Self {
            size_bytes: blocks(used.saturating_add(fs.f_bavail)),
            available_bytes: blocks(fs.f_bavail),
            inodes: fs.f_files.saturating_sub(fs.f_ffree).saturating_add(fs.f_favail),
            inodes_free: fs.f_favail,
        })
    }
}

impl Amount {
    /// Returns it in units of a whole of this size.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Size(size) => size.as_bytes(),
            Self::Share(share) => share.of(whole),
        }
    }
}

impl Watermark {
    /// Returns the bound on this file system.
    pub fn on(&self, fs: &FileSystemStatus) -> ResolvedWatermark {
        let whole = match self.quantity {
            Quantity::InodesFree => fs.inodes,
            Quantity::Free | Quantity::Used => fs.size_bytes,
        };
        let free = |amount: Amount| match self.quantity {
            Quantity::Used => whole.saturating_sub(amount.of(whole)),
            Quantity::Free | Quantity::InodesFree => amount.of(whole),
        };
        ResolvedWatermark {
            quantity: self.quantity,
            start_free: free(self.start),
            stop_free: free(self.stop),
        }
    }

    /// Returns whether the stop is certainly not beyond the start, on a file system of any size.
    pub(super) fn is_inside_out(&self) -> bool {
        let wrong = |start: u64, stop: u64| match self.quantity {
            Quantity::Used => stop >= start,
            Quantity::Free | Quantity::InodesFree => stop <= start,
        };
        match (self.start, self.stop) {
            (Amount::Size(start), Amount::Size(stop)) => wrong(start.as_bytes(), stop.as_bytes()),
            (Amount::Share(start), Amount::Share(stop)) => wrong(start.of(u64::MAX), stop.of(u64::MAX)),
            _ => false,
        }
    }
}

impl ResolvedWatermark {
    /// Returns whether the file system is past the start. One that counts no inodes never is, by these.
    pub fn is_passed(&self, fs: &FileSystemStatus) -> bool {
        self.counted(fs).is_some_and(|free| free < self.start_free)
    }

    /// Returns how much has to become free until the stop: zero if it is reached.
    pub fn missing(&self, fs: &FileSystemStatus) -> u64 {
        self.counted(fs).map_or(0, |free| self.stop_free.saturating_sub(free))
    }

    /// Returns whether the stop leaves more free than the start. Otherwise the job would begin again at once.
    pub fn is_right(&self) -> bool {
        self.stop_free > self.start_free
    }

    fn counted(&self, fs: &FileSystemStatus) -> Option<u64> {
        match self.quantity {
            Quantity::Free | Quantity::Used => Some(fs.available_bytes),
            Quantity::InodesFree => (fs.inodes > 0).then_some(fs.inodes_free),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => size.fmt(f),
            Self::Share(share) => share.fmt(f),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        if number.is_empty() {
            return Err(format!(
                "`{text}` has no unit: write a size such as `20GiB`, or a share such as `15%`"
            ));
        }
        let parsed =
            if text.ends_with('%') { text.parse().map(Self::Share) } else { text.parse().map(Self::Size) };
        parsed.map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as `20GiB`, or a share such as `15%`, in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Text)
    }
}
