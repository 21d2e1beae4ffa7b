//! One file between two nodes with four NICs, by commands that ssh starts.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::login::{RemoteHome, SshFixture};
use super::options::SshOptions;
use crate::bar::Threshold;
use crate::cases::book::BenchResults;
use crate::cases::iperf;
use crate::cluster::{LabCluster, host};
use crate::contenders::program;
use crate::lab::WorkDir;
use crate::private_ssh::PrivateSsh;
use crate::report::median;
use crate::scenario::BenchScenario;

const RATES_MBIT: [u32; 4] = [1000; 4];
/// Seconds of each iperf3.
const IPERF_SECONDS: f64 = 5.0;

/// Command of a contender. Each is typed in node 1, except for rcp, which reaches both nodes from
/// node 0.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TypedCommand {
    Ours,
    /// Typed in node 0: between two other hosts.
    OursRemote,
    Scp,
    Rsync,
    Rcp,
}

const ALL: [(TypedCommand, &str); 5] = [
    (TypedCommand::Ours, "cep-fast copy FILE node2:"),
    (TypedCommand::OursRemote, "cep-fast copy node1:FILE node2:"),
    (TypedCommand::Scp, "scp"),
    (TypedCommand::Rsync, "rsync over ssh"),
    (TypedCommand::Rcp, "rcp with TLS"),
];

pub(super) fn run(bench: SshFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let SshFixture { options, lab, tools } = bench;
    let cluster = LabCluster::without_daemons(lab, tools, 2, &RATES_MBIT)?;
    let remote = bench.remote()?;
    let hosts = [1, 2].map(|node| (format!("node{node}"), host(node)));
    let mut ssh = remote.ssh(lab, &hosts, true)?;
    for node in 1..=2 {
        ssh.serve(lab, &format!("sshd{node}"), |sshd| cluster.command(node, sshd))?;
    }
    let bench = StripeBench { options, cluster: &cluster, remote: &remote, ssh: &ssh };
    let mut sums = Vec::new();
    let mut moving: [Vec<f64>; ALL.len()] = Default::default();
    let mut whole: [Vec<f64>; ALL.len()] = Default::default();
    for round in 1..=options.rounds {
        book.now(&format!("round {round}: iperf3"));
        sums.push(iperf::together(&cluster, IPERF_SECONDS)?.iter().sum());
        // Whoever comes first finds memory that others have just left: they take turns.
        for turn in 0..ALL.len() {
            let at = (turn + round as usize) % ALL.len();
            let (typed, name) = ALL[at];
            book.now(&format!("round {round}: {name}"));
            match bench.copy(typed, lab, round == 1) {
                Ok((seconds, all)) => {
                    moving[at].extend(seconds);
                    whole[at].push(all);
                }
                Err(error) => book.failed(name, &error),
            }
        }
    }
    let rate = |seconds: Vec<f64>| {
        median(seconds).map_or(0.0, |seconds| options.bytes as f64 * 8e-9 / seconds)
    };
    let sum: f64 = median(sums).unwrap_or_default();
    book.figure("iperf3, one over each NIC", sum, "Gbit/s", "");
    for ((typed, name), (moving, whole)) in ALL.into_iter().zip(moving.into_iter().zip(whole)) {
        book.figure(format!("{name}, whole command"), rate(whole), "Gbit/s", "");
        if matches!(typed, TypedCommand::Ours | TypedCommand::OursRemote) {
            let moving = rate(moving);
            book.ratio(
                format!("{name}, moving / iperf3"),
                moving / sum,
                Threshold::AtLeast(0.97),
                format!("{moving:.2} Gbit/s"),
            );
        }
    }
    Ok(())
}

struct StripeBench<'a> {
    options: &'a SshOptions,
    cluster: &'a LabCluster<'a>,
    remote: &'a RemoteHome,
    ssh: &'a PrivateSsh,
}

impl StripeBench<'_> {
    /// Copies the file once, and returns the seconds of moving, where they are told, and of the
    /// whole command.
    fn copy(
        &self,
        typed: TypedCommand,
        lab: &WorkDir,
        compares: bool,
    ) -> Result<(Option<f64>, f64)> {
        let work = lab.prepare_part(BenchScenario::FileToFile, self.options.bytes)?;
        let files = work.files.as_ref().context("files are moved")?;
        let (source, target) = (files.source.display(), files.destination.display());
        let mut command = self.program(typed)?;
        match typed {
            TypedCommand::Ours | TypedCommand::Scp | TypedCommand::Rsync => {
                command.arg(&files.source)
            }
            TypedCommand::OursRemote | TypedCommand::Rcp => command.arg(format!("node1:{source}")),
        };
        command.arg(format!("node2:{target}"));
        let finished = lab.start("typed", command)?.finish();
        if finished.is_err() {
            lab.discard(&work);
        }
        let finished = finished?;
        lab.clear(&work, compares)?;
        let is_ours = matches!(typed, TypedCommand::Ours | TypedCommand::OursRemote);
        let moving = is_ours.then(|| -> Result<f64> {
            let report: serde_json::Value = serde_json::from_str(finished.output.trim())?;
            ensure!(report["wire"] == "sealed", "{report}");
            report["seconds"].as_f64().context("the report has no seconds")
        });
        Ok((moving.transpose()?, finished.seconds))
    }

    fn program(&self, typed: TypedCommand) -> Result<Command> {
        Ok(match typed {
            TypedCommand::Ours | TypedCommand::OursRemote => {
                let node = if typed == TypedCommand::Ours { 1 } else { 0 };
                let mut command = self.cluster.command(node, &self.remote.program);
                command.args(["copy", "--json", "--progress", "never", "--no-resume", "--ssh"]);
                command.arg(self.ssh.client());
                command
            }
            TypedCommand::Scp => {
                let mut command = self.cluster.command(1, program("scp"));
                command.arg("-q").arg("-S").arg(self.ssh.client());
                command
            }
            TypedCommand::Rsync => {
                let mut command = self.cluster.command(1, program("rsync"));
                command.args(["--whole-file", "--inplace", "-e"]).arg(self.ssh.client());
                command
            }
            TypedCommand::Rcp => {
                let bin = fs::canonicalize(self.options.peers.join("bin"))
                    .context("rcp is not installed (tools/peers)")?;
                let mut command = self.cluster.command(0, bin.join("rcp"));
                command.env("PATH", self.ssh.path()).arg("--rcpd-path").arg(bin.join("rcpd"));
                command
            }
        })
    }
}
