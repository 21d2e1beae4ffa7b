//! Scheduler of one receiver's pieces: leases them to flows, revokes, steals and retries, until
//! everything has landed.
//!
//! A piece is bound to a flow as late as possible: it stays in its sender's share until a flow to
//! that sender has room. Errors of weights and speeds are corrected in this order: a dry flow first
//! *steals* from the share of the slowest sender whose segments it also offers, then has
//! unrequested leases of other flows *revoked*, and at the very end requests a second time
//! (*twice*) the pieces of a flow that is late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::extent_map::{ExtentMap, PieceRun};
use super::plan_pacing;
use super::plan_pacing::PlanPacing;
use super::rail_pairs::{RailPair, RailPairs};
use super::rate_meter::{RateMeter, ReceiverIntake};
use super::sender_shares::SenderShares;
use super::token_bucket::TokenBucket;
use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::error::Error;
use crate::core::piece::{FlowCommand, FlowIx, LandedPiece, Piece};
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::Check;
use crate::core::wire::control::PlanSegment;

mod recovery;
mod replan;
mod stealing;

pub(crate) use replan::segment_mismatch;

/// Stolen pieces outstanding on one flow: one on the wire and one behind it.
const STOLEN_MAX: usize = 2;
/// Failures of one sender at one piece, after which it is not asked for the piece again.
const FAULTS_MAX: u32 = 3;
/// Interval at which flows without work look for a late flow.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Senders of one segment for this receiver, with their weights.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SegmentSenders {
    pub(crate) span: Span,
    pub(crate) senders: Vec<(NodeIx, u32)>,
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
/// `landed_bytes`, `missing`, `checks`, `counts`.
pub(crate) struct PieceScheduler {
    extents: ExtentMap,
    shares: SenderShares,
    flows: BTreeMap<FlowIx, ScheduledFlow>,
    /// Rate of all flows together.
    intake: ReceiverIntake,
    rail_pairs: RailPairs,
    /// Failures by the piece's position, then by sender.
    faults: BTreeMap<u64, BTreeMap<NodeIx, u32>>,
    /// Positions of the pieces that were requested from two flows.
    twice: BTreeSet<u64>,
    actions: VecDeque<SchedulerAction>,
    look_again: Option<Moment>,
    /// Limit on the lease rate, if requested, and the flow that received the last lease.
    limit: Option<(TokenBucket, FlowIx)>,
    /// Pacing by the plan, if requested.
    pace: Option<PlanPacing>,
    settled: bool,
    cause: Option<Error>,
    /// Error of the last flow that broke, if nothing has landed since.
    trouble: Option<Error>,
    counts: SchedulerCounts,
    /// Bytes that each sender has delivered, kept or not.
    delivered: BTreeMap<NodeIx, u64>,
}

struct ScheduledFlow {
    rail_pair: RailPair,
    /// Leased and neither landed nor returned.
    leased: Vec<Piece>,
    /// Room in pieces that could not be filled yet.
    room: u32,
    meter: RateMeter,
    up_at: Moment,
    revoking: bool,
    revoke_again: Moment,
}

impl PieceScheduler {
    /// Creates a scheduler of `sources` (ascending, disjoint), part of which is already
    /// `completed`. `pair_count` returns the number of rail pairs to a sender.
    pub(crate) fn new(
        grid: BlockGrid,
        method: CheckMethod,
        sources: &[SegmentSenders],
        completed: CompletedBefore<'_>,
        pair_count: impl Fn(NodeIx) -> u32,
    ) -> PieceScheduler {
        let segments = sources
            .iter()
            .map(|source| (source.span, source.senders.iter().map(|sender| sender.0).collect()));
        let mut extents = ExtentMap::new(grid, method, segments);
        extents.land_holes(completed.holes);
        let resumed_bytes =
            completed.kept.iter().map(|piece| extents.land_kept(piece.span, piece.check)).sum();
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
            flows: BTreeMap::new(),
            intake: ReceiverIntake::default(),
            faults: BTreeMap::new(),
            twice: BTreeSet::new(),
            actions: VecDeque::new(),
            look_again: None,
            limit: None,
            pace: None,
            settled: false,
            cause: None,
            trouble: None,
            counts: SchedulerCounts { resumed_bytes, ..SchedulerCounts::default() },
            delivered: BTreeMap::new(),
        };
        scheduler.open_all();
        scheduler.settle();
        scheduler
    }

    /// Limits leases to `bytes_per_second` from now on.
    pub(crate) fn limit(&mut self, now: Moment, bytes_per_second: u64) {
        self.limit = Some((
            TokenBucket::new(now, bytes_per_second, self.extents.grid().block_bytes()),
            FlowIx(0),
        ));
    }

    /// Paces flows by a plan that takes `seconds`: those that are ahead pause in favour of those
    /// that are behind.
    pub(crate) fn keep_to_plan(&mut self, now: Moment, seconds: f64) {
        self.pace = Some(PlanPacing::new(now, seconds, &self.shares));
    }

    /// Handles one event.
    pub(crate) fn handle(&mut self, now: Moment, event: SchedulerEvent) {
        match event {
            SchedulerEvent::FlowUp { flow, rail_pair } => self.flow_up(now, flow, rail_pair),
            SchedulerEvent::Room { flow, pieces } => self.room(now, flow, pieces),
            SchedulerEvent::Landed { flow, piece, check } => self.landed(now, flow, piece, check),
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
        let due = [self.look_again, self.rail_pairs.poll_timeout()].into_iter().flatten().min();
        due.filter(|_| !self.settled)
    }

    pub(crate) fn landed_bytes(&self) -> u64 {
        self.extents.landed_bytes()
    }

    /// Returns the abandoned ranges with the error of the first, if any.
    pub(crate) fn missing(&self) -> Option<Error> {
        let missing = self.extents.missing();
        let cause = self.cause.clone();
        (!missing.is_empty())
            .then(|| cause.expect("an abandoned piece has a cause").missing(missing))
    }

    /// Returns the ranges that would be missing if the transfer ended now, ascending and joined.
    pub(crate) fn lacking(&self) -> Vec<Span> {
        self.extents.lacking()
    }

    /// Returns the error of the flow that broke last, if nothing has landed since.
    pub(crate) fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref()
    }

    /// Returns the composed check values, segment by segment.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (Span, Vec<(Span, Check)>)> {
        self.extents.checks()
    }

    pub(crate) fn counts(&self) -> SchedulerCounts {
        self.counts
    }

    fn flow_up(&mut self, now: Moment, flow: FlowIx, rail_pair: RailPair) {
        self.rail_pairs.up(rail_pair, flow);
        let meter = RateMeter::default();
        self.flows.insert(
            flow,
            ScheduledFlow {
                rail_pair,
                leased: Vec::new(),
                room: 0,
                meter,
                up_at: now,
                revoking: false,
                revoke_again: now,
            },
        );
    }

    fn room(&mut self, now: Moment, flow: FlowIx, pieces: u32) {
        if let Some(state) = self.flows.get_mut(&flow) {
            state.room = pieces;
            self.feed_in_turn(now, flow);
        }
    }

    fn landed(&mut self, now: Moment, flow: FlowIx, piece: Piece, check: Check) {
        self.intake.add(now, piece.span.bytes());
        self.trouble = None;
        if let Some(state) = self.flows.get_mut(&flow) {
            state.leased.retain(|leased| leased.span != piece.span);
            state.meter.add(now, piece.span.bytes());
            if state.leased.is_empty() {
                state.meter.pause(now);
            }
            self.rail_pairs.landed(state.rail_pair);
            let sender = state.rail_pair.sender;
            *self.delivered.entry(sender).or_insert(0) += piece.span.bytes();
            if let Some(pace) = &mut self.pace {
                pace.landed(sender, piece.span.bytes());
            }
        }
        if self.extents.land(piece.span, check) {
            self.counts.kept_bytes += piece.span.bytes();
            self.counts.stolen_bytes += if piece.stolen { piece.span.bytes() } else { 0 };
        } else {
            self.counts.wasted_bytes += piece.span.bytes();
        }
        // A flow of stolen pieces has room again as soon as one of them has landed.
        if self.flows.get(&flow).is_some_and(|state| state.room > 0) {
            self.feed_in_turn(now, flow);
        }
    }

    fn returned(&mut self, now: Moment, flow: FlowIx, pieces: &[Piece]) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        state.revoking = false;
        state.leased.retain(|leased| pieces.iter().all(|piece| piece.span != leased.span));
        let sender = state.rail_pair.sender;
        for piece in pieces {
            let (segment, index) = self.extents.place(piece.span);
            // Prefer the flow it was revoked for; the old flow has room too and would just lease it
            // again.
            if !self.extents.is_settled_piece(segment, index)
                && !self.lease_to_hungry(now, flow, piece.span, segment)
            {
                self.shares.push_back(
                    &self.extents,
                    sender,
                    PieceRun { segment, first: index, end: index + 1 },
                );
                if let Some((bucket, _)) = &mut self.limit {
                    bucket.give_back(piece.span.bytes());
                }
            }
        }
        if !pieces.is_empty() {
            self.feed_hungry(now);
        }
    }

    /// Leases a piece that `from` gave back to another flow that has room and whose sender offers
    /// it. Returns false if there is none.
    fn lease_to_hungry(&mut self, now: Moment, from: FlowIx, span: Span, segment: u32) -> bool {
        let is_free = |state: &ScheduledFlow| {
            state.leased.iter().filter(|piece| piece.stolen).count() < STOLEN_MAX
        };
        let extents = &self.extents;
        let hungry = self.flows.iter_mut().find(|(flow, state)| {
            **flow != from
                && state.room > 0
                && is_free(state)
                && extents.offers(state.rail_pair.sender, segment)
        });
        let Some((&flow, state)) = hungry else { return false };
        let piece = Piece { span, stolen: true };
        state.room = 0;
        state.meter.start(now);
        state.leased.push(piece);
        self.actions
            .push_back(SchedulerAction::Flow(FlowCommand::Lease { flow, pieces: vec![piece] }));
        true
    }

    /// Opens flows to every sender that has a share, largest share first.
    fn open_all(&mut self) {
        let mut shares: Vec<(u64, NodeIx)> = self
            .shares
            .bytes()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(sender, bytes)| (bytes, sender))
            .collect();
        shares.sort_unstable_by_key(|&(bytes, sender)| (std::cmp::Reverse(bytes), sender));
        for (_, sender) in shares {
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
        let hungry = self.flows.iter().filter(|(_, flow)| flow.room > 0);
        let mut hungry: Vec<FlowIx> = hungry.map(|(&flow, _)| flow).collect();
        if let Some((_, last)) = self.limit {
            let next = hungry.partition_point(|&flow| flow <= last);
            hungry.rotate_left(next);
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
        let ScheduledFlow { rail_pair, room, .. } = self.flows[&flow];
        if self.pace.as_ref().is_some_and(|pace| {
            pace.is_ahead(now, rail_pair.sender, self.extents.grid().block_bytes())
        }) {
            return self.look_again_at(now + plan_pacing::PAUSE);
        }
        if self.would_be_last(now, flow) {
            return self.look_again_at(now + LOOK_AGAIN);
        }
        let mut room = self.fair_part(rail_pair.sender).min(room as usize);
        if let Some((bucket, last)) = &mut self.limit {
            if !bucket.is_open(now) {
                let next = bucket.next();
                return self.look_again_at(next);
            }
            (room, *last) = (1, flow);
        }
        let mut pieces = Vec::with_capacity(room);
        while pieces.len() < room
            && let Some(span) = self.shares.take(&self.extents, rail_pair.sender)
        {
            pieces.push(Piece { span, stolen: false });
        }
        if pieces.is_empty() {
            pieces.extend(self.steal(now, flow).map(|span| Piece { span, stolen: true }));
        }
        let bytes: u64 = pieces.iter().map(|piece| piece.span.bytes()).sum();
        if let Some((bucket, _)) = &mut self.limit {
            bucket.spend(bytes);
        }
        let state = self.flows.get_mut(&flow).expect("looked up above");
        if !pieces.is_empty() {
            state.room = 0;
            state.meter.start(now);
            self.intake.start(now);
            state.leased.extend_from_slice(&pieces);
            self.actions.push_back(SchedulerAction::Flow(FlowCommand::Lease { flow, pieces }));
        } else if state.leased.is_empty() && self.rail_pairs.are_waiting() {
            self.flows.remove(&flow);
            self.actions.push_back(SchedulerAction::Flow(FlowCommand::Close { flow }));
            self.rail_pairs.idle(rail_pair);
        } else {
            self.look_again_at(now + LOOK_AGAIN);
        }
    }

    fn look_again_at(&mut self, moment: Moment) {
        self.look_again = Some(self.look_again.map_or(moment, |due| due.min(moment)));
    }

    /// Returns the number of pieces that one flow of a sender may take at once. Towards the end of
    /// a share it falls, so that the flows end together (guided self-scheduling, Polychronopoulos
    /// and Kuck 1987).
    fn fair_part(&self, sender: NodeIx) -> usize {
        let flows =
            self.flows.values().filter(|flow| flow.rail_pair.sender == sender).count() as u64;
        if flows <= 1 {
            return usize::MAX;
        }
        let pieces = self.shares.bytes_of(sender) / self.extents.grid().block_bytes();
        usize::try_from(pieces / (2 * flows)).unwrap_or(usize::MAX).max(1)
    }

    fn settle(&mut self) {
        if !self.settled && self.extents.is_settled() {
            self.settled = true;
            self.actions.push_back(SchedulerAction::Settled);
        }
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
