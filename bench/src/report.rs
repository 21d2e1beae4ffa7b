//! Samples to medians, medians to ratios, both to a table and to JSON.

use anyhow::{Context, Result};
use comfy_table::Table;
use serde::Serialize;

use crate::contenders::Scenario;
use crate::loopback::{Outcome, Sample};

/// The contenders that are not peers.
const OURS: &str = "ours";
const RAW: &str = "raw";

/// Everything that one benchmark found.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) bytes: u64,
    pub(crate) rounds: u32,
    pub(crate) machine: Machine,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) medians: Vec<Median>,
    pub(crate) ratios: Vec<Ratio>,
}

/// What the figures depend on beside the programs.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) core_count: usize,
    /// Processes that wanted a core in the minute before the first run: above about a half, somebody else was working too.
    pub(crate) load_before: f64,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn look() -> Result<Machine> {
        let core_count = std::thread::available_parallelism()?.get();
        let load = std::fs::read_to_string("/proc/loadavg").context("/proc is not mounted")?;
        let load_before =
            load.split(' ').next().and_then(|load| load.parse().ok()).context("no figure in /proc/loadavg")?;
        Ok(Machine { core_count, load_before })
    }
}

/// The medians of one contender in one scenario, each figure by itself.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Median {
    pub(crate) scenario: Scenario,
    pub(crate) contender: &'static str,
    pub(crate) gbit_per_s: Option<f64>,
    pub(crate) wall_gbit_per_s: f64,
    pub(crate) cpu_seconds_per_gib: f64,
}

/// Our speed as a multiple of another's.
#[derive(Serialize)]
pub(crate) struct Ratio {
    pub(crate) scenario: Scenario,
    pub(crate) over: &'static str,
    pub(crate) ratio: f64,
    /// Whether both are rates of the data alone; otherwise both are of the whole command.
    pub(crate) data_only: bool,
}

impl Report {
    pub(crate) fn new(bytes: u64, rounds: u32, machine: Machine, outcomes: Vec<Outcome>) -> Report {
        let medians: Vec<Median> = outcomes.iter().filter_map(Median::of).collect();
        let ratios = Scenario::ALL.into_iter().flat_map(|scenario| ratios(scenario, &medians)).collect();
        Report { bytes, rounds, machine, outcomes, medians, ratios }
    }

    /// The tables for people.
    pub(crate) fn table(&self) -> String {
        let Machine { core_count, load_before } = self.machine;
        let mut text = format!("{core_count} cores, load before the first run {load_before}\n");
        for scenario in Scenario::ALL {
            if self.outcomes.iter().any(|outcome| outcome.scenario == scenario) {
                text += &format!("\n{}\n{}\n", scenario.title(), self.scenario_table(scenario));
            }
        }
        for ratio in &self.ratios {
            let kind = if ratio.data_only { "data" } else { "whole command" };
            text += &format!("{}: ours / {} = {:.2} ({kind})\n", ratio.scenario.title(), ratio.over, ratio.ratio);
        }
        text
    }

    fn scenario_table(&self, scenario: Scenario) -> Table {
        let mut table = Table::new();
        table.set_header(["", "Gbit/s", "whole command, Gbit/s", "CPU s/GiB", "rounds"]);
        for outcome in self.outcomes.iter().filter(|outcome| outcome.scenario == scenario) {
            let median = self.medians.iter().find(|m| m.scenario == scenario && m.contender == outcome.contender);
            let data = median.and_then(|median| median.gbit_per_s);
            table.add_row([
                outcome.contender.to_owned(),
                data.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1}")),
                median.map_or_else(|| "–".to_owned(), |median| format!("{:.1}", median.wall_gbit_per_s)),
                median.map_or_else(|| "–".to_owned(), |median| format!("{:.2}", median.cpu_seconds_per_gib)),
                outcome.note.clone().unwrap_or_else(|| outcome.samples.len().to_string()),
            ]);
        }
        table
    }
}

impl Median {
    /// The medians of an outcome that has samples.
    fn of(outcome: &Outcome) -> Option<Median> {
        let over = |figure: fn(&Sample) -> Option<f64>| median(outcome.samples.iter().filter_map(figure).collect());
        Some(Median {
            scenario: outcome.scenario,
            contender: outcome.contender,
            gbit_per_s: over(|sample| sample.gbit_per_s),
            wall_gbit_per_s: over(|sample| Some(sample.wall_gbit_per_s))?,
            cpu_seconds_per_gib: over(|sample| Some(sample.cpu_seconds_per_gib))?,
        })
    }
}

/// Ours over the raw limit, and over the fastest peer.
fn ratios(scenario: Scenario, medians: &[Median]) -> Vec<Ratio> {
    let here: Vec<&Median> = medians.iter().filter(|median| median.scenario == scenario).collect();
    let Some(ours) = here.iter().find(|median| median.contender == OURS) else { return Vec::new() };
    let raw = here.iter().find(|median| median.contender == RAW).map(|raw| ratio(ours, raw));
    let peers = here.iter().filter(|median| ![OURS, RAW].contains(&median.contender));
    // The best peer is the one that we are least ahead of.
    let best = peers.map(|peer| ratio(ours, peer)).min_by(|a, b| a.ratio.total_cmp(&b.ratio));
    raw.into_iter().chain(best).collect()
}

/// Like with like: the data's rate where both programs tell it, the whole command's otherwise.
fn ratio(ours: &Median, other: &Median) -> Ratio {
    let data = ours.gbit_per_s.zip(other.gbit_per_s);
    let (mine, theirs) = data.unwrap_or((ours.wall_gbit_per_s, other.wall_gbit_per_s));
    Ratio { scenario: ours.scenario, over: other.contender, ratio: mine / theirs, data_only: data.is_some() }
}

/// The middle of the figures, or the mean of the two in the middle.
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

    fn of(contender: &'static str, data: Option<f64>, wall: f64) -> Median {
        let scenario = Scenario::FileToFile;
        Median { scenario, contender, gbit_per_s: data, wall_gbit_per_s: wall, cpu_seconds_per_gib: 1.0 }
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
        let medians =
            [of(OURS, Some(20.0), 16.0), of(RAW, Some(25.0), 24.0), of("slow", None, 2.0), of("fast", None, 8.0)];
        let found: Vec<(&str, f64, bool)> =
            ratios(Scenario::FileToFile, &medians).iter().map(|r| (r.over, r.ratio, r.data_only)).collect();
        assert_eq!(found, [(RAW, 0.8, true), ("fast", 2.0, false)]);
        assert!(ratios(Scenario::MemoryToMemory, &medians).is_empty());
    }
}
