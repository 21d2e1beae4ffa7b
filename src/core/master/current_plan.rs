//! The plan in force: its segments by receiver, the parts that receivers relay, and its version.

use std::collections::BTreeMap;

use super::group_dealing::GroupDealing;
use super::peer::PeerStage;
use super::plan_context::PlanContext;
use super::speed_feedback::SpeedFeedback;
use crate::core::error::{Code, Error};
use crate::core::plan::{ByReceiver, Plan, PlanProblem, PlannedSegment};
use crate::core::units::{Moment, NodeIx, Span, largest, subtract, union};
use crate::core::wire::control;
use crate::core::wire::control::{PlanSegment, Start, ToNode};
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

/// The plan that nodes work by. There is none before all nodes are prepared.
#[derive(Debug, Default)]
pub(super) struct CurrentPlan {
    plan: Option<Plan>,
    /// The plan's segments by receiver.
    by_receiver: ByReceiver,
    /// Ranges that other receivers request from each node.
    relayed: BTreeMap<NodeIx, Vec<Span>>,
    /// Planned speed of each receiver, in bytes per second; 0 if it receives nothing.
    receiver_speeds: Vec<f64>,
    /// Groups whose parts are dealt as they land.
    pub(super) groups: GroupDealing,
    /// Version of the plan, from 1 on.
    epoch: u32,
    /// Parts of groups that a newer plan gave a node, with the first version that has them.
    added: Vec<(u32, NodeIx, Span)>,
    /// Bytes that the plan's receivers want, each counted for itself.
    planned_bytes: u64,
    /// Ranges without data in the sources, as senders report them.
    holes: Vec<Span>,
}

impl CurrentPlan {
    /// Puts the first plan in force, if every receiver's part of it fits into a message.
    pub(super) fn begin(
        &mut self,
        context: PlanContext<'_>,
        plan: Plan,
        problem: &PlanProblem,
    ) -> Result<(), Error> {
        self.holes = largest(union(std::mem::take(&mut self.holes)), HOLES_MAX);
        self.by_receiver = ByReceiver::of(&plan.planned, context.peers.len());
        self.receiver_speeds = self.speeds(context, &plan.planned, &plan.receiver_seconds(problem));
        self.relayed = plan.relayed();
        self.planned_bytes = plan.wanted_bytes();
        self.epoch = 1;
        self.check_parts(context, &plan)?;
        self.plan = Some(plan);
        Ok(())
    }

    /// Puts a newer plan in force, of which `rest` is still to come and takes each receiver
    /// `seconds`. Returns false, and changes nothing, if a receiver's part of it does not fit into
    /// a message.
    pub(super) fn replace(
        &mut self,
        context: PlanContext<'_>,
        new: Plan,
        rest: &[PlannedSegment],
        seconds: &[f64],
    ) -> bool {
        let relayed = std::mem::replace(&mut self.relayed, new.relayed());
        if self.check_parts(context, &new).is_err() {
            self.relayed = relayed;
            return false;
        }
        self.receiver_speeds = self.speeds(context, rest, seconds);
        self.plan = Some(new);
        self.epoch += 1;
        true
    }

    pub(super) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Returns the bytes that the plan's receivers want, each counted for itself.
    pub(super) fn wanted_bytes(&self) -> Option<u64> {
        self.plan.as_ref().map(|_| self.planned_bytes)
    }

    pub(super) fn add_holes(&mut self, holes: Vec<Span>) {
        self.holes.extend(holes);
    }

    /// Returns true if other receivers request from this node what it has landed.
    pub(super) fn relays(&self, node: NodeIx) -> bool {
        self.relayed.contains_key(&node)
    }

    /// Returns the nodes that others request from what they have landed.
    pub(super) fn relaying(&self) -> impl Iterator<Item = NodeIx> {
        self.relayed.keys().copied()
    }

    /// Returns the bytes of a receiver's part of the plan.
    pub(super) fn bytes_of(&self, node: NodeIx) -> u64 {
        let Some(plan) = &self.plan else { return 0 };
        let segments = self.by_receiver.segments(&plan.planned, node);
        segments.map(|planned| planned.segment.span.bytes()).sum()
    }

    /// Returns the part of each segment of the plan that is still to come, as a mean over its
    /// receivers. A receiver that did not report counts as having none of it.
    pub(super) fn left(
        &self,
        context: PlanContext<'_>,
        plan: &Plan,
        feedback: &SpeedFeedback,
    ) -> Vec<f64> {
        let mut left = vec![0.0; plan.planned.len()];
        for node in context.nodes() {
            let places = self.by_receiver.places(node);
            let reported = feedback.left_of(node).filter(|reported| reported.len() == places.len());
            for (at, place) in
                places.enumerate().filter(|_| context.peers[node.at()].stage <= PeerStage::Moving)
            {
                let bytes = plan.planned[place].segment.span.bytes() as f64;
                left[place] +=
                    reported.map_or(1.0, |reported| (reported[at] as f64 / bytes).min(1.0));
            }
        }
        let receivers = plan.planned.iter().map(|planned| planned.segment.receivers.len() as f64);
        left.iter().zip(receivers).map(|(left, receivers)| left / receivers).collect()
    }

    /// Returns the speed at which each receiver has its part of `planned` after `seconds`.
    fn speeds(
        &self,
        context: PlanContext<'_>,
        planned: &[PlannedSegment],
        seconds: &[f64],
    ) -> Vec<f64> {
        let bytes = |node| {
            let segments = self.by_receiver.segments(planned, node);
            segments.map(|planned| planned.segment.span.bytes() as f64).sum::<f64>()
        };
        let speed = |(node, seconds): (NodeIx, &f64)| match *seconds {
            0.0 => 0.0,
            seconds => bytes(node) / seconds,
        };
        context.nodes().zip(seconds).map(speed).collect()
    }

    /// Deals the first parts of groups whose parts are not all dealt by the plan.
    ///
    /// # Errors
    /// As [`crate::core::plan::plan`].
    pub(super) fn deal_first(
        &mut self,
        now: Moment,
        context: PlanContext<'_>,
        problem: &PlanProblem,
    ) -> Result<(), Error> {
        let Some(plan) = &mut self.plan else { return Ok(()) };
        let first = self.groups.begin(now, context, problem, &mut plan.planned, &self.holes)?;
        self.add_parts(first, context.peers.len());
        Ok(())
    }

    fn add_parts(&mut self, parts: Vec<PlannedSegment>, node_count: usize) {
        let Some(plan) = &mut self.plan else { return };
        plan.planned.extend(parts);
        plan.planned.sort_by_key(|planned| planned.segment.span.start);
        self.by_receiver = ByReceiver::of(&plan.planned, node_count);
    }

    /// Puts further parts of groups in force, which nodes are to take in.
    pub(super) fn grow(&mut self, parts: Vec<PlannedSegment>, node_count: usize) {
        self.epoch += 1;
        for PlannedSegment { segment, .. } in &parts {
            let added = segment.receivers.iter().map(|node| (self.epoch, *node, segment.span));
            self.added.extend(added);
        }
        self.add_parts(parts, node_count);
    }

    /// Returns the parts of groups that a node has and does not know of: it followed the plan of
    /// this `epoch` last.
    pub(super) fn unheard(&self, node: NodeIx, epoch: u32) -> Vec<Span> {
        let unheard = |(added, of, _): &&(u32, NodeIx, Span)| *of == node && *added > epoch;
        self.added.iter().filter(unheard).map(|(_, _, span)| *span).collect()
    }

    /// Checks that every receiver's part of the plan fits into a message. Only large parts are
    /// measured exactly.
    fn check_parts(&self, context: PlanContext<'_>, plan: &Plan) -> Result<(), Error> {
        let large = |node: &NodeIx| {
            let own = self.by_receiver.segments(&plan.planned, *node);
            let (segments, shares) = own.fold((0, 0), |(segments, shares), it| {
                (segments + 1, shares + it.segment.senders.len())
            });
            let ranges = self.holes.len() + segments + self.relayed.get(node).map_or(0, Vec::len);
            let ranges = ranges + context.resuming.kept_of(*node).len();
            let peers = shares.min(context.peers.len());
            let bytes = segments * SEGMENT_BYTES + shares * SHARE_BYTES + peers * PEER_BYTES;
            segments > SEGMENTS_MAX
                || bytes + ranges * RANGE_BYTES + ORIGINS_MAX * ORIGIN_BYTES + 1024
                    > MESSAGE_BYTES_MAX
        };
        for node in context.nodes().filter(large) {
            let start = self.start_of(context, plan, node);
            let (segments, bytes) = (start.segments.len(), control::size(&ToNode::Start(start)));
            if segments > SEGMENTS_MAX || bytes > MESSAGE_BYTES_MAX {
                let entry = context.roster.get(node);
                let what = format!(
                    "line {}: the rows cut what {} wants into {segments} parts, and telling it \
                     takes {bytes} bytes: more than {SEGMENTS_MAX} parts or {MESSAGE_BYTES_MAX} \
                     bytes",
                    entry.rows[0].line, entry.address
                );
                return Err(Error::new(Code::Usage, what)
                    .remedy("cut rows at the same positions, or split the transfer"));
            }
        }
        Ok(())
    }

    /// Returns the ranges that a receiver was to fetch and did not have at its start.
    pub(super) fn unsettled(&self, context: PlanContext<'_>, node: NodeIx) -> Vec<Span> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let start = self.start_of(context, plan, node);
        let completed = union(start.holes.into_iter().chain(start.kept).collect());
        start.segments.iter().flat_map(|segment| subtract(segment.span, &completed)).collect()
    }

    /// Returns the lowest possible duration under the limit: each receiver has a share of it, and
    /// begins a block ahead.
    pub(super) fn limit_seconds(&self, context: PlanContext<'_>) -> Option<f64> {
        let plan = self.plan.as_ref().filter(|_| context.terms.options().limit.is_some())?;
        let block_bytes = context.terms.block_bytes() as f64;
        let seconds = |node: NodeIx| {
            let wanted = union(
                self.by_receiver.segments(&plan.planned, node).map(|it| it.segment.span).collect(),
            );
            let wanted_bytes: u64 = wanted.into_iter().map(Span::bytes).sum();
            let missing_bytes: u64 =
                self.unsettled(context, node).into_iter().map(Span::bytes).sum();
            let rate = context.terms.limit_of(wanted_bytes, self.planned_bytes);
            (missing_bytes as f64 - block_bytes).max(0.0) / rate as f64
        };
        let receivers = context.nodes().filter(|node| context.roster.get(*node).receives());
        receivers.map(seconds).reduce(f64::max)
    }

    /// Builds the message with one receiver's part of the plan.
    pub(super) fn start_of(&self, context: PlanContext<'_>, plan: &Plan, node: NodeIx) -> Start {
        let mine = self.by_receiver.segments(&plan.planned, node);
        let segments: Vec<PlanSegment> =
            mine.map(|planned| super::attempt::segment(planned, node)).collect();
        let senders = segments.iter().flat_map(|segment| &segment.senders);
        let mut senders: Vec<NodeIx> = senders.map(|share| NodeIx(share.index)).collect();
        senders.sort_unstable();
        senders.dedup();
        let peers = senders.into_iter().map(|sender| {
            let advert = context.peers[sender.at()].advert().expect("every node was met");
            let (entry, relays) = (context.roster.get(sender), self.relays(sender));
            let channel = context.roster.channels.between(node, sender);
            super::attempt::peer(sender, entry, &advert, relays, channel)
        });
        let wanted = union(segments.iter().map(|segment| segment.span).collect());
        let known = union(wanted.iter().copied().chain(self.groups.spans_of(node)).collect());
        let holes = known.iter().flat_map(|span| within(&self.holes, *span));
        // By planned bytes: a member of a group is not asked for all that its rows say.
        let wanted_bytes = wanted.iter().map(|span| span.bytes()).sum();
        // Flows are paced by declared speeds. Measured ones, of newer plans, are too uncertain to
        // hold a flow back, unless receivers wait for each other's parts.
        let is_paced =
            !self.groups.is_member(node) && (self.epoch == 1 || !self.relayed.is_empty());
        let seconds = match self.receiver_speeds[node.at()] {
            speed if speed > 0.0 && is_paced => wanted_bytes as f64 / speed,
            _ => 0.0,
        };
        // The bound holds for the declared speeds.
        let most = if self.epoch == 1 { plan.bound.seconds } else { f64::INFINITY };
        let mut start = Start {
            epoch: self.epoch,
            peers: peers.collect(),
            holes: holes.collect(),
            segments,
            limit_bytes_per_second: context.terms.limit_of(wanted_bytes, self.planned_bytes),
            bound_us: (seconds.min(most) * 1e6) as u64,
            relays: self.relayed.get(&node).cloned().unwrap_or_default(),
            kept: Vec::new(),
            origins: Vec::new(),
            forgets: context.resuming.forgets(context.roster.get(node)),
            modes: context.modes.of_rows(context.roster.get(node)),
            more_at: self.groups.more_at(node),
        };
        context.resuming.complete(node, context.roster.get(node), &mut start);
        start
    }
}

/// Returns the parts of `spans` (ascending, disjoint) that lie within `whole`.
fn within(spans: &[Span], whole: Span) -> impl Iterator<Item = Span> {
    let first = spans.partition_point(|span| span.end <= whole.start);
    spans[first..].iter().map_while(move |span| span.intersection(whole))
}
