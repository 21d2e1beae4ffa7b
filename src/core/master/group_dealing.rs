//! Groups whose parts are dealt as they land: what has no owner yet, and how fast members are.
//!
//! Only this master makes owners, and each byte of an attempt gets one at most. A member that has
//! something of an earlier attempt owns that first. A file that an earlier attempt has completed is
//! not written to again, so its member gets nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::plan_context::PlanContext;
use crate::core::error::{Code, Error, Result};
use crate::core::plan::{
    GroupRest, MemberProgress, PlanProblem, PlannedSegment, first_part, next_part,
};
use crate::core::receiver::rate_meter::RateMeter;
use crate::core::units::{Moment, NodeIx, Span, union};
use crate::core::wire::control::SenderDelivery;

/// Parts of one member, after which all the rest is dealt: a member's message lists all its parts.
const PARTS_MAX: u32 = 128;
/// Known holes up to which parts are dealt late: every message to a member lists those of its
/// groups.
const HOLES_MAX: usize = 1 << 12;

/// Groups whose parts are dealt as they land.
#[derive(Debug, Default)]
pub(super) struct GroupDealing {
    rests: Vec<GroupRest>,
    members: BTreeMap<NodeIx, GroupMember>,
}

/// A member of one or more of these groups.
#[derive(Debug, Default)]
struct GroupMember {
    /// Ranges of its groups, dealt or not.
    spans: Vec<Span>,
    /// True if it gets no further part, whatever is left.
    is_closed: bool,
    dealt_bytes: u64,
    /// Bytes that it has landed or given up, by its last report.
    settled_bytes: u64,
    /// Bytes that it has given up: no sender is left for them.
    missing_bytes: u64,
    delivered_bytes: u64,
    meter: RateMeter,
    /// Moment of its last report.
    heard: Moment,
    /// True if a sender has nothing to send to it, by its last report.
    is_dry: bool,
    part_count: u32,
    more_at: f64,
}

/// Progress of a member, as it reports it.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemberReport<'a> {
    pub(super) landed_bytes: u64,
    /// Bytes that it has given up.
    pub(super) missing_bytes: u64,
    pub(super) delivered: &'a [SenderDelivery],
}

/// Parts that were dealt, and the nodes that are told.
#[derive(Debug, Default)]
pub(super) struct DealtParts {
    pub(super) parts: Vec<PlannedSegment>,
    pub(super) told: BTreeSet<NodeIx>,
}

impl GroupDealing {
    /// Takes the groups that can be dealt late out of a plan, and deals their first parts.
    ///
    /// # Errors
    /// As [`crate::core::plan::plan`].
    pub(super) fn begin(
        &mut self,
        now: Moment,
        context: PlanContext<'_>,
        problem: &PlanProblem,
        planned: &mut Vec<PlannedSegment>,
        holes: &[Span],
    ) -> Result<Vec<PlannedSegment>> {
        if holes.len() > HOLES_MAX {
            return Ok(Vec::new());
        }
        self.rests = GroupRest::take_from(problem, planned, holes)?;
        for rest in &self.rests {
            for node in rest.members() {
                self.members.entry(*node).or_default().spans.extend(rest.spans());
            }
        }
        let keeps_any = |node: NodeIx| !context.resuming.kept_of(node).is_empty();
        let is_complete =
            |node: &&NodeIx| context.peers[node.at()].has_complete_file() && keeps_any(**node);
        let mut first = Vec::new();
        // Members may have different parts of their groups.
        let has_windows = self.rests.len() > 1;
        for rest in &mut self.rests {
            let is_declared = {
                let mut nodes = rest.members().iter().copied().chain(rest.senders());
                nodes.all(|node| context.roster.get(node).speed().is_some())
            };
            if !is_declared {
                rest.weigh_by_speed(problem);
            }
            let (complete, others): (Vec<NodeIx>, Vec<NodeIx>) =
                rest.members().iter().partition(|node| is_complete(node));
            for node in complete.iter().chain(&others) {
                first.extend(rest.take_kept(*node, context.resuming.kept_of(*node)));
            }
            let open = if others.is_empty() { complete } else { others };
            for (node, member) in self.members.iter_mut().filter(|(node, _)| rest.is_member(**node))
            {
                member.is_closed |= open.binary_search(node).is_err();
            }
            // Only zeros are left, and nothing of them moves; or nobody else may have it; or only
            // the plan, which knows all speeds, can tell whom to leave it to.
            if rest.data_bytes() == 0 || open.len() == 1 || (has_windows && is_declared) {
                first.extend(rest.take_all(&open));
                continue;
            }
            for node in open {
                let target = rest.target_bytes(node) as f64;
                let part = first_part(target, problem.grid.1 as f64, is_declared);
                self.members.entry(node).or_default().more_at = part.more_at;
                first.extend(rest.take(node, part.bytes));
            }
        }
        for member in self.members.values_mut() {
            member.spans = union(std::mem::take(&mut member.spans));
            member.heard = now;
            member.meter.start(now);
        }
        for planned in planned.iter().chain(&first) {
            self.count(planned);
        }
        Ok(first)
    }

    /// Counts a range that its receivers own.
    fn count(&mut self, planned: &PlannedSegment) {
        for receiver in &planned.segment.receivers {
            if let Some(member) = self.members.get_mut(receiver) {
                member.dealt_bytes += planned.segment.span.bytes();
            }
        }
    }

    /// Returns the ranges of a node's groups, dealt or not.
    pub(super) fn spans_of(&self, node: NodeIx) -> impl Iterator<Item = Span> {
        self.members.get(&node).into_iter().flat_map(|member| member.spans.iter().copied())
    }

    /// Returns true if parts of a node are dealt as they land: no plan is made for its speed.
    pub(super) fn is_member(&self, node: NodeIx) -> bool {
        self.members.contains_key(&node)
    }

    /// Returns true if a node may get a further part.
    pub(super) fn is_open(&self, node: NodeIx) -> bool {
        let may_get = |rest: &GroupRest| !rest.is_empty() && rest.is_member(node);
        self.members.get(&node).is_some_and(|member| !member.is_closed)
            && self.rests.iter().any(may_get)
    }

    /// Returns the bytes left to a node at which it reports, if it may get a further part.
    pub(super) fn more_at(&self, node: NodeIx) -> Option<u64> {
        let member = self.members.get(&node).filter(|_| self.is_open(node))?;
        Some(member.more_at as u64)
    }

    /// Returns the error for ranges that no member is left for.
    pub(super) fn undealt(&self) -> Option<Error> {
        let spans = union(self.rests.iter().flat_map(GroupRest::spans).collect());
        let what = "no member of its group is left for a part of the transfer";
        (!spans.is_empty()).then(|| Error::new(Code::Unreachable, what).missing(spans))
    }

    /// Records a report.
    pub(super) fn report(&mut self, now: Moment, node: NodeIx, report: &MemberReport<'_>) {
        let MemberReport { landed_bytes, missing_bytes, delivered } = *report;
        let settled_bytes = landed_bytes.saturating_add(missing_bytes);
        let Some(member) = self.members.get_mut(&node) else { return };
        let is_dry =
            delivered.iter().all(|it| it.bytes == 0) || delivered.iter().any(|it| !it.busy);
        let delivered = delivered.iter().fold(0_u64, |sum, it| sum.saturating_add(it.bytes));
        member.meter.add(now, delivered.saturating_sub(member.delivered_bytes));
        member.delivered_bytes = member.delivered_bytes.max(delivered);
        (member.settled_bytes, member.missing_bytes) = (settled_bytes, missing_bytes);
        (member.heard, member.is_dry) = (now, is_dry);
        if member.unlanded_bytes() == 0 {
            member.meter.pause(now);
        }
    }

    /// Deals the next part of a node that has reported, if it should get one. `is_able` says which
    /// nodes can still get any.
    pub(super) fn next(
        &mut self,
        node: NodeIx,
        block_bytes: f64,
        is_able: impl Fn(NodeIx) -> bool,
    ) -> DealtParts {
        let mut dealt = DealtParts::default();
        if !self.is_open(node) || !is_able(node) {
            return dealt;
        }
        let open = |rest: &GroupRest| !rest.is_empty() && rest.is_member(node);
        for at in (0..self.rests.len()).filter(|at| open(&self.rests[*at])).collect::<Vec<_>>() {
            let members = self.rests[at].members().iter().copied();
            let able: Vec<NodeIx> =
                members.filter(|node| is_able(*node) && !self.members[node].is_closed).collect();
            dealt.parts = self.next_of(at, node, block_bytes, &able);
            if dealt.parts.is_empty() {
                continue;
            }
            dealt.told.extend(dealt.parts.iter().flat_map(|it| it.segment.receivers.clone()));
            dealt.parts.iter().for_each(|part| self.count(part));
            if self.rests[at].is_empty() {
                // Nothing more will come for those that are in no other group.
                dealt.told.extend(able.into_iter().filter(|node| !self.is_open(*node)));
            }
            break;
        }
        dealt
    }

    /// Deals the next part of one group to a node, if it should get one.
    fn next_of(
        &mut self,
        at: usize,
        node: NodeIx,
        block_bytes: f64,
        able: &[NodeIx],
    ) -> Vec<PlannedSegment> {
        let rest = &mut self.rests[at];
        let lacks_sender = self.members.values().any(|member| member.missing_bytes > 0);
        let has_many = self.members[&node].part_count >= PARTS_MAX;
        // All of the rest is dealt at once where a range has lost its senders, so that speeds no
        // longer decide when the group ends, or where a member has had as many parts as it may.
        if lacks_sender || has_many {
            return rest.take_all(able);
        }
        let heard = self.members[&node].heard;
        let progress: Vec<MemberProgress> =
            able.iter().map(|node| self.members[node].progress(heard)).collect();
        let own = able.binary_search(&node).expect("it is able");
        let Some(next) = next_part(rest.data_bytes() as f64, block_bytes, &progress, own) else {
            return Vec::new();
        };
        let member = self.members.get_mut(&node).expect("it is a member");
        member.part_count += 1;
        member.more_at = next.more_at;
        member.meter.start(heard);
        rest.take(node, next.bytes)
    }
}

impl GroupMember {
    /// Returns the bytes that it owns and that have not landed, by its last report.
    fn unlanded_bytes(&self) -> u64 {
        self.dealt_bytes.saturating_sub(self.settled_bytes)
    }

    /// Returns its progress at a moment: what it has landed since its last report is guessed.
    fn progress(&self, now: Moment) -> MemberProgress {
        let bytes_per_second = self.meter.bytes_per_second(self.heard);
        let since = now.since(self.heard).as_secs_f64();
        let landed = bytes_per_second.unwrap_or(0.0) * since.min(SINCE_MAX);
        MemberProgress {
            unlanded_bytes: (self.unlanded_bytes() as f64 - landed).max(0.0),
            landed_bytes: self.delivered_bytes as f64,
            bytes_per_second,
            is_dry: self.is_dry,
        }
    }
}

/// Seconds after a member's last report for which it is believed to go on: twice the interval of
/// reports.
const SINCE_MAX: f64 = 1.0;
