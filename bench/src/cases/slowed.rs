//! A sender that slows to a tenth in mid-transfer, or has a tenth of its row's speed: distance of
//! the remaining transfer to an optimal one that knew the speed at that moment.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::book::BenchResults;
use super::fixture::{CaseFixture, GOODPUT};
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster, address};

/// Three senders of this rate, and two receivers that take in as much together.
const SENDER_MBIT: u32 = 200;
const RECEIVER_MBIT: u32 = 300;
/// Rate of the first sender when slow.
const SLOW_MBIT: u32 = 20;
/// Interval of counter readings.
const READING: Duration = Duration::from_millis(20);

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let rates: Vec<u32> = [[SENDER_MBIT; 3].as_slice(), &[RECEIVER_MBIT; 2]].concat();
    for (title, part_before) in [("falls to a tenth", 3), ("is a tenth of what its row says", 0)] {
        book.now(title);
        let cluster = LabCluster::of_nodes(bench.lab, bench.tools, &rates)?;
        misjudged(bench, &cluster, title, part_before, book)?;
    }
    Ok(())
}

/// Slows the first sender when `part_before` of the bytes have arrived, or before the start if it
/// is 0.
fn misjudged(
    bench: &CaseFixture,
    cluster: &LabCluster,
    title: &str,
    part_before: u64,
    book: &mut BenchResults,
) -> Result<()> {
    let bytes = bench.bytes_in(bench.options.seconds, &[SENDER_MBIT; 3]);
    let slow = format!("{SLOW_MBIT}mbit");
    let slow_down = || cluster.fault(1, 0, &["rate", &slow]);
    if part_before == 0 {
        slow_down()?;
    }
    let mut master = cluster.start(&title.replace(' ', "-"), &specification(bytes))?;
    let received = || -> Result<u64> { Ok(cluster.received(4)?[0] + cluster.received(5)?[0]) };
    let (mut first, mut struck) = (None, None);
    while !master.has_ended(READING) {
        let now = master.started().elapsed().as_secs_f64();
        let in_bytes = (received()? as f64 * GOODPUT) as u64;
        if first.is_none() && in_bytes > 1 << 20 {
            first = Some(now);
        }
        if part_before > 0 && struck.is_none() && in_bytes > bytes / part_before {
            slow_down()?;
            struck = Some((now, in_bytes));
        }
    }
    let transferred = CompletedTransfer::of(&master.wait()?, bytes)?;
    let left_rate = f64::from(2 * SENDER_MBIT + SLOW_MBIT) * 1e6 * GOODPUT / 8.0;
    let (before, left) = match (first, struck) {
        (Some(first), Some((at, in_bytes))) => (at - first, bytes.saturating_sub(in_bytes)),
        (_, None) => (0.0, bytes),
        (None, Some(_)) => (0.0, 0),
    };
    ensure!(left > 0, "the transfer was over before its sender became slow");
    let oracle = before + left as f64 / left_rate;
    let note = format!(
        "{:.2} s, {oracle:.2} s with foresight; {}",
        transferred.seconds,
        transferred.cost()
    );
    book.ratio(
        format!("a sender of three {title}: taken / best"),
        transferred.seconds / oracle,
        Threshold::AtMost(1.1),
        note,
    );
    book.keep(json!({ "run": title, "oracle_seconds": oracle, "report": transferred.report }));
    Ok(())
}

/// Returns the specification: the first sender has everything, the others two thirds each, which
/// overlap; each receiver wants a half.
fn specification(bytes: u64) -> String {
    let (last, third, half) = (bytes - 1, bytes / 3, bytes / 2);
    let mut rows = String::new();
    for (node, from, to) in [(1, 0, last), (2, 0, bytes - third), (3, third, last)] {
        rows += &format!("writer {} pattern:5 0 {from}-{to} speed={SENDER_MBIT}M\n", address(node));
    }
    for (node, from, to) in [(4, 0, half - 1), (5, half, last)] {
        rows += &format!("reader {} null: 0 {from}-{to} speed={RECEIVER_MBIT}M\n", address(node));
    }
    rows
}
