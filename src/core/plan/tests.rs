//! Plans of problems with known answers, and problems without a plan.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::core::error::Code;
use crate::core::plan::*;

/// Creates nodes that send and receive at these speeds.
pub(super) fn nodes(speeds: &[f64]) -> Vec<NodeCapacity> {
    let node = |(at, &speed): (usize, &f64)| NodeCapacity {
        name: format!("n{at}:1"),
        send_bytes_per_second: speed,
        receive_bytes_per_second: speed,
        ..NodeCapacity::default()
    };
    speeds.iter().enumerate().map(node).collect()
}

pub(super) fn rows(rows: &[(u32, u64, u64)]) -> Vec<(NodeIx, Span)> {
    rows.iter().map(|&(node, start, end)| (NodeIx(node), Span::new(start, end))).collect()
}

fn problem(speeds: &[f64], offers: &[(u32, u64, u64)], wants: &[(u32, u64, u64)]) -> PlanProblem {
    PlanProblem {
        nodes: nodes(speeds),
        offers: rows(offers),
        wants: rows(wants),
        ..PlanProblem::default()
    }
}

fn bound(problem: &PlanProblem) -> LowerBound {
    let plans = [Scheduler::Greedy, Scheduler::Lp, Scheduler::Uniform]
        .map(|scheduler| plan(problem, scheduler).unwrap());
    assert!(plans.iter().all(|plan| plan.bound == plans[0].bound), "one problem, one bound");
    plans[0].bound.clone()
}

fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.max(b)
}

/// Regression: with a slow link to one member of a group, which the exact deal ignores, the
/// discarded greedy plan took a quarter of the time.
#[test]
fn a_pair_limit_that_meets_a_group_does_not_make_auto_slower_than_greedy() {
    let mut problem = problem(&[100.0; 4], &[(0, 0, 10_000), (1, 0, 10_000)], &[]);
    problem.group_wants =
        [2, 3].map(|node| (GroupIx(0), NodeIx(node), Span::new(0, 10_000))).into();
    for (slow, at) in [(10.0, 2), (1.0, 2), (10.0, 3), (50.0, 3)] {
        problem.pairs = vec![PairLimit { from: NodeIx(0), to: NodeIx(at), bytes_per_second: slow }];
        let seconds = |scheduler| plan(&problem, scheduler).unwrap().predicted_seconds;
        let [auto, lp, greedy] = [Scheduler::Auto, Scheduler::Lp, Scheduler::Greedy].map(seconds);
        let bound = plan(&problem, Scheduler::Auto).unwrap().bound.seconds;
        assert!(
            auto <= greedy && auto <= lp,
            "{slow}: auto {auto}, lp {lp}, greedy {greedy}, bound {bound}"
        );
        assert!(
            auto >= bound * (1.0 - 1e-9) && auto <= 2.0 * bound,
            "{slow}: auto {auto}, bound {bound}"
        );
    }
}

#[test]
fn a_slow_receiver_is_the_bottleneck() {
    let bound =
        bound(&problem(&[100.0, 100.0, 10.0], &[(0, 0, 1000), (1, 0, 1000)], &[(2, 0, 1000)]));
    let expected = LowerBound {
        seconds: 100.0,
        bottleneck: "receiver n2:1".into(),
        parts: vec![bound::FullPart::Receiver(NodeIx(2))],
    };
    assert_eq!(bound, expected);
}

#[test]
fn the_only_holder_of_a_range_is_the_bottleneck() {
    let speeds = [100.0, 100.0, 1000.0, 1000.0];
    let bound =
        bound(&problem(&speeds, &[(0, 0, 900), (1, 900, 1000)], &[(2, 0, 1000), (3, 0, 900)]));
    assert_eq!((bound.seconds, bound.bottleneck.as_str()), (18.0, "sender n0:1"));
}

#[test]
fn senders_can_be_short_together() {
    let speeds = [100.0, 100.0, 1000.0, 1000.0];
    let bound =
        bound(&problem(&speeds, &[(0, 0, 1000), (1, 0, 1000)], &[(2, 0, 1000), (3, 0, 1000)]));
    assert_eq!((bound.seconds, bound.bottleneck.as_str()), (10.0, "senders n0:1, n1:1 together"));
}

#[test]
fn a_bottleneck_between_one_sender_and_all_is_found_by_a_cut() {
    // Nodes 0 and 1 alone hold the first three thousand bytes, in three overlapping pieces; node 2
    // has room to spare.
    let offers = [(0, 0, 2000), (1, 1000, 3000), (2, 3000, 4000)];
    let found = bound(&problem(&[100.0, 200.0, 1000.0, 1e6], &offers, &[(3, 0, 4000)]));
    assert!(is_near(found.seconds, 10.0), "{found:?}");
    assert_eq!(found.bottleneck, "sender n0:1");
    // With a faster node 0, the other two nodes are short together.
    let found = bound(&problem(&[150.0, 150.0, 1000.0, 1e6], &offers, &[(3, 0, 4000)]));
    assert_eq!((found.seconds, found.bottleneck.as_str()), (10.0, "senders n0:1, n1:1 together"));
}

#[test]
fn replicas_share_by_speed() {
    let problem = problem(&[300.0, 100.0, 1000.0], &[(0, 0, 4000), (1, 0, 4000)], &[(2, 0, 4000)]);
    let plan = plan(&problem, Scheduler::Greedy).unwrap();
    assert!(is_near(plan.planned[0].weights[0], 0.75) && is_near(plan.planned[0].weights[1], 0.25));
    assert!(is_near(plan.predicted_seconds, 10.0) && is_near(plan.bound.seconds, 10.0));
}

#[test]
fn greedy_comes_near_what_lp_reaches() {
    // Both nodes offer the second half, only node 0 the first. In proportion to demand alone, node
    // 0 would keep half its speed for the second half, and the whole would take a third longer.
    let problem =
        problem(&[100.0, 100.0, 1000.0], &[(0, 0, 2000), (1, 1000, 2000)], &[(2, 0, 2000)]);
    let greedy = plan(&problem, Scheduler::Greedy).unwrap();
    assert_eq!(greedy.planned[0].weights, [1.0]);
    assert!(greedy.planned[1].weights[0] <= 0.001, "{greedy:?}");
    let lp = plan(&problem, Scheduler::Lp).unwrap();
    assert!(lp.planned[1].weights[0] < 1e-9 && is_near(lp.predicted_seconds, 10.0), "{lp:?}");
    assert!(greedy.predicted_seconds <= 10.01 && greedy.bound == lp.bound);
    assert_eq!(
        plan(&problem, Scheduler::Auto).unwrap(),
        lp,
        "the better of the two, under its own name"
    );
}

#[test]
fn auto_is_greedy_where_that_is_the_best() {
    let problem = problem(&[300.0, 100.0, 1000.0], &[(0, 0, 4000), (1, 0, 4000)], &[(2, 0, 4000)]);
    assert_eq!(
        plan(&problem, Scheduler::Auto).unwrap(),
        plan(&problem, Scheduler::Greedy).unwrap()
    );
}

#[test]
fn a_node_that_offers_what_it_wants_copies_it_inside() {
    let problem = problem(&[100.0, 100.0], &[(0, 0, 1000), (1, 0, 500)], &[(1, 0, 1000)]);
    let plan = plan(&problem, Scheduler::Greedy).unwrap();
    assert_eq!(plan.planned[0].senders_for(NodeIx(1)), [(NodeIx(1), 1.0)]);
    assert_eq!(plan.planned[1].senders_for(NodeIx(1)), [(NodeIx(0), 1.0)]);
    assert!(is_near(plan.bound.seconds, 5.0));
}

/// Figure 6: one more pair at a time, five slow ones and then three that are ten times faster. All
/// senders hold everything, and the receivers are one group.
#[test]
fn uniform_is_held_back_by_its_slowest_node_as_in_figure_6() {
    let at = |pairs: u32, scheduler| {
        let speed = |at: u32| if at % pairs < 5 { 10.0 } else { 100.0 };
        let problem = PlanProblem {
            nodes: nodes(&(0..2 * pairs).map(speed).collect::<Vec<f64>>()),
            offers: rows(&(0..pairs).map(|node| (node, 0, 1_000_000)).collect::<Vec<_>>()),
            group_wants: (pairs..2 * pairs)
                .map(|node| (GroupIx(0), NodeIx(node), Span::new(0, 1_000_000)))
                .collect(),
            ..PlanProblem::default()
        };
        1e6 / plan(&problem, scheduler).unwrap().predicted_seconds
    };
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-3;
    for pairs in 1..=8_u32 {
        let (slow, fast) = (f64::from(pairs.min(5)), f64::from(pairs.saturating_sub(5)));
        assert!(near(at(pairs, Scheduler::Uniform), 10.0 * f64::from(pairs)), "{pairs} pairs");
        for scheduler in [Scheduler::Greedy, Scheduler::Lp] {
            assert!(
                near(at(pairs, scheduler), 10.0 * slow + 100.0 * fast),
                "{pairs} pairs, {scheduler:?}"
            );
        }
    }
}

/// Figure 7: four pairs, every second one ten times faster, whose windows grow from a quarter of
/// the data to all of it. By demand alone, at 7/8 the slow ones would be asked for so much that the
/// whole took three times as long as necessary.
#[test]
fn greedy_is_not_held_back_by_what_windows_keep_apart_as_in_figure_7() {
    for eighths in 2..=8 {
        let window = |pair: u64| Span::of((8 - eighths) * pair * 1_000_000, eighths * 3_000_000);
        let problem = PlanProblem {
            nodes: nodes(&[1e6, 1e5, 1e6, 1e5, 1e6, 1e5, 1e6, 1e5]),
            offers: (0..4).map(|pair| (NodeIx(pair), window(pair.into()))).collect(),
            group_wants: (0..4)
                .map(|pair| (GroupIx(0), NodeIx(4 + pair), window(pair.into())))
                .collect(),
            ..PlanProblem::default()
        };
        let plan = plan(&problem, Scheduler::Greedy).unwrap();
        let ratio = plan.predicted_seconds / plan.bound.seconds;
        assert!(ratio <= 1.01, "{eighths}/8: {ratio} of the bound");
    }
}

#[test]
fn what_a_group_takes_ends_on_the_grid_and_follows_speed() {
    let mut problem = problem(&[1e6, 100.0, 300.0], &[(0, 10, 4010)], &[]);
    problem.group_wants = [1, 2].map(|node| (GroupIx(0), NodeIx(node), Span::new(10, 4010))).into();
    problem.grid = (10, 100);
    for scheduler in [Scheduler::Greedy, Scheduler::Lp] {
        let plan = plan(&problem, scheduler).unwrap();
        let parts: Vec<(Span, &[NodeIx])> = plan
            .planned
            .iter()
            .map(|planned| (planned.segment.span, &*planned.segment.receivers))
            .collect();
        assert_eq!(
            parts,
            [(Span::new(10, 1010), &[NodeIx(1)][..]), (Span::new(1010, 4010), &[NodeIx(2)])]
        );
        assert_eq!(plan.wanted_bytes(), 4000);
        assert_eq!(plan.bound.bottleneck, "receivers n1:1, n2:1 together");
    }
}

#[test]
fn a_store_and_a_link_can_be_the_bottleneck() {
    let mut problem = problem(
        &[100.0, 100.0, 100.0, 1000.0],
        &[(0, 0, 1000), (1, 0, 1000), (2, 0, 1000)],
        &[(3, 0, 1000)],
    );
    problem.stores = vec![StoreCapacity { name: "lustre".into(), bytes_per_second: 50.0 }];
    for node in &mut problem.nodes[..2] {
        node.reads = Some(StoreIx(0));
    }
    let found = bound(&problem);
    assert!(is_near(found.seconds, 1000.0 / 150.0), "{found:?}");
    assert_eq!(found.bottleneck, "sender n2:1 and reading store lustre together");
    problem.pairs = vec![PairLimit { from: NodeIx(2), to: NodeIx(3), bytes_per_second: 30.0 }];
    let found = bound(&problem);
    assert!(is_near(found.seconds, 1000.0 / 80.0), "{found:?}");
    assert_eq!(found.bottleneck, "link n2:1 to n3:1 and reading store lustre together");
}

#[test]
fn a_small_shortage_is_seen_beside_a_large_transfer() {
    // A terabyte moves quickly; two slow nodes share a kilobyte of which one alone holds most.
    let offers =
        [(0, 0, 1 << 40), (1, 1 << 40, (1 << 40) + 900), (2, (1 << 40) + 300, (1 << 40) + 1000)];
    let problem = problem(&[1e12, 1.0, 1.0, 1e12], &offers, &[(3, 0, (1 << 40) + 1000)]);
    let found = bound(&problem);
    assert_eq!((found.seconds, found.bottleneck.as_str()), (500.0, "senders n1:1, n2:1 together"));
}

#[test]
fn speeds_that_are_none_are_refused_by_name() {
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e18] {
        let mut problem = problem(&[100.0, 100.0], &[(0, 0, 1000)], &[(1, 0, 1000)]);
        problem.nodes[1].receive_bytes_per_second = speed;
        let error = plan(&problem, Scheduler::Lp).unwrap_err();
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.starts_with("n1:1: speed "), "{error}");
        problem.nodes[1].receive_bytes_per_second = 1.0;
        problem.stores = vec![StoreCapacity { name: "x".into(), bytes_per_second: speed }];
        assert!(
            plan(&problem, Scheduler::Greedy).unwrap_err().message.starts_with("store x: speed ")
        );
    }
}

#[test]
fn a_group_that_nobody_can_serve_is_refused_with_what_is_missing() {
    let mut problem = problem(&[100.0, 100.0, 100.0], &[(0, 0, 1000)], &[]);
    problem.group_wants =
        [1, 2].map(|node| (GroupIx(0), NodeIx(node), Span::new(500, 1500))).into();
    let error = plan(&problem, Scheduler::Greedy).unwrap_err();
    assert_eq!((error.code, error.missing), (Code::Usage, vec![Span::new(1000, 1500)]));
}

#[test]
fn a_node_in_two_groups_for_one_byte_is_named() {
    let mut problem = problem(&[100.0, 100.0], &[(0, 0, 1000)], &[]);
    problem.group_wants =
        [0, 1].map(|group| (GroupIx(group), NodeIx(1), Span::new(500, 600))).into();
    let error = plan(&problem, Scheduler::Lp).unwrap_err();
    assert!(error.message.contains("n1:1 wants bytes 500-599 for two groups"), "{error}");
}

#[test]
fn a_million_rows_are_planned_and_more_are_refused() {
    let pair = |at: u64| (NodeIx((at % 64) as u32), Span::of(at * 100, 100));
    let mut problem = problem(&[1e6; 128], &[], &[]);
    problem.offers = (0..1 << 19).map(pair).collect();
    problem.wants =
        problem.offers.iter().map(|&(node, span)| (NodeIx(node.0 + 64), span)).collect();
    let plan = plan(&problem, Scheduler::Greedy).unwrap();
    assert_eq!((plan.planned.len(), plan.bound.bottleneck.as_str()), (1 << 19, "receiver n64:1"));
    problem.wants.push((NodeIx(127), Span::new(0, 100)));
    let error = super::plan(&problem, Scheduler::Greedy).unwrap_err();
    assert!(error.message.starts_with("1048577 rows"), "{error}");
}

/// Speeds and sizes that are hardest for 64-bit sums and floating point.
#[test]
fn extremes_neither_panic_nor_lose_a_byte() {
    let end = u64::MAX - 1;
    let problem =
        problem(&[1e15, 0.1, 1e15, 0.1], &[(0, 0, end), (1, 5, end)], &[(2, 0, end), (3, 1, 7)]);
    for scheduler in [Scheduler::Greedy, Scheduler::Lp, Scheduler::Uniform] {
        let plan = plan(&problem, scheduler).unwrap();
        assert!(
            plan.bound.seconds.is_finite()
                && plan.predicted_seconds >= plan.bound.seconds * (1.0 - 1e-9)
        );
    }
}
