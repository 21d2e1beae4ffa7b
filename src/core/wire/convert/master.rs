//! Conversion of messages from a node to the master.

use super::fields::{
    apart, join, key, lines, list, name, node_index, pair, pairs, required, shortened, span,
    span_of, text, within,
};
use super::{load, survey};
use crate::core::error::Error;
use crate::core::wire::control::{
    CheckValue, FlowCall, FlowLoss, KeptRanges, LandedSegment, NodeStats, Prepared, RailStats,
    RowState, SegmentChecks, SenderDelivery, SourceOrigin, SpeedSample, ToMaster, WireMessage,
};
use crate::core::wire::limits::{
    FLOW_LOSSES_MAX, HAVE_MAX, ITEMS_MAX, LEFT_MAX, NODES_MAX, NOTES_MAX, RAILS_MAX,
    REPLICA_VALUES_MAX, ROWS_MAX, SAMPLES_MAX, TEXT_BYTES_MAX, WARNINGS_MAX,
};
use crate::core::wire::terms::WireAgreement;
use crate::core::wire::{Check, WireError, proto};

impl WireMessage for ToMaster {
    type Proto = proto::ToMaster;

    fn to_proto(&self) -> proto::ToMaster {
        let kind = match self {
            ToMaster::Prepared(prepared) => proto::ToMasterKind::Prepared(prepared.to_proto()),
            ToMaster::Progress {
                received_bytes,
                sent_bytes,
                delivered,
                left,
                missing_bytes,
                lost,
            } => {
                let pair =
                    |it: &SenderDelivery| [u64::from(it.index) << 1 | u64::from(it.busy), it.bytes];
                let samples = samples_of(delivered);
                let delivered = delivered.iter().flat_map(pair).collect();
                let (received_bytes, sent_bytes, left, missing_bytes) =
                    (*received_bytes, *sent_bytes, left.clone(), *missing_bytes);
                proto::ToMasterKind::Progress(proto::Progress {
                    received_bytes,
                    sent_bytes,
                    delivered,
                    left,
                    missing_bytes,
                    samples,
                    lost: lost.iter().map(loss_to_proto).collect(),
                })
            }
            &ToMaster::Comparing { read_bytes } => proto::ToMasterKind::Comparing(read_bytes),
            ToMaster::Landed { segments, stats } => {
                proto::ToMasterKind::Landed(landed_to_proto(segments, stats))
            }
            ToMaster::Report(stats) => proto::ToMasterKind::Report(stats.to_proto()),
            ToMaster::Committed => proto::ToMasterKind::Committed(proto::Empty {}),
            ToMaster::Failed { error, stats } => {
                let stats = stats.as_deref().map(WireMessage::to_proto);
                proto::ToMasterKind::Failed(proto::Failure { stats, ..error.to_proto() })
            }
            &ToMaster::Resumed { heard } => proto::ToMasterKind::Resumed(heard),
            ToMaster::Surveyed(answers) => {
                proto::ToMasterKind::Surveyed(survey::answers_to_proto(answers))
            }
            ToMaster::Call(call) => proto::ToMasterKind::Call(call.to_proto()),
        };
        proto::ToMaster { kind: Some(kind) }
    }

    fn from_proto(proto: proto::ToMaster) -> Result<ToMaster, WireError> {
        Ok(match required("the kind of a message to the master", proto.kind)? {
            proto::ToMasterKind::Prepared(prepared) => {
                ToMaster::Prepared(Prepared::from_proto(prepared)?)
            }
            proto::ToMasterKind::Progress(proto::Progress {
                received_bytes,
                sent_bytes,
                delivered,
                left,
                missing_bytes,
                samples,
                lost,
            }) => {
                within("the lost flows of a report", lost.len(), FLOW_LOSSES_MAX)?;
                within("the segments of a report", left.len(), LEFT_MAX)?;
                ToMaster::Progress {
                    received_bytes,
                    sent_bytes,
                    delivered: delivered_of(&delivered, &samples)?,
                    left,
                    missing_bytes,
                    lost: lost.into_iter().map(loss).collect::<Result<_, WireError>>()?,
                }
            }
            proto::ToMasterKind::Comparing(read_bytes) => ToMaster::Comparing { read_bytes },
            proto::ToMasterKind::Landed(landed) => landed_from_proto(landed)?,
            proto::ToMasterKind::Report(stats) => ToMaster::Report(NodeStats::from_proto(stats)?),
            proto::ToMasterKind::Committed(proto::Empty {}) => ToMaster::Committed,
            proto::ToMasterKind::Failed(mut failure) => {
                let stats =
                    failure.stats.take().map(NodeStats::from_proto).transpose()?.map(Box::new);
                ToMaster::Failed { error: Error::from_proto(failure)?, stats }
            }
            proto::ToMasterKind::Resumed(heard) => ToMaster::Resumed { heard },
            proto::ToMasterKind::Surveyed(surveyed) => {
                ToMaster::Surveyed(survey::answers(surveyed)?)
            }
            proto::ToMasterKind::Call(call) => ToMaster::Call(FlowCall::from_proto(call)?),
        })
    }
}

impl WireMessage for Prepared {
    type Proto = proto::Prepared;

    fn to_proto(&self) -> proto::Prepared {
        proto::Prepared {
            rows: self
                .rows
                .iter()
                .map(|row| {
                    u32::from(row.shared) | u32::from(row.kept) << 1 | u32::from(row.complete) << 2
                })
                .collect(),
            holes: pairs(&self.holes),
            error: self.error.as_ref().map(WireMessage::to_proto),
            states: self.states.clone(),
            have: self.have.iter().flat_map(have_numbers).collect(),
            sealed: self.sealed,
            notes: notes(&self.notes),
            replicas: self.replicas.clone(),
            modes: self.modes.clone(),
        }
    }

    fn from_proto(proto: proto::Prepared) -> Result<Prepared, WireError> {
        within("the rows of a node", proto.rows.len(), ROWS_MAX)?;
        let row_state = |state| match state {
            0..8 => Ok(RowState {
                shared: state & 1 == 1,
                kept: state & 2 == 2,
                complete: state & 4 == 4,
            }),
            _ => Err(WireError::Unknown { field: "the state of a row", value: state.into() }),
        };
        within("the states of a node's rows", proto.states.len(), proto.rows.len())?;
        let notes: Vec<&str> = proto.notes.split_terminator('\n').take(NOTES_MAX + 1).collect();
        within("the notes of a node", notes.len(), NOTES_MAX)?;
        within("the check values of replicas", proto.replicas.len(), REPLICA_VALUES_MAX)?;
        within("the modes of a node's rows", proto.modes.len(), proto.rows.len())?;
        Ok(Prepared {
            states: proto.states,
            replicas: proto.replicas,
            modes: proto.modes,
            have: have(&proto.have)?,
            sealed: proto.sealed,
            notes: notes
                .into_iter()
                .map(|note| text("a note", note.to_owned()))
                .collect::<Result<_, _>>()?,
            rows: proto.rows.into_iter().map(row_state).collect::<Result<_, _>>()?,
            holes: apart("the holes of a node", &proto.holes)?,
            error: proto.error.map(Error::from_proto).transpose()?,
        })
    }
}

/// Joins notes into one text; if there are too many, the last one says how many.
fn notes(notes: &[String]) -> String {
    let (told, rest) =
        notes.split_at(if notes.len() > NOTES_MAX { NOTES_MAX - 1 } else { notes.len() });
    let more =
        (!rest.is_empty()).then(|| format!("there are {} more notes like these", rest.len()));
    lines(told.iter().chain(&more))
}

fn have_numbers(it: &KeptRanges) -> [u64; 4] {
    [it.span.start, it.span.bytes(), it.origin.who, it.origin.state]
}

fn have(numbers: &[u64]) -> Result<Vec<KeptRanges>, WireError> {
    let field = "the ranges of an earlier attempt";
    let (fours, rest) = numbers.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(WireError::Contradiction { field });
    }
    within(field, fours.len(), HAVE_MAX)?;
    let one = |&[start, bytes, who, state]: &[u64; 4]| {
        Ok(KeptRanges { span: span_of(field, start, bytes)?, origin: SourceOrigin { who, state } })
    };
    fours.iter().map(one).collect()
}

fn landed_to_proto(segments: &[LandedSegment], stats: &NodeStats) -> proto::Landed {
    let mut landed = proto::Landed {
        segments: segments.iter().flat_map(|segment| pair(segment.span)).collect(),
        stats: Some(stats.to_proto()),
        ..proto::Landed::default()
    };
    for segment in segments {
        match &segment.checks {
            SegmentChecks::Listed(checks) => {
                // Too many checks do not fit into a message, which is then refused for its size.
                landed.check_counts.push(u32::try_from(checks.len()).unwrap_or(FOLDED - 1));
                landed.checks.extend(checks.iter().map(WireMessage::to_proto));
            }
            SegmentChecks::Folded(fold) => {
                landed.check_counts.push(FOLDED);
                landed.folds.extend(fold);
            }
        }
    }
    landed
}

/// Assigns the checks to the segments. Each check must lie inside its segment and after the one
/// before, and none may remain. The same holds for folds.
fn landed_from_proto(proto: proto::Landed) -> Result<ToMaster, WireError> {
    let field = "the checks of a segment";
    let spans = apart("the landed segments", &proto.segments)?;
    if spans.len() != proto.check_counts.len() {
        return Err(WireError::Contradiction { field });
    }
    let mut checks = list::<CheckValue>(field, proto.checks, ITEMS_MAX)?.into_iter();
    let (folds, rest) = proto.folds.as_chunks::<32>();
    let mut folds = folds.iter();
    if !rest.is_empty() {
        return Err(WireError::Contradiction { field });
    }
    let mut segments = Vec::with_capacity(spans.len());
    for (span, count) in spans.into_iter().zip(proto.check_counts) {
        if count == FOLDED {
            let fold = *folds.next().ok_or(WireError::Contradiction { field })?;
            segments.push(LandedSegment { span, checks: SegmentChecks::Folded(fold) });
            continue;
        }
        let count = count as usize;
        let own: Vec<CheckValue> = checks.by_ref().take(count).collect();
        let inside = own.iter().all(|check| span.contains(check.span));
        if own.len() != count
            || !inside
            || !own.is_sorted_by(|left, right| left.span.end <= right.span.start)
        {
            return Err(WireError::Contradiction { field });
        }
        segments.push(LandedSegment { span, checks: SegmentChecks::Listed(own) });
    }
    if checks.next().is_some() || folds.next().is_some() {
        return Err(WireError::Contradiction { field });
    }
    let stats = NodeStats::from_proto(required("the statistics", proto.stats)?)?;
    Ok(ToMaster::Landed { segments, stats })
}

/// Number of checks that marks a segment with a fold.
const FOLDED: u32 = u32::MAX;

impl WireMessage for CheckValue {
    type Proto = proto::CheckValue;

    fn to_proto(&self) -> proto::CheckValue {
        let (crc64, blake3) = match self.check {
            Check::None => (None, None),
            Check::Crc64(crc) => (Some(crc), None),
            Check::Blake3(value) => (None, Some(value.to_vec())),
        };
        proto::CheckValue { span: pair(self.span), crc64, blake3 }
    }

    fn from_proto(proto: proto::CheckValue) -> Result<CheckValue, WireError> {
        let check = match (proto.crc64, proto.blake3) {
            (None, None) => Check::None,
            (Some(crc), None) => Check::Crc64(crc),
            (None, Some(value)) => Check::Blake3(key("a BLAKE3 value", &value)?),
            (Some(_), Some(_)) => {
                return Err(WireError::Contradiction { field: "the check of a range" });
            }
        };
        Ok(CheckValue { span: span("the range of a check", &proto.span)?, check })
    }
}

impl WireMessage for NodeStats {
    type Proto = proto::Stats;

    fn to_proto(&self) -> proto::Stats {
        proto::Stats {
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            wasted_bytes: self.wasted_bytes,
            stolen_bytes: self.stolen_bytes,
            retries: self.retries,
            active_ns: self.active_ns,
            room_ns: self.room_ns,
            commit_ns: self.commit_ns,
            epoch: self.epoch,
            cpu_ns: self.cpu_ns,
            memory_bytes_max: self.memory_bytes_max,
            rail_nics: join(self.rails.iter().map(|rail| rail.nic.clone())),
            rail_bytes: self
                .rails
                .iter()
                .flat_map(|rail| [rail.sent_bytes, rail.received_bytes])
                .collect(),
            rail_counted_bytes: counted(&self.rails),
            resumed_bytes: self.resumed_bytes,
            rail_paths: lines(self.rails.iter().flat_map(|rail| [&rail.path, &rail.driver])),
            warnings: warnings_to_proto(&self.warnings),
            rail_wires: self
                .rails
                .iter()
                .map(|rail| rail.wire.map_or(0, WireAgreement::number))
                .collect(),
            load: self.load.map_or_else(Vec::new, |load| load::to_proto(load, &self.rails)),
        }
    }

    fn from_proto(proto: proto::Stats) -> Result<NodeStats, WireError> {
        let mut rails = rails(&proto)?;
        let load = load::load(&proto.load, &mut rails)?;
        Ok(NodeStats {
            received_bytes: proto.received_bytes,
            sent_bytes: proto.sent_bytes,
            wasted_bytes: proto.wasted_bytes,
            stolen_bytes: proto.stolen_bytes,
            retries: proto.retries,
            active_ns: proto.active_ns,
            room_ns: proto.room_ns,
            commit_ns: proto.commit_ns,
            epoch: proto.epoch,
            cpu_ns: proto.cpu_ns,
            memory_bytes_max: proto.memory_bytes_max,
            resumed_bytes: proto.resumed_bytes,
            load,
            rails,
            warnings: warnings(&text("the warnings of a node", proto.warnings)?),
        })
    }
}

fn loss_to_proto(loss: &FlowLoss) -> proto::FlowLoss {
    let FlowLoss { nic, peer, reason } = loss;
    proto::FlowLoss { nic: nic.clone(), peer: peer.clone(), reason: shortened(reason) }
}

fn loss(proto: proto::FlowLoss) -> Result<FlowLoss, WireError> {
    Ok(FlowLoss {
        nic: name("the NIC of a lost flow", proto.nic)?,
        peer: name("the peer of a lost flow", proto.peer)?,
        reason: text("the reason for a lost flow", proto.reason)?,
    })
}

/// Joins the first warnings, as many as fit into one text.
fn warnings_to_proto(warnings: &[String]) -> String {
    let mut text = String::new();
    for warning in warnings {
        let line = warning.replace('\n', " ");
        if text.len() + line.len() < TEXT_BYTES_MAX {
            text += &line;
            text.push('\n');
        }
    }
    text
}

/// Splits warnings. They are printed, so control characters are replaced.
fn warnings(text: &str) -> Vec<String> {
    let harmless =
        |line: &str| line.chars().map(|it| if it.is_control() { '?' } else { it }).collect();
    text.split_terminator('\n')
        .filter(|line| !line.is_empty())
        .take(WARNINGS_MAX)
        .map(harmless)
        .collect()
}

/// Returns the counters of the NICs, if all rails have them.
fn counted(rails: &[RailStats]) -> Vec<u64> {
    let counted: Option<Vec<(u64, u64)>> = rails.iter().map(|rail| rail.counted).collect();
    counted.into_iter().flatten().flat_map(|(sent, received)| [sent, received]).collect()
}

/// Assembles the rails from their columns.
fn rails(proto: &proto::Stats) -> Result<Vec<RailStats>, WireError> {
    let (nics, bytes, counted) = (&proto.rail_nics, &proto.rail_bytes, &proto.rail_counted_bytes);
    let field = "the rails of a node";
    let names: Vec<&str> = nics.split_ascii_whitespace().take(RAILS_MAX + 1).collect();
    within(field, names.len(), RAILS_MAX)?;
    let (counts, rest) = bytes.as_chunks::<2>();
    if counts.len() != names.len()
        || !rest.is_empty()
        || !(counted.is_empty() || counted.len() == bytes.len())
    {
        return Err(WireError::Contradiction { field });
    }
    let counted = counted.as_chunks::<2>().0.iter().map(|&[sent, received]| Some((sent, received)));
    let counted = counted.chain(std::iter::repeat(None));
    let lines: Vec<&str> =
        proto.rail_paths.split_terminator('\n').take(2 * RAILS_MAX + 1).collect();
    let (paths, rest) = lines.as_chunks::<2>();
    if paths.len() != names.len() || !rest.is_empty() {
        return Err(WireError::Contradiction { field: "the paths of a node" });
    }
    let wires = &proto.rail_wires;
    if wires.len() != names.len() {
        return Err(WireError::Contradiction { field: "the protection of a node's rails" });
    }
    let rails = names.into_iter().zip(counts).zip(counted).zip(paths).zip(wires);
    rails
        .map(|((((nic, &[sent_bytes, received_bytes]), counted), &[path, driver]), &wire)| {
            Ok(RailStats {
                wire: (wire != 0).then(|| WireAgreement::of(wire)).transpose()?,
                nic: name("the name of a NIC", nic.to_owned())?,
                sent_bytes,
                received_bytes,
                counted,
                faults: 0,
                path: text("the path of a rail", path.to_owned())?,
                driver: text("the driver of a rail", driver.to_owned())?,
            })
        })
        .collect()
}

/// Returns the samples of senders, three numbers each; none at all if there are none, or too many.
fn samples_of(delivered: &[SenderDelivery]) -> Vec<u64> {
    let is_told = delivered.len() <= SAMPLES_MAX
        && delivered.iter().any(|it| it.sample != SpeedSample::default());
    let three = |it: &SenderDelivery| {
        let SpeedSample { bytes, micros, waiting_micros } = it.sample;
        [bytes, micros, waiting_micros]
    };
    if is_told { delivered.iter().flat_map(three).collect() } else { Vec::new() }
}

fn delivered_of(numbers: &[u64], samples: &[u64]) -> Result<Vec<SenderDelivery>, WireError> {
    let field = "the deliveries of senders";
    let (pairs, rest) = numbers.as_chunks::<2>();
    let (samples, more) = samples.as_chunks::<3>();
    if !rest.is_empty() || !more.is_empty() || !(samples.is_empty() || samples.len() == pairs.len())
    {
        return Err(WireError::Contradiction { field });
    }
    within(field, pairs.len(), NODES_MAX)?;
    within("the samples of senders", samples.len(), SAMPLES_MAX)?;
    let samples = samples.iter().map(|&[bytes, micros, waiting_micros]| SpeedSample {
        bytes,
        micros,
        waiting_micros,
    });
    let one = |(&[sender, bytes], sample): (&[u64; 2], SpeedSample)| {
        let index = u32::try_from(sender >> 1).map_err(|_| WireError::Contradiction { field })?;
        Ok(SenderDelivery { index: node_index(index)?, bytes, busy: sender & 1 == 1, sample })
    };
    pairs.iter().zip(samples.chain(std::iter::repeat(SpeedSample::default()))).map(one).collect()
}
