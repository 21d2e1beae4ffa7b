//! Jobs of a Slurm in a lab: the job scripts of the documents, a broadcast beside `sbcast`, nodes
//! measured against each other, and what is left where something of a job is killed.

mod fleet;
mod job;
mod kills;
mod scripts;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::cases::book::BenchResults;
use crate::lab::WorkDir;
use crate::options::{LabOptions, whole_mebibytes};
use crate::report::BenchMachine;
use crate::scenario::BenchScenario;

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

const ALL: [SlurmCase; 4] =
    [SlurmCase::Scripts, SlurmCase::Broadcast, SlurmCase::Fleet, SlurmCase::Kills];

/// Cases and their parameters.
#[derive(Args)]
pub(crate) struct SlurmOptions {
    /// Takes only these cases.
    #[arg(value_enum)]
    cases: Vec<SlurmCase>,
    /// Number of turns; medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Bytes of the file. Whole MiB.
    #[arg(long, default_value = "1G", value_parser = whole_mebibytes)]
    bytes: u64,
    /// Rate of each of the two NICs of a node in Mbit/s. Broadcasts have 1000.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Number of kills.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Seed of the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of a run's files.
    #[arg(long, default_value = "build/bench")]
    dir: PathBuf,
    /// Seconds that any one job may take.
    #[arg(long, default_value_t = 300)]
    deadline: u64,
    #[command(flatten)]
    labs: LabOptions,
}

pub(crate) fn run(options: &SlurmOptions) -> Result<()> {
    let tools = options.labs.tools()?;
    let machine = BenchMachine::look()?;
    let lab = WorkDir::new(&options.dir, options.bytes, Duration::from_secs(options.deadline))?;
    let bench = job::JobFixture { options, lab: &lab, tools: &tools };
    let mut book = BenchResults::new(machine);
    let chosen =
        ALL.into_iter().filter(|case| options.cases.is_empty() || options.cases.contains(case));
    for case in chosen {
        book.open(case, BenchScenario::FileToFile);
        let played = match case {
            SlurmCase::Scripts => scripts::documents(bench, &mut book),
            SlurmCase::Broadcast => scripts::broadcast(bench, &mut book),
            SlurmCase::Fleet => fleet::run(bench, &mut book),
            SlurmCase::Kills => kills::run(bench, &mut book),
        };
        if let Err(error) = played {
            book.failed("the case", &error);
        }
    }
    book.publish(lab, &options.labs.common)
}
