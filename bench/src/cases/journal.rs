//! Cost of the journal: a file to a file over one link, with and without a journal, in turns.

use anyhow::Result;

use super::book::BenchResults;
use super::fixture::{CaseFixture, rows};
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster};
use crate::report::median;
use crate::scenario::{BenchScenario, WorkItem};

/// Rates of the link, one at a time.
const RATES_MBIT: [u32; 2] = [1000, 2500];
/// Pairs of transfers; the median of their ratios counts, and the order alternates.
const PAIRS: u32 = 7;

/// Results of transfers of one kind.
#[derive(Default)]
struct JournalRuns {
    gbit_per_s: Vec<f64>,
    cpu_seconds: Vec<f64>,
}

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    RATES_MBIT.into_iter().try_for_each(|rate| at(bench, rate, book))
}

fn at(bench: &CaseFixture, rate_mbit: u32, book: &mut BenchResults) -> Result<()> {
    let cluster = bench.cluster(2, &[rate_mbit])?;
    let mut sides: [JournalRuns; 2] = Default::default();
    for pair in 0..PAIRS {
        for turn in 0..2 {
            let keeps = (pair + turn) % 2 == 0;
            let title = if keeps { "with a journal" } else { "without" };
            book.now(&format!("{rate_mbit} Mbit/s, pair {}: {title}", pair + 1));
            let work = bench.work(BenchScenario::FileToFile, &[rate_mbit])?;
            let transferred = transfer(bench, &cluster, &work, keeps)?;
            let side = &mut sides[usize::from(keeps)];
            side.gbit_per_s.push(transferred.gbit_per_s);
            side.cpu_seconds.push(transferred.cpu_seconds());
            book.keep(transferred.report);
        }
    }
    let [without, with] = sides;
    let ratios = |with: &[f64], without: &[f64]| {
        with.iter().zip(without).map(|(with, without)| with / without).collect()
    };
    let ratio = |with: &[f64], without: &[f64]| median(ratios(with, without)).unwrap_or_default();
    let rate = median(with.gbit_per_s.clone()).unwrap_or_default();
    book.figure(format!("{rate_mbit} Mbit/s: with a journal"), rate, "Gbit/s", "");
    let note = format!("median of {PAIRS} pairs");
    let rates = ratio(&with.gbit_per_s, &without.gbit_per_s);
    book.ratio(
        format!("{rate_mbit} Mbit/s: rate with / without"),
        rates,
        Threshold::AtLeast(0.99),
        note.clone(),
    );
    let cpu = ratio(&with.cpu_seconds, &without.cpu_seconds);
    book.figure(format!("{rate_mbit} Mbit/s: CPU time with / without"), cpu, "", note);
    Ok(())
}

fn transfer(
    bench: &CaseFixture,
    cluster: &LabCluster,
    work: &WorkItem,
    keeps: bool,
) -> Result<CompletedTransfer> {
    let rows = rows(work);
    let started =
        if keeps { cluster.start_kept("journal", &rows) } else { cluster.start("journal", &rows) };
    let transferred = started?.wait().and_then(|ended| {
        let transferred = CompletedTransfer::of(&ended, work.bytes)?;
        bench.lab.clear(work, false)?;
        Ok(transferred)
    });
    if transferred.is_err() {
        bench.lab.discard(work);
    }
    transferred
}
