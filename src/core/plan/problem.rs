//! Input of the planner.

use crate::core::units::{NodeIx, Span};

/// Input of the planner: the speeds of nodes, and the ranges that they offer and want.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlanProblem {
    /// The nodes, in the order of their index.
    pub(crate) nodes: Vec<NodeCapacity>,
    /// Ranges that nodes offer, one entry for each sender row.
    pub(crate) offers: Vec<(NodeIx, Span)>,
    /// Ranges that nodes want, one entry for each receiver row without a group.
    pub(crate) wants: Vec<(NodeIx, Span)>,
    /// Ranges that nodes want as members of a group: its members together want each byte once.
    pub(crate) group_wants: Vec<(GroupIx, NodeIx, Span)>,
    /// Stores that several nodes read from or write to.
    pub(crate) stores: Vec<StoreCapacity>,
    /// Rate limits between two nodes, if lower than the speed of either node.
    pub(crate) pairs: Vec<PairLimit>,
    /// Origin and block size in bytes of the block grid; size 0 for no grid. Parts of a group are
    /// cut on the grid.
    pub(crate) grid: (u64, u64),
}

/// A reader group: its index in order of first mention.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct GroupIx(pub(crate) u32);

/// A store: its index in [`PlanProblem::stores`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StoreIx(pub(crate) u32);

/// Speeds of a node, in payload bytes per second.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeCapacity {
    /// `host:port`, for messages and the bottleneck's name.
    pub(crate) name: String,
    /// Line of its first row, for messages; 0 if the rows come from no file.
    pub(crate) line: u32,
    /// Sending capacity `C_i`: the sum over the node's rails.
    pub(crate) send_bytes_per_second: f64,
    /// Receiving capacity `B_j`: the sum over the node's rails.
    pub(crate) receive_bytes_per_second: f64,
    /// True if it keeps what it receives, so that it can relay it.
    pub(crate) relays: bool,
    /// Store that its offers are read from.
    pub(crate) reads: Option<StoreIx>,
    /// Store that its received bytes are written to.
    pub(crate) writes: Option<StoreIx>,
}

impl NodeCapacity {
    /// Returns the start of a message about its rows.
    pub(super) fn place(&self) -> String {
        if self.line == 0 { String::new() } else { format!("line {}: ", self.line) }
    }
}

/// A shared store, such as a parallel file system or one disk behind several nodes. Its rate holds
/// separately for all reads and for all writes, like the two directions of a NIC.
#[derive(Clone, Debug)]
pub(crate) struct StoreCapacity {
    pub(crate) name: String,
    pub(crate) bytes_per_second: f64,
}

/// A limit on the rate from one node to another, in payload bytes per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairLimit {
    pub(crate) from: NodeIx,
    pub(crate) to: NodeIx,
    pub(crate) bytes_per_second: f64,
}
