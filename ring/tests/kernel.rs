//! Features of the kernel's ring only: modes, registration, and an end with operations in flight.
//!
//! Each test ends early on a machine that forbids `io_uring`: there is nothing to test then.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::{ENTRIES, FILES, file_with, pair, pattern, uring, wait_one};
use ring::{Errno, RingConfig, RingIo, RingOp, SlotPool, Uring};

fn forbidden() -> bool {
    ring::probe(0).is_err()
}

#[test]
fn the_probe_agrees_with_a_ring() {
    if forbidden() {
        return;
    }
    let probe = ring::probe(8192).unwrap();
    let pool = SlotPool::new(2, 4096).unwrap();
    assert_eq!(probe.locked_memory.is_ok(), uring(&[&pool]).registered());
}

#[test]
fn dropping_a_ring_brings_home_what_the_kernel_gives_back() {
    if forbidden() {
        return;
    }
    let pool = SlotPool::new(3, 4096).unwrap();
    let (ours, mut theirs) = pair();
    let mut io = uring(&[&pool]);
    let file = io.register(ours).unwrap();
    for token in 0..2 {
        let slot = pool.take().unwrap();
        io.submit(token, RingOp::Recv { file, slot, range: 0..4096, wait_all: true }).unwrap();
        io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    }
    // The third is queued and never handed to the kernel.
    io.submit(2, RingOp::Recv { file, slot: pool.take().unwrap(), range: 0..4096, wait_all: true })
        .unwrap();
    assert_eq!((pool.free(), io.in_flight()), (0, 3));
    drop(io);
    assert_eq!(pool.free(), 3, "the kernel has let go of all of them");
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "and of the socket");
}

#[test]
fn memory_that_is_lent_outlives_its_pool() {
    if forbidden() {
        return;
    }
    let pool = SlotPool::new(1, 4096).unwrap();
    let (ours, mut theirs) = pair();
    let mut io = uring(&[]);
    let file = io.register(ours).unwrap();
    io.submit(1, RingOp::Recv { file, slot: pool.take().unwrap(), range: 0..10, wait_all: true })
        .unwrap();
    io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    drop(pool);
    theirs.write_all(b"0123456789").unwrap();
    let (result, slot) = wait_one(&mut io, 1);
    assert_eq!(result, Ok(10));
    assert_eq!(&slot.unwrap().as_slice()[..10], b"0123456789");
}

#[test]
fn a_refused_registration_leaves_a_ring_that_works() {
    if forbidden() {
        return;
    }
    // More buffers than the kernel takes: a refusal that needs no limit of this process to be
    // changed.
    let pool = SlotPool::new(1, 4096).unwrap();
    let pools = vec![&pool; (1 << 14) + 1];
    let mut io =
        Uring::new(&RingConfig { entries: ENTRIES, files: FILES, blocking: 0, pools: &pools })
            .unwrap();
    assert!(!io.registered());
    assert_eq!(io.registration_error(), Some(Errno::EINVAL));
    let bytes = pattern(1000);
    let file = io.register(file_with(&bytes)).unwrap();
    io.submit(
        1,
        RingOp::Read { file, slot: pool.take().unwrap(), range: 0..1000, offset: 0, nowait: false },
    )
    .unwrap();
    let (result, slot) = wait_one(&mut io, 1);
    assert_eq!(result, Ok(1000));
    assert_eq!(slot.unwrap().as_slice()[..1000], bytes);
}

#[test]
fn a_ring_without_a_table_of_files_uses_descriptors() {
    if forbidden() {
        return;
    }
    // More files than the kernel's table may have; ours has room all the same.
    let mut io =
        Uring::new(&RingConfig { entries: ENTRIES, files: (1 << 20) + 1, blocking: 0, pools: &[] })
            .unwrap();
    let pool = SlotPool::new(1, 4096).unwrap();
    let file = io.register(file_with(b"bytes")).unwrap();
    io.submit(
        1,
        RingOp::Read { file, slot: pool.take().unwrap(), range: 0..5, offset: 0, nowait: false },
    )
    .unwrap();
    assert_eq!(wait_one(&mut io, 1).0, Ok(5));
    io.unregister(file).unwrap();
    assert_eq!(io.fd(file).unwrap_err(), Errno::EBADF);
}

#[test]
fn sizes_out_of_bounds_are_errors() {
    for entries in [0, u32::MAX] {
        assert!(
            Uring::new(&RingConfig { entries, files: 1, blocking: 0, pools: &[] }).is_err(),
            "{entries} entries"
        );
    }
}

#[test]
fn operations_of_one_file_after_another_reach_the_right_one() {
    if forbidden() {
        return;
    }
    // The place in the table and the descriptor are both reused at once, with an entry of the old
    // file just queued.
    let pool = SlotPool::new(1, 4096).unwrap();
    let mut io = uring(&[]);
    let mut slot = pool.take().unwrap();
    for round in 0..50u8 {
        let old = io.register(file_with(&[round; 8])).unwrap();
        io.submit(1, RingOp::Read { file: old, slot, range: 0..8, offset: 0, nowait: false })
            .unwrap();
        io.unregister(old).unwrap();
        let new = io.register(file_with(&[255; 8])).unwrap();
        let (result, returned) = wait_one(&mut io, 1);
        slot = returned.unwrap();
        match result {
            Ok(_) => assert_eq!(slot.as_slice()[..8], [round; 8]),
            Err(error) => assert_eq!(error, Errno::ECANCELED),
        }
        io.unregister(new).unwrap();
    }
}

/// It took a part of a payload at once, and asked again for the rest: two receives a piece.
#[test]
fn a_receive_that_need_not_be_whole_waits_for_the_low_water_mark() {
    if forbidden() {
        return;
    }
    let pool = SlotPool::new(1, 4096).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut io = uring(&[&pool]);
    let file = io.register(listener.accept().unwrap().0.into()).unwrap();
    theirs.write_all(&[1; 10]).unwrap();
    io.set_recv_lowat(file, 100).unwrap();
    let slot = pool.take().unwrap();
    io.submit(1, RingOp::Recv { file, slot, range: 0..200, wait_all: false }).unwrap();
    let mut completions = Vec::new();
    io.wait(Some(Duration::from_millis(20)), &mut completions).unwrap();
    assert!(completions.is_empty(), "{completions:?}");
    theirs.write_all(&[1; 110]).unwrap();
    let (result, slot) = wait_one(&mut io, 1);
    assert!(result.unwrap() >= 100, "{result:?}");
    // A lower mark holds for the receive behind it.
    theirs.write_all(&[1; 90]).unwrap();
    io.set_recv_lowat(file, 1).unwrap();
    io.submit(2, RingOp::Recv { file, slot: slot.unwrap(), range: 0..200, wait_all: false })
        .unwrap();
    assert!(wait_one(&mut io, 2).0.unwrap() > 0);
}
