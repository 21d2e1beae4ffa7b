//! One file to 1 to 64 nodes at once: receivers feed each other, so that all copies take about the
//! time of one, with the block that is chosen.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};

use super::book::BenchResults;
use super::fixture::CaseFixture;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster, address};

/// Rate of the NICs where one receiver is slow.
const RATE_MBIT: u32 = 100;
/// Rate of the slow receiver's NIC.
const SLOW_MBIT: u32 = 10;
/// Number of copies for the case with a slow receiver.
const COUNT_WITH_SLOW: u32 = 8;
/// Seconds that one copy takes in the cases below, or fewer.
const SECONDS: f64 = 8.0;

/// Copies of one file over NICs of one rate: rates at which the machine has capacity to spare.
struct CopiesCase {
    mib: u64,
    rate_mbit: u32,
    /// Numbers of copies, each with the most that it may take in the time of one.
    counts: &'static [(u32, f64)],
}

const CASES: [CopiesCase; 3] = [
    CopiesCase { mib: 192, rate_mbit: 300, counts: &[(2, 1.1), (4, 1.1), (8, 1.1)] },
    CopiesCase { mib: 64, rate_mbit: RATE_MBIT, counts: &[(8, 1.1), (16, 1.15)] },
    CopiesCase { mib: 64, rate_mbit: 50, counts: &[(32, 1.2), (64, 1.25)] },
];

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    // Shorter runs move less.
    let bytes = |mib: u64| {
        let part = (bench.options.seconds / SECONDS).min(1.0);
        (((mib << 20) as f64 * part) as u64).next_multiple_of(1 << 20)
    };
    for CopiesCase { mib, rate_mbit, counts } in CASES {
        let mut one = 0.0;
        for &(count, most) in [(1, 1.0)].iter().chain(counts) {
            let cluster = bench.cluster(1 + count, &[rate_mbit])?;
            book.now(&format!("{count} copies at {rate_mbit} Mbit/s"));
            let copied = copy(bench, &cluster, (count, bytes(mib)), (rate_mbit, rate_mbit))?;
            let (what, note) = (format!("{count} copies at {rate_mbit} Mbit/s"), copied.note()?);
            if count == 1 {
                one = copied.seconds;
                book.figure(what, one, "s", note);
            } else {
                let bar = Threshold::AtMost(most);
                book.ratio(format!("{what} / 1 copy"), copied.seconds / one, bar, note);
            }
            book.keep(copied.transferred.report);
        }
    }
    with_slow(bench, book, bytes(64))
}

/// Copies of which one receiver is slow, with and without a word on it.
fn with_slow(bench: &CaseFixture, book: &mut BenchResults, bytes: u64) -> Result<()> {
    let cluster = bench.cluster(2, &[RATE_MBIT])?;
    let one = copy(bench, &cluster, (1, bytes), (RATE_MBIT, RATE_MBIT))?.seconds;
    drop(cluster);
    for (known, speed) in [("declared", SLOW_MBIT), ("not declared", RATE_MBIT)] {
        let cluster = bench.cluster(1 + COUNT_WITH_SLOW, &[RATE_MBIT])?;
        cluster.fault(1 + COUNT_WITH_SLOW, 0, &["rate", &format!("{SLOW_MBIT}mbit")])?;
        book.now(&format!("{COUNT_WITH_SLOW} copies, one receiver ten times slower, {known}"));
        let copied = copy(bench, &cluster, (COUNT_WITH_SLOW, bytes), (RATE_MBIT, speed))?;
        let what = format!(
            "{COUNT_WITH_SLOW} copies, one receiver ten times slower ({known}): the others / 1 copy"
        );
        let note = format!("{:.2} s; the slow one {:.2} s", copied.others_seconds, copied.seconds);
        book.ratio(what, copied.others_seconds / one, Threshold::AtMost(1.15), note);
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

impl CopyRun {
    fn note(&self) -> Result<String> {
        let report = &self.transferred.report;
        let sent = report["nodes"][0]["bytes_sent"].as_f64();
        let sent = sent.context("the report says nothing of what was sent")? / self.bytes as f64;
        Ok(format!(
            "{:.2} s; blocks of {}; the writer sent {sent:.2} copies; {}",
            self.seconds,
            report["block_bytes"],
            self.transferred.cost()
        ))
    }
}

/// Makes so many copies of so many bytes, with the block that is chosen. All nodes have one rate,
/// and the last one says that it has another.
fn copy(
    bench: &CaseFixture,
    cluster: &LabCluster,
    (count, bytes): (u32, u64),
    (rate_mbit, last_mbit): (u32, u32),
) -> Result<CopyRun> {
    let last = bytes - 1;
    let mut rows = format!("writer {} pattern:3 0 0-{last} speed={rate_mbit}M\n", address(1));
    let files: Vec<String> = (1..=count).map(|copy| format!("copy{copy}")).collect();
    for (node, file) in (2..).zip(&files) {
        // A replaced file keeps its time of creation.
        let _ = fs::remove_file(bench.lab.path(file));
        let speed = if node == 1 + count { last_mbit } else { rate_mbit };
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
