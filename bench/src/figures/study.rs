//! Parameters of the paper's figures: the nodes, and the part of the data that each of them may
//! move.
//!
//! Sender k and receiver k of a lab are equals: the same speed, and the same window of the data.
//! Receivers are one group, so the plan assigns the data to them, within the windows.

use std::fmt::Write as _;
use std::ops::Range;

use crate::cluster::address;

/// Figures that are drawn from the same runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum StudyFigure {
    /// Figures 4 and 5: equal nodes, each with its own part of the data.
    #[value(name = "4", alias = "5")]
    Composition,
    /// Figure 6: slow nodes, and then fast ones, all of which may touch everything.
    #[value(name = "6")]
    Heterogeneity,
    /// Figure 7: half of the nodes fast, and ever wider windows.
    #[value(name = "7")]
    Access,
}

pub(super) const ALL: [StudyFigure; 3] =
    [StudyFigure::Composition, StudyFigure::Heterogeneity, StudyFigure::Access];

/// One point of a figure.
pub(super) struct FigurePoint {
    /// Name below the axis, and for `--points`.
    pub(super) label: String,
    /// Position on the axis.
    pub(super) x: f64,
    /// Windows of each pair, as parts of the data; the pairs are the first ones of the lab.
    pub(super) windows: Vec<Range<f64>>,
}

/// Speed of fast nodes over that of slow ones.
const FAST: u32 = 10;
/// The part of a slow node's rate that equal nodes have: 45 pairs at 100 Mbit/s are as much as two
/// cores move at best.
const EQUAL_PART: u32 = 2;
const EQUAL_PAIRS: [usize; 7] = [1, 2, 4, 8, 16, 32, 45];
const SLOW_PAIRS: usize = 5;
const FAST_PAIRS: usize = 3;
/// The pairs of Figure 7: fast and slow in turn, so that windows that grow soon meet a fast node.
const ACCESS_PAIRS: u32 = 4;
/// The narrowest windows of Figure 7, in eighths of the data: 1/n.
const NARROWEST_EIGHTHS: u32 = 2;
/// The unit of scheduling, on which windows begin and end: a sixteenth of what is usual, because
/// these links have a tenth of the rates that are usual, or less.
const BLOCK_BYTES: u64 = 1 << 16;

impl StudyFigure {
    /// The rate of each pair's NICs.
    pub(super) fn pair_rates_mbit(self, slow_mbit: u32) -> Vec<u32> {
        let fast_mbit = slow_mbit * FAST;
        match self {
            StudyFigure::Composition => {
                vec![slow_mbit.div_ceil(EQUAL_PART); EQUAL_PAIRS[EQUAL_PAIRS.len() - 1]]
            }
            StudyFigure::Heterogeneity => {
                [vec![slow_mbit; SLOW_PAIRS], vec![fast_mbit; FAST_PAIRS]].concat()
            }
            StudyFigure::Access => (0..ACCESS_PAIRS)
                .map(|pair| if pair % 2 == 0 { fast_mbit } else { slow_mbit })
                .collect(),
        }
    }

    pub(super) fn points(self) -> Vec<FigurePoint> {
        match self {
            StudyFigure::Composition => EQUAL_PAIRS.map(equal).into(),
            StudyFigure::Heterogeneity => (1..=SLOW_PAIRS + FAST_PAIRS).map(mixed).collect(),
            StudyFigure::Access => (NARROWEST_EIGHTHS..=8).map(overlapping).collect(),
        }
    }
}

/// Pairs that have a part each.
fn equal(pairs: usize) -> FigurePoint {
    let windows = (0..pairs)
        .map(|pair| pair as f64 / pairs as f64..(pair + 1) as f64 / pairs as f64)
        .collect();
    FigurePoint { label: pairs.to_string(), x: pairs as f64, windows }
}

/// Pairs that have everything, slow ones before fast ones.
fn mixed(pairs: usize) -> FigurePoint {
    let slow = pairs.min(SLOW_PAIRS);
    FigurePoint {
        label: format!("{slow}+{}", pairs - slow),
        x: pairs as f64,
        windows: vec![0.0..1.0; pairs],
    }
}

/// Pairs whose windows have this width, the first at the data's start and the last at its end.
fn overlapping(eighths: u32) -> FigurePoint {
    let width = f64::from(eighths) / 8.0;
    let start = |pair| f64::from(pair) * (1.0 - width) / f64::from(ACCESS_PAIRS - 1);
    let windows = (0..ACCESS_PAIRS).map(|pair| start(pair)..start(pair) + width).collect();
    FigurePoint { label: format!("{eighths}/8"), x: width, windows }
}

impl FigurePoint {
    pub(super) fn pairs(&self) -> u32 {
        self.windows.len() as u32
    }

    /// The rows that move `bytes` bytes between these pairs of a lab with such NICs. Where nothing
    /// `is_declared`, they leave speeds and blocks to the program.
    pub(super) fn rows(&self, pair_rates_mbit: &[u32], bytes: u64, is_declared: bool) -> String {
        let mut rows = String::new();
        if is_declared {
            rows = format!("option block {BLOCK_BYTES}\n");
        }
        // Receivers come behind all senders of the lab.
        let ends = [
            ("writer", "pattern:7", 1, ""),
            ("reader", "null:", 1 + pair_rates_mbit.len(), " group=all"),
        ];
        for (role, uri, first_node, group) in ends {
            for (pair, (window, rate)) in self.windows.iter().zip(pair_rates_mbit).enumerate() {
                let (start, end) = (line(window.start, bytes), line(window.end, bytes));
                let address = address((first_node + pair) as u32);
                let speed = if is_declared { format!(" speed={rate}M") } else { String::new() };
                writeln!(rows, "{role} {address} {uri} 0 {start}-{}{speed}{group}", end - 1)
                    .expect("memory takes it");
            }
        }
        rows
    }
}

/// The block's edge that is nearest to a part of the data.
fn line(part: f64, bytes: u64) -> u64 {
    if part >= 1.0 {
        return bytes;
    }
    (part * bytes as f64 / BLOCK_BYTES as f64).round() as u64 * BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_the_papers() {
        let labels = |figure: StudyFigure| {
            figure.points().into_iter().map(|point| point.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(StudyFigure::Composition), ["1", "2", "4", "8", "16", "32", "45"]);
        assert_eq!(
            labels(StudyFigure::Heterogeneity),
            ["1+0", "2+0", "3+0", "4+0", "5+0", "5+1", "5+2", "5+3"]
        );
        assert_eq!(labels(StudyFigure::Access), ["2/8", "3/8", "4/8", "5/8", "6/8", "7/8", "8/8"]);
        for figure in ALL {
            let most = figure.points().iter().map(FigurePoint::pairs).max();
            assert_eq!(most.map(|pairs| pairs as usize), Some(figure.pair_rates_mbit(100).len()));
        }
    }

    #[test]
    fn windows_leave_no_gap() {
        for point in ALL.into_iter().flat_map(StudyFigure::points) {
            let mut reach = 0;
            for window in &point.windows {
                let (start, end) = (line(window.start, 100 << 20), line(window.end, 100 << 20));
                assert!(start <= reach && end >= reach, "{}: {window:?}", point.label);
                reach = end;
            }
            assert_eq!(reach, 100 << 20, "{}", point.label);
        }
    }

    #[test]
    fn rows_name_the_receivers_behind_all_senders() {
        let rows = equal(2).rows(&[100; 45], 3 << 20, true);
        let expected = "option block 65536\n\
                        writer 10.200.0.1:7000 pattern:7 0 0-1572863 speed=100M\n\
                        writer 10.200.0.2:7000 pattern:7 0 1572864-3145727 speed=100M\n\
                        reader 10.200.0.46:7000 null: 0 0-1572863 speed=100M group=all\n\
                        reader 10.200.0.47:7000 null: 0 1572864-3145727 speed=100M group=all\n";
        assert_eq!(rows, expected);
        let undeclared = equal(1).rows(&[100; 45], 1 << 20, false);
        let expected = "writer 10.200.0.1:7000 pattern:7 0 0-1048575\n\
                        reader 10.200.0.46:7000 null: 0 0-1048575 group=all\n";
        assert_eq!(undeclared, expected);
    }
}
