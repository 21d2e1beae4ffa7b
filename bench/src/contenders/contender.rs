//! The face that all contenders have, and the programs that they need.

use std::path::PathBuf;

use anyhow::Result;

use crate::lab::WorkDir;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

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
    pub(crate) fn wall(seconds: f64) -> RunTiming {
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

/// Returns an error about the first of these programs that is missing.
pub(crate) fn missing_program(programs: &[&str]) -> Option<String> {
    let absent = programs.iter().find(|program| process::find(program).is_none())?;
    Some(format!("{absent} is not installed (tools/peers)"))
}

/// Returns the full path of a program that `missing` has found.
pub(crate) fn program(name: &str) -> PathBuf {
    process::find(name).unwrap_or_else(|| PathBuf::from(name))
}
