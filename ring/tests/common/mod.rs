//! The rings that every test body runs on, and the files and sockets it runs with.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a failed step is a failed test; not every test uses all of it"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use ring::{
    Completion, Errno, FakeRing, PlainRing, RingConfig, RingFaults, RingIo, Slot, SlotPool, Uring,
};

/// Runs `body` on each kind of ring, with a pool of eight slots of 64 KiB that is registered where
/// that is possible.
///
/// A machine that forbids `io_uring` runs the rest; `probe.rs` is where its absence is a matter.
pub(crate) fn on_each_ring(body: impl Fn(&str, &mut dyn RingIo, &SlotPool)) {
    let pool = SlotPool::new(8, SLOT_BYTES).unwrap();
    if ring::probe(0).is_ok() {
        body("registered", &mut uring(&[&pool]), &pool);
        body("unregistered", &mut uring(&[]), &pool);
        body(
            "faulty kernel ring",
            &mut ring::FaultyRing::over(uring(&[&pool]), 1, RingFaults::default()),
            &pool,
        );
    }
    body("plain", &mut PlainRing::new(ENTRIES, FILES).unwrap(), &pool);
    body("fake", &mut FakeRing::new(1, RingFaults::default()).unwrap(), &pool);
    assert_eq!(pool.free(), 8, "every slot has come home");
}

pub(crate) fn uring(pools: &[&SlotPool]) -> Uring {
    Uring::new(&RingConfig { entries: ENTRIES, files: FILES, blocking: 0, pools }).unwrap()
}

pub(crate) const ENTRIES: u32 = 16;
pub(crate) const FILES: u32 = 8;
pub(crate) const SLOT_BYTES: usize = 64 * 1024;

/// Waits for exactly `count` completions.
pub(crate) fn wait(io: &mut dyn RingIo, count: usize) -> Vec<Completion> {
    let mut completions = Vec::new();
    while completions.len() < count {
        io.wait(None, &mut completions).unwrap();
    }
    assert_eq!(completions.len(), count, "{completions:?}");
    completions
}

/// Waits for the one completion that is due and checks that it is final; its result and slot.
pub(crate) fn wait_one(io: &mut dyn RingIo, token: u64) -> (Result<u32, Errno>, Option<Slot>) {
    let done = wait(io, 1).pop().unwrap();
    assert_eq!(done.token, token);
    assert!(done.stage.is_final());
    (done.result, done.slot)
}

pub(crate) fn pair() -> (OwnedFd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), theirs)
}

pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Bytes in which every misplacement shows.
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31) ^ (at >> 8)) as u8).collect()
}

pub(crate) fn filled(pool: &SlotPool, bytes: &[u8]) -> Slot {
    let mut slot = pool.take().unwrap();
    slot.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    slot
}

pub(crate) fn file_with(bytes: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.into()
}

pub(crate) fn read_exactly(from: &mut impl Read, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    from.read_exact(&mut read).unwrap();
    read
}

/// Waits for operation 1, which operation 2 cancels: both complete, and the slot comes home.
pub(crate) fn cancelled(kind: &str, io: &mut dyn RingIo) {
    let mut completions = wait(io, 2);
    completions.sort_by_key(|completion| completion.token);
    assert_eq!(completions[0].result, Err(Errno::ECANCELED), "{kind}");
    assert!(completions[0].slot.is_some(), "{kind}");
    assert_eq!(completions[1].result, Ok(0), "{kind}");
}
