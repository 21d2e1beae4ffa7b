//! Diagnosis of a machine: a table and sentences for people, one JSON object for scripts.

use std::fmt;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::readings::{NicReading, NicUse};
use crate::core::doctor::peer::DoctorPeer;
use crate::core::units::BitRate;

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

    fn shortfalls(&self) -> usize {
        self.findings.iter().filter(|finding| finding.level == FindingLevel::Shortfall).count()
    }
}

#[derive(Serialize)]
struct WithCount<'a> {
    shortfalls: usize,
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}; data path: {}\n", self.kernel, self.path)?;
        if !self.nics.is_empty() {
            let mut table = Table::new();
            table.load_style(NOTHING).set_header(HEADINGS);
            for nic in &self.nics {
                table.add_row(cells(nic));
            }
            writeln!(f, "{}\n", table.trim_fmt())?;
        }
        if let Some(peer) = &self.peer {
            writeln!(f, "{peer}\n")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        match self.shortfalls() {
            0 => write!(f, "\nNothing was found that stands between this machine and line rate."),
            1 => write!(f, "\n1 shortfall stands between this machine and line rate."),
            more => write!(f, "\n{more} shortfalls stand between this machine and line rate."),
        }
    }
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

fn cells(nic: &NicReading) -> [String; COLUMNS] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        nic.name.clone(),
        nic.usage.to_string(),
        or_dash(nic.speed_mbit.map(|mbit| BitRate(u64::from(mbit) * 1_000_000).to_string())),
        nic.mtu.to_string(),
        or_dash(nic.numa_node.map(|node| node.to_string())),
        or_dash((!nic.cpus.is_empty()).then(|| list(&nic.cpus))),
        or_dash(nic.driver.clone()),
        format!("{} rx, {} tx", nic.rx_queues, nic.tx_queues),
        or_dash((!nic.addresses.is_empty()).then(|| nic.addresses.join(" "))),
    ]
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

const COLUMNS: usize = 9;
const HEADINGS: [&str; COLUMNS] =
    ["NIC", "used", "speed", "MTU", "NUMA node", "CPUs", "driver", "queues", "addresses"];
