//! Properties of the dealing of groups.

use proptest::prelude::*;

use super::*;
use crate::core::options::Scheduler;
use crate::core::plan::{GroupIx, NodeCapacity, plan};
use crate::core::units::union;

const BLOCK: u64 = 100;

/// A group of nodes 2, 3 and 4 that wants `span`. Node 0 has it, and node 1 the first part of it.
fn problem(span: Span, cut: u64) -> PlanProblem {
    let node = |name: u32| NodeCapacity {
        name: format!("n{name}:1"),
        send_bytes_per_second: 1e6,
        receive_bytes_per_second: 1e6 * f64::from(name + 1),
        ..NodeCapacity::default()
    };
    PlanProblem {
        nodes: (0..5).map(node).collect(),
        offers: vec![(NodeIx(0), span), (NodeIx(1), Span::new(span.start, cut))],
        group_wants: (2..5).map(|node| (GroupIx(0), NodeIx(node), span)).collect(),
        grid: (0, BLOCK),
        ..PlanProblem::default()
    }
}

fn rest_of(problem: &PlanProblem, holes: &[Span]) -> GroupRest {
    let mut planned = plan(problem, Scheduler::Greedy).expect("a plan").planned;
    let mut rests = GroupRest::take_from(problem, &mut planned, holes).expect("a plan");
    assert!(planned.is_empty() && rests.len() == 1, "{planned:?} {rests:?}");
    rests.remove(0)
}

/// Pairs of neighbouring cuts, ascending and apart.
fn spans_of(mut cuts: Vec<u64>) -> Vec<Span> {
    cuts.sort_unstable();
    cuts.dedup();
    cuts.chunks_exact(2).map(|ends| Span::new(ends[0], ends[1])).collect()
}

#[test]
fn what_others_want_as_well_is_dealt_by_the_plan() {
    let span = Span::new(0, 3000);
    let mut problem = problem(span, 1000);
    problem.wants.push((NodeIx(1), Span::new(2000, 3000)));
    let mut planned = plan(&problem, Scheduler::Greedy).expect("a plan").planned;
    let rests = GroupRest::take_from(&problem, &mut planned, &[]).expect("a plan");
    let stays = union(planned.iter().map(|planned| planned.segment.span).collect());
    assert_eq!(stays, [Span::new(2000, 3000)]);
    assert_eq!(union(rests[0].spans().collect()), [Span::new(0, 2000)]);
}

#[test]
fn a_member_gets_what_the_plan_meant_for_it_and_then_what_the_others_lack() {
    let mut rest = rest_of(&problem(Span::new(0, 6000), 1), &[]);
    let member = NodeIx(4);
    let target = rest.target_bytes(member);
    let first = rest.take(member, target as f64);
    let own: u64 = first.iter().map(|part| part.segment.span.bytes()).sum();
    assert!(own.abs_diff(target) <= BLOCK, "{own} of {target}");
    let before = [2, 3].map(|node| rest.target_bytes(NodeIx(node)));
    while rest.target_bytes(member) > 0 {
        rest.take(member, BLOCK as f64);
    }
    rest.take(member, 5.0 * BLOCK as f64);
    let after = [2, 3].map(|node| rest.target_bytes(NodeIx(node)));
    assert!(before[1] >= before[0] && before[1] == after[1] + 5 * BLOCK, "{before:?} {after:?}");
}

#[test]
fn zeros_cost_nothing() {
    let hole = Span::new(500, 1_000_000);
    let mut rest = rest_of(&problem(Span::new(0, 1_000_500), 1), &[hole]);
    assert_eq!(rest.data_bytes(), 1000);
    let mut turns = 0;
    while !rest.is_empty() {
        rest.take(NodeIx(2 + turns % 3), BLOCK as f64);
        turns += 1;
    }
    assert!(turns <= 14, "{turns} turns");
}

proptest! {
    /// Whatever is asked for, in whichever order: every byte gets one owner, parts begin and end on
    /// the grid or where rows do, and senders offer them.
    #[test]
    fn every_byte_is_dealt_once(
        start in 0u64..250, bytes in 1u64..9000, cut in 0u64..9000,
        cuts in proptest::collection::vec(0u64..9500, 0..10),
        kept in proptest::collection::vec(proptest::collection::vec(0u64..9500, 0..8), 3),
        turns in proptest::collection::vec((2u32..5, 0.0f64..2500.0), 0..60),
    ) {
        let span = Span::of(start, bytes);
        let cut = start + 1 + cut % bytes;
        let problem = problem(span, cut);
        let mut rest = rest_of(&problem, &spans_of(cuts));
        let mut parts = Vec::new();
        for (node, kept) in (2..5).map(NodeIx).zip(kept) {
            let kept = spans_of(kept);
            let own = rest.take_kept(node, &kept);
            for part in &own {
                prop_assert!(kept.iter().any(|kept| kept.contains(part.segment.span)));
            }
            parts.extend(own);
        }
        for (node, bytes) in turns {
            let before = rest.data_bytes();
            let dealt = rest.take(NodeIx(node), bytes);
            prop_assert!(!dealt.is_empty() || rest.is_empty());
            prop_assert!(rest.data_bytes() + (bytes as u64) + 9 * BLOCK >= before);
            parts.extend(dealt);
        }
        parts.extend(rest.take_all(&[NodeIx(3)]));
        prop_assert!(rest.is_empty());
        parts.sort_by_key(|part| part.segment.span.start);
        prop_assert!(parts.is_sorted_by(|a, b| a.segment.span.end <= b.segment.span.start));
        prop_assert_eq!(union(parts.iter().map(|part| part.segment.span).collect()), vec![span]);
        for part in &parts {
            let Span { start, end } = part.segment.span;
            let is_end = |at: u64| [span.start, span.end, cut].contains(&at);
            let is_line = |at: u64| at.is_multiple_of(BLOCK) || is_end(at);
            prop_assert!(is_line(start) && is_line(end), "{}", part.segment.span);
            prop_assert_eq!(part.segment.receivers.len(), 1);
            let senders = part.segment.senders.iter().map(|it| it.0);
            let offered = if end <= cut { vec![0, 1] } else { vec![0] };
            prop_assert!(senders.eq(offered));
        }
    }
}
