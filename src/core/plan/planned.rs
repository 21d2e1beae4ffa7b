//! Segments of a plan, with the weights of their senders.

use super::segments::Segment;
use crate::core::units::NodeIx;

/// One segment of a plan: its range and receivers, and each sender's share of the receivers'
/// demand.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PlannedSegment {
    pub(crate) segment: Segment,
    /// Weights in the order of `segment.senders`; they sum to 1.
    pub(crate) weights: Vec<f64>,
    /// Receivers with different weights, because some of their links are limited; ascending.
    pub(crate) own: Vec<(NodeIx, Vec<f64>)>,
    /// Receivers that receive the segment from another receiver, each with that relay; ascending.
    /// They ask the senders only if the relay fails.
    pub(crate) relays: Vec<(NodeIx, NodeIx)>,
}

/// Senders with their weights, and the receivers that request from them.
pub(crate) type SenderWeights = (Vec<(NodeIx, f64)>, Vec<NodeIx>);

impl PlannedSegment {
    /// Returns the senders of this segment for `receiver`, with their weights. A node that offers
    /// the range it wants copies it locally.
    pub(crate) fn senders_for(&self, receiver: NodeIx) -> Vec<(NodeIx, f64)> {
        if self.segment.senders.binary_search(&receiver).is_ok() {
            return vec![(receiver, 1.0)];
        }
        if let Some(relay) = self.relay_of(receiver) {
            let senders = self.segment.senders.iter().map(|sender| (*sender, 0.0));
            return std::iter::once((relay, 1.0)).chain(senders).collect();
        }
        let weights = self.weights_for(receiver);
        self.segment.senders.iter().copied().zip(weights.iter().copied()).collect()
    }

    /// Returns the relay of this segment for `receiver`, if it does not come from the senders.
    pub(crate) fn relay_of(&self, receiver: NodeIx) -> Option<NodeIx> {
        let at = self.relays.binary_search_by_key(&receiver, |(asks, _)| *asks).ok()?;
        Some(self.relays[at].1)
    }

    /// Returns the receivers by common senders and weights.
    pub(crate) fn by_senders(&self) -> Vec<SenderWeights> {
        let mut told: Vec<SenderWeights> = Vec::new();
        let remote: Vec<NodeIx> = self.segment.remote_receivers().collect();
        let alike = |a: NodeIx, b: NodeIx| {
            let are_remote = [a, b].iter().all(|node| remote.binary_search(node).is_ok());
            are_remote && self.own.is_empty() && self.relay_of(a) == self.relay_of(b)
        };
        for &receiver in &self.segment.receivers {
            match told.iter_mut().find(|(_, receivers)| alike(receivers[0], receiver)) {
                Some((_, receivers)) => receivers.push(receiver),
                None => told.push((self.senders_for(receiver), vec![receiver])),
            }
        }
        told
    }

    pub(super) fn weights_for(&self, receiver: NodeIx) -> &[f64] {
        let own = self.own.binary_search_by_key(&receiver, |(node, _)| *node);
        own.map_or(&self.weights, |at| &self.own[at].1)
    }
}
