//! Channels: sessions of the launcher through which nodes on its own machine reach nodes on other
//! hosts, where no connection of the network is let through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::core::units::NodeIx;

/// The channels of a transfer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LauncherChannels {
    /// Nodes on the launcher's machine.
    here: BTreeSet<NodeIx>,
    /// Addresses on that machine that lead to nodes on other hosts.
    leading: BTreeMap<NodeIx, SocketAddr>,
}

impl LauncherChannels {
    /// Creates the channels that lead to some nodes from those that are `here`.
    pub(crate) fn new(
        here: impl Iterator<Item = NodeIx>,
        leading: impl Iterator<Item = (NodeIx, SocketAddr)>,
    ) -> LauncherChannels {
        LauncherChannels { here: here.collect(), leading: leading.collect() }
    }

    /// Returns the address at which one node reaches another one through the launcher.
    pub(super) fn between(&self, from: NodeIx, to: NodeIx) -> Option<SocketAddr> {
        self.leading.get(&to).copied().filter(|_| self.here.contains(&from))
    }
}
