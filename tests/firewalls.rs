//! Firewalls: nodes that have one port, nodes of which one side can be dialled, and nodes of which
//! neither can.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::net::TcpListener;
use std::process::Output;

use serde_json::Value;
use support::lab::Lab;
use support::{cep_fast, code, folder, json, run, stderr};

/// Only port 7000 is open to connections from outside; others are dropped.
const ONE_PORT: &str = "add table inet wall
add chain inet wall in { type filter hook input priority 0; policy drop; }
add rule inet wall in ct state established,related accept
add rule inet wall in iif lo accept
add rule inet wall in tcp dport 7000 accept
add rule inet wall in meta l4proto { icmp, icmpv6 } accept
";

fn rows(mib: u64) -> String {
    let last = (mib << 20) - 1;
    format!(
        "id firewalls\n\
         writer 10.200.0.1:7000 pattern:5 0 0-{last}\n\
         reader 10.200.0.2:7000 null: 0 0-{last}\n"
    )
}

fn completed(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    let report = json(output);
    assert_eq!(report["state"], "complete", "{report}");
    report
}

/// Returns the bytes that each NIC of a node moved.
fn moved(report: &Value, node: usize) -> Vec<u64> {
    let rails = report["nodes"][node]["rails"].as_array().unwrap().iter();
    let bytes = |rail: &Value, name: &str| rail[name].as_u64().unwrap();
    rails.map(|rail| bytes(rail, "bytes_sent") + bytes(rail, "bytes_received")).collect()
}

#[test]
fn one_port_carries_control_and_the_data_of_every_thread_of_every_nic() {
    let Some(mut lab) = Lab::up(2, 2, "500mbit") else { return };
    for node in [1, 2] {
        lab.restart(node, &["--ports", "7000", "--threads-per-nic", "2"]);
        lab.network.nft(node, ONE_PORT).unwrap();
    }
    let report = completed(&lab.run(&rows(64)));
    for node in [0, 1] {
        let moved = moved(&report, node);
        assert!(moved.len() == 2 && moved.iter().all(|bytes| *bytes > 8 << 20), "{report}");
        assert_eq!(report["nodes"][node]["rails"][0]["threads"], 2, "{report}");
    }
    assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
}

/// The same, answered with a refusal.
const ONE_PORT_REFUSING: &str = "add table inet wall
add chain inet wall in { type filter hook input priority 0; policy accept; }
add rule inet wall in ct state established,related accept
add rule inet wall in iif lo accept
add rule inet wall in tcp dport 7000 accept
add rule inet wall in meta l4proto tcp reject with tcp reset
";

/// Seconds within which bytes flow by the way that works, on a busy machine.
const FLOWS_WITHIN: f64 = 2.5;

/// Returns the seconds from the plan to the first byte.
fn lost_seconds(report: &Value) -> f64 {
    report["phases"]["move_seconds"].as_f64().unwrap() - report["seconds"].as_f64().unwrap()
}

#[test]
fn whichever_side_can_be_dialled_is_dialled_soon() {
    for rules in [ONE_PORT, ONE_PORT_REFUSING] {
        // A sender that takes no data connections is called, and dials; a receiver that takes none
        // dials as it does everywhere.
        for walled in [1, 2] {
            let Some(lab) = Lab::up(2, 2, "500mbit") else { return };
            lab.network.nft(walled, rules).unwrap();
            for _ in ["found out", "remembered"] {
                let report = completed(&lab.run(&rows(64)));
                assert!(lost_seconds(&report) < FLOWS_WITHIN, "{walled}: {report}");
                let moved = moved(&report, 1);
                assert!(moved.iter().all(|bytes| *bytes > 8 << 20), "{walled}: {report}");
                assert_eq!(report["warnings"], serde_json::json!([]), "{walled}: {report}");
            }
        }
    }
}

/// All connections from outside are dropped.
const CLOSED: &str = "add table inet wall
add chain inet wall in { type filter hook input priority 0; policy drop; }
add rule inet wall in ct state established,related accept
add rule inet wall in iif lo accept
add rule inet wall in meta l4proto { icmp, icmpv6 } accept
";

/// Copies a file between nodes 1 and 2 with the command typed in node 1. The starter of the node in
/// node 2 needs no network.
fn copy(lab: &Lab, from: &str, to: &str) -> Output {
    let entering = lab.network.command(2, "env");
    let words = std::iter::once(entering.get_program()).chain(entering.get_args());
    let starter: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let starter = format!("{} HOST={{host}} PATH=/usr/bin:/bin {{command}}", starter.join(" "));
    let mut command = lab.inside(1);
    command.args(["copy", "--json", "--progress", "never", "--launch", &starter]);
    run(command.env("HOME", lab.path("")).args([from, to]))
}

#[test]
fn where_neither_side_can_be_dialled_control_and_data_go_through_the_launchers_sessions() {
    let Some(lab) = Lab::up(2, 1, "500mbit") else { return };
    for node in [1, 2] {
        lab.network.nft(node, CLOSED).unwrap();
    }
    let data = support::random_bytes(3, 20_000_000);
    std::fs::write(lab.path("source"), &data).unwrap();
    let path = |name: &str| lab.path(name).display().to_string();
    let there = |name: &str| format!("10.200.0.2:{}", path(name));
    for (from, to, made) in
        [(path("source"), there("to"), "to"), (there("source"), path("from"), "from")]
    {
        let output = copy(&lab, &from, &to);
        let report = completed(&output);
        assert!(std::fs::read(lab.path(made)).unwrap() == data, "{report}");
        assert_eq!(report["wire"], "sealed", "{report}");
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("bit/s, because neither side can dial the other"), "{warnings}");
        let said = stderr(&output);
        assert!(said.contains("10.200.0.2: neither side can dial the other, so that"), "{said}");
    }
}

#[test]
fn launched_nodes_stay_within_their_ports_and_name_a_range_that_has_none_left() {
    let folder = folder();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let spec = folder.path().join("spec");
    std::fs::write(&spec, "id x\nwriter a:1 pattern:1 0 0-9\nreader b:2 null: 0 0-9\n").unwrap();
    let with = |ports: &str, launch: &str| {
        let mut command = cep_fast(&["run", "--json", "--progress", "never", "--launch", launch]);
        run(command.args(["--ports", ports]).arg(&spec))
    };
    let output = with(&port.to_string(), "local");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains(&format!("--ports {port} is free")), "{said}");
    assert!(said.contains("\n  try: "), "{said}");
    drop(taken);
    completed(&with(&port.to_string(), "local"));
    for ports in ["0-0", "9-3", "70000", "text"] {
        let output = with(ports, "local");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("--ports"), "{}", stderr(&output));
    }
    let output = with("7000", "none");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("--ports 7000"), "{}", stderr(&output));
}
