//! The schedule: rows and speeds in, plan out. Pure; nothing here moves a byte or asks a clock.
//!
//! ```text
//! rows ─▶ check ─▶ segments ─▶ demand ─▶ floor ──────┐
//!                                 │                  ▼
//!                                 └─▶ greedy (balance), uniform, or lp (network, maxflow) ─▶ groups ─▶ load ─▶ Plan
//! ```
//!
//! Where receivers want the same bytes and keep them, a second plan has them feed each other
//! ([`relay`]); the faster one is taken.
//!
//! The data space is cut at every row boundary into segments ([`segments`]); for the scheduler,
//! segments with the same senders are one demand ([`demand`]). A scheduler gives each segment's
//! senders weights, and decides which member of a reader group takes which part. Every plan comes
//! with its predicted time ([`load`]) and with what no schedule can beat, and who sets it
//! ([`bound`]). Weights are soft limits: the engine treats them as order and share, and lets idle
//! links take what others leave.

mod balance;
pub(crate) mod bound;
mod check;
mod demand;
mod greedy;
mod groups;
mod intake;
mod load;
mod lp;
mod maxflow;
mod network;
#[cfg(test)]
mod oracle_tests;
mod receivers;
mod relay;
mod segments;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::BTreeMap;

use crate::core::error::Result;
use crate::core::units::{NodeIx, Span, union};

pub(crate) use bound::LowerBound;
use demand::PlanDemand;
use intake::PlanIntake;
pub(crate) use receivers::ByReceiver;
pub(crate) use segments::Segment;

/// Who decides which sender serves what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheduler {
    /// Greedy where its plan is the best there is, or where the best would take long to find; else
    /// the best. The plan says which of the two it was.
    #[default]
    Auto,
    /// In proportion to demand and speed, and then balanced: the CEP paper's greedy algorithm
    /// (section 3.2), and some rounds that move load from busy nodes to idle ones. Linear in the
    /// size of the plan.
    Greedy,
    /// The exact optimum of the paper's linear program, by parametric maximum flow.
    Lp,
    /// Equal stripes with no regard to speed, as striped `GridFTP` does: a baseline to compare
    /// with.
    Uniform,
}

impl Scheduler {
    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scheduler::Auto => "auto",
            Scheduler::Greedy => "greedy",
            Scheduler::Lp => "lp",
            Scheduler::Uniform => "uniform",
        }
    }
}

/// What a plan is made from: who can send and receive how fast, who offers what, and who wants
/// what.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlanProblem {
    /// The nodes, in the order of their index.
    pub(crate) nodes: Vec<NodeCapacity>,
    /// A range that a node offers, one entry a sender row.
    pub(crate) offers: Vec<(NodeIx, Span)>,
    /// A range that a node wants, one entry a receiver row without a group.
    pub(crate) wants: Vec<(NodeIx, Span)>,
    /// A range that a node wants as a member of a group: the members together want each byte once.
    pub(crate) group_wants: Vec<(GroupIx, NodeIx, Span)>,
    /// What several nodes read from or write to together.
    pub(crate) stores: Vec<StoreCapacity>,
    /// What is known to pass between two nodes, where that is less than what either can.
    pub(crate) pairs: Vec<PairLimit>,
    /// Where the block grid starts, and the bytes of one cell; 0 for no grid. Parts of a group are
    /// cut on it.
    pub(crate) grid: (u64, u64),
}

/// A reader group: its index in order of first mention.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct GroupIx(pub(crate) u32);

/// A store: its index in [`Problem::stores`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StoreIx(pub(crate) u32);

/// How fast a node can send and receive, in payload bytes per second.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeCapacity {
    /// `host:port`, for messages and the bottleneck's name.
    pub(crate) name: String,
    /// The line of its first row, for messages; 0 where rows are no lines of a file.
    pub(crate) line: u32,
    /// Sending capacity `C_i`: the sum over the node's rails.
    pub(crate) send_bytes_per_second: f64,
    /// Receiving capacity `B_j`: the sum over the node's rails.
    pub(crate) receive_bytes_per_second: f64,
    /// Whether it keeps what it receives, so that it can pass it on to others.
    pub(crate) relays: bool,
    /// The store that all it offers is read from.
    pub(crate) reads: Option<StoreIx>,
    /// The store that all it receives is written to.
    pub(crate) writes: Option<StoreIx>,
}

impl NodeCapacity {
    /// How a message about its rows begins.
    fn place(&self) -> String {
        if self.line == 0 { String::new() } else { format!("line {}: ", self.line) }
    }
}

/// A shared store, such as a parallel file system or one disk behind several nodes. Its rate holds
/// for all that is read and for all that is written, each for itself, like the two directions of a
/// NIC.
#[derive(Clone, Debug)]
pub(crate) struct StoreCapacity {
    pub(crate) name: String,
    pub(crate) bytes_per_second: f64,
}

/// A limit on what one node sends to another, in payload bytes per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairLimit {
    pub(crate) from: NodeIx,
    pub(crate) to: NodeIx,
    pub(crate) bytes_per_second: f64,
}

/// One segment of a plan: the bytes, who wants them, and each sender's share of every receiver's
/// demand.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PlannedSegment {
    pub(crate) segment: Segment,
    /// Weights in the order of `segment.senders`; they sum to 1.
    pub(crate) weights: Vec<f64>,
    /// Receivers whose weights differ, because some of their links have limits of their own;
    /// ascending.
    pub(crate) own: Vec<(NodeIx, Vec<f64>)>,
    /// Receivers that another receiver passes it on to, each with that other one; ascending. They
    /// ask the senders only when that one fails them.
    pub(crate) relays: Vec<(NodeIx, NodeIx)>,
}

/// Senders with their weights, and the receivers that ask them.
pub(crate) type SenderWeights = (Vec<(NodeIx, f64)>, Vec<NodeIx>);

impl PlannedSegment {
    /// Who sends this segment to `receiver`, with which weight. A node that offers what it wants
    /// copies it inside.
    pub(crate) fn senders_for(&self, receiver: NodeIx) -> Vec<(NodeIx, f64)> {
        if self.segment.senders.binary_search(&receiver).is_ok() {
            return vec![(receiver, 1.0)];
        }
        if let Some(relay) = self.relay_of(receiver) {
            let senders = self.segment.senders.iter().map(|sender| (*sender, 0.0));
            return std::iter::once((relay, 1.0)).chain(senders).collect();
        }
        let weights = self.weights_for(receiver);
        self.segment.senders.iter().copied().zip(weights.iter().copied()).collect()
    }

    /// Who passes this segment on to `receiver`, where it does not come from the senders.
    pub(crate) fn relay_of(&self, receiver: NodeIx) -> Option<NodeIx> {
        let at = self.relays.binary_search_by_key(&receiver, |(asks, _)| *asks).ok()?;
        Some(self.relays[at].1)
    }

    /// Receivers that ask the same senders with the same weights, together.
    pub(crate) fn by_senders(&self) -> Vec<SenderWeights> {
        let mut told: Vec<SenderWeights> = Vec::new();
        let remote: Vec<NodeIx> = self.segment.remote_receivers().collect();
        let alike = |a: NodeIx, b: NodeIx| {
            let are_remote = [a, b].iter().all(|node| remote.binary_search(node).is_ok());
            are_remote && self.own.is_empty() && self.relay_of(a) == self.relay_of(b)
        };
        for &receiver in &self.segment.receivers {
            match told.iter_mut().find(|(_, receivers)| alike(receivers[0], receiver)) {
                Some((_, receivers)) => receivers.push(receiver),
                None => told.push((self.senders_for(receiver), vec![receiver])),
            }
        }
        told
    }

    fn weights_for(&self, receiver: NodeIx) -> &[f64] {
        let own = self.own.binary_search_by_key(&receiver, |(node, _)| *node);
        own.map_or(&self.weights, |at| &self.own[at].1)
    }
}

/// All weights, the predicted time, and the lower bound.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    /// Whose weights these are; never `Auto`.
    pub(crate) scheduler: Scheduler,
    /// Ascending and disjoint. What a group wants is cut further than the rows cut it: at each
    /// segment its receivers are those that take it.
    pub(crate) planned: Vec<PlannedSegment>,
    /// What the weights alone would take, without stealing.
    pub(crate) predicted_seconds: f64,
    pub(crate) bound: LowerBound,
}

impl Plan {
    /// When each node has all it wants by these weights, in seconds: slow ones are no reason for
    /// others to be late.
    pub(crate) fn receiver_seconds(&self, problem: &PlanProblem) -> Vec<f64> {
        load::receiver_seconds(problem, &self.planned)
    }

    /// What nodes are asked for by other receivers: ascending, apart from each other.
    pub(crate) fn relayed(&self) -> BTreeMap<NodeIx, Vec<Span>> {
        let mut relayed: BTreeMap<NodeIx, Vec<Span>> = BTreeMap::new();
        for planned in &self.planned {
            let mut relays: Vec<NodeIx> = planned.relays.iter().map(|(_, relay)| *relay).collect();
            relays.sort_unstable();
            relays.dedup();
            relays
                .into_iter()
                .for_each(|relay| relayed.entry(relay).or_default().push(planned.segment.span));
        }
        relayed.into_iter().map(|(node, spans)| (node, union(spans))).collect()
    }

    /// Bytes that receivers want, each counted for itself, and a group's once.
    pub(crate) fn wanted_bytes(&self) -> u64 {
        self.planned
            .iter()
            .map(|PlannedSegment { segment, .. }| {
                segment.span.bytes() * segment.receivers.len() as u64
            })
            .sum()
    }
}

/// A plan is as good as the bound where it takes no longer than this part more.
const TIGHT: f64 = 1e-9;

/// Greedy weights are balanced until the plan takes no longer than this part more than the simple
/// bounds.
const NEAR: f64 = 1e-3;

/// Receivers feed each other where they have all they want, in the mean, within this part of the
/// time without.
const WORTH: f64 = 0.98;

/// The plan for `problem` by `scheduler`.
///
/// # Errors
/// `Code::Usage` where a wanted range is offered by nobody (the error carries the ranges), where a
/// speed is zero or beyond all networks, where rows overlap so much that the plan would not fit
/// into memory, or where `lp` would take too long.
pub(crate) fn plan(problem: &PlanProblem, scheduler: Scheduler) -> Result<Plan> {
    check::check(problem)?;
    let segments = segments::cut(problem)?;
    let Some(split) = relay::split(problem, &segments) else {
        return schedule(problem, segments, None, scheduler);
    };
    let full = PlanDemand::of(problem, &segments);
    let mut once = PlanDemand::of(problem, &split.segments);
    once.intake.clone_from(&full.intake);
    let bound = relay::bound(problem, &full, &once, &segments);
    let intake = full.intake.clone();
    let direct = schedule(problem, segments.clone(), None, scheduler)?;
    // Stripes that heed nothing heed no neighbours either.
    if scheduler == Scheduler::Uniform {
        return Ok(Plan { bound, ..direct });
    }
    let mut relayed = schedule(problem, split.segments.clone(), Some(&intake), scheduler)?;
    split.complete(&mut relayed.planned);
    relayed.predicted_seconds = load::seconds(problem, &relayed.planned);
    // By the mean: a slow receiver that is late in any case is no reason to let the others wait.
    let [by_relays, by_senders] =
        [&relayed, &direct].map(|plan| load::mean_seconds(problem, &plan.planned));
    let is_better =
        by_relays < WORTH * by_senders && relayed.predicted_seconds <= direct.predicted_seconds;
    Ok(Plan { bound, ..if is_better { relayed } else { direct } })
}

/// The segments of a plan, each as long as what is `left` of it: the part that is still wanted, in
/// the mean over its receivers.
pub(crate) fn rest(planned: &[PlannedSegment], left: &[f64]) -> Vec<PlannedSegment> {
    let short = |(planned, left): (&PlannedSegment, &f64)| {
        let mut planned = planned.clone();
        let Span { start, .. } = planned.segment.span;
        // No segment is empty.
        planned.segment.span =
            Span::of(start, ((planned.segment.span.bytes() as f64 * left) as u64).max(1));
        planned
    };
    planned.iter().zip(left).map(short).collect()
}

/// What `plan` becomes where nodes are as fast as `problem` says now, of which `slow` are not to be
/// waited for, and so much is `left` of every segment: other weights and other relays for the same
/// segments.
///
/// # Errors
/// As [`plan`].
pub(crate) fn replan(
    problem: &PlanProblem,
    plan: &Plan,
    slow: &[NodeIx],
    left: &[f64],
) -> Result<Plan> {
    let mut planned = plan.planned.clone();
    relay::hand_over(problem, &mut planned, slow);
    let short = rest(&planned, left);
    let once = |planned: &PlannedSegment| {
        let from_senders = |node: &&NodeIx| planned.relay_of(**node).is_none();
        let receivers = planned.segment.receivers.iter().filter(from_senders).copied().collect();
        Segment { receivers, ..planned.segment.clone() }
    };
    let full: Vec<Segment> = short.iter().map(|planned| planned.segment.clone()).collect();
    let intake = PlanDemand::of(problem, &full).intake;
    let weighed =
        schedule(problem, short.iter().map(once).collect(), Some(&intake), plan.scheduler)?;
    assert_eq!(weighed.planned.len(), planned.len(), "segments without groups stay as they are");
    for (planned, weighed) in planned.iter_mut().zip(weighed.planned) {
        assert_eq!(
            planned.segment.span.start, weighed.segment.span.start,
            "segments without groups stay as they are"
        );
        (planned.weights, planned.own) = (weighed.weights, weighed.own);
    }
    let predicted_seconds = load::seconds(problem, &planned);
    Ok(Plan { scheduler: plan.scheduler, planned, predicted_seconds, bound: plan.bound.clone() })
}

/// When receivers have all they want, in the mean, where nodes are as fast as `problem` says.
pub(crate) fn mean_seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> f64 {
    load::mean_seconds(problem, planned)
}

/// When each receiver has all it wants, where nodes are as fast as `problem` says.
pub(crate) fn receiver_seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> Vec<f64> {
    load::receiver_seconds(problem, planned)
}

/// The plan that takes less time by its weights, of two with one bound; the first one where they
/// take alike.
fn faster(
    problem: &PlanProblem,
    plan: Plan,
    planned: Vec<PlannedSegment>,
    scheduler: Scheduler,
) -> Plan {
    let predicted_seconds = load::seconds(problem, &planned);
    if predicted_seconds < plan.predicted_seconds * (1.0 - TIGHT) {
        return Plan { scheduler, planned, predicted_seconds, bound: plan.bound };
    }
    plan
}

fn segments_of(planned: &[PlannedSegment]) -> Vec<Segment> {
    planned.iter().map(|planned| planned.segment.clone()).collect()
}

/// The plan by which senders alone send; `intake` is what receivers take in, where that is more
/// than the segments say.
fn schedule(
    problem: &PlanProblem,
    segments: Vec<Segment>,
    intake: Option<&PlanIntake>,
    scheduler: Scheduler,
) -> Result<Plan> {
    let mut demand = PlanDemand::of(problem, &segments);
    demand.intake = intake.unwrap_or(&demand.intake).clone();
    let floor = bound::floor(problem, &demand);
    // Where the exact bound is searched for anyway, the plan that attains it costs nothing more.
    let is_exact =
        scheduler == Scheduler::Lp || (scheduler == Scheduler::Auto && lp::is_quick(&demand));
    // Balancing does not see which member's links are slow, as the exact plan does not.
    let is_blind = !problem.pairs.is_empty() && !demand.choices.is_empty();
    let enough = if is_exact || is_blind { f64::INFINITY } else { floor.seconds * (1.0 + NEAR) };
    let (dealt, set_aside) = match scheduler {
        Scheduler::Uniform => (uniform::deal(problem, &segments, &demand)?, Vec::new()),
        Scheduler::Auto | Scheduler::Greedy | Scheduler::Lp => (
            greedy::deal(problem, &segments, &demand, floor.seconds, enough)?,
            greedy::set_aside(problem, &demand, enough),
        ),
    };
    // Most plans end without a second look at the demands, and there may be millions of lists that
    // need not be copied.
    let (dealt, kept) = match dealt {
        None => (segments, None),
        Some(dealt) => (dealt, Some(segments)),
    };
    let planned = match scheduler {
        Scheduler::Uniform => uniform::weigh(dealt),
        Scheduler::Auto | Scheduler::Greedy | Scheduler::Lp => {
            greedy::weigh(problem, dealt, &set_aside)
        }
    };
    let predicted_seconds = load::seconds(problem, &planned);
    let simple = if scheduler == Scheduler::Auto { Scheduler::Greedy } else { scheduler };
    // A simple plan that reaches a simple bound is the best there is, and weighs the senders more
    // evenly than a flow does.
    if predicted_seconds <= floor.seconds * (1.0 + TIGHT) {
        return Ok(Plan { scheduler: simple, planned, predicted_seconds, bound: floor });
    }
    let segments =
        kept.unwrap_or_else(|| planned.iter().map(|planned| planned.segment.clone()).collect());
    let mut demand = PlanDemand::of(problem, &segments);
    demand.intake = intake.unwrap_or(&demand.intake).clone();
    if is_exact {
        let (exact, bound) = lp::plan(problem, &segments, &demand, floor)?;
        let mut best = Plan {
            scheduler: Scheduler::Lp,
            predicted_seconds: load::seconds(problem, &exact),
            planned: exact,
            bound,
        };
        if is_blind {
            // Once it is settled which member takes what, the links of members count.
            for dealt in [&best.planned, &planned].map(|planned| segments_of(planned)) {
                best = faster(problem, best, lp::weights(problem, &dealt, intake)?, Scheduler::Lp);
            }
        }
        return Ok(if scheduler == Scheduler::Auto {
            faster(problem, best, planned, simple)
        } else {
            best
        });
    }
    let bound = lp::bound(problem, &demand, floor);
    Ok(Plan { scheduler: simple, planned, predicted_seconds, bound })
}
