//! Planning at the master: the first plan once all nodes are prepared, messages to every receiver,
//! and newer plans if nodes are slower than their adverts say.

use super::coordinator::Coordinator;
use super::current_plan::PlanContext;
use super::peer::{PeerRecord, PeerStage, SentMessage};
use super::phase::TransferPhase;
use super::resume::keeps;
use super::speed_feedback::SpeedFeedback;
use crate::core::error::Error;
use crate::core::options::Scheduler;
use crate::core::plan;
use crate::core::plan::{LowerBound, PlanProblem};
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::control::{NodeAdvert, SenderDelivery};

impl Coordinator {
    /// Makes the plan and sends every receiver its part.
    pub(super) fn start(&mut self, now: Moment) -> Result<(), Error> {
        // A node that overwrites another node's file may leave it half done.
        let unkept = self.roster.check_shared(|node, row| self.peers[node].shares(row))?;
        self.resuming.forget(unkept);
        let adverts: Vec<Option<NodeAdvert>> = self.peers.iter().map(PeerRecord::advert).collect();
        let problem = self.roster.problem(&adverts);
        self.decide_kept_ranges(&problem);
        let plan = plan::plan(&problem, self.terms.options().scheduler)?;
        self.landings.begin(plan.planned.len());
        self.feedback.begin(&plan.planned, &plan.receiver_seconds(&problem));
        let mut current = std::mem::take(&mut self.current);
        let begun = current.begin(self.plan_context(), plan, &problem);
        self.current = current;
        begun?;
        for node in self.peers.indices() {
            if self.roster.get(node).receives() {
                self.peers[node].stage = PeerStage::Moving;
                self.peers.send(node, SentMessage::Start);
            }
        }
        self.phase = TransferPhase::Moving;
        self.deadlines.phase = None;
        self.deadlines.last_news = now;
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
            self.phase == TransferPhase::Moving && self.peers[node].stage == PeerStage::Moving;
        let heeds_speed = self.terms.options().scheduler != Scheduler::Uniform;
        let block_bytes = self.roster.grid.block_bytes();
        if !is_moving || !heeds_speed || !self.feedback.report(now, node, delivered, block_bytes) {
            return;
        }
        let adverts: Vec<Option<NodeAdvert>> = self.peers.iter().map(PeerRecord::advert).collect();
        let mut problem = self.roster.problem(&adverts);
        self.feedback.apply(&mut problem);
        let old = self.current.plan().expect("bytes move by a plan");
        let left = self.current.left(self.plan_context(), old, &self.feedback);
        // Keep the current plan if no new one can be made now.
        let Ok(new) = plan::replan(&problem, old, &self.feedback.slow(), &left) else { return };
        let rest = plan::rest(&new.planned, &left);
        if !SpeedFeedback::is_worth(&problem, &plan::rest(&old.planned, &left), &rest) {
            return;
        }
        let seconds = plan::receiver_seconds(&problem, &rest);
        let mut current = std::mem::take(&mut self.current);
        let is_replaced = current.replace(self.plan_context(), new, &rest, seconds.clone());
        self.current = current;
        if !is_replaced {
            return;
        }
        self.feedback.begin(&rest, &seconds);
        for node in self.peers.indices() {
            let stage = self.peers[node].stage;
            if stage == PeerStage::Moving || (stage == PeerStage::Landed && self.relays(node)) {
                self.peers.send(node, SentMessage::Start);
            }
        }
    }

    /// Returns what a receiver's part of the plan is made of, beside the plan.
    pub(super) fn plan_context(&self) -> PlanContext<'_> {
        PlanContext {
            roster: &self.roster,
            terms: &self.terms,
            peers: &self.peers,
            resuming: &self.resuming,
            modes: &self.modes,
        }
    }

    /// Returns the ranges that a receiver was to fetch and did not have at its start.
    pub(super) fn unsettled(&self, node: NodeIx) -> Vec<Span> {
        self.current.unsettled(self.plan_context(), node)
    }

    /// Returns the lowest possible duration under the limit.
    pub(super) fn limit_seconds(&self) -> Option<f64> {
        self.current.limit_seconds(self.plan_context())
    }

    /// Decides, before planning, which ranges of an earlier attempt are still valid.
    pub(super) fn decide_kept_ranges(&mut self, problem: &PlanProblem) {
        self.resuming.decide(&self.roster);
        self.modes.decide(&self.roster);
        if !self.resuming.kept.is_empty() {
            self.resuming.bound = self.resuming.bound(problem);
        }
    }

    /// Returns the lower bound: for the missing bytes only, if an earlier attempt left some.
    pub(crate) fn bound(&self) -> Option<&LowerBound> {
        self.resuming.bound.as_ref().or(self.current.plan().map(|plan| &plan.bound))
    }

    /// Adds a warning for the user.
    pub(crate) fn warn(&mut self, what: String) {
        self.resuming.warnings.push(what);
    }

    /// Returns the warnings, a sentence each.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.resuming.warnings
    }

    /// Returns true if some receiver keeps what has landed, so that another attempt can continue.
    pub(crate) fn is_resumable(&self) -> bool {
        self.terms.options().resume
            && !self.replicas.differ
            && self.landed_bytes() > 0
            && self.roster.entries.iter().any(keeps)
    }
}
