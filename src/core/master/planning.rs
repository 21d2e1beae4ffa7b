//! Planning at the master: the first plan once all nodes are prepared, newer ones if nodes are
//! slower than their adverts say, and each receiver's part of the plan in force.

use std::collections::BTreeSet;
use std::time::Duration;

use super::attempt::AttemptConfig;
use super::current_plan::CurrentPlan;
use super::file_modes::FileModes;
use super::group_dealing::{DealtParts, MemberReport};
use super::peer::{PeerRecord, PeerStage};
use super::plan_context::PlanContext;
use super::resume::ResumeState;
use super::roster::Roster;
use super::silent_senders::SilentSenders;
use super::speed_feedback::SpeedFeedback;
use crate::core::error::Error;
use crate::core::options::Scheduler;
use crate::core::plan;
use crate::core::plan::{LowerBound, Plan};
use crate::core::units::{Moment, NodeIx, Span, union};
use crate::core::wire::control::{NodeAdvert, NodeStats, Prepared, SenderDelivery, Start};

/// Interval at which lost relays are looked for: that of receivers' reports.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Plan of one transfer, with all that it is made from: reported sources, ranges of an earlier
/// attempt, and measured speeds.
#[derive(Debug, Default)]
pub(super) struct TransferPlanning {
    current: CurrentPlan,
    feedback: SpeedFeedback,
    resuming: ResumeState,
    /// Permissions of what is written.
    modes: FileModes,
    /// Relays whose parts others pass on, because they are gone or seem to be.
    lost: BTreeSet<NodeIx>,
    /// The moment at which lost relays were looked for last.
    looked: Option<Moment>,
    /// The plans so far.
    made: Vec<MadePlan>,
}

/// A plan that was put in force, and why it took the place of the one before.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct MadePlan {
    /// Time that its receivers take from then on, by the planner.
    pub(super) seconds: f64,
    /// Nodes that are slower than their adverts say.
    pub(super) slow: Vec<NodeIx>,
    /// Relays whose parts others pass on.
    pub(super) lost: Vec<NodeIx>,
}

/// Records of the coordinator that planning reads.
#[derive(Clone, Copy)]
pub(super) struct PlanningInput<'a> {
    pub(super) roster: &'a Roster,
    pub(super) terms: &'a AttemptConfig,
    pub(super) peers: &'a [PeerRecord],
}

impl PlanningInput<'_> {
    fn adverts(&self) -> Vec<Option<NodeAdvert>> {
        self.peers.iter().map(PeerRecord::advert).collect()
    }
}

impl TransferPlanning {
    /// Records the sources and files of a node that is prepared.
    pub(super) fn prepared(&mut self, node: NodeIx, roster: &Roster, mut prepared: Prepared) {
        let entry = roster.get(node);
        let rows = entry.rows.iter().zip(&prepared.rows);
        self.resuming.forget(
            rows.filter(|(_, state)| state.shared && !state.kept).map(|(row, _)| row.uri.clone()),
        );
        self.modes.prepared(entry, &prepared);
        self.resuming.prepared(node, entry, &mut prepared);
        self.current.add_holes(prepared.holes);
    }

    /// Makes the first plan, and deals the first parts of groups.
    ///
    /// # Errors
    /// The rows cannot be served by these nodes, or not be told in messages.
    pub(super) fn begin(&mut self, now: Moment, input: PlanningInput<'_>) -> Result<(), Error> {
        // A node that overwrites another node's file may leave it half done.
        let unkept = input.roster.check_shared(|node, row| input.peers[node.at()].shares(row))?;
        self.resuming.forget(unkept);
        let problem = input.roster.problem(&input.adverts());
        self.resuming.decide(input.roster, &problem);
        self.modes.decide(input.roster);
        let plan = plan::plan(&problem, input.terms.options().scheduler)?;
        self.feedback.begin(&plan.planned, &plan.receiver_seconds(&problem));
        let made = MadePlan { seconds: plan.predicted_seconds, slow: Vec::new(), lost: Vec::new() };
        let context = context(input, &self.resuming, &self.modes);
        self.current.begin(context, plan, &problem)?;
        if input.terms.deals_late() {
            self.current.deal_first(now, context, &problem)?;
        }
        self.made.push(made);
        Ok(())
    }

    /// Records a report of a member of groups, and deals its next part if it should get one.
    /// Returns the nodes that are told.
    pub(super) fn deal_further(
        &mut self,
        now: Moment,
        node: NodeIx,
        report: &MemberReport<'_>,
        input: PlanningInput<'_>,
    ) -> BTreeSet<NodeIx> {
        let groups = &mut self.current.groups;
        groups.report(now, node, report);
        let is_able = |node: NodeIx| input.peers[node.at()].stage == PeerStage::Moving;
        let block_bytes = input.roster.grid.block_bytes() as f64;
        let DealtParts { mut parts, told } = groups.next(node, block_bytes, is_able);
        if !parts.is_empty() {
            parts.iter_mut().for_each(|part| self.feedback.weigh(part));
            self.current.grow(parts, input.peers.len());
        }
        told
    }

    /// Returns true if a node may get a further part of a group.
    pub(super) fn may_grow(&self, node: NodeIx) -> bool {
        self.current.groups.is_open(node)
    }

    /// Returns the error for parts of groups that no member is left for.
    pub(super) fn undealt(&self) -> Option<Error> {
        self.current.groups.undealt()
    }

    /// Records the remaining bytes of each segment of a receiver's part.
    pub(super) fn left(&mut self, receiver: NodeIx, left: Vec<u64>) {
        self.feedback.left(receiver, left);
    }

    /// Records a receiver's report about its senders, and makes a newer plan if it is worth it, or
    /// if relays are lost. Returns true if it did.
    pub(super) fn report(
        &mut self,
        input: PlanningInput<'_>,
        now: Moment,
        node: NodeIx,
        delivered: &[SenderDelivery],
        silence: &SilentSenders,
    ) -> bool {
        let is_new = self.judge(input, now, node, delivered);
        is_new | self.relieve(input, now, |node| silence.is_receiver(now, node))
    }

    /// Makes a newer plan if a report says that nodes are slow, and it is worth it.
    fn judge(
        &mut self,
        input: PlanningInput<'_>,
        now: Moment,
        node: NodeIx,
        delivered: &[SenderDelivery],
    ) -> bool {
        let heeds_speed = input.terms.options().scheduler != Scheduler::Uniform
            && delivered.iter().all(|it| NodeIx(it.index).at() < input.peers.len());
        let block_bytes = input.roster.grid.block_bytes();
        let is_moving = |node: NodeIx| input.peers[node.at()].stage == PeerStage::Moving;
        let declared = |node: NodeIx| {
            input.roster.bytes_per_second(node, input.peers[node.at()].advert().as_ref())
        };
        if !heeds_speed
            || !self.feedback.report(now, node, delivered, block_bytes, is_moving, declared)
        {
            return false;
        }
        self.plan_anew(input, false)
    }

    /// Hands what lost relays pass on over to others: those whose sessions have ended, and those
    /// that `is_silent`, unless most of them are. Returns true if it made a newer plan for that.
    fn relieve(
        &mut self,
        input: PlanningInput<'_>,
        now: Moment,
        is_silent: impl Fn(NodeIx) -> bool,
    ) -> bool {
        if self.looked.is_some_and(|looked| now.since(looked) < LOOK_EVERY) {
            return false;
        }
        self.looked = Some(now);
        let stage = |node: &NodeIx| input.peers[node.at()].stage;
        let all: Vec<NodeIx> = self.current.relaying().collect();
        let new = all.iter().filter(|node| !self.lost.contains(node));
        let (gone, others): (Vec<NodeIx>, Vec<NodeIx>) =
            new.partition(|node| stage(node) == PeerStage::Gone);
        let is_silent = |node: &NodeIx| stage(node) == PeerStage::Moving && is_silent(*node);
        let silent: Vec<NodeIx> = others.into_iter().filter(is_silent).collect();
        let is_believed = 2 * silent.len() <= all.len();
        let before = self.lost.len();
        self.lost.extend(gone.into_iter().chain(silent.into_iter().filter(|_| is_believed)));
        let is_due = self.lost.len() > before && self.feedback.may_plan_anew();
        is_due && self.plan_anew(input, true)
    }

    /// Makes a newer plan of what is left, and puts it in force if it is better, or if it is
    /// `forced`: then it need not be. Returns true if it did.
    fn plan_anew(&mut self, input: PlanningInput<'_>, forced: bool) -> bool {
        let mut problem = input.roster.problem(&input.adverts());
        self.feedback.apply(&mut problem);
        for node in &self.lost {
            problem.nodes[node.at()].relays = false;
        }
        let (slow, lost) = (self.feedback.slow(), self.lost.iter().copied());
        let avoided: Vec<NodeIx> = slow.iter().copied().chain(lost.clone()).collect();
        let context = context(input, &self.resuming, &self.modes);
        let old = self.current.plan().expect("bytes move by a plan");
        let left = self.current.left(context, old, &self.feedback);
        // Keep the current plan if no new one can be made now.
        let Ok(new) = plan::replan(&problem, old, &avoided, &left) else {
            return false;
        };
        let rest = plan::rest(&new.planned, &left);
        let old_rest = plan::rest(&old.planned, &left);
        let is_worth = forced || self.feedback.is_worth(&problem, &old_rest, &rest);
        if !is_worth && !self.feedback.is_outrun() {
            return false;
        }
        let seconds = plan::receiver_seconds(&problem, &rest);
        let is_replaced = self.current.replace(context, new, &rest, &seconds);
        if is_replaced {
            self.feedback.begin(&rest, &seconds);
            let (seconds, lost) = (seconds.into_iter().fold(0.0, f64::max), lost.collect());
            self.made.push(MadePlan { seconds, slow, lost });
        }
        is_replaced
    }

    /// Returns the plan in force, once there is one.
    pub(super) fn plan(&self) -> Option<&Plan> {
        self.current.plan()
    }

    /// Returns the plans so far. Further parts of groups are no plans.
    pub(super) fn made(&self) -> &[MadePlan] {
        &self.made
    }

    /// Adds a plan to those so far.
    #[cfg(test)]
    pub(super) fn add_made(&mut self, made: MadePlan) {
        self.made.push(made);
    }

    /// Returns the number of plans so far. Further parts of groups are no plans.
    pub(super) fn plan_count(&self) -> u32 {
        self.feedback.plan_count()
    }

    /// Returns a receiver's part of the plan.
    ///
    /// # Panics
    /// If there is no plan yet.
    pub(super) fn start_of(&self, input: PlanningInput<'_>, node: NodeIx) -> Start {
        let plan = self.current.plan().expect("made before anybody starts");
        self.current.start_of(context(input, &self.resuming, &self.modes), plan, node)
    }

    /// Returns the bytes of a receiver's part of the plan.
    pub(super) fn bytes_of(&self, node: NodeIx) -> u64 {
        self.current.bytes_of(node)
    }

    /// Returns the bytes that the plan's receivers want, each counted for itself.
    pub(super) fn wanted_bytes(&self) -> Option<u64> {
        self.current.wanted_bytes()
    }

    /// Returns true if other receivers request from this node what it has landed.
    pub(super) fn relays(&self, node: NodeIx) -> bool {
        self.current.relays(node)
    }

    /// Returns the ranges that a receiver was to fetch and did not have at its start.
    pub(super) fn unsettled(&self, input: PlanningInput<'_>, node: NodeIx) -> Vec<Span> {
        self.current.unsettled(context(input, &self.resuming, &self.modes), node)
    }

    /// Adds to the error of a node what is missing there and the node does not know of, by its
    /// statistics: it has none if it had not begun.
    pub(super) fn all_missing(
        &self,
        input: PlanningInput<'_>,
        node: NodeIx,
        mut error: Error,
        stats: Option<&NodeStats>,
    ) -> Error {
        if input.peers[node.at()].stage == PeerStage::Moving {
            error.missing.extend(match stats {
                Some(stats) => self.current.unheard(node, stats.epoch),
                None => self.unsettled(input, node),
            });
            error.missing = union(error.missing);
        }
        error
    }

    /// Returns the lowest possible duration under the limit.
    pub(super) fn limit_seconds(&self, input: PlanningInput<'_>) -> Option<f64> {
        self.current.limit_seconds(context(input, &self.resuming, &self.modes))
    }

    /// Returns the lower bound: for the missing bytes only, if an earlier attempt left some. None
    /// before there is a plan.
    pub(super) fn bound(&self) -> Option<&LowerBound> {
        let plan = self.current.plan()?;
        Some(self.resuming.bound.as_ref().unwrap_or(&plan.bound))
    }

    /// Adds a warning for the user.
    pub(super) fn warn(&mut self, what: String) {
        self.resuming.warnings.push(what);
    }

    /// Returns the warnings, a sentence each.
    pub(super) fn warnings(&self) -> &[String] {
        &self.resuming.warnings
    }
}

fn context<'a>(
    input: PlanningInput<'a>,
    resuming: &'a ResumeState,
    modes: &'a FileModes,
) -> PlanContext<'a> {
    PlanContext { roster: input.roster, terms: input.terms, peers: input.peers, resuming, modes }
}
