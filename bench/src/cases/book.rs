//! Results of the cases: figures with their thresholds, as a table and as JSON.

use std::fmt::Debug;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;
use serde_json::Value;

use crate::bar::Threshold;
use crate::lab::WorkDir;
use crate::options::CommonOptions;
use crate::report::BenchMachine;
use crate::scenario::BenchScenario;

/// Results of a run.
#[derive(Serialize)]
pub(crate) struct BenchResults {
    machine: BenchMachine,
    chapters: Vec<CaseResults>,
}

/// Results of one case in one scenario.
#[derive(Serialize)]
struct CaseResults {
    case: String,
    scenario: BenchScenario,
    findings: Vec<BenchFinding>,
    /// Reports and counters, to explain the figures.
    evidence: Vec<Value>,
}

#[derive(Serialize)]
struct BenchFinding {
    what: String,
    /// `None` if it could not be measured.
    value: Option<f64>,
    unit: &'static str,
    bar: Option<Threshold>,
    /// True if the threshold is met, if there is one.
    holds: Option<bool>,
    note: String,
}

impl BenchResults {
    pub(crate) fn new(machine: BenchMachine) -> BenchResults {
        BenchResults { machine, chapters: Vec::new() }
    }

    /// Starts the results of a case.
    pub(crate) fn open(&mut self, case: impl Debug, scenario: BenchScenario) {
        let case = format!("{case:?}").to_lowercase();
        self.chapters.push(CaseResults {
            case,
            scenario,
            findings: Vec::new(),
            evidence: Vec::new(),
        });
    }

    /// Prints the next step.
    #[allow(clippy::print_stderr, reason = "progress goes there")]
    pub(crate) fn now(&self, what: &str) {
        let chapter = self.chapters.last();
        eprintln!("{}: {what}", chapter.map_or("lab", |chapter| &chapter.case));
    }

    /// Adds a figure without a threshold.
    pub(crate) fn figure(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        note: impl Into<String>,
    ) {
        self.add(BenchFinding {
            what: what.into(),
            value: Some(value),
            unit,
            bar: None,
            holds: None,
            note: note.into(),
        });
    }

    /// Adds a ratio with its threshold.
    pub(crate) fn ratio(
        &mut self,
        what: impl Into<String>,
        value: f64,
        bar: Threshold,
        note: impl Into<String>,
    ) {
        let holds = Some(bar.holds(value));
        let (what, note) = (what.into(), note.into());
        self.add(BenchFinding { what, value: Some(value), unit: "", bar: Some(bar), holds, note });
    }

    /// Adds a condition that must hold.
    pub(crate) fn must(&mut self, what: impl Into<String>, holds: bool, note: impl Into<String>) {
        let (what, note) = (what.into(), note.into());
        self.add(BenchFinding { what, value: None, unit: "", bar: None, holds: Some(holds), note });
    }

    /// Adds a failed measurement, which misses any threshold.
    pub(crate) fn failed(&mut self, what: impl Into<String>, error: &anyhow::Error) {
        self.must(what, false, format!("{error:#}"));
    }

    /// Keeps data that explains the figures.
    pub(crate) fn keep(&mut self, evidence: Value) {
        self.chapter().evidence.push(evidence);
    }

    /// Returns true if any threshold is missed.
    pub(crate) fn misses(&self) -> bool {
        self.chapters
            .iter()
            .flat_map(|chapter| &chapter.findings)
            .any(|finding| finding.holds == Some(false))
    }

    /// Prints the tables, and writes the results to the file if that is requested. Ends this
    /// process with status 1 if thresholds are missed and that is requested.
    #[allow(clippy::print_stdout, reason = "results go to standard output")]
    pub(crate) fn publish(&self, lab: WorkDir, common: &CommonOptions) -> Result<()> {
        println!("{}", self.table());
        common.keep(self)?;
        // The working folder is removed before this process ends.
        drop(lab);
        common.judge(self.misses());
        Ok(())
    }

    /// Returns the tables for people.
    pub(crate) fn table(&self) -> String {
        let BenchMachine { core_count, load_before } = self.machine;
        let mut text = format!("{core_count} cores, load before the first run {load_before}\n");
        for chapter in &self.chapters {
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN).set_header([
                &format!("{}, {}", chapter.case, chapter.scenario.title()),
                "measured",
                "bar",
                "holds",
                "note",
            ]);
            for finding in &chapter.findings {
                table.add_row(finding.cells());
            }
            text += &format!("\n{table}\n");
        }
        text
    }

    fn add(&mut self, finding: BenchFinding) {
        self.chapter().findings.push(finding);
    }

    fn chapter(&mut self) -> &mut CaseResults {
        self.chapters.last_mut().expect("a case is opened before anything is found")
    }
}

impl BenchFinding {
    fn cells(&self) -> [String; 5] {
        let digits = if self.unit.is_empty() { 3 } else { 2 };
        let value =
            self.value.map_or_else(String::new, |value| format!("{value:.digits$} {}", self.unit));
        let holds = match self.holds {
            None => "",
            Some(true) => "yes",
            Some(false) => "NO",
        };
        [
            self.what.clone(),
            value,
            self.bar.map_or_else(String::new, Threshold::text),
            holds.to_owned(),
            self.note.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::LabCase;
    use super::*;

    #[test]
    fn a_missed_bar_is_told_and_shown() {
        let mut book = BenchResults::new(BenchMachine { core_count: 2, load_before: 0.0 });
        book.open(LabCase::Nics, BenchScenario::MemoryToMemory);
        book.figure("ours", 3.8, "Gbit/s", "");
        book.ratio("ours / sum", 0.98, Threshold::AtLeast(0.98), "");
        book.ratio("spread", 0.2, Threshold::AtMost(0.2), "");
        assert!(!book.misses());
        book.ratio("ours / MPTCP", 1.0, Threshold::Above(1.0), "");
        assert!(book.misses());
        let table = book.table();
        assert!(
            table.contains("3.80 Gbit/s") && table.contains("≥ 0.98") && table.contains("NO"),
            "{table}"
        );
    }

    #[test]
    fn what_failed_is_a_missed_bar() {
        let mut book = BenchResults::new(BenchMachine { core_count: 2, load_before: 0.0 });
        book.open(LabCase::Random, BenchScenario::MemoryToMemory);
        book.failed("seed 1", &anyhow::anyhow!("gone"));
        assert!(book.misses() && book.table().contains("gone"));
    }
}
