//! Answers to calls: flows that this node opens to receivers which do not reach it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::openings::{FlowOpening, WayStep};
use super::routes::FlowRoute;
use crate::core::error::Error;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::units::NodeIx;
use crate::core::wire::control::FlowCall;

/// Limit on the flows that are being opened at once for one transfer: those of four rails.
const ANSWERS_MAX: usize = 384;

/// Flows that are being opened, by the rail pair of the receiver, which stands in for the sender
/// there.
#[derive(Debug, Default)]
pub(super) struct CallAnswers(BTreeMap<RailPair, (FlowCall, FlowOpening)>);

/// Returns the place of the flow that a receiver calls for.
pub(super) fn place_of(call: &FlowCall) -> RailPair {
    RailPair { sender: NodeIx(call.peer), index: call.pair, further: call.further }
}

impl CallAnswers {
    /// Begins to open a flow, in place of an earlier one there. Returns false if there are too
    /// many.
    pub(super) fn begin(&mut self, call: FlowCall, opening: FlowOpening) -> bool {
        let place = place_of(&call);
        let has_room = self.0.len() < ANSWERS_MAX || self.0.contains_key(&place);
        if has_room {
            self.0.insert(place, (call, opening));
        }
        has_room
    }

    /// The next step to open one. One that has none left is forgotten.
    pub(super) fn step(&mut self, place: RailPair, now: Instant) -> Option<WayStep> {
        self.0.get_mut(&place)?.1.step(now)
    }

    /// A way failed.
    pub(super) fn fail(&mut self, place: RailPair, now: Instant, way: FlowRoute, error: Error) {
        if let Some((_, opening)) = self.0.get_mut(&place)
            && opening.fail(now, way, error)
        {
            self.0.remove(&place);
        }
    }

    /// A connection to the receiver stands. The opening ends, if it is one still.
    pub(super) fn end(&mut self, place: RailPair) -> Option<(FlowCall, FlowOpening)> {
        self.0.remove(&place)
    }

    /// The instant at which the next way of some flow is to be tried.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter_map(|(_, opening)| opening.due()).min()
    }

    /// The flows whose next way is to be tried.
    pub(super) fn due_at(&self, now: Instant) -> impl Iterator<Item = RailPair> {
        let is_due = move |opening: &FlowOpening| opening.due().is_some_and(|due| now >= due);
        self.0.iter().filter(move |(_, (_, opening))| is_due(opening)).map(|(&place, _)| place)
    }
}
