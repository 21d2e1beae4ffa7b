//! `plan`: prints the plan of a specification; nothing is resolved, contacted or moved.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use picture::PlanPicture;
use simulated::SimulationReport;

use super::output::{print, print_json};
use super::spec_file::valid_spec;
use crate::app::cli::args::PlanArgs;
use crate::core::error::{Code, Error, Result};
use crate::core::master::roster::Roster;
use crate::core::plan::{Plan, PlannedSegment, SenderWeights};
use crate::core::units::{NodeIx, human_bytes, printable};

mod picture;
mod simulated;

/// Limit on printed segments; for a longer plan, their number is printed.
const SEGMENTS_SHOWN_MAX: usize = 200;

pub(super) fn plan(args: &PlanArgs) -> Result<ExitCode> {
    let spec = valid_spec(&args.spec)?;
    let roster = Roster::new(&spec);
    let nobody = vec![None; roster.entries.len()];
    let problem = roster.problem(&nobody);
    let began = Instant::now();
    let plan = crate::core::plan::plan(&problem, args.scheduler)
        .map_err(|error| error.at(args.spec.display()))?;
    let planning_seconds = began.elapsed().as_secs_f64();
    let assumes_speed = roster.assumes_speed(&nobody);
    let simulated = if args.simulate {
        Some(simulated::simulate(args, &spec, &roster, &problem, &plan, args.scheduler)?)
    } else {
        None
    };
    if let Some(path) = &args.svg {
        let captions = if assumes_speed { vec![ASSUMED.to_owned()] } else { Vec::new() };
        write(path, &PlanPicture::new(&spec.id, &roster, &problem, &plan, captions).svg())?;
    }
    let said = PlanText {
        transfer: &spec.id,
        roster: &roster,
        plan: &plan,
        assumes_speed,
        planning_seconds,
        simulated,
    };
    if args.json { print_json(&said.json()) } else { print(&said.in_words()) }?;
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, picture: &str) -> Result<()> {
    std::fs::write(path, picture).map_err(|error| {
        Error::new(Code::Data, format!("{}: cannot be written: {error}", path.display()))
            .remedy("choose another file for --svg")
    })
}

/// Note for unknown speeds.
const ASSUMED: &str = "rows without speed= are assumed to have equal NICs of 100 Gbit/s";

/// Data for the printed plan.
struct PlanText<'a> {
    transfer: &'a str,
    roster: &'a Roster,
    plan: &'a Plan,
    assumes_speed: bool,
    planning_seconds: f64,
    simulated: Option<SimulationReport>,
}

/// JSON object of the plan.
#[derive(Serialize)]
struct PlanJson<'a> {
    transfer: &'a str,
    scheduler: &'a str,
    /// The specification's, or the chosen one.
    block_bytes: u64,
    /// Bytes delivered, summed over receivers.
    bytes: u64,
    predicted_seconds: f64,
    bound_seconds: f64,
    bottleneck: &'a str,
    speeds_assumed: bool,
    planning_seconds: f64,
    segments: Vec<SegmentJson>,
    /// With `--simulate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<&'a SimulationReport>,
}

/// Receivers of a segment that ask the same senders with the same weights.
#[derive(Serialize)]
struct SegmentJson {
    /// Inclusive, as in a specification.
    range: String,
    bytes: u64,
    senders: Vec<SenderJson>,
    receivers: Vec<String>,
}

#[derive(Serialize)]
struct SenderJson {
    node: String,
    weight: f64,
}

impl PlanText<'_> {
    fn name(&self, node: NodeIx) -> String {
        printable(&self.roster.get(node).address.to_string()).into_owned()
    }

    fn json(&self) -> String {
        let plan = PlanJson {
            transfer: self.transfer,
            scheduler: self.plan.scheduler.name(),
            block_bytes: self.roster.grid.block_bytes(),
            bytes: self.plan.wanted_bytes(),
            predicted_seconds: self.plan.predicted_seconds,
            bound_seconds: self.plan.bound.seconds,
            bottleneck: &self.plan.bound.bottleneck,
            speeds_assumed: self.assumes_speed,
            planning_seconds: self.planning_seconds,
            segments: self.plan.planned.iter().flat_map(|planned| self.segments(planned)).collect(),
            simulated: self.simulated.as_ref(),
        };
        serde_json::to_string(&plan).expect("numbers, strings and lists have a form in JSON")
    }

    fn segments(&self, planned: &PlannedSegment) -> Vec<SegmentJson> {
        let span = planned.segment.span;
        let segment = |(senders, receivers): SenderWeights| SegmentJson {
            range: span.to_string(),
            bytes: span.bytes(),
            senders: senders
                .into_iter()
                .map(|(node, weight)| SenderJson { node: self.name(node), weight })
                .collect(),
            receivers: receivers.into_iter().map(|node| self.name(node)).collect(),
        };
        planned.by_senders().into_iter().map(segment).collect()
    }

    fn in_words(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["segment", "size", "from", "to"]);
        for planned in self.plan.planned.iter().take(SEGMENTS_SHOWN_MAX) {
            let span = planned.segment.span;
            for (senders, receivers) in planned.by_senders() {
                let from = senders
                    .iter()
                    .map(|(node, weight)| format!("{} {:.0}%", self.name(*node), weight * 100.0));
                let from: Vec<String> = from.collect();
                let to: Vec<String> = receivers.iter().map(|node| self.name(*node)).collect();
                table.add_row([
                    span.to_string(),
                    human_bytes(span.bytes()),
                    from.join(", "),
                    to.join(", "),
                ]);
            }
        }
        let hidden = self.plan.planned.len().saturating_sub(SEGMENTS_SHOWN_MAX);
        let more =
            if hidden > 0 { format!("… and {hidden} more segments\n") } else { String::new() };
        let assumed =
            if self.assumes_speed { format!("speed      {ASSUMED}\n") } else { String::new() };
        let simulated =
            self.simulated.as_ref().map_or_else(String::new, SimulationReport::in_words);
        let Plan { scheduler, predicted_seconds, bound, .. } = self.plan;
        format!(
            "{table}\n\
             {more}\n\
             scheduler  {}, in {:.6} s\n\
             predicted  {predicted_seconds:.6} s by these weights alone\n\
             bound      {:.6} s, set by {}\n\
             block      {}\n\
             {assumed}{simulated}",
            scheduler.name(),
            self.planning_seconds,
            bound.seconds,
            printable(&bound.bottleneck),
            human_bytes(self.roster.grid.block_bytes())
        )
    }
}
