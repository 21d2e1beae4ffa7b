//! Equal striping with no regard to speed, as striped `GridFTP` does: the baseline of the CEP
//! paper's Figures 6 and 7.
//!
//! Every receiver asks every sender of a segment for an equal part, and the members of a group take
//! equal parts.

use super::demand::Demand;
use super::{Planned, Problem, Segment, groups};
use crate::error::Result;

/// Gives the parts of groups to their members.
pub(super) fn deal(
    problem: &Problem,
    segments: &[Segment],
    demand: &Demand,
) -> Result<Option<Vec<Segment>>> {
    groups::deal(problem, segments, demand, |choice| {
        equal(demand.choices[choice as usize].members.len())
    })
}

/// Gives every segment's senders their weights.
pub(super) fn weigh(segments: Vec<Segment>) -> Vec<Planned> {
    let weigh_one = |segment: Segment| {
        let weights = equal(segment.senders.len());
        Planned { segment, weights, own: Vec::new(), relays: Vec::new() }
    };
    segments.into_iter().map(weigh_one).collect()
}

fn equal(count: usize) -> Vec<f64> {
    vec![1.0 / count as f64; count]
}
