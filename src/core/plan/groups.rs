//! Assignment of reader groups: the member that receives each part (the CEP paper's "which node
//! should receive it").
//!
//! A scheduler gives each member's share of a choice; this module cuts the ranges. Cuts lie on the
//! block grid, so that the transfer's pieces stay the same. A member that loses bytes to rounding
//! in one segment gets them in a later one.

use std::collections::BTreeMap;

use super::demand::PlanDemand;
use super::segments::INCIDENCES_MAX;
use super::{PlanProblem, Segment};
use crate::core::error::{Code, Error, Result};
use crate::core::units::{NodeIx, Span};

/// Assigns the parts of every segment that groups want to members, by each member's part of the
/// `shares`. The resulting segments are wanted by receivers only. Returns `None` if no group wants
/// anything: the segments are unchanged.
pub(super) fn deal(
    problem: &PlanProblem,
    segments: &[Segment],
    demand: &PlanDemand,
    shares: impl Fn(u32) -> Vec<f64>,
) -> Result<Option<Vec<Segment>>> {
    if demand.choices.is_empty() {
        return Ok(None);
    }
    let shares: Vec<Vec<f64>> =
        (0..).zip(&demand.choices).map(|(choice, _)| shares(choice)).collect();
    let mut due: BTreeMap<NodeIx, f64> = BTreeMap::new();
    let (mut dealt, mut incidences) = (Vec::with_capacity(segments.len()), 0);
    for (place, segment) in segments.iter().enumerate() {
        let mut parts = vec![(segment.span, segment.receivers.clone())];
        for (members, choice) in segment.groups.iter().zip(demand.choices_of(place)) {
            for (member, share) in members.iter().zip(&shares[choice as usize]) {
                *due.entry(*member).or_insert(0.0) += share * segment.span.bytes() as f64;
            }
            parts = hand_out(parts, &cut(problem.grid, segment.span, members, &mut due));
        }
        for (span, receivers) in parts {
            incidences += segment.senders.len() + receivers.len();
            dealt.push(Segment {
                span,
                senders: segment.senders.clone(),
                receivers,
                groups: Vec::new(),
            });
        }
        if incidences > INCIDENCES_MAX {
            let what = format!(
                "groups have too many members for one plan: dealt out up to byte {}, its list of \
                 senders and receivers passes {INCIDENCES_MAX} entries",
                segment.span.end
            );
            return Err(Error::new(Code::Usage, what)
                .remedy("make the groups smaller, or option block larger"));
        }
    }
    Ok(Some(dealt))
}

/// Cuts a segment into consecutive parts for members by the bytes due to each, and subtracts them
/// from the due bytes.
pub(super) fn cut(
    grid: (u64, u64),
    span: Span,
    members: &[NodeIx],
    due: &mut BTreeMap<NodeIx, f64>,
) -> Vec<(Span, NodeIx)> {
    let mut parts: Vec<(Span, NodeIx)> = Vec::new();
    let mut start = span.start;
    let mut reach = span.start as f64;
    for &member in members {
        let mine = due.get_mut(&member).expect("every member was given its share");
        reach += mine.max(0.0);
        let end = line(grid, reach).clamp(start, span.end);
        if end > start {
            parts.push((Span::new(start, end), member));
            *mine -= (end - start) as f64;
            start = end;
        }
    }
    if start < span.end {
        // The last member has less than a block left, or no member is due a whole block: one member
        // takes the remainder.
        let most = |a: &&NodeIx, b: &&NodeIx| due[a].total_cmp(&due[b]);
        let taker = *members.iter().max_by(most).expect("a group has members");
        *due.get_mut(&taker).expect("every member was given its share") -=
            (span.end - start) as f64;
        match parts.last_mut().filter(|(_, last)| *last == taker) {
            Some((part, _)) => part.end = span.end,
            None => parts.push((Span::new(start, span.end), taker)),
        }
    }
    parts
}

/// Returns the grid line nearest to a position.
fn line((origin, block): (u64, u64), position: f64) -> u64 {
    if block == 0 {
        return position.round() as u64;
    }
    let blocks = ((position - origin as f64) / block as f64).round().max(0.0) as u64;
    origin.saturating_add(blocks.saturating_mul(block))
}

/// Adds the takers of consecutive `takes` to the receivers of consecutive `parts` of the same span.
fn hand_out(parts: Vec<(Span, Vec<NodeIx>)>, takes: &[(Span, NodeIx)]) -> Vec<(Span, Vec<NodeIx>)> {
    let mut finer = Vec::with_capacity(parts.len() + takes.len());
    let mut at = 0;
    for (span, receivers) in parts {
        at += takes[at..].iter().take_while(|(take, _)| take.end <= span.start).count();
        for (take, taker) in takes[at..].iter().take_while(|(take, _)| take.start < span.end) {
            let common = take
                .intersection(span)
                .expect("the take begins before the part ends and ends after it begins");
            let mut receivers = receivers.clone();
            if let Err(place) = receivers.binary_search(taker) {
                receivers.insert(place, *taker);
            }
            finer.push((common, receivers));
        }
    }
    finer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(bytes: &[f64]) -> BTreeMap<NodeIx, f64> {
        (0..).map(NodeIx).zip(bytes.iter().copied()).collect()
    }

    #[test]
    fn parts_are_consecutive_and_end_on_the_grid() {
        let members = [NodeIx(0), NodeIx(1), NodeIx(2)];
        let mut owed = due(&[250.0, 260.0, 490.0]);
        let parts = cut((0, 100), Span::new(0, 1000), &members, &mut owed);
        let ends: Vec<(u64, u64, u32)> =
            parts.iter().map(|(span, node)| (span.start, span.end, node.0)).collect();
        assert_eq!(ends, [(0, 300, 0), (300, 500, 1), (500, 1000, 2)]);
        assert_eq!(owed.values().copied().collect::<Vec<f64>>(), [-50.0, 60.0, -10.0]);
    }

    #[test]
    fn segments_smaller_than_a_block_go_round() {
        let members = [NodeIx(0), NodeIx(1)];
        let mut owed = due(&[0.0, 0.0]);
        let mut takers = Vec::new();
        for start in [0, 10, 20, 30] {
            owed.values_mut().for_each(|owed| *owed += 5.0);
            takers.extend(
                cut((0, 100), Span::of(start, 10), &members, &mut owed)
                    .iter()
                    .map(|(_, node)| node.0),
            );
        }
        takers.sort_unstable();
        assert_eq!(takers, [0, 0, 1, 1]);
    }

    #[test]
    fn two_groups_cut_a_segment_finer() {
        let parts = vec![(Span::new(0, 100), vec![NodeIx(9)])];
        let parts =
            hand_out(parts, &[(Span::new(0, 40), NodeIx(1)), (Span::new(40, 100), NodeIx(2))]);
        let parts =
            hand_out(parts, &[(Span::new(0, 70), NodeIx(3)), (Span::new(70, 100), NodeIx(1))]);
        let facts: Vec<(u64, Vec<u32>)> = parts
            .iter()
            .map(|(span, nodes)| (span.end, nodes.iter().map(|node| node.0).collect()))
            .collect();
        assert_eq!(facts, [(40, vec![1, 3, 9]), (70, vec![2, 3, 9]), (100, vec![1, 2, 9])]);
    }
}
