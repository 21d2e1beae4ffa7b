//! Jobs of a Slurm in a lab: the job scripts of the documents, a broadcast beside `sbcast`, nodes
//! measured against each other, and what is left where something of a job is killed.

mod fleet;
mod job;
mod kills;
mod options;
mod scripts;

use std::time::Duration;

use anyhow::Result;

use crate::cases::book::BenchResults;
use crate::lab::WorkDir;
use crate::report::BenchMachine;
use crate::scenario::BenchScenario;
use options::SlurmCase;
pub(crate) use options::SlurmOptions;

const ALL: [SlurmCase; 4] =
    [SlurmCase::Scripts, SlurmCase::Broadcast, SlurmCase::Fleet, SlurmCase::Kills];

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
