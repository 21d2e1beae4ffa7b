//! `bench` of hosts: nodes are started once, and each is measured with several others in turn.
//!
//! A round ends by its time, not by its bytes, so that a slow node makes none longer.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hosts::{nodes_of, settings_without_files};
use super::output::{print, print_apart, print_json};
use super::stop_signal::StopSignal;
use crate::app::bench::{FleetFigures, FleetMeter, RoundSize, rows_of_round};
use crate::app::cli::args::{BenchArgs, ProgressMode};
use crate::app::cli::exit_code;
use crate::app::cli::signals::cancel_on_signals;
use crate::app::transfer::{ReachedNodes, Settings, Transfer};
use crate::core::error::{Code, Error, Result};
use crate::core::fleet::judge::{FleetTerms, FleetVerdict, judge};
use crate::core::fleet::schedule::{RoundPairs, clearing_round, rounds};
use crate::core::options::TransferOptions;
use crate::core::report::{Report, TransferState};
use crate::core::spec::{NodeAddress, Spec};
use crate::io::clock::awake;
use crate::io::launch::{LaunchPurpose, current_job};

/// Partners of each node. One that is slow spoils one of them, and nodes are judged by their best.
const PARTNERS: usize = 3;
/// Duration of a round, if none is given: TCP finds its rate in less.
const SECONDS: Duration = Duration::from_secs(2);
/// Part of it that the first round lasts, which shows the rates and starts the threads.
const FIRST_PART: f64 = 0.25;

pub(super) fn bench_hosts(args: &BenchArgs) -> Result<ExitCode> {
    let settings = settings(args);
    settings.check()?;
    let nodes = nodes_of(&args.hosts, &settings, &current_job)?;
    if nodes.len() < 2 {
        let host = nodes.first().map_or("nobody", |node| &node.address.host);
        let what = format!("{host}: one host has nobody to be measured with");
        return Err(Error::new(Code::Usage, what).remedy("name two hosts at least"));
    }
    let stop = Arc::new(StopSignal::default());
    let on_signal = Arc::clone(&stop);
    cancel_on_signals(move || on_signal.cancel())?;
    let reached =
        ReachedNodes::launch_to(LaunchPurpose::Measure, &nodes, &settings, &|| stop.is_asked())?;
    let seconds = args.seconds.unwrap_or(SECONDS);
    let addresses = nodes.into_iter().map(|node| node.address).collect();
    let tournament = Tournament { args, settings, addresses, reached: Arc::new(reached), stop };
    let min_efficiency = args.min_efficiency.map(|part| part.0);
    let terms =
        FleetTerms { is_declared: args.line_rate.is_some(), efficiency_min: min_efficiency };
    let (meter, verdict, rounds) = tournament.play(seconds, &terms)?;
    let figures =
        FleetFigures::new((seconds.as_secs_f64(), rounds), min_efficiency, meter.nodes(), &verdict);
    if args.json {
        let json = serde_json::to_string(&figures);
        print_json(&json.expect("numbers, strings and lists have a form in JSON"))?;
    } else {
        print(&figures.to_string())?;
    }
    // A machine that is not fit, as in docs/decisions/0013; without a least efficiency it was only
    // asked how fit each is.
    let fails = min_efficiency.is_some() && figures.slow().next().is_some();
    Ok(if fails { exit_code(Code::Data) } else { ExitCode::SUCCESS })
}

fn settings(args: &BenchArgs) -> Settings {
    Settings {
        findable: true,
        options: TransferOptions {
            check: args.check,
            wire: args.wire,
            slots: args.slots,
            ..TransferOptions::default()
        },
        ..settings_without_files(args.launch.clone(), &args.starter)
    }
}

/// Rounds over nodes that were started.
struct Tournament<'a> {
    args: &'a BenchArgs,
    settings: Settings,
    addresses: Vec<NodeAddress>,
    reached: Arc<ReachedNodes>,
    stop: Arc<StopSignal>,
}

impl Tournament<'_> {
    /// Plays all rounds, and one more for nodes that have met nobody who is good. Returns the
    /// measures, the verdict and the number of rounds.
    fn play(
        &self,
        seconds: Duration,
        terms: &FleetTerms,
    ) -> Result<(FleetMeter, FleetVerdict, usize)> {
        let mut meter = FleetMeter::new(self.addresses.clone(), self.args.line_rate);
        let rounds = rounds(self.addresses.len(), PARTNERS);
        self.tell("a first round, to start");
        self.round(&rounds[0], RoundSize::FIRST, seconds.mul_f64(FIRST_PART), &mut meter)?;
        let size = meter.size(seconds);
        meter.forget();
        for (at, pairs) in rounds.iter().enumerate() {
            self.tell(&format!("round {} of {}", at + 1, rounds.len()));
            self.round(pairs, size, seconds, &mut meter)?;
        }
        let verdict = judge(meter.nodes(), terms);
        let pairs = clearing_round(&verdict.unclear, &verdict.good);
        if pairs.is_empty() {
            return Ok((meter, verdict, rounds.len()));
        }
        self.tell("one more round, for those whose partners were all slow");
        self.round(&pairs, size, seconds, &mut meter)?;
        let verdict = judge(meter.nodes(), terms);
        Ok((meter, verdict, rounds.len() + 1))
    }

    fn tell(&self, what: &str) {
        if self.args.progress == ProgressMode::Auto && std::io::stderr().is_terminal() {
            print_apart(what);
        }
    }

    /// Plays one round.
    fn round(
        &self,
        pairs: &RoundPairs,
        size: RoundSize,
        seconds: Duration,
        meter: &mut FleetMeter,
    ) -> Result<()> {
        let spec = Spec {
            id: "bench".to_owned(),
            rows: rows_of_round(pairs, &self.addresses, size.bytes),
            block_bytes: Some(size.block_bytes),
            ..Spec::default()
        };
        let transfer = Transfer::over(Arc::clone(&self.reached), spec, self.settings.clone());
        self.stop.watch(transfer.handle());
        let (report, was_timed) = run_for(&transfer, seconds)?;
        let is_over = was_timed && report.state == TransferState::Cancelled;
        if report.state != TransferState::Complete && (!is_over || self.stop.is_asked()) {
            return report.into_result().map(drop);
        }
        meter.add(pairs, &report);
        Ok(())
    }
}

/// Runs a transfer, and ends it some time after its first byte. Returns true, too, if that time was
/// over before it ended.
fn run_for(transfer: &Transfer, seconds: Duration) -> Result<(Report, bool)> {
    let (handle, mut began, mut was_timed) = (transfer.handle(), None::<Instant>, false);
    let report = transfer.run(&mut |coordinator| {
        if coordinator.landed_bytes() == 0 || was_timed {
            return;
        }
        let now = awake();
        if now >= *began.get_or_insert(now) + seconds {
            was_timed = true;
            handle.cancel();
        }
    })?;
    Ok((report, was_timed))
}
