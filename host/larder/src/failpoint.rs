//! Named points at which a test can end the process, to examine what is left on disk, or call a function.
//!
//! With the feature `failpoints`, [`abort_at`] and [`call_at`] arm one of them. Without it they compile to nothing.

/// A point at which a test can end the process or call a function.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reached($name);
    };
}
pub(crate) use failpoint;

#[cfg(feature = "failpoints")]
static ARMED: std::sync::Mutex<Option<(String, u32)>> = std::sync::Mutex::new(None);

/// The names of the points that a removal reaches, in their order.
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

/// The names of the points that a load or pull reaches, in their order.
#[cfg(feature = "failpoints")]
pub const INGEST_NAMES: [&str; 6] = [
    "ingest.written",
    "ingest.synced",
    "ingest.renamed",
    "ingest.described",
    "ingest.inserted",
    "ingest.committed",
];

/// The names of the points that creating a home reaches.
#[cfg(feature = "failpoints")]
pub const HOME_NAMES: [&str; 1] = ["home.written"];

/// Ends the process without any clean-up when the point is reached for the `nth` time, counted from 1.
#[cfg(feature = "failpoints")]
pub fn abort_at(name: &str, nth: u32) {
    *ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((name.to_owned(), nth));
}

/// A function that a test calls at a point.
#[cfg(feature = "failpoints")]
type Call = Box<dyn FnOnce() + Send>;

#[cfg(feature = "failpoints")]
static CALLS: std::sync::Mutex<Vec<(String, Call)>> = std::sync::Mutex::new(Vec::new());

/// The point between reading the index and looking at the files.
#[cfg(feature = "failpoints")]
pub const VERIFY_READ: &str = "verify.read";

/// The point before a policy is compiled, on the thread that compiles it.
#[cfg(feature = "failpoints")]
pub const POLICY_COMPILING: &str = "policy.compiling";

/// The point after the work of a policy's thread.
#[cfg(feature = "failpoints")]
pub const POLICY_ENDED: &str = "policy.ended";

/// Calls a function on the thread that reaches the point for the first time.
#[cfg(feature = "failpoints")]
pub fn call_at(name: &str, call: impl FnOnce() + Send + 'static) {
    let mut calls = CALLS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    calls.push((name.to_owned(), Box::new(call)));
}

#[cfg(feature = "failpoints")]
fn call(name: &str) {
    let call = {
        let mut calls = CALLS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let armed = calls.iter().position(|(armed, _)| armed == name);
        armed.map(|index| calls.remove(index).1)
    };
    if let Some(call) = call {
        call();
    }
}

#[cfg(feature = "failpoints")]
pub(crate) fn reached(name: &str) {
    call(name);
    let mut armed = ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, left)) = armed.as_mut().filter(|(armed, _)| armed == name) {
        *left -= 1;
        if *left == 0 {
            std::process::abort();
        }
    }
}
