//! Arguments of `bench`, with their help texts.

use std::path::PathBuf;
use std::time::Duration;

use super::host_operand::HostOperand;
use super::key_args::KeyArgs;
use super::launch_args::StarterArgs;
use super::values::{BenchNodes, PartArg, ProgressMode, duration, expect, rate, slots};
use crate::core::launch::method::LaunchMethod;
use crate::core::options::{CheckKind, WireLevel};
use crate::core::units::BitRate;

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Measure each of these hosts with several others, in both directions, and name those that are
    /// below the rest: host or user@host, with commas and hostlists, or @FILE; --launch says how
    /// nodes are started there
    #[arg(
        value_name = "HOST", value_parser = expect::<HostOperand>,
        conflicts_with_all = ["from", "to", "threads", "svg", "events"],
    )]
    pub hosts: Vec<HostOperand>,
    /// Senders: host:port, several separated by commas, hostlists such as dtn[01-04]:5000
    #[arg(long, value_name = "NODES", value_parser = expect::<BenchNodes>)]
    pub from: Option<BenchNodes>,
    /// Receivers; a node may be on both sides, which loads both directions
    #[arg(long, value_name = "NODES", value_parser = expect::<BenchNodes>)]
    pub to: Option<BenchNodes>,
    /// Duration of the measurement for each number of NICs, after short runs that find the amount
    /// of data [default: 5s]; with HOST, of each of its rounds [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub seconds: Option<Duration>,
    /// Name each HOST below this part of what is expected of it (0.9), too, and end with status 5
    /// if any is named
    #[arg(long, value_name = "PART", value_parser = expect::<PartArg>)]
    pub min_efficiency: Option<PartArg>,
    /// Line rate of every NIC in bits per second, if the kernel does not know it or is wrong
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub line_rate: Option<BitRate>,
    /// Start of the nodes; with local and without names, one sender and one receiver on this
    /// machine; HOSTs over ssh, in a Slurm job (slurm) or by 'COMMAND {host} {command}' as for copy
    #[arg(
        long, default_value_t = LaunchMethod::None, value_name = "HOW",
        value_parser = expect::<LaunchMethod>,
    )]
    pub launch: LaunchMethod,
    #[command(flatten)]
    /// Start on other hosts.
    pub starter: StarterArgs,
    #[command(flatten)]
    /// Keys of the master and of its nodes.
    pub keys: KeyArgs,
    /// Check of the bytes after the network
    #[arg(long, value_enum, default_value_t = CheckKind::Crc64, value_name = "NAME")]
    pub check: CheckKind,
    /// Protection of the bytes on the wire [default: sealed; clear between loopback addresses]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub wire: Option<WireLevel>,
    /// Buffers of 1 MiB that each launched node keeps, 2 to 4096 [default: 16, shared by its NICs]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,
    /// End with one JSON object on one line of standard output, instead of tables
    #[arg(long)]
    pub json: bool,
    /// Add one JSON object a line to FILE for each event of each run; - is standard output
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Measure over all NICs with 1, 2, … threads each, up to those of the nodes, and print the
    /// sufficient --threads-per-nic
    #[arg(long)]
    pub threads: bool,
    /// Draw Gbit/s over the number of NICs into FILE; replaces an existing file
    #[arg(long, value_name = "FILE", conflicts_with = "threads")]
    pub svg: Option<PathBuf>,
    /// Progress on standard error
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "WHEN")]
    pub progress: ProgressMode,
}
