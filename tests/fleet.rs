//! Benchmarks of many hosts as a whole program: nodes in a lab, of which some are faulty, and each
//! fault is named with its node and its cause, and nothing else.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use netlab::{LabScript, NetworkLab};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde_json::Value;
use support::sshd::{SshHost, Sshd};
use support::{PROGRAM, STATE, cep_fast, code, folder, json, run, stderr};

/// Rate of a NIC: so low that the processors of a small machine bear all of them.
const RATE: &str = "50mbit";

/// Four nodes with two NICs each, which a program of the test starts: anywhere, or the node n2 on a
/// CPU of its own, with little right to it, and all else on another.
struct FleetLab {
    network: NetworkLab,
    folder: tempfile::TempDir,
    cpus: [usize; 2],
}

impl FleetLab {
    /// Returns `None` where namespaces are not permitted, or there is one CPU.
    fn up() -> Option<FleetLab> {
        let script = LabScript::of_repository();
        if let Some(obstacle) = script.obstacle().unwrap() {
            eprintln!("skipped: {obstacle}");
            return None;
        }
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap());
        let (Some(first), Some(last)) = (cpus.next(), cpus.next_back()) else {
            eprintln!("skipped: two CPUs are needed");
            return None;
        };
        let network = script.up("fleet", &["--nodes", "4", "--nics", "2", "--rate", RATE]).unwrap();
        let lab = FleetLab { network, folder: folder(), cpus: [first, last] };
        lab.write_starter();
        Some(lab)
    }

    fn starter(&self) -> PathBuf {
        self.folder.path().join("starter")
    }

    fn write_starter(&self) {
        let enter = self.network.command(0, "true");
        let words: Vec<&str> = enter.get_args().map(|word| word.to_str().unwrap()).collect();
        let [exec, name, ..] = &words[..] else { panic!("{words:?}") };
        let program = enter.get_program().to_str().unwrap();
        let [busy, other] = self.cpus;
        let script = format!(
            "#!/bin/sh\nhow=$1 node=${{2#n}}; shift 2\ncase $how$node in pinned2) set -- nice -n \
             10 taskset -c {busy} \"$@\" ;; pinned*) set -- taskset -c {other} \"$@\" ;; \
             esac\nexec {program} {exec} {name} $node \"$@\"\n"
        );
        fs::write(self.starter(), script).unwrap();
        fs::set_permissions(self.starter(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Measures the nodes; `how` they are started is `free` or `pinned`.
    fn bench(&self, how: &str, more: &[&str]) -> Output {
        let launch = format!("{} {how} {{host}} {{command}}", self.starter().display());
        let cpus = if how == "pinned" { &self.cpus[1..] } else { &self.cpus };
        let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        let mut command = self.network.command(0, "taskset");
        command.args(["-c", &cpus.join(","), PROGRAM, "bench", "n[1-4]"]);
        command.args(["--launch", &launch, "--deploy", "never", "--progress", "never"]);
        command.args(["--wire", "clear", "--check", "none"]).args(more);
        command.env("PATH", path_with(Path::new(PROGRAM).parent().unwrap()));
        run(command.env("XDG_STATE_HOME", STATE))
    }

    /// Keeps the CPU of the node n2 busy.
    fn busy_loops(&self) -> BusyLoops {
        let one = |_| {
            let mut command = Command::new("taskset");
            command.args(["-c", &self.cpus[0].to_string(), "sh", "-c", "while :; do :; done"]);
            command.spawn().unwrap()
        };
        BusyLoops((0..2).map(one).collect())
    }
}

/// Returns the search path with another folder in front.
fn path_with(folder: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).unwrap()
}

/// Processes that end with this.
struct BusyLoops(Vec<Child>);

impl Drop for BusyLoops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns the nodes that are named, with their causes, by the names of the nodes.
fn named(figures: &Value) -> Vec<(String, Vec<String>)> {
    let nodes = figures["nodes"].as_array().unwrap().iter();
    let slow = nodes.filter(|node| node["verdict"] == "slow").map(|node| {
        let causes = node["causes"].as_array().unwrap().iter();
        let causes = causes.map(|cause| cause["cause"].as_str().unwrap().to_owned());
        (node["node"].as_str().unwrap().to_owned(), causes.collect())
    });
    let mut slow: Vec<_> = slow.collect();
    slow.sort();
    slow
}

#[test]
fn a_slow_nic_and_a_busy_cpu_are_named_with_their_causes_and_nobody_else_is() {
    let Some(lab) = FleetLab::up() else { return };
    let output = lab.bench("free", &["--json", "--min-efficiency", "0.6"]);
    let healthy = json(&output);
    assert_eq!((named(&healthy), code(&output)), (Vec::new(), 0), "{healthy}");
    assert_eq!((&healthy["rounds"], healthy["nodes"].as_array().unwrap().len()), (&3.into(), 4));

    lab.network.fault(3, 1, &["rate", "5mbit"]).unwrap();
    let _loops = lab.busy_loops();
    let output = lab.bench("pinned", &["--json", "--min-efficiency", "0.6"]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let faulty = json(&output);
    let slow = named(&faulty);
    let [(busy, of_busy), (limited, of_limited)] = &slow[..] else { panic!("{faulty}") };
    assert_eq!((busy.as_str(), limited.as_str()), ("n2", "n3"), "{faulty}");
    assert!(of_busy[0].starts_with("CPU busy: others take "), "{of_busy:?}");
    assert_eq!(of_limited.len(), 1, "{of_limited:?}");
    assert!(of_limited[0].starts_with("eth1 sends "), "{of_limited:?}");

    let output = lab.bench("pinned", &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let (tables, words) = text.split_once("\n2 of 4 nodes below the rest:\n").unwrap();
    for node in ["n1", "n2", "n3", "n4", "eth0 out, 4 NICs", "eth1 in, 4 NICs", "efficiency"] {
        assert!(tables.contains(node), "{text}");
    }
    assert!(words.contains("\nn3: eth1 sends ") && words.contains("\nn2: CPU busy: "), "{text}");
    assert!(!words.contains("n1: ") && !words.contains("n4: "), "{text}");
    assert_eq!(words.matches("\n  try: ").count(), words.matches("\n\n").count() + 1, "{text}");
}

#[test]
fn hosts_are_measured_over_ssh_and_nothing_is_left() {
    let hosts = ["a", "b", "c"].map(SshHost::new);
    let Some(sshd) = Sshd::start(&hosts) else { return };
    for host in &hosts {
        let program = sshd.programs(host.name()).join("cep-fast");
        std::os::unix::fs::symlink(PROGRAM, program).unwrap();
    }
    let list = sshd.folder().join("hosts");
    fs::write(&list, "# all\na,b\nc\n").unwrap();
    let mut command = cep_fast(&["bench", "--launch", "ssh", "--seconds", "500ms", "--json"]);
    command.args(["--deploy", "never", "--progress", "never", "--ssh"]).arg(sshd.ssh());
    let output = run(command.arg(format!("@{}", list.display())));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let figures = json(&output);
    let nodes = figures["nodes"].as_array().unwrap();
    let mut names: Vec<&str> = nodes.iter().map(|node| node["node"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(nodes.iter().all(|node| node["received_gbit_per_s"].as_f64().unwrap() > 0.0));
    support::wait_for("the end of all sessions", || sshd.sessions().is_empty());
}

#[test]
fn mistakes_are_named() {
    let cases: [(&[&str], i32, &str); 8] = [
        (&["a", "b"], 2, "a: nothing says how a node is started there"),
        (&["a", "--launch", "local"], 2, "a: one host has nobody"),
        (&["a:5000", "b", "--launch", "ssh"], 2, "[user@]host"),
        (&["me@a", "b", "--launch", "local"], 2, "me@a: --launch local"),
        (&["@/nowhere/hosts", "--launch", "ssh"], 2, "/nowhere/hosts"),
        (&["a", "b", "--launch", "local", "--min-efficiency", "90"], 2, "--min-efficiency"),
        (&["--launch", "local", "--min-efficiency", "0.9"], 2, "--min-efficiency is for HOSTs"),
        (&["a", "b", "--launch", "local", "--from", "a:1"], 2, "--from"),
    ];
    for (arguments, status, said) in cases {
        let output = run(cep_fast(&["bench"]).args(arguments.iter().map(OsStr::new)));
        assert_eq!(code(&output), status, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}
