//! Control messages in their wire format (Protocol Buffers, version 3), not yet validated.
//!
//! Tags are never reused. Lists of messages are at most one level below the top, so that `scan` can
//! count them. Lists of spans are flat lists of numbers: start and length, start and length.

mod flow;

use prost::{Message, Oneof};
use zeroize::Zeroize;

pub(crate) use flow::{Call, FlowHello, FlowReply};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Advert {
    #[prost(string, tag = "1")]
    pub(crate) software: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) rails: Vec<Rail>,
    #[prost(uint32, tag = "3")]
    pub(crate) cores: u32,
    #[prost(string, tag = "4")]
    pub(crate) boot_id: String,
    #[prost(fixed64, tag = "5")]
    pub(crate) incarnation: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Rail {
    #[prost(string, tag = "1")]
    pub(crate) nic: String,
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) line_bits_per_second: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(crate) mtu: Option<u32>,
    #[prost(uint32, optional, tag = "5")]
    pub(crate) numa: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToNode {
    #[prost(oneof = "ToNodeKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(crate) kind: Option<ToNodeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum ToNodeKind {
    #[prost(message, tag = "1")]
    Prepare(Prepare),
    #[prost(message, tag = "2")]
    Start(Start),
    #[prost(message, tag = "3")]
    Commit(Empty),
    #[prost(message, tag = "4")]
    Finish(Empty),
    #[prost(string, tag = "5")]
    Cancel(String),
    #[prost(message, tag = "6")]
    Resume(Resume),
    #[prost(string, tag = "7")]
    MakeWay(String),
    #[prost(string, tag = "8")]
    CancelAndForget(String),
    #[prost(message, tag = "9")]
    Survey(Survey),
    #[prost(message, tag = "10")]
    Called(Called),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

/// A call on its way to the sender.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Called {
    #[prost(message, optional, tag = "1")]
    pub(crate) call: Option<Call>,
    /// The receiver.
    #[prost(message, optional, tag = "2")]
    pub(crate) receiver: Option<Peer>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Resume {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) transfer: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) attempt: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub(crate) heard: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Prepare {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) transfer: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) attempt: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) flow_key: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub(crate) node_index: u32,
    #[prost(message, repeated, tag = "6")]
    pub(crate) rows: Vec<Row>,
    #[prost(message, optional, tag = "7")]
    pub(crate) options: Option<Options>,
    /// For each compared range: start, length, places (0 for all) and the largest number of values.
    #[prost(uint64, repeated, tag = "8")]
    pub(crate) replicas: Vec<u64>,
    #[prost(bool, tag = "9")]
    pub(crate) names_wait: bool,
    #[prost(string, repeated, tag = "10")]
    pub(crate) nics: Vec<String>,
}

impl Drop for Prepare {
    fn drop(&mut self) {
        self.flow_key.zeroize();
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Row {
    /// 1 sender, 2 receiver.
    #[prost(uint32, tag = "1")]
    pub(crate) role: u32,
    #[prost(string, tag = "2")]
    pub(crate) uri: String,
    #[prost(uint64, tag = "3")]
    pub(crate) offset_bytes: u64,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) span: Vec<u64>,
    /// 1 alone, 2 elected, 3 member.
    #[prost(uint32, tag = "5")]
    pub(crate) sharing: u32,
    #[prost(uint64, optional, tag = "6")]
    pub(crate) file_bytes: Option<u64>,
    #[prost(string, tag = "7")]
    pub(crate) claimant: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    #[prost(uint32, tag = "1")]
    pub(crate) block_bytes: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) origin: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) check: u32,
    #[prost(bool, tag = "4")]
    pub(crate) fsync: bool,
    #[prost(bool, tag = "5")]
    pub(crate) overwrite: bool,
    #[prost(bool, tag = "6")]
    pub(crate) resume: bool,
    #[prost(uint32, optional, tag = "7")]
    pub(crate) slots: Option<u32>,
    #[prost(uint64, tag = "8")]
    pub(crate) stall_timeout_ms: u64,
    /// One pair, or empty.
    #[prost(uint64, repeated, tag = "9")]
    pub(crate) object: Vec<u64>,
    #[prost(uint32, optional, tag = "10")]
    pub(crate) rails_max: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    pub(crate) threads_max: Option<u32>,
    /// 0 auto, 1 direct, 2 splice, 3 zerocopy, 4 copy.
    #[prost(uint32, tag = "12")]
    pub(crate) path: u32,
    #[prost(bool, tag = "14")]
    pub(crate) verify: bool,
    /// 1 clear, 2 signed, 3 sealed; absent for sealed between hosts, clear on loopback.
    #[prost(uint32, optional, tag = "15")]
    pub(crate) wire: Option<u32>,
    /// 1 AES-256-GCM, 2 ChaCha20-Poly1305; absent for the fastest that both ends have.
    #[prost(uint32, optional, tag = "16")]
    pub(crate) cipher: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Start {
    #[prost(uint32, tag = "1")]
    pub(crate) epoch: u32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) peers: Vec<Peer>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) segments: Vec<PlanSegment>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) holes: Vec<u64>,
    /// 0 for none.
    #[prost(uint64, tag = "5")]
    pub(crate) limit_bytes_per_second: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) bound_us: u64,
    #[prost(uint64, repeated, tag = "7")]
    pub(crate) relays: Vec<u64>,
    #[prost(uint64, repeated, tag = "20")]
    pub(crate) kept: Vec<u64>,
    /// For each offer: the sender's index, start and length.
    #[prost(uint64, repeated, tag = "21")]
    pub(crate) offers: Vec<u64>,
    /// For each offer: hashes of its source and of the source's state.
    #[prost(fixed64, repeated, tag = "22")]
    pub(crate) origins: Vec<u64>,
    #[prost(bool, tag = "24")]
    pub(crate) forgets: bool,
    /// One number per row, or empty.
    #[prost(uint32, repeated, tag = "30")]
    pub(crate) modes: Vec<u32>,
    #[prost(uint64, optional, tag = "31")]
    pub(crate) more_at: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Peer {
    #[prost(uint32, tag = "1")]
    pub(crate) index: u32,
    /// If it begins with a colon, the first rail's address is prepended.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// For each rail: the size of its IP address in bytes, the address, and two bytes for the port.
    /// A plan may have thousands of them, and a list of messages would be nested too deeply.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) rails: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub(crate) relays: bool,
    /// One address in the form of `rails`, or nothing.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) channel: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PlanSegment {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) span: Vec<u64>,
    #[prost(uint32, repeated, tag = "2")]
    pub(crate) indices: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) weights: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Survey {
    #[prost(message, repeated, tag = "1")]
    pub(crate) questions: Vec<SurveyQuestion>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SurveyQuestion {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) path: Vec<u8>,
    /// 1 source, 2 destination, 3 make a token, 4 find it, 5 remove it, 6 diagnosis.
    #[prost(uint32, tag = "2")]
    pub(crate) subject: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) token: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Surveyed {
    #[prost(message, repeated, tag = "1")]
    pub(crate) answers: Vec<SurveyAnswer>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SurveyAnswer {
    /// 1 source, 2 destination, 3 directory there, 4 token, 5 no token, 6 failed, 7 diagnosis.
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) path: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(crate) bytes: u64,
    #[prost(sint64, tag = "4")]
    pub(crate) modified_seconds: i64,
    #[prost(fixed64, optional, tag = "5")]
    pub(crate) identity: Option<u64>,
    /// As in `Failure`.
    #[prost(uint32, tag = "6")]
    pub(crate) code: u32,
    #[prost(string, tag = "7")]
    pub(crate) message: String,
    #[prost(string, optional, tag = "8")]
    pub(crate) remedy: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToMaster {
    #[prost(oneof = "ToMasterKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(crate) kind: Option<ToMasterKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum ToMasterKind {
    #[prost(message, tag = "1")]
    Prepared(Prepared),
    #[prost(message, tag = "2")]
    Progress(Progress),
    #[prost(message, tag = "3")]
    Landed(Landed),
    #[prost(message, tag = "4")]
    Report(Stats),
    #[prost(message, tag = "5")]
    Committed(Empty),
    #[prost(message, tag = "6")]
    Failed(Failure),
    #[prost(uint32, tag = "7")]
    Resumed(u32),
    #[prost(uint64, tag = "8")]
    Comparing(u64),
    #[prost(message, tag = "9")]
    Surveyed(Surveyed),
    #[prost(message, tag = "10")]
    Call(Call),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Prepared {
    /// Of each row: bit 0 for a shared file, 1 for one of which this node keeps its part, 2 for one
    /// that an earlier attempt has completed.
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) rows: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) holes: Vec<u64>,
    #[prost(message, optional, tag = "3")]
    pub(crate) error: Option<Failure>,
    /// One number per row, or empty.
    #[prost(fixed64, repeated, tag = "20")]
    pub(crate) states: Vec<u64>,
    /// For each range: start, length, and hashes of its source and of the source's state.
    #[prost(uint64, repeated, tag = "21")]
    pub(crate) have: Vec<u64>,
    /// One text of lines.
    #[prost(string, tag = "22")]
    pub(crate) notes: String,
    /// Check values of the compared ranges.
    #[prost(fixed64, repeated, tag = "23")]
    pub(crate) replicas: Vec<u64>,
    /// One number per row, or empty.
    #[prost(uint32, repeated, tag = "30")]
    pub(crate) modes: Vec<u32>,
    #[prost(bool, tag = "31")]
    pub(crate) sealed: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Progress {
    #[prost(uint64, tag = "1")]
    pub(crate) received_bytes: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) sent_bytes: u64,
    /// For each sender: twice its index, plus one if more will be requested of it; its bytes.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) delivered: Vec<u64>,
    /// Remaining bytes of each segment of the node's part of the plan.
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) left: Vec<u64>,
    /// Bytes of its part that no sender is left for.
    #[prost(uint64, tag = "5")]
    pub(crate) missing_bytes: u64,
    /// Three numbers for each sender, in the order of `delivered`: bytes that arrived while it was
    /// never out of requests, the microseconds that they took, and the microseconds since the last.
    /// Empty if nothing was measured.
    #[prost(uint64, repeated, tag = "6")]
    pub(crate) samples: Vec<u64>,
    /// Flows that broke, or could not be opened, since the last report.
    #[prost(message, repeated, tag = "7")]
    pub(crate) lost: Vec<FlowLoss>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FlowLoss {
    #[prost(string, tag = "1")]
    pub(crate) nic: String,
    #[prost(string, tag = "2")]
    pub(crate) peer: String,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Landed {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) segments: Vec<u64>,
    /// Number of checks of each segment; `u32::MAX` if its checks are folded.
    #[prost(uint32, repeated, tag = "2")]
    pub(crate) check_counts: Vec<u32>,
    /// Folds of those segments, 32 bytes each.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) folds: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) checks: Vec<CheckValue>,
    #[prost(message, optional, tag = "4")]
    pub(crate) stats: Option<Stats>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckValue {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) span: Vec<u64>,
    #[prost(fixed64, optional, tag = "2")]
    pub(crate) crc64: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(crate) blake3: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stats {
    #[prost(uint64, tag = "1")]
    pub(crate) received_bytes: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) sent_bytes: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) wasted_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) stolen_bytes: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) retries: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) active_ns: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) cpu_ns: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) memory_bytes_max: u64,
    /// NIC names, separated by spaces: a list of messages would be nested too deeply.
    #[prost(string, tag = "9")]
    pub(crate) rail_nics: String,
    /// Bytes sent and received, rail after rail.
    #[prost(uint64, repeated, tag = "10")]
    pub(crate) rail_bytes: Vec<u64>,
    /// Bytes counted by the NICs, sent and received, rail after rail; or empty.
    #[prost(uint64, repeated, tag = "12")]
    pub(crate) rail_counted_bytes: Vec<u64>,
    /// One text of lines, two for each rail: its data path, and the driver of its operations.
    #[prost(string, tag = "11")]
    pub(crate) rail_paths: String,
    #[prost(uint64, tag = "20")]
    pub(crate) resumed_bytes: u64,
    /// One text of lines, one for each sentence.
    #[prost(string, tag = "21")]
    pub(crate) warnings: String,
    #[prost(uint64, tag = "22")]
    pub(crate) room_ns: u64,
    #[prost(uint64, tag = "23")]
    pub(crate) commit_ns: u64,
    #[prost(uint32, tag = "24")]
    pub(crate) epoch: u32,
    /// Of each rail: the level of its least protected flow, and its cipher from bit 8 on; or 0.
    #[prost(uint32, repeated, tag = "25")]
    pub(crate) rail_wires: Vec<u32>,
    #[prost(uint64, repeated, tag = "26")]
    pub(crate) load: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Failure {
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) remedy: Option<String>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) missing: Vec<u64>,
    #[prost(message, optional, tag = "5")]
    pub(crate) stats: Option<Stats>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Query {
    /// 1 status, 2 cancel.
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(string, tag = "1")]
    pub(crate) json: String,
}
