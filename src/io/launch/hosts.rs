//! Nodes on other hosts: a session of ssh, or of another starter, for each.
//!
//! Each session has a thread that reads what the host says and answers; this one opens sessions,
//! a few at a time, because an sshd refuses more (`MaxStartups`), and waits for the nodes.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::child::{self, ChildWords, StartedChild};
use super::config::{HostConfig, HostStarter, LAUNCHED, LaunchConfig};
use super::deployment::ProgramDeployment;
use super::host_session::{HostEvent, HostSession};
use super::lifeline::HostLifelines;
use crate::core::error::{Code, Error, Result};
use crate::core::launch::host_script;
use crate::core::launch::method::command_line;
use crate::core::launch::orders::NodeOrders;
use crate::core::launch::ssh_words::ssh_failure;
use crate::core::spec::NodeAddress;
use crate::io::clock::{LOOK_EVERY, awake, wait_until};

/// Time for a host to come to listen; while the program is sent, for each part of it.
const READY_WITHIN: Duration = Duration::from_secs(9);
/// No prompt: sessions are opened side by side, and nobody would know which asks. An `ssh` whose
/// launcher was killed waits no longer for a host that does not answer than the launcher would; and
/// one whose network has vanished ends by itself.
const SSH_OPTIONS: [&str; 4] =
    ["BatchMode=yes", "ConnectTimeout=8", "ServerAliveInterval=5", "ServerAliveCountMax=3"];
/// Sessions that are being opened at once: an sshd begins to refuse at ten.
const OPENING_MAX: usize = 8;

/// A host of a node that is to be started.
#[derive(Clone, Debug)]
pub(super) struct LaunchHost {
    pub(super) address: NodeAddress,
    pub(super) user: Option<String>,
}

/// Nodes on other hosts. They end on drop.
pub(super) struct HostNodes {
    pub(super) children: Vec<Child>,
    pub(super) lifelines: HostLifelines,
    /// In the order of the hosts.
    pub(super) addresses: Vec<Vec<SocketAddr>>,
}

/// Starts a node on each of `hosts`.
///
/// # Errors
/// The first error of a host; everything that was started is ended.
pub(super) fn start(
    hosts: &[LaunchHost],
    config: &LaunchConfig<'_>,
    host_config: &HostConfig<'_>,
) -> Result<HostNodes> {
    let internal = |error: std::io::Error| {
        Error::new(Code::Internal, format!("no thread for the lifelines of nodes: {error}"))
    };
    for host in hosts {
        check_name(host)?;
    }
    let (sender, events) = channel();
    let mut opening = HostOpening {
        hosts,
        config,
        host_config,
        deployment: Arc::new(ProgramDeployment::new(host_config.deploys, config.program)),
        nodes: HostNodes {
            children: Vec::with_capacity(hosts.len()),
            lifelines: HostLifelines::start().map_err(internal)?,
            addresses: vec![Vec::new(); hosts.len()],
        },
        deadlines: Vec::with_capacity(hosts.len()),
        is_open: Vec::with_capacity(hosts.len()),
        sender,
    };
    let ended = opening.run(&events);
    // Threads that wait for their turn to be sent the program end.
    opening.deployment.first_is_done();
    let mut nodes = opening.nodes;
    match ended {
        Ok(()) => Ok(nodes),
        Err(error) => {
            nodes.lifelines.end();
            child::ask_to_end(&mut nodes.children);
            child::end(&mut nodes.children, awake() + child::END_WITHIN);
            Err(error)
        }
    }
}

/// Refuses names that a starter would take for options.
fn check_name(host: &LaunchHost) -> Result<()> {
    let user = host.user.iter().map(String::as_str);
    for name in user.chain([host.address.host.as_str()]) {
        let is_odd = |letter: char| letter.is_whitespace() || letter.is_control();
        if name.is_empty() || name.starts_with('-') || name.contains(is_odd) {
            return Err(Error::new(Code::Usage, format!("{name:?} is no name of a host or user"))
                .remedy("names begin with a letter or a digit, and have no spaces"));
        }
    }
    Ok(())
}

struct HostOpening<'a> {
    hosts: &'a [LaunchHost],
    config: &'a LaunchConfig<'a>,
    host_config: &'a HostConfig<'a>,
    deployment: Arc<ProgramDeployment>,
    nodes: HostNodes,
    /// Of each session, until its node listens.
    deadlines: Vec<Option<Instant>>,
    /// Of each session: whether the host has said anything of ours.
    is_open: Vec<bool>,
    sender: Sender<(usize, HostEvent)>,
}

impl HostOpening<'_> {
    fn run(&mut self, events: &Receiver<(usize, HostEvent)>) -> Result<()> {
        loop {
            let opening = self.is_open.iter().filter(|is_open| !**is_open).count();
            if opening < OPENING_MAX && self.nodes.children.len() < self.hosts.len() {
                self.open()?;
                continue;
            }
            let due = self.deadlines.iter().enumerate();
            let next = due.filter_map(|(at, due)| due.map(|due| (due, at)));
            let Some((due, late)) = next.min() else { return Ok(()) };
            let look = due.min(awake() + LOOK_EVERY);
            let heard = wait_until(look, |wait| events.recv_timeout(wait).ok());
            if (self.host_config.is_cancelled)() {
                return Err(Error::new(Code::Cancelled, "cancelled before all nodes were started"));
            }
            let Some((at, event)) = heard else {
                if awake() < due {
                    continue;
                }
                return Err(self.late(late));
            };
            self.take_in(at, event)?;
        }
    }

    /// Opens the next session.
    fn open(&mut self) -> Result<()> {
        let at = self.nodes.children.len();
        let host = &self.hosts[at];
        let words = words(host, &self.host_config.starter);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_remove(LAUNCHED);
        let failed = |error: std::io::Error| {
            let what = format!("{}: {} cannot be started: {error}", host.address.host, words[0]);
            Error::new(Code::Usage, what)
                .remedy("name the command with --ssh, or install OpenSSH's client")
        };
        let StartedChild { child, stdin, output } = child::start(command).map_err(failed)?;
        self.nodes.children.push(child);
        self.is_open.push(false);
        self.deadlines.push(Some(awake() + READY_WITHIN));
        tracing::debug!(host = host.address.host, "starts a node");
        let session = HostSession {
            name: host.address.host.clone(),
            orders: orders(self.config, host.address.port)?,
            secret: self.config.secret.to_owned().into(),
            stdin: Some(stdin),
            deployment: Arc::clone(&self.deployment),
            holder: self.nodes.lifelines.holder(),
            events: self.sender.clone(),
            at,
        };
        session.start(output).map_err(|error| {
            let what = format!("{}: no thread for its session: {error}", host.address.host);
            Error::new(Code::Internal, what).remedy("raise the limit of threads: ulimit -u")
        })
    }

    fn take_in(&mut self, at: usize, event: HostEvent) -> Result<()> {
        let name = &self.hosts[at].address.host;
        match event {
            HostEvent::Open => {
                tracing::debug!(host = name, "is logged in to");
                self.is_open[at] = true;
            }
            HostEvent::Progress => self.deadlines[at] = Some(awake() + READY_WITHIN),
            HostEvent::Listens(addresses) => {
                tracing::debug!(host = name, ?addresses, "listens");
                self.deadlines[at] = None;
                self.is_open[at] = true;
                self.nodes.addresses[at] = addresses;
            }
            HostEvent::Failed(error) => return Err(error.at(name)),
            // Later ends are the master's to notice.
            HostEvent::Ended(_) if self.deadlines[at].is_none() => {}
            HostEvent::Ended(words) => return Err(self.ended(at, &words)),
        }
        Ok(())
    }

    /// The error of a session that has ended.
    fn ended(&mut self, at: usize, words: &ChildWords) -> Error {
        let due = self.deadlines[at].unwrap_or_else(awake);
        let child = &mut self.nodes.children[at];
        child::wait_for(std::slice::from_mut(child), due);
        let status = child.try_wait().ok().flatten().and_then(|status| status.code());
        let name = &self.hosts[at].address.host;
        match &self.host_config.starter {
            HostStarter::Ssh(_) if !words.are_ours() => ssh_failure(name, status, words.lines()),
            // Of a shell or of a login program, a status says nothing that we know.
            _ => words.error(status.filter(|_| words.are_ours())).at(name),
        }
    }

    fn late(&self, at: usize) -> Error {
        let name = &self.hosts[at].address.host;
        let (what, remedy) = match self.is_open[at] {
            true => ("the node did not come to listen", "look whether the host is overloaded"),
            false => ("no session could be opened", "look whether it is up and lets you log in"),
        };
        let starter = match &self.host_config.starter {
            HostStarter::Ssh(words) => words.join(" "),
            HostStarter::Command(_) => "the command of --launch".to_owned(),
        };
        let seconds = READY_WITHIN.as_secs();
        Error::new(Code::Unreachable, format!("{name}: {what} within {seconds} s"))
            .remedy(format!("{remedy}: {starter} {name} true"))
    }
}

/// Returns what a node on another host is told.
///
/// # Errors
/// `Code::Usage` for a root that cannot be told.
pub(super) fn orders(config: &LaunchConfig<'_>, port: u16) -> Result<NodeOrders> {
    let arguments = config.node_arguments().into_iter().map(|argument| {
        argument.into_string().map_err(|argument| {
            Error::new(Code::Usage, format!("{} is not UTF-8", argument.display()))
                .remedy("name another --root: this one cannot be told to other hosts")
        })
    });
    let (port, arguments) = (config.port(port), arguments.collect::<Result<_>>()?);
    Ok(NodeOrders { port, arguments, dial: None })
}

/// Returns the words that start the host script on a host.
pub(super) fn words(host: &LaunchHost, starter: &HostStarter) -> Vec<String> {
    let script = host_script::words(env!("CARGO_PKG_VERSION"));
    let script: Vec<&str> = script.iter().map(String::as_str).collect();
    match starter {
        HostStarter::Command(command) => command.words(&host.address.host, &script),
        HostStarter::Ssh(ssh) => {
            let mut words = ssh.clone();
            words.extend(SSH_OPTIONS.iter().flat_map(|option| ["-o".into(), (*option).into()]));
            words.push("-T".into());
            if let Some(user) = &host.user {
                words.extend(["-l".into(), user.clone()]);
            }
            let line = format!("exec {}", command_line(&script));
            words.extend(["--".into(), host.address.host.clone(), line]);
            words
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn host(name: &str, user: Option<&str>) -> LaunchHost {
        let address = NodeAddress { host: name.into(), port: 0 };
        LaunchHost { address, user: user.map(String::from) }
    }

    #[test]
    fn names_that_are_options_are_refused() {
        check_name(&host("dtn1", Some("me"))).unwrap();
        check_name(&host("::1", None)).unwrap();
        for (name, user) in [
            ("-oProxyCommand=x", None),
            ("a", Some("-l")),
            ("a b", None),
            ("", None),
            ("a\n", None),
        ] {
            let error = check_name(&host(name, user)).unwrap_err();
            assert_eq!(error.code, Code::Usage, "{name:?}");
        }
    }

    #[test]
    fn the_command_is_the_same_for_all_hosts() {
        let starter = HostStarter::ssh("ssh -p 2222").unwrap();
        let (one, two) =
            (words(&host("a", None), &starter), words(&host("b", Some("u")), &starter));
        assert_eq!(one[..3], ["ssh", "-p", "2222"]);
        assert_eq!(one.last(), two.last());
        assert_eq!(two[two.len() - 5..two.len() - 1], ["-l", "u", "--", "b"]);
    }
}
