//! Rates compared with lines, with results computed by hand.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::app::bench::figures::*;
use crate::core::report::TransferState;

fn rail(
    nic: &str,
    bytes_sent: u64,
    bytes_received: u64,
    line_gbit_per_s: Option<f64>,
) -> RailReport {
    let (nic, efficiency, mtu) = (nic.into(), None, Some(9000));
    RailReport {
        nic,
        threads: 1,
        bytes_sent,
        bytes_received,
        line_gbit_per_s,
        efficiency,
        path: None,
        driver: None,
        wire: None,
        cipher: None,
        mtu,
        address: None,
        counted: None,
        faults: 0,
    }
}

fn node(name: &str, role: NodeRole, rails: Vec<RailReport>) -> NodeReport {
    let sum = |bytes: fn(&RailReport) -> u64| rails.iter().map(bytes).sum();
    NodeReport {
        name: name.into(),
        role,
        bytes_sent: sum(|rail| rail.bytes_sent),
        bytes_received: sum(|rail| rail.bytes_received),
        cpu_seconds: 1.5,
        memory_bytes_max: 32 << 20,
        seconds: 2.0,
        load: None,
        rails,
    }
}

/// Creates a report of two seconds over two NICs of 10 Gbit/s at each end: 8 and 6 Gbit/s.
pub(in crate::app::bench) fn report(line: Option<f64>) -> Report {
    let (one, two) = (2_000_000_000, 1_500_000_000);
    Report {
        transfer: "bench".into(),
        state: TransferState::Complete,
        bytes: one + two,
        resumed_bytes: 0,
        seconds: 2.0,
        wall_seconds: 2.5,
        phases: None,
        gbit_per_s: gbit_per_s(one + two, 2.0),
        bound_seconds: None,
        bottleneck: None,
        scheduler: "greedy".into(),
        block_bytes: None,
        check: "crc64".into(),
        digest: None,
        wire: None,
        wasted_bytes: 0,
        stolen_bytes: 0,
        retries: 0,
        replicas: None,
        nodes: vec![
            node(
                "a:1",
                NodeRole::Sender,
                vec![rail("eth0", one, 0, line), rail("eth1", two, 0, line)],
            ),
            node(
                "b:2",
                NodeRole::Receiver,
                vec![rail("eth0", 0, one, line), rail("eth1", 0, two, line)],
            ),
        ],
        warnings: Vec::new(),
        error: None,
    }
}

fn close(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() < 1e-9)
}

#[test]
fn rates_stand_beside_the_line_and_its_goodput() {
    let step = BenchStep::new(2, &report(Some(10.0)), None);
    assert!(
        close(Some(step.rate.gbit_per_s), 14.0) && close(step.rate.line_gbit_per_s, 20.0),
        "{step:?}"
    );
    assert!(close(step.rate.efficiency, 0.7));
    assert!(close(step.rate.goodput_efficiency, 0.7 / goodput(9000)));
    assert!(
        close(Some(step.cost.cpu_seconds), 3.0)
            && close(step.cost.cpu_per_gbit_per_s, 3.0 / 2.0 / 14.0)
    );
    let sender = &step.nodes[0];
    assert!(
        close(Some(sender.sent_gbit_per_s), 14.0) && close(Some(sender.received_gbit_per_s), 0.0)
    );
    assert!(
        close(sender.rails[0].rate.efficiency, 0.8) && close(sender.rails[1].rate.efficiency, 0.6)
    );
}

#[test]
fn the_user_knows_the_line_better() {
    let step = BenchStep::new(2, &report(None), Some(BitRate(8_000_000_000)));
    assert!(close(step.nodes[1].rails[0].rate.efficiency, 1.0), "{step:?}");
    let unknown = BenchStep::new(2, &report(None), None);
    assert_eq!(
        (unknown.rate.line_gbit_per_s, unknown.rate.efficiency, unknown.rate.goodput_efficiency),
        (None, None, None)
    );
}

#[test]
fn the_fewest_threads_that_are_as_good_as_the_best_are_enough() {
    let enough = |rates: &[f64]| {
        let step = |(at, rate): (usize, &f64)| {
            let mut step = BenchStep::new(1, &report(None), None);
            (step.threads, step.rate.gbit_per_s) = (at + 1, *rate);
            step
        };
        threads_enough(&rates.iter().enumerate().map(step).collect::<Vec<_>>())
    };
    assert_eq!(enough(&[]), None);
    assert_eq!(enough(&[40.0]), Some(1));
    assert_eq!(enough(&[40.0, 80.0, 81.0, 79.0]), Some(2));
    assert_eq!(enough(&[96.0, 100.0]), Some(1), "four percent are not worth a thread");
    assert_eq!(enough(&[94.0, 100.0]), Some(2));
    assert_eq!(enough(&[10.0, 9.0, 5.0]), Some(1), "more can be worse");
}

#[test]
fn a_step_has_the_threads_of_the_nic_with_the_most() {
    let mut two = report(None);
    two.nodes[1].rails[0].threads = 2;
    assert_eq!(BenchStep::new(1, &two, None).threads, 2);
}

#[test]
fn a_run_of_no_time_divides_by_nothing() {
    let step = BenchStep::new(
        1,
        &Report { seconds: 0.0, bytes: 0, gbit_per_s: 0.0, ..report(Some(1.0)) },
        None,
    );
    assert_eq!(step.cost.cpu_per_gbit_per_s, None);
    let json = serde_json::to_string(&step).unwrap();
    assert!(json.contains("\"cpu_per_gbit_per_s\":null"), "{json}");
}
