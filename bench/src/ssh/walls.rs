//! One file between two nodes with two NICs, behind firewalls: one port, one side that cannot be
//! dialled, and neither.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::login::{RemoteHome, SshFixture};
use super::options::SshOptions;
use crate::bar::Threshold;
use crate::cases::book::BenchResults;
use crate::cluster::{LabCluster, host};
use crate::lab::WorkDir;
use crate::private_ssh::PrivateSsh;
use crate::report::median;
use crate::scenario::BenchScenario;

const RATES_MBIT: [u32; 2] = [1000; 2];
/// Port that the nodes have behind a wall with one.
const PORT: u16 = 7400;

/// A firewall between the nodes. Logins to node 2 are let through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wall {
    None,
    OnePort,
    /// The sender takes no connections.
    Sender,
    /// The receiver takes none, but logins.
    Receiver,
    Both,
}

const ALL: [(Wall, &str); 5] = [
    (Wall::None, "no wall"),
    (Wall::OnePort, "one port"),
    (Wall::Sender, "the sender cannot be dialled"),
    (Wall::Receiver, "the receiver cannot be dialled"),
    (Wall::Both, "neither can be dialled"),
];

pub(super) fn run(bench: SshFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let SshFixture { options, lab, tools } = bench;
    let cluster = LabCluster::without_daemons(lab, tools, 2, &RATES_MBIT)?;
    let remote = bench.remote()?;
    let hosts = [1, 2].map(|node| (format!("node{node}"), host(node)));
    let mut ssh = remote.ssh(lab, &hosts, true)?;
    ssh.serve(lab, "sshd2", |sshd| cluster.command(2, sshd))?;
    let bench = WallBench { options, cluster: &cluster, remote: &remote, ssh: &ssh };
    let mut moving: [Vec<f64>; ALL.len()] = Default::default();
    let mut piped = Vec::new();
    for round in 1..=options.rounds {
        for turn in 0..ALL.len() {
            let at = (turn + round as usize) % ALL.len();
            let (wall, name) = ALL[at];
            book.now(&format!("round {round}: {name}"));
            bench.build(lab, wall)?;
            match bench.copy(lab, wall, round == 1) {
                Ok(seconds) => moving[at].push(seconds),
                Err(error) => book.failed(name, &error),
            }
            if wall == Wall::Both {
                book.now(&format!("round {round}: ssh node2 cat"));
                piped.push(bench.pipe(lab)?);
            }
        }
    }
    let rate = |seconds: Vec<f64>| {
        median(seconds).map_or(0.0, |seconds| options.bytes as f64 * 8e-9 / seconds)
    };
    let [open, one_port, sender, receiver, both] = moving.map(rate);
    let piped = rate(piped);
    book.figure("no wall, moving", open, "Gbit/s", "");
    book.figure("ssh node2 cat", piped, "Gbit/s", "");
    for ((_, name), walled) in ALL[1..4].iter().zip([one_port, sender, receiver]) {
        let text = format!("{walled:.2} Gbit/s");
        book.ratio(format!("{name} / no wall"), walled / open, Threshold::AtLeast(0.95), text);
    }
    let text = format!("{both:.2} Gbit/s");
    book.ratio("neither can be dialled / ssh cat", both / piped, Threshold::AtLeast(0.8), text);
    Ok(())
}

struct WallBench<'a> {
    options: &'a SshOptions,
    cluster: &'a LabCluster<'a>,
    remote: &'a RemoteHome,
    ssh: &'a PrivateSsh,
}

impl WallBench<'_> {
    /// Replaces the firewalls of both nodes.
    fn build(&self, lab: &WorkDir, wall: Wall) -> Result<()> {
        let logins = format!("tcp dport {}", self.ssh.port());
        let rules = |node: u32| -> Option<String> {
            let open = match (wall, node) {
                (Wall::None, _) | (Wall::Sender, 2) | (Wall::Receiver, 1) => return None,
                (Wall::OnePort, _) => format!("tcp dport {{ {PORT}, {} }}", self.ssh.port()),
                _ => logins.clone(),
            };
            Some(format!(
                "add table inet wall\n\
                 add chain inet wall in {{ type filter hook input priority 0; policy drop; }}\n\
                 add rule inet wall in ct state established,related accept\n\
                 add rule inet wall in iif lo accept\n\
                 add rule inet wall in {open} accept\n\
                 add rule inet wall in meta l4proto {{ icmp, icmpv6 }} accept\n"
            ))
        };
        for node in 1..=2 {
            let mut script = "nft flush ruleset".to_owned();
            if let Some(rules) = rules(node) {
                script += &format!("; nft -f - <<'END'\n{rules}END\n");
            }
            let mut shell = self.cluster.command(node, "sh");
            shell.args(["-ec", &script]);
            lab.start("wall", shell)?.finish()?;
        }
        Ok(())
    }

    /// Copies the file from node 1 to node 2, and returns the seconds of moving.
    fn copy(&self, lab: &WorkDir, wall: Wall, compares: bool) -> Result<f64> {
        let work = lab.prepare_part(BenchScenario::FileToFile, self.options.bytes)?;
        let files = work.files.as_ref().context("files are moved")?;
        let mut command = self.cluster.command(1, &self.remote.program);
        command.args(["copy", "--json", "--progress", "never", "--no-resume", "--ssh"]);
        command.arg(self.ssh.client());
        if wall == Wall::OnePort {
            command.args(["--ports", &PORT.to_string()]);
        }
        command.arg(&files.source).arg(format!("node2:{}", files.destination.display()));
        let finished = lab.start("typed", command)?.finish();
        if finished.is_err() {
            lab.discard(&work);
        }
        let finished = finished?;
        lab.clear(&work, compares)?;
        let report: serde_json::Value = serde_json::from_str(finished.output.trim())?;
        ensure!(report["wire"] == "sealed", "{report}");
        let warnings = report["warnings"].to_string();
        ensure!((wall == Wall::Both) == warnings.contains("neither side can dial"), "{warnings}");
        report["seconds"].as_f64().context("the report has no seconds")
    }

    /// Sends the same bytes through `ssh node2 cat`, and returns the seconds.
    fn pipe(&self, lab: &WorkDir) -> Result<f64> {
        let work = lab.prepare_part(BenchScenario::FileToFile, self.options.bytes)?;
        let files = work.files.as_ref().context("files are moved")?;
        let mut command: Command = self.cluster.command(1, "sh");
        let script = "exec \"$0\" node2 'cat >\"'\"$2\"'\"' <\"$1\"";
        command.args(["-ec", script]).arg(self.ssh.client());
        command.arg(&files.source).arg(&files.destination).stdin(Stdio::null());
        let finished = lab.start("piped", command)?.finish();
        lab.discard(&work);
        Ok(finished?.seconds)
    }
}
