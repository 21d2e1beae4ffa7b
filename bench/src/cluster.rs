//! A cluster of network namespaces (`tools/netlab`) with the program's daemon in each node; the
//! master runs in node 0, or in the receiver of a path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use netlab::{LabScript, NetworkLab, PathRelay, PathShape};
use serde_json::Value;

use crate::lab::WorkDir;
use crate::process::{self, EndedProcess, RunningProcess};

/// The port of every daemon.
const PORT: u16 = 7000;
/// Prefix of the labs' names.
const NAME_PREFIX: &str = "bench";

/// Programs for a cluster.
pub(crate) struct LabTools {
    pub(crate) netlab: LabScript,
    pub(crate) cep_fast: PathBuf,
}

impl LabTools {
    /// Returns the reason why no cluster can be created here, if any.
    ///
    /// # Errors
    /// A program is missing.
    pub(crate) fn forbidden(&self) -> Result<Option<String>> {
        ensure!(self.cep_fast.is_file(), "no {} (cargo build --release)", self.cep_fast.display());
        self.netlab.obstacle().context("name the script with --netlab")
    }
}

/// A cluster that is removed on drop, with all its processes.
pub(crate) struct LabCluster<'a> {
    lab: &'a WorkDir,
    tools: &'a LabTools,
    /// The path between nodes 1 and 2, if it is not the lab's links.
    relay: Option<PathRelay>,
    network: NetworkLab,
    nodes: u32,
    /// Rate of each NIC of a node; where nodes differ, the fastest one's.
    rates_mbit: Vec<u32>,
    /// Daemons; that of node i is at i − 1.
    daemons: Vec<RunningProcess>,
}

impl<'a> LabCluster<'a> {
    /// Creates nodes 1 to `nodes`, each with a NIC of each of these rates and a daemon that serves
    /// the working folder.
    pub(crate) fn up(
        lab: &'a WorkDir,
        tools: &'a LabTools,
        nodes: u32,
        rates_mbit: &[u32],
    ) -> Result<LabCluster<'a>> {
        LabCluster::lay_out(lab, tools, nodes, rates_mbit.to_vec(), &["--rates", &mbit(rates_mbit)])
    }

    /// Like [`LabCluster::up`], without daemons: something else starts the nodes' processes.
    pub(crate) fn without_daemons(
        lab: &'a WorkDir,
        tools: &'a LabTools,
        nodes: u32,
        rates_mbit: &[u32],
    ) -> Result<LabCluster<'a>> {
        let (count, rates) = (nodes.to_string(), mbit(rates_mbit));
        let network = tools.netlab.up(NAME_PREFIX, &["--nodes", &count, "--rates", &rates])?;
        let rates_mbit = rates_mbit.to_vec();
        Ok(LabCluster { lab, tools, relay: None, network, nodes, rates_mbit, daemons: Vec::new() })
    }

    /// Creates a node for each of these rates, with one NIC of that rate.
    pub(crate) fn of_nodes(
        lab: &'a WorkDir,
        tools: &'a LabTools,
        node_rates_mbit: &[u32],
    ) -> Result<LabCluster<'a>> {
        let nodes = u32::try_from(node_rates_mbit.len()).context("that many nodes do not fit")?;
        let fastest = node_rates_mbit.iter().max().copied().unwrap_or_default();
        LabCluster::lay_out(
            lab,
            tools,
            nodes,
            vec![fastest],
            &["--node-rates", &mbit(node_rates_mbit)],
        )
    }

    /// Creates two nodes with a path of this shape between them, and gives their connections the
    /// congestion control of this name.
    pub(crate) fn over_path(
        lab: &'a WorkDir,
        tools: &'a LabTools,
        shape: PathShape,
        congestion: &str,
    ) -> Result<LabCluster<'a>> {
        let network = tools.netlab.up(NAME_PREFIX, &["--nodes", "2", "--rate", "1gbit"])?;
        let relay = PathRelay::start(&network, shape)?;
        // The sysctl accepts only names that the whole machine permits to everybody.
        let subnet = "10.200.0.0/24 dev eth0";
        for node in 1..=2 {
            let route = format!("ip route change {subnet} src {} congctl {congestion}", host(node));
            network.shell(node, &route)?;
        }
        let mut cluster = LabCluster {
            lab,
            tools,
            relay: Some(relay),
            network,
            nodes: 2,
            rates_mbit: vec![shape.rate_mbit],
            daemons: Vec::new(),
        };
        cluster.make_key()?;
        cluster.restart()?;
        Ok(cluster)
    }

    fn lay_out(
        lab: &'a WorkDir,
        tools: &'a LabTools,
        nodes: u32,
        rates_mbit: Vec<u32>,
        rates: &[&str],
    ) -> Result<LabCluster<'a>> {
        let count = nodes.to_string();
        let network = tools.netlab.up(NAME_PREFIX, &[&["--nodes", &count], rates].concat())?;
        let mut cluster =
            LabCluster { lab, tools, relay: None, network, nodes, rates_mbit, daemons: Vec::new() };
        cluster.make_key()?;
        cluster.restart()?;
        Ok(cluster)
    }

    fn make_key(&self) -> Result<()> {
        if !self.lab.path("key").exists() {
            let mut keygen = process::command(&self.tools.cep_fast);
            keygen.arg("keygen").arg(self.lab.path("key"));
            self.lab.start("keygen", keygen)?.finish()?;
        }
        Ok(())
    }

    /// Ends the daemons and starts new ones.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.daemons.clear();
        for node in 1..=self.nodes {
            let mut command = self.command(node, &self.tools.cep_fast);
            command.args(["node", "--listen", &address(node), "--root"]).arg(self.lab.path(""));
            command.arg("--key-file").arg(self.lab.path("key"));
            let daemon = self.lab.start(&format!("node{node}"), command)?;
            daemon.until_ready()?;
            self.daemons.push(daemon);
        }
        Ok(())
    }

    pub(crate) fn lab(&self) -> &WorkDir {
        self.lab
    }

    pub(crate) fn network(&self) -> &NetworkLab {
        &self.network
    }

    pub(crate) fn rates_mbit(&self) -> &[u32] {
        &self.rates_mbit
    }

    /// Returns the daemon of a node.
    pub(crate) fn daemon(&self, node: u32) -> &RunningProcess {
        &self.daemons[node as usize - 1]
    }

    /// Returns a command that runs inside a node.
    pub(crate) fn command(&self, node: u32, program: impl AsRef<Path>) -> Command {
        process::owned(&self.network.command(node, program.as_ref()))
    }

    /// Starts a transfer of the program, with its master in node 0. `name` is the unique name of
    /// its files and processes.
    pub(crate) fn start(&self, name: &str, rows: &str) -> Result<RunningProcess> {
        self.start_with(name, rows, &[])
    }

    /// Starts a transfer with further options of `run`.
    pub(crate) fn start_with(
        &self,
        name: &str,
        rows: &str,
        options: &[&str],
    ) -> Result<RunningProcess> {
        self.begin(name, rows, &[&["--no-resume"], options].concat())
    }

    /// Starts a transfer that records what has landed, as transfers do by default.
    pub(crate) fn start_kept(&self, name: &str, rows: &str) -> Result<RunningProcess> {
        self.begin(name, rows, &[])
    }

    fn begin(&self, name: &str, rows: &str, options: &[&str]) -> Result<RunningProcess> {
        let spec = self.lab.path(&format!("{name}.spec"));
        fs::write(&spec, format!("id \"{name}\"\n{rows}"))?;
        // A path has two ends, and the receiver's is one.
        let master = if self.relay.is_some() { 2 } else { 0 };
        let mut command = self.command(master, &self.tools.cep_fast);
        command.args(["run", "--json", "--progress", "never", "--overwrite", "--key-file"]);
        command.arg(self.lab.path("key")).args(options).arg(spec);
        self.lab.start(name, command)
    }

    /// Runs `netlab fault`; `fault` are the arguments after the NIC.
    pub(crate) fn fault(&self, node: u32, nic: usize, fault: &[&str]) -> Result<()> {
        Ok(self.network.fault(node, nic, fault)?)
    }

    /// Returns the bytes that each NIC of a node has received so far.
    pub(crate) fn received(&self, node: u32) -> Result<Vec<u64>> {
        // Each process of the node sees the node's own table; the daemon is one.
        let table = format!("/proc/{}/net/dev", self.daemon(node).id());
        let table = fs::read_to_string(&table)
            .with_context(|| format!("no {table}: the daemon is gone"))?;
        (0..self.rates_mbit.len()).map(|nic| received(&table, nic)).collect()
    }
}

impl Drop for LabCluster<'_> {
    /// The network goes after its processes.
    fn drop(&mut self) {
        self.daemons.clear();
    }
}

/// Returns the address of a node's daemon, in the form of rows and `--listen`.
pub(crate) fn address(node: u32) -> String {
    format!("{}:{PORT}", host(node))
}

/// Returns the address of a node's first NIC.
pub(crate) fn host(node: u32) -> String {
    netlab::address(node, 0).to_string()
}

/// Formats rates for netlab.
fn mbit(rates_mbit: &[u32]) -> String {
    rates_mbit.iter().map(|rate| format!("{rate}mbit")).collect::<Vec<_>>().join(",")
}

/// Result of a completed transfer.
pub(crate) struct CompletedTransfer {
    pub(crate) seconds: f64,
    pub(crate) gbit_per_s: f64,
    /// Whole object of `--json`.
    pub(crate) report: Value,
}

impl CompletedTransfer {
    /// Creates the result of a transfer that has ended.
    ///
    /// # Errors
    /// It did not complete, or not with `bytes` bytes.
    pub(crate) fn of(ended: &EndedProcess, bytes: u64) -> Result<CompletedTransfer> {
        let report = report(ended)?;
        let state = report["state"].as_str().unwrap_or_default();
        let message = report["error"]["message"].as_str().unwrap_or_default();
        ensure!(
            state == "complete" && ended.status.success(),
            "the transfer {state} ({}): {message}",
            ended.status
        );
        ensure!(report["bytes"] == bytes, "{} bytes moved of {bytes}", report["bytes"]);
        let seconds = report["seconds"].as_f64().context("the report has no seconds")?;
        Ok(CompletedTransfer { seconds, gbit_per_s: bytes as f64 * 8e-9 / seconds, report })
    }

    /// Returns the processor time of all nodes.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let nodes = self.report["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        nodes.iter().filter_map(|node| node["cpu_seconds"].as_f64()).sum()
    }

    /// Returns its cost besides time.
    pub(crate) fn cost(&self) -> String {
        let mebibytes =
            |name: &str| self.report[name].as_f64().unwrap_or_default() / f64::from(1 << 20);
        let gibibytes = mebibytes("bytes") / 1024.0;
        format!(
            "wasted {:.0} MiB, stolen {:.0} MiB, {} retries, {:.2} CPU s/GiB",
            mebibytes("wasted_bytes"),
            mebibytes("stolen_bytes"),
            self.report["retries"],
            self.cpu_seconds() / gibibytes
        )
    }
}

/// Returns the JSON object of a transfer, of any outcome.
pub(crate) fn report(ended: &EndedProcess) -> Result<Value> {
    let line = ended.output.lines().last();
    let line = line.with_context(|| {
        format!("cep-fast ended with {} and no report{}", ended.status, ended.complaint)
    })?;
    serde_json::from_str(line).with_context(|| format!("cep-fast's report reads {line:?}"))
}

/// Returns the bytes that NIC `nic` has received, from a table like `/proc/net/dev`.
fn received(table: &str, nic: usize) -> Result<u64> {
    let name = format!("eth{nic}:");
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(&name));
    let count =
        line.and_then(|line| line.split_whitespace().next()).and_then(|count| count.parse().ok());
    count.with_context(|| format!("no eth{nic} in /proc/net/dev"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn a_nic_is_found_by_its_whole_name() {
        let table = "Inter-|   Receive\n face |bytes packets\n    lo: 1 1\n eth10: 7 1 0\n  eth1: \
                     42 3 0 0\n";
        assert_eq!(received(table, 1).unwrap(), 42);
        assert_eq!(received(table, 10).unwrap(), 7);
        assert!(received(table, 0).is_err());
    }

    #[test]
    fn only_a_complete_report_of_all_bytes_counts() {
        let ended = |code: i32, state: &str| EndedProcess {
            status: ExitStatus::from_raw(code << 8),
            output: format!(
                "{{\"state\":\"{state}\",\"bytes\":1000000000,\"seconds\":2.0,\
                 \"error\":{{\"message\":\"gone\"}}}}\n"
            ),
            complaint: String::new(),
            seconds: 3.0,
        };
        let good = CompletedTransfer::of(&ended(0, "complete"), 1_000_000_000).unwrap();
        assert!((good.gbit_per_s - 4.0).abs() < 1e-9);
        assert!(CompletedTransfer::of(&ended(0, "complete"), 8).is_err());
        let error =
            CompletedTransfer::of(&ended(3, "failed"), 1_000_000_000).err().unwrap().to_string();
        assert!(error.contains("failed") && error.contains("gone"), "{error}");
    }
}
