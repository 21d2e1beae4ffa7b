//! Cutting the data space: at every row boundary, one sweep from left to right.

use std::collections::BTreeMap;

use super::Problem;
use crate::error::{Code, Error, Result};
use crate::units::{NodeIx, Span, union};

/// A range between two neighbouring row boundaries, with one set of senders and one set of receivers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) span: Span,
    /// Who offers it, ascending, each once; never empty.
    pub(crate) senders: Vec<NodeIx>,
    /// Who wants it, ascending, each once; never empty.
    pub(crate) receivers: Vec<NodeIx>,
}

impl Segment {
    /// The receivers that have to fetch it from another node.
    pub(crate) fn remote_receivers(&self) -> impl Iterator<Item = NodeIx> {
        self.receivers.iter().copied().filter(|receiver| self.senders.binary_search(receiver).is_err())
    }

    /// Bytes that have to cross the network for it.
    pub(crate) fn demand_bytes(&self) -> u64 {
        self.span.bytes() * self.remote_receivers().count() as u64
    }
}

/// How many rows of each node cover the place where the sweep stands.
type Cover = BTreeMap<NodeIx, u32>;

/// One row that starts or ends at a boundary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    position: u64,
    offers: bool,
    starts: bool,
    node: NodeIx,
}

/// Cuts the wanted parts of the data space into segments, ascending. Work grows with the incidences of segments and
/// nodes, which is the size of the answer.
pub(super) fn cut(problem: &Problem) -> Result<Vec<Segment>> {
    let mut edges = Vec::with_capacity(2 * (problem.offers.len() + problem.wants.len()));
    for (rows, offers) in [(&problem.offers, true), (&problem.wants, false)] {
        for &(node, span) in rows.iter().filter(|(_, span)| !span.is_empty()) {
            edges.push(Edge { position: span.start, offers, starts: true, node });
            edges.push(Edge { position: span.end, offers, starts: false, node });
        }
    }
    edges.sort_unstable();

    let (mut senders, mut receivers) = (Cover::new(), Cover::new());
    let (mut segments, mut unserved) = (Vec::new(), Vec::new());
    let mut last = 0;
    for edge in edges {
        if edge.position > last && !receivers.is_empty() {
            let span = Span::new(last, edge.position);
            if senders.is_empty() {
                unserved.push(span);
            } else {
                let (senders, receivers) = (senders.keys().copied().collect(), receivers.keys().copied().collect());
                segments.push(Segment { span, senders, receivers });
            }
        }
        last = edge.position;
        step(if edge.offers { &mut senders } else { &mut receivers }, edge);
    }
    if unserved.is_empty() { Ok(segments) } else { Err(nobody_offers(unserved)) }
}

fn step(cover: &mut Cover, edge: Edge) {
    let rows = cover.entry(edge.node).or_insert(0);
    if edge.starts {
        *rows += 1;
    } else {
        assert!(*rows > 0, "a row ends before it starts");
        *rows -= 1;
        if *rows == 0 {
            cover.remove(&edge.node);
        }
    }
}

fn nobody_offers(unserved: Vec<Span>) -> Error {
    let missing = union(unserved);
    let named: Vec<String> = missing.iter().take(4).map(ToString::to_string).collect();
    let more = if missing.len() > 4 { format!(" and {} more", missing.len() - 4) } else { String::new() };
    Error::new(Code::Usage, format!("a reader wants {}{more}, which no writer offers", named.join(", ")))
        .remedy("add a writer row for it, or want less")
        .missing(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(offers: &[(u32, u64, u64)], wants: &[(u32, u64, u64)]) -> Problem {
        let rows = |rows: &[(u32, u64, u64)]| rows.iter().map(|&(n, s, e)| (NodeIx(n), Span::new(s, e))).collect();
        Problem { nodes: Vec::new(), offers: rows(offers), wants: rows(wants) }
    }

    #[test]
    fn figure_2_has_four_segments_with_one_sender_each() {
        let offers = [(0, 0, 1024), (1, 1024, 2048), (2, 2048, 3072), (3, 3072, 4096)];
        let segments = cut(&problem(&offers, &[(4, 0, 2048), (5, 2048, 4096), (6, 0, 4096)])).expect("servable");
        let spans: Vec<Span> = segments.iter().map(|segment| segment.span).collect();
        assert_eq!(spans, [Span::new(0, 1024), Span::new(1024, 2048), Span::new(2048, 3072), Span::new(3072, 4096)]);
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
}
