//! Kills at random moments of a copy in a job: within some seconds nothing of it is left on any
//! node, and the same script, submitted again, completes it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use random::SplitMix;

use super::job::{JobCluster, JobFixture, NODES};
use crate::cases::book::BenchResults;

/// Rate of the NICs, and bytes: a copy takes about 3 s.
const RATE_MBIT: u32 = 100;
const BYTES: u64 = 64 << 20;
/// Most of the time from the beginning of the copy to the kill.
const KILL_WITHIN: Duration = Duration::from_millis(3500);
/// Time in which everything must be gone. Slurm kills what has not ended after 3 s.
const GONE_WITHIN: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// Victim of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum JobVictim {
    /// The job, by scancel.
    Job,
    /// The step of the nodes, by scancel.
    Step,
    /// The daemon of the step on a node.
    StepDaemon,
    /// The srun of the step.
    Srun,
    /// A node.
    Node,
    /// The command in the script.
    Command,
}

const VICTIMS: [JobVictim; 6] = [
    JobVictim::Job,
    JobVictim::Step,
    JobVictim::StepDaemon,
    JobVictim::Srun,
    JobVictim::Node,
    JobVictim::Command,
];

const COPY: &str = "cep-fast copy --launch slurm --progress never ALL/source 'node[2-4]:OWN/copy'";

pub(super) fn run(fixture: JobFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let jobs = fixture.cluster(RATE_MBIT, BYTES)?;
    let mut slowest = 0f64;
    let mut failed = 0;
    for round in 0..fixture.options.kills {
        let mut random = SplitMix::new(fixture.options.seed ^ (u64::from(round) << 32));
        let victim = VICTIMS[round as usize % VICTIMS.len()];
        book.now(&format!("round {round}: {victim:?}"));
        match play(&jobs, victim, &mut random) {
            Ok(gone_after) => slowest = slowest.max(gone_after),
            Err(error) => {
                failed += 1;
                book.failed(format!("round {round}: {victim:?}"), &error);
            }
        }
    }
    let rounds = fixture.options.kills;
    let note = format!("{rounds} rounds; everything was gone within {slowest:.1} s");
    book.must("nothing is left, and the same script completes", failed == 0, note);
    book.now("a time limit");
    match time_limit(&jobs) {
        Ok(gone_after) => {
            let note = format!("{gone_after:.1} s after the limit");
            book.must("nothing is left after a time limit", true, note);
        }
        Err(error) => book.failed("a time limit", &error),
    }
    Ok(())
}

/// Plays a round, and returns the seconds after which everything was gone.
fn play(jobs: &JobCluster<'_>, victim: JobVictim, random: &mut SplitMix) -> Result<f64> {
    let job = jobs.submit(&[], COPY)?;
    wait_for("the beginning", || Ok(!processes(jobs)?.is_empty()))?;
    thread::sleep(KILL_WITHIN.mul_f64(random.next_u64() as f64 / u64::MAX as f64));
    strike(jobs, victim, job, random)?;
    let struck = Instant::now();
    wait_for("the end of all processes", || Ok(processes(jobs)?.is_empty()))?;
    let gone_after = struck.elapsed().as_secs_f64();
    jobs.end_of(job)?;
    completes(jobs)?;
    Ok(gone_after)
}

/// The same copy again completes.
fn completes(jobs: &JobCluster<'_>) -> Result<()> {
    let nodes = NODES;
    jobs.run(&format!(
        "for turn in 1 2 3; do {COPY} && break; done
         srun --overlap -N3 -n3 -w 'node[2-{nodes}]' sh -c 'cmp OWN/copy ALL/source && rm OWN/copy'
         left=$(srun --overlap -N3 -n3 -w 'node[2-{nodes}]' \
             sh -c 'ls -A OWN | grep -v journal || :')
         [ -z \"$left\" ] || {{ echo \"left: $left\"; exit 1; }}
         srun --overlap -N3 -n3 -w 'node[2-{nodes}]' sh -c 'rm -rf OWN/.c*'"
    ))?;
    Ok(())
}

fn strike(jobs: &JobCluster<'_>, victim: JobVictim, job: u32, random: &mut SplitMix) -> Result<()> {
    let node = 2 + u32::try_from(random.next_u64() % 3)?;
    match victim {
        JobVictim::Job => scancel(jobs, &job.to_string()),
        JobVictim::Step => scancel(jobs, &format!("{job}.0")),
        JobVictim::StepDaemon => kill_in(jobs, node, "slurmstepd"),
        JobVictim::Srun => kill_in(jobs, 1, "srun"),
        JobVictim::Node => kill_in(jobs, node, "cep-fast"),
        JobVictim::Command => {
            // The command is the oldest process of the program.
            let oldest = processes(jobs)?.into_iter().min();
            let Some(oldest) = oldest else { return Ok(()) };
            let _ = kill(Pid::from_raw(oldest), Signal::SIGKILL);
            Ok(())
        }
    }
}

fn scancel(jobs: &JobCluster<'_>, what: &str) -> Result<()> {
    let mut cancel = jobs.slurm.command(jobs.cluster.network(), 0, "scancel");
    // A job may have ended by itself.
    cancel.arg(what).status().context("scancel").map(drop)
}

/// Kills the processes of a name in a node.
fn kill_in(jobs: &JobCluster<'_>, node: u32, name: &str) -> Result<()> {
    let script = format!(
        "for id in $(ip netns pids $(ip netns identify $$)); do
             if [ \"$(cat /proc/$id/comm 2>/dev/null)\" = {name} ]; then kill -KILL $id || :; fi
         done"
    );
    jobs.cluster.network().shell(node, &script)?;
    Ok(())
}

/// Lets a job of one minute, the shortest limit that Slurm knows, be ended by its limit.
fn time_limit(jobs: &JobCluster<'_>) -> Result<f64> {
    let slow = COPY.replace("--launch", "--limit 1M --launch");
    let job = jobs.submit(&["--time=1"], &slow)?;
    let (state, _) = jobs.end_of(job)?;
    let ended = Instant::now();
    ensure!(state == "TIMEOUT", "the job {state}: {}", jobs.slurm.output(job));
    wait_for("the end of all processes", || Ok(processes(jobs)?.is_empty()))?;
    let gone_after = ended.elapsed().as_secs_f64();
    completes(jobs)?;
    Ok(gone_after)
}

/// Returns the ids of the cluster's processes of the program.
fn processes(jobs: &JobCluster<'_>) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|path| path == jobs.program) {
            found.push(id);
        }
    }
    Ok(found)
}

fn wait_for(what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + GONE_WITHIN;
    while !happened()? {
        if Instant::now() > deadline {
            bail!("{what} did not come within {} s", GONE_WITHIN.as_secs());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
