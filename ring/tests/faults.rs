//! The faulty ring: it misbehaves as told, loses nothing, and does the same again for the same
//! seed.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::collections::BTreeMap;

use common::{file_with, filled, pattern, read_exactly, tcp_pair};
use ring::{Completion, CompletionStage, Errno, FakeRing, RingFaults, RingIo, RingOp, SlotPool};

const ALL: RingFaults = RingFaults {
    short_reads_per_mille: 300,
    short_writes_per_mille: 300,
    errors_per_mille: 100,
    reorder: true,
    late_notices: true,
};

/// Contents of a completion, apart from its slot.
type Line = (u64, Result<u32, Errno>, CompletionStage);

/// Reads and writes 64 pieces of a file, all in flight at once, and notes what comes in which
/// order.
fn run(seed: u64, faults: RingFaults) -> Vec<Line> {
    let pool = SlotPool::new(64, 4096).unwrap();
    let mut io = FakeRing::new(seed, faults).unwrap();
    let file = io.register(file_with(&pattern(64 * 4096))).unwrap();
    for token in 0..64 {
        let (slot, range, offset) = (pool.take().unwrap(), 0..4096, token * 4096);
        let read = RingOp::Read { file, slot, range: range.clone(), offset, nowait: false };
        let op = match read {
            RingOp::Read { slot, .. } if token % 2 == 1 => {
                RingOp::Write { file, slot, range, offset }
            }
            read => read,
        };
        io.submit(token, op).unwrap();
    }
    let completions = drain(&mut io);
    assert_eq!(
        completions.iter().filter(|completion| completion.slot.is_some()).count(),
        64,
        "no slot is lost"
    );
    completions
        .iter()
        .map(|completion| (completion.token, completion.result, completion.stage))
        .collect()
}

fn drain(io: &mut impl RingIo) -> Vec<Completion> {
    let mut completions = Vec::new();
    while io.in_flight() > 0 {
        io.wait(None, &mut completions).unwrap();
    }
    completions
}

#[test]
fn the_same_seed_gives_the_same_completions() {
    assert_eq!(run(7, ALL), run(7, ALL));
    assert_ne!(run(7, ALL), run(8, ALL));
}

#[test]
fn each_fault_is_seen_and_only_when_asked_for() {
    let calm = run(1, RingFaults::default());
    assert!(calm.iter().all(|(_, result, _)| *result == Ok(4096)));
    assert!(calm.is_sorted_by_key(|(token, ..)| *token));

    let wild = run(1, ALL);
    assert!(wild.iter().any(|(_, result, _)| *result == Err(Errno::EIO)));
    assert!(
        wild.iter()
            .any(|(token, result, _)| token % 2 == 0 && result.is_ok_and(|bytes| bytes < 4096))
    );
    assert!(
        wild.iter()
            .any(|(token, result, _)| token % 2 == 1 && result.is_ok_and(|bytes| bytes < 4096))
    );
    assert!(!wild.is_sorted_by_key(|(token, ..)| *token));
    assert!(
        wild.iter().all(|(_, result, _)| *result != Ok(0)),
        "a short read is not an end of the file"
    );
}

#[test]
fn a_notice_never_overtakes_its_result() {
    for seed in 0..50 {
        let pool = SlotPool::new(8, 4096).unwrap();
        let (ours, mut theirs) = tcp_pair();
        let mut io = FakeRing::new(
            seed,
            RingFaults { reorder: true, late_notices: true, ..RingFaults::default() },
        )
        .unwrap();
        let file = io.register(ours.into()).unwrap();
        for token in 0..8 {
            let slot = filled(&pool, &[u8::try_from(token).unwrap(); 4096]);
            io.submit(token, RingOp::SendZc { file, slot, range: 0..4096 }).unwrap();
        }
        let mut order: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        for completion in drain(&mut io) {
            order.entry(completion.token).or_default().push(completion.stage.is_final());
            assert_eq!(completion.slot.is_some(), completion.stage.is_final());
        }
        assert!(
            order.len() == 8 && order.values().all(|stages| *stages == [false, true]),
            "seed {seed}: {order:?}"
        );
        let bytes = read_exactly(&mut theirs, 8 * 4096);
        assert!(
            bytes.chunks(4096).zip(0..).all(|(chunk, token)| chunk == [token; 4096]),
            "seed {seed}"
        );
    }
}
