//! Second requests: pieces of a late flow that another flow is asked for, too, and their budget.

use std::collections::BTreeSet;

use super::extent_map::ExtentMap;
use super::flow_leases::LateFlow;
use crate::core::piece::Piece;
use crate::core::units::{NodeIx, Span};

/// Blocks that may always be requested twice.
const TWICE_BLOCKS: u64 = 2;
/// One byte in so many may be requested twice: rates are guesses.
const TWICE_PART: u64 = 100;
/// One byte in so many may be where the late flow needs `TWICE_SECONDS` for its pieces.
const TWICE_PART_LONG: u64 = 8;
/// Time for which a late flow's pieces are worth waste: below it, rates are too rough to tell.
const TWICE_SECONDS: f64 = 0.25;

/// Pieces that were requested from two flows. The extent map keeps the first copy that lands; the
/// other one is wasted.
#[derive(Default)]
pub(super) struct SecondRequests {
    /// Positions of the pieces.
    positions: BTreeSet<u64>,
}

impl SecondRequests {
    /// Takes a piece of `late` that `sender` offers, to be requested a second time. A few blocks
    /// may always be; more only where the wait is long, for then the sender brings more in the time
    /// that is saved than is wasted.
    pub(super) fn take(
        &mut self,
        late: &LateFlow<'_>,
        sender: NodeIx,
        extents: &ExtentMap,
    ) -> Option<Span> {
        let is_free = |piece: &&Piece| {
            let (segment, index) = extents.place(piece.span);
            !self.positions.contains(&piece.span.start)
                && !extents.is_settled_piece(segment, index)
                && extents.offers(sender, segment)
        };
        let piece = late.leased.iter().rev().find(is_free)?.span;
        let block_bytes = extents.grid().block_bytes();
        let part = if late.seconds < TWICE_SECONDS { TWICE_PART } else { TWICE_PART_LONG };
        let allowed = (TWICE_BLOCKS * block_bytes).max(extents.wanted_bytes() / part);
        if (self.positions.len() as u64 + 1) * block_bytes > allowed {
            return None;
        }
        self.positions.insert(piece.start);
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::block_grid::BlockGrid;
    use crate::core::check::CheckMethod;
    use crate::core::piece::FlowIx;

    const A: NodeIx = NodeIx(0);

    fn extents(pieces: u64) -> ExtentMap {
        let segment = (Span::new(0, pieces * 10), vec![A]);
        ExtentMap::new(BlockGrid::new(0, 10), CheckMethod::None, [segment].into_iter())
    }

    /// Number of pieces that may be requested twice of a flow that is late by `seconds`, in a
    /// transfer of `pieces`.
    fn count(pieces: u64, seconds: f64) -> usize {
        let leased: Vec<Piece> =
            (0..pieces).map(|at| Piece { span: Span::of(at * 10, 10), stolen: false }).collect();
        let late = LateFlow { flow: FlowIx(1), seconds, leased: &leased };
        let (extents, mut requests) = (extents(pieces), SecondRequests::default());
        let mut taken = BTreeSet::new();
        while let Some(piece) = requests.take(&late, A, &extents) {
            assert!(taken.insert(piece), "{piece} is requested a third time");
        }
        taken.len()
    }

    #[test]
    fn a_few_pieces_may_always_be_and_more_where_much_time_is_saved() {
        assert_eq!(count(1, 0.1), 1);
        assert_eq!(count(10, 0.1), 2);
        assert_eq!(count(1000, 0.1), 10);
        assert_eq!(count(1000, 1.0), 125);
    }

    #[test]
    fn a_piece_that_has_landed_or_is_not_offered_is_not_requested_again() {
        let leased = [Piece { span: Span::new(0, 10), stolen: false }];
        let late = LateFlow { flow: FlowIx(1), seconds: 1.0, leased: &leased };
        let (mut extents, mut requests) = (extents(2), SecondRequests::default());
        assert_eq!(requests.take(&late, NodeIx(7), &extents), None);
        extents.land(leased[0].span, crate::core::wire::Check::None);
        assert_eq!(requests.take(&late, A, &extents), None);
    }
}
