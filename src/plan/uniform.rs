//! Equal striping with no regard to speed, as striped `GridFTP` does: the baseline of the CEP paper's Figures 6 and 7.
//!
//! Every receiver asks every sender of a segment for an equal part, and the members of a group take equal parts.

use super::demand::Demand;
use super::{Planned, Problem, Segment, groups};
use crate::error::Result;

pub(super) fn weigh(problem: &Problem, segments: &[Segment], demand: &Demand) -> Result<Vec<Planned>> {
    let equal = |count: usize| vec![1.0 / count as f64; count];
    let segments =
        groups::deal(problem, segments, demand, |choice| equal(demand.choices[choice as usize].members.len()))?;
    let weigh_one = |segment: Segment| Planned { weights: equal(segment.senders.len()), own: Vec::new(), segment };
    Ok(segments.into_iter().map(weigh_one).collect())
}
