//! Work for flows whose own share is dry: pieces stolen from slower senders, requested a second
//! time, or revoked from late flows.

use super::{PieceScheduler, SchedulerAction};
use crate::core::piece::FlowIx;
use crate::core::units::{Moment, NodeIx, Span};

impl PieceScheduler {
    /// Returns a piece for a flow whose own share is dry.
    pub(super) fn steal(&mut self, now: Moment, flow: FlowIx) -> Option<Span> {
        // Further segments are better work than a second copy.
        if self.grows || !self.flows.may_steal(now, flow) {
            return None;
        }
        let thief = self.flows.rail_pair(flow)?.sender;
        let stolen = self.shares.steal_latest(now, &self.extents, &self.flows, thief);
        stolen.or_else(|| self.ask_twice(now, flow, thief)).or_else(|| {
            self.revoke(now, flow);
            None
        })
    }

    /// Returns a piece that another flow is late with, to be requested a second time.
    fn ask_twice(&mut self, now: Moment, flow: FlowIx, thief: NodeIx) -> Option<Span> {
        let late = self.flows.latest(now, flow, self.extents.grid().block_bytes())?;
        self.twice.take(&late, thief, &self.extents)
    }

    /// Asks the latest flow to return half of its unrequested leases.
    fn revoke(&mut self, now: Moment, flow: FlowIx) {
        let command = self.flows.revoke(now, flow, self.extents.grid().block_bytes());
        self.actions.extend(command.map(SchedulerAction::Flow));
    }
}
