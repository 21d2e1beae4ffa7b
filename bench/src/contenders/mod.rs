//! Contenders of a scenario: the program, its raw limit, and its peers.
//!
//! Each runs real programs as their users would, with their fast settings; measurements.md has the
//! sources of these.

pub(crate) mod gridftp;
mod iperf;
mod ours;
mod rclone;
mod rcp;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::lab::WorkDir;
use crate::process;
use crate::raw::{RawLimit, WaitMode};
use iperf::StreamCount;

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

/// Duration of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunTiming {
    /// Time from the first byte to the last, if the program reports it.
    pub(crate) data_seconds: Option<f64>,
    /// Duration of the whole command; servers that a user would find running are not included.
    pub(crate) wall_seconds: f64,
}

impl RunTiming {
    /// Returns the timing of a program that reports none.
    fn wall(seconds: f64) -> RunTiming {
        RunTiming { data_seconds: None, wall_seconds: seconds }
    }
}

/// A contender.
pub(crate) trait Contender {
    /// Returns the name in tables, in the JSON, and for `--only`.
    fn name(&self) -> &'static str;

    /// Returns true if it supports the scenario.
    fn plays(&self, scenario: BenchScenario) -> bool;

    /// Returns the missing prerequisite on this machine, if any.
    fn missing(&self) -> Option<String>;

    /// Moves the bytes once, from processes started to processes ended.
    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming>;
}

/// Returns all contenders, ours first.
///
/// `cep_fast` is the program to measure, `peers` the folder that `tools/peers` built in, `cores`
/// the CPUs of the raw limit.
pub(crate) fn all(
    cep_fast: &Path,
    peers: &Path,
    cores: Option<(usize, usize)>,
) -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(ours::CepFast { program: cep_fast.to_owned(), checks: true }),
        Box::new(ours::CepFast { program: cep_fast.to_owned(), checks: false }),
        Box::new(RawLimit { cores, wait: WaitMode::Gather }),
        Box::new(RawLimit { cores, wait: WaitMode::Rest }),
        Box::new(iperf::IperfContender { streams: StreamCount::One }),
        Box::new(iperf::IperfContender { streams: StreamCount::Two }),
        Box::new(iperf::IperfContender { streams: StreamCount::Four }),
        Box::new(gridftp::GridFtp),
        Box::new(rclone::Rclone),
        Box::new(rcp::Rcp { binaries: peers.join("bin") }),
    ]
}

/// Returns an error about the first of these programs that is missing.
pub(crate) fn missing_program(programs: &[&str]) -> Option<String> {
    let absent = programs.iter().find(|program| process::find(program).is_none())?;
    Some(format!("{absent} is not installed (tools/peers)"))
}

/// Returns the full path of a program that `missing` has found.
pub(crate) fn program(name: &str) -> PathBuf {
    process::find(name).unwrap_or_else(|| PathBuf::from(name))
}
