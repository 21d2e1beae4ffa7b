//! `bench`: transfers from memory to memory between nodes, compared with line rate, over 1 … k NICs
//! or with 1 … t threads each.

use std::cell::RefCell;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::output::{print, print_apart, print_json};
use super::run::{own_program, watch};
use super::stop_signal::StopSignal;
use super::tournament;
use crate::app::bench::{
    BenchFigures, BenchStep, NextRun, PROBE_BYTES, parts, rows, svg, threads_enough,
};
use crate::app::cli::args::{BenchArgs, BenchNodes};
use crate::app::cli::events::{EventStream, is_stdout};
use crate::app::cli::fail;
use crate::app::cli::signals::cancel_on_signals;
use crate::app::transfer::{Settings, Transfer};
use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::options::TransferOptions;
use crate::core::report::{NodeReport, Report, TransferState};
use crate::core::spec::NodeAddress;

/// Duration of a measurement, if none is given.
const SECONDS: Duration = Duration::from_secs(5);

pub(super) fn bench(args: &BenchArgs) -> Result<ExitCode> {
    // In a job, all its hosts are meant.
    let has_sides = args.from.is_some() || args.to.is_some();
    if !args.hosts.is_empty() || (args.launch == LaunchMethod::Slurm && !has_sides) {
        return tournament::bench_hosts(args);
    }
    if args.min_efficiency.is_some() {
        return Err(Error::new(Code::Usage, "--min-efficiency is for HOSTs, and there are none")
            .remedy("name the hosts: cep-fast bench n[01-16] --launch ssh --min-efficiency 0.9"));
    }
    let (senders, receivers) = sides(args)?;
    let stop = Arc::new(StopSignal::default());
    let on_signal = Arc::clone(&stop);
    cancel_on_signals(move || on_signal.cancel())?;
    // Files are tested before the measurement.
    args.svg.as_deref().map_or(Ok(()), can_write)?;
    let events = RefCell::new(EventStream::open(args.events.as_deref())?);
    let bench = BenchRun { args, senders, receivers, stop, events };
    let check = args
        .check
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned());
    let mut figures = BenchFigures {
        seconds_asked: args.seconds.unwrap_or(SECONDS).as_secs_f64(),
        check,
        steps: Vec::new(),
        threads_per_nic: None,
        error: None,
    };
    let ended = bench.measure(&mut figures);
    if let Some(events) = bench.events.take() {
        events.finish();
    }
    let ended = ended?;
    figures.error = ended.error.clone();
    // If steps are missing, one of them could have been better.
    figures.threads_per_nic =
        threads_enough(&figures.steps).filter(|_| args.threads && ended.error.is_none());
    if let Some(path) = &args.svg {
        write(path, &svg(&figures))?;
    }
    let written = if args.json {
        print_json(&json(&figures))
    } else if args.events.as_deref().is_some_and(is_stdout) {
        print_apart(&figures.to_string());
        Ok(())
    } else if ended.error.is_none() || !figures.steps.is_empty() {
        print(&figures.to_string())
    } else {
        Ok(())
    };
    // The first error decides the exit status.
    let ended = ended.into_result().map(drop);
    Ok(ended.and(written).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS))
}

fn json(figures: &BenchFigures) -> String {
    serde_json::to_string(figures).expect("numbers, strings and lists have a form in JSON")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| unwritable(path, &error))
}

/// Checks that the file can be written. An existing file is kept until the picture replaces it.
fn can_write(path: &Path) -> Result<()> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::Data, format!("{}: cannot be written: {error}", path.display()))
        .remedy("choose another file for --svg")
}

/// Returns senders and receivers. Nodes started by the benchmark need no names.
fn sides(args: &BenchArgs) -> Result<(Vec<NodeAddress>, Vec<NodeAddress>)> {
    let given = |nodes: &Option<BenchNodes>| nodes.as_ref().map(|nodes| nodes.0.clone());
    let local = |host: &str| {
        (args.launch == LaunchMethod::Local)
            .then(|| vec![NodeAddress { host: host.into(), port: 0 }])
    };
    let side = |option: &str, nodes: Option<Vec<NodeAddress>>, host: &str| {
        nodes.or_else(|| local(host)).ok_or_else(|| {
            Error::new(Code::Usage, format!("{option} is missing")).remedy(
                "name the nodes of both sides with --from and --to, start two here with --launch \
                 local, or name hosts and have each measured: n[01-16] --launch ssh",
            )
        })
    };
    let senders = side("--from", given(&args.from), "sender")?;
    let receivers = side("--to", given(&args.to), "receiver")?;
    for (option, nodes) in [("--from", &senders), ("--to", &receivers)] {
        if let Some((_, twice)) =
            nodes.iter().enumerate().find(|(at, node)| nodes[..*at].contains(node))
        {
            return Err(Error::new(Code::Usage, format!("{option} names {twice} twice"))
                .remedy("name each node once"));
        }
    }
    if let [only] = senders.as_slice()
        && receivers.contains(only)
    {
        let what = format!(
            "{only} is the only sender and a receiver, too: its own bytes would never see a NIC"
        );
        return Err(Error::new(Code::Usage, what).remedy("name another node in --from or in --to"));
    }
    Ok((senders, receivers))
}

/// One benchmark: its nodes, and the signal that ends it.
struct BenchRun<'a> {
    args: &'a BenchArgs,
    senders: Vec<NodeAddress>,
    receivers: Vec<NodeAddress>,
    stop: Arc<StopSignal>,
    events: RefCell<Option<EventStream>>,
}

impl BenchRun<'_> {
    /// Measures over 1 … k NICs, or with 1 … t threads, and returns the last report, or the one
    /// that failed.
    fn measure(&self, figures: &mut BenchFigures) -> Result<Report> {
        // The first short run uses all NICs and threads, which shows their number.
        let first = self.run(BenchLimits::default(), &vec![PROBE_BYTES; self.receivers.len()])?;
        let nics_max = first.nodes.iter().map(|node| node.rails.len()).max().unwrap_or(1);
        let rails = first.nodes.iter().flat_map(|node| &node.rails);
        let threads_max = rails.map(|rail| rail.threads).max().unwrap_or(1);
        let steps_max = if self.args.threads { threads_max } else { nics_max };
        let mut last = first;
        for count in (1..).map_while(NonZeroU32::new).take(steps_max.max(1)) {
            if last.state != TransferState::Complete {
                break;
            }
            let (limits, nics) = if self.args.threads {
                (
                    BenchLimits { threads: Some(count), ..BenchLimits::default() },
                    u32::try_from(nics_max).unwrap_or(u32::MAX),
                )
            } else {
                (BenchLimits { nics: Some(count), ..BenchLimits::default() }, count.get())
            };
            last = self.step(limits)?;
            if last.state == TransferState::Complete {
                figures.steps.push(BenchStep::new(nics, &last, self.args.line_rate));
            }
        }
        Ok(last)
    }

    /// Measures within `limits`: short runs until the rate is known, then the run that counts.
    fn step(&self, limits: BenchLimits) -> Result<Report> {
        let mut bytes = vec![PROBE_BYTES; self.receivers.len()];
        loop {
            let report = self.run(limits, &bytes)?;
            if report.state != TransferState::Complete {
                return Ok(report);
            }
            match parts(&self.paces(&report, &bytes), self.args.seconds.unwrap_or(SECONDS)) {
                NextRun::Probe(larger) => bytes = larger,
                NextRun::Measure(enough) => return self.run(limits, &enough),
            }
        }
    }

    /// Returns the bytes and seconds of each receiver.
    fn paces(&self, report: &Report, bytes: &[u64]) -> Vec<(u64, f64)> {
        let named = |name: String| report.nodes.iter().find(move |node| node.name == name);
        let seconds = |node: Option<&NodeReport>| node.map_or(report.seconds, |node| node.seconds);
        let receivers = self.receivers.iter().map(|receiver| seconds(named(receiver.to_string())));
        bytes.iter().copied().zip(receivers).collect()
    }

    fn run(&self, limits: BenchLimits, bytes: &[u64]) -> Result<Report> {
        let mut transfer = Transfer::new("bench", self.settings(limits));
        for row in rows(&self.senders, &self.receivers, bytes) {
            transfer.schedule(row);
        }
        self.stop.watch(transfer.handle());
        let mut events = self.events.borrow_mut();
        let report = watch(&transfer, self.args.progress, events.as_mut());
        if let (Some(events), Ok(report)) = (events.as_mut(), &report) {
            events.end(report);
        }
        if transfer.handle().was_cancelled() {
            // A client of one run means the benchmark.
            self.stop.cancel();
        }
        report
    }

    fn settings(&self, limits: BenchLimits) -> Settings {
        Settings {
            launch: self.args.launch.clone(),
            program: own_program(),
            key_file: self.args.keys.key_file.clone(),
            allow_file: self.args.keys.allow_file.clone(),
            findable: true,
            options: TransferOptions {
                check: self.args.check,
                wire: self.args.wire,
                slots: self.args.slots,
                rails_max: limits.nics,
                threads_max: limits.threads,
                ..TransferOptions::default()
            },
            ..Settings::default()
        }
    }
}

/// Limits on the use of each node; `None` for no limit.
#[derive(Clone, Copy, Default)]
struct BenchLimits {
    nics: Option<NonZeroU32>,
    threads: Option<NonZeroU32>,
}
