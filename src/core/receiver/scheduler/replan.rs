//! Newer plans at a receiver: pieces are shared out again, and progress is reported for replanning.

use std::collections::BTreeSet;

use super::{PieceScheduler, SegmentSenders};
use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::receiver::sender_shares::SenderShares;
use crate::core::units::{Moment, NodeIx, Span};

/// Error for a newer plan of other segments: the wanted ranges are fixed for an attempt.
pub(crate) fn segment_mismatch() -> Error {
    Error::new(Code::Internal, "the newer plan has other segments than the plan before")
}

impl PieceScheduler {
    /// Shares out, by a newer plan, the pieces that were not requested yet. Requested and landed
    /// pieces are unchanged.
    ///
    /// # Errors
    /// `Code::Internal` if its segments differ from those of the plan before. Nothing is changed
    /// then.
    pub(crate) fn reassign(
        &mut self,
        now: Moment,
        sources: &[SegmentSenders],
        pair_count: impl Fn(NodeIx) -> u32,
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
        self.rail_pairs.add(senders.iter().map(|&sender| (sender, pair_count(sender))));
        let shares = std::mem::replace(&mut self.shares, SenderShares::empty());
        self.shares =
            shares.cut_again(&self.extents, sources.iter().map(|source| source.senders.as_slice()));
        let lost: Vec<NodeIx> =
            senders.into_iter().filter(|sender| self.rail_pairs.is_lost(*sender)).collect();
        for sender in lost {
            self.redistribute_share(
                sender,
                &Error::new(Code::Unreachable, "the sender was lost before"),
            );
        }
        self.open_all();
        self.feed_hungry(now);
        self.open_rail_pairs();
        self.settle();
        Ok(())
    }

    /// Returns the sender of a flow.
    pub(crate) fn sender_of(&self, flow: FlowIx) -> Option<NodeIx> {
        self.flows.rail_pair(flow).map(|rail_pair| rail_pair.sender)
    }

    /// Returns the parts of a range that an earlier attempt had landed. Call it before anything
    /// lands in this one.
    pub(crate) fn kept_within(&self, span: Span) -> Vec<Span> {
        if self.counts.resumed_bytes > 0 { self.extents.landed_within(span) } else { Vec::new() }
    }

    /// Returns, for each sender, the bytes it has delivered and whether more will be requested of
    /// it.
    pub(crate) fn delivered(&self) -> impl Iterator<Item = (NodeIx, u64, bool)> {
        let delivered = self.flows.delivered();
        delivered.map(|(sender, bytes, has_leases)| {
            (sender, bytes, has_leases || self.shares.bytes_of(sender) > 0)
        })
    }
}
