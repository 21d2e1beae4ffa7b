//! Samples, medians and ratios of contenders, as a table and as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::Table;
use serde::Serialize;

use crate::bar::Threshold;
use crate::loopback::{ContenderOutcome, RunSample};
use crate::scenario::BenchScenario;

/// Contenders that are not peers.
const OURS: &str = "ours";
const UNCHECKED: &str = "ours-unchecked";
const SIGNED: &str = "ours-signed";
const SEALED: &str = "ours-sealed";
/// Peers that encrypt, with the least that sealed transfers are faster by.
const ENCRYPTING: [(&str, Option<f64>); 4] =
    [("rcp-tls", Some(2.0)), ("scp", Some(3.5)), ("rsync-ssh", Some(3.5)), ("iperf3-tls", None)];
/// The raw limit with both kinds of waiting receiver: the faster one is the limit.
pub(crate) const RAW: [&str; 2] = ["raw", "raw-resting"];
/// iperf3 with several numbers of connections: the best one counts.
const IPERF: [&str; 3] = ["iperf3", "iperf3-p2", "iperf3-p4"];

/// Results of one benchmark.
#[derive(Serialize)]
pub(crate) struct BenchReport {
    pub(crate) bytes: u64,
    pub(crate) rounds: u32,
    pub(crate) machine: BenchMachine,
    pub(crate) outcomes: Vec<ContenderOutcome>,
    pub(crate) medians: Vec<ContenderMedian>,
    pub(crate) ratios: Vec<FigureRatio>,
}

/// Writes the results of a benchmark to a file.
pub(crate) fn write(file: &Path, found: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(found)? + "\n";
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The machine, on which the figures depend.
#[derive(Serialize)]
pub(crate) struct BenchMachine {
    pub(crate) core_count: usize,
    /// Load in the minute before the first run: above about a half, other processes were working,
    /// too.
    pub(crate) load_before: f64,
}

impl BenchMachine {
    /// Reads the state of this machine.
    pub(crate) fn look() -> Result<BenchMachine> {
        let core_count = std::thread::available_parallelism()?.get();
        let load = std::fs::read_to_string("/proc/loadavg").context("/proc is not mounted")?;
        let load_before = load
            .split(' ')
            .next()
            .and_then(|load| load.parse().ok())
            .context("no figure in /proc/loadavg")?;
        Ok(BenchMachine { core_count, load_before })
    }
}

/// Medians of one contender in one scenario, each figure by itself.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct ContenderMedian {
    pub(crate) scenario: BenchScenario,
    pub(crate) contender: &'static str,
    pub(crate) gbit_per_s: Option<f64>,
    pub(crate) wall_gbit_per_s: f64,
    pub(crate) cpu_seconds_per_gib: f64,
}

/// One of our figures as a multiple of another contender's.
#[derive(Serialize)]
pub(crate) struct FigureRatio {
    pub(crate) scenario: BenchScenario,
    pub(crate) what: RatioKind,
    pub(crate) of: &'static str,
    pub(crate) over: &'static str,
    pub(crate) ratio: f64,
    pub(crate) bar: Option<Threshold>,
    /// True if the threshold is met, if there is one.
    pub(crate) holds: Option<bool>,
}

/// Kind of a ratio.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RatioKind {
    /// Rate of the data alone, if both programs report it.
    Rate,
    /// Rate of the whole command, otherwise.
    WholeCommandRate,
    /// CPU time of all processes, per GiB.
    Cpu,
}

impl BenchReport {
    pub(crate) fn new(
        bytes: u64,
        rounds: u32,
        machine: BenchMachine,
        outcomes: Vec<ContenderOutcome>,
    ) -> BenchReport {
        let medians: Vec<ContenderMedian> =
            outcomes.iter().filter_map(ContenderMedian::of).collect();
        let ratios = BenchScenario::ALL
            .into_iter()
            .flat_map(|scenario| ratios(scenario, &medians))
            .collect();
        BenchReport { bytes, rounds, machine, outcomes, medians, ratios }
    }

    /// Returns the tables for people.
    pub(crate) fn table(&self) -> String {
        let BenchMachine { core_count, load_before } = self.machine;
        let mut text = format!("{core_count} cores, load before the first run {load_before}\n");
        for scenario in BenchScenario::ALL {
            if self.outcomes.iter().any(|outcome| outcome.scenario == scenario) {
                text += &format!("\n{}\n{}\n", scenario.title(), self.scenario_table(scenario));
            }
        }
        for ratio in &self.ratios {
            text += &ratio.line();
        }
        text
    }

    /// Returns true if any threshold is missed.
    pub(crate) fn misses(&self) -> bool {
        self.ratios.iter().any(|ratio| ratio.holds == Some(false))
    }

    fn scenario_table(&self, scenario: BenchScenario) -> Table {
        let mut table = Table::new();
        table.set_header(["", "Gbit/s", "whole command, Gbit/s", "CPU s/GiB", "rounds"]);
        for outcome in self.outcomes.iter().filter(|outcome| outcome.scenario == scenario) {
            let median = self
                .medians
                .iter()
                .find(|m| m.scenario == scenario && m.contender == outcome.contender);
            let data = median.and_then(|median| median.gbit_per_s);
            table.add_row([
                outcome.contender.to_owned(),
                data.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1}")),
                median.map_or_else(
                    || "–".to_owned(),
                    |median| format!("{:.1}", median.wall_gbit_per_s),
                ),
                median.map_or_else(
                    || "–".to_owned(),
                    |median| format!("{:.2}", median.cpu_seconds_per_gib),
                ),
                outcome.note.clone().unwrap_or_else(|| outcome.samples.len().to_string()),
            ]);
        }
        table
    }
}

impl ContenderMedian {
    /// Returns the medians of an outcome that has samples.
    fn of(outcome: &ContenderOutcome) -> Option<ContenderMedian> {
        let over = |figure: fn(&RunSample) -> Option<f64>| {
            median(outcome.samples.iter().filter_map(figure).collect())
        };
        Some(ContenderMedian {
            scenario: outcome.scenario,
            contender: outcome.contender,
            gbit_per_s: over(|sample| sample.gbit_per_s),
            wall_gbit_per_s: over(|sample| Some(sample.wall_gbit_per_s))?,
            cpu_seconds_per_gib: over(|sample| Some(sample.cpu_seconds_per_gib))?,
        })
    }
}

/// Returns our ratios over the raw limit, over the best iperf3, and over the fastest of the others.
fn ratios(scenario: BenchScenario, medians: &[ContenderMedian]) -> Vec<FigureRatio> {
    let here: Vec<&ContenderMedian> =
        medians.iter().filter(|median| median.scenario == scenario).collect();
    let named = |name: &str| here.iter().copied().find(|median| median.contender == name);
    let Some(ours) = named(OURS) else { return Vec::new() };
    let is_peer = |name: &str| {
        let encrypts = ENCRYPTING.iter().any(|(peer, _)| *peer == name);
        ![OURS, UNCHECKED, SIGNED, SEALED].contains(&name)
            && !RAW.contains(&name)
            && !IPERF.contains(&name)
            && !encrypts
    };
    let mut found = Vec::new();
    if let Some(raw) =
        hardest(ours, here.iter().copied().filter(|median| RAW.contains(&median.contender)))
    {
        let part = if scenario == BenchScenario::MemoryToMemory { 0.95 } else { 0.9 };
        found.push(rate(ours, raw, Some(Threshold::AtLeast(part))));
    }
    if let Some(iperf) =
        hardest(ours, here.iter().copied().filter(|median| IPERF.contains(&median.contender)))
    {
        found.push(rate(ours, iperf, Some(Threshold::AtLeast(0.9))));
        let cpu = ours.cpu_seconds_per_gib / iperf.cpu_seconds_per_gib;
        found.push(FigureRatio::new(
            ours,
            iperf,
            RatioKind::Cpu,
            cpu,
            Some(Threshold::AtMost(1.3)),
        ));
        found.extend(
            named(UNCHECKED).map(|unchecked| rate(unchecked, iperf, Some(Threshold::AtLeast(1.0)))),
        );
    }
    let peers = here.iter().copied().filter(|median| is_peer(median.contender));
    found.extend(hardest(ours, peers).map(|peer| rate(ours, peer, None)));
    let Some(sealed) = named(SEALED) else { return found };
    let part = if scenario == BenchScenario::MemoryToMemory { 0.7 } else { 0.85 };
    found.push(rate(sealed, ours, Some(Threshold::AtLeast(part))));
    for (peer, least) in ENCRYPTING {
        let bar = least.map(Threshold::AtLeast);
        found.extend(named(peer).map(|peer| rate(sealed, peer, bar)));
    }
    found
}

/// Returns the contender over which our lead is smallest.
fn hardest<'a>(
    ours: &ContenderMedian,
    others: impl Iterator<Item = &'a ContenderMedian>,
) -> Option<&'a ContenderMedian> {
    others.min_by(|a, b| rate(ours, a, None).ratio.total_cmp(&rate(ours, b, None).ratio))
}

/// Compares equal rates: the data's if both programs report it, the whole command's otherwise.
fn rate(of: &ContenderMedian, over: &ContenderMedian, bar: Option<Threshold>) -> FigureRatio {
    match of.gbit_per_s.zip(over.gbit_per_s) {
        Some((mine, theirs)) => FigureRatio::new(of, over, RatioKind::Rate, mine / theirs, bar),
        None => FigureRatio::new(
            of,
            over,
            RatioKind::WholeCommandRate,
            of.wall_gbit_per_s / over.wall_gbit_per_s,
            bar,
        ),
    }
}

impl FigureRatio {
    fn new(
        of: &ContenderMedian,
        over: &ContenderMedian,
        what: RatioKind,
        ratio: f64,
        bar: Option<Threshold>,
    ) -> FigureRatio {
        let holds = bar.map(|bar| bar.holds(ratio));
        FigureRatio {
            scenario: of.scenario,
            what,
            of: of.contender,
            over: over.contender,
            ratio,
            bar,
            holds,
        }
    }

    fn line(&self) -> String {
        let what = match self.what {
            RatioKind::Rate => "data",
            RatioKind::WholeCommandRate => "whole command",
            RatioKind::Cpu => "CPU",
        };
        let held = self.bar.map_or_else(String::new, |bar| {
            format!(
                ", bar {}: {}",
                bar.text(),
                if self.holds == Some(true) { "holds" } else { "MISSED" }
            )
        });
        format!(
            "{}: {} / {} = {:.2} ({what}){held}\n",
            self.scenario.title(),
            self.of,
            self.over,
            self.ratio
        )
    }
}

/// Returns the middle of the figures, or the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(figures[middle]),
        _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(contender: &'static str, data: Option<f64>, wall: f64) -> ContenderMedian {
        let scenario = BenchScenario::FileToFile;
        ContenderMedian {
            scenario,
            contender,
            gbit_per_s: data,
            wall_gbit_per_s: wall,
            cpu_seconds_per_gib: 1.0,
        }
    }

    #[test]
    fn sealed_transfers_are_compared_with_what_encrypts() {
        let medians = [
            of(OURS, Some(20.0), 16.0),
            of(SEALED, Some(18.0), 14.0),
            of("rcp", None, 8.0),
            of("rcp-tls", None, 5.0),
            of("scp", None, 7.0),
        ];
        let ratios = ratios(BenchScenario::FileToFile, &medians);
        let found: Vec<(&str, &str, Option<bool>)> =
            ratios.iter().map(|r| (r.of, r.over, r.holds)).collect();
        let expected = [
            (OURS, "rcp", None),
            (SEALED, OURS, Some(true)),
            (SEALED, "rcp-tls", Some(true)),
            (SEALED, "scp", Some(false)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn medians_of_any_count() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![1.0, 4.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn ratios_compare_like_with_like_and_name_the_best_peer() {
        let medians = [
            of(OURS, Some(20.0), 16.0),
            of(RAW[0], Some(16.0), 24.0),
            of(RAW[1], Some(25.0), 24.0),
            of("slow", None, 2.0),
            of("fast", None, 8.0),
        ];
        let ratios = ratios(BenchScenario::FileToFile, &medians);
        let found: Vec<(&str, f64, RatioKind)> =
            ratios.iter().map(|r| (r.over, r.ratio, r.what)).collect();
        assert_eq!(
            found,
            [(RAW[1], 0.8, RatioKind::Rate), ("fast", 2.0, RatioKind::WholeCommandRate)]
        );
        assert_eq!(ratios[0].holds, Some(false), "a bar of 0.9");
        assert!(super::ratios(BenchScenario::MemoryToMemory, &medians).is_empty());
    }

    #[test]
    fn the_best_of_iperf_is_what_counts_with_checks_and_without() {
        let mut fast = of(IPERF[2], Some(40.0), 40.0);
        fast.cpu_seconds_per_gib = 0.5;
        let medians = [
            of(OURS, Some(38.0), 38.0),
            of(UNCHECKED, Some(40.0), 40.0),
            of(IPERF[0], Some(30.0), 30.0),
            fast,
        ];
        let ratios = ratios(BenchScenario::FileToFile, &medians);
        let found: Vec<(&str, &str, RatioKind, f64, Option<bool>)> =
            ratios.iter().map(|r| (r.of, r.over, r.what, r.ratio, r.holds)).collect();
        let expected = [
            (OURS, IPERF[2], RatioKind::Rate, 0.95, Some(true)),
            (OURS, IPERF[2], RatioKind::Cpu, 2.0, Some(false)),
            (UNCHECKED, IPERF[2], RatioKind::Rate, 1.0, Some(true)),
        ];
        assert_eq!(found, expected);
    }
}
