//! Diagnosis of a machine: a table and sentences for people, one JSON object for scripts.

use std::fmt;

use serde::Serialize;

use super::readings::{NicReading, NicUse};
use crate::core::doctor::peer::DoctorPeer;

/// A machine and its findings. `Display` is for people, [`Diagnosis::json`] for scripts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Diagnosis {
    /// Version as in `uname -r`.
    pub(crate) kernel: String,
    /// Data path of rails on this machine.
    pub(crate) path: KernelPath,
    pub(crate) nics: Vec<NicReading>,
    /// Findings together with a peer, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<DoctorPeer>,
    /// Worst first.
    pub(crate) findings: Vec<DoctorFinding>,
}

/// Data path between user space and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KernelPath {
    /// A ring, with slots that are pinned once.
    IoUringRegistered,
    /// A ring; the kernel pins the pages of a slot at every operation.
    IoUringUnregistered,
    /// Plain system calls.
    Plain,
}

/// Severity of a finding; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FindingLevel {
    /// It keeps this machine from line rate.
    Shortfall,
    /// It may cost something, or is good to know.
    Note,
    /// No problem.
    Ok,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DoctorFinding {
    pub(crate) level: FindingLevel,
    /// The culprit: a NIC's name, or a word such as `memlock`.
    pub(crate) about: String,
    pub(crate) found: String,
    /// Cost of the problem.
    pub(crate) cost: Option<String>,
    /// Command that solves the problem.
    pub(crate) remedy: Option<String>,
}

impl Diagnosis {
    /// Returns true if nothing keeps this machine from line rate.
    pub(crate) fn is_well(&self) -> bool {
        self.shortfalls() == 0
    }

    /// Returns the object for `--json`: one line, without a line break.
    pub(crate) fn json(&self) -> String {
        let with_count = WithCount { shortfalls: self.shortfalls(), diagnosis: self };
        serde_json::to_string(&with_count).expect("numbers, strings and lists have a form in JSON")
    }

    pub(crate) fn shortfalls(&self) -> usize {
        self.findings.iter().filter(|finding| finding.level == FindingLevel::Shortfall).count()
    }
}

#[derive(Serialize)]
struct WithCount<'a> {
    shortfalls: usize,
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
}

impl fmt::Display for DoctorFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            FindingLevel::Shortfall => "SHORTFALL",
            FindingLevel::Note => "note",
            FindingLevel::Ok => "ok",
        };
        write!(f, "{level:<9}  {}: {}", self.about, self.found)?;
        if let Some(cost) = &self.cost {
            write!(f, "\n           costs: {cost}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n           try: {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Display for KernelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KernelPath::IoUringRegistered => "io_uring with registered slots",
            KernelPath::IoUringUnregistered => "io_uring without registered slots",
            KernelPath::Plain => "plain calls, no io_uring",
        })
    }
}

impl fmt::Display for NicUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NicUse::Rail => "yes",
            NicUse::Loopback => "no: loopback",
            NicUse::Inside => "no: inside this machine",
            NicUse::Down => "no: down",
            NicUse::NoAddress => "no: no address",
        })
    }
}

/// Formats CPUs as the kernel and `taskset` do: `0-3,8`.
pub(crate) fn list(cpus: &[usize]) -> String {
    let runs =
        cpus.chunk_by(|a, b| a + 1 == *b).filter_map(|run| Some((*run.first()?, *run.last()?)));
    let runs = runs.map(
        |(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") },
    );
    runs.collect::<Vec<_>>().join(",")
}

/// A finding without cost and remedy.
pub(super) fn finding(level: FindingLevel, about: &str, found: impl Into<String>) -> DoctorFinding {
    DoctorFinding { level, about: about.into(), found: found.into(), cost: None, remedy: None }
}

impl DoctorFinding {
    pub(super) fn costs(mut self, cost: impl Into<String>) -> DoctorFinding {
        self.cost = Some(cost.into());
        self
    }

    pub(super) fn mended_by(mut self, remedy: impl Into<String>) -> DoctorFinding {
        self.remedy = Some(remedy.into());
        self
    }
}
