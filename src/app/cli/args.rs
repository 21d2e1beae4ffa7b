//! Commands and options, with their help texts.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

pub use super::bench_args::BenchArgs;
pub use super::key_args::{KeyArgs, KeygenArgs};
pub use super::launch_args::{DeployMode, LaunchArgs, LaunchedArgs, StarterArgs};
use super::manual::exit_status_line;
pub use super::transfer_args::TransferArgs;
pub use super::values::{
    BenchNodes, ConfineArg, NodeDeath, NodeRate, PinArg, ProgressMode, ThreadsPerNic, VerifyArg,
};
use super::values::{duration, expect, slots};
use crate::app::cli::Operand;
use crate::core::error::{Code, Error};
use crate::core::launch::method::LaunchMethod;
use crate::core::launch::port_range::PortRange;
use crate::core::options::{Scheduler, WireLevel};
use crate::core::spec::NodeAddress;
use crate::core::units::printable_lines;

/// Moves a range of bytes from many nodes to many nodes as fast as their NICs allow.
#[derive(Clone, Debug, Parser)]
#[command(name = "cep-fast", version, max_term_width = 100, after_help = exit_status_line())]
pub struct Args {
    /// Command to carry out.
    #[command(subcommand)]
    pub command: CliCommand,
    #[command(flatten)]
    /// Options of the log.
    pub log: LogArgs,
}

/// Options of every command: its log.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LogArgs {
    /// Log more on standard error: details for finding faults, and the logs of launched nodes
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Log one JSON object a line; a daemon logs always, other commands and launched nodes with -v
    #[arg(long, global = true)]
    pub log_json: bool,
}

/// Reason why there is no command to carry out.
#[derive(Clone, Debug)]
pub enum UsageError {
    /// Help or the version was requested: this text.
    Help(String),
    /// The command line is wrong.
    Usage {
        /// Message of clap, over several lines.
        text: String,
        /// Message as an error.
        error: Error,
        /// True if `--json` was among the words.
        json: bool,
        /// True if the command ends with the report of a transfer.
        transfer: bool,
    },
}

impl Args {
    /// Parses the command line.
    ///
    /// # Errors
    /// The text to print if there is no command to carry out.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Args, UsageError> {
        let words: Vec<OsString> = words.into_iter().collect();
        let command = Args::command();
        let parsed = command
            .try_get_matches_from(&words)
            .and_then(|matches| Args::from_arg_matches(&matches));
        let mistake = match parsed {
            Ok(args) => return Ok(args),
            Err(mistake) => mistake,
        };
        if !mistake.use_stderr() {
            let text = mistake.render();
            return Err(UsageError::Help(if io::stdout().is_terminal() {
                text.ansi().to_string()
            } else {
                text.to_string()
            }));
        }
        // The text quotes the command line.
        let text = printable_lines(&mistake.render().to_string()).into_owned();
        let said = text.strip_prefix("error: ").unwrap_or(&text);
        let message = said
            .split("\n\n")
            .next()
            .unwrap_or(said)
            .split_whitespace()
            .collect::<Vec<&str>>()
            .join(" ");
        let error =
            Error::new(Code::Usage, message).remedy("cep-fast --help lists commands and options");
        let json = words.iter().any(|word| word == "--json");
        let transfer = words.get(1).is_some_and(|word| word == "run" || word == "copy");
        Err(UsageError::Usage { text, error, json, transfer })
    }
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum CliCommand {
    /// Copy files between hosts, over ssh as scp does, or on this machine
    Copy(CopyArgs),
    /// Run a transfer specification; this process is the master
    Run(RunArgs),
    /// Print what a specification would do and the shortest time it can take; moves nothing
    Plan(PlanArgs),
    /// Measure nodes against their line rate, memory to memory: over 1 to k NICs, or each node of
    /// many against the others
    Bench(BenchArgs),
    /// List what keeps this machine from line rate, or each of many hosts, with remedies
    Doctor(DoctorArgs),
    /// Run the node daemon: serve and receive below a directory, for holders of the key
    Node(NodeArgs),
    /// Print the progress of a running master; without an address, of all your transfers here
    Status(StatusArgs),
    /// Stop a running master; without an address, your transfer on this machine
    Cancel(CancelArgs),
    /// Write a new key to a file that only you can read
    Keygen(KeygenArgs),
    /// Become the node that a launcher on another host describes on standard input
    #[command(hide = true)]
    Launched(LaunchedArgs),
}

impl CliCommand {
    /// Returns true if the command's result, or its failure, is a JSON object.
    #[must_use]
    pub fn json(&self) -> bool {
        match self {
            CliCommand::Copy(copy) => copy.transfer.json,
            CliCommand::Run(run) => run.transfer.json,
            CliCommand::Plan(plan) => plan.json,
            CliCommand::Bench(bench) => bench.json,
            CliCommand::Doctor(doctor) => doctor.json,
            CliCommand::Status(status) => status.json,
            CliCommand::Node(_)
            | CliCommand::Cancel(_)
            | CliCommand::Keygen(_)
            | CliCommand::Launched(_) => false,
        }
    }
}

/// Arguments of `copy`.
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "cep-fast copy [OPTIONS] <SRC>... <DST>")]
pub struct CopyArgs {
    /// Files to copy, followed by the destination: a file, or a directory, which takes each file
    /// under its own name
    // One list: with a list followed by a single operand, clap does not accept names that begin
    // with a dash after `--`.
    #[arg(
        required = true, num_args = 2.., value_name = "SRC... DST", long_help = OPERANDS_HELP,
        value_parser = operand(), value_hint = ValueHint::AnyPath,
    )]
    pub operands: Vec<Operand>,
    /// Port of the daemons at the hosts of operands, with --launch none [default: 5000]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Have the hosts of the destination write each byte once, together: an error where they see no
    /// common directory there. Without it they do so where they find that they see one
    #[arg(long)]
    pub split: bool,
    #[command(flatten)]
    /// Options of the transfer.
    pub transfer: TransferArgs,
}

impl CopyArgs {
    /// Returns the files to copy.
    #[must_use]
    pub fn sources(&self) -> &[Operand] {
        self.operands.split_last().map_or(&[], |(_, sources)| sources)
    }

    /// Returns the destination.
    ///
    /// # Panics
    /// Never: there are at least two operands.
    #[must_use]
    pub fn destination(&self) -> &Operand {
        self.operands.last().expect("two operands are the least")
    }
}

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The specification file: an id line, writer rows and reader rows
    pub spec: PathBuf,
    #[command(flatten)]
    /// Options of the transfer.
    pub transfer: TransferArgs,
}

/// Arguments of `plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// The specification file; no host in it is resolved or contacted
    pub spec: PathBuf,
    /// Scheduler that weighs the senders
    #[arg(long, value_enum, default_value_t = Scheduler::Auto, value_name = "NAME")]
    pub scheduler: Scheduler,
    /// Print the whole plan as one JSON object on one line, instead of a table
    #[arg(long)]
    pub json: bool,
    /// Draw the planned bytes between nodes into FILE; replaces an existing file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Simulate the transfer on virtual time with the same state machines, and print its course;
    /// moves nothing
    #[arg(long)]
    pub simulate: bool,
    /// Set another rate for a node's line than its rows have, from the start or from TIME on
    /// (500ms, 2s, or plain seconds); can be repeated
    #[arg(
        long = "rate", value_name = "NODE=RATE[@TIME]", value_parser = expect::<NodeRate>,
        requires = "simulate",
    )]
    pub rates: Vec<NodeRate>,
    /// Kill a node at TIME; can be repeated
    #[arg(
        long = "kill", value_name = "NODE@TIME", value_parser = expect::<NodeDeath>,
        requires = "simulate",
    )]
    pub kills: Vec<NodeDeath>,
    /// Network delay between any two nodes, in whole milliseconds or more [default: 0.1 ms]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "simulate")]
    pub delay: Option<Duration>,
    /// Seed of the order in which simultaneous events happen
    #[arg(long, value_name = "N", default_value_t = 1, requires = "simulate")]
    pub seed: u64,
}

/// A kind of data that a node serves only if allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum AllowedKind {
    /// POSIX shared memory
    Mem,
    /// Block devices
    Devices,
}

/// Arguments of `node`.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// Control address; port 0 takes any free one; without a key it must be a loopback address
    #[arg(long, value_name = "ADDR:PORT", value_parser = expect::<NodeAddress>)]
    pub listen: NodeAddress,
    /// Ports to listen at, for data and, with port 0, for control: LO-HI, or one port, which is
    /// enough for a node [default: any free ones]
    #[arg(long, value_name = "LO-HI", value_parser = expect::<PortRange>)]
    pub ports: Option<PortRange>,
    /// Root directory for the files of the node; required for a daemon. With NAME it is where
    /// /NAME/... leads; can be repeated. :ro refuses writes there, :wo reads. A DIR that
    /// exists by the whole text is that directory; with NAME, write x:ro/ if its name ends so
    #[arg(
        long = "root", value_name = "[NAME=]DIR[:ro|:wo]",
        value_parser = clap::value_parser!(OsString), value_hint = ValueHint::DirPath,
    )]
    pub roots: Vec<OsString>,
    /// Read nothing for others: refuse rows that send files or shared memory
    #[arg(long)]
    pub no_serve: bool,
    /// Write nothing: refuse rows that receive into files or shared memory
    #[arg(long)]
    pub no_write: bool,
    /// Serve more than the files below the root: `mem` is shared memory (mem:NAME, outside the
    /// root), `devices` are block devices below the root
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub allow: Vec<AllowedKind>,
    /// Have the kernel keep the node from files outside its roots and from calls that it does not
    /// need
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ConfineArg::Auto)]
    pub confine: ConfineArg,
    #[command(flatten)]
    /// Keys of the node and of its masters.
    pub keys: KeyArgs,
    /// Least protection of the bytes on the wire: a transfer that asks for less is refused
    #[arg(long, value_enum, default_value_t = WireLevel::Clear, value_name = "LEVEL")]
    pub wire_min: WireLevel,
    /// Start without a key on a loopback address: only processes of the same user are accepted
    #[arg(long, conflicts_with = "key_file")]
    pub insecure_no_key: bool,
    /// NIC for data, by name or address; can be repeated [default: every usable one]
    #[arg(long = "nic", value_name = "NAME")]
    pub nics: Vec<String>,
    /// Buffers of one block (1 MiB by default), 2 to 4096 [default: 16, shared by its NICs]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,
    /// Transfers that the node takes part in at once, 1 to 4096; three quarters of them at most for
    /// masters of one address
    #[arg(
        long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..=4096),
    )]
    pub transfers: u16,
    /// CPUs for the threads of the NICs: auto (near the NIC), none, or a list such as 0-3,8
    #[arg(long, value_name = "CPUS", default_value = "auto", value_parser = expect::<PinArg>)]
    pub pin: PinArg,
    /// Threads for each NIC: auto, or 1 to 64
    #[arg(long, value_name = "N", default_value = "auto", value_parser = expect::<ThreadsPerNic>)]
    pub threads_per_nic: ThreadsPerNic,
    /// Started by a master: the secret is on standard input, and the node ends with its master
    #[arg(long, hide = true)]
    pub launched: bool,
    /// The master's end of standard input sends a line every two seconds
    #[arg(long, hide = true, requires = "launched")]
    pub beats: bool,
    /// The node serves several transfers, one after the other, and reports its machine's load
    #[arg(long, hide = true, requires = "launched")]
    pub measured: bool,
    /// The machine is examined before the node listens, and the node tells what was found
    #[arg(long, hide = true, requires = "launched")]
    pub examined: bool,
}

/// Arguments of `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// A node, HOST:PORT, with which every pair of rails is tested in both directions for a few
    /// seconds; with --launch, hosts that are examined instead of this machine: host or user@host,
    /// with commas and hostlists, or @FILE
    #[arg(value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Examination of hosts: over ssh, in the Slurm job (without HOST, all of it), by 'COMMAND
    /// {host} {command}', or here as local
    #[arg(long, value_name = "HOW", value_parser = expect::<LaunchMethod>)]
    pub launch: Option<LaunchMethod>,
    #[command(flatten)]
    /// Start on other hosts.
    pub starter: StarterArgs,
    #[command(flatten)]
    /// Keys of this machine and of the node.
    pub keys: KeyArgs,
    /// Print one JSON object on one line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    /// Master to ask.
    pub master: MasterArgs,
    /// Print one JSON object on one line; without an address, one line for each transfer
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cancel`.
#[derive(Clone, Debug, clap::Args)]
pub struct CancelArgs {
    #[command(flatten)]
    /// Master to stop.
    pub master: MasterArgs,
    /// Of your transfers on this machine, stop the one with this id, or of this process
    #[arg(long, value_name = "ID|PID", conflicts_with = "address")]
    pub transfer: Option<String>,
    /// Stop all your transfers on this machine
    #[arg(long, conflicts_with_all = ["address", "transfer"])]
    pub all: bool,
}

/// Address and key of a running master.
#[derive(Clone, Debug, clap::Args)]
pub struct MasterArgs {
    /// host:port of the master: its row in the specification, or the address that run printed for
    /// port 0 [default: your transfers on this machine]
    #[arg(value_name = "HOST:PORT", value_parser = expect::<NodeAddress>)]
    pub address: Option<NodeAddress>,
    #[command(flatten)]
    /// Keys of this process and of the master.
    pub keys: KeyArgs,
}

/// Parser of operands. Operands are paths, which may contain any bytes.
fn operand() -> impl TypedValueParser<Value = Operand> {
    OsStringValueParser::new()
        .try_map(|text| Operand::try_from(text).map_err(|expected| format!("expected {expected}")))
}

const OPERANDS_HELP: &str = "\
What to copy, and last where to

An operand is [user@]host[,host…]:path, with hostlists such as dtn[01-04]:/data/x, \
[user@]@FILE:path with a host or a hostlist a line of FILE, or a local path. Remote paths without \
a slash in front lie below the home, or below the root of a daemon. A local path that has a colon \
before its first slash is written ./a:b, and one that begins with a dash ./-x.

Hosts of one operand, and operands with the same last name on different hosts, hold replicas of \
one file. Operands with different last names are several files.

The last operand is a file, or a directory that exists, which takes each file under its own name. \
Directories are never made. Each of several hosts gets a copy; hosts that see one directory there \
write each byte once, together.";

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
