//! `cep-bench`: the program's performance, beside the raw limit of the machine and its peers, in
//! one run.
//!
//! Speed is judged as a ratio within one run, never as an absolute figure: machines differ, and one
//! machine differs from hour to hour.

mod bar;
mod cases;
mod cluster;
mod contenders;
mod counting;
mod figures;
mod frozen;
mod kills;
mod lab;
mod loopback;
mod master;
mod options;
mod plans;
mod private_ssh;
mod process;
mod raw;
mod report;
mod scenario;
mod series;
mod slurm;
mod soak;
mod ssh;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use contenders::Contender;
use lab::WorkDir;
use options::{CommonOptions, whole_mebibytes};
use report::{BenchMachine, BenchReport, RAW};
use scenario::{ScenarioName, scenarios};

/// Measures cep-fast against the raw limit of this machine and against its peers.
#[derive(Parser)]
#[command(version)]
struct BenchCli {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// All installed contenders, over loopback, in turn.
    Loopback(LoopbackOptions),
    /// The raw limit of this machine alone.
    Raw(LoopbackOptions),
    /// Planning time as transfers grow.
    Plans(plans::PlanOptions),
    /// Resources of a master as transfers grow to ten thousand nodes, which are simulated.
    Master(master::MasterOptions),
    /// Two or more nodes with shaped NICs (tools/netlab): striping and faults, with their
    /// thresholds. Needs root.
    Lab(cases::CaseOptions),
    /// Figures 4 to 7 of the CEP paper, in labs of shaped NICs: ours, its peers and the bound.
    /// Needs root.
    Figures(figures::FigureOptions),
    /// Nodes and masters that die at random moments, and transfers that are run again until every
    /// byte is right.
    Kills(kills::KillOptions),
    /// Thousands of small transfers against the same daemons, whose memory, descriptors and threads
    /// must stay level.
    Soak(soak::SoakOptions),
    /// Copies whose nodes are started over ssh: how soon they begin, on how many hosts, how fast
    /// they are beside scp, rsync and rcp, and what is left where something is killed.
    Ssh(ssh::SshOptions),
    /// Jobs of a Slurm in a lab: job scripts, broadcasts beside sbcast, nodes below the rest, and
    /// what is left where something is killed. Needs root.
    Slurm(slurm::SlurmOptions),
    /// A transfer beside another one whose destination is on a frozen file system. Needs root.
    Frozen(frozen::FrozenOptions),
    /// One end of the raw limit.
    #[command(hide = true)]
    RawEnd(raw::EndArgs),
}

#[derive(Args)]
struct LoopbackOptions {
    /// Bytes to move in each run; K, M, G are powers of 1024. Whole MiB.
    #[arg(long, default_value = "4G", value_parser = whole_mebibytes)]
    bytes: u64,
    /// Number of turns of each contender.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Takes only the contenders of these names; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Takes only this scenario.
    #[arg(long, value_enum)]
    scenario: Option<ScenarioName>,
    /// Lists the available contenders, and ends.
    #[arg(long)]
    list: bool,
    /// Folder of a run's files; the destination's file system is measured.
    #[arg(long, default_value = "build/bench")]
    dir: PathBuf,
    /// Folder of the programs built by tools/peers.
    #[arg(long, default_value = "build/peers")]
    peers: PathBuf,
    /// Cores of the raw limit's sender and receiver, as in 0,1; or none.
    #[arg(long, default_value = "0,1", value_parser = cores)]
    raw_cores: RawCores,
    /// Seconds that any one process may run.
    #[arg(long, default_value_t = 180)]
    deadline: u64,
    #[command(flatten)]
    common: CommonOptions,
}

/// Cores of the raw limit's two processes, if pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct RawCores(Option<(usize, usize)>);

fn main() -> Result<()> {
    match BenchCli::parse().command {
        BenchCommand::Loopback(options) => benchmark(&options),
        BenchCommand::Raw(options) => {
            benchmark(&LoopbackOptions { only: RAW.map(str::to_owned).to_vec(), ..options })
        }
        BenchCommand::Plans(options) => plans::run(&options),
        BenchCommand::Master(options) => master::run(&options),
        BenchCommand::Lab(options) => cases::run(&options),
        BenchCommand::Figures(options) => figures::run(&options),
        BenchCommand::Kills(options) => kills::run(&options),
        BenchCommand::Soak(options) => soak::run(&options),
        BenchCommand::Ssh(options) => ssh::run(&options),
        BenchCommand::Slurm(options) => slurm::run(&options),
        BenchCommand::Frozen(options) => frozen::run(&options),
        BenchCommand::RawEnd(end) => end.run(),
    }
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, progress beside them"
)]
fn benchmark(options: &LoopbackOptions) -> Result<()> {
    let contenders = options.contenders()?;
    if options.list {
        for contender in &contenders {
            println!(
                "{}: {}",
                contender.name(),
                contender.missing().unwrap_or_else(|| "ready".to_owned())
            );
        }
        return Ok(());
    }
    options::adopt_orphans()?;
    let machine = BenchMachine::look()?;
    let lab = WorkDir::new(&options.dir, options.bytes, Duration::from_secs(options.deadline))?;
    let outcomes = loopback::rounds(
        &contenders,
        &scenarios(options.scenario),
        options.rounds,
        |contender, scenario, round| {
            eprintln!(
                "round {round} of {}: {}, {}",
                options.rounds,
                scenario.title(),
                contender.name()
            );
            loopback::turn(&lab, contender, scenario, round == 1)
        },
    );
    let report = BenchReport::new(options.bytes, options.rounds, machine, outcomes);
    println!("{}", report.table());
    options.common.keep(&report)?;
    // The working folder is removed before this process ends.
    drop(lab);
    options.common.judge(report.misses());
    Ok(())
}

impl LoopbackOptions {
    /// Returns the selected contenders.
    fn contenders(&self) -> Result<Vec<Box<dyn Contender>>> {
        let cep_fast = self.common.program()?;
        let mut contenders = contenders::all(&cep_fast, &self.peers, self.raw_cores.0);
        for name in &self.only {
            let known: Vec<&str> = contenders.iter().map(|contender| contender.name()).collect();
            ensure!(
                known.contains(&name.as_str()),
                "no contender {name}; there are {}",
                known.join(", ")
            );
        }
        contenders.retain(|contender| {
            self.only.is_empty() || self.only.iter().any(|name| name == contender.name())
        });
        Ok(contenders)
    }
}

/// Parses two cores, `0,1`, or `none`.
fn cores(text: &str) -> Result<RawCores, String> {
    if text == "none" {
        return Ok(RawCores(None));
    }
    let pair = text
        .split_once(',')
        .and_then(|(sender, receiver)| sender.parse().ok().zip(receiver.parse().ok()));
    pair.map(|pair| RawCores(Some(pair)))
        .ok_or_else(|| "expected two cores as in 0,1, or none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_pair_or_none() {
        assert_eq!(cores("none"), Ok(RawCores(None)));
        assert_eq!(cores("1,0"), Ok(RawCores(Some((1, 0)))));
        for wrong in ["", "1", "a,b", "1,2,3"] {
            assert!(cores(wrong).is_err(), "{wrong}");
        }
    }
}
