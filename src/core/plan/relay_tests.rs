//! Plans with relays, and their lower bound.

use crate::core::options::Scheduler;
use crate::core::plan::relay::*;
use crate::core::plan::tests::{nodes, rows};
use crate::core::plan::{Plan, PlanProblem, PlannedSegment, plan};

const BLOCK: u64 = 10;

/// Node 0 sends `bytes` to one receiver for each further speed; all but those in `deaf` keep what
/// they receive.
fn copies(bytes: u64, speeds: &[f64], deaf: &[u32]) -> PlanProblem {
    let mut nodes = nodes(speeds);
    for (at, node) in nodes.iter_mut().enumerate().skip(1) {
        node.relays = !deaf.contains(&(at as u32));
    }
    let wants: Vec<(u32, u64, u64)> =
        (1..speeds.len() as u32).map(|node| (node, 0, bytes)).collect();
    PlanProblem {
        nodes,
        offers: rows(&[(0, 0, bytes)]),
        wants: rows(&wants),
        grid: (0, BLOCK),
        ..PlanProblem::default()
    }
}

fn planned(problem: &PlanProblem) -> Plan {
    plan(problem, Scheduler::Greedy).expect("a plan")
}

/// Follows every receiver's requests back to a sender, and returns the longest chain.
fn depth(plan: &Plan) -> usize {
    let of = |planned: &PlannedSegment, mut node: NodeIx| {
        let mut depth = 1;
        while let Some(relay) = planned.relay_of(node) {
            assert!(
                depth < planned.segment.receivers.len(),
                "receivers wait for each other in a circle"
            );
            (node, depth) = (relay, depth + 1);
        }
        depth
    };
    let depths = plan
        .planned
        .iter()
        .flat_map(|one| one.segment.receivers.iter().map(move |&node| of(one, node)));
    depths.max().expect("somebody receives")
}

#[test]
fn many_copies_take_about_the_time_of_one() {
    for count in [2, 3, 8, 16, 17, 40] {
        let bytes = count as u64 * BLOCK * 20;
        let plan = planned(&copies(bytes, &vec![100.0; count + 1], &[]));
        let one = bytes as f64 / 100.0;
        assert!(
            plan.predicted_seconds <= 1.15 * one,
            "{count}: {} s, not {one} s",
            plan.predicted_seconds
        );
        assert!((plan.bound.seconds - one).abs() < 1e-9, "{count}: {:?}", plan.bound);
        assert_eq!(depth(&plan), 1 + count.div_ceil(GROUP_MAX), "{count}");
        assert_eq!(plan.wanted_bytes(), count as u64 * bytes);
    }
}

#[test]
fn a_slow_receiver_passes_nothing_on_and_the_others_do_not_wait_for_it() {
    let problem = copies(8000, &[100.0, 100.0, 100.0, 100.0, 10.0], &[]);
    let plan = planned(&problem);
    let relays = || plan.planned.iter().flat_map(|planned| &planned.relays);
    assert!(relays().count() > 0 && relays().all(|(_, relay)| relay.0 != 4), "{plan:?}");
    // The slow receiver alone needs the whole time.
    assert_eq!((plan.bound.seconds, plan.bound.bottleneck.as_str()), (800.0, "receiver n4:1"));
}

#[test]
fn who_keeps_nothing_is_fed_and_feeds_nobody() {
    let plan = planned(&copies(8000, &[100.0; 4], &[3]));
    let relays: Vec<(NodeIx, NodeIx)> =
        plan.planned.iter().flat_map(|planned| planned.relays.clone()).collect();
    assert!(relays.iter().all(|(_, relay)| relay.0 != 3), "{relays:?}");
    assert!(relays.iter().any(|(asks, _)| asks.0 == 3), "{relays:?}");
    // One receiver keeps nothing, the other does: the latter is fed first.
    let plan = planned(&copies(8000, &[100.0; 3], &[2]));
    assert!(
        plan.planned.iter().all(|planned| planned.relays == [(NodeIx(2), NodeIx(1))]),
        "{plan:?}"
    );
    // No receiver keeps anything: the sender sends all copies.
    let plan = planned(&copies(8000, &[100.0; 4], &[1, 2, 3]));
    assert!(plan.planned.iter().all(|planned| planned.relays.is_empty()));
    assert!((plan.bound.seconds - 240.0).abs() < 1e-9, "{:?}", plan.bound);
}

#[test]
fn where_senders_are_no_bottleneck_nobody_relays() {
    let plan = planned(&copies(8000, &[400.0, 100.0, 100.0, 100.0], &[]));
    assert!(plan.planned.iter().all(|planned| planned.relays.is_empty()), "{plan:?}");
    assert!((plan.bound.seconds - 80.0).abs() < 1e-9, "{:?}", plan.bound);
}

#[test]
fn every_scheduler_says_the_same_bound() {
    let problem = copies(8000, &[100.0, 100.0, 60.0, 100.0], &[]);
    let plans = [Scheduler::Greedy, Scheduler::Lp, Scheduler::Uniform]
        .map(|scheduler| plan(&problem, scheduler));
    let plans = plans.map(|plan| plan.expect("a plan"));
    assert!(plans.iter().all(|plan| plan.bound == plans[0].bound));
    assert!(
        plans.iter().all(|plan| plan.predicted_seconds >= plan.bound.seconds * (1.0 - 1e-9)),
        "{plans:?}"
    );
    assert!(
        plans[2].planned.iter().all(|planned| planned.relays.is_empty()),
        "stripes heed nothing"
    );
}

#[test]
fn parts_follow_the_grid_and_what_receivers_can_send() {
    let plan = planned(&copies(8000, &[100.0, 100.0, 60.0, 100.0], &[]));
    assert!(plan.planned.iter().all(|planned| planned.segment.span.start % BLOCK == 0));
    let own = |node: u32| -> u64 {
        let own = plan.planned.iter().filter(|planned| planned.relay_of(NodeIx(node)).is_none());
        own.map(|planned| planned.segment.span.bytes()).sum()
    };
    assert_eq!((own(1), own(2), own(3)), (3080, 1840, 3080));
}
