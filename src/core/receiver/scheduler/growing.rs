//! Further flows of rail pairs whose paths lose packets.

use super::{PieceScheduler, SchedulerAction};
use crate::core::piece::{FlowCommand, FlowIx};
use crate::core::receiver::flow_growth::{FlowCountStep, PathReading};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::units::Moment;

/// Pieces that a flow is to have left of its sender's share, so that it is worth opening.
const PIECES_EACH_MIN: u64 = 2;
/// Time that the share takes without further flows, from which on they are worth opening: each
/// begins slowly, and is late with its first pieces.
const WORTH_SECONDS: f64 = 3.0;

/// Takes in a reading of the path of a flow. Its rail pair may get further flows, or lose them.
pub(super) fn path_read(
    scheduler: &mut PieceScheduler,
    now: Moment,
    flow: FlowIx,
    reading: PathReading,
) {
    let Some((place, before)) = scheduler.flows.path_read(flow, reading) else { return };
    if scheduler.limit.is_some() || scheduler.rail_pairs.is_surplus(place) {
        return;
    }
    let flows = scheduler.rail_pairs.flows_of(place);
    match scheduler.growth.read(now, place.own(), (reading, before), flows) {
        FlowCountStep::Stay => {}
        FlowCountStep::Open(count) => {
            let left = scheduler.shares.bytes_of(place.sender);
            let pieces = left / scheduler.extents.grid().block_bytes();
            let useful = u32::try_from(pieces / PIECES_EACH_MIN).unwrap_or(count);
            if left as f64 >= WORTH_SECONDS * scheduler.flows.sender_rate(now, place.sender) {
                scheduler.rail_pairs.open_further(place, count.min(useful));
            }
        }
        FlowCountStep::Shrink(count) => {
            scheduler.rail_pairs.give_up(place, count);
            scheduler.feed_hungry(now);
        }
    }
}

/// Closes a flow that owes nothing.
pub(super) fn close_idle(scheduler: &mut PieceScheduler, flow: FlowIx, rail_pair: RailPair) {
    if scheduler.flows.is_idle(flow) {
        scheduler.flows.remove(flow);
        scheduler.actions.push_back(SchedulerAction::Flow(FlowCommand::Close { flow }));
        scheduler.rail_pairs.idle(rail_pair);
    }
}
