//! Bytes that are fixed by receiving alone, for any senders: those that each node receives, that
//! each store is written, and that stores are read for copies within nodes.

use super::{PlanProblem, Segment};
use crate::core::units::NodeIx;

/// Bytes by node and by store.
#[derive(Clone)]
pub(super) struct PlanIntake {
    /// Bytes that each node receives over the network.
    pub(super) received: Vec<f64>,
    /// Bytes that each store is written to.
    pub(super) written: Vec<f64>,
    /// Bytes that each store is read for copies within nodes.
    pub(super) read: Vec<f64>,
}

impl PlanIntake {
    pub(super) fn new(problem: &PlanProblem) -> PlanIntake {
        let zeros = |count: usize| vec![0.0; count];
        let (nodes, stores) = (problem.nodes.len(), problem.stores.len());
        PlanIntake { received: zeros(nodes), written: zeros(stores), read: zeros(stores) }
    }

    /// Counts a segment at one of its receivers. Returns true if it must be sent: a node that
    /// offers the segment copies it locally.
    pub(super) fn add(
        &mut self,
        problem: &PlanProblem,
        segment: &Segment,
        receiver: NodeIx,
    ) -> bool {
        let (node, bytes) = (&problem.nodes[receiver.at()], segment.span.bytes() as f64);
        if let Some(store) = node.writes {
            self.written[store.0 as usize] += bytes;
        }
        let is_sent = segment.senders.binary_search(&receiver).is_err();
        if is_sent {
            self.received[receiver.at()] += bytes;
        } else if let Some(store) = node.reads {
            self.read[store.0 as usize] += bytes;
        }
        is_sent
    }
}
