//! What a node counted in a transfer, and what it says of it.

/// What a transfer cost a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeStats {
    /// Bytes that arrived and were kept.
    pub(crate) received_bytes: u64,
    /// Bytes that were sent.
    pub(crate) sent_bytes: u64,
    /// Bytes that arrived and were not needed.
    pub(crate) wasted_bytes: u64,
    /// Bytes that came from another sender than the plan's.
    pub(crate) stolen_bytes: u64,
    /// Requests that had to be made again.
    pub(crate) retries: u64,
    /// Bytes that an earlier attempt had landed.
    pub(crate) resumed_bytes: u64,
    /// From the first request to the last piece written, on the node's own clock.
    pub(crate) active_ns: u64,
    /// Processor time, user and system.
    pub(crate) cpu_ns: u64,
    /// The most memory that was resident.
    pub(crate) memory_bytes_max: u64,
    /// The same by NIC.
    pub(crate) rails: Vec<RailStats>,
    /// Time that was lost and NICs that carried nothing: a sentence each, for the report.
    pub(crate) warnings: Vec<String>,
}

/// What went over one NIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RailStats {
    /// The interface's name; as with every interface, it is not empty and holds no space.
    pub(crate) nic: String,
    /// Bytes of payload sent.
    pub(crate) sent_bytes: u64,
    /// Bytes of payload received.
    pub(crate) received_bytes: u64,
    /// Bytes that the NIC itself counted meanwhile, sent and received, with all headers and
    /// whatever else went over it; `None` where the node's system does not say. Several rails of
    /// one NIC have the same counts.
    pub(crate) counted: Option<(u64, u64)>,
    /// Which way the bytes took through the kernel, in words of one line; empty where none moved.
    pub(crate) path: String,
    /// What carried out the operations, in words of one line.
    pub(crate) driver: String,
}
