//! Cases of the lab: shaped links between network namespaces, each with its threshold.
//!
//! The rates of the links are measured with iperf3 in the same run, so a threshold is a ratio.

mod adverse;
pub(crate) mod book;
mod concurrent;
mod copies;
mod faults;
mod iperf;
mod journal;
mod random;
mod resume;
mod slowed;
mod stripes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::cluster::{LabCluster, LabTools, address};
use crate::contenders::{BenchScenario, WorkItem};
use crate::lab::WorkDir;
use crate::options::LabOptions;
use crate::report::BenchMachine;
use book::BenchResults;
pub(crate) use faults::{FaultSide, NicFault};

/// The share of a link's rate that TCP's payload gets at an MTU of 1500: 1448 of 1514 bytes.
pub(crate) const GOODPUT: f64 = 1448.0 / 1514.0;

/// The cases, in the order in which they run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum LabCase {
    /// Two nodes with 1, 2 and 4 NICs of 1 Gbit/s.
    Nics,
    /// Four NICs of 2.5 Gbit/s.
    Fast,
    /// NICs of 1000, 250 and 100 Mbit/s.
    Uneven,
    /// One of four NICs dies or slows down, and comes back.
    Faults,
    /// 1, 2 and 4 transfers at once between the same two nodes.
    Concurrent,
    /// Four senders of random overlapping windows, three receivers of random ranges.
    Random,
    /// One file to 1, 2, 4, 8 and 16 nodes, which feed each other; also with a slow one among them.
    Copies,
    /// A sender that slows to a tenth in mid-transfer, or is a tenth as fast as its row says.
    Slowed,
    /// A link that loses packets, resets connections, flaps or fails one way, and a frozen sender:
    /// beside iperf3 under the same, with no bar.
    Adverse,
    /// Cost of the journal, at 1 and 2.5 Gbit/s.
    Journal,
    /// Remaining work of an interrupted transfer of 102,400 pieces, and the time to determine it.
    Resume,
}

const ALL: [LabCase; 11] = [
    LabCase::Nics,
    LabCase::Fast,
    LabCase::Uneven,
    LabCase::Faults,
    LabCase::Concurrent,
    LabCase::Random,
    LabCase::Copies,
    LabCase::Slowed,
    LabCase::Adverse,
    LabCase::Journal,
    LabCase::Resume,
];

/// Cases and their parameters.
#[derive(Args)]
pub(crate) struct CaseOptions {
    /// Takes only these cases.
    #[arg(value_enum)]
    cases: Vec<LabCase>,
    /// Takes only this scenario, in the cases that have both.
    #[arg(long, value_enum)]
    scenario: Option<crate::ScenarioName>,
    /// Duration of each transfer and each iperf3.
    #[arg(long, default_value_t = 10.5)]
    seconds: f64,
    /// Number of turns in the cases that stripe; medians count.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Takes only these numbers of NICs in the case `nics`.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 2, 4])]
    nics: Vec<usize>,
    /// Only these NICs fail in the case `faults`.
    #[arg(long, value_name = "NIC", value_delimiter = ',', default_values_t = [0, 1, 2, 3])]
    struck: Vec<usize>,
    /// Takes only these faults.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<NicFault>,
    /// Node whose NIC fails.
    #[arg(long, value_enum, default_value = "receiver")]
    at: FaultSide,
    /// Leaves out the second, longer transfer of each fault, in which the NIC comes back.
    #[arg(long)]
    no_return: bool,
    /// The seeds of the case `random`.
    #[arg(long, value_name = "SEED", value_delimiter = ',', default_values_t = [1, 2, 3, 4])]
    seeds: Vec<u64>,
    /// Bytes of a file at most; K, M, G are powers of 1024. Whole MiB.
    #[arg(long, default_value = "6G", value_parser = crate::whole_mebibytes)]
    file_bytes: u64,
    /// Folder of a run's files; the destination's file system is part of the measurement.
    #[arg(long, default_value = "build/bench")]
    dir: PathBuf,
    /// Seconds that any one process may run.
    #[arg(long, default_value_t = 180)]
    deadline: u64,
    #[command(flatten)]
    labs: LabOptions,
}

/// Resources of every case.
struct CaseFixture<'a> {
    options: &'a CaseOptions,
    lab: &'a WorkDir,
    tools: &'a LabTools,
}

/// Runs the cases and prints their results.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, progress beside them"
)]
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
        for scenario in bench.scenarios(case) {
            book.open(case, scenario);
            if let Err(error) = bench.play(case, scenario, &mut book) {
                book.failed("the case", &error);
            }
        }
    }
    println!("{}", book.table());
    options.labs.common.keep(&book)?;
    // The working folder is removed before this process ends.
    drop(lab);
    options.labs.common.judge(book.misses());
    Ok(())
}

impl<'a> CaseFixture<'a> {
    fn scenarios(&self, case: LabCase) -> Vec<BenchScenario> {
        match case {
            LabCase::Concurrent | LabCase::Random | LabCase::Slowed | LabCase::Adverse => {
                vec![BenchScenario::MemoryToMemory]
            }
            // These cases compare bytes, so they need files.
            LabCase::Faults | LabCase::Copies | LabCase::Journal | LabCase::Resume => {
                vec![BenchScenario::FileToFile]
            }
            LabCase::Nics | LabCase::Fast | LabCase::Uneven => {
                crate::scenarios(self.options.scenario)
            }
        }
    }

    fn play(&self, case: LabCase, scenario: BenchScenario, book: &mut BenchResults) -> Result<()> {
        match case {
            LabCase::Nics => stripes::nics(self, scenario, book),
            LabCase::Fast => stripes::fast(self, scenario, book),
            LabCase::Uneven => stripes::uneven(self, scenario, book),
            LabCase::Faults => faults::run(self, book),
            LabCase::Concurrent => concurrent::run(self, book),
            LabCase::Random => random::run(self, book),
            LabCase::Copies => copies::run(self, book),
            LabCase::Slowed => slowed::run(self, book),
            LabCase::Adverse => adverse::run(self, book),
            LabCase::Journal => journal::run(self, book),
            LabCase::Resume => resume::run(self, book),
        }
    }

    fn cluster(&self, nodes: u32, rates_mbit: &[u32]) -> Result<LabCluster<'a>> {
        LabCluster::up(self.lab, self.tools, nodes, rates_mbit)
    }

    /// Returns the bytes that links of these rates carry in `seconds`, in whole MiB.
    fn bytes_in(&self, seconds: f64, rates_mbit: &[u32]) -> u64 {
        let sum: f64 = rates_mbit.iter().map(|&rate| f64::from(rate)).sum();
        ((sum * 1e6 * GOODPUT * seconds / 8.0) as u64).next_multiple_of(1 << 20)
    }

    /// Returns the work for links of these rates, limited by the source file if there is one.
    fn work(&self, scenario: BenchScenario, rates_mbit: &[u32]) -> Result<WorkItem> {
        let bytes = self.bytes_in(self.options.seconds, rates_mbit);
        let most = if scenario == BenchScenario::FileToFile { self.lab.bytes() } else { u64::MAX };
        self.lab.prepare_part(scenario, bytes.min(most))
    }
}

/// Returns the rows of one transfer from node 1 to node 2.
fn rows(work: &WorkItem) -> String {
    let last = work.bytes - 1;
    let (from, to) = match work.files {
        None => ("pattern:7", "null:"),
        Some(_) => ("file:///source", "file:///destination"),
    };
    format!("writer {} {from} 0 0-{last}\nreader {} {to} 0 0-{last}\n", address(1), address(2))
}
