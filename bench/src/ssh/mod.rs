//! Copies whose nodes are started over ssh, beside what people use for that.

mod begin;
mod forms;
mod kills;
mod login;
mod options;
mod stripes;
mod walls;

use std::time::Duration;

use anyhow::Result;

use crate::cases::book::BenchResults;
use crate::lab::WorkDir;
use crate::report::BenchMachine;
use crate::scenario::BenchScenario;
use login::SshFixture;
use options::SshCase;
pub(crate) use options::SshOptions;

const ALL: [SshCase; 6] = [
    SshCase::Begin,
    SshCase::Hosts,
    SshCase::Forms,
    SshCase::Stripes,
    SshCase::Walls,
    SshCase::Kills,
];

pub(crate) fn run(options: &SshOptions) -> Result<()> {
    let tools = options.labs.tools()?;
    let machine = BenchMachine::look()?;
    let lab = WorkDir::new(&options.dir, options.bytes, Duration::from_secs(options.deadline))?;
    let bench = SshFixture { options, lab: &lab, tools: &tools };
    let mut book = BenchResults::new(machine);
    let chosen =
        ALL.into_iter().filter(|case| options.cases.is_empty() || options.cases.contains(case));
    for case in chosen {
        book.open(case, BenchScenario::FileToFile);
        let played = match case {
            SshCase::Begin => begin::one_host(bench, &mut book),
            SshCase::Hosts => begin::many_hosts(bench, &mut book),
            SshCase::Forms => forms::run(bench, &mut book),
            SshCase::Stripes => stripes::run(bench, &mut book),
            SshCase::Walls => walls::run(bench, &mut book),
            SshCase::Kills => kills::run(bench, &mut book),
        };
        if let Err(error) = played {
            book.failed("the case", &error);
        }
    }
    book.publish(lab, &options.labs.common)
}
