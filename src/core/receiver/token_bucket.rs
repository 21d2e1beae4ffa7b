//! Token bucket: limits the bytes per second that a receiver requests.

use std::time::Duration;

use crate::core::units::Moment;

/// Capacity in pieces: one to request now and one behind it.
const BURST_PIECES: u64 = 2;
/// Capacity in seconds, so that a millisecond clock does not slow down rates of more than a piece
/// per millisecond.
const BURST_SECONDS: f64 = 0.01;

/// Tokens, one a byte. A piece passes when the bucket holds a piece of the usual size. It takes its
/// own bytes and may leave the bucket in debt: so a piece of any size passes, and the next one
/// waits longer.
///
/// Events: `is_open`, `spend`, `give_back`. Time: `next`.
///
/// Invariant: `tokens` ≤ `burst_bytes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    bytes_per_second: f64,
    piece_bytes: f64,
    burst_bytes: f64,
    tokens: f64,
    /// Moment at which `tokens` was computed.
    at: Moment,
}

impl TokenBucket {
    /// Creates a bucket with enough tokens for the first piece of the usual size.
    pub(super) fn new(now: Moment, bytes_per_second: u64, piece_bytes: u64) -> TokenBucket {
        let (bytes_per_second, piece_bytes) = (bytes_per_second.max(1) as f64, piece_bytes as f64);
        let burst_bytes = (BURST_PIECES as f64 * piece_bytes).max(bytes_per_second * BURST_SECONDS);
        TokenBucket { bytes_per_second, piece_bytes, burst_bytes, tokens: piece_bytes, at: now }
    }

    /// Returns true if there are enough tokens for a piece of the usual size.
    pub(super) fn is_open(&mut self, now: Moment) -> bool {
        let gained = now.since(self.at).as_secs_f64() * self.bytes_per_second;
        self.tokens = (self.tokens + gained).min(self.burst_bytes);
        self.at = self.at.max(now);
        self.tokens >= self.piece_bytes
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
    }

    /// Puts back tokens that were spent and not used.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.tokens = (self.tokens + bytes as f64).min(self.burst_bytes);
    }

    /// Returns the moment at which there are enough tokens for a piece.
    pub(super) fn next(&self) -> Moment {
        let seconds = (self.piece_bytes - self.tokens).max(0.0) / self.bytes_per_second;
        // Adds a microsecond, so that rounding never causes a wake-up too early.
        self.at + Duration::from_secs_f64(seconds.min(LONGEST_SECONDS)) + Duration::from_micros(1)
    }
}

/// Longest wait. At one byte a second even a small piece takes hours; the caller checks again
/// meanwhile.
const LONGEST_SECONDS: f64 = 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn take(bucket: &mut TokenBucket, now: Moment, bytes: u64) -> bool {
        let is_open = bucket.is_open(now);
        if is_open {
            bucket.spend(bytes);
        }
        is_open
    }

    #[test]
    fn pieces_pass_at_the_rate_of_the_limit() {
        let mut bucket = TokenBucket::new(at(0), 1000, 100);
        let (mut now, mut taken) = (at(0), 0);
        while now <= at(10_000) {
            assert!(take(&mut bucket, now, 100), "what was promised is there");
            taken += 100;
            assert!(!take(&mut bucket, now, 100) && bucket.next() > now);
            now = bucket.next();
        }
        assert!((9_900..=10_200).contains(&taken), "{taken}");
    }

    #[test]
    fn rest_is_saved_up_to_a_burst_and_no_further() {
        let mut bucket = TokenBucket::new(at(0), 1000, 100);
        assert!(take(&mut bucket, at(0), 100) && !take(&mut bucket, at(0), 100));
        assert!(take(&mut bucket, at(5000), 100) && take(&mut bucket, at(5000), 100));
        assert!(!take(&mut bucket, at(5000), 100));
        bucket.give_back(100);
        assert!(take(&mut bucket, at(5000), 100));
        let mut fast = TokenBucket::new(at(0), 1_000_000, 100);
        assert!(
            take(&mut fast, at(1000), 9_950) && !take(&mut fast, at(1000), 100),
            "ten milliseconds of it"
        );
    }

    #[test]
    fn a_piece_larger_than_a_full_bucket_passes_and_is_paid_for_later() {
        let mut bucket = TokenBucket::new(at(0), 1000, 100);
        assert!(take(&mut bucket, at(0), 1000));
        assert!(!take(&mut bucket, at(999), 100) && take(&mut bucket, at(1001), 100));
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing_and_no_wait_is_endless() {
        let mut bucket = TokenBucket::new(at(1000), 1, 100);
        assert!(take(&mut bucket, at(500), u64::MAX) && !take(&mut bucket, at(500), 1));
        assert!(bucket.next() <= at(1000) + Duration::from_secs(3601));
    }
}
