//! Resources of every case: its options, its working folder, and its lab.

use anyhow::Result;

use super::options::CaseOptions;
use crate::cluster::{LabCluster, LabTools, address};
use crate::lab::WorkDir;
use crate::scenario::{BenchScenario, WorkItem};

/// The share of a link's rate that TCP's payload gets at an MTU of 1500: 1448 of 1514 bytes.
pub(crate) const GOODPUT: f64 = 1448.0 / 1514.0;

/// Resources of every case.
pub(super) struct CaseFixture<'a> {
    pub(super) options: &'a CaseOptions,
    pub(super) lab: &'a WorkDir,
    pub(super) tools: &'a LabTools,
}

impl<'a> CaseFixture<'a> {
    pub(super) fn cluster(&self, nodes: u32, rates_mbit: &[u32]) -> Result<LabCluster<'a>> {
        LabCluster::up(self.lab, self.tools, nodes, rates_mbit)
    }

    /// Returns the bytes that links of these rates carry in `seconds`, in whole MiB.
    pub(super) fn bytes_in(&self, seconds: f64, rates_mbit: &[u32]) -> u64 {
        let sum: f64 = rates_mbit.iter().map(|&rate| f64::from(rate)).sum();
        ((sum * 1e6 * GOODPUT * seconds / 8.0) as u64).next_multiple_of(1 << 20)
    }

    /// Returns the work for links of these rates, limited by the source file if there is one.
    pub(super) fn work(&self, scenario: BenchScenario, rates_mbit: &[u32]) -> Result<WorkItem> {
        let bytes = self.bytes_in(self.options.seconds, rates_mbit);
        let most = if scenario == BenchScenario::FileToFile { self.lab.bytes() } else { u64::MAX };
        self.lab.prepare_part(scenario, bytes.min(most))
    }
}

/// Returns the rows of one transfer from node 1 to node 2.
pub(super) fn rows(work: &WorkItem) -> String {
    let last = work.bytes - 1;
    let (from, to) = match work.files {
        None => ("pattern:7", "null:"),
        Some(_) => ("file:///source", "file:///destination"),
    };
    format!("writer {} {from} 0 0-{last}\nreader {} {to} 0 0-{last}\n", address(1), address(2))
}
