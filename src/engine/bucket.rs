//! A limit on bytes per second: a bucket that fills at the rate of the limit, and that every piece is taken out of.

use std::time::Duration;

use crate::units::Moment;

/// What a full bucket holds, in pieces: one to be asked for and one behind it.
const BURST_PIECES: u64 = 2;
/// …and in time, so that a clock of milliseconds does not hold up what is faster than a piece in one.
const BURST_SECONDS: f64 = 0.01;

/// Tokens for bytes.
///
/// Events: `take`. Time: `next`. A piece that is larger than a full bucket passes, and leaves it in debt.
///
/// Invariant: `tokens` ≤ `burst_bytes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    bytes_per_second: f64,
    burst_bytes: f64,
    tokens: f64,
    /// When `tokens` was right.
    at: Moment,
}

impl Bucket {
    /// A bucket that holds enough for the first piece.
    pub(super) fn new(now: Moment, bytes_per_second: u64, piece_bytes: u64) -> Bucket {
        let bytes_per_second = bytes_per_second.max(1) as f64;
        let burst_bytes = ((BURST_PIECES * piece_bytes) as f64).max(bytes_per_second * BURST_SECONDS);
        Bucket { bytes_per_second, burst_bytes, tokens: piece_bytes as f64, at: now }
    }

    /// Takes `bytes` out, if that much is in it.
    pub(super) fn take(&mut self, now: Moment, bytes: u64) -> bool {
        self.fill(now);
        let is_there = self.tokens >= self.price(bytes);
        if is_there {
            self.tokens -= bytes as f64;
        }
        is_there
    }

    /// Puts back what was taken and not used.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.tokens = (self.tokens + bytes as f64).min(self.burst_bytes);
    }

    /// When `bytes` will be in it.
    pub(super) fn next(&self, bytes: u64) -> Moment {
        let seconds = (self.price(bytes) - self.tokens).max(0.0) / self.bytes_per_second;
        // A nanosecond more, so that rounding never wakes anybody for nothing.
        self.at + Duration::from_secs_f64(seconds.min(LONGEST_SECONDS)) + Duration::from_nanos(1)
    }

    /// What must be there: never more than fits.
    fn price(&self, bytes: u64) -> f64 {
        (bytes as f64).min(self.burst_bytes)
    }

    fn fill(&mut self, now: Moment) {
        self.tokens += now.since(self.at).as_secs_f64() * self.bytes_per_second;
        self.tokens = self.tokens.min(self.burst_bytes);
        self.at = self.at.max(now);
    }
}

/// At one byte a second even the largest piece takes years; whoever waits asks again meanwhile.
const LONGEST_SECONDS: f64 = 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn pieces_pass_at_the_rate_of_the_limit() {
        let mut bucket = Bucket::new(at(0), 1000, 100);
        let (mut now, mut taken) = (at(0), 0);
        while now <= at(10_000) {
            if bucket.take(now, 100) {
                taken += 100;
            } else {
                assert!(bucket.next(100) > now);
                now = bucket.next(100);
                assert!(bucket.take(now, 100), "what was promised is there");
                taken += 100;
            }
        }
        assert!((9_900..=10_200).contains(&taken), "{taken}");
    }

    #[test]
    fn rest_is_saved_up_to_a_burst_and_no_further() {
        let mut bucket = Bucket::new(at(0), 1000, 100);
        assert!(bucket.take(at(0), 100) && !bucket.take(at(0), 100));
        assert!(bucket.take(at(5000), 100) && bucket.take(at(5000), 100) && !bucket.take(at(5000), 100));
        bucket.give_back(100);
        assert!(bucket.take(at(5000), 100));
        let mut fast = Bucket::new(at(0), 1_000_000, 100);
        assert!(fast.take(at(1000), 10_000) && !fast.take(at(1000), 100), "ten milliseconds of it");
    }

    #[test]
    fn a_piece_larger_than_a_full_bucket_passes_and_is_paid_for_later() {
        let mut bucket = Bucket::new(at(0), 1000, 100);
        assert!(!bucket.take(at(0), 1000));
        assert_eq!(bucket.next(1000), at(100) + Duration::from_nanos(1));
        assert!(bucket.take(at(100), 1000));
        assert!(!bucket.take(at(899), 100) && bucket.take(at(901), 100));
    }

    #[test]
    fn a_clock_that_stands_still_or_starts_late_gives_nothing() {
        let mut bucket = Bucket::new(at(1000), 1, 100);
        assert!(bucket.take(at(500), 100) && !bucket.take(at(500), 1));
        assert!(bucket.next(u64::MAX) <= at(1000) + Duration::from_secs(3601));
    }
}
