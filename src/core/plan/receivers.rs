//! Index of a plan by receiver. With it, the messages to all receivers take work in proportion to
//! their total size, not to the size of the plan times the receivers.

use super::PlannedSegment;
use crate::core::units::NodeIx;

/// The segments of every receiver, in two flat lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByReceiver {
    /// Start of each node's indices in `places`; one entry more than there are nodes.
    firsts: Vec<u32>,
    /// Indices of segments in the plan, grouped by node and ascending within each node.
    places: Vec<u32>,
}

impl ByReceiver {
    /// Creates the index of a plan for `node_count` nodes.
    pub(crate) fn of(planned: &[PlannedSegment], node_count: usize) -> ByReceiver {
        let receivers = || planned.iter().map(|planned| &planned.segment.receivers);
        let mut firsts = vec![0; node_count + 1];
        for receiver in receivers().flatten() {
            firsts[receiver.at() + 1] += 1;
        }
        for at in 1..firsts.len() {
            firsts[at] += firsts[at - 1];
        }
        let mut next = firsts.clone();
        let mut places = vec![0; firsts[node_count] as usize];
        for (place, receivers) in (0..).zip(receivers()) {
            for receiver in receivers {
                places[next[receiver.at()] as usize] = place;
                next[receiver.at()] += 1;
            }
        }
        ByReceiver { firsts, places }
    }

    /// Returns the segments of `planned` that `receiver` wants, ascending. `planned` must be the
    /// plan of the index.
    pub(crate) fn segments<'a>(
        &'a self,
        planned: &'a [PlannedSegment],
        receiver: NodeIx,
    ) -> impl Iterator<Item = &'a PlannedSegment> {
        self.places(receiver).map(|place| &planned[place])
    }

    /// Returns the indices of the segments that `receiver` wants, ascending.
    pub(crate) fn places(&self, receiver: NodeIx) -> impl ExactSizeIterator<Item = usize> {
        let own = self.firsts[receiver.at()] as usize..self.firsts[receiver.at() + 1] as usize;
        self.places[own].iter().map(|place| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::plan::Segment;
    use crate::core::units::Span;

    #[test]
    fn every_receiver_finds_its_segments_in_order() {
        let planned = |start, receivers: &[u32]| PlannedSegment {
            segment: Segment {
                span: Span::of(start, 10),
                senders: vec![NodeIx(0)],
                receivers: receivers.iter().copied().map(NodeIx).collect(),
                groups: Vec::new(),
            },
            weights: vec![1.0],
            own: Vec::new(),
            relays: Vec::new(),
        };
        let plan =
            [planned(0, &[1, 3]), planned(10, &[3]), planned(20, &[1, 2, 3]), planned(30, &[2])];
        let index = ByReceiver::of(&plan, 5);
        let starts =
            |node| index.segments(&plan, NodeIx(node)).map(|planned| planned.segment.span.start);
        let found: Vec<Vec<u64>> = (0..5).map(|node| starts(node).collect()).collect();
        assert_eq!(found, [vec![], vec![0, 20], vec![20, 30], vec![0, 10, 20], vec![]]);
        assert_eq!(ByReceiver::of(&[], 2).segments(&[], NodeIx(1)).count(), 0);
    }
}
