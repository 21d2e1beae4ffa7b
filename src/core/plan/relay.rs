//! Relays: receivers that want the same bytes feed each other.
//!
//! A range that k receivers want is cut into k parts, one for each receiver in proportion to its
//! sending speed. A receiver requests its own part from the senders, and each other part from that
//! part's receiver. A request for a piece that has not landed there waits there. So the senders
//! send one copy, and each receiver sends about as much as it receives. All have everything after
//! about the time of one copy, which is optimal for equal speeds (Mundinger, Weber, Weiss: "Optimal
//! scheduling of peer-to-peer file dissemination", 2008).
//!
//! Many receivers form groups of at most [`GROUP_MAX`], which limits the flows of each. The owner
//! of a part in one group requests it from the owner of that part in the preceding group: a chain
//! in which each node still sends one copy.
//!
//! For a scheduler, relayed bytes are wanted once, by the receiver that requests them from the
//! senders.

use std::collections::BTreeMap;

use super::bound;
use super::bound::LowerBound;
use super::demand::PlanDemand;
use super::{PlanProblem, PlannedSegment, Segment, groups};
use crate::core::units::{NodeIx, Span};

/// Size of a group of receivers that all feed each other: each pair has a flow in each direction.
const GROUP_MAX: usize = 16;
/// Number of pieces, of about equal size, that a part is cut into. Each can be handed over to
/// another receiver.
const CHUNKS_MAX: usize = 16;
/// Smallest size of a chunk, in blocks.
const CHUNK_BLOCKS_MIN: u64 = 4;
/// A receiver slower than this part of the fastest relays nothing: the others would have to wait
/// for it.
const SLOW: f64 = 0.5;
/// Limit on the pairs of receiver and relay over all parts, by which the plan's size grows. Beyond
/// it, all receivers ask the senders.
const ENTRIES_MAX: usize = 1 << 21;

/// Segments that receivers pass on to each other.
pub(super) struct RelaySplit {
    /// Segments as the senders see them: a relayed range is wanted once.
    pub(super) segments: Vec<Segment>,
    /// Ascending by the start of their segment.
    fed: Vec<RelayedPart>,
}

/// One part that receivers relay.
struct RelayedPart {
    start: u64,
    receivers: Vec<NodeIx>,
    /// Receivers, each with the relay that it asks; ascending.
    relays: Vec<(NodeIx, NodeIx)>,
}

/// Returns the segments of a problem cut into the parts that receivers can relay, or `None` if
/// there are none.
pub(super) fn split(problem: &PlanProblem, segments: &[Segment]) -> Option<RelaySplit> {
    let mut split = RelaySplit { segments: Vec::with_capacity(segments.len()), fed: Vec::new() };
    let mut due: BTreeMap<NodeIx, f64> = BTreeMap::new();
    let mut entries = 0;
    for segment in segments {
        let able = able(problem, segment);
        if able.is_empty() {
            split.segments.push(segment.clone());
            continue;
        }
        entries += CHUNKS_MAX * able.len().min(GROUP_MAX) * segment.receivers.len();
        if entries > ENTRIES_MAX {
            return None;
        }
        let groups: Vec<Vec<(Span, NodeIx)>> =
            groups_of(&able).map(|group| parts(problem, segment.span, group, &mut due)).collect();
        for part in common_parts(segment.span, &groups) {
            for span in chunks(problem.grid, part) {
                split.add(segment, span, &groups);
            }
        }
    }
    (!split.fed.is_empty()).then_some(split)
}

/// Returns the receivers that can relay a segment, if another receiver wants it.
fn able(problem: &PlanProblem, segment: &Segment) -> Vec<NodeIx> {
    let remote: Vec<NodeIx> = segment.remote_receivers().collect();
    if remote.len() < 2 || !segment.groups.is_empty() {
        return Vec::new();
    }
    let speed = |node: &NodeIx| {
        let node = &problem.nodes[node.at()];
        node.send_bytes_per_second.min(node.receive_bytes_per_second)
    };
    let keeps = |node: &&NodeIx| problem.nodes[node.at()].relays;
    let fastest = remote.iter().filter(keeps).map(speed).fold(0.0, f64::max);
    remote.iter().filter(keeps).filter(|node| speed(node) >= SLOW * fastest).copied().collect()
}

/// Splits the receivers into groups of about equal size.
fn groups_of(able: &[NodeIx]) -> impl Iterator<Item = &[NodeIx]> {
    let count = able.len().div_ceil(GROUP_MAX);
    (0..count).map(move |at| &able[at * able.len() / count..(at + 1) * able.len() / count])
}

/// Cuts a segment into one part for each member of a group, in proportion to sending speed.
fn parts(
    problem: &PlanProblem,
    span: Span,
    group: &[NodeIx],
    due: &mut BTreeMap<NodeIx, f64>,
) -> Vec<(Span, NodeIx)> {
    let speed = |node: &NodeIx| problem.nodes[node.at()].send_bytes_per_second;
    let all: f64 = group.iter().map(speed).sum();
    for node in group {
        *due.entry(*node).or_insert(0.0) += speed(node) / all * span.bytes() as f64;
    }
    groups::cut(problem.grid, span, group, due)
}

/// Returns the parts between the boundaries of all groups' parts.
fn common_parts(span: Span, groups: &[Vec<(Span, NodeIx)>]) -> Vec<Span> {
    let mut ends: Vec<u64> = groups.iter().flatten().map(|(part, _)| part.end).collect();
    ends.sort_unstable();
    ends.dedup();
    let starts = std::iter::once(span.start).chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).map(|(start, end)| Span::new(start, end)).collect()
}

/// Cuts a part on the grid into chunks that can be handed over.
fn chunks((origin, block): (u64, u64), part: Span) -> Vec<Span> {
    let blocks = part.bytes() / block.max(1);
    let count = (blocks / CHUNK_BLOCKS_MIN).clamp(1, CHUNKS_MAX as u64);
    let cut = |at: u64| {
        let position = part.start + part.bytes() / count * at;
        origin + (position - origin) / block.max(1) * block.max(1)
    };
    let mut ends: Vec<u64> =
        (1..count).map(cut).filter(|&end| part.start < end && end < part.end).collect();
    ends.push(part.end);
    ends.dedup();
    let starts = std::iter::once(part.start).chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).map(|(start, end)| Span::new(start, end)).collect()
}

/// Moves parts of slow relays to other receivers of the same range: the receiver that owns least
/// replaces the slow one, and the slow one asks it.
pub(super) fn hand_over(problem: &PlanProblem, planned: &mut [PlannedSegment], slow: &[NodeIx]) {
    let mut owned: BTreeMap<NodeIx, u64> = BTreeMap::new();
    for one in planned.iter() {
        for owner in owners(one) {
            *owned.entry(owner).or_insert(0) += one.segment.span.bytes();
        }
    }
    for one in planned {
        let bytes = one.segment.span.bytes();
        for owner in owners(one).into_iter().filter(|owner| slow.contains(owner)) {
            let owners = owners(one);
            let able =
                one.segment.remote_receivers().filter(|node| problem.nodes[node.at()].relays);
            let able = able.filter(|node| !slow.contains(node) && !owners.contains(node));
            let Some(heir) = able.min_by_key(|node| (owned.get(node).copied().unwrap_or(0), *node))
            else {
                continue;
            };
            let asked = one.relay_of(owner);
            one.relays.retain(|(asks, _)| *asks != heir && *asks != owner);
            one.relays
                .iter_mut()
                .filter(|(_, relay)| *relay == owner)
                .for_each(|(_, relay)| *relay = heir);
            one.relays.push((owner, heir));
            one.relays.extend(asked.map(|asked| (heir, asked)));
            one.relays.sort_unstable();
            *owned.entry(owner).or_insert(0) -= bytes;
            *owned.entry(heir).or_insert(0) += bytes;
        }
    }
}

/// Returns the relays of a part.
fn owners(planned: &PlannedSegment) -> Vec<NodeIx> {
    let mut owners: Vec<NodeIx> = planned.relays.iter().map(|(_, relay)| *relay).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

impl RelaySplit {
    fn add(&mut self, segment: &Segment, span: Span, groups: &[Vec<(Span, NodeIx)>]) {
        let owner = |group: &Vec<(Span, NodeIx)>| {
            group[group.partition_point(|(part, _)| part.end <= span.start)].1
        };
        let owners: Vec<NodeIx> = groups.iter().map(owner).collect();
        let mut relays: Vec<(NodeIx, NodeIx)> =
            owners.windows(2).map(|pair| (pair[1], pair[0])).collect();
        for (group, owner) in groups.iter().zip(&owners) {
            let members: Vec<NodeIx> = group.iter().map(|(_, member)| *member).collect();
            relays.extend(
                members.iter().filter(|member| *member != owner).map(|member| (*member, *owner)),
            );
        }
        // A receiver that does not relay asks the groups in turn.
        let mut asks: Vec<NodeIx> =
            relays.iter().map(|(asks, _)| *asks).chain([owners[0]]).collect();
        asks.sort_unstable();
        let others = segment.remote_receivers().filter(|node| asks.binary_search(node).is_err());
        relays.extend(others.zip(owners.iter().cycle()).map(|(node, owner)| (node, *owner)));
        relays.sort_unstable();
        let from_senders =
            |node: &NodeIx| relays.binary_search_by_key(node, |(asks, _)| *asks).is_err();
        let receivers =
            segment.receivers.iter().filter(|node| from_senders(node)).copied().collect();
        self.segments.push(Segment {
            span,
            senders: segment.senders.clone(),
            receivers,
            groups: Vec::new(),
        });
        self.fed.push(RelayedPart {
            start: span.start,
            receivers: segment.receivers.clone(),
            relays,
        });
    }

    /// Completes a plan of these segments with the receivers that relays feed.
    pub(super) fn complete(self, planned: &mut [PlannedSegment]) {
        let mut fed = self.fed.into_iter().peekable();
        for planned in planned {
            if let Some(fed) = fed.next_if(|fed| fed.start == planned.segment.span.start) {
                planned.segment.receivers = fed.receivers;
                planned.relays = fed.relays;
            }
        }
        assert!(fed.next().is_none(), "a scheduler keeps the segments that no group wants");
    }
}

/// Returns the lower bound where receivers feed each other: each receiver must take in its bytes
/// (`full`), senders must send one copy of everything (`once`), and all nodes together must send
/// all copies.
pub(super) fn bound(
    problem: &PlanProblem,
    full: &PlanDemand,
    once: &PlanDemand,
    segments: &[Segment],
) -> LowerBound {
    let floor = bound::floor(problem, once);
    let mut sends = vec![false; problem.nodes.len()];
    for segment in segments {
        let passes_on = segment.receivers.iter().filter(|node| problem.nodes[node.at()].relays);
        segment.senders.iter().chain(passes_on).for_each(|node| sends[node.at()] = true);
    }
    bound::together(problem, floor, full.bytes(), &sends)
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
