//! Time to determine the remaining work of an interrupted transfer: one receiver has finished,
//! another one has not.
//!
//! It depends on the number of pieces; a record of 4 KiB is as large as one of 1 MiB. These files
//! have as many pieces as 100 GiB in blocks of 1 MiB.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::book::BenchResults;
use super::fixture::CaseFixture;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster, address};

const PIECES: u64 = 102_400;
const BLOCK: u64 = 4096;
/// The last receiver wants an eighth, and is far from its end when the other one has finished.
const RATES_MBIT: [u32; 3] = [2500, 2500, 20];
const BYTES: [u64; 2] = [PIECES * BLOCK, PIECES * BLOCK / 8];

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let cluster = LabCluster::of_nodes(bench.lab, bench.tools, &RATES_MBIT)?;
    let mut rows =
        format!("option block {BLOCK}\nwriter {} pattern:5 0 0-{}\n", address(1), BYTES[0] - 1);
    for (node, bytes) in (2..).zip(BYTES) {
        let _ = fs::remove_file(bench.lab.path(&format!("resumed{node}")));
        let (last, speed) = (bytes - 1, RATES_MBIT[node as usize - 1]);
        rows +=
            &format!("reader {} file:///resumed{node} 0 0-{last} speed={speed}M\n", address(node));
    }
    book.now("the first attempt");
    let mut first = cluster.start_kept("resume", &rows)?;
    while !bench.lab.path("resumed2").exists() {
        if first.has_ended(Duration::from_millis(5)) {
            let ended = first.wait()?;
            bail!(
                "it ended ({}) before a receiver was seen to finish: {}{}",
                ended.status,
                ended.output,
                ended.complaint
            );
        }
    }
    // Its nodes would continue without it, if the next attempt did not follow at once.
    first.signal(Signal::SIGKILL)?;
    first.wait()?;
    book.now("the second attempt");
    let ended = cluster.start_kept("resume", &rows)?.wait()?;
    let wanted_bytes = BYTES.iter().sum();
    let again = CompletedTransfer::of(&ended, wanted_bytes)?;
    let number = |name: &str| {
        again.report[name].as_f64().with_context(|| format!("the report has no {name}"))
    };
    let resumed = number("resumed_bytes")? / wanted_bytes as f64;
    let decided = number("wall_seconds")? - number("seconds")?;
    book.ratio(
        "seconds besides moving",
        decided,
        Threshold::AtMost(1.0),
        format!("{:.0} % was there", 100.0 * resumed),
    );
    book.keep(again.report);
    Ok(())
}
