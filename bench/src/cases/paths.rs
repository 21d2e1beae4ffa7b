//! Long paths: delay and loss, with nothing tuned, beside iperf3 with several numbers of
//! connections.

use std::time::Duration;

use anyhow::{Context, Result};
use netlab::PathShape;
use serde_json::json;

use super::book::BenchResults;
use super::fixture::{CaseFixture, rows};
use super::iperf;
use super::iperf::IperfLoad;
use super::options::PathLength;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, LabCluster};
use crate::report::median;
use crate::scenario::WorkItem;

/// Bytes of a short transfer.
const SHORT_BYTES: u64 = 64 << 20;
/// The program's part of what the best number of connections carries.
const BAR: Threshold = Threshold::AtLeast(0.9);

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let paths = &bench.options.paths;
    for congestion in &paths.congestion {
        for &round_trip in &paths.round_trips {
            for &loss in &paths.losses {
                let shape = PathShape {
                    rate_mbit: paths.path_mbit,
                    round_trip: Duration::from_secs_f64(round_trip / 1000.0),
                    loss_per_million: (loss * 10_000.0).round() as u64,
                    seed: 1,
                };
                let title = format!("{congestion}, {round_trip} ms, {loss} %");
                if let Err(error) = over_path(bench, shape, congestion, &title, book) {
                    book.failed(title, &error);
                }
            }
        }
    }
    Ok(())
}

/// Measures one path.
fn over_path(
    bench: &CaseFixture,
    shape: PathShape,
    congestion: &str,
    title: &str,
    book: &mut BenchResults,
) -> Result<()> {
    let cluster = LabCluster::over_path(bench.lab, bench.tools, shape, congestion)?;
    for &length in &bench.options.paths.lengths {
        let title = match length {
            PathLength::Long => title.to_owned(),
            PathLength::Short => format!("{title}, 64 MiB"),
        };
        compare(bench, &cluster, length, &title, book)?;
    }
    Ok(())
}

/// Rounds of iperf3 with each number of connections, and of the program.
fn compare(
    bench: &CaseFixture,
    cluster: &LabCluster,
    length: PathLength,
    title: &str,
    book: &mut BenchResults,
) -> Result<()> {
    let connections = &bench.options.paths.connections;
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); connections.len()];
    let load = match length {
        PathLength::Long => IperfLoad::Seconds(bench.options.seconds),
        PathLength::Short => IperfLoad::Bytes(SHORT_BYTES),
    };
    for round in 1..=bench.options.rounds {
        book.now(&format!("{title}, round {round}"));
        let mut most: f64 = 0.0;
        for (rates, &count) in theirs.iter_mut().zip(connections) {
            forget(cluster)?;
            let mbit_per_s = iperf::parallel(cluster, load, count)? * 1000.0;
            most = most.max(mbit_per_s);
            rates.push(mbit_per_s);
        }
        let bytes = match length {
            // As long as iperf3 took at its best.
            PathLength::Long => {
                ((most * 1e6 / 8.0 * bench.options.seconds) as u64).next_multiple_of(1 << 20)
            }
            PathLength::Short => SHORT_BYTES,
        };
        let transferred = transfer(cluster, bytes)?;
        ours.push(transferred.gbit_per_s * 1000.0);
        book.keep(json!({ "path": title, "report": transferred.report }));
    }
    let ours = median(ours).context("no round")?;
    let theirs: Vec<f64> = theirs.into_iter().filter_map(median).collect();
    let best = theirs.iter().copied().fold(0.0, f64::max);
    let each: Vec<String> = connections
        .iter()
        .zip(&theirs)
        .map(|(count, rate)| format!("-P {count} {rate:.1}"))
        .collect();
    let note = format!("{ours:.1} Mbit/s; iperf3 {}", each.join(", "));
    book.now(&format!("{title}: {:.3}, {note}", ours / best));
    book.ratio(title, ours / best, BAR, note);
    Ok(())
}

fn transfer(cluster: &LabCluster, bytes: u64) -> Result<CompletedTransfer> {
    forget(cluster)?;
    let work = WorkItem { bytes, files: None };
    CompletedTransfer::of(&cluster.start("path", &rows(&work))?.wait()?, bytes)
}

/// Has both nodes forget what TCP learned of the path, which the next connection would begin with.
fn forget(cluster: &LabCluster) -> Result<()> {
    [1, 2].iter().try_for_each(|&node| iperf::inside(cluster, node, "ip tcp_metrics flush"))
}
