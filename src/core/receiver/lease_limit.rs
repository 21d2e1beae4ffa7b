//! Limit on the lease rate of one receiver: flows take turns, a piece each, as a token bucket lets
//! them.

use super::token_bucket::TokenBucket;
use crate::core::piece::FlowIx;
use crate::core::units::Moment;

/// Limit on the lease rate.
pub(super) struct LeaseLimit {
    bucket: TokenBucket,
    /// Flow that received the last lease.
    last: FlowIx,
}

impl LeaseLimit {
    pub(super) fn new(now: Moment, bytes_per_second: u64, piece_bytes: u64) -> LeaseLimit {
        LeaseLimit { bucket: TokenBucket::new(now, bytes_per_second, piece_bytes), last: FlowIx(0) }
    }

    /// Puts flows, given ascending, in the order of their turns: those that have waited longest
    /// come first.
    pub(super) fn put_in_turn(&self, flows: &mut [FlowIx]) {
        let next = flows.partition_point(|&flow| flow <= self.last);
        flows.rotate_left(next);
    }

    /// Lets a flow have one piece.
    ///
    /// # Errors
    /// The moment at which it may, if not now.
    pub(super) fn take_turn(&mut self, now: Moment, flow: FlowIx) -> Result<(), Moment> {
        if !self.bucket.is_open(now) {
            return Err(self.bucket.next());
        }
        self.last = flow;
        Ok(())
    }

    /// Counts bytes that were leased.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.bucket.spend(bytes);
    }

    /// Counts bytes whose lease was given back.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.bucket.give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_take_turns_and_wait_for_the_bucket() {
        let [a, b, c] = [1, 2, 3].map(FlowIx);
        let mut limit = LeaseLimit::new(Moment(0), 1000, 100);
        let in_turn = |limit: &LeaseLimit| {
            let mut flows = [a, b, c];
            limit.put_in_turn(&mut flows);
            flows
        };
        assert_eq!(in_turn(&limit), [a, b, c]);
        assert_eq!(limit.take_turn(Moment(0), b), Ok(()));
        limit.spend(100);
        assert_eq!(in_turn(&limit), [c, a, b]);
        let later = limit.take_turn(Moment(0), c).expect_err("the bucket is empty");
        assert!(later > Moment(0));
        assert_eq!(in_turn(&limit), [c, a, b], "it keeps its turn");
        assert_eq!(limit.take_turn(later, c), Ok(()));
        limit.give_back(100);
        assert_eq!(in_turn(&limit), [a, b, c]);
    }
}
