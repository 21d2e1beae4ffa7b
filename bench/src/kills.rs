//! Kills at random moments: a node or the master of a transfer dies, the transfer is run again, and
//! every byte must be right.
//!
//! Every round has its own transfer, victim and moment, drawn from the seed and the round's number,
//! so that a failed round can be repeated alone. Rounds run concurrently on loopback. Transfers are
//! limited in speed, so that there is time for a kill.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use nix::sys::signal::Signal;
use random::SplitMix;
use serde_json::Value;

use crate::lab::WorkDir;
use crate::options::program_beside;
use crate::process::{self, RunningProcess};
use crate::scenario::BenchScenario;

#[derive(Args)]
pub(crate) struct KillOptions {
    /// Rounds, each with one kill.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// The number of the first round.
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..100))]
    workers: u32,
    /// Duration of an undisturbed transfer, by its limit.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Takes only rounds with this victim.
    #[arg(long, value_enum)]
    victim: Option<VictimName>,
    /// Takes only rounds in which only one sender has everything, and receivers feed each other.
    #[arg(long)]
    alone: bool,
    /// The largest transfer; the smallest is 64 MiB, and small ones are more frequent.
    #[arg(long, default_value = "1G", value_parser = crate::options::whole_mebibytes)]
    bytes_max: u64,
    /// Protection of the bytes on the wire: `cep-fast run --wire`.
    #[arg(long, default_value = "sealed", value_parser = ["sealed", "signed", "clear"])]
    wire: String,
    /// Folder of the files.
    #[arg(long, default_value = "build/bench")]
    dir: PathBuf,
    /// The program; by default the one beside this one.
    #[arg(long, value_name = "PROGRAM")]
    cep_fast: Option<PathBuf>,
}

const BYTES_MIN: u64 = 64 << 20;
/// Small, so that few bytes are in flight.
const BLOCK: &str = "64K";
/// Deadline for everything; only a hang takes that long.
const DEADLINE: Duration = Duration::from_secs(120);
/// Time for a node to forget a transfer after its master's good-bye.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(5);
/// Limit on a file's offset in the source, which is not that of a page.
const OFFSET_MAX: u64 = 100_000;
/// The nodes of every transfer: two that send, two that receive.
const NODES: [&str; 4] = ["a", "b", "c", "d"];
/// Common root of the receivers, so that they can write one file.
const RECEIVERS: &str = "receivers";

/// Victim of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KillVictim {
    Node(usize),
    Master,
    /// The master is asked to stop, as by Ctrl-C.
    Interrupted,
}

const VICTIMS: [KillVictim; 6] = [
    KillVictim::Node(0),
    KillVictim::Node(1),
    KillVictim::Node(2),
    KillVictim::Node(3),
    KillVictim::Master,
    KillVictim::Interrupted,
];

/// Name of a victim on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum VictimName {
    A,
    B,
    C,
    D,
    Master,
    Interrupted,
}

/// Parameters of one round.
#[derive(Clone, Debug)]
struct KillRound {
    number: u32,
    victim: KillVictim,
    after: Duration,
    bytes: u64,
    offset: u64,
    /// True if both senders have everything; otherwise receivers feed each other.
    replica: bool,
    /// True if the receivers write one file, a part each.
    together: bool,
}

/// Outcome of a round.
struct RoundOutcome {
    victim: KillVictim,
    /// True if the transfer was still running.
    struck: bool,
    /// True if it completed without a rerun.
    went_on: bool,
    /// Runs after the first one.
    reruns: u32,
    resumed_bytes: u64,
    /// Bytes that the master knew to have landed, and that were fetched again.
    again_bytes: u64,
    /// Time from the kill to the end of the first run.
    ended_after: f64,
    wanted_bytes: u64,
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, progress beside them"
)]
pub(crate) fn run(options: &KillOptions) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot adopt orphans")?;
    let program = program_beside(options.cep_fast.as_deref())?;
    let lab = WorkDir::new(&options.dir, options.bytes_max + (1 << 20), DEADLINE)?;
    lab.prepare(BenchScenario::FileToFile)?;
    let (next, done) = (AtomicU32::new(options.first), Mutex::new((Vec::new(), Vec::new())));
    let began = Instant::now();
    thread::scope(|scope| {
        for worker in 0..options.workers {
            let (lab, program, next, done) = (&lab, &program, &next, &done);
            scope.spawn(move || {
                let mut bed = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= options.first + options.kills {
                        return;
                    }
                    let round = KillRound::draw(options, number);
                    let is_other = options
                        .victim
                        .is_some_and(|victim| VICTIMS[victim as usize] != round.victim);
                    if is_other || (options.alone && round.replica) {
                        continue;
                    }
                    let outcome = WorkerNodes::made(&mut bed, lab, program, worker)
                        .and_then(|bed| bed.play(options, &round));
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok(outcome) => done.0.push(outcome),
                        Err(error) => {
                            eprintln!("{round:?}: {error:#}");
                            done.1.push(number);
                            // Its remains are useless for the next round.
                            bed = None;
                        }
                    }
                    let ended = done.0.len() + done.1.len();
                    if ended.is_multiple_of(50) {
                        eprintln!("{ended} of {} rounds, {} failed", options.kills, done.1.len());
                    }
                }
            });
        }
    });
    let (outcomes, failed) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}", table(&outcomes));
    println!(
        "{} rounds in {:.0} s, {} failed {failed:?}",
        options.kills,
        began.elapsed().as_secs_f64(),
        failed.len()
    );
    drop(lab);
    ensure!(
        failed.is_empty(),
        "rounds that failed: --seed {} --kills 1 --first {}",
        options.seed,
        failed[0]
    );
    Ok(())
}

/// Returns the results by victim.
fn table(outcomes: &[RoundOutcome]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "victim",
        "rounds",
        "struck",
        "went on without",
        "reruns",
        "resumed of wanted",
        "landed, fetched again, MiB: mean, most",
        "first run ended after, s: mean, most",
    ]);
    for victim in VICTIMS {
        let of: Vec<&RoundOutcome> =
            outcomes.iter().filter(|outcome| outcome.victim == victim).collect();
        let struck: Vec<&&RoundOutcome> = of.iter().filter(|outcome| outcome.struck).collect();
        let rerun: Vec<&&&RoundOutcome> =
            struck.iter().filter(|outcome| outcome.reruns > 0).collect();
        let mean_most = |values: Vec<f64>| {
            let mean =
                values.iter().fold(0.0, |sum, value| sum + value) / values.len().max(1) as f64;
            format!("{mean:.1}, {:.1}", values.iter().copied().fold(0.0, f64::max))
        };
        let (resumed, wanted) = rerun
            .iter()
            .fold((0, 0), |sum, of| (sum.0 + of.resumed_bytes, sum.1 + of.wanted_bytes));
        let title = match victim {
            KillVictim::Node(node @ 0..2) => format!("sender {}, killed", NODES[node]),
            KillVictim::Node(node) => format!("receiver {}, killed", NODES[node]),
            KillVictim::Master => "master, killed".to_owned(),
            KillVictim::Interrupted => "master, interrupted".to_owned(),
        };
        table.add_row([
            title,
            of.len().to_string(),
            struck.len().to_string(),
            struck.iter().filter(|outcome| outcome.went_on).count().to_string(),
            rerun.iter().map(|outcome| outcome.reruns).sum::<u32>().to_string(),
            format!("{:.0} %", 100.0 * resumed as f64 / f64::max(wanted as f64, 1.0)),
            mean_most(
                rerun
                    .iter()
                    .map(|outcome| outcome.again_bytes as f64 / f64::from(1 << 20))
                    .collect(),
            ),
            mean_most(struck.iter().map(|outcome| outcome.ended_after).collect()),
        ]);
    }
    table
}

impl KillRound {
    fn draw(options: &KillOptions, number: u32) -> KillRound {
        let mut random = SplitMix::new(options.seed ^ u64::from(number) << 32);
        let doublings = u64::from((options.bytes_max / BYTES_MIN).max(1).ilog2()).max(1);
        let doubling = random.below(doublings).min(random.below(doublings));
        KillRound {
            number,
            victim: VICTIMS[random.index(VICTIMS.len())],
            after: Duration::from_secs_f64(options.seconds * random.below(1100) as f64 / 1000.0),
            bytes: ((BYTES_MIN << doubling) + random.below(BYTES_MIN << doubling))
                .min(options.bytes_max.max(BYTES_MIN)),
            offset: random.below(OFFSET_MAX),
            replica: random.below(3) > 0,
            together: random.one_in(4),
        }
    }

    /// Returns the start of the second receiver's part. If it has its own file, the first one's
    /// continues to the end.
    fn second_from(&self) -> u64 {
        self.bytes / 3
    }

    /// Returns the written files: the node, and the offset of its part.
    fn files(&self) -> Vec<(usize, u64)> {
        if self.together { vec![(2, 0)] } else { vec![(2, 0), (3, self.second_from())] }
    }

    fn wanted_bytes(&self) -> u64 {
        self.files().iter().map(|(_, from)| self.bytes - from).sum()
    }

    fn specification(&self, bed: &WorkerNodes<'_>) -> String {
        let (last, offset, second) = (self.bytes - 1, self.offset, self.second_from());
        let mut text = format!("id \"kill {}\"\noption block {BLOCK}\n", self.number);
        for node in 0..=usize::from(self.replica) {
            text += &format!("writer {} file:///source {offset} 0-{last}\n", bed.address(node));
        }
        let (first, other) = (bed.address(2), bed.address(3));
        text + &match self.together {
            false => {
                format!(
                    "reader {first} file:///c/copy 0 0-{last}\n\
                     reader {other} file:///d/copy 0 {second}-{last}\n"
                )
            }
            true => format!(
                "reader {first} file:///c/copy 0 0-{}\n\
                 reader {other} file:///c/copy {second} {second}-{last}\n",
                second - 1
            ),
        }
    }
}

/// The nodes of one worker.
struct WorkerNodes<'a> {
    lab: &'a WorkDir,
    program: &'a Path,
    worker: u32,
    folder: PathBuf,
    daemons: Vec<RunningProcess>,
}

impl<'a> WorkerNodes<'a> {
    /// Returns the worker's nodes, which are created on first use.
    fn made<'b>(
        bed: &'b mut Option<WorkerNodes<'a>>,
        lab: &'a WorkDir,
        program: &'a Path,
        worker: u32,
    ) -> Result<&'b mut WorkerNodes<'a>> {
        if bed.is_none() {
            let folder = lab.path(&format!("worker{worker}"));
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            let mut made = WorkerNodes { lab, program, worker, folder, daemons: Vec::new() };
            for node in 0..NODES.len() {
                fs::create_dir_all(made.home(node))?;
                // A copy for each worker: a further link would change the file that other workers'
                // transfers read.
                let source = made.root(node).join("source");
                match node {
                    0 => _ = fs::copy(lab.path("source"), source)?,
                    1 => fs::hard_link(made.root(0).join("source"), source)?,
                    _ => {}
                }
                let daemon = made.start(node)?;
                made.daemons.push(daemon);
            }
            *bed = Some(made);
        }
        Ok(bed.as_mut().expect("made above"))
    }

    fn root(&self, node: usize) -> PathBuf {
        self.folder.join(if node < 2 { NODES[node] } else { RECEIVERS })
    }

    /// Returns the location of a node's file.
    fn home(&self, node: usize) -> PathBuf {
        if node < 2 { self.root(node) } else { self.root(node).join(NODES[node]) }
    }

    fn address(&self, node: usize) -> String {
        format!("127.77.{}.{}:7000", self.worker, node + 1)
    }

    fn start(&self, node: usize) -> Result<RunningProcess> {
        let mut command = process::command(self.program);
        command
            .args(["node", "--listen", &self.address(node), "--insecure-no-key", "--root"])
            .arg(self.root(node));
        let name = format!("node-{}", NODES[node]);
        let daemon = RunningProcess::start(&name, command, &self.folder, DEADLINE * 1000)?;
        daemon.until_ready()?;
        Ok(daemon)
    }

    fn master(&self, spec: &Path, wire: &str, limit_mbit: u64) -> Result<RunningProcess> {
        let mut command: Command = process::command(self.program);
        command
            .args(["run", "--json", "--progress", "never", "--wire", wire, "--limit"])
            .arg(format!("{limit_mbit}M"))
            .arg(spec);
        RunningProcess::start("master", command, &self.folder, DEADLINE)
    }

    /// Plays one round, and returns its outcome.
    fn play(&mut self, options: &KillOptions, round: &KillRound) -> Result<RoundOutcome> {
        for node in 2..4 {
            let _ = fs::remove_file(self.home(node).join("copy"));
        }
        let spec = self.folder.join("kill.spec");
        fs::write(&spec, round.specification(self))?;
        let wanted_bytes = round.wanted_bytes();
        let limit_mbit = (wanted_bytes as f64 * 8e-6 / options.seconds) as u64;
        let mut master = self.master(&spec, &options.wire, limit_mbit)?;
        let struck = !master.has_ended(round.after);
        let blow = Instant::now();
        if struck {
            match round.victim {
                KillVictim::Node(node) => {
                    self.daemons[node].signal(Signal::SIGKILL)?;
                    // Its port is free once it has ended.
                    ensure!(self.daemons[node].has_ended(DEADLINE), "{} survives", NODES[node]);
                    let daemon = self.start(node)?;
                    self.daemons[node] = daemon;
                }
                KillVictim::Master => master.signal(Signal::SIGKILL)?,
                KillVictim::Interrupted => master.signal(Signal::SIGINT)?,
            }
        }
        let first = master.wait()?;
        let ended_after = blow.elapsed().as_secs_f64();
        let went_on = first.status.success();
        ensure!(struck || went_on, "it failed undisturbed: {}{}", first.output, first.complaint);
        let report = |output: &str| {
            serde_json::from_str::<Value>(output.lines().last().unwrap_or_default()).ok()
        };
        let number = |report: &Value, name: &str| report[name].as_u64().unwrap_or_default();
        let landed = report(&first.output).map_or(0, |report| number(&report, "bytes"));
        let (mut reruns, mut resumed_bytes) = (0, 0);
        if !went_on {
            // The limit was for the first run.
            let again = self.master(&spec, &options.wire, limit_mbit * 4)?.wait()?;
            reruns = 1;
            ensure!(
                again.status.success(),
                "run again, it ended with {}: {}{}; the first run: {}{}",
                again.status,
                again.output,
                again.complaint,
                first.output,
                first.complaint
            );
            let report = report(&again.output).context("no report")?;
            ensure!(number(&report, "bytes") == wanted_bytes, "not all bytes: {report}");
            resumed_bytes = number(&report, "resumed_bytes");
        }
        self.compare(round)?;
        Ok(RoundOutcome {
            victim: round.victim,
            struck,
            went_on,
            reruns,
            resumed_bytes,
            again_bytes: landed.saturating_sub(resumed_bytes),
            ended_after,
            wanted_bytes,
        })
    }

    /// Returns a file other than the copy at a node, if any.
    fn left_over(&self, node: usize) -> Result<Option<OsString>> {
        let names: io::Result<Vec<OsString>> = fs::read_dir(self.home(node))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect();
        Ok(names?.into_iter().find(|name| name != "copy"))
    }

    /// Checks that every byte is correct, and that there are no other files.
    fn compare(&self, round: &KillRound) -> Result<()> {
        for (node, from) in round.files() {
            let copy = self.home(node).join("copy");
            let bytes =
                fs::metadata(&copy).with_context(|| format!("no {}", copy.display()))?.len();
            ensure!(bytes == round.bytes - from, "{} has {bytes} bytes", copy.display());
            let mut cmp = process::command("cmp");
            let skip = format!("{}:0", round.offset + from);
            cmp.args(["-n", &bytes.to_string(), "-i", &skip])
                .arg(self.lab.path("source"))
                .arg(&copy);
            RunningProcess::start("cmp", cmp, &self.folder, DEADLINE)?
                .finish()
                .context("the copy differs")?;
            // The master does not wait until nodes have forgotten the transfer after its good-bye.
            let deadline = Instant::now() + FORGOTTEN_WITHIN;
            while let Some(name) = self.left_over(node)? {
                ensure!(
                    Instant::now() < deadline,
                    "{} is left over at {}",
                    name.display(),
                    NODES[node]
                );
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}
