//! `plan`: what a specification would do; nothing is resolved, contacted or moved.

use std::process::ExitCode;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{print, read_spec};
use crate::cli::args::PlanArgs;
use crate::error::Result;
use crate::master::roster::Roster;
use crate::plan::{Plan, Planned};
use crate::units::{NodeIx, human_bytes};

/// Segments that are printed; a plan of more says how many it has.
const SEGMENTS_SHOWN_MAX: usize = 200;

pub(super) fn plan(args: &PlanArgs) -> Result<ExitCode> {
    let spec = read_spec(&args.spec)?;
    let roster = Roster::new(&spec);
    let nobody = vec![None; roster.entries.len()];
    let plan = crate::plan::plan(&roster.problem(&nobody), crate::plan::Scheduler::Greedy).map_err(|error| error.at(args.spec.display()))?;
    print(&in_words(&roster, &plan));
    Ok(ExitCode::SUCCESS)
}

fn in_words(roster: &Roster, plan: &Plan) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["segment", "size", "from", "to"]);
    for Planned { segment, weights, .. } in plan.planned.iter().take(SEGMENTS_SHOWN_MAX) {
        let name = |node: &NodeIx| roster.get(*node).address.to_string();
        let from = segment.senders.iter().zip(weights);
        let from: Vec<String> = from.map(|(node, weight)| format!("{} {:.0}%", name(node), weight * 100.0)).collect();
        let to: Vec<String> = segment.receivers.iter().map(name).collect();
        table.add_row([segment.span.to_string(), human_bytes(segment.span.bytes()), from.join(", "), to.join(", ")]);
    }
    let hidden = plan.planned.len().saturating_sub(SEGMENTS_SHOWN_MAX);
    let more = if hidden > 0 { format!("… and {hidden} more segments\n") } else { String::new() };
    let nobody = vec![None; roster.entries.len()];
    let assumed = if roster.assumes_speed(&nobody) {
        "speed      rows without speed= are assumed to have equal NICs of 100 Gbit/s\n"
    } else {
        ""
    };
    format!(
        "{table}\n{more}\npredicted  {:.6} s by these weights alone\nbound      {:.6} s, set by {}\n{assumed}",
        plan.predicted_seconds, plan.bound.seconds, plan.bound.bottleneck
    )
}
