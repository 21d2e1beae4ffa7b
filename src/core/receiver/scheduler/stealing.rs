//! Work for flows whose own share is dry: pieces stolen from slower senders, requested a second
//! time, or revoked from late flows.

use super::{LOOK_AGAIN, PieceScheduler, STOLEN_MAX, ScheduledFlow, SchedulerAction};
use crate::core::piece::{FlowCommand, FlowIx, Piece};
use crate::core::units::{Moment, NodeIx, Span};

/// A flow is late if it needs this many times as long as the flow that would be asked instead.
const LATE_FACTOR: f64 = 2.0;
/// Blocks that may always be requested twice.
const TWICE_BLOCKS: u64 = 2;
/// One byte in so many may be requested twice: rates are guesses.
const TWICE_PART: u64 = 100;
/// One byte in so many may be where the late flow needs `TWICE_SECONDS` for its pieces.
const TWICE_PART_LONG: u64 = 8;
/// Time for which a late flow's pieces are worth waste: below it, rates are too rough to tell.
const TWICE_SECONDS: f64 = 0.25;

impl PieceScheduler {
    /// Returns a piece for a flow whose own share is dry.
    pub(super) fn steal(&mut self, now: Moment, flow: FlowIx) -> Option<Span> {
        if self.intake.is_full(now) {
            return None;
        }
        let thief = &self.flows[&flow];
        if thief.leased.iter().filter(|piece| piece.stolen).count() >= STOLEN_MAX {
            return None;
        }
        let thief = thief.rail_pair.sender;
        let mut victims: Vec<(f64, NodeIx)> = self
            .shares
            .bytes()
            .filter(|&(victim, bytes)| victim != thief && bytes > 0)
            .map(|(victim, bytes)| (bytes as f64 / self.sender_rate(now, victim), victim))
            .collect();
        victims.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let stolen = victims
            .into_iter()
            .find_map(|(_, victim)| self.shares.steal(&self.extents, thief, victim));
        stolen.or_else(|| self.ask_twice(now, flow)).or_else(|| {
            self.revoke(now, flow);
            None
        })
    }

    /// Returns true if everything else would have landed before this flow delivered one more piece
    /// of its own, and another flow could deliver it in half the time. Then the piece is left for
    /// others to steal: pieces requested of a slow flow cannot be taken back.
    pub(super) fn would_be_last(&self, now: Moment, flow: FlowIx) -> bool {
        let block = self.extents.grid().block_bytes();
        let seconds = |state: &ScheduledFlow| {
            let leased: u64 = state.leased.iter().map(|piece| piece.span.bytes()).sum();
            state.meter.bytes_per_second(now).map(|rate| (leased + block) as f64 / rate)
        };
        let mine = &self.flows[&flow];
        let (Some(mine_seconds), Some(segment)) =
            (seconds(mine), self.shares.next_segment(mine.rail_pair.sender))
        else {
            return false;
        };
        let rate: f64 =
            self.flows.values().filter_map(|state| state.meter.bytes_per_second(now)).sum();
        let left = self.extents.left_bytes() as f64;
        let is_better = |(of, state): (&FlowIx, &ScheduledFlow)| {
            let offers = *of != flow && self.extents.offers(state.rail_pair.sender, segment);
            offers && seconds(state).is_some_and(|seconds| LATE_FACTOR * seconds < mine_seconds)
        };
        mine_seconds > left / rate && self.flows.iter().any(is_better)
    }

    /// Returns the bytes per second that a sender's flows deliver. A sender that has delivered
    /// nothing counts as very slow.
    fn sender_rate(&self, now: Moment, sender: NodeIx) -> f64 {
        let flows = self.flows.values().filter(|flow| flow.rail_pair.sender == sender);
        flows.filter_map(|flow| flow.meter.bytes_per_second(now)).sum::<f64>().max(1.0)
    }

    /// Returns the flow whose leases will take longest, and the seconds that they will, among those
    /// that hold a piece which `thief` could deliver much sooner.
    fn latest(&self, now: Moment, thief: FlowIx) -> Option<(FlowIx, f64)> {
        let mine = &self.flows[&thief];
        let rate = mine.meter.bytes_per_second(now)?;
        let mine_seconds = self.extents.grid().block_bytes() as f64 / rate;
        let other_flows =
            self.flows.iter().filter(|(flow, state)| **flow != thief && !state.leased.is_empty());
        let seconds_left = other_flows.map(|(&flow, state)| {
            let bytes: u64 = state.leased.iter().map(|piece| piece.span.bytes()).sum();
            // A flow that has delivered nothing has no rate; its age is the best estimate.
            let waited = now.since(state.up_at).as_secs_f64();
            (state.meter.bytes_per_second(now).map_or(waited, |rate| bytes as f64 / rate), flow)
        });
        let seconds_max = LATE_FACTOR * mine_seconds + LOOK_AGAIN.as_secs_f64();
        seconds_left
            .filter(|&(seconds, _)| seconds > seconds_max)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(seconds, flow)| (flow, seconds))
    }

    /// Returns a piece that another flow is late with, to be requested a second time. The extent
    /// map keeps the first copy that lands; the other one counts as wasted. A few blocks may always
    /// be; more only where the wait is long, for then the thief brings more in the time that is
    /// saved than is wasted.
    fn ask_twice(&mut self, now: Moment, thief: FlowIx) -> Option<Span> {
        let (late, seconds) = self.latest(now, thief)?;
        let sender = self.flows[&thief].rail_pair.sender;
        let is_free = |piece: &&Piece| {
            let (segment, index) = self.extents.place(piece.span);
            !self.twice.contains(&piece.span.start)
                && !self.extents.is_settled_piece(segment, index)
                && self.extents.offers(sender, segment)
        };
        let piece = self.flows[&late].leased.iter().rev().find(is_free)?.span;
        let block_bytes = self.extents.grid().block_bytes();
        let part = if seconds < TWICE_SECONDS { TWICE_PART } else { TWICE_PART_LONG };
        let allowed = (TWICE_BLOCKS * block_bytes).max(self.extents.wanted_bytes() / part);
        if (self.twice.len() as u64 + 1) * block_bytes > allowed {
            return None;
        }
        self.twice.insert(piece.start);
        Some(piece)
    }

    /// Asks the latest flow to return half of its unrequested leases.
    fn revoke(&mut self, now: Moment, thief: FlowIx) {
        let Some((late, _)) = self.latest(now, thief) else { return };
        let state = self.flows.get_mut(&late).expect("latest() names a flow");
        if !state.revoking && now >= state.revoke_again {
            state.revoking = true;
            // A flow with nothing to return is asked again only after a while.
            state.revoke_again = now + LOOK_AGAIN;
            let pieces = state.leased.len().div_ceil(2) as u32;
            self.actions
                .push_back(SchedulerAction::Flow(FlowCommand::Revoke { flow: late, pieces }));
        }
    }
}
