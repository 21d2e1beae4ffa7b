//! Uneven nodes whose NICs claim far more than they carry, and rows that declare nothing, or ten
//! times too much or too little: the time taken beside the bound of the true speeds.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use serde_json::json;

use super::book::BenchResults;
use super::fixture::CaseFixture;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster, address};
use crate::plans;
use crate::report::median;

/// Rates of the senders and of the receivers.
const RATES_MBIT: [u32; 4] = [1000, 100, 1000, 100];
const NODES: u32 = RATES_MBIT.len() as u32;
const MIB: u64 = 1 << 20;
/// The bytes of each transfer.
const BYTES: u64 = 1600 * MIB;
/// Allowed time of a transfer: the bound times `FACTOR`, plus `SECONDS`.
const FACTOR: f64 = 1.05;
const SECONDS: f64 = 0.3;
/// Allowed time where rows declare wrong speeds, likewise.
const WRONG_FACTOR: f64 = 1.08;
const WRONG_SECONDS: f64 = 0.5;
/// Least part of the bound that a group must reach.
const GROUP_PART: f64 = 0.9;

/// Declared speed of a node, as a multiple of the true one, by its place among its peers.
type Declared = Option<fn(usize) -> f64>;

/// Windows of senders, and ranges of receivers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkShape {
    /// Every sender has everything; receivers want parts by their rates.
    Full,
    /// Every sender has half, from its own quarter on.
    Half,
    /// One group of all receivers.
    Group,
}

const CASES: [(&str, WorkShape, Declared); 7] = [
    ("full overlap", WorkShape::Full, None),
    ("half overlap", WorkShape::Half, None),
    ("one group", WorkShape::Group, None),
    ("full overlap, declared", WorkShape::Full, Some(|_| 1.0)),
    ("one group, declared", WorkShape::Group, Some(|_| 1.0)),
    ("full overlap, slow nodes declared ten times too fast", WorkShape::Full, Some(slow_too_fast)),
    ("half overlap, all declared ten times too slow", WorkShape::Half, Some(|_| 0.1)),
];

fn slow_too_fast(node: usize) -> f64 {
    if node % 2 == 1 { 10.0 } else { 1.0 }
}

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let rates = [RATES_MBIT, RATES_MBIT].concat();
    let cluster = LabCluster::of_nodes(bench.lab, bench.tools, &rates)?;
    for (at, (title, shape, declared)) in CASES.into_iter().enumerate() {
        let file = bench.lab.path("bound.spec");
        fs::write(&file, format!("id bound\n{}", rows(shape, Some(|_| 1.0))))?;
        let bound = plans::plan(&bench.tools.cep_fast, &file, "greedy")?.bound;
        let mut seconds = Vec::new();
        for round in 0..bench.options.rounds {
            book.now(&format!("{title}, round {}", round + 1));
            let name = format!("undeclared-{at}-{round}");
            let ended = cluster.start(&name, &rows(shape, declared))?.wait()?;
            let transferred = CompletedTransfer::of(&ended, BYTES)?;
            seconds.push(transferred.seconds);
            book.keep(json!({ "run": title, "bound": bound, "report": transferred.report }));
        }
        let Some(taken) = median(seconds) else { continue };
        let note = format!("{taken:.2} s, bound {bound:.2} s: {:.3} of it", bound / taken);
        let is_wrong = declared.is_some_and(|factor| (factor(0), factor(1)) != (1.0, 1.0));
        let allowed = match shape {
            WorkShape::Group => bound / GROUP_PART,
            _ if is_wrong => WRONG_FACTOR * bound + WRONG_SECONDS,
            _ => FACTOR * bound + SECONDS,
        };
        book.ratio(
            format!("{title}: taken / allowed"),
            taken / allowed,
            Threshold::AtMost(1.0),
            note,
        );
    }
    Ok(())
}

/// Returns the rows of a transfer.
fn rows(shape: WorkShape, declared: Declared) -> String {
    let quarter = BYTES / 4;
    let mut rows = String::new();
    let mut row = |role: &str, node: u32, span: (u64, u64), group: &str| {
        let place = ((node - 1) % NODES) as usize;
        let speed = declared.map_or(String::new(), |factor| {
            format!(" speed={}M", (f64::from(RATES_MBIT[place]) * factor(place)) as u64)
        });
        let uri = if role == "writer" { "pattern:5" } else { "null:" };
        let (from, to) = (span.0, span.1 - 1);
        writeln!(rows, "{role} {} {uri} 0 {from}-{to}{speed}{group}", address(node))
            .expect("memory takes it");
    };
    for sender in 0..u64::from(NODES) {
        let node = sender as u32 + 1;
        let end = sender + 2;
        match shape {
            WorkShape::Full | WorkShape::Group => row("writer", node, (0, BYTES), ""),
            WorkShape::Half => {
                row("writer", node, (sender * quarter, end.min(4) * quarter), "");
                if end > 4 {
                    row("writer", node, (0, (end - 4) * quarter), "");
                }
            }
        }
    }
    let all = u64::from(RATES_MBIT.iter().sum::<u32>());
    let mut start = 0;
    for (at, rate) in RATES_MBIT.into_iter().enumerate() {
        let node = NODES + 1 + at as u32;
        if shape == WorkShape::Group {
            row("reader", node, (0, BYTES), " group=all");
            continue;
        }
        let is_last = at + 1 == RATES_MBIT.len();
        let part = BYTES * u64::from(rate) / all / MIB * MIB;
        let end = if is_last { BYTES } else { start + part };
        row("reader", node, (start, end), "");
        start = end;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_want_everything_once_and_senders_have_it() {
        for (title, shape, declared) in CASES {
            let rows = rows(shape, declared);
            assert_eq!(rows.contains("speed="), declared.is_some(), "{title}");
            let wanted: u64 = rows
                .lines()
                .filter(|row| row.starts_with("reader"))
                .map(|row| {
                    let range = row.split(' ').nth(4).expect("a range");
                    let (from, to) = range.split_once('-').expect("two ends");
                    to.parse::<u64>().expect("a number") + 1 - from.parse::<u64>().expect("another")
                })
                .sum();
            let copies = if shape == WorkShape::Group { 4 } else { 1 };
            assert_eq!(wanted, copies * BYTES, "{title}");
        }
    }
}
