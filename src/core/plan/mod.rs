//! Planner: computes a transfer plan from rows and speeds. Pure: it moves no byte and reads no
//! clock.
//!
//! ```text
//! rows ─▶ check ─▶ segments ─▶ demand ─▶ floor ──────┐
//!                                 │                  ▼
//!                                 └─▶ greedy (balance), uniform, or lp (network, maxflow)
//!                                         ─▶ groups ─▶ load ─▶ Plan
//! ```
//!
//! If receivers want the same bytes and keep them, a second plan is made in which they feed each
//! other ([`relay`]). The faster plan is used.
//!
//! The data space is cut at every row boundary into segments ([`segments`]); for the scheduler,
//! segments with the same senders are one demand ([`demand`]). A scheduler weighs each segment's
//! senders, and assigns the parts of reader groups to members. Every plan comes with its predicted
//! time ([`load`]), and with a lower bound for any schedule and the bottleneck that sets it
//! ([`bound`]). Weights are soft limits: receivers use them as order and share, and let idle links
//! take over work.
//!
//! The parts of a group are targets where speeds are not known: [`GroupRest`] has what no member
//! owns yet, and [`next_part()`] says how much of it a member gets next.

mod balance;
pub(crate) mod bound;
mod check;
mod demand;
mod greedy;
mod group_rest;
mod groups;
mod intake;
mod load;
mod lp;
mod maxflow;
mod network;
mod next_part;
#[cfg(test)]
mod oracle_tests;
mod planned;
mod problem;
mod receivers;
mod relay;
mod segments;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::BTreeMap;

use crate::core::error::Result;
use crate::core::options::Scheduler;
use crate::core::units::{NodeIx, Span, union};

pub(crate) use bound::LowerBound;
use demand::PlanDemand;
pub(crate) use group_rest::GroupRest;
use intake::PlanIntake;
pub(crate) use next_part::{MemberProgress, first_part, next_part};
pub(crate) use planned::{PlannedSegment, SenderWeights};
pub(crate) use problem::{GroupIx, NodeCapacity, PairLimit, PlanProblem, StoreCapacity, StoreIx};
pub(crate) use receivers::ByReceiver;
pub(crate) use segments::Segment;

/// A transfer plan: all weights, the predicted time, and the lower bound.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    /// Algorithm of the weights; never `Auto`.
    pub(crate) scheduler: Scheduler,
    /// Ascending and disjoint. Ranges of groups are cut further than the rows cut them: each
    /// segment's receivers are the members that take it.
    pub(crate) planned: Vec<PlannedSegment>,
    /// Duration by the weights alone, without stealing.
    pub(crate) predicted_seconds: f64,
    pub(crate) bound: LowerBound,
}

impl Plan {
    /// Returns the seconds after which each node has all its bytes, by these weights. A slow node
    /// does not delay others.
    pub(crate) fn receiver_seconds(&self, problem: &PlanProblem) -> Vec<f64> {
        load::receiver_seconds(problem, &self.planned)
    }

    /// Returns the ranges that each relay is asked for: ascending and disjoint.
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

    /// Returns the bytes that receivers want, summed over receivers; those of a group count once.
    pub(crate) fn wanted_bytes(&self) -> u64 {
        self.planned
            .iter()
            .map(|PlannedSegment { segment, .. }| {
                segment.span.bytes() * segment.receivers.len() as u64
            })
            .sum()
    }
}

/// A plan is optimal if it takes no longer than the bound plus this part.
const TIGHT: f64 = 1e-9;

/// Greedy weights are balanced until the plan takes no longer than the simple bounds plus this
/// part.
const NEAR: f64 = 1e-3;

/// Relays are used if receivers have all their bytes, on average, within this part of the time
/// without relays.
const WORTH: f64 = 0.98;

/// Makes the plan for `problem` by `scheduler`.
///
/// # Errors
/// `Code::Usage` if no node offers a wanted range (the error carries the ranges), if a speed is out
/// of range, if rows overlap so much that the plan would not fit into memory, or if `lp` would take
/// too long.
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
    // Uniform stripes ignore speed, and ignore relays as well.
    if scheduler == Scheduler::Uniform {
        return Ok(Plan { bound, ..direct });
    }
    let mut relayed = schedule(problem, split.segments.clone(), Some(&intake), scheduler)?;
    split.complete(&mut relayed.planned);
    relayed.predicted_seconds = load::seconds(problem, &relayed.planned);
    // Compares means: a slow receiver that is late in any case should not delay the others.
    let [by_relays, by_senders] =
        [&relayed, &direct].map(|plan| load::mean_seconds(problem, &plan.planned));
    let is_better =
        by_relays < WORTH * by_senders && relayed.predicted_seconds <= direct.predicted_seconds;
    Ok(Plan { bound, ..if is_better { relayed } else { direct } })
}

/// Returns the segments of a plan, each as long as the part of it that is still wanted, as a mean
/// over its receivers (`left`).
pub(crate) fn rest(planned: &[PlannedSegment], left: &[f64]) -> Vec<PlannedSegment> {
    let short = |(planned, left): (&PlannedSegment, &f64)| {
        let mut planned = planned.clone();
        let Span { start, .. } = planned.segment.span;
        // A segment is never empty.
        planned.segment.span =
            Span::of(start, ((planned.segment.span.bytes() as f64 * left) as u64).max(1));
        planned
    };
    planned.iter().zip(left).map(short).collect()
}

/// Adapts `plan` to the node speeds that `problem` has now. Relays in `slow` are replaced, and
/// `left` is the remaining part of every segment. The segments stay; weights and relays change.
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
    assert_eq!(weighed.planned.len(), planned.len(), "segments without groups are not cut");
    for (planned, weighed) in planned.iter_mut().zip(weighed.planned) {
        assert_eq!(
            planned.segment.span.start, weighed.segment.span.start,
            "segments without groups are not cut"
        );
        (planned.weights, planned.own) = (weighed.weights, weighed.own);
    }
    let predicted_seconds = load::seconds(problem, &planned);
    Ok(Plan { scheduler: plan.scheduler, planned, predicted_seconds, bound: plan.bound.clone() })
}

/// Returns the mean time after which receivers have all their bytes, at the speeds of `problem`.
pub(crate) fn mean_seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> f64 {
    load::mean_seconds(problem, planned)
}

/// Returns the duration by the weights alone, at the speeds of `problem`.
pub(crate) fn predicted_seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> f64 {
    load::seconds(problem, planned)
}

/// Returns the time after which each receiver has all its bytes, at the speeds of `problem`.
pub(crate) fn receiver_seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> Vec<f64> {
    load::receiver_seconds(problem, planned)
}

/// Returns the plan that takes less time by its weights, of two with one bound, or the first one if
/// they take equally long.
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

/// The faster of `exact` and the plans that take the links of group members into account, with the
/// parts of members as either plan has them.
fn with_slow_links(
    problem: &PlanProblem,
    exact: Plan,
    simple: &[PlannedSegment],
    intake: Option<&PlanIntake>,
) -> Result<Plan> {
    let mut best = exact;
    for dealt in [&best.planned[..], simple].map(segments_of) {
        best = faster(problem, best, lp::weights(problem, &dealt, intake)?, Scheduler::Lp);
    }
    Ok(best)
}

/// Makes the plan without relays. `intake` is the bytes that receivers take in, if they are more
/// than those of the segments.
fn schedule(
    problem: &PlanProblem,
    segments: Vec<Segment>,
    intake: Option<&PlanIntake>,
    scheduler: Scheduler,
) -> Result<Plan> {
    let mut demand = PlanDemand::of(problem, &segments);
    demand.intake = intake.unwrap_or(&demand.intake).clone();
    let floor = bound::floor(problem, &demand);
    // If the exact bound is computed anyway, the plan that attains it costs nothing more.
    let is_exact =
        scheduler == Scheduler::Lp || (scheduler == Scheduler::Auto && lp::is_quick(&demand));
    // Neither balancing nor the exact plan takes slow links of group members into account.
    let is_blind = !problem.pairs.is_empty() && !demand.choices.is_empty();
    let enough = if is_exact || is_blind { f64::INFINITY } else { floor.seconds * (1.0 + NEAR) };
    let (dealt, set_aside) = match scheduler {
        Scheduler::Uniform => (uniform::deal(problem, &segments, &demand)?, Vec::new()),
        Scheduler::Auto | Scheduler::Greedy | Scheduler::Lp => (
            greedy::deal(problem, &segments, &demand, floor.seconds, enough)?,
            greedy::set_aside(problem, &demand, enough),
        ),
    };
    // Most plans do not need the demands again, and there may be millions of lists to copy.
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
    // A simple plan that reaches a simple bound is optimal, and weighs senders more evenly than a
    // flow does.
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
            best = with_slow_links(problem, best, &planned, intake)?;
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
