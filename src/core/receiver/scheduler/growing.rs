//! Further flows of rail pairs whose paths lose packets.

use super::{PieceScheduler, SchedulerAction};
use crate::core::piece::{FlowCommand, FlowIx};
use crate::core::receiver::flow_growth::{GrowthStep, PathReading};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::units::Moment;

/// Pieces that a flow is to have left of its sender's share, so that it is worth opening.
const PIECES_EACH_MIN: u64 = 2;
/// Time that the share takes without further flows, from which on they are worth opening: each
/// begins slowly, and is late with its first pieces.
const WORTH_SECONDS: f64 = 3.0;

impl PieceScheduler {
    /// Takes in a reading of the path of a flow. Its rail pair may get further flows, or lose them.
    pub(super) fn path_read(&mut self, now: Moment, flow: FlowIx, reading: PathReading) {
        let Some((place, before)) = self.flows.path_read(flow, reading) else { return };
        if self.limit.is_some() || self.rail_pairs.is_surplus(place) {
            return;
        }
        let flows = self.rail_pairs.flows_of(place);
        match self.growth.read(now, place.own(), (reading, before), flows) {
            GrowthStep::Stay => {}
            GrowthStep::Open(count) => {
                let left = self.shares.bytes_of(place.sender);
                let pieces = left / self.extents.grid().block_bytes();
                let useful = u32::try_from(pieces / PIECES_EACH_MIN).unwrap_or(count);
                if left as f64 >= WORTH_SECONDS * self.flows.sender_rate(now, place.sender) {
                    self.rail_pairs.open_further(place, count.min(useful));
                }
            }
            GrowthStep::Shrink(count) => {
                self.rail_pairs.give_up(place, count);
                self.feed_hungry(now);
            }
        }
    }

    /// Closes a flow that owes nothing.
    pub(super) fn close_idle(&mut self, flow: FlowIx, rail_pair: RailPair) {
        if self.flows.is_idle(flow) {
            self.flows.remove(flow);
            self.actions.push_back(SchedulerAction::Flow(FlowCommand::Close { flow }));
            self.rail_pairs.idle(rail_pair);
        }
    }
}
