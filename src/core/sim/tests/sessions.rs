//! Control sessions that break, masters that are gone, and nodes that end by themselves.

use super::*;
use crate::core::sim::world::{MasterIx, SimEndpoint};

const MASTER: SimEndpoint = SimEndpoint::Master(MasterIx(0));
const NODES: u32 = 7;

/// Both directions between a master and a node.
fn cut_off(cluster: &mut SimCluster, node: u32, moment: Moment, length: Duration) {
    let node = SimEndpoint::Node(NodeIx(node));
    cluster.fault(moment, InjectedFault::Cut(MASTER, node, length));
    cluster.fault(moment, InjectedFault::Cut(node, MASTER, length));
}

/// A transfer of `overlapping`, and a moment in it.
fn struck(seed: u64) -> (SimCluster, Moment) {
    let cluster = cluster(overlapping(8), CheckKind::Crc64, PieceFaults::default(), seed);
    (cluster, Moment(400_000 + seed * 2_000_000))
}

/// Adds a master that makes another attempt at the same transfer.
fn add_master(cluster: &mut SimCluster, moment: Moment) {
    let (roster, terms) = attempt_terms(TransferOptions::default(), overlapping(8), 3);
    cluster.add_master(moment, roster, terms);
}

#[test]
fn a_control_session_that_breaks_at_any_moment_costs_nothing() {
    let whole = run(overlapping(8), PieceFaults::default(), 1);
    let microseconds = (whole.seconds * 1e6) as u64 + 2_000;
    for seed in 0..40 {
        let mut cluster = cluster(overlapping(8), CheckKind::Crc64, PieceFaults::default(), seed);
        // Every node in turn, at moments spread over the whole transfer, its first and last
        // messages included.
        let moment = Moment(400_000 + seed * microseconds * 1000 / 40);
        let node = NodeIx((seed % 7) as u32);
        cluster.fault(moment, InjectedFault::Part(node));
        let outcome = cluster.run();
        assert_eq!(outcome.error, None, "seed {seed}");
        assert_eq!(outcome.digest, whole.digest, "seed {seed}");
    }
}

#[test]
fn a_cut_that_ends_while_the_session_may_be_resumed_costs_nothing() {
    let whole = run(overlapping(8), PieceFaults::default(), 1);
    for seed in 0..20 {
        let (mut cluster, moment) = struck(seed);
        let length = Duration::from_millis(6_500 + 100 * seed);
        cut_off(&mut cluster, (seed % 7) as u32, moment + Duration::from_millis(2), length);
        let outcome = cluster.run();
        assert_eq!(outcome.error, None, "seed {seed}");
        assert_eq!(outcome.digest, whole.digest, "seed {seed}");
    }
}

/// The end of each run looks for what is left at the nodes.
#[test]
fn a_node_that_its_master_has_lost_ends_its_attempt_by_itself() {
    for seed in 0..10 {
        let (mut cluster, moment) = struck(seed);
        let moment = moment + Duration::from_millis(2);
        // A receiver, so that the master cannot do without it.
        cut_off(&mut cluster, 4 + (seed % 3) as u32, moment, Duration::from_secs(90));
        let error = cluster.run().error.expect("a receiver is lost");
        assert_eq!(error.code, Code::Unreachable, "seed {seed}: {error}");
    }
}

#[test]
fn nodes_whose_master_is_gone_for_good_hold_nothing_in_the_end() {
    for seed in 0..20 {
        let (mut cluster, moment) = struck(seed);
        let (master, is_off) = (MasterIx(0), seed % 2 == 0);
        cluster.fault(moment, InjectedFault::EndMaster { master, is_off });
        let error = cluster.run().error.expect("it was killed before its end");
        assert_eq!(error.message, "the master died", "seed {seed}");
    }
}

#[test]
fn nodes_make_way_for_another_master_whatever_became_of_the_first() {
    for seed in 0..20 {
        let (mut cluster, moment) = struck(seed);
        let moment = moment + Duration::from_millis(2);
        if seed % 2 == 0 {
            let (master, is_off) = (MasterIx(0), seed % 4 == 0);
            cluster.fault(moment, InjectedFault::EndMaster { master, is_off });
        } else {
            // It comes back when the other one has begun, and is told that nobody knows it.
            (0..NODES).for_each(|node| {
                cut_off(&mut cluster, node, moment, Duration::from_secs(12));
            });
        }
        add_master(&mut cluster, moment + Duration::from_secs(9));
        assert_eq!(cluster.run().error, None, "seed {seed}");
    }
}

#[test]
fn workers_that_hang_for_ever_hold_no_attempt() {
    let mut stalled = 0;
    for seed in 0..14 {
        let (mut cluster, moment) = struck(seed);
        let moment = Moment(moment.0 * (seed % 2));
        let node = NodeIx((seed % 7) as u32);
        cluster.fault(moment, InjectedFault::Hang(node, Duration::from_secs(365 * 24 * 3600)));
        // Later than the last deadline of a worker.
        cluster.deadline = Some(Moment(0) + Duration::from_secs(1_000));
        let error = cluster.run().error;
        stalled += u32::from(error.is_some_and(|error| error.code == Code::Stalled));
    }
    assert!(stalled >= 7, "{stalled} of 14");
}

#[test]
fn a_good_bye_that_is_lost_leaves_nothing_behind() {
    for node in 0..NODES {
        let (mut cluster, _) = struck(u64::from(node));
        cluster.fault(Moment(0), InjectedFault::LoseGoodBye(NodeIx(node)));
        let outcome = cluster.run();
        assert_eq!(outcome.error, None, "node {node}");
        assert!(!outcome.heard_out[node as usize], "node {node}");
    }
}
