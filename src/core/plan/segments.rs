//! Segments: the data space is cut at every row boundary, in one sweep from left to right.

use std::collections::BTreeMap;

use super::{GroupIx, PlanProblem};
use crate::core::error::{Code, Error, Result};
use crate::core::units::{NodeIx, Span, union};

/// Limit on the senders and receivers of all segments together, by which a plan's size and work
/// grow. Two million nodes in segments of twenty senders and twenty receivers would need more; at
/// 16 bytes each this limits a plan to a quarter of a gigabyte.
pub(super) const INCIDENCES_MAX: usize = 1 << 24;

/// A range between two neighbouring row boundaries, with one set of senders and one set of
/// receivers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) span: Span,
    /// Nodes that offer it, ascending, each once; never empty.
    pub(crate) senders: Vec<NodeIx>,
    /// Nodes that want it, ascending, each once.
    pub(crate) receivers: Vec<NodeIx>,
    /// Groups that want it once each: their members, ascending, none of them a sender or a receiver
    /// of the segment. Empty in a plan, where a member has become a receiver.
    pub(crate) groups: Vec<Vec<NodeIx>>,
}

impl Segment {
    /// Returns the receivers that must fetch it from another node.
    pub(crate) fn remote_receivers(&self) -> impl Iterator<Item = NodeIx> {
        self.receivers
            .iter()
            .copied()
            .filter(|receiver| self.senders.binary_search(receiver).is_err())
    }

    fn incidences(&self) -> usize {
        self.senders.len() + self.receivers.len() + self.groups.iter().map(Vec::len).sum::<usize>()
    }
}

/// Effect of a row on a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RowKind {
    Want,
    GroupWant(GroupIx),
    Offer,
}

/// One row that starts or ends at a boundary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowEdge {
    position: u64,
    kind: RowKind,
    starts: bool,
    node: NodeIx,
}

/// Rows that cover the current position of the sweep, counted by node.
#[derive(Default)]
struct SegmentCover {
    offers: BTreeMap<NodeIx, u32>,
    wants: BTreeMap<NodeIx, u32>,
    group_wants: BTreeMap<(GroupIx, NodeIx), u32>,
}

/// Cuts the wanted parts of the data space into segments, ascending. Work grows with the incidences
/// of segments and nodes, which is the size of the result.
pub(super) fn cut(problem: &PlanProblem) -> Result<Vec<Segment>> {
    let mut cover = SegmentCover::default();
    let (mut segments, mut unserved) = (Vec::new(), Vec::new());
    let (mut last, mut incidences) = (0, 0);
    for edge in edges(problem) {
        if edge.position > last && cover.is_wanted() {
            let segment = cover.segment(Span::new(last, edge.position));
            if let Some(node) = cover.in_two_groups() {
                return Err(two_groups(problem, node, segment.span));
            }
            incidences += segment.incidences();
            if incidences > INCIDENCES_MAX {
                return Err(too_many(problem, &segment));
            }
            if segment.senders.is_empty() {
                unserved.push(segment.span);
            } else {
                segments.push(segment);
            }
        }
        last = edge.position;
        cover.step(edge);
    }
    if unserved.is_empty() { Ok(segments) } else { Err(nobody_offers(unserved)) }
}

fn edges(problem: &PlanProblem) -> Vec<RowEdge> {
    let offers = problem.offers.iter().map(|&(node, span)| (RowKind::Offer, node, span));
    let wants = problem.wants.iter().map(|&(node, span)| (RowKind::Want, node, span));
    let group_wants = problem
        .group_wants
        .iter()
        .map(|&(group, node, span)| (RowKind::GroupWant(group), node, span));
    let mut edges = Vec::with_capacity(
        2 * (problem.offers.len() + problem.wants.len() + problem.group_wants.len()),
    );
    for (kind, node, span) in
        offers.chain(wants).chain(group_wants).filter(|(_, _, span)| !span.is_empty())
    {
        edges.push(RowEdge { position: span.start, kind, starts: true, node });
        edges.push(RowEdge { position: span.end, kind, starts: false, node });
    }
    edges.sort_unstable_by_key(|edge| edge.position);
    edges
}

impl SegmentCover {
    fn is_wanted(&self) -> bool {
        !self.wants.is_empty() || !self.group_wants.is_empty()
    }

    fn step(&mut self, edge: RowEdge) {
        match edge.kind {
            RowKind::Offer => step(&mut self.offers, edge.node, edge.starts),
            RowKind::Want => step(&mut self.wants, edge.node, edge.starts),
            RowKind::GroupWant(group) => {
                step(&mut self.group_wants, (group, edge.node), edge.starts);
            }
        }
    }

    /// Returns a node that wants this position for two groups. Its bytes would serve both, and no
    /// flow could express that.
    fn in_two_groups(&self) -> Option<NodeIx> {
        let mut nodes: Vec<NodeIx> = self.group_wants.keys().map(|(_, node)| *node).collect();
        nodes.sort_unstable();
        nodes.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    fn segment(&self, span: Span) -> Segment {
        let (senders, receivers) =
            (self.offers.keys().copied().collect(), self.wants.keys().copied().collect());
        let mut segment = Segment { span, senders, receivers, groups: Vec::new() };
        let members: Vec<(GroupIx, NodeIx)> = self.group_wants.keys().copied().collect();
        let mut served = Vec::new();
        for group in members.chunk_by(|a, b| a.0 == b.0) {
            let has = |list: &[NodeIx]| {
                group.iter().map(|(_, node)| *node).find(|node| list.binary_search(node).is_ok())
            };
            if has(&segment.receivers).is_some() {
                // A member that wants it for itself serves its group as well.
                continue;
            }
            match (has(&segment.senders), group) {
                // A member that has it copies it locally; nothing crosses the network.
                (Some(node), _) | (None, &[(_, node)]) => served.push(node),
                (None, _) => segment.groups.push(group.iter().map(|(_, node)| *node).collect()),
            }
        }
        if !served.is_empty() {
            segment.receivers.append(&mut served);
            segment.receivers.sort_unstable();
            segment.receivers.dedup();
        }
        segment
    }
}

fn step<Key: Ord>(cover: &mut BTreeMap<Key, u32>, key: Key, starts: bool) {
    use std::collections::btree_map::Entry;
    match (cover.entry(key), starts) {
        (Entry::Vacant(entry), true) => _ = entry.insert(1),
        (Entry::Vacant(_), false) => panic!("a row ends before it starts"),
        (Entry::Occupied(mut entry), true) => *entry.get_mut() += 1,
        (Entry::Occupied(entry), false) if *entry.get() == 1 => _ = entry.remove(),
        (Entry::Occupied(mut entry), false) => *entry.get_mut() -= 1,
    }
}

fn nobody_offers(unserved: Vec<Span>) -> Error {
    let missing = union(unserved);
    let named: Vec<String> = missing.iter().take(4).map(ToString::to_string).collect();
    let more =
        if missing.len() > 4 { format!(" and {} more", missing.len() - 4) } else { String::new() };
    Error::new(
        Code::Usage,
        format!("a reader wants {}{more}, which no writer offers", named.join(", ")),
    )
    .remedy("add a writer row for it, or want less")
    .missing(missing)
}

fn two_groups(problem: &PlanProblem, node: NodeIx, span: Span) -> Error {
    let node = &problem.nodes[node.at()];
    let what = format!("{}{} wants bytes {span} for two groups", node.place(), node.name);
    Error::new(Code::Usage, what).remedy("name one group in its rows, or different ranges")
}

fn too_many(problem: &PlanProblem, segment: &Segment) -> Error {
    let nodes =
        segment.senders.iter().chain(&segment.receivers).chain(segment.groups.iter().flatten());
    let node = &problem.nodes[nodes.last().expect("a segment has receivers").at()];
    let what = format!(
        "{}the rows overlap too much for one plan: where the rows of {} and {} others meet, at \
         bytes {}, its list of senders and receivers passes {INCIDENCES_MAX} entries",
        node.place(),
        node.name,
        segment.incidences() - 1,
        segment.span
    );
    Error::new(Code::Usage, what).remedy("cut rows at the same positions, or split the transfer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(offers: &[(u32, u64, u64)], wants: &[(u32, u64, u64)]) -> PlanProblem {
        let rows = |rows: &[(u32, u64, u64)]| {
            rows.iter().map(|&(n, s, e)| (NodeIx(n), Span::new(s, e))).collect()
        };
        PlanProblem { offers: rows(offers), wants: rows(wants), ..PlanProblem::default() }
    }

    #[test]
    fn figure_2_has_four_segments_with_one_sender_each() {
        let offers = [(0, 0, 1024), (1, 1024, 2048), (2, 2048, 3072), (3, 3072, 4096)];
        let segments = cut(&problem(&offers, &[(4, 0, 2048), (5, 2048, 4096), (6, 0, 4096)]))
            .expect("servable");
        let spans: Vec<Span> = segments.iter().map(|segment| segment.span).collect();
        assert_eq!(
            spans,
            [
                Span::new(0, 1024),
                Span::new(1024, 2048),
                Span::new(2048, 3072),
                Span::new(3072, 4096)
            ]
        );
        assert_eq!(segments[1].senders, [NodeIx(1)]);
        assert_eq!(segments[1].receivers, [NodeIx(4), NodeIx(6)]);
    }

    #[test]
    fn rows_of_one_node_that_overlap_count_once() {
        let segments = cut(&problem(&[(0, 0, 10), (0, 5, 15)], &[(1, 0, 15)])).expect("servable");
        assert!(segments.iter().all(|segment| segment.senders == [NodeIx(0)]));
        assert_eq!(segments.iter().map(|segment| segment.span.bytes()).sum::<u64>(), 15);
    }

    #[test]
    fn what_nobody_offers_is_named() {
        let error = cut(&problem(&[(0, 0, 10), (0, 20, 30)], &[(1, 5, 40)])).expect_err("a gap");
        assert_eq!(error.code, Code::Usage);
        assert_eq!(error.missing, [Span::new(10, 20), Span::new(30, 40)]);
        assert!(error.message.contains("10-19, 30-39"), "{}", error.message);
    }

    #[test]
    fn a_group_wants_each_byte_once_and_takes_what_a_member_has() {
        let mut problem = problem(&[(0, 0, 40), (2, 30, 40)], &[(3, 0, 10)]);
        let group = GroupIx(0);
        problem.group_wants = [1, 2, 3].map(|node| (group, NodeIx(node), Span::new(0, 40))).into();
        let segments = cut(&problem).expect("servable");
        let facts =
            |segment: &Segment| (segment.span, segment.receivers.clone(), segment.groups.clone());
        let members = vec![vec![NodeIx(1), NodeIx(2), NodeIx(3)]];
        // Node 3 wants the start for itself; node 2 has the end.
        assert_eq!(facts(&segments[0]), (Span::new(0, 10), vec![NodeIx(3)], vec![]));
        assert_eq!(facts(&segments[1]), (Span::new(10, 30), vec![], members));
        assert_eq!(facts(&segments[2]), (Span::new(30, 40), vec![NodeIx(2)], vec![]));
    }

    #[test]
    fn rows_that_all_overlap_are_refused_before_they_fill_the_memory() {
        let windows = |first: u32| {
            (0..6000)
                .map(move |n| (NodeIx(first + n), Span::new(u64::from(n), 10_000 + u64::from(n))))
        };
        let node = |n: u32| crate::core::plan::NodeCapacity {
            name: format!("n{n}:1"),
            line: n + 2,
            ..Default::default()
        };
        let nodes = (0..12_000).map(node);
        let problem = PlanProblem {
            nodes: nodes.collect(),
            offers: windows(0).collect(),
            wants: windows(6000).collect(),
            ..PlanProblem::default()
        };
        let error = cut(&problem).expect_err("72 million incidences");
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.contains("others meet, at bytes"), "{error}");
        let place = error
            .message
            .split_once(": the rows overlap too much")
            .map(|(place, _)| place.to_owned());
        let node = error
            .message
            .split_once("the rows of n")
            .and_then(|(_, rest)| rest.split(':').next()?.parse().ok());
        assert_eq!(place, node.map(|node: u32| format!("line {}", node + 2)), "{error}");
    }
}
