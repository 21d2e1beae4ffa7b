//! The greedy scheduler of the CEP paper, section 3.2.
//!
//! A sender spreads its speed over the segments it offers in proportion to their demand; a receiver
//! splits its request for a segment over the senders in proportion to what each set aside for it. A
//! member of a group spreads the speed that its own wants leave it over what its groups want in the
//! same way. Linear in the incidences of senders, segments and receivers, and optimal where a
//! transfer is limited by its senders alone or by its receivers alone.
//!
//! In other cases a sender keeps speed for segments that others could send as well. If the paper's
//! shares do not reach the bound, a number of rounds moves load from busy nodes to idle ones
//! ([`super::balance`]).
//!
//! Speeds are those of the problem: measured speeds bias the plan as the paper intends.

use super::balance::{LinkLimits, NodeSide, limits, part};
use super::demand::PlanDemand;
use super::{PlanProblem, PlannedSegment, Segment, groups};
use crate::core::error::Result;
use crate::core::units::NodeIx;

/// Assigns the parts of groups to their members. `seconds` is the approximate duration, and a
/// duration of `enough` is not shortened.
pub(super) fn deal(
    problem: &PlanProblem,
    segments: &[Segment],
    demand: &PlanDemand,
    seconds: f64,
    enough: f64,
) -> Result<Option<Vec<Segment>>> {
    if demand.choices.is_empty() {
        return Ok(None);
    }
    let side = NodeSide::receiving(problem, demand);
    let spare = side.balance(spare(problem, demand, &side, seconds), enough);
    groups::deal(problem, segments, demand, |choice| {
        let members = demand.choices[choice as usize].members;
        shares(&members.iter().map(|member| spare[member.at()]).collect::<Vec<f64>>())
    })
}

/// Returns the bytes per second that each sender reserves for a byte of demand. A duration of
/// `enough` is not shortened.
pub(super) fn set_aside(problem: &PlanProblem, demand: &PlanDemand, enough: f64) -> Vec<f64> {
    let side = NodeSide::sending(problem, demand);
    side.balance(as_in_the_paper(problem, &side), enough)
}

/// Returns the speed of each sender over the demand for all it offers.
pub(super) fn as_in_the_paper(problem: &PlanProblem, side: &NodeSide) -> Vec<f64> {
    let each = |(speed, bytes): (f64, f64)| if bytes > 0.0 { speed / bytes } else { 0.0 };
    speeds(problem).into_iter().zip(side.touched_bytes()).map(each).collect()
}

/// Weighs the senders of every segment by the reserved speeds.
pub(super) fn weigh(
    problem: &PlanProblem,
    segments: Vec<Segment>,
    set_aside: &[f64],
) -> Vec<PlannedSegment> {
    let limits = limits(problem);
    let weigh_one = |segment: Segment| {
        let weights = shares(
            &segment.senders.iter().map(|sender| set_aside[sender.at()]).collect::<Vec<f64>>(),
        );
        let own =
            if limits.is_empty() { Vec::new() } else { own(problem, &limits, set_aside, &segment) };
        PlannedSegment { weights, own, segment, relays: Vec::new() }
    };
    segments.into_iter().map(weigh_one).collect()
}

/// Returns the sending speed of every node. Nodes that read from one store share its rate in
/// proportion to their own.
fn speeds(problem: &PlanProblem) -> Vec<f64> {
    let mut behind = vec![0.0; problem.stores.len()];
    for node in &problem.nodes {
        if let Some(store) = node.reads {
            behind[store.0 as usize] += node.send_bytes_per_second;
        }
    }
    let through = |store: usize| (problem.stores[store].bytes_per_second / behind[store]).min(1.0);
    let speed = |node: &super::NodeCapacity| {
        node.send_bytes_per_second * node.reads.map_or(1.0, |store| through(store.0 as usize))
    };
    problem.nodes.iter().map(speed).collect()
}

/// Returns the receiving capacity that each node has left for its groups, per byte that they want
/// of it. A node without capacity has a little: the transfer may take longer, and zero could never
/// be raised.
pub(super) fn spare(
    problem: &PlanProblem,
    demand: &PlanDemand,
    side: &NodeSide,
    seconds: f64,
) -> Vec<f64> {
    let wanted = side.touched_bytes();
    let left = |at: usize| {
        let rate = problem.nodes[at].receive_bytes_per_second;
        (rate * seconds - demand.intake.received[at]).max(rate * seconds * LITTLE)
            / f64::max(wanted[at], 1.0)
    };
    (0..problem.nodes.len()).map(left).collect()
}

/// Part of a node's rate that is nearly zero.
const LITTLE: f64 = 1e-9;

/// Returns the weights of receivers that have limited links: no link is asked for more than it
/// carries.
fn own(
    problem: &PlanProblem,
    limits: &LinkLimits,
    set_aside: &[f64],
    segment: &Segment,
) -> Vec<(NodeIx, Vec<f64>)> {
    let mut own = Vec::new();
    for receiver in segment.remote_receivers() {
        if limits.range((receiver, NodeIx(0))..=(receiver, NodeIx(u32::MAX))).next().is_none() {
            continue;
        }
        let amount =
            |sender: &NodeIx| set_aside[sender.at()] * part(problem, limits, *sender, receiver);
        own.push((receiver, shares(&segment.senders.iter().map(amount).collect::<Vec<f64>>())));
    }
    own
}

/// Scales `amounts` to sum to 1; amounts that are all zero share equally.
pub(super) fn shares(amounts: &[f64]) -> Vec<f64> {
    let sum: f64 = amounts.iter().sum();
    if sum > 0.0 {
        amounts.iter().map(|amount| amount / sum).collect()
    } else {
        vec![1.0 / amounts.len() as f64; amounts.len()]
    }
}
