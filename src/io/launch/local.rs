//! Nodes as child processes on this machine.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::child::{self, ChildWords, StartedChild, pass_on};
use super::config::{LAUNCHED, LaunchConfig};
use crate::core::error::{Code, Error, Result};
use crate::core::node::ready_line;
use crate::core::spec::NodeAddress;
use crate::io::clock::{awake, wait_until};

/// Time for a child to report that it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A node that was started here and may not listen yet.
pub(super) struct LocalNode {
    pub(super) child: Child,
    /// Held open: a launched node ends when this closes.
    pub(super) stdin: ChildStdin,
    said: Receiver<String>,
    deadline: Instant,
}

/// Starts a node that listens at `address`, on a CPU of its own if one is named.
pub(super) fn start(
    host: &NodeAddress,
    address: SocketAddr,
    cpu: Option<usize>,
    config: &LaunchConfig<'_>,
) -> Result<LocalNode> {
    let mut command = Command::new(config.program()?);
    command.env(LAUNCHED, "1").args(["node", "--launched", "--listen"]).arg(address.to_string());
    command.args(config.node_arguments());
    if let Some(cpu) = cpu {
        command.arg("--pin").arg(cpu.to_string());
    }
    let failed = |error: std::io::Error| {
        Error::new(Code::Unreachable, format!("{host}: cannot start a node: {error}"))
    };
    let StartedChild { mut child, mut stdin, output } = child::start(command).map_err(failed)?;
    // A child that has ended already is noticed by its missing first line.
    let _ = writeln!(stdin, "{}", config.secret);
    let (sender, said) = channel();
    let listen = move || {
        let mut lines = child::lines(output);
        for line in lines.by_ref() {
            let is_ready = ready_line::parse(&line).is_some();
            // The launcher may have stopped waiting.
            let _ = sender.send(line);
            if is_ready {
                break;
            }
        }
        drop(sender);
        // Later output of a node is for people. It is always read, so that the node never waits for
        // a full pipe.
        lines.for_each(|line| pass_on(&line, None));
    };
    if let Err(error) = thread::Builder::new().name("node's words".into()).spawn(listen) {
        // It listens at most, and serves no transfer yet.
        let _ = child.kill().and_then(|()| child.wait());
        return Err(failed(error));
    }
    Ok(LocalNode { child, stdin, said, deadline: awake() + READY_WITHIN })
}

impl LocalNode {
    /// Waits until it reports its address. Earlier output is printed if it succeeds, and is the
    /// error if it ends.
    pub(super) fn listening(&mut self) -> Result<SocketAddr> {
        let mut words = ChildWords::default();
        loop {
            let next = |wait| match self.said.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => None,
                heard => Some(heard),
            };
            match wait_until(self.deadline, next).unwrap_or(Err(RecvTimeoutError::Timeout)) {
                Ok(line) => match ready_line::parse(&line) {
                    Some(address) => {
                        words.lines().iter().for_each(|line| pass_on(line, None));
                        return address.map_err(|_| {
                            Error::new(
                                Code::Internal,
                                format!("the node said {line:?} instead of its address"),
                            )
                            .remedy("name the cep-fast program of this version")
                        });
                    }
                    None => words.keep(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::new(
                        Code::Unreachable,
                        "the node did not come to listen in time",
                    )
                    .remedy("try again when this machine is less busy"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // Its end of the pipe is closed: it has ended, or is about to.
                    child::end(std::slice::from_mut(&mut self.child), self.deadline);
                    let status = self.child.try_wait().ok().flatten();
                    return Err(words.error(status.and_then(|status| status.code())));
                }
            }
        }
    }
}

/// Returns the local address from which the kernel would dial `remote`. Nothing is sent.
///
/// # Errors
/// `Unreachable` where there is no route.
pub(crate) fn address_towards(remote: SocketAddr) -> Result<IpAddr> {
    let any: IpAddr = if remote.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let own = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(remote)?;
        socket.local_addr()
    });
    own.map(|own| own.ip()).map_err(|error| {
        Error::new(Code::Unreachable, format!("no way from here to {remote}: {error}"))
            .remedy("look at `ip route`")
    })
}

/// Returns a random address in 127/8, so that simultaneous transfers do not collide.
pub(super) fn random_base() -> Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("no randomness: {error}")))?;
    Ok(u32::from_le_bytes(bytes))
}

/// Returns address `index` after `base`: in 127.16.0.0 to 127.255.255.255, never one that ends in 0
/// or 255.
pub(super) fn loopback(base: u32, index: usize) -> IpAddr {
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
            let addresses: BTreeSet<IpAddr> =
                (0..1000).map(|index| loopback(base, index)).collect();
            assert_eq!(addresses.len(), 1000);
            assert!(addresses.iter().all(IpAddr::is_loopback));
        }
    }

    #[test]
    fn a_loopback_address_is_reached_from_loopback() {
        let there = SocketAddr::from(([127, 1, 2, 3], 9));
        assert!(address_towards(there).is_ok_and(|own| own.is_loopback()));
    }
}
