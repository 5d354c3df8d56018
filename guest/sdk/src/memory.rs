//! The allocator of a component: small, and quick for the many texts that the host hands over.
//!
//! Sizes are rounded up to classes: multiples of eight up to 64, then four to each power of two. A freed block is kept in
//! a list of its class, and its first bytes link it to the next. A new one is cut from the current region, the rest of
//! which serves the following ones; when it is used up, a large free block becomes the region, or else new memory. Memory
//! is never given back: an instance of a policy lives for one call.
//!
//! A block whose alignment is more than that of its class is cut from the region and not used again. Nothing of a policy
//! asks for one.

use std::alloc::Layout;
use std::ptr;

/// The alignment of every block.
const ALIGN: usize = 8;

/// The smallest class that can become a region: 4 KiB.
const FIRST_LARGE: usize = class_of(4096);

/// The number of classes: the last one is the last that is below 2³¹ bytes.
const CLASSES: usize = class_of(1 << 30) + 1;

/// Where an allocator gets memory from.
pub(crate) trait Memory {
    /// Returns at least this many bytes of memory that nothing else uses, and how many. Null if there are not so many.
    fn extend(&mut self, bytes: usize) -> (*mut u8, usize);
}

/// An allocator over a memory.
pub(crate) struct Allocator<M> {
    memory: M,
    /// The beginning of the current region.
    next: *mut u8,
    /// The bytes of the current region.
    left: usize,
    /// For each class the first of its free blocks, or null.
    free: [*mut u8; CLASSES],
}

/// Returns the class of a block of this size.
#[inline(always)]
const fn class_of(bytes: usize) -> usize {
    if bytes <= 64 {
        return bytes.saturating_sub(1) / 8;
    }
    // 65 to 80 bytes are class 8, 81 to 96 class 9, and so on.
    let last = bytes - 1;
    let power = last.ilog2() as usize;
    8 + (power - 6) * 4 + ((last >> (power - 2)) & 3)
}

/// Returns the size of the blocks of a class.
#[inline(always)]
const fn size_of(class: usize) -> usize {
    if class < 8 {
        return (class + 1) * 8;
    }
    let (power, quarter) = ((class - 8) / 4 + 6, (class - 8) % 4);
    (1 << power) + (quarter + 1) * (1 << (power - 2))
}

impl<M: Memory> Allocator<M> {
    pub(crate) const fn new(memory: M) -> Self {
        Self { memory, next: ptr::null_mut(), left: 0, free: [ptr::null_mut(); CLASSES] }
    }

    /// Returns a block for this layout, or null.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGN {
            let Some(bytes) = layout.size().checked_add(layout.align()) else { return ptr::null_mut() };
            let block = self.cut(bytes.next_multiple_of(ALIGN));
            let gap = if block.is_null() { 0 } else { block.align_offset(layout.align()) };
            return block.wrapping_add(gap);
        }
        let class = class_of(layout.size());
        if class >= CLASSES {
            return ptr::null_mut();
        }
        match self.take(class) {
            block if block.is_null() => self.cut(size_of(class)),
            block => block,
        }
    }

    /// Takes back a block.
    ///
    /// # Safety
    ///
    /// The block comes from this allocator, for this layout, and nothing uses it.
    #[inline(always)]
    pub(crate) unsafe fn free(&mut self, block: *mut u8, layout: Layout) {
        if layout.align() > ALIGN {
            return;
        }
        let class = class_of(layout.size());
        // SAFETY: the block is this allocator's again, and by its class at least eight bytes, aligned to eight.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }

    /// Tells whether a block has room for another size.
    #[inline(always)]
    pub(crate) fn fits(layout: Layout, bytes: usize) -> bool {
        layout.align() <= ALIGN && class_of(layout.size()) == class_of(bytes)
    }

    /// Takes a block from the list of a class. Null if the list is empty.
    #[inline(always)]
    fn take(&mut self, class: usize) -> *mut u8 {
        let block = self.free[class];
        if !block.is_null() {
            // SAFETY: `free` wrote the link when it put the block into the list, and nothing has used it since.
            self.free[class] = unsafe { block.cast::<*mut u8>().read() };
        }
        block
    }

    /// Cuts this many bytes, a multiple of eight, from the current region, or from the next one. Null if there is no
    /// memory.
    #[inline(always)]
    fn cut(&mut self, bytes: usize) -> *mut u8 {
        if bytes > self.left && !self.begin_region(bytes) {
            return ptr::null_mut();
        }
        let block = self.next;
        self.next = block.wrapping_add(bytes);
        self.left -= bytes;
        block
    }

    /// Begins a region of at least this many bytes: a large free block, or else new memory.
    #[cold]
    #[inline(never)]
    fn begin_region(&mut self, bytes: usize) -> bool {
        for class in class_of(bytes).max(FIRST_LARGE)..CLASSES {
            let block = self.take(class);
            if !block.is_null() {
                (self.next, self.left) = (block, size_of(class));
                return true;
            }
        }
        let (memory, length) = self.memory.extend(bytes);
        if memory.is_null() {
            return false;
        }
        if memory == self.next.wrapping_add(self.left) {
            // It continues the current region.
            self.left += length;
        } else {
            (self.next, self.left) = (memory, length);
        }
        true
    }
}

#[cfg(target_arch = "wasm32")]
mod global {
    use std::alloc::{GlobalAlloc, Layout};
    use std::arch::wasm32;
    use std::cell::UnsafeCell;
    use std::ptr;

    use super::{Allocator, Memory};

    const PAGE: usize = 64 * 1024;

    /// The memory of the component.
    struct Linear;

    impl Memory for Linear {
        fn extend(&mut self, bytes: usize) -> (*mut u8, usize) {
            let pages = bytes.div_ceil(PAGE);
            match wasm32::memory_grow::<0>(pages) {
                usize::MAX => (ptr::null_mut(), 0),
                // The pages before are at least one, so this is not null.
                before => (ptr::with_exposed_provenance_mut(before * PAGE), pages * PAGE),
            }
        }
    }

    struct Global(UnsafeCell<Allocator<Linear>>);

    // SAFETY: a component has one thread.
    unsafe impl Sync for Global {}

    // SAFETY: blocks are at least as large and as aligned as their layout, and each is handed out once until it is freed:
    // `allocate` cuts it from a region, of which nothing else was cut, or takes it from a list, into which only `free` puts
    // it. No call begins while another one runs, since there is one thread and the allocator calls nothing.
    unsafe impl GlobalAlloc for Global {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: no other reference exists, as said above.
            unsafe { &mut *self.0.get() }.allocate(layout)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as above; the caller says that the block comes from here and that nothing uses it.
            unsafe { (*self.0.get()).free(block, layout) };
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if Allocator::<Linear>::fits(layout, size) {
                return block;
            }
            // SAFETY: the caller says that `size` is one that a layout can have.
            let larger = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            // SAFETY: a layout of a size that is not zero, as the caller says.
            let moved = unsafe { self.alloc(larger) };
            if !moved.is_null() {
                // SAFETY: both blocks are at least this long, and different ones; the old one is the caller's to give.
                unsafe {
                    ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                    self.dealloc(block, layout);
                }
            }
            moved
        }
    }

    #[global_allocator]
    static GLOBAL: Global = Global(UnsafeCell::new(Allocator::new(Linear)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory in pieces of 64 KiB, so many of them.
    struct Pieces(Vec<Vec<u64>>, usize);

    impl Memory for Pieces {
        fn extend(&mut self, bytes: usize) -> (*mut u8, usize) {
            let words = bytes.div_ceil(64 * 1024) * 8 * 1024;
            if self.1 < words {
                return (ptr::null_mut(), 0);
            }
            self.1 -= words;
            self.0.push(vec![0; words]);
            (self.0.last_mut().unwrap().as_mut_ptr().cast(), words * 8)
        }
    }

    fn allocator(words: usize) -> Allocator<Pieces> {
        Allocator::new(Pieces(Vec::new(), words))
    }

    fn bytes(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    /// A class is as large as what is in it, and no class is more than a quarter larger than the one before.
    #[test]
    fn classes() {
        for size in (1..5000).chain([65_536, 65_537, (1 << 30) - 1, 1 << 30]) {
            let class = class_of(size);
            assert!(size_of(class) >= size && size_of(class) % ALIGN == 0, "{size}");
            assert!(class == 0 || size_of(class - 1) < size, "{size}");
        }
        assert!((9..CLASSES).all(|class| size_of(class) * 4 <= size_of(class - 1) * 5));
    }

    /// Whatever is allocated and freed in whatever order, no two blocks overlap and each keeps its bytes.
    #[test]
    fn blocks_are_apart() {
        let mut allocator = allocator(1 << 20);
        let mut blocks: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut random = 1_u32;
        for step in 0..20_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let dice = random >> 8;
            if dice % 5 < 3 || blocks.is_empty() {
                let size = if dice % 97 == 0 { dice as usize % 70_000 } else { dice as usize % 200 } + 1;
                let layout = Layout::from_size_align(size, 1 << (dice % 6)).unwrap();
                let block = allocator.allocate(layout);
                assert!(!block.is_null() && block.addr() % layout.align() == 0);
                // SAFETY: the block has this many bytes.
                unsafe { block.write_bytes(step as u8, size) };
                blocks.push((block, layout, step as u8));
            } else {
                let (block, layout, byte) = blocks.swap_remove(dice as usize % blocks.len());
                // SAFETY: the block was written when it was allocated.
                let kept = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                assert!(kept.iter().all(|kept| *kept == byte));
                // SAFETY: it comes from there, and nothing uses it from here on.
                unsafe { allocator.free(block, layout) };
            }
        }
    }

    /// A freed block serves the next one of its class, and a large one serves any number of small ones.
    #[test]
    fn memory_is_used_again() {
        let mut allocator = allocator(2 * 8 * 1024);
        let large = allocator.allocate(bytes(60_000));
        let small = allocator.allocate(bytes(20));
        // SAFETY: both come from there, and nothing uses them.
        unsafe {
            allocator.free(small, bytes(20));
            allocator.free(large, bytes(60_000));
        }
        assert_eq!(allocator.allocate(bytes(24)), small);
        assert!(Allocator::<Pieces>::fits(bytes(20), 24) && !Allocator::<Pieces>::fits(bytes(24), 25));
        let mut count = 0;
        while !allocator.allocate(bytes(64)).is_null() {
            count += 1;
        }
        assert!(count > 1024 + 900, "{count}");
    }

    /// Where there is no memory, there is no block.
    #[test]
    fn out_of_memory() {
        let mut allocator = allocator(8 * 1024);
        assert!(allocator.allocate(bytes(65_537)).is_null());
        assert!(allocator.allocate(bytes(1 << 31)).is_null());
        assert!(!allocator.allocate(bytes(64_000)).is_null());
        assert!(allocator.allocate(Layout::from_size_align(8, 4096).unwrap()).is_null());
    }
}
