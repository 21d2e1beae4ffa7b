//! Cases of the lab: shaped links between network namespaces, each with its threshold.
//!
//! The rates of the links are measured with iperf3 in the same run, so a threshold is a ratio.

mod adverse;
pub(crate) mod book;
mod concurrent;
mod copies;
mod fanin;
mod faults;
mod fixture;
pub(crate) mod iperf;
mod journal;
mod options;
mod paths;
mod random;
mod resume;
mod slowed;
mod stripes;
mod undeclared;

use std::time::Duration;

use anyhow::Result;

use crate::lab::WorkDir;
use crate::report::BenchMachine;
use crate::scenario::{BenchScenario, scenarios};
use book::BenchResults;
use fixture::CaseFixture;
pub(crate) use fixture::GOODPUT;
pub(crate) use options::CaseOptions;
use options::LabCase;

/// The cases, in the order in which they run.
const ALL: [LabCase; 14] = [
    LabCase::Nics,
    LabCase::Fast,
    LabCase::Uneven,
    LabCase::Faults,
    LabCase::Concurrent,
    LabCase::Random,
    LabCase::Copies,
    LabCase::FanIn,
    LabCase::Slowed,
    LabCase::Undeclared,
    LabCase::Adverse,
    LabCase::Journal,
    LabCase::Resume,
    LabCase::Paths,
];

/// Runs the cases and prints their results.
pub(crate) fn run(options: &CaseOptions) -> Result<()> {
    let tools = options.labs.tools()?;
    let machine = BenchMachine::look()?;
    let lab =
        WorkDir::new(&options.dir, options.file_bytes, Duration::from_secs(options.deadline))?;
    let bench = CaseFixture { options, lab: &lab, tools: &tools };
    let mut book = BenchResults::new(machine);
    for case in
        ALL.into_iter().filter(|case| options.cases.is_empty() || options.cases.contains(case))
    {
        for scenario in scenarios_of(case, options) {
            book.open(case, scenario);
            if let Err(error) = play(&bench, case, scenario, &mut book) {
                book.failed("the case", &error);
            }
        }
    }
    book.publish(lab, &options.labs.common)
}

/// Returns the scenarios of a case.
fn scenarios_of(case: LabCase, options: &CaseOptions) -> Vec<BenchScenario> {
    match case {
        LabCase::Concurrent
        | LabCase::Random
        | LabCase::FanIn
        | LabCase::Slowed
        | LabCase::Undeclared
        | LabCase::Adverse
        | LabCase::Paths => {
            vec![BenchScenario::MemoryToMemory]
        }
        // These cases compare bytes, so they need files.
        LabCase::Faults | LabCase::Copies | LabCase::Journal | LabCase::Resume => {
            vec![BenchScenario::FileToFile]
        }
        LabCase::Nics | LabCase::Fast | LabCase::Uneven => scenarios(options.scenario),
    }
}

fn play(
    bench: &CaseFixture,
    case: LabCase,
    scenario: BenchScenario,
    book: &mut BenchResults,
) -> Result<()> {
    match case {
        LabCase::Nics => stripes::nics(bench, scenario, book),
        LabCase::Fast => stripes::fast(bench, scenario, book),
        LabCase::Uneven => stripes::uneven(bench, scenario, book),
        LabCase::Faults => faults::run(bench, book),
        LabCase::Concurrent => concurrent::run(bench, book),
        LabCase::Random => random::run(bench, book),
        LabCase::Copies => copies::run(bench, book),
        LabCase::FanIn => fanin::run(bench, book),
        LabCase::Slowed => slowed::run(bench, book),
        LabCase::Undeclared => undeclared::run(bench, book),
        LabCase::Adverse => adverse::run(bench, book),
        LabCase::Journal => journal::run(bench, book),
        LabCase::Resume => resume::run(bench, book),
        LabCase::Paths => paths::run(bench, book),
    }
}
