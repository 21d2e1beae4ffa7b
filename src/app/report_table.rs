//! The table of nodes and NICs below a report.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::core::report::{NodeReport, NodeRole, RailReport, Report};
use crate::core::units::{BitRate, human_bytes, printable};

/// One row for each node, and below it one for each of its NICs.
pub(super) fn node_table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(HEADINGS);
    for node in &report.nodes {
        table.add_row(node_cells(report, node));
        for rail in &node.rails {
            table.add_row(rail_cells(report, rail));
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn node_cells(report: &Report, node: &NodeReport) -> [String; COLUMNS] {
    let role = match node.role {
        NodeRole::Sender => "sender",
        NodeRole::Receiver => "receiver",
        NodeRole::Both => "both",
    };
    [
        printable(&node.name).into_owned(),
        role.into(),
        human_bytes(node.bytes_sent),
        human_bytes(node.bytes_received),
        rate(report, node.bytes_sent, node.bytes_received),
        String::new(),
        format!("{:.2}", node.cpu_seconds),
        human_bytes(node.memory_bytes_max),
    ]
}

fn rail_cells(report: &Report, rail: &RailReport) -> [String; COLUMNS] {
    let of_line = match (rail.line_gbit_per_s, rail.efficiency) {
        (Some(line), Some(efficiency)) => {
            format!("{:.1} % of {line} Gbit/s", efficiency * 100.0)
        }
        _ => "-".into(),
    };
    [
        format!("  {}", printable(&rail.nic)),
        "rail".into(),
        human_bytes(rail.bytes_sent),
        human_bytes(rail.bytes_received),
        rate(report, rail.bytes_sent, rail.bytes_received),
        of_line,
        String::new(),
        String::new(),
    ]
}

/// Returns the rate of the busier direction: links carry both at once.
fn rate(report: &Report, sent_bytes: u64, received_bytes: u64) -> String {
    let bits = sent_bytes.max(received_bytes) as f64 * 8.0 / report.seconds;
    if bits.is_finite() { BitRate(bits as u64).to_string() } else { "-".into() }
}

const COLUMNS: usize = 8;
const HEADINGS: [&str; COLUMNS] =
    ["node", "role", "sent", "received", "rate", "of line", "CPU s", "memory"];
