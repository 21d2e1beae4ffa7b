//! Striped `GridFTP` in a lab: a data node in every node, and two front ends, which steer them,
//! beside the client in node 0.

use std::fs;

use anyhow::Result;

use crate::cluster::{LabCluster, host};
use crate::contenders::gridftp::{CLIENT, SERVER};
use crate::contenders::program;
use crate::process::{FinishedProcess, RunningProcess};

const DATA_PORT: u16 = 6000;
/// The front ends of senders and of receivers.
const FRONT_PORTS: [u16; 2] = [5001, 5002];

/// Data nodes that run until it is dropped.
pub(super) struct StripedServers<'a> {
    cluster: &'a LabCluster<'a>,
    _data_nodes: Vec<RunningProcess>,
}

impl<'a> StripedServers<'a> {
    /// A data node in each of the first `nodes` nodes.
    pub(super) fn up(cluster: &'a LabCluster<'a>, nodes: u32) -> Result<StripedServers<'a>> {
        // They look up the names of their own addresses, and end where there are none.
        let names: String = (0..=nodes).map(|node| format!("{} n{node}\n", host(node))).collect();
        fs::write(cluster.lab().path("hosts"), format!("127.0.0.1 localhost\n{names}"))?;
        let mut striped = StripedServers { cluster, _data_nodes: Vec::new() };
        for node in 1..=nodes {
            let server = striped.server(&format!("data-node{node}"), node, DATA_PORT, &["-dn"])?;
            striped._data_nodes.push(server);
        }
        Ok(striped)
    }

    /// Moves bytes that cost nothing from these nodes to those; answers how long the client took.
    pub(super) fn run(&self, senders: &[u32], receivers: &[u32], bytes: u64) -> Result<f64> {
        let contacts = |nodes: &[u32]| {
            let contacts: Vec<String> =
                nodes.iter().map(|&node| format!("{}:{DATA_PORT}", host(node))).collect();
            contacts.join(",")
        };
        let _front_ends = [
            self.server("front-senders", 0, FRONT_PORTS[0], &["-r", &contacts(senders)])?,
            self.server("front-receivers", 0, FRONT_PORTS[1], &["-r", &contacts(receivers)])?,
        ];
        let [source, destination] = [(FRONT_PORTS[0], "/dev/zero"), (FRONT_PORTS[1], "/dev/null")]
            .map(|(port, path)| format!("ftp://{}:{port}{path}", host(0)));
        let FinishedProcess { seconds, .. } = self
            .start(
                "striped-client",
                0,
                &[CLIENT, "-stripe", "-len", &bytes.to_string(), &source, &destination],
            )?
            .finish()?;
        Ok(seconds)
    }

    fn server(&self, name: &str, node: u32, port: u16, options: &[&str]) -> Result<RunningProcess> {
        let (address, port_text) = (host(node), port.to_string());
        let server = program(SERVER);
        let server = server.to_string_lossy();
        let common = [
            &*server,
            "-p",
            &port_text,
            "-control-interface",
            &address,
            "-data-interface",
            &address,
            "-aa",
            "-anonymous-user",
            "root",
            "-allow-root",
            "-ipc-allow-from",
            "0.0.0.0/0",
            // Blocks in turn to each stripe.
            "-sl",
            "2",
        ];
        let server = self.start(name, node, &[&common, options].concat())?;
        server.until_listening_inside(port)?;
        Ok(server)
    }

    /// Starts a program in a node, which finds the lab's names in its own `/etc/hosts`: every `ip
    /// netns exec` has mounts of its own.
    fn start(&self, name: &str, node: u32, arguments: &[&str]) -> Result<RunningProcess> {
        let mut command = self.cluster.command(node, "sh");
        command
            .args(["-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
            .arg(self.cluster.lab().path("hosts"));
        command.args(["env", &format!("GLOBUS_HOSTNAME={}", host(node))]).args(arguments);
        self.cluster.lab().start(name, command)
    }
}
