//! Arguments of a transfer, which `run` and `copy` share, with their help texts.

use std::path::PathBuf;
use std::time::Duration;

use super::key_args::KeyArgs;
use super::launch_args::LaunchArgs;
use super::values::{ProgressMode, VerifyArg, duration, rate, slots};
use crate::core::options::{CheckKind, Cipher, DataPath, Scheduler, WireLevel};
use crate::core::units::BitRate;

/// Common arguments of `run` and `copy`.
#[derive(Clone, Debug, clap::Args)]
pub struct TransferArgs {
    #[command(flatten)]
    /// Start of the nodes.
    pub launch: LaunchArgs,
    #[command(flatten)]
    /// Keys of the master and of its nodes.
    pub keys: KeyArgs,
    /// Scheduler that weighs the senders
    #[arg(long, value_enum, default_value_t = Scheduler::Auto, value_name = "NAME")]
    pub scheduler: Scheduler,
    /// Check of the bytes after the network
    #[arg(long, value_enum, default_value_t = CheckKind::Crc64, value_name = "NAME")]
    pub check: CheckKind,
    /// End with one JSON object on one line of standard output, instead of tables
    #[arg(long)]
    pub json: bool,
    /// Add one JSON object a line to FILE for each event of the transfer; - is standard output
    /// (docs/OPERATING.md lists them)
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Progress on standard error
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "WHEN")]
    pub progress: ProgressMode,
    /// Move at most RATE bits per second in all; K, M, G and T are powers of 1000 [default: no
    /// limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub limit: Option<BitRate>,
    /// Data path through the kernel
    #[arg(long, value_enum, default_value_t = DataPath::Auto, value_name = "PATH")]
    pub path: DataPath,
    /// Protection of the bytes on the wire [default: sealed; clear between loopback addresses]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub wire: Option<WireLevel>,
    /// Cipher of that protection [default: the fastest that both ends of a flow have]
    #[arg(long, value_enum, value_name = "NAME")]
    pub cipher: Option<Cipher>,
    /// Buffers of one block (1 MiB by default) that a node may use in each direction, 2 to 4096
    /// [default: 16, shared by its NICs]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,
    /// Report success only when all bytes are on stable storage
    #[arg(long)]
    pub fsync: bool,
    /// Further checks; separate several by commas
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub verify: Vec<VerifyArg>,
    /// Replace destination files that exist; without it they are an error
    #[arg(long)]
    pub overwrite: bool,
    /// Start from nothing, even where an earlier attempt left bytes that could be kept
    #[arg(long)]
    pub no_resume: bool,
    /// Give up after TIME in all; 30s, 5m, 2h, or plain seconds [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Give up when nothing has moved for TIME; 30s, 5m, 2h, or plain seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub stall_timeout: Duration,
}
