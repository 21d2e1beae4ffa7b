//! Statistics of a node about a transfer.

use crate::core::load::MachineLoad;
use crate::core::wire::terms::WireAgreement;

/// Statistics of one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeStats {
    /// Version of the plan that it followed last; 0 if none came.
    pub(crate) epoch: u32,
    /// Bytes received and kept.
    pub(crate) received_bytes: u64,
    /// Bytes sent.
    pub(crate) sent_bytes: u64,
    /// Bytes received and not needed.
    pub(crate) wasted_bytes: u64,
    /// Bytes received from another sender than the plan's.
    pub(crate) stolen_bytes: u64,
    /// Requests that had to be repeated.
    pub(crate) retries: u64,
    /// Bytes that an earlier attempt had landed.
    pub(crate) resumed_bytes: u64,
    /// Time from the first request to the last written piece, on the node's own clock.
    pub(crate) active_ns: u64,
    /// Time in which destinations were given their room, before any byte.
    pub(crate) room_ns: u64,
    /// Time in which files were synced, read back and named.
    pub(crate) commit_ns: u64,
    /// Processor time, user and system.
    pub(crate) cpu_ns: u64,
    /// Largest resident memory.
    pub(crate) memory_bytes_max: u64,
    /// Statistics by NIC.
    pub(crate) rails: Vec<RailStats>,
    /// Lost time, and NICs without traffic: a sentence each, for the report.
    pub(crate) warnings: Vec<String>,
    /// Load of its machine, if it was started to be measured.
    pub(crate) load: Option<MachineLoad>,
}

/// Statistics of one NIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RailStats {
    /// Name of the interface; never empty and without spaces.
    pub(crate) nic: String,
    /// Bytes of payload sent.
    pub(crate) sent_bytes: u64,
    /// Bytes of payload received.
    pub(crate) received_bytes: u64,
    /// Bytes that the NIC counted meanwhile, sent and received, with all headers and other traffic;
    /// `None` if the system does not report them. Several rails of one NIC have the same counts.
    pub(crate) counted: Option<(u64, u64)>,
    /// Errors and drops that the NIC counted meanwhile, of both directions; 0 without a load.
    pub(crate) faults: u64,
    /// Description of the data path in one line; empty if no bytes moved.
    pub(crate) path: String,
    /// Description of the operations' driver in one line.
    pub(crate) driver: String,
    /// Protection of its least protected flow; `None` if it had no flow.
    pub(crate) wire: Option<WireAgreement>,
}

/// A flow that broke, or could not be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FlowLoss {
    /// NIC of the node that tells it.
    pub(crate) nic: String,
    /// The node at the other end.
    pub(crate) peer: String,
    /// Reason, as a sentence.
    pub(crate) reason: String,
}
