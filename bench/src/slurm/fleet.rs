//! `bench --launch slurm`: one NIC of one node has a tenth of its rate, another node is busy.

use anyhow::{Context, Result};
use serde_json::Value;

use super::job::JobFixture;
use crate::cases::book::BenchResults;

/// Rate of the NICs: the machine's cores do not bind it.
const RATE_MBIT: u32 = 50;
const SLOW: (u32, usize) = (2, 1);
const BUSY: u32 = 3;

pub(super) fn run(fixture: JobFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let jobs = fixture.cluster(RATE_MBIT, 1 << 20)?;
    let measure = "cep-fast bench --launch slurm --progress never --json";
    let healthy = named(&jobs.run(measure)?)?;
    book.must("nobody is named where all are well", healthy.is_empty(), format!("{healthy:?}"));
    let rate = format!("{}mbit", RATE_MBIT / 10);
    jobs.cluster.fault(SLOW.0, SLOW.1, &["rate", &rate])?;
    // What Slurm starts in that node has one processor, as its busy processes have.
    let pin = "for id in $(ip netns pids $(ip netns identify $$)); do
                   taskset -apc 0 $id >/dev/null 2>&1 || :
                   renice -n 10 -p $id >/dev/null 2>&1 || :
               done";
    jobs.cluster.network().shell(BUSY, pin)?;
    let busy = format!(
        "busy() {{ while :; do :; done; }}
         export -f busy
         srun --overlap -N1 -n1 -w node{BUSY} bash -c 'busy & busy & busy' &
         {measure} || [ $? = 5 ]"
    );
    let found = named(&jobs.run(&busy)?)?;
    let about = |node: u32, word: &str| {
        let name = format!("node{node}");
        found.iter().any(|(who, why)| who.starts_with(&name) && why.contains(word))
    };
    let others = found.iter().filter(|(who, _)| {
        ![SLOW.0, BUSY].iter().any(|node| who.starts_with(&format!("node{node}")))
    });
    let note = format!("{found:?}");
    book.must("the slow NIC is named", about(SLOW.0, &format!("eth{}", SLOW.1)), note.clone());
    book.must("the busy node is named", about(BUSY, "CPU"), note);
    book.must("nobody else is", others.count() == 0, "");
    Ok(())
}

/// Returns the nodes that a report names, each with the cause.
fn named(printed: &str) -> Result<Vec<(String, String)>> {
    let line = printed.lines().rfind(|line| line.starts_with('{')).context("no report")?;
    let report: Value = serde_json::from_str(line)?;
    let nodes = report["nodes"].as_array().context("the report has no nodes")?;
    let slow = nodes.iter().filter(|node| node["verdict"] != "ok");
    Ok(slow.map(|node| (text(&node["node"]), node.to_string())).collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
