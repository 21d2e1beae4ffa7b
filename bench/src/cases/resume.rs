//! How long a transfer takes to decide what an earlier attempt has left of it: one receiver has finished, another one has not.
//!
//! What counts is the number of pieces, and a piece of 4 KiB is recorded as one of 1 MiB is: these files have as many as
//! 100 GiB have in blocks of 1 MiB.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::Bench;
use super::book::Book;
use crate::bar::Bar;
use crate::cluster::{Cluster, Transferred, address};

const PIECES: u64 = 102_400;
const BLOCK: u64 = 4096;
/// The last receiver is slower, so that it is left behind.
const RATES_MBIT: [u32; 3] = [2500, 2500, 500];

pub(super) fn run(bench: &Bench, book: &mut Book) -> Result<()> {
    let cluster = Cluster::of_nodes(bench.lab, bench.tools, &RATES_MBIT)?;
    let last = PIECES * BLOCK - 1;
    let mut rows = format!("option block {BLOCK}\nwriter {} pattern:5 0 0-{last}\n", address(1));
    for node in 2..=3 {
        let _ = fs::remove_file(bench.lab.path(&format!("resumed{node}")));
        rows += &format!("reader {} file:///resumed{node} 0 0-{last}\n", address(node));
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
    // Its nodes would go on without it, but for the attempt that follows at once.
    first.signal(Signal::SIGKILL)?;
    first.wait()?;
    book.now("the second attempt");
    let ended = cluster.start_kept("resume", &rows)?.wait()?;
    let again = Transferred::of(&ended, 2 * PIECES * BLOCK)?;
    let number = |name: &str| again.report[name].as_f64().with_context(|| format!("the report has no {name}"));
    let resumed = number("resumed_bytes")? / (2 * PIECES * BLOCK) as f64;
    let decided = number("wall_seconds")? - number("seconds")?;
    book.ratio("seconds besides moving", decided, Bar::AtMost(1.0), format!("{:.0} % was there", 100.0 * resumed));
    book.keep(again.report);
    Ok(())
}
