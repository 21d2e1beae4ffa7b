//! Options of the lab's cases.

use std::path::PathBuf;

use clap::Args;

use crate::options::{LabOptions, whole_mebibytes};
use crate::scenario::ScenarioName;

/// A case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum LabCase {
    /// Two nodes with 1, 2 and 4 NICs of 1 Gbit/s.
    Nics,
    /// Four NICs of 2.5 Gbit/s.
    Fast,
    /// NICs of 1000, 250 and 100 Mbit/s.
    Uneven,
    /// One of four NICs dies or slows down, and comes back.
    Faults,
    /// 1, 2 and 4 transfers at once between the same two nodes.
    Concurrent,
    /// Four senders of random overlapping windows, three receivers of random ranges.
    Random,
    /// One file to 1 to 64 nodes, which feed each other; also with a slow or dying one among them.
    Copies,
    /// Forty-five senders of 100 Mbit/s and one receiver of 1 Gbit/s.
    #[value(name = "fan-in")]
    FanIn,
    /// A sender that slows to a tenth in mid-transfer, or is a tenth as fast as its row says.
    Slowed,
    /// Four fast and four slow nodes of which rows declare nothing, or wrong speeds.
    Undeclared,
    /// A link that loses packets, resets connections, flaps or fails one way, and a frozen sender:
    /// beside iperf3 under the same, with no bar.
    Adverse,
    /// Cost of the journal, at 1 and 2.5 Gbit/s.
    Journal,
    /// Remaining work of an interrupted transfer of 102,400 pieces, and the time to determine it.
    Resume,
    /// A path with delay and loss, beside iperf3 with 1, 4 and 16 connections.
    Paths,
}

/// Cases and their parameters.
#[derive(Args)]
pub(crate) struct CaseOptions {
    /// Takes only these cases.
    #[arg(value_enum)]
    pub(super) cases: Vec<LabCase>,
    /// Takes only this scenario, in the cases that have both.
    #[arg(long, value_enum)]
    pub(super) scenario: Option<ScenarioName>,
    /// Duration of each transfer and each iperf3.
    #[arg(long, default_value_t = 10.5)]
    pub(super) seconds: f64,
    /// Number of turns in the cases that stripe; medians count.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// Takes only these numbers of NICs in the case `nics`.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 2, 4])]
    pub(super) nics: Vec<usize>,
    /// Only these NICs fail in the case `faults`.
    #[arg(long, value_name = "NIC", value_delimiter = ',', default_values_t = [0, 1, 2, 3])]
    pub(super) struck: Vec<usize>,
    /// Takes only these faults.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) faults: Vec<NicFault>,
    /// Node whose NIC fails.
    #[arg(long, value_enum, default_value = "receiver")]
    pub(super) at: FaultSide,
    /// Leaves out the second, longer transfer of each fault, in which the NIC comes back.
    #[arg(long)]
    pub(super) no_return: bool,
    /// Takes only these numbers of copies in the case `copies`: with 16 also one that dies.
    #[arg(long, value_name = "COUNT", value_delimiter = ',')]
    pub(super) copies: Vec<u32>,
    /// The seeds of the case `random`.
    #[arg(long, value_name = "SEED", value_delimiter = ',', default_values_t = [1, 2, 3, 4])]
    pub(super) seeds: Vec<u64>,
    /// Bytes of a file at most; K, M, G are powers of 1024. Whole MiB.
    #[arg(long, default_value = "6G", value_parser = whole_mebibytes)]
    pub(super) file_bytes: u64,
    /// Folder of a run's files; the destination's file system is part of the measurement.
    #[arg(long, default_value = "build/bench")]
    pub(super) dir: PathBuf,
    /// Seconds that any one process may run.
    #[arg(long, default_value_t = 180)]
    pub(super) deadline: u64,
    #[command(flatten)]
    pub(super) paths: PathOptions,
    #[command(flatten)]
    pub(super) labs: LabOptions,
}

/// Paths of the case `paths`: each delay with each loss and each congestion control.
#[derive(Args)]
pub(crate) struct PathOptions {
    /// Rate of the path, in Mbit/s.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) path_mbit: u32,
    /// Round-trip times in milliseconds.
    #[arg(long, value_name = "MS", value_delimiter = ',')]
    #[arg(default_values_t = [1.0, 10.0, 50.0, 100.0])]
    pub(super) round_trips: Vec<f64>,
    /// Packets lost at random, in percent.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    #[arg(default_values_t = [0.0, 0.01, 0.1, 1.0])]
    pub(super) losses: Vec<f64>,
    /// Congestion controls of both nodes.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = ["bbr", "cubic"])]
    pub(super) congestion: Vec<String>,
    /// Numbers of connections of iperf3.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 4, 16])]
    pub(super) connections: Vec<u32>,
    /// Leaves out the short transfers, or the long ones.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["long", "short"])]
    pub(super) lengths: Vec<PathLength>,
}

/// Length of a transfer over a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum PathLength {
    /// As long as `--seconds`.
    Long,
    /// 64 MiB.
    Short,
}

/// Fault of a NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum NicFault {
    /// The link is down.
    Down,
    /// Everything is dropped in both directions, silently.
    Drop,
    /// Every packet is answered with a reset.
    Reset,
    /// Its rate falls to a tenth.
    Tenth,
}

/// Node of the NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum FaultSide {
    Sender,
    Receiver,
}
