//! One file to 1, 2, 4, 8 and 16 nodes at once: receivers feed each other, so that all copies take
//! about the time of one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};

use super::book::BenchResults;
use super::fixture::CaseFixture;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster, address};

/// Rate of the NICs: sixteen nodes that each send and receive at this rate leave the machine spare
/// capacity.
const RATE_MBIT: u32 = 100;
/// Rate of the slow receiver's NIC.
const SLOW_MBIT: u32 = 10;
/// Approximate number of blocks of a transfer.
const BLOCKS: u64 = 1024;
const COUNTS: [u32; 5] = [1, 2, 4, 8, 16];
/// Number of copies for the case with a slow receiver.
const COUNT_WITH_SLOW: u32 = 8;

/// Returns the threshold for a number of copies, in the time of one.
fn bar(count: u32) -> Threshold {
    if count <= 8 { Threshold::AtMost(1.15) } else { Threshold::AtMost(1.25) }
}

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let mut one = 0.0;
    for count in COUNTS {
        let cluster = bench.cluster(1 + count, &[RATE_MBIT])?;
        book.now(&format!("{count} copies"));
        let copied = copy(bench, &cluster, count, RATE_MBIT)?;
        let sent = &copied.transferred.report["nodes"][0]["bytes_sent"];
        let sent = sent.as_f64().context("the report says nothing of what was sent")?
            / copied.bytes as f64;
        let note = format!(
            "{:.2} s; the writer sent {sent:.2} copies; {}",
            copied.seconds,
            copied.transferred.cost()
        );
        if count == 1 {
            one = copied.seconds;
            book.figure("1 copy", one, "s", note);
        } else {
            book.ratio(format!("{count} copies / 1 copy"), copied.seconds / one, bar(count), note);
        }
        book.keep(copied.transferred.report);
    }
    for (known, speed) in [("declared", SLOW_MBIT), ("not declared", RATE_MBIT)] {
        let cluster = bench.cluster(1 + COUNT_WITH_SLOW, &[RATE_MBIT])?;
        cluster.fault(1 + COUNT_WITH_SLOW, 0, &["rate", &format!("{SLOW_MBIT}mbit")])?;
        book.now(&format!("{COUNT_WITH_SLOW} copies, one receiver ten times slower, {known}"));
        let copied = copy(bench, &cluster, COUNT_WITH_SLOW, speed)?;
        let what = format!(
            "{COUNT_WITH_SLOW} copies, one receiver ten times slower ({known}): the others / 1 copy"
        );
        let note = format!("{:.2} s; the slow one {:.2} s", copied.others_seconds, copied.seconds);
        book.ratio(what, copied.others_seconds / one, bar(COUNT_WITH_SLOW), note);
        book.keep(copied.transferred.report);
    }
    Ok(())
}

struct CopyRun {
    bytes: u64,
    /// Time at which the last copy was renamed.
    seconds: f64,
    /// Time without the last node's copy.
    others_seconds: f64,
    transferred: CompletedTransfer,
}

/// Copies the bytes that one NIC carries in the requested time; `last_mbit` is the speed of the
/// last node.
fn copy(bench: &CaseFixture, cluster: &LabCluster, count: u32, last_mbit: u32) -> Result<CopyRun> {
    let bytes = bench.bytes_in(bench.options.seconds, &[RATE_MBIT]);
    let last = bytes - 1;
    // As many blocks as a gibibyte has: blocks are pipelined.
    let block = (bytes / BLOCKS).next_power_of_two();
    let mut rows = format!(
        "option block {block}\nwriter {} pattern:3 0 0-{last} speed={RATE_MBIT}M\n",
        address(1)
    );
    let files: Vec<String> = (1..=count).map(|copy| format!("copy{copy}")).collect();
    for (node, file) in (2..).zip(&files) {
        // A replaced file keeps its time of creation.
        let _ = fs::remove_file(bench.lab.path(file));
        let speed = if node == 1 + count { last_mbit } else { RATE_MBIT };
        rows += &format!("reader {} file:///{file} 0 0-{last} speed={speed}M\n", address(node));
    }
    let ended = cluster.start(&format!("copies-{count}-{last_mbit}"), &rows)?.wait()?;
    let transferred = CompletedTransfer::of(&ended, bytes * u64::from(count))?;
    let seconds: Vec<f64> =
        files.iter().map(|file| took(&bench.lab.path(file), bytes)).collect::<Result<_>>()?;
    let latest = |seconds: &[f64]| seconds.iter().copied().fold(0.0, f64::max);
    Ok(CopyRun {
        bytes,
        seconds: latest(&seconds),
        others_seconds: latest(&seconds[..seconds.len() - 1]),
        transferred,
    })
}

/// Returns the time from the creation of a file to its renaming.
fn took(file: &Path, bytes: u64) -> Result<f64> {
    let about = fs::metadata(file).with_context(|| format!("no {}", file.display()))?;
    ensure!(about.len() == bytes, "{} has {} bytes, not {bytes}", file.display(), about.len());
    let made = about.created()?.duration_since(UNIX_EPOCH)?.as_secs_f64();
    Ok(about.ctime() as f64 + about.ctime_nsec() as f64 * 1e-9 - made)
}
