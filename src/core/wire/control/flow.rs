//! First messages of data flows.

use crate::core::wire::terms::FlowTerms;

/// First message on a data flow, sealed by the transfer's flow key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FlowHello {
    /// The transfer that the flow is for.
    pub(crate) transfer: [u8; 16],
    /// The attempt at it.
    pub(crate) attempt: [u8; 16],
    /// Index of the dialing node.
    pub(crate) from_node: u32,
    /// Index of the node that it dials.
    pub(crate) to_node: u32,
    /// Rail of the dialing node.
    pub(crate) rail: u32,
    /// Rail of the other node: its place among the rails that the plan tells of it. Rails may share
    /// a port.
    pub(crate) to_rail: u32,
    /// Bytes that the plan wants over this flow: its weight compared with other receivers' flows.
    pub(crate) weight_bytes: u64,
    /// Highest rate at which the sender may send on the flow; 0 for no limit.
    pub(crate) pace_bytes_per_second: u64,
    /// Number of earlier flows of this rail pair that completed the handshake and then delivered
    /// nothing.
    pub(crate) silent_flows: u32,
    /// Place of the flow among those of its rail pair: 0 for its own flow, which always is there.
    pub(crate) further: u32,
    /// Demands of the dialing side on the flow's protection.
    pub(crate) terms: FlowTerms,
    /// The receiver's rail pair, if the dialing node is the sender, which answers a [`FlowCall`].
    pub(crate) call: Option<u32>,
}

/// Call of a receiver that does not reach a sender: the sender is asked to open the flow. It goes
/// by way of the master, and is never counted nor repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowCall {
    /// Index of the other node: the sender where the receiver asks, the receiver where the sender
    /// is asked.
    pub(crate) peer: u32,
    /// The receiver's rail pair, and the place of the flow there.
    pub(crate) pair: u32,
    pub(crate) further: u32,
    /// Rails of both: places among those that each uses in the transfer.
    pub(crate) receiver_rail: u32,
    pub(crate) sender_rail: u32,
    /// Bytes that the plan wants over this flow.
    pub(crate) weight_bytes: u64,
    /// Highest rate at which the sender may send on the flow; 0 for no limit.
    pub(crate) pace_bytes_per_second: u64,
}

/// Answer to a [`FlowHello`], in the second handshake message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowReply {
    /// Demands of the other side.
    pub(crate) terms: FlowTerms,
}
