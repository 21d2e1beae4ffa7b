//! `plan --simulate`: converts arguments to a scenario, and a forecast to a timeline.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::app::cli::args::PlanArgs;
use crate::core::error::{Code, Error, Result};
use crate::core::master::roster::Roster;
use crate::core::options::Scheduler;
use crate::core::plan::{Plan, PlanProblem};
use crate::core::report::ReportError;
use crate::core::sim::{NodeChange, SimScenario, TimelineEntry, TransferForecast, forecast};
use crate::core::spec::Spec;
use crate::core::units::{NodeIx, human_bytes, print_rate};

/// Rows of a timeline.
const ROWS: u32 = 16;
/// Limit on nodes whose completions are listed one by one; for more, the timeline counts them.
const ENDS_TOLD_MAX: usize = 8;
/// Simulations that are shorter have their moments in microseconds.
const SHORT_SECONDS: f64 = 0.1;
/// Delay of a packet within one machine room.
const DELAY: Duration = Duration::from_micros(100);

/// Runs the transfer on virtual time.
pub(super) fn simulate(
    args: &PlanArgs,
    spec: &Spec,
    roster: &Roster,
    problem: &PlanProblem,
    plan: &Plan,
    scheduler: Scheduler,
) -> Result<SimulationReport> {
    let mut changes = Vec::new();
    for rate in &args.rates {
        changes.push((
            named(roster, "--rate", &rate.node)?,
            rate.after,
            NodeChange::Rate(rate.rate),
        ));
    }
    for kill in &args.kills {
        changes.push((named(roster, "--kill", &kill.node)?, kill.after, NodeChange::Kill));
    }
    let delay = args.delay.unwrap_or(DELAY);
    let forecast =
        forecast(spec, problem, plan, &SimScenario { scheduler, delay, seed: args.seed, changes })?;
    Ok(SimulationReport::new(roster, problem, plan, &forecast, args.seed, delay))
}

/// Returns the node `name`: its host and port, or its host if that is unambiguous.
fn named(roster: &Roster, option: &str, name: &str) -> Result<NodeIx> {
    let called = |is: &dyn Fn(&crate::core::spec::NodeAddress) -> bool| -> Vec<NodeIx> {
        roster.nodes().filter(|(_, entry)| is(&entry.address)).map(|(node, _)| node).collect()
    };
    let exactly = called(&|address| address.to_string() == name);
    let found = if exactly.is_empty() { called(&|address| address.host == name) } else { exactly };
    match found.as_slice() {
        &[node] => Ok(node),
        [] => Err(Error::new(Code::Usage, format!("{option}: no row names {name}"))
            .remedy("name a row's host:port")),
        _ => {
            let what = format!("{option}: {} nodes have the host {name}", found.len());
            Err(Error::new(Code::Usage, what).remedy("name one of them with its port"))
        }
    }
}

/// Result of a simulated transfer.
#[derive(Serialize)]
pub(super) struct SimulationReport {
    /// `complete` or `failed`.
    state: &'static str,
    seconds: f64,
    /// Lower bound of any schedule at the declared speeds.
    bound_seconds: f64,
    /// Seconds over the bound, of a transfer that completed.
    ratio: Option<f64>,
    /// Bytes that landed, summed over receivers.
    bytes: u64,
    wasted_bytes: u64,
    stolen_bytes: u64,
    retries: u64,
    seed: u64,
    delay_seconds: f64,
    /// Size of the simulated pieces, which may be larger than the real ones.
    block_bytes: u64,
    error: Option<ReportError>,
    timeline: Vec<TimelineSample>,
    events: Vec<TimelineNote>,
    #[serde(skip)]
    is_coarse: bool,
    #[serde(skip)]
    wanted_bytes: u64,
    #[serde(skip)]
    receivers: usize,
}

/// The state at one moment.
#[derive(Serialize)]
struct TimelineSample {
    seconds: f64,
    bytes: u64,
    /// Rate since the sample before.
    gbit_per_s: f64,
    /// Receivers that have all their bytes.
    receivers_done: usize,
}

/// An event of a node.
#[derive(Serialize)]
struct TimelineNote {
    seconds: f64,
    node: String,
    what: String,
    #[serde(skip)]
    is_end: bool,
}

impl SimulationReport {
    fn new(
        roster: &Roster,
        problem: &PlanProblem,
        plan: &Plan,
        forecast: &TransferForecast,
        seed: u64,
        delay: Duration,
    ) -> SimulationReport {
        let history = &forecast.history;
        let mut events: Vec<TimelineNote> = Vec::new();
        for (moment, node, news) in &history.news {
            let what = match news {
                TimelineEntry::Died => "dies".into(),
                TimelineEntry::Rate(rate) => format!("has a line of {}bit/s", print_rate(*rate)),
                TimelineEntry::Done => "has everything".into(),
                TimelineEntry::Failed(why) => format!("fails: {why}"),
            };
            let mut seconds = moment.since(history.began).as_secs_f64();
            if *news == TimelineEntry::Done {
                // A receiver has everything with its last piece, and says so a little later.
                seconds = seconds.min(forecast.seconds);
            }
            let node = roster.get(*node).address.to_string();
            events.push(TimelineNote { seconds, node, what, is_end: *news == TimelineEntry::Done });
        }
        let mut timeline: Vec<TimelineSample> = Vec::new();
        for row in 1..=ROWS {
            let seconds = forecast.seconds * f64::from(row) / f64::from(ROWS);
            let (before, since) =
                timeline.last().map_or((0, 0.0), |sample| (sample.bytes, sample.seconds));
            let bytes =
                if row == ROWS { history.landed_bytes() } else { history.landed_by(seconds) };
            let is_last = row == ROWS;
            let done = events
                .iter()
                .filter(|event| event.is_end && (is_last || event.seconds <= seconds))
                .count();
            let gbit_per_s = crate::core::report::gbit_per_s(bytes - before, seconds - since);
            timeline.push(TimelineSample { seconds, bytes, gbit_per_s, receivers_done: done });
        }
        let ratio = forecast.seconds / plan.bound.seconds;
        SimulationReport {
            state: if forecast.error.is_some() { "failed" } else { "complete" },
            seconds: forecast.seconds,
            bound_seconds: plan.bound.seconds,
            ratio: (forecast.error.is_none() && ratio.is_finite()).then_some(ratio),
            bytes: history.landed_bytes(),
            wasted_bytes: forecast.counts.wasted_bytes,
            stolen_bytes: forecast.counts.stolen_bytes,
            retries: forecast.counts.retries,
            seed,
            delay_seconds: delay.as_secs_f64(),
            block_bytes: forecast.block_bytes,
            error: forecast.error.as_ref().map(ReportError::from),
            timeline,
            events,
            is_coarse: forecast.block_bytes > problem.grid.1,
            wanted_bytes: plan.wanted_bytes(),
            receivers: roster.entries.iter().filter(|entry| entry.receives()).count(),
        }
    }

    /// Formats the timeline and the outcome.
    pub(super) fn in_words(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "at",
            "landed",
            "of all",
            "Gbit/s",
            "done",
            "what happens",
        ]);
        let ends = self.events.iter().filter(|event| event.is_end).count();
        let told = |event: &&TimelineNote| !event.is_end || ends <= ENDS_TOLD_MAX;
        let digits = if self.seconds < SHORT_SECONDS { 6 } else { 3 };
        let mut from = 0.0;
        for (at, sample) in self.timeline.iter().enumerate() {
            // Events after the last piece belong to the last row.
            let until = if at + 1 == self.timeline.len() { f64::INFINITY } else { sample.seconds };
            let within = |event: &&TimelineNote| (from..until).contains(&event.seconds);
            let events: Vec<String> = self
                .events
                .iter()
                .filter(within)
                .filter(told)
                .map(|event| event.in_words(digits))
                .collect();
            from = until;
            table.add_row([
                format!("{:.digits$} s", sample.seconds),
                human_bytes(sample.bytes),
                format!("{:.1} %", sample.bytes as f64 / self.wanted_bytes.max(1) as f64 * 100.0),
                format!("{:.2}", sample.gbit_per_s),
                format!("{} of {}", sample.receivers_done, self.receivers),
                events.join("\n"),
            ]);
        }
        let coarse = if self.is_coarse {
            format!(
                ", in pieces of {} so that it takes no longer: what pieces cost is not to scale",
                human_bytes(self.block_bytes)
            )
        } else {
            String::new()
        };
        let ratio =
            self.ratio.map_or_else(String::new, |ratio| format!(", {ratio:.3} times the bound"));
        let error = self
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!("\nerror      {}", error.to_error()));
        format!(
            "simulated  {} after {:.6} s{ratio} (seed {}, {} ms from node to node{coarse})\n\
             wasted     {}; stolen: {}; retries: {}{error}\n{table}\n",
            self.state,
            self.seconds,
            self.seed,
            self.delay_seconds * 1e3,
            human_bytes(self.wasted_bytes),
            human_bytes(self.stolen_bytes),
            self.retries,
        )
    }
}

impl TimelineNote {
    fn in_words(&self, digits: usize) -> String {
        format!("{:.digits$} s: {} {}", self.seconds, self.node, self.what)
    }
}
