//! An allocator that knows what one thread holds: how else would one know what a master keeps of
//! each node? Resident memory hides it, because a heap that was full of rows a moment ago has room.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

struct CountingAllocator;

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

static HELD_BYTES: AtomicI64 = AtomicI64::new(0);

/// Counts what the calling thread allocates and frees from now on.
pub(crate) fn count_this_thread() {
    IS_COUNTED.set(true);
}

/// What threads that are counted have allocated and not freed, with what the allocator adds to each
/// piece.
pub(crate) fn held_bytes() -> i64 {
    HELD_BYTES.load(Ordering::Relaxed)
}

fn count(layout: Layout, sign: i64) {
    // A thread that ends may free after its locals are gone; then nobody asks any more.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        // The heap's pieces: eight bytes before each, multiples of sixteen, no less than
        // thirty-two.
        let bytes = (layout.size() + 8).next_multiple_of(16).max(32);
        HELD_BYTES.fetch_add(sign * i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // SAFETY: the caller's promise is the same as ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: the caller's promise is the same as ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;
