//! Planning at the master: the first plan once all nodes are prepared, messages to every receiver,
//! and newer plans if nodes are slower than their adverts say.

use super::coordinator::{Coordinator, TransferPhase};
use super::peer::{PeerRecord, PeerStage, SentMessage};
use super::speed_feedback::SpeedFeedback;
use crate::core::error::{Code, Error};
use crate::core::plan;
use crate::core::plan::{ByReceiver, Plan, PlannedSegment, Scheduler};
use crate::core::units::{Moment, NodeIx, Span, largest, subtract, union};
use crate::core::wire::control;
use crate::core::wire::control::{
    FileSharing, NodeAdvert, PlanSegment, SenderDelivery, Start, ToNode,
};
use crate::core::wire::limits::{
    HOLES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, ORIGINS_MAX, RAILS_MAX, SEGMENTS_MAX,
};

/// Largest encoded size of a segment, of a sender of a segment, of a peer, of a range and of an
/// origin.
const SEGMENT_BYTES: usize = 48;
const SHARE_BYTES: usize = 10;
const PEER_BYTES: usize = NAME_BYTES_MAX + 19 * RAILS_MAX + 32;
const RANGE_BYTES: usize = 20;
const ORIGIN_BYTES: usize = 3 + 2 * 10 + 2 * 8;

impl Coordinator {
    /// Makes the plan and sends every receiver its part.
    pub(super) fn start(&mut self, now: Moment) -> Result<(), Error> {
        // A node that overwrites another node's file may leave it half done.
        self.unkept
            .extend(self.roster.check_shared(|node, row| self.peers[node.at()].shares(row))?);
        let adverts: Vec<Option<NodeAdvert>> = self.peers.iter().map(PeerRecord::advert).collect();
        let problem = self.roster.problem(&adverts);
        self.decide_kept_ranges(&problem);
        let plan = plan::plan(&problem, self.terms.scheduler())?;
        self.receiver_seconds = plan.receiver_seconds(&problem);
        self.checks = vec![None; plan.planned.len()];
        self.holes = largest(union(std::mem::take(&mut self.holes)), HOLES_MAX);
        self.by_receiver = ByReceiver::of(&plan.planned, self.peers.len());
        self.feedback.begin(&plan.planned, &self.receiver_seconds);
        self.relayed = plan.relayed();
        self.planned_bytes = plan.wanted_bytes();
        self.check_parts(&plan)?;
        self.plan = Some(plan);
        for node in self.indices() {
            if self.roster.get(node).receives() {
                self.peers[node.at()].stage = PeerStage::Moving;
                self.send(node, SentMessage::Start);
            }
        }
        self.phase = TransferPhase::Moving;
        self.deadline = None;
        self.last_news = now;
        Ok(())
    }

    /// Records a receiver's report about its senders, and makes a newer plan if it is worth it.
    pub(super) fn replan_if_slow(
        &mut self,
        now: Moment,
        node: NodeIx,
        delivered: &[SenderDelivery],
    ) {
        let is_moving =
            self.phase == TransferPhase::Moving && self.peers[node.at()].stage == PeerStage::Moving;
        let heeds_speed = self.terms.scheduler() != Scheduler::Uniform;
        let block_bytes = self.roster.grid.block_bytes();
        if !is_moving || !heeds_speed || !self.feedback.report(now, node, delivered, block_bytes) {
            return;
        }
        let adverts: Vec<Option<NodeAdvert>> = self.peers.iter().map(PeerRecord::advert).collect();
        let mut problem = self.roster.problem(&adverts);
        self.feedback.apply(&mut problem);
        let old = self.plan.as_ref().expect("bytes move by a plan");
        let left = self.left(old);
        // Keep the current plan if no new one can be made now.
        let Ok(new) = plan::replan(&problem, old, &self.feedback.slow(), &left) else { return };
        let rest = plan::rest(&new.planned, &left);
        if !SpeedFeedback::is_worth(&problem, &plan::rest(&old.planned, &left), &rest) {
            return;
        }
        let relayed = std::mem::replace(&mut self.relayed, new.relayed());
        if self.check_parts(&new).is_err() {
            self.relayed = relayed;
            return;
        }
        let seconds = plan::receiver_seconds(&problem, &rest);
        self.feedback.begin(&rest, &seconds);
        self.receiver_seconds = self.seconds_for_all(seconds, &new.planned, &rest);
        self.plan = Some(new);
        self.epoch += 1;
        for node in self.indices() {
            let stage = self.peers[node.at()].stage;
            if stage == PeerStage::Moving || (stage == PeerStage::Landed && self.relays(node)) {
                self.send(node, SentMessage::Start);
            }
        }
    }

    /// Returns the part of each segment of the plan that is still to come, as a mean over its
    /// receivers. A receiver that did not report counts as having none of it.
    fn left(&self, plan: &Plan) -> Vec<f64> {
        let mut left = vec![0.0; plan.planned.len()];
        for node in self.indices() {
            let places = self.by_receiver.places(node);
            let reported =
                self.feedback.left_of(node).filter(|reported| reported.len() == places.len());
            for (at, place) in
                places.enumerate().filter(|_| self.peers[node.at()].stage <= PeerStage::Moving)
            {
                let bytes = plan.planned[place].segment.span.bytes() as f64;
                left[place] +=
                    reported.map_or(1.0, |reported| (reported[at] as f64 / bytes).min(1.0));
            }
        }
        let receivers = plan.planned.iter().map(|planned| planned.segment.receivers.len() as f64);
        left.iter().zip(receivers).map(|(left, receivers)| left / receivers).collect()
    }

    /// Returns the time that each receiver's whole part would take at the speed at which the
    /// remaining part takes `seconds`.
    fn seconds_for_all(
        &self,
        seconds: Vec<f64>,
        planned: &[PlannedSegment],
        rest: &[PlannedSegment],
    ) -> Vec<f64> {
        let bytes = |planned: &[PlannedSegment], node| {
            let segments = self.by_receiver.segments(planned, node);
            segments.map(|planned| planned.segment.span.bytes() as f64).sum::<f64>()
        };
        let all = self.indices().zip(seconds).map(|(node, seconds)| match bytes(rest, node) {
            0.0 => 0.0,
            left => seconds * bytes(planned, node) / left,
        });
        all.collect()
    }

    /// Checks that every receiver's part of the plan fits into a message. Only large parts are
    /// measured exactly.
    fn check_parts(&self, plan: &Plan) -> Result<(), Error> {
        let large = |node: &NodeIx| {
            let own = self.by_receiver.segments(&plan.planned, *node);
            let (segments, shares) = own.fold((0, 0), |(segments, shares), it| {
                (segments + 1, shares + it.segment.senders.len())
            });
            let ranges = self.holes.len() + segments + self.relayed.get(node).map_or(0, Vec::len);
            let ranges = ranges + self.resuming.kept_of(*node).len();
            let peers = shares.min(self.peers.len());
            let bytes = segments * SEGMENT_BYTES + shares * SHARE_BYTES + peers * PEER_BYTES;
            segments > SEGMENTS_MAX
                || bytes + ranges * RANGE_BYTES + ORIGINS_MAX * ORIGIN_BYTES + 1024
                    > MESSAGE_BYTES_MAX
        };
        for node in self.indices().filter(large) {
            let start = self.start_of(plan, node);
            let (segments, bytes) = (start.segments.len(), control::size(&ToNode::Start(start)));
            if segments > SEGMENTS_MAX || bytes > MESSAGE_BYTES_MAX {
                let entry = self.roster.get(node);
                let what = format!(
                    "line {}: the rows cut what {} wants into {segments} parts, and telling it takes {bytes} bytes: more \
                     than {SEGMENTS_MAX} parts or {MESSAGE_BYTES_MAX} bytes",
                    entry.rows[0].line, entry.address
                );
                return Err(Error::new(Code::Usage, what)
                    .remedy("cut rows at the same positions, or split the transfer"));
            }
        }
        Ok(())
    }

    /// Returns true if a file that this node writes together with others cannot be resumed.
    fn forgets(&self, node: NodeIx) -> bool {
        let entry = self.roster.get(node);
        let mut rows = entry.rows.iter().zip(&entry.sharing);
        rows.any(|(row, sharing)| *sharing != FileSharing::Alone && self.unkept.contains(&row.uri))
    }

    /// Returns the ranges that a receiver was to fetch and did not have at its start.
    pub(super) fn unsettled(&self, node: NodeIx) -> Vec<Span> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let start = self.start_of(plan, node);
        let completed = union(start.holes.into_iter().chain(start.kept).collect());
        start.segments.iter().flat_map(|segment| subtract(segment.span, &completed)).collect()
    }

    /// Returns the lowest possible duration under the limit: each receiver has a share of it, and
    /// begins a block ahead.
    pub(super) fn limit_seconds(&self) -> Option<f64> {
        let plan = self.plan.as_ref().filter(|_| self.terms.has_limit())?;
        let block_bytes = self.terms.block_bytes() as f64;
        let seconds = |node: NodeIx| {
            let wanted = union(
                self.by_receiver.segments(&plan.planned, node).map(|it| it.segment.span).collect(),
            );
            let wanted_bytes: u64 = wanted.into_iter().map(Span::bytes).sum();
            let missing_bytes: u64 = self.unsettled(node).into_iter().map(Span::bytes).sum();
            let rate = self.terms.limit_of(wanted_bytes, self.wanted_bytes());
            (missing_bytes as f64 - block_bytes).max(0.0) / rate as f64
        };
        let receivers = self.indices().filter(|node| self.roster.get(*node).receives());
        receivers.map(seconds).reduce(f64::max)
    }

    /// Builds the message with one receiver's part of the plan.
    pub(super) fn start_of(&self, plan: &Plan, node: NodeIx) -> Start {
        let mine = self.by_receiver.segments(&plan.planned, node);
        let segments: Vec<PlanSegment> =
            mine.map(|planned| super::attempt::segment(planned, node)).collect();
        let senders = segments.iter().flat_map(|segment| &segment.senders);
        let mut senders: Vec<NodeIx> = senders.map(|share| NodeIx(share.index)).collect();
        senders.sort_unstable();
        senders.dedup();
        let peers = senders.into_iter().map(|sender| {
            let advert = self.peers[sender.at()].advert().expect("every node was met");
            super::attempt::peer(sender, self.roster.get(sender), &advert, self.relays(sender))
        });
        let wanted = union(segments.iter().map(|segment| segment.span).collect());
        let holes = wanted.iter().flat_map(|span| within(&self.holes, *span));
        // By planned bytes: a member of a group is not asked for all that its rows say.
        let wanted_bytes = wanted.iter().map(|span| span.bytes()).sum();
        // The bound holds for the declared speeds.
        let most = if self.epoch == 1 { plan.bound.seconds } else { f64::INFINITY };
        let mut start = Start {
            epoch: self.epoch,
            peers: peers.collect(),
            holes: holes.collect(),
            segments,
            limit_bytes_per_second: self.terms.limit_of(wanted_bytes, self.wanted_bytes()),
            bound_us: (self.receiver_seconds[node.at()].min(most) * 1e6) as u64,
            relays: self.relayed.get(&node).cloned().unwrap_or_default(),
            kept: Vec::new(),
            origins: Vec::new(),
            forgets: self.forgets(node),
            modes: self.modes.of_rows(self.roster.get(node)),
        };
        self.resuming.complete(node, self.roster.get(node), &mut start);
        start
    }
}

/// Returns the parts of `spans` (ascending, disjoint) that lie within `whole`.
fn within(spans: &[Span], whole: Span) -> impl Iterator<Item = Span> {
    let first = spans.partition_point(|span| span.end <= whole.start);
    spans[first..].iter().map_while(move |span| span.intersection(whole))
}
