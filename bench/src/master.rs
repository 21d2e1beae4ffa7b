//! The master as transfers grow to ten thousand nodes: the real program over real sockets, with
//! nodes that move nothing.
//!
//! This process plays all nodes, each at its own loopback address. They shake hands, open nothing,
//! receive their part of the plan, request one byte from a sender, and report that all has landed.
//! Half of them send. Of ten ranges that a receiver wants, two senders offer six, so that its part
//! of the plan has sixteen entries.
//!
//! The memory that a master keeps of each node is counted, piece by piece, in a master that is a
//! thread of this process: by its growth from a quarter of the nodes to half of them, because both
//! ends are in one process. Everything else is measured on the program.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use cep_fast::testing::stub_nodes::{self, MasterMilestone, MessageTally};
use cep_fast::{Settings, Spec, Transfer};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

use crate::bar::Threshold;
use crate::counting;
use crate::options::CommonOptions;
use crate::plans;

#[derive(Args)]
pub(crate) struct MasterOptions {
    /// The most nodes; sizes grow tenfold from 100.
    #[arg(long, default_value_t = 10_000)]
    nodes: u64,
    /// Rows of each node.
    #[arg(long, default_value_t = 10)]
    rows: u64,
    /// Scheduler of the plan.
    #[arg(long, default_value = "greedy")]
    scheduler: String,
    /// Seconds that one transfer may take.
    #[arg(long, default_value_t = 60)]
    deadline: u64,
    /// Folder of the specifications.
    #[arg(long, default_value = "build/bench")]
    dir: PathBuf,
    #[command(flatten)]
    common: CommonOptions,
}

/// Bytes between one row's start and the next one's.
const STEP_BYTES: u64 = 1 << 20;

/// Result for one size.
#[derive(Serialize)]
struct MasterResult {
    nodes: u64,
    rows: u64,
    /// Time of `cep-fast plan` for the same rows.
    planning_seconds: f64,
    /// Time from the first dial to the last session, and the master's processor time in it for each
    /// node.
    handshakes_seconds: f64,
    handshake_cpu_us: f64,
    /// Processor time of the nodes, all in this process.
    handshake_node_cpu_us: f64,
    /// Time from there to the first byte at a receiver, and to the last receiver that has its part
    /// of the plan.
    first_byte_seconds: f64,
    last_start_seconds: f64,
    /// Remaining time, to the last session closed.
    rest_seconds: f64,
    /// Resident memory before the first dial, which holds the rows, and the maximum.
    rows_bytes: u64,
    memory_bytes_max: u64,
    /// Memory that the master holds for each node once all sessions are up and nothing has been
    /// planned.
    node: Option<BytesPerNode>,
    /// Messages for each node.
    messages: f64,
    messages_max: u64,
    message_bytes: f64,
    message_bytes_max: u64,
    /// For receivers: the senders of segments in its part of the plan, and its encoded size.
    entries: f64,
    start_bytes: f64,
}

/// Bytes of memory for one node, beside its rows.
#[derive(Serialize, Clone, Copy)]
struct BytesPerNode {
    all: f64,
    /// Its cipher, with the buffered part of a message.
    cipher: f64,
    /// Its socket, with bytes to send or half read.
    socket: f64,
    /// Everything else: the master's record of the node.
    state: f64,
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, progress beside them"
)]
pub(crate) fn run(options: &MasterOptions) -> Result<()> {
    let program = options.common.program()?;
    fs::create_dir_all(&options.dir)
        .with_context(|| format!("cannot make {}", options.dir.display()))?;
    let mut all = Vec::new();
    for nodes in (2..).map(|power| 10_u64.pow(power)).take_while(|nodes| *nodes <= options.nodes) {
        eprintln!("{nodes} nodes");
        all.push(measure(options, &program, nodes)?);
    }
    println!("{}", table(&all));
    let last = all.last().context("no size to measure")?;
    let bars = bars(last);
    for (what, bar, found) in &bars {
        println!(
            "{what}: {found:.3}, bar {}{}",
            bar.text(),
            if bar.holds(*found) { "" } else { ": missed" }
        );
    }
    options.common.keep(&all)?;
    options.common.judge(bars.iter().any(|(_, bar, found)| !bar.holds(*found)));
    Ok(())
}

fn measure(options: &MasterOptions, program: &Path, nodes: u64) -> Result<MasterResult> {
    let listener = TcpListener::bind(("0.0.0.0", 0))?;
    let port = listener.local_addr()?.port();
    let file = options.dir.join(format!("master-{nodes}.spec"));
    let output = options.dir.join(format!("master-{nodes}.json"));
    fs::write(&file, specification(nodes, options.rows, port))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let planning_seconds = plans::plan(program, &file, &options.scheduler)?.seconds;
    let mut command = Command::new(program);
    command
        .args(["run", "--json", "--progress", "never", "--scheduler", &options.scheduler])
        .arg(&file);
    command.stdin(Stdio::null()).stdout(File::create(&output)?);
    let master = MasterProcess(
        command.spawn().with_context(|| format!("cannot run {}", program.display()))?,
    );
    let seen = RefCell::new(Vec::new());
    let within = Duration::from_secs(options.deadline);
    let tally = stub_nodes::serve(listener, usize::try_from(nodes)?, within, &mut |milestone| {
        seen.borrow_mut().push((milestone, ProcessReading::take(&master)));
    })?;
    ensure!(master.ends(within)?, "{} failed", program.display());
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&output)?)?;
    ensure!(report["state"] == "complete", "the transfer ended as {}", report["state"]);
    fs::remove_file(&file)?;
    fs::remove_file(&output)?;
    let seen = seen.into_inner();
    let at = |wanted: MasterMilestone| -> Result<&ProcessReading> {
        let found = seen.iter().find(|(milestone, _)| *milestone == wanted);
        found.map(|(_, reading)| reading).with_context(|| format!("{wanted:?} never came"))
    };
    let node = if nodes >= COUNTED_NODES_MIN { Some(hold(options, nodes)?) } else { None };
    Ok(found(options, nodes, planning_seconds, node, &PhaseReadings::of(at)?, &tally))
}

fn found(
    options: &MasterOptions,
    nodes: u64,
    planning_seconds: f64,
    node: Option<BytesPerNode>,
    readings: &PhaseReadings,
    tally: &MessageTally,
) -> MasterResult {
    let PhaseReadings { called, met, byte, started, end, finish } = readings;
    let per_node = |sum: u64| sum as f64 / nodes as f64;
    let per_receiver = |sum: u64| sum as f64 / tally.receivers as f64;
    let cpu_us = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / nodes as f64;
    MasterResult {
        nodes,
        rows: nodes * options.rows,
        planning_seconds,
        handshakes_seconds: (met.at - called.at).as_secs_f64(),
        handshake_cpu_us: cpu_us(called.cpu, met.cpu),
        handshake_node_cpu_us: cpu_us(called.own_cpu, met.own_cpu),
        first_byte_seconds: (byte.at - met.at).as_secs_f64(),
        last_start_seconds: (started.at - met.at).as_secs_f64(),
        rest_seconds: (end.at - started.at).as_secs_f64(),
        rows_bytes: called.memory_bytes,
        memory_bytes_max: finish.memory_bytes_max.max(started.memory_bytes_max),
        node,
        messages: per_node(tally.messages),
        messages_max: tally.messages_max,
        message_bytes: per_node(tally.bytes),
        message_bytes_max: tally.bytes_max,
        entries: per_receiver(tally.entries),
        start_bytes: per_receiver(tally.start_bytes),
    }
}

/// Returns a specification with as many rows of senders as of receivers; three fifths of the
/// senders' rows also cover the range after their own.
fn specification(nodes: u64, rows: u64, port: u16) -> String {
    let mut text = String::from("id master\n");
    let half = nodes / 2;
    let host =
        |node: u64| format!("127.{}.{}.{}", 10 + (node >> 16), (node >> 8) & 255, node & 255);
    for row in 0..rows {
        let steps = if row % 5 < 3 { 2 } else { 1 };
        for at in 0..half {
            let start = (row * half + at) * STEP_BYTES;
            let (offered, wanted) = (start + steps * STEP_BYTES - 1, start + STEP_BYTES - 1);
            // A receiver meets other senders in each of its rows.
            let (sender, receiver) = (host((at + row * 7) % half), host(half + at));
            writeln!(text, "writer {sender}:{port} pattern:1 {start} {start}-{offered}")
                .expect("memory takes it");
            writeln!(text, "reader {receiver}:{port} null: 0 {start}-{wanted}")
                .expect("memory takes it");
        }
    }
    text
}

/// Returns the memory that a master holds for each node.
fn hold(options: &MasterOptions, nodes: u64) -> Result<BytesPerNode> {
    let per_node = |bytes: i64, count: u64| bytes as f64 / count as f64;
    let grown = growth(options, nodes / 2)? - growth(options, nodes / 4)?;
    let (laid_out, connection) = stub_nodes::laid_out_bytes();
    let all = per_node(grown, nodes / 2 - nodes / 4) + laid_out as f64;
    let weighed = std::thread::spawn(|| -> Result<i64> {
        counting::count_this_thread();
        let before = counting::held_bytes();
        let ciphers = stub_nodes::ciphers(CIPHERS)?;
        let weight = counting::held_bytes() - before;
        drop(ciphers);
        Ok(weight)
    });
    let cipher =
        per_node(weighed.join().map_err(|_| anyhow!("the scales broke"))??, CIPHERS as u64);
    let socket = connection as f64;
    Ok(BytesPerNode { all, cipher, socket, state: all - cipher - socket })
}

/// Returns the memory that a master in this process allocates and keeps from the first dial until
/// it has sent `Prepare` to all nodes.
fn growth(options: &MasterOptions, nodes: u64) -> Result<i64> {
    stub_nodes::make_room(2 * usize::try_from(nodes)?)?;
    let listener = TcpListener::bind(("0.0.0.0", 0))?;
    let text = specification(nodes, options.rows, listener.local_addr()?.port());
    let master = std::thread::spawn(move || {
        counting::count_this_thread();
        let spec = Spec::parse("master.spec", &text)?;
        Transfer::from_spec(spec, Settings::default()).transfer()
    });
    let (mut before, mut after) = (0, 0);
    let within = Duration::from_secs(options.deadline);
    stub_nodes::serve(
        listener,
        usize::try_from(nodes)?,
        within,
        &mut |milestone| match milestone {
            MasterMilestone::FirstCall => {
                // By then it has dialled as many as it does at once, and waits.
                std::thread::sleep(Duration::from_millis(200));
                before = counting::held_bytes();
            }
            MasterMilestone::AllAsked => after = counting::held_bytes(),
            _ => {}
        },
    )?;
    let report = master.join().map_err(|_| anyhow!("the master panicked"))??;
    ensure!(report.error.is_none(), "the transfer failed: {report}");
    Ok(after - before)
}

/// Smallest number of nodes for this measurement: with fewer, a master dials a quarter of them at
/// once, and counts them before they have connected.
const COUNTED_NODES_MIN: u64 = 2000;

/// Enough for their number not to matter.
const CIPHERS: usize = 1000;

/// The master process, which is killed on drop.
struct MasterProcess(Child);

impl MasterProcess {
    /// Waits for its end, and returns true for success.
    fn ends(mut self, within: Duration) -> Result<bool> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        anyhow::bail!("the master does not end");
    }
}

impl Drop for MasterProcess {
    fn drop(&mut self) {
        // A process that has ended cannot be killed, and need not be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Clocks and memory at one moment. Unreadable values of a master that has just ended are zero.
#[derive(Clone, Copy)]
struct ProcessReading {
    at: Instant,
    /// Processor time of the master, and of this thread.
    cpu: Duration,
    own_cpu: Duration,
    memory_bytes: u64,
    memory_bytes_max: u64,
}

impl ProcessReading {
    fn take(master: &MasterProcess) -> ProcessReading {
        let pid = master.0.id();
        ProcessReading {
            at: Instant::now(),
            cpu: cpu(&format!("/proc/{pid}/schedstat")).unwrap_or_default(),
            own_cpu: cpu("/proc/thread-self/schedstat").unwrap_or_default(),
            memory_bytes: memory_bytes(pid, "VmRSS").unwrap_or_default(),
            memory_bytes_max: memory_bytes(pid, "VmHWM").unwrap_or_default(),
        }
    }
}

/// Readings for the figures.
struct PhaseReadings {
    called: ProcessReading,
    met: ProcessReading,
    byte: ProcessReading,
    started: ProcessReading,
    finish: ProcessReading,
    end: ProcessReading,
}

impl PhaseReadings {
    fn of<'a>(at: impl Fn(MasterMilestone) -> Result<&'a ProcessReading>) -> Result<PhaseReadings> {
        Ok(PhaseReadings {
            called: *at(MasterMilestone::FirstCall)?,
            met: *at(MasterMilestone::AllMet)?,
            byte: *at(MasterMilestone::FirstByte)?,
            started: *at(MasterMilestone::LastStart)?,
            finish: *at(MasterMilestone::FirstFinish)?,
            end: *at(MasterMilestone::AllClosed)?,
        })
    }
}

fn cpu(file: &str) -> Result<Duration> {
    let text = fs::read_to_string(file)?;
    let on_cpu = text.split(' ').next().context("an empty file")?;
    Ok(Duration::from_nanos(on_cpu.parse()?))
}

fn memory_bytes(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn table(all: &[MasterResult]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "nodes",
        "rows",
        "planning s",
        "handshakes s",
        "CPU µs each: master, node",
        "first byte s",
        "last start s",
        "rest s",
        "MiB of rows, most",
        "B/node: all",
        "cipher",
        "socket",
        "state",
        "messages",
        "B of messages",
        "of Start",
        "entries",
    ]);
    for found in all {
        let held = |of: fn(&BytesPerNode) -> f64| {
            found.node.as_ref().map_or(String::new(), |held| format!("{:.0}", of(held)))
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        table.add_row([
            found.nodes.to_string(),
            found.rows.to_string(),
            format!("{:.4}", found.planning_seconds),
            format!("{:.3}", found.handshakes_seconds),
            format!("{:.0}, {:.0}", found.handshake_cpu_us, found.handshake_node_cpu_us),
            format!("{:.3}", found.first_byte_seconds),
            format!("{:.3}", found.last_start_seconds),
            format!("{:.3}", found.rest_seconds),
            format!("{:.0}, {:.0}", mib(found.rows_bytes), mib(found.memory_bytes_max)),
            held(|held| held.all),
            held(|held| held.cipher),
            held(|held| held.socket),
            held(|held| held.state),
            format!("{:.2}, {} at most", found.messages, found.messages_max),
            format!("{:.0}, {} at most", found.message_bytes, found.message_bytes_max),
            format!("{:.0}", found.start_bytes),
            format!("{:.1}", found.entries),
        ]);
    }
    table
}

/// Returns the thresholds of a master, for the largest size.
fn bars(found: &MasterResult) -> Vec<(&'static str, Threshold, f64)> {
    let state = found.node.map_or(f64::NAN, |held| held.state);
    vec![
        (
            "bytes of state for an idle node, beyond socket and cipher",
            Threshold::AtMost(256.0),
            state,
        ),
        ("messages of a node", Threshold::AtMost(4.0), found.messages_max as f64),
        ("bytes of them, at the mean", Threshold::AtMost(1024.0), found.message_bytes),
        (
            "seconds from the last session to the first byte",
            Threshold::AtMost(2.0),
            found.first_byte_seconds,
        ),
    ]
}
