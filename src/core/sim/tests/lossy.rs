//! Long paths that lose packets, on which one flow is slow whatever the link carries.

use super::*;
use crate::core::sim::world::LossyPath;

/// Runs a transfer of 8 MiB between two nodes, whose flows bring 1 MB/s each.
fn over_path(delay: Duration) -> SimOutcome {
    let rows = vec![row(RowRole::Sender, 0, 0, 8 << 20), row(RowRole::Receiver, 1, 0, 8 << 20)];
    let (roster, terms) = attempt_terms(TransferOptions::default(), rows, 2);
    let goodput = GBIT * crate::core::units::goodput(1500);
    let links = vec![NodeLinks { up: goodput, down: goodput }; 2];
    let (lossy, latency) = (Some(LossyPath { delay, bytes_per_second: 1e6 }), delay / 2);
    let world = SimWorld { links, lossy, latency, ..quiet_world() };
    let outcome = SimCluster::new(roster, terms, world).run();
    assert_eq!(outcome.error, None);
    outcome
}

#[test]
fn a_far_path_that_loses_packets_gets_further_flows() {
    let outcome = over_path(Duration::from_millis(20));
    assert!(outcome.seconds < 3.0, "one flow takes 8.4 s: {} s", outcome.seconds);
    assert!(outcome.counts.wasted_bytes <= 1 << 20, "{:?}", outcome.counts);
}

#[test]
fn a_near_path_keeps_one_flow_for_each_pair() {
    let outcome = over_path(Duration::from_millis(2));
    assert!(outcome.seconds > 8.3, "{} s", outcome.seconds);
}
