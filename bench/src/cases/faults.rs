//! One NIC of four fails in mid-transfer: rate of the others from then on, and use of the NIC after
//! its return.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::book::BenchResults;
use super::fixture::{CaseFixture, rows};
use super::iperf;
use super::options::{FaultSide, NicFault};
use crate::bar::Threshold;
use crate::cluster::{self, CompletedTransfer, LabCluster};
use crate::process::EndedProcess;
use crate::scenario::{BenchScenario, WorkItem};
use crate::series::CounterSeries;

const RATES_MBIT: [u32; 4] = [1000; 4];
const RECEIVER: u32 = 2;
/// Interval of counter readings.
const READING: Duration = Duration::from_millis(100);
/// Time for the program to notice the fault, and for its last pieces.
const GRACE_SECONDS: f64 = 1.0;
/// Duration of the iperf3 measurement of the links: they are shaped, so it may be short.
const LINKS_SECONDS: f64 = 5.0;
/// Duration of the fault in the transfer in which the NIC comes back, and of the rest of that
/// transfer: longer than the longest backoff of a rail pair.
const RETURN_SECONDS: f64 = 6.0;

/// One fault of one NIC.
struct NicStrike {
    node: u32,
    nic: usize,
    fault: NicFault,
}

/// A transfer with its counters, in seconds from its start.
struct WatchedTransfer {
    series: CounterSeries,
    struck: Option<f64>,
    healed: Option<f64>,
    ended: EndedProcess,
}

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let mut cluster = bench.cluster(2, &RATES_MBIT)?;
    book.now("iperf3");
    let links = iperf::together(&cluster, LINKS_SECONDS)?;
    book.figure("iperf3, one over each NIC", links.iter().sum(), "Gbit/s", "");
    let node = if bench.options.at == FaultSide::Sender { 1 } else { RECEIVER };
    for &nic in &bench.options.struck {
        ensure!(nic < RATES_MBIT.len(), "there is no NIC {nic}");
        for &fault in
            if bench.options.faults.is_empty() { &NicFault::ALL[..] } else { &bench.options.faults }
        {
            let strike = NicStrike { node, nic, fault };
            if let Err(error) = goes_on(bench, &mut cluster, &strike, &links, book) {
                book.failed(strike.title(), &error);
            }
            if !bench.options.no_return
                && let Err(error) = comes_back(bench, &mut cluster, &strike, &links, book)
            {
                book.failed(format!("{}, then back", strike.title()), &error);
            }
        }
    }
    Ok(())
}

/// Checks that a file arrives unchanged, at the rate of the remaining links.
fn goes_on(
    bench: &CaseFixture,
    cluster: &mut LabCluster,
    strike: &NicStrike,
    links: &[f64],
    book: &mut BenchResults,
) -> Result<()> {
    book.now(&strike.title());
    let work = bench.work(BenchScenario::FileToFile, &RATES_MBIT)?;
    let watched = watch(cluster, &work, strike, None);
    let result = watched.and_then(|watched| {
        judge(&watched, &work, strike, links, book)?;
        bench.lab.clear(&work, true)
    });
    if result.is_err() {
        bench.lab.discard(&work);
    } else {
        book.must(format!("{}: right bytes", strike.title()), true, "");
    }
    result
}

/// Checks that the NIC carries its part again after its return.
fn comes_back(
    bench: &CaseFixture,
    cluster: &mut LabCluster,
    strike: &NicStrike,
    links: &[f64],
    book: &mut BenchResults,
) -> Result<()> {
    let title = format!("{}, then back", strike.title());
    book.now(&title);
    let third = bench.bytes_in(RETURN_SECONDS, &RATES_MBIT);
    let work = bench.lab.prepare_part(BenchScenario::MemoryToMemory, 3 * third)?;
    let watched = watch(cluster, &work, strike, Some(RETURN_SECONDS))?;
    keep(&watched, &title, book);
    let transferred = CompletedTransfer::of(&watched.ended, work.bytes)?;
    let healed = watched.healed.unwrap_or(f64::MAX);
    let back = watched.series.first_above(strike.nic, healed, links[strike.nic] / 2.0);
    let note = back.map_or_else(
        || "it was not used again".to_owned(),
        |back| {
            let end = last_byte(&watched, &transferred) - GRACE_SECONDS / 2.0;
            let rate = watched.series.gbit_per_s(strike.nic, back, end.max(back + 0.1));
            format!("after {:.1} s, at {rate:.2} Gbit/s from then on", back - healed)
        },
    );
    book.must(title, back.is_some(), note);
    Ok(())
}

/// Judges the rate between a second after the fault and a second before the end.
fn judge(
    watched: &WatchedTransfer,
    work: &WorkItem,
    strike: &NicStrike,
    links: &[f64],
    book: &mut BenchResults,
) -> Result<()> {
    let title = strike.title();
    keep(watched, &title, book);
    let transferred = CompletedTransfer::of(&watched.ended, work.bytes)?;
    let struck = watched.struck.unwrap_or(f64::MAX);
    let end = last_byte(watched, &transferred);
    let (from, to) = (struck + GRACE_SECONDS, end - GRACE_SECONDS);
    ensure!(
        from < to,
        "the transfer ended {:.1} s after the fault, too early to tell",
        end - struck
    );
    let left = strike.left(links);
    // Bytes that a dead NIC still receives are lost.
    let carrying: Vec<usize> = (0..links.len()).filter(|&nic| left[nic] > 0.0).collect();
    let reached: f64 = carrying.iter().map(|&nic| watched.series.gbit_per_s(nic, from, to)).sum();
    let remaining: f64 = left.iter().sum();
    let idle: Vec<String> = carrying
        .iter()
        .map(|&nic| {
            format!(
                "eth{nic} {:.1}",
                watched.series.seconds_below(nic, struck, end, left[nic] / 2.0)
            )
        })
        .collect();
    // A slow rate before the fault means that the machine was busy.
    let before: f64 =
        (0..links.len()).map(|nic| watched.series.gbit_per_s(nic, GRACE_SECONDS, struck)).sum();
    let late = watched.series.when(work.bytes / 100 * 99).map_or(0.0, |most| end - most);
    let note = format!(
        "{reached:.2} of {remaining:.2} Gbit/s, {before:.2} before; struck at {struck:.1} s of \
         {end:.1}; below half, s: {}; the last 1 % took {late:.1} s; the command ended {:.1} s \
         after; {}",
        idle.join(", "),
        watched.ended.seconds - end,
        transferred.cost()
    );
    book.ratio(
        format!("{title}: reached / remaining"),
        reached / remaining,
        Threshold::AtLeast(0.9),
        note,
    );
    Ok(())
}

/// Runs a transfer, with a fault once a third of its bytes have arrived. Reads the receiver's
/// counters all the time. The NIC is always restored.
fn watch(
    cluster: &mut LabCluster,
    work: &WorkItem,
    strike: &NicStrike,
    heal_after: Option<f64>,
) -> Result<WatchedTransfer> {
    // New daemons, free of the effects of the fault before.
    cluster.restart()?;
    let watched = watch_struck(cluster, work, strike, heal_after);
    strike.heal(cluster)?;
    watched
}

fn watch_struck(
    cluster: &LabCluster,
    work: &WorkItem,
    strike: &NicStrike,
    heal_after: Option<f64>,
) -> Result<WatchedTransfer> {
    let (mut series, mut struck, mut healed) = (CounterSeries::default(), None, None);
    let mut master = cluster.start("struck", &rows(work))?;
    loop {
        let now = master.started().elapsed().as_secs_f64();
        series.push(now, cluster.received(RECEIVER)?);
        if struck.is_none() && series.total() >= work.bytes / 3 {
            strike.hit(cluster)?;
            struck = Some(now);
        }
        if let (None, Some(struck), Some(heal_after)) = (healed, struck, heal_after)
            && now - struck >= heal_after
        {
            strike.heal(cluster)?;
            healed = Some(now);
        }
        if master.has_ended(READING) {
            let ended = master.wait()?;
            return Ok(WatchedTransfer { series, struck, healed, ended });
        }
    }
}

/// Returns the time of the last byte: the program reports its distance from the first.
fn last_byte(watched: &WatchedTransfer, transferred: &CompletedTransfer) -> f64 {
    let first = watched.series.when(1 << 20).unwrap_or_default();
    (first + transferred.seconds).min(watched.ended.seconds)
}

fn keep(watched: &WatchedTransfer, title: &str, book: &mut BenchResults) {
    let report = cluster::report(&watched.ended).ok();
    let (struck, healed, seconds) = (watched.struck, watched.healed, watched.ended.seconds);
    book.keep(json!({
        "run": title, "struck": struck, "healed": healed, "seconds": seconds, "report": report,
        "series": watched.series
    }));
}

impl NicFault {
    const ALL: [NicFault; 4] = [NicFault::Down, NicFault::Drop, NicFault::Reset, NicFault::Tenth];
}

impl NicStrike {
    fn title(&self) -> String {
        format!("eth{} {}", self.nic, format!("{:?}", self.fault).to_lowercase())
    }

    fn hit(&self, cluster: &LabCluster) -> Result<()> {
        let tenth = format!("{}mbit", RATES_MBIT[self.nic] / 10);
        let fault: &[&str] = match self.fault {
            NicFault::Down => &["down"],
            NicFault::Drop => &["drop"],
            NicFault::Reset => &["reset"],
            NicFault::Tenth => &["rate", &tenth],
        };
        cluster.fault(self.node, self.nic, fault)
    }

    fn heal(&self, cluster: &LabCluster) -> Result<()> {
        cluster.fault(self.node, self.nic, &["heal"])
    }

    /// Returns the remaining rate of each link.
    fn left(&self, links: &[f64]) -> Vec<f64> {
        let part = if self.fault == NicFault::Tenth { 0.1 } else { 0.0 };
        links
            .iter()
            .enumerate()
            .map(|(nic, rate)| if nic == self.nic { rate * part } else { *rate })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_nic_leaves_the_others_and_a_slow_one_a_tenth_of_itself() {
        let left = |fault| NicStrike { node: 2, nic: 1, fault }.left(&[1.0, 2.0, 4.0]);
        assert_eq!(left(NicFault::Reset), [1.0, 0.0, 4.0]);
        assert_eq!(left(NicFault::Tenth), [1.0, 0.2, 4.0]);
    }
}
