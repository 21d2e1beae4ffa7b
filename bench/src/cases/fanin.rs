//! Many senders and one receiver, whose NIC is what all of them wait for: the time over that of its
//! line, and the bytes that came twice.

use anyhow::Result;

use super::book::BenchResults;
use super::fixture::{CaseFixture, GOODPUT};
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster, address};

/// Number of senders.
const SENDERS: u32 = 45;
/// Rate of each sender's NIC.
const SENDER_MBIT: u32 = 100;
/// Rate of the receiver's NIC.
const RECEIVER_MBIT: u32 = 1000;
/// Most time, over that of the receiver's line.
const TIME_MAX: f64 = 1.08;
/// Most bytes that come twice, over those that are wanted.
const WASTED_MAX: f64 = 0.02;

/// Bytes that each sender offers.
#[derive(Clone, Copy, PartialEq)]
enum SenderRanges {
    Replicas,
    Parts,
}

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let rates: Vec<u32> = [[SENDER_MBIT; SENDERS as usize].as_slice(), &[RECEIVER_MBIT]].concat();
    let bytes = bench.bytes_in(bench.options.seconds, &[RECEIVER_MBIT]);
    let line = bytes as f64 / (f64::from(RECEIVER_MBIT) * 1e6 * GOODPUT / 8.0);
    for (ranges, offers) in [(SenderRanges::Replicas, "replica"), (SenderRanges::Parts, "part")] {
        for (is_declared, known) in [(true, "declared"), (false, "not declared")] {
            let title = format!("{SENDERS} senders, each with a {offers}, speeds {known}");
            book.now(&title);
            let cluster = LabCluster::of_nodes(bench.lab, bench.tools, &rates)?;
            let name = format!("{offers}-{is_declared}");
            let ended = cluster.start(&name, &specification(bytes, ranges, is_declared))?.wait()?;
            let transferred = CompletedTransfer::of(&ended, bytes)?;
            let note = format!("{:.2} s; {}", transferred.seconds, transferred.cost());
            let ratio = transferred.seconds / line;
            book.ratio(format!("{title}: time / line"), ratio, Threshold::AtMost(TIME_MAX), note);
            let wasted = transferred.report["wasted_bytes"].as_f64().unwrap_or(f64::NAN);
            let wasted = wasted / bytes as f64;
            book.ratio(format!("{title}: wasted"), wasted, Threshold::AtMost(WASTED_MAX), "");
            book.keep(transferred.report);
        }
    }
    Ok(())
}

fn specification(bytes: u64, ranges: SenderRanges, is_declared: bool) -> String {
    let speed = |mbit: u32| if is_declared { format!(" speed={mbit}M") } else { String::new() };
    let mut rows = String::new();
    for node in 1..=SENDERS {
        let cut = |parts: u32| bytes * u64::from(parts) / u64::from(SENDERS);
        let (from, to) = match ranges {
            SenderRanges::Replicas => (0, bytes),
            SenderRanges::Parts => (cut(node - 1), cut(node)),
        };
        // A pattern is a function of the position in its file.
        let speed = speed(SENDER_MBIT);
        let row = format!("writer {} pattern:5 {from} {from}-{}{speed}\n", address(node), to - 1);
        rows += &row;
    }
    let speed = speed(RECEIVER_MBIT);
    rows + &format!("reader {} null: 0 0-{}{speed}\n", address(SENDERS + 1), bytes - 1)
}
