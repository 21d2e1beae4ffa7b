//! The job scripts of the documents, and a broadcast beside that of Slurm itself.

use std::path::Path;

use anyhow::{Context, Result};

use super::job::{JobCluster, JobFixture, NODES};
use crate::bar::Threshold;
use crate::cases::book::BenchResults;
use crate::cases::iperf;
use crate::report::median;

/// Seconds of each iperf3.
const IPERF_SECONDS: f64 = 4.0;
/// Rate of the NICs in broadcasts.
const BROADCAST_MBIT: u32 = 1000;

/// A job script.
struct JobScript {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Parts of the file that the busiest NICs carry; none where each node has all of it anyway.
    parts: Option<f64>,
    /// Holds afterwards, in a script of a job.
    check: &'static str,
}

const EVERYWHERE: &str = "srun --overlap --ntasks-per-node=1";

/// In the order in which each finds what it needs.
const SCRIPTS: [JobScript; 5] = [
    JobScript {
        name: "stage-in.sbatch",
        arguments: &["ALL/source", "OWN/in"],
        parts: None,
        check: "EVERYWHERE cmp OWN/in ALL/source",
    },
    JobScript {
        name: "redistribute.sbatch",
        arguments: &["2", "OWN/old", "OWN/new"],
        // Two nodes have a half each. The first one keeps a quarter and gives a quarter away; the
        // second one gives both of its.
        parts: Some(0.5),
        check: "EVERYWHERE sh -c 'cp OWN/new ALL/new.$SLURMD_NODENAME'
                cat ALL/new.node[1-4] | cmp - ALL/source; rm ALL/new.*; EVERYWHERE rm OWN/new",
    },
    JobScript {
        name: "continue.sbatch",
        arguments: &["node1:OWN/in", "*:OWN/again"],
        parts: Some(1.0),
        check: "EVERYWHERE cmp OWN/again ALL/source; EVERYWHERE rm OWN/again",
    },
    JobScript {
        name: "broadcast.sbatch",
        arguments: &["OWN/program", "OWN/programs"],
        parts: Some(1.0),
        check: "EVERYWHERE sh -c 'ls OWN/programs/program'; EVERYWHERE rm -r OWN/programs",
    },
    JobScript {
        name: "stage-out.sbatch",
        arguments: &["OWN/results", "ALL/results", "true"],
        // The last node, which is the first one, gets the files of the three others.
        parts: Some(3.0),
        check: "cmp ALL/results/out.node3 ALL/source; rm -r ALL/results",
    },
];

pub(super) fn documents(fixture: JobFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let JobFixture { options, .. } = fixture;
    let bytes = options.bytes / 4;
    let jobs = fixture.cluster(options.rate, bytes)?;
    let sum: f64 = iperf::together(&jobs.cluster, IPERF_SECONDS)?.iter().sum();
    book.figure("iperf3, one over each NIC of a node", sum, "Gbit/s", "");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/slurm");
    jobs.run(&halves(bytes))?;
    for JobScript { name, arguments, parts, check } in SCRIPTS {
        let mut seconds = Vec::new();
        for round in 1..=options.rounds {
            book.now(&format!("{name}, round {round}"));
            let result = played(&jobs, &scripts.join(name), arguments, check);
            match result {
                Ok(moving) => seconds.push(moving),
                Err(error) => book.failed(name, &error),
            }
        }
        let seconds = median(seconds).with_context(|| format!("{name} has no figure"))?;
        match parts {
            Some(parts) => {
                let bound = bytes as f64 * 8e-9 * parts / sum;
                let note = format!("{seconds:.2} s, and the NICs set {bound:.2} s");
                book.ratio(name, bound / seconds, Threshold::AtLeast(0.95), note);
            }
            None => book.figure(name, seconds, "s", "each node reads it itself"),
        }
    }
    Ok(())
}

/// A script that gives the first two nodes a half of the file each, and all of them one as result
/// and one as a program.
fn halves(bytes: u64) -> String {
    let half = bytes / 2;
    format!(
        "{EVERYWHERE} sh -c 'mkdir -p OWN/results && cp ALL/source OWN/results/out.$SLURMD_NODENAME'
         head -c {half} ALL/source >OWN/old
         srun --overlap -N1 -n1 -w node2 sh -c 'tail -c +{next} ALL/source >OWN/old'
         # A program of that size, whose end is not read.
         cp /bin/true OWN/program; head -c {bytes} ALL/source >>OWN/program; chmod +x OWN/program
         truncate -s {bytes} OWN/program",
        next = half + 1
    )
}

fn played(jobs: &JobCluster<'_>, file: &Path, arguments: &[&str], check: &str) -> Result<f64> {
    jobs.reports()?;
    jobs.run_file(file, arguments)?;
    let reports = jobs.reports()?;
    let report = reports.last().context("the script has made no transfer")?;
    let seconds = report["seconds"].as_f64().context("the report has no seconds")?;
    jobs.run(&check.replace("EVERYWHERE", EVERYWHERE))?;
    Ok(seconds)
}

/// Prints the seconds of a broadcast by each of the two.
const BROADCAST: &str = "\
timed() { local from=$(date +%s%N); \"${@:2}\" >&2; echo \"$1 $(($(date +%s%N) - from))\"; }
cp ALL/source OWN/source
timed ours cep-fast copy --launch slurm --progress never node1:OWN/source 'node[2-4]:OWN/ours'
timed all cep-fast copy --launch slurm --progress never OWN/source '*:OWN/all'
timed sbcast sbcast --force OWN/source OWN/sbcast
for file in OWN/ours OWN/all; do
    srun --overlap -N3 -n3 -w 'node[2-4]' cmp $file ALL/source
done
srun --overlap --ntasks-per-node=1 cmp OWN/sbcast ALL/source
srun --overlap --ntasks-per-node=1 rm -f OWN/source OWN/ours OWN/all OWN/sbcast
";

pub(super) fn broadcast(fixture: JobFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let JobFixture { options, .. } = fixture;
    let jobs = fixture.cluster(BROADCAST_MBIT, options.bytes)?;
    let mut seconds: [Vec<f64>; 3] = Default::default();
    let names = ["ours", "all", "sbcast"];
    for round in 1..=options.rounds {
        book.now(&format!("round {round}"));
        let printed = jobs.run(BROADCAST)?;
        for (name, seconds) in names.iter().zip(&mut seconds) {
            let lead = format!("{name} ");
            let nanos = printed.lines().find_map(|line| line.strip_prefix(&lead)?.parse().ok());
            seconds.push(nanos.map(|nanos: f64| nanos / 1e9).context("a time is missing")?);
        }
    }
    let [ours, all, sbcast] = seconds.map(|seconds| median(seconds).unwrap_or_default());
    let nodes = NODES;
    book.figure(format!("sbcast to {nodes} nodes"), sbcast, "s", "whole command");
    book.figure("copy to the three others", ours, "s", "whole command");
    let note = format!("{all:.2} s, whole commands");
    book.ratio(
        format!("sbcast / copy to {nodes} nodes"),
        sbcast / all,
        Threshold::AtLeast(3.0),
        note,
    );
    Ok(())
}
