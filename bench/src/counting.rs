//! A counting allocator: it measures the memory that one thread holds. Resident memory would not
//! show what a master keeps of each node, because a heap that was full of rows a moment ago has
//! room.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

struct CountingAllocator;

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

static HELD_BYTES: AtomicI64 = AtomicI64::new(0);

/// Counts the allocations of the calling thread from now on.
pub(crate) fn count_this_thread() {
    IS_COUNTED.set(true);
}

/// Returns the bytes that counted threads have allocated and not freed, with the allocator's
/// overhead for each piece.
pub(crate) fn held_bytes() -> i64 {
    HELD_BYTES.load(Ordering::Relaxed)
}

fn count(layout: Layout, sign: i64) {
    // A thread may free memory after its locals are gone; that is no longer counted.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        // Overhead of the heap: eight bytes before each piece, multiples of sixteen, at least
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
