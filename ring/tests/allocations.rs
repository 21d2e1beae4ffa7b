//! A ring allocates nothing between its creation and its end, and leaks nothing: a counting
//! allocator checks that.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

use ring::{RingConfig, RingIo, RingOp, SlotPool, Uring};

struct Counting;

thread_local! {
    /// Per thread, because the harness has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Allocated and not freed.
    static HELD_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn hold(layout: Layout, sign: i64) {
    // A thread that ends may free after its locals are gone; then nobody asks any more.
    let _ = HELD_BYTES.try_with(|held| {
        held.set(held.get() + sign * i64::try_from(layout.size()).unwrap_or(i64::MAX));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        hold(layout, 1);
        // SAFETY: the caller's promise is the same as ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(layout, -1);
        // SAFETY: the caller's promise is the same as ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_running_ring_allocates_nothing() {
    if ring::probe(0).is_err() {
        return;
    }
    let pool = SlotPool::new(4, 4096).unwrap();
    let mut io =
        Uring::new(&RingConfig { entries: 8, files: 4, blocking: 0, pools: &[&pool] }).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[1; 4096]).unwrap();
    let file = io.register(file.into()).unwrap();
    let mut completions = Vec::with_capacity(8);

    let before = ALLOCATIONS.get();
    for round in 0..1000 {
        while let Some(slot) = pool.take() {
            io.submit(round, RingOp::Read { file, slot, range: 0..4096, offset: 0, nowait: false })
                .unwrap();
        }
        while io.in_flight() > 0 {
            io.wait(None, &mut completions).unwrap();
        }
        assert!(completions.drain(..).all(|completion| completion.result == Ok(4096)));
    }
    assert_eq!(ALLOCATIONS.get(), before, "allocations in 4000 operations");
}

#[test]
fn a_ring_that_has_ended_holds_nothing() {
    if ring::probe(0).is_err() {
        return;
    }
    let pool = SlotPool::new(4, 4096).unwrap();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let once = |in_flight: bool| {
        let mut io =
            Uring::new(&RingConfig { entries: 300, files: 100, blocking: 0, pools: &[&pool] })
                .unwrap();
        let file = io.register(ours.try_clone().unwrap().into()).unwrap();
        if in_flight {
            io.submit(
                1,
                RingOp::Recv { file, slot: pool.take().unwrap(), range: 0..1, wait_all: true },
            )
            .unwrap();
            io.wait(Some(std::time::Duration::ZERO), &mut Vec::with_capacity(8)).unwrap();
        }
    };
    once(true);
    let before = HELD_BYTES.get();
    (0..1000).for_each(|round| once(round % 2 == 0));
    assert_eq!(HELD_BYTES.get() - before, 0, "bytes that a thousand rings have left");
    assert_eq!(pool.free(), 4);
}
