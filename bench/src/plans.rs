//! Planning time as transfers grow: disjoint ranges, and ranges that twenty nodes offer and twenty
//! want.
//!
//! Every row has its own node. Half of them send, at speeds that differ by up to ten, and the
//! others receive faster than they can: with overlap no simple plan is optimal, because load must
//! be shifted along chains of neighbours.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use random::SplitMix;

#[derive(Args)]
pub(crate) struct PlanOptions {
    /// Largest number of rows; sizes grow tenfold from 100.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// Largest number of rows that are planned exactly.
    #[arg(long, default_value_t = 10_000)]
    lp_rows: u64,
    /// Repetitions of each plan; the fastest counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Folder of the specifications.
    #[arg(long, default_value = "build/bench")]
    dir: PathBuf,
    /// Program to measure; by default the one beside this one.
    #[arg(long, value_name = "PROGRAM")]
    cep_fast: Option<PathBuf>,
}

/// Bytes between one row's start and the next one's.
const STEP_BYTES: u64 = 1 << 24;

#[allow(clippy::print_stdout, reason = "results go to standard output")]
pub(crate) fn run(options: &PlanOptions) -> Result<()> {
    let program = crate::options::program_beside(options.cep_fast.as_deref())?;
    std::fs::create_dir_all(&options.dir)
        .with_context(|| format!("cannot make {}", options.dir.display()))?;
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "rows",
        "overlap",
        "scheduler",
        "planning s",
        "predicted / bound",
    ]);
    for rows in (2..).map(|power| 10_u64.pow(power)).take_while(|rows| *rows <= options.rows) {
        for overlap in [1, 20] {
            let file = options.dir.join(format!("plan-{rows}-{overlap}.spec"));
            std::fs::write(&file, specification(rows, overlap))
                .with_context(|| format!("cannot write {}", file.display()))?;
            for scheduler in
                ["greedy", "lp"].into_iter().filter(|name| *name != "lp" || rows <= options.lp_rows)
            {
                let plans: Vec<PlanResult> = (0..options.rounds)
                    .map(|_| plan(&program, &file, scheduler))
                    .collect::<Result<_>>()?;
                let seconds = plans.iter().map(|plan| plan.seconds).fold(f64::INFINITY, f64::min);
                let ratio = plans.first().map_or(f64::NAN, |plan| plan.predicted / plan.bound);
                table.add_row([
                    rows.to_string(),
                    overlap.to_string(),
                    scheduler.into(),
                    format!("{seconds:.4}"),
                    format!("{ratio:.3}"),
                ]);
            }
            std::fs::remove_file(&file)?;
        }
    }
    println!("{table}");
    Ok(())
}

/// Returns rows of which each covers its own step and those of the `overlap - 1` rows after it.
fn specification(rows: u64, overlap: u64) -> String {
    let mut text = String::from("id plans\n");
    let mut random = SplitMix::new(rows);
    for at in 0..rows / 2 {
        for (role, host, uri) in [("writer", "s", "pattern:1"), ("reader", "r", "null:")] {
            let (start, end) = (at * STEP_BYTES, (at + overlap) * STEP_BYTES - 1);
            let speed = if role == "writer" { 1000 + random.below(9000) } else { 100_000 };
            writeln!(text, "{role} {host}{at}:1 {uri} 0 {start}-{end} speed={speed}M")
                .expect("memory takes it");
        }
    }
    text
}

/// Result of one plan.
pub(crate) struct PlanResult {
    pub(crate) seconds: f64,
    pub(crate) predicted: f64,
    pub(crate) bound: f64,
}

/// Runs the program's `plan` on a specification.
pub(crate) fn plan(program: &Path, spec: &Path, scheduler: &str) -> Result<PlanResult> {
    let mut command = Command::new(program);
    command.arg("plan").arg(spec).args(["--scheduler", scheduler]);
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).context("the plan is no text")?;
    let number = |line: &str, before: &str| -> Result<f64> {
        let line = text
            .lines()
            .find(|found| found.starts_with(line))
            .with_context(|| format!("no line {line}"))?;
        let (_, number) =
            line.split_once(before).with_context(|| format!("no {before:?} in {line}"))?;
        Ok(number.trim().split(' ').next().unwrap_or_default().parse()?)
    };
    Ok(PlanResult {
        seconds: number("scheduler", ", in ")?,
        predicted: number("predicted", "predicted")?,
        bound: number("bound", "bound")?,
    })
}
