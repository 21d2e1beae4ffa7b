//! `--launch local`: every host of a specification is a child process of its own on this machine, with a loopback
//! address of its own and the port that the specification gives it. The bytes still cross real sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::{awake, wait_until};
use crate::error::{Code, Error, Result};
use crate::log;
use crate::node::READY;
use crate::spec::Address;

/// How long a child may take to say that it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long children may take to end once they are asked to.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What launched nodes are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders<'a> {
    /// The program that is a node; this one where none is given.
    pub(crate) program: Option<&'a Path>,
    /// The directory that the nodes serve and write below.
    pub(crate) root: &'a Path,
    /// The key of this transfer's control sessions, as hex digits; it goes over standard input, never the command line.
    pub(crate) secret: &'a str,
    pub(crate) slots: Option<u32>,
}

/// Child processes that are nodes. Dropping it ends them.
pub(crate) struct Launched {
    nodes: Vec<Node>,
}

struct Node {
    child: Child,
    /// Held open: a launched node ends when this closes and no master is left.
    _stdin: ChildStdin,
    address: SocketAddr,
}

impl Launched {
    /// Where each node listens, in the order that the hosts were given in.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.nodes.iter().map(|node| node.address)
    }
}

/// Starts a child for each of `hosts`.
///
/// # Errors
/// `Code::Unreachable` where a child does not come to listen, with what it said.
pub(crate) fn local(hosts: &[Address], orders: Orders<'_>) -> Result<Launched> {
    let cpus = affinity::cpus_allowed().unwrap_or_default();
    let mut launched = Launched { nodes: Vec::with_capacity(hosts.len()) };
    let base = random_base()?;
    let mut said = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.iter().enumerate() {
        let address = SocketAddr::new(loopback(base, index), host.port);
        let mut command = command(address, orders)?;
        if !cpus.is_empty() {
            command.arg("--pin").arg(cpus[index % cpus.len()].to_string());
        }
        let (node, ready) = spawn(command, host, address, orders.secret)?;
        launched.nodes.push(node);
        said.push(ready);
    }
    let deadline = awake() + READY_WITHIN;
    for ((node, ready), host) in launched.nodes.iter_mut().zip(said).zip(hosts) {
        node.address = listening(&ready, deadline).map_err(|error| error.at(host))?;
    }
    Ok(launched)
}

/// Starts one child that listens at `address`, and uses every NIC that leads out of this machine unless that is loopback.
///
/// # Errors
/// As for [`local`].
pub(crate) fn here(address: SocketAddr, orders: Orders<'_>) -> Result<Launched> {
    let host = Address { host: address.ip().to_string(), port: address.port() };
    let (node, ready) = spawn(command(address, orders)?, &host, address, orders.secret)?;
    let mut launched = Launched { nodes: vec![node] };
    launched.nodes[0].address = listening(&ready, awake() + READY_WITHIN).map_err(|error| error.at(&host))?;
    Ok(launched)
}

/// What starts a node that listens at `address`.
fn command(address: SocketAddr, orders: Orders<'_>) -> Result<Command> {
    let itself = || {
        std::env::current_exe()
            .map_err(|error| Error::new(Code::Internal, format!("this program cannot find itself: {error}")))
    };
    let mut command = Command::new(orders.program.map_or_else(itself, |program| Ok(program.to_path_buf()))?);
    command.args(["node", "--launched", "--listen"]).arg(address.to_string()).arg("--root").arg(orders.root);
    command.args(log::node_arguments());
    if let Some(slots) = orders.slots {
        command.arg("--slots").arg(slots.to_string());
    }
    Ok(command)
}

/// Starts one child and hands it the secret. Its first line will come through the channel.
fn spawn(mut command: Command, host: &Address, address: SocketAddr, secret: &str) -> Result<(Node, Receiver<String>)> {
    let failed = |error: std::io::Error| Error::new(Code::Unreachable, format!("{host}: cannot start a node: {error}"));
    // A group of its own: a Ctrl-C is for the master, which then lets the nodes clean up.
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
    let mut child = child.map_err(failed)?;
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let stdout = child.stdout.take().expect("stdout is a pipe");
    // A child that is gone already is noticed by its missing first line, which says why.
    let _ = writeln!(stdin, "{secret}");
    let (sender, ready) = channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        if let Some(Ok(line)) = lines.next() {
            // The launcher may have given up; then nobody reads this.
            let _ = sender.send(line);
        }
        // Whatever else the child prints is read, so that it never waits for a full pipe.
        lines.for_each(drop);
    });
    Ok((Node { child, _stdin: stdin, address }, ready))
}

/// Waits for a child's first line.
fn listening(ready: &Receiver<String>, deadline: Instant) -> Result<SocketAddr> {
    let heard = |wait| match ready.recv_timeout(wait) {
        Err(RecvTimeoutError::Timeout) => None,
        heard => Some(heard),
    };
    match wait_until(deadline, heard).unwrap_or(Err(RecvTimeoutError::Timeout)) {
        Ok(line) => line
            .strip_prefix(READY)
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| Error::new(Code::Internal, format!("the node said {line:?} instead of its address"))),
        Err(RecvTimeoutError::Timeout) => Err(Error::new(Code::Unreachable, "the node did not come to listen in time")),
        Err(RecvTimeoutError::Disconnected) => {
            Err(Error::new(Code::Unreachable, "the node ended before it listened; its own message is above"))
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        for node in &self.nodes {
            let pid = Pid::from_raw(i32::try_from(node.child.id()).expect("process ids fit 31 bits"));
            // Not yet waited for, so the id is still ours; a child that has ended takes no harm.
            let _ = kill(pid, Signal::SIGTERM);
        }
        let deadline = awake() + END_WITHIN;
        for node in self.nodes.drain(..) {
            end(node.child, deadline);
        }
    }
}

/// Waits for a child until `deadline`, then kills it.
fn end(mut child: Child, deadline: Instant) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit 31 bits"));
    let (ended, wait) = channel();
    let waiter = thread::spawn(move || {
        // Whatever the child says at its end, nobody asks any more.
        let _ = child.wait();
        let _ = ended.send(());
    });
    let is_over = |left| (wait.recv_timeout(left) != Err(RecvTimeoutError::Timeout)).then_some(());
    if wait_until(deadline, is_over).is_none() {
        let _ = kill(pid, Signal::SIGKILL);
    }
    // After a SIGKILL the wait ends.
    let _ = waiter.join();
}

/// A random place in 127/8, so that transfers that run at the same time do not meet.
fn random_base() -> Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| Error::new(Code::Internal, format!("no randomness: {error}")))?;
    Ok(u32::from_le_bytes(bytes))
}

/// Address `index` behind `base`: in 127.16.0.0 to 127.255.255.255, never one that ends in 0 or 255.
fn loopback(base: u32, index: usize) -> IpAddr {
    let hosts = 240 * 256 * 254;
    let place = (u64::from(base) + index as u64) % hosts;
    let (high, low) = (place / 254, place % 254);
    IpAddr::V4(Ipv4Addr::new(127, 16 + (high / 256) as u8, (high % 256) as u8, 1 + low as u8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_node_has_a_loopback_address_of_its_own() {
        for base in [0, 12_345, u32::MAX] {
            let addresses: BTreeSet<IpAddr> = (0..1000).map(|index| loopback(base, index)).collect();
            assert_eq!(addresses.len(), 1000);
            assert!(addresses.iter().all(IpAddr::is_loopback));
        }
    }
}
