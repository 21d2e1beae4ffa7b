//! Start of nodes: as child processes on this machine, and on other hosts by ssh or another
//! command. Daemons are started by their users.
//!
//! - `config`: what all nodes of a transfer are told, and by which command
//! - `local`: nodes on this machine
//! - `hosts`: nodes on other hosts; `host_session`: what one of them says and is answered;
//!   `deployment`: the program on its way to them
//! - `job_step`: nodes on the hosts of a Slurm job, by one step
//! - `channel`: connections through further sessions, where the network lets none through;
//!   `channel_end`: their other end, on the host
//! - `child`: child processes of either kind
//! - `lifeline`: their standard input, which ends with the launcher

mod channel;
pub(crate) mod channel_end;
mod child;
mod config;
mod deployment;
mod host_session;
mod hosts;
mod job_step;
pub(crate) mod lifeline;
mod local;

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin};

pub(crate) use config::{HostConfig, HostStarter, LaunchConfig, LaunchPurpose};
pub(crate) use local::address_towards;

use crate::core::error::Result;
use crate::core::launch::slurm_job::SlurmJob;
use crate::core::spec::NodeAddress;
use crate::io::clock::awake;
use channel::{ChannelHost, HostChannels};
use hosts::{HostNodes, LaunchHost};
use local::LocalNode;

/// A node to start.
#[derive(Clone, Debug)]
pub(crate) struct NodeToStart {
    /// Name and port, as in the rows; port 0 is any.
    pub(crate) address: NodeAddress,
    pub(crate) place: NodePlace,
}

/// Where a node is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NodePlace {
    /// Here, at a loopback address of its own.
    Loopback,
    /// Here, at the address from which this machine reaches the others.
    Here,
    /// On the host of its address, as this user if one is named.
    Host {
        /// The user.
        user: Option<String>,
    },
    /// On that host of the Slurm job that this process is part of.
    Job,
}

/// Nodes that were started. They end on drop.
pub(crate) struct LaunchedNodes {
    local: Vec<Child>,
    /// Places of nodes on this machine.
    here: Vec<usize>,
    /// Held open: a launched node ends when this closes.
    local_stdin: Vec<ChildStdin>,
    /// Nodes on other hosts, and in a job.
    remote: Vec<HostNodes>,
    /// Of each node, the best one first.
    addresses: Vec<Vec<SocketAddr>>,
    /// Ways to nodes on other hosts through their sessions, and the place of each among all.
    channels: Option<(Vec<usize>, HostChannels)>,
}

impl LaunchedNodes {
    /// Returns the places of nodes that were started on this machine.
    pub(crate) fn here(&self) -> &[usize] {
        &self.here
    }

    /// Returns the addresses on this machine that lead to nodes on other hosts through sessions of
    /// the starter, with the places of the nodes.
    pub(crate) fn channels(&self) -> Vec<(usize, SocketAddr)> {
        let channels = self.channels.iter().flat_map(|(places, channels)| {
            places.iter().copied().zip(channels.addresses().iter().copied())
        });
        channels.collect()
    }

    /// Returns what is to be said of data that went through sessions of the starter.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.channels.iter().flat_map(|(_, channels)| channels.warnings()).collect()
    }

    /// Returns the addresses at which each node may be reached, the best one first, in the order of
    /// the nodes.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Vec<SocketAddr>> {
        self.addresses.iter().cloned()
    }
}

/// Starts nodes.
///
/// # Errors
/// The first error, with the node's own words; whatever was started is ended. `Code::Unreachable`
/// if a node does not listen in time, `Code::Usage` in a process that was started as a node itself.
pub(crate) fn start(
    nodes: &[NodeToStart],
    config: &LaunchConfig<'_>,
    host_config: &HostConfig<'_>,
) -> Result<LaunchedNodes> {
    let mut launched = LaunchedNodes::none(nodes.len());
    let hosts = |is_in_job: bool| {
        let places = nodes.iter().enumerate().filter_map(move |(at, node)| match &node.place {
            NodePlace::Host { user } if !is_in_job => Some((at, node, user.clone())),
            NodePlace::Job if is_in_job => Some((at, node, None)),
            _ => None,
        });
        places
            .map(|(at, node, user)| (at, LaunchHost { address: node.address.clone(), user }))
            .unzip::<usize, LaunchHost, Vec<_>, Vec<_>>()
    };
    let (at, in_job) = hosts(true);
    if !in_job.is_empty() {
        let job = current_job()?;
        let job = job.ok_or_else(|| SlurmJob::missing("--launch slurm starts nodes in a job"))?;
        launched.add(&at, job_step::start(&job, &in_job, config, host_config)?);
    }
    let (at, elsewhere) = hosts(false);
    if !elsewhere.is_empty() {
        launched.add(&at, hosts::start(&elsewhere, config, host_config)?);
        launched.open_channels(at, &elsewhere, host_config);
    }
    let others: Vec<SocketAddr> = launched.addresses.iter().flatten().copied().collect();
    launched.start_here(nodes, &others, config)?;
    Ok(launched)
}

/// Starts nodes on this machine that `others` reach, which run already.
///
/// # Errors
/// See [`start`]; `Code::Unreachable` if there is no way to any of `others`.
pub(crate) fn start_here(
    addresses: &[NodeAddress],
    others: &[SocketAddr],
    config: &LaunchConfig<'_>,
) -> Result<LaunchedNodes> {
    let here =
        |address: &NodeAddress| NodeToStart { address: address.clone(), place: NodePlace::Here };
    let nodes: Vec<NodeToStart> = addresses.iter().map(here).collect();
    let mut launched = LaunchedNodes::none(nodes.len());
    launched.start_here(&nodes, others, config)?;
    Ok(launched)
}

/// Starts one node that listens at `address`. It uses every NIC that leads out of this machine,
/// unless the address is loopback.
///
/// # Errors
/// See [`start`].
pub(crate) fn start_at(address: SocketAddr, config: &LaunchConfig<'_>) -> Result<LaunchedNodes> {
    let host = NodeAddress { host: address.ip().to_string(), port: address.port() };
    let mut launched = LaunchedNodes::none(1);
    let node = local::start(&host, address, None, config)?;
    launched.wait_for(vec![(0, node)], &[host])?;
    Ok(launched)
}

/// Returns the address of this machine at which `others` reach it. One way out of it is enough; if
/// all of them are inside, it is a loopback address, and `None` without any.
fn address_for(others: &[SocketAddr]) -> Result<Option<IpAddr>> {
    let ways: Vec<Result<IpAddr>> = others.iter().map(|&other| address_towards(other)).collect();
    let found = ways.iter().flatten();
    let outside = found.clone().find(|address| !address.is_loopback());
    match outside.or(found.clone().next()) {
        Some(address) => Ok(Some(*address)),
        None => ways.into_iter().next().transpose(),
    }
}

/// Returns the Slurm job that this process is part of.
///
/// # Errors
/// `Code::Usage` if the environment names one that is none.
pub(crate) fn current_job() -> Result<Option<SlurmJob>> {
    SlurmJob::of(|name| std::env::var(name).ok())
}

impl LaunchedNodes {
    fn none(count: usize) -> LaunchedNodes {
        LaunchedNodes {
            local: Vec::new(),
            here: Vec::new(),
            local_stdin: Vec::new(),
            remote: Vec::new(),
            addresses: vec![Vec::new(); count],
            channels: None,
        }
    }

    /// Opens the ways to nodes through further sessions. Without them all others are left.
    fn open_channels(&mut self, at: Vec<usize>, hosts: &[LaunchHost], config: &HostConfig<'_>) {
        let host = |(at, host): (&usize, &LaunchHost)| {
            let node = *self.addresses[*at].first()?;
            let words = hosts::words(host, &config.starter);
            Some(ChannelHost { name: host.address.host.clone(), words, node })
        };
        let led: Option<Vec<ChannelHost>> = at.iter().zip(hosts).map(host).collect();
        match led.map(HostChannels::start) {
            Some(Ok(channels)) => self.channels = Some((at, channels)),
            Some(Err(error)) => tracing::info!("no channels to hosts: {error}"),
            None => {}
        }
    }

    /// Takes in nodes on other hosts, and their places among all.
    fn add(&mut self, places: &[usize], mut started: HostNodes) {
        for (at, addresses) in places.iter().zip(started.addresses.drain(..)) {
            self.addresses[*at] = addresses;
        }
        self.remote.push(started);
    }

    /// Starts those of the nodes that are started on this machine.
    fn start_here(
        &mut self,
        nodes: &[NodeToStart],
        others: &[SocketAddr],
        config: &LaunchConfig<'_>,
    ) -> Result<()> {
        let cpus = affinity::cpus_allowed().unwrap_or_default();
        let has_here = nodes.iter().any(|node| node.place == NodePlace::Here);
        let here = if has_here { address_for(others)? } else { None };
        let base = local::random_base()?;
        let mut begun = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let ip = match (&node.place, here) {
                (NodePlace::Host { .. } | NodePlace::Job, _) => continue,
                (NodePlace::Here, Some(ip)) => ip,
                (NodePlace::Here | NodePlace::Loopback, _) => local::loopback(base, begun.len()),
            };
            let is_alone = node.place == NodePlace::Here;
            let cpu = (!cpus.is_empty() && !is_alone).then(|| cpus[begun.len() % cpus.len()]);
            let address = SocketAddr::new(ip, config.port(node.address.port));
            match local::start(&node.address, address, cpu, config) {
                Ok(started) => begun.push((at, started)),
                Err(error) => {
                    self.keep(begun);
                    return Err(error);
                }
            }
        }
        let names: Vec<NodeAddress> = nodes.iter().map(|node| node.address.clone()).collect();
        self.wait_for(begun, &names)
    }

    /// Waits until all listen. They are kept in any case, to be ended.
    fn wait_for(
        &mut self,
        mut begun: Vec<(usize, LocalNode)>,
        names: &[NodeAddress],
    ) -> Result<()> {
        let mut ended = Ok(());
        for (at, node) in &mut begun {
            match node.listening() {
                Ok(address) => {
                    self.addresses[*at] = vec![address];
                    self.here.push(*at);
                }
                Err(error) => {
                    ended = Err(error.at(&names[*at]));
                    break;
                }
            }
        }
        self.keep(begun);
        ended
    }

    fn keep(&mut self, begun: Vec<(usize, LocalNode)>) {
        for (_, LocalNode { child, stdin, .. }) in begun {
            self.local.push(child);
            self.local_stdin.push(stdin);
        }
    }
}

impl Drop for LaunchedNodes {
    /// Nodes end with their lifelines, and clean up; the sessions of other hosts end with theirs.
    fn drop(&mut self) {
        child::ask_to_end(&mut self.local);
        self.local_stdin.clear();
        let mut children = std::mem::take(&mut self.local);
        for HostNodes { children: sessions, lifelines, .. } in self.remote.drain(..) {
            lifelines.end();
            children.extend(sessions);
        }
        let deadline = awake() + child::END_WITHIN;
        if !child::wait_for(&mut children, deadline) {
            child::ask_to_end(&mut children);
        }
        child::end(&mut children, deadline + child::END_WITHIN / 5);
    }
}
