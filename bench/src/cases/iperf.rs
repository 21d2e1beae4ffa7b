//! Rates of a cluster's links: iperf3 over each NIC at the same time, and over all of them as one
//! MPTCP connection.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use netlab::address;
use serde_json::Value;

use crate::cluster::LabCluster;
use crate::process::{self, RunningProcess};

const SENDER: u32 = 1;
const RECEIVER: u32 = 2;
/// Servers on different addresses may have the same port.
const PORT: &str = "5201";

/// Amount that a client sends.
#[derive(Clone, Copy)]
pub(super) enum IperfLoad {
    /// iperf3 only accepts whole seconds.
    Seconds(f64),
    Bytes(u64),
}

/// A client that sends to its server.
pub(super) struct IperfPair {
    server: RunningProcess,
    client: RunningProcess,
}

impl IperfPair {
    /// Starts both on NIC `nic` of sender and receiver.
    pub(super) fn start(cluster: &LabCluster, nic: usize, amount: IperfLoad) -> Result<IperfPair> {
        let server = server(cluster, nic, &[])?;
        Ok(IperfPair { client: client(cluster, nic, &[], amount, 1)?, server })
    }

    /// Returns the client.
    pub(super) fn client(&self) -> &RunningProcess {
        &self.client
    }

    /// Returns the Gbit/s that arrived, after the end. A server whose client failed is not waited
    /// for: the client may never have connected.
    pub(super) fn rate(self) -> Result<f64> {
        let rate = rate(self.client)?;
        self.server.finish()?;
        Ok(rate)
    }
}

/// Returns the Gbit/s of each NIC while all are busy, each with its own iperf3.
pub(crate) fn together(cluster: &LabCluster, seconds: f64) -> Result<Vec<f64>> {
    let nics = 0..cluster.rates_mbit().len();
    let pairs = nics.map(|nic| IperfPair::start(cluster, nic, IperfLoad::Seconds(seconds)));
    let pairs: Vec<IperfPair> = pairs.collect::<Result<_>>()?;
    pairs.into_iter().map(IperfPair::rate).collect()
}

/// Returns the Gbit/s of so many `connections` together over NIC 0.
pub(super) fn parallel(cluster: &LabCluster, amount: IperfLoad, connections: u32) -> Result<f64> {
    let server = server(cluster, 0, &[])?;
    let client = client(cluster, 0, &[], amount, connections)?;
    IperfPair { server, client }.rate()
}

/// Returns the Gbit/s of one MPTCP connection over all NICs.
pub(super) fn mptcp(cluster: &LabCluster, seconds: f64) -> Result<f64> {
    ensure!(process::find("mptcpize").is_some(), "mptcpize is not installed (tools/peers)");
    for node in [SENDER, RECEIVER] {
        inside(
            cluster,
            node,
            "echo 1 > /proc/sys/net/mptcp/enabled; ip mptcp limits set subflows 8 \
             add_addr_accepted 8",
        )?;
    }
    for nic in 1..cluster.rates_mbit().len() {
        let endpoint =
            format!("ip mptcp endpoint add {} dev eth{nic} signal", address(RECEIVER, nic));
        inside(cluster, RECEIVER, &endpoint)?;
    }
    let server = server(cluster, 0, &["mptcpize", "run"])?;
    let rate = rate(client(cluster, 0, &["mptcpize", "run"], IperfLoad::Seconds(seconds), 1)?);
    server.finish()?;
    inside(cluster, RECEIVER, "ip mptcp endpoint flush")?;
    rate
}

fn server(cluster: &LabCluster, nic: usize, wrapper: &[&str]) -> Result<RunningProcess> {
    let mut command = iperf(cluster, RECEIVER, wrapper);
    command.args(["-s", "-1", "--forceflush", "-p", PORT]);
    // Further connections of MPTCP come to the other addresses.
    if wrapper.is_empty() {
        command.args(["-B", &address(RECEIVER, nic).to_string()]);
    }
    let server = cluster.lab().start(&format!("iperf3-server{nic}"), command)?;
    server.until_says("listening")?;
    Ok(server)
}

fn client(
    cluster: &LabCluster,
    nic: usize,
    wrapper: &[&str],
    amount: IperfLoad,
    connections: u32,
) -> Result<RunningProcess> {
    let mut command = iperf(cluster, SENDER, wrapper);
    command.args([
        "-c",
        &address(RECEIVER, nic).to_string(),
        "-B",
        &address(SENDER, nic).to_string(),
        "-p",
        PORT,
        "-l",
        "1M",
        "-J",
        "-P",
        &connections.to_string(),
    ]);
    match amount {
        IperfLoad::Seconds(seconds) => command.args(["-t", &seconds.round().to_string()]),
        IperfLoad::Bytes(bytes) => command.args(["-n", &bytes.to_string()]),
    };
    cluster.lab().start(&format!("iperf3-client{nic}"), command)
}

fn iperf(cluster: &LabCluster, node: u32, wrapper: &[&str]) -> Command {
    let (first, rest) = wrapper.split_first().unwrap_or((&"iperf3", &[]));
    let mut command = cluster.command(node, first);
    command.args(rest);
    if !wrapper.is_empty() {
        command.arg("iperf3");
    }
    command
}

fn rate(client: RunningProcess) -> Result<f64> {
    let report: Value =
        serde_json::from_str(&client.finish()?.output).context("iperf3 printed no JSON")?;
    let rate = report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .context("iperf3 reports no rate")?;
    Ok(rate / 1e9)
}

/// Runs a script in a node, to its successful end.
pub(super) fn inside(cluster: &LabCluster, node: u32, script: &str) -> Result<()> {
    let mut shell = cluster.command(node, "sh");
    shell.args(["-c", script]);
    cluster.lab().start("shell", shell)?.finish()?;
    Ok(())
}
