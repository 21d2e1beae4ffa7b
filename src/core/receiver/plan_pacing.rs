//! Pacing of one receiver's senders by the plan: flows of a sender that is ahead of its share
//! pause.
//!
//! TCP shares a full link equally between its flows; a plan does not. Without pacing, a sender of a
//! small share takes as much of the receiver's link as a sender of a large share. A sender that the
//! plan needs for the whole duration then sends at half its speed at first, and alone at the end.
//! So flows that are ahead pause in favour of flows that are behind. It is a soft limit: where no
//! sender is behind, a flow may deliver twice the bytes that are due. The later the whole transfer
//! is, the further ahead a flow may be.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sender_shares::SenderShares;
use crate::core::units::{Moment, NodeIx};

/// Pause of a flow that is ahead, until it checks again: shorter than a piece takes on a gigabit
/// link.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Allowance beyond the plan: this factor of the due bytes, and this many blocks, because pieces
/// come whole.
const AHEAD: f64 = 1.05;
const AHEAD_BLOCKS: f64 = 2.0;
/// Factor where no other sender is behind. Bytes that this receiver takes early may be bytes that
/// another receiver needs from the same sender now; or the speeds are better than the plan
/// believes.
const AHEAD_ALONE: f64 = 2.0;
/// Lateness of the whole transfer, as a part of it, from which on flows may be further ahead.
/// Handshakes cost about as much.
const LATE: f64 = 0.01;
/// Additional allowance per part of the whole that the transfer is late. With ten, a receiver is
/// late by less than a tenth when a sender of half of all bytes delivers nothing.
const LATE_GAIN: f64 = 10.0;

/// Planned and actual progress of each sender.
pub(super) struct PlanPacing {
    began: Moment,
    /// Duration of the plan without disturbances.
    seconds: f64,
    planned_bytes: f64,
    landed_bytes: f64,
    senders: BTreeMap<NodeIx, PacingProgress>,
}

#[derive(Clone, Copy)]
struct PacingProgress {
    planned_bytes: f64,
    landed_bytes: f64,
}

impl PlanPacing {
    /// Starts the clock now, over the bytes that are still to be requested.
    pub(super) fn new(now: Moment, seconds: f64, shares: &SenderShares) -> PlanPacing {
        let progress =
            |bytes: u64| PacingProgress { planned_bytes: bytes as f64, landed_bytes: 0.0 };
        let senders: BTreeMap<NodeIx, PacingProgress> =
            shares.bytes().map(|(sender, bytes)| (sender, progress(bytes))).collect();
        let planned_bytes = senders.values().map(|progress| progress.planned_bytes).sum();
        PlanPacing { began: now, seconds, planned_bytes, landed_bytes: 0.0, senders }
    }

    /// Counts bytes that landed from `sender`.
    pub(super) fn landed(&mut self, sender: NodeIx, bytes: u64) {
        self.landed_bytes += bytes as f64;
        if let Some(progress) = self.senders.get_mut(&sender) {
            progress.landed_bytes += bytes as f64;
        }
    }

    /// Returns true if `sender` is so far ahead that its flows should pause.
    pub(super) fn is_ahead(&self, now: Moment, sender: NodeIx, block_bytes: u64) -> bool {
        let due = now.since(self.began).as_secs_f64() / self.seconds;
        let Some(progress) = self.senders.get(&sender).filter(|_| due < 1.0) else { return false };
        let late = (due - self.landed_bytes / self.planned_bytes - LATE).max(0.0);
        // A piece in flight is not late yet.
        let is_behind =
            |it: &PacingProgress| it.landed_bytes + (block_bytes as f64) < it.planned_bytes * due;
        let ahead = if self.senders.values().any(is_behind) { AHEAD } else { AHEAD_ALONE };
        let allowed = progress.planned_bytes * (due * ahead + LATE_GAIN * late)
            + AHEAD_BLOCKS * block_bytes as f64;
        progress.landed_bytes >= allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::block_grid::BlockGrid;
    use crate::core::check::CheckMethod;
    use crate::core::receiver::extent_map::ExtentMap;
    use crate::core::units::Span;

    const A: NodeIx = NodeIx(0);
    const B: NodeIx = NodeIx(1);

    /// A plan of a thousand bytes from two senders in ten seconds, half from each, in blocks of
    /// ten.
    fn pace() -> PlanPacing {
        let extents = ExtentMap::new(
            BlockGrid::new(0, 10),
            CheckMethod::None,
            [(Span::new(0, 1000), vec![A, B])].into_iter(),
        );
        let weights = [(A, 1), (B, 1)];
        PlanPacing::new(
            Moment(0),
            10.0,
            &SenderShares::cut(&extents, [weights.as_slice()].into_iter()),
        )
    }

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    #[test]
    fn who_is_ahead_rests_while_another_is_behind() {
        let mut pace = pace();
        pace.landed(A, 140);
        pace.landed(B, 60);
        assert!(pace.is_ahead(at(2), A, 10) && !pace.is_ahead(at(2), B, 10));
        pace.landed(B, 40);
        assert!(
            !pace.is_ahead(at(2), A, 10),
            "nobody is behind: all are faster than the plan thought"
        );
        assert!(!pace.is_ahead(at(10), A, 10), "the plan's time is over");
    }

    #[test]
    fn the_later_the_whole_is_the_further_ahead_a_flow_may_be() {
        let mut pace = pace();
        pace.landed(A, 150);
        assert!(
            !pace.is_ahead(at(2), A, 10),
            "a twentieth is late; half as much again is not too far ahead for that"
        );
        pace.landed(A, 40);
        assert!(pace.is_ahead(at(2), A, 10), "it makes up for the other, and the whole is in time");
    }
}
