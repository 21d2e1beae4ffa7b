//! A cluster of network namespaces with shaped NICs: right bytes over links that are real, and a NIC that dies.
//! Skipped, with a word on it, where namespaces are not permitted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::{PROGRAM, Random, code, end_of, folder, json, pattern, run, stderr};

fn netlab() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/netlab"))
}

/// A lab that goes with the test.
struct Lab {
    name: String,
    daemons: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Lab {
    /// `nodes` nodes with `nics` NICs of `rate` each, and a daemon on each; `None` where that is not permitted.
    fn up(nodes: u32, nics: u32, rate: &str) -> Option<Lab> {
        let check = run(netlab().arg("check"));
        if code(&check) == 77 {
            eprintln!("skipped: {}", stderr(&check));
            return None;
        }
        let name = format!("t{}x{nodes}x{nics}", std::process::id());
        let (nodes_text, nics_text) = (nodes.to_string(), nics.to_string());
        let up = run(netlab().args(["up", &name, "--nodes", &nodes_text, "--nics", &nics_text, "--rate", rate]));
        assert_eq!(code(&up), 0, "{}", stderr(&up));
        let mut lab = Lab { name, daemons: Vec::new(), folder: folder() };
        let key = lab.path("key");
        assert_eq!(code(&run(&mut support::cep_fast(&["keygen", key.to_str().unwrap()]))), 0);
        for node in 1..=nodes {
            let mut command = lab.inside(node);
            command.args(["node", "--listen", &format!("10.200.0.{node}:7000"), "--root"]).arg(lab.folder.path());
            let mut child = command.arg("--key-file").arg(&key).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
            assert!(line.starts_with("ready "), "{line}");
            lab.daemons.push(child);
        }
        Some(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, inside a node.
    fn inside(&self, node: u32) -> Command {
        let mut command = netlab();
        command.args(["exec", &self.name, &node.to_string(), PROGRAM]);
        command
    }

    fn start(&self, spec: &str) -> Child {
        fs::write(self.path("spec"), spec).unwrap();
        let mut command = self.inside(0);
        command.args(["run", "--json", "--progress", "never", "--overwrite", "--key-file"]).arg(self.path("key"));
        let command = command.arg(self.path("spec")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a transfer into `copy` and does something to the lab once its partial file is there.
    fn while_it_moves(&self, spec: &str, fault: impl Fn(&Lab)) -> Output {
        // What an earlier one left would be taken for this one's.
        let _ = fs::remove_file(self.path("copy"));
        let child = self.start(spec);
        let is_partial = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            let is_sized = entry.metadata().is_ok_and(|metadata| metadata.len() > 0);
            entry.file_name().to_string_lossy().starts_with(".copy") && is_sized
        };
        while !fs::read_dir(self.folder.path()).unwrap().any(is_partial) {
            std::thread::yield_now();
        }
        fault(self);
        end_of(child)
    }

    /// Does something to the NICs of a node.
    fn ip(&self, node: u32, what: &[&str]) {
        let namespace = format!("{}-n{node}", self.name);
        assert!(Command::new("ip").args(["-n", &namespace]).args(what).status().unwrap().success(), "{what:?}");
    }

    /// Gives a node's firewall rules, one to a line.
    fn nft(&self, node: u32, rules: &str) {
        let mut nft = netlab();
        nft.args(["exec", &self.name, &node.to_string(), "nft", "-f", "-"]).stdin(Stdio::piped());
        let mut nft = nft.spawn().unwrap();
        std::io::Write::write_all(&mut nft.stdin.take().unwrap(), rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
    }

    fn run(&self, spec: &str) -> Output {
        end_of(self.start(spec))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // It ends what still runs inside, too.
        let _ = netlab().args(["down", &self.name]).status();
    }
}

#[test]
fn four_senders_and_three_receivers_with_random_overlapping_ranges() {
    let Some(lab) = Lab::up(7, 1, "1gbit") else { return };
    let total = 64_u64 << 20;
    let mut random = Random(4);
    let mut part = || {
        let from = random.below(total / 2);
        (from, from + total / 4 + random.below(total / 4))
    };
    let mut spec = format!("id lab\nwriter 10.200.0.1:7000 pattern:5 0 0-{} speed=1G\n", total - 1);
    for node in 2..=4 {
        let (from, to) = part();
        spec += &format!("writer 10.200.0.{node}:7000 pattern:5 0 {from}-{to} speed=1G\n");
    }
    let wants: Vec<(u64, u64)> = (5..=7).map(|_| part()).collect();
    for (node, (from, to)) in (5..).zip(&wants) {
        spec += &format!("reader 10.200.0.{node}:7000 file:///copy{node} 0 {from}-{to} speed=1G\n");
    }
    let output = lab.run(&spec);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for (node, (from, to)) in (5..).zip(&wants) {
        let copy = fs::read(lab.path(&format!("copy{node}"))).unwrap();
        assert!(copy == pattern(5, *from, to - from + 1), "node {node}\n{spec}");
    }
    let report = json(&output);
    let moved: u64 = wants.iter().map(|(from, to)| to - from + 1).sum();
    assert_eq!(report["bytes"], moved);
    assert!(report["wasted_bytes"].as_u64().unwrap() < moved / 5, "{report}");
}

#[test]
fn every_nic_carries_its_part_and_one_that_dies_costs_only_itself() {
    let Some(lab) = Lab::up(2, 3, "200mbit") else { return };
    let spec = |bytes: u64| {
        format!(
            "id nics\nwriter 10.200.0.1:7000 pattern:5 0 0-{0}\nreader 10.200.0.2:7000 file:///copy 0 0-{0}\n",
            bytes - 1
        )
    };
    let output = lab.run(&spec(48 << 20));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    for rail in report["nodes"][1]["rails"].as_array().unwrap() {
        let bytes = rail["bytes_received"].as_u64().unwrap();
        assert!(bytes > 10 << 20, "a third of it, about: {rail}");
    }
    // 192 MiB over three such links take 2.7 s; the NIC dies while pieces are on it.
    let output = lab.while_it_moves(&spec(192 << 20), |lab| lab.ip(2, &["link", "set", "eth1", "down"]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(lab.path("copy")).unwrap() == pattern(5, 0, 192 << 20));
}

#[test]
fn the_nic_of_the_control_address_dies_at_a_receiver_and_at_a_sender_and_nothing_is_lost() {
    let Some(lab) = Lab::up(2, 2, "400mbit") else { return };
    let bytes: u64 = 192 << 20;
    let spec = format!(
        "id control\nwriter 10.200.0.1:7000 pattern:5 0 0-{0}\nreader 10.200.0.2:7000 file:///copy 0 0-{0}\n",
        bytes - 1
    );
    let output = lab.while_it_moves(&spec, |lab| lab.ip(2, &["link", "set", "eth0", "down"]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(lab.path("copy")).unwrap() == pattern(5, 0, bytes));
    lab.ip(2, &["link", "set", "eth0", "up"]);
    // The sender's says nothing any more, as one behind a switch that lost its power.
    let output = lab.while_it_moves(&spec, |lab| lab.nft(1, SILENCE));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(lab.path("copy")).unwrap() == pattern(5, 0, bytes));
}

/// Rules by which eth0 carries nothing, and does not say so.
const SILENCE: &str = "add table inet silence
add chain inet silence in { type filter hook input priority 0; }
add chain inet silence out { type filter hook output priority 0; }
add rule inet silence in iifname eth0 drop
add rule inet silence out oifname eth0 drop
";
