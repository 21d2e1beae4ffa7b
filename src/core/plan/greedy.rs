//! The greedy scheduler of the CEP paper, section 3.2.
//!
//! A sender spreads its speed over the segments it offers in proportion to their demand; a receiver
//! splits its request for a segment over the senders in proportion to what each set aside for it. A
//! member of a group spreads the speed that its own wants leave it over what its groups want in the
//! same way. Linear in the incidences of senders, segments and receivers, and optimal where a
//! transfer is limited by its senders alone or by its receivers alone.
//!
//! Elsewhere a sender keeps speed for segments that others could bring as well. Where the paper's
//! shares do not reach the bound, some rounds move load from busy nodes to idle ones
//! ([`super::balance`]).
//!
//! Speeds are what the problem says: measured ones bias the plan as the paper means it.

use super::balance::{LinkLimits, NodeSide, limits, part};
use super::demand::PlanDemand;
use super::{PlanProblem, PlannedSegment, Segment, groups};
use crate::core::error::Result;
use crate::core::units::NodeIx;

/// Gives the parts of groups to their members. `seconds` is about how long the whole takes, and
/// `enough` what is not worth shortening.
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

/// What each sender sets aside for a byte of demand, in bytes per second. Seconds that are `enough`
/// are not worth shortening.
pub(super) fn set_aside(problem: &PlanProblem, demand: &PlanDemand, enough: f64) -> Vec<f64> {
    let side = NodeSide::sending(problem, demand);
    side.balance(as_in_the_paper(problem, &side), enough)
}

/// The speed of each sender over the demand for all it offers.
pub(super) fn as_in_the_paper(problem: &PlanProblem, side: &NodeSide) -> Vec<f64> {
    let each = |(speed, bytes): (f64, f64)| if bytes > 0.0 { speed / bytes } else { 0.0 };
    speeds(problem).into_iter().zip(side.touched_bytes()).map(each).collect()
}

/// Gives every segment's senders their weights, by what each sets aside.
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

/// How fast every node can send; those that read from one store share its rate by their own.
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

/// What each node has left to receive for its groups, for a byte that they want of it; a little
/// where it has nothing, for the whole may take longer, and what is nothing cannot be raised.
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

/// The part of a node's rate that is next to nothing.
const LITTLE: f64 = 1e-9;

/// The weights of receivers that have links with limits: no more is asked over a link than it
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
