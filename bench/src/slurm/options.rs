//! Options of the Slurm benchmarks.

use std::path::PathBuf;

use clap::Args;

use crate::options::{LabOptions, whole_mebibytes};

/// A case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum SlurmCase {
    /// Each job script of docs/examples/slurm, against the bound that the NICs set.
    Scripts,
    /// One file to the disks of four nodes, beside sbcast.
    Broadcast,
    /// `bench --launch slurm` with a slow NIC and a busy node among four.
    Fleet,
    /// Kills at random moments: scancel, a step, its daemon, a node, the command, a time limit.
    Kills,
}

/// Cases and their parameters.
#[derive(Args)]
pub(crate) struct SlurmOptions {
    /// Takes only these cases.
    #[arg(value_enum)]
    pub(super) cases: Vec<SlurmCase>,
    /// Number of turns; medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// Bytes of the file. Whole MiB.
    #[arg(long, default_value = "1G", value_parser = whole_mebibytes)]
    pub(super) bytes: u64,
    /// Rate of each of the two NICs of a node in Mbit/s. Broadcasts have 1000.
    #[arg(long, default_value_t = 300)]
    pub(super) rate: u32,
    /// Number of kills.
    #[arg(long, default_value_t = 20)]
    pub(super) kills: u32,
    /// Seed of the kills.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Folder of a run's files.
    #[arg(long, default_value = "build/bench")]
    pub(super) dir: PathBuf,
    /// Seconds that any one job may take.
    #[arg(long, default_value_t = 300)]
    pub(super) deadline: u64,
    #[command(flatten)]
    pub(super) labs: LabOptions,
}
