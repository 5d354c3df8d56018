//! Sizes in a form for people: binary units with one decimal, as in a grant.

use std::time::Duration;

use larder::policy::ByteSize;

use super::NOTHING;

/// Formats a size, such as `5.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    format!("{:#}", ByteSize::bytes(bytes))
}

/// Formats a size that the index may lack.
pub(crate) fn known(bytes: Option<i64>) -> String {
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).map_or(NOTHING.to_owned(), size)
}

/// Formats the time and the rate for this many bytes, such as `1.5 s (20.0 MiB/s)`.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let per_second = if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { bytes };
    format!("{seconds:.1} s ({}/s)", size(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rate is per second, even if the time was zero.
    #[test]
    fn rates() {
        assert_eq!(rate(3 << 20, Duration::from_millis(1500)), "1.5 s (2.0 MiB/s)");
        assert_eq!(rate(512, Duration::ZERO), "0.0 s (512 B/s)");
    }

    /// Sizes have one decimal from a KiB on, and an unknown size has none.
    #[test]
    fn sizes() {
        assert_eq!((size(512), size(5_630_157)), ("512 B".to_owned(), "5.4 MiB".to_owned()));
        assert_eq!((known(None), known(Some(-1))), ("-".to_owned(), "-".to_owned()));
    }
}
