//! A bound on memory: whoever asks for more ends the process, and the input is a finding.
//!
//! libFuzzer's own bound is looked at once in a second, and counts pages that were touched. This one is exact, but knows
//! of Rust's memory alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// In bytes. Inputs are smaller by three orders of magnitude, and so is all that the checks allow.
const BOUND: usize = 64 << 20;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// The system's allocator, counted.
struct Bounded;

fn take(bytes: usize) {
    if LIVE.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > BOUND {
        // Saying so may take memory.
        LIVE.store(0, Ordering::Relaxed);
        eprintln!("{bytes} more bytes of memory exceed the bound of {BOUND}");
        std::process::abort();
    }
}

fn give(bytes: usize) {
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: everything is the system's doing; counting changes nothing of it.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size.saturating_sub(layout.size()));
        give(layout.size().saturating_sub(size));
        // SAFETY: as above; the pointer came from the system's allocator.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: as above; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}
