//! The world that a simulated cluster lives in, and the faults that are injected into it.

use std::time::Duration;

use super::net::{NodeLinks, SimStore};
use crate::core::units::{BitRate, Moment, NodeIx};

/// The world that the machines run in.
#[derive(Clone, Debug)]
pub(crate) struct SimWorld {
    /// The links of every node.
    pub(crate) links: Vec<NodeLinks>,
    /// Rails of every node; they share its links. One where this says nothing.
    pub(crate) rails: Vec<usize>,
    /// Line rate that the NIC of every node claims, whatever its links carry. Unknown where this
    /// says nothing.
    pub(crate) claims: Vec<BitRate>,
    pub(crate) stores: Vec<SimStore>,
    /// One way between any two places.
    pub(crate) latency: Duration,
    /// Time of a disk for one piece or one job, besides its bytes.
    pub(crate) disk_latency: Duration,
    /// Rate of a disk.
    pub(crate) disk_bytes_per_second: f64,
    /// Disks of nodes that do one thing after another, besides these times. None where this says
    /// nothing.
    pub(crate) disks: Vec<Option<SerialDisk>>,
    /// Time that a disk may take longer, by chance.
    pub(crate) disk_whims: Duration,
    pub(crate) faults: PieceFaults,
    /// Paths between nodes that lose packets, if they do.
    pub(crate) lossy: Option<LossyPath>,
    /// True if nodes are launched by their master, and end with it.
    pub(crate) launched: bool,
    /// Seed of the chance.
    pub(crate) seed: u64,
    /// True if every event is written down.
    pub(crate) keeps_log: bool,
}

/// A long path that loses packets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct LossyPath {
    /// Round-trip time as kernels measure it.
    pub(crate) delay: Duration,
    /// Rate at which one flow is held by its losses.
    pub(crate) bytes_per_second: f64,
}

/// Rates of a disk that serves one operation after another, in bytes per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct SerialDisk {
    pub(crate) reads: f64,
    pub(crate) writes: f64,
}

/// Use of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DiskUse {
    Read,
    Write,
}

/// Faults of pieces, in parts of a thousand of the pieces that it could happen to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PieceFaults {
    /// A piece arrives changed, and TCP does not notice.
    pub(crate) changed: u64,
    /// One packet in so many arrives changed; none with 0.
    pub(crate) changed_packet_in: u64,
    /// A flow breaks while a piece is on it.
    pub(crate) broken: u64,
    /// A sender cannot read a piece.
    pub(crate) unreadable: u64,
    /// A receiver cannot write a piece.
    pub(crate) unwritable: u64,
    /// An operation of a kernel does not go the way that was tried first.
    pub(crate) detours: u64,
}

/// A master of the cluster: each makes one attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct MasterIx(pub(crate) u32);

impl MasterIx {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

/// A place in the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum SimEndpoint {
    Master(MasterIx),
    Node(NodeIx),
}

/// A fault that befalls a cluster.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "a forecast has deaths alone"))]
pub(crate) enum InjectedFault {
    /// The process of a node is killed: its kernel closes what it had open.
    Kill(NodeIx),
    /// The machine of a node loses its power: nobody is told.
    PowerOff(NodeIx),
    /// A signal asks a node to end.
    Stop(NodeIx),
    /// A node does nothing for so long.
    Freeze(NodeIx, Duration),
    /// The workers of a node hang for so long.
    Hang(NodeIx, Duration),
    /// Nothing gets from one place to another for so long.
    Cut(SimEndpoint, SimEndpoint, Duration),
    Heal(SimEndpoint, SimEndpoint),
    /// All flows of a node break.
    Reset(NodeIx),
    /// The control sessions of a node break, with all that is on its way on them.
    Part(NodeIx),
    /// The next good-bye to a node is lost, and its session with it.
    LoseGoodBye(NodeIx),
    /// The process of a master is killed, or its machine loses its power.
    EndMaster {
        master: MasterIx,
        is_off: bool,
    },
    /// Somebody cancels the attempt of a master.
    Cancel(MasterIx),
}

/// Times until which places are out of reach, or do nothing.
#[derive(Debug, Default)]
pub(super) struct SimReach {
    /// Directions in which nothing gets through.
    cuts: std::collections::BTreeMap<(SimEndpoint, SimEndpoint), Moment>,
    /// Nodes that do nothing.
    frozen: std::collections::BTreeMap<NodeIx, Moment>,
    /// Nodes whose workers hang.
    hung: std::collections::BTreeMap<NodeIx, Moment>,
    /// Places without power.
    off: std::collections::BTreeSet<SimEndpoint>,
}

impl SimReach {
    pub(super) fn cut(&mut self, from: SimEndpoint, to: SimEndpoint, until: Moment) {
        let cut = self.cuts.entry((from, to)).or_default();
        *cut = until.max(*cut);
    }

    /// A cut may be over. Returns true if it is.
    pub(super) fn heal(&mut self, now: Moment, from: SimEndpoint, to: SimEndpoint) -> bool {
        let is_over = self.cuts.get(&(from, to)).is_some_and(|until| *until <= now);
        if is_over {
            self.cuts.remove(&(from, to));
        }
        is_over
    }

    pub(super) fn freeze(&mut self, node: NodeIx, until: Moment) {
        let frozen = self.frozen.entry(node).or_default();
        *frozen = until.max(*frozen);
    }

    pub(super) fn hang(&mut self, node: NodeIx, until: Moment) {
        let hung = self.hung.entry(node).or_default();
        *hung = until.max(*hung);
    }

    pub(super) fn power_off(&mut self, place: SimEndpoint) {
        self.off.insert(place);
    }

    pub(super) fn is_off(&self, place: SimEndpoint) -> bool {
        self.off.contains(&place)
    }

    /// Returns the moment until which a node is frozen; one of the past, if it is not.
    pub(super) fn frozen_until(&self, node: NodeIx) -> Moment {
        self.frozen.get(&node).copied().unwrap_or_default()
    }

    /// Returns the moment until which the workers of a node hang, or the node itself does.
    pub(super) fn hung_until(&self, node: NodeIx) -> Moment {
        self.hung.get(&node).copied().unwrap_or_default().max(self.frozen_until(node))
    }

    /// Returns the moment until which nothing gets from one place to another.
    pub(super) fn cut_until(&self, from: SimEndpoint, to: SimEndpoint) -> Moment {
        self.cuts.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Returns true if probes of one place to the other are not answered now.
    pub(super) fn is_silent(&self, now: Moment, one: SimEndpoint, other: SimEndpoint) -> bool {
        let is_frozen = |place| match place {
            SimEndpoint::Node(node) => self.frozen_until(node) > now,
            SimEndpoint::Master(_) => false,
        };
        self.cut_until(one, other).max(self.cut_until(other, one)) > now
            || [one, other].into_iter().any(|place| is_frozen(place) || self.is_off(place))
    }
}
