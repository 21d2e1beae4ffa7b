//! The plan that a participant follows: its shares, the flows that they need, and its duration.

use std::collections::BTreeMap;

use super::room::RoomRequest;
use crate::core::receiver::scheduler::SegmentSenders;
use crate::core::units::{NodeIx, Span, common, covers, union};
use crate::core::wire::control::{PeerNode, Start};

/// Factor by which a paced flow may be faster than planned, so that it can make up for a delay.
/// Measured with 16 receivers that feed each other: 1.1 and 1.25 of the plan's pace keep all in
/// step; with 1.5, TCP shares the sender's link so unevenly that all wait for the slowest.
const RELAY_PACE_HEADROOM: f64 = 1.25;
/// No flow is paced so low that a header or a request for work that it takes over would crawl.
const PACE_BYTES_PER_SECOND_MIN: f64 = 65536.0;

/// Newest plan of a participant, with the parts of older ones that still hold. Before the first
/// plan it is empty, and of epoch 0.
#[derive(Default)]
pub(super) struct FollowedPlan {
    epoch: u32,
    /// Senders of each segment, until the scheduler takes them.
    sources: Vec<SegmentSenders>,
    /// Bytes that the plan wants from each sender.
    planned_bytes: Vec<(NodeIx, u64)>,
    /// Number of rail pairs to each sender.
    rail_pairs: BTreeMap<NodeIx, u32>,
    holes: Vec<Span>,
    /// Ranges that an earlier attempt has left and that are still good.
    kept: Vec<Span>,
    limit_bytes_per_second: u64,
    bound_us: u64,
    /// Ranges that other receivers request from this node, by this plan or an older one: ascending.
    relays: Vec<Span>,
}

impl FollowedPlan {
    /// Creates the first plan, for a node of this many rails.
    pub(super) fn new(rails: u32, start: Start) -> FollowedPlan {
        let pairs = |peer: &PeerNode| (NodeIx(peer.index), rail_pairs(rails, peer));
        let rail_pairs = start.peers.iter().map(pairs).collect();
        let sources: Vec<SegmentSenders> =
            start.segments.into_iter().map(SegmentSenders::from).collect();
        FollowedPlan {
            epoch: start.epoch,
            planned_bytes: planned_bytes(&sources),
            sources,
            rail_pairs,
            holes: start.holes,
            kept: start.kept,
            limit_bytes_per_second: start.limit_bytes_per_second,
            bound_us: start.bound_us,
            relays: start.relays,
        }
    }

    /// Follows a newer plan: other shares of the same segments, and others to pass on to. Returns
    /// the senders of each segment.
    pub(super) fn renew(&mut self, rails: u32, start: Start) -> Vec<SegmentSenders> {
        self.epoch = start.epoch;
        self.bound_us = start.bound_us;
        for peer in &start.peers {
            let pairs = self.rail_pairs.entry(NodeIx(peer.index));
            pairs.or_insert_with(|| rail_pairs(rails, peer));
        }
        let sources: Vec<SegmentSenders> =
            start.segments.into_iter().map(SegmentSenders::from).collect();
        self.planned_bytes = planned_bytes(&sources);
        // A receiver that has asked for something by an older plan waits for it.
        self.relays = union(self.relays.iter().copied().chain(start.relays).collect());
        sources
    }

    /// Returns the room that the first plan needs; it `grows` if more may come.
    pub(super) fn room(&self, forgets: bool, grows: bool) -> RoomRequest {
        let (wanted, kept) = (self.wanted(), self.kept.clone());
        RoomRequest { holes: common(&self.holes, &wanted), wanted, kept, forgets, grows }
    }

    /// Takes other senders of the segments, as long as no scheduler has them.
    pub(super) fn set_sources(&mut self, sources: Vec<SegmentSenders>) {
        self.sources = sources;
    }

    /// Returns the senders of each segment, until the scheduler has them.
    pub(super) fn sources(&self) -> &[SegmentSenders] {
        &self.sources
    }

    /// Hands the senders of each segment over to the scheduler.
    pub(super) fn take_sources(&mut self) -> Vec<SegmentSenders> {
        std::mem::take(&mut self.sources)
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Returns the wanted ranges, until the scheduler has them: ascending and joined.
    pub(super) fn wanted(&self) -> Vec<Span> {
        union(self.sources.iter().map(|source| source.span).collect())
    }

    pub(super) fn holes(&self) -> &[Span] {
        &self.holes
    }

    pub(super) fn kept(&self) -> &[Span] {
        &self.kept
    }

    pub(super) fn relays(&self) -> &[Span] {
        &self.relays
    }

    /// Returns true if other receivers request a range from this node.
    pub(super) fn is_relayed(&self, span: Span) -> bool {
        covers(&self.relays, span)
    }

    /// Returns the limit, if there is one.
    pub(super) fn limit_bytes_per_second(&self) -> Option<u64> {
        Some(self.limit_bytes_per_second).filter(|limit| *limit > 0)
    }

    /// Returns the duration that the plan can keep to. Under a limit it takes longer than its
    /// bound, and nobody's link is full.
    pub(super) fn seconds(&self) -> Option<f64> {
        let is_bound = self.bound_us > 0 && self.limit_bytes_per_second == 0;
        is_bound.then_some(self.bound_us as f64 * 1e-6)
    }

    pub(super) fn pair_count(&self, sender: NodeIx) -> u32 {
        self.rail_pairs.get(&sender).copied().unwrap_or(1)
    }

    /// Returns the weight of a flow: the bytes that are planned from its sender.
    pub(super) fn weight(&self, sender: NodeIx) -> u64 {
        let planned = self.planned_bytes.iter().find(|(node, _)| *node == sender);
        planned.map_or(1, |(_, bytes)| *bytes)
    }

    /// Returns the speed that a flow to a sender needs for the plan of receivers that feed each
    /// other to come out, and some more; 0 where it is not paced. They wait for each other's parts,
    /// so nobody may take much more than its own.
    pub(super) fn pace_bytes_per_second(&self, sender: NodeIx) -> u64 {
        if self.relays.is_empty() {
            return 0;
        }
        let own = self.weight(sender) as f64;
        let all: f64 = self.planned_bytes.iter().map(|&(_, bytes)| bytes as f64).sum();
        let bound_us = self.bound_us as f64;
        let by_plan = if bound_us > 0.0 { own * 1e6 / bound_us } else { f64::INFINITY };
        let limit = self.limit_bytes_per_second as f64;
        let by_limit = if limit > 0.0 { limit * own / all } else { f64::INFINITY };
        // Every rail pair may carry all of it: NICs may be uneven.
        let bytes_per_second = by_plan.min(by_limit) * RELAY_PACE_HEADROOM;
        // A sender that only stands in has no part of its own.
        if own == 0.0 || !bytes_per_second.is_finite() {
            return 0;
        }
        bytes_per_second.max(PACE_BYTES_PER_SECOND_MIN) as u64
    }
}

/// Rail k pairs with one rail of the peer, so that every rail of both sides is in a pair, and not
/// all with all.
fn rail_pairs(rails: u32, peer: &PeerNode) -> u32 {
    rails.max(u32::try_from(peer.rails.len()).unwrap_or(u32::MAX))
}

/// Bytes that a plan wants from each sender.
fn planned_bytes(sources: &[SegmentSenders]) -> Vec<(NodeIx, u64)> {
    let mut planned = BTreeMap::new();
    for source in sources {
        let sum: u64 = source.senders.iter().map(|&(_, weight)| u64::from(weight)).sum();
        for &(sender, weight) in &source.senders {
            let bytes =
                u128::from(source.span.bytes()) * u128::from(weight) / u128::from(sum.max(1));
            *planned.entry(sender).or_insert(0) += u64::try_from(bytes).expect("a part of 64 bits");
        }
    }
    planned.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::control::{PlanSegment, SenderShare};

    fn start(epoch: u32, bytes: u64, weights: [u32; 2], relays: &[Span]) -> Start {
        let senders = (0..).zip(weights).map(|(index, weight)| SenderShare { index, weight });
        let segments = vec![PlanSegment { span: Span::new(0, bytes), senders: senders.collect() }];
        let relays = relays.to_vec();
        Start {
            epoch,
            peers: vec![],
            segments,
            holes: vec![],
            limit_bytes_per_second: 0,
            bound_us: 1_000_000,
            relays,
            kept: vec![],
            origins: vec![],
            forgets: false,
            modes: vec![],
            more_at: None,
        }
    }

    #[test]
    fn a_newer_plan_has_other_shares_and_the_relays_of_the_older_ones() {
        let mut plan = FollowedPlan::new(2, start(1, 80, [1, 1], &[Span::new(0, 10)]));
        assert_eq!((plan.weight(NodeIx(0)), plan.weight(NodeIx(1))), (40, 40));
        let sources = plan.renew(2, start(2, 80, [3, 1], &[Span::new(40, 50)]));
        plan.set_sources(sources.clone());
        assert_eq!((plan.epoch(), plan.take_sources()), (2, sources));
        assert_eq!((plan.weight(NodeIx(0)), plan.weight(NodeIx(1))), (60, 20));
        assert_eq!(plan.relays(), [Span::new(0, 10), Span::new(40, 50)]);
        assert!(plan.is_relayed(Span::new(2, 4)) && !plan.is_relayed(Span::new(20, 30)));
    }

    #[test]
    fn a_plan_under_a_limit_keeps_to_no_duration() {
        let first = start(1, 80, [1, 1], &[]);
        assert_eq!(FollowedPlan::new(1, first.clone()).seconds(), Some(1.0));
        let limited = FollowedPlan::new(1, Start { limit_bytes_per_second: 5, ..first });
        assert_eq!((limited.seconds(), limited.limit_bytes_per_second()), (None, Some(5)));
    }
}
