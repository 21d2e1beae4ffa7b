//! Raw limit of this machine: the same kernel operations without a protocol.
//!
//! It is the denominator of our own figures. Sender and receiver are separate processes, like the
//! program's nodes; the standard input of each is its end of one loopback connection.

mod pump;
mod ring;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::contenders::{Contender, RunTiming};
use crate::lab::WorkDir;
use crate::process::{self, RunningProcess};
use crate::scenario::{BenchScenario, WorkItem};
pub(crate) use ring::WaitMode;

/// Half of the raw limit that a process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum RawEnd {
    /// Sends from memory or from a file.
    Sender,
    /// Receives into memory or into a new file.
    Receiver,
}

/// Arguments of one end; its socket is its standard input.
#[derive(clap::Args, Debug)]
pub(crate) struct EndArgs {
    end: RawEnd,
    #[arg(long)]
    bytes: u64,
    #[arg(long)]
    file: Option<PathBuf>,
    #[arg(long)]
    core: Option<usize>,
    #[arg(long, value_enum)]
    wait: WaitMode,
}

impl EndArgs {
    /// Does this end's work; the receiver prints the seconds it took.
    #[allow(
        clippy::print_stdout,
        reason = "standard output is how an end answers the process that started it"
    )]
    pub(crate) fn run(&self) -> Result<()> {
        if let Some(core) = self.core {
            pin(core)?;
        }
        let (socket, blocks) = (io::stdin(), self.bytes / u64::from(ring::BLOCK_BYTES));
        let took = match (self.end, &self.file) {
            (RawEnd::Sender, None) => return Ok(pump::send_memory(&socket, blocks)?),
            (RawEnd::Sender, Some(file)) => return Ok(pump::send_file(&socket, file, blocks)?),
            (RawEnd::Receiver, None) => pump::receive_memory(&socket, blocks, self.wait)?,
            (RawEnd::Receiver, Some(file)) => pump::receive_file(&socket, file, blocks, self.wait)?,
        };
        println!("{}", took.as_secs_f64());
        Ok(())
    }
}

/// The raw limit as one of those that take part.
pub(crate) struct RawLimit {
    /// The cores of sender and receiver; without them the scheduler chooses.
    pub(crate) cores: Option<(usize, usize)>,
    /// Wait mode of the receiver. The faster mode depends on the machine, so both take part and the
    /// better one is the limit.
    pub(crate) wait: WaitMode,
}

impl Contender for RawLimit {
    fn name(&self) -> &'static str {
        match self.wait {
            WaitMode::Gather => "raw",
            WaitMode::Rest => "raw-resting",
        }
    }

    fn plays(&self, _: BenchScenario) -> bool {
        true
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let block_bytes = u64::from(ring::BLOCK_BYTES);
        ensure!(
            work.bytes.is_multiple_of(block_bytes),
            "the raw limit moves whole blocks of {block_bytes} bytes"
        );
        let listener = TcpListener::bind("127.0.0.1:0").context("no loopback listener")?;
        let sending = TcpStream::connect(listener.local_addr()?)?;
        let (receiving, _) = listener.accept()?;
        let receiver = self.start(lab, work, RawEnd::Receiver, receiving)?;
        let sender = self.start(lab, work, RawEnd::Sender, sending)?;
        let (received, sent) = (receiver.finish()?, sender.finish()?);
        let seconds = received.output.trim().parse().context("the receiver printed no seconds")?;
        Ok(RunTiming {
            data_seconds: Some(seconds),
            wall_seconds: received.seconds.max(sent.seconds),
        })
    }
}

impl RawLimit {
    fn start(
        &self,
        lab: &WorkDir,
        work: &WorkItem,
        end: RawEnd,
        socket: TcpStream,
    ) -> Result<RunningProcess> {
        let (name, core, file) = match end {
            RawEnd::Sender => (
                "sender",
                self.cores.map(|cores| cores.0),
                work.files.as_ref().map(|files| &files.source),
            ),
            RawEnd::Receiver => (
                "receiver",
                self.cores.map(|cores| cores.1),
                work.files.as_ref().map(|files| &files.destination),
            ),
        };
        let mut command =
            process::command(std::env::current_exe().context("no path to this program")?);
        command.args(["raw-end", name, "--bytes", &work.bytes.to_string()]);
        command.args(["--wait", if self.wait == WaitMode::Rest { "rest" } else { "gather" }]);
        if let Some(file) = file {
            command.arg("--file").arg(file);
        }
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        command.stdin(Stdio::from(OwnedFd::from(socket)));
        lab.start(&format!("raw-{name}"), command)
    }
}

fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core).with_context(|| format!("core {core} is beyond what a CPU set holds"))?;
    sched_setaffinity(Pid::from_raw(0), &cores)
        .with_context(|| format!("cannot pin to core {core}"))
}
