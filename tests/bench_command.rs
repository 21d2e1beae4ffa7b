//! `cep-fast bench` as a whole program, between nodes on loopback: its output and pictures, not its
//! speed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs;

use assert_cmd::Command;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("cep-fast").unwrap();
    command
        .args(["bench", "--progress", "never"])
        .args(arguments)
        .timeout(std::time::Duration::from_secs(120));
    command
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

#[test]
fn two_nodes_of_its_own_give_json_and_a_picture() {
    let home = tempfile::tempdir().unwrap();
    let picture = home.path().join("nics.svg");
    let arguments =
        ["--launch", "local", "--seconds", "1", "--line-rate", "100G", "--json", "--svg"];
    let output = bench(&arguments).arg(&picture).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let figures: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&figures["error"], &figures["check"]), (&Value::Null, &"crc64".into()));

    // Loopback is one NIC, so there is one step.
    let steps = figures["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &steps[0]["nics"]), (1, &1.into()), "{text}");
    let step = &steps[0];
    assert!(
        number(step, "gbit_per_s") > 0.0
            && number(step, "seconds") > 0.0
            && number(step, "cpu_per_gbit_per_s") > 0.0
    );
    assert!((number(step, "line_gbit_per_s") - 100.0).abs() < 1e-9);
    let part = number(step, "gbit_per_s") / 100.0;
    assert!(
        (number(step, "efficiency") - part).abs() < 1e-9
            && number(step, "goodput_efficiency") > part
    );
    let roles: Vec<&Value> =
        step["nodes"].as_array().unwrap().iter().map(|node| &node["role"]).collect();
    assert_eq!(roles, ["sender", "receiver"]);
    let bytes = number(&step["nodes"][1]["rails"][0], "received_gbit_per_s")
        * number(step, "seconds")
        * 1e9
        / 8.0;
    assert!(
        (bytes - number(step, "bytes")).abs() < 1.0,
        "all that arrived came over the one NIC: {text}"
    );

    let picture = fs::read_to_string(picture).unwrap();
    assert_eq!(picture.matches("class=\"point\"").count(), 1);
    well_formed(&picture);
}

#[test]
fn nodes_on_both_sides_send_and_receive() {
    let arguments = [
        "--launch",
        "local",
        "--seconds",
        "1",
        "--from",
        "a:0,b:0",
        "--to",
        "b:0,c:0",
        "--check",
        "none",
    ];
    let output = bench(&arguments).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.starts_with("1 NIC a node: "), "{text}");
    let roles: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.trim().split_once(' ')).collect();
    for (node, role) in [("a:0", "sender"), ("b:0", "both"), ("c:0", "receiver")] {
        assert!(
            roles.iter().any(|(name, rest)| *name == node && rest.trim().starts_with(role)),
            "{node}:\n{text}"
        );
    }
    assert!(!text.contains("NICs"), "one step needs no table of steps: {text}");
}

#[test]
fn threads_are_calibrated_over_all_that_the_nodes_have() {
    let home = tempfile::tempdir().unwrap();
    let start =
        |threads: &str| support::Daemon::start(home.path(), &["--threads-per-nic", threads]);
    let (sender, receiver) = (start("3"), start("2"));
    let arguments =
        ["--from", &sender.address, "--to", &receiver.address, "--seconds", "1", "--threads"];
    let output = bench(&arguments).arg("--json").assert().success().get_output().stdout.clone();
    let figures: Value = serde_json::from_slice(&output).unwrap();
    let steps = figures["steps"].as_array().unwrap();
    // The node with fewer threads uses all of its own.
    let threads: Vec<u64> = steps.iter().map(|step| step["threads"].as_u64().unwrap()).collect();
    assert_eq!(threads, [1, 2, 3], "{figures}");
    assert!(steps.iter().all(|step| step["nics"] == 1 && number(step, "gbit_per_s") > 0.0));
    let enough = figures["threads_per_nic"].as_u64().unwrap();
    let rate = |step: &Value| number(step, "gbit_per_s");
    let best = steps.iter().map(rate).fold(0.0, f64::max);
    assert!(rate(&steps[enough as usize - 1]) >= 0.95 * best, "{figures}");
    assert!(steps[..enough as usize - 1].iter().all(|step| rate(step) < 0.95 * best), "{figures}");

    let output = bench(&arguments).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(
        text.contains("1 NIC a node, 3 threads each: ") && text.contains("\n--threads-per-nic "),
        "{text}"
    );
}

#[test]
fn mistakes_are_named() {
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 2, "--from is missing"),
        (&["--from", "a:7001"], 2, "--to is missing"),
        (&["--from", "a:7001,a:7001", "--to", "b:7001"], 2, "--from names a:7001 twice"),
        (&["--from", "a:7001", "--to", "a:7001"], 2, "only sender"),
        (&["--launch", "local", "--svg", "/nowhere/x.svg"], 5, "/nowhere/x.svg"),
        (&["--launch", "local", "--svg", "x.svg", "--threads"], 2, "--threads"),
    ];
    for (arguments, status, said) in cases {
        let output = bench(arguments).assert().code(status).get_output().clone();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_node_that_is_not_there_ends_it_with_its_name() {
    let arguments = ["--from", "127.0.0.1:1", "--to", "127.0.0.1:2", "--json"];
    let output = bench(&arguments).assert().code(3).get_output().clone();
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&figures["steps"], &figures["error"]["code"]),
        (&Value::Array(Vec::new()), &3.into())
    );
    assert!(String::from_utf8(output.stderr).unwrap().contains("127.0.0.1:"));
}

/// Returns true if every element that opens closes, in order, and attributes are quoted: sufficient
/// for these pictures.
fn well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in text.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty() && text.starts_with("<svg "), "{open:?}");
}
