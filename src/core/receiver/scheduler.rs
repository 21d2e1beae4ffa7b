//! Scheduler of one receiver's pieces: leases them to flows, revokes, steals and retries, until
//! everything has landed.
//!
//! A piece is bound to a flow as late as possible: it stays in its sender's share until a flow to
//! that sender has room. Errors of weights and speeds are corrected in this order: a dry flow first
//! *steals* from the share of the slowest sender whose segments it also offers, then has
//! unrequested leases of other flows *revoked*, and at the very end requests a second time
//! (*twice*) the pieces of a flow that is late.

use std::collections::{BTreeSet, VecDeque};

use super::extent_map::ExtentMap;
use super::flow_growth::{self, FlowCountStep, FlowGrowth, PathReading};
use super::flow_leases::{FlowLeases, LOOK_AGAIN};
use super::lease_limit::LeaseLimit;
use super::plan_pacing;
use super::plan_pacing::PlanPacing;
use super::rail_pairs::{RailPair, RailPairs};
use super::second_requests::SecondRequests;
use super::sender_faults::SenderFaults;
use super::sender_shares::SenderShares;
use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::error::Error;
use crate::core::piece::{FlowCommand, FlowIx, LandedPiece, Piece};
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::Check;
use crate::core::wire::control::{NodeStats, PlanSegment};

mod recovery;
mod replan;
mod stealing;

pub(crate) use replan::segment_mismatch;

/// Senders of one segment for this receiver, with their weights.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SegmentSenders {
    pub(crate) span: Span,
    pub(crate) senders: Vec<(NodeIx, u32)>,
}

impl SegmentSenders {
    /// Returns true if the plan wants nothing from a sender, but from others: it stands in for a
    /// relay.
    fn stands_in(&self, sender: NodeIx) -> bool {
        self.senders.contains(&(sender, 0)) && self.senders.iter().any(|(_, weight)| *weight > 0)
    }

    /// Returns true if some sender stands in for a relay.
    fn has_stand_in(&self) -> bool {
        self.senders.iter().any(|(sender, _)| self.stands_in(*sender))
    }
}

impl From<PlanSegment> for SegmentSenders {
    fn from(segment: PlanSegment) -> SegmentSenders {
        let senders =
            segment.senders.iter().map(|share| (NodeIx(share.index), share.weight)).collect();
        SegmentSenders { span: segment.span, senders }
    }
}

/// Input of a [`PieceScheduler`].
#[derive(Clone, Debug)]
pub(crate) enum SchedulerEvent {
    /// The flow of a rail pair is up.
    FlowUp { flow: FlowIx, rail_pair: RailPair },
    /// A flow has room for `pieces` more pieces.
    Room { flow: FlowIx, pieces: u32 },
    /// A piece is checked and written.
    Landed { flow: FlowIx, piece: Piece, check: Check },
    /// A sender refused a piece, or the piece arrived corrupted.
    Failed { flow: FlowIx, piece: Piece, error: Error },
    /// A piece arrived changed, or a part of it, and is requested again on the same flow.
    Changed { flow: FlowIx },
    /// A part of a piece arrived as it was sent: the flow brings something.
    PartLanded { flow: FlowIx },
    /// The path of a flow, which is far, was read.
    PathRead { flow: FlowIx, reading: PathReading },
    /// Leases that were revoked before they were requested.
    Returned { flow: FlowIx, pieces: Vec<Piece> },
    /// A flow broke.
    FlowDown { flow: FlowIx, error: Error },
    /// The flow of a rail pair could not be opened.
    OpenFailed { rail_pair: RailPair, error: Error },
    /// The flow of a rail pair takes long to open.
    OpenSlow { rail_pair: RailPair, error: Error },
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// Output of a [`PieceScheduler`].
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum SchedulerAction {
    /// Open a flow on a rail pair. The answer is `FlowUp` or `OpenFailed`.
    Open { rail_pair: RailPair },
    /// Have a flow lease pieces, give some back, or close.
    Flow(FlowCommand),
    /// Abandon a range: no sender is left for it.
    GiveUp { span: Span },
    /// Do not serve a range: its only sender left may itself wait for this node to have it.
    Withhold { span: Span },
    /// Every piece has landed or was abandoned. Emitted once.
    Settled,
}

/// Counters of a scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SchedulerCounts {
    /// Bytes that came over the network and were kept.
    pub(crate) kept_bytes: u64,
    pub(crate) stolen_bytes: u64,
    pub(crate) wasted_bytes: u64,
    pub(crate) retries: u64,
    /// Bytes that an earlier attempt had landed.
    pub(crate) resumed_bytes: u64,
}

impl SchedulerCounts {
    /// Counts a piece that landed, for the first time or again.
    fn landed(&mut self, piece: Piece, is_first: bool) {
        let bytes = piece.span.bytes();
        if !is_first {
            self.wasted_bytes += bytes;
            return;
        }
        self.kept_bytes += bytes;
        self.stolen_bytes += if piece.stolen { bytes } else { 0 };
    }
}

impl From<SchedulerCounts> for NodeStats {
    fn from(counts: SchedulerCounts) -> NodeStats {
        NodeStats {
            received_bytes: counts.kept_bytes,
            wasted_bytes: counts.wasted_bytes,
            stolen_bytes: counts.stolen_bytes,
            retries: counts.retries,
            resumed_bytes: counts.resumed_bytes,
            ..NodeStats::default()
        }
    }
}

/// Ranges that need not be fetched.
#[derive(Clone, Copy, Default)]
pub(crate) struct CompletedBefore<'a> {
    /// Known zeros: ascending, disjoint.
    pub(crate) holes: &'a [Span],
    /// Pieces of an earlier attempt.
    pub(crate) kept: &'a [LandedPiece],
}

/// Scheduler of the pieces of one receiver in one transfer.
///
/// Events: `handle`. Actions: `poll_action`, until `None`. Time: `poll_timeout`. Questions:
/// `extents`, `missing`, `trouble`, `counts`, `delivered`.
pub(crate) struct PieceScheduler {
    extents: ExtentMap,
    shares: SenderShares,
    flows: FlowLeases,
    rail_pairs: RailPairs,
    growth: FlowGrowth,
    faults: SenderFaults,
    twice: SecondRequests,
    actions: VecDeque<SchedulerAction>,
    look_again: Option<Moment>,
    /// Limit on the lease rate, if requested.
    limit: Option<LeaseLimit>,
    /// Pacing by the plan, if requested.
    pace: Option<PlanPacing>,
    /// True if a newer plan may bring further segments: it is not settled before the last.
    grows: bool,
    /// The plan that its shares were cut by.
    sources: Vec<SegmentSenders>,
    /// Senders with flows that the plan does not name: an older one did.
    unnamed: BTreeSet<NodeIx>,
    settled: bool,
    cause: Option<Error>,
    /// Error of the last flow that broke, if nothing has landed since.
    trouble: Option<Error>,
    counts: SchedulerCounts,
}

impl PieceScheduler {
    /// Creates a scheduler of `sources` (ascending, disjoint), part of which is already
    /// `completed`. `pair_count` returns the number of rail pairs to a sender. It `grows` if newer
    /// plans may bring further segments.
    pub(crate) fn new(
        grid: BlockGrid,
        method: CheckMethod,
        sources: &[SegmentSenders],
        completed: CompletedBefore<'_>,
        pair_count: impl Fn(NodeIx) -> u32,
        grows: bool,
    ) -> PieceScheduler {
        let segments = sources
            .iter()
            .map(|source| (source.span, source.senders.iter().map(|sender| sender.0).collect()));
        let mut extents = ExtentMap::new(grid, method, segments);
        let resumed_bytes = extents.land_kept(completed.kept, completed.holes);
        extents.land_holes(completed.holes);
        let shares =
            SenderShares::cut(&extents, sources.iter().map(|source| source.senders.as_slice()));
        let senders: BTreeSet<NodeIx> =
            sources.iter().flat_map(|source| &source.senders).map(|&(sender, _)| sender).collect();
        let mut scheduler = PieceScheduler {
            rail_pairs: RailPairs::new(
                senders.into_iter().map(|sender| (sender, pair_count(sender))),
            ),
            extents,
            shares,
            flows: FlowLeases::default(),
            growth: FlowGrowth::default(),
            faults: SenderFaults::default(),
            twice: SecondRequests::default(),
            actions: VecDeque::new(),
            look_again: None,
            limit: None,
            pace: None,
            grows,
            sources: sources.to_vec(),
            unnamed: BTreeSet::new(),
            settled: false,
            cause: None,
            trouble: None,
            counts: SchedulerCounts { resumed_bytes, ..SchedulerCounts::default() },
        };
        scheduler.open_all();
        scheduler.settle();
        scheduler
    }

    /// Limits leases to `bytes_per_second` from now on.
    pub(crate) fn limit(&mut self, now: Moment, bytes_per_second: u64) {
        let block_bytes = self.extents.grid().block_bytes();
        self.limit = Some(LeaseLimit::new(now, bytes_per_second, block_bytes));
    }

    /// Paces flows by a plan that takes `seconds`, or not at all: those that are ahead pause in
    /// favour of those that are behind.
    pub(crate) fn keep_to_plan(&mut self, now: Moment, seconds: Option<f64>) {
        self.pace = seconds.map(|seconds| PlanPacing::new(now, seconds, &self.shares));
    }

    /// Handles one event.
    pub(crate) fn handle(&mut self, now: Moment, event: SchedulerEvent) {
        match event {
            SchedulerEvent::FlowUp { flow, rail_pair } => self.flow_up(now, flow, rail_pair),
            SchedulerEvent::Room { flow, pieces } => self.room(now, flow, pieces),
            SchedulerEvent::Landed { flow, piece, check } => self.landed(now, flow, piece, check),
            SchedulerEvent::Changed { .. } => self.counts.retries += 1,
            SchedulerEvent::PartLanded { flow } => {
                let rail_pair = self.flows.rail_pair(flow);
                rail_pair.into_iter().for_each(|it| self.rail_pairs.brought(now, it));
            }
            SchedulerEvent::PathRead { flow, reading } => path_read(self, now, flow, reading),
            SchedulerEvent::Failed { flow, piece, error } => self.failed(now, flow, piece, &error),
            SchedulerEvent::Returned { flow, pieces } => self.returned(now, flow, &pieces),
            SchedulerEvent::FlowDown { flow, error } => self.flow_down(now, flow, &error),
            SchedulerEvent::OpenFailed { rail_pair, error } => {
                self.rail_pair_broke(now, rail_pair, &error);
                self.feed_hungry(now);
            }
            SchedulerEvent::OpenSlow { error, .. } => {
                self.trouble.get_or_insert(error);
            }
            SchedulerEvent::Tick => {
                self.rail_pairs.open_due(now);
                self.leave_silent(now);
                self.feed_hungry(now);
            }
        }
        self.open_rail_pairs();
        self.settle();
    }

    /// Returns the next action.
    pub(crate) fn poll_action(&mut self) -> Option<SchedulerAction> {
        self.actions.pop_front()
    }

    /// Returns the moment at which `Tick` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let due = self.look_again.into_iter().chain(self.rail_pairs.poll_timeout()).min();
        due.filter(|_| !self.settled)
    }

    /// Returns what is wanted, and what of it has landed.
    pub(crate) fn extents(&self) -> &ExtentMap {
        &self.extents
    }

    /// Returns true if a flow has nothing to bring, and nothing is left that it could be asked for.
    pub(crate) fn is_dry(&self) -> bool {
        self.shares.bytes().all(|(_, bytes)| bytes == 0) && self.flows.is_any_idle()
    }

    /// Returns the abandoned ranges with the error of the first, if any.
    pub(crate) fn missing(&self) -> Option<Error> {
        let missing = self.extents.missing();
        let cause = self.cause.clone();
        (!missing.is_empty())
            .then(|| cause.expect("an abandoned piece has a cause").missing(missing))
    }

    /// Returns the error of the flow that broke last, if nothing has landed since.
    pub(crate) fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref()
    }

    pub(crate) fn counts(&self) -> SchedulerCounts {
        self.counts
    }

    fn flow_up(&mut self, now: Moment, flow: FlowIx, rail_pair: RailPair) {
        self.rail_pairs.up(rail_pair, flow);
        self.flows.add(now, flow, rail_pair);
    }

    fn room(&mut self, now: Moment, flow: FlowIx, pieces: u32) {
        if self.flows.set_room(flow, pieces) {
            self.feed_in_turn(now, flow);
        }
    }

    fn landed(&mut self, now: Moment, flow: FlowIx, piece: Piece, check: Check) {
        self.trouble = None;
        if let Some(rail_pair) = self.flows.landed(now, flow, piece.span) {
            self.rail_pairs.landed(now, rail_pair);
            if let Some(pace) = &mut self.pace {
                pace.landed(rail_pair.sender, piece.span.bytes());
            }
        }
        let is_first = self.extents.land(piece.span, check);
        self.counts.landed(piece, is_first);
        // A flow of stolen pieces has room again as soon as one of them has landed.
        if self.flows.room(flow) > 0 {
            self.feed_in_turn(now, flow);
        }
    }

    fn lease(&mut self, now: Moment, flow: FlowIx, pieces: Vec<Piece>) {
        let command = self.flows.lease(now, flow, pieces);
        self.actions.push_back(SchedulerAction::Flow(command));
    }

    /// Opens flows to every sender with a share, largest first, and to those of further segments.
    fn open_all(&mut self) {
        let planned = self.sources.iter().filter(|_| self.grows).flat_map(|it| &it.senders);
        let planned = planned.filter(|(_, weight)| *weight > 0).map(|(sender, _)| *sender);
        for sender in self.shares.largest_first().into_iter().chain(planned) {
            self.rail_pairs.want(sender);
        }
        self.open_rail_pairs();
    }

    fn open_rail_pairs(&mut self) {
        while let Some(rail_pair) = self.rail_pairs.poll_open() {
            self.actions.push_back(SchedulerAction::Open { rail_pair });
        }
    }

    /// Looks for work for every flow that has unfilled room.
    fn feed_hungry(&mut self, now: Moment) {
        self.look_again = None;
        let mut hungry = self.flows.hungry();
        if let Some(limit) = &self.limit {
            limit.put_in_turn(&mut hungry);
        }
        for flow in hungry {
            self.feed(now, flow);
        }
    }

    /// Leases to a flow that has room now; under a limit, after those that have waited longer.
    fn feed_in_turn(&mut self, now: Moment, flow: FlowIx) {
        if self.limit.is_some() { self.feed_hungry(now) } else { self.feed(now, flow) }
    }

    /// Leases pieces to a flow with room, as far as the limit allows.
    fn feed(&mut self, now: Moment, flow: FlowIx) {
        let Some(rail_pair) = self.flows.rail_pair(flow) else { return };
        if self.rail_pairs.is_surplus(rail_pair) {
            return close_idle(self, flow, rail_pair);
        }
        let count_max = match may_lease(self, now, flow, rail_pair) {
            Ok(count_max) => count_max,
            Err(later) => return self.look_again_at(later),
        };
        let mut pieces = Vec::with_capacity(count_max);
        while pieces.len() < count_max
            && let Some(span) = self.shares.take(&self.extents, rail_pair.sender)
        {
            pieces.push(Piece { span, stolen: false });
        }
        // While further segments may come, shares are too small to tell senders apart.
        while self.grows
            && pieces.len() < count_max
            && let Some(span) =
                self.shares.steal_latest(now, &self.extents, &self.flows, rail_pair.sender)
        {
            pieces.push(Piece { span, stolen: false });
        }
        if pieces.is_empty() {
            pieces.extend(self.steal(now, flow).map(|span| Piece { span, stolen: true }));
        }
        if let Some(limit) = &mut self.limit {
            limit.spend(pieces.iter().map(|piece| piece.span.bytes()).sum());
        }
        if !pieces.is_empty() {
            self.lease(now, flow, pieces);
        } else if self.flows.is_idle(flow) && self.rail_pairs.are_waiting() {
            close_idle(self, flow, rail_pair);
        } else {
            self.look_again_at(now + LOOK_AGAIN);
        }
    }

    fn look_again_at(&mut self, moment: Moment) {
        self.look_again = Some(self.look_again.map_or(moment, |due| due.min(moment)));
    }

    fn settle(&mut self) {
        if !self.settled && !self.grows && self.extents.is_settled() {
            self.settled = true;
            self.actions.push_back(SchedulerAction::Settled);
        }
    }
}

/// Returns the number of pieces that a flow may have now.
///
/// # Errors
/// The moment at which to look again, if it must wait for others.
fn may_lease(
    scheduler: &mut PieceScheduler,
    now: Moment,
    flow: FlowIx,
    rail_pair: RailPair,
) -> Result<usize, Moment> {
    let sender = rail_pair.sender;
    let block_bytes = scheduler.extents.grid().block_bytes();
    if scheduler.pace.as_ref().is_some_and(|pace| pace.is_ahead(now, sender, block_bytes)) {
        return Err(now + plan_pacing::PAUSE);
    }
    // A further flow is slow, and what it has been asked for cannot be taken back.
    if scheduler.grows || rail_pair != rail_pair.own() {
        let room = scheduler.flows.early_room(now, flow, block_bytes);
        return if room > 0 { Ok(room) } else { Err(now + LOOK_AGAIN) };
    }
    let next = scheduler.shares.next_segment(sender);
    let is_last = |segment| scheduler.flows.would_be_last(now, flow, segment, &scheduler.extents);
    if next.is_some_and(is_last) {
        return Err(now + LOOK_AGAIN);
    }
    if let Some(limit) = &mut scheduler.limit {
        return limit.take_turn(now, flow).map(|()| 1);
    }
    let pieces = scheduler.shares.bytes_of(sender) / block_bytes;
    Ok(scheduler.flows.fair_part(sender, pieces).min(scheduler.flows.room(flow) as usize))
}

/// Takes in a reading of the path of a flow. Its rail pair may get further flows, or lose them.
fn path_read(scheduler: &mut PieceScheduler, now: Moment, flow: FlowIx, reading: PathReading) {
    let Some((place, before)) = scheduler.flows.path_read(flow, reading) else { return };
    if scheduler.limit.is_some() || scheduler.rail_pairs.is_surplus(place) {
        return;
    }
    let flows = scheduler.rail_pairs.flows_of(place);
    match scheduler.growth.read(now, place.own(), (reading, before), flows) {
        FlowCountStep::Stay => {}
        FlowCountStep::Open(count) => {
            let left_bytes = scheduler.shares.bytes_of(place.sender);
            let block_bytes = scheduler.extents.grid().block_bytes();
            let rate = scheduler.flows.sender_rate(now, place.sender);
            let useful = flow_growth::useful_flows(left_bytes, block_bytes, rate);
            scheduler.rail_pairs.open_further(place, count.min(useful));
        }
        FlowCountStep::Shrink(count) => {
            scheduler.rail_pairs.give_up(place, count);
            scheduler.feed_hungry(now);
        }
    }
}

/// Closes a flow that owes nothing.
fn close_idle(scheduler: &mut PieceScheduler, flow: FlowIx, rail_pair: RailPair) {
    if scheduler.flows.is_idle(flow) {
        scheduler.flows.remove(flow);
        scheduler.actions.push_back(SchedulerAction::Flow(FlowCommand::Close { flow }));
        scheduler.rail_pairs.idle(rail_pair);
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
