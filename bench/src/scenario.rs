//! Scenarios: the bytes that a run moves, and where from and to.

use std::path::PathBuf;

/// Data of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BenchScenario {
    /// Bytes that cost nothing to make, to a receiver that drops them.
    MemoryToMemory,
    /// A file in the page cache to a new file on the file system of the working folder.
    FileToFile,
}

impl BenchScenario {
    pub(crate) const ALL: [BenchScenario; 2] =
        [BenchScenario::MemoryToMemory, BenchScenario::FileToFile];

    pub(crate) fn title(self) -> &'static str {
        match self {
            BenchScenario::MemoryToMemory => "memory → memory",
            BenchScenario::FileToFile => "cached file → new file",
        }
    }
}

/// Work of one run.
pub(crate) struct WorkItem {
    pub(crate) bytes: u64,
    /// Files of the file scenario.
    pub(crate) files: Option<BenchFiles>,
}

/// A source that exists and is cached, and a destination that does not exist.
pub(crate) struct BenchFiles {
    pub(crate) source: PathBuf,
    pub(crate) destination: PathBuf,
}

/// Scenario, as it is named on the command line.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum ScenarioName {
    Memory,
    File,
}

/// Returns the scenario of this name, or all of them.
pub(crate) fn scenarios(name: Option<ScenarioName>) -> Vec<BenchScenario> {
    match name {
        None => BenchScenario::ALL.to_vec(),
        Some(ScenarioName::Memory) => vec![BenchScenario::MemoryToMemory],
        Some(ScenarioName::File) => vec![BenchScenario::FileToFile],
    }
}
