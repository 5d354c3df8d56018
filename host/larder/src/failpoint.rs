//! Named points at which a test can end the process, to see what is left behind.
//!
//! With the feature `failpoints`, [`abort_at`] arms one of them; without it they are nothing.

/// A point at which a test can end the process.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reached($name);
    };
}
pub(crate) use failpoint;

#[cfg(feature = "failpoints")]
static ARMED: std::sync::Mutex<Option<(String, u32)>> = std::sync::Mutex::new(None);

/// Every point that a removal reaches, in their order.
#[cfg(feature = "failpoints")]
pub const NAMES: [&str; 8] = [
    "removal.claimed",
    "removal.recorded",
    "removal.committed",
    "removal.unlinking",
    "removal.unlinked",
    "removal.released",
    "removal.synced",
    "removal.forgotten",
];

/// Every point that taking images in reaches, in their order.
#[cfg(feature = "failpoints")]
pub const INGEST_NAMES: [&str; 6] = [
    "ingest.written",
    "ingest.synced",
    "ingest.renamed",
    "ingest.described",
    "ingest.inserted",
    "ingest.committed",
];

/// Every point that making a home reaches.
#[cfg(feature = "failpoints")]
pub const HOME_NAMES: [&str; 1] = ["home.written"];

/// Ends the process without any cleaning up when the point is reached for the `nth` time, counted from 1.
#[cfg(feature = "failpoints")]
pub fn abort_at(name: &str, nth: u32) {
    *ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((name.to_owned(), nth));
}

#[cfg(feature = "failpoints")]
pub(crate) fn reached(name: &str) {
    let mut armed = ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, left)) = armed.as_mut().filter(|(armed, _)| armed == name) {
        *left -= 1;
        if *left == 0 {
            std::process::abort();
        }
    }
}
