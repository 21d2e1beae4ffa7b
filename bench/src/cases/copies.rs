//! One file to 1 to 64 nodes at once: receivers feed each other, so that all copies take about the
//! time of one, with the block that is chosen.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::book::BenchResults;
use super::fixture::CaseFixture;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster, address, report};

/// Rate of the NICs where one receiver is slow.
const RATE_MBIT: u32 = 100;
/// Rate of the slow receiver's NIC.
const SLOW_MBIT: u32 = 10;
/// Number of copies for the case with a slow receiver.
const COUNT_WITH_SLOW: u32 = 8;
/// Number of copies for the case with a receiver that dies, and its node.
const COUNT_WITH_DEAD: u32 = 16;
const DEAD_NODE: u32 = 6;
/// Interval of counter readings.
const READING: Duration = Duration::from_millis(20);
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
    let only = &bench.options.copies;
    for CopiesCase { mib, rate_mbit, counts } in CASES {
        let mut one = 0.0;
        let chosen = counts.iter().filter(|(count, _)| only.is_empty() || only.contains(count));
        let chosen: Vec<(u32, f64)> = chosen.copied().collect();
        let first = (!chosen.is_empty()).then_some((1, 1.0));
        for (count, most) in first.into_iter().chain(chosen) {
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
    if only.is_empty() {
        with_slow(bench, book, bytes(64))?;
    }
    if only.is_empty() || only.contains(&COUNT_WITH_DEAD) {
        with_dead(bench, book, bytes(64))?;
    }
    Ok(())
}

/// Copies of which one receiver dies when a third is in, or loses its link: the part that it was to
/// pass on comes from others.
fn with_dead(bench: &CaseFixture, book: &mut BenchResults, bytes: u64) -> Result<()> {
    let cluster = bench.cluster(1 + COUNT_WITH_DEAD, &[RATE_MBIT])?;
    let whole = copy(bench, &cluster, (COUNT_WITH_DEAD, bytes), (RATE_MBIT, RATE_MBIT))?.seconds;
    drop(cluster);
    for (fault, is_killed) in [("is killed", true), ("loses its link", false)] {
        let cluster = bench.cluster(1 + COUNT_WITH_DEAD, &[RATE_MBIT])?;
        book.now(&format!("{COUNT_WITH_DEAD} copies, one receiver {fault}"));
        let (rows, files) = rows((COUNT_WITH_DEAD, bytes), (RATE_MBIT, RATE_MBIT));
        for file in &files {
            let _ = fs::remove_file(bench.lab.path(file));
        }
        let mut master = cluster.start(&format!("dead-{is_killed}"), &rows)?;
        let mut is_struck = false;
        while !master.has_ended(READING) {
            if !is_struck && cluster.received(DEAD_NODE)?[0] > bytes / 3 {
                is_struck = true;
                if is_killed {
                    cluster.daemon(DEAD_NODE).signal(Signal::SIGKILL)?;
                } else {
                    cluster.fault(DEAD_NODE, 0, &["drop"])?;
                }
            }
        }
        ensure!(is_struck, "the copies were made before a third was in");
        let report = report(&master.wait()?)?;
        let others = files.iter().zip(2..).filter(|(_, node)| *node != DEAD_NODE);
        let seconds: Vec<f64> =
            others.map(|(file, _)| took(&bench.lab.path(file), bytes)).collect::<Result<_>>()?;
        let seconds = seconds.into_iter().fold(0.0, f64::max);
        let what = format!("{COUNT_WITH_DEAD} copies, one receiver {fault}: the others / all");
        let note = format!("{seconds:.2} s; without, {whole:.2} s");
        book.ratio(what, seconds / whole, Threshold::AtMost(1.1), note);
        book.keep(report);
    }
    Ok(())
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
    let (rows, files) = rows((count, bytes), (rate_mbit, last_mbit));
    for file in &files {
        // A replaced file keeps its time of creation.
        let _ = fs::remove_file(bench.lab.path(file));
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

/// Returns the rows of so many copies of so many bytes, and the names of the files.
fn rows((count, bytes): (u32, u64), (rate_mbit, last_mbit): (u32, u32)) -> (String, Vec<String>) {
    let last = bytes - 1;
    let mut rows = format!("writer {} pattern:3 0 0-{last} speed={rate_mbit}M\n", address(1));
    let files: Vec<String> = (1..=count).map(|copy| format!("copy{copy}")).collect();
    for (node, file) in (2..).zip(&files) {
        let speed = if node == 1 + count { last_mbit } else { rate_mbit };
        rows += &format!("reader {} file:///{file} 0 0-{last} speed={speed}M\n", address(node));
    }
    (rows, files)
}

/// Returns the time from the creation of a file to its renaming.
fn took(file: &Path, bytes: u64) -> Result<f64> {
    let about = fs::metadata(file).with_context(|| format!("no {}", file.display()))?;
    ensure!(about.len() == bytes, "{} has {} bytes, not {bytes}", file.display(), about.len());
    let made = about.created()?.duration_since(UNIX_EPOCH)?.as_secs_f64();
    Ok(about.ctime() as f64 + about.ctime_nsec() as f64 * 1e-9 - made)
}
