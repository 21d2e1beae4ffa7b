//! Nodes that a master reaches: those that it has started, and daemons.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::resolve::{ResolvedAddresses, resolve};
use super::settings::Settings;
use crate::core::error::{Code, Error, Result};
use crate::core::master::channels::LauncherChannels;
use crate::core::spec::NodeAddress;
use crate::core::units::NodeIx;
use crate::io::launch;
use crate::io::launch::{HostConfig, LaunchConfig, LaunchPurpose, LaunchedNodes, NodeToStart};
use crate::io::master::file_limit;
use crate::io::master::survey::{SurveyPeer, SurveySessions};
use crate::io::session::{DialKey, Key};

/// Nodes by their addresses in rows: where each is dialled, and with which key. Those that were
/// started end with this.
#[derive(Default)]
pub(crate) struct ReachedNodes {
    nodes: BTreeMap<NodeAddress, ReachedNode>,
    launched: Vec<LaunchedNodes>,
    /// Moment at which the first of them was begun to be reached.
    began: Option<Instant>,
}

/// A node as its master dials it.
struct ReachedNode {
    /// The addresses of its name, or the error of resolving it.
    addresses: Result<Vec<SocketAddr>>,
    /// Its key, if it has addresses.
    key: Option<DialKey>,
    /// True if it was started on this machine.
    is_here: bool,
    /// Address on this machine that leads to it through a session of the starter.
    channel: Option<SocketAddr>,
}

impl ReachedNode {
    /// A node that the network alone leads to.
    fn new(addresses: Result<Vec<SocketAddr>>, key: Option<DialKey>) -> ReachedNode {
        ReachedNode { addresses, key, is_here: false, channel: None }
    }

    /// Returns the addresses at which the master dials it: the channel last.
    fn dialled(&self) -> Result<Vec<SocketAddr>> {
        let mut addresses = self.addresses.clone()?;
        if let Some(channel) = self.channel {
            addresses.truncate(DIALLED_MAX);
            addresses.push(channel);
        }
        Ok(addresses)
    }
}

/// Limit on the addresses of a node that are dialled before its channel.
const DIALLED_MAX: usize = 3;

impl fmt::Debug for ReachedNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.nodes.keys()).finish()
    }
}

impl ReachedNodes {
    /// Starts nodes.
    ///
    /// # Errors
    /// Those of the start.
    pub(crate) fn launch(
        nodes: &[NodeToStart],
        settings: &Settings,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ReachedNodes> {
        ReachedNodes::launch_to(LaunchPurpose::Transfer, nodes, settings, is_cancelled)
    }

    /// Starts nodes for a purpose.
    ///
    /// # Errors
    /// Those of the start.
    pub(crate) fn launch_to(
        purpose: LaunchPurpose,
        nodes: &[NodeToStart],
        settings: &Settings,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ReachedNodes> {
        let began = Instant::now();
        let (starter, deploys) = (settings.starter()?, settings.deploy);
        let host_config = HostConfig { starter, deploys, is_cancelled };
        let names = nodes.iter().map(|node| &node.address).collect::<Vec<&NodeAddress>>();
        launched(began, &names, settings, |config| {
            launch::start(nodes, &LaunchConfig { purpose, ..config.clone() }, &host_config)
        })
    }

    /// Starts a child process on this machine for each of `hosts`, which `others` reach; none if
    /// none of those has an address.
    ///
    /// # Errors
    /// `Unreachable` if none can be reached from here; those of the start.
    pub(crate) fn launch_towards(
        hosts: &[NodeAddress],
        others: &ReachedNodes,
        settings: &Settings,
    ) -> Result<ReachedNodes> {
        let began = Instant::now();
        let addresses = others.nodes.values().filter_map(|node| node.addresses.as_ref().ok());
        let others: Vec<SocketAddr> = addresses.flatten().copied().collect();
        if others.is_empty() {
            return Ok(ReachedNodes::default());
        }
        let names = hosts.iter().collect::<Vec<&NodeAddress>>();
        launched(began, &names, settings, |config| launch::start_here(hosts, &others, config))
    }

    /// Daemons, whose names are resolved; `key_of` gives the key of each.
    pub(crate) fn resolved(
        hosts: &[NodeAddress],
        key_of: impl Fn(&NodeAddress) -> Result<DialKey>,
    ) -> ReachedNodes {
        let began = Some(Instant::now());
        let node = |(host, addresses): (&NodeAddress, Result<Vec<SocketAddr>>)| {
            let node = match key_of(host) {
                Ok(key) => ReachedNode::new(addresses, Some(key)),
                Err(error) => ReachedNode::new(Err(error), None),
            };
            (host.clone(), node)
        };
        let nodes = hosts.iter().zip(resolve(hosts)).map(node).collect();
        ReachedNodes { nodes, launched: Vec::new(), began }
    }

    /// Both these nodes and others.
    pub(crate) fn and(mut self, others: ReachedNodes) -> ReachedNodes {
        self.nodes.extend(others.nodes);
        self.launched.extend(others.launched);
        self.began = [self.began, others.began].into_iter().flatten().min();
        self
    }

    /// Returns the moment at which the first of them was begun to be reached.
    pub(super) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Returns the addresses and keys of nodes, in their order. One that was not reached has an
    /// error.
    pub(super) fn of<'a>(
        &self,
        hosts: impl Iterator<Item = &'a NodeAddress>,
    ) -> (ResolvedAddresses, Vec<Option<DialKey>>) {
        let missing = |host: &NodeAddress| {
            (Err(Error::new(Code::Internal, format!("{host} was not reached"))), None)
        };
        let node = |host| {
            let node = self.nodes.get(host);
            node.map_or_else(|| missing(host), |node| (node.dialled(), node.key.clone()))
        };
        hosts.map(node).unzip()
    }

    /// Returns the ways between some of these nodes through the sessions of the starter.
    pub(super) fn channels<'a>(
        &self,
        hosts: impl Iterator<Item = &'a NodeAddress>,
    ) -> LauncherChannels {
        let found: Vec<(NodeIx, &ReachedNode)> = (0..)
            .map(NodeIx)
            .zip(hosts)
            .filter_map(|(node, host)| Some((node, self.nodes.get(host)?)))
            .collect();
        let here = found.iter().filter(|(_, it)| it.is_here).map(|(node, _)| *node);
        let leading = found.iter().filter_map(|(node, it)| Some((*node, it.channel?)));
        LauncherChannels::new(here, leading)
    }

    /// Returns what is to be said of data that went through sessions of the starter.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.launched.iter().flat_map(LaunchedNodes::warnings).collect()
    }

    /// Meets nodes to ask them about paths.
    ///
    /// # Errors
    /// Those of the first node that has no address or cannot be met, with its name.
    pub(crate) fn survey(&self, hosts: &[NodeAddress]) -> Result<SurveySessions> {
        let (addresses, keys) = self.of(hosts.iter());
        let peer = |(host, (addresses, key)): (&NodeAddress, (Result<_>, Option<DialKey>))| {
            let addresses = addresses?;
            let key = key.ok_or_else(|| Error::new(Code::Internal, "it has no key").at(host))?;
            Ok(SurveyPeer { name: host.to_string(), addresses, key })
        };
        let peers = hosts.iter().zip(addresses.into_iter().zip(keys)).map(peer);
        SurveySessions::meet(peers.collect::<Result<_>>()?)
    }
}

/// Has `start` start nodes with a key of their own.
fn launched(
    began: Instant,
    names: &[&NodeAddress],
    settings: &Settings,
    start: impl FnOnce(&LaunchConfig<'_>) -> Result<LaunchedNodes>,
) -> Result<ReachedNodes> {
    let key = Key::generate()?;
    // Descriptors of a node: two pipes, its socket, and the listener of its channel.
    file_limit::make(names.len(), 4)?;
    let launched = start(&LaunchConfig {
        program: settings.program.as_deref(),
        root: &settings.root,
        secret: &key.to_hex(),
        slots: settings.options.slots,
        ports: settings.ports,
        purpose: LaunchPurpose::Transfer,
    })?;
    let mut nodes = BTreeMap::new();
    for (name, addresses) in names.iter().zip(launched.addresses()) {
        let at = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        tracing::debug!("{name}: started, listens at {at}");
        let node = ReachedNode::new(Ok(addresses), Some(DialKey::from(&key)));
        nodes.insert((*name).clone(), node);
    }
    for &at in launched.here() {
        nodes.entry(names[at].clone()).and_modify(|node| node.is_here = true);
    }
    for (at, channel) in launched.channels() {
        nodes.entry(names[at].clone()).and_modify(|node| node.channel = Some(channel));
    }
    Ok(ReachedNodes { nodes, launched: vec![launched], began: Some(began) })
}
