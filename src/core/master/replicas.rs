//! Comparison of replicas at the master: selection of the ranges, and comparison of the senders'
//! answers.
//!
//! The comparison ends before a byte moves. `Prepare` tells each sender which of its ranges others
//! offer as well; `Prepared` brings back its check values. The master keeps the first value of each
//! part.

use std::collections::{BTreeMap, BTreeSet};

use super::roster::{Roster, RosterEntry};
use crate::core::check::replica_hash::{PLACE_BYTES, ReplicaSeed, UNREAD};
use crate::core::error::{Code, Error, Result};
use crate::core::report::{ReplicaComparison, ReplicaReport};
use crate::core::spec::{DataUri, Row, RowRole};
use crate::core::units::{NodeIx, Span, union};
use crate::core::wire::control::ReplicaRange;
use crate::core::wire::limits::REPLICA_RANGES_MAX;

/// Places of a range that are compared: a minimum, then one byte of a hundred, up to 16 MiB.
const PLACES_MIN: u64 = 16;
const PLACES_MAX: u64 = 256;
const BYTES_EACH: u64 = 100;
/// Places of one node over all ranges, if each range still keeps two: 256 MiB to read.
const NODE_PLACES_MAX: u64 = 1 << 12;
/// Values of a sampled range: a difference is located to a place, or to a sixty-fourth of the
/// range.
const VALUES_MAX_SAMPLE: u64 = 64;
/// Values of a range where all bytes are compared: twice as many, because parts are whole places
/// and differ in size.
const VALUES_MAX_ALL: u64 = 128;
/// Values of one node over all ranges, if each range still keeps one: a MiB.
const NODE_VALUES_MAX: u64 = 1 << 17;

const _: () = assert!(
    NODE_VALUES_MAX as usize + REPLICA_RANGES_MAX <= crate::core::wire::limits::REPLICA_VALUES_MAX
);

/// Comparison of the replicas of one attempt.
#[derive(Debug, Default)]
pub(super) struct ReplicaSet {
    compares_all: bool,
    seed: ReplicaSeed,
    /// Ascending and disjoint.
    ranges: Vec<ReplicaRange>,
    /// For each range, the index of its first value in `firsts`.
    starts: Vec<usize>,
    /// Answer of the first sender for each value.
    firsts: Vec<Option<FirstAnswer>>,
    /// Bytes that several sources offer and some receiver wants.
    of_bytes: u64,
    compared_bytes: u64,
    /// Receivers whose files are named together: they want bytes that several senders offer, and
    /// that other receivers want, too.
    waiting: BTreeSet<NodeIx>,
    /// True once replicas are known to differ: then no landed byte can be trusted.
    pub(super) differ: bool,
    /// Bytes that nodes have read so far.
    read_bytes: BTreeMap<NodeIx, u64>,
}

#[derive(Clone, Copy, Debug)]
struct FirstAnswer {
    value: u64,
    node: NodeIx,
    is_compared: bool,
}

impl ReplicaSet {
    /// Selects the ranges to compare among the senders of `roster`: a sample, or all of them.
    ///
    /// # Errors
    /// `Code::Usage` if all bytes are to be compared, and the ranges do not fit into a message.
    pub(super) fn of(roster: &Roster, compares_all: bool, seed: ReplicaSeed) -> Result<ReplicaSet> {
        let mut spans = overlaps(roster);
        let of_bytes = spans.iter().map(|span| span.bytes()).sum();
        let waiting = waiting(roster, &spans);
        let counts = NodeCounts::of(roster, &spans, |_| 1);
        if counts.most > REPLICA_RANGES_MAX as u64 {
            if compares_all {
                let what = format!(
                    "the rows of {} cut what it shares with other writers into {} ranges; \
                     {REPLICA_RANGES_MAX} can be compared",
                    roster.get(counts.node).address,
                    counts.most
                );
                return Err(Error::new(Code::Usage, what)
                    .remedy("leave --verify replicas out, or split the transfer"));
            }
            spans.sort_unstable_by_key(|span| std::cmp::Reverse(span.bytes()));
            spans.truncate(REPLICA_RANGES_MAX);
            spans.sort_unstable();
        }
        let ranges = if compares_all { whole(roster, &spans) } else { sample(roster, &spans) };
        let mut count = 0;
        let starts = ranges.iter().map(|range| {
            count += range.value_count();
            count - range.value_count()
        });
        let starts: Vec<usize> = starts.collect();
        let firsts = vec![None; count];
        Ok(ReplicaSet {
            compares_all,
            seed,
            ranges,
            starts,
            firsts,
            of_bytes,
            waiting,
            ..ReplicaSet::default()
        })
    }

    /// Returns the ranges that a node is to compare.
    pub(super) fn ranges_of(&self, entry: &RosterEntry) -> Vec<ReplicaRange> {
        self.places_of(entry).map(|at| self.ranges[at]).collect()
    }

    /// Returns true if a node's files are named only together with those of others.
    pub(super) fn names_wait(&self, node: NodeIx) -> bool {
        self.waiting.contains(&node)
    }

    fn places_of(&self, entry: &RosterEntry) -> impl Iterator<Item = usize> + use<> {
        let offered = union(sources(entry).map(|row| row.range).collect());
        let run = |span: Span| {
            let first = self.ranges.partition_point(|range| range.span.start < span.start);
            first..first + self.ranges[first..].partition_point(|range| range.span.end <= span.end)
        };
        offered.into_iter().map(run).collect::<Vec<_>>().into_iter().flatten()
    }

    /// Records the bytes that a node has read while it prepares. Returns false if there is no
    /// progress.
    pub(super) fn reads(&mut self, node: NodeIx, read_bytes: u64) -> bool {
        let known = self.read_bytes.entry(node).or_default();
        let is_news = read_bytes > *known;
        *known = (*known).max(read_bytes);
        is_news
    }

    /// Compares the answers of a node with those of others.
    ///
    /// # Errors
    /// `Code::Integrity` if they differ, naming both nodes and the first range; `Code::Internal` if
    /// the node has sent another number of values than requested.
    pub(super) fn compare(&mut self, roster: &Roster, node: NodeIx, values: &[u64]) -> Result<()> {
        let entry = roster.get(node);
        let asked: Vec<usize> = self.places_of(entry).collect();
        let count: usize = asked.iter().map(|&at| self.ranges[at].value_count()).sum();
        if values.len() != count {
            let what = format!(
                "it was asked for {count} check values of replicas, and sent {}",
                values.len()
            );
            return Err(Error::new(Code::Internal, what).at(&entry.address));
        }
        let mut values = values.iter();
        for at in asked {
            let range = self.ranges[at];
            let has_several = source_count(entry, range.span) > 1;
            for (part, &value) in (0..range.value_count()).zip(values.by_ref()) {
                if value == UNREAD {
                    continue;
                }
                let first = self.firsts[self.starts[at] + part].get_or_insert(FirstAnswer {
                    value,
                    node,
                    is_compared: false,
                });
                if first.value != value {
                    self.differ = true;
                    return Err(difference(
                        roster,
                        first.node.min(node),
                        first.node.max(node),
                        &range,
                        part,
                        &self.seed,
                    ));
                }
                if (first.node != node || has_several)
                    && !std::mem::replace(&mut first.is_compared, true)
                {
                    self.compared_bytes += range.bytes_of(part, &self.seed);
                }
            }
        }
        Ok(())
    }

    /// Returns the extent of the comparison, if there was something to compare.
    pub(super) fn report(&self) -> Option<ReplicaReport> {
        let mode =
            if self.compares_all { ReplicaComparison::All } else { ReplicaComparison::Sample };
        let (compared_bytes, of_bytes) = (self.compared_bytes, self.of_bytes);
        (of_bytes > 0).then_some(ReplicaReport { compared_bytes, of_bytes, mode })
    }

    /// Returns the bytes that senders have read to compare all of them, and their total.
    pub(super) fn progress(&self, roster: &Roster) -> Option<(u64, u64)> {
        if !self.compares_all || self.of_bytes == 0 {
            return None;
        }
        let counts = NodeCounts::of(roster, &self.spans(), Span::bytes);
        Some((
            self.read_bytes.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)),
            counts.sum,
        ))
    }

    fn spans(&self) -> Vec<Span> {
        self.ranges.iter().map(|range| range.span).collect()
    }
}

/// Returns the error for two nodes that offer different bytes.
fn difference(
    roster: &Roster,
    one: NodeIx,
    other: NodeIx,
    range: &ReplicaRange,
    part: usize,
    seed: &ReplicaSeed,
) -> Error {
    let extent = range.extent_of(part, seed);
    let (one, other) = (&roster.get(one).address, &roster.get(other).address);
    let what =
        format!("{one} and {other} offer different bytes within {extent}: the replicas differ");
    Error::new(Code::Integrity, what).remedy("compare the writers' files").missing(vec![extent])
}

/// Returns the rows of a node that offer bytes.
fn sources(entry: &RosterEntry) -> impl Iterator<Item = &Row> {
    entry.rows.iter().filter(|row| row.role == RowRole::Sender)
}

/// Returns the identity of a row's bytes: the node and URI they come from, and the byte at position
/// 0.
///
/// A pattern is the same on every node, and depends on the position alone.
fn source_of(node: usize, row: &Row) -> (usize, &DataUri, u64) {
    match row.uri {
        DataUri::Pattern(_) => (usize::MAX, &row.uri, 0),
        _ => (node, &row.uri, row.offset_bytes.wrapping_sub(row.range.start)),
    }
}

/// Returns the number of sources of one node that hold a range.
fn source_count(entry: &RosterEntry, span: Span) -> usize {
    let rows = sources(entry).filter(|row| row.range.contains(span));
    rows.map(|row| source_of(0, row)).collect::<BTreeSet<_>>().len()
}

/// Returns the ranges that several sources offer and some receiver wants, cut at the boundaries of
/// rows, ascending.
fn overlaps(roster: &Roster) -> Vec<Span> {
    let mut offered: BTreeMap<_, Vec<Span>> = BTreeMap::new();
    let mut edges: Vec<(u64, i64)> = Vec::new();
    for (node, entry) in roster.entries.iter().enumerate() {
        for row in sources(entry) {
            offered.entry(source_of(node, row)).or_default().push(row.range);
            edges.extend([(row.range.start, 0), (row.range.end, 0)]);
        }
    }
    // A source that several rows offer is one source.
    let spans = offered.into_values().flat_map(union);
    edges.extend(spans.flat_map(|span| [(span.start, 1), (span.end, -1)]));
    edges.sort_unstable();
    let wanted = roster.wanted();
    let (mut depth, mut start, mut shared) = (0, 0, Vec::new());
    for (position, step) in edges {
        if depth > 1 && start < position {
            let whole = Span::new(start, position);
            let first = wanted.partition_point(|span| span.end <= whole.start);
            shared.extend(wanted[first..].iter().map_while(|span| span.intersection(whole)));
        }
        (depth, start) = (depth + step, position);
    }
    shared
}

/// Returns the receivers that want bytes of `spans`, which several sources offer, where another
/// receiver wants the same bytes. Members of a group receive no byte twice, and discarded data has
/// no name to wait with.
fn waiting(roster: &Roster, spans: &[Span]) -> BTreeSet<NodeIx> {
    let wanted = |entry: &RosterEntry| {
        let rows =
            entry.rows.iter().filter(|row| row.role == RowRole::Receiver && row.group.is_none());
        union(rows.map(|row| row.range).collect())
    };
    let mut edges: Vec<(u64, i64)> = Vec::new();
    for entry in &roster.entries {
        edges.extend(wanted(entry).into_iter().flat_map(|span| [(span.start, 1), (span.end, -1)]));
    }
    edges.sort_unstable();
    let (mut depth, mut start, mut both) = (0, 0, Vec::new());
    for (position, step) in edges {
        if depth > 1 && start < position {
            let whole = Span::new(start, position);
            let first = spans.partition_point(|span| span.end <= whole.start);
            both.extend(spans[first..].iter().map_while(|span| span.intersection(whole)));
        }
        (depth, start) = (depth + step, position);
    }
    let both = union(both);
    let meets = |span: Span| {
        both.get(both.partition_point(|it| it.end <= span.start))
            .is_some_and(|it| it.start < span.end)
    };
    let keeps = |entry: &RosterEntry| {
        entry.rows.iter().any(|row| row.role == RowRole::Receiver && row.uri != DataUri::Null)
    };
    let waits =
        roster.nodes().filter(|(_, entry)| keeps(entry) && wanted(entry).into_iter().any(meets));
    waits.map(|(node, _)| node).collect()
}

/// Sums over the ranges of each node.
struct NodeCounts {
    /// The node with the largest sum.
    node: NodeIx,
    most: u64,
    sum: u64,
}

impl NodeCounts {
    /// Sums `count` over the ranges of each node.
    fn of(roster: &Roster, spans: &[Span], count: impl Fn(Span) -> u64) -> NodeCounts {
        let sums = spans.iter().scan(0_u64, |sum, &span| {
            *sum += count(span);
            Some(*sum)
        });
        let sums: Vec<u64> = std::iter::once(0).chain(sums).collect();
        let mut counts = NodeCounts { node: NodeIx(0), most: 0, sum: 0 };
        for (node, entry) in roster.nodes() {
            let offered = union(sources(entry).map(|row| row.range).collect());
            let own = offered.into_iter().map(|offered| {
                let first = spans.partition_point(|span| span.start < offered.start);
                let end = first + spans[first..].partition_point(|span| span.end <= offered.end);
                sums[end] - sums[first]
            });
            let own: u64 = own.sum();
            counts.sum = counts.sum.saturating_add(own);
            if own > counts.most {
                (counts.node, counts.most) = (node, own);
            }
        }
        counts
    }
}

fn whole(roster: &Roster, spans: &[Span]) -> Vec<ReplicaRange> {
    let values = values_max(roster, spans, VALUES_MAX_ALL);
    let range = |&span: &Span| ReplicaRange { span, places: 0, values_max: fitting(span, values) };
    spans.iter().map(range).collect()
}

/// Returns the sampled places of each range, limited by what a node may read.
fn sample(roster: &Roster, spans: &[Span]) -> Vec<ReplicaRange> {
    let values = values_max(roster, spans, VALUES_MAX_SAMPLE);
    let wanted = |span: Span| {
        let places = (span.bytes() / BYTES_EACH / PLACE_BYTES).clamp(PLACES_MIN, PLACES_MAX);
        places.min(span.bytes().div_ceil(PLACE_BYTES))
    };
    let (ranges, places) =
        (NodeCounts::of(roster, spans, |_| 1).most, NodeCounts::of(roster, spans, wanted).most);
    let least = (NODE_PLACES_MAX / ranges.max(1)).clamp(2, PLACES_MIN);
    let range = |&span: &Span| {
        let mut count = wanted(span);
        if places > NODE_PLACES_MAX {
            count = (count * NODE_PLACES_MAX / places).max(least.min(count)).max(2);
        }
        let places = u32::try_from(count.max(2)).expect("a few hundred at most");
        ReplicaRange { span, places, values_max: fitting(span, values) }
    };
    spans.iter().map(range).collect()
}

/// Returns the number of values for each range, so that every node's answer fits into a message.
fn values_max(roster: &Roster, spans: &[Span], most: u64) -> u64 {
    let ranges = NodeCounts::of(roster, spans, |_| 1).most;
    (NODE_VALUES_MAX / ranges.max(1)).clamp(1, most)
}

/// Limits the number of values to the places of a range.
fn fitting(span: Span, values: u64) -> u32 {
    u32::try_from(values.min(span.bytes().div_ceil(PLACE_BYTES))).expect("a few hundred at most")
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod tests;
