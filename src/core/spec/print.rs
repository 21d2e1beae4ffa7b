//! Printer of specifications in aligned columns. Parsing the text returns the same rows.

use std::fmt;

use super::text::{quote, quote_if_needed};
use super::{PairRate, Row, RowRole, Spec, StoreRate};
use crate::core::units::print_rate;

/// Prints a specification file. Parsing it returns an equal [`Spec`], apart from line numbers.
///
/// Two values cannot be written in a file and are lost: empty ranges, and NIC names with commas.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "id {}", quote(&self.id))?;
        if let Some(origin) = self.origin {
            writeln!(f, "option origin {origin}")?;
        }
        if let Some(block_bytes) = self.block_bytes {
            writeln!(f, "option block {block_bytes}")?;
        }
        for StoreRate { name, rate } in &self.stores {
            writeln!(f, "option store {} {}", quote_if_needed(name), print_rate(*rate))?;
        }
        for PairRate { from, to, rate, .. } in &self.pairs {
            writeln!(f, "option pair {from} {to} {}", print_rate(*rate))?;
        }
        let rows: Vec<RowCells> = self.rows.iter().map(cells).collect();
        let heading =
            ["# Role", "Host:Port", "Data URI", "Offset", "Start-End", ""].map(String::from);
        let widths = widths(rows.iter().chain([&heading]));
        write_aligned(f, &heading, widths)?;
        if let Some(master) = &self.master {
            writeln!(f, "{:<width$}  {master}", "master", width = widths[0])?;
        }
        rows.iter().try_for_each(|row| write_aligned(f, row, widths))
    }
}

type RowCells = [String; COLUMNS];

fn cells(row: &Row) -> RowCells {
    let role = match row.role {
        RowRole::Sender => "writer",
        RowRole::Receiver => "reader",
    };
    [
        role.into(),
        row.node.to_string(),
        quote(&row.uri.to_string()),
        row.offset_bytes.to_string(),
        row.range.to_string(),
        pairs(row),
    ]
}

/// Returns the trailing `key=value` pairs.
fn pairs(row: &Row) -> String {
    let mut pairs = Vec::new();
    pairs.extend(row.speed.map(|speed| format!("speed={}", print_rate(speed))));
    if !row.nics.is_empty() {
        pairs.push(format!("nics={}", quote_if_needed(&row.nics.join(","))));
    }
    pairs.extend(row.group.as_ref().map(|group| format!("group={}", quote_if_needed(group))));
    pairs.extend(row.store.as_ref().map(|store| format!("store={}", quote_if_needed(store))));
    pairs.join(" ")
}

/// Returns the widths of columns: that of the widest cell, up to a limit, so that one long path
/// does not stretch a million rows.
fn widths<'a>(rows: impl Iterator<Item = &'a RowCells>) -> [usize; COLUMNS] {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(WIDTH_MAX));
        }
    }
    widths
}

fn write_aligned(
    f: &mut fmt::Formatter<'_>,
    row: &RowCells,
    widths: [usize; COLUMNS],
) -> fmt::Result {
    let last = row.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
    for (cell, width) in row.iter().zip(widths).take(last) {
        write!(f, "{cell:<width$}  ")?;
    }
    writeln!(f, "{}", row[last])
}

const COLUMNS: usize = 6;
const WIDTH_MAX: usize = 48;
