//! Processes that are stopped in the middle of a transfer and continued: Ctrl-Z, a batch system's
//! suspend.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Daemon, beside, cep_fast, code, end_of, folder, json, pattern, stderr, wait_for};

const STALL: &str = "2s";
/// Longer than the stall timeout, and longer than any wait at the end.
const STOPPED_FOR: Duration = Duration::from_millis(3500);
const BYTES: u64 = 24 << 20;

fn start(root: &Path, rows: &str, more: &[&str]) -> Child {
    fs::write(root.join("spec"), format!("id stopped\n{rows}")).unwrap();
    let mut command = cep_fast(&["run", "--json", "--progress", "never", "--stall-timeout", STALL]);
    command
        .args(more)
        .arg(root.join("spec"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Stops processes once bytes have landed below `root`, for longer than the stall timeout.
fn stop_a_while(root: &Path, pids: &[u32]) {
    let landed =
        |path: &std::path::PathBuf| fs::metadata(path).is_ok_and(|about| about.len() > 96 + 64);
    wait_for("a journal", || beside(root, ".journal").iter().any(landed));
    let signal = |pid: &u32, signal| kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    pids.iter().for_each(|pid| signal(pid, Signal::SIGSTOP));
    // The duration of the stop is under test; there is no event to wait for.
    std::thread::sleep(STOPPED_FOR);
    pids.iter().for_each(|pid| signal(pid, Signal::SIGCONT));
}

/// Runs a transfer in which the processes named in `stops` are stopped: master, sender, receiver.
fn run_stopped(stops: [bool; 3], limit: &str) -> Value {
    let root = folder();
    let nodes = [Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[])];
    let [sender, receiver] = &nodes;
    let (from, to, last) = (&sender.address, &receiver.address, BYTES - 1);
    let rows = format!("writer {from} pattern:5 0 0-{last}\nreader {to} file:///copy 0 0-{last}\n");
    let master = start(root.path(), &rows, &["--limit", limit]);
    let pids = [master.id(), sender.pid(), receiver.pid()];
    let stopped: Vec<u32> =
        pids.into_iter().zip(stops).filter(|(_, stops)| *stops).map(|(pid, _)| pid).collect();
    stop_a_while(root.path(), &stopped);
    let output = end_of(master);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(root.path().join("copy")).unwrap() == pattern(5, 0, BYTES));
    json(&output)
}

/// Returns the report's warnings about stopped processes.
fn said_stopped(report: &Value) -> Vec<&str> {
    let warnings = report["warnings"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
    warnings.filter(|warning| warning.contains(" was stopped for ")).collect()
}

#[test]
fn a_master_that_is_stopped_until_the_file_is_whole_ends_well() {
    // A second's worth: the nodes are done long before the master continues.
    let report = run_stopped([true, false, false], "200M");
    let said = said_stopped(&report);
    assert!(said.len() == 1 && said[0].starts_with("the master was stopped for 3."), "{report}");
}

#[test]
fn a_master_that_is_stopped_while_bytes_still_move_ends_well() {
    run_stopped([true, false, false], "40M");
}

#[test]
fn a_whole_job_that_is_suspended_and_goes_on_ends_well_and_says_how_long_it_was_stopped() {
    let report = run_stopped([true, true, true], "100M");
    assert_eq!(said_stopped(&report).len(), 3, "{report}");
    assert!(report["seconds"].as_f64().unwrap() < 3.0, "the stop is not in the rate: {report}");
}
