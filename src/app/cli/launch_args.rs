//! Arguments of how nodes are started, with their help texts.

use std::path::PathBuf;

use clap::ValueHint;

use super::values::expect;
use crate::core::launch::method::LaunchMethod;
use crate::core::launch::port_range::PortRange;

const LAUNCH_HELP: &str = "\
Start of the nodes: none dials daemons that run, local starts each host of the rows as a child \
process here with its own loopback address, ssh starts them on their hosts, slurm on hosts of the \
job that this process is part of, by one step, auto here, in the job, or by ssh. Another command \
is a starter with {host} and {command} in it: 'docker exec -i {host} {command}'; {command_line} \
is one word for a shell [default: copy auto, else none]";

/// Start of nodes, as it is typed.
#[derive(Clone, Debug, clap::Args)]
pub struct LaunchArgs {
    /// Start of the nodes: none dials daemons that run, local starts each host of the rows as a
    /// child process here with its own loopback address, ssh starts them on their hosts, slurm by a
    /// step of the job that this process is part of, auto here, in the job or by ssh, and another
    /// command where it is named
    #[arg(
        long, value_name = "HOW", value_parser = expect::<LaunchMethod>,
        help = LAUNCH_HELP,
    )]
    pub launch: Option<LaunchMethod>,
    #[command(flatten)]
    /// Start on other hosts.
    pub starter: StarterArgs,
    /// Root directory of launched nodes: their /x is DIR/x [default: /]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
}

/// Start of nodes on other hosts.
#[derive(Clone, Debug, clap::Args)]
pub struct StarterArgs {
    /// Command of --launch ssh and auto, with options of its own
    #[arg(long, value_name = "COMMAND", env = "CEP_FAST_SSH", default_value = "ssh")]
    pub ssh: String,
    /// Where a host has no cep-fast of this version, send one to ~/.cache/cep-fast there, or refuse
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = DeployMode::Auto)]
    pub deploy: DeployMode,
    /// Ports at which launched nodes listen, for control and data: LO-HI, or one port, which is
    /// enough for one node a host [default: the ports of rows, and any free ones]
    #[arg(long, value_name = "LO-HI", value_parser = expect::<PortRange>)]
    pub ports: Option<PortRange>,
}

/// Deployment of the program to hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum DeployMode {
    /// Where there is none
    Auto,
    /// Nowhere
    Never,
}

/// Arguments of a program that a launcher has found or sent.
#[derive(Clone, Debug, clap::Args)]
pub struct LaunchedArgs {
    /// End with 0 if this program is told what to do in this way, else with 1
    #[arg(long, value_name = "DIALECT")]
    pub speaks: Option<String>,
    /// End with 0 if this program has this BLAKE3 and speaks, else with 1
    #[arg(long, value_name = "HASH")]
    pub is: Option<String>,
}
