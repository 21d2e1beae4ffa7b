//! Control messages as typed values, which are valid by construction.
//!
//! The pure core, the processes and the simulator share these types. A transfer without incidents
//! takes four messages a node: `Prepare` and `Start` to the node, `Prepared` and `Landed` from it.
//! Their wire format is in `proto`; `convert` converts between the two and refuses invalid input.

mod flow;
mod landed;
mod options;
mod replicas;
mod stats;
mod survey;

use std::fmt;
use std::net::SocketAddr;

use prost::Message as _;
use zeroize::Zeroize;

use super::limits::MESSAGE_BYTES_MAX;
use super::{WireError, scan};
use crate::core::error::Error;
use crate::core::spec::RowRole;
use crate::core::units::{BitRate, Span};

pub(crate) use flow::{FlowCall, FlowHello, FlowReply};
pub(crate) use landed::{CheckValue, LandedSegment, SegmentChecks};
pub(crate) use options::WireOptions;
pub(crate) use replicas::ReplicaRange;
pub(crate) use stats::{FlowLoss, NodeStats, RailStats};
pub(crate) use survey::{
    SurveyAnswer, SurveyQuestion, SurveySubject, SurveyToken, SurveyedDestination, SurveyedSource,
};

/// A typed message with its wire format.
pub(crate) trait WireMessage: Sized {
    /// Wire format.
    type Proto: prost::Message + Default;

    /// Returns the message in its wire format.
    fn to_proto(&self) -> Self::Proto;

    /// Returns the message, if its wire format is valid.
    fn from_proto(proto: Self::Proto) -> Result<Self, WireError>;
}

/// Encodes a message.
///
/// # Errors
/// `Limit` if the message is larger than [`MESSAGE_BYTES_MAX`]: the transfer has too much data for
/// it, and fails.
pub(crate) fn encode<M: WireMessage>(message: &M) -> Result<Vec<u8>, WireError> {
    let proto = message.to_proto();
    let bytes = proto.encoded_len();
    if bytes > MESSAGE_BYTES_MAX {
        let (value, limit) = (bytes as u64, MESSAGE_BYTES_MAX as u64);
        return Err(WireError::Limit { field: "the size of a message", value, limit });
    }
    Ok(proto.encode_to_vec())
}

/// Returns the encoded size of a message.
pub(crate) fn size<M: WireMessage>(message: &M) -> usize {
    message.to_proto().encoded_len()
}

/// Decodes a message. Size and count are checked before anything is allocated.
pub(crate) fn decode<M: WireMessage>(bytes: &[u8]) -> Result<M, WireError> {
    scan::check(bytes)?;
    M::from_proto(M::Proto::decode(bytes).map_err(|_| WireError::Malformed)?)
}

/// Self-description of a node, sent in the handshake of its control connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NodeAdvert {
    /// Name and version of the program.
    pub(crate) software: String,
    /// Rails in the order of their indices: one for each thread of each NIC.
    pub(crate) rails: Vec<RailAdvert>,
    /// CPUs that it may use.
    pub(crate) cores: u32,
    /// The kernel's boot id: two nodes with the same one share a machine.
    pub(crate) boot_id: String,
    /// Differs between two runs of the node process.
    pub(crate) incarnation: u64,
}

impl NodeAdvert {
    /// Returns its NICs, as the first rail of each: the threads of one NIC are rails that share its
    /// name and its speed.
    pub(crate) fn nics(&self) -> impl Iterator<Item = &RailAdvert> {
        let is_first =
            |at: usize| self.rails[..at].iter().all(|earlier| earlier.nic != self.rails[at].nic);
        self.rails.iter().enumerate().filter(move |(at, _)| is_first(*at)).map(|(_, rail)| rail)
    }
}

/// One thread of a NIC, and the address at which it accepts data flows. Threads of one NIC differ
/// only in the port, or share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RailAdvert {
    /// The interface's name.
    pub(crate) nic: String,
    /// Address for data flows.
    pub(crate) address: SocketAddr,
    /// Speed of the NIC, if the kernel knows it.
    pub(crate) line: Option<BitRate>,
    /// The largest packet, in bytes.
    pub(crate) mtu: Option<u32>,
    /// The NUMA node that the NIC is attached to.
    pub(crate) numa: Option<u32>,
}

/// Message from the master to a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ToNode {
    /// Open the data, create rails and slots.
    Prepare(Prepare),
    /// The plan, or a newer one.
    Start(Start),
    /// All receivers have landed everything: rename the files.
    Commit,
    /// No more work: report, and forget the transfer.
    Finish,
    /// Stop, and keep what can be resumed.
    Cancel {
        /// Reason, for the log.
        reason: String,
        /// Landed bytes cannot be trusted: keep nothing.
        forgets: bool,
    },
    /// First message on a session that replaces a broken one.
    Resume(ResumeSession),
    /// Another attempt begins: end earlier attempts without a master, which may write to files that
    /// another node is about to open. `Prepare` follows, even if this message is lost.
    MakeWay {
        /// The transfer's name: the specification's `id` line.
        id: String,
    },
    /// Answer questions about paths. No transfer begins with it.
    Survey(Vec<SurveyQuestion>),
    /// A receiver does not reach this node: open a flow to it.
    Called {
        /// The flow.
        call: FlowCall,
        /// The receiver.
        receiver: PeerNode,
    },
}

impl ToNode {
    /// Returns true if the message is counted, and sent again on a new session if it was not
    /// received on the old one.
    pub(crate) fn is_counted(&self) -> bool {
        !matches!(self, ToNode::MakeWay { .. } | ToNode::Resume(_) | ToNode::Called { .. })
    }
}

/// Session to resume, and the messages received on it so far.
///
/// Both sides count the messages they receive, except `Progress`, `Comparing`, `Resume`, `Resumed`,
/// `MakeWay`, `Call` and `Called`, and send those again that the other side has not received. So a
/// session may break at any point, and each message is received exactly once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ResumeSession {
    /// The transfer.
    pub(crate) transfer: [u8; 16],
    /// The attempt at it.
    pub(crate) attempt: [u8; 16],
    /// Number of the node's messages that the master has received.
    pub(crate) heard: u32,
}

/// Parameters with which a node prepares for a transfer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Prepare {
    /// The transfer.
    pub(crate) transfer: [u8; 16],
    /// The transfer's name: the specification's `id` line.
    pub(crate) id: String,
    /// This attempt at it; it fences off earlier ones.
    pub(crate) attempt: [u8; 16],
    /// Key that data flows authenticate with.
    pub(crate) flow_key: FlowKey,
    /// The node's own index.
    pub(crate) node_index: u32,
    /// The node's rows.
    pub(crate) rows: Vec<WireRow>,
    /// Options of the data path.
    pub(crate) options: WireOptions,
    /// Offered ranges that are compared with other sources: ascending and disjoint.
    pub(crate) replicas: Vec<ReplicaRange>,
    /// True if the node's files are renamed only with `Commit`: another receiver may turn out to
    /// have received other bytes.
    pub(crate) names_wait: bool,
    /// Names of the NICs that the node uses; all of them where there is none.
    pub(crate) nics: Vec<String>,
}

/// The key that the data flows of one transfer authenticate with. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FlowKey(pub(crate) [u8; 32]);

impl Drop for FlowKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowKey(…)")
    }
}

/// A row of the specification for one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireRow {
    /// Sender or receiver.
    pub(crate) role: RowRole,
    /// Location of the bytes, as in the specification.
    pub(crate) uri: String,
    /// Byte `x` of `span` lies at `offset_bytes + (x - span.start)` of the data.
    pub(crate) offset_bytes: u64,
    /// The range of the data space; never empty.
    pub(crate) span: Span,
    /// Role of the node for a shared file.
    pub(crate) sharing: FileSharing,
    /// Name of the node, with which it claims the file: rows of other nodes may name the same file
    /// by another URI. Empty if no row can.
    pub(crate) claimant: String,
}

/// Role of a node for a row's file: which one creates, sizes and renames it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileSharing {
    /// No other row writes the file.
    Alone,
    /// Other rows write the file, too, and this one creates it.
    Elected {
        /// Size of the file if all of these rows write to this very file.
        file_bytes: u64,
    },
    /// Another row creates the file.
    Member,
}

/// A plan for one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Start {
    /// The plan's version.
    pub(crate) epoch: u32,
    /// Nodes that this node communicates with, each index once.
    pub(crate) peers: Vec<PeerNode>,
    /// Segments to receive, with their senders: sorted and disjoint; empty for a node that only
    /// sends.
    pub(crate) segments: Vec<PlanSegment>,
    /// Ranges that are known to be zeros: sorted and disjoint.
    pub(crate) holes: Vec<Span>,
    /// This node's share of the transfer's rate limit; 0 without a limit.
    pub(crate) limit_bytes_per_second: u64,
    /// Lower bound of the plan's duration; 0 if unknown.
    pub(crate) bound_us: u64,
    /// Ranges that other receivers will request from this node, once they have landed here: sorted
    /// and disjoint.
    pub(crate) relays: Vec<Span>,
    /// Ranges of an earlier attempt that are still valid at the node: sorted and disjoint.
    pub(crate) kept: Vec<Span>,
    /// Ranges that the senders among the peers offer, with the state of their sources.
    pub(crate) origins: Vec<OfferedSource>,
    /// True if nothing of the files that this node shares with others is kept for another attempt.
    pub(crate) forgets: bool,
    /// Permissions of the files of the node's rows, before its umask; ignored for rows that offer.
    /// Empty if the node only sends.
    pub(crate) modes: Vec<u32>,
    /// Present if a newer plan may have more segments for this node: it reports its progress as
    /// soon as no more than so many bytes of its segments are left. Without it there are no more.
    pub(crate) more_at: Option<u64>,
}

/// Source of a range, and its state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct SourceOrigin {
    /// Hash of the sender's name and the data's URI.
    pub(crate) who: u64,
    /// Hash of the source's size, time of last change, and identity.
    pub(crate) state: u64,
}

/// A range that a sender offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OfferedSource {
    /// The index of the sender.
    pub(crate) index: u32,
    /// The range; never empty.
    pub(crate) span: Span,
    pub(crate) origin: SourceOrigin,
}

/// A range that a receiver has from an earlier attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeptRanges {
    /// The range; never empty.
    pub(crate) span: Span,
    pub(crate) origin: SourceOrigin,
}

/// Another node of the transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PeerNode {
    /// Its index.
    pub(crate) index: u32,
    /// Its name, for messages.
    pub(crate) name: String,
    /// Addresses of its rails, in the order of their indices.
    pub(crate) rails: Vec<SocketAddr>,
    /// True if it relays pieces, so that a request may wait until the piece has landed there.
    pub(crate) relays: bool,
    /// Address on the machine of the node that is told, which leads to the peer through the
    /// launcher's own session with the peer's host.
    pub(crate) channel: Option<SocketAddr>,
}

/// One segment of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlanSegment {
    /// The range; never empty.
    pub(crate) span: Span,
    /// Nodes that offer it, at least one; each is one of the plan's peers, or the node itself.
    pub(crate) senders: Vec<SenderShare>,
}

/// A sender's share of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SenderShare {
    /// The index of the sender.
    pub(crate) index: u32,
    /// Its weight compared with the others; a sender of weight 0 is asked only if all others fail.
    pub(crate) weight: u32,
}

/// Message from a node to the master.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ToMaster {
    /// Ready, or not.
    Prepared(Prepared),
    /// Progress of the node.
    Progress {
        /// Bytes received and kept.
        received_bytes: u64,
        /// Bytes sent.
        sent_bytes: u64,
        /// Bytes received from each sender so far.
        delivered: Vec<SenderDelivery>,
        /// Remaining bytes of each segment of its part of the plan; empty if there are more than
        /// [`LEFT_MAX`](super::limits::LEFT_MAX) segments.
        left: Vec<u64>,
        /// Bytes of its segments that no sender is left for.
        missing_bytes: u64,
        /// Flows that were lost since the last report.
        lost: Vec<FlowLoss>,
    },
    /// The node still prepares: it compares replicas, or reads data of an earlier attempt.
    Comparing {
        /// Bytes that it has read for that.
        read_bytes: u64,
    },
    /// All bytes that the node wanted are written.
    Landed {
        /// Written ranges with their checks: sorted and disjoint.
        segments: Vec<LandedSegment>,
        /// Statistics of the node.
        stats: NodeStats,
    },
    /// The answer to `Finish`.
    Report(NodeStats),
    /// The answer to `Commit`.
    Committed,
    /// The node cannot continue.
    Failed {
        /// Cause of the failure.
        error: Error,
        /// Statistics until then, if the node had started and sends nothing more after this.
        stats: Option<Box<NodeStats>>,
    },
    /// The answer to `Resume`. Messages that the master has not received follow.
    Resumed {
        /// Number of the master's messages that the node has received.
        heard: u32,
    },
    /// One answer for each question of a `Survey`, in their order.
    Surveyed(Vec<SurveyAnswer>),
    /// A sender cannot be reached: have it open a flow to this node.
    Call(FlowCall),
}

/// Bytes that one sender has delivered to a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SenderDelivery {
    /// The index of the sender.
    pub(crate) index: u32,
    /// Bytes that arrived from it so far.
    pub(crate) bytes: u64,
    /// True if more will be requested of it.
    pub(crate) busy: bool,
    /// Delivery while it was never out of requests.
    pub(crate) sample: SpeedSample,
}

/// Delivery of a sender while it was never out of requests of a receiver: what it brings at best.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SpeedSample {
    /// Bytes that arrived, and the time that they took. Both only grow.
    pub(crate) bytes: u64,
    pub(crate) micros: u64,
    /// Time since the last of them, if it still has requests; else 0.
    pub(crate) waiting_micros: u64,
}

impl ToMaster {
    /// Returns true if the message says by itself that its node comes along: others only do by what
    /// has landed.
    pub(crate) fn is_news(&self) -> bool {
        use ToMaster::{Call, Comparing, Progress};
        !matches!(self, Progress { .. } | Comparing { .. } | Call(_))
    }

    /// Returns true if the message is counted, and sent again on a new session if it was not
    /// received on the old one.
    pub(crate) fn is_counted(&self) -> bool {
        !matches!(
            self,
            ToMaster::Progress { .. }
                | ToMaster::Comparing { .. }
                | ToMaster::Resumed { .. }
                | ToMaster::Surveyed(_)
                | ToMaster::Call(_)
        )
    }
}

/// A node's answer to `Prepare`.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Prepared {
    /// One state per row, in the order of the rows.
    pub(crate) rows: Vec<RowState>,
    /// Ranges of its sources that are holes, in the data space: sorted, apart from each other.
    pub(crate) holes: Vec<Span>,
    /// Reason why it is not ready.
    pub(crate) error: Option<Error>,
    /// State of the source of each row, 0 for rows that receive; or empty.
    pub(crate) states: Vec<u64>,
    /// Ranges of an earlier attempt.
    pub(crate) have: Vec<KeptRanges>,
    /// True if the journals of these ranges can only have been written by the node's user.
    pub(crate) sealed: bool,
    /// Notes for people: a sentence each.
    pub(crate) notes: Vec<String>,
    /// Check values of the compared ranges, range after range.
    pub(crate) replicas: Vec<u64>,
    /// Type and permissions of the source of each row, as in `st_mode`; 0 for a pattern, and for
    /// rows that receive. Or empty.
    pub(crate) modes: Vec<u32>,
}

/// State of a row at its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RowState {
    /// Another node writes the same file.
    pub(crate) shared: bool,
    /// True if bytes written to it are kept for another attempt.
    pub(crate) kept: bool,
    /// True if an earlier attempt has completed it: nothing is written to it unless it is replaced.
    pub(crate) complete: bool,
}

/// Request of `status` and `cancel` to a running master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MasterQuery {
    /// Report the progress.
    Status,
    /// Cancel the transfer.
    Cancel,
}

/// The master's answer to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct QueryAnswer {
    /// The state of the transfer as one JSON object.
    pub(crate) json: String,
}

#[cfg(test)]
mod tests;
