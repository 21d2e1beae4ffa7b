//! Commands and options, and the help that explains them.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use super::values::{
    BenchNodes, CheckArg, DataPathArg, LaunchMethod, NodeDeath, NodeRate, PinArg, ProgressMode,
    SchedulerArg, ThreadsPerNic, VerifyArg,
};
use crate::app::cli::Operand;
use crate::core::error::{Code, Error};
use crate::core::spec::NodeAddress;
use crate::core::units::{BitRate, parse_duration, parse_rate, printable_lines};

/// Moves a range of bytes from many nodes to many nodes as fast as their NICs allow.
#[derive(Clone, Debug, Parser)]
#[command(name = "cep-fast", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
    #[command(flatten)]
    /// How to log.
    pub log: LogArgs,
}

/// What every command has in common: its log.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LogArgs {
    /// Log more on standard error: also what a fault is looked for with, and what launched nodes
    /// have to say
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Log one JSON object a line; a daemon logs always, other commands and launched nodes with -v
    #[arg(long, global = true)]
    pub log_json: bool,
}

/// Why there is no command to carry out.
#[derive(Clone, Debug)]
pub enum UsageError {
    /// Help or the version was asked for: this text.
    Help(String),
    /// The command line is wrong.
    Usage {
        /// What clap says, over several lines.
        text: String,
        /// The same as an error.
        error: Error,
        /// Whether `--json` was among the words.
        json: bool,
        /// Whether the command was one that ends with the report of a transfer.
        transfer: bool,
    },
}

impl Args {
    /// Reads the command line.
    ///
    /// # Errors
    /// What to print where there is no command to carry out.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Args, UsageError> {
        let words: Vec<OsString> = words.into_iter().collect();
        let command = Args::command().mut_subcommand("copy", |copy| {
            copy.mut_arg("launch", |launch| {
                launch.help("Where the hosts of operands are: local starts each here")
            })
        });
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
        // It quotes what was typed.
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
    /// Copy files on this machine, each host of an operand being a process of its own with --launch
    /// local
    Copy(CopyArgs),
    /// Run a transfer specification; this process is the master
    Run(RunArgs),
    /// Print what a specification would do and the shortest time it can take; moves nothing
    Plan(PlanArgs),
    /// Measure nodes against their line rate: memory to memory, over 1 to k NICs
    Bench(BenchArgs),
    /// Say what stands between this machine and line rate, and how to mend it
    Doctor(DoctorArgs),
    /// Run the node daemon: serve and receive below a directory, for holders of the key
    Node(NodeArgs),
    /// Ask a running master how far it is
    Status(StatusArgs),
    /// Ask a running master to stop
    Cancel(CancelArgs),
    /// Write a new key to a file that only you can read
    Keygen(KeygenArgs),
}

impl CliCommand {
    /// Whether the command's result, or its failure, is to be a JSON object.
    #[must_use]
    pub fn json(&self) -> bool {
        match self {
            CliCommand::Copy(copy) => copy.transfer.json,
            CliCommand::Run(run) => run.transfer.json,
            CliCommand::Plan(plan) => plan.json,
            CliCommand::Bench(bench) => bench.json,
            CliCommand::Doctor(doctor) => doctor.json,
            CliCommand::Status(status) => status.json,
            CliCommand::Node(_) | CliCommand::Cancel(_) | CliCommand::Keygen(_) => false,
        }
    }
}

/// `copy`: operands and how to move.
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "cep-fast copy [OPTIONS] <SRC>... <DST>")]
pub struct CopyArgs {
    /// What to copy, and last where to: a file, or a directory, which takes each file under its own
    /// name
    // One list: of a list and a last one, clap does not take names that begin with a dash behind
    // `--`.
    #[arg(required = true, num_args = 2.., value_name = "SRC... DST", long_help = OPERANDS_HELP, value_parser = operand())]
    pub operands: Vec<Operand>,
    #[command(flatten)]
    /// How to move.
    pub transfer: TransferArgs,
}

impl CopyArgs {
    /// What is copied.
    #[must_use]
    pub fn sources(&self) -> &[Operand] {
        self.operands.split_last().map_or(&[], |(_, sources)| sources)
    }

    /// Where it goes.
    ///
    /// # Panics
    /// Never: two operands are the least.
    #[must_use]
    pub fn destination(&self) -> &Operand {
        self.operands.last().expect("two operands are the least")
    }
}

/// `run`: a specification and how to move.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The specification file: an id line, writer rows and reader rows
    pub spec: PathBuf,
    #[command(flatten)]
    /// How to move.
    pub transfer: TransferArgs,
}

/// What `run` and `copy` have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct TransferArgs {
    /// How nodes get started
    #[arg(long, value_enum, default_value_t = LaunchMethod::None, value_name = "HOW")]
    pub launch: LaunchMethod,
    /// The directory that launched nodes serve and write below: their /x is DIR/x [default: /]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The key shared with the nodes: 64 hex digits in a file of mode 0600; keygen makes one
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Who decides which sender serves what
    #[arg(long, value_enum, default_value_t = SchedulerArg::Auto, value_name = "NAME")]
    pub scheduler: SchedulerArg,
    /// How bytes are checked after they left the network
    #[arg(long, value_enum, default_value_t = CheckArg::Crc64, value_name = "NAME")]
    pub check: CheckArg,
    /// End with one JSON object on one line of standard output, instead of tables
    #[arg(long)]
    pub json: bool,
    /// When to draw progress on standard error
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "WHEN")]
    pub progress: ProgressMode,
    /// Move at most RATE bits per second in all; K, M, G and T are powers of 1000 [default: no
    /// limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub limit: Option<BitRate>,
    /// Which way bytes take through the kernel
    #[arg(long, value_enum, default_value_t = DataPathArg::Auto, value_name = "PATH")]
    pub path: DataPathArg,
    /// Buffers of one block (1 MiB by default) that a node may use in each direction, 2 to 4096
    /// [default: 16, shared by its NICs]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,
    /// Report success only when all bytes are on stable storage
    #[arg(long)]
    pub fsync: bool,
    /// What to check beyond what is checked anyway; both with a comma between them
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

/// `plan`: a specification and who decides.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// The specification file; no host in it is resolved or contacted
    pub spec: PathBuf,
    /// Who decides which sender serves what
    #[arg(long, value_enum, default_value_t = SchedulerArg::Auto, value_name = "NAME")]
    pub scheduler: SchedulerArg,
    /// Print the whole plan as one JSON object on one line, instead of a table
    #[arg(long)]
    pub json: bool,
    /// Draw who sends how much to whom into FILE; one that exists is replaced
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Run the transfer on virtual time, with the machines that would run it, and tell how it goes;
    /// moves nothing
    #[arg(long)]
    pub simulate: bool,
    /// The line of a node has another rate than its rows say, from the start or from TIME on
    /// (500ms, 2s, or plain seconds); may be given again
    #[arg(long = "rate", value_name = "NODE=RATE[@TIME]", value_parser = expect::<NodeRate>, requires = "simulate")]
    pub rates: Vec<NodeRate>,
    /// A node dies at TIME; may be given again
    #[arg(long = "kill", value_name = "NODE@TIME", value_parser = expect::<NodeDeath>, requires = "simulate")]
    pub kills: Vec<NodeDeath>,
    /// What a packet takes from any node to any other, in whole milliseconds or more [default: 0.1
    /// ms]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "simulate")]
    pub delay: Option<Duration>,
    /// Where chance starts: what happens at one moment happens in another order with another seed
    #[arg(long, value_name = "N", default_value_t = 1, requires = "simulate")]
    pub seed: u64,
}

/// `bench`: between whom, for how long, and how to tell.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Who sends: host:port, several with commas, hostlists such as dtn[01-04]:5000
    #[arg(long, value_name = "NODES", value_parser = expect::<BenchNodes>)]
    pub from: Option<BenchNodes>,
    /// Who receives; a node may stand on both sides, which loads both directions
    #[arg(long, value_name = "NODES", value_parser = expect::<BenchNodes>)]
    pub to: Option<BenchNodes>,
    /// How long to measure for each number of NICs; short runs before it find out how much data
    /// that takes
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub seconds: Duration,
    /// The line rate of every NIC, in bits per second, where the kernel does not know it or knows
    /// it wrongly
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub line_rate: Option<BitRate>,
    /// How nodes get started; with local and no names, one sender and one receiver on this machine
    #[arg(long, value_enum, default_value_t = LaunchMethod::None, value_name = "HOW")]
    pub launch: LaunchMethod,
    /// The key shared with the nodes: 64 hex digits in a file of mode 0600; keygen makes one
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// How bytes are checked after they left the network
    #[arg(long, value_enum, default_value_t = CheckArg::Crc64, value_name = "NAME")]
    pub check: CheckArg,
    /// Buffers of 1 MiB that each launched node keeps, 2 to 4096 [default: 16, shared by its NICs]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,
    /// End with one JSON object on one line of standard output, instead of tables
    #[arg(long)]
    pub json: bool,
    /// Measure over all NICs with 1, 2, … threads each, as many as the nodes have, and say which
    /// --threads-per-nic is enough
    #[arg(long)]
    pub threads: bool,
    /// Draw Gbit/s over the number of NICs into FILE; one that exists is replaced
    #[arg(long, value_name = "FILE", conflicts_with = "threads")]
    pub svg: Option<PathBuf>,
    /// When to draw progress on standard error
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "WHEN")]
    pub progress: ProgressMode,
}

/// A kind of data that a node serves only where it is told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum AllowedKind {
    /// POSIX shared memory
    Mem,
    /// Block devices
    Devices,
}

/// `node`: where to listen, what to serve, and what to use.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// The control address; port 0 takes any free one; without a key it must be a loopback address
    #[arg(long, value_name = "ADDR:PORT", value_parser = expect::<NodeAddress>)]
    pub listen: NodeAddress,
    /// The directory to serve and to write below; nothing outside can be reached. Without it no
    /// daemon starts
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Serve more than the files below the root: `mem` is shared memory (mem:NAME, outside of the
    /// root), `devices` are block devices below the root
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub allow: Vec<AllowedKind>,
    /// The key shared with masters and nodes: 64 hex digits in a file of mode 0600; keygen makes
    /// one
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Start without a key, on a loopback address: only processes of the same user are let in
    #[arg(long, conflicts_with = "key_file")]
    pub insecure_no_key: bool,
    /// A NIC for data, by name or address; may be given again [default: every usable one]
    #[arg(long = "nic", value_name = "NAME")]
    pub nics: Vec<String>,
    /// Buffers of one block (1 MiB by default), 2 to 4096 [default: 16, shared by its NICs]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,
    /// CPUs for the threads of the NICs: auto (near the NIC), none, or a list such as 0-3,8
    #[arg(long, value_name = "CPUS", default_value = "auto", value_parser = expect::<PinArg>)]
    pub pin: PinArg,
    /// Threads for each NIC: auto, or 1 to 64
    #[arg(long, value_name = "N", default_value = "auto", value_parser = expect::<ThreadsPerNic>)]
    pub threads_per_nic: ThreadsPerNic,
    /// Started by a master: the secret comes on standard input, and the node ends without a master
    #[arg(long, hide = true)]
    pub launched: bool,
}

/// `doctor`: with whom, and how to tell.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// A node to try every pair of rails with, in both directions, for a few seconds
    #[arg(value_name = "HOST:PORT", value_parser = expect::<NodeAddress>)]
    pub peer: Option<NodeAddress>,
    /// The key shared with the node: 64 hex digits in a file of mode 0600; keygen makes one
    #[arg(long, value_name = "FILE", requires = "peer")]
    pub key_file: Option<PathBuf>,
    /// Answer with one JSON object on one line
    #[arg(long)]
    pub json: bool,
}

/// `status`: which master.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    /// Which master to ask.
    pub master: MasterArgs,
    /// Answer with one JSON object on one line
    #[arg(long)]
    pub json: bool,
}

/// `cancel`: which master.
#[derive(Clone, Debug, clap::Args)]
pub struct CancelArgs {
    #[command(flatten)]
    /// Which master to stop.
    pub master: MasterArgs,
}

/// Where a running master is and how to be let in.
#[derive(Clone, Debug, clap::Args)]
pub struct MasterArgs {
    /// The master's host:port: its row in the specification, or what run printed where the port was
    /// 0
    #[arg(value_name = "HOST:PORT", value_parser = expect::<NodeAddress>)]
    pub address: NodeAddress,
    /// The key that the master runs with
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// `keygen`: where to.
#[derive(Clone, Debug, clap::Args)]
pub struct KeygenArgs {
    /// The file to make, with mode 0600; one that exists is left alone
    pub file: PathBuf,
}

/// Operands are paths, and those are any bytes.
fn operand() -> impl TypedValueParser<Value = Operand> {
    OsStringValueParser::new()
        .try_map(|text| Operand::try_from(text).map_err(|expected| format!("expected {expected}")))
}

/// Our types say what they expected; whoever typed the value reads a sentence.
fn expect<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|expected| format!("expected {expected}"))
}

fn rate(text: &str) -> Result<BitRate, String> {
    parse_rate(text).map_err(|expected| format!("expected {expected}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|expected| format!("expected {expected}"))
}

fn slots(text: &str) -> Result<u32, String> {
    let slots = text.parse().ok().filter(|slots| (SLOTS_MIN..=SLOTS_MAX).contains(slots));
    slots.ok_or_else(|| format!("expected a number from {SLOTS_MIN} to {SLOTS_MAX}"))
}

const OPERANDS_HELP: &str = "\
What to copy, and last where to

An operand is host[,host…]:path, with hostlists such as dtn[01-04]:/data/x, or a local path. A local path that has a \
colon before its first slash is written ./a:b, and one that begins with a dash ./-x.

Hosts of one operand, and operands with the same last name on different hosts, hold replicas of one file. Operands with \
different last names are several files.

The last operand is a file, or a directory, which takes each file under its own name: one that exists, or any path that \
ends with a slash. Directories are never made. Each of several hosts gets a copy.";

/// A node that relays needs one to serve from and one to receive into.
const SLOTS_MIN: u32 = 2;

/// At 1 MiB each this is 4 GiB of locked memory; what more would hide is a NIC that is not kept
/// busy.
const SLOTS_MAX: u32 = 4096;

const EXIT_STATUS: &str = "Exit status: 0 complete, 1 internal, 2 usage or specification, 3 node unreachable or lost, \
                           4 refused, 5 data source or destination, 6 integrity, 7 stalled, 130 cancelled.";

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
