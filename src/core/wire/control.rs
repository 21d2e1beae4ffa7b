//! Control messages as the rest of the program sees them: plain data that cannot be nonsense.
//!
//! The pure engine, the two processes and the simulator share these types. A transfer without
//! incident costs a node four of them: `Prepare` and `Start` come in, `Prepared` and `Landed` go
//! out. How they look on the wire is in `proto`; `convert` ties the two together and refuses what
//! has no meaning.

mod landed;
mod options;
mod replicas;
mod stats;

use std::fmt;
use std::net::SocketAddr;

use prost::Message as _;
use zeroize::Zeroize;

use super::limits::MESSAGE_BYTES_MAX;
use super::{WireError, scan};
use crate::core::error::Error;
use crate::core::spec::RowRole;
use crate::core::units::{BitRate, Span};

pub(crate) use landed::{CheckValue, LandedSegment, SegmentChecks};
pub(crate) use options::WireOptions;
pub(crate) use replicas::ReplicaRange;
pub(crate) use stats::{NodeStats, RailStats};

/// A typed message and the form that it has on the wire.
pub(crate) trait WireMessage: Sized {
    /// The form on the wire.
    type Proto: prost::Message + Default;

    /// The form on the wire of this message.
    fn to_proto(&self) -> Self::Proto;

    /// The message, if the form on the wire has a meaning.
    fn from_proto(proto: Self::Proto) -> Result<Self, WireError>;
}

/// The bytes of a message.
///
/// # Errors
/// `Limit` where the message is larger than [`MESSAGE_BYTES_MAX`]: data has made it so, and its
/// transfer fails.
pub(crate) fn encode<M: WireMessage>(message: &M) -> Result<Vec<u8>, WireError> {
    let proto = message.to_proto();
    let bytes = proto.encoded_len();
    if bytes > MESSAGE_BYTES_MAX {
        let (value, limit) = (bytes as u64, MESSAGE_BYTES_MAX as u64);
        return Err(WireError::Limit { field: "the size of a message", value, limit });
    }
    Ok(proto.encode_to_vec())
}

/// How many bytes a message would take.
pub(crate) fn size<M: WireMessage>(message: &M) -> usize {
    message.to_proto().encoded_len()
}

/// The message that `bytes` hold. Size and count are checked before anything is allocated.
pub(crate) fn decode<M: WireMessage>(bytes: &[u8]) -> Result<M, WireError> {
    scan::check(bytes)?;
    M::from_proto(M::Proto::decode(bytes).map_err(|_| WireError::Malformed)?)
}

/// What a node says of itself in the handshake of its control connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NodeAdvert {
    /// Name and version of the program.
    pub(crate) software: String,
    /// What it moves data over, in the order of their indices: one for each thread of each NIC.
    pub(crate) rails: Vec<RailAdvert>,
    /// CPUs that it may use.
    pub(crate) cores: u32,
    /// The kernel's boot id: two nodes with the same one share a machine.
    pub(crate) boot_id: String,
    /// Differs between two lives of the node process.
    pub(crate) incarnation: u64,
}

impl NodeAdvert {
    /// Its NICs, as the first rail of each: the threads of one NIC are rails that share its name,
    /// and its line.
    pub(crate) fn nics(&self) -> impl Iterator<Item = &RailAdvert> {
        let is_first =
            |at: usize| self.rails[..at].iter().all(|earlier| earlier.nic != self.rails[at].nic);
        self.rails.iter().enumerate().filter(move |(at, _)| is_first(*at)).map(|(_, rail)| rail)
    }
}

/// One thread of a NIC of a node, and where its data flows are accepted. Threads of one NIC differ
/// in the port alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RailAdvert {
    /// The interface's name.
    pub(crate) nic: String,
    /// Where it listens for data flows.
    pub(crate) address: SocketAddr,
    /// The NIC's speed, where the kernel knows it.
    pub(crate) line: Option<BitRate>,
    /// The largest packet, in bytes.
    pub(crate) mtu: Option<u32>,
    /// The NUMA node that the NIC is attached to.
    pub(crate) numa: Option<u32>,
}

/// The first words on a data flow, sealed by the transfer's flow key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FlowHello {
    /// The transfer that the flow is for.
    pub(crate) transfer: [u8; 16],
    /// The attempt at it.
    pub(crate) attempt: [u8; 16],
    /// The index of the node that dials.
    pub(crate) from_node: u32,
    /// The index of the node that it means to reach.
    pub(crate) to_node: u32,
    /// The rail of the node that dials.
    pub(crate) rail: u32,
    /// How many bytes the plan wants over this flow: its weight against those of other receivers.
    pub(crate) weight_bytes: u64,
    /// The sender shall send no faster than this on the flow; 0 for as fast as it goes.
    pub(crate) pace_bytes_per_second: u64,
    /// Flows of this rail pair that shook hands before and then were silent: none of them has
    /// brought anything.
    pub(crate) silent_flows: u32,
}

/// What the master tells a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ToNode {
    /// Get ready: open the data, make the rails and the slots.
    Prepare(Prepare),
    /// Here is the plan, or a newer one.
    Start(Start),
    /// Everybody has landed everything: give the files their final names.
    Commit,
    /// No more work: report and forget.
    Finish,
    /// Stop, keep what can be resumed.
    Cancel {
        /// Why, for the log.
        reason: String,
        /// What has landed is not to be believed: keep nothing of it.
        forgets: bool,
    },
    /// The first words on a session that takes the place of one that broke.
    Resume(ResumeSession),
    /// Another attempt begins: end earlier ones that have no master any more, which may write to
    /// files that another node is about to open. Heard or not, `Prepare` follows.
    MakeWay {
        /// The transfer's name: the specification's `id` line.
        id: String,
    },
}

/// Whose session it is that goes on, and how far it came.
///
/// Both sides count what they hear of each other, but for `Progress`, `Comparing`, `Resume`,
/// `Resumed` and `MakeWay`, and say again what the other has not heard. So a session may break at
/// any point, and none of its messages is lost or heard twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ResumeSession {
    /// The transfer.
    pub(crate) transfer: [u8; 16],
    /// The attempt at it.
    pub(crate) attempt: [u8; 16],
    /// How many of the node's messages the master has heard.
    pub(crate) heard: u32,
}

/// What a node needs to get ready.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Prepare {
    /// The transfer.
    pub(crate) transfer: [u8; 16],
    /// The transfer's name: the specification's `id` line.
    pub(crate) id: String,
    /// This attempt at it; it fences the ones before.
    pub(crate) attempt: [u8; 16],
    /// What data flows prove.
    pub(crate) flow_key: FlowKey,
    /// The node's own index.
    pub(crate) node_index: u32,
    /// The node's rows.
    pub(crate) rows: Vec<WireRow>,
    /// How to move the bytes.
    pub(crate) options: WireOptions,
    /// Ranges of the rows that offer which are compared with other sources: ascending, apart from
    /// each other.
    pub(crate) replicas: Vec<ReplicaRange>,
    /// Whether the node's files get their names only with `Commit`: another receiver may turn out
    /// to have received other bytes.
    pub(crate) names_wait: bool,
}

/// The key that the data flows of one transfer prove. It does not show itself when printed.
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

/// A row as a node needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireRow {
    /// Offers or wants.
    pub(crate) role: RowRole,
    /// Where the bytes are, as the specification writes it.
    pub(crate) uri: String,
    /// Byte `x` of `span` lies at `offset_bytes + (x - span.start)` of the data.
    pub(crate) offset_bytes: u64,
    /// The range of the data space; never empty.
    pub(crate) span: Span,
    /// Who makes the file.
    pub(crate) sharing: FileSharing,
    /// The node's name, which it claims the file with: rows of other nodes may name the same file
    /// by another URI. Empty where none can.
    pub(crate) claimant: String,
}

/// Who makes, sizes and renames the file of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileSharing {
    /// No other row writes it.
    Alone,
    /// Other rows write it too, and this one makes it.
    Elected {
        /// How large it will be.
        file_bytes: u64,
    },
    /// Another row makes it.
    Member,
}

/// A plan as one node needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    /// The plan's version.
    pub(crate) epoch: u32,
    /// The nodes that this one will speak to, each index once.
    pub(crate) peers: Vec<PeerNode>,
    /// What to pull, and from whom: sorted, apart from each other; empty for a node that only
    /// sends.
    pub(crate) segments: Vec<PlanSegment>,
    /// Ranges that are known to be zeros: sorted, apart from each other.
    pub(crate) holes: Vec<Span>,
    /// This node's part of the transfer's limit; 0 where there is none.
    pub(crate) limit_bytes_per_second: u64,
    /// How long the plan takes at best; 0 where that is not known.
    pub(crate) bound_us: u64,
    /// What other receivers will ask this node for, once it has landed here: sorted, apart from
    /// each other.
    pub(crate) relays: Vec<Span>,
    /// What the node has from an earlier attempt and is still good: sorted, apart from each other.
    pub(crate) kept: Vec<Span>,
    /// What the senders among the peers offer, and what their sources look like.
    pub(crate) origins: Vec<OfferedSource>,
    /// Whether nothing of the files that this node shares with others is kept for another attempt.
    pub(crate) forgets: bool,
    /// The permissions that the files of the node's rows will have, as far as its umask allows; of
    /// no meaning for rows that offer. Nothing where the node only sends.
    pub(crate) modes: Vec<u32>,
}

/// Which source a range came from, and what that looked like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct SourceOrigin {
    /// The hash of the sender's name and the data's URI.
    pub(crate) who: u64,
    /// The hash of the source's size, time of last change, and identity.
    pub(crate) state: u64,
}

/// What a sender offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OfferedSource {
    /// The index of the sender.
    pub(crate) index: u32,
    /// The range; never empty.
    pub(crate) span: Span,
    pub(crate) origin: SourceOrigin,
}

/// What a receiver has from an earlier attempt.
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
    /// Where its rails listen, in the order of their indices.
    pub(crate) rails: Vec<SocketAddr>,
    /// Whether it passes on what it receives, so that it may have to wait for what it is asked for.
    pub(crate) relays: bool,
}

/// One segment of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlanSegment {
    /// The range; never empty.
    pub(crate) span: Span,
    /// Who has it, one at least; each is one of the plan's peers, or the node itself.
    pub(crate) senders: Vec<SenderShare>,
}

/// A sender's share of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SenderShare {
    /// The index of the sender.
    pub(crate) index: u32,
    /// Its weight against those of the others; 0 is asked only when all else fails.
    pub(crate) weight: u32,
}

/// What a node tells the master.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ToMaster {
    /// Ready, or not.
    Prepared(Prepared),
    /// How far it is.
    Progress {
        /// Bytes that arrived and were kept.
        received_bytes: u64,
        /// Bytes that were sent.
        sent_bytes: u64,
        /// Bytes that arrived from each sender so far.
        delivered: Vec<SenderDelivery>,
        /// Bytes that have not landed, of each segment of its part of the plan; nothing where there
        /// are more than [`LEFT_MAX`](super::limits::LEFT_MAX) segments.
        left: Vec<u64>,
    },
    /// The node still gets ready: it compares replicas, or reads what an earlier attempt has left.
    Comparing {
        /// Bytes that it has read for that.
        read_bytes: u64,
    },
    /// Everything that the node wanted is written.
    Landed {
        /// What was written, with its checks: sorted, apart from each other.
        segments: Vec<LandedSegment>,
        /// What it cost.
        stats: NodeStats,
    },
    /// The answer to `Finish`.
    Report(NodeStats),
    /// The answer to `Commit`.
    Committed,
    /// The node cannot go on.
    Failed {
        /// Why.
        error: Error,
        /// What it cost until then, where it had begun and says no more after this.
        stats: Option<Box<NodeStats>>,
    },
    /// The answer to `Resume`; what the master has not heard follows.
    Resumed {
        /// How many of the master's messages the node has heard.
        heard: u32,
    },
}

/// What one sender has brought to a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SenderDelivery {
    /// The index of the sender.
    pub(crate) index: u32,
    /// Bytes that arrived from it so far.
    pub(crate) bytes: u64,
    /// Whether there is more to ask it for.
    pub(crate) busy: bool,
}

impl ToMaster {
    /// Whether the message is counted, and said again on a new session where it was not heard on
    /// the old one.
    pub(crate) fn is_counted(&self) -> bool {
        !matches!(
            self,
            ToMaster::Progress { .. } | ToMaster::Comparing { .. } | ToMaster::Resumed { .. }
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
    /// Why it is not ready.
    pub(crate) error: Option<Error>,
    /// What the source of each row looks like, 0 for rows that want; or nothing.
    pub(crate) states: Vec<u64>,
    /// What it has from an earlier attempt.
    pub(crate) have: Vec<KeptRanges>,
    /// Whether nobody but the node's user can have written what says so.
    pub(crate) sealed: bool,
    /// What people should know: a sentence each.
    pub(crate) notes: Vec<String>,
    /// Check values of the ranges that are compared, range after range.
    pub(crate) replicas: Vec<u64>,
    /// Type and permissions of the source of each row, as in `st_mode`; 0 for a pattern, and for
    /// rows that want. Or nothing.
    pub(crate) modes: Vec<u32>,
}

/// What a node found out about a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RowState {
    /// Another node writes the same file.
    pub(crate) shared: bool,
    /// Whether what this node writes to it is kept for another attempt.
    pub(crate) kept: bool,
}

/// What `status` and `cancel` ask of a running master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MasterQuery {
    /// How far is it?
    Status,
    /// Stop.
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
