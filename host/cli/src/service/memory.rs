//! Giving memory back to the system after work that took much of it: compiled policies, plans, and pages of the index.

use larder::LocalBackend;

/// Gives back what was freed, and what is kept to be quicker the next time.
pub(super) async fn release(local: &LocalBackend) {
    if let Err(error) = local.release_memory().await {
        tracing::debug!("could not release memory: {error}");
    }
    #[cfg(target_env = "gnu")]
    {
        // Freed memory stays with the process otherwise, in the arena of each thread that took some: after a plan over
        // 10,000 images some 60 MiB of it.
        malloc_trim(0);
    }
}

#[cfg(target_env = "gnu")]
// SAFETY: as malloc_trim(3) of glibc has it. It takes any number, and is safe to call at any time from any thread.
unsafe extern "C" {
    safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
}
