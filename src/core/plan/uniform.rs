//! Equal striping regardless of speed, as striped `GridFTP` does: the baseline of the CEP paper's
//! Figures 6 and 7.
//!
//! Every receiver asks every sender of a segment for an equal part, and the members of a group take
//! equal parts.

use super::demand::PlanDemand;
use super::{PlanProblem, PlannedSegment, Segment, groups};
use crate::core::error::Result;

/// Assigns the parts of groups to their members.
pub(super) fn deal(
    problem: &PlanProblem,
    segments: &[Segment],
    demand: &PlanDemand,
) -> Result<Option<Vec<Segment>>> {
    groups::deal(problem, segments, demand, |choice| {
        equal(demand.choices[choice as usize].members.len())
    })
}

/// Weighs the senders of every segment.
pub(super) fn weigh(segments: Vec<Segment>) -> Vec<PlannedSegment> {
    let weigh_one = |segment: Segment| {
        let weights = equal(segment.senders.len());
        PlannedSegment { segment, weights, own: Vec::new(), relays: Vec::new() }
    };
    segments.into_iter().map(weigh_one).collect()
}

fn equal(count: usize) -> Vec<f64> {
    vec![1.0 / count as f64; count]
}
