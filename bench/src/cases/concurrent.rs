//! Several transfers at once between the same two nodes: together as fast as one, and fair to each
//! other.

use anyhow::Result;

use super::book::BenchResults;
use super::fixture::{CaseFixture, rows};
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster};
use crate::process::{EndedProcess, RunningProcess};
use crate::scenario::BenchScenario;

const RATES_MBIT: [u32; 4] = [1000; 4];

/// Result of concurrent transfers.
struct ConcurrentRun {
    /// All their bytes, over the time from the first command's start to the last one's end.
    gbit_per_s: f64,
    /// The rate of each, by its own report.
    each: Vec<f64>,
}

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let cluster = bench.cluster(2, &RATES_MBIT)?;
    let bytes = bench.bytes_in(bench.options.seconds, &RATES_MBIT);
    let mut alone = None;
    for count in [1, 2, 4] {
        book.now(&format!("{count} at once"));
        let together = at_once(bench, &cluster, count, bytes / count, book)?;
        let one = *alone.get_or_insert(together.gbit_per_s);
        if count == 1 {
            book.figure("1 transfer", together.gbit_per_s, "Gbit/s", "");
            continue;
        }
        let each: Vec<String> = together.each.iter().map(|rate| format!("{rate:.2}")).collect();
        let note = format!("{:.2} Gbit/s; each {}", together.gbit_per_s, each.join(", "));
        book.ratio(
            format!("{count} transfers / 1"),
            together.gbit_per_s / one,
            Threshold::AtLeast(0.95),
            note,
        );
        book.ratio(
            format!("{count} transfers: farthest from the mean"),
            spread(&together.each),
            Threshold::AtMost(0.2),
            "",
        );
    }
    Ok(())
}

fn at_once(
    bench: &CaseFixture,
    cluster: &LabCluster,
    count: u64,
    bytes: u64,
    book: &mut BenchResults,
) -> Result<ConcurrentRun> {
    let work = bench.lab.prepare_part(BenchScenario::MemoryToMemory, bytes >> 20 << 20)?;
    let started: Result<Vec<RunningProcess>> =
        (0..count).map(|each| cluster.start(&format!("at-once-{each}"), &rows(&work))).collect();
    let started = started?;
    let offsets: Vec<f64> =
        started.iter().map(|it| (it.started() - started[0].started()).as_secs_f64()).collect();
    let ended: Result<Vec<EndedProcess>> = started.into_iter().map(RunningProcess::wait).collect();
    let (mut last, mut each) = (0.0_f64, Vec::new());
    for (ended, offset) in ended?.iter().zip(offsets) {
        last = last.max(offset + ended.seconds);
        let transferred = CompletedTransfer::of(ended, work.bytes)?;
        each.push(transferred.gbit_per_s);
        book.keep(transferred.report);
    }
    Ok(ConcurrentRun { gbit_per_s: (work.bytes * count) as f64 * 8e-9 / last, each })
}

/// Returns the largest deviation from the mean, as a part of it.
fn spread(rates: &[f64]) -> f64 {
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    rates.iter().map(|rate| (rate / mean - 1.0).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_from_the_mean_counts() {
        assert!((spread(&[1.0, 1.0, 1.0, 1.6]) - 0.45 / 1.15).abs() < 1e-9);
        assert!(spread(&[2.0, 2.0]) < 1e-9);
    }
}
