//! Figures of a run: a transfer's report as rates, efficiency and processor time for each node and
//! NIC.

use serde::Serialize;

use crate::core::report::{NodeReport, NodeRole, RailReport, Report, ReportError, gbit_per_s};
use crate::core::units::{BitRate, goodput};

/// Results of `bench`: the object for `--json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct BenchFigures {
    /// Intended duration of each measurement.
    pub(crate) seconds_asked: f64,
    /// `crc64`, `blake3` or `none`.
    pub(crate) check: String,
    /// One measurement for each number of NICs, ascending; with `--threads`, for each number of
    /// threads.
    pub(crate) steps: Vec<BenchStep>,
    /// With `--threads`: the sufficient number of threads for each NIC.
    pub(crate) threads_per_nic: Option<usize>,
    /// Cause, if the last measurement did not complete.
    pub(crate) error: Option<ReportError>,
}

/// Returns the fewest threads for each NIC whose rate is close to the best; `None` without
/// measurements. More threads cost CPUs, slots and flows, for a gain within the noise of the
/// measurement.
pub(crate) fn threads_enough(steps: &[BenchStep]) -> Option<usize> {
    let best = steps.iter().map(|step| step.rate.gbit_per_s).reduce(f64::max)?;
    let enough = steps.iter().filter(|step| step.rate.gbit_per_s >= ENOUGH * best);
    enough.map(|step| step.threads).min()
}

/// Part of the best rate that counts as equal.
const ENOUGH: f64 = 0.95;

/// One measurement.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct BenchStep {
    /// NICs that each node used, if it has as many.
    pub(crate) nics: u32,
    /// Threads of each NIC, if it has as many.
    pub(crate) threads: usize,
    /// Payload received by all receivers.
    pub(crate) bytes: u64,
    /// Time from the first request to the last piece, by the receivers' clocks.
    pub(crate) seconds: f64,
    /// Payload over time.
    #[serde(flatten)]
    pub(crate) rate: LineUse,
    /// User and system time of all nodes together.
    #[serde(flatten)]
    pub(crate) cost: CpuCost,
    pub(crate) nodes: Vec<BenchNode>,
}

/// One node of a measurement.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct BenchNode {
    /// Its host:port.
    pub(crate) name: String,
    pub(crate) role: NodeRole,
    pub(crate) sent_gbit_per_s: f64,
    pub(crate) received_gbit_per_s: f64,
    #[serde(flatten)]
    pub(crate) rate: LineUse,
    #[serde(flatten)]
    pub(crate) cost: CpuCost,
    pub(crate) memory_bytes_max: u64,
    pub(crate) rails: Vec<BenchRail>,
}

/// One NIC of a node.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct BenchRail {
    pub(crate) nic: String,
    pub(crate) mtu: Option<u32>,
    pub(crate) sent_gbit_per_s: f64,
    pub(crate) received_gbit_per_s: f64,
    #[serde(flatten)]
    pub(crate) rate: LineUse,
}

/// Payload rate in the busier direction, compared with the line.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct LineUse {
    pub(crate) gbit_per_s: f64,
    /// Line rate, if known.
    pub(crate) line_gbit_per_s: Option<f64>,
    /// Part of it that packets of the MTU leave to payload.
    pub(crate) goodput_limit_gbit_per_s: Option<f64>,
    /// The rate over the line rate.
    pub(crate) efficiency: Option<f64>,
    /// The rate over the goodput limit.
    pub(crate) goodput_efficiency: Option<f64>,
}

/// Processor time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct CpuCost {
    pub(crate) cpu_seconds: f64,
    /// Cores that a rate of 1 Gbit/s keeps busy: processor time over time over rate.
    pub(crate) cpu_per_gbit_per_s: Option<f64>,
}

/// Rate and MTU of a line.
#[derive(Clone, Copy)]
struct LineRate {
    gbit_per_s: f64,
    goodput_gbit_per_s: f64,
}

impl BenchStep {
    /// Creates the figures of a complete transfer over `nics` NICs. `line_rate` is the user's rate
    /// for every NIC.
    pub(crate) fn new(nics: u32, report: &Report, line_rate: Option<BitRate>) -> BenchStep {
        let nodes: Vec<BenchNode> = report
            .nodes
            .iter()
            .map(|node| BenchNode::new(node, report.seconds, line_rate))
            .collect();
        let side = |roles: [NodeRole; 2]| {
            let of_side = nodes.iter().filter(|node| roles.contains(&node.role));
            sum(of_side.map(|node| node.rate.line()))
        };
        // Senders and receivers move the same bytes, so the smaller side limits both.
        let sides =
            [side([NodeRole::Sender, NodeRole::Both]), side([NodeRole::Receiver, NodeRole::Both])];
        let line = match sides {
            [Some(a), Some(b)] => {
                Some(if a.goodput_gbit_per_s < b.goodput_gbit_per_s { a } else { b })
            }
            _ => None,
        };
        let rate = LineUse::new(report.gbit_per_s, line);
        let cpu_seconds = report.nodes.iter().map(|node| node.cpu_seconds).sum();
        let cost = CpuCost::new(cpu_seconds, report.seconds, rate);
        let threads = report
            .nodes
            .iter()
            .flat_map(|node| &node.rails)
            .map(|rail| rail.threads)
            .max()
            .unwrap_or(1);
        BenchStep { nics, threads, bytes: report.bytes, seconds: report.seconds, rate, cost, nodes }
    }
}

impl BenchNode {
    fn new(node: &NodeReport, seconds: f64, line_rate: Option<BitRate>) -> BenchNode {
        let rails: Vec<BenchRail> =
            node.rails.iter().map(|rail| BenchRail::new(rail, seconds, line_rate)).collect();
        let sent_gbit_per_s = gbit_per_s(node.bytes_sent, seconds);
        let received_gbit_per_s = gbit_per_s(node.bytes_received, seconds);
        let rate = LineUse::new(
            sent_gbit_per_s.max(received_gbit_per_s),
            sum(rails.iter().map(|rail| rail.rate.line())),
        );
        BenchNode {
            name: node.name.clone(),
            role: node.role,
            sent_gbit_per_s,
            received_gbit_per_s,
            rate,
            cost: CpuCost::new(node.cpu_seconds, seconds, rate),
            memory_bytes_max: node.memory_bytes_max,
            rails,
        }
    }
}

impl BenchRail {
    fn new(rail: &RailReport, seconds: f64, line_rate: Option<BitRate>) -> BenchRail {
        let sent_gbit_per_s = gbit_per_s(rail.bytes_sent, seconds);
        let received_gbit_per_s = gbit_per_s(rail.bytes_received, seconds);
        let line_gbit_per_s = line_rate.map(|rate| rate.0 as f64 / 1e9).or(rail.line_gbit_per_s);
        let line = line_gbit_per_s.map(|gbit_per_s| {
            let share = goodput(rail.mtu.unwrap_or(ETHERNET_MTU));
            LineRate { gbit_per_s, goodput_gbit_per_s: gbit_per_s * share }
        });
        let rate = LineUse::new(sent_gbit_per_s.max(received_gbit_per_s), line);
        BenchRail {
            nic: rail.nic.clone(),
            mtu: rail.mtu,
            sent_gbit_per_s,
            received_gbit_per_s,
            rate,
        }
    }
}

impl LineUse {
    fn new(gbit_per_s: f64, line: Option<LineRate>) -> LineUse {
        LineUse {
            gbit_per_s,
            line_gbit_per_s: line.map(|line| line.gbit_per_s),
            goodput_limit_gbit_per_s: line.map(|line| line.goodput_gbit_per_s),
            efficiency: line.and_then(|line| finite(gbit_per_s / line.gbit_per_s)),
            goodput_efficiency: line.and_then(|line| finite(gbit_per_s / line.goodput_gbit_per_s)),
        }
    }

    fn line(&self) -> Option<LineRate> {
        let (gbit_per_s, goodput_gbit_per_s) =
            (self.line_gbit_per_s?, self.goodput_limit_gbit_per_s?);
        Some(LineRate { gbit_per_s, goodput_gbit_per_s })
    }
}

impl CpuCost {
    fn new(cpu_seconds: f64, seconds: f64, rate: LineUse) -> CpuCost {
        CpuCost { cpu_seconds, cpu_per_gbit_per_s: finite(cpu_seconds / seconds / rate.gbit_per_s) }
    }
}

/// Returns the sum of several lines; `None` if one is unknown, or without lines.
fn sum(lines: impl Iterator<Item = Option<LineRate>>) -> Option<LineRate> {
    let add = |a: LineRate, b: LineRate| LineRate {
        gbit_per_s: a.gbit_per_s + b.gbit_per_s,
        goodput_gbit_per_s: a.goodput_gbit_per_s + b.goodput_gbit_per_s,
    };
    lines.collect::<Option<Vec<LineRate>>>()?.into_iter().reduce(add)
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Default MTU of Ethernet.
const ETHERNET_MTU: u32 = 1500;

#[cfg(test)]
#[path = "figures_tests.rs"]
pub(super) mod tests;
