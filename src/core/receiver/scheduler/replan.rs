//! Newer plans at a receiver: pieces are shared out again, and progress is reported for replanning.

use std::collections::BTreeSet;

use super::{PieceScheduler, SegmentSenders};
use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::receiver::delivery_meter::DeliveryMeter;
use crate::core::receiver::extent_map::ExtentMap;
use crate::core::receiver::sender_shares::SenderShares;
use crate::core::units::{Moment, NodeIx, Span};

/// Error for a newer plan of other segments: the wanted ranges are fixed for an attempt.
pub(crate) fn segment_mismatch() -> Error {
    Error::new(Code::Internal, "the newer plan has other segments than the plan before")
}

impl PieceScheduler {
    /// Follows a newer plan: shares out what was not requested yet, if senders or weights differ,
    /// and takes in further segments, with their `holes`. It `grows` if more may come.
    ///
    /// # Errors
    /// `Code::Internal` if it lacks segments of the plan before, or has further ones although that
    /// was the last. Nothing is changed then.
    pub(crate) fn reassign(
        &mut self,
        now: Moment,
        sources: &[SegmentSenders],
        holes: &[Span],
        pair_count: impl Fn(NodeIx) -> u32,
        grows: bool,
    ) -> Result<(), Error> {
        let old: BTreeSet<u64> = self.extents.spans().map(|span| span.start).collect();
        let is_old = |source: &&SegmentSenders| old.contains(&source.span.start);
        let kept = || sources.iter().filter(is_old);
        let is_longer = sources.len() > old.len();
        if !kept().map(|source| source.span).eq(self.extents.spans()) || (is_longer && !self.grows)
        {
            return Err(segment_mismatch());
        }
        self.grows = grows;
        let is_same_share = kept().eq(&self.sources);
        let senders: BTreeSet<NodeIx> =
            sources.iter().flat_map(|source| &source.senders).map(|&(sender, _)| sender).collect();
        self.rail_pairs.add(senders.iter().map(|&sender| (sender, pair_count(sender))));
        if !is_same_share {
            share_out_again(&mut self.extents, &mut self.shares, kept());
        }
        if is_longer {
            let is_new = |source: &SegmentSenders| !old.contains(&source.span.start);
            take_in(&mut self.extents, &mut self.shares, sources, is_new, holes);
        }
        self.sources = sources.to_vec();
        let error = Error::new(Code::Unreachable, "the sender was lost before");
        let lost = senders.iter().copied().filter(|sender| self.rail_pairs.is_lost(*sender));
        for sender in lost.collect::<Vec<_>>() {
            self.redistribute_share(sender, &error);
        }
        let is_unnamed = |sender: &NodeIx| !senders.contains(sender);
        self.unnamed = self.flows.senders().filter(is_unnamed).collect();
        self.leave_silent(now);
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

    /// Returns, for each sender, the bytes it has delivered, whether more will be requested of it,
    /// and what it delivered while it was never out of requests.
    pub(crate) fn delivered(&self) -> impl Iterator<Item = (NodeIx, u64, bool, DeliveryMeter)> {
        let delivered = self.flows.delivered();
        delivered.map(|(sender, bytes, has_leases)| {
            let is_busy = has_leases || self.shares.bytes_of(sender) > 0;
            (sender, bytes, is_busy, self.flows.meter(sender))
        })
    }
}

/// Shares out the pieces that were not requested yet by other senders or weights.
fn share_out_again<'a>(
    extents: &mut ExtentMap,
    shares: &mut SenderShares,
    sources: impl Iterator<Item = &'a SegmentSenders> + Clone,
) {
    for (segment, source) in (0..).zip(sources.clone()) {
        extents.set_senders(segment, source.senders.iter().map(|sender| sender.0).collect());
    }
    let old = std::mem::replace(shares, SenderShares::empty());
    *shares = old.cut_again(extents, sources.map(|source| source.senders.as_slice()));
}

/// Takes in further segments.
fn take_in(
    extents: &mut ExtentMap,
    shares: &mut SenderShares,
    sources: &[SegmentSenders],
    is_new: impl Fn(&SegmentSenders) -> bool,
    holes: &[Span],
) {
    let new = || (0..).zip(sources).filter(|(_, source)| is_new(source));
    let senders = |source: &SegmentSenders| source.senders.iter().map(|it| it.0).collect();
    let moved = extents.extend(new().map(|(_, source)| (source.span, senders(source))));
    extents.land_holes(holes);
    let segments = new().map(|(segment, source)| (segment, source.senders.as_slice()));
    shares.extend(extents, &moved, segments);
}
