//! Conversion of messages from the master to a node.

use std::collections::BTreeSet;
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::fields::{
    addresses, apart, below, key, list, name, node_index, packed, pair, pairs, required, row_span,
    shortened, span, span_of, text, text_within, within,
};
use super::survey;
use crate::core::options::{CheckKind, Cipher, DataPath, TransferOptions, WireLevel};
use crate::core::spec::RowRole;
use crate::core::units::Span;
use crate::core::wire::control::{
    FileSharing, FlowCall, FlowKey, OfferedSource, PeerNode, PlanSegment, Prepare, ReplicaRange,
    ResumeSession, SenderShare, SourceOrigin, Start, ToNode, WireMessage, WireOptions, WireRow,
};
use crate::core::wire::limits::{
    LENGTH_MAX, NODES_MAX, ORIGINS_MAX, RAILS_MAX, REPLICA_RANGES_MAX, REPLICA_VALUES_MAX,
    ROWS_MAX, SEGMENTS_MAX, SLOTS_MAX, URI_BYTES_MAX,
};
use crate::core::wire::{WireError, proto};

impl WireMessage for ToNode {
    type Proto = proto::ToNode;

    fn to_proto(&self) -> proto::ToNode {
        let kind = match self {
            ToNode::Prepare(prepare) => proto::ToNodeKind::Prepare(prepare.to_proto()),
            ToNode::Start(start) => proto::ToNodeKind::Start(start.to_proto()),
            ToNode::Commit => proto::ToNodeKind::Commit(proto::Empty {}),
            ToNode::Finish => proto::ToNodeKind::Finish(proto::Empty {}),
            ToNode::Cancel { reason, forgets: false } => {
                proto::ToNodeKind::Cancel(shortened(reason))
            }
            ToNode::Cancel { reason, forgets: true } => {
                proto::ToNodeKind::CancelAndForget(shortened(reason))
            }
            ToNode::Resume(resume) => proto::ToNodeKind::Resume(resume.to_proto()),
            ToNode::MakeWay { id } => proto::ToNodeKind::MakeWay(id.clone()),
            ToNode::Survey(questions) => {
                proto::ToNodeKind::Survey(survey::questions_to_proto(questions))
            }
            ToNode::Called { call, receiver } => proto::ToNodeKind::Called(proto::Called {
                call: Some(call.to_proto()),
                receiver: Some(receiver.to_proto()),
            }),
        };
        proto::ToNode { kind: Some(kind) }
    }

    fn from_proto(proto: proto::ToNode) -> Result<ToNode, WireError> {
        Ok(match required("the kind of a message to a node", proto.kind)? {
            proto::ToNodeKind::Prepare(prepare) => ToNode::Prepare(Prepare::from_proto(prepare)?),
            proto::ToNodeKind::Start(start) => ToNode::Start(Start::from_proto(start)?),
            proto::ToNodeKind::Commit(proto::Empty {}) => ToNode::Commit,
            proto::ToNodeKind::Finish(proto::Empty {}) => ToNode::Finish,
            proto::ToNodeKind::Cancel(reason) => cancel(reason, false)?,
            proto::ToNodeKind::CancelAndForget(reason) => cancel(reason, true)?,
            proto::ToNodeKind::Resume(resume) => ToNode::Resume(ResumeSession::from_proto(resume)?),
            proto::ToNodeKind::MakeWay(id) => {
                ToNode::MakeWay { id: text("the name of a transfer", id)? }
            }
            proto::ToNodeKind::Survey(survey) => ToNode::Survey(survey::questions(survey)?),
            proto::ToNodeKind::Called(called) => ToNode::Called {
                call: FlowCall::from_proto(required("the call", called.call)?)?,
                receiver: PeerNode::from_proto(required("the receiver", called.receiver)?)?,
            },
        })
    }
}

fn cancel(reason: String, forgets: bool) -> Result<ToNode, WireError> {
    Ok(ToNode::Cancel { reason: text("the reason of a cancel", reason)?, forgets })
}

impl WireMessage for Prepare {
    type Proto = proto::Prepare;

    fn to_proto(&self) -> proto::Prepare {
        proto::Prepare {
            transfer: self.transfer.to_vec(),
            id: self.id.clone(),
            attempt: self.attempt.to_vec(),
            flow_key: self.flow_key.0.to_vec(),
            node_index: self.node_index,
            rows: self.rows.iter().map(WireMessage::to_proto).collect(),
            options: Some(self.options.to_proto()),
            replicas: self.replicas.iter().flat_map(replica_numbers).collect(),
            names_wait: self.names_wait,
            nics: self.nics.clone(),
        }
    }

    fn from_proto(mut proto: proto::Prepare) -> Result<Prepare, WireError> {
        Ok(Prepare {
            transfer: key("the id of a transfer", &proto.transfer)?,
            id: text("the name of a transfer", take(&mut proto.id))?,
            attempt: key("the id of an attempt", &proto.attempt)?,
            flow_key: FlowKey(key("the flow key", &proto.flow_key)?),
            node_index: node_index(proto.node_index)?,
            rows: list("the rows of a node", take(&mut proto.rows), ROWS_MAX)?,
            options: WireOptions::from_proto(required("the options", proto.options.take())?)?,
            replicas: replicas(&proto.replicas)?,
            names_wait: proto.names_wait,
            nics: nics(take(&mut proto.nics))?,
        })
    }
}

fn nics(nics: Vec<String>) -> Result<Vec<String>, WireError> {
    within("the NICs of a node", nics.len(), RAILS_MAX)?;
    nics.into_iter().map(|nic| name("the name of a NIC", nic)).collect()
}

fn replica_numbers(range: &ReplicaRange) -> [u64; 4] {
    [range.span.start, range.span.bytes(), range.places.into(), range.values_max.into()]
}

fn replicas(numbers: &[u64]) -> Result<Vec<ReplicaRange>, WireError> {
    let field = "the ranges to compare";
    let (ranges, rest) = numbers.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(WireError::Contradiction { field });
    }
    within(field, ranges.len(), REPLICA_RANGES_MAX)?;
    let number =
        |number: u64| u32::try_from(number).map_err(|_| WireError::Contradiction { field });
    let one = |&[start, bytes, places, values_max]: &[u64; 4]| {
        let span = span_of(field, start, bytes)?;
        Ok(ReplicaRange { span, places: number(places)?, values_max: number(values_max)? })
    };
    let ranges: Vec<ReplicaRange> = ranges.iter().map(one).collect::<Result<_, WireError>>()?;
    let values =
        ranges.iter().fold(0_usize, |sum, range| sum.saturating_add(range.values_max as usize));
    within("the values of ranges to compare", values, REPLICA_VALUES_MAX)?;
    // A single place is not both the first and the last one.
    let is_sound = |range: &ReplicaRange| range.places != 1 && range.values_max > 0;
    let apart = ranges.is_sorted_by(|one, next| one.span.end <= next.span.start);
    if apart && ranges.iter().all(is_sound) {
        Ok(ranges)
    } else {
        Err(WireError::Contradiction { field })
    }
}

impl WireMessage for ResumeSession {
    type Proto = proto::Resume;

    fn to_proto(&self) -> proto::Resume {
        proto::Resume {
            transfer: self.transfer.to_vec(),
            attempt: self.attempt.to_vec(),
            heard: self.heard,
        }
    }

    fn from_proto(proto: proto::Resume) -> Result<ResumeSession, WireError> {
        Ok(ResumeSession {
            transfer: key("the id of a transfer", &proto.transfer)?,
            attempt: key("the id of an attempt", &proto.attempt)?,
            heard: proto.heard,
        })
    }
}

impl WireMessage for WireRow {
    type Proto = proto::Row;

    fn to_proto(&self) -> proto::Row {
        let (sharing, file_bytes) = match self.sharing {
            FileSharing::Alone => (1, None),
            FileSharing::Elected { file_bytes } => (2, Some(file_bytes)),
            FileSharing::Member => (3, None),
        };
        let role = match self.role {
            RowRole::Sender => 1,
            RowRole::Receiver => 2,
        };
        let (uri, offset_bytes, claimant) =
            (self.uri.clone(), self.offset_bytes, self.claimant.clone());
        proto::Row { role, uri, offset_bytes, span: pair(self.span), sharing, file_bytes, claimant }
    }

    fn from_proto(proto: proto::Row) -> Result<WireRow, WireError> {
        let role = match proto.role {
            1 => RowRole::Sender,
            2 => RowRole::Receiver,
            other => {
                return Err(WireError::Unknown { field: "the role of a row", value: other.into() });
            }
        };
        let sharing = match (proto.sharing, proto.file_bytes) {
            (1, None) => FileSharing::Alone,
            (2, Some(file_bytes)) => FileSharing::Elected { file_bytes },
            (3, None) => FileSharing::Member,
            _ => return Err(WireError::Contradiction { field: "the sharing of a row" }),
        };
        let span = row_span("the range of a row", &proto.span)?;
        if proto.offset_bytes.checked_add(span.bytes()).is_none() {
            return Err(WireError::Contradiction { field: "the offset of a row" });
        }
        let uri = text_within("the data URI of a row", proto.uri, URI_BYTES_MAX)?;
        let claimant = name("the claimant of a row", proto.claimant)?;
        Ok(WireRow { role, uri, offset_bytes: proto.offset_bytes, span, sharing, claimant })
    }
}

impl WireMessage for WireOptions {
    type Proto = proto::Options;

    fn to_proto(&self) -> proto::Options {
        let transfer = &self.transfer;
        proto::Options {
            block_bytes: self.block_bytes,
            origin: self.origin,
            check: transfer.check as u32,
            fsync: transfer.fsync,
            overwrite: transfer.overwrite,
            resume: transfer.resume,
            slots: transfer.slots,
            stall_timeout_ms: u64::try_from(transfer.stall_timeout.as_millis()).unwrap_or(u64::MAX),
            object: self.object.map(pair).unwrap_or_default(),
            rails_max: transfer.rails_max.map(NonZeroU32::get),
            path: transfer.path as u32,
            threads_max: transfer.threads_max.map(NonZeroU32::get),
            verify: transfer.verify,
            wire: transfer.wire.map(|level| level as u32),
            cipher: transfer.cipher.map(|cipher| cipher as u32),
        }
    }

    fn from_proto(proto: proto::Options) -> Result<WireOptions, WireError> {
        if proto.block_bytes == 0 {
            return Err(WireError::Missing { field: "the size of a block" });
        }
        let slots = proto
            .slots
            .map(|slots| below("the number of slots", slots, SLOTS_MAX as usize + 1))
            .transpose()?;
        let rails_max = not_zero("the limit on NICs", proto.rails_max)?;
        let threads_max = not_zero("the limit on threads of a NIC", proto.threads_max)?;
        let object =
            (!proto.object.is_empty()).then(|| span("the object", &proto.object)).transpose()?;
        // The object's subtrees are blocks: a power of two of whole chunks each, the first at the
        // start of the object.
        let are_subtrees = |object: Span| {
            let block_bytes = u64::from(proto.block_bytes);
            let begins = object.start % block_bytes == proto.origin % block_bytes;
            begins && block_bytes.is_power_of_two() && block_bytes >= CHUNK_BYTES
        };
        if object.is_some_and(|object| !are_subtrees(object)) {
            return Err(WireError::Contradiction { field: "the object" });
        }
        Ok(WireOptions {
            block_bytes: below("the size of a block", proto.block_bytes, LENGTH_MAX as usize + 1)?,
            origin: proto.origin,
            object,
            transfer: TransferOptions {
                check: CheckKind::of(proto.check)?,
                fsync: proto.fsync,
                overwrite: proto.overwrite,
                resume: proto.resume,
                slots,
                stall_timeout: Duration::from_millis(proto.stall_timeout_ms),
                path: DataPath::of(proto.path)?,
                rails_max,
                threads_max,
                verify: proto.verify,
                wire: proto.wire.map(WireLevel::of).transpose()?,
                cipher: proto.cipher.map(Cipher::of).transpose()?,
                ..TransferOptions::default()
            },
        })
    }
}

/// Checks a limit that is at least one where there is any.
fn not_zero(field: &'static str, limit: Option<u32>) -> Result<Option<NonZeroU32>, WireError> {
    limit.map(|limit| NonZeroU32::new(limit).ok_or(WireError::Missing { field })).transpose()
}

/// Bytes of a BLAKE3 chunk (BLAKE3 paper, section 2.1).
const CHUNK_BYTES: u64 = 1024;

impl WireMessage for Start {
    type Proto = proto::Start;

    fn to_proto(&self) -> proto::Start {
        proto::Start {
            epoch: self.epoch,
            peers: self.peers.iter().map(WireMessage::to_proto).collect(),
            segments: self.segments.iter().map(WireMessage::to_proto).collect(),
            holes: pairs(&self.holes),
            limit_bytes_per_second: self.limit_bytes_per_second,
            bound_us: self.bound_us,
            relays: pairs(&self.relays),
            kept: pairs(&self.kept),
            offers: self
                .origins
                .iter()
                .flat_map(|it| [it.index.into(), it.span.start, it.span.bytes()])
                .collect(),
            origins: self.origins.iter().flat_map(|it| [it.origin.who, it.origin.state]).collect(),
            forgets: self.forgets,
            modes: self.modes.clone(),
            more_at: self.more_at,
        }
    }

    fn from_proto(proto: proto::Start) -> Result<Start, WireError> {
        let peers: Vec<PeerNode> = list("the peers of a node", proto.peers, NODES_MAX)?;
        let indices: BTreeSet<u32> = peers.iter().map(|peer| peer.index).collect();
        if indices.len() != peers.len() {
            return Err(WireError::Contradiction { field: "the peers of a node" });
        }
        let segments: Vec<PlanSegment> =
            list("the segments of a plan", proto.segments, SEGMENTS_MAX)?;
        if !segments.is_sorted_by(|left, right| left.span.end <= right.span.start) {
            return Err(WireError::Contradiction { field: "the segments of a plan" });
        }
        let holes = apart("the holes of a plan", &proto.holes)?;
        let relays = apart("the ranges to relay", &proto.relays)?;
        let kept = apart("the ranges of an earlier attempt", &proto.kept)?;
        let origins = origins(&proto.offers, &proto.origins)?;
        within("the modes of a node's rows", proto.modes.len(), ROWS_MAX)?;
        let proto::Start {
            epoch, limit_bytes_per_second, bound_us, forgets, modes, more_at, ..
        } = proto;
        Ok(Start {
            epoch,
            peers,
            segments,
            holes,
            limit_bytes_per_second,
            bound_us,
            relays,
            kept,
            origins,
            forgets,
            modes,
            more_at,
        })
    }
}

fn origins(offers: &[u64], origins: &[u64]) -> Result<Vec<OfferedSource>, WireError> {
    let field = "the offers of the senders";
    let ((offers, rest), (origins, more)) = (offers.as_chunks::<3>(), origins.as_chunks::<2>());
    if offers.len() != origins.len() || !rest.is_empty() || !more.is_empty() {
        return Err(WireError::Contradiction { field });
    }
    within(field, offers.len(), ORIGINS_MAX)?;
    let one = |(&[index, start, bytes], &[who, state]): (&[u64; 3], &[u64; 2])| {
        let index = u32::try_from(index).map_err(|_| WireError::Contradiction { field })?;
        let (index, span) = (node_index(index)?, span_of(field, start, bytes)?);
        Ok(OfferedSource { index, span, origin: SourceOrigin { who, state } })
    };
    offers.iter().zip(origins).map(one).collect()
}

impl WireMessage for PeerNode {
    type Proto = proto::Peer;

    fn to_proto(&self) -> proto::Peer {
        let host = self.rails.first().map(host_of);
        let port = host
            .and_then(|host| self.name.strip_prefix(&host))
            .filter(|port| port.starts_with(':'));
        let name = port.unwrap_or(&self.name).to_owned();
        let channel: Vec<SocketAddr> = self.channel.into_iter().collect();
        proto::Peer {
            index: self.index,
            name,
            rails: packed(&self.rails),
            relays: self.relays,
            channel: packed(&channel),
        }
    }

    fn from_proto(proto: proto::Peer) -> Result<PeerNode, WireError> {
        let index = node_index(proto.index)?;
        let rails = addresses("the rails of a peer", &proto.rails)?;
        let mut name = name("the name of a peer", proto.name)?;
        if let Some(rail) = rails.first().filter(|_| name.starts_with(':')) {
            name.insert_str(0, &host_of(rail));
        }
        let channel = addresses("the channel of a peer", &proto.channel)?;
        within("the channel of a peer", channel.len(), 1)?;
        let channel = channel.into_iter().next();
        Ok(PeerNode { index, name, rails, relays: proto.relays, channel })
    }
}

/// Returns a rail's address in the form in which the name of a node begins with it.
fn host_of(rail: &SocketAddr) -> String {
    match rail.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

impl WireMessage for PlanSegment {
    type Proto = proto::PlanSegment;

    fn to_proto(&self) -> proto::PlanSegment {
        let (indices, weights) =
            self.senders.iter().map(|share| (share.index, share.weight)).unzip();
        proto::PlanSegment { span: pair(self.span), indices, weights }
    }

    fn from_proto(proto: proto::PlanSegment) -> Result<PlanSegment, WireError> {
        let field = "the senders of a segment";
        if proto.indices.len() != proto.weights.len() {
            return Err(WireError::Contradiction { field });
        }
        if proto.indices.is_empty() {
            return Err(WireError::Missing { field });
        }
        within(field, proto.indices.len(), NODES_MAX)?;
        let shares = proto.indices.into_iter().zip(proto.weights);
        let senders =
            shares.map(|(index, weight)| Ok(SenderShare { index: node_index(index)?, weight }));
        Ok(PlanSegment {
            span: span("the range of a segment", &proto.span)?,
            senders: senders.collect::<Result<Vec<SenderShare>, WireError>>()?,
        })
    }
}
