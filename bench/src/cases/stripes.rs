//! Striping: all NICs of two nodes at once, compared with the sum of single NICs.

use anyhow::Result;

use super::book::BenchResults;
use super::fixture::{CaseFixture, rows};
use super::iperf;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster};
use crate::report::median;
use crate::scenario::{BenchScenario, WorkItem};

const GIGABIT: u32 = 1000;

/// The medians of one cluster.
struct StripeMedians {
    ours: f64,
    /// Sum of the iperf3 rates over each NIC.
    sum: f64,
}

pub(super) fn nics(
    bench: &CaseFixture,
    scenario: BenchScenario,
    book: &mut BenchResults,
) -> Result<()> {
    let mut before: Option<(usize, f64)> = None;
    for &count in &bench.options.nics {
        let rates = vec![GIGABIT; count];
        let medians = stripe(bench, scenario, book, &format!("{count} × 1 Gbit/s"), &rates, 0.98)?;
        if let Some((fewer, rate)) = before.filter(|(fewer, _)| fewer * 2 == count) {
            book.ratio(
                format!("{fewer} → {count} NICs"),
                medians.ours / rate,
                Threshold::AtLeast(1.95),
                "",
            );
        }
        before = Some((count, medians.ours));
    }
    Ok(())
}

pub(super) fn fast(
    bench: &CaseFixture,
    scenario: BenchScenario,
    book: &mut BenchResults,
) -> Result<()> {
    stripe(bench, scenario, book, "4 × 2.5 Gbit/s", &[2500; 4], 0.95).map(drop)
}

pub(super) fn uneven(
    bench: &CaseFixture,
    scenario: BenchScenario,
    book: &mut BenchResults,
) -> Result<()> {
    stripe(bench, scenario, book, "1000 + 250 + 100 Mbit/s", &[1000, 250, 100], 0.95).map(drop)
}

/// Rounds of iperf3 over each NIC, of the program, and of MPTCP where there is more than one NIC.
fn stripe(
    bench: &CaseFixture,
    scenario: BenchScenario,
    book: &mut BenchResults,
    title: &str,
    rates_mbit: &[u32],
    bar: f64,
) -> Result<StripeMedians> {
    let cluster = bench.cluster(2, rates_mbit)?;
    let (mut sums, mut ours, mut mptcp, mut cost) =
        (Vec::new(), Vec::new(), Vec::new(), String::new());
    for round in 1..=bench.options.rounds {
        // First, because it waits for writeback of the run before: iperf3 needs the cores to
        // itself, too.
        let work = bench.work(scenario, cluster.rates_mbit())?;
        book.now(&format!("{title}, round {round}: iperf3"));
        let each = iperf::together(&cluster, bench.options.seconds)?;
        sums.push(each.iter().sum());
        book.now(&format!("{title}, round {round}: ours"));
        let transferred = transfer(bench, &cluster, &work, round)?;
        ours.push(transferred.gbit_per_s);
        cost = format!("{:.1} s, {}", transferred.seconds, transferred.cost());
        book.keep(transferred.report);
        if rates_mbit.len() > 1 && scenario == BenchScenario::MemoryToMemory {
            book.now(&format!("{title}, round {round}: MPTCP"));
            mptcp.push(iperf::mptcp(&cluster, bench.options.seconds)?);
        }
    }
    let medians = StripeMedians {
        ours: median(ours).unwrap_or_default(),
        sum: median(sums).unwrap_or_default(),
    };
    book.figure(format!("{title}: ours"), medians.ours, "Gbit/s", cost);
    book.figure(format!("{title}: iperf3, one over each NIC"), medians.sum, "Gbit/s", "");
    book.ratio(
        format!("{title}: ours / sum of iperf3"),
        medians.ours / medians.sum,
        Threshold::AtLeast(bar),
        "",
    );
    if let Some(mptcp) = median(mptcp) {
        let note = format!("MPTCP {mptcp:.2} Gbit/s");
        book.ratio(
            format!("{title}: ours / MPTCP"),
            medians.ours / mptcp,
            Threshold::Above(1.0),
            note,
        );
    }
    Ok(medians)
}

fn transfer(
    bench: &CaseFixture,
    cluster: &LabCluster,
    work: &WorkItem,
    round: u32,
) -> Result<CompletedTransfer> {
    let ended = cluster.start("stripe", &rows(work))?.wait()?;
    let transferred = CompletedTransfer::of(&ended, work.bytes).and_then(|transferred| {
        bench.lab.clear(work, round == 1)?;
        Ok(transferred)
    });
    if transferred.is_err() {
        bench.lab.discard(work);
    }
    transferred
}
