//! Options of the ssh benchmarks.

use std::path::PathBuf;

use clap::Args;

use crate::options::{LabOptions, whole_mebibytes};

/// A case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum SshCase {
    /// One small file to one host, beside `ssh HOST true`; also where the program has to be sent.
    Begin,
    /// One small file to 64 hosts, beside `xargs -P 8 ssh HOST true`.
    Hosts,
    /// Every form of a copy, between nodes of a lab under load. Needs root.
    Forms,
    /// One file over 4 × 1 Gbit/s, beside iperf3, scp, rsync and rcp. Needs root.
    Stripes,
    /// One file over 2 × 1 Gbit/s through firewalls: one port, one side or neither that can be
    /// dialled, beside the same without a firewall and `ssh HOST cat`. Needs root.
    Walls,
    /// Kills at random moments: of the command, of its ssh, of nodes and of sessions.
    Kills,
}

/// Cases and their parameters.
#[derive(Args)]
pub(crate) struct SshOptions {
    /// Takes only these cases.
    #[arg(value_enum)]
    pub(super) cases: Vec<SshCase>,
    /// Number of turns; medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// Number of hosts in the case `hosts`: addresses of this machine.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=250))]
    pub(super) hosts: u32,
    /// Bytes of the file in the cases `stripes` and `walls`. Whole MiB.
    #[arg(long, default_value = "1G", value_parser = whole_mebibytes)]
    pub(super) bytes: u64,
    /// Number of kills.
    #[arg(long, default_value_t = 100)]
    pub(super) kills: u32,
    /// Seed of the kills.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Static program that is sent to hosts which have none.
    #[arg(long, value_name = "PROGRAM")]
    pub(super) sent_program: Option<PathBuf>,
    /// Folder of a run's files.
    #[arg(long, default_value = "build/bench")]
    pub(super) dir: PathBuf,
    /// Folder of the programs built by tools/peers.
    #[arg(long, default_value = "build/peers")]
    pub(super) peers: PathBuf,
    /// Seconds that any one process may run.
    #[arg(long, default_value_t = 120)]
    pub(super) deadline: u64,
    #[command(flatten)]
    pub(super) labs: LabOptions,
}
