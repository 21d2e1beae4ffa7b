//! What a newer plan changes at a receiver, and what is reported so that there can be one.

use std::collections::BTreeSet;

use super::{PieceScheduler, SegmentSenders};
use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::receiver::sender_shares::SenderShares;
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::limits::LEFT_MAX;

/// Why a newer plan is not followed: what is wanted is fixed for an attempt.
pub(crate) fn segment_mismatch() -> Error {
    Error::new(Code::Internal, "a newer plan cuts the data in another way")
}

impl PieceScheduler {
    /// A newer plan: what nobody was asked for yet is shared out by it. What was asked for, and
    /// what has landed, stays.
    ///
    /// # Errors
    /// `Code::Internal` where its segments are not those of the plan before: nothing is changed
    /// then.
    pub(crate) fn reassign(
        &mut self,
        now: Moment,
        sources: &[SegmentSenders],
        lane_count: impl Fn(NodeIx) -> u32,
    ) -> Result<(), Error> {
        if !sources.iter().map(|source| source.span).eq(self.extents.spans()) {
            return Err(segment_mismatch());
        }
        for (segment, source) in (0..).zip(sources) {
            self.extents
                .set_senders(segment, source.senders.iter().map(|sender| sender.0).collect());
        }
        let senders: BTreeSet<NodeIx> =
            sources.iter().flat_map(|source| &source.senders).map(|&(sender, _)| sender).collect();
        self.rail_pairs.add(senders.iter().map(|&sender| (sender, lane_count(sender))));
        let shares = std::mem::replace(&mut self.shares, SenderShares::empty());
        self.shares =
            shares.cut_again(&self.extents, sources.iter().map(|source| source.senders.as_slice()));
        let lost: Vec<NodeIx> =
            senders.into_iter().filter(|sender| self.rail_pairs.is_lost(*sender)).collect();
        for sender in lost {
            self.dissolve(sender, &Error::new(Code::Unreachable, "it was lost before"));
        }
        self.open_all();
        self.feed_hungry(now);
        self.open_rail_pairs();
        self.settle();
        Ok(())
    }

    /// Who brings what comes on a flow.
    pub(crate) fn sender_of(&self, flow: FlowIx) -> Option<NodeIx> {
        self.flows.get(&flow).map(|flow| flow.rail_pair.sender)
    }

    /// The parts of a range that an earlier attempt had landed, asked before anything lands in this
    /// one.
    pub(crate) fn kept_within(&self, span: Span) -> Vec<Span> {
        if self.counts.resumed_bytes > 0 { self.landed_within(span) } else { Vec::new() }
    }

    /// The parts of a range that have landed.
    pub(crate) fn landed_within(&self, span: Span) -> Vec<Span> {
        self.extents.landed_within(span)
    }

    /// The part of all wanted bytes that has not landed.
    pub(crate) fn part_left(&self) -> f64 {
        1.0 - self.extents.landed_bytes() as f64 / self.extents.wanted_bytes().max(1) as f64
    }

    /// What is left of each segment; nothing where there are more than anybody wants to hear of.
    pub(crate) fn left(&self) -> Vec<u64> {
        if self.extents.segment_count() as usize > LEFT_MAX {
            Vec::new()
        } else {
            self.extents.left_of_segments().collect()
        }
    }

    /// What each sender has brought, and whether there is more to ask it for.
    pub(crate) fn delivered(&self) -> impl Iterator<Item = (NodeIx, u64, bool)> {
        let is_busy = |sender: NodeIx| {
            let leased = self
                .flows
                .values()
                .any(|flow| flow.rail_pair.sender == sender && !flow.leased.is_empty());
            leased || self.shares.bytes_of(sender) > 0
        };
        self.delivered.iter().map(move |(&sender, &bytes)| (sender, bytes, is_busy(sender)))
    }
}
