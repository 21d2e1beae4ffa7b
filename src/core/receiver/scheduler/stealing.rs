//! Work for flows whose own share is dry: what is stolen from slower senders, asked for twice, or
//! taken back from flows that are late with it.

use std::time::Duration;

use super::{LOOK_AGAIN, PieceScheduler, SOFT_MAX, ScheduledFlow, SchedulerAction};
use crate::core::piece::{FlowCommand, FlowIx, Piece};
use crate::core::units::{Moment, NodeIx, Span};

/// Somebody is late who needs this much longer than the flow that would be asked instead.
const LATE_FACTOR: f64 = 2.0;
/// Bytes asked for twice, in blocks, that are always allowed. Beyond, one byte in a hundred: they
/// may all come twice.
const TWICE_BLOCKS: u64 = 2;
/// The same where the other flow is silent and may not bring them at all: what two such flows hold.
const TWICE_BLOCKS_SILENT: u64 = 32;
/// A flow on which nothing landed for so long is silent.
const SILENT: Duration = Duration::from_secs(1);

impl PieceScheduler {
    /// A piece for a flow whose own share is dry.
    pub(super) fn steal(&mut self, now: Moment, flow: FlowIx) -> Option<Span> {
        if self.intake.is_full(now) {
            return None;
        }
        let thief = &self.flows[&flow];
        if thief.leased.iter().filter(|piece| piece.stolen).count() >= SOFT_MAX {
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

    /// Whether everything else would have landed before this flow brought one more piece of its
    /// own, and another flow could bring that in half the time: then it is left for others to
    /// steal. What a slow flow was asked for cannot be taken back.
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

    /// Bytes per second that a sender's flows deliver; a sender that has delivered nothing counts
    /// as very slow.
    fn sender_rate(&self, now: Moment, sender: NodeIx) -> f64 {
        let flows = self.flows.values().filter(|flow| flow.rail_pair.sender == sender);
        flows.filter_map(|flow| flow.meter.bytes_per_second(now)).sum::<f64>().max(1.0)
    }

    /// The flow whose leases will take longest, of those that hold a piece which `thief` could
    /// bring much sooner.
    fn latest(&self, now: Moment, thief: FlowIx) -> Option<FlowIx> {
        let mine = &self.flows[&thief];
        let rate = mine.meter.bytes_per_second(now)?;
        let mine_seconds = self.extents.grid().block_bytes() as f64 / rate;
        let late =
            self.flows.iter().filter(|(flow, state)| **flow != thief && !state.leased.is_empty());
        let late = late.map(|(&flow, state)| {
            let bytes: u64 = state.leased.iter().map(|piece| piece.span.bytes()).sum();
            // Of a flow that has brought nothing yet, all that is known is how long that has been
            // so.
            let waited = now.since(state.up_at).as_secs_f64();
            (state.meter.bytes_per_second(now).map_or(waited, |rate| bytes as f64 / rate), flow)
        });
        let late = late.filter(|&(seconds, _)| {
            seconds > LATE_FACTOR * mine_seconds + LOOK_AGAIN.as_secs_f64()
        });
        late.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, flow)| flow)
    }

    /// A piece that another flow is late with. The extent map decides who brings it; the other is
    /// counted as waste.
    fn ask_twice(&mut self, now: Moment, thief: FlowIx) -> Option<Span> {
        let late = self.latest(now, thief)?;
        let sender = self.flows[&thief].rail_pair.sender;
        let is_free = |piece: &&Piece| {
            let (segment, index) = self.extents.place(piece.span);
            !self.twice.contains_key(&piece.span.start)
                && !self.extents.is_settled_piece(segment, index)
                && self.extents.offers(sender, segment)
        };
        let piece = self.flows[&late].leased.iter().rev().find(is_free)?.span;
        let is_silent = now.since(self.flows[&late].heard) >= SILENT;
        let blocks = if is_silent { TWICE_BLOCKS_SILENT } else { TWICE_BLOCKS };
        let allowed =
            (blocks * self.extents.grid().block_bytes()).max(self.extents.wanted_bytes() / 100);
        if self.twice_bytes + piece.bytes() > allowed {
            return None;
        }
        self.twice_bytes += piece.bytes();
        self.twice.insert(piece.start, piece.bytes());
        Some(piece)
    }

    /// Asks the latest flow to give back half of what it has not asked for.
    fn revoke(&mut self, now: Moment, thief: FlowIx) {
        let Some(late) = self.latest(now, thief) else { return };
        let state = self.flows.get_mut(&late).expect("latest() names a flow");
        if !state.revoking && now >= state.revoke_again {
            state.revoking = true;
            // One that has nothing to give back is not asked again before time has passed.
            state.revoke_again = now + LOOK_AGAIN;
            let pieces = state.leased.len().div_ceil(2) as u32;
            self.actions
                .push_back(SchedulerAction::Flow(FlowCommand::Revoke { flow: late, pieces }));
        }
    }
}
