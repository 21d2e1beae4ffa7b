//! Figures of a fleet for people: nodes, distributions, and who is below the rest.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::figures::{FleetFigures, FleetNicFigures, FleetNodeFigures, FleetRailFigures};
use crate::core::fleet::spread::Spread;
use crate::core::fleet::verdict::RateBasis;
use crate::core::units::BitRate;

/// Nodes that are listed, if not all of them; those that are named are listed in any case.
const LISTED_MAX: usize = 16;

impl fmt::Display for FleetFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_nodes(f)?;
        self.write_spread(f)?;
        let slow = self.slow().count();
        if slow == 0 {
            return writeln!(f, "\nNo node is below the rest.");
        }
        writeln!(f, "\n{slow} of {} nodes below the rest:", self.nodes.len())?;
        for node in self.slow() {
            for cause in &node.causes {
                writeln!(f, "\n{}: {}\n  try: {}", node.node, cause.cause, cause.remedy)?;
            }
        }
        Ok(())
    }
}

impl FleetFigures {
    fn write_nodes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "node",
            "NIC",
            "out",
            "in",
            "of expected",
            "CPUs used",
            "waits",
            "others take",
            "resent",
        ]);
        let listed = self.nodes.len().min(LISTED_MAX.max(self.slow().count()));
        for node in &self.nodes[..listed] {
            table.add_row(node_cells(node));
            if node.nics.len() > 1 {
                node.nics.iter().for_each(|nic| {
                    table.add_row(nic_cells(nic));
                });
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}", table.trim_fmt())?;
        match self.nodes.len() - listed {
            0 => Ok(()),
            more => writeln!(f, "and {more} more nodes, none of them worse"),
        }
    }

    fn write_spread(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "all nodes",
            "expected",
            "min",
            "5 %",
            "median",
            "95 %",
            "max",
        ]);
        for nic in &self.nics {
            let expected = &nic.expected;
            let ways = [
                ("out", expected.expected_sent_gbit_per_s, &nic.sent_gbit_per_s),
                ("in", expected.expected_received_gbit_per_s, &nic.received_gbit_per_s),
            ];
            for (way, expected, spread) in ways {
                let expected = expected.map_or_else(nothing, |rate| in_words(nic, rate));
                let label = format!("{} {way}, {} NICs", nic.nic, nic.count);
                add_spread(&mut table, label, expected, spread.as_ref(), rate);
            }
        }
        add_spread(&mut table, "efficiency".into(), nothing(), self.efficiency.as_ref(), percent);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "\n{}", table.trim_fmt())
    }
}

/// Returns an expected rate with its origin.
fn in_words(nic: &FleetNicFigures, expected: f64) -> String {
    match nic.expected.expected_by {
        Some(RateBasis::Declared) => format!("{} as declared", rate(expected)),
        Some(RateBasis::Line) => format!("{} of the line", rate(expected)),
        Some(RateBasis::Peers) | None => "the median".to_owned(),
    }
}

fn add_spread(
    table: &mut Table,
    label: String,
    expected: String,
    spread: Option<&Spread>,
    shown: impl Fn(f64) -> String,
) {
    let Some(&Spread { min, p5, median, p95, max }) = spread else { return };
    let values = [min, p5, median, p95, max].map(shown);
    table.add_row([label, expected].into_iter().chain(values));
}

fn node_cells(node: &FleetNodeFigures) -> [String; 9] {
    let or_nothing = |share: Option<f64>| share.map_or_else(nothing, percent);
    [
        node.node.clone(),
        match node.nics.as_slice() {
            [only] => only.nic.clone(),
            several => format!("{} NICs", several.len()),
        },
        rate(node.sent_gbit_per_s),
        rate(node.received_gbit_per_s),
        or_nothing(node.efficiency),
        match (node.cores_used, node.cpus) {
            (Some(cores), Some(cpus)) => format!("{cores:.2} of {cpus}"),
            _ => nothing(),
        },
        or_nothing(node.cpu_wait),
        or_nothing(node.cpu_others),
        node.resent.map_or_else(nothing, |part| format!("{:.2} %", part * 100.0)),
    ]
}

fn nic_cells(nic: &FleetRailFigures) -> [String; 5] {
    [
        String::new(),
        nic.nic.clone(),
        rate(nic.sent_gbit_per_s),
        rate(nic.received_gbit_per_s),
        nic.efficiency.map_or_else(nothing, percent),
    ]
}

fn rate(gbit_per_s: f64) -> String {
    BitRate((gbit_per_s * 1e9).round() as u64).to_string()
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn nothing() -> String {
    "-".to_owned()
}
