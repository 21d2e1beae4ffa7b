//! `--launch local`: every host of a specification is a child process on this machine, with its own
//! loopback address and the port of the specification. Bytes still cross real sockets.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::core::error::{Code, Error, Result};
use crate::core::node::ready_line;
use crate::core::spec::NodeAddress;
use crate::core::units::{printable, printable_json};
use crate::io::clock::{awake, wait_until};
use crate::io::log;

/// Time for a child to report that it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Time for children to end once they are asked to.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Parameters of launched nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaunchConfig<'a> {
    /// The `cep-fast` program.
    pub(crate) program: &'a Path,
    /// Root directory of the nodes.
    pub(crate) root: &'a Path,
    /// Key of this transfer's control sessions in hex digits; it is passed on standard input, never
    /// on the command line.
    pub(crate) secret: &'a str,
    pub(crate) slots: Option<u32>,
}

/// Child processes that are nodes. They end on drop.
pub(crate) struct LaunchedNodes {
    nodes: Vec<LaunchedNode>,
}

struct LaunchedNode {
    child: Child,
    /// Held open: a launched node ends when this closes and it has no master.
    _stdin: ChildStdin,
    address: SocketAddr,
}

impl LaunchedNodes {
    /// Returns the address of each node, in the order of the hosts.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.nodes.iter().map(|node| node.address)
    }
}

/// Mark of a process that was started as a node, and of its children. Such a process starts no
/// nodes: a wrong program that starts nodes would start itself forever.
const LAUNCHED: &str = "CEP_FAST_LAUNCHED";

/// Starts a child for each of `hosts`.
///
/// # Errors
/// `Code::Unreachable` if a child does not listen in time, with its output; `Code::Usage` in a
/// process that was started as a node itself.
pub(crate) fn local(
    hosts: &[NodeAddress],
    launch_config: LaunchConfig<'_>,
) -> Result<LaunchedNodes> {
    check_program(std::env::var_os(LAUNCHED).is_some(), launch_config.program)?;
    let cpus = affinity::cpus_allowed().unwrap_or_default();
    let mut launched = LaunchedNodes { nodes: Vec::with_capacity(hosts.len()) };
    let base = random_base()?;
    let mut said = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.iter().enumerate() {
        let address = SocketAddr::new(loopback(base, index), host.port);
        let mut command = command(address, launch_config);
        if !cpus.is_empty() {
            command.arg("--pin").arg(cpus[index % cpus.len()].to_string());
        }
        let (node, ready) = spawn(command, host, address, launch_config.secret)?;
        launched.nodes.push(node);
        said.push(ready);
    }
    let deadline = awake() + READY_WITHIN;
    for ((node, ready), host) in launched.nodes.iter_mut().zip(said).zip(hosts) {
        node.address =
            listening(&mut node.child, &ready, deadline).map_err(|error| error.at(host))?;
    }
    Ok(launched)
}

/// Starts one child that listens at `address`. It uses every NIC that leads out of this machine,
/// unless the address is loopback.
///
/// # Errors
/// See [`local`].
pub(crate) fn here(address: SocketAddr, launch_config: LaunchConfig<'_>) -> Result<LaunchedNodes> {
    check_program(std::env::var_os(LAUNCHED).is_some(), launch_config.program)?;
    let host = NodeAddress { host: address.ip().to_string(), port: address.port() };
    let (node, ready) =
        spawn(command(address, launch_config), &host, address, launch_config.secret)?;
    let mut launched = LaunchedNodes { nodes: vec![node] };
    let deadline = awake() + READY_WITHIN;
    let address = listening(&mut launched.nodes[0].child, &ready, deadline)
        .map_err(|error| error.at(&host))?;
    launched.nodes[0].address = address;
    Ok(launched)
}

fn check_program(was_launched: bool, program: &Path) -> Result<()> {
    if !was_launched {
        return Ok(());
    }
    let what = format!(
        "this process was started as a node, and would start {} as more of them",
        program.display()
    );
    Err(Error::new(Code::Usage, what)
        .remedy(format!("name the cep-fast program in Settings::program, or unset {LAUNCHED}")))
}

/// Returns the command that starts a node at `address`.
fn command(address: SocketAddr, launch_config: LaunchConfig<'_>) -> Command {
    let mut command = Command::new(launch_config.program);
    command.env(LAUNCHED, "1");
    command
        .args(["node", "--launched", "--listen"])
        .arg(address.to_string())
        .arg("--root")
        .arg(launch_config.root);
    command.args(log::node_arguments());
    if let Some(slots) = launch_config.slots {
        command.arg("--slots").arg(slots.to_string());
    }
    command
}

/// Starts one child and passes it the secret. Its output until it listens comes through the
/// channel.
fn spawn(
    mut command: Command,
    host: &NodeAddress,
    address: SocketAddr,
    secret: &str,
) -> Result<(LaunchedNode, Receiver<String>)> {
    let failed = |error: io::Error| {
        Error::new(Code::Unreachable, format!("{host}: cannot start a node: {error}"))
    };
    let (said, its_end) = io::pipe().map_err(failed)?;
    command.stdin(Stdio::piped()).stdout(its_end.try_clone().map_err(failed)?).stderr(its_end);
    // A process group of its own: a Ctrl-C is for the master, which then lets the nodes clean up.
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    // It holds this side's copies of the child's end, which would keep the pipe open.
    drop(command);
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // A child that has ended already is noticed by its missing first line.
    let _ = writeln!(stdin, "{secret}");
    let (sender, heard) = channel();
    let listen = move || {
        let mut lines = BufReader::new(said).split(b'\n').map_while(io::Result::ok);
        for line in lines.by_ref() {
            let line = String::from_utf8_lossy(&line).into_owned();
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
        lines.for_each(|line| pass_on(&String::from_utf8_lossy(&line)));
    };
    let mut node = LaunchedNode { child, _stdin: stdin, address };
    match thread::Builder::new().name("node's words".into()).spawn(listen) {
        Ok(_) => Ok((node, heard)),
        Err(error) => {
            // It listens at most, and serves no transfer yet.
            let _ = node.child.kill().and_then(|()| node.child.wait());
            Err(failed(error))
        }
    }
}

/// Prints a line of a node on standard error, which may be closed.
fn pass_on(line: &str) {
    // A log may be JSON, which has its own escapes.
    let line = if line.starts_with('{') { printable_json(line) } else { printable(line) };
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Waits until a child reports its address. Earlier output is printed if it succeeds, and is the
/// error if it ends.
fn listening(child: &mut Child, heard: &Receiver<String>, deadline: Instant) -> Result<SocketAddr> {
    let mut words: Vec<String> = Vec::new();
    loop {
        let next = |wait| match heard.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => None,
            heard => Some(heard),
        };
        match wait_until(deadline, next).unwrap_or(Err(RecvTimeoutError::Timeout)) {
            Ok(line) => match ready_line::parse(&line) {
                Some(address) => {
                    words.iter().for_each(|line| pass_on(line));
                    return address.map_err(|_| {
                        Error::new(
                            Code::Internal,
                            format!("the node said {line:?} instead of its address"),
                        )
                        .remedy("name the cep-fast program of this version")
                    });
                }
                None if words.len() < WORDS_MAX => words.push(line),
                None => {}
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
                end(std::slice::from_mut(child), deadline);
                let status = child.try_wait().ok().flatten().and_then(|status| status.code());
                return Err(exit_message(status, &words));
            }
        }
    }
}

/// Returns the error of a node that ended before it listened, from its own error output.
fn exit_message(status: Option<i32>, words: &[String]) -> Error {
    let code =
        status.and_then(|status| u32::try_from(status).ok()).map_or(Code::Unreachable, Code::of);
    let led_by = |lead: &str| words.iter().find_map(|line| line.strip_prefix(lead));
    let message = match led_by("cep-fast: ") {
        Some(message) => message.to_owned(),
        None if words.is_empty() => {
            "the node ended before it listened, without an error message".into()
        }
        None => format!("the node ended before it listened; it said: {}", words.join(" ")),
    };
    let error = Error::new(code, message);
    match led_by("  try: ") {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// Number of lines kept of a node that does not listen: an error has three.
const WORDS_MAX: usize = 16;

impl Drop for LaunchedNodes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // The id of a child is only valid until it has been waited for.
            if matches!(node.child.try_wait(), Ok(None)) {
                let _ = kill(pid(&node.child), Signal::SIGTERM);
            }
        }
        let mut children: Vec<Child> = self.nodes.drain(..).map(|node| node.child).collect();
        end(&mut children, awake() + END_WITHIN);
    }
}

/// Waits for children until `deadline`, then kills those that have not ended by themselves.
fn end(children: &mut [Child], deadline: Instant) {
    let pids: Vec<Pid> = children
        .iter_mut()
        .filter_map(|child| matches!(child.try_wait(), Ok(None)).then(|| pid(child)))
        .collect();
    let (ended, wait) = channel();
    // It does not reap the children, so that their ids stay valid until this function has.
    let waiter = thread::Builder::new().name("ends of nodes".into()).spawn(move || {
        for pid in pids {
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
        let _ = ended.send(());
    });
    let is_over = |left| (wait.recv_timeout(left) != Err(RecvTimeoutError::Timeout)).then_some(());
    if waiter.is_err() || wait_until(deadline, is_over).is_none() {
        for child in children.iter_mut() {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = kill(pid(child), Signal::SIGKILL);
            }
        }
    }
    // After a SIGKILL the wait ends.
    for child in children {
        let _ = child.wait();
    }
    if let Ok(waiter) = waiter {
        let _ = waiter.join();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids fit 31 bits"))
}

/// Returns a random address in 127/8, so that simultaneous transfers do not collide.
fn random_base() -> Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("no randomness: {error}")))?;
    Ok(u32::from_le_bytes(bytes))
}

/// Returns address `index` after `base`: in 127.16.0.0 to 127.255.255.255, never one that ends in 0
/// or 255.
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
    fn a_node_that_was_launched_launches_no_nodes() {
        let error = check_program(true, Path::new("/usr/bin/mine"))
            .expect_err("it would start itself for ever");
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.contains("/usr/bin/mine"), "{error}");
        let address = SocketAddr::new(loopback(0, 0), 0);
        let launch_config = LaunchConfig {
            program: Path::new("/x"),
            root: Path::new("/"),
            secret: "",
            slots: None,
        };
        let command = command(address, launch_config);
        assert!(command.get_envs().any(|(name, value)| name == LAUNCHED && value.is_some()));
    }

    #[test]
    fn the_error_of_a_node_that_does_not_come_to_listen_is_its_own() {
        let said = |status, words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            exit_message(status, &words)
        };
        let error = said(
            Some(5),
            &["cep-fast: r is missing", "  try: name an existing directory with --root"],
        );
        let expected =
            Error::new(Code::Data, "r is missing").remedy("name an existing directory with --root");
        assert_eq!(error, expected);
        assert_eq!(said(None, &[]).code, Code::Unreachable);
        assert!(
            said(Some(101), &["thread 'main' panicked", "at x"])
                .message
                .ends_with("said: thread 'main' panicked at x")
        );
    }

    #[test]
    fn every_node_has_a_loopback_address_of_its_own() {
        for base in [0, 12_345, u32::MAX] {
            let addresses: BTreeSet<IpAddr> =
                (0..1000).map(|index| loopback(base, index)).collect();
            assert_eq!(addresses.len(), 1000);
            assert!(addresses.iter().all(IpAddr::is_loopback));
        }
    }
}
