//! Any sequence of reads and writes does to a file what it does to a vector of bytes, on every kind
//! of ring.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use common::{file_with, on_each_ring, wait_one};
use proptest::prelude::*;
use ring::RingOp;

const FILE_BYTES: usize = 12_000;

#[derive(Clone, Debug)]
struct Step {
    write: bool,
    offset: usize,
    bytes: usize,
    /// Start of the range in the slot.
    at: usize,
    value: u8,
}

fn step() -> impl Strategy<Value = Step> {
    (any::<bool>(), 0..FILE_BYTES, 1..5000usize, 0..5000usize, any::<u8>())
        .prop_map(|(write, offset, bytes, at, value)| Step { write, offset, bytes, at, value })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_file_is_a_vector_of_bytes(steps in prop::collection::vec(step(), 1..20)) {
        on_each_ring(|kind, io, pool| {
            let mut model = vec![0u8; FILE_BYTES];
            let file = io.register(file_with(&model)).unwrap();
            for (token, step) in (0..).zip(steps.iter().cloned()) {
                let Step { write, offset, bytes, at, value } = step;
                let mut slot = pool.take().unwrap();
                slot.as_mut_slice().fill(value);
                let (range, offset_u64) = (at..at + bytes, offset as u64);
                let op = if write {
                    RingOp::Write { file, slot, range: range.clone(), offset: offset_u64 }
                } else {
                    let (range, offset) = (range.clone(), offset_u64);
                    RingOp::Read { file, slot, range, offset, nowait: false }
                };
                io.submit(token, op).unwrap();
                let (result, slot) = wait_one(io, token);
                let slot = slot.unwrap();
                if write {
                    assert_eq!(result.map(|moved| moved as usize), Ok(bytes), "{kind}");
                    model.resize(model.len().max(offset + bytes), 0);
                    model[offset..offset + bytes].fill(value);
                } else {
                    let end = model.len().min(offset + bytes);
                    assert_eq!(result.map(|moved| moved as usize), Ok(end - offset), "{kind}");
                    assert_eq!(
                        slot.as_slice()[at..at + end - offset], model[offset..end], "{kind}"
                    );
                }
                // No byte outside the range was changed.
                assert!(slot.as_slice()[..at].iter().all(|&byte| byte == value), "{kind}");
                assert!(slot.as_slice()[at + bytes..].iter().all(|&byte| byte == value), "{kind}");
            }
        });
    }
}
