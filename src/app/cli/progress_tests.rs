//! Output of the progress display. The time is an argument, so nothing here waits.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::app::cli::progress::*;
use crate::core::units::{GIB, MIB};

fn snapshot(bytes_done: u64, node_count: usize) -> ProgressSnapshot {
    let node = |i| NodeProgress {
        name: format!("n{i}:1"),
        bytes: bytes_done,
        rate: BitRate(8_000_000_000),
    };
    ProgressSnapshot {
        bytes_done,
        bytes_total: 4 * GIB,
        comparison: None,
        wire: None,
        per_node: (0..node_count).map(node).collect(),
    }
}

#[test]
fn a_line_has_bytes_rate_time_left_and_nodes() {
    let line = plain_line(&snapshot(GIB, 1), Some(GIB as f64));
    assert_eq!(
        line,
        "25 % 1.00 GiB of 4.00 GiB, 8.59 Gbit/s, 3s left; n0:1 1.00 GiB at 8.00 Gbit/s"
    );
    let sealed = ProgressSnapshot { wire: Some(WireLevel::Sealed), ..snapshot(GIB, 0) };
    let line = plain_line(&sealed, Some(GIB as f64));
    assert_eq!(line, "25 % 1.00 GiB of 4.00 GiB, 8.59 Gbit/s, 3s left, sealed");
    assert_eq!(plain_line(&snapshot(0, 0), None), "0 % 0 B of 4.00 GiB");
    assert_eq!(plain_line(&ProgressSnapshot::default(), None), "100 % 0 B of 0 B");
    assert!(plain_line(&snapshot(GIB, 0), Some(0.0)).ends_with("unknown time left"));
}

#[test]
fn a_comparison_of_replicas_is_shown_before_bytes_move() {
    let compares = ProgressSnapshot { comparison: Some((GIB, 2 * GIB)), ..snapshot(0, 0) };
    assert_eq!(plain_line(&compares, Some(0.0)), "50 % comparing replicas: 1.00 GiB of 2.00 GiB");
}

#[test]
fn many_nodes_are_summed_up() {
    assert_eq!(node_lines(&snapshot(0, 8).per_node).len(), 8);
    let lines = node_lines(&snapshot(0, 1000).per_node);
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[8], "and 992 more nodes");
}

#[test]
fn time_left_is_rounded_up_and_short() {
    let cases = [(0.0, "0s"), (0.1, "1s"), (59.0, "59s"), (61.0, "1m01s"), (3661.0, "1h01m")];
    for (seconds, text) in cases {
        assert_eq!(time_left(seconds), text);
    }
    assert_eq!(time_left(f64::INFINITY), "unknown time");
    assert_eq!(time_left(f64::NAN), "unknown time");
}

#[test]
fn lines_come_at_intervals_whatever_the_news() {
    let start = Instant::now();
    let mut lines = ProgressLines::new(Vec::new());
    for ms in (0..=12_000).step_by(100) {
        lines.draw(start + Duration::from_millis(ms), &snapshot(ms * MIB, 0), None);
    }
    let text = String::from_utf8(lines.out).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.starts_with("cep-fast: ")));
}

#[test]
fn bars_follow_the_snapshots() {
    let mut bars = ProgressBars::new(ProgressDrawTarget::hidden());
    bars.draw(&snapshot(GIB, 2), None);
    bars.draw(&snapshot(2 * GIB, 20), Some(GIB as f64));
    assert_eq!((bars.whole.position(), bars.whole.length()), (2 * GIB, Some(4 * GIB)));
    assert_eq!(bars.nodes.len(), 9);
    assert_eq!(bars.nodes[8].message(), "and 12 more nodes");
    assert!(bars.whole.message().contains("2s left"));
    bars.clear();
}
