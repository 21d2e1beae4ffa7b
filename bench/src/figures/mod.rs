//! The figures of the CEP paper, in labs of shaped NICs: what the program reaches, beside the same
//! work striped equally, by itself and by `GridFTP`, and beside what the plan says that nobody can
//! beat.
//!
//! Rates are those of the paper's slow nodes or less, so that the machine is not the limit. Every
//! transfer is as large as should take the same time.

mod chart;
mod striped;
mod study;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde_json::json;

use crate::bar::Threshold;
use crate::cases::GOODPUT;
use crate::cases::book::BenchResults;
use crate::cluster::{CompletedTransfer, LabCluster, LabTools};
use crate::contenders::{gridftp, missing_program};
use crate::lab::WorkDir;
use crate::options::LabOptions;
use crate::plans;
use crate::report::{BenchMachine, median};
use crate::scenario::BenchScenario;
use chart::{Curve, CurveChart, CurveStyle};
use striped::StripedServers;
use study::FigurePoint;
pub(crate) use study::StudyFigure;

/// Figures and their parameters.
#[derive(Args)]
pub(crate) struct FigureOptions {
    /// Takes only these figures; 5 is drawn from the runs of 4.
    #[arg(value_enum)]
    figures: Vec<StudyFigure>,
    /// Takes only the points of these names: 45, 5+1, 8/8.
    #[arg(long, value_name = "POINT", value_delimiter = ',')]
    points: Vec<String>,
    /// Takes only these ways; the bound is always there.
    #[arg(long, value_enum, value_name = "WAY", value_delimiter = ',')]
    ways: Vec<FigureMethod>,
    /// Duration of each transfer.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Repetitions of each transfer; medians count.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Rows declare no speeds and no block; the bar is lower.
    #[arg(long)]
    undeclared: bool,
    /// The rate of slow nodes; fast ones have ten times as much, and the equal ones of Figures 4
    /// and 5 half.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slow_mbit: u32,
    /// Folder of the pictures, and of a run's temporary files.
    #[arg(long, default_value = "build/figures")]
    dir: PathBuf,
    /// Seconds that any one process may run, the labs' daemons among them.
    #[arg(long, default_value_t = 1800)]
    deadline: u64,
    #[command(flatten)]
    labs: LabOptions,
}

/// Program that moves the bytes, and its plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
enum FigureMethod {
    Greedy,
    /// Only if its plan differs from greedy's.
    Lp,
    Uniform,
    Gridftp,
}

/// One point, measured.
struct MeasuredPoint {
    point: FigurePoint,
    /// Upper bound of the rate, in Gbit/s.
    bound: f64,
    rates: BTreeMap<FigureMethod, f64>,
}

/// Plans that differ by less than this part are the same.
const SAME_PLAN: f64 = 0.01;
/// The data that is planned to find out how much data is right.
const NOMINAL_BYTES: u64 = 1 << 30;

/// Draws the figures and prints what they show.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, progress beside them"
)]
pub(crate) fn run(options: &FigureOptions) -> Result<()> {
    let tools = options.labs.tools()?;
    let lab = WorkDir::new(&options.dir, 1 << 20, Duration::from_secs(options.deadline))?;
    let mut ways: Vec<FigureMethod> =
        [FigureMethod::Greedy, FigureMethod::Lp, FigureMethod::Uniform, FigureMethod::Gridftp]
            .into_iter()
            .filter(|way| options.takes(*way))
            .collect();
    if let Some(missing) = missing_program(&[gridftp::SERVER, gridftp::CLIENT])
        .filter(|_| options.takes(FigureMethod::Gridftp))
    {
        eprintln!("without striped GridFTP: {missing}");
        ways.retain(|way| *way != FigureMethod::Gridftp);
    }
    let mut book = BenchResults::new(BenchMachine::look()?);
    let mut tables = String::new();
    for figure in study::ALL
        .into_iter()
        .filter(|figure| options.figures.is_empty() || options.figures.contains(figure))
    {
        book.open(figure, BenchScenario::MemoryToMemory);
        let measured = match measure(options, &lab, &tools, figure, &ways, &mut book) {
            Ok(measured) => measured,
            Err(error) => {
                book.failed("the lab", &error);
                continue;
            }
        };
        hold(figure, &measured, options.undeclared, &mut book);
        tables += &format!("\n{}\n", table(figure, &ways, &measured));
        for (name, chart) in charts(figure, &ways, &measured, options.slow_mbit) {
            let file = options.dir.join(name);
            fs::write(&file, chart.svg())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    println!("{}{tables}", book.table());
    options.labs.common.keep(&book)?;
    // The working folder goes before this process does.
    drop(lab);
    options.labs.common.judge(book.misses());
    Ok(())
}

impl FigureOptions {
    fn takes(&self, way: FigureMethod) -> bool {
        self.ways.is_empty() || self.ways.contains(&way)
    }
}

impl FigureMethod {
    /// Its name in tables and pictures, and as a scheduler's.
    fn name(self) -> &'static str {
        match self {
            FigureMethod::Greedy => "greedy",
            FigureMethod::Lp => "lp",
            FigureMethod::Uniform => "uniform",
            FigureMethod::Gridftp => "striped GridFTP",
        }
    }

    fn look(self) -> CurveStyle {
        match self {
            FigureMethod::Greedy => CurveStyle::Disc,
            FigureMethod::Lp => CurveStyle::Circle,
            FigureMethod::Uniform => CurveStyle::Triangle,
            FigureMethod::Gridftp => CurveStyle::Square,
        }
    }
}

/// Measures all points in one lab. A failed measurement is noted in the results, and missing at its
/// point.
fn measure(
    options: &FigureOptions,
    lab: &WorkDir,
    tools: &LabTools,
    figure: StudyFigure,
    ways: &[FigureMethod],
    book: &mut BenchResults,
) -> Result<Vec<MeasuredPoint>> {
    let rates = figure.pair_rates_mbit(options.slow_mbit);
    let nodes = [&rates[..], &rates[..]].concat();
    book.now(&format!("a lab of {} nodes", nodes.len()));
    let cluster = LabCluster::of_nodes(lab, tools, &nodes)?;
    let striped = if ways.contains(&FigureMethod::Gridftp) {
        Some(StripedServers::up(&cluster, nodes.len() as u32)?)
    } else {
        None
    };
    let setting =
        FigureLab { options, cluster: &cluster, striped, program: &tools.cep_fast, rates: &rates };
    let wanted =
        |point: &FigurePoint| options.points.is_empty() || options.points.contains(&point.label);
    let mut all: Vec<MeasuredPoint> = Vec::new();
    for point in figure.points().into_iter().filter(wanted) {
        let bound = NOMINAL_BYTES as f64 * 8e-9 / setting.plan(&point, FigureMethod::Greedy)?.bound;
        let mut rates = BTreeMap::new();
        for &way in ways {
            // It has no windows: every pair may move everything, in all figures.
            let known = all.first().and_then(|first| first.rates.get(&way).copied());
            let rate = match known
                .filter(|_| way == FigureMethod::Gridftp && figure == StudyFigure::Access)
            {
                Some(rate) => Ok(Some(rate)),
                None => setting.rate(&point, way, book),
            };
            match rate {
                Ok(Some(rate)) => drop(rates.insert(way, rate)),
                Ok(None) => {}
                Err(error) => book.failed(format!("{}: {}", point.label, way.name()), &error),
            }
        }
        all.push(MeasuredPoint { point, bound, rates });
    }
    Ok(all)
}

/// One figure's lab and who is in it.
struct FigureLab<'a> {
    options: &'a FigureOptions,
    cluster: &'a LabCluster<'a>,
    striped: Option<StripedServers<'a>>,
    program: &'a Path,
    /// The NICs of each pair.
    rates: &'a [u32],
}

impl FigureLab<'_> {
    /// The median of the rounds, in Gbit/s; none where the way is the same as another one.
    fn rate(
        &self,
        point: &FigurePoint,
        way: FigureMethod,
        book: &mut BenchResults,
    ) -> Result<Option<f64>> {
        let seconds_nominal = match way {
            FigureMethod::Greedy => self.plan(point, way)?.bound,
            FigureMethod::Lp => {
                let (lp, greedy) = (
                    self.plan(point, way)?.predicted,
                    self.plan(point, FigureMethod::Greedy)?.predicted,
                );
                if lp > greedy * (1.0 - SAME_PLAN) {
                    return Ok(None);
                }
                lp
            }
            FigureMethod::Uniform => self.plan(point, way)?.predicted,
            FigureMethod::Gridftp => {
                let slowest =
                    self.rates[..point.windows.len()].iter().min().copied().unwrap_or_default();
                NOMINAL_BYTES as f64 * 8e-6 / (f64::from(slowest * point.pairs()) * GOODPUT)
            }
        };
        let bytes = (NOMINAL_BYTES as f64 * self.options.seconds / seconds_nominal) as u64;
        let bytes = bytes.next_multiple_of(1 << 20);
        let rounds = (1..=self.options.rounds).map(|round| {
            book.now(&format!(
                "{}, round {round}: {}, {} MiB",
                point.label,
                way.name(),
                bytes >> 20
            ));
            self.transfer(point, way, bytes, book)
        });
        Ok(median(rounds.collect::<Result<_>>()?))
    }

    fn transfer(
        &self,
        point: &FigurePoint,
        way: FigureMethod,
        bytes: u64,
        book: &mut BenchResults,
    ) -> Result<f64> {
        let pairs = point.pairs();
        let seconds = if let (FigureMethod::Gridftp, Some(striped)) = (way, &self.striped) {
            let first_receiver = 1 + self.rates.len() as u32;
            let nodes = |first: u32| (first..first + pairs).collect::<Vec<u32>>();
            let seconds = striped.run(&nodes(1), &nodes(first_receiver), bytes)?;
            book.keep(json!({
                "point": point.label, "way": way.name(), "bytes": bytes, "wall_seconds": seconds
            }));
            seconds
        } else {
            let rows = point.rows(self.rates, bytes, !self.options.undeclared);
            let ended =
                self.cluster.start_with("figure", &rows, &["--scheduler", way.name()])?.wait()?;
            let transferred = CompletedTransfer::of(&ended, bytes)?;
            book.now(&format!("{:.2} s, {}", transferred.seconds, transferred.cost()));
            book.keep(
                json!({ "point": point.label, "way": way.name(), "report": transferred.report }),
            );
            transferred.seconds
        };
        Ok(bytes as f64 * 8e-9 / seconds)
    }

    /// Returns the program's plan for a point.
    fn plan(&self, point: &FigurePoint, way: FigureMethod) -> Result<plans::PlanResult> {
        let file = self.cluster.lab().path("figure-plan.spec");
        fs::write(&file, format!("id figure\n{}", point.rows(self.rates, NOMINAL_BYTES, true)))?;
        plans::plan(self.program, &file, way.name())
    }
}

/// Holds what was measured to the figure's bars.
fn hold(
    figure: StudyFigure,
    measured: &[MeasuredPoint],
    undeclared: bool,
    book: &mut BenchResults,
) {
    let bar = Threshold::AtLeast(match figure {
        _ if undeclared => 0.92,
        StudyFigure::Composition => 0.97,
        StudyFigure::Heterogeneity | StudyFigure::Access => 0.95,
    });
    for MeasuredPoint { point, bound, rates } in measured {
        for way in [FigureMethod::Greedy, FigureMethod::Lp] {
            if let Some(rate) = rates.get(&way) {
                let note = format!("{rate:.3} of {bound:.3} Gbit/s");
                book.ratio(
                    format!("{}: {} / bound", point.label, way.name()),
                    rate / bound,
                    bar,
                    note,
                );
            }
        }
    }
    let last =
        measured.last().filter(|last| figure == StudyFigure::Access && last.point.label == "8/8");
    let Some((rates, ours)) =
        last.and_then(|last| Some((&last.rates, last.rates.get(&FigureMethod::Greedy)?)))
    else {
        return;
    };
    for way in [FigureMethod::Uniform, FigureMethod::Gridftp] {
        if let Some(rate) = rates.get(&way) {
            let note = format!("{ours:.3} and {rate:.3} Gbit/s");
            book.ratio(
                format!("8/8: greedy / {}", way.name()),
                ours / rate,
                Threshold::AtLeast(if undeclared { 4.5 } else { 5.0 }),
                note,
            );
        }
    }
}

/// The figure as a table, in Gbit/s.
fn table(figure: StudyFigure, ways: &[FigureMethod], measured: &[MeasuredPoint]) -> Table {
    let first = match figure {
        StudyFigure::Composition => "Figures 4 and 5: pairs",
        StudyFigure::Heterogeneity => "Figure 6: slow + fast pairs",
        StudyFigure::Access => "Figure 7: part that each node may touch",
    };
    let mut table = Table::new();
    let names = ways.iter().map(|way| way.name());
    let header: Vec<&str> =
        [first].into_iter().chain(names).chain(["bound", "best of ours / bound"]).collect();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for MeasuredPoint { point, bound, rates } in measured {
        let rate = |way| rates.get(way).map_or_else(String::new, |rate| format!("{rate:.3}"));
        let ours = [FigureMethod::Greedy, FigureMethod::Lp]
            .iter()
            .filter_map(|way| rates.get(way))
            .copied()
            .fold(f64::NAN, f64::max);
        let cells =
            ways.iter().map(rate).chain([format!("{bound:.3}"), format!("{:.3}", ours / bound)]);
        table.add_row([point.label.clone()].into_iter().chain(cells));
    }
    table
}

/// The pictures of a figure, with the names of their files.
fn charts(
    figure: StudyFigure,
    ways: &[FigureMethod],
    measured: &[MeasuredPoint],
    slow_mbit: u32,
) -> Vec<(&'static str, CurveChart)> {
    // Ours above the others.
    let curves = |value: &dyn Fn(&MeasuredPoint, f64) -> f64| -> Vec<Curve> {
        let curve = |way: &FigureMethod| Curve {
            name: way.name().to_owned(),
            look: way.look(),
            points: measured
                .iter()
                .filter_map(|at| Some((at.point.x, value(at, *at.rates.get(way)?))))
                .collect(),
        };
        ways.iter().rev().map(curve).filter(|curve| !curve.points.is_empty()).collect()
    };
    let labels = || measured.iter().map(|at| (at.point.x, at.point.label.clone())).collect();
    let line = |name: &str, look, value: &dyn Fn(&MeasuredPoint) -> f64| {
        let points = measured.iter().map(|at| (at.point.x, value(at))).collect();
        Curve { name: name.to_owned(), look, points }
    };
    let bound = || line("the plan's bound", CurveStyle::Limit, &|at| at.bound);
    let rates = || [bound()].into_iter().chain(curves(&|_, rate| rate)).collect();
    let chart_of_rates = |title, x_title| {
        let y_title = "Gbit/s of payload";
        CurveChart { title, x_title, y_title, labels: labels(), curves: rates() }
    };
    match figure {
        StudyFigure::Composition => {
            let each_mbit = figure.pair_rates_mbit(slow_mbit)[0];
            let line_rate =
                |at: &MeasuredPoint| f64::from(each_mbit * at.point.pairs()) * GOODPUT / 1000.0;
            let mut shares = vec![
                line("bar: 97 %", CurveStyle::Thin, &|_| 97.0),
                line("the paper: 75 %", CurveStyle::Thin, &|_| 75.0),
            ];
            shares.extend(curves(&|at, rate| 100.0 * rate / line_rate(at)));
            let x_title = "pairs of equal nodes";
            let rates = chart_of_rates("Figure 4: composition of equal nodes", x_title);
            let shares = CurveChart {
                title: "Figure 5: transfer efficiency",
                x_title,
                y_title: "% of the payload that line rate leaves",
                labels: labels(),
                curves: shares,
            };
            vec![("figure-4.svg", rates), ("figure-5.svg", shares)]
        }
        StudyFigure::Heterogeneity => {
            let title = "Figure 6: adding slow nodes, then nodes ten times faster";
            let x_title = "slow + fast pairs";
            vec![("figure-6.svg", chart_of_rates(title, x_title))]
        }
        StudyFigure::Access => {
            let title = "Figure 7: the more each node may touch, the more the fast ones take";
            let x_title = "part of the data that each of 4 + 4 nodes may send or receive";
            vec![("figure-7.svg", chart_of_rates(title, x_title))]
        }
    }
}
