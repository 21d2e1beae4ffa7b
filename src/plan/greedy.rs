//! The greedy scheduler of the CEP paper, section 3.2.
//!
//! A sender spreads its speed over the segments it offers in proportion to their demand; a receiver splits its request
//! for a segment over the senders in proportion to what each set aside for it. A member of a group spreads the speed that
//! its own wants leave it over what its groups want in the same way. Linear in the incidences of senders, segments and
//! receivers, and optimal where a transfer is limited by its senders alone or by its receivers alone.
//!
//! Speeds are what the problem says: measured ones bias the plan as the paper means it.

use std::collections::BTreeMap;

use super::demand::Demand;
use super::{Planned, Problem, Segment, groups};
use crate::error::Result;
use crate::units::NodeIx;

/// Gives the parts of groups to their members. `seconds` is about how long the whole takes.
pub(super) fn deal(
    problem: &Problem,
    segments: &[Segment],
    demand: &Demand,
    seconds: f64,
) -> Result<Option<Vec<Segment>>> {
    let spare = spare(problem, demand, seconds);
    groups::deal(problem, segments, demand, |choice| {
        let members = demand.choices[choice as usize].members;
        shares(&members.iter().map(|member| spare[member.at()]).collect::<Vec<f64>>())
    })
}

/// Gives every segment's senders their weights.
pub(super) fn weigh(problem: &Problem, segments: Vec<Segment>) -> Vec<Planned> {
    let set_aside = set_aside(problem, &segments);
    let limits: BTreeMap<(NodeIx, NodeIx), f64> =
        problem.pairs.iter().map(|pair| ((pair.to, pair.from), pair.bytes_per_second)).collect();
    let weigh_one = |segment: Segment| {
        let weights = shares(&segment.senders.iter().map(|sender| set_aside[sender.at()]).collect::<Vec<f64>>());
        let own = if limits.is_empty() { Vec::new() } else { own(problem, &limits, &set_aside, &segment) };
        Planned { weights, own, segment, relays: Vec::new() }
    };
    segments.into_iter().map(weigh_one).collect()
}

/// What each sender sets aside for a byte of demand, in bytes per second: its speed over the demand for all it offers.
fn set_aside(problem: &Problem, segments: &[Segment]) -> Vec<f64> {
    let mut offered_bytes = vec![0.0; problem.nodes.len()];
    for segment in segments {
        let bytes = segment.demand_bytes() as f64;
        for sender in &segment.senders {
            offered_bytes[sender.at()] += bytes;
        }
    }
    let speeds = speeds(problem);
    speeds.iter().zip(offered_bytes).map(|(speed, bytes)| if bytes > 0.0 { speed / bytes } else { 0.0 }).collect()
}

/// How fast every node can send; those that read from one store share its rate by their own.
fn speeds(problem: &Problem) -> Vec<f64> {
    let mut behind = vec![0.0; problem.stores.len()];
    for node in &problem.nodes {
        if let Some(store) = node.reads {
            behind[store.0 as usize] += node.send_bytes_per_second;
        }
    }
    let through = |store: usize| (problem.stores[store].bytes_per_second / behind[store]).min(1.0);
    let speed =
        |node: &super::Capacity| node.send_bytes_per_second * node.reads.map_or(1.0, |store| through(store.0 as usize));
    problem.nodes.iter().map(speed).collect()
}

/// What each node has left to receive for its groups, for a byte that they want of it.
fn spare(problem: &Problem, demand: &Demand, seconds: f64) -> Vec<f64> {
    let mut wanted = vec![0.0; problem.nodes.len()];
    for choice in &demand.choices {
        for member in choice.members {
            wanted[member.at()] += choice.bytes;
        }
    }
    let left = |at: usize| {
        let rate = problem.nodes[at].receive_bytes_per_second;
        (rate * seconds - demand.intake.received[at]).max(0.0) / f64::max(wanted[at], 1.0)
    };
    (0..problem.nodes.len()).map(left).collect()
}

/// The weights of receivers that have links with limits: no more is asked over a link than it carries.
fn own(
    problem: &Problem,
    limits: &BTreeMap<(NodeIx, NodeIx), f64>,
    set_aside: &[f64],
    segment: &Segment,
) -> Vec<(NodeIx, Vec<f64>)> {
    let mut own = Vec::new();
    for receiver in segment.remote_receivers() {
        if limits.range((receiver, NodeIx(0))..=(receiver, NodeIx(u32::MAX))).next().is_none() {
            continue;
        }
        let amount = |sender: &NodeIx| {
            let speed = problem.nodes[sender.at()].send_bytes_per_second;
            let limit = limits.get(&(receiver, *sender)).map_or(1.0, |limit| (limit / speed).min(1.0));
            set_aside[sender.at()] * limit
        };
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
