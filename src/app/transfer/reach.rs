//! Nodes that a master reaches: those that it has started, and daemons.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::resolve::{ResolvedAddresses, resolve};
use super::settings::Settings;
use crate::core::error::{Code, Error, Result};
use crate::core::spec::NodeAddress;
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
}

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
                Ok(key) => ReachedNode { addresses, key: Some(key) },
                Err(error) => ReachedNode { addresses: Err(error), key: None },
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
            node.map_or_else(|| missing(host), |node| (node.addresses.clone(), node.key.clone()))
        };
        hosts.map(node).unzip()
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
    // Descriptors of a node: two pipes and its socket.
    file_limit::make(names.len(), 3)?;
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
        let node = ReachedNode { addresses: Ok(addresses), key: Some(DialKey::from(&key)) };
        nodes.insert((*name).clone(), node);
    }
    Ok(ReachedNodes { nodes, launched: vec![launched], began: Some(began) })
}
