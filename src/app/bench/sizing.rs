//! Size of a run for an intended duration: a short run measures the rate, which determines the
//! size.

use std::time::Duration;

use crate::core::units::MIB;

/// Bytes for each receiver in the first short run: an instant on a fast NIC, three seconds at 100
/// Mbit/s.
pub(crate) const PROBE_BYTES: u64 = 32 * MIB;
/// Part of the intended duration that a run must last for a reliable rate: TCP starts slowly.
const BELIEVED_PART: f64 = 0.1;
/// Duration that is always sufficient for a reliable rate.
const BELIEVED_SECONDS: f64 = 0.5;
/// Growth of the next short run.
const PROBE_GROWTH: f64 = 8.0;
/// Limit on the bytes of one receiver: pieces are counted, and 1 TiB has a million of them.
const PART_BYTES_MAX: f64 = (1_u64 << 40) as f64;

/// Next run after a short run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NextRun {
    /// The run was too short: another short run, with these bytes for each receiver.
    Probe(Vec<u64>),
    /// These bytes for each receiver last about as long as intended.
    Measure(Vec<u64>),
}

/// Sizes the next run from one in which the receivers received `(bytes, seconds)` each.
pub(crate) fn parts(last: &[(u64, f64)], target: Duration) -> NextRun {
    let target = target.as_secs_f64();
    let longest = last.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    let is_largest = last.iter().all(|&(bytes, _)| bytes as f64 >= PART_BYTES_MAX);
    let is_believed = longest >= (target * BELIEVED_PART).min(BELIEVED_SECONDS) || is_largest;
    let size = |&(bytes, seconds): &(u64, f64)| {
        let enough = bytes as f64 * target / seconds.max(1e-9);
        let bytes = if is_believed { enough } else { enough.min(bytes as f64 * PROBE_GROWTH) };
        // Whole blocks, so that no piece of the grid is cut between two receivers.
        (bytes.min(PART_BYTES_MAX) as u64).next_multiple_of(MIB).max(MIB)
    };
    let sizes = last.iter().map(size).collect();
    if is_believed { NextRun::Measure(sizes) } else { NextRun::Probe(sizes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Duration = Duration::from_secs(5);

    #[test]
    fn a_run_that_lasted_tells_the_size() {
        assert_eq!(parts(&[(100 * MIB, 1.0)], FIVE), NextRun::Measure(vec![500 * MIB]));
        assert_eq!(
            parts(&[(100 * MIB, 1.0), (100 * MIB, 0.1)], FIVE),
            NextRun::Measure(vec![500 * MIB, 5000 * MIB])
        );
        assert_eq!(
            parts(&[(32 * MIB, 64.0)], FIVE),
            NextRun::Measure(vec![3 * MIB]),
            "whole blocks, rounded up"
        );
    }

    #[test]
    fn one_that_was_over_at_once_is_followed_by_a_larger_one() {
        assert_eq!(parts(&[(32 * MIB, 0.01)], FIVE), NextRun::Probe(vec![256 * MIB]));
        assert_eq!(
            parts(&[(32 * MIB, 0.1)], Duration::from_secs(1)),
            NextRun::Measure(vec![320 * MIB])
        );
    }

    #[test]
    fn nothing_grows_without_end() {
        let largest = 1 << 40;
        assert_eq!(parts(&[(MIB, 0.0)], FIVE), NextRun::Probe(vec![8 * MIB]));
        assert_eq!(parts(&[(largest, 0.0)], FIVE), NextRun::Measure(vec![largest]));
        assert_eq!(parts(&[(largest, 1.0)], FIVE), NextRun::Measure(vec![largest]));
        assert_eq!(parts(&[(MIB, 1e9)], FIVE), NextRun::Measure(vec![MIB]));
    }
}
